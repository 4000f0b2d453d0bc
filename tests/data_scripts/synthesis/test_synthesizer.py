import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import interpolate, signal, special

from audiopg.data_scripts.counter_random import white_noise
from audiopg.data_scripts.synthesis import (
    PRESETS,
    draw,
    get_preset,
    render,
    render_components,
    signal_to_noise_ratio,
)

SAMPLING_RATE = 16000
HARMONIC, FM, PULSE, NOISE = range(4)
RICH = {"mode": ["harmonic", "fm", "pulse", "noise"], "strike_probability": 0.5, "room_probability": 0.5}
RICH |= {"formant_probability": 0.5}
BARE = {"transient_probability": 0, "damping_probability": 0, "noise_gain": 0}


class SlowClip:
    """One clip as section 3.1 of the paper and the research code describe it: in float64, event after event."""

    def __init__(self, parameters, row):
        self.preset, self.row, self.parameters = parameters.preset, row, parameters
        self.rate, self.num_samples = self.preset.sampling_rate, self.preset.num_samples

    def __getitem__(self, name):
        return self.parameters[name][self.row].numpy()

    def samples(self, seconds):
        return round(float(seconds) * self.rate)

    def source(self, event, times):
        f0 = self["f0"][event]
        mode, band_limited = self["mode"][event], self.preset.band_limited
        if self.preset.formants and self["formant"][event]:
            return self.through_formants(event, times)
        if mode == NOISE:
            return self.band_noise(event, times)
        if mode == FM and not band_limited:
            angle = 2 * np.pi * f0 * times
            return np.sin(angle + self["modulation_index"][event] * np.sin(self["modulation_ratio"][event] * angle))
        if mode == PULSE and not band_limited:
            cycles = f0 * times
            is_square = self["pulse_shape"][event]
            return np.sign(np.sin(2 * np.pi * cycles)) if is_square else 2 * (cycles - np.floor(cycles + 0.5))
        nyquist = self.rate / 2 if band_limited else math.inf
        partials = self.partials(event, nyquist)
        return sum(a * np.sin(2 * np.pi * (f * times + phase)) for f, a, phase in partials)

    def partials(self, event, nyquist):
        listed = {HARMONIC: self.harmonic_partials, FM: self.fm_partials, PULSE: self.pulse_partials}
        return [partial for partial in listed[self["mode"][event]](event) if abs(partial[0]) < nyquist]

    def formant_gain(self, event, frequency, position):
        """Second-order band-passes side by side; their tracks are splines that rest at their points."""
        gain, num_points = 0, self["formant_points"][event]
        for i, name in enumerate(self.preset.formants[: self["num_formants"][event]]):
            points = self[name][event, :num_points]
            track = interpolate.CubicHermiteSpline(np.linspace(0, 1, num_points), points, np.zeros(num_points))
            f, width, level = abs(frequency), self["formant_bandwidth"][event, i], self["formant_level"][event, i]
            gain += level * np.abs(1j * f * width / ((1j * f) ** 2 + 1j * f * width + track(position) ** 2))
        return gain

    def through_formants(self, event, times, exact=False):
        """Gains are linear between every 64th sample of the clip, or exact at every sample."""
        onset, length = self.samples(self["onset"][event]), self.samples(self["event_length"][event])
        clip = np.arange(onset, onset + length)
        knots = clip if exact else 64 * np.arange(onset // 64, (onset + length) // 64 + 2)
        position, moments = np.clip((knots - onset) / length, 0, 1), (np.arange(32) + 0.5) / 32
        sound, power, power_behind = 0, 0, 0
        for f, a, phase in self.partials(event, self.rate / 2):
            gain = np.interp(clip, knots, self.formant_gain(event, f, position))
            sound = sound + a * gain * np.sin(2 * np.pi * (f * times + phase))
            power, power_behind = power + a**2, power_behind + (a * self.formant_gain(event, f, moments)) ** 2
        return sound * np.sqrt(power / np.mean(power_behind))

    def harmonic_partials(self, event):
        for i in range(self["num_partials"][event]):
            k = i + 1
            amplitude = k ** -self["partial_rolloff"][event, i] * self["partial_gain"][event, i]
            yield (
                k * self["f0"][event] * self["partial_detuning"][event, i],
                amplitude,
                self["partial_phase"][event, i],
            )

    def fm_partials(self, event):
        f0, ratio = self["f0"][event], self["modulation_ratio"][event]
        return [(f0 * (1 + n * ratio), special.jv(n, self["modulation_index"][event]), 0.0) for n in range(-40, 41)]

    def pulse_partials(self, event):
        is_square, count = self["pulse_shape"][event], int(self.rate / 2 / self["f0"][event]) + 1
        coefficient = (lambda k: 4 / np.pi / k * (k % 2)) if is_square else (lambda k: -2 / np.pi / k * (-1) ** k)
        return [(k * self["f0"][event], coefficient(k), 0.0) for k in range(1, count + 1)]

    def band_noise(self, event, times):
        knots = times * min(self["band_width"][event] / 0.5945, self.rate)
        key = self.parameters["band_key"][self.row, event : event + 1]
        drawn = white_noise(key, 2 * int(knots[-1]) + 4)[0].double().numpy()
        j, u = np.floor(knots).astype(int), knots - np.floor(knots)
        a, b = (
            drawn[2 * j + i] * np.cos(np.pi * u / 2) + drawn[2 * j + 2 + i] * np.sin(np.pi * u / 2) for i in (0, 1)
        )
        angle = 2 * np.pi * self["band_centre"][event] * times
        return a * np.cos(angle) - b * np.sin(angle)

    def envelope(self, event, length):
        level = np.ones(length)
        if self.preset.enveloped:
            attack, decay = self["attack"][event] * self.rate, self["decay"][event] * self.rate
            level = np.interp(np.arange(length), [0, attack, attack + decay, length], [0, 1, 0.6, 0])
        if self["strike"][event]:
            period, fall = self["strike_period"][event] * self.rate, self["strike_decay"][event] * self.rate
            level = level * np.exp(-(np.arange(length) % period) / fall)
        return level

    def transient(self):
        burst = np.zeros(self.num_samples + 2)
        if self["transient"]:
            onset, length = self.samples(self["transient_onset"]), self.samples(self["transient_length"])
            key = self.parameters["transient_key"][self.row : self.row + 1]
            burst[onset : onset + length] = self["transient_gain"] * white_noise(key, length)[0].numpy()
        return burst

    def mixture(self):
        mixture, transient = np.zeros(self.num_samples + 2), self.transient()
        for event in range(self["num_events"]):
            onset, start = self.samples(self["onset"][event]), self.samples(self["source_start"][event])
            length = self.samples(self["event_length"][event])
            sound = self.source(event, (start + np.arange(length)) / self.rate)
            if self.preset.shared_source:
                sound = sound + transient[start : start + length]
            mixture[onset : onset + length] += self["amplitude"][event] * self.envelope(event, length) * sound
        if not self.preset.shared_source:
            mixture += transient
        return mixture[: self.num_samples]

    def signal(self):
        mixture = self.mixture()
        if self["damping"]:
            omega = 2 * np.pi * self["cutoff"] / self.rate
            alpha, cosine = np.sin(omega) / (2 * 0.707), np.cos(omega)
            b, a = [(1 - cosine) / 2, 1 - cosine, (1 - cosine) / 2], [1 + alpha, -2 * cosine, 1 - alpha]
            mixture = signal.lfilter(b, a, mixture)
            if self.preset.clipped_by_damping:
                mixture = np.clip(mixture, -1, 1)
        return mixture + self.reverberation(mixture) if self["room"] else mixture

    def reverberation(self, mixture):
        key = self.parameters["room_key"][self.row : self.row + 1]
        response = white_noise(key, round(self.preset.ranges["room_time"].high * self.rate))[0].double().numpy()
        response *= 10 ** (-3 * np.arange(len(response)) / self.rate / self["room_time"])
        response *= self["room_level"] / np.sqrt((response**2).sum())
        return signal.oaconvolve(mixture, response)[: len(mixture)]

    def noise(self):
        key = self.parameters["noise_key"][self.row : self.row + 1]
        return self["noise_gain"] * white_noise(key, self.num_samples)[0].double().numpy()

    def waveform(self):
        clip = self.signal() + self.noise()
        return clip / np.abs(clip).max()


def assert_rendered_as_by_the_slow_reference(parameters):
    waveforms = render(parameters)
    assert waveforms.dtype == torch.float32
    assert waveforms.shape == (len(parameters.indices), parameters.preset.num_samples)
    expected = [SlowClip(parameters, row).waveform() for row in range(len(waveforms))]
    np.testing.assert_allclose(waveforms.double().numpy(), expected, rtol=0, atol=2e-5)


def steady(preset, mode, f0, **overrides):
    """One source that sounds through a whole clip of a second, nothing around it."""
    varied = get_preset(preset, mode=mode, f0=f0, num_events=1, event_length=1.0, duration=1.0, **BARE, **overrides)
    return replace(varied, enveloped=False)


def spectrum_of(preset, indices=0):
    """Power in bins of 1 Hz, relative to the whole power, of clips that last a second."""
    waveforms = render_components(draw(preset, 0, indices))[0].double().numpy()
    power = np.abs(np.fft.rfft(waveforms)) ** 2
    return power / power.sum(-1, keepdims=True)


def decibels(power):
    return 10 * np.log10(np.maximum(power, 1e-30))


def power_off_the_multiples(spectrum, spacing):
    on = np.arange(0, spectrum.shape[-1], spacing)
    return decibels(spectrum.sum(-1) - spectrum[..., on].sum(-1))


@pytest.mark.parametrize("preset", PRESETS)
def test_clips_are_those_of_a_slow_reference(preset):
    parameters = draw(preset, 1, range(12), duration=1.1)
    assert_rendered_as_by_the_slow_reference(parameters)


@pytest.mark.parametrize("preset", ["reference", "audiopg"])
@pytest.mark.parametrize("mode", ["harmonic", "fm", "pulse"])
def test_loud_transients_damping_and_noise_are_those_of_a_slow_reference(preset, mode):
    loud = {"transient_probability": 1, "transient_length": (0.1, 0.5), "damping_probability": 1, "noise_gain": 0.3}
    parameters = draw(preset, 5, range(4), mode=mode, duration=0.9, num_events=(3, 5), event_length=0.25, **loud)
    assert_rendered_as_by_the_slow_reference(parameters)


@pytest.mark.parametrize("preset", ["reference", "audiopg", "harmonic"])
@pytest.mark.parametrize("overrides", [RICH, {"mode": "noise", "band_width": (2, 9)}], ids=str)
def test_noise_strikes_formants_and_rooms_are_those_of_a_slow_reference(preset, overrides):
    parameters = draw(preset, 6, range(8), duration=1.3, **overrides)
    assert NOISE in parameters["mode"]
    assert_rendered_as_by_the_slow_reference(parameters)


@pytest.mark.parametrize("preset", ["reference", "audiopg"])
@pytest.mark.parametrize(
    "overrides",
    [
        {"duration": 0.333},
        {"duration": 0.03},
        {"duration": 4097 / SAMPLING_RATE, "num_events": 1, "event_length": 1},
        {"duration": 0.5, "sampling_rate": 44100, "cutoff": (1000, 6000)},
        {"duration": 0.5, "sampling_rate": 8000, "num_formants": (1, 2), "f0": (50, 1000), "cutoff": (200, 3000)},
        {"duration": 0.5, "f0": (20, 30), "num_partials": (100, 200)},
        {"duration": 2.0, "num_events": (3, 8), "formant_points": (2, 12), "formant_bandwidth": (10, 2000)},
    ],
    ids=str,
)
def test_odd_clips_with_formants_are_those_of_a_slow_reference(preset, overrides):
    parameters = draw(preset, 4, range(6), formant_probability=0.8, **overrides)
    assert parameters["mode"][parameters["formant"]].unique().numel() == 3
    assert_rendered_as_by_the_slow_reference(parameters)


def test_gains_of_formants_between_blocks_are_nearly_those_of_every_sample():
    parameters = draw("audiopg", 0, range(12), formant_probability=1, num_events=1, event_length=(1.0, 2.0))
    clips, errors = (SlowClip(parameters, row) for row in range(12)), []
    for clip in clips:
        times = np.arange(clip.samples(clip["event_length"][0])) / SAMPLING_RATE
        by_block, exact = (clip.through_formants(0, times, exact=exact) for exact in (False, True))
        errors.append(decibels(np.mean((by_block - exact) ** 2) / np.mean(exact**2)))
    assert np.median(errors) < -40


@pytest.mark.parametrize("preset", ["reference", "audiopg"])
def test_a_clip_of_full_length_is_that_of_a_slow_reference(preset):
    assert_rendered_as_by_the_slow_reference(draw(preset, 1, [2, 10**12]))


@pytest.mark.parametrize("preset", ["reference", "audiopg"])
def test_many_events_are_those_of_a_slow_reference(preset):
    parameters = draw(preset, 2, range(4), num_events=(5, 10), duration=1.0)
    assert parameters["num_events"].max() > 5
    assert_rendered_as_by_the_slow_reference(parameters)


@pytest.mark.parametrize("preset", ["reference", "audiopg"])
@pytest.mark.parametrize(
    "overrides",
    [
        {"duration": 0.333},
        {"duration": 0.03},
        {"duration": 4096 / SAMPLING_RATE},
        {"duration": 4097 / SAMPLING_RATE},
        {"duration": 0.5, "sampling_rate": 44100},
        {"duration": 0.5, "sampling_rate": 8000, "f0": (50, 1000), "cutoff": (200, 3000)},
        {"duration": 0.5, "f0": (5, 20)},
        {"duration": 0.5, "cutoff": (7000, 7990), "damping_probability": 1},
        {"duration": 0.025, "num_events": 12, "attack": 0.5, "decay": 0.49},
    ],
    ids=str,
)
def test_odd_clips_are_those_of_a_slow_reference(preset, overrides):
    parameters = draw(preset, 3, range(5), **overrides)
    assert_rendered_as_by_the_slow_reference(parameters)


@pytest.mark.parametrize("preset", ["reference", "audiopg"])
def test_what_rounding_pushes_past_the_last_sample_is_cut(preset):
    # 4096.3 samples are rounded down to one tile, but an onset and a length that both end in .6 are rounded up.
    parameters = draw(preset, 0, range(2), duration=4096.3 / SAMPLING_RATE, num_events=1, transient_probability=1)
    in_samples = {"onset": 1000.6, "event_length": 3095.6, "source_start": 1000.6, "attack": 300.0, "decay": 600.0}
    in_samples |= {"transient_onset": 4000.6, "transient_length": 95.6}
    placed = {name: torch.full_like(parameters[name], x / SAMPLING_RATE) for name, x in in_samples.items()}
    parameters = replace(parameters, tensors={**parameters.tensors, **placed})
    assert parameters.preset.num_samples == 4096
    assert_rendered_as_by_the_slow_reference(parameters)


def test_the_clips_compared_above_contain_everything():
    parameters = draw("reference", 1, range(12), duration=1.1)
    assert parameters["mode"][:, 0].unique().tolist() == [HARMONIC, FM, PULSE]
    assert parameters["pulse_shape"][parameters["mode"] == PULSE].unique().tolist() == [0, 1]
    assert parameters["num_events"].unique().numel() > 3
    assert parameters["transient"].unique().numel() == parameters["damping"].unique().numel() == 2
    assert any(np.abs(SlowClip(parameters, row).signal()).max() == 1 for row in range(12))


def test_only_reference_clips_what_it_damps():
    loud = {"mode": "pulse", "f0": (100, 150), "num_events": 5, "duration": 0.6, "amplitude": 1.0}
    loud |= {"damping_probability": 1, "transient_probability": 0}

    def peak(preset, **overrides):
        return render_components(draw(preset, 0, range(4), **loud | overrides))[0].abs().max()

    assert peak("reference") == 1
    assert peak("audiopg") > 1.2
    assert peak("reference", damping_probability=0) > 1.2


@pytest.mark.parametrize("overrides", [{}, RICH], ids=["plain", "rich"])
@pytest.mark.parametrize("preset", PRESETS)
def test_a_clip_is_the_same_in_any_batch(preset, overrides):
    indices, overrides = [3, 141, 59, 26, 5], {"duration": 0.7, **overrides}
    together = render(draw(preset, 0, indices, **overrides))
    alone = torch.cat([render(draw(preset, 0, index, **overrides)) for index in indices])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    backwards = render(draw(preset, 0, indices[::-1], **overrides)).flip(0)
    torch.testing.assert_close(together, backwards, rtol=0, atol=1e-5)


def test_another_process_renders_the_same_clips():
    program = (
        "import sys, torch\n"
        "from audiopg.data_scripts.synthesis import draw, render\n"
        "torch.manual_seed(123)\n"
        "for preset in ('reference', 'audiopg'):\n"
        "    sys.stdout.buffer.write(render(draw(preset, 9, [7, 8, 70000], duration=0.7)).numpy().tobytes())\n"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout
    there = torch.frombuffer(bytearray(answer), dtype=torch.float32).view(2, 3, -1)
    here = torch.stack([render(draw(preset, 9, [7, 8, 70000], duration=0.7)) for preset in ("reference", "audiopg")])
    torch.testing.assert_close(there, here, rtol=0, atol=1e-6)


def test_the_global_generator_neither_matters_nor_is_touched():
    parameters = draw("reference", 0, range(3), duration=0.6)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = render(parameters)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(render(parameters), first)


@pytest.mark.parametrize("preset", ["reference", "audiopg"])
def test_a_callers_mixed_precision_changes_nothing(preset):
    parameters = draw(preset, 0, range(4), duration=0.6)
    expected = render(parameters)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(render(parameters), expected)


def test_rendering_leaves_the_parameters_alone():
    parameters = draw("audiopg", 0, range(4), duration=0.6)
    before = {name: value.clone() for name, value in parameters.items()}
    render(parameters)
    assert all(torch.equal(parameters[name], value) for name, value in before.items())


def test_what_a_clip_does_not_use_does_not_sound():
    parameters = draw("audiopg", 0, range(6), duration=0.6)
    events = ~parameters.event_exists
    scrambled = dict(parameters.tensors)
    for name in ("f0", "amplitude", "onset", "modulation_index"):
        scrambled[name] = torch.where(events, parameters[name] * 0.5 + 0.01, parameters[name])
    scrambled["cutoff"] = torch.where(parameters["damping"], parameters["cutoff"], 777.0)
    scrambled["transient_gain"] = torch.where(parameters["transient"], parameters["transient_gain"], 9.0)
    assert torch.equal(render(replace(parameters, tensors=scrambled)), render(parameters))


@pytest.mark.parametrize("preset", PRESETS)
def test_the_peak_of_every_clip_is_one(preset):
    peaks = render(draw(preset, 0, range(12), duration=0.6)).abs().amax(1)
    torch.testing.assert_close(peaks, torch.ones(12), rtol=0, atol=1e-6)


def test_components_add_up_to_the_clip_before_normalisation():
    parameters = draw("reference", 0, range(4), duration=0.6)
    total = sum(render_components(parameters))
    torch.testing.assert_close(render(parameters), total / total.abs().amax(1, keepdim=True), rtol=0, atol=1e-6)


def test_the_signal_to_noise_ratio_is_that_of_the_mean_squares():
    components = render_components(draw("reference", 0, range(8), duration=0.6))
    powers = [component.double().square().mean(1) for component in components]
    ratio = signal_to_noise_ratio(*components)
    torch.testing.assert_close(ratio.double(), 10 * (powers[0] / powers[1]).log10(), rtol=1e-5, atol=1e-4)


def test_the_signal_to_noise_ratio_follows_the_noise_gain():
    quiet, loud = (
        signal_to_noise_ratio(*render_components(draw("reference", 0, range(4), duration=0.6, noise_gain=gain)))
        for gain in (0.001, 0.1)
    )
    torch.testing.assert_close(quiet - loud, torch.full((4,), 40.0), rtol=0, atol=1e-3)
    assert signal_to_noise_ratio(torch.ones(1, 8), torch.zeros(1, 8)).tolist() == [math.inf]


@pytest.mark.parametrize("shape", ["sawtooth", "square"])
def test_pulses_of_audiopg_do_not_alias_and_those_of_reference_do(shape):
    def listen(preset):
        spectrum = spectrum_of(steady(preset, "pulse", 1130, pulse_shape=shape))
        return power_off_the_multiples(spectrum, 1130)[0]

    assert listen("audiopg") < -100
    assert listen("reference") > -25


def test_harmonics_of_audiopg_stop_at_nyquist_and_those_of_reference_alias():
    def listen(preset):
        steadily = steady(preset, "harmonic", 1130, num_partials=15, partial_detuning=1.0)
        return power_off_the_multiples(spectrum_of(steadily, range(4)), 1130)

    assert listen("audiopg").max() < -100
    assert listen("reference").min() > -25


@pytest.mark.parametrize(("f0", "ratio", "spacing"), [(1130, 1.5, 565), (1730, 1.0, 1730), (1990, 2.5, 995)])
def test_fm_of_audiopg_does_not_alias_and_that_of_reference_does(f0, ratio, spacing):
    def listen(preset):
        steadily = steady(preset, "fm", f0, modulation_ratio=ratio, modulation_index=(4.0, 8.0))
        return power_off_the_multiples(spectrum_of(steadily, range(4)), spacing)

    assert listen("audiopg").max() < -100
    assert listen("reference").min() > -15


def test_a_sine_clip_is_one_line_at_its_frequency():
    preset = get_preset("sine", f0=440, duration=1.0)
    spectrum = spectrum_of(preset, range(3))
    assert (spectrum.argmax(1) == 440).all()
    assert power_off_the_multiples(spectrum, 440).max() < -100


def test_an_unknown_device_is_refused_by_pytorch():
    with pytest.raises(RuntimeError, match="device"):
        render(draw("sine", 0, 0, duration=0.1), device="teapot")


@pytest.mark.gpu
@pytest.mark.parametrize("overrides", [{}, RICH], ids=["plain", "rich"])
@pytest.mark.parametrize("preset", PRESETS)
def test_a_clip_is_the_same_on_a_gpu(preset, overrides):
    parameters = draw(preset, 0, range(16), duration=2.0, **overrides)
    on_gpu = render(parameters, device="cuda")
    assert on_gpu.device.type == "cuda"
    torch.testing.assert_close(on_gpu.cpu(), render(parameters), rtol=0, atol=1e-5)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        assert torch.equal(render(parameters, device="cuda"), on_gpu)
