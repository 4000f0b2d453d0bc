"""Parameters and noise to waveforms. Knows no chance.

Envelopes, low-frequency oscillators and the modulation matrix run at the control rate, all modules of a kind at once.
What is linear is done there too: tuning, depth and levels, before signals are brought to the sampling rate.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import TypeVar

import torch
from torch import Tensor

from audiopg.data_scripts.voices.parameters import in_units
from audiopg.data_scripts.voices.signals import adsr, lfo, mix, phase, square_saw, upsample
from audiopg.data_scripts.voices.voice import SINE, Voice

# A CPU renders faster what its caches hold; an accelerator wants few and large kernels, and a bound on its memory.
_SOUNDS_AT_ONCE = {"cpu": 8}
_SOUNDS_AT_ONCE_ELSEWHERE = 512
_HIGHEST_NOTE, _LOWEST_NOTE, _A4_NOTE, _A4 = 127.0, 0.0, 69, 440.0
_BELOW_NYQUIST = 0.49  # cycles of a sample
_PARTIALS, _THEIR_SAMPLING_RATE = 12000.0, 44100  # of SynthAX, and what it is made for


Number = TypeVar("Number", Tensor, float)


def _octaves(voice: Voice, note: Number) -> Number:
    """Base-2 logarithm of a MIDI note's cycles per sample: 440 Hz 2^((note - 69) / 12) over the sampling rate."""
    return (note - _A4_NOTE) / 12 + math.log2(_A4 / voice.sampling_rate)


def _highest_cycles(voice: Voice) -> float:
    """Cycles per sample that no oscillator has more of, where the preset says so, and no carrier in any case."""
    return _BELOW_NYQUIST if voice.preset.below_nyquist else 0.5


def _limits(voice: Voice) -> tuple[float, float]:
    """Of pitches, as `_octaves` has them."""
    lowest, highest = (_octaves(voice, note) for note in (_LOWEST_NOTE, _HIGHEST_NOTE))
    return lowest, min(highest, math.log2(_highest_cycles(voice))) if voice.preset.below_nyquist else highest


def _num_partials(voice: Voice, octaves: Tensor, note: Tensor, depth: Tensor) -> Tensor:
    r"""$K = 12000 / (F \log_{10} F)$ of each square-saw, $F$ in Hz.

    SynthAX takes the note and its full depth as $F$, whatever the modulation does; we take the highest pitch that is
    reached, and scale 12000, which is made for 44.1 kHz, with the sampling rate.
    """
    if voice.preset.below_nyquist:
        highest, constant = (
            octaves.amax(-1).clamp(*_limits(voice)),
            _PARTIALS * voice.sampling_rate / _THEIR_SAMPLING_RATE,
        )
    else:
        highest, constant = _octaves(voice, note + depth.clamp(min=0)), _PARTIALS
    frequency = voice.sampling_rate * torch.exp2(highest.double())  # float64: see `in_units`
    return (constant / (frequency * torch.log10(frequency))).to(octaves.dtype)


@dataclass(frozen=True)
class _Controls:
    """What sounds are made of at the control rate, and what stays as it is.

    Args:
        octaves: Pitch of each tone, shape `(batch, tones, C)`, see `_octaves`.
        gains: Levels of the tones, of carriers with an envelope and of the noise, shape `(batch, gains, C)`.
        initial: Phases of the tones in rad, shape `(batch, tones)`.
        partials: See `_num_partials`, shape `(batch, tones)`.
        shapes: Of the square-saws, shape `(batch, square-saws)`.
        carriers: Base frequency (cycles per sample), depth and initial phase (rad), shape `(batch, carriers, 3)`.
        steady: Levels of carriers without an envelope, shape `(batch, carriers)`.
    """

    octaves: Tensor
    gains: Tensor
    initial: Tensor
    partials: Tensor
    shapes: Tensor
    carriers: Tensor
    steady: Tensor

    def split(self, size: int) -> Iterator["_Controls"]:
        """Consecutive batches of at most `size` sounds."""
        parts = [getattr(self, column.name).split(size) for column in fields(self)]
        return (_Controls(*part) for part in zip(*parts, strict=True))


def _controls(voice: Voice, parameters: Tensor) -> _Controls:
    count, heard = len(voice.architecture.tones), voice.num_heard
    values = in_units(voice, parameters)
    note, held = voice.block("keyboards", values).expand(-1, count, -1).unbind(-1)
    adsrs = voice.block("adsrs", values).unflatten(1, (3, count))
    envelopes = adsr(adsrs, held[:, None], num_samples=voice.num_controls, rate=voice.control_rate)
    lfos = lfo(voice.block("lfos", values), envelopes[:, 1], rate=voice.control_rate) * envelopes[:, 2]
    modulation = mix(voice.block("weights", values), torch.cat([envelopes[:, 0], lfos], dim=1))
    pitch, amplitude, noise_amplitude = modulation[:, :-1:2], modulation[:, 1::2], modulation[:, -1:]

    oscillators = voice.block("oscillators", values)
    tuning, depth, initial = oscillators[:, :count].unbind(-1)
    octaves = _octaves(voice, note + tuning)[..., None] + (depth / 12)[..., None] * pitch
    carrier_tuning, *others = oscillators[:, count:].unbind(-1)
    base = torch.exp2(_octaves(voice, note[:, heard:] + carrier_tuning).double()).to(values.dtype)
    carriers = torch.stack([base, *others], dim=-1)

    levels = voice.block("levels", values)
    sounding, steady, noise_level = levels[:, :heard], levels[:, heard:-1], levels[:, -1:]
    gains = [amplitude[:, :heard] * sounding[..., None], amplitude[:, heard:]]
    if voice.preset.enveloped_carriers:
        gains.append(amplitude[:, heard:] * steady[..., None])
    gains.append(noise_amplitude * noise_level[..., None])
    partials = _num_partials(voice, octaves, note + tuning, depth)
    return _Controls(octaves, torch.cat(gains, 1), initial, partials, voice.block("shapes", values), carriers, steady)


def _sounds(voice: Voice, controls: _Controls, noise: Tensor) -> Tensor:
    tones, heard = voice.architecture.tones, voice.num_heard
    gains = upsample(controls.gains, voice.num_samples)
    cycles = upsample(controls.octaves, voice.num_samples).clamp_(*_limits(voice)).exp2_()
    theta = phase(cycles, controls.initial)
    shapes, carriers = iter(controls.shapes.unbind(1)), iter(controls.carriers.unbind(1))
    mixed = noise * gains[:, -1]
    for number, tone in enumerate(tones):
        if tone == SINE:
            wave = torch.cos(theta[:, number])
        else:
            wave = square_saw(theta[:, number], controls.partials[:, number], next(shapes))
        if number < heard:
            mixed = mixed.addcmul_(wave, gains[:, number])
            continue
        base, depth, initial = next(carriers).unbind(-1)
        cycles = torch.addcmul(base[:, None], (base * depth)[:, None], wave * gains[:, number])
        carrier = torch.cos(phase(cycles.clamp_(0, _highest_cycles(voice)), initial))
        enveloped = voice.preset.enveloped_carriers
        level = gains[:, len(tones) + number - heard] if enveloped else controls.steady[:, number - heard, None]
        mixed = mixed.addcmul_(carrier, level)
    return mixed / mixed.abs().amax(-1, keepdim=True).clamp(min=1)


def render(voice: Voice, parameters: Tensor, noise: Tensor) -> Tensor:
    r"""Waveforms of sounds: $y / \max(1, \max |y|)$ of $y = \sum_i l_i x_i$, the sum of all oscillators and the noise.

    A pure function, differentiable in the parameters.

    Args:
        voice: Which synthesizer.
        parameters: Positions in [0, 1], shape `(batch, P)`, from `draw` or `perturb`.
        noise: In (-1, 1), shape `(batch, samples)`, on the same device, from `noise_of`.

    Returns:
        float32 in [-1, 1], shape `(batch, samples)`, on the device of `parameters`.

    Raises:
        ValueError: if shapes do not fit.

    Example:
        >>> from audiopg.data_scripts.voices import draw, get_voice, noise_of
        >>> voice = get_voice("voice")
        >>> render(voice, draw(voice, 0, range(4)), noise_of(voice, 0, range(4))).shape
        torch.Size([4, 16000])
    """
    voice.validate(parameters)
    if noise.shape != (len(parameters), voice.num_samples):
        raise ValueError(
            f"Noise for {len(parameters)} sounds has the shape {(len(parameters), voice.num_samples)}, "
            f"got {tuple(noise.shape)}; take noise_of of the same voice."
        )
    size = _SOUNDS_AT_ONCE.get(parameters.device.type, _SOUNDS_AT_ONCE_ELSEWHERE)
    if torch.compiler.is_compiling():
        size = len(parameters)  # what is compiled keeps no signals to hold
    # A caller's mixed precision is meant for a network; sound needs all of float32.
    with torch.autocast(parameters.device.type, enabled=False):
        parts = zip(_controls(voice, parameters.float()).split(size), noise.float().split(size), strict=True)
        return torch.cat([_sounds(voice, *part) for part in parts])
