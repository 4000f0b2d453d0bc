from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import interpolate, signal

from audiopg.data_scripts.synthesis import draw, get_preset, render_components
from audiopg.data_scripts.synthesis.formants import glide, resonance

BARE = {"transient_probability": 0, "damping_probability": 0, "noise_gain": 0}
STILL = {"formant_probability": 1, "formant_points": 1}


def drone(preset="audiopg", mode="pulse", duration=1.0, **overrides):
    """One source that sounds from the beginning of a clip to its end at one level, nothing around it."""
    steady = {"num_events": 1, "event_length": duration, "duration": duration, "amplitude": 1.0, **BARE}
    return replace(get_preset(preset, mode=mode, **steady, **overrides), enveloped=False)


def sound(preset, seed=0):
    return render_components(draw(preset, seed, [0]))[0][0].double().numpy()


def amplitudes(waveform):
    """Of the sine in every bin."""
    return 2 * np.abs(np.fft.rfft(waveform)) / len(waveform)


@pytest.mark.parametrize("num_points", [2, 3, 6])
def test_tracks_are_splines_that_rest_at_their_points(num_points):
    generator = torch.Generator().manual_seed(num_points)
    points = torch.rand(2, 3, 6, generator=generator, dtype=torch.float64)
    position = torch.rand(2, 50, generator=generator, dtype=torch.float64)
    position[:, :2] = torch.tensor([0.0, 1.0])
    found = glide(points, torch.tensor([num_points, num_points]), position)
    for row, track in np.ndindex(2, 3):
        knots = points[row, track, :num_points].numpy()
        spline = interpolate.CubicHermiteSpline(np.linspace(0, 1, num_points), knots, np.zeros(num_points))
        np.testing.assert_allclose(found[row, track], spline(position[row].numpy()), atol=1e-12)


def test_a_track_of_one_point_stays_and_the_others_of_its_batch_move():
    points, position = torch.tensor([[[3.0, 9.0]], [[3.0, 9.0]]]), torch.tensor([[0.0, 0.5, 1.0]] * 2)
    assert glide(points, torch.tensor([1, 2]), position).squeeze(1).tolist() == [[3, 3, 3], [3, 6, 9]]


def test_resonances_are_second_order_band_passes_side_by_side():
    frequency = torch.tensor([[-3000.0, -120.0, 0.0, 1.0, 499.0, 500.0, 530.0, 1800.0, 7999.0]], dtype=torch.float64)
    centres, widths, levels = [500.0, 1900.0, 3100.0], [50.0, 300.0, 120.0], [1.0, 0.3, 0.0]
    centre = torch.tensor(centres, dtype=torch.float64)[None, :, None].expand(1, 3, 2)
    found = resonance(frequency, centre, torch.tensor([widths]), torch.tensor([levels]))
    expected = np.zeros(frequency.shape[1])
    for f, width, level in zip(centres, widths, levels, strict=True):
        b, a = [2 * np.pi * width, 0], [1, 2 * np.pi * width, (2 * np.pi * f) ** 2]
        expected += level * np.abs(signal.freqs(b, a, 2 * np.pi * np.abs(frequency[0].numpy()))[1])
    assert found.shape == (1, 9, 2)
    for moment in (0, 1):
        np.testing.assert_allclose(found[0, :, moment], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("centre", "width"), [(500, 50), (1730, 300), (3000, 120)])
def test_a_still_formant_is_what_a_digital_resonator_makes_of_the_same_sound(centre, width):
    """The resonator bends frequencies towards Nyquist: at 96 kHz by less than 1 % here."""
    rate = {"sampling_rate": 96000, "f0": 50, "pulse_shape": "sawtooth"}
    still = {"num_formants": 1, "formant_1": centre, "formant_bandwidth": width, "formant_level": 0.4}
    shaped, plain = sound(drone(**rate, **still, **STILL)), sound(drone(**rate))
    b, a = signal.iirpeak(centre, centre / width, fs=96000)
    resonated = signal.lfilter(b, a, np.tile(plain, 2))[len(plain) :]  # of a period of a second; it rings in first
    partials = np.arange(50, 8000, 50)
    found, expected = (20 * np.log10(amplitudes(x)[partials]) for x in (shaped, resonated))
    offset = found - expected  # one gain for all partials
    assert np.abs(offset - np.median(offset)).max() < 0.3


@pytest.mark.parametrize("mode", ["harmonic", "fm", "pulse"])
@pytest.mark.parametrize("sampling_rate", [16000, 22050])
def test_spectra_have_their_peaks_where_the_formants_are(mode, sampling_rate):
    """Every partial beside what it is without formants; these lie on partials, or between two."""
    centres = {"formant_1": 600, "formant_2": 1400, "formant_3": 2520}
    rich = {"num_partials": 100, "modulation_index": 70, "modulation_ratio": 1.0, "pulse_shape": "sawtooth"}
    same = {"mode": mode, "sampling_rate": sampling_rate, "f0": 40, **rich, "partial_detuning": 1.0}
    still = {**STILL, **centres, "num_formants": 3, "formant_bandwidth": 80, "formant_level": 1.0}
    partials = np.arange(40, 3200, 40)
    shaped, plain = (amplitudes(sound(drone(**same, **extra)))[partials] for extra in (still, {}))
    if mode == "fm":  # negative frequencies fold onto positive ones, in either case alike
        heard = plain > 1e-3
        partials, shaped, plain = partials[heard], shaped[heard], plain[heard]
    gain = shaped / plain
    gain /= gain.max()
    peaks, _ = signal.find_peaks(gain, prominence=0.3)
    assert len(peaks) == 3
    assert np.abs(partials[peaks] - list(centres.values())).max() <= 40
    response = np.array([_response(f, centres.values(), 80) for f in partials])
    np.testing.assert_allclose(gain, response / response.max(), atol=2e-4)


def _response(frequency, centres, width):
    """`scipy.signal.freqs` of second-order band-passes, magnitudes added up."""
    passes = (([width, 0], [1, width, centre**2]) for centre in centres)
    return sum(float(np.abs(signal.freqs(b, a, [frequency])[1][0])) for b, a in passes)


def test_the_loudest_frequency_follows_a_formant_that_moves():
    moving = {"formant_probability": 1, "num_formants": 1, "formant_points": 4, "formant_bandwidth": 50}
    preset = drone(f0=25, num_partials=120, partial_rolloff=0, partial_detuning=1, mode="harmonic", **moving)
    preset = get_preset(preset, formant_1=(300, 2500), partial_gain=1)
    parameters = draw(preset, 3, [0])
    points = parameters["formant_1"][0, 0].numpy()
    assert points.max() - points.min() > 800
    frequencies, times, power = signal.spectrogram(sound(preset, 3), 16000, nperseg=1024, noverlap=768)
    track = interpolate.CubicHermiteSpline([0, 1 / 3, 2 / 3, 1], points, np.zeros(4))(times)
    assert np.abs(frequencies[power.argmax(0)] - track).max() < 80


@pytest.mark.parametrize("mode", ["harmonic", "fm", "pulse"])
def test_formants_leave_the_power_of_an_event_alone(mode):
    def power(**overrides):
        preset = drone(mode=mode, f0=(90, 400), partial_detuning=1.0, modulation_ratio=0.37, **overrides)
        return render_components(draw(preset, 1, range(16)))[0].square().mean(1).log10() * 10

    difference = power(formant_probability=1) - power()
    assert difference.abs().median() < 0.1
    assert difference.abs().max() < 1.0


@pytest.mark.parametrize("preset", ["reference", "audiopg"])
@pytest.mark.parametrize(("mode", "spacing"), [("harmonic", 1130), ("fm", 565), ("pulse", 1130)])
def test_nothing_behind_formants_aliases_in_any_preset(preset, mode, spacing):
    same = {"f0": 1130, "num_partials": 15, "partial_detuning": 1.0, "modulation_ratio": 1.5, "modulation_index": 8.0}
    power = amplitudes(sound(drone(preset, mode, **same, **STILL))) ** 2
    on = np.arange(0, 8001, spacing)
    assert 10 * np.log10((power.sum() - power[on].sum()) / power.sum()) < -100


def test_bands_of_noise_and_events_without_formants_stay_as_they_are():
    overrides = {"mode": ["harmonic", "noise"], "num_events": (2, 5), "duration": 1.0, **BARE}
    some, none = (draw("audiopg", 0, range(8), **overrides, formant_probability=p) for p in (0.4, 0))
    assert not some["formant"][some["mode"] == 3].any()
    untouched = ~(some["formant"] & some.event_exists).any(1)
    assert untouched.unique().numel() == 2
    difference = (render_components(some)[0] - render_components(none)[0]).abs().amax(1)
    assert (difference[untouched] == 0).all()
    assert (difference[~untouched] > 1e-3).all()


def test_formants_at_other_places_of_a_clip_and_beside_other_events_sound_the_same():
    """An event moved by whole blocks of 64 samples, with its place in its source, is itself moved."""
    preset = get_preset("audiopg", num_events=1, event_length=0.5, duration=1.0, formant_probability=1, **BARE)
    parameters = draw(preset, 0, range(4), mode=["harmonic", "pulse"])
    early, late = (
        replace(parameters, tensors={**parameters.tensors, "onset": torch.full((4, 1), onset, dtype=torch.float64)})
        for onset in (640 / 16000, 3904 / 16000)
    )
    sounds = [render_components(moved)[0] for moved in (early, late)]
    torch.testing.assert_close(sounds[0][:, 640:8640], sounds[1][:, 3904:11904], rtol=0, atol=2e-5)
