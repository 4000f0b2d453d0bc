import argparse
import datetime
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from audiopg.training.publishing.weight_files import read_checkpoint

WEIGHTS = {"cls_token": torch.full((1, 1, 4), 2.0), "blocks.0.norm1.weight": torch.arange(4.0)}


def prefixed(prefix):
    return {f"{prefix}{name}": weight for name, weight in WEIGHTS.items()}


READABLE = {
    "bare": WEIGHTS,
    "ordered": OrderedDict(WEIGHTS),
    "research": {"model_state_dict": WEIGHTS, "optimizer_state_dict": {"state": {}, "param_groups": []}, "epoch": 3},
    "audiomae": {"model": WEIGHTS, "args": argparse.Namespace(lr=1e-4, output_dir=Path("runs")), "epoch": 3},
    "lightning": {"state_dict": WEIGHTS, "global_step": 7},
    "another name": {"network": WEIGHTS, "loss": 0.5},
    "data parallel": {"model": prefixed("module.")},
    "compiled": prefixed("_orig_mod."),
    "both": {"model": prefixed("module._orig_mod.")},
    "both, the other way": prefixed("_orig_mod.module."),
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("kind", READABLE)
def test_weights_are_found_wherever_training_scripts_keep_them(kind, legacy, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(READABLE[kind], path, _use_new_zipfile_serialization=not legacy)
    found = read_checkpoint(path)
    assert found.keys() == WEIGHTS.keys()
    assert all(torch.equal(found[name], weight) for name, weight in WEIGHTS.items())


@pytest.mark.parametrize("prefix", ["", "model_state_dict.", "module.", "model._orig_mod."])
def test_safetensors_are_read_with_every_prefix(prefix, tmp_path):
    beside = {"loss": torch.ones(1)} if prefix.startswith("model") else {}
    save_file({**prefixed(prefix), **beside}, tmp_path / "a.safetensors")
    assert read_checkpoint(tmp_path / "a.safetensors").keys() == WEIGHTS.keys()


class Foreign:
    """Runs nothing here, but could."""


UNREADABLE = {
    "numpy": ({"model": WEIGHTS, "best": np.float64(0.5)}, "numpy"),
    "a class": ({"model": WEIGHTS, "config": Foreign()}, "Foreign"),
    "a module": (torch.nn.Linear(2, 2), "Linear"),
    "a date": ({"model": WEIGHTS, "when": datetime.timedelta(1)}, "timedelta"),
    "no weights": ({"weights": {}}, r"got \['weights'\]"),
    "numbers": ({"model": {"cls_token": 3}}, r"got \['model'\]"),
    "two models": ({"teacher": WEIGHTS, "student": WEIGHTS}, r"got \['student', 'teacher'\]"),
    "a list": ([torch.zeros(2)], "got list"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_what_holds_more_than_weights_is_refused_in_one_sentence(kind, tmp_path):
    content, words = UNREADABLE[kind]
    torch.save(content, tmp_path / "weights.pth")
    check_refused(tmp_path / "weights.pth", words)


DAMAGED = {
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 3\n", "Git LFS pointer"),
    "empty": (b"", "is empty"),
    "a page": (b"<!DOCTYPE html><title>404</title>", "download it again"),
    "zeros": (bytes(1000), "download it again"),
}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".bin"])
@pytest.mark.parametrize("kind", DAMAGED)
def test_what_is_no_file_of_weights_is_refused_in_one_sentence(kind, suffix, tmp_path):
    content, words = DAMAGED[kind]
    (tmp_path / f"weights{suffix}").write_bytes(content)
    check_refused(tmp_path / f"weights{suffix}", words)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_half_a_download_is_refused_in_one_sentence(share, tmp_path):
    torch.save(WEIGHTS, tmp_path / "a.pth")
    save_file(WEIGHTS, tmp_path / "a.safetensors")
    for path in (tmp_path / "a.pth", tmp_path / "a.safetensors"):
        content = path.read_bytes()
        path.write_bytes(content[: round(share * len(content))])
        check_refused(path, "download it again")


def test_an_absent_file_is_refused(tmp_path):
    check_refused(tmp_path / "nowhere.pth", "there is none")


def check_refused(path, words):
    with pytest.raises(ValueError, match=words) as refusal:
        read_checkpoint(path)
    message = str(refusal.value)
    assert path.name in message
    assert "weights_only" not in message
    assert "\n" not in message
