"""The demo at toy size, from end to end, on recordings that the test writes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from toys import write_recordings

from audiopg.training import demo
from audiopg.training.publishing.demonstration import run_demo
from audiopg.training.publishing.exporting import export_run

SCRIPT = Path(demo.__file__)
TOY = [
    "--num_clips",
    "16",
    "--batch_size",
    "8",
    "--statistics_clips",
    "8",
    "--log_every",
    "1",
    "--synthesis.duration",
    "1.28",
]


def test_a_recipe_without_clips_is_refused_before_minutes_are_spent(tmp_path):
    with pytest.raises(ValueError, match=r"clips of a preset, and audiopg-patterns-tiny has none; .* such as tiny"):
        run_demo("patterns_tiny", [], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_demo_makes_and_measures_everything_it_names(tmp_path):
    write_recordings(tmp_path / "recordings", sampling_rate=22050)
    command = [sys.executable, str(SCRIPT), "--output_dir", "out", *TOY]
    environment = {**os.environ, "AUDIOPG_ESC50_DIR": str(tmp_path / "recordings"), "HF_HOME": str(tmp_path / "home")}
    run = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=280
    )

    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["pretraining"]["clips"] == 16
    assert set(results["factors"]) == {"frequency", "level", "onset"}
    rows = results["benchmarks"][0]["results"]
    encoders = ("random encoder (seed 0)", "pre-trained encoder")
    read = [name + pooling for name in encoders for pooling in ("", ", mel rows apart")]
    assert list(rows)[: 1 + len(read)] == ["log-mel mean and deviation", *read]
    assert all(len(row["scores"]) == 3 for row in rows.values())
    assert rows["log-mel mean and deviation"]["mean"] == 1.0  # a low and a high tone

    card = (tmp_path / "out" / "tiny" / "README.md").read_text()
    assert f"| level | {results['factors']['level']['pretrained']:.3f} |" in card
    named = {line.strip() for line in run.stdout.split("Files made:")[1].splitlines() if line.strip()}
    made = {str(path.relative_to(tmp_path)) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert named == made
    assert {"out/clips.png", "out/reconstruction.png", "out/loss.png", "out/results.json"} <= named
    assert "LOAD REPORT" not in run.stderr


@pytest.mark.slow
def test_another_checkpoint_stands_beside_and_is_read_as_its_own_embed_reads(toy_run, tmp_path):
    write_recordings(tmp_path / "recordings", sampling_rate=22050)
    released = tmp_path / "audiopg-toy"
    export_run(toy_run, released)
    config = json.loads((released / "config.json").read_text())
    (released / "config.json").write_text(json.dumps(config | {"embedding_pooling": "mel_std", "embedding_layer": 1}))
    results = run_demo("tiny", TOY, tmp_path / "out", [tmp_path / "recordings"], beside=released)
    assert all(set(row) == {"pretrained", "random", "beside"} for row in results["factors"].values())
    assert results["factors"]["frequency"]["beside"] != results["factors"]["frequency"]["pretrained"]
    name = "audiopg-toy, released, layer 1, mel rows and their deviations apart"
    assert list(results["benchmarks"][0]["results"])[-1] == name
    assert len(results["benchmarks"][0]["results"][name]["scores"]) == 3
