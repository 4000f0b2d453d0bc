"""Results of several conditions on one data set: a row of scores each, one table for all."""

from collections.abc import Mapping, Sequence
from typing import Any

from audiopg.training.runs.names import markdown

FROZEN = "pre-trained encoder"
"""The row of a probe that is the checkpoint's own."""

LOG_MEL, RANDOM_ENCODER = "log-mel mean and deviation", "random encoder"
"""Rows of what needs no pre-training: no encoder at all, and one that has learnt nothing."""

READ_AS = {"mean": "", "mel": ", mel rows apart", "mel_std": ", mel rows and their deviations apart"}
"""By pooling, what is added to the name of the features."""

PRETRAINED, SCRATCH = "pre-trained, fine-tuned", "from scratch, same budget"
"""Names of the rows that fine-tuning adds to those of the probes."""


def read_out_name(layer: int | None, pooling: str) -> str:
    """What stands behind an encoder's name where its features are those of a layer, pooled.

    Example:
        >>> read_out_name(4, "mel"), read_out_name(None, "mean")
        (', layer 4, mel rows apart', '')
    """
    return ("" if layer is None else f", layer {layer}") + READ_AS[pooling]


def row_of(scores: Sequence[float]) -> dict[str, Any]:
    """A row of results.

    Args:
        scores: One per round, in [0, 1].

    Returns:
        `scores`, and what `mean_and_interval` says of them.

    Example:
        >>> row_of([0.5])
        {'scores': [0.5], 'mean': 0.5, 'std': None, 'low': None, 'high': None}
    """
    from audiopg.training.evaluation.scores import mean_and_interval  # needs SciPy: a machine that exports may lack it

    return {"scores": list(scores), **mean_and_interval(scores)}


def format_rows(head: str, rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Rows of results as a Markdown table, in per cent.

    Args:
        head: What the table is of.
        rows: By name, as from `row_of`; some have `chroma` too, a score per round.

    Returns:
        The table.

    Example:
        >>> print(format_rows("ESC-10, accuracy", {"x": row_of([0.5, 0.75])}))
        | ESC-10, accuracy in % | mean | std | 95 % interval | each |
        |---|---|---|---|---|
        | x | 62.50 | 17.68 | -96.3 to 221.3 | 50.0 75.0 |
    """
    with_chroma = any("chroma" in row for row in rows.values())
    lines = [
        f"| {markdown(head)} in % | mean | std | 95 % interval | each |{' chroma |' if with_chroma else ''}",
        "|---|---|---|---|---|" + ("---|" if with_chroma else ""),
    ]
    for name, row in rows.items():
        each = " ".join(f"{100 * value:.1f}" for value in row["scores"])
        std = "" if row["std"] is None else f"{100 * row['std']:.2f}"
        interval = "" if row["low"] is None else f"{100 * row['low']:.1f} to {100 * row['high']:.1f}"
        chroma = f" {100 * sum(row['chroma']) / len(row['chroma']):.2f} |" if "chroma" in row else ""
        lines.append(f"| {markdown(name)} | {100 * row['mean']:.2f} | {std} | {interval} | {each} |{chroma}")
    return "\n".join(lines)


def format_results(results: Mapping[str, Any]) -> str:
    """What `probe.py` or `finetune.py` found, as a Markdown table.

    Args:
        results: With `dataset`, `metric`, `results` (rows by name) and, of `probe.py`, `probe`, whose the rows are
            that name no other.

    Returns:
        The table.

    Example:
        >>> results = {"dataset": "ESC-10", "metric": "accuracy", "results": {"x": row_of([0.5])}}
        >>> print(format_results(results))
        | ESC-10, accuracy in % | mean | std | 95 % interval | each |
        |---|---|---|---|---|
        | x | 50.00 |  |  | 50.0 |
    """
    read_by = [f"{results['probe']} probe"] if "probe" in results else []
    return format_rows(
        ", ".join([results["dataset"], *read_by, results["metric"].replace("_", " ")]), results["results"]
    )
