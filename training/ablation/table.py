"""What a grid of ablations says: differences with their intervals, a table, a chart. From `results.json` alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from audiopg.data_scripts.figures import STYLE
from audiopg.data_scripts.probe_clips import FACTORS
from audiopg.training.ablation.predictors import format_correlations, metric_of
from audiopg.training.evaluation.results import LOG_MEL, RANDOM_ENCODER
from audiopg.training.evaluation.scores import mean_and_interval
from audiopg.training.runs.names import markdown

_COLOURS = {RANDOM_ENCODER: "#d49a3a", LOG_MEL: "#9a9a9a"}

_MOST_UPRIGHT = 12
"""With more cells than these their names are turned."""

Results = Mapping[str, Sequence[Mapping[str, Any]]]
"""By cell, one result per seed, in the same order, each with `scores`, one per round."""


def summarise(
    results: Results, reference: str, tested: Sequence[int]
) -> dict[str, dict[str, dict[str, float | None]]]:
    """Score of every cell and its difference to the reference.

    Both intervals are Student's, 95 %. That of the score is over seeds, each the mean of its rounds. That of the
    difference is over all pairs of seed and round: the cells are tested on the same clips, so that a fold's
    difficulty, most of the spread, drops out. Folds share training clips, so it is a guide and no proof; where there
    are official splits there is one round, and both are over seeds.

    Args:
        results: Of all cells.
        reference: The cell to compare with.
        tested: Positions of the rounds that count.

    Returns:
        For each cell `score` and `difference`, as from `mean_and_interval`. A cell of one result is compared
        with every seed.

    Example:
        >>> cells = {"a": [{"scores": [0.5, 0.7]}], "b": [{"scores": [0.6, 0.8]}]}
        >>> round(summarise(cells, "a", tested=[0, 1])["b"]["difference"]["low"], 3)
        0.1
        >>> round(summarise(cells, "a", tested=[1])["b"]["score"]["mean"], 3)
        0.8
    """
    scores = {name: _scores(found, tested) for name, found in results.items()}
    return {
        name: {
            "score": mean_and_interval(rounds.mean(axis=1).tolist()),
            "difference": mean_and_interval((rounds - scores[reference]).ravel().tolist()),
        }
        for name, rounds in scores.items()
    }


def is_beyond_spread(difference: Mapping[str, float | None]) -> bool:
    """Whether an interval of a difference leaves zero out.

    Example:
        >>> is_beyond_spread({"mean": 0.1, "low": -0.1, "high": 0.3})
        False
    """
    low, high = difference["low"], difference["high"]
    return low is not None and high is not None and (low > 0 or high < 0)


def verdict(difference: Mapping[str, float | None], num_seeds: int) -> str:
    """Whether a difference is larger than its spread, in a word; one seed cannot say, however many folds it has.

    Example:
        >>> verdict({"mean": 0.1, "low": 0.05, "high": 0.15}, num_seeds=1)
        'one seed'
    """
    if num_seeds < 2:
        return "one seed"
    return "yes" if is_beyond_spread(difference) else "no"


def mean_factors(runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """How well factors are decoded, mean over the runs: each of the paper's three, and where there are more, all.

    Example:
        >>> mean_factors([{"factors": {"onset": 0.5}}, {"factors": {"onset": 0.75}}])
        {'onset': 0.625}
        >>> mean_factors([{"factors": {"onset": 0.5, "mode": 1.0}}])
        {'onset': 0.5, 'all 2': 0.75}
    """
    means = {name: float(np.mean([run["factors"][name] for run in runs])) for name in runs[0]["factors"]}
    shown = {name: mean for name, mean in means.items() if FACTORS[name].paper}
    return shown if len(shown) == len(means) else {**shown, f"all {len(means)}": float(np.mean(list(means.values())))}


def format_table(report: Mapping[str, Any]) -> str:
    """All cells of a report as a Markdown table: scores in per cent, R^2 of the factors.

    Args:
        report: What `results.json` holds.

    Returns:
        The table, and a line that says what its numbers are.
    """
    grid, results, seeds = report["grid"], report["results"], report["grid"]["seeds"]
    factors = list(mean_factors(results[grid["reference"]]))
    has_neighbours = "neighbours" in results[grid["reference"]][0]  # which older reports have not
    name, reference, dataset = map(markdown, (grid["name"], grid["reference"], report["dataset"]))
    lines = [
        f"| {name} | clips | minutes | loss | {dataset}, linear probe, {metric_of(report)} in % "
        f"| difference to {reference} | beyond its spread | {'neighbours | ' * has_neighbours}{' | '.join(factors)} "
        "| paper, fine-tuned |",
        "|---" * (8 + has_neighbours + len(factors)) + "|",
    ]
    for name, found in report["summary"].items():
        score, difference = found["score"], found["difference"]
        runs, trained = results[name], "clips" in results[name][0]
        minutes = np.mean([run["pretraining_seconds"] for run in runs]) / 60 if trained else 0.0
        spread = "" if score["std"] is None else f" ± {100 * score['std']:.2f}"
        interval = (
            "" if difference["low"] is None else f" [{_percent(difference, 'low')}, {_percent(difference, 'high')}]"
        )
        is_other = name != grid["reference"]
        cells = [
            markdown(name),
            f"{np.mean([run['clips'] for run in runs]):.0f}" if trained else "0",
            f"{minutes:.1f}",
            f"{np.mean([run['loss'] for run in runs]):.3f}" if trained else "",
            f"{_percent(score, 'mean', sign=False)}{spread} ({len(runs)})",
            f"{_percent(difference, 'mean')}{interval}" if is_other else "",
            verdict(difference, len(seeds)) if is_other else "",
            *([f"{100 * _scores(runs, report['tested'], 'neighbours').mean():.2f}"] if has_neighbours else []),
            *(f"{value:.3f}" for value in mean_factors(runs).values()),
            _paper(grid["cells"].get(name, {}).get("paper")),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    tested = f", folds {grid['test_folds']} tested" if grid["test_folds"] else ""
    tested += ", validation clips tested" if report["rounds"] == ["validation"] else ""
    lines += [
        "",
        f"Mean ± standard deviation over seeds {', '.join(map(str, seeds))}, their number in brackets; 95 % intervals "
        f"by seed and round{tested}; {', '.join(factors)}: R² on held-out "
        "synthesized clips. Losses compare between cells of the same clips and targets.",
    ]
    if found := format_correlations(report):
        lines += ["", found.rstrip()]
    return "\n".join(lines) + "\n"


def _percent(found: Mapping[str, float | None], name: str, *, sign: bool = True) -> str:
    value = 100 * (found[name] or 0.0)
    return f"{value:+.2f}" if sign else f"{value:.2f}"


def draw_ablation(report: Mapping[str, Any]) -> Figure:
    """Score and R^2 of every cell, beside what needs no pre-training.

    On the left a point per seed and a bar for the mean, on the right a curve per factor.

    Args:
        report: What `results.json` holds.

    Returns:
        The figure.
    """
    grid, results = report["grid"], report["results"]
    scores = {name: 100 * _scores(runs, report["tested"]).mean(axis=1) for name, runs in results.items()}
    cells = [name for name in results if name not in _COLOURS]
    with matplotlib.rc_context(STYLE):
        is_wide = len(cells) > _MOST_UPRIGHT
        figure = Figure(
            figsize=(2 * (1.5 + (0.25 if is_wide else 0.9) * len(cells)), 4 if is_wide else 2.8), layout="constrained"
        )
        left, right = figure.subplots(1, 2)
        for number, name in enumerate(cells):
            left.plot([number] * len(scores[name]), scores[name], "o", color="#33508a", markersize=4, alpha=0.7)
            left.plot([number - 0.25, number + 0.25], [scores[name].mean()] * 2, color="#33508a", linewidth=2)
        for name, colour in _COLOURS.items():
            left.axhline(scores[name].mean(), color=colour, linestyle="--", linewidth=1, label=name)
        left.set(ylabel=f"{report['dataset']}, linear probe, {metric_of(report)}, %")
        left.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1))
        by_cell = {name: mean_factors(results[name]) for name in (*cells, RANDOM_ENCODER)}
        for factor, marker in zip(by_cell[RANDOM_ENCODER], "os^Dv", strict=False):
            right.plot([by_cell[name][factor] for name in cells], marker + "-", markersize=4, label=factor)
            right.axhline(
                by_cell[RANDOM_ENCODER][factor], color=right.lines[-1].get_color(), linestyle="--", linewidth=1
            )
        right.set(ylabel="R² (dashed: random encoder)")
        right.legend(frameon=False, ncols=len(by_cell[RANDOM_ENCODER]), loc="lower left", bbox_to_anchor=(0, 1))
        for axis in (left, right):
            axis.set_xticks(range(len(cells)), cells, rotation=90 if is_wide else 0)
            axis.set_xlim(-0.5, len(cells) - 0.5)
        figure.supxlabel(grid["name"], fontsize=8)
        return figure


def _scores(runs: Sequence[Mapping[str, Any]], tested: Sequence[int], probe: str = "scores") -> np.ndarray:
    """Of each run in each round that counts, shape `(runs, rounds)`."""
    return np.array([run[probe] for run in runs])[:, list(tested)]


def _paper(figure: float | None) -> str:
    return "" if figure is None else f"{figure:.2f}"
