"""What listening longer brought: loss, factors and probes at the milestones of one run, in numbers and as a picture.

A milestone lies amid the run's schedule: where the learning rate has still to fall, the encoder is not what a run of
that length, with a schedule of its own, would have given. What the curve says is when this run stopped getting better.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, StrMethodFormatter
from safetensors.torch import load_file
from scipy.stats import spearmanr
from transformers import PreTrainedModel

from audiopg.data_scripts.figures import STYLE, save_both
from audiopg.training.ablation.jobs import (
    FACTOR_PRESET,
    NUM_TEST_CLIPS,
    NUM_TRAINING_CLIPS,
    Features,
    features_by,
    kept_or_made,
    measure_classes,
    measure_factors,
)
from audiopg.training.evaluation.protocols import rounds_of
from audiopg.training.evaluation.results import LOG_MEL, read_out_name
from audiopg.training.features.batches import Batches
from audiopg.training.features.embeddings import log_mel_statistics
from audiopg.training.features.labelled import DataOptions
from audiopg.training.objectives.pretraining import TrainedRun
from audiopg.training.runs.files import write_atomically
from audiopg.training.runs.metrics_log import read_metrics
from audiopg.training.runs.provenance import environment

_PROBES = {"scores": "linear", "neighbours": "neighbours"}
"""What `measure_classes` calls the scores of which probe."""

MOST_POINTS = 100
"""Of the curve of the loss: means over as many stretches, each longer than the last by the same factor."""


def encoders_of(run: TrainedRun) -> Iterator[tuple[int, PreTrainedModel]]:
    """Steps and frozen encoders of a run: before the first step, at its milestones, and at its end if that has come.

    Raises:
        ValueError: if it has no milestone yet.
    """
    lasting = set(run.recipe.milestones) | ({run.facts["steps"]} if (run.folder / "run.json").exists() else set())
    files = [(step, file) for step, file in run.weights_files() if step in lasting]
    if not files:
        raise ValueError(
            f"{run.folder} has no checkpoint that stays; give its recipe `milestones`, in steps, or let it run on."
        )
    with torch.random.fork_rng():  # building seeds the global generator
        initial = run.initial_model().state_dict()
    yield 0, run.family.released(run.recipe, initial).base_model
    for step, file in files:
        yield step, run.family.released(run.recipe, load_file(file)).base_model


def loss_curve(metrics: Sequence[Mapping[str, float]], most_points: int = MOST_POINTS) -> list[dict[str, float]]:
    """The losses of a run over the clips heard, averaged over stretches that grow with them.

    Args:
        metrics: Rows with `clips` and `loss`, as from `read_metrics`.
        most_points: How many stretches.

    Returns:
        For each that has rows, `clips` and `loss`, both means.

    Example:
        >>> loss_curve([{"clips": 1, "loss": 3.0}, {"clips": 90, "loss": 2.0}, {"clips": 110, "loss": 1.0}], 2)
        [{'clips': 1.0, 'loss': 3.0}, {'clips': 100.0, 'loss': 1.5}]
    """
    if not metrics:
        return []
    clips, losses = (np.array([row[name] for row in metrics], dtype=float) for name in ("clips", "loss"))
    edges = np.geomspace(clips[0], clips[-1], most_points + 1)[1:-1]
    stretch = np.searchsorted(edges, clips, side="right")
    return [
        {"clips": float(clips[stretch == one].mean()), "loss": float(losses[stretch == one].mean())}
        for one in np.unique(stretch)
    ]


def measure_milestones(
    run_folder: Path,
    data: Sequence[DataOptions],
    output_dir: Path,
    *,
    command: str,
    pooling: str | None = None,
    layer: int | None = None,
    spare_test: bool = False,
    device: str = "cpu",
) -> dict[str, Any]:
    """Measure a run at its milestones, finished or not; what was measured before is kept.

    Args:
        run_folder: As `training/pretrain.py` left it, its recipe having `milestones`.
        data: Labelled recordings to probe on, one set, several or none: factors need none.
        output_dir: Receives `milestones.json`, `.md`, `.png` and `.svg`, and what was measured of each milestone.
        command: What a reader would type for the same.
        pooling: What is read of an encoder, one of `POOLINGS`; None for what the recipe says.
        layer: Whose tokens, as `embedding_layer` of `AudioPGConfig`; None for what the recipe says.
        spare_test: Whether the test split is left alone, as in `rounds_of`.
        device: Where encoders are.

    Returns:
        What `milestones.json` holds: `run`, `read`, `command`, the environment; `loss`, as from `loss_curve`;
        `milestones`, of each, the untrained encoder first, `step`, `clips`, `factors` (as from `measure`, by name) and
        `classes` (by data set, `scores` and `neighbours` of `measure`); the `datasets` with their `metric` and tested
        `rounds`; and factors and classes of the `log_mel`.

    Raises:
        ValueError: if the run has no milestones, or there are no such recordings.
    """
    run = TrainedRun.open(run_folder)
    extractor, own = run.feature_extractor(), run.recipe.embedding
    pooling, layer = pooling or own.pooling, own.layer if layer is None else layer
    read = read_out_name(layer, pooling).removeprefix(", ") or "mean of the output"
    sets = {one.cache.dataset_name: one for one in (Batches(one.cache(extractor), extractor) for one in data)}
    if len(sets) < len(data):
        raise ValueError(f"Data sets are told apart by their names, and of these are {', '.join(sets)}; rename one.")

    rounds = {title: [r.name for r in rounds_of(one.cache, spare_test=spare_test)] for title, one in sets.items()}

    def measured(name: str, read: str, features_of: Features) -> dict[str, Any]:
        """Factors, and classes by data set, each kept for the next call."""

        def kept(what: str, clips: str, make: Callable[[], Any]) -> Any:
            return kept_or_made(output_dir, f"{name}-{what}", f"{run.name}, {clips}{read}", lambda: {what: make()})[
                what
            ]

        clips = f"sets of {NUM_TRAINING_CLIPS} + {NUM_TEST_CLIPS} clips of {FACTOR_PRESET}"
        return {
            "factors": kept("factors", clips, lambda: measure_factors(features_of, run.recipe, extractor)),
            "classes": {
                title: kept(
                    "classes",
                    f"{title} {one.cache.digest}, {', '.join(rounds[title])}",
                    partial(measure_classes, features_of, one, spare_test=spare_test),
                )
                for title, one in sets.items()
            },
        }

    milestones = []
    for step, encoder in encoders_of(run):
        features_of = features_by(encoder, extractor, pooling, device, layer)
        found = measured(f"step_{step:08d}", f", {read}", features_of)
        milestones.append({"step": step, "clips": step * run.recipe.batch_size, **found})
    report = {
        "run": run.recipe.name,
        "read": read,
        "command": command,
        "datasets": {title: {"metric": one.cache.metric, "rounds": rounds[title]} for title, one in sets.items()},
        "loss": loss_curve(read_metrics(run_folder)),
        "milestones": milestones,
        "log_mel": measured("log_mel", "", log_mel_statistics),
        **environment(),
    }
    write_atomically(output_dir / "milestones.json", json.dumps(report, indent=2) + "\n")
    write_atomically(output_dir / "milestones.md", format_milestones(report))
    save_both(draw_milestones(report), output_dir, "milestones")
    return report


def format_milestones(report: Mapping[str, Any]) -> str:
    """A row for every milestone and for the log-mel: clips, loss, factors, and mean scores in % by probe, in Markdown.

    Below, with recordings, how well the factors foretell what is read of these.

    Args:
        report: As from `measure_milestones`.
    """
    factors, sets = list(report["log_mel"]["factors"]), list(report["datasets"])
    read = [(name, scores) for name in sets for scores in _PROBES]
    columns = ["clips heard", "loss", *factors, *(f"{name}, {_PROBES[scores]}, %" for name, scores in read)]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for row in (*report["milestones"], {**report["log_mel"], "clips": LOG_MEL}):
        near = [
            point["loss"] for point in report["loss"] if row["clips"] != LOG_MEL and point["clips"] <= row["clips"]
        ]
        cells = [f"{row['clips']:,}" if row["clips"] != LOG_MEL else LOG_MEL, f"{near[-1]:.3f}" if near else ""]
        cells += [f"{row['factors'][name]:.3f}" for name in factors]
        cells += [f"{_percent(row, *one):.2f}" for one in read]
        lines.append(f"| {' | '.join(cells)} |")
    if found := foretold(report):
        said = ", ".join(f"{name} {value:.2f}" for name, value in found.items())
        count = len(report["milestones"])
        lines += ["", f"Rank correlation of the mean of the factors with the linear probe, {count} encoders: {said}."]
    return "\n".join(lines) + "\n"


def foretold(report: Mapping[str, Any]) -> dict[str, float]:
    """How well synthesized clips alone rank the encoders: Spearman's correlation with the linear probe, by data set.

    Args:
        report: As from `measure_milestones`.

    Returns:
        Without data sets that all encoders score alike on, where it is not defined.
    """
    rows = report["milestones"]
    factors = [np.mean(list(row["factors"].values())) for row in rows]
    scores = {name: [_percent(row, name, "scores") for row in rows] for name in report["datasets"]}
    return {
        name: float(spearmanr(factors, values).statistic) for name, values in scores.items() if len(set(values)) > 1
    }


def _percent(row: Mapping[str, Any], dataset: str, scores: str) -> float:
    """The mean score on a data set."""
    return 100 * float(np.mean(row["classes"][dataset][scores]))


def draw_milestones(report: Mapping[str, Any]) -> Figure:
    """Loss, factors and probes over the clips heard; dashed the untrained encoder, dotted the log-mel.

    Args:
        report: As from `measure_milestones`.

    Returns:
        The figure.
    """
    clips = [row["clips"] for row in report["milestones"][1:]]
    with matplotlib.rc_context(STYLE):
        panels = 2 + bool(report["datasets"])
        figure = Figure(figsize=(3.6 * panels, 3.2), layout="constrained")
        loss, *others = figure.subplots(1, panels)
        loss.plot([row["clips"] for row in report["loss"]], [row["loss"] for row in report["loss"]], color="#33508a")
        loss.set(ylabel="loss")
        rows = [*report["milestones"], report["log_mel"]]
        factors, sets = report["log_mel"]["factors"], report["datasets"]
        curves = {
            "held-out factors: R², of classes beyond chance": {
                n: [row["factors"][n] for row in rows] for n in factors
            },
            "linear probe of frozen features, %": {n: [_percent(row, n, "scores") for row in rows] for n in sets},
        }
        for axis, (title, by_name) in zip(others, curves.items(), strict=False):
            for number, (name, (untrained, *values, log_mel)) in enumerate(by_name.items()):
                colour = f"C{number}"
                axis.plot(clips, values, "o-", markersize=3, color=colour, label=name)
                axis.axhline(untrained, color=colour, linestyle="--", linewidth=0.7, alpha=0.6)
                axis.axhline(log_mel, color=colour, linestyle=":", linewidth=0.9, alpha=0.6)
            axis.set(ylabel=title)
            axis.legend(frameon=False, fontsize=6, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
        for axis in figure.axes:
            axis.set(xscale="log", xlabel="clips heard")
            axis.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))  # the style reads no formulas
            axis.xaxis.set_minor_formatter(NullFormatter())
            axis.grid(alpha=0.3)
        figure.suptitle(
            f"{report['run']}, {report['read']}; dashed: untrained encoder, dotted: {LOG_MEL}",
            x=0.01,
            ha="left",
            fontsize=8,
        )
        return figure
