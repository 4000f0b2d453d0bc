"""What happens to a whole clip: damping, a room, normalisation. Pure functions, waveform to waveform."""

import math

import torch
from torch import Tensor

from audiopg.data_scripts.counter_random import white_noise

BUTTERWORTH_Q = 0.707
_TAIL_LEVEL = 1e-8
_BLOCK = 32


def _tail_samples(cutoff_hz: float, sampling_rate: int) -> int:
    """Samples after which the impulse response of the biquad has fallen below 1e-8."""
    alpha = math.sin(2 * math.pi * cutoff_hz / sampling_rate) / (2 * BUTTERWORTH_Q)
    pole_radius = math.sqrt((1 - alpha) / (1 + alpha))
    return math.ceil(math.log(_TAIL_LEVEL) / math.log(pole_radius))


def _low_pass_state_space(cutoff: Tensor, sampling_rate: int) -> tuple[Tensor, Tensor, Tensor]:
    r"""The biquad as $s' = A s + B x$, $y = (1, 0) s + b_0 x$ (transposed direct form II).

    Args:
        cutoff: In Hz, shape `(batch,)`.
        sampling_rate: In Hz.

    Returns:
        float64: A of shape `(batch, 2, 2)`, B of shape `(batch, 2, 1)`, b_0 of shape `(batch, 1)`.
    """
    omega = 2 * math.pi / sampling_rate * cutoff.double()[:, None]
    alpha, cosine = omega.sin() / (2 * BUTTERWORTH_Q), omega.cos()
    a1, a2 = -2 * cosine / (1 + alpha), (1 - alpha) / (1 + alpha)
    b0 = (1 - cosine) / 2 / (1 + alpha)  # b1 = 2 b0, b2 = b0
    one, zero = torch.ones_like(a1), torch.zeros_like(a1)
    transition = torch.cat([-a1, one, -a2, zero], dim=1).view(-1, 2, 2)
    return transition, torch.stack([b0 * (2 - a1), b0 * (1 - a2)], dim=1), b0


def low_pass(waveform: Tensor, cutoff: Tensor, *, sampling_rate: int, cutoff_range: tuple[float, float]) -> Tensor:
    r"""Second-order low-pass filter with Q 0.707 (Bristow-Johnson, "Cookbook formulae for audio EQ biquad filters").

    The bilinear transform of $H(s) = 1 / (s^2 + s / Q + 1)$ with $s = j \tan(\omega / 2) / \tan(\omega_c / 2)$, exact
    and parallel: within a block of 32 samples the filter is a triangular matrix of its impulse response, and two
    numbers of state go from block to block, $s_{b+1} = A^{32} s_b + z_b$, summed by doubling the distance.

    Args:
        waveform: float32, shape `(batch, samples)`.
        cutoff: Cutoff frequency in Hz, shape `(batch,)`.
        sampling_rate: In Hz.
        cutoff_range: The lowest and the highest cutoff that can occur, in Hz; the filter rings longest at one of them.
            They say over how many blocks it rings, so that a clip does not depend on its batch.

    Returns:
        float32 of the shape of `waveform`.

    Example:
        >>> click = torch.eye(1, 64)
        >>> y = low_pass(click, torch.tensor([4000.0]), sampling_rate=16000, cutoff_range=(4000.0, 4000.0))
        >>> bool(torch.isclose(y[0, 0], torch.tensor(0.2929), atol=1e-4))
        True
    """
    transition, drive, direct = _low_pass_state_space(cutoff, sampling_rate)
    powers, step = torch.eye(2, dtype=torch.float64, device=cutoff.device).expand(len(cutoff), 1, 2, 2), transition
    while powers.shape[1] < _BLOCK:  # A^0 ... A^31, and at last A^32 in `step`
        powers, step = torch.cat([powers, powers @ step[:, None]], dim=1), step @ step
    driven = (powers @ drive[:, None]).squeeze(3)  # A^n B, (batch, 32, 2)
    response = torch.cat([direct, driven[:, :-1, 0]], dim=1).float()
    lag = torch.arange(_BLOCK, device=cutoff.device) - torch.arange(_BLOCK, device=cutoff.device)[:, None]
    within = torch.where(lag >= 0, response[:, lag.clamp(min=0)], 0.0)  # from sample (row) to sample (column)

    num_samples = waveform.shape[-1]
    blocks = torch.nn.functional.pad(waveform, (0, -num_samples % _BLOCK)).unflatten(1, (-1, _BLOCK))
    state = driven.flip(1).float().mT @ blocks.mT  # what each block leaves behind, (batch, 2, blocks)
    distance, tail = 1, max(_tail_samples(end, sampling_rate) for end in cutoff_range)
    while distance < min(state.shape[2], tail / _BLOCK + 1):
        state[:, :, distance:] += step.float() @ state[:, :, :-distance]
        distance, step = 2 * distance, step @ step
    filtered = blocks @ within
    filtered[:, 1:].baddbmm_(state[:, :, :-1].mT, powers[:, :, 0].mT.float())
    return filtered.flatten(1)[:, :num_samples]


def reverberate(
    waveform: Tensor, time: Tensor, level: Tensor, keys: Tensor, *, sampling_rate: int, longest: float
) -> Tensor:
    r"""A room's diffuse reverberation: white noise that dies away exponentially (Moorer, 1979).

    $y = x + g\, (h * x) / \lVert h \rVert$, $h(t) = n(t)\, 10^{-3 t / T_{60}}$, where n is white noise.

    Args:
        waveform: float32, shape `(batch, samples)`.
        time: $T_{60}$ in s, in which the reverberation falls by 60 dB; shape `(batch,)`.
        level: g, the energy of the response over that of the direct sound, as a ratio of amplitudes; shape `(batch,)`.
        keys: Of the noise, int64, shape `(batch,)`.
        sampling_rate: In Hz.
        longest: The longest $T_{60}$ that can occur, in s: every response is as long, so that a clip does not depend
            on its batch.

    Returns:
        float32 of the shape of `waveform`; what rings on after its end is cut off.

    Example:
        >>> click, one, key = torch.eye(1, 800), torch.ones(1), torch.tensor([7])
        >>> y = reverberate(click, 0.02 * one, 0.5 * one, key, sampling_rate=16000, longest=0.05)
        >>> round(float((y - click).square().sum()), 4)
        0.25
    """
    length, num_samples = round(longest * sampling_rate), waveform.shape[-1]
    seconds = torch.arange(length, device=waveform.device) / sampling_rate
    response = white_noise(keys, length) * torch.exp(-3 * math.log(10) / time.float()[:, None] * seconds)
    response *= level.float()[:, None] / response.norm(dim=1, keepdim=True)
    size = 1 << (num_samples + length - 2).bit_length()
    spectrum = torch.fft.rfft(waveform, size) * torch.fft.rfft(response, size)
    return waveform + torch.fft.irfft(spectrum, size)[:, :num_samples]


def peak_normalise(waveform: Tensor, out: Tensor | None = None) -> Tensor:
    r"""Divide each clip by its largest absolute sample (AudioPG, equation 1); a silent clip stays silent.

    Args:
        waveform: Shape `(batch, samples)`.
        out: Where to write the result, if anywhere.

    Returns:
        In [-1, 1], of the same shape.

    Example:
        >>> peak_normalise(torch.tensor([[0.5, -2.0], [0.0, 0.0]])).tolist()
        [[0.25, -1.0], [0.0, 0.0]]
    """
    # Several times faster on a CPU than a vector norm, which it equals.
    peak = torch.maximum(waveform.amax(-1, keepdim=True), -waveform.amin(-1, keepdim=True))
    return torch.div(waveform, peak.clamp(min=torch.finfo(waveform.dtype).tiny), out=out)
