"""Held-out synthesized clips whose factors are to be found again in an embedding."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from audiopg.data_scripts.synthesis import Parameters, Preset, draw, get_preset, render_components
from audiopg.data_scripts.synthesis.parameters import PITCHED_MODES
from audiopg.data_scripts.synthesis.shaping import peak_normalise
from audiopg.data_scripts.synthesis.synthesizer import signal_to_noise_ratio

PROBE_SEED = 2**40
"""A stream of clips of its own: no run that counts its seed from 0 has seen one of them."""

_EVENT_SECONDS = 1.0
_BATCH = 32


@dataclass(frozen=True)
class FactorClips:
    """Clips, and what is to be decoded from them.

    Args:
        waveforms: Shape `(clips, samples)`, float32.
        sampling_rate: In Hz.
        factors: By name, each of shape `(clips,)`; see `FACTORS` for the units.
    """

    waveforms: np.ndarray
    sampling_rate: int
    factors: dict[str, np.ndarray]


@dataclass(frozen=True)
class Factor:
    """A generative factor that an embedding may tell.

    Args:
        unit: Of its values.
        parameter: The synthesizer's parameter that carries it.
        probe_set: Which of `PROBE_SETS` it is read from.
        kind: `continuous`, `count` (whole numbers) or `class`.
        logarithmic: Whether its values are log2 of the parameter, as the ear and the mel scale take it.
        paper: What the paper reports of it: `r2`, `information` (nats, best neuron), `gap`.
        names: Of its classes.
    """

    unit: str
    parameter: str
    probe_set: str
    kind: str = "continuous"
    logarithmic: bool = False
    paper: Mapping[str, float] = field(default_factory=dict)
    names: tuple[str, ...] = ()


FACTORS: Mapping[str, Factor] = MappingProxyType(
    {
        "frequency": Factor(
            *("octaves", "f0", "one event"),
            logarithmic=True,
            paper={"r2": 0.9946, "information": 1.73, "gap": 0.0062},
        ),
        "level": Factor(*("dB", "noise_gain", "one event"), paper={"r2": 0.9916, "information": 1.47, "gap": 0.1273}),
        "onset": Factor(*("s", "onset", "one event"), paper={"r2": 0.9550, "information": 0.49, "gap": 0.1277}),
        "partials": Factor("", "num_partials", "one event", kind="count"),
        "modulation index": Factor("rad", "modulation_index", "one fm event"),
        "cutoff": Factor("octaves", "cutoff", "one damped event", logarithmic=True),
        "events": Factor("", "num_events", "several events", kind="count"),
        "transient": Factor("", "transient", "one event or a burst too", kind="class", names=("absent", "present")),
        "mode": Factor("", "mode", "one event of any pitched kind", kind="class", names=PITCHED_MODES),
    }
)
"""Every factor that is looked for: the paper's three, and beyond it what else makes a clip.

`frequency` and `cutoff` are log2 of Hz, `level` is the ratio of signal to noise in dB, `onset` is in s.
"""

_ONE_EVENT: Mapping[str, Any] = {"num_events": 1, "mode": ["harmonic"], "transient_probability": 0.0}
PROBE_SETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "one event": _ONE_EVENT,
        "one fm event": {**_ONE_EVENT, "mode": ["fm"]},
        "one damped event": {**_ONE_EVENT, "damping_probability": 1.0},
        "several events": {"transient_probability": 0.0},
        # As long as the clip: where bursts are part of a source, a short event would mostly miss them.
        "one event or a burst too": {**_ONE_EVENT, "transient_probability": 0.5, "event_length": 3600.0},
        "one event of any pitched kind": {**_ONE_EVENT, "mode": list(PITCHED_MODES)},
    }
)
"""Sets of probe clips: what each changes in a preset. Whatever is not named is sampled from the preset's ranges."""


def probe_preset(preset: str | Preset, probe_set: str) -> Preset:
    """A preset narrowed to one of `PROBE_SETS`.

    Single events last 1 s, or half of a clip shorter than 2 s, unless the set says otherwise.

    Raises:
        ValueError: if there is no such set.

    Example:
        >>> probe_preset("reference", "one event").ranges["num_events"].high
        1
    """
    if probe_set not in PROBE_SETS:
        raise ValueError(f"Probe sets are {', '.join(PROBE_SETS)}; got {probe_set!r}.")
    preset, changes = get_preset(preset), dict(PROBE_SETS[probe_set])
    if "num_events" in changes:
        changes.setdefault("event_length", min(_EVENT_SECONDS, preset.duration / 2))
    return get_preset(preset, **changes)


def hold_others(parameters: Parameters, varied: str, first: Parameters) -> Parameters:
    """Give all clips the parameters of one clip, but for a single one, and for the noise, which stays each clip's own.

    Args:
        parameters: Of the clips.
        varied: The name of the parameter that keeps its values.
        first: Of the one clip, drawn from the same preset.

    Returns:
        Parameters of the same shapes.

    Example:
        >>> parameters = draw("reference", seed=0, indices=range(3))
        >>> held = hold_others(parameters, "f0", draw("reference", seed=0, indices=[0]))
        >>> len(held["f0"][:, 0].unique()), len(held["onset"][:, 0].unique())
        (3, 1)
    """
    own = {varied, "noise_key"}
    tensors = {
        name: tensor if name in own else first[name].expand_as(tensor).contiguous()
        for name, tensor in parameters.items()
    }
    return replace(parameters, tensors=tensors)


def _values(factor: Factor, parameters: Parameters, level_db: Tensor) -> np.ndarray:
    if factor.parameter == "noise_gain":
        return level_db.double().numpy()
    tensor = parameters[factor.parameter]
    values = (tensor[:, 0] if tensor.dim() > 1 else tensor).numpy()
    if factor.kind != "continuous":
        return values.astype(np.int64)
    return np.log2(values) if factor.logarithmic else values


def _clips(
    parameters_of: Callable[[range], Parameters],
    names: list[str],
    num_clips: int,
    description: str,
    device: torch.device | str = "cpu",
) -> FactorClips:
    """Render clips in batches, and read off their factors."""
    waveforms: list[np.ndarray] = []
    columns: dict[str, list[np.ndarray]] = {name: [] for name in names}
    starts = tqdm(range(0, num_clips, _BATCH), desc=description, unit="batch", leave=False, disable=None)
    for start in starts:
        parameters = parameters_of(range(start, min(start + _BATCH, num_clips)))
        signal, noise = render_components(parameters, device)
        level_db = signal_to_noise_ratio(signal, noise).cpu()
        for name in names:
            columns[name].append(_values(FACTORS[name], parameters, level_db))
        waveforms.append(peak_normalise(signal + noise).cpu().numpy())
    factors = {name: np.concatenate(values) for name, values in columns.items()}
    return FactorClips(np.concatenate(waveforms), parameters.preset.sampling_rate, factors)


def factor_clips(preset: str | Preset, num_clips: int, seed: int = PROBE_SEED) -> FactorClips:
    """Clips with one harmonic event of 1 s, in which pitch, level and onset vary together and everything else too.

    Args:
        preset: Whose ranges; one event, one kind of source, no transient.
        num_clips: How many.
        seed: Which stream.

    Returns:
        The clips and the paper's factors: `frequency`, `level` and `onset`.

    Example:
        >>> clips = factor_clips(get_preset("audiopg", duration=2.0), num_clips=2)
        >>> clips.waveforms.shape, sorted(clips.factors)
        ((2, 32000), ['frequency', 'level', 'onset'])
    """
    clips = probe_clips(preset, "one event", num_clips, seed)
    return replace(clips, factors={name: clips.factors[name] for name in ("frequency", "level", "onset")})


def probe_clips(
    preset: str | Preset,
    probe_set: str,
    num_clips: int,
    seed: int = PROBE_SEED,
    *,
    device: torch.device | str = "cpu",
) -> FactorClips:
    """Clips `0 ... num_clips - 1` of a stream, narrowed to one of `PROBE_SETS`, everything else being sampled.

    Args:
        preset: Whose ranges.
        probe_set: A name out of `PROBE_SETS`.
        num_clips: How many.
        seed: Which stream.
        device: Where to render.

    Returns:
        The clips and all factors that are read from this set.

    Raises:
        ValueError: if there is no such set.

    Example:
        >>> clips = probe_clips(get_preset("reference", duration=1.0), "one event of any pitched kind", num_clips=3)
        >>> sorted(clips.factors), clips.factors["mode"].dtype
        (['mode'], dtype('int64'))
    """
    narrowed = probe_preset(preset, probe_set)
    names = [name for name, factor in FACTORS.items() if factor.probe_set == probe_set]
    return _clips(lambda indices: draw(narrowed, seed, indices), names, num_clips, probe_set, device)


def held_clips(preset: str | Preset, name: str, num_clips: int, seed: int = PROBE_SEED) -> FactorClips:
    """Clips that differ in one factor alone: all else, but the samples of the noise, is that of the stream's clip 0.

    Args:
        preset: Whose ranges.
        name: A factor out of `FACTORS`.
        num_clips: How many.
        seed: Which stream.

    Returns:
        The clips and that one factor.

    Example:
        >>> clips = held_clips(get_preset("reference", duration=1.0), "cutoff", num_clips=3)
        >>> clips.waveforms.shape, clips.factors["cutoff"].shape
        ((3, 16000), (3,))
    """
    factor = FACTORS[name]
    narrowed = probe_preset(preset, factor.probe_set)
    first = draw(narrowed, seed, [0])
    return _clips(
        lambda indices: hold_others(draw(narrowed, seed, indices), factor.parameter, first),
        [name],
        num_clips,
        f"{name} alone",
    )
