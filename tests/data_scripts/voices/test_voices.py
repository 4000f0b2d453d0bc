import hashlib
import importlib.util
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from audiopg.data_scripts.voices import (
    ARCHITECTURES,
    GROUPS,
    VOICE_PRESETS,
    draw,
    from_units,
    get_voice,
    noise_of,
    perturb,
    render,
    to_units,
)

spec = importlib.util.spec_from_file_location("slow_voice", Path(__file__).with_name("slow_voice.py"))
slow_voice = importlib.util.module_from_spec(spec)
spec.loader.exec_module(slow_voice)

FULL = {"sines": 2, "square_saws": 2, "fm_sines": 1, "fm_square_saws": 1}
ALL = [("voice", {}), ("voice_fm", {}), ("parametric", FULL)]


def sounds(voice, seed, indices):
    with torch.no_grad():
        return render(voice, draw(voice, seed, indices), noise_of(voice, seed, indices))


def of_one(units, number):
    return {name: value[number].double().numpy() for name, value in units.items()}


@pytest.mark.parametrize(("name", "counts", "number"), [(*a, n) for a, n in zip(ALL, (78, 130, 340), strict=True)])
def test_an_architecture_has_the_parameters_of_the_original(name, counts, number):
    voice = get_voice(name, **counts)
    assert voice.num_parameters == number == len(voice.groups)
    covered = sorted(i for where in voice.slices.values() for i in range(where.start, where.stop))
    assert covered == list(range(number))
    assert set(voice.groups) == set(GROUPS)
    assert list(voice.ranges) == list(voice.slices)
    assert all(span.description for span in voice.ranges.values())
    for key, span in voice.ranges.items():
        span.validate(key)


def test_the_default_of_a_parametric_voice_is_the_original_s():
    assert get_voice("parametric").num_parameters == 134


@pytest.mark.parametrize(("name", "counts"), ALL)
def test_a_sound_is_what_a_slow_loop_makes_of_it_in_float64(name, counts):
    voice = get_voice(name, "synthax", duration=0.25, **counts)
    parameters, noise = draw(voice, 3, range(6)), noise_of(voice, 3, range(6))
    with torch.no_grad():
        found, units = render(voice, parameters, noise), to_units(voice, parameters)
    for number in range(6):
        expected = slow_voice.sound(of_one(units, number), noise[number].double().numpy(), num_controls=120)
        difference = np.abs(found[number].double().numpy() - expected)
        assert np.median(difference) < (1e-4 if name == "voice" else 3e-3)
        assert difference[:400].max() < 3e-3


def test_all_switches_together_make_synthax():
    voices, synthax = VOICE_PRESETS["voices"], VOICE_PRESETS["synthax"]
    switches = [name for name in vars(voices) if name not in ("name", "description")]
    assert all(getattr(voices, name) != getattr(synthax, name) for name in switches)


@pytest.mark.parametrize("preset", VOICE_PRESETS)
@pytest.mark.parametrize(("name", "counts"), ALL)
def test_a_sound_is_the_same_bits_in_any_batch(name, counts, preset):
    voice = get_voice(name, preset, **counts)
    together = sounds(voice, 5, range(11))
    assert torch.equal(draw(voice, 5, [7, 2, 9]), draw(voice, 5, range(11))[[7, 2, 9]])
    assert torch.equal(sounds(voice, 5, [7, 2, 9]), together[[7, 2, 9]])
    assert (sounds(voice, 6, [7]) - together[[7]]).abs().max() > 0.05


def test_a_sound_is_the_same_bits_in_another_process():
    code = (
        "import hashlib, torch\n"
        "from audiopg.data_scripts.voices import *\n"
        "v = get_voice('voice_fm')\n"
        "x = render(v, draw(v, 1, [4]), noise_of(v, 1, [4]))\n"
        "print(hashlib.sha256(x.numpy().tobytes()).hexdigest())"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    expected = sounds(get_voice("voice_fm"), 1, [4])
    assert found == hashlib.sha256(expected.numpy().tobytes()).hexdigest()


@pytest.mark.parametrize("preset", VOICE_PRESETS)
@pytest.mark.parametrize(("name", "counts"), ALL)
@pytest.mark.parametrize("position", [0.0, 1e-6, 0.5, 1.0])
def test_the_ends_of_all_ranges_make_finite_sounds_of_at_most_full_scale_with_finite_gradients(
    name, counts, preset, position
):
    voice = get_voice(name, preset, duration=0.2, **counts)
    parameters = torch.full((2, voice.num_parameters), position, requires_grad=True)
    waveforms = render(voice, parameters, noise_of(voice, 0, range(2)))
    assert waveforms.abs().max() <= 1
    waveforms.square().sum().backward()
    assert torch.isfinite(waveforms).all()
    assert torch.isfinite(parameters.grad).all()


@pytest.mark.parametrize("preset", VOICE_PRESETS)
def test_random_sounds_are_finite_of_at_most_full_scale_and_seldom_silent(preset):
    voice = get_voice("parametric", preset, **FULL)
    waveforms = sounds(voice, 0, range(32))
    assert torch.isfinite(waveforms).all()
    assert waveforms.abs().max() <= 1
    assert (waveforms.square().mean(-1).sqrt() < 1e-3).float().mean() < 0.1


@pytest.mark.parametrize(
    ("values", "samples", "controls"),
    [
        ({"duration": 1.0}, 16000, 480),
        ({"duration": 0.73, "sampling_rate": 44100, "control_rate": 441}, 32193, 322),
        ({"duration": 2.0, "sampling_rate": 8000}, 16000, 960),
    ],
)
def test_any_sampling_rate_length_and_control_rate_will_do(values, samples, controls):
    voice = get_voice("voice_fm", **values)
    assert (voice.num_samples, voice.num_controls) == (samples, controls)
    assert sounds(voice, 0, range(2)).shape == (2, samples)


def test_a_sound_has_its_pitch_at_every_sampling_rate():
    for rate in (8000, 16000, 44100):
        voice = get_voice("voice", sampling_rate=rate)
        units = to_units(voice, draw(voice, 0, [0]))
        silent = {"mixer/noise_level": 0.0, "vco_1/mod_depth": 0.0, "vco_1/tuning": 0.0, "keyboard/midi_f0": 69.0}
        units |= {name: torch.tensor([value]) for name, value in silent.items()}
        units["mixer/level"] = torch.tensor([[1.0, 0.0]])
        units["keyboard/duration"] = torch.tensor([4.0])
        waveform = render(voice, from_units(voice, units), noise_of(voice, 0, [0]))[0]
        peak = torch.fft.rfft(waveform).abs().argmax()
        assert float(peak) == pytest.approx(440, abs=2)


def test_phases_of_long_and_high_sounds_do_not_drift():
    voice = get_voice("voice", "synthax", duration=20.0)
    units = to_units(voice, torch.full((1, 78), 0.5))
    units["mixer/noise_level"], units["keyboard/midi_f0"] = torch.tensor([0.0]), torch.tensor([100.0])
    units["mixer/level"] = torch.tensor([[1.0, 0.0]])
    for name in units:
        if name.endswith(("release", "sustain", "duration")):
            units[name] = torch.full_like(units[name], voice.ranges[name].high)
    parameters, noise = from_units(voice, units), noise_of(voice, 0, [0])
    found = render(voice, parameters, noise)[0, :160000].double().numpy()
    units = to_units(voice, parameters)
    expected = slow_voice.sound(of_one(units, 0), noise[0].double().numpy(), num_controls=9600)[:160000]
    audible = slice(100000, 130000)  # after more than 13 000 cycles
    assert np.abs(expected[audible]).max() > 1e-3
    correlation = np.corrcoef(found[audible], expected[audible])[0, 1]
    assert correlation > 0.99


@pytest.mark.parametrize("preset", VOICE_PRESETS)
@pytest.mark.parametrize(("name", "counts"), ALL)
def test_units_and_back_is_the_identity(name, counts, preset):
    voice = get_voice(name, preset, **counts)
    # Where a curve is steep, positions are known less well than values: near its middle, or its low end.
    parameters = draw(get_voice(name, "synthax", **counts), 2, range(50)).clamp(0.2, 1)
    units = to_units(voice, parameters)
    again = to_units(voice, from_units(voice, units))
    for key, value in units.items():
        span = voice.ranges[key]
        torch.testing.assert_close(again[key], value, rtol=0, atol=2e-6 * (span.high - span.low))


@pytest.mark.parametrize(
    ("position", "value"),
    [(0.935275, 48.0), (0.700685, 1.0), (0.064725, -48.0), (0.25, -3.0), (0.6, 0.030716), (0.9, 31.457)],
)
def test_a_symmetric_curve_has_the_values_of_the_original(position, value):
    voice = get_voice("voice")
    parameters = torch.full((1, 78), 0.5)
    parameters[0, voice.slices["vco_1/mod_depth"]] = position
    assert float(to_units(voice, parameters)["vco_1/mod_depth"]) == pytest.approx(value, abs=2e-3)
    span = voice.ranges["vco_1/mod_depth"]
    assert float(span.sample(torch.tensor(position))) == pytest.approx(value, abs=2e-3)
    assert float(span.position(torch.tensor(value))) == pytest.approx(position, abs=1e-4)


def test_positions_are_uniform_in_one_preset_and_units_in_the_other():
    for preset in VOICE_PRESETS:
        voice = get_voice("voice", preset)
        parameters = draw(voice, 0, range(2000))
        assert parameters.dtype == torch.float32
        assert parameters.min() >= 0
        assert parameters.max() <= 1
        units = to_units(voice, parameters)
        for key in ("vco_1/mod_depth", "adsr_1/attack", "keyboard/midi_f0"):
            span, where = voice.ranges[key], voice.slices[key].start
            positions = (
                parameters[:, where] if preset == "voices" else (units[key] - span.low) / (span.high - span.low)
            )
            assert kstest(positions.double().numpy(), "uniform").pvalue > 1e-3


def test_noise_is_each_sound_s_own_in_one_preset_and_one_row_in_the_other():
    own, fixed = get_voice("voice"), get_voice("voice", "synthax")
    first, second = noise_of(own, 0, [0, 1])
    assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < 0.05
    assert not torch.equal(noise_of(own, 0, [0], view=1)[0], first)
    rows = torch.cat([noise_of(fixed, 0, [0, 1]), noise_of(fixed, 3, [5], view=1)])
    assert (rows == rows[0]).all()
    assert first.abs().max() < 1
    assert float(first.square().mean()) == pytest.approx(1 / 3, abs=0.02)


def test_an_amplitude_is_recovered_by_descent():
    voice = get_voice("voice", duration=0.1)
    parameters, noise = torch.full((1, 78), 0.6), noise_of(voice, 0, [0])
    level = voice.slices["mixer/level"].start
    parameters[0, level : level + 3] = torch.tensor([0.45, 0.1, 0.0])
    target = render(voice, parameters, noise)
    guess = torch.tensor(0.9, requires_grad=True)
    optimizer = torch.optim.Adam([guess], lr=0.05)
    for _ in range(60):
        tried = parameters.clone()
        tried[0, level] = guess
        loss = (render(voice, tried, noise) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert guess.item() == pytest.approx(0.45, abs=0.01)


def test_gradients_are_those_of_finite_differences_of_the_slow_loop():
    voice = get_voice("voice", "synthax", duration=0.05)
    parameters = draw(voice, 11, [0]).clamp(0.1, 0.9)
    parameters[0, voice.slices["keyboard/midi_f0"]] = 0.3
    noise = noise_of(voice, 0, [0])
    weight = torch.linspace(-1, 1, voice.num_samples)
    parameters.requires_grad_()
    (render(voice, parameters, noise) * weight).sum().backward()

    def value(moved):
        units = of_one(to_units(voice, moved[None]), 0)
        return (slow_voice.sound(units, noise[0].double().numpy(), num_controls=24) * weight.double().numpy()).sum()

    for key in ("vco_1/initial_phase", "vco_2/tuning", "lfo_1/frequency", "mixer/noise_level", "vco_2/shape"):
        where = voice.slices[key].start
        step = torch.zeros(78, dtype=torch.float64)
        step[where] = 1e-5
        centre = parameters.detach()[0].double()
        expected = (value(centre + step) - value(centre - step)) / 2e-5
        assert float(parameters.grad[0, where]) == pytest.approx(expected, rel=0.01)


def test_oscillators_stay_below_nyquist_where_the_preset_says_so():
    highest = replace(VOICE_PRESETS["voices"], below_nyquist=False)
    above = []
    for preset in (VOICE_PRESETS["voices"], highest):
        voice = get_voice("voice", preset)
        parameters = torch.full((1, 78), 0.5)
        parameters[0, voice.slices["keyboard/midi_f0"]] = 1.0
        parameters[0, voice.slices["mixer/level"]] = torch.tensor([1.0, 0.0])
        parameters[0, voice.slices["mixer/noise_level"]] = 0.0
        spectrum = torch.fft.rfft(render(voice, parameters, noise_of(voice, 0, [0]))[0]).abs()
        above.append(int(spectrum.argmax()))
    assert above[0] == pytest.approx(0.49 * 16000, abs=3)
    assert above[1] == pytest.approx(16000 - 440 * 2 ** (58 / 12), abs=3)  # folded back


def test_a_carrier_stops_with_its_note_where_the_preset_says_so():
    lasting = replace(VOICE_PRESETS["voices"], enveloped_carriers=False)
    tails = []
    for preset in (VOICE_PRESETS["voices"], lasting):
        voice = get_voice("voice_fm", preset)
        units = to_units(voice, torch.full((1, 130), 0.5))
        units |= {key: torch.full_like(value, 0.01) for key, value in units.items() if key.endswith("release")}
        units["keyboard/duration"], units["mixer/noise_level"] = torch.tensor([0.3]), torch.tensor([0.0])
        waveform = render(voice, from_units(voice, units), noise_of(voice, 0, [0]))[0]
        tails.append(float(waveform[8000:].abs().max()))
    assert tails[0] == 0
    assert tails[1] > 0.1


def test_doubles_are_perturbed_clipped_and_wrapped():
    voice, theta = get_voice("voice"), torch.full((2, 78), 0.9)
    z = torch.full_like(theta, 0.5)
    phase = voice.slices["vco_1/initial_phase"].start
    double = perturb(voice, theta, z, 0.4)
    assert double[0, phase] == pytest.approx(0.1, abs=1e-6)
    assert double[0, 0] == 1.0
    assert perturb(voice, theta, -10 * z, 0.4).min() == pytest.approx(1e-6)
    original = get_voice("voice", "synthax")
    assert (perturb(original, theta, z, 0.4) == 1).all()
    assert torch.equal(perturb(voice, theta, z, 0.0), theta)


def test_a_delta_for_each_group_moves_that_group_alone():
    voice = get_voice("voice_fm")
    theta, z = torch.full((1, 130), 0.5), torch.ones(1, 130)
    for group in GROUPS:
        moved = perturb(voice, theta, z, {**dict.fromkeys(GROUPS, 0.0), group: 0.1})[0] != 0.5
        assert [m for m, of in zip(moved.tolist(), voice.groups, strict=True) if of == group].count(False) == 0
        assert not any(m for m, of in zip(moved.tolist(), voice.groups, strict=True) if of != group)


def test_doubles_are_the_further_apart_the_larger_delta_is():
    voice = get_voice("voice")
    theta, noise = draw(voice, 0, range(24)), noise_of(voice, 0, range(24))
    z = torch.randn(theta.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        spectra = [
            torch.fft.rfft(render(voice, perturb(voice, theta, z, delta), noise)).abs().add(1e-2).log()
            for delta in (0.0, 0.01, 0.05, 0.25)
        ]
    distances = [float((spectrum - spectra[0]).abs().mean()) for spectrum in spectra]
    assert distances[0] < distances[1] < distances[2] < distances[3]


def test_a_voice_is_pickled_and_equal_by_value():
    voice = get_voice("parametric", "synthax", sines=2)
    sounds(voice, 0, [0])
    assert pickle.loads(pickle.dumps(voice)) == voice
    assert hash(voice) == hash(get_voice("parametric", "synthax", sines=2))
    assert voice != get_voice("parametric", sines=2)


def test_mixed_precision_of_a_caller_does_not_reach_the_sound():
    voice = get_voice("voice_fm", duration=0.1)
    expected = sounds(voice, 0, range(2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(sounds(voice, 0, range(2)), expected)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"architecture": "organ"}, "Architectures are voice, voice_fm, parametric; got 'organ'"),
        ({"preset": "best"}, "Presets of voices are voices, synthax; got 'best'"),
        ({"sines": 2}, "Only a parametric voice has sines; got 'voice'. Leave them out"),
        ({"architecture": "parametric", "sines": -1}, "sines is a whole number, 0 or more, got -1"),
        (
            {"architecture": "parametric", "sines": 0, "square_saws": 0, "fm_sines": 0},
            "A parametric voice has 1 to 32 oscillators in all",
        ),
        ({"duration": 0.0}, "duration lies between 0.00417 s, two samples of the control rate, and 60 s, got 0.0"),
        ({"sampling_rate": 4000}, "sampling_rate is a whole number of Hz, 8000 at least, got 4000"),
        ({"sampling_rate": 16000.0}, "sampling_rate is a whole number of Hz, 8000 at least, got 16000.0"),
        ({"control_rate": 20000}, "control_rate is at most the sampling rate, 16000 Hz, got 20000"),
    ],
    ids=str,
)
def test_a_voice_that_cannot_be_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        get_voice(**values)


def test_what_does_not_fit_a_voice_is_refused():
    voice = get_voice("voice")
    theta, noise = draw(voice, 0, range(2)), noise_of(voice, 0, range(2))
    with pytest.raises(ValueError, match=r"Parameters of this voice have the shape \(batch, 78\), got \(2, 77\)"):
        render(voice, theta[:, 1:], noise)
    with pytest.raises(ValueError, match=r"Noise for 2 sounds has the shape \(2, 16000\), got \(1, 16000\)"):
        render(voice, theta, noise[:1])
    with pytest.raises(ValueError, match=r"z has the shape of the parameters"):
        perturb(voice, theta, theta[:1], 0.1)
    for delta in (-0.1, {"pitch": 0.1}, {**dict.fromkeys(GROUPS, 0.1), "colour": 0.1}):
        with pytest.raises(ValueError, match="0 or more, or one for each of pitch, envelope, modulation, mixer"):
            perturb(voice, theta, theta, delta)
    units = to_units(voice, theta)
    with pytest.raises(ValueError, match="missing or unknown: vco_1/tuning"):
        from_units(voice, {key: value for key, value in units.items() if key != "vco_1/tuning"})
    with pytest.raises(ValueError, match="adsr_1/attack: values lie between 0 and 2 s, got 3 to 3"):
        from_units(voice, units | {"adsr_1/attack": torch.full((2,), 3.0)})
    with pytest.raises(ValueError, match="A batch has at least one sound"):
        draw(voice, 0, [])


def test_names_of_architectures_are_all_there_is():
    assert [get_voice(name).architecture.name for name in ARCHITECTURES] == list(ARCHITECTURES)


def test_a_sound_made_for_inference_leaves_gradients_to_the_next():
    voice = get_voice("voice", control_rate=481)  # of no other test: nothing is kept of it yet
    with torch.inference_mode():
        render(voice, draw(voice, 0, [0]), noise_of(voice, 0, [0]))
        perturb(voice, draw(voice, 0, [0]), torch.zeros(1, voice.num_parameters), 0.1)
    parameters = draw(voice, 0, [0]).requires_grad_()
    render(
        voice, perturb(voice, parameters, torch.zeros(1, voice.num_parameters), 0.1), noise_of(voice, 0, [0])
    ).sum().backward()
    assert parameters.grad.isfinite().all()


def test_a_straight_range_has_its_slope_at_its_ends_too():
    voice = get_voice("voice")
    parameters = torch.zeros(1, voice.num_parameters, requires_grad=True)
    to_units(voice, parameters)["mixer/level"].sum().backward()
    assert parameters.grad[0, voice.slices["mixer/level"]].tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("duration", "rate", "samples"), [(0.07, 44100, 3087), (4.03, 16000, 64480), (0.07001, 44100, 3088)]
)
def test_a_sound_has_the_samples_of_its_duration_rounded_up(duration, rate, samples):
    assert get_voice("voice", duration=duration, sampling_rate=rate).num_samples == samples


def test_a_delta_without_end_is_refused():
    voice = get_voice("voice")
    with pytest.raises(ValueError, match="delta is a number, 0 or more"):
        perturb(voice, draw(voice, 0, [0]), torch.zeros(1, 78), float("inf"))
