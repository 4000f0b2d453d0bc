import math

import numpy as np
import pytest
import torch
from scipy import signal
from torchaudio import functional

from audiopg.data_scripts.synthesis.shaping import BUTTERWORTH_Q, low_pass, peak_normalise, reverberate

SAMPLING_RATE = 16000
CUTOFFS = (200.0, 333.3, 1000.0, 3999.9, 6000.0)


def noise(batch, num_samples, seed=0):
    return torch.randn(batch, num_samples, generator=torch.Generator().manual_seed(seed))


def biquad(cutoff, sampling_rate=SAMPLING_RATE):
    """Coefficients (b, a) of Bristow-Johnson's low-pass filter."""
    omega = 2 * math.pi * cutoff / sampling_rate
    alpha, cosine = math.sin(omega) / (2 * 0.707), math.cos(omega)
    return np.array([1 - cosine, 2 - 2 * cosine, 1 - cosine]) / 2, np.array([1 + alpha, -2 * cosine, 1 - alpha])


def recursion(waveform, cutoff, sampling_rate=SAMPLING_RATE):
    return signal.lfilter(*biquad(cutoff, sampling_rate), waveform.double().numpy())


def filtered(waveform, cutoff, sampling_rate=SAMPLING_RATE, cutoff_range=(200.0, 6000.0)):
    cutoffs = torch.full((len(waveform),), cutoff)
    return low_pass(waveform, cutoffs, sampling_rate=sampling_rate, cutoff_range=cutoff_range)


@pytest.mark.parametrize("num_samples", [16000, 12347])
@pytest.mark.parametrize("cutoff", CUTOFFS)
def test_the_filter_is_the_recursion_in_float64_from_the_first_sample_to_the_last(cutoff, num_samples):
    waveform = noise(2, num_samples)
    ours = filtered(waveform, cutoff)
    assert ours.dtype == torch.float32
    assert ours.shape == waveform.shape
    np.testing.assert_allclose(ours.numpy(), recursion(waveform, cutoff), rtol=0, atol=5e-6)


@pytest.mark.parametrize("cutoff", CUTOFFS)
def test_the_filter_is_torchaudios_biquad(cutoff):
    waveform = 0.2 * noise(2, 4000)
    theirs = functional.lowpass_biquad(waveform, SAMPLING_RATE, cutoff, Q=BUTTERWORTH_Q)
    assert theirs.abs().max() < 1  # where torchaudio would clip
    torch.testing.assert_close(filtered(waveform, cutoff), theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("sampling_rate", [8000, 44100])
def test_the_filter_follows_the_sampling_rate(sampling_rate):
    waveform = noise(1, 5000)
    ours = filtered(waveform, 1500.0, sampling_rate, cutoff_range=(1500.0, 1500.0))
    np.testing.assert_allclose(ours.numpy(), recursion(waveform, 1500.0, sampling_rate), rtol=0, atol=5e-6)


@pytest.mark.parametrize("cutoff", [10.0, 200.0, 7900.0, 7990.0])
def test_nothing_rings_round_from_the_end_of_the_clip_to_its_beginning(cutoff):
    click_at_the_end = torch.zeros(1, 2000)
    click_at_the_end[0, -1] = 1
    ours = filtered(click_at_the_end, cutoff, cutoff_range=(min(cutoff, 200.0), max(cutoff, 6000.0)))
    assert ours[0, :-1].abs().max() < 1e-6
    np.testing.assert_allclose(ours.numpy(), recursion(click_at_the_end, cutoff), rtol=0, atol=1e-6)


@pytest.mark.parametrize("cutoff", CUTOFFS)
def test_the_gain_at_the_cutoff_is_q_and_that_of_a_constant_is_one(cutoff):
    click = torch.zeros(1, 16000)
    click[0, 0] = 1
    response = np.abs(np.fft.rfft(filtered(click, cutoff)[0].double().numpy()))
    assert response[0] == pytest.approx(1, abs=1e-5)
    assert np.interp(cutoff, np.arange(8001), response) == pytest.approx(0.707, abs=1e-4)
    assert response[-1] == pytest.approx(0, abs=1e-5)


def test_every_row_is_filtered_at_its_own_cutoff_whatever_the_batch():
    waveform, cutoffs = noise(5, 3000), torch.tensor(CUTOFFS)
    together = low_pass(waveform, cutoffs, sampling_rate=SAMPLING_RATE, cutoff_range=(200.0, 6000.0))
    alone = torch.cat([filtered(waveform[i : i + 1], CUTOFFS[i]) for i in range(5)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)


def test_the_filter_leaves_its_argument_alone():
    waveform = noise(1, 500)
    filtered(waveform, 1000.0)
    assert torch.equal(waveform, noise(1, 500))


def test_the_peak_of_every_clip_becomes_one():
    waveform = noise(4, 1000) * torch.tensor([1e-30, 1e-3, 1.0, 1e30])[:, None]
    normalised = peak_normalise(waveform)
    assert normalised.abs().amax(1).tolist() == [1.0] * 4
    np.testing.assert_allclose(normalised, waveform / waveform.abs().amax(1, keepdim=True), rtol=1e-6)


def test_a_silent_clip_stays_silent_beside_a_loud_one():
    assert peak_normalise(torch.tensor([[0.0, 0.0], [-4.0, 2.0]])).tolist() == [[0.0, 0.0], [-1.0, 0.5]]


def in_room(waveform, time, level, longest=0.5, key=3):
    arguments = (torch.full((len(waveform),), value) for value in (time, level, key))
    return reverberate(waveform, *arguments, sampling_rate=SAMPLING_RATE, longest=longest)


@pytest.mark.parametrize("time", [0.1, 0.3, 0.5])
def test_a_room_rings_as_long_as_it_says(time):
    """T60 by Schroeder's backward integration, fitted between -5 and -35 dB."""
    click = torch.eye(1, 16000)
    tail = (in_room(click, time, 1.0) - click)[0].double()
    energy = 10 * torch.log10(tail.square().flip(0).cumsum(0).flip(0)).numpy()
    energy -= energy[0]
    fitted = np.nonzero((energy < -5) & (energy > -35))[0]
    slope = np.polyfit(fitted / SAMPLING_RATE, energy[fitted], 1)[0]
    assert -60 / slope == pytest.approx(time, rel=0.1)


@pytest.mark.parametrize("level", [0.1, 1.0])
def test_a_room_adds_the_energy_that_it_says(level):
    click = torch.eye(1, 16000)
    tail = in_room(click, 0.3, level) - click
    assert float(tail.square().sum()) == pytest.approx(level**2, rel=1e-4)


def test_a_room_is_a_convolution_without_wrapping_around():
    waveform = noise(2, 3000)
    response = in_room(torch.eye(1, 8000), 0.4, 0.7)[0].double().numpy()
    expected = [np.convolve(row, response)[:3000] for row in waveform.double().numpy()]
    np.testing.assert_allclose(in_room(waveform, 0.4, 0.7).numpy(), expected, atol=1e-5)
