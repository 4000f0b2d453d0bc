import copy
import itertools
import math
import pickle
import random

import numpy as np
import pytest
import torch
from scipy import stats

from audiopg.data_scripts.synthesis.parameters import (
    FORMANTS,
    MODES,
    PRESETS,
    PULSE_SHAPES,
    Choice,
    OctaveRange,
    Range,
    draw,
    get_preset,
)

DURATION, SAMPLING_RATE = 10.24, 16000
CLIPS = 2000
# What the specification of the sound says, written down a second time.
UNIFORM = {
    "f0": (50, 2000),
    "partial_rolloff": (0.5, 1.5),
    "partial_gain": (0.5, 1.2),
    "partial_detuning": (0.995, 1.005),
    "partial_phase": (0, 1),
    "modulation_index": (0.5, 8),
    "transient_length": (0.01, 0.1),
    "transient_gain": (0.5, 2),
    "cutoff": (200, 6000),
    "noise_gain": (0.001, 0.02),
    "band_centre": (100, 6000),
    "strike_period": (0.04, 0.6),
    "strike_decay": (0.01, 0.15),
    "room_time": (0.1, 1),
    "room_level": (0.1, 1),
}
INTEGER = {"num_partials": (3, 15), "num_events": (1, 5)}
CHOICE = {"mode": [0, 1, 2], "pulse_shape": [0, 1], "modulation_ratio": [0.5, 1, 1.5, 2, 2.5, 3.14]}
PROBABILITY = {"transient": 0.6, "damping": 0.7}
OF_SOURCES = (
    *("f0", "mode", "num_partials", "modulation_index", "modulation_ratio", "pulse_shape"),
    *("band_centre", "band_width", "band_key"),
)
OF_PARTIALS = ("partial_rolloff", "partial_gain", "partial_detuning", "partial_phase")
OF_EVENTS = (
    *("event_length", "onset", "source_start", "amplitude", "attack", "decay"),
    *("strike", "strike_period", "strike_decay"),
)
OF_CLIPS = (
    *("num_events", "transient", "transient_length", "transient_onset", "transient_gain", "damping", "cutoff"),
    *("noise_gain", "noise_key", "transient_key", "room", "room_time", "room_level", "room_key"),
)

GOLDEN_VALUES = {
    "f0": ["0x1.d3aeef90d9985p+10", "0x1.2eac27f2d565fp+10"],
    "partial_detuning": ["0x1.fef9bad1ccdfbp-1", "0x1.00d28a4bfdca3p+0"],
    "modulation_index": ["0x1.57b908c99bee5p+1", "0x1.a895a831901c9p+2"],
    "event_length": ["0x1.8d0c6ec75672dp+1", "0x1.885886a2bcec2p-1"],
    "onset": ["0x1.1667280a25179p+2", "0x1.7f0a98a7ee5b8p+2"],
    "attack": ["0x1.766c4d9533406p-2", "0x1.60ea58af6533ep-5"],
    "cutoff": ["0x1.f9474c8e79823p+10", "0x1.35c08309f7f0cp+12"],
    "noise_gain": ["0x1.34cf607fbc91ep-7", "0x1.aa2b4b7e289f4p-8"],
    "num_events": ["0x1.0000000000000p+1", "0x1.4000000000000p+2"],
    "mode": ["0x0.0p+0", "0x0.0p+0"],
}
GOLDEN_NOISE_KEYS = [-4616351679293370443, 2539593042746531600]


@pytest.fixture(scope="module")
def many():
    return {name: draw(name, 0, range(CLIPS)) for name in PRESETS}


def independent(parameters, name):
    """All independent draws of a parameter as one NumPy array: the first event's where all share its source."""
    values = parameters[name]
    if parameters.preset.shared_source and name in (*OF_SOURCES, *OF_PARTIALS):
        values = values[:, 0]
    return values.flatten().numpy()


def assert_uniform(values, low, high):
    assert low <= values.min()
    assert values.max() <= high
    assert stats.kstest(values, "uniform", args=(low, high - low)).pvalue > 0.005


def assert_equally_likely(values, outcomes):
    found, counts = np.unique(values, return_counts=True)
    assert found.tolist() == list(outcomes)
    assert stats.chisquare(counts).pvalue > 0.005


def assert_same_clips(some, of_all, rows):
    assert list(some) == list(of_all)
    for name in some:
        assert torch.equal(some[name], of_all[name][rows]), name


def shapes(parameters):
    return {name: tuple(value.shape) for name, value in parameters.items()}


@pytest.mark.parametrize("name", UNIFORM)
def test_reference_is_uniform_over_the_specified_interval(many, name):
    assert_uniform(independent(many["reference"], name), *UNIFORM[name])


@pytest.mark.parametrize("name", INTEGER)
def test_whole_numbers_are_equally_likely_with_both_ends_included(many, name):
    low, high = INTEGER[name]
    assert_equally_likely(independent(many["reference"], name), range(low, high + 1))


@pytest.mark.parametrize("name", CHOICE)
def test_choices_are_equally_likely(many, name):
    assert_equally_likely(independent(many["reference"], name), CHOICE[name])


def test_names_are_stored_as_their_position():
    assert MODES == ("harmonic", "fm", "pulse", "noise")
    assert PULSE_SHAPES == ("sawtooth", "square")
    assert set(draw("reference", 0, range(20), mode="pulse")["mode"].flatten().tolist()) == {2}
    assert set(draw("reference", 0, range(20), pulse_shape=["square"])["pulse_shape"].flatten().tolist()) == {1}


@pytest.mark.parametrize("preset", ["reference", "audiopg"])
@pytest.mark.parametrize("name", PROBABILITY)
def test_transients_and_damping_are_as_frequent_as_specified(many, preset, name):
    happened = int(many[preset][name].sum())
    assert stats.binomtest(happened, CLIPS, PROBABILITY[name]).pvalue > 0.005


@pytest.mark.parametrize(("drawn", "name"), [("strike", "strike_probability"), ("room", "room_probability")])
def test_strikes_and_rooms_are_absent_unless_asked_for(many, drawn, name):
    assert not any(many[preset][drawn].any() for preset in PRESETS)
    asked = draw("audiopg", 0, range(CLIPS), **{name: 0.3})[drawn].flatten()
    assert stats.binomtest(int(asked.sum()), len(asked), 0.3).pvalue > 0.005


FORMANT_CENTRES = ((250, 900), (600, 3000), (1500, 4000), (2500, 5000), (3500, 6500))


@pytest.fixture(scope="module")
def formants():
    return draw("audiopg", 0, range(CLIPS), formant_probability=0.3)


def test_formants_are_nowhere_unless_asked_for(many, formants):
    assert not any("formant" in name for preset in PRESETS for name in many[preset])
    assert all(PRESETS[preset].formants == () for preset in PRESETS)
    asked = formants["formant"].flatten()
    assert stats.binomtest(int(asked.sum()), len(asked), 0.3).pvalue > 0.005


def test_formants_change_no_other_number(many, formants):
    own = {"formant", "num_formants", "formant_points", "formant_bandwidth", "formant_level", *FORMANTS}
    assert set(formants) == set(many["audiopg"]) | own
    assert all(torch.equal(formants[name], value) for name, value in many["audiopg"].items())


def test_formants_come_with_a_documented_shape(formants):
    found = shapes(formants)
    assert {found[name] for name in ("formant", "num_formants", "formant_points")} == {(CLIPS, 5)}
    assert {found[name] for name in ("formant_bandwidth", "formant_level")} == {(CLIPS, 5, 5)}
    assert {found[name] for name in FORMANTS} == {(CLIPS, 5, 6)}
    fewer = draw("audiopg", 0, range(4), formant_probability=1, num_formants=(1, 2), formant_points=3)
    assert fewer.preset.formants == ("formant_1", "formant_2")
    assert shapes(fewer)["formant_2"] == (4, 5, 3)
    assert "formant_3" not in fewer


def test_formants_lie_in_their_ranges_and_in_order(formants):
    tracks = [formants[name] for name in FORMANTS]
    for track, (low, high) in zip(tracks, FORMANT_CENTRES, strict=True):
        assert low <= track.min() < 1.1 * low
        assert high / 1.1 < track.max() <= high
    assert all(bool((low <= high).all()) for low, high in itertools.pairwise(tracks))


def test_numbers_bandwidths_and_levels_of_formants_are_drawn_evenly(formants):
    assert_equally_likely(formants["num_formants"].flatten().numpy(), range(3, 6))
    assert_equally_likely(formants["formant_points"].flatten().numpy(), range(2, 7))
    assert_uniform(formants["formant_level"].flatten().numpy(), 0.1, 1)
    widths = formants["formant_bandwidth"]
    assert widths.min() >= 50
    assert widths.max() <= 300
    assert float(widths.median()) == pytest.approx(math.sqrt(50 * 300), rel=0.02)


@pytest.mark.parametrize(("low", "high"), [(50.0, 300.0), (250.0, 900.0), (3500.0, 6500.0)])
def test_octaves_of_an_octave_range_are_about_equally_likely(low, high):
    u = torch.linspace(0, 1, 100_001, dtype=torch.float64)
    values = OctaveRange(low, high, "Hz", "").sample(u).numpy()
    assert (values[0], values[-1]) == pytest.approx((low, high))
    assert values[50_000] == pytest.approx(math.sqrt(low * high))
    counts, _ = np.histogram(np.log2(values), bins=20, range=(math.log2(low), math.log2(high)))
    assert np.abs(counts / counts.mean() - 1).max() < 0.14


def test_an_octave_range_of_one_value_is_that_value():
    assert OctaveRange(123.4, 123.4, "Hz", "").sample(torch.rand(50, dtype=torch.float64)).unique().tolist() == [123.4]


def test_a_band_is_as_wide_as_its_share_of_its_centre(many):
    parameters = many["reference"]
    share = (parameters["band_width"] / parameters["band_centre"])[:, 0].numpy()
    assert_uniform(share, 0.1, 1.5)


@pytest.mark.parametrize("preset", ["reference", "audiopg", "dynamic"])
def test_event_lengths_are_uniform_between_half_a_second_and_their_share_of_the_clip(many, preset):
    parameters = many[preset]
    share_of_clip = DURATION / parameters["num_events"].double()[:, None]
    relative = (parameters["event_length"] - 0.5) / (share_of_clip - 0.5)
    assert_uniform(relative.flatten().numpy(), 0, 1)


@pytest.mark.parametrize("name", ["onset", "source_start"])
def test_events_and_their_sources_lie_uniformly_where_they_fit(many, name):
    parameters = many["reference"]
    assert bool((parameters[name] >= 0).all())
    assert bool((parameters[name] + parameters["event_length"] <= DURATION).all())
    assert_uniform((parameters[name] / (DURATION - parameters["event_length"])).flatten().numpy(), 0, 1)


def test_transients_lie_uniformly_where_they_fit(many):
    parameters = many["reference"]
    room = DURATION - parameters["transient_length"]
    assert_uniform((parameters["transient_onset"] / room).numpy(), 0, 1)


@pytest.mark.parametrize(("name", "low", "high"), [("attack", 0.01, 0.3), ("decay", 0.1, 0.4)])
def test_attack_and_decay_are_a_uniform_share_of_the_event(many, name, low, high):
    share = many["audiopg"][name] / many["audiopg"]["event_length"]
    assert_uniform(share.flatten().numpy(), low, high)


@pytest.mark.parametrize("preset", PRESETS)
def test_parameters_are_pairwise_uncorrelated(many, preset):
    names = (*UNIFORM, "num_events", "num_partials", "amplitude", "transient_onset", "pulse_shape", "mode")
    rows = {name: many[preset][name].reshape(CLIPS, -1)[:, 0].double() for name in names}
    if preset == "audiopg":
        del rows["modulation_index"]  # limited by f0
    varied = torch.stack([row for row in rows.values() if row.std() > 0])
    off_diagonal = torch.corrcoef(varied) - torch.eye(len(varied))
    # 2 000 pairs: one standard deviation is 0.022.
    assert off_diagonal.abs().max() < 0.09


def test_shared_source_is_one_source_per_clip(many):
    for name in (*OF_SOURCES, *OF_PARTIALS):
        values = many["reference"][name]
        assert torch.equal(values, values[:, :1].expand_as(values)), name


def test_audiopg_has_a_source_and_a_level_of_its_own_for_every_event(many):
    parameters = many["audiopg"]
    f0 = parameters["f0"]
    assert f0.unique().numel() == f0.numel()
    assert torch.corrcoef(f0.T).sub(torch.eye(5)).abs().max() < 0.09
    assert_uniform(independent(parameters, "amplitude"), 0.25, 1.0)
    assert_uniform(independent(parameters, "f0"), 50, 2000)
    assert not parameters.preset.shared_source
    assert not parameters.preset.clipped_by_damping


@pytest.mark.parametrize("preset", PRESETS)
def test_every_parameter_comes_back_with_a_documented_shape(many, preset):
    events = int(PRESETS[preset].ranges["num_events"].high)
    partials = int(PRESETS[preset].ranges["num_partials"].high)
    expected = dict.fromkeys(OF_CLIPS, (CLIPS,)) | dict.fromkeys((*OF_SOURCES, *OF_EVENTS), (CLIPS, events))
    expected |= dict.fromkeys(OF_PARTIALS, (CLIPS, events, partials))
    assert shapes(many[preset]) == expected
    assert len(many[preset]) == len(expected)
    assert all(value.device.type == "cpu" for value in many[preset].values())
    assert {value.dtype for value in many[preset].values()} <= {torch.float64, torch.int64, torch.bool}


def test_as_many_event_slots_exist_as_there_are_events(many):
    parameters = many["reference"]
    assert torch.equal(parameters.event_exists.sum(1), parameters["num_events"])
    assert bool(parameters.event_exists[:, 0].all())
    assert bool((parameters.event_exists[:, 1:] <= parameters.event_exists[:, :-1]).all())


def test_the_sine_preset_varies_in_frequency_and_phase_alone(many):
    parameters = many["sine"]
    constants = {"num_partials": 1, "partial_rolloff": 0, "partial_gain": 1, "partial_detuning": 1, "mode": 0}
    constants |= {"num_events": 1, "onset": 0, "source_start": 0, "event_length": DURATION, "amplitude": 1}
    constants |= {"transient": 0, "damping": 0, "noise_gain": 0}
    assert {name: parameters[name].double().unique().tolist() for name in constants} == {
        name: [value] for name, value in constants.items()
    }
    assert not parameters.preset.enveloped
    assert_uniform(independent(parameters, "f0"), 50, 2000)


def test_the_harmonic_preset_has_steady_sources_of_every_kind_and_nothing_else(many):
    parameters = many["harmonic"]
    constants = {"num_events": 1, "onset": 0, "source_start": 0, "event_length": DURATION, "amplitude": 1}
    constants |= {"transient": 0, "damping": 0, "noise_gain": 0}
    assert {name: parameters[name].double().unique().tolist() for name in constants} == {
        name: [value] for name, value in constants.items()
    }
    assert not parameters.preset.enveloped
    assert_equally_likely(independent(parameters, "mode"), CHOICE["mode"])


def test_the_dynamic_preset_is_the_reference_without_damping_and_noise(many):
    dynamic, reference = many["dynamic"], many["reference"]
    different = {name for name in reference if not torch.equal(dynamic[name], reference[name])}
    assert different == {"damping", "noise_gain"}
    assert not dynamic["damping"].any()
    assert not dynamic["noise_gain"].any()
    assert dynamic.preset.enveloped


def test_the_ladder_shares_what_its_steps_share(many):
    for name in (*OF_SOURCES, *OF_PARTIALS):
        first = many["reference"][name][:, 0]
        assert torch.equal(many["harmonic"][name][:, 0], first), name
        assert torch.equal(many["dynamic"][name][:, 0], first), name
    assert torch.equal(many["sine"]["f0"][:, 0], many["reference"]["f0"][:, 0])


def test_drawn_numbers_are_these():
    # A few of them in clear; test_manifest.py has the digest of all, and says what to do.
    parameters = draw("reference", 7, [0, 123456789])
    assert {name: [float(x).hex() for x in parameters[name].reshape(2, -1)[:, 0]] for name in GOLDEN_VALUES} == (
        GOLDEN_VALUES
    )
    assert parameters["noise_key"].tolist() == GOLDEN_NOISE_KEYS


def test_a_clip_is_the_same_in_any_batch_and_order(many):
    rows = torch.tensor([17, 3, 3, 1999, 0])
    for name in PRESETS:
        assert_same_clips(draw(name, 0, rows), many[name], rows)
        assert_same_clips(draw(name, 0, 1999), many[name], [1999])


@pytest.mark.parametrize(
    "indices",
    [[4, 5], (4, 5), range(4, 6), torch.tensor([4, 5], dtype=torch.int32), np.array([4, 5]), iter([4, 5])],
    ids=["list", "tuple", "range", "tensor", "array", "iterator"],
)
def test_indices_may_be_any_iterable_of_whole_numbers(many, indices):
    parameters = draw("reference", 0, indices)
    assert parameters.indices.tolist() == [4, 5]
    assert parameters.indices.dtype == torch.int64
    assert_same_clips(parameters, many["reference"], [4, 5])


def test_seeds_give_different_clips(many):
    assert not (draw("reference", 1, range(CLIPS))["f0"] == many["reference"]["f0"]).any()


def test_more_events_continue_fewer_events(many):
    more = draw("audiopg", 0, range(CLIPS), num_events=(1, 10))
    assert torch.equal(more["f0"][:, :5], many["audiopg"]["f0"])
    assert torch.equal(more["partial_gain"][:, :5], many["audiopg"]["partial_gain"])


def test_drawing_leaves_the_global_generators_alone():
    before, before_python = torch.random.get_rng_state(), random.getstate()
    draw("reference", 0, range(8))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert random.getstate() == before_python


def test_parameters_survive_pickling_as_a_loader_of_several_processes_needs():
    parameters = draw("audiopg", 3, [1, 2], duration=0.5)
    for twin in (pickle.loads(pickle.dumps(parameters)), copy.deepcopy(parameters)):
        assert_same_clips(twin, parameters, [0, 1])
        assert (twin.seed, twin.preset, twin.indices.tolist()) == (3, parameters.preset, [1, 2])


@pytest.mark.parametrize(
    ("override", "low", "high"),
    [({"f0": (100, 200)}, 100, 200), ({"f0": [100, 200]}, 100, 200), ({"f0": 440}, 440, 440)],
)
def test_a_range_is_overridden_by_two_numbers_or_one(override, low, high):
    preset = get_preset("reference", **override)
    values = draw(preset, 0, range(500))["f0"]
    assert low <= values.min()
    assert values.max() <= high
    assert (values.std() > 0) == (low < high)
    assert preset.overrides == override


def test_an_override_changes_nothing_else(many):
    varied = draw("reference", 0, range(CLIPS), f0=(100, 200), mode=["fm", "pulse"], noise_gain=0.5)
    different = {name for name in varied if not torch.equal(varied[name], many["reference"][name])}
    assert different == {"f0", "mode", "noise_gain"}
    assert_equally_likely(independent(varied, "mode"), [1, 2])


def test_choices_are_overridden_by_a_list_or_one_value():
    assert set(draw("audiopg", 0, range(50), mode=["fm", "pulse"])["mode"].flatten().tolist()) == {1, 2}
    assert set(draw("reference", 0, range(50), modulation_ratio=1.5)["modulation_ratio"].flatten().tolist()) == {1.5}


@pytest.mark.parametrize("name", ["transient", "damping"])
@pytest.mark.parametrize("probability", [0, 1])
def test_probabilities_of_zero_and_one_are_never_and_always(name, probability):
    happened = draw("reference", 0, range(500), **{f"{name}_probability": probability})[name]
    assert happened.unique().tolist() == [bool(probability)]


@pytest.mark.parametrize(("duration", "sampling_rate", "num_samples"), [(5.12, 16000, 81920), (0.333, 44100, 14685)])
def test_duration_and_sampling_rate_are_overridden_by_name(duration, sampling_rate, num_samples):
    parameters = draw("reference", 0, range(200), duration=duration, sampling_rate=sampling_rate)
    assert parameters.preset.num_samples == num_samples
    for length, onset in (("event_length", "onset"), ("event_length", "source_start")):
        assert bool((parameters[onset] + parameters[length] <= duration).all())
    assert bool((parameters["transient_onset"] + parameters["transient_length"] <= duration).all())


def test_events_of_a_short_clip_share_it_when_half_a_second_does_not_fit():
    parameters = draw("reference", 0, range(50), duration=0.3)
    expected = 0.3 / parameters["num_events"].double()[:, None].expand(-1, 5)
    assert torch.equal(parameters["event_length"], expected)


def test_overrides_add_up():
    preset = get_preset(get_preset("audiopg", f0=(100, 200)), duration=1.0)
    assert preset.overrides == {"f0": (100, 200), "duration": 1.0}
    assert (preset.ranges["f0"].low, preset.duration, preset.name) == (100, 1.0, "audiopg")
    assert (PRESETS["audiopg"].ranges["f0"].low, PRESETS["audiopg"].duration) == (50, 10.24)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_range_has_a_unit_and_a_description(preset):
    for name, distribution in PRESETS[preset].ranges.items():
        assert isinstance(distribution, Range | Choice), name
        assert len(distribution.description) > 10, name
        assert distribution.unit in ("Hz", "s", "rad", "cycles", "event lengths", "band centres", ""), name
    units = {name: PRESETS[preset].ranges[name].unit for name in ("f0", "cutoff", "event_length", "modulation_index")}
    assert units == {"f0": "Hz", "cutoff": "Hz", "event_length": "s", "modulation_index": "rad"}
    assert PRESETS[preset].description
    assert PRESETS[preset].name == preset


@pytest.mark.parametrize("preset", PRESETS)
def test_every_range_is_made_of_finite_numbers_that_any_file_format_holds(preset):
    ends = [end for r in PRESETS[preset].ranges.values() if isinstance(r, Range) for end in (r.low, r.high)]
    assert all(math.isfinite(end) for end in ends)


def test_built_in_presets_cannot_be_replaced():
    with pytest.raises(TypeError):
        PRESETS["reference"] = PRESETS["sine"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"pitch": 3}, r"parameters duration, sampling_rate, f0, .*; got pitch"),
        ({"f0": (200, 100)}, r"f0: a range is \(low, high\), got \(200, 100\); swap"),
        ({"f0": (1000, 8000)}, r"f0: .*8000 Hz, got up to 8000 Hz; lower them or raise"),
        ({"sampling_rate": 8000}, "cutoff: .*4000 Hz, got up to 6000 Hz"),
        ({"f0": (0, 100)}, "f0: values lie between 1 and inf Hz"),
        ({"f0": (math.nan, 100)}, "f0: .*finite numbers, got"),
        ({"transient_gain": (0, math.inf)}, "transient_gain: .*finite numbers, got"),
        ({"f0": "50-200"}, r"f0: give \(low, high\) or one number, got '50-200'"),
        ({"f0": None}, r"f0: give \(low, high\) or one number, got None"),
        ({"f0": (1, 2, 3)}, r"f0: give \(low, high\) or one number"),
        ({"f0": ()}, r"f0: give \(low, high\) or one number"),
        ({"f0": ("50", "200")}, r"f0: give \(low, high\) or one number"),
        ({"num_events": (1, 2.5)}, "num_events: the ends are whole numbers"),
        ({"num_events": 0}, "num_events: values lie between 1 and 64"),
        ({"noise_gain": -0.1}, "noise_gain: values lie between 0 and inf"),
        ({"attack": (0.1, 0.6)}, "attack: values lie between 0 and 0.5 event lengths"),
        ({"transient_probability": 1.5}, "transient_probability: values lie between 0 and 1"),
        ({"damping_probability": (0.2, 0.7)}, r"damping_probability: give one number, got \(0.2, 0.7\)"),
        ({"event_length": 0.0}, "event_length: an event lasts 0.002 s at least, got down to 0 s"),
        ({"duration": 0.03, "num_events": 20}, "event_length: .* got down to 0.0015 s"),
        ({"mode": "song"}, r"mode: values are \['harmonic', 'fm', 'pulse', 'noise'\], got \['song'\]"),
        ({"mode": "noise", "sampling_rate": 8000, "f0": 99, "cutoff": 99}, "band_centre: frequencies lie below half"),
        ({"strike_probability": (0, 1)}, r"strike_probability: give one number, got \(0, 1\)"),
        ({"formant_probability": (0, 1)}, r"formant_probability: give one number, got \(0, 1\)"),
        ({"num_formants": 6}, "num_formants: values lie between 1 and 5"),
        ({"formant_points": 0}, "formant_points: values lie between 1 and 64"),
        ({"formant_1": 0}, "formant_1: values lie between 1 and inf Hz"),
        ({"formant_bandwidth": 0}, "formant_bandwidth: values lie between 1 and inf Hz"),
        ({"formant_level": 0}, "formant_level: values lie between 0.001 and inf"),
        ({"formant_probability": 1, "formant_5": 8000}, "formant_5: frequencies lie below half .* 8000 Hz"),
        (
            {"formant_probability": 1, "formant_2": (200, 700)},
            r"formant_2: begins and ends no lower than formant_1 does, \(250.0, 900.0\), got \(200, 700\); raise it",
        ),
        ({"formant_probability": 1, "mode": "noise"}, "formant_probability: bands of noise have no formants, got 1"),
        ({"mode": []}, "mode: a choice needs at least one value"),
        ({"modulation_ratio": ["1"]}, r"modulation_ratio: values are positive numbers, got \['1'\]"),
        ({"modulation_ratio": [1.0, -1.0, math.nan]}, r"positive numbers, got \[-1.0, nan\]"),
        ({"duration": 0.01}, "duration lies between 0.025 and 3600 s, got 0.01"),
        ({"duration": math.nan}, "duration lies between"),
        ({"duration": "1 s"}, "duration is one number, got '1 s'"),
        ({"sampling_rate": 16000.5}, "sampling_rate is a whole number of Hz, 1000 at least, got 16000.5"),
        ({"sampling_rate": 999}, "sampling_rate is a whole number of Hz, 1000 at least, got 999"),
        ({"sampling_rate": (8000, 16000)}, "sampling_rate is one number"),
    ],
    ids=str,
)
def test_an_impossible_override_is_refused_with_its_reason(overrides, message):
    with pytest.raises(ValueError, match=message):
        get_preset("reference", **overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        {"formant_probability": 0, "formant_2": (200, 700), "formant_5": 9000, "mode": "noise"},
        {"formant_probability": 1, "num_formants": (1, 2), "sampling_rate": 8000, "cutoff": 3000},
    ],
    ids=str,
)
def test_formants_that_no_event_has_may_lie_anywhere(overrides):
    get_preset("reference", **overrides)


def test_an_unknown_preset_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="Presets are reference, audiopg, sine, harmonic, dynamic; got 'best'"):
        draw("best", 0, 0)


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([], "at least one clip"),
        (range(0), "at least one clip"),
        ([0, -1], "count from 0, got -1"),
        (-3, "count from 0, got -3"),
        ([0.0, 1.0], "whole numbers, got torch.float32"),
        (1.5, "whole numbers, got torch.float32"),
        (torch.tensor([True]), "whole numbers, got torch.bool"),
    ],
    ids=str,
)
def test_indices_that_name_no_clip_are_refused(indices, message):
    with pytest.raises(ValueError, match=message):
        draw("reference", 0, indices)
