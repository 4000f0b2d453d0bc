import numpy as np
import pytest
import torch
from scipy import signal, special

from audiopg.data_scripts.counter_random import random_bits
from audiopg.data_scripts.synthesis.excitation import (
    band_noise,
    frequency_modulation,
    modulation_sidebands,
    partial_sum,
    phase_in_cycles,
    pulse_partials,
    sawtooth,
    square,
)

SAMPLING_RATE = 16000
FAR = 163840
# Before, at and after zero, at and beside a block's edge, and at the end of a long clip.
STARTS = (0, 1, -1, 63, 64, -64, -4095, 8191, FAR - 77, 10**7 + 13)
F0 = (50.0, 61.7, 440.0, 999.999, 1234.5678, 2000.0, 7999.0, 12345.6)


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


def times(start, num_samples, sampling_rate=SAMPLING_RATE):
    return (start + np.arange(num_samples)) / sampling_rate


def grid(num_samples=500, sampling_rate=SAMPLING_RATE):
    return {"num_samples": num_samples, "sampling_rate": sampling_rate}


def random_partials(batch, partials, seed=0):
    generator = torch.Generator().manual_seed(seed)
    frequencies, amplitudes, phases = torch.rand(3, batch, partials, generator=generator, dtype=torch.float64)
    return 50 + 9000 * frequencies, amplitudes.float(), phases


def direct_sum(frequencies, amplitudes, phases, start, num_samples, sampling_rate=SAMPLING_RATE):
    angle = frequencies.numpy()[:, None] * times(start, num_samples, sampling_rate) + phases.numpy()[:, None]
    return (amplitudes.double().numpy()[:, None] * np.sin(2 * np.pi * angle)).sum(0)


def amplitude_spectrum(waveform):
    """Amplitude of the sine in every bin of a waveform that is whole periods long."""
    return 2 * np.abs(np.fft.rfft(waveform.double().numpy())) / waveform.shape[-1]


def assert_close(actual, expected, tolerance):
    np.testing.assert_allclose(actual.double().numpy(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("start", STARTS)
def test_phase_is_frequency_times_time_modulo_one(start):
    cycles = phase_in_cycles(doubles(*F0), torch.tensor([start] * len(F0)), **grid())
    assert cycles.dtype == torch.float32
    assert cycles.min() >= 0
    assert cycles.max() <= 2
    difference = cycles.double().numpy() - np.outer(F0, times(start, 500))
    assert np.abs(difference - np.round(difference)).max() < 1e-6


@pytest.mark.parametrize("start", STARTS)
def test_a_sum_of_partials_is_the_direct_sum_wherever_it_starts(start):
    partials = random_partials(3, 15)
    starts = torch.tensor([start, start + 5, start - 200])
    sound = partial_sum(*partials, starts, **grid(1000))
    assert sound.dtype == torch.float32
    expected = [direct_sum(*(x[i] for x in partials), int(starts[i]), 1000) for i in range(3)]
    assert_close(sound, expected, 1e-5)


@pytest.mark.parametrize("num_samples", [1, 63, 64, 65, 4096])
def test_a_sum_of_partials_is_right_at_every_length(num_samples):
    partials = random_partials(1, 3)
    sound = partial_sum(*partials, torch.tensor([-7]), **grid(num_samples))
    assert sound.shape == (1, num_samples)
    assert_close(sound[0], direct_sum(*(x[0] for x in partials), -7, num_samples), 1e-5)


@pytest.mark.parametrize("sampling_rate", [8000, 44100])
def test_sounds_follow_the_sampling_rate(sampling_rate):
    partials = random_partials(1, 5)
    sound = partial_sum(*partials, torch.tensor([FAR]), **grid(300, sampling_rate))
    assert_close(sound[0], direct_sum(*(x[0] for x in partials), FAR, 300, sampling_rate), 1e-5)


def test_a_tile_of_a_sound_is_the_sound_at_that_place():
    partials = random_partials(1, 15)
    whole = partial_sum(*partials, torch.tensor([0]), **grid(3 * 4096))
    tile = partial_sum(*partials, torch.tensor([4096]), **grid(4096))
    torch.testing.assert_close(tile, whole[:, 4096:8192], rtol=0, atol=5e-6)


@pytest.mark.parametrize("num_samples", [1, 64, 65, 1000])
def test_levels_of_partials_are_linear_between_blocks(num_samples):
    partials, start = random_partials(2, 5), torch.tensor([-7, FAR])
    levels = torch.rand(2, 5, -(-num_samples // 64) + 1, generator=torch.Generator().manual_seed(1))
    sound = partial_sum(*partials, start, levels=levels, **grid(num_samples))
    for row, (frequencies, amplitudes, phases) in enumerate(zip(*partials, strict=True)):
        expected = 0
        for k, level in enumerate(levels[row].double().numpy()):
            one = (x[k : k + 1] for x in (frequencies, amplitudes, phases))
            over_time = np.interp(np.arange(num_samples), 64 * np.arange(len(level)), level)
            expected = expected + over_time * direct_sum(*one, int(start[row]), num_samples)
        assert_close(sound[row], expected, 1e-5)


@pytest.mark.parametrize("shape", [(1, 3, 2), (1, 3, 8), (1, 1, 9), (2, 3, 9), (3, 9)])
def test_levels_that_are_not_as_many_as_blocks_and_one_are_refused(shape):
    partials = random_partials(1, 3)
    with pytest.raises(ValueError, match=r"levels have the shape .*, \(1, 3, 9\); got \("):
        partial_sum(*partials, torch.tensor([0]), levels=torch.ones(shape), **grid(500))


def test_a_row_is_the_same_in_any_batch():
    partials, starts = random_partials(7, 15), torch.arange(7) * 1000
    together = partial_sum(*partials, starts, **grid())
    alone = torch.cat([partial_sum(*(x[i : i + 1] for x in partials), starts[i : i + 1], **grid()) for i in range(7)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)


def test_a_harmonic_tone_has_its_peaks_at_multiples_of_its_fundamental_and_nothing_else():
    f0, gains = 440.0, torch.tensor([[1.0, 0.5, 0.0, 0.25, 0.125]])
    k = torch.arange(1, 6, dtype=torch.float64)
    sound = partial_sum(f0 * k[None], gains, doubles(0.1, 0.2, 0.3, 0.4, 0.5)[None], torch.tensor([99]), **grid(16000))
    expected = np.zeros(8001)
    expected[(f0 * k).long()] = gains[0]
    np.testing.assert_allclose(amplitude_spectrum(sound[0]), expected, atol=1e-6)


def test_a_partial_above_nyquist_aliases():
    one = torch.ones(1, 1)
    sound = partial_sum(doubles(9000.0)[None], one, 0 * one.double(), torch.tensor([0]), **grid(16000))
    assert amplitude_spectrum(sound[0]).argmax() == 7000


@pytest.mark.parametrize("shape", [(1, 4), (2, 3), (3,)])
@pytest.mark.parametrize("position", [0, 1, 2])
def test_partials_of_different_shapes_are_refused(position, shape):
    arguments = [torch.ones(1, 3, dtype=torch.float64) for _ in range(3)]
    arguments[position] = torch.ones(shape, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"one shape, \(batch, partials\); got \[.*\]"):
        partial_sum(*arguments, torch.tensor([0]), **grid())


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize(("index", "ratio"), [(0.5, 0.5), (8.0, 3.14), (3.3, 1.0)])
def test_frequency_modulation_is_its_formula_in_float64(start, index, ratio):
    f0 = doubles(*F0)
    same = torch.ones_like(f0)
    sound = frequency_modulation(f0, index * same, ratio * same, torch.tensor([start] * len(F0)), **grid())
    angle = 2 * np.pi * np.outer(F0, times(start, 500))
    assert_close(sound, np.sin(angle + index * np.sin(ratio * angle)), 2e-5)


@pytest.mark.parametrize(("f0", "ratio"), [(1000, 0.5), (1500, 1.0), (200, 2.5), (50, 3.14), (700, 1.5)])
@pytest.mark.parametrize("index", [0.5, 2.0, 8.0])
def test_fm_sidebands_are_bessel_functions(f0, ratio, index):
    num_samples = 5 * SAMPLING_RATE
    sound = frequency_modulation(doubles(f0), doubles(index), doubles(ratio), torch.tensor([0]), **grid(num_samples))
    # Sideband n is J_n(index) sin(2 pi (f0 + n r f0) t); a negative frequency folds with its sign turned, and so does
    # one above Nyquist. All of them fall on whole bins of 0.2 Hz.
    expected = np.zeros(num_samples // 2 + 1)
    for n in range(-60, 61):
        position = round(5 * f0 * (1 + n * ratio)) % num_samples
        sign, position = (1, position) if position <= num_samples // 2 else (-1, num_samples - position)
        expected[position] += sign * special.jv(n, index)
    expected[[0, -1]] = 0
    found = -2 * np.fft.rfft(sound[0].double().numpy()).imag / num_samples
    np.testing.assert_allclose(found, expected, atol=5e-6)


def test_an_unmodulated_carrier_is_a_sine():
    sound = frequency_modulation(doubles(500.0), doubles(0.0), doubles(1.0), torch.tensor([3]), **grid())
    assert_close(sound[0], np.sin(2 * np.pi * 500 * times(3, 500)), 1e-5)


def away_from_edges(cycles, distance=1e-4):
    halves = 2 * cycles
    return np.abs(halves - np.round(halves)) > distance


@pytest.mark.parametrize("start", STARTS)
def test_pulses_are_those_of_scipy(start):
    cycles = np.outer(F0, times(start, 500))
    ours = phase_in_cycles(doubles(*F0), torch.tensor([start] * len(F0)), **grid())
    smooth = away_from_edges(cycles)
    assert smooth.mean() > 0.9
    # SciPy's sawtooth jumps at whole cycles, ours half a cycle later, where it is through its zero in between.
    theirs = signal.sawtooth(2 * np.pi * (cycles + 0.5))
    np.testing.assert_allclose(sawtooth(ours).numpy()[smooth], theirs[smooth], atol=3e-6)
    np.testing.assert_array_equal(square(ours).numpy()[smooth], signal.square(2 * np.pi * cycles)[smooth])


def test_pulses_have_the_specified_values_at_their_edges():
    cycles = torch.tensor([0.0, 0.5, 1.0, 1.5, -0.5, -1.0])
    assert square(cycles).tolist() == [0.0] * 6
    assert sawtooth(cycles).tolist() == [0.0, -1.0, 0.0, -1.0, -1.0, 0.0]


@pytest.mark.parametrize(("is_square", "pulse"), [(False, sawtooth), (True, square)])
def test_partials_of_pulses_are_those_of_the_dense_waveform(is_square, pulse):
    dense = pulse((torch.arange(2**16, dtype=torch.float64) + 0.5) / 2**16)
    k = np.arange(1, 41)
    # Half a sample late, hence the turn by k / 2^17 of a cycle.
    spectrum = np.fft.rfft(dense.numpy())[k] * np.exp(-2j * np.pi * k / 2**17) / 2**15
    ours = pulse_partials(torch.tensor([is_square]), 40)[0]
    np.testing.assert_allclose(spectrum.real, 0, atol=1e-4)
    np.testing.assert_allclose(ours.numpy(), -spectrum.imag, atol=1e-4)


@pytest.mark.parametrize(("is_square", "pulse"), [(False, sawtooth), (True, square)])
def test_the_sum_of_many_partials_approaches_the_pulse(is_square, pulse):
    k = torch.arange(1, 301, dtype=torch.float64)[None]
    amplitudes = pulse_partials(torch.tensor([is_square]), 300)
    sound = partial_sum(5.0 * k, amplitudes, 0 * k, torch.tensor([0]), **grid(3200))[0]
    cycles = 5.0 * times(0, 3200)
    smooth = away_from_edges(cycles, 0.05)
    assert_close(sound[smooth], pulse(torch.from_numpy(cycles)).numpy()[smooth], 0.02)


@pytest.mark.parametrize("num_sidebands", [0, 1, 24])
def test_sidebands_are_bessel_functions_of_the_modulation_index(num_sidebands):
    index = torch.tensor([0.0, 0.5, 3.3, 8.0], dtype=torch.float64)
    orders = np.arange(-num_sidebands, num_sidebands + 1)
    expected = special.jv(orders, index.numpy()[:, None])
    np.testing.assert_allclose(modulation_sidebands(index, num_sidebands, 8.0).numpy(), expected, rtol=0, atol=1e-14)


def noise_keys(count):
    return random_bits(0, torch.arange(count), "band")


@pytest.mark.parametrize(("centre", "width"), [(1000.0, 200.0), (3000.0, 800.0), (500.0, 40.0)])
def test_a_band_of_noise_has_its_power_where_it_was_asked_for(centre, width):
    start = torch.zeros(32, dtype=torch.int64)
    noise = band_noise(doubles(centre).expand(32), doubles(width).expand(32), noise_keys(32), start, **grid(64000))
    assert float(noise.var()) == pytest.approx(1 / 3, rel=0.05)
    frequencies, power = signal.welch(noise.double().numpy(), SAMPLING_RATE, nperseg=16384)
    power = 10 * np.log10(power.mean(0))

    def level(frequency):
        near = np.abs(frequencies - frequency) <= max(2.0, 0.04 * width)
        return 10 * np.log10((10 ** (power[near] / 10)).mean())

    edges = [level(centre - width / 2), level(centre + width / 2)]
    assert level(centre) - np.mean(edges) == pytest.approx(3.0, abs=0.6)
    far = np.abs(frequencies - centre) > 3 * width
    assert power[far].max() < level(centre) - 30


def test_the_variance_of_a_band_is_the_same_at_and_between_its_knots():
    count = 4000
    noise = band_noise(
        doubles(2000.0).expand(count),
        doubles(500.0).expand(count),
        noise_keys(count),
        torch.zeros(count).long(),
        **grid(64),
    )
    spread = noise.var(0)
    assert float(spread.min()) > 0.9 / 3
    assert float(spread.max()) < 1.1 / 3


def test_a_band_wider_than_the_sampling_rate_is_white():
    noise = band_noise(doubles(4000.0), doubles(1e6), noise_keys(1), torch.tensor([0]), **grid(64000))[0]
    _, power = signal.welch(noise.double().numpy(), SAMPLING_RATE, nperseg=256)
    assert np.ptp(10 * np.log10(power[1:-1])) < 2.5


@pytest.mark.parametrize("start", STARTS)
def test_a_band_of_noise_is_a_function_of_time_alone(start):
    centre, width = doubles(1234.5, 5000.0, 100.0), doubles(321.0, 7000.0, 11.0)
    whole = band_noise(centre, width, noise_keys(3), torch.full((3,), start - 300), **grid(800))
    part = band_noise(centre, width, noise_keys(3), torch.full((3,), start), **grid(500))
    torch.testing.assert_close(part, whole[:, 300:], rtol=0, atol=2e-5)
