"""What tells, before a recording is heard, how well an encoder will do: correlations of scores over a grid's cells.

Of every encoder, how well factors of held-out synthesized clips are decoded from it; of one that was trained on
images, also what those are like, and its loss.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from scipy.stats import pearsonr, spearmanr

from audiopg.data_scripts.figures import STYLE
from audiopg.data_scripts.patterns import OF_THE_PAPER
from audiopg.training.evaluation.results import LOG_MEL, RANDOM_ENCODER

PREDICTORS = {
    "factors": "R² of factors of synthesized clips, mean",
    "total_variation": "total variation of its images",
    "blank_share": "share of blank patches",
    "loss": "loss on hidden patches of images",
}
"""What is asked of every cell, by name."""

FEWEST = 4
"""With three points an interval of a correlation is not defined."""


def metric_of(report: Mapping[str, Any]) -> str:
    """What a report's scores are, in words.

    Example:
        >>> metric_of({"metric": "mean_average_precision"})
        'mean average precision'
    """
    return report["metric"].replace("_", " ")


def points(report: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Of every cell the `score` in per cent and, as far as they are known, the predictors; means over seeds.

    Images that are limited in number say as much about their number as about their set: a cell of few is left out
    where another has the same set without a limit.

    Args:
        report: What `results.json` of a grid holds.
    """
    cells = {name: runs for name, runs in report["results"].items() if name in report["grid"]["cells"]}
    unlimited = {_images(runs) for name, runs in cells.items() if not _limit(report, name)}
    found = {}
    for name, runs in cells.items():
        if _limit(report, name) and _images(runs) in unlimited:
            continue
        values = {"score": [100 * report["summary"][name]["score"]["mean"]]}
        values["factors"] = [float(np.mean(list(run["factors"].values()))) for run in runs]
        if _images(runs):
            values |= {of: [run["images"][of] for run in runs] for of in ("total_variation", "blank_share")}
            values["loss"] = [run["loss"] for run in runs]
        found[name] = {of: float(np.mean(one)) for of, one in values.items()}
    return found


def _images(runs: Sequence[Mapping[str, Any]]) -> str | None:
    """The set of images that runs of a cell were trained on, if any."""
    return runs[0]["images"]["patterns"] if "images" in runs[0] else None


def _limit(report: Mapping[str, Any], cell: str) -> int | None:
    return (report["grid"]["cells"][cell]["overrides"].get("patterns") or {}).get("num_images")


def correlation(x: Sequence[float], y: Sequence[float]) -> dict[str, float | None]:
    """Pearson's r with its 95 % interval by Fisher's transform and two-sided p, and Spearman's rho.

    Args:
        x: Of every set.
        y: Likewise.

    Returns:
        `r`, `low`, `high`, `p`, `rho`, rounded to 3 decimals, and the `number` of sets; without a value where all x
        or all y are the same.

    Example:
        >>> found = correlation([1, 2, 3, 4, 5], [1, 2, 3, 5, 4])
        >>> found["r"], found["low"], found["high"], found["rho"]
        (0.9, 0.086, 0.993, 0.9)
    """
    if len(set(x)) == 1 or len(set(y)) == 1:
        return {"r": None, "low": None, "high": None, "p": None, "rho": None, "number": len(x)}
    pearson = pearsonr(x, y)
    low, high = pearson.confidence_interval(0.95)
    values = {"r": pearson.statistic, "low": low, "high": high, "p": pearson.pvalue, "rho": spearmanr(x, y).statistic}
    return {**{name: round(float(value), 3) for name, value in values.items()}, "number": len(x)}


def correlations(report: Mapping[str, Any]) -> dict[str, dict[str, dict[str, float | None]]]:
    """How scores follow each of the `PREDICTORS`, over all cells of a grid and over the sets of images of the paper.

    Args:
        report: What `results.json` of a grid holds.

    Returns:
        `correlation` by group of cells and predictor, where four cells or more have it; of the paper, four sets.
    """
    found = points(report)
    groups = {
        "all cells": found,
        "sets of the paper": {
            name: point for name, point in found.items() if _images(report["results"][name]) in OF_THE_PAPER
        },
    }
    told: dict[str, dict[str, dict[str, float | None]]] = {}
    if len({_images(report["results"][name]) for name in groups["sets of the paper"]}) < FEWEST:
        del groups["sets of the paper"]
    for group, cells in groups.items():
        for predictor in PREDICTORS:
            pairs = [(point[predictor], point["score"]) for point in cells.values() if predictor in point]
            if len(pairs) >= FEWEST:
                told.setdefault(group, {})[predictor] = correlation(*zip(*pairs, strict=True))
    return told


def format_correlations(report: Mapping[str, Any]) -> str:
    """The correlations of a report as a Markdown table; empty where there are none.

    Args:
        report: What `results.json` of a grid holds.
    """
    found = report.get("correlations")
    if not found:
        return ""
    lines = ["| correlation of the score with | " + " | ".join(found) + " |", "|---" * (1 + len(found)) + "|"]
    for name in found["all cells"]:
        cells = " | ".join(_words(group[name]) for group in found.values())
        lines.append(f"| {PREDICTORS[name]} | {cells} |")
    return "\n".join([*lines, "", "Pearson's r [95 % interval], p, Spearman's rho, and the number of cells."]) + "\n"


def _words(found: Mapping[str, float | None]) -> str:
    if found["r"] is None:
        return f"none: all alike ({found['number']})"
    return (
        f"{found['r']:+.2f} [{found['low']:+.2f}, {found['high']:+.2f}], p {found['p']:.2f}, rho {found['rho']:+.2f} "
        f"({found['number']})"
    )


def draw_predictors(report: Mapping[str, Any]) -> Figure:
    """Score over each predictor, a named point for every cell; the sets of images of the paper filled.

    Args:
        report: What `results.json` of a grid holds.

    Returns:
        The figure.
    """
    found, told = points(report), report["correlations"]["all cells"]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4 * len(told), 4.5), layout="constrained")
        axes = figure.subplots(1, len(told), sharey=True, squeeze=False)[0]
        for axis, predictor in zip(axes, told, strict=True):
            for name, point in found.items():
                if predictor not in point:
                    continue
                is_theirs = _images(report["results"][name]) in OF_THE_PAPER
                place = point[predictor], point["score"]
                axis.plot(*place, "o", color="#33508a", fillstyle="full" if is_theirs else "none", markersize=4)
                axis.annotate(name, place, xytext=(3, 2), textcoords="offset points", fontsize=5)
            axis.set(xlabel=PREDICTORS[predictor], title=_words(told[predictor]))
            for reference, style in ((RANDOM_ENCODER, "--"), (LOG_MEL, ":")):
                axis.axhline(100 * report["summary"][reference]["score"]["mean"], color="#9a9a9a", linestyle=style)
        figure.axes[0].set_ylabel(f"{report['dataset']}, linear probe, {metric_of(report)}, %")
        figure.supxlabel(f"filled: sets of the paper; dashed: {RANDOM_ENCODER}; dotted: {LOG_MEL}", fontsize=7)
        return figure
