r"""Changes that leave a sound what it is, each clip's its own, made where the clips are: on the CPU or a GPU.

The set of "Contrastive Learning from Synthetic Audio Doppelgängers" (Cherep & Singh, 2024), each with probability 1/2:
high-pass, low-pass, pitch, circular shift, impulse response. There a batch shares what was drawn, and impulse
responses are recordings; here every clip has numbers of its own, by counter, and rooms are synthetic.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from audiopg.data_scripts.counter_random import random_bits, uniform
from audiopg.data_scripts.synthesis import Range
from audiopg.data_scripts.synthesis.shaping import reverberate

RANGES: Mapping[str, Range] = MappingProxyType(
    {
        "high_pass": Range(20.0, 800.0, "Hz", "below it a clip is weakened"),
        "low_pass": Range(1200.0, 8000.0, "Hz", "above it a clip is weakened"),
        "pitch": Range(-2.0, 2.0, "semitones", "by how much a clip sounds higher", minimum=-12.0),
        "shift": Range(-0.25, 0.25, "clip lengths", "how far a clip is turned in a circle", minimum=-1.0),
        "room_time": Range(0.1, 1.0, "s", "T60, in which the reverberation falls by 60 dB"),
        "room_level": Range(0.1, 1.0, "", "amplitude of the reverberation over the direct sound"),
    }
)
PROBABILITY = 0.5
"""Of each change, whatever else is done to the clip."""

_ORDER = 4
_WINDOW, _HOP = 512, 128
SHORTEST = _WINDOW // 2 + 1
"""Samples that a clip has at least: its spectrogram is mirrored at the ends."""


def draw_augmentations(seed: int, indices: Tensor, views: int = 1) -> dict[str, Tensor]:
    """What is to be done to each view of each clip.

    Args:
        seed: Any integer of 64 bits.
        indices: Clip indices, int64, shape `(batch,)`.
        views: Of each clip.

    Returns:
        By the names of `RANGES`, float32 of shape `(batch * views,)`, views of a clip beside each other: a cutoff, a
        shift and so on; NaN for a clip that is left alone. And `room_key`, int64.

    Example:
        >>> drawn = draw_augmentations(0, torch.arange(1000))
        >>> round(float(drawn["pitch"].isnan().float().mean()), 1)
        0.5
    """
    drawn = {}
    for name, distribution in RANGES.items():
        happens = uniform(seed, indices, f"augmentation, {name.partition('_')[0]}", (views,)) < PROBABILITY
        values = distribution.sample(uniform(seed, indices, f"augmentation, size of {name}", (views,)))
        drawn[name] = values.masked_fill(~happens, torch.nan).flatten().float()
    drawn["room_key"] = random_bits(seed, indices, "augmentation, room", (views,)).flatten()
    return drawn


def augment(waveforms: Tensor, drawn: Mapping[str, Tensor], *, sampling_rate: int) -> Tensor:
    """Clips as they sound after what was drawn.

    Args:
        waveforms: float32, shape `(batch, samples)`.
        drawn: As from `draw_augmentations`, on the same device.
        sampling_rate: In Hz.

    Returns:
        float32 of the same shape. Levels are as they come.

    Raises:
        ValueError: if clips are shorter than `SHORTEST` samples.

    Example:
        >>> augment(torch.zeros(3, 1600), draw_augmentations(0, torch.arange(3)), sampling_rate=16000).shape
        torch.Size([3, 1600])
    """
    if waveforms.shape[1] < SHORTEST:
        raise ValueError(
            f"Clips are augmented from {SHORTEST} samples on, got {waveforms.shape[1]}; take longer ones."
        )
    waveforms = filtered(waveforms, drawn["high_pass"], drawn["low_pass"], sampling_rate=sampling_rate)
    waveforms = pitch_shifted(waveforms, drawn["pitch"].nan_to_num(0.0))
    waveforms = turned(waveforms, drawn["shift"].nan_to_num(0.0))
    return reverberate(
        waveforms,
        drawn["room_time"].nan_to_num(RANGES["room_time"].high),
        drawn["room_level"].nan_to_num(0.0),
        drawn["room_key"],
        sampling_rate=sampling_rate,
        longest=RANGES["room_time"].high,
    )


def filtered(waveforms: Tensor, high_pass: Tensor, low_pass: Tensor, *, sampling_rate: int) -> Tensor:
    r"""High- and low-pass filters without delay, $|H| = (1 + (f_c / f)^{2n})^{-1/2}$ and its mirror, of order n = 4.

    Args:
        waveforms: Shape `(batch, samples)`.
        high_pass: Cutoff of each clip in Hz, NaN for none, shape `(batch,)`.
        low_pass: The same.
        sampling_rate: In Hz.

    Returns:
        Of the shape of `waveforms`. Clips are taken as surrounded by silence.

    Example:
        >>> tone = torch.sin(torch.arange(16000) * 2 * torch.pi * 400 / 16000)[None]
        >>> cut = filtered(tone, torch.tensor([400.0]), torch.tensor([torch.nan]), sampling_rate=16000)
        >>> round(float(cut[:, 4000:12000].square().mean() / tone[:, 4000:12000].square().mean()), 2)
        0.5
    """
    num_samples = waveforms.shape[1]
    size = 1 << (2 * num_samples - 1).bit_length()
    frequency = torch.fft.rfftfreq(size, 1 / sampling_rate, device=waveforms.device)
    below = (high_pass[:, None] / frequency.clamp(min=1e-3)).nan_to_num(0.0)
    above = (frequency / low_pass[:, None]).nan_to_num(0.0)
    gain = (1 + below ** (2 * _ORDER)).rsqrt() * (1 + above ** (2 * _ORDER)).rsqrt()
    return torch.fft.irfft(torch.fft.rfft(waveforms, size) * gain, size)[:, :num_samples]


def turned(waveforms: Tensor, shift: Tensor) -> Tensor:
    """Clips turned in a circle: what leaves at the end comes in at the beginning.

    Args:
        waveforms: Shape `(batch, samples)`.
        shift: In clip lengths, later if above 0, shape `(batch,)`.

    Returns:
        Of the shape of `waveforms`.

    Example:
        >>> turned(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.tensor([0.25])).tolist()
        [[4.0, 1.0, 2.0, 3.0]]
    """
    num_samples = waveforms.shape[1]
    steps = (shift * num_samples).round().long()[:, None]
    return waveforms.gather(1, (torch.arange(num_samples, device=waveforms.device) - steps) % num_samples)


def pitch_shifted(waveforms: Tensor, semitones: Tensor) -> Tensor:
    r"""Clips that sound higher or lower and last as long: a phase vocoder, read faster or slower.

    A clip is stretched to r times its length, $r = 2^{s / 12}$, by moving through its spectrogram at speed 1 / r while
    every bin's phase goes on as it would have (Flanagan & Golden, 1966), and read at speed r. What would pass the
    Nyquist frequency is left out.

    Args:
        waveforms: Shape `(batch, samples)`.
        semitones: Of each clip, within `RANGES["pitch"]`, shape `(batch,)`; a clip whose is 0 is returned as it is.

    Returns:
        Of the shape of `waveforms`.

    Example:
        >>> time = torch.arange(16000) / 16000
        >>> shifted = pitch_shifted(torch.sin(2 * torch.pi * 500 * time)[None], torch.tensor([2.0]))
        >>> int(torch.fft.rfft(shifted * torch.hann_window(16000)).abs().argmax())  # 500 * 2 ** (2 / 12)
        561
    """
    num_samples, ratio = waveforms.shape[1], torch.exp2(semitones / 12)
    stretched = _stretched(waveforms, ratio)
    # Read at speed r: cubic interpolation between samples (Catmull & Rom, 1974).
    position = torch.arange(num_samples, device=waveforms.device) * ratio[:, None]
    first = position.floor()
    t = position - first
    last = stretched.shape[1] - 1
    before, here, after, later = (
        stretched.gather(1, (first.long() + offset).clamp(0, last)) for offset in (-1, 0, 1, 2)
    )
    slope, next_slope = (after - before) / 2, (later - here) / 2
    curve = 2 * (here - after) + slope + next_slope
    read = here + t * (slope + t * (after - here - slope - curve + t * curve))
    return torch.where(semitones[:, None] == 0, waveforms, read)


def _stretched(waveforms: Tensor, ratio: Tensor) -> Tensor:
    """Clips at `ratio` times their length; all come as long as the longest can be, so that batches do not matter."""
    longest = 2.0 ** (RANGES["pitch"].high / 12)
    window = torch.hann_window(_WINDOW, device=waveforms.device)
    spectrum = torch.stft(waveforms, _WINDOW, _HOP, window=window, return_complex=True)  # (batch, bins, frames)
    bins, frames = spectrum.shape[1:]
    bin_numbers = torch.arange(bins, device=waveforms.device)
    position = torch.arange(math.ceil(frames * longest) + 1, device=waveforms.device) / ratio[:, None]
    index = position.long().clamp(max=frames - 2)[:, None].expand(-1, bins, -1)
    first, second = spectrum.gather(2, index), spectrum.gather(2, index + 1)
    between = (position[:, None] - index).clamp(max=1)
    level = torch.lerp(first.abs(), second.abs(), between)
    # Cycles in float64: a running sum of hundreds of frames, of which the whole ones do not count.
    expected = bin_numbers[:, None].double() * _HOP / _WINDOW
    advance = (second.angle() - first.angle()).double() / (2 * math.pi) - expected
    advance = advance - advance.round() + expected
    # Where the clip is read, and what it would have turned by in the time that was put in between: so the bins of a
    # partial stay in step with each other.
    put_in = (1 - 1 / ratio.double())[:, None, None] * (advance.cumsum(dim=2) - advance)
    cycles = first.angle().double() / (2 * math.pi) + between * advance + put_in
    phase = (2 * math.pi * (cycles - cycles.round())).float()
    audible = bin_numbers * ratio[:, None] < bins - 1
    stretched = torch.polar(level * audible[:, :, None], phase)
    # Overlap and add; PyTorch's own inverse asks the device whether windows cover the clip, and waits for the answer.
    added, weight = (
        torch.nn.functional.fold(parts, (1, _HOP * (stretched.shape[2] - 1) + _WINDOW), (1, _WINDOW), stride=(1, _HOP))
        for parts in (
            torch.fft.irfft(stretched, dim=1) * window[:, None],
            (window**2)[None, :, None].expand(1, -1, stretched.shape[2]),
        )
    )
    return (added / weight.clamp(min=1e-6)).flatten(1)[:, _WINDOW // 2 : -_WINDOW // 2]
