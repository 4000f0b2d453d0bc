"""What a classifier takes for what: the confusion matrix, the most confused pairs, and what their clips look like."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from audiopg.data_scripts.figures import STYLE, save_figure
from audiopg.modeling.spectrogram_audiopg import HOP_LENGTH_SECONDS
from audiopg.training.features.cache import FeatureCache
from audiopg.training.runs.names import markdown

NUM_PAIRS = 10
_NUM_DRAWN = 4
_MOST_NUMBERS = 20  # larger matrices are left without numbers in their cells


def confusion_matrix(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many clips of each class were taken for each class.

    A clip with several labels counts as right if the highest score is one of them; otherwise every one of its labels
    was taken for that class.

    Args:
        logits: Shape `(clips, classes)`.
        labels: Classes `(clips,)`, or zeros and ones `(clips, classes)`.

    Returns:
        Counts, shape `(true classes, predicted classes)`.

    Example:
        >>> confusion_matrix(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([0, 1])).tolist()
        [[1, 0], [1, 0]]
    """
    predicted, num_classes = logits.argmax(axis=1), logits.shape[1]
    present = labels.astype(bool) if labels.ndim == 2 else np.eye(num_classes, dtype=bool)[labels]
    right = present[np.arange(len(predicted)), predicted]
    counts = np.zeros((num_classes, num_classes), dtype=int)
    np.add.at(counts, (predicted[right], predicted[right]), 1)
    for clip in np.flatnonzero(~right):
        counts[present[clip], predicted[clip]] += 1
    return counts


def confusions(
    logits: np.ndarray, labels: np.ndarray, clips: Sequence[int] | np.ndarray, cache: FeatureCache
) -> dict[str, Any]:
    """The confusion matrix and the most confused pairs, as plain values.

    Args:
        logits: Of clips that were tested on, shape `(clips, classes)`.
        labels: Of these clips, as `confusion_matrix` takes them.
        clips: Which of the data set's clips they are.
        cache: The data set.

    Returns:
        `class_names`; `matrix` (counts, a row per true class); and `pairs`, the ten with the highest rate: `true`,
        `predicted`, `rate` (share of the true class's clips), `count`, `of`, and `example`, the clip that was taken
        for the other most confidently.
    """
    matrix = confusion_matrix(logits, labels)
    totals = matrix.sum(axis=1)
    wrong = [(t, p) for t, p in zip(*np.nonzero(matrix), strict=True) if t != p]
    wrong.sort(key=lambda pair: (-matrix[pair] / totals[pair[0]], pair))
    pairs = [
        {
            "true": cache.class_names[true],
            "predicted": cache.class_names[predicted],
            "rate": round(float(matrix[true, predicted] / totals[true]), 4),
            "count": int(matrix[true, predicted]),
            "of": int(totals[true]),
            "example": cache.clips[int(clips[_example(logits, labels, true, predicted)])],
        }
        for true, predicted in wrong[:NUM_PAIRS]
    ]
    return {"class_names": cache.class_names, "matrix": matrix.tolist(), "pairs": pairs}


def format_pairs(found: dict[str, Any]) -> str:
    """The most confused pairs as a Markdown table.

    Example:
        >>> pair = {"true": "rain", "predicted": "sea", "rate": 0.375, "count": 3, "of": 8, "example": "1.wav"}
        >>> print(format_pairs({"pairs": [pair]}))
        | true | taken for | rate | clips | example |
        |---|---|---|---|---|
        | rain | sea | 37.5 % | 3 of 8 | 1.wav |
    """
    lines = ["| true | taken for | rate | clips | example |", "|---|---|---|---|---|"]
    lines += [
        f"| {markdown(p['true'])} | {markdown(p['predicted'])} | {100 * p['rate']:.1f} % | {p['count']} of {p['of']} "
        f"| {markdown(p['example'])} |"
        for p in found["pairs"]
    ]
    return "\n".join(lines)


def draw_confusion_matrix(found: dict[str, Any], path: Path) -> Path:
    """Draw the matrix, each row in shares of its class.

    Args:
        found: As from `confusions`.
        path: PNG to write.

    Returns:
        The path.
    """
    counts, names = np.array(found["matrix"]), found["class_names"]
    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    size = max(3.0, 0.22 * len(names))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(size + 1.5, size + 1), layout="constrained")
        axis = figure.subplots()
        axis.imshow(shares, vmin=0, vmax=1, origin="upper", cmap="Blues", aspect="equal")
        small = len(names) <= _MOST_NUMBERS
        for true, predicted in zip(*np.nonzero(counts), strict=True) if small else ():
            colour = "white" if shares[true, predicted] > 0.5 else "black"
            axis.text(predicted, true, counts[true, predicted], ha="center", va="center", fontsize=6, color=colour)
        axis.set_xticks(range(len(names)), names, rotation=90, fontsize=7 if small else 4)
        axis.set_yticks(range(len(names)), names, fontsize=7 if small else 4)
        axis.set(xlabel="predicted", ylabel="true")
        right = counts.trace() / counts.sum()
        axis.set_title(f"Tested clips, {100 * right:.1f} % of {counts.sum()} as their own class", loc="left")
        return save_figure(figure, path)


def draw_confused_clips(found: dict[str, Any], cache: FeatureCache, path: Path) -> Path | None:
    """Draw the log-mel of an example of each of the most confused pairs.

    Args:
        found: As from `confusions`.
        cache: The data set.
        path: PNG to write.

    Returns:
        The path; None where nothing was confused, and then no file is written.
    """
    pairs = found["pairs"][:_NUM_DRAWN]
    if not pairs:
        return None
    position = {name: index for index, name in enumerate(cache.clips)}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.2 * len(pairs), 2.2), layout="constrained")
        for axis, pair in zip(figure.subplots(1, len(pairs), squeeze=False)[0], pairs, strict=True):
            frames = cache.clip_frames(position[pair["example"]]).float().numpy()
            axis.imshow(frames.T, extent=(0, len(frames) * HOP_LENGTH_SECONDS, 0, frames.shape[1]))
            axis.set(xlabel="s", ylabel="mel band", yticks=[])
            axis.set_title(
                f"{pair['true']} as {pair['predicted']}: {100 * pair['rate']:.1f} %\n{Path(pair['example']).name}",
                loc="left",
            )
        return save_figure(figure, path)


def _example(logits: np.ndarray, labels: np.ndarray, true: int, predicted: int) -> int:
    """Position of the clip of class `true` that was taken for `predicted` with the largest lead."""
    present = labels[:, true].astype(bool) if labels.ndim == 2 else labels == true
    if labels.ndim == 2:
        present = present & ~labels[:, predicted].astype(bool)
    candidates = np.flatnonzero(present & (logits.argmax(axis=1) == predicted))
    return int(candidates[np.argmax(logits[candidates, predicted] - logits[candidates, true])])
