"""Scores of classifiers, by scikit-learn and SciPy, and how sure one may be of their mean over folds.

The folder `metrics` has the same scores as `evaluate` modules.
"""

import math
import re
from collections.abc import Sequence

import numpy as np
from scipy import stats
from sklearn.metrics import accuracy_score, average_precision_score


def accuracy(predictions: np.ndarray, references: np.ndarray) -> float:
    """Share of clips whose class was predicted.

    Args:
        predictions: Predicted classes, shape `(clips,)`.
        references: True classes, shape `(clips,)`.

    Returns:
        In [0, 1].

    Raises:
        ValueError: if the shapes differ, or there is no clip.

    Example:
        >>> accuracy(np.array([0, 1]), np.array([0, 0]))
        0.5
    """
    if predictions.shape != references.shape or predictions.ndim != 1 or not len(predictions):
        raise ValueError(
            "Accuracy compares one predicted class with one true class per clip, got shapes "
            f"{predictions.shape} and {references.shape}; take the argmax of logits."
        )
    return float(accuracy_score(references, predictions))


def pitches_of(class_names: Sequence[str]) -> np.ndarray | None:
    """The MIDI numbers of classes that are pitches, as HEAR's tasks of pitch call them; None for other classes.

    Example:
        >>> pitches_of(["MIDI 60", "MIDI 72"]), pitches_of(["dog", "MIDI 60"])
        (array([60, 72]), None)
    """
    found = [re.fullmatch(r"MIDI (\d+)", name) for name in class_names]
    return np.array([int(match[1]) for match in found if match]) if all(found) else None


def chroma_accuracy(predictions: np.ndarray, references: np.ndarray) -> float:
    """Share of clips whose pitch was predicted but for octaves: HEAR's second score of NSynth Pitch.

    HEAR takes the numbers of classes modulo 12, which is the same where no pitch between the first and the last is
    missing from the classes.

    Args:
        predictions: Predicted MIDI numbers, shape `(clips,)`.
        references: True MIDI numbers, shape `(clips,)`.

    Returns:
        In [0, 1], not below `accuracy`.

    Raises:
        ValueError: as `accuracy`.

    Example:
        >>> chroma_accuracy(np.array([60, 61]), np.array([72, 60]))
        0.5
    """
    return accuracy(predictions % 12, references % 12)


def macro_average_precision(scores: np.ndarray, targets: np.ndarray) -> float:
    r"""Mean over classes of $\sum_n (R_n - R_{n-1}) P_n$: "mAP" of the audio tagging literature.

    Args:
        scores: Logits or probabilities, shape `(clips, classes)`.
        targets: Ones and zeros, shape `(clips, classes)`.

    Returns:
        In [0, 1]; classes without a positive clip are left out.

    Raises:
        ValueError: if the shapes differ, or no class has a positive clip.

    Example:
        >>> macro_average_precision(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([[1, 0], [0, 1]]))
        1.0
    """
    if scores.shape != targets.shape or scores.ndim != 2:
        raise ValueError(
            f"Scores and targets have one number per clip and class, got shapes {scores.shape} and {targets.shape}."
        )
    known = targets.any(axis=0)
    if not known.any():
        raise ValueError("Average precision needs a positive clip in some class, and there is none.")
    return float(average_precision_score(targets[:, known], scores[:, known], average="macro"))


def score(logits: np.ndarray, labels: np.ndarray) -> float:
    """Accuracy of the highest logit, or macro mAP where clips have several labels.

    Args:
        logits: Shape `(clips, classes)`.
        labels: Classes `(clips,)`, or zeros and ones `(clips, classes)`.

    Returns:
        In [0, 1].

    Raises:
        ValueError: if a logit is NaN or infinity: the highest of them would be a class that nobody predicted. Minus
            infinity is a class that cannot be.

    Example:
        >>> score(np.array([[0.2, 0.8], [0.6, 0.4]]), np.array([1, 1]))
        0.5
    """
    sound = (logits < np.inf).all(axis=1)  # minus infinity is a class that no training clip had; NaN is none of these
    if not sound.all():
        broken = int((~sound).sum())
        raise ValueError(
            f"Logits are finite numbers, and those of {broken} of {len(logits)} clips are not: no score can be made "
            "of them. Lower the learning rate of what made them."
        )
    return macro_average_precision(logits, labels) if labels.ndim == 2 else accuracy(logits.argmax(axis=1), labels)


def bootstrap_interval(correct: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    r"""Percentile bootstrap of an accuracy over test clips, for a data set that is tested once.

    Of $n$ clips of which a share $p$ is right, those that are right among $n$ drawn with replacement are binomial,
    $B(n, p)$: its quantiles are what ever more resamples come to (B. Efron, "Bootstrap Methods", 1979), and nothing
    need be drawn. Training is not repeated, and clips count as independent: with several of a speaker or a source the
    interval is too narrow.

    Args:
        correct: Whether each clip was classified rightly, shape `(clips,)`.
        confidence: Of the interval.

    Returns:
        Its ends, in [0, 1].

    Example:
        >>> bootstrap_interval(np.arange(100) < 80)
        (0.72, 0.88)
    """
    low, high = stats.binom.ppf([(1 - confidence) / 2, (1 + confidence) / 2], len(correct), np.mean(correct))
    return float(low) / len(correct), float(high) / len(correct)


def paired_interval(first: str, second: str, confidence: float = 0.95) -> tuple[float, float, float]:
    """How much more often one classifier is right than another on the same clips, and its bootstrap interval.

    Clips are drawn with replacement 10 000 times, and with each what both said of it: what makes a clip hard for both
    cancels. As for `bootstrap_interval`, training is not repeated, and clips count as independent.

    Args:
        first: `right` of a row of results: `1` or `0` for each tested clip.
        second: Of another, in the same order.
        confidence: Of the interval.

    Returns:
        The difference of the accuracies and the ends of its interval, in [-1, 1].

    Raises:
        ValueError: if they are not of the same number of clips.

    Example:
        >>> paired_interval("1" * 60 + "0" * 40, "1" * 50 + "0" * 50)
        (0.1, 0.05, 0.16)
    """
    if len(first) != len(second):
        raise ValueError(f"Classifiers are compared on the same clips, got {len(first)} and {len(second)}.")
    change = np.array([int(a) - int(b) for a, b in zip(first, second, strict=True)])
    shares = [np.mean(change == value) for value in (-1, 0, 1)]
    drawn = np.random.default_rng(0).multinomial(len(change), shares, size=10_000)
    differences = (drawn[:, 2] - drawn[:, 0]) / len(change)
    low, high = np.quantile(differences, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(change.mean()), float(low), float(high)


def mean_and_interval(values: Sequence[float], confidence: float = 0.95) -> dict[str, float | None]:
    r"""Mean over folds, sample deviation, and the confidence interval $\bar x \pm t_{\nu} s / \sqrt{n}$ of the mean.

    Folds share training clips, so the interval is only a guide (Bengio and Grandvalet 2004): no estimate without bias
    exists.

    Args:
        values: One per fold.
        confidence: Of the interval.

    Returns:
        `mean`, `std` (divided by n - 1), `low` and `high`; the last three are None for a single value.

    Example:
        >>> {name: round(value, 3) for name, value in mean_and_interval([0.7, 0.8, 0.9]).items()}
        {'mean': 0.8, 'std': 0.1, 'low': 0.552, 'high': 1.048}
    """
    mean = float(np.mean(values))
    if len(values) < 2:
        return {"mean": mean, "std": None, "low": None, "high": None}
    std = float(np.std(values, ddof=1))
    half = float(stats.t.ppf((1 + confidence) / 2, len(values) - 1)) * std / math.sqrt(len(values))
    return {"mean": mean, "std": std, "low": mean - half, "high": mean + half}
