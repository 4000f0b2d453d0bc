"""What the modules of a voice are set by: every parameter's range, with unit, meaning and curve."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from audiopg.data_scripts.synthesis import Range


def curved(position: Tensor, exponent: Tensor | float, symmetric: Tensor | bool) -> Tensor:
    r"""Positions in [0, 1] bent by a curve: $p^e$; symmetric, $(1 + \mathrm{sign}(d) |d|^e) / 2$ of $d = 2 p - 1$.

    Args:
        position: Shape `(..., parameters)`.
        exponent: 1 / curve on the way to units, the curve on the way back.
        symmetric: Whether the curve is bent about the middle.

    Returns:
        In [0, 1], of the same shape.

    Example:
        >>> [curved(torch.tensor([0.25, 0.5]), 2.0, symmetric).tolist() for symmetric in (False, True)]
        [[0.0625, 0.25], [0.375, 0.5]]
    """
    symmetric = torch.as_tensor(symmetric, device=position.device)
    distance = torch.where(symmetric, 2 * position - 1, position)
    # A straight line has a slope where it crosses 0 too; that of a power written so is lost there.
    straight = torch.as_tensor(exponent, device=position.device) == 1
    bent = torch.where(straight, distance, distance.sign() * distance.abs() ** exponent)
    return torch.where(symmetric, (1 + bent) / 2, bent)


@dataclass(frozen=True)
class CurvedRange(Range):
    """A range whose values lie along a curve: more of the positions near one end, or near the middle.

    A position $p$ in [0, 1] stands for $l + (h - l) p^{1/c}$, as in torchsynth (Turian et al., 2021) and SynthAX
    (Cherep & Singh, 2023); see `curved` for symmetric ones.

    Args:
        curve: $c$; 1 for a straight line. Below 1, most positions lie near the low end, or near the middle.
        symmetric: Whether the curve is bent about the middle of the range.
        group: What it is about, out of `synthesis.GROUPS`.
    """

    curve: float = 1.0
    symmetric: bool = False
    group: str = ""

    def sample(self, unit_uniform: Tensor) -> Tensor:
        """Values at positions in [0, 1]."""
        return self.low + (self.high - self.low) * curved(unit_uniform, 1 / self.curve, self.symmetric)

    def position(self, value: Tensor) -> Tensor:
        """Positions of values: the inverse of `sample`."""
        return curved((value - self.low) / (self.high - self.low), self.curve, self.symmetric)


def _range(
    low: float, high: float, unit: str, description: str, group: str, curve: float = 1.0, symmetric: bool = False
) -> CurvedRange:
    return CurvedRange(
        low, high, unit, description, minimum=low, maximum=high, curve=curve, symmetric=symmetric, group=group
    )


def _module(**ranges: CurvedRange) -> Mapping[str, CurvedRange]:
    return MappingProxyType(ranges)


def adsr(group: str, of: str) -> Mapping[str, CurvedRange]:
    """An envelope generator: attack, decay, sustain, release.

    Args:
        group: Of all its parameters.
        of: What it shapes, in words.
    """
    return _module(
        attack=_range(0, 2, "s", f"time in which {of} rises", group, 0.5),
        decay=_range(0, 2, "s", f"time in which {of} falls to the sustain level", group, 0.5),
        sustain=_range(0, 1, "", f"level at which {of} is held until the note ends", group),
        release=_range(0, 5, "s", f"time in which {of} falls to nothing after the note", group, 0.5),
        alpha=_range(0.1, 6, "", f"exponent of each ramp of {of}; 1 is a straight line", group),
    )


KEYBOARD = _module(
    midi_f0=_range(0, 127, "MIDI notes", "note that is played; 69 is 440 Hz, a step is a semitone", "pitch"),
    duration=_range(0.01, 4, "s", "time that the note is held", "envelope", 0.5),
)
LFO = _module(
    frequency=_range(0, 20, "Hz", "rate of a low-frequency oscillator", "modulation", 0.25),
    mod_depth=_range(-10, 20, "Hz", "by how much its rate envelope moves that rate", "modulation", 0.5, True),
    initial_phase=_range(-math.pi, math.pi, "rad", "phase that it starts from", "modulation"),
    **{
        shape: _range(0, 1, "", f"weight of its {name}", "modulation")
        for shape, name in {
            "sin": "sine",
            "tri": "triangle",
            "saw": "rising sawtooth",
            "rsaw": "falling sawtooth",
            "sqr": "square",
        }.items()
    },
)
_TUNING = _range(-24, 24, "semitones", "distance of an oscillator from the note", "pitch")
_PHASE = _range(-math.pi, math.pi, "rad", "phase that an oscillator starts from", "pitch")
OSCILLATOR = _module(
    tuning=_TUNING,
    mod_depth=_range(-96, 96, "semitones", "by how much full modulation moves its pitch", "modulation", 0.2, True),
    initial_phase=_PHASE,
)
CARRIER = _module(
    tuning=_TUNING,
    mod_depth=_range(
        *(-96, 96, "carrier frequencies"), "by how much its modulator moves its frequency", "modulation", 0.2, True
    ),
    initial_phase=_PHASE,
)
SHAPE = _range(0, 1, "", "waveform of an oscillator, from 0 for a square to 1 for a sawtooth", "mixer")
WEIGHT = _range(
    *(0, 1, ""),
    "weights of all envelopes, then all low-frequency oscillators, in the pitch of oscillator 1, the level of "
    "oscillator 1, the pitch of oscillator 2 and so on, and last in the level of the noise",
    *("modulation", 0.5),
)
LEVEL = _range(0, 1, "", "levels of the oscillators that are heard, carriers last", "mixer")


def noise_level(curve: float) -> CurvedRange:
    """Level of the noise; with a small curve there is mostly none."""
    return _range(0, 1, "", "level of the noise", "mixer", curve)
