import errno
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import datasets
import numpy as np
import pytest
from huggingface_hub import DatasetCard, HfApi

from audiopg.data_scripts.audiopg_synthetic import AudioPGSyntheticConfig, decode, features, rows
from audiopg.data_scripts.clip_rows import columns
from audiopg.data_scripts.synthesis import SYNTHESIZER_VERSION, get_preset
from audiopg.training import build_dataset as door
from audiopg.training.build_dataset import main
from audiopg.training.publishing import dataset as script
from audiopg.training.publishing.dataset import build_dataset, column_statistics, is_whole, write_shards
from audiopg.training.runs.folder import held

SHORT = {"duration": 0.5, "f0": [100, 200]}
OPTIONS = [
    "--num_clips",
    "50",
    "--clips_per_shard",
    "20",
    "--synthesis.duration",
    "0.5",
    "--synthesis.f0",
    "[100,200]",
]


def config(**changes):
    values = {"name": "audiopg", "num_clips": 50, "clips_per_shard": 20, "synthesis": SHORT}
    return AudioPGSyntheticConfig(**values | changes)


def shards_of(folder):
    return sorted((folder / "data").iterdir())


def content_of(folder):
    return {path.name: path.read_bytes() for path in shards_of(folder)}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A finished data set of three shards; tests only read it."""
    folder = tmp_path_factory.mktemp("datasets") / "clips"
    main([str(folder), *OPTIONS])
    return folder


def test_a_folder_loads_as_the_rows_that_were_synthesized(built, tmp_path):
    loaded = datasets.load_dataset(str(built), split="train", cache_dir=str(tmp_path))
    preset = get_preset("audiopg", **SHORT)
    assert loaded.features == features(preset)
    assert list(loaded) == list(rows(preset, 0, 0, 50))
    assert decode(loaded[0]).shape == (8000,)


def test_a_folder_streams_shard_by_shard(built):
    stream = datasets.load_dataset(str(built), split="train", streaming=True)
    assert stream.num_shards == 3
    assert [row["index"] for row in stream] == list(range(50))


def test_shards_are_named_as_the_hub_names_them(built):
    assert [path.name for path in shards_of(built)] == [f"train-0000{number}-of-00003.parquet" for number in range(3)]
    assert {path.name for path in built.iterdir()} == {".lock", "README.md", "clips.png", "data", "recipe.json"}


def test_two_processes_write_the_same_bytes_as_one(built, tmp_path):
    write_shards(config(), tmp_path, num_proc=2)
    assert content_of(tmp_path) == content_of(built)


def test_shards_that_are_there_are_kept_and_missing_ones_written(built, tmp_path):
    shards = write_shards(config(), tmp_path)
    kept = shards[0].stat().st_mtime_ns
    shards[1].unlink()
    shards[2].write_bytes(shards[2].read_bytes()[:1000])  # cut short by something else than this script
    assert [is_whole(path, count) for path, count in zip(shards, (20, 20, 10), strict=True)] == [True, False, False]
    write_shards(config(), tmp_path)
    assert shards[0].stat().st_mtime_ns == kept
    assert content_of(tmp_path) == content_of(built)


@pytest.mark.parametrize("num_proc", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_killed_build_goes_on_to_the_same_bytes(built, tmp_path, num_proc):
    command = [sys.executable, door.__file__, str(tmp_path / "clips"), *OPTIONS, "--num_proc", str(num_proc)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline and not list(tmp_path.glob("clips/data/*.parquet")):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = list(tmp_path.glob("clips/data/*.parquet"))
    assert finished
    assert all(path.read_bytes() == (built / "data" / path.name).read_bytes() for path in finished)
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    assert content_of(tmp_path / "clips") == content_of(built)


def test_a_full_disk_keeps_whole_shards_and_says_what_to_do(built, tmp_path, monkeypatch, capsys):
    def full(descriptor):
        if len(list(tmp_path.glob("data/*.parquet"))) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    sync = os.fsync
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path), *OPTIONS])
    assert stop.value.code == 1
    message = capsys.readouterr().err
    assert "No space left on device" in message
    assert "Whole shards are kept; free disk or memory, and give the same command again." in message
    assert [path.name for path in shards_of(tmp_path)] == [path.name for path in shards_of(built)[:2]]
    monkeypatch.undo()
    main([str(tmp_path), *OPTIONS])
    assert content_of(tmp_path) == content_of(built)


def test_clips_of_another_recipe_are_refused_with_the_difference(built, capsys):
    with pytest.raises(SystemExit) as stop:
        main([str(built), *OPTIONS, "--seed", "1"])
    assert stop.value.code == 2
    assert "holds clips of another recipe" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"num_clips: 50 there, 60 here"):
        write_shards(config(num_clips=60), built)


def test_clips_of_another_synthesizer_are_refused(built, monkeypatch):
    monkeypatch.setattr(script, "SYNTHESIZER_VERSION", "9.9.9")
    with pytest.raises(ValueError, match=f"synthesizer_version: '{SYNTHESIZER_VERSION}' there, '9.9.9' here"):
        write_shards(config(), built)


def test_shards_of_unknown_origin_are_refused(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train-00000-of-00001.parquet").touch()
    with pytest.raises(ValueError, match=r"shards without a recipe.json; choose an empty folder"):
        write_shards(config(), tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num_clips", "0"], "num_clips is a whole number, 1 or more, got 0"),
        (["--num_proc", "0"], "num_proc is 1 or more, got 0"),
        (["--preset", "best"], "Presets are reference, audiopg"),
        (["--synthesis.f0", "[200, 100]"], "f0: a range is (low, high), got (200, 100); swap the two"),
        (["--synthesis.f0", "[200, 9000]"], "f0: frequencies lie below half the sampling rate"),
        (["--synthesis.pitch", "3"], "got pitch"),
        (["--number", "3"], "Ranges of the preset are overridden as --synthesis.f0"),
        (["--synthesis", "3"], "Ranges of the preset are overridden as --synthesis.f0"),
    ],
)
def test_what_cannot_be_made_is_refused_before_anything_is_written(options, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path / "new"), *options])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_statistics_are_those_of_the_columns(built):
    preset = get_preset("audiopg", **SHORT)
    found = column_statistics(shards_of(built), columns(preset))
    expected = list(rows(preset, 0, 0, 50))
    f0 = np.concatenate([row["f0"] for row in expected])
    assert found["f0"] == {
        "count": len(f0), "unit": "Hz", "min": f0.min(), "mean": pytest.approx(f0.mean()), "max": f0.max(),
    }  # fmt: skip
    cutoffs = [row["cutoff"] for row in expected if row["damping"]]
    assert found["cutoff"]["count"] == len(cutoffs)
    assert found["cutoff"]["mean"] == pytest.approx(np.mean(cutoffs))
    assert found["damping"]["shares"]["yes"] == len(cutoffs) / 50
    gains = [gain for row in expected for event in row["partial_gain"] for gain in event]
    assert found["partial_gain"]["count"] == len(gains)
    assert sum(found["mode"]["shares"].values()) == pytest.approx(1)


def test_a_preset_whose_factors_shape_nothing_has_empty_columns(tmp_path):
    shards = write_shards(AudioPGSyntheticConfig(name="sine", num_clips=3, synthesis={"duration": 0.5}), tmp_path)
    found = column_statistics(shards, columns(get_preset("sine", duration=0.5)))
    assert found["snr_db"] == {"count": 0, "unit": "dB"}
    assert found["modulation_index"] == {"count": 0, "unit": "rad"}
    assert found["mode"]["shares"] == {"harmonic": 1.0}


def test_the_card_says_what_it_holds_and_how_to_make_it_again(built, tmp_path):
    card = DatasetCard.load(built / "README.md")
    assert card.data.license == "apache-2.0"
    assert card.data.size_categories == ["n<1K"]
    assert card.data.configs[0]["data_files"][0]["path"] == "data/train-*.parquet"
    for fact in (
        "50 of 0.5 s at 16000 Hz",
        f"version {SYNTHESIZER_VERSION}, preset `audiopg` with `duration=0.5`, `f0=[100, 200]`, seed 0, indices 0 to",
        "- `f0` (Hz) of each event: fundamental frequency of a source",
        "(clips.png)",
    ):
        assert fact in card.text
    assert "{{" not in card.text
    assert "{%" not in card.text
    command = next(line for line in card.text.splitlines() if line.startswith("python training/build_dataset.py"))
    _, _, _, *options = shlex.split(command)
    main([str(tmp_path / "again"), *options])
    assert content_of(tmp_path / "again") == content_of(built)


def test_the_statistics_table_has_a_cell_for_every_heading(built):
    lines = (built / "README.md").read_text().splitlines()
    start = lines.index("| column | unit | values | min | mean | max | shares |")
    table = [line for line in lines[start:] if line.startswith("|")]
    assert len(table) > 20
    assert {line.count("|") for line in table} == {8}


def test_a_finished_folder_is_pushed_when_asked_to(tmp_path, monkeypatch):
    calls = []
    for name in ("create_repo", "upload_folder"):
        monkeypatch.setattr(HfApi, name, lambda self, *a, _name=name, **k: calls.append((_name, a, k)))
    main([str(tmp_path / "x"), "--num_clips", "2", "--synthesis.duration", "0.5", "--push_to_hub", "org/clips"])
    (create, upload) = calls
    assert create == ("create_repo", ("org/clips",), {"repo_type": "dataset", "exist_ok": True})
    expected = {"repo_id": "org/clips", "folder_path": tmp_path / "x", "repo_type": "dataset"}
    assert {name: upload[2][name] for name in expected} == expected


def test_a_data_set_is_built_from_python_too(tmp_path):
    shards = build_dataset(config(num_clips=3), tmp_path)
    assert [path.name for path in shards] == ["train-00000-of-00001.parquet"]
    assert json.loads((tmp_path / "recipe.json").read_text())["num_clips"] == 3
    assert Path(tmp_path / "clips.png").stat().st_size > 1000


def test_a_second_command_in_the_folder_is_refused(tmp_path):
    with held(tmp_path / "clips"), pytest.raises(ValueError, match=r"Another command is at work in .*clips"):
        build_dataset(config(), tmp_path / "clips")


def test_a_folder_of_something_else_is_not_claimed(tmp_path):
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(ValueError, match=r"holds README\.md, which is not of a data set"):
        build_dataset(config(), tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_a_damaged_recipe_is_named(tmp_path):
    write_shards(config(num_clips=3), tmp_path)
    (tmp_path / "recipe.json").write_text("{")
    with pytest.raises(ValueError, match=r"recipe\.json is damaged.*restore it, or choose another folder"):
        build_dataset(config(num_clips=3), tmp_path)
