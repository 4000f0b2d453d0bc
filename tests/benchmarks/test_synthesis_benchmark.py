import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from audiopg.data_scripts.synthesis import get_preset
from audiopg.modeling.feature_extraction_audiopg import AudioPGFeatureExtractor
from audiopg.training.publishing.pages import synthesis_part

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def load(path):
    """A script as a module of its own name; the folder of benchmarks is no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


benchmark = load(BENCHMARKS / "synthesis.py")
audiopg_stages = load(BENCHMARKS / "peers/audiopg_stages.py")
research_loop = load(BENCHMARKS / "peers/research_loop.py")


def contender_row(title, makes, threads, **values):
    return {"title": title, "makes": makes, "batch_size": 16, "threads": threads, **values}


RESULTS = {
    "hardware": "a computer",
    "versions": {"torch": "2.11.0"},
    "commit": "0123456789ab",
    "command": "python benchmarks/synthesis.py",
    "load_average": {"before": 1.25, "after": 2.0, "cores": 2},
    "contenders": [
        row
        for threads in (1, 2)
        for row in (
            contender_row("AudioPG, reference", "waveforms", threads, times_real_time=4000, ratio=1.0),
            contender_row("AudioPG, reference", "log-mel", threads, times_real_time=2000, ratio=1.0),
            contender_row("Loop", "log-mel", threads, times_real_time=800, ratio=2.51),
            contender_row("Peer", "waveforms", threads, error="ERROR: no such thing"),
        )
    ],
    "stages": [
        {
            "preset": "reference",
            "batch_size": batch_size,
            "threads": 1,
            "milliseconds_per_clip": {"draw": batch_size / 1000, "events": 0.5},
            "clips_per_second": 123.4,
            "times_real_time": 1264,
        }
        for batch_size in (4, 16, 64)
    ],
    "memory": [{"batch_size": 64, "megabytes": 128.0, "per_clip": 2.0}],
    "soak": {"batches": 200, "batch_size": 4, "megabytes": [300.0, 300.5, 301.0]},
}


def test_the_stages_of_a_call_have_the_names_of_the_table_and_all_take_time():
    preset = get_preset("reference", duration=0.5, transient_probability=1, damping_probability=1)
    seconds = audiopg_stages.seconds_by_stage(preset, range(2), "cpu")
    assert set(seconds) == set(benchmark.STAGES)
    assert all(value > 0 for value in seconds.values())


def test_a_stage_within_a_stage_counts_as_itself_and_deeper_ones_as_the_one_that_they_are_in(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(audiopg_stages.time, "perf_counter", lambda: next(clock))
    watch = audiopg_stages.Stopwatch("cpu")
    with watch.stage("outer"):
        with watch.stage("inner"), watch.stage("deeper"):
            next(clock)
        next(clock)
    assert watch.seconds == {"outer": 3, "inner": 2}


def test_after_a_measurement_nothing_is_timed_any_more():
    entrances = {name: getattr(*entrance) for name, entrance in audiopg_stages.STAGES.items()}
    audiopg_stages.seconds_by_stage(get_preset("sine", duration=0.1), range(1), "cpu")
    assert {name: getattr(*entrance) for name, entrance in audiopg_stages.STAGES.items()} == entrances


@pytest.mark.parametrize("precision", [np.float32, np.float64])
def test_the_loop_makes_full_scale_clips_and_standardises_them_as_the_feature_extractor_does(precision):
    waveform = research_loop.clip(np.random.default_rng(0), 16000, precision)
    assert waveform.dtype == np.float32
    assert np.abs(waveform).max() == 1.0
    extractor = AudioPGFeatureExtractor(mean=research_loop.MEAN, std=research_loop.STD)
    frames = 98
    expected = extractor.extract(torch.from_numpy(waveform)[None])[0, :frames]
    torch.testing.assert_close(research_loop.features(waveform)[:frames], expected, rtol=0, atol=1e-3)


def test_a_contender_answers_every_step_with_its_time_and_memory():
    options = {"batch_size": 1, "duration": 0.1}
    with benchmark.Contender("research_loop", options, threads=1) as process:
        assert process.ready["audio_seconds"] == pytest.approx(0.1)
        first, second = process.make(1), process.make(2)
    assert first["made"] != second["made"]
    assert min(first["seconds"], first["cpu_seconds"], first["memory"]["peak"]) > 0


def test_a_contender_that_does_not_start_says_why():
    with pytest.raises(RuntimeError, match="No module named 'nobody'"):
        benchmark.Contender("nobody", {}, threads=1)


def test_a_peer_that_cannot_be_installed_is_in_the_results_as_an_error(tmp_path, monkeypatch):
    peer = {"title": "Nobody", "requirements": ("--no-index", "no-such-distribution==0")}
    monkeypatch.setattr(benchmark, "PEERS", {"nobody": peer})
    everyone = benchmark.contenders
    monkeypatch.setattr(benchmark, "contenders", lambda *options: [*everyone(*options)][-1:])
    (row,) = benchmark.compare("cpu", threads=1, rounds=1, peers=tmp_path)
    assert row["title"] == "Nobody"
    assert "no-such-distribution" in row["error"]


def test_the_readme_shows_every_contender_and_hides_no_error():
    text = synthesis_part(RESULTS)
    assert "| AudioPG, reference, waveforms | 4,000 | 4,000 |" in text
    assert "| Loop, log-mel | 800 (`reference` makes 2.5 times that) | 800" in text
    assert "| Peer, waveforms | error: ERROR: no such thing |" in text
    assert "clip of `reference` in a batch of 16: draw 0.02, events 0.50." in text
    assert "2.0 MB a clip in a batch of 64; the process held 300 MB" in text


def test_the_table_of_stages_has_a_line_per_row():
    lines = benchmark.stage_table(RESULTS["stages"]).splitlines()
    assert lines[0].startswith("| preset | batch | threads | draw, ms | events, ms |")
    assert lines[2:] == [f"| reference | {b} | 1 | {b / 1000:.3f} | 0.500 | 123.4 | 1264 |" for b in (4, 16, 64)]


def test_the_chart_is_a_picture(tmp_path):
    benchmark.draw_chart(RESULTS, tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_whole_benchmark_at_toy_size(tmp_path, capsys):
    output = tmp_path / "results/toy.json"
    small = "--duration 0.5 --batch_sizes 2 --threads 1 --repeats 1 --rounds 1 --soak_batches 10"
    benchmark.main([*small.split(), "--output", str(output)])
    results = json.loads(output.read_text())
    assert {row["title"] for row in results["contenders"]} >= {"AudioPG, reference", "AudioPG, audiopg"}
    assert all(row["times_real_time"] > 0 for row in results["contenders"])
    assert len(results["soak"]["megabytes"]) == 10
    assert results["command"].endswith(f"--output {output}")
    assert output.with_suffix(".png").exists()
    assert "| reference | 2 | 1 |" in capsys.readouterr().out
