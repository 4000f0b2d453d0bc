"""Parameters and noise to waveforms. Knows no chance.

Envelopes, low-frequency oscillators and the modulation matrix run at the control rate, all modules of a kind at once.
What is linear is done there too: tuning, depth and levels, before signals are brought to the sampling rate.
"""

import math

import torch
from torch import Tensor

from audiopg.data_scripts.voices.parameters import human
from audiopg.data_scripts.voices.signals import adsr, lfo, mix, phase, square_saw, upsample
from audiopg.data_scripts.voices.voice import SINE, Voice

# A CPU renders faster what its caches hold; an accelerator wants few and large kernels, and a bound on its memory.
_SOUNDS_AT_ONCE = {"cpu": 8}
_SOUNDS_AT_ONCE_ELSEWHERE = 512
_HIGHEST_NOTE, _LOWEST_NOTE, _A4_NOTE, _A4 = 127, 0, 69, 440.0
_BELOW_NYQUIST = 0.49  # cycles of a sample
_PARTIALS, _THEIR_SAMPLING_RATE = 12000.0, 44100  # of SynthAX, and what it is made for


def _octaves(voice: Voice, note: Tensor | float) -> Tensor | float:
    """Base-2 logarithm of a MIDI note's cycles per sample: 440 Hz 2^((note - 69) / 12) over the sampling rate."""
    return (note - _A4_NOTE) / 12 + math.log2(_A4 / voice.sampling_rate)


def _highest(voice: Voice) -> float:
    """What pitches are limited to, as `_octaves` has them."""
    highest = _octaves(voice, _HIGHEST_NOTE)
    return min(highest, math.log2(_BELOW_NYQUIST)) if voice.preset.below_nyquist else highest


def _num_partials(voice: Voice, octaves: Tensor, note: Tensor, depth: Tensor) -> Tensor:
    r"""$K = 12000 / (F \log_{10} F)$ of each square-saw, $F$ in Hz.

    SynthAX takes the note and its full depth as $F$, whatever the modulation does; we take the highest pitch that is
    reached, and scale 12000, which is made for 44.1 kHz, with the sampling rate.
    """
    if voice.preset.below_nyquist:
        highest, constant = octaves.amax(-1), _PARTIALS * voice.sampling_rate / _THEIR_SAMPLING_RATE
    else:
        highest, constant = _octaves(voice, note + depth.clamp(min=0)), _PARTIALS
    frequency = voice.sampling_rate * torch.exp2(highest)
    return constant / (frequency * torch.log10(frequency))


def _sounds(voice: Voice, parameters: Tensor, noise: Tensor) -> Tensor:
    tones, num_samples = voice.architecture.tones, voice.num_samples
    count, heard = len(tones), len(tones) - voice.architecture.num_modulators
    values = human(voice, parameters)
    note, held = voice.block("keyboards", values).expand(-1, count, -1).unbind(-1)
    oscillators, levels = voice.block("oscillators", values), voice.block("levels", values)

    # At the control rate.
    length, rate = voice.num_controls, voice.control_rate
    adsrs = voice.block("adsrs", values).unflatten(1, (3, count))
    envelopes = adsr(adsrs, held[:, None], num_samples=length, rate=rate)
    lfos = lfo(voice.block("lfos", values), envelopes[:, 1], rate=rate) * envelopes[:, 2]
    modulation = mix(voice.block("weights", values), torch.cat([envelopes[:, 0], lfos], dim=1))
    pitch, amplitude, noise_amplitude = modulation[:, :-1:2], modulation[:, 1::2], modulation[:, -1:]
    tuning, depth, initial = oscillators[:, :count].unbind(-1)
    limits = (_octaves(voice, _LOWEST_NOTE), _highest(voice))
    octaves = _octaves(voice, note + tuning)[..., None] + (depth / 12)[..., None] * pitch
    partials = _num_partials(voice, octaves.clamp(*limits), note + tuning, depth)
    loud = [amplitude[:, :heard] * levels[:, :heard, None], amplitude[:, heard:]]
    if voice.preset.enveloped_carriers:
        loud.append(amplitude[:, heard:] * levels[:, heard:-1, None])
    loud.append(noise_amplitude * levels[:, -1:, None])

    # At the sampling rate.
    gains = upsample(torch.cat(loud, dim=1), num_samples)
    theta = phase(upsample(octaves, num_samples).clamp_(*limits).exp2_(), initial)
    shapes = iter(voice.block("shapes", values).unbind(1))
    mixed = noise * gains[:, -1]
    for number, tone in enumerate(tones):
        if tone == SINE:
            wave = torch.cos(theta[:, number])
        else:
            wave = square_saw(theta[:, number], partials[:, number], next(shapes))
        if number < heard:
            mixed = mixed.addcmul(wave, gains[:, number])
            continue
        tuning, depth, initial = oscillators[:, count + number - heard].unbind(-1)
        base = torch.exp2(_octaves(voice, note[:, number] + tuning))
        highest = _BELOW_NYQUIST if voice.preset.below_nyquist else 0.5
        cycles = torch.addcmul(base[:, None], (base * depth)[:, None], wave * gains[:, number]).clamp_(0, highest)
        carrier = torch.cos(phase(cycles, initial))
        if voice.preset.enveloped_carriers:
            mixed = mixed.addcmul(carrier, gains[:, count + number - heard])
        else:
            mixed = mixed.addcmul(carrier, levels[:, number, None])
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
    # A caller's mixed precision is meant for a network; sound needs all of float32.
    with torch.autocast(parameters.device.type, enabled=False):
        parts = zip(parameters.float().split(size), noise.float().split(size), strict=True)
        return torch.cat([_sounds(voice, *part) for part in parts])
