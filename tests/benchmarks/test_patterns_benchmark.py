import importlib.util
import json
from pathlib import Path

import pytest

from audiopg.data_scripts.patterns import PATTERNS

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "patterns.py"
SPEC = importlib.util.spec_from_file_location("patterns_benchmark", SCRIPT)
benchmark = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(benchmark)


def test_every_batch_is_made_twice_and_the_median_of_second_times_counts(monkeypatch):
    clock = iter([0, 100, 100, 102, 200, 300, 300, 304, 400, 500, 500, 501])  # 100 s at first, then 2, 4 and 1
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: float(next(clock)))
    row = benchmark.measure(PATTERNS["zone_plates"], batch_size=4, repeats=3, device="cpu", size=32)
    assert row["images_per_second"] == 2.0
    assert row["cpu_milliseconds_per_image"] >= 0


def test_the_command_line_writes_what_was_measured_and_where(tmp_path, capsys):
    path = tmp_path / "speed.json"
    small = ["--batch_sizes", "2", "--repeats", "1", "--size", "32", "--output", str(path)]
    benchmark.main(["--sets", "perlin", "zone_plates", *small])
    results = json.loads(path.read_text())
    assert {"hardware", "versions", "commit", "load_average", "command"} <= results.keys()
    assert [(row["set"], row["threads"]) for row in results["sets"]] == [
        ("perlin", 1),
        ("perlin", 2),
        ("zone_plates", 1),
        ("zone_plates", 2),
    ]
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "| set | batch 2, 1 thread | batch 2, 2 threads |"
    assert said[2].startswith("| perlin | ")


def test_an_unknown_set_is_refused(capsys):
    with pytest.raises(SystemExit) as stopped:
        benchmark.main(["--sets", "nothing"])
    assert stopped.value.code == 2
    assert "got 'nothing'" in capsys.readouterr().err
