"""What a clip is made of: presets of ranges, and `draw`, which turns (preset, seed, indices) into named parameters.

Knows no signal processing. Every number is drawn on the CPU in float64 with exactly rounded operations alone (+, -, *,
/, comparisons), so a clip's parameters are the same bits on every machine and in any batch. Those of doubles are the
same in any batch, and on another machine as exact as its inverse of the normal distribution.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from audiopg.data_scripts.counter_random import normal, random_bits, uniform

SYNTHESIZER_VERSION = "0.2.0"
"""Changes whenever any clip of any preset changes, or what it is described by; recorded wherever clips are used."""

PITCHED_MODES = ("harmonic", "fm", "pulse")
MODES = (*PITCHED_MODES, "noise")
PULSE_SHAPES = ("sawtooth", "square")
FORMANTS = ("formant_1", "formant_2", "formant_3", "formant_4", "formant_5")
GROUPS = ("pitch", "envelope", "modulation", "mixer")
"""What the parameters of a synthesizer are about; a double may differ from a sound more in one than in another."""

GROUP_OF: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("f0", "band_centre", "partial_detuning"), "pitch"),
        **dict.fromkeys(("onset", "event_length", "amplitude", "attack", "decay"), "envelope"),
        **dict.fromkeys(("strike_period", "strike_decay", "transient_onset", "transient_length"), "envelope"),
        **dict.fromkeys(("partial_rolloff", "partial_gain", "partial_phase", "source_start"), "modulation"),
        **dict.fromkeys(("modulation_index", "band_width"), "modulation"),
        **dict.fromkeys((*FORMANTS, "formant_bandwidth", "formant_level"), "modulation"),
        **dict.fromkeys(("transient_gain", "cutoff", "room_time", "room_level", "noise_gain"), "mixer"),
    }
)
"""The parameters that `draw_doubles` perturbs, and the group of each; the others are what a clip is."""

_MAX_DURATION = 3600.0
_MIN_EVENT_LENGTH = 0.002


@dataclass(frozen=True)
class Range:
    """A uniform distribution over an interval, with its unit and meaning.

    Args:
        low: Smallest value.
        high: Largest value; equal to `low` for a constant.
        unit: "Hz", "s", ... or "" for a pure number.
        description: What it is, for documentation, data set columns and cards.
        integer: Whether only whole numbers are drawn, both ends included.
        minimum: The smallest value that makes sense physically.
        maximum: The largest one.
    """

    low: float
    high: float
    unit: str
    description: str
    integer: bool = False
    minimum: float = 0.0
    maximum: float = math.inf

    def validate(self, name: str) -> None:
        """Raise ValueError if the ends are not finite numbers in order within the physical limits."""
        if not all(isinstance(end, int | float) and math.isfinite(end) for end in (self.low, self.high)):
            raise ValueError(f"{name}: the ends of a range are finite numbers, got ({self.low!r}, {self.high!r}).")
        if self.low > self.high:
            raise ValueError(f"{name}: a range is (low, high), got ({self.low}, {self.high}); swap the two.")
        if self.low < self.minimum or self.high > self.maximum:
            limits = f"between {self.minimum:g} and {self.maximum:g} {self.unit}".rstrip()
            raise ValueError(f"{name}: values lie {limits}, got ({self.low}, {self.high}); narrow the range.")
        if self.integer and not all(float(end).is_integer() for end in (self.low, self.high)):
            raise ValueError(f"{name}: the ends are whole numbers, got ({self.low}, {self.high}); round them.")

    def sample(self, unit_uniform: Tensor) -> Tensor:
        """Map uniform numbers in [0, 1) to this range: float64, or int64 for an integer range."""
        if self.integer:
            return (self.low + torch.floor(unit_uniform * (self.high - self.low + 1))).to(torch.int64)
        return self.low + unit_uniform * (self.high - self.low)


@dataclass(frozen=True)
class OctaveRange(Range):
    r"""A distribution over an interval in which every octave is about as likely as any other.

    $x = l\, \frac{1 - u + r u}{1 - u + u / r}$ of a uniform number $u$, with $r = \sqrt{h / l}$: from low $l$ to high
    $h$, half of it below the geometric mean $l r$. A fraction is the same bits on every machine, as a power is not;
    for it, where $h = 6\, l$, the density by octave is 14 % too high at the ends and 6 % too low in the middle, and
    nearer to even in a narrower range.
    """

    def sample(self, unit_uniform: Tensor) -> Tensor:
        """Map uniform numbers in [0, 1) to this range, float64."""
        root, rest = math.sqrt(self.high / self.low), 1 - unit_uniform
        return self.low * ((rest + root * unit_uniform) / (rest + unit_uniform / root))


@dataclass(frozen=True)
class Choice:
    """A uniform distribution over listed values, with its unit and meaning; names are drawn as their position.

    Args:
        values: What is drawn from: positive numbers, or names out of `names`.
        unit: As in `Range`.
        description: As in `Range`.
        names: All names that exist, if the values are names; a name is stored as its position here.
    """

    values: tuple
    unit: str
    description: str
    names: tuple[str, ...] = ()

    def validate(self, name: str) -> None:
        """Raise ValueError if there is nothing to choose from or a value that cannot be."""
        if not self.values:
            raise ValueError(f"{name}: a choice needs at least one value, got none.")
        unknown = [value for value in self.values if not self._is_possible(value)]
        if unknown:
            raise ValueError(f"{name}: values are {list(self.names) or 'positive numbers'}, got {unknown}.")

    def _is_possible(self, value: object) -> bool:
        if self.names:
            return value in self.names
        return isinstance(value, int | float) and 0 < value < math.inf

    def sample(self, unit_uniform: Tensor) -> Tensor:
        """Map uniform numbers in [0, 1) to the values: float64, or int64 positions for names."""
        chosen, device = (unit_uniform * len(self.values)).to(torch.int64), unit_uniform.device
        if self.names:
            return torch.tensor([self.names.index(value) for value in self.values], device=device)[chosen]
        return torch.tensor(self.values, dtype=torch.float64, device=device)[chosen]


@dataclass(frozen=True)
class Preset:
    """A named distribution over clips.

    Args:
        name: How it is called; overrides are recorded beside it, see `overrides`.
        description: One sentence.
        ranges: A `Range` or a `Choice` per drawn parameter.
        duration: Length of a clip in s.
        sampling_rate: In Hz.
        shared_source: One source per clip, read by all its events at different places, its transient part of it
            (the research code), instead of one source per event and the transient beside them (the paper, equation 2).
        band_limited: Sources are sums of partials, FM sidebands and the Fourier series of pulses included, and those
            from the Nyquist frequency on are left out. Otherwise they alias, as in the research code, but for sources
            behind formants, which never do. Bands of noise have no partials, and fold back in either case.
        enveloped: Whether events have an ADSR envelope; otherwise they are of constant level.
        clipped_by_damping: Whether the low-pass filter clips its output to [-1, 1], as the research code's does.
        overrides: What differs from the preset of that name.
    """

    name: str
    description: str
    ranges: Mapping[str, Any]
    duration: float = 10.24
    sampling_rate: int = 16000
    shared_source: bool = True
    band_limited: bool = False
    enveloped: bool = True
    clipped_by_damping: bool = True
    overrides: Mapping[str, object] = field(default_factory=dict)

    @property
    def num_samples(self) -> int:
        """Length of a clip in samples."""
        return round(self.duration * self.sampling_rate)

    @property
    def formants(self) -> tuple[str, ...]:
        """Names of the resonances that an event can have; none where no event has any."""
        is_possible = self.ranges["formant_probability"].high > 0
        return FORMANTS[: int(self.ranges["num_formants"].high)] if is_possible else ()

    def validate(self) -> None:
        """Raise ValueError if clips of this preset cannot be made; the error names rule, value and remedy."""
        for name, value in (("sampling_rate", self.sampling_rate), ("duration", self.duration)):
            if not isinstance(value, int | float):
                raise ValueError(f"{name} is one number, got {value!r}.")
        if self.sampling_rate < 1000 or not float(self.sampling_rate).is_integer():
            raise ValueError(f"sampling_rate is a whole number of Hz, 1000 at least, got {self.sampling_rate}.")
        if not 0.025 <= self.duration <= _MAX_DURATION:
            raise ValueError(f"duration lies between 0.025 and {_MAX_DURATION:g} s, got {self.duration}.")
        for name, distribution in self.ranges.items():
            distribution.validate(name)
        self._validate_together()

    def _validate_together(self) -> None:
        """What ranges owe to the clip and to each other."""
        ranges, nyquist = self.ranges, self.sampling_rate / 2
        has_noise = "noise" in ranges["mode"].values
        for name in ("f0", "cutoff", *(["band_centre"] if has_noise else []), *self.formants):
            if ranges[name].high >= nyquist:
                raise ValueError(
                    f"{name}: frequencies lie below half the sampling rate, {nyquist:g} Hz, "
                    f"got up to {ranges[name].high:g} Hz; lower them or raise sampling_rate."
                )
        for name in (name for name in ranges if name.endswith("_probability")):
            if ranges[name].low != ranges[name].high:
                raise ValueError(f"{name}: give one number, got ({ranges[name].low}, {ranges[name].high}).")
        if self.formants and set(ranges["mode"].values) == {"noise"}:
            raise ValueError(
                f"formant_probability: bands of noise have no formants, got {ranges['formant_probability'].high:g} "
                f"and no other kind of source; set it to 0 or add one of {', '.join(PITCHED_MODES)} to mode."
            )
        for lower, upper in pairwise(self.formants):
            below, above = ((ranges[name].low, ranges[name].high) for name in (lower, upper))
            if above[0] < below[0] or above[1] < below[1]:
                raise ValueError(
                    f"{upper}: begins and ends no lower than {lower} does, {below}, got {above}; "
                    "raise it, lower the other, or lower num_formants."
                )
        shortest = min(ranges["event_length"].low, self.duration / ranges["num_events"].high)
        if shortest < _MIN_EVENT_LENGTH:
            raise ValueError(
                f"event_length: an event lasts {_MIN_EVENT_LENGTH} s at least, got down to {shortest:g} s; "
                "lengthen events or clip, or lower num_events."
            )


def _reference_ranges() -> dict[str, Range | Choice]:
    """Every distribution of the research code (AudioPG, section 3.1), with the paper's symbols where it has them.

    Bands of noise, strikes, formants and rooms are ours, and off.
    """
    return {
        "f0": Range(50.0, 2000.0, "Hz", "fundamental frequency of a source", minimum=1.0),
        "mode": Choice(PITCHED_MODES, "", "kind of source: harmonic, fm, pulse or noise", names=MODES),
        "num_partials": Range(3, 15, "", "partials of a harmonic source", integer=True, minimum=1, maximum=512),
        "partial_rolloff": Range(0.5, 1.5, "", "exponent g of partial k's amplitude k^-g, one per partial", maximum=8),
        "partial_gain": Range(0.5, 1.2, "", "factor on each partial's amplitude"),
        "partial_detuning": Range(0.995, 1.005, "", "factor on each partial's frequency", minimum=0.5, maximum=2.0),
        "partial_phase": Range(0.0, 1.0, "cycles", "starting phase of each partial", maximum=1.0),
        "modulation_index": Range(0.5, 8.0, "rad", "peak phase deviation of an fm source", maximum=1000),
        "modulation_ratio": Choice(
            (0.5, 1.0, 1.5, 2.0, 2.5, 3.14), "", "modulator frequency over carrier frequency of an fm source"
        ),
        "pulse_shape": Choice(PULSE_SHAPES, "", "waveform of a pulse source", names=PULSE_SHAPES),
        "band_centre": Range(100.0, 6000.0, "Hz", "middle of the band of a noise source", minimum=1.0),
        "band_width": Range(0.1, 1.5, "band centres", "width of the band of a noise source", minimum=0.001),
        "num_events": Range(1, 5, "", "events of a clip", integer=True, minimum=1, maximum=64),
        "event_length": Range(0.5, _MAX_DURATION, "s", "length of an event, at most duration / num_events"),
        "amplitude": Range(1.0, 1.0, "", "linear peak level of an event's envelope"),
        "attack": Range(0.01, 0.3, "event lengths", "time from silence to the peak of the envelope", maximum=0.5),
        "decay": Range(0.1, 0.4, "event lengths", "time from the peak to the release level 0.6", maximum=0.49),
        "strike_probability": Range(0.0, 0.0, "", "share of events that are struck again and again", maximum=1.0),
        "strike_period": Range(0.04, 0.6, "s", "time from one strike to the next", minimum=0.001),
        "strike_decay": Range(0.01, 0.15, "s", "time in which a strike falls to 1/e", minimum=0.001),
        "formant_probability": Range(
            0.0,
            0.0,
            "",
            "share of harmonic, fm and pulse events that pass through formants, resonances that move",
            maximum=1,
        ),
        "num_formants": Range(3, 5, "", "formants of an event", integer=True, minimum=1, maximum=len(FORMANTS)),
        "formant_points": Range(
            2,
            6,
            "",
            "points from an event's beginning to its end that its formants pass",
            integer=True,
            minimum=1,
            maximum=64,
        ),
        "formant_1": OctaveRange(250.0, 900.0, "Hz", "centre of the lowest formant", minimum=1.0),
        "formant_2": OctaveRange(600.0, 3000.0, "Hz", "centre of the second formant", minimum=1.0),
        "formant_3": OctaveRange(1500.0, 4000.0, "Hz", "centre of the third formant", minimum=1.0),
        "formant_4": OctaveRange(2500.0, 5000.0, "Hz", "centre of the fourth formant", minimum=1.0),
        "formant_5": OctaveRange(3500.0, 6500.0, "Hz", "centre of the fifth formant", minimum=1.0),
        "formant_bandwidth": OctaveRange(50.0, 300.0, "Hz", "width of a formant at half its power", minimum=1.0),
        "formant_level": Range(0.1, 1.0, "", "linear gain of a formant at its centre", minimum=0.001),
        "transient_probability": Range(0.6, 0.6, "", "share of clips that have a noise burst", maximum=1.0),
        "transient_length": Range(0.01, 0.1, "s", "length of the noise burst", minimum=1e-4),
        "transient_gain": Range(0.5, 2.0, "", "peak of the noise burst"),
        "damping_probability": Range(0.7, 0.7, "", "share of clips that pass a low-pass filter", maximum=1.0),
        "cutoff": Range(200.0, 6000.0, "Hz", "cutoff of the low-pass filter, a biquad with Q 0.707", minimum=10.0),
        "room_probability": Range(0.0, 0.0, "", "share of clips that sound in a room", maximum=1.0),
        "room_time": Range(0.1, 1.0, "s", "T60, in which the reverberation falls by 60 dB", minimum=0.01, maximum=10),
        "room_level": Range(0.1, 1.0, "", "amplitude of the reverberation over the direct sound"),
        "noise_gain": Range(0.001, 0.02, "", "lambda_n, peak of the background noise before normalisation"),
    }


def _overridden(name: str, distribution: Range | Choice, value: object) -> Range | Choice:
    """A distribution with new values: (low, high) or one number for a range, one or more values for a choice."""
    values = tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else (value,)
    if isinstance(distribution, Choice):
        return replace(distribution, values=values)
    if len(values) not in (1, 2) or not all(isinstance(end, int | float) for end in values):
        raise ValueError(f"{name}: give (low, high) or one number, got {value!r}.")
    return replace(distribution, low=values[0], high=values[-1])


def with_overrides(ranges: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Ranges, some of them with new values.

    Args:
        ranges: By name.
        overrides: By name: `(low, high)` or one number for a `Range`, one value or a list of them for a `Choice`.

    Returns:
        All of `ranges`, in their order; they are not validated.

    Raises:
        ValueError: for what is neither a number nor two.

    Example:
        >>> with_overrides({"f0": Range(50.0, 2000.0, "Hz", "fundamental frequency")}, {"f0": 440})["f0"].high
        440
    """
    return {
        name: _overridden(name, distribution, overrides[name]) if name in overrides else distribution
        for name, distribution in ranges.items()
    }


def _built_in_presets() -> dict[str, Preset]:
    ranges = _reference_ranges()
    undamped = with_overrides(ranges, {"damping_probability": 0.0, "noise_gain": 0.0})
    one_event = {"num_events": 1, "event_length": _MAX_DURATION, "transient_probability": 0.0}
    steady = with_overrides(undamped, one_event)
    one_partial = {"num_partials": 1, "partial_rolloff": 0.0, "partial_gain": 1.0, "partial_detuning": 1.0}
    presets = (
        Preset("reference", "The research code as it is: shared source, aliasing and all.", ranges),
        Preset(
            "audiopg",
            "Equation 2 of the paper: every event has its own source and level, and sources are band-limited.",
            with_overrides(ranges, {"amplitude": (0.25, 1.0)}),
            shared_source=False,
            band_limited=True,
            clipped_by_damping=False,
        ),
        Preset(
            "sine",
            "Ablation 1: one steady sine, of any frequency and phase.",
            with_overrides(steady, {**one_partial, "mode": "harmonic"}),
            enveloped=False,
        ),
        Preset(
            "harmonic",
            "Ablation 2: one steady source, harmonic, FM or pulse.",
            steady,
            enveloped=False,
        ),
        Preset("dynamic", "Ablation 3: adds events, envelopes and transients.", undamped),
    )
    return {preset.name: preset for preset in presets}


PRESETS: Mapping[str, Preset] = MappingProxyType(_built_in_presets())
"""All presets by name. The ladder of the ablation is sine, harmonic, dynamic, reference."""


def get_preset(preset: str | Preset, **overrides: Any) -> Preset:
    """A preset by name, any of its ranges overridden by name.

    Args:
        preset: A name out of `PRESETS`, or a preset to vary further.
        overrides: `duration` (s), `sampling_rate` (Hz), or any range: `(low, high)` or one number for a `Range`, the
            list of values for a `Choice`.

    Returns:
        A validated preset that records its overrides.

    Raises:
        ValueError: for an unknown preset or parameter, a reversed or impossible range, frequencies above Nyquist.

    Example:
        >>> wide = get_preset("reference", f0=(50, 4000), mode=["harmonic"], duration=5.12)
        >>> wide.num_samples, wide.ranges["f0"].high
        (81920, 4000)
    """
    if isinstance(preset, str):
        if preset not in PRESETS:
            raise ValueError(f"Presets are {', '.join(PRESETS)}; got {preset!r}.")
        preset = PRESETS[preset]
    unknown = [name for name in overrides if name not in preset.ranges and name not in ("duration", "sampling_rate")]
    if unknown:
        known = ", ".join(["duration", "sampling_rate", *preset.ranges])
        raise ValueError(f"A preset has the parameters {known}; got {', '.join(unknown)}.")
    varied = replace(
        preset,
        ranges=with_overrides(preset.ranges, overrides),
        duration=overrides.get("duration", preset.duration),
        sampling_rate=overrides.get("sampling_rate", preset.sampling_rate),
        overrides={**preset.overrides, **overrides},
    )
    varied.validate()
    return varied


@dataclass(frozen=True, eq=False)
class Parameters(Mapping[str, Tensor]):
    """Every generative factor of a batch of clips: a mapping from name to tensor, on the CPU.

    Shapes are `(batch,)` for a clip's own, `(batch, events)` for an event's, `(batch, events, partials)` for a
    partial's; entries past `num_events` or `num_partials` describe nothing. Units are those of `preset.ranges`, but
    that all times are in s (`onset`, `event_length`, `source_start`, `attack`, `decay`, `transient_onset`,
    `transient_length`) and `band_width` is in Hz.

    Formants are here only if the preset can have them: `formant_bandwidth` and `formant_level` of shape `(batch,
    events, formants)`, and each of `preset.formants` of shape `(batch, events, points)`, entries past `num_formants`
    and `formant_points` describing nothing.

    Args:
        preset: Where they were drawn from.
        seed: The stream of clips.
        indices: Which clips, int64, shape `(batch,)`.
        tensors: The values by name.
    """

    preset: Preset
    seed: int
    indices: Tensor
    tensors: Mapping[str, Tensor]

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def split(self, size: int) -> list["Parameters"]:
        """Consecutive batches of at most `size` clips each."""
        parts = {name: tensor.split(size) for name, tensor in self.tensors.items()}
        return [
            replace(self, indices=indices, tensors={name: part[number] for name, part in parts.items()})
            for number, indices in enumerate(self.indices.split(size))
        ]

    @property
    def event_exists(self) -> Tensor:
        """Which event slots are used, bool, shape `(batch, events)`."""
        return torch.arange(self["f0"].shape[1]) < self["num_events"][:, None]


def validated_indices(indices: Tensor | Iterable[int] | int, what: str = "clip") -> Tensor:
    """Indices as int64 on the CPU, shape `(batch,)`; errors call what they count `what`.

    Raises:
        ValueError: if there are none, or they are not whole numbers from 0 on.

    Example:
        >>> validated_indices(range(3))
        tensor([0, 1, 2])
    """
    if isinstance(indices, Iterable) and not hasattr(indices, "__array__"):
        indices = list(indices)
    indices = torch.as_tensor(indices, device="cpu").reshape(-1)
    if indices.numel() == 0:
        raise ValueError(f"A batch has at least one {what}, got no indices.")
    if indices.is_floating_point() or indices.is_complex() or indices.dtype == torch.bool:
        raise ValueError(f"{what.capitalize()} indices are whole numbers, got {indices.dtype}; convert them to int64.")
    if int(indices.min()) < 0:
        raise ValueError(f"{what.capitalize()} indices count from 0, got {int(indices.min())}.")
    return indices.to(torch.int64)


def draw(preset: str | Preset, seed: int, indices: Tensor | Iterable[int] | int, **overrides: Any) -> Parameters:
    """Draw the parameters of the clips `indices` of the stream `seed`.

    Args:
        preset: A name out of `PRESETS` or a `Preset`.
        seed: Any integer of 64 bits.
        indices: Clip indices, each 0 or more.
        overrides: As in `get_preset`.

    Returns:
        The parameters; clip i of a seed is the same whatever else is asked for.

    Raises:
        ValueError: for an unknown preset or parameter, an impossible range, no or negative indices.

    Example:
        >>> parameters = draw("reference", seed=0, indices=range(4))
        >>> parameters["f0"].shape, parameters.preset.ranges["f0"].unit
        (torch.Size([4, 5]), 'Hz')
        >>> bool((parameters["onset"] + parameters["event_length"] <= 10.24).all())
        True
    """
    preset, indices = get_preset(preset, **overrides), validated_indices(indices)
    values = _mapped(
        preset,
        lambda name, *size: uniform(seed, indices, name, size),
        lambda name, *size: random_bits(seed, indices, name, size),
    )
    return Parameters(preset, seed, indices, values)


def delta_of_groups(delta: float | Mapping[str, float]) -> dict[str, float]:
    """The perturbation of each group of parameters.

    Args:
        delta: Of all, or by group.

    Returns:
        By the names in `GROUPS`.

    Raises:
        ValueError: if one is below 0 or not finite, or a group is missing or unknown.

    Example:
        >>> delta_of_groups(0.25)
        {'pitch': 0.25, 'envelope': 0.25, 'modulation': 0.25, 'mixer': 0.25}
    """
    deltas = dict(delta) if isinstance(delta, Mapping) else dict.fromkeys(GROUPS, delta)
    if set(deltas) != set(GROUPS) or not all(0 <= value < math.inf for value in deltas.values()):
        raise ValueError(f"delta is a number, 0 or more, or one for each of {', '.join(GROUPS)}; got {delta}.")
    return deltas


def draw_doubles(
    preset: str | Preset,
    seed: int,
    indices: Tensor | Iterable[int] | int,
    delta: float | Mapping[str, float],
    **overrides: Any,
) -> Parameters:
    r"""Draw two clips for each of `indices` that differ as much as `delta` says: a clip and its double.

    After Cherep & Singh (2024, "Contrastive Learning from Synthetic Audio Doppelgängers"): both are perturbed. Where
    `draw` maps a uniform number $u$ of the clip to a parameter, each double maps $u + \delta z$, with $z \sim N(0, 1)$
    of its own, reflected at 0 and 1; so each double by itself is distributed as any clip of the preset. What a clip is
    stays: kinds of sources, numbers of events, partials, formants and their points, whether there is a burst, damping,
    a room. Noise is fresh.

    Args:
        preset: As in `draw`, like the other arguments.
        seed: See `draw`.
        indices: See `draw`.
        delta: Size of the perturbation as a share of each range; or one for each of `GROUPS`.
        overrides: See `draw`.

    Returns:
        The parameters of twice as many clips: those at `2 k` and `2 k + 1` are doubles of each other, of index `k`.

    Raises:
        ValueError: as `draw`, or for a delta below 0.

    Example:
        >>> clips = draw_doubles("audiopg", seed=0, indices=range(4), delta=0.1)
        >>> clips.indices.tolist(), torch.equal(clips["mode"][0::2], clips["mode"][1::2])
        ([0, 0, 1, 1, 2, 2, 3, 3], True)
    """
    preset, indices = get_preset(preset, **overrides), validated_indices(indices)
    size_of = delta_of_groups(delta)

    def numbers(name: str, *size: int) -> Tensor:
        shared = uniform(seed, indices, name, size)[:, None].expand(-1, 2, *size)
        if name in GROUP_OF:
            shared = _reflected(
                shared + size_of[GROUP_OF[name]] * normal(seed, indices, f"{name}, doubles", (2, *size))
            )
        return shared.flatten(0, 1)

    def keys(name: str, *size: int) -> Tensor:
        return random_bits(seed, indices, f"{name}, doubles", (2, *size)).flatten(0, 1)

    return Parameters(preset, seed, indices.repeat_interleave(2), _mapped(preset, numbers, keys))


def _reflected(numbers: Tensor) -> Tensor:
    """Numbers beyond [0, 1) thrown back at its ends, as often as need be."""
    folded = numbers.remainder(2)
    return torch.where(folded < 1, folded, 2 - folded).clamp(max=1 - 2.0**-53)


def _mapped(preset: Preset, numbers: Callable[..., Tensor], keys: Callable[..., Tensor]) -> dict[str, Tensor]:
    """Parameters of clips, made of what is random in them.

    Args:
        preset: What clips.
        numbers: From the name of what is drawn, and its size within a clip, to numbers in [0, 1).
        keys: The same to 64 random bits.
    """
    ranges = preset.ranges
    num_slots = int(ranges["num_events"].high)
    num_sources = 1 if preset.shared_source else num_slots
    num_partials = int(ranges["num_partials"].high)

    def sample(name: str, *size: int) -> Tensor:
        return ranges[name].sample(numbers(name, *size))

    def source(name: str, *size: int) -> Tensor:
        return sample(name, num_sources, *size).expand(-1, num_slots, *size)

    def happens(name: str, *size: int) -> Tensor:
        return numbers(name, *size) < ranges[name].low

    values = {name: source(name) for name in ("f0", "mode", "num_partials")}
    for name in ("partial_rolloff", "partial_gain", "partial_detuning", "partial_phase"):
        values[name] = source(name, num_partials)
    values |= {name: source(name) for name in ("modulation_index", "modulation_ratio", "pulse_shape")}
    values["band_centre"] = source("band_centre")
    values["band_width"] = source("band_width") * values["band_centre"]
    values["band_key"] = keys("band", num_sources).expand(-1, num_slots)
    values["num_events"] = sample("num_events")
    values |= _events(preset, numbers, values["num_events"])
    values["amplitude"] = sample("amplitude", num_slots)
    for name in ("attack", "decay"):
        values[name] = sample(name, num_slots) * values["event_length"]
    values["strike"] = happens("strike_probability", num_slots)
    values |= {name: sample(name, num_slots) for name in ("strike_period", "strike_decay")}
    if preset.formants:
        values["formant"] = happens("formant_probability", num_slots) & (values["mode"] != MODES.index("noise"))
        values |= {name: sample(name, num_slots) for name in ("num_formants", "formant_points")}
        num_points, num_formants = int(ranges["formant_points"].high), len(preset.formants)
        # The k-th lowest of what was drawn lies in the k-th range too, since these rise; so no two tracks cross.
        centres = torch.stack([sample(name, num_slots, num_points) for name in preset.formants]).sort(dim=0).values
        values |= dict(zip(preset.formants, centres, strict=True))
        values |= {name: sample(name, num_slots, num_formants) for name in ("formant_bandwidth", "formant_level")}
    values["transient"] = happens("transient_probability")
    values["transient_length"] = sample("transient_length").clamp(max=preset.duration)
    room = preset.duration - values["transient_length"]
    values["transient_onset"] = numbers("transient_onset") * room
    values["transient_gain"] = sample("transient_gain")
    values["damping"] = happens("damping_probability")
    values["cutoff"] = sample("cutoff")
    values["room"] = happens("room_probability")
    values |= {name: sample(name) for name in ("room_time", "room_level")}
    values["room_key"] = keys("room")
    values["noise_gain"] = sample("noise_gain")
    values["noise_key"] = keys("noise")
    values["transient_key"] = keys("transient")
    return values


def _events(preset: Preset, numbers: Callable[..., Tensor], num_events: Tensor) -> dict[str, Tensor]:
    """Length, place in the clip and place in the source of every event, in s, shape `(batch, events)`."""
    span = preset.ranges["event_length"]
    size = (int(preset.ranges["num_events"].high),)
    longest = (preset.duration / num_events.to(torch.float64)).clamp(max=span.high)
    shortest = longest.clamp(max=span.low)
    share = numbers("event_length", *size)
    length = shortest[:, None] + share * (longest - shortest)[:, None]
    room = preset.duration - length
    return {
        "event_length": length,
        "onset": numbers("onset", *size) * room,
        "source_start": numbers("source_start", *size) * room,
    }
