import json

import pytest

from audiopg.training.ablation.table import summarise
from audiopg.training.evaluation.results import row_of
from audiopg.training.publishing import pages as readme
from audiopg.training.readme import main

RESULTS = {
    "hardware": "a computer",
    "versions": {"torch": "2.11.0"},
    "commit": "0123456789ab",
    "seconds": 123.4,
    "pretraining": {"clips": 640, "seconds": 20.0, "clips_per_second": 32.0, "loss": 0.98765},
    "factors": {"frequency": {"pretrained": 0.91234, "random": 0.5}},
    "benchmark": {
        "dataset": "ESC-10",
        "metric": "accuracy",
        "protocol": "Official folds",
        "probe": "linear",
        "results": {"pre-trained encoder": row_of([0.7, 0.7375])},
    },
}
ROW = "| pre-trained encoder | 71.88 | 2.65 | 48.1 to 95.7 | 70.0 73.8 |"
TEXT = "before\n<!-- results:demo -->\nold\n<!-- /results -->\nafter\n"
ABLATION = "<!-- results:ablation-ladder -->\n<!-- /results -->\n"


@pytest.fixture
def house(tmp_path, monkeypatch):
    monkeypatch.setattr(readme, "ROOT", tmp_path)
    monkeypatch.setattr(readme, "RESULTS", tmp_path)
    (tmp_path / "demo.json").write_text(json.dumps(RESULTS))
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(TEXT)
    (tmp_path / "docs/experiments.md").write_text(ABLATION)
    return tmp_path


def test_the_readme_s_numbers_are_those_of_the_results():
    main(["--check"])


def test_a_marked_part_is_written_from_its_results_and_nothing_else_is_touched(house):
    main([])
    text = (house / "README.md").read_text()
    assert text.startswith("before\n<!-- results:demo -->\n640 clips in 20 s (32.0 clips/s), final loss 0.988;")
    assert "| frequency | 0.912 | 0.500 |" in text
    assert ROW in text
    assert text.endswith("<!-- /results -->\nafter\n")
    main(["--check"])


def test_every_page_below_docs_is_written_too(house):
    (house / "docs/tutorials").mkdir()
    page = house / "docs/tutorials/new.md"
    page.write_text(TEXT)
    with pytest.raises(SystemExit, match="1"):
        main(["--check"])
    main([])
    assert ROW in page.read_text()


def test_an_ablation_is_written_with_its_grid_and_command(house):
    runs = [
        {
            "scores": [0.5, 0.75],
            "factors": {"onset": 0.5},
            "clips": 80,
            "loss": 0.5,
            "pretraining_seconds": 60.0,
        }
    ]
    grid = {"name": "ladder", "reference": "full", "seeds": [0], "test_folds": [], "cells": {"full": {"paper": 82.0}}}
    report = {
        "environments": [{k: RESULTS[k] for k in ("hardware", "versions", "commit")}],
        **{
            "grid": grid,
            "dataset": "ESC-10",
            "metric": "accuracy",
            "rounds": ["fold 1", "fold 2"],
            "command": "python training/ablate.py ladder",
            "tested": [0, 1],
        },
        **{"results": {"full": runs}, "summary": summarise({"full": runs}, "full", [0, 1])},
    }
    (house / "ablation-ladder.json").write_text(json.dumps(report))
    main([])
    text = (house / "docs/experiments.md").read_text()
    assert "| full | 80 | 1.0 | 0.500 | 62.50 (1) |  |  | 0.500 | 82.00 |" in text
    assert "commits 0123456789ab; `python training/ablate.py ladder`." in text


def test_a_probe_is_written_with_its_checkpoint():
    text = readme.probe_part({**RESULTS, **RESULTS["benchmark"], "checkpoint": "exported/tiny"})
    assert "| ESC-10, linear probe, accuracy in % | mean | std | 95 % interval | each |" in text
    assert ROW in text
    assert "Linear probe of `exported/tiny`; Official folds. Measured on a computer" in text


def test_a_probe_of_before_is_written_in_today_s_form():
    rows = {"pre-trained encoder": {"mean": 0.71875, "std": 0.01875, "fold_accuracies": [0.7, 0.7375]}}
    before = {"benchmark": "ESC-10", "probe": "linear", "results": rows, "checkpoint": "exported/tiny"}
    assert ROW in readme.probe_part({name: RESULTS[name] for name in ("hardware", "versions", "commit")} | before)


def test_a_demo_without_recordings_and_a_commit_that_nobody_knows_are_said_to_be_so():
    text = readme.demo_part({**RESULTS, "benchmark": None, "commit": None})
    assert "Real recordings: not measured." in text
    assert "torch 2.11.0, commit not known;" in text


def test_a_readme_that_is_out_of_date_fails_the_check(house):
    with pytest.raises(SystemExit) as stop:
        main(["--check"])
    assert stop.value.code == 1


def test_fine_tuning_is_written_with_its_controls_and_cost():
    row = {"scores": [0.5, 0.75], "mean": 0.625, "std": 0.177, "low": 0.1, "high": 1.0, "seconds_per_round": 12.3}
    results = {k: RESULTS[k] for k in ("hardware", "versions", "commit")} | {
        "dataset": "ESC-10",
        "metric": "accuracy",
        "recipe": {"name": "tiny", "epochs": 8},
        "results": {"pre-trained, fine-tuned": row},
    }
    text = readme.finetuning_part(results)
    assert "| pre-trained, fine-tuned | 62.50 | 17.70 | 10.0 to 100.0 | 50.0 75.0 |" in text
    assert "Recipe `tiny`, 8 epochs, the last one counts; 12 s a fold. Measured on a computer" in text


def test_features_are_written_beside_those_of_the_other_extractor():
    row = {"clips": 32, "threads": 2, "clips_per_second": {"audiopg": 20.0, "ast": 10.0}, "speedup": {"wall": 2.0}}
    results = {k: RESULTS[k] for k in ("hardware", "versions", "commit")} | {"rows": [row]}
    assert "| 32, 2 | 20.0 | 10.0 | 2.0 |" in readme.features_part(results)


def test_speeds_of_sounds_and_images_are_tables():
    on = {
        "hardware": "a computer",
        "versions": {"torch": "2.11.0"},
        "commit": "0123456789ab",
        "command": "python x.py",
    }
    row = {"makes": "16 x 1 s", "threads": 1, "batch_size": 16}
    contenders = [
        {**row, "title": "AudioPG", "times_real_time": 2000, "ratio": 1.0},
        {**row, "title": "SynthAX 0.2.2, Voice", "times_real_time": 500, "ratio": 4.0},
    ]
    lines = readme.voices_part({**on, "contenders": contenders}).splitlines()
    assert lines[2:4] == [
        "| AudioPG, 16 x 1 s | 2,000 |",
        "| SynthAX 0.2.2, Voice, 16 x 1 s | 500 (AudioPG makes 4.0 times that) |",
    ]
    images = [
        {"set": "fbm", "threads": threads, "batch_size": size, "images_per_second": rate}
        for threads, size, rate in [(1, 16, 50.0), (1, 64, 60.4), (2, 16, 90.0), (2, 64, 80.0)]
    ]
    lines = readme.patterns_part({**on, "size": 224, "sets": images}).splitlines()
    assert lines[0] == "| images of 224 pixels in a second | 1 thread | 2 threads |"
    assert lines[2] == "| `fbm` | 60 | 90 |"
    assert lines[-1] == "Measured on a computer, torch 2.11.0, commit 0123456789ab; `python x.py`."


def test_a_release_stands_beside_what_needs_no_pre_training(house, monkeypatch):
    monkeypatch.setattr(readme, "RELEASES", house)
    read = ", layer 4, mel rows apart"
    encoders = ("random encoder (seed 3)", "pre-trained encoder")
    names = ("log-mel mean and deviation", *(f"{name}{how}" for name in encoders for how in ("", read)))
    rows = {name: row_of([0.5 + 0.1 * number, 0.6 + 0.1 * number]) for number, name in enumerate(names)}
    for number, row in enumerate(rows.values()):
        row["right"] = "1" * (50 + 10 * number) + "0" * (50 - 10 * number)
    sets = [{**RESULTS["benchmark"], "dataset": name, "results": rows, "seed": 3} for name in ("ESC-10", "Words")]
    run = {**RESULTS["pretraining"], "hardware": "a computer"}
    results = {**RESULTS, "recipe": "audiopg-tiny", "benchmarks": sets, "read": read, "pretraining": run}
    (house / "audiopg-tiny").mkdir()
    (house / "audiopg-tiny/results.json").write_text(json.dumps(results))
    (house / "README.md").write_text("<!-- results:release-audiopg-tiny -->\n<!-- /results -->\n")
    main([])
    lines = (house / "README.md").read_text().splitlines()
    assert lines[1] == "| linear probe of frozen features | ESC-10, accuracy in % | Words, accuracy in % |"
    assert [line.split("|")[2].split()[0] for line in lines[3:7]] == ["55.0", "75.0", "95.0", "85.0"]
    assert lines[5].startswith("| `audiopg-tiny`, what `embed` gives |")
    assert "clip by clip: ESC-10 +40.0 (+30.0 to +50.0) and +20.0 (+12.0 to +28.0); Words +40.0" in lines[8]


LATENCY = {
    **{name: RESULTS[name] for name in ("hardware", "versions", "commit")},
    "clip_seconds": 10.24,
    "rounds": 15,
    "layers": {"read": 4, "of": 6},
    "load_average": {"before": 0.5, "after": 1.0, "cores": 2},
    "command": "python benchmarks/latency.py",
    "rows": [
        {
            "title": title,
            "threads": threads,
            "milliseconds": speed / threads,
            "memory_per_second": 3.25,
            "held": 1234.5,
        }
        for threads in (1, 2)
        for title, speed in (("ours", 2.5), ("theirs", 5.0))
    ],
}


def test_latency_is_written_with_a_column_for_each_number_of_threads(house):
    (house / "latency_cpu.json").write_text(json.dumps(LATENCY))
    (house / "docs/export.md").write_text("<!-- results:latency_cpu -->\n<!-- /results -->\n")
    main([])
    text = (house / "docs/export.md").read_text()
    assert "| for a second of sound | ms, 1 thread | ms, 2 threads | MB | the process holds, MB |" in text
    assert "| theirs | 5.00 | 2.50 | 3.2 | 1,234 |" in text
    assert "layer 4 of 6" in text


def test_what_eight_bits_lose_is_a_sentence(house):
    report = {
        **{name: RESULTS[name] for name in ("hardware", "versions", "commit")},
        **{"dataset": "ESC-10", "metric": "accuracy", "protocol": "Official folds", "points": -0.25},
        **{"faster": 1.5, "threads": 1, "clip_seconds": 5.0, "megabytes": {"float32": 7.1, "int8": 2.0}},
        "results": {"float32": {"mean": 0.8}, "int8": {"mean": 0.7975}},
    }
    (house / "int8-esc10.json").write_text(json.dumps(report))
    (house / "docs/export.md").write_text("<!-- results:int8-esc10 -->\n<!-- /results -->\n")
    main([])
    text = (house / "docs/export.md").read_text()
    assert "accuracy 79.75 % where float32 has 80.00 (-0.25 points); without the front end, " in text
    assert "it is 1.50 times as fast" in text
    assert "in 2.0 MB instead of 7.1. Official folds. Measured on a computer" in text
