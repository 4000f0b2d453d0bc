import re

import pytest
import torch

from audiopg.data_scripts.clip_rows import (
    FRAME_LENGTH_SECONDS,
    HOP_LENGTH_SECONDS,
    clip_rows,
    columns,
    describe,
    event_activity,
)
from audiopg.data_scripts.synthesis import PRESETS, draw, get_preset
from audiopg.data_scripts.synthesis.parameters import MODES
from audiopg.modeling import spectrogram_audiopg

CLIPS = 40


@pytest.fixture(scope="module")
def drawn():
    return {name: draw(name, 3, range(CLIPS)) for name in PRESETS}


@pytest.fixture(scope="module")
def rows(drawn):
    return {name: clip_rows(parameters, torch.full((CLIPS,), 20.0)) for name, parameters in drawn.items()}


@pytest.mark.parametrize("duration", [0.025, 0.034, 0.035, 1.0, 10.24])
@pytest.mark.parametrize("sampling_rate", [8000, 16000, 22050])
def test_frames_are_those_of_the_log_mel(duration, sampling_rate):
    num_samples = round(duration * sampling_rate)
    always = event_activity(
        torch.zeros(1), torch.full((1,), duration), num_samples=num_samples, sampling_rate=sampling_rate
    )
    assert always.all()
    assert always.shape == (1, spectrogram_audiopg.num_frames(num_samples, sampling_rate))
    assert spectrogram_audiopg.FRAME_LENGTH_SECONDS == FRAME_LENGTH_SECONDS
    assert spectrogram_audiopg.HOP_LENGTH_SECONDS == HOP_LENGTH_SECONDS


def test_active_events_count_the_events_at_each_frame_s_centre(drawn, rows):
    parameters = drawn["audiopg"]
    for clip in range(3):
        counted = []
        for frame in range(1022):
            centre = (160 * frame + 200) / 16000
            counted.append(0)
            for event in range(int(parameters["num_events"][clip])):
                onset = float(parameters["onset"][clip, event])
                counted[-1] += onset <= centre < onset + float(parameters["event_length"][clip, event])
        assert rows["audiopg"][clip]["active_events"] == counted
        assert max(counted) > 0


@pytest.mark.parametrize("name", PRESETS)
def test_rows_have_the_described_columns_in_order(rows, name):
    assert all(list(row) == list(columns(PRESETS[name])) for row in rows[name])


@pytest.mark.parametrize("name", PRESETS)
def test_every_factor_that_is_drawn_has_a_column(drawn, name):
    hash_keys = {"noise_key", "transient_key", "band_key", "room_key"}  # follow from seed and index
    assert set(columns(PRESETS[name])) == (set(drawn[name]) - hash_keys) | {"index", "seed", "snr_db", "active_events"}


@pytest.mark.parametrize("name", PRESETS)
def test_lists_are_as_long_as_there_are_events_and_partials(rows, name):
    described = columns(PRESETS[name])
    for row in rows[name]:
        for column, values in row.items():
            if described[column].depth and column != "active_events":
                assert len(values) == row["num_events"], column
        counts = [count or 0 for count in row["num_partials"]]
        assert [len(gains) for gains in row["partial_gain"]] == counts


def test_values_are_the_drawn_ones_wherever_they_shape_the_clip(drawn, rows):
    parameters = drawn["audiopg"]
    of_mode = {"num_partials": "harmonic", "modulation_index": "fm", "modulation_ratio": "fm", "pulse_shape": "pulse"}
    for clip, row in enumerate(rows["audiopg"]):
        assert row["index"] == clip
        assert row["cutoff"] == (parameters["cutoff"][clip] if parameters["damping"][clip] else None)
        for name in ("transient_onset", "transient_length", "transient_gain"):
            assert row[name] == (parameters[name][clip] if parameters["transient"][clip] else None)
        for event in range(row["num_events"]):
            for name in ("f0", "onset", "event_length", "amplitude", "attack", "decay", "source_start", "mode"):
                assert row[name][event] == parameters[name][clip, event]
            for name, mode in of_mode.items():
                shapes = MODES[row["mode"][event]] == mode
                assert row[name][event] == (parameters[name][clip, event] if shapes else None)


def test_a_sound_of_constant_level_has_no_attack(rows):
    assert all(row["attack"] == row["decay"] == [None] for row in rows["sine"])


def test_a_clip_without_noise_has_no_level_over_it(drawn):
    rows = clip_rows(drawn["dynamic"], torch.full((CLIPS,), torch.inf))
    assert {row["snr_db"] for row in rows} == {None}
    assert "no background noise" in describe(rows[0], PRESETS["dynamic"])


def test_columns_take_unit_and_meaning_from_the_ranges():
    preset = get_preset("audiopg")
    described = columns(preset)
    for name in set(described) & set(preset.ranges):
        assert described[name].description == preset.ranges[name].description
    assert (described["f0"].unit, described["attack"].unit, described["partial_phase"].unit) == ("Hz", "s", "cycles")
    assert (described["mode"].names, described["mode"].depth) == (MODES, 1)
    assert [described[name].kind for name in ("num_events", "transient", "modulation_ratio")] == [
        "int",
        "bool",
        "float",
    ]


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("harmonic", r"harmonic, f0 440 Hz, \d+ partials?; level"),
        ("fm", "fm, f0 440 Hz, index [0-9.]+ rad, ratio 2;"),
        ("pulse", "pulse, f0 440 Hz, (sawtooth|square);"),
    ],
)
def test_a_clip_is_put_in_words(mode, words):
    parameters = draw("reference", 0, range(12), mode=mode, f0=440, modulation_ratio=2)
    for row in clip_rows(parameters, torch.full((12,), 31.4)):
        lines = describe(row, parameters.preset)
        assert len(lines) == row["num_events"] + 3
        assert lines[0].startswith(f"event 1, {row['onset'][0]:.2f} to ")
        assert re.search(words, lines[0])
        assert lines[-1].endswith("SNR 31 dB")
        assert ("no noise burst" in lines) == (not row["transient"])
        assert ("no low-pass" in lines) == (not row["damping"])


def test_noise_strikes_and_rooms_are_in_rows_and_words_where_they_sound():
    rich = {"mode": list(MODES), "strike_probability": 0.5, "room_probability": 0.5}
    parameters = draw("audiopg", 0, range(CLIPS), **rich)
    rows = clip_rows(parameters, torch.full((CLIPS,), 20.0))
    seen = set()
    for clip, row in enumerate(rows):
        lines = describe(row, parameters.preset)
        assert any(line.startswith("room: ") for line in lines) == row["room"]
        assert [row[name] is None for name in ("room_time", "room_level")] == [not row["room"]] * 2
        for event in range(row["num_events"]):
            is_noise, struck = MODES[row["mode"][event]] == "noise", row["strike"][event]
            seen.add((is_noise, struck, row["room"]))
            assert (row["f0"][event] is None) == is_noise
            assert (row["band_width"][event] is not None) == is_noise
            assert (row["strike_period"][event] is not None) == (row["strike_decay"][event] is not None) == struck
            assert ("Hz wide at" in lines[event]) == is_noise
            assert ("struck every" in lines[event]) == struck
            if is_noise:
                assert row["band_width"][event] == parameters["band_width"][clip, event]
    assert len(seen) == 8
    described = columns(parameters.preset)
    assert {described[name].unit for name in ("band_centre", "band_width")} == {"Hz"}


def test_formants_are_in_rows_and_words_where_they_sound():
    parameters = draw("audiopg", 0, range(CLIPS), mode=list(MODES), formant_probability=0.5, num_formants=(2, 4))
    rows, described = clip_rows(parameters, torch.full((CLIPS,), 20.0)), columns(parameters.preset)
    assert set(described) - set(columns(PRESETS["audiopg"])) == {name for name in parameters if "formant" in name}
    assert all(list(row) == list(described) for row in rows)
    assert (described["formant_3"].depth, described["formant_3"].inner, described["formant_3"].unit) == (
        2,
        "point",
        "Hz",
    )
    assert (described["formant_level"].depth, described["formant_level"].inner) == (2, "formant")
    assert described["partial_gain"].inner == "partial"
    seen = set()
    for clip, row in enumerate(rows):
        lines = describe(row, parameters.preset)
        for event in range(row["num_events"]):
            number, points = row["num_formants"][event], row["formant_points"][event]
            seen.add((number, points))
            assert row["formant"][event] == ("formants from" in lines[event]) == (number is not None)
            for name in ("formant_bandwidth", "formant_level"):
                assert row[name][event] == parameters[name][clip, event, : number or 0].tolist()
            for k in range(1, 5):
                lasting = points if k <= (number or 0) else 0
                assert row[f"formant_{k}"][event] == parameters[f"formant_{k}"][clip, event, :lasting].tolist()
    assert {number for number, _ in seen} == {None, 2, 3, 4}
    assert {points for _, points in seen} == {None, *range(2, 7)}


def test_a_burst_within_a_shared_source_is_said_to_be_there():
    parameters = draw("reference", 0, [0], transient_probability=1)
    row = clip_rows(parameters, torch.tensor([20.0]))[0]
    assert any("of the source" in line for line in describe(row, parameters.preset))
    assert not any("of the source" in line for line in describe(row, PRESETS["audiopg"]))
