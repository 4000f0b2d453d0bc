"""What of a set of images tells, before anything is probed, how well its encoder will do: correlations over a grid."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from scipy.stats import pearsonr, spearmanr

from audiopg.data_scripts.figures import STYLE
from audiopg.data_scripts.patterns import OF_THE_PAPER
from audiopg.training.ablation.grid import RANDOM
from audiopg.training.evaluation.probes import LOG_MEL

PREDICTORS = {
    "total_variation": "total variation of its images",
    "blank_share": "share of blank patches",
    "loss": "loss on hidden patches",
}
"""What is asked of every set, by name."""

FEWEST_SETS = 4
"""With three points an interval of a correlation is not defined."""


def metric_of(report: Mapping[str, Any]) -> str:
    """What a report's scores are, in words.

    Example:
        >>> metric_of({"metric": "mean_average_precision"})
        'mean average precision'
    """
    return report["metric"].replace("_", " ")


def points(report: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Every predictor and the `score`, in per cent, of the cells that were trained on images, means over seeds.

    Images that are limited in number say as much about their number as about their set: cells with fewer images than
    examples are left out where another cell has the same set without that limit.

    Args:
        report: What `results.json` of a grid holds.
    """
    cells = {name: runs for name, runs in report["results"].items() if "images" in runs[0]}
    unlimited = {runs[0]["images"]["patterns"] for name, runs in cells.items() if not _limit(report, name)}
    return {
        name: {
            "total_variation": float(np.mean([run["images"]["total_variation"] for run in runs])),
            "blank_share": float(np.mean([run["images"]["blank_share"] for run in runs])),
            "loss": float(np.mean([run["loss"] for run in runs])),
            "score": 100 * report["summary"][name]["score"]["mean"],
        }
        for name, runs in cells.items()
        if not _limit(report, name) or runs[0]["images"]["patterns"] not in unlimited
    }


def _limit(report: Mapping[str, Any], cell: str) -> int | None:
    return report["grid"]["cells"][cell]["overrides"].get("patterns", {}).get("num_images")


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
        (0.9, 0.086, 0.994, 0.9)
    """
    if len(set(x)) == 1 or len(set(y)) == 1:
        return {"r": None, "low": None, "high": None, "p": None, "rho": None, "number": len(x)}
    pearson = pearsonr(x, y)
    low, high = pearson.confidence_interval(0.95)
    values = {"r": pearson.statistic, "low": low, "high": high, "p": pearson.pvalue, "rho": spearmanr(x, y).statistic}
    return {**{name: round(float(value), 3) for name, value in values.items()}, "number": len(x)}


def correlations(report: Mapping[str, Any]) -> dict[str, dict[str, dict[str, float | None]]]:
    """How scores follow each of the `PREDICTORS`, over all sets of a grid and over those of the paper.

    Args:
        report: What `results.json` of a grid holds.

    Returns:
        `correlation` by group of sets and predictor; empty for a grid of fewer than four sets.
    """
    found = points(report)
    images = {name: report["results"][name][0]["images"]["patterns"] for name in found}
    groups = {
        "all sets": list(found.values()),
        "sets of the paper": [point for name, point in found.items() if images[name] in OF_THE_PAPER],
    }
    return {
        group: {
            name: correlation(*zip(*((one[name], one["score"]) for one in chosen), strict=True)) for name in PREDICTORS
        }
        for group, chosen in groups.items()
        if len(chosen) >= FEWEST_SETS
    }


def format_correlations(report: Mapping[str, Any]) -> str:
    """The correlations of a report as a Markdown table; empty where there are none.

    Args:
        report: What `results.json` of a grid holds.
    """
    found = report.get("correlations")
    if not found:
        return ""
    lines = ["| correlation of the score with | " + " | ".join(found) + " |", "|---" * (1 + len(found)) + "|"]
    for name, words in PREDICTORS.items():
        lines.append(f"| {words} | " + " | ".join(_words(group[name]) for group in found.values()) + " |")
    return "\n".join([*lines, "", "Pearson's r [95 % interval], p, Spearman's rho, and the number of sets."]) + "\n"


def _words(found: Mapping[str, float | None]) -> str:
    if found["r"] is None:
        return f"none: all alike ({found['number']})"
    return (
        f"{found['r']:+.2f} [{found['low']:+.2f}, {found['high']:+.2f}], p {found['p']:.2f}, rho {found['rho']:+.2f} "
        f"({found['number']})"
    )


def draw_predictors(report: Mapping[str, Any]) -> Figure:
    """Score over each predictor, a named point for every set; those of the paper filled.

    Args:
        report: What `results.json` of a grid holds.

    Returns:
        The figure.
    """
    found, all_sets = points(report), report["correlations"]["all sets"]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(12, 4.5), layout="constrained")
        for axis, (predictor, words) in zip(figure.subplots(1, 3, sharey=True), PREDICTORS.items(), strict=True):
            for name, point in found.items():
                is_theirs = report["results"][name][0]["images"]["patterns"] in OF_THE_PAPER
                place = point[predictor], point["score"]
                axis.plot(*place, "o", color="#33508a", fillstyle="full" if is_theirs else "none", markersize=4)
                axis.annotate(name, place, xytext=(3, 2), textcoords="offset points", fontsize=5)
            axis.set(xlabel=words, title=_words(all_sets[predictor]))
            for reference, style in ((RANDOM, "--"), (LOG_MEL, ":")):
                axis.axhline(100 * report["summary"][reference]["score"]["mean"], color="#9a9a9a", linestyle=style)
        figure.axes[0].set_ylabel(f"{report['dataset']}, linear probe, {metric_of(report)}, %")
        figure.supxlabel(f"filled: sets of the paper; dashed: {RANDOM}; dotted: {LOG_MEL}", fontsize=7)
        return figure
