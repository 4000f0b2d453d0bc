"""The ablations at toy size, on recordings that the tests write."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import yaml
from scipy.stats import ttest_rel
from toys import write_recordings

from audiopg.data_scripts.patterns import PATTERNS
from audiopg.data_scripts.probe_clips import FACTORS
from audiopg.training.ablate import main
from audiopg.training.ablation import jobs as ablation
from audiopg.training.ablation.grid import GRIDS, AblationGrid, load_grid, run_key
from audiopg.training.ablation.table import is_beyond_spread, summarise
from audiopg.training.evaluation.results import LOG_MEL, RANDOM_ENCODER
from audiopg.training.features.labelled import DataOptions
from audiopg.training.runs.checkpoints import checkpoints_of
from audiopg.training.runs.folder import held


@pytest.fixture
def toy_grid(toy_recipe, tmp_path, monkeypatch):
    """Command-line words of a grid of two cells and two seeds."""
    monkeypatch.setattr(ablation, "NUM_TRAINING_CLIPS", 60)  # in this process: workers decode factors from 900 clips
    monkeypatch.setattr(ablation, "NUM_TEST_CLIPS", 30)
    write_recordings(tmp_path / "recordings")
    base = tmp_path / "base.yaml"
    base.write_text(yaml.safe_dump(dataclasses.asdict(toy_recipe(num_clips=8, checkpoint_every=1))))
    grid = {
        "name": "toy",
        "description": "A toy.",
        "base": str(base),
        "reference": "full",
        "cells": {"sine": {"overrides": {"preset": "sine"}, "paper": 42.25}, "full": {}},
    }
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(grid, sort_keys=False))
    return [
        *(str(tmp_path / "grid.yaml"), "--esc50_dir", str(tmp_path / "recordings")),
        *("--output_dir", str(tmp_path / "out")),
    ]


@pytest.mark.parametrize("path", sorted(GRIDS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_grid_of_the_package_is_sound(path):
    grid = load_grid(path.stem)
    recipes = {cell: grid.recipe(cell, seed=3) for cell in grid.cells}
    assert len({run_key(recipe) for recipe in recipes.values()}) == len(grid.cells)
    assert all(recipe.seed == 3 for recipe in recipes.values())


def results_of(tmp_path, grid="toy"):
    return json.loads((tmp_path / "out" / grid / "results.json").read_text())


def test_a_grid_runs_is_interrupted_and_goes_on_with_what_is_missing(toy_grid, tmp_path, monkeypatch, capsys):
    trained, real = [], ablation.pretrain

    def counting(recipe, folder):
        trained.append((recipe.name, recipe.seed))
        return real(recipe, folder) if len(trained) != 3 else {"finished": False}

    monkeypatch.setattr(ablation, "pretrain", counting)
    with pytest.raises(SystemExit):
        main(toy_grid)
    assert "the same command goes on" in capsys.readouterr().err
    assert trained == [("toy-sine", 0), ("toy-full", 0), ("toy-sine", 1)]

    main(toy_grid)
    assert trained[3:] == [("toy-sine", 1), ("toy-full", 1)]
    table, results = capsys.readouterr().out, results_of(tmp_path)
    assert list(results["results"]) == ["sine", "full", RANDOM_ENCODER, LOG_MEL]
    assert [len(found) for found in results["results"].values()] == [2, 2, 2, 1]
    assert results["results"][LOG_MEL][0]["scores"] == [1.0, 1.0, 1.0]
    assert all(list(found[0]["factors"]) == list(FACTORS) for found in results["results"].values())
    assert results["results"][LOG_MEL][0]["neighbours"] == [1.0, 1.0, 1.0]
    assert "| neighbours | frequency | level | onset | all 9 |" in table
    assert table == (tmp_path / "out/toy/table.md").read_text()
    assert table.splitlines()[2].startswith("| sine | 8 |")
    assert table.splitlines()[2].endswith("| 42.25 |")
    assert (tmp_path / "out/toy/chart.png").stat().st_size > 1000


def test_grids_share_the_runs_of_cells_that_they_share_and_may_test_on_some_folds_only(
    toy_grid, tmp_path, monkeypatch
):
    monkeypatch.setattr(ablation, "probe_features", lambda *_: {"scores": [0.1, 0.5, 0.6]})
    main([*toy_grid, "--seeds", "[0]"])
    other = yaml.safe_load((tmp_path / "grid.yaml").read_text())
    other |= {"name": "other", "cells": {"everything": {}, "sine": other["cells"]["sine"]}, "reference": "everything"}
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(other, sort_keys=False))
    monkeypatch.setattr(ablation, "pretrain", lambda recipe, folder: pytest.fail(f"{recipe.name} was there"))
    main([*toy_grid, "--seeds", "[0]", "--test_folds", "[1, 3]"])
    first, second = results_of(tmp_path), results_of(tmp_path, "other")
    assert first["results"]["full"] == second["results"]["everything"]
    assert first["summary"]["sine"]["score"]["mean"] == pytest.approx(0.4)
    assert second["summary"]["sine"]["score"]["mean"] == pytest.approx(0.35)


def test_a_grid_may_read_mel_rows_apart_and_keeps_that_beside_the_means(toy_grid, tmp_path, monkeypatch):
    widths = []

    def measured(features_of, recipe, batches, *, spare_test):
        assert not spare_test
        widths.append(features_of(batches.spectrograms(range(1))).shape[1])
        return {"scores": [0.1, 0.5, 0.6], "factors": {"onset": 0.0}}

    monkeypatch.setattr(ablation, "measure", measured)
    for pooling in ("mean", "mel", "mel"):
        main([*toy_grid, "--seeds", "[0]", "--pooling", pooling])
    mean, mel = [48, 48, 48, 256], [8 * 48, 8 * 48, 8 * 48, 256]  # two cells, a random encoder, the log-mel itself
    assert widths == mean + mel


@pytest.mark.slow
def test_runs_side_by_side_give_what_they_give_in_turn(toy_grid, tmp_path, monkeypatch, capfd):
    monkeypatch.undo()  # other processes measure on as many clips as the package says
    words = [*toy_grid, "--seeds", "[0]"]
    main(words)
    in_turn = results_of(tmp_path)["results"]
    shutil.rmtree(tmp_path / "out")
    capfd.readouterr()
    main([*words, "--processes", "2"])
    at_once = results_of(tmp_path)["results"]
    assert [run["loss"] for run in at_once["full"]] == pytest.approx(
        [run["loss"] for run in in_turn["full"]], rel=1e-5
    )
    share = max(1, torch.get_num_threads() // 2)
    assert re.search(rf", {share} threads?$", at_once["full"][0]["hardware"])
    assert "clips/s" not in capfd.readouterr().err
    assert "/" not in results_of(tmp_path)["command"].removeprefix("python training/ablate.py").replace(words[0], "")
    logs = list((tmp_path / "out/runs").glob("*/log.txt"))
    assert len(logs) == 2
    assert all("clips/s" in log.read_text() for log in logs)


def test_runs_side_by_side_that_are_told_to_stop_are_at_a_checkpoint(toy_grid, tmp_path):
    words = [
        *toy_grid,
        "--processes",
        "2",
        "--overrides.num_clips",
        "1000000",
        "--overrides.checkpoint_every",
        "99999",
    ]
    command = [sys.executable, "-m", "audiopg.training.ablate", *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    runs, deadline = tmp_path / "out/runs", time.monotonic() + 120
    while sum(path.stat().st_size > 0 for path in runs.glob("*/run/metrics.jsonl")) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "the same command goes on" in errors
    folders = sorted(runs.glob("*/run"))
    assert len(folders) == 2, "a third run was begun"
    for folder in folders:
        (checkpoint,) = checkpoints_of(folder)
        logged = (folder / "metrics.jsonl").read_text().splitlines()
        assert json.loads((checkpoint / "manifest.json").read_text())["step"] >= json.loads(logged[-1])["step"]


@pytest.mark.slow
def test_a_failure_side_by_side_is_told_and_ends_the_others(toy_grid, tmp_path, capsys):
    (tmp_path / "nothing").mkdir()
    with pytest.raises(SystemExit):
        main([*toy_grid, "--processes", "2", "--overrides.init_from", str(tmp_path / "nothing")])
    assert str(tmp_path / "nothing") in capsys.readouterr().err


def test_folds_that_do_not_exist_are_refused(toy_grid, capsys):
    with pytest.raises(SystemExit):
        main([*toy_grid, "--test_folds", "[4]"])
    assert "test_folds are some of [1, 2, 3]" in capsys.readouterr().err


def write_splits(folder, splits=("train", "train", "test")):
    """The recordings of the toy grid as a table: folds as splits, by default 3 as test; some clips have two labels."""
    rows = ["file,labels,split"]
    for path in sorted((folder / "audio").iterdir()):
        fold, number, _, target = path.stem.split("-")
        labels = ("low", "high")[int(target)] + (";third" if int(number) % 4 < 2 else "")
        rows.append(f"audio/{path.name},{labels},{splits[int(fold) - 1]}")
    (folder / "mine.csv").write_text("\n".join(rows) + "\n")
    return folder / "mine.csv"


def test_runs_are_measured_on_whatever_is_labelled_and_trained_once(toy_grid, tmp_path, monkeypatch, capsys):
    words = [*toy_grid, "--seeds", "[0]"]
    main(words)
    monkeypatch.setattr(ablation, "pretrain", lambda recipe, folder: json.loads((folder / "run.json").read_text()))
    position = words.index("--esc50_dir")
    words[position : position + 2] = ["--data_dir", str(write_splits(tmp_path / "recordings"))]
    capsys.readouterr()
    main(words)
    results = results_of(tmp_path)
    assert "mine, linear probe, macro average precision in %" in capsys.readouterr().out
    assert (results["dataset"], results["rounds"], results["tested"]) == ("mine", ["test"], [0])
    assert [len(run["scores"]) for run in results["results"]["full"]] == [1]
    assert results["summary"]["full"]["score"]["low"] is None  # one seed, one test part
    with pytest.raises(SystemExit):
        main([*words, "--test_folds", "[1]"])
    assert "test_folds are for data in folds, not in splits" in capsys.readouterr().err


def test_a_choice_may_spare_the_test_split(toy_grid, tmp_path, capsys):
    words = [*toy_grid, "--seeds", "[0]", "--spare_test", "true"]
    position = words.index("--esc50_dir")
    words[position : position + 2] = ["--data_dir", str(write_splits(tmp_path / "recordings"))]
    with pytest.raises(SystemExit):
        main(words)
    assert "mine has no validation clips to choose on" in capsys.readouterr().err
    write_splits(tmp_path / "recordings", ("train", "validation", "test"))
    main(words)
    assert "validation clips tested" in capsys.readouterr().out
    results = results_of(tmp_path)
    assert results["rounds"] == ["validation"]
    # The same with the test clips' labels all wrong: they have no part in it.
    table = tmp_path / "recordings" / "mine.csv"
    rows = [row.replace("low", "high") if row.endswith("test") else row for row in table.read_text().splitlines()]
    table.write_text("\n".join(rows) + "\n")
    main(words)
    assert results_of(tmp_path)["results"]["full"][0]["scores"] == results["results"]["full"][0]["scores"]


def test_a_torn_checkpoint_is_not_measured(toy_grid, tmp_path, monkeypatch, capsys):
    main([*toy_grid, "--seeds", "[0]"])
    for result in (tmp_path / "out/runs").glob("*/result-*.json"):
        result.unlink()
        (newest,) = checkpoints_of(result.parent / "run")[-1:]
        weights = newest / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-4] + b"torn")
    monkeypatch.setattr(ablation, "pretrain", lambda recipe, folder: json.loads((folder / "run.json").read_text()))
    with pytest.raises(SystemExit):
        main([*toy_grid, "--seeds", "[0]"])
    assert "the content of model.safetensors has changed" in capsys.readouterr().err


def test_a_run_s_key_follows_what_changes_its_encoder_and_nothing_else(toy_recipe, monkeypatch):
    key = run_key(toy_recipe())
    assert key == run_key(toy_recipe(name="another", checkpoint_every=7))
    assert key != run_key(toy_recipe(seed=1))
    assert key != run_key(toy_recipe(max_minutes=5.0)) != run_key(toy_recipe(max_minutes=6.0))
    monkeypatch.setattr("audiopg.training.objectives.recipe.SYNTHESIZER_VERSION", "9")
    assert key != run_key(toy_recipe())


def test_runs_of_equal_time_are_refused_side_by_side(toy_grid, capsys):
    with pytest.raises(SystemExit):
        main([*toy_grid, "--processes", "2", "--overrides.max_minutes", "5"])
    assert "have the machine to themselves" in capsys.readouterr().err


def test_a_measurement_is_of_one_set_of_recordings(toy_recipe, tmp_path):
    folders = tmp_path / "a", tmp_path / "b"
    for folder in folders:
        write_recordings(folder)
    meta = folders[1] / "meta/esc50.csv"
    meta.write_text("\n".join(meta.read_text().splitlines()[:-1]) + "\n")
    whole, part = (
        ablation.Job(toy_recipe(), tmp_path, DataOptions(data_dir=str(folder)), "cpu").features() for folder in folders
    )
    assert whole.dataset_name == part.dataset_name
    assert whole.digest != part.digest


def test_differences_are_those_of_a_paired_test():
    rng = np.random.default_rng(0)
    difficulty = rng.standard_normal((3, 5))
    a, b = 0.7 + 0.1 * difficulty, 0.72 + 0.1 * difficulty + 0.01 * rng.standard_normal((3, 5))
    cells = {name: [{"scores": row} for row in found.tolist()] for name, found in (("a", a), ("b", b))}
    found = summarise(cells, "a", range(5))["b"]["difference"]
    expected = ttest_rel(b.ravel(), a.ravel()).confidence_interval(0.95)
    assert (found["low"], found["high"]) == pytest.approx((expected.low, expected.high))
    assert is_beyond_spread(found) == (expected.low > 0)
    assert not is_beyond_spread(summarise(cells, "a", range(5))["a"]["difference"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reference": "b"}, "reference is one of the cells"),
        ({"seeds": [1, 1]}, "different numbers"),
        ({"cells": {"a": {}, "random encoder": {}}}, "call random encoder otherwise"),
        ({"cells": {"a": {"override": {}}}}, "Cell has no field 'override'; did you mean 'overrides'"),
        ({"cells": {"a": {}, "b": {"overrides": {"compile": True}}}}, "differ in what is learnt, and 'a' and 'b'"),
        ({"cells": {"a": {"overrides": {"presett": "sine"}}}}, "did you mean 'preset'"),
    ],
)
def test_a_grid_that_cannot_be_run_is_refused_before_it_runs(changes, message):
    values = {"name": "x", "description": "", "base": "tiny", "reference": "a", "cells": {"a": {}}} | changes
    with pytest.raises(ValueError, match=message):
        AblationGrid(**values)


def test_a_second_command_in_the_folder_is_refused(tmp_path):
    with held(tmp_path), pytest.raises(ValueError, match="Another command is at work"):
        ablation.ablate(None, None, tmp_path, "", "cpu")


def test_the_grid_of_patterns_has_every_set_and_clips_beside_them():
    grid = load_grid("patterns")
    beside = (grid.reference, "fbm_256")  # clips, and a quick set of as few images as the slow ones have
    assert [name for name in grid.cells if name not in beside] == list(PATTERNS)
    few = [name for name in grid.cells if grid.recipe(name, seed=0).patterns and grid.recipe(name, 0).patterns.folder]
    assert {grid.recipe(name, 0).patterns.num_images for name in few} == {
        grid.recipe("fbm_256", 0).patterns.num_images
    }
    for name in PATTERNS:
        recipe = grid.recipe(name, seed=0)
        assert (recipe.patterns.name, recipe.objective) == (name, "masked_images")
    clips = grid.recipe(grid.reference, seed=0)
    assert (clips.objective, clips.patterns, clips.num_clips) == ("masked_audio", None, recipe.num_clips)
    images, sounds = (ablation.factor_preset(found) for found in (recipe, clips))
    assert images.ranges == sounds.ranges
    assert (images.duration, images.sampling_rate) == (sounds.duration, sounds.sampling_rate)


def test_an_encoder_of_images_is_probed_on_sound_beside_one_of_clips(toy_grid, toy_recipe, tmp_path, capsys):
    grid = yaml.safe_load((tmp_path / "grid.yaml").read_text())
    images = {"objective": "masked_images", "patterns": {"name": "zone_plates", "size": 32}}
    cells = {"images": {"overrides": {"preset": "", "synthesis": {}, **images}}, "full": {}}
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump({**grid, "cells": cells, "seeds": [0]}))
    main(toy_grid)
    found = results_of(tmp_path)["results"]
    assert set(found) == {"images", "full", RANDOM_ENCODER, LOG_MEL}
    assert all(np.isfinite(found["images"][0]["factors"][name]) for name in ("frequency", "level", "onset"))
    assert len(found["images"][0]["scores"]) == 3
    assert found["images"][0]["images"]["total_variation"] > 0
    assert "images" not in found["full"][0]
    assert results_of(tmp_path)["correlations"] == {}  # of a single set
