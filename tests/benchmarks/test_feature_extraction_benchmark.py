import importlib.util
import json
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "feature_extraction.py"
SPEC = importlib.util.spec_from_file_location("feature_extraction_benchmark", SCRIPT)
benchmark = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(benchmark)


def test_both_make_the_same_inputs():
    calls = benchmark.contenders(benchmark.noise_clips(2, "cpu"), "cpu")
    assert benchmark.largest_difference(calls) < 1e-4
    assert {call().shape for call in calls.values()} == {(2, 1024, 128)}


def test_the_extractors_take_turns_and_the_median_counts(monkeypatch):
    order = []
    calls = {"audiopg": lambda: order.append("ours"), "ast": lambda: order.append("theirs")}
    clock = iter(range(1000))
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: float(next(clock)))
    seconds = benchmark.measure(calls, rounds=4, device="cpu")
    assert order[2:] == ["theirs", "ours", "ours", "theirs"] * 2
    assert {times["wall"] for times in seconds.values()} == {1.0}


def test_the_command_line_writes_what_was_measured_and_where(tmp_path, capsys):
    threads = torch.get_num_threads()
    output = tmp_path / "results" / "speed.json"
    words = ["--clips", "1", "--threads", "1", "2", "--rounds", "1", "--output", str(output)]
    benchmark.main(words)
    report = json.loads(output.read_text())
    assert {"hardware", "versions", "commit"} <= set(report)
    assert [(row["clips"], row["threads"]) for row in report["rows"]] == [(1, 1), (1, 2)]
    for row in report["rows"]:
        seconds = row["seconds"]
        assert row["speedup"]["wall"] == pytest.approx(seconds["ast"]["wall"] / seconds["audiopg"]["wall"], abs=0.01)
        assert row["clips_per_second"]["ast"] == pytest.approx(1 / seconds["ast"]["wall"], abs=0.1)
    assert capsys.readouterr().out.count("faster by") == 2
    assert torch.get_num_threads() == threads


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named(capsys):
    with pytest.raises(SystemExit, match="2"):
        benchmark.main(["--device", "cuda"])
    assert "no CUDA device" in capsys.readouterr().err


def test_committed_figures_meet_the_goal():
    report = json.loads((SCRIPT.parent / "results" / "feature_extraction_cpu.json").read_text())
    assert all(row["speedup"]["wall"] >= 1.5 for row in report["rows"] if row["clips"] > 1)
    assert all(row["largest_difference"] < 1e-4 for row in report["rows"])


@pytest.mark.gpu
def test_tensors_on_the_gpu_are_measured_there():
    row = benchmark.compare(num_clips=2, rounds=2, device="cuda", num_threads=1)
    assert row["largest_difference"] < 1e-2
    assert set(row["speedup"]) == {"wall"}
