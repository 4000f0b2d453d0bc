import json
from dataclasses import replace

import contenders
import pytest
import voices as benchmark

from audiopg.data_scripts.voices import VOICE_PRESETS

NYQUIST = replace(VOICE_PRESETS["voices"], below_nyquist=False)


def test_the_ratio_says_how_often_as_fast_we_are():
    def row(title, seconds):
        made = [{"seconds": s, "cpu_seconds": 2 * s} for s in seconds]
        return {"title": title, "makes": "x"}, 16.0, made

    running = [row("ours", [1.0, 2.0, 3.0]), row("theirs", [4.0, 4.0, 9.0])]
    contenders.add_ratios(running, "ours")
    assert running[0][0] == {"title": "ours", "makes": "x", "ratio": 1.0, "cpu_ratio": 1.0}
    assert running[1][0]["ratio"] == 3.0


def test_sounds_of_voices_are_made_in_turns():
    competing = benchmark.contenders(2, 0.1, peers=False, compiled=False)
    rows, running = contenders.in_turns(competing, "cpu", threads=1, rounds=2, peers=None)
    assert [row["title"] for row in rows] == ["AudioPG"]
    assert rows[0]["times_real_time"] > 0
    assert len(running[0][2]) == 2


def test_limits_below_nyquist_leave_fewer_aliases():
    assert benchmark.aliased_share(VOICE_PRESETS["voices"], 48) < 0.5 * benchmark.aliased_share(NYQUIST, 48)


def test_every_switch_of_a_preset_is_measured():
    rows = [row for row in benchmark.differences(8) if row["architecture"] == "voice_fm"]
    switches = {row["switch"] for row in rows}
    expected = set(vars(NYQUIST)) - {"name", "description", "wrapped_phases"}
    assert switches == expected | {"none: voices", "all: synthax"}
    assert all(row["log_mel_distance"] > 0 for row in rows[1:])


@pytest.mark.slow
def test_the_whole_benchmark_at_toy_size(tmp_path):
    output = tmp_path / "results/toy.json"
    benchmark.main(["--batch_sizes", "2", "--threads", "1", "--rounds", "1", "--output", str(output)])
    assert json.loads(output.read_text())["contenders"][0]["ratio"] == 1.0
