"""The ablations at toy size, on recordings that the tests write."""

import csv
import dataclasses
import json

import numpy as np
import pytest
import soundfile
import yaml
from scipy.stats import ttest_rel

from audiopg.training import ablate as ablation
from audiopg.training.ablate import GRIDS, LOG_MEL, RANDOM, AblationGrid, is_beyond_spread, load_grid, main, summarise


def write_recordings(folder):
    """A low and a high tone with some noise, 0.5 s, in three folds in ESC-50's layout."""
    (folder / "audio").mkdir(parents=True)
    (folder / "meta").mkdir()
    rng, rows = np.random.default_rng(0), []
    for number in range(18):
        fold, target = 1 + number % 3, number % 2
        name = f"{fold}-{number}-A-{target}.wav"
        tone = np.sin(2 * np.pi * (300, 3000)[target] * np.arange(8000) / 16000)
        soundfile.write(folder / "audio" / name, 0.4 * tone + 0.05 * rng.standard_normal(8000), 16000)
        rows.append([name, fold, target, ("low", "high")[target], number])
    with (folder / "meta" / "esc50.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["filename", "fold", "target", "category", "src_file"], *rows])


@pytest.fixture
def toy_grid(toy_recipe, tmp_path):
    """Command-line words of a grid of two cells and two seeds."""
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
    assert len({ablation.fingerprint(recipe) for recipe in recipes.values()}) == len(grid.cells)
    assert all(recipe.seed == 3 for recipe in recipes.values())


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
    table = capsys.readouterr().out
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert list(results["results"]) == ["sine", "full", RANDOM, LOG_MEL]
    assert [len(found) for found in results["results"].values()] == [2, 2, 2, 1]
    assert results["results"][LOG_MEL][0]["fold_accuracies"] == [1.0, 1.0, 1.0]
    assert table == (tmp_path / "out" / "table.md").read_text()
    assert table.splitlines()[2].startswith("| sine | 8 |")
    assert table.splitlines()[2].endswith("| 42.25 |")

    with pytest.raises(SystemExit):
        main([*toy_grid, "--overrides.learning_rate", "0.5"])
    assert "another recipe" in capsys.readouterr().err


def test_differences_are_those_of_a_paired_test():
    rng = np.random.default_rng(0)
    difficulty = rng.standard_normal((3, 5))
    a, b = 0.7 + 0.1 * difficulty, 0.72 + 0.1 * difficulty + 0.01 * rng.standard_normal((3, 5))
    cells = {name: [{"fold_accuracies": row} for row in found.tolist()] for name, found in (("a", a), ("b", b))}
    found = summarise(cells, "a")["b"]["difference"]
    expected = ttest_rel(b.ravel(), a.ravel()).confidence_interval(0.95)
    assert (found["low"], found["high"]) == pytest.approx((expected.low, expected.high))
    assert is_beyond_spread(found) == (expected.low > 0)
    assert not is_beyond_spread(summarise(cells, "a")["a"]["difference"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reference": "b"}, "reference is one of the cells"),
        ({"seeds": [1, 1]}, "different numbers"),
        ({"cells": {"a": {"override": {}}}}, "has `overrides` and perhaps `paper`"),
        ({"cells": {"a": {"overrides": {"presett": "sine"}}}}, "did you mean 'preset'"),
    ],
)
def test_a_grid_that_cannot_be_run_is_refused_before_it_runs(changes, message):
    values = {"name": "x", "description": "", "base": "tiny", "reference": "a", "cells": {"a": {}}} | changes
    with pytest.raises(ValueError, match=message):
        AblationGrid(**values)
