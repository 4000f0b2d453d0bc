"""Several processes, and what they agree on. Those that share a run are started by torchrun, as a user would."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from toys import torchrun

from audiopg.training import pretrain as door
from audiopg.training.engine import processes
from audiopg.training.engine.processes import (
    build_accelerator,
    on_main_process,
    one_order_of_sums,
    resolve_precision,
)
from audiopg.training.objectives.pretraining import pretrain
from audiopg.training.runs.metrics_log import read_metrics


@pytest.mark.slow
def test_four_processes_start_one_run_measure_once_and_see_the_clips_of_one(tmp_path, toy_run):
    done = torchrun(4, door.__file__, toy_run / "recipe.yaml", "--output_dir", tmp_path / "run")
    assert done.returncode == 0, done.stderr[-3000:]
    facts = json.loads((tmp_path / "run/run.json").read_text())
    assert (facts["processes"], facts["finished"]) == (4, True)
    assert (tmp_path / "run/statistics.json").read_text() == (toy_run / "statistics.json").read_text()
    theirs, mine = ([row["loss"] for row in read_metrics(folder)] for folder in (toy_run, tmp_path / "run"))
    np.testing.assert_allclose(mine, theirs, rtol=1e-5)
    leftovers = [path.name for path in (tmp_path / "run").rglob("*partial*")]
    assert not leftovers


COUNTED = """
import sys
from pathlib import Path
from audiopg.training.objectives import masked_audio
from audiopg.training.objectives.pretraining import pretrain
from audiopg.training.objectives.recipe import PretrainingRecipe
from audiopg.training.runs.recipes import load_recipe

def measure(*arguments):
    (Path(sys.argv[2]).parent / f"measured_by_{__import__('os').environ['RANK']}").touch()
    return original(*arguments)

original, masked_audio.find_statistics = masked_audio.find_statistics, measure
pretrain(load_recipe(PretrainingRecipe, sys.argv[1]), Path(sys.argv[2]))
"""


def test_one_of_two_processes_measures_for_both(tmp_path, toy_run):
    (tmp_path / "counted.py").write_text(COUNTED)
    done = torchrun(2, tmp_path / "counted.py", toy_run / "recipe.yaml", tmp_path / "run")
    assert done.returncode == 0, done.stderr[-3000:]
    assert [path.name for path in tmp_path.glob("measured_by_*")] == ["measured_by_0"]


def test_another_process_is_told_and_does_nothing(monkeypatch):
    def broadcast(found):
        found[:] = ["what the main process found", None]

    monkeypatch.setattr(processes, "broadcast_object_list", broadcast)
    other = SimpleNamespace(is_main_process=False)
    assert on_main_process(other, lambda: pytest.fail("this is not its work")) == "what the main process found"


def test_what_one_process_refuses_ends_all(tmp_path, toy_run, toy_recipe):
    pretrain(toy_recipe(num_clips=8), tmp_path / "run")
    words = (door.__file__, toy_run / "recipe.yaml", "--output_dir", tmp_path / "run")
    done = torchrun(2, *words)
    assert done.returncode != 0
    assert done.stderr.count("num_clips: 8 there, 48 here") == 2


def test_processes_that_accelerate_does_not_see_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)  # so that nothing tells accelerate of CPUs
    with pytest.raises(ValueError, match=r"started 4 processes and accelerate sees 1.*ACCELERATE_USE_CPU"):
        build_accelerator("no", tmp_path)


def test_precision_follows_accelerate_unless_the_recipe_says(monkeypatch):
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    assert resolve_precision("auto") == ("bf16" if torch.cuda.is_available() else "no")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert (resolve_precision("auto"), resolve_precision("no")) == ("bf16", "no")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    with pytest.raises(ValueError, match="in bf16, got accelerate's 'fp16'"):
        resolve_precision("auto")


def test_a_run_in_bf16_is_near_one_in_float32_says_so_and_is_not_resumed_in_another(tmp_path, toy_recipe, toy_run):
    facts = pretrain(toy_recipe(precision="bf16"), tmp_path)
    assert facts["precision"] == "bf16"
    halved, whole = ([row["loss"] for row in read_metrics(folder)] for folder in (tmp_path, toy_run))
    np.testing.assert_allclose(halved, whole, rtol=2e-2)
    assert halved != whole
    with pytest.raises(ValueError, match="precision: 'bf16' there, 'no' here"):
        pretrain(toy_recipe(precision="no"), tmp_path)


@pytest.mark.parametrize(("enabled", "warns_only"), [(False, False), (True, True), (True, False)])
def test_flags_of_the_caller_are_given_back(enabled, warns_only):
    before = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(enabled, warn_only=warns_only)
    try:
        with one_order_of_sums(torch.device("cuda")):
            assert torch.are_deterministic_algorithms_enabled()
            assert not torch.utils.deterministic.fill_uninitialized_memory
        found = (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled())
        assert found == (enabled, warns_only)
        assert torch.utils.deterministic.fill_uninitialized_memory == before
    finally:
        torch.use_deterministic_algorithms(False)
