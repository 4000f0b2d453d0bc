"""Clips as rows of plain values: every factor where it shapes the clip, None where it does not; and in words."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from audiopg.data_scripts.synthesis import Choice, Parameters, Preset, Range
from audiopg.data_scripts.synthesis.parameters import FORMANTS, MODES, PITCHED_MODES, PULSE_SHAPES

FRAME_LENGTH_SECONDS = 0.025
HOP_LENGTH_SECONDS = 0.010

_OF_PARTIALS = ("partial_rolloff", "partial_gain", "partial_detuning", "partial_phase")
_OF_EVENTS = (
    *("onset", "event_length", "amplitude", "attack", "decay", "f0", "mode", "source_start", "num_partials"),
    *("modulation_index", "modulation_ratio", "pulse_shape", "band_centre", "band_width"),
    *("strike", "strike_period", "strike_decay"),
)
_OF_RESONANT_EVENTS = ("formant", "num_formants", "formant_points")
_OF_FORMANTS = ("formant_bandwidth", "formant_level")
_OF_CLIPS = (
    *("num_events", "transient", "transient_onset", "transient_length", "transient_gain"),
    *("damping", "cutoff", "room", "room_time", "room_level", "noise_gain"),
)
_OF_MODES: dict[str, tuple[str, ...]] = {
    "f0": PITCHED_MODES,
    "num_partials": ("harmonic",),
    **dict.fromkeys(_OF_PARTIALS, ("harmonic",)),
    **dict.fromkeys(("modulation_index", "modulation_ratio"), ("fm",)),
    "pulse_shape": ("pulse",),
    **dict.fromkeys(("band_centre", "band_width"), ("noise",)),
}
"""The kinds of source that a factor belongs to; the others belong to all."""
_HAPPENING = {
    **dict.fromkeys(("transient_onset", "transient_length", "transient_gain"), "transient"),
    "cutoff": "damping",
    **dict.fromkeys(("room_time", "room_level"), "room"),
    **dict.fromkeys(("strike_period", "strike_decay"), "strike"),
    **dict.fromkeys(("num_formants", "formant_points"), "formant"),
}
"""What has to happen in a clip, or to an event, for a factor to shape it."""

# What is drawn by other means than from a range of its own name: kind, unit, meaning.
_DERIVED = {
    "onset": ("float", "s", "where an event begins in the clip"),
    "source_start": ("float", "s", "where an event begins to read its source, which sets its phase"),
    "transient": ("bool", "", "whether the clip has a noise burst"),
    "transient_onset": (
        "float",
        "s",
        "where the noise burst begins: in the clip, or in the source that all events of a clip share",
    ),
    "damping": ("bool", "", "whether the clip passes the low-pass filter"),
    "strike": ("bool", "", "whether the event is struck again and again"),
    "formant": ("bool", "", "whether the event's source passes through formants"),
    "room": ("bool", "", "whether the clip sounds in a room"),
}


@dataclass(frozen=True)
class Column:
    """What a column of clips holds.

    Args:
        depth: 0 for one value per clip, 1 for a list over events, 2 for a list over events of lists.
        kind: "float", "int" or "bool", or "name" for positions in `names`.
        unit: "Hz", "s", ... or "" for a pure number.
        description: What it is.
        names: What the positions stand for.
        inner: What the inner lists have a value of each of.
    """

    depth: int
    kind: str
    unit: str
    description: str
    names: tuple[str, ...] = ()
    inner: str = ""


def _of_events(preset: Preset) -> tuple[str, ...]:
    """Factors with a value for each event."""
    return (*_OF_EVENTS, *(_OF_RESONANT_EVENTS if preset.formants else ()))


def _inner_lists(preset: Preset) -> dict[str, tuple[str, str]]:
    """Factors with a list for each event: a value of each of what, and the factor that says of how many."""
    lists = dict.fromkeys(_OF_PARTIALS, ("partial", "num_partials"))
    if preset.formants:
        lists |= dict.fromkeys(_OF_FORMANTS, ("formant", "num_formants"))
        lists |= dict.fromkeys(preset.formants, ("point", "formant_points"))
    return lists


def _column(name: str, preset: Preset) -> Column:
    inner, _ = _inner_lists(preset).get(name, ("", ""))
    depth = 2 if inner else int(name in _of_events(preset))
    if name in _DERIVED:
        return Column(depth, *_DERIVED[name])
    drawn: Range | Choice = preset.ranges[name]
    # Clips come with times and frequencies, not with shares of them.
    unit = {"event lengths": "s", "band centres": "Hz"}.get(drawn.unit, drawn.unit)
    if isinstance(drawn, Choice):
        return Column(depth, "name" if drawn.names else "float", unit, drawn.description, drawn.names)
    return Column(depth, "int" if drawn.integer else "float", unit, drawn.description, inner=inner)


def columns(preset: Preset) -> dict[str, Column]:
    """The columns of `clip_rows`, described by the ranges of the preset.

    Args:
        preset: Whose clips.

    Returns:
        Columns by name, in order.

    Example:
        >>> from audiopg.data_scripts.synthesis import get_preset
        >>> cutoff = columns(get_preset("audiopg"))["cutoff"]
        >>> cutoff.depth, cutoff.kind, cutoff.unit
        (0, 'float', 'Hz')
    """
    ours = {
        "index": Column(0, "int", "", "number of the clip in the stream of its seed"),
        "seed": Column(0, "int", "", "the stream of clips"),
    }
    labels = {
        "snr_db": Column(0, "float", "dB", "level of the signal over the background noise, mean over the clip"),
        "active_events": Column(
            1, "int", "", "how many events are between onset and end at the centre of each log-mel frame, every 10 ms"
        ),
    }
    factors = (*_OF_CLIPS, *_of_events(preset), *_inner_lists(preset))
    return ours | {name: _column(name, preset) for name in factors} | labels


def event_activity(onset: Tensor, event_length: Tensor, *, num_samples: int, sampling_rate: int) -> Tensor:
    r"""Which events sound in which frame of the log-mel spectrogram.

    Frame k covers 25 ms from sample 160 k on (at 16 kHz), and only frames within the clip count, as Kaldi has it. An
    event is active in a frame if it sounds at the frame's centre.

    Args:
        onset: In s, shape `(..., events)`.
        event_length: In s, of the same shape.
        num_samples: Length of the clip.
        sampling_rate: In Hz.

    Returns:
        bool of shape `(..., events, frames)`.

    Example:
        >>> first, second = event_activity(
        ...     torch.tensor([0.0, 0.02]), torch.tensor([0.02, 1.0]), num_samples=800, sampling_rate=16000
        ... )
        >>> first.tolist(), second.tolist()
        ([True, False, False], [False, True, True])
    """
    frame_length, hop_length = (int(sampling_rate * seconds) for seconds in (FRAME_LENGTH_SECONDS, HOP_LENGTH_SECONDS))
    num_frames = max(0, 1 + (num_samples - frame_length) // hop_length)
    centre = (torch.arange(num_frames, dtype=torch.float64) * hop_length + frame_length / 2) / sampling_rate
    onset, event_length = onset[..., None], event_length[..., None]
    return (centre >= onset) & (centre < onset + event_length)


def _event_values(parameters: Parameters, name: str, clip: int) -> list[Any]:
    """A factor of each event of a clip; None for an event that it does not shape."""
    num_events = int(parameters["num_events"][clip])
    if name in ("attack", "decay") and not parameters.preset.enveloped:
        return [None] * num_events
    shapes = [True] * num_events
    if name in _HAPPENING:
        shapes = parameters[_HAPPENING[name]][clip, :num_events].tolist()
    elif name in _OF_MODES:
        shapes = [MODES[mode] in _OF_MODES[name] for mode in parameters["mode"][clip, :num_events].tolist()]
    values = parameters[name][clip, :num_events].tolist()
    return [value if does else None for value, does in zip(values, shapes, strict=True)]


def _inner_values(parameters: Parameters, name: str, counted_by: str, clip: int) -> list[list[float]]:
    """A factor's list of each event of a clip; an empty one for an event that it does not shape.

    Of formants, an event may have fewer than this factor is of.
    """
    counts = [count or 0 for count in _event_values(parameters, counted_by, clip)]
    if name in FORMANTS:
        number = _event_values(parameters, "num_formants", clip)
        counts = [count if FORMANTS.index(name) < (n or 0) else 0 for count, n in zip(counts, number, strict=True)]
    return [parameters[name][clip, event, :count].tolist() for event, count in enumerate(counts)]


def _clip_value(parameters: Parameters, name: str, clip: int) -> Any:
    """A factor of a clip; None where it does not shape the clip."""
    needed = _HAPPENING.get(name)
    return parameters[name][clip].item() if needed is None or parameters[needed][clip] else None


def clip_rows(parameters: Parameters, snr_db: Tensor) -> list[dict[str, Any]]:
    """Every clip as a row of plain values, named and described by `columns`.

    Lists are as long as there are events, or partials, in the clip. A factor that does not shape a clip is None there:
    the cutoff of a clip that is not damped, the modulation index of an event that is no FM. Formants have columns only
    if the preset can have them.

    Args:
        parameters: From `draw`.
        snr_db: From `signal_to_noise_ratio`, shape `(batch,)`; infinite without noise, which becomes None.

    Returns:
        One row per clip.

    Example:
        >>> from audiopg.data_scripts.synthesis import draw
        >>> rows = clip_rows(draw("audiopg", seed=0, indices=range(2)), torch.tensor([20.0, 30.0]))
        >>> [(row["index"], row["num_events"], len(row["f0"]), row["snr_db"]) for row in rows]
        [(0, 4, 4, 20.0), (1, 5, 5, 30.0)]
    """
    preset = parameters.preset
    active = event_activity(
        parameters["onset"],
        parameters["event_length"],
        num_samples=preset.num_samples,
        sampling_rate=preset.sampling_rate,
    )
    active_events = (active & parameters.event_exists[..., None]).sum(dim=1).tolist()
    of_events, inner_lists = _of_events(preset), _inner_lists(preset)
    rows = []
    for clip, index in enumerate(parameters.indices.tolist()):
        row: dict[str, Any] = {"index": index, "seed": parameters.seed}
        row |= {name: _clip_value(parameters, name, clip) for name in _OF_CLIPS}
        row |= {name: _event_values(parameters, name, clip) for name in of_events}
        row |= {name: _inner_values(parameters, name, counts, clip) for name, (_, counts) in inner_lists.items()}
        row["snr_db"] = float(snr_db[clip]) if torch.isfinite(snr_db[clip]) else None
        row["active_events"] = active_events[clip]
        rows.append(row)
    return rows


def _describe_event(row: Mapping[str, Any], event: int) -> str:
    begin, mode = row["onset"][event], MODES[row["mode"][event]]
    text = f"{begin:.2f} to {begin + row['event_length'][event]:.2f} s: {mode}"
    if mode == "noise":
        text += f", {row['band_width'][event]:.0f} Hz wide at {row['band_centre'][event]:.0f} Hz"
    else:
        text += f", f0 {row['f0'][event]:.0f} Hz"
    if mode == "harmonic":
        text += f", {row['num_partials'][event]} partial{'s' if row['num_partials'][event] > 1 else ''}"
    elif mode == "fm":
        text += f", index {row['modulation_index'][event]:.1f} rad, ratio {row['modulation_ratio'][event]:g}"
    elif mode == "pulse":
        text += f", {PULSE_SHAPES[row['pulse_shape'][event]]}"
    if "formant" in row and row["formant"][event]:
        tracks = [row[name][event] for name in FORMANTS[: row["num_formants"][event]]]
        first, last = (", ".join(f"{track[place]:.0f}" for track in tracks) for place in (0, -1))
        text += f", formants from {first} Hz to {last} Hz by {row['formant_points'][event]} points"
    text += f"; level {row['amplitude'][event]:.2f}"
    if row["attack"][event] is not None:
        text += f", attack {row['attack'][event]:.2f} s, decay {row['decay'][event]:.2f} s"
    if row["strike"][event]:
        text += f", struck every {row['strike_period'][event]:.2f} s, falling in {row['strike_decay'][event]:.2f} s"
    return text


def describe(row: Mapping[str, Any], preset: Preset) -> list[str]:
    """What a clip is made of, in words.

    Args:
        row: From `clip_rows`, or of a data set that was made of them.
        preset: The one that it was drawn from.

    Returns:
        A line per event, and one each for noise burst, low-pass filter, room (if there is one) and background noise.

    Example:
        >>> from audiopg.data_scripts.synthesis import draw
        >>> parameters = draw("audiopg", seed=0, indices=[1], num_events=1)
        >>> row = clip_rows(parameters, torch.tensor([30.0]))[0]
        >>> describe(row, parameters.preset)[1:]
        ['noise burst at 6.30 s: 48 ms, peak 1.10', 'low-pass at 4236 Hz', 'background noise: peak 0.0167, SNR 30 dB']
    """
    lines = [f"event {event + 1}, {_describe_event(row, event)}" for event in range(row["num_events"])]
    if row["transient"]:
        where = f"at {row['transient_onset']:.2f} s" + (" of the source" if preset.shared_source else "")
        lines.append(f"noise burst {where}: {1000 * row['transient_length']:.0f} ms, peak {row['transient_gain']:.2f}")
    else:
        lines.append("no noise burst")
    lines.append(f"low-pass at {row['cutoff']:.0f} Hz" if row["damping"] else "no low-pass")
    if row["room"]:
        lines.append(f"room: {row['room_time']:.2f} s to fall by 60 dB, {row['room_level']:.2f} of the direct sound")
    if row["snr_db"] is None:
        lines.append("no background noise")
    else:
        lines.append(f"background noise: peak {row['noise_gain']:.4f}, SNR {row['snr_db']:.0f} dB")
    return lines
