import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import gpu
import pytest
import torch
from gpu_summary import format_summary
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import load_file
from toys import write_recordings
from transformers import AutoFeatureExtractor

from audiopg import AudioPGConfig, AudioPGFeatureExtractor, AudioPGModel
from audiopg.training.features.cache import FeatureCache, extract_features, front_end_of
from audiopg.training.features.labelled import load_labelled

ROOT = Path(__file__).parents[2]
ABSENT = ("datasets", "evaluate", "soundfile", "matplotlib", "tensorboard", "sklearn", "scipy", "torchaudio", "jinja2")
NUM_TENSOR_HEADER_BYTES = 10_000


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """OUT_DIR after `base`, with its state beside it."""
    output = tmp_path_factory.mktemp("lent") / "out"
    gpu.main([str(output), "base", "60"])
    return output


@pytest.fixture
def place(trained, tmp_path):
    """A copy of `trained` whose OUT_DIR was emptied, as between two calls."""
    shutil.copytree(f"{trained}.run", tmp_path / "out.run")
    return tmp_path / "out"


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """Labelled recordings as one file."""
    folder = tmp_path_factory.mktemp("data")
    write_recordings(folder / "tones")
    cache = extract_features(load_labelled(folder / "tones"), front_end_of(AudioPGFeatureExtractor()))
    cache.save(folder / "tones.safetensors")
    return folder / "tones.safetensors"


def rows_of(path: Path) -> dict:
    return json.loads(path.read_text())["rows"]


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_report_says_where_how_and_from_what_it_was_measured(trained):
    report = json.loads((trained / "base.json").read_text())
    assert {"hardware", "versions", "commit"} <= report.keys()
    assert report["command"] == "python benchmarks/gpu.py out base 60"
    assert report["rows"]["run"] | {"finished": True, "steps": 4, "clips": 32} == report["rows"]["run"]
    assert [row["step"] for row in report["log"]] == [1, 2, 3, 4]
    table = format_summary(trained, ["speed", "base"])
    assert re.search(r"^speed +not measured$", table, re.MULTILINE)
    assert re.search(r"^base +run +finished True, steps 4, clips 32, loss ", table, re.MULTILINE)
    assert table.endswith(f"files: 1, the largest of {(trained / 'base.json').stat().st_size / 1e6:.1f} MB")


def test_where_nothing_was_measured_the_table_says_so(tmp_path):
    assert format_summary(tmp_path, []) == "files: 0, the largest of 0.0 MB"
    assert format_summary(tmp_path, ["small"]).splitlines()[1].split() == ["small", "not", "measured"]


def test_a_copy_without_history_is_told_its_commit(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu, "environment", lambda: {"hardware": "x", "versions": {}, "commit": None})
    monkeypatch.setenv("COMMIT", "0123456789ab")
    assert gpu.Report(tmp_path / "speed.json", "").values["commit"] == "0123456789ab"
    monkeypatch.setenv("COMMIT", "")
    assert gpu.Report(tmp_path / "speed.json", "").values["commit"] is None


def test_all_files_of_the_weights_together_are_the_encoder_in_bfloat16(place, tmp_path, capsys):
    home, said = tmp_path / "home", "weights base 1"
    home.mkdir()
    calls = 0
    while following := re.search(r"weights base \d+", said):
        shutil.rmtree(place, ignore_errors=True)  # a call may find OUT_DIR empty
        gpu.main([str(place), *following.group().split()])
        said, calls = capsys.readouterr().out, calls + 1
        found = files_in(place)
        assert 1 <= len(found) <= 8
        assert max(path.stat().st_size for path in found) < gpu.LARGEST_SHARD[False] + NUM_TENSOR_HEADER_BYTES
        for path in found:
            assert not (home / path.name).exists()
            shutil.copy(path, home)
    assert calls >= 2
    *_, checkpoint = sorted(Path(f"{place}.run/base/checkpoints").iterdir())
    weights = {
        name.removeprefix("audiopg."): value.bfloat16().float()
        for name, value in load_file(checkpoint / "model.safetensors").items()
        if name.startswith("audiopg.")
    }
    loaded = AudioPGModel.from_pretrained(home).state_dict()
    assert loaded.keys() == weights.keys()
    for name, value in loaded.items():
        torch.testing.assert_close(value, weights[name], rtol=0, atol=0)
    stored = {value.dtype for path in home.glob("*.safetensors") for value in load_file(path).values()}
    assert stored == {torch.bfloat16}
    measured = json.loads(Path(f"{place}.run/base/statistics.json").read_text())
    assert AutoFeatureExtractor.from_pretrained(home).mean == measured["mean"]


@pytest.mark.parametrize(("size", "beside", "calls"), [("base", 0, 2), ("small", 1, 1)])
def test_base_comes_home_in_two_calls_and_small_in_one_beside_its_report(size, beside, calls):
    with torch.device("meta"):
        weights = AudioPGModel(AudioPGConfig.of_size(size)).bfloat16().state_dict()
    parts = split_torch_state_dict_into_shards(weights, max_shard_size=gpu.LARGEST_SHARD[True])
    configuration_index_and_extractor = 3
    files = len(parts.filename_to_tensors) + configuration_index_and_extractor
    assert files + beside <= calls * gpu.MOST_FILES
    largest = max(sum(weights[name].nbytes for name in names) for names in parts.filename_to_tensors.values())
    assert largest + NUM_TENSOR_HEADER_BYTES < 15e6


def test_weights_share_a_call_with_what_is_there(place, capsys):
    place.mkdir()
    (place / "small.json").write_text("{}")
    gpu.main([str(place), "weights", "base"])
    assert len(files_in(place)) == 8
    assert "weights base 8" in capsys.readouterr().out
    for number in range(7):
        (place / f"{number}.json").write_text("{}")
    with pytest.raises(SystemExit):
        gpu.main([str(place), "weights", "base"])
    assert "8 are there; empty" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        gpu.main([str(place), "weights", "base", "99"])
    assert "FROM is one of them; got '99'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        gpu.main([str(place), "weights", "small"])
    assert "holds no run" in capsys.readouterr().err


def test_small_redraws_and_names_factors(tmp_path):
    gpu.main([str(tmp_path / "out"), "small", "60"])
    assert rows_of(tmp_path / "out/small.json")["run"]["finished"]
    assert {"reconstruction", "factors"} <= json.loads((tmp_path / "out/small.json").read_text())["log"][0].keys()


def test_probes_that_are_cut_off_keep_what_they_have(place, features, monkeypatch):
    sets = iter(["one event"])

    def some(preset, probe_set, *numbers, **options):
        if next(sets, None) is None:
            raise KeyboardInterrupt
        return probe_clips(preset, probe_set, *numbers, **options)

    probe_clips = gpu.probe_clips
    monkeypatch.setattr(gpu, "probe_clips", some)
    with pytest.raises(KeyboardInterrupt):
        gpu.main([str(place), "probes", str(features)])
    rows = rows_of(place / "probes.json")
    name = FeatureCache.load(features).dataset_name
    readers = ["log-mel mean and deviation", "pre-trained encoder", "random encoder"]
    assert {f"{name}, {reader}" for reader in readers} <= rows.keys()
    assert {f"{factor}, {reader}" for reader in readers for factor in ("frequency", "onset")} <= rows.keys()
    assert not any(row.startswith("events") for row in rows)
    assert rows[f"{name}, log-mel mean and deviation"]["mean"] == 1.0  # a low and a high tone


def test_finetuning_writes_every_round_and_their_means(place, features):
    gpu.main([str(place), "finetuning", str(features)])
    report = json.loads((place / "finetuning.json").read_text())
    assert report["settings"]["clip_seconds"] is None
    rounds = {name: row for name, row in report["rows"].items() if "fold" in name}
    assert len(rounds) == 6
    for condition in ("pre-trained, fine-tuned", "from scratch, same budget"):
        own = [row["score"] for name, row in rounds.items() if name.startswith(condition[:4])]
        assert report["rows"][condition]["mean"] == pytest.approx(sum(own) / 3, abs=1e-4)


def test_without_recordings_fine_tuning_is_not_measured(place):
    gpu.main([str(place), "finetuning"])
    assert rows_of(place / "finetuning.json")["fast"] == {"not measured": "no labelled recordings were given"}


def bare_environment(folder: Path) -> dict[str, str]:
    """Of a machine that has torch, transformers, accelerate, numpy and PyYAML, and no GPU."""
    (folder / "bare").mkdir()
    (folder / "bare/sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({ABSENT}))\n")
    settings = {"PYTHON": sys.executable, "PYTHONPATH": str(folder / "bare"), "CUDA_VISIBLE_DEVICES": ""}
    return {**os.environ, "OMP_NUM_THREADS": "1", **settings}


def test_what_needs_a_package_that_is_missing_is_not_measured(tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks/gpu.py"), str(tmp_path / "out"), "probes"],
        env=bare_environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    [row] = rows_of(tmp_path / "out/probes.json").values()
    assert re.fullmatch(r"(sklearn|scipy)[\w.]* is not installed", row["not measured"])


def gpu_script(*words: object, timeout: float = 60, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", str(ROOT / "benchmarks/gpu.sh"), *map(str, words)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


@pytest.fixture
def stand_in(tmp_path):
    """Instead of Python: notes what it is called with; `base` hangs, and heeds nothing."""
    path = tmp_path / "python"
    path.write_text(
        f'#!/bin/bash\n[ "$1" = -c ] && exit\necho "$(basename "$1") ${{*:3}} COMMIT=$COMMIT" >> {tmp_path}/calls\n'
        '[ "${3:-}" = base ] && { trap "" TERM; while :; do sleep 0.1; done; }\nexit 0\n'
    )
    path.chmod(0o755)
    return path


def test_a_step_that_hangs_is_cut_off_and_the_next_ones_run(stand_in, tmp_path):
    (tmp_path / "esc10.safetensors").touch()
    script = (ROOT / "benchmarks/gpu.sh").read_text()
    assert "-k 10 " in script
    quick = tmp_path / "checkout/benchmarks/gpu.sh"
    quick.parent.mkdir(parents=True)
    quick.write_text(script.replace("-k 10 ", "-k 1 "))
    done = subprocess.run(
        ["bash", str(quick), str(tmp_path / "out"), "first", str(tmp_path / "esc10.safetensors")],
        env=os.environ | {"PYTHON": str(stand_in), "BASE_SECONDS": "1", "COMMIT": "0123"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 137
    assert "base ended with 137" in done.stderr
    data = tmp_path / "esc10.safetensors"
    assert (tmp_path / "calls").read_text().splitlines() == [
        "gpu.py speed COMMIT=0123",
        "gpu.py base 1 COMMIT=0123",
        f"gpu.py probes {data} COMMIT=0123",
        f"gpu.py finetuning {data} COMMIT=0123",
        "gpu_summary.py speed base probes finetuning COMMIT=0123",
    ]


def test_other_calls_bring_weights_and_train_small(stand_in, tmp_path):
    assert gpu_script(tmp_path / "out", "weights", "base", 9, PYTHON=str(stand_in)).returncode == 0
    assert gpu_script(tmp_path / "out", "small", 120, PYTHON=str(stand_in)).returncode == 0
    calls = re.sub(r" COMMIT=\S*", "", (tmp_path / "calls").read_text()).splitlines()
    assert calls == [
        *("gpu.py weights base 9", "gpu_summary.py "),
        *("gpu.py small 120", "gpu.py weights small", "gpu_summary.py small"),
    ]


@pytest.mark.parametrize("words", [[], ["first", "nowhere"], ["small"], ["weights"], ["everything"]])
def test_calls_that_make_no_sense_are_refused_at_once(stand_in, tmp_path, words):
    done = gpu_script(tmp_path / "out", *words, PYTHON=str(stand_in))
    assert done.returncode == 2
    assert "usage: benchmarks/gpu.sh" in done.stderr or "there is no nowhere" in done.stderr
    assert not (tmp_path / "calls").exists()


def test_the_steps_of_the_first_call_end_within_nine_minutes():
    """Even if each hangs and is killed."""
    script = (ROOT / "benchmarks/gpu.sh").read_text()
    limits = [int(number) for number in re.findall(r'step "\$\{[A-Z]+_SECONDS:-(\d+)\}"', script)]
    [grace] = re.findall(r"-k (\d+) ", script)
    assert limits == [40, 300, 60, 90]
    assert sum(limits) + len(limits) * int(grace) <= 9 * 60 - 10


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("has_extras", [False, True])
def test_the_plan_runs_at_toy_size(tmp_path, features, has_extras):
    environment = {"PYTHON": sys.executable} if has_extras else bare_environment(tmp_path)
    patient = {f"{step}_SECONDS": "280" for step in ("SPEED", "BASE", "PROBES", "FINETUNING")}
    done = gpu_script(tmp_path / "out", "first", features, timeout=1200, **environment, **patient)
    assert done.returncode == 0, done.stderr[-3000:]
    assert ("not measured" in done.stdout) == (not has_extras)
    assert len(files_in(tmp_path / "out")) == 4
    assert len(rows_of(tmp_path / "out/speed.json")) == 2
    shutil.rmtree(tmp_path / "out")
    done = gpu_script(tmp_path / "out", "small", 280, timeout=500, **environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(files_in(tmp_path / "out")) == 8
