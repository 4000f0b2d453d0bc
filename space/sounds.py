"""Sounds by their address, any of their factors moved: what the tab *Invent* is made of. Knows no Gradio.

Every factor's limits, unit and meaning are those of the synthesizers' own ranges.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch

from audiopg.data_scripts import voices
from audiopg.data_scripts.clip_rows import Column, clip_rows, columns, describe
from audiopg.data_scripts.synthesis import (
    PRESETS,
    SYNTHESIZER_VERSION,
    Choice,
    Parameters,
    Preset,
    Range,
    draw,
    get_preset,
    render_components,
    signal_to_noise_ratio,
)
from audiopg.data_scripts.synthesis.shaping import peak_normalise
from audiopg.data_scripts.voices import ARCHITECTURES, VOICE_PRESETS, VOICES_VERSION, Voice, get_voice
from audiopg.data_scripts.voices.parameters import in_units

_BASES = {"event lengths": "event_length", "band centres": "band_centre"}
"""Ranges of these units are shares of another factor, which the clip's own parameters are already multiplied with."""
_NO_FACTORS = ("index", "seed", "snr_db", "active_events")
"""Columns of clips that say which clip it is, or follow from the others."""
_LARGEST_SEED = 2**63 - 1
_ROUNDING = 1e-6
_STEPS = 500
"""A slider has so many steps at least."""


@dataclass(frozen=True)
class Address:
    """Where a sound lies: which synthesizer, which of its streams, which sound of that.

    Args:
        synthesizer: A name out of `synthesizers`.
        seed: The stream.
        index: Number of the sound in it.

    Example:
        >>> str(Address("audiopg", 0, 7))
        'audiopg/0:7'
    """

    synthesizer: str
    seed: int
    index: int

    def __str__(self) -> str:
        return f"{self.synthesizer}/{self.seed}:{self.index}"


def parse_address(text: str, synthesizer: str, known: Sequence[str]) -> Address:
    """An address out of `synthesizer/seed:index`, or `seed:index` of the synthesizer at hand.

    Args:
        text: What was typed.
        synthesizer: The one at hand.
        known: Names of all synthesizers.

    Returns:
        The address.

    Raises:
        ValueError: if it is none.

    Example:
        >>> parse_address(" voice/3:12 ", "audiopg", ["audiopg", "voice"])
        Address(synthesizer='voice', seed=3, index=12)
        >>> parse_address("3:12", "audiopg", ["audiopg", "voice"]).synthesizer
        'audiopg'
    """
    found = re.fullmatch(r"(?:(?P<name>[^/]+)/)?(?P<seed>-?\d+):(?P<index>\d+)", text.strip(), re.ASCII)
    if found is None:
        raise ValueError(f"An address is seed:index, such as 0:7, or synthesizer/seed:index; got {text.strip()!r}.")
    name, seed, index = found["name"] or synthesizer, int(found["seed"]), int(found["index"])
    if name not in known:
        raise ValueError(f"Synthesizers are {', '.join(known)}; got {name!r}.")
    if abs(seed) > _LARGEST_SEED or index > _LARGEST_SEED:
        raise ValueError(f"Seed and index are whole numbers of 63 bits, got {seed}:{index}; take smaller ones.")
    return Address(name, seed, index)


@dataclass(frozen=True)
class Factor:
    """A generative factor of one sound, as a slider needs it.

    Args:
        key: Its name, and which event, partial, formant or point it is of, counted from 1: `partial_gain[2][1]`.
        part: What it is a part of: the clip, an event, an oscillator.
        page: What it lies beside there.
        label: Its name in words.
        unit: "Hz", "s", ... or "" for a pure number.
        description: What it is.
        low: The smallest value on offer.
        high: The largest.
        kind: "float", "int", "bool", "name" (a position in `choices`) or "choice" (a value out of them).
        choices: Names or values, where only some exist.
        drawn: The value at the address.
        value: The value of this sound.
    """

    key: str
    part: str
    page: str
    label: str
    unit: str
    description: str
    low: float
    high: float
    kind: str
    choices: tuple[Any, ...]
    drawn: float
    value: float

    @property
    def step(self) -> float:
        """A power of ten that the range has 500 of at least; 1 for whole numbers."""
        return 1 if self.kind == "int" else 10.0 ** math.floor(math.log10((self.high - self.low) / _STEPS))

    def said(self, value: float) -> str:
        """A value in words.

        Example:
            >>> Factor("f0[1]", "event 1", "event", "f0", "Hz", "", 50, 2000, "float", (), 440, 440).said(440)
            '440 Hz'
        """
        if self.kind == "bool":
            return "yes" if value else "no"
        if self.kind == "name":
            return str(self.choices[int(value)])
        return f"{value:.5g} {self.unit}".rstrip()


@dataclass(frozen=True)
class Sound:
    """A sound and everything that made it.

    Args:
        waveform: float32 in [-1, 1], shape `(samples,)`.
        sampling_rate: In Hz.
        factors: Those that shape it, and those that were moved.
        events: Where each begins and how long it lasts, in s.
        words: What it is made of, a line for each thing.
        parameters: All of them by name, as plain numbers and lists.
        description: Of its synthesizer: preset or voice, its settings, its version.
    """

    waveform: np.ndarray
    sampling_rate: int
    factors: tuple[Factor, ...]
    events: tuple[tuple[float, float], ...]
    words: tuple[str, ...]
    parameters: Mapping[str, Any]
    description: Mapping[str, Any]

    def moved(self, changes: Mapping[str, float]) -> list[Factor]:
        """The factors that differ from the address."""
        return [factor for factor in self.factors if factor.key in changes]


class Synthesizer(Protocol):
    """What makes sounds out of (seed, index) and changes of their factors."""

    description: str

    def sound(self, seed: int, index: int, changes: Mapping[str, float]) -> Sound:
        """The sound at an address, some of its factors, by their keys, moved to other values.

        Raises:
            ValueError: if there is no such factor.
        """
        ...


class ClipSynthesizer:
    """Clips of a preset. What the preset leaves off, such as formants, is there too, off, and can be moved.

    Args:
        preset: Of the clips.
        description: One sentence; by default the preset's own.
    """

    def __init__(self, preset: Preset, description: str = "") -> None:
        self.preset, self.description = preset, description or preset.description
        off = [name for name in ("strike_probability", "formant_probability") if not preset.ranges[name].high]
        self.wide = get_preset(preset, **dict.fromkeys(off, 1.0))
        self.columns = {name: column for name, column in columns(self.wide).items() if name not in _NO_FACTORS}

    def sound(self, seed: int, index: int, changes: Mapping[str, float]) -> Sound:
        """See `Synthesizer`; without changes, the very clip that `render(draw(preset, seed, index))` is."""
        drawn = self._drawn(seed, index)
        parameters = self._changed(drawn, changes)
        signal, noise = render_components(parameters)
        row = clip_rows(parameters, signal_to_noise_ratio(signal, noise))[0]
        factors = tuple(self._factors(drawn, parameters, row, changes))
        _refuse_unknown(changes, factors)
        preset = self.preset
        return Sound(
            waveform=peak_normalise(signal + noise)[0].numpy(),
            sampling_rate=preset.sampling_rate,
            factors=factors,
            events=tuple(zip(row["onset"], row["event_length"], strict=True)),
            words=tuple(describe(row, self.wide)),
            parameters={name: tensor[0].tolist() for name, tensor in parameters.items()},
            description={
                "preset": preset.name,
                "overrides": dict(preset.overrides),
                "duration": preset.duration,
                "sampling_rate": preset.sampling_rate,
                "synthesizer_version": SYNTHESIZER_VERSION,
            },
        )

    def _drawn(self, seed: int, index: int) -> Parameters:
        """The clip's own parameters, and beside them those that only a wider preset has; with it nothing changes."""
        plain, wide = draw(self.preset, seed, index), draw(self.wide, seed, index)
        off = {"formant": torch.zeros_like(wide["formant"])}
        return replace(wide, tensors={**wide.tensors, **off, **plain.tensors})

    def _changed(self, drawn: Parameters, changes: Mapping[str, float]) -> Parameters:
        tensors = {name: tensor.clone() for name, tensor in drawn.items()}
        moved: dict[str, set[tuple[int, ...]]] = {}
        for key, value in changes.items():
            name, place = _split_key(key)
            if name not in self.columns or len(place) != self.columns[name].depth:
                raise ValueError(f"{self.preset.name} has no factor {key!r}; take keys as its clips have them.")
            base = self._base(name)
            value = _within(*self._limits(name), value, key)
            try:
                tensors[name][(0, *place)] = value if base is None else value * float(tensors[base][(0, *place)])
            except IndexError as error:
                raise ValueError(f"{self.preset.name} has no {key}: clips have fewer. Lower its numbers.") from error
            moved.setdefault(name, set()).add(place)
        for name in self.columns:  # shares of what has moved, in whatever order, are shares of where it is now
            base = self._base(name)
            if base is None:
                continue
            for place in moved.get(base, set()):
                share = changes.get(_join_key(name, place))
                if share is None:
                    share = float(drawn[name][(0, *place)]) / float(drawn[base][(0, *place)])
                tensors[name][(0, *place)] = share * float(tensors[base][(0, *place)])
        return replace(drawn, tensors=tensors)

    def _limits(self, name: str) -> tuple[float, float]:
        """Smallest and largest value of a factor, whatever the others are."""
        distribution: Range | Choice | None = self.wide.ranges.get(name)
        if isinstance(distribution, Choice):
            values = range(len(distribution.names)) if distribution.names else distribution.values
            return min(values), max(values)
        if distribution is None:
            return 0.0, self.preset.duration if self.columns[name].unit == "s" else 1.0
        if name == "event_length":  # as short as where events are many
            shortest = self.preset.duration / self.wide.ranges["num_events"].high
            return min(distribution.low, shortest), min(distribution.high, self.preset.duration)
        if name == "transient_length":
            return min(distribution.low, self.preset.duration), min(distribution.high, self.preset.duration)
        return distribution.low, distribution.high

    def _base(self, name: str) -> str | None:
        """The factor that this one's range is a share of."""
        distribution = self.wide.ranges.get(name)
        return None if distribution is None else _BASES.get(distribution.unit)

    def _factors(
        self, drawn: Parameters, parameters: Parameters, row: Mapping[str, Any], changes: Mapping[str, float]
    ) -> Iterator[Factor]:
        """Those that can differ, and shape the clip as it is or were moved."""
        for name, column in self.columns.items():
            distribution: Range | Choice | None = self.wide.ranges.get(name)
            if isinstance(distribution, Range) and distribution.low == distribution.high:
                continue  # a constant of the preset
            if isinstance(distribution, Choice) and not distribution.names and len(distribution.values) == 1:
                continue
            shaping = set(_places(row[name], column.depth))
            moved = {place for key in changes for of, place in [_split_key(key)] if of == name}
            for place in sorted(shaping | moved):
                yield self._factor(name, column, place, drawn, parameters)

    def _factor(
        self, name: str, column: Column, place: tuple[int, ...], drawn: Parameters, parameters: Parameters
    ) -> Factor:
        distribution, base = self.wide.ranges.get(name), self._base(name)

        def value(of: Parameters) -> float:
            number = float(of[name][(0, *place)])
            return number if base is None else number / float(of[base][(0, *place)])

        now, (low, high) = value(parameters), self._limits(name)
        if name == "event_length" and distribution is not None:
            high = min(high, self.preset.duration / int(parameters["num_events"]))
            low = min(distribution.low, high)
        if name in ("onset", "transient_onset"):  # so that all of it lies within the clip
            length = "event_length" if place else "transient_length"
            high = self.preset.duration - float(parameters[length][(0, *place)])
        choices: tuple[Any, ...] = ()
        kind = column.kind
        if isinstance(distribution, Choice):
            choices, kind = (distribution.names, "name") if distribution.names else (distribution.values, "choice")
        part = f"event {place[0] + 1}" if place else "clip"
        page = name if column.depth == 2 else f"the {part.partition(' ')[0]} itself"
        counted = f" of {column.inner} {place[1] + 1}" if column.depth == 2 else ""
        return Factor(
            key=_join_key(name, place),
            part=part,
            page=page.replace("_", " "),
            label=name.replace("_", " ") + counted,
            unit=column.unit if distribution is None else distribution.unit,
            description=column.description,
            low=min(low, now),
            high=max(high, now),
            kind=kind,
            choices=choices,
            drawn=value(drawn),
            value=now,
        )


class VoiceSynthesizer:
    """Sounds of a voice, the modular synthesizer.

    Args:
        voice: Which modules, and how they behave.
    """

    def __init__(self, voice: Voice) -> None:
        self.voice = voice
        self.description = f"{voice.architecture.description} {voice.preset.description}"

    def sound(self, seed: int, index: int, changes: Mapping[str, float]) -> Sound:
        """See `Synthesizer`; without changes, the very sound that `voices.render` makes of a draw."""
        voice = self.voice
        drawn = voices.draw(voice, seed, index)
        positions = drawn.clone()
        cells = {_join_key(*where): cell for cell, where in enumerate(self._cells())}
        for key, value in changes.items():
            if key not in cells:
                raise ValueError(
                    f"{voice.architecture.name} has no factor {key!r}; take keys as its sounds have them."
                )
            of = voice.ranges[_split_key(key)[0]]
            inside = torch.tensor(_within(of.low, of.high, value, key), dtype=torch.float64)
            positions[0, cells[key]] = of.position(inside)
        waveform = voices.render(voice, positions, voices.noise_of(voice, seed, index))[0]
        units = in_units(voice, positions)[0].tolist()
        before = in_units(voice, drawn)[0].tolist()
        factors = tuple(self._factors(before, units))
        return Sound(
            waveform=waveform.numpy(),
            sampling_rate=voice.sampling_rate,
            factors=factors,
            events=(),
            words=tuple(_said_of_voice(factors)),
            parameters={factor.key: factor.value for factor in factors},
            description={
                "voice": voice.architecture.name,
                "preset": voice.preset.name,
                "duration": voice.duration,
                "sampling_rate": voice.sampling_rate,
                "voices_version": VOICES_VERSION,
            },
        )

    def _cells(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Name and place of each of the numbers that a sound is."""
        num_inputs = 2 * len(self.voice.architecture.tones)
        for (name, where), size in zip(self.voice.slices.items(), self.voice.sizes, strict=True):
            for number in range(where.stop - where.start):
                if name == "mod_matrix/weight":
                    yield name, divmod(number, num_inputs)
                else:
                    yield name, (number,) if size > 1 else ()

    def _factors(self, drawn: Sequence[float], values: Sequence[float]) -> Iterator[Factor]:
        for (name, place), before, now in zip(self._cells(), drawn, values, strict=True):
            of = self.voice.ranges[name]
            module, _, parameter = name.partition("/")
            number = re.search(r"_(\d+)", module)
            part, page = (f"oscillator {number[1]}" if number else module.replace("_", " ")), module
            label = parameter if module == part else f"{module} {parameter}"
            if name == "mod_matrix/weight":
                page, label = self._wire(*place)
            elif place:
                label += f" {place[0] + 1}"
            yield Factor(
                key=_join_key(name, place),
                part=part,
                page=page.replace("_", " "),
                label=label.replace("_", " "),
                unit=of.unit,
                description=of.description,
                low=min(of.low, now),
                high=max(of.high, now),
                kind="float",
                choices=(),
                drawn=before,
                value=now,
            )

    def _wire(self, output: int, source: int) -> tuple[str, str]:
        """Where a weight of the modulation matrix leads, and from where: envelopes first, the noise last."""
        count = len(self.voice.architecture.tones)
        kind, number = ("envelope", source) if source < count else ("LFO", source - count)
        target = "level of noise"
        if output < 2 * count:
            target = f"{('pitch', 'level')[output % 2]} of oscillator {output // 2 + 1}"
        return target, f"{kind} {number + 1} in {target}"


def _said_of_voice(factors: Sequence[Factor]) -> Iterator[str]:
    """Notes and tunings in words."""
    for factor in factors:
        if factor.key.endswith(("midi_f0", "/duration", "/tuning", "noise_level")):
            yield f"{factor.label}: {factor.said(factor.value)}"


def _split_key(key: str) -> tuple[str, tuple[int, ...]]:
    """`f0[2]` to its name and its place, counted from 0."""
    found = re.fullmatch(r"([\w/]+)((?:\[[1-9]\d{0,3}\])*)", key, re.ASCII)
    if found is None:
        raise ValueError(f"A factor's key is a name with places such as f0[2], got {key!r}.")
    return found[1], tuple(int(number) - 1 for number in re.findall(r"\d+", found[2]))


def _join_key(name: str, place: tuple[int, ...]) -> str:
    return name + "".join(f"[{number + 1}]" for number in place)


def _within(low: float, high: float, value: float, key: str) -> float:
    """A value between limits, but for what float32 rounds it by."""
    if not low - _ROUNDING * (high - low) <= value <= high + _ROUNDING * (high - low):
        raise ValueError(f"{key} lies between {low:g} and {high:g}, got {value:g}. Move it there.")
    return min(max(value, low), high)


def _places(value: Any, depth: int) -> Iterator[tuple[int, ...]]:
    """Where a cell of a row holds something."""
    if depth == 0:
        if value is not None:
            yield ()
        return
    for number, inner in enumerate(value):
        for place in _places(inner, depth - 1):
            yield (number, *place)


def _refuse_unknown(changes: Mapping[str, float], factors: Sequence[Factor]) -> None:
    unknown = set(changes) - {factor.key for factor in factors}
    if unknown:
        raise ValueError(f"These factors cannot be moved here: {', '.join(sorted(unknown))}. Leave them out.")


def synthesizers(own: str = "", statistics: Mapping[str, Any] | None = None) -> dict[str, Synthesizer]:
    """Everything that sounds can be invented with, by name.

    Args:
        own: The name of a checkpoint, whose clips come first.
        statistics: Of its feature extractor, which say what clips it learnt from; without a preset there are none.

    Returns:
        Presets of clips, then voices; with the faults of SynthAX as `NAME-synthax`.

    Example:
        >>> list(synthesizers())[:2], list(synthesizers())[-2:]
        (['reference', 'audiopg'], ['parametric', 'parametric-synthax'])
    """
    found: dict[str, Synthesizer] = {}
    if statistics and statistics.get("preset"):
        preset = get_preset(statistics["preset"], **statistics.get("overrides", {}))
        found[own] = ClipSynthesizer(
            preset, f"The clips that {own} learnt from: its own stream is seed {statistics.get('seed', 0)}."
        )
    found |= {name: ClipSynthesizer(preset) for name, preset in PRESETS.items()}
    for architecture in ARCHITECTURES:
        for preset_name in VOICE_PRESETS:
            name = architecture if preset_name == next(iter(VOICE_PRESETS)) else f"{architecture}-{preset_name}"
            found[name] = VoiceSynthesizer(get_voice(architecture, preset_name))
    return found


def to_json(address: Address, changes: Mapping[str, float], sound: Sound) -> str:
    """Everything that a sound is, to keep or to send: `from_json` finds it again.

    Args:
        address: Where it began.
        changes: What was moved, by key.
        sound: What came of it.

    Returns:
        Address, description of the synthesizer, changes, and all parameters.
    """
    document = {
        "address": str(address),
        "synthesizer": sound.description,
        "changes": dict(changes),
        "parameters": sound.parameters,
    }
    return json.dumps(document, indent=1)


def from_json(text: str, known: Mapping[str, Synthesizer]) -> tuple[Address, dict[str, float]]:
    """The address and the changes that `to_json` wrote.

    Args:
        text: What it wrote.
        known: As from `synthesizers`.

    Returns:
        What makes the same sound here.

    Raises:
        ValueError: if it is something else, or of another synthesizer or version.
    """
    try:
        document = json.loads(text)
        written, changes = document["address"], {str(key): float(v) for key, v in document["changes"].items()}
        synthesizer = document["synthesizer"]
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError("These are no parameters of a sound. Open a JSON file that was saved here.") from error
    if not all(map(math.isfinite, changes.values())):
        raise ValueError(
            "Factors are finite numbers, and some of these are not. Open a JSON file that was saved here."
        )
    address = parse_address(str(written), next(iter(known)), list(known))
    sound = known[address.synthesizer].sound(address.seed, address.index, changes)
    here = json.loads(json.dumps(sound.description))
    if here != synthesizer:
        odd = [name for name in here if synthesizer.get(name) != here[name]] if isinstance(synthesizer, dict) else []
        raise ValueError(
            f"{address} is another sound here: its synthesizer differs in {', '.join(odd) or 'its description'}. "
            "Open it with the version that saved it."
        )
    return address, changes


def as_table(factors: Sequence[Factor]) -> list[list[str]]:
    """Factors that were moved: name, at the address, here, what it is."""
    return [
        [f"{factor.part}: {factor.label}", factor.said(factor.drawn), factor.said(factor.value), factor.description]
        for factor in factors
    ]


__all__ = [
    "Address",
    "ClipSynthesizer",
    "Factor",
    "Sound",
    "Synthesizer",
    "VoiceSynthesizer",
    "as_table",
    "from_json",
    "parse_address",
    "synthesizers",
    "to_json",
]
