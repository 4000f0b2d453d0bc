"""Which synthesizer: architectures, presets, and `Voice`, which says what every number of a sound means."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType

from torch import Tensor

from audiopg.data_scripts.voices.ranges import (
    CARRIER,
    KEYBOARD,
    LEVEL,
    LFO,
    OSCILLATOR,
    SHAPE,
    WEIGHT,
    CurvedRange,
    adsr,
    noise_level,
)

VOICES_VERSION = "0.1.0"
"""Changes whenever any sound of any voice changes, or what it is described by; recorded wherever sounds are used."""

SINE, SQUARE_SAW = "sine", "square_saw"
_LOWEST_SAMPLING_RATE = 8000  # that of a telephone; MIDI note 127 then has less than two cycles a sample
_LOWEST_CONTROL_RATE = 50
_LONGEST = 60.0


def _ceil(count: float) -> int:
    """Rounded up, but for what the product of two decimal numbers is too large by."""
    return math.ceil(round(count, 6))


@dataclass(frozen=True)
class VoicePreset:
    """What SynthAX does, and what it means to do: every difference is a switch. See the package for their effects.

    Args:
        name: How it is called.
        description: One sentence.
        uniform_in_units: Whether random parameters are uniform in their units. Otherwise their positions in [0, 1]
            are, so that curves shape random sounds too.
        noise_curve: Curve of the level of the noise; SynthAX means 0.025 and uses 1.
        fixed_noise: Whether all sounds share one row of noise.
        below_nyquist: Whether oscillators stay below the Nyquist frequency, and square-saws are the duller, the
            higher they get. Otherwise pitch ends at MIDI note 127 and a static estimate limits the partials, made
            for 44.1 kHz.
        enveloped_carriers: Whether an FM carrier has its modulator's level. Otherwise it sounds all the time.
        wrapped_phases: Whether `perturb` takes phases around the circle. Otherwise it stops them at its ends.
    """

    name: str
    description: str
    uniform_in_units: bool = False
    noise_curve: float = 0.025
    fixed_noise: bool = False
    below_nyquist: bool = True
    enveloped_carriers: bool = True
    wrapped_phases: bool = True


VOICE_PRESETS: Mapping[str, VoicePreset] = MappingProxyType(
    {
        preset.name: preset
        for preset in (
            VoicePreset("voices", "What SynthAX means: curves that count, noise of each sound's own, less aliasing."),
            VoicePreset(
                "synthax",
                "SynthAX 0.2.2 as it is, wherever a sound's own parameters decide that.",
                uniform_in_units=True,
                noise_curve=1.0,
                fixed_noise=True,
                below_nyquist=False,
                enveloped_carriers=False,
                wrapped_phases=False,
            ),
        )
    }
)
"""Presets by name; the default first."""


@dataclass(frozen=True)
class Architecture:
    """Which modules there are. Each tone has an envelope, and a low-frequency oscillator with two of its own.

    Args:
        name: How it is called.
        description: One sentence.
        tones: Kind of each tone, `SINE` or `SQUARE_SAW`.
        num_modulators: How many of the last tones are not heard but modulate a sine carrier each.
        num_keyboards: 1 where all tones play one note, or one for each tone.
    """

    name: str
    description: str
    tones: tuple[str, ...]
    num_modulators: int = 0
    num_keyboards: int = 1


_SHARED = {
    "voice": Architecture("voice", "A sine, a square-saw and noise, playing one note.", (SINE, SQUARE_SAW)),
    "voice_fm": Architecture(
        "voice_fm", "A sine, a square-saw, an FM pair and noise, playing one note.", (SINE, SQUARE_SAW, SINE), 1
    ),
}
_COUNTS = MappingProxyType({"sines": 1, "square_saws": 1, "fm_sines": 1, "fm_square_saws": 0})
_MOST_TONES = 32

ARCHITECTURES = (*_SHARED, "parametric")
"""Names of all architectures: SynthAX's Voice, VoiceExpanded and ParametricSynth."""


@dataclass(frozen=True)
class Voice:
    """A synthesizer, whose sounds are `num_parameters` numbers in [0, 1] and a row of noise; from `get_voice`.

    Args:
        architecture: Which modules.
        preset: Which behaviour.
        duration: Of a sound in s.
        sampling_rate: In Hz.
        control_rate: In Hz, of envelopes and low-frequency oscillators.
    """

    architecture: Architecture
    preset: VoicePreset = field(default_factory=lambda: VOICE_PRESETS["voices"])
    duration: float = 1.0
    sampling_rate: int = 16000
    control_rate: int = 480

    def __post_init__(self) -> None:
        for name, lowest in (("sampling_rate", _LOWEST_SAMPLING_RATE), ("control_rate", _LOWEST_CONTROL_RATE)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
                raise ValueError(f"{name} is a whole number of Hz, {lowest} at least, got {value!r}.")
        if self.control_rate > self.sampling_rate:
            raise ValueError(
                f"control_rate is at most the sampling rate, {self.sampling_rate} Hz, got {self.control_rate}."
            )
        shortest = 2 / self.control_rate
        if not isinstance(self.duration, int | float) or not shortest <= self.duration <= _LONGEST:
            raise ValueError(
                f"duration lies between {shortest:.3g} s, two samples of the control rate, and {_LONGEST:g} s, "
                f"got {self.duration!r}."
            )

    @property
    def num_samples(self) -> int:
        """Length of a sound in samples, N."""
        return _ceil(self.duration * self.sampling_rate)

    @property
    def num_controls(self) -> int:
        """Length of a sound in samples of the control rate, C."""
        return _ceil(self.duration * self.control_rate)

    @property
    def num_parameters(self) -> int:
        """How many numbers a sound is, P."""
        return sum(self.sizes)

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many of the P numbers each parameter is, in the order of `slices`."""
        return tuple(where.stop - where.start for where in self.slices.values())

    @property
    def slices(self) -> Mapping[str, slice]:
        """Where each parameter lies among the P, by "module/parameter"."""
        return _layout(self.architecture, self.preset).slices

    @property
    def ranges(self) -> Mapping[str, CurvedRange]:
        """What each parameter means, by "module/parameter"."""
        return _layout(self.architecture, self.preset).ranges

    @property
    def groups(self) -> tuple[str, ...]:
        """The group of each of the P numbers, out of `GROUPS`."""
        groups = (where.group for where in self.ranges.values())
        return tuple(group for group, size in zip(groups, self.sizes, strict=True) for _ in range(size))

    @property
    def num_heard(self) -> int:
        """How many tones are heard themselves; the others modulate a carrier each."""
        return len(self.architecture.tones) - self.architecture.num_modulators

    def validate(self, parameters: Tensor) -> None:
        """Raise ValueError if parameters do not have the shape `(batch, P)`."""
        if parameters.dim() != 2 or parameters.shape[1] != self.num_parameters:
            raise ValueError(
                f"Parameters of this voice have the shape (batch, {self.num_parameters}), "
                f"got {tuple(parameters.shape)}; draw them from the same voice."
            )

    def block(self, kind: str, parameters: Tensor) -> Tensor:
        """The parameters of all modules of a kind.

        Args:
            kind: "keyboards", "adsrs" (of the tones, then of the rates of their LFOs, then of those' levels), "lfos",
                "weights", "oscillators" (of the tones, then of the carriers), "shapes" or "levels" (noise last).
            parameters: Shape `(batch, P)`.

        Returns:
            Shape `(batch, modules, parameters of each)`; `(batch, inputs)` for shapes and levels.

        Example:
            >>> import torch
            >>> voice = get_voice("voice")
            >>> voice.block("adsrs", torch.zeros(4, 78)).shape, voice.block("weights", torch.zeros(4, 78)).shape
            (torch.Size([4, 6, 5]), torch.Size([4, 5, 4]))
        """
        where, shape = _layout(self.architecture, self.preset).blocks[kind]
        return parameters[:, where].reshape(len(parameters), *shape)


@dataclass(frozen=True)
class _Layout:
    slices: Mapping[str, slice]
    ranges: Mapping[str, CurvedRange]
    blocks: Mapping[str, tuple[slice, tuple[int, ...]]]


@cache
def _layout(architecture: Architecture, preset: VoicePreset) -> _Layout:
    """Where every parameter lies: kind by kind, module by module."""
    tones, carriers = architecture.tones, architecture.num_modulators
    numbers = range(1, len(tones) + 1)
    keyboards = [f"keyboard_{number}" for number in numbers] if architecture.num_keyboards > 1 else ["keyboard"]
    kinds: dict[str, tuple[tuple[int, ...], list[tuple[str, CurvedRange, int]]]] = {}

    def add(kind: str, modules: Mapping[str, Mapping[str, CurvedRange]], row: tuple[int, ...]) -> None:
        entries = [(f"{name}/{key}", span, 1) for name, module in modules.items() for key, span in module.items()]
        kinds[kind] = ((len(modules), *row), entries)

    envelopes = {f"adsr_{number}": adsr("envelope", "an envelope") for number in numbers}
    for part, what in (("rate", "the rate of a low-frequency oscillator"), ("amp", "the level of one")):
        envelopes |= {f"lfo_{number}_{part}_adsr": adsr("modulation", what) for number in numbers}
    oscillators = [OSCILLATOR] * len(tones) + [CARRIER] * carriers
    add("keyboards", dict.fromkeys(keyboards, KEYBOARD), (len(KEYBOARD),))
    add("adsrs", envelopes, (5,))
    add("lfos", {f"lfo_{number}": LFO for number in numbers}, (len(LFO),))
    inputs, outputs = 2 * len(tones), 2 * len(tones) + 1
    kinds["weights"] = ((outputs, inputs), [("mod_matrix/weight", WEIGHT, outputs * inputs)])
    add("oscillators", {f"vco_{number}": module for number, module in enumerate(oscillators, 1)}, (len(OSCILLATOR),))
    shaped = {f"vco_{number}": {"shape": SHAPE} for number, tone in zip(numbers, tones, strict=True) if tone != SINE}
    add("shapes", shaped, ())
    heard = len(tones)  # modulators are not, and each has a carrier that is
    noise = ("mixer/noise_level", noise_level(preset.noise_curve), 1)
    kinds["levels"] = ((heard + 1,), [("mixer/level", LEVEL, heard), noise])

    slices: dict[str, slice] = {}
    ranges: dict[str, CurvedRange] = {}
    blocks: dict[str, tuple[slice, tuple[int, ...]]] = {}
    end = 0
    for kind, (shape, entries) in kinds.items():
        start = end
        for key, span, size in entries:
            slices[key], ranges[key], end = slice(end, end + size), span, end + size
        blocks[kind] = (slice(start, end), shape)
    return _Layout(MappingProxyType(slices), MappingProxyType(ranges), MappingProxyType(blocks))


def _parametric(counts: Mapping[str, int | None]) -> Architecture:
    """The architecture of so many oscillators.

    Raises:
        ValueError: if a count is no whole number, or nothing is heard, or too much.
    """
    given = {name: count for name, count in counts.items() if count is not None}
    filled = {**_COUNTS, **given}
    for name, count in filled.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise ValueError(f"{name} is a whole number, 0 or more, got {count!r}.")
    if not 1 <= sum(filled.values()) <= _MOST_TONES:
        raise ValueError(f"A parametric voice has 1 to {_MOST_TONES} oscillators in all, got {filled}.")
    sines, square_saws, fm_sines, fm_square_saws = filled.values()
    tones = (SINE,) * sines + (SQUARE_SAW,) * square_saws + (SINE,) * fm_sines + (SQUARE_SAW,) * fm_square_saws
    described = ", ".join(f"{name} {count}" for name, count in filled.items())
    return Architecture(
        "parametric",
        f"Oscillators that play a note each, and noise: {described}.",
        tones,
        fm_sines + fm_square_saws,
        len(tones),
    )


def get_voice(
    architecture: str = "voice",
    preset: str | VoicePreset = "voices",
    duration: float = 1.0,
    sampling_rate: int = 16000,
    control_rate: int = 480,
    *,
    sines: int | None = None,
    square_saws: int | None = None,
    fm_sines: int | None = None,
    fm_square_saws: int | None = None,
) -> Voice:
    """A synthesizer by name.

    Args:
        architecture: A name out of `ARCHITECTURES`.
        preset: A name out of `VOICE_PRESETS`, or one with other switches.
        duration: Of a sound in s.
        sampling_rate: In Hz.
        control_rate: In Hz.
        sines: Of a parametric voice, 1 by default.
        square_saws: Of a parametric voice, 1 by default.
        fm_sines: Sines of a parametric voice that modulate a carrier each, 1 by default.
        fm_square_saws: Square-saws that do, none by default.

    Returns:
        The synthesizer, validated.

    Raises:
        ValueError: for an unknown name, or a value that cannot be.

    Example:
        >>> [get_voice(name).num_parameters for name in ARCHITECTURES]
        [78, 130, 134]
        >>> get_voice("parametric", sines=2, square_saws=2, fm_square_saws=1).num_parameters
        340
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(f"Architectures are {', '.join(ARCHITECTURES)}; got {architecture!r}.")
    if isinstance(preset, str):
        if preset not in VOICE_PRESETS:
            raise ValueError(f"Presets of voices are {', '.join(VOICE_PRESETS)}; got {preset!r}.")
        preset = VOICE_PRESETS[preset]
    counts = {"sines": sines, "square_saws": square_saws, "fm_sines": fm_sines, "fm_square_saws": fm_square_saws}
    if architecture in _SHARED:
        given = [name for name, count in counts.items() if count is not None]
        if given:
            raise ValueError(f"Only a parametric voice has {', '.join(given)}; got {architecture!r}. Leave them out.")
        return Voice(_SHARED[architecture], preset, duration, sampling_rate, control_rate)
    return Voice(_parametric(counts), preset, duration, sampling_rate, control_rate)
