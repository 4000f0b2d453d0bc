"""The door of the benchmarks' own kits; what needs X-ARES or MTEB is in `tests/integration`."""

import importlib.util
import json
import sys

import numpy as np
import pytest
import soundfile
import torch

from audiopg import AudioPGConfig, AudioPGFeatureExtractor, AudioPGForPreTraining
from audiopg.training.benchmark_kits import main

SIZES = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "decoder_num_hidden_layers": 1}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    AudioPGForPreTraining(AudioPGConfig(**SIZES)).save_pretrained(path)
    AudioPGFeatureExtractor().save_pretrained(path)
    return str(path)


@pytest.mark.filterwarnings("ignore:We suggest a interval")
def test_hear_s_validator_runs_then_probes_and_what_they_found_is_kept(checkpoint, tmp_path):
    if importlib.util.find_spec("hearvalidator") is None:
        pytest.skip("needs hearvalidator")
    rng = np.random.default_rng(0)
    for clip in range(20):
        place = tmp_path / "tones" / ("low", "high")[clip % 2]
        place.mkdir(parents=True, exist_ok=True)
        f0 = rng.uniform(*((200, 400), (2000, 4000))[clip % 2])
        soundfile.write(place / f"{clip}.wav", 0.3 * np.sin(2 * np.pi * f0 * np.arange(8000) / 16000), 16000)
    main(["hear", checkpoint, "--data_dir", str(tmp_path / "tones"), "--output", str(tmp_path / "new/results.json")])
    report = json.loads((tmp_path / "new/results.json").read_text())
    assert report["results"]["validator"] == "passed"
    assert report["results"]["tones"]["pre-trained encoder"] > 0.9
    assert report["kit"] == "hear"
    assert {"hardware", "versions"} <= report.keys()


@pytest.mark.parametrize(
    ("arguments", "missing", "message"),
    [
        (["xares", "--data_dir", "FOLDER"], "xares", "pip install 'audiopg[kits]'"),
        (["mteb", "--tasks", "ESC50"], "mteb", "pip install 'audiopg[kits]'"),
        (["hear"], "hearvalidator", "pip install --no-deps hearvalidator"),
        (["xares"], None, "--data_dir is the folder that X-ARES is run in, one of them; got 0"),
        (["mteb"], None, "give one"),
        (["mteb", "--tasks", "ESC50", "--data_dir", "FOLDER"], None, "give one"),
        (["hear", "--tasks", "esc50"], None, "HEAR's tasks are folders"),
        (["hear", "--data_dir", "nowhere"], None, "nowhere"),
        (["evar", "--data_dir", "FOLDER"], None, "EVAR takes names of its tasks"),
        (["evar", "--data_dir", "FOLDER", "--tasks", "esc50"], None, "git clone https://github.com/nttcslab"),
    ],
)
def test_what_is_missing_is_named_with_its_remedy(
    checkpoint, tmp_path, monkeypatch, capsys, arguments, missing, message
):
    if missing:
        find = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else find(name))
        monkeypatch.setitem(sys.modules, missing, None)
        monkeypatch.delitem(sys.modules, f"{missing}.validate", raising=False)
    words = [str(tmp_path) if word == "FOLDER" else word for word in arguments]
    with pytest.raises(SystemExit) as stop:
        main([words[0], checkpoint, *words[1:]])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_a_checkpoint_that_is_not_there_is_named(tmp_path, capsys):
    (tmp_path / "lineareval.py").touch()
    with pytest.raises(SystemExit) as stop:
        main(["evar", str(tmp_path / "none"), "--data_dir", str(tmp_path), "--tasks", "esc50"])
    assert stop.value.code == 2
    assert str(tmp_path / "none") in capsys.readouterr().err
