"""The numbers of sounds: drawn by (seed, index), to units and back, and moved a little to make a double."""

from collections.abc import Iterable, Mapping
from functools import lru_cache

import torch
from torch import Tensor

from audiopg.data_scripts.counter_random import random_bits, uniform, white_noise
from audiopg.data_scripts.synthesis import delta_of_groups, validated_indices
from audiopg.data_scripts.voices.ranges import curved
from audiopg.data_scripts.voices.voice import Voice

LOWEST = 1e-6
"""Where `perturb` stops: SynthAX takes logarithms of positions."""

_SEED_OF_FIXED_NOISE = 0


@lru_cache(maxsize=64)
def _columns(voice: Voice, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Low end, span, curve and symmetry of each of the P numbers."""
    ranges = [
        (span.low, span.high - span.low, span.curve, span.symmetric)
        for span, size in zip(voice.ranges.values(), voice.sizes, strict=True)
        for _ in range(size)
    ]
    dtypes = (torch.float64, torch.float64, torch.float64, torch.bool)
    with torch.inference_mode(False):  # they are kept, and gradients may be asked for next time
        low, span, curve, symmetric = (
            torch.tensor(column, device=device, dtype=dtype)
            for column, dtype in zip(zip(*ranges, strict=True), dtypes, strict=True)
        )
    return low, span, curve, symmetric


def draw(voice: Voice, seed: int, indices: Tensor | Iterable[int] | int) -> Tensor:
    """Draw the parameters of the sounds `indices` of the stream `seed`.

    Args:
        voice: Which synthesizer.
        seed: Any integer of 64 bits.
        indices: Sound indices, each 0 or more.

    Returns:
        float32 in [0, 1], shape `(batch, P)`, on the CPU; sound i of a seed is the same whatever else is asked for.

    Raises:
        ValueError: for no or negative indices.

    Example:
        >>> from audiopg.data_scripts.voices import get_voice
        >>> voice = get_voice("voice")
        >>> parameters = draw(voice, seed=0, indices=range(4))
        >>> parameters.shape, torch.equal(parameters[3:], draw(voice, 0, [3]))
        (torch.Size([4, 78]), True)
    """
    indices = validated_indices(indices, "sound")
    positions = uniform(seed, indices, f"voices/{voice.architecture.name}", (voice.num_parameters,))
    if voice.preset.uniform_in_units:
        _, _, curve, symmetric = _columns(voice, positions.device)
        positions = curved(positions, curve, symmetric)
    return positions.float()


def noise_of(
    voice: Voice, seed: int, indices: Tensor | Iterable[int] | int, device: torch.device | str = "cpu", view: int = 0
) -> Tensor:
    """The noise that sounds are mixed with, before their level of it.

    Args:
        voice: Which synthesizer.
        seed: As of `draw`.
        indices: As of `draw`.
        device: Where to make it.
        view: Gives another double of the sound its own noise. The preset `synthax` has one row for all.

    Returns:
        float32 in (-1, 1), shape `(batch, samples)`.

    Raises:
        ValueError: for no or negative indices.

    Example:
        >>> from audiopg.data_scripts.voices import get_voice
        >>> noise_of(get_voice("voice"), seed=0, indices=[5]).shape
        torch.Size([1, 16000])
    """
    indices = validated_indices(indices, "sound")
    if voice.preset.fixed_noise:
        key = random_bits(_SEED_OF_FIXED_NOISE, torch.zeros(1, dtype=torch.int64), "voices/noise/fixed")
        return white_noise(key.to(device), voice.num_samples).expand(len(indices), -1)
    return white_noise(random_bits(seed, indices, f"voices/noise/{view}").to(device), voice.num_samples)


def perturb(voice: Voice, parameters: Tensor, z: Tensor, delta: float | Mapping[str, float]) -> Tensor:
    r"""Doubles of sounds (Audio Doppelgängers, section 3): $\mathrm{clip}(\theta + \delta z, 10^{-6}, 1)$.

    Where the preset says so, phases go around the circle instead: $(\theta + \delta z) \bmod 1$.

    Args:
        voice: Which synthesizer.
        parameters: $\theta$, shape `(batch, P)`.
        z: Of the standard normal distribution, of the same shape.
        delta: $\delta$ of all parameters, or of each group of `synthesis.GROUPS` by its name.

    Returns:
        In [1e-6, 1], of the same shape.

    Raises:
        ValueError: if shapes do not fit, a delta is negative, or one belongs to no group or is missing.

    Example:
        >>> from audiopg.data_scripts.voices import get_voice
        >>> voice = get_voice("voice")
        >>> theta = draw(voice, seed=0, indices=range(2))
        >>> delta = {"pitch": 0.1, "envelope": 0, "modulation": 0, "mixer": 0}
        >>> double = perturb(voice, theta, torch.ones_like(theta), delta)
        >>> sorted({group for group, moved in zip(voice.groups, (double != theta)[0]) if moved})
        ['pitch']
    """
    voice.validate(parameters)
    if z.shape != parameters.shape:
        raise ValueError(f"z has the shape of the parameters, {tuple(parameters.shape)}, got {tuple(z.shape)}.")
    deltas = delta_of_groups(delta)
    scale = torch.tensor([deltas[group] for group in voice.groups], dtype=parameters.dtype, device=parameters.device)
    moved = parameters + scale * z
    if voice.preset.wrapped_phases:
        moved = torch.where(_is_phase(voice, parameters.device), moved.remainder(1.0), moved)
    return moved.clamp(LOWEST, 1.0)


@lru_cache(maxsize=64)
def _is_phase(voice: Voice, device: torch.device) -> Tensor:
    names = [name for name, size in zip(voice.slices, voice.sizes, strict=True) for _ in range(size)]
    with torch.inference_mode(False):
        return torch.tensor([name.endswith("initial_phase") for name in names], device=device)


def in_units(voice: Voice, parameters: Tensor) -> Tensor:
    """Parameters in their units, as one tensor of the same shape: what `render` begins with.

    Powers of float32 end in other bits at other places of a batch; those of float64, rounded, do not.
    """
    low, span, curve, symmetric = _columns(voice, parameters.device)
    return (low + span * curved(parameters.double(), 1 / curve, symmetric)).to(parameters.dtype)


def to_units(voice: Voice, parameters: Tensor) -> dict[str, Tensor]:
    """Parameters in Hz, s, semitones and so on; see `voice.ranges` for each one's unit.

    Args:
        voice: Which synthesizer.
        parameters: Positions in [0, 1], shape `(batch, P)`.

    Returns:
        By "module/parameter", shape `(batch,)`; `(batch, numbers)` for "mod_matrix/weight", level by level, and
        "mixer/level".

    Raises:
        ValueError: if the shape is not that of this voice.

    Example:
        >>> from audiopg.data_scripts.voices import get_voice
        >>> units = to_units(get_voice("voice"), torch.full((1, 78), 0.5))
        >>> float(units["keyboard/midi_f0"]), float(units["vco_1/mod_depth"]), units["mixer/level"].shape
        (63.5, 0.0, torch.Size([1, 2]))
    """
    voice.validate(parameters)
    parts = in_units(voice, parameters).split(voice.sizes, dim=1)
    return {
        name: part.squeeze(1) if part.shape[1] == 1 and name != "mixer/level" else part
        for name, part in zip(voice.slices, parts, strict=True)
    }


def from_units(voice: Voice, units: Mapping[str, Tensor]) -> Tensor:
    """Positions of parameters that are in their units: the inverse of `to_units`.

    Args:
        voice: Which synthesizer.
        units: By "module/parameter", as from `to_units`.

    Returns:
        In [0, 1], shape `(batch, P)`.

    Raises:
        ValueError: if a parameter is missing or unknown, or a value lies outside of its range.

    Example:
        >>> from audiopg.data_scripts.voices import get_voice
        >>> voice = get_voice("voice")
        >>> theta = draw(voice, seed=0, indices=[0])
        >>> torch.allclose(from_units(voice, to_units(voice, theta)), theta, atol=1e-4)
        True
    """
    if set(units) != set(voice.slices):
        odd = sorted(set(units) ^ set(voice.slices))
        raise ValueError(f"Units are those of all parameters of this voice; missing or unknown: {', '.join(odd)}.")
    for name, of in voice.ranges.items():
        if not bool(((units[name] >= of.low) & (units[name] <= of.high)).all()):
            raise ValueError(
                f"{name}: values lie between {of.low:g} and {of.high:g} {of.unit}".rstrip()
                + f", got {units[name].min():g} to {units[name].max():g}."
            )
    values = torch.cat([units[name].reshape(len(units[name]), -1) for name in voice.slices], dim=1)
    low, span, curve, symmetric = _columns(voice, values.device)
    return curved((values - low) / span, curve, symmetric).to(values.dtype)
