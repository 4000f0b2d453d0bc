"""Sounds of the app are those of the library, and moving a factor moves that one alone."""

import doctest
import json

import numpy as np
import pytest
import sounds
import torch

from audiopg.data_scripts import voices
from audiopg.data_scripts.synthesis import PRESETS, draw, get_preset, render

KNOWN = sounds.synthesizers()
STATISTICS = {"preset": "audiopg", "overrides": {"duration": 0.64, "mode": ["harmonic", "noise"]}}


def test_examples_in_docstrings_hold():
    assert doctest.testmod(sounds).failed == 0


@pytest.mark.parametrize("preset", PRESETS)
def test_a_clip_at_its_address_is_the_library_s_to_the_bit(preset):
    expected = render(draw(preset, 3, [5], duration=1.0))[0].numpy()
    found = sounds.ClipSynthesizer(get_preset(preset, duration=1.0)).sound(3, 5, {}).waveform
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("architecture", voices.ARCHITECTURES)
def test_a_sound_of_a_voice_at_its_address_is_the_library_s_to_the_bit(architecture):
    voice = voices.get_voice(architecture)
    expected = voices.render(voice, voices.draw(voice, 3, [5]), voices.noise_of(voice, 3, [5]))[0].numpy()
    sound = KNOWN[architecture].sound(3, 5, {})
    np.testing.assert_array_equal(sound.waveform, expected)
    assert len(sound.factors) == voice.num_parameters == len({factor.key for factor in sound.factors})


def test_limits_units_and_meanings_are_those_of_the_ranges():
    ranges = PRESETS["audiopg"].ranges
    factors = {factor.key: factor for factor in KNOWN["audiopg"].sound(0, 1, {}).factors}
    f0, attack = factors["f0[1]"], factors["attack[1]"]
    assert (f0.low, f0.high, f0.unit, f0.description) == (50, 2000, "Hz", ranges["f0"].description)
    assert (attack.low, attack.high, attack.unit) == (0.01, 0.3, "event lengths")
    voice = voices.get_voice("voice")
    for factor in KNOWN["voice"].sound(0, 1, {}).factors:
        of = voice.ranges[factor.key.partition("[")[0]]
        assert (factor.low, factor.high, factor.unit) == (of.low, of.high, of.unit)


def test_moving_a_factor_moves_that_one_alone():
    preset = get_preset("audiopg", duration=1.0)
    synthesizer = sounds.ClipSynthesizer(preset)
    before, after = synthesizer.sound(0, 0, {}), synthesizer.sound(0, 0, {"f0[2]": 321.0})
    differing = {name for name, value in before.parameters.items() if value != after.parameters[name]}
    assert differing == {"f0"}
    expected = draw(preset, 0, [0])
    expected["f0"][0, 1] = 321.0
    np.testing.assert_array_equal(after.waveform, render(expected)[0].numpy())
    (moved,) = after.moved({"f0[2]": 321.0})
    assert (moved.part, moved.said(moved.value), moved.drawn) == ("event 2", "321 Hz", before.parameters["f0"][1])


def test_shares_stay_shares_when_what_they_are_of_moves():
    synthesizer = sounds.ClipSynthesizer(get_preset("audiopg", duration=1.0))
    before = synthesizer.sound(0, 0, {}).parameters
    after = synthesizer.sound(0, 0, {"event_length[1]": 0.2, "decay[1]": 0.3}).parameters
    assert after["attack"][0] == pytest.approx(0.2 * before["attack"][0] / before["event_length"][0])
    assert after["decay"][0] == pytest.approx(0.06)
    assert after["attack"][1:] == before["attack"][1:]


def test_what_a_preset_leaves_off_can_be_turned_on_and_every_factor_is_then_there():
    synthesizer = sounds.ClipSynthesizer(get_preset("audiopg", duration=1.0))
    off = synthesizer.sound(0, 0, {})
    on = {"num_events": 4, "strike[1]": 1, "formant[1]": 1, "mode[1]": 0, "mode[2]": 1, "mode[3]": 2, "mode[4]": 3}
    on |= {"room": 1, "transient": 1, "damping": 1}
    sound = synthesizer.sound(0, 0, on)
    assert not np.allclose(off.waveform, sound.waveform)
    missing = set(synthesizer.columns) - {factor.key.partition("[")[0] for factor in sound.factors}
    # formants above those of this event, and nothing else
    assert missing <= {"formant_4", "formant_5"}
    assert {"formant_1", "strike_period", "room_time", "modulation_index", "pulse_shape", "band_width"} <= {
        factor.key.partition("[")[0] for factor in sound.factors
    }


def test_every_factor_can_be_moved_from_end_to_end_and_most_are_heard():
    for synthesizer in (sounds.ClipSynthesizer(get_preset("audiopg", duration=0.25)), KNOWN["voice"]):
        sound = synthesizer.sound(0, 3, {})
        silent = []
        for factor in sound.factors:
            ends = [factor.low, factor.high] if not factor.choices else [0, len(factor.choices) - 1]
            if factor.kind == "choice":
                ends = [min(factor.choices), max(factor.choices)]
            found = [synthesizer.sound(0, 3, {factor.key: end}).waveform for end in ends]
            assert all(np.isfinite(waveform).all() for waveform in found)
            if np.array_equal(*found):
                silent.append(factor.key)
        assert len(silent) < len(sound.factors) / 4, silent


def test_moved_factors_of_a_voice_have_their_value():
    sound = KNOWN["voice"].sound(0, 0, {"keyboard/midi_f0": 60.0, "mod_matrix/weight[5][4]": 0.25})
    values = {factor.key: factor.value for factor in sound.factors}
    assert values["keyboard/midi_f0"] == pytest.approx(60.0, abs=1e-4)
    assert values["mod_matrix/weight[5][4]"] == pytest.approx(0.25, abs=1e-4)
    voice = voices.get_voice("voice")
    weights = voices.to_units(voice, voices.draw(voice, 0, [0]))["mod_matrix/weight"][0]
    drawn = {factor.key: factor.drawn for factor in sound.factors}
    assert drawn["mod_matrix/weight[2][3]"] == pytest.approx(float(weights[4 + 2]))
    labels = {factor.key: factor.label for factor in sound.factors}
    assert labels["mod_matrix/weight[5][4]"] == "LFO 2 in level of noise"
    assert labels["mod_matrix/weight[2][1]"] == "envelope 1 in level of oscillator 1"


@pytest.mark.parametrize("text", ["", "7", "0:-1", "0:7:1", "nothing/0:7", "0:x", "٣:٤", f"0:{2**70}"])
def test_what_is_no_address_is_refused_in_a_sentence(text):
    with pytest.raises(ValueError, match=r"Synthesizers are|An address is|whole numbers") as caught:
        sounds.parse_address(text, "audiopg", list(KNOWN))
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize("name", ["audiopg", "voice"])
def test_saved_parameters_give_the_same_sound_to_the_bit(name):
    changes = {"f0[1]": 123.456} if name == "audiopg" else {"keyboard/midi_f0": 61.23}
    address = sounds.Address(name, 2, 9)
    sound = KNOWN[name].sound(2, 9, changes)
    text = sounds.to_json(address, changes, sound)
    found, again = sounds.from_json(text, KNOWN)
    assert (found, again) == (address, changes)
    np.testing.assert_array_equal(KNOWN[name].sound(2, 9, again).waveform, sound.waveform)
    assert set(json.loads(text)["parameters"]) == set(sound.parameters)


def test_saved_parameters_of_another_version_or_none_at_all_are_refused_in_a_sentence():
    address = sounds.Address("audiopg", 0, 0)
    document = json.loads(sounds.to_json(address, {}, KNOWN["audiopg"].sound(0, 0, {})))
    document["synthesizer"]["synthesizer_version"] = "0.0.1"
    with pytest.raises(ValueError, match=r"differs in synthesizer_version\. Open it with"):
        sounds.from_json(json.dumps(document), KNOWN)
    changed = '{"address": "0:7", "changes": {"f0[1]": %s}, "synthesizer": {}}'
    for text in ("", "[]", "{}", "[" * 100_000, changed % '"high"', changed % f"1{'0' * 400}"):
        with pytest.raises(ValueError, match="no parameters of a sound"):
            sounds.from_json(text, KNOWN)


@pytest.mark.parametrize("key", ["f0", "f0[9]", "f0[0]", "loudness", "f0[1][1]", "__class__", "index"])
def test_factors_that_do_not_exist_are_refused_in_a_sentence(key):
    with pytest.raises(ValueError, match=r"\.$"):
        KNOWN["audiopg"].sound(0, 0, {key: 1.0})
    with pytest.raises(ValueError, match=r"\.$"):
        KNOWN["voice"].sound(0, 0, {key: 1.0})


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("audiopg", {"f0[1]": 1e9}),
        ("audiopg", {"num_events": 1000}),
        ("audiopg", {"mode[1]": 7}),
        ("audiopg", {"event_length[1]": 3600.0}),
        ("voice", {"keyboard/midi_f0": 128.0}),
    ],
)
def test_values_beyond_a_range_are_refused_in_a_sentence(name, changes):
    with pytest.raises(ValueError, match=r"lies between .* Move it there\."):
        KNOWN[name].sound(0, 0, changes)


def test_the_clips_of_a_checkpoint_come_first_and_are_those_of_its_run():
    known = sounds.synthesizers("tiny", STATISTICS)
    assert next(iter(known)) == "tiny"
    expected = render(draw("audiopg", 0, [4], **STATISTICS["overrides"]))[0]
    assert torch.equal(torch.from_numpy(known["tiny"].sound(0, 4, {}).waveform), expected)
