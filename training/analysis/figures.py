"""Pictures of what an encoder knows of the factors of synthesis. Each function returns one figure, drawn from results.

The results are those of `analyze.analyse_factors`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from audiopg.data_scripts.figures import STYLE
from audiopg.data_scripts.probe_clips import FACTORS

SOURCE_COLOURS = {"log-mel": "#9a9a9a", "random": "#d49a3a", "pre-trained": "#33508a", "permuted": "#b6455a"}
"""Of the three kinds of features, and of chance."""

_POINT: dict[str, Any] = {"s": 4, "linewidths": 0, "alpha": 0.7, "rasterized": True}


def draw_decoding(rows: Mapping[str, Mapping[str, float]]) -> Figure:
    """Bars of R^2 (of classes, accuracy) per factor and kind of features; the paper's figures as diamonds.

    Args:
        rows: For each factor, the score by kind of features, and `chance`.

    Returns:
        The figure.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(1.1 * len(rows) + 1.5, 3), layout="constrained")
        axis = figure.subplots()
        positions = np.arange(len(rows))
        sources = [source for source in SOURCE_COLOURS if source in next(iter(rows.values()))]
        width = 0.8 / len(sources)
        for number, source in enumerate(sources):
            heights = [max(0.0, row[source]) for row in rows.values()]
            places = positions - 0.4 + (number + 0.5) * width
            axis.bar(places, heights, width, color=SOURCE_COLOURS[source], label=source)
        for position, (name, row) in enumerate(rows.items()):
            axis.plot([position - 0.4, position + 0.4], [row["chance"]] * 2, color="black", linewidth=0.8)
            if "r2" in FACTORS[name].paper:
                axis.plot(position + 0.27, FACTORS[name].paper["r2"], "D", color="black", markersize=3)
        labels = [f"{name}\n({'accuracy' if FACTORS[name].kind == 'class' else 'R²'})" for name in rows]
        axis.set_xticks(positions, labels)
        axis.set(ylim=(0, 1.05), ylabel="held-out score")
        axis.legend(frameon=False, ncols=len(sources), loc="lower left", bbox_to_anchor=(0, 1))
        return figure


def draw_layers(layers: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Scores over depth, one panel per factor: pre-trained and random encoder.

    Args:
        layers: For each factor and encoder, the score at what enters the first block, and after each block.

    Returns:
        The figure.
    """
    with matplotlib.rc_context(STYLE):
        columns = min(5, len(layers))
        rows = -(-len(layers) // columns)
        figure = Figure(figsize=(1.9 * columns, 1.8 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, sharex=True)
        for axis in axes.flat[len(layers) :]:
            axis.set_axis_off()
        for axis, (name, curves) in zip(axes.flat, layers.items(), strict=False):
            for source, scores in curves.items():
                axis.plot(range(len(scores)), scores, "o-", markersize=3, color=SOURCE_COLOURS[source], label=source)
            axis.set(ylim=(-0.15, 1.05), xticks=range(0, len(scores), max(1, len(scores) // 6)))
            axis.set_title(name, loc="left")
            axis.grid(alpha=0.3)
        for axis in axes[-1]:
            axis.set_xlabel("block")
        axes[0, 0].legend(frameon=False)
        return figure


def draw_information(information: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Mutual information of every neuron with each factor, neurons sorted: how few of them know how much.

    Args:
        information: For each factor and kind of features, nats by neuron.

    Returns:
        The figure.
    """
    with matplotlib.rc_context(STYLE):
        columns = min(5, len(information))
        rows = -(-len(information) // columns)
        figure = Figure(figsize=(1.9 * columns, 1.8 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False)
        for axis in axes.flat[len(information) :]:
            axis.set_axis_off()
        for axis, (name, by_source) in zip(axes.flat, information.items(), strict=False):
            for source, values in by_source.items():
                ranked = np.sort(values)[::-1]
                axis.plot(np.arange(1, len(ranked) + 1), ranked, color=SOURCE_COLOURS[source], label=source)
            if "information" in FACTORS[name].paper:
                axis.plot(1, FACTORS[name].paper["information"], "D", color="black", markersize=3)
            axis.set(xscale="log", ylim=(0, None))
            axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axis.set_title(name, loc="left")
        axes[0, 0].legend(frameon=False)
        figure.supxlabel("rank of the neuron", fontsize=8)
        figure.supylabel("nats", fontsize=8)
        return figure


def draw_best_neurons(scatters: Mapping[str, Mapping[str, Any]]) -> Figure:
    """The neuron that knows most of each factor: its activation over the factor, all else being sampled or held.

    Args:
        scatters: For each factor: `neuron`, `information` (nats), `values` and `activations` with all else sampled,
            `held_values` and `held_activations` with all else held.

    Returns:
        The figure.
    """
    with matplotlib.rc_context(STYLE):
        columns = min(5, len(scatters))
        rows = -(-len(scatters) // columns)
        figure = Figure(figsize=(1.9 * columns, 1.9 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False)
        for axis in axes.flat[len(scatters) :]:
            axis.set_axis_off()
        for axis, (name, scatter) in zip(axes.flat, scatters.items(), strict=False):
            axis.scatter(scatter["values"], scatter["activations"], color="#9fb0d0", label="others sampled", **_POINT)
            axis.scatter(
                scatter["held_values"], scatter["held_activations"], color="#b6455a", label="others held", **_POINT
            )
            axis.set_title(f"{name}\nneuron {scatter['neuron']}, {scatter['information']:.2f} nats", loc="left")
            axis.set_xlabel(FACTORS[name].unit)
            if FACTORS[name].names:
                axis.set_xticks(range(len(FACTORS[name].names)), FACTORS[name].names)
        axes[0, 0].legend(frameon=False, markerscale=3)
        return figure


def draw_component_variance(shares: Mapping[str, Sequence[float]]) -> Figure:
    """Variance held by the first components, cumulated, for each kind of features; the paper's 20 as a diamond.

    Args:
        shares: Share of each component, by kind of features.

    Returns:
        The figure.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.6, 2.6), layout="constrained")
        axis = figure.subplots()
        for source, values in shares.items():
            axis.plot(
                np.arange(1, len(values) + 1), 100 * np.cumsum(values), color=SOURCE_COLOURS[source], label=source
            )
        axis.plot(20, 96.49, "D", color="black", markersize=3, label="paper")
        axis.set(xlabel="principal components", ylabel="% of the variance", ylim=(0, 102))
        axis.legend(frameon=False)
        return figure


def draw_component_information(information: Mapping[str, Sequence[float]]) -> Figure:
    """Which component tells which factor: mutual information as an image.

    Args:
        information: For each factor, nats by component.

    Returns:
        The figure.
    """
    with matplotlib.rc_context(STYLE):
        matrix = np.array(list(information.values()))
        figure = Figure(figsize=(6, 0.4 * len(matrix) + 1), layout="constrained")
        axis = figure.subplots()
        extent = (0.5, matrix.shape[1] + 0.5, -0.5, len(matrix) - 0.5)
        image = axis.imshow(matrix, cmap="Blues", vmin=0, extent=extent, interpolation="none")
        axis.set_yticks(range(len(matrix)), list(information))
        axis.set_xlabel("principal component")
        figure.colorbar(image, ax=axis, label="nats")
        return figure


def draw_subspaces(
    scores: np.ndarray, factors: Mapping[str, np.ndarray], information: Mapping[str, Sequence[float]]
) -> Figure:
    """Clips in the plane of the two components that tell most of a factor, coloured by it.

    Args:
        scores: Coordinates of the clips, shape `(clips, components)`.
        factors: Values of each factor, shape `(clips,)`.
        information: For each factor, nats by component.

    Returns:
        The figure.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2.6 * len(factors), 2.4), layout="constrained")
        for axis, (name, values) in zip(
            figure.subplots(1, len(factors), squeeze=False)[0], factors.items(), strict=True
        ):
            x, y = sorted(np.argsort(information[name])[-2:])
            points = axis.scatter(scores[:, x], scores[:, y], c=values, cmap="viridis", **_POINT)
            axis.set(xlabel=f"component {x + 1}", ylabel=f"component {y + 1}", xticks=[], yticks=[])
            axis.set_title(name, loc="left")
            figure.colorbar(points, ax=axis, label=FACTORS[name].unit)
        return figure
