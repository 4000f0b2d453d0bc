"""Pure signal processing of voices: envelopes, low-frequency oscillators, phases, waveforms.

The formulas are those of SynthAX 0.2.2. Signals of the control rate have the last axis C, audio has N.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_EPSILON = 1e-6  # of SynthAX, which adds it to the numerator and to the quotient of every ramp
_SHORTEST = 1e-9  # samples
_TINY = 1e-30
_MODE_EXPONENT = 2.71828
_STEPS = 1 << 30
"""Steps of a cycle: sums of whole steps wrap around by themselves, and are the same in any order."""


def _rise(time: Tensor, length: Tensor) -> Tensor:
    """min((t + e) / L + e, 1): from 0 to 1 in `length` samples from time 0 on."""
    slope = 1 / length.clamp(min=_SHORTEST)
    return torch.addcmul(_EPSILON * slope + _EPSILON, time, slope).clamp(max=1)


def _fall(time: Tensor, start: Tensor, length: Tensor) -> Tensor:
    """1 - min((max(t - start, 0) + e) / L + e, 1), and 1 at all times where there is no length, as SynthAX has it."""
    exists = length > 0
    slope = torch.where(exists, 1 / length.clamp(min=_SHORTEST), 0.0)
    highest = torch.where(exists, 1 - _EPSILON * slope - _EPSILON, 1.0).clamp(min=0)
    return torch.addcmul(highest + start * slope, time, slope, value=-1).clamp(torch.zeros_like(highest), highest)


def _power(base: Tensor, exponent: Tensor) -> Tensor:
    """Its gradient is finite at a base of 0 too."""
    return torch.where(base > 0, torch.exp2(exponent * torch.log2(base.clamp(min=_TINY))), 0.0)


def adsr(values: Tensor, note: Tensor, *, num_samples: int, rate: int) -> Tensor:
    r"""Envelopes $a^\alpha\,((1 - S)\,d^\alpha + S)\,r^\alpha$ of ramps: up in attack, down in decay and release.

    The attack ends with the note at the latest; release multiplies, so it begins at the level that is held.

    Args:
        values: Attack, decay (s), sustain, release (s) and alpha, shape `(..., 5)`.
        note: Time that the note is held in s, shape `(...)`.
        num_samples: Length of the result, C.
        rate: Of the result in Hz.

    Returns:
        In [0, 1], shape `(..., C)`.

    Example:
        >>> values = torch.tensor([0.1, 0.1, 0.75, 0.2, 3.0])
        >>> envelope = adsr(values, torch.tensor(0.5), num_samples=480, rate=480)
        >>> [round(float(envelope[k]), 4) for k in (24, 60, 100, 400)]
        [0.125, 0.8555, 0.75, 0.0]
    """
    attack, decay, sustain, release, alpha = values.unsqueeze(-2).unbind(-1)
    note = note.unsqueeze(-1)
    decay = torch.minimum((note - attack).clamp(min=0), decay)
    attack = torch.minimum(attack, note)
    time = torch.arange(num_samples, dtype=values.dtype, device=values.device)
    up, off = _rise(time, rate * attack), _fall(time, rate * note, rate * release)
    down = _fall(time, rate * attack, rate * decay)
    return _power(up * off, alpha) * torch.addcmul(sustain, 1 - sustain, _power(down, alpha))


def lfo(values: Tensor, modulation: Tensor, *, rate: int) -> Tensor:
    r"""Low-frequency oscillators: a mix of sine, triangle, rising and falling sawtooth and square, in [0, 1].

    Phase $\theta_k = \theta_0 + \sum_{j \le k} 2 \pi \max(f + d m_j, 0) / \mathrm{rate}$; weights are
    $w_i^e / \sum_j w_j^e$ with $e = 2.71828$. All weights 0, a division by zero in SynthAX, make 0.

    Args:
        values: Frequency, depth $d$ (Hz), initial phase (rad) and the five weights, shape `(..., 8)`.
        modulation: $m$, shape `(..., C)`.
        rate: Of the result in Hz.

    Returns:
        Shape `(..., C)`.
    """
    frequency, depth, initial, *_ = values.unsqueeze(-2).unbind(-1)
    weights = values[..., 3:].double() ** _MODE_EXPONENT  # float64: see `in_units`
    weights = (weights / weights.sum(-1, keepdim=True).clamp(min=_TINY)).to(values.dtype)
    sine, triangle, saw, reverse, square = weights.unsqueeze(-2).unbind(-1)
    cycles = ((frequency + depth * modulation).clamp(min=0) / rate).cumsum(-1, dtype=torch.float64)
    cycles = cycles + initial / (2 * math.pi)
    cycles = (cycles - cycles.floor()).to(values.dtype)
    wave = -torch.cos(2 * math.pi * cycles)
    return (
        0.5 * (sine + square)
        + 0.5 * (sine * wave + square * wave.sign())
        + triangle * (1 - (2 * cycles - 1).abs())
        + reverse
        + (saw - reverse) * cycles
    )


def mix(weights: Tensor, sources: Tensor) -> Tensor:
    r"""Weighted sums $y_j = \sum_i w_{ji} x_i$, added up in one order on every device and in any batch.

    Args:
        weights: Shape `(batch, outputs, inputs)`.
        sources: Shape `(batch, inputs, samples)`.

    Returns:
        Shape `(batch, outputs, samples)`.
    """
    mixed = weights[..., :1] * sources[:, None, 0]
    for number in range(1, sources.shape[1]):
        mixed = torch.addcmul(mixed, weights[..., number, None], sources[:, None, number])
    return mixed


def upsample(signals: Tensor, num_samples: int) -> Tensor:
    """Linear interpolation from the first control sample to the last, shape `(batch, signals, C)` to `(..., N)`."""
    return functional.interpolate(signals, size=num_samples, mode="linear", align_corners=True)


class _Phase(torch.autograd.Function):
    """Running sums of cycles in whole steps of 2^-30, which wrap around: as exact after an hour as at the start."""

    @staticmethod
    def forward(ctx: Any, cycles: Tensor, initial: Tensor) -> Tensor:
        steps = (cycles * _STEPS).to(torch.int32)
        steps[..., 0] += (initial * _STEPS).to(torch.int32)
        return steps.cumsum(-1, dtype=torch.int32).to(cycles.dtype).mul_(2 * math.pi / _STEPS)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (gradient,) = gradients
        after = (2 * math.pi) * gradient.flip(-1).cumsum(-1).flip(-1)
        return after, after[..., 0]


def phase(cycles: Tensor, initial: Tensor) -> Tensor:
    r"""Phase of an oscillator: $\theta_n = \theta_0 + 2 \pi \sum_{j \le n} c_j$, wrapped into $[-4 \pi, 4 \pi)$.

    Args:
        cycles: Frequency over sampling rate, less than 2, shape `(..., N)`.
        initial: $\theta_0$ in rad, shape `(...)`.

    Returns:
        In rad, shape `(..., N)`.

    Example:
        >>> phase(torch.full((4,), 0.25), torch.tensor(0.0)).cos().round(decimals=4).abs().tolist()
        [0.0, 1.0, 0.0, 1.0]
    """
    return _Phase.apply(cycles, initial / (2 * math.pi))


def square_saw(theta: Tensor, partials: Tensor, shape: Tensor) -> Tensor:
    r"""A waveform between square and sawtooth: $(1 - s/2)\,(1 + s \cos\theta) \tanh(\pi K \sin(\theta) / 2)$.

    After Lazzarini & Timoney (2010), "New perspectives on distortion synthesis for virtual analog oscillators".

    Args:
        theta: Phase in rad, shape `(..., N)`.
        partials: $K$, about how many partials there are, shape `(...)`.
        shape: $s$ from 0, square, to 1, sawtooth, shape `(...)`.

    Returns:
        Shape `(..., N)`; its peak is at most 9/8.
    """
    shape = shape.unsqueeze(-1)
    # tanh(x) / 2 is sigmoid(2 x) - 1 / 2, which PyTorch has five times as fast.
    half = torch.sigmoid(math.pi * partials.unsqueeze(-1) * torch.sin(theta)) - 0.5
    return half * torch.addcmul(2 - shape, shape * (2 - shape), torch.cos(theta))
