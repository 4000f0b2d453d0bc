"""What embeddings tell: factors decoded beside the truth, and which sounds lie nearest. Knows no Gradio."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from audiopg.data_scripts.probe_clips import FACTORS, Factor, FactorClips, probe_clips
from audiopg.data_scripts.synthesis import Preset
from audiopg.training.evaluation.factor_scores import fit_decoder, score_above_chance

Embed = Callable[[Sequence[np.ndarray]], np.ndarray]
"""From waveforms to embeddings `(clips, width)`."""

NUM_FITTED, NUM_HELD_OUT = 320, 80


@dataclass(frozen=True)
class Decoders:
    """Linear maps from embeddings to the factors of one probe set, and how they fare on clips they never saw.

    Args:
        clips: Held-out ones, with their factors.
        embeddings: Of these.
        decoded: Of each factor, what the map says of each of them.
        scores: Of each factor, R^2, or for classes the share of what chance leaves; 1 is perfect.
    """

    clips: FactorClips
    embeddings: np.ndarray
    decoded: dict[str, np.ndarray]
    scores: dict[str, float]


def fit_decoders(
    preset: Preset, probe_set: str, embed: Embed, num_fitted: int = NUM_FITTED, num_held_out: int = NUM_HELD_OUT
) -> Decoders:
    """Fit on the last clips of a probe set's stream, and try on the first.

    Args:
        preset: Whose clips.
        probe_set: A name out of `PROBE_SETS`.
        embed: The encoder.
        num_fitted: Clips to fit on.
        num_held_out: Clips to try on.

    Returns:
        What was decoded of those that were held out, and how well.
    """
    clips = probe_clips(preset, probe_set, num_held_out + num_fitted)
    embeddings = embed(list(clips.waveforms))
    held, fitted = slice(None, num_held_out), slice(num_held_out, None)
    decoded, scores = {}, {}
    for name, values in clips.factors.items():
        kind = FACTORS[name].kind
        decoded[name] = fit_decoder(embeddings[fitted], values[fitted], kind)(embeddings[held])
        scores[name] = score_above_chance(decoded[name], values[fitted], values[held], kind)
    factors = {name: values[held] for name, values in clips.factors.items()}
    return Decoders(
        FactorClips(clips.waveforms[held], clips.sampling_rate, factors), embeddings[held], decoded, scores
    )


def said_factor(name: str, value: float) -> str:
    """A factor's value in words, logarithms in what they are of.

    Example:
        >>> said_factor("frequency", np.log2(440)), said_factor("transient", 1), said_factor("onset", 0.5)
        ('440 Hz', 'present', '0.50 s')
    """
    factor = FACTORS[name]
    if factor.names:
        return factor.names[int(value)]
    if factor.logarithmic:
        return f"{2**value:.0f} Hz"
    return f"{value:.{_digits(factor)}f} {factor.unit}".rstrip().removesuffix(".0")


def said_difference(name: str, true: float, found: float) -> str:
    """How far what was decoded lies from the truth, in words.

    Example:
        >>> said_difference("frequency", 8.0, 8.25), said_difference("mode", 0, 1), said_difference("onset", 1, 0.5)
        ('+3.0 semitones', 'wrong', '-0.50 s')
    """
    factor = FACTORS[name]
    if factor.names:
        return "right" if int(true) == int(found) else "wrong"
    if factor.logarithmic:
        return f"{12 * (found - true):+.1f} semitones"
    return f"{found - true:+.{_digits(factor)}f} {factor.unit}".rstrip()


def _digits(factor: Factor) -> int:
    return 2 if factor.unit == "s" else 1


def decoded_table(decoders: Decoders, clip: int) -> list[list[str]]:
    """A row for each factor of a held-out clip: name, truth, decoded, difference, score on all held-out clips."""
    return [
        [
            name,
            said_factor(name, values[clip]),
            said_factor(name, decoders.decoded[name][clip]),
            said_difference(name, values[clip], decoders.decoded[name][clip]),
            f"{decoders.scores[name]:.3f}",
        ]
        for name, values in decoders.clips.factors.items()
    ]


def nearest(query: np.ndarray, embeddings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""Which embeddings lie nearest to one, by cosine: $\cos(a, b) = a \cdot b / (|a|\, |b|)$.

    Args:
        query: Shape `(width,)`.
        embeddings: Shape `(sounds, width)`.

    Returns:
        Positions from the nearest on, and the cosine of each of those.

    Example:
        >>> order, cosines = nearest(np.array([1.0, 0.0]), np.array([[0.0, 2.0], [3.0, 0.0], [1.0, 1.0]]))
        >>> order.tolist(), cosines.round(2).tolist()
        ([1, 2, 0], [1.0, 0.71, 0.0])
    """
    lengths = np.linalg.norm(embeddings, axis=1) * np.linalg.norm(query)
    cosines = embeddings @ query / np.maximum(lengths, np.finfo(np.float64).tiny)
    order = np.argsort(-cosines, kind="stable")
    return order, cosines[order]


__all__ = [
    "NUM_FITTED",
    "NUM_HELD_OUT",
    "Decoders",
    "decoded_table",
    "fit_decoders",
    "nearest",
    "said_difference",
    "said_factor",
]
