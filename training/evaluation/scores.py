"""Scores of classifiers in NumPy, and how sure one may be of their mean over folds.

The folder `metrics` has the same scores as `evaluate` modules.
"""

import math
from collections.abc import Sequence

import numpy as np


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
    return float(np.mean(predictions == references))


def average_precision(scores: np.ndarray, targets: np.ndarray) -> float:
    r"""Average precision of one class: $\sum_n (R_n - R_{n-1}) P_n$ over the distinct scores, from the highest down.

    Args:
        scores: One per clip, higher meaning more likely, shape `(clips,)`.
        targets: Ones and zeros, shape `(clips,)`.

    Returns:
        In [0, 1]; NaN if there is no positive clip.

    Example:
        >>> average_precision(np.array([0.9, 0.8, 0.1]), np.array([1, 0, 1]))
        0.8333333333333333
    """
    if not targets.any():
        return math.nan
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(targets[order])
    last_of_a_tie = np.append(np.diff(scores[order]) != 0, True)
    hits, ranks = hits[last_of_a_tie], np.arange(1, len(scores) + 1)[last_of_a_tie]
    return float(np.sum(np.diff(hits, prepend=0) / targets.sum() * hits / ranks))


def macro_average_precision(scores: np.ndarray, targets: np.ndarray) -> float:
    """Mean over classes of `average_precision`: "mAP" of the audio tagging literature.

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
    precisions = [average_precision(scores[:, k], targets[:, k]) for k in range(scores.shape[1])]
    known = [value for value in precisions if not math.isnan(value)]
    if not known:
        raise ValueError("Average precision needs a positive clip in some class, and there is none.")
    return float(np.mean(known))


def student_t_quantile(confidence: float, degrees: int) -> float:
    r"""The $t$ with $P(|T| \le t)$ = `confidence` for Student's distribution, from its closed form for whole degrees.

    With $\theta = \arctan(t / \sqrt{\nu})$ (Abramowitz and Stegun, 26.7.3 and 26.7.4), by bisection.

    Args:
        confidence: In (0, 1).
        degrees: Degrees of freedom $\nu$, 1 or more.

    Returns:
        The quantile.

    Example:
        >>> round(student_t_quantile(0.95, 4), 3)
        2.776
    """
    low, high = 0.0, math.pi / 2
    for _ in range(200):
        theta = (low + high) / 2
        low, high = (theta, high) if _within(theta, degrees) < confidence else (low, theta)
    return math.sqrt(degrees) * math.tan((low + high) / 2)


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
    half = student_t_quantile(confidence, len(values) - 1) * std / math.sqrt(len(values))
    return {"mean": mean, "std": std, "low": mean - half, "high": mean + half}


def _within(theta: float, degrees: int) -> float:
    r"""$P(|T| \le \sqrt{\nu} \tan\theta)$."""
    sine, cosine = math.sin(theta), math.cos(theta)
    odd = degrees % 2
    term = total = (cosine if odd else 1.0) if degrees > 1 else 0.0
    for k in range(2 + odd, degrees - 1, 2):
        term *= cosine**2 * (k - 1) / k
        total += term
    return 2 / math.pi * (theta + sine * total) if odd else sine * total
