"""How filters form: the patch projection at each checkpoint of a run, taken apart into components and selectivity."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from safetensors import safe_open
from sklearn.decomposition import PCA

from audiopg.data_scripts.figures import STYLE
from audiopg.training.objectives.pretraining import TrainedRun

PATCH_PROJECTION = "audiopg.embeddings.patch_embeddings.weight"

SELECTIVITIES = {
    "spectral": "bands: changes with mel alone",
    "onset": "edges: changes with time alone",
    "joint": "changes with both",
    "constant": "the mean of the patch",
}
"""Parts of a filter's energy, and what they stand for."""


def filters_of(run_folder: Path) -> dict[int, np.ndarray]:
    """The patch projection at the start of a run and at each of its checkpoints, as images.

    Args:
        run_folder: As `training/pretrain.py` left it; its recipe's `milestones` say which checkpoints stay. The
            initial weights, step 0, follow from the recipe.

    Returns:
        By step, shape `(hidden_size, time, mel)`; of a run of images, the sum over colours, which audio meets.

    Raises:
        ValueError: if the run has no checkpoints, or its encoder sees no patches.
    """
    run = TrainedRun.open(run_folder)
    if run.recipe.is_convolutional:
        raise ValueError(f"{run_folder} trained a convolutional encoder, and it projects no patches; leave it out.")
    with torch.random.fork_rng():  # building seeds the global generator
        matrices = {0: run.initial_model().get_parameter(PATCH_PROJECTION).detach().numpy()}
    for step, file in run.weights_files():
        with safe_open(file, "np") as weights:
            matrices[step] = weights.get_tensor(PATCH_PROJECTION)
    if len(matrices) == 1:
        raise ValueError(f"{run_folder} has no checkpoints; give the folder of a run, and its recipe `milestones`.")
    shape = run.recipe.config.patch_shape
    return {step: matrix.reshape(len(matrix), -1, *shape).sum(axis=1) for step, matrix in matrices.items()}


def filter_components(filters: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Principal components of the flattened filters of a layer, centred, as images (AudioPG, section 5).

    A component's sign means nothing; its largest value is made positive.

    Args:
        filters: Shape `(filters, time, mel)`.
        count: How many.

    Returns:
        Components of norm 1, shape `(count, time, mel)`, and the share of the variance that each has.

    Example:
        >>> images, shares = filter_components(np.random.default_rng(0).standard_normal((40, 2, 2)), count=4)
        >>> images.shape, round(float(shares.sum()), 6)
        ((4, 2, 2), 1.0)
    """
    flat = filters.reshape(len(filters), -1).astype(np.float64)
    found = PCA(min(count, *flat.shape), svd_solver="full").fit(flat)
    rows = found.components_
    signs = np.sign(rows[np.arange(len(rows)), np.abs(rows).argmax(axis=1)])
    return (rows * signs[:, None]).reshape(-1, *filters.shape[1:]), found.explained_variance_ratio_


def selectivity(filters: np.ndarray) -> dict[str, float]:
    r"""How the energy of filters divides into what depends on mel alone, on time alone, on both, and on neither.

    The two-way analysis of variance of each filter, $w_{tm} = \mu + a_t + b_m + c_{tm}$ with $a$, $b$ and the rows and
    columns of $c$ adding up to zero, whose four parts are orthogonal: with $T$ frames and $M$ mel bands,
    $\sum w^2 = TM \mu^2 + M \sum_t a_t^2 + T \sum_m b_m^2 + \sum c^2$. Spectral selectivity is the share of $b$, onset
    selectivity that of $a$, both of the energy of all filters together. White noise has $(M - 1) / TM$ and
    $(T - 1) / TM$.

    Args:
        filters: Shape `(filters, T, M)`.

    Returns:
        `spectral`, `onset`, `joint` and `constant`, which add up to 1.

    Raises:
        ValueError: if all weights are zero.

    Example:
        >>> band = np.tile([1.0, -1.0], (1, 2, 1))  # the same at both times
        >>> selectivity(band)["spectral"], selectivity(band.transpose(0, 2, 1))["onset"]
        (1.0, 1.0)
    """
    w = filters.astype(np.float64)
    total = float((w**2).sum())
    if total == 0:
        raise ValueError("Filters of zeros have no selectivity; give trained or random weights.")
    mean = w.mean(axis=(1, 2), keepdims=True)
    over_time, over_mel = w.mean(axis=2, keepdims=True) - mean, w.mean(axis=1, keepdims=True) - mean
    parts = {
        "spectral": over_mel + 0 * w,
        "onset": over_time + 0 * w,
        "joint": w - mean - over_time - over_mel,
        "constant": mean + 0 * w,
    }
    return {name: float((part**2).sum()) / total for name, part in parts.items()}


def noise_selectivity(time: int, mel: int) -> dict[str, float]:
    """What `selectivity` gives of white noise, on average: shares of the degrees of freedom.

    Example:
        >>> noise_selectivity(2, 2)
        {'spectral': 0.25, 'onset': 0.25, 'joint': 0.25, 'constant': 0.25}
    """
    total = time * mel
    shares = {"spectral": mel - 1, "onset": time - 1, "joint": (time - 1) * (mel - 1), "constant": 1}
    return {name: freedom / total for name, freedom in shares.items()}


def draw_filters(filters: Mapping[int, np.ndarray], count: int = 12) -> Figure:
    """A strip: a row per checkpoint, its first principal components side by side, time to the right, mel upwards.

    Args:
        filters: By step, as from `filters_of`.
        count: Components in a row.

    Returns:
        The figure.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(0.75 * count + 1, 0.85 * len(filters) + 0.3), layout="constrained")
        axes = figure.subplots(len(filters), count, squeeze=False)
        for row, (step, weights) in zip(axes, filters.items(), strict=True):
            images, shares = filter_components(weights, count)
            for axis, image, share in zip(row, images, shares, strict=False):
                reach = np.abs(image).max()
                axis.imshow(image.T, cmap="RdBu_r", vmin=-reach, vmax=reach, aspect="equal", interpolation="none")
                axis.set_title(f"{100 * share:.1f} %", fontsize=6)
            row[0].set_ylabel(f"step {step}", rotation=0, ha="right", va="center")
        for axis in axes.flat:
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        return figure


def draw_selectivity(curves: Mapping[int, Mapping[str, float]], noise: Mapping[str, float]) -> Figure:
    """Selectivity over training, each part as a multiple of what white noise has.

    Args:
        curves: `selectivity` by step.
        noise: `noise_selectivity`.

    Returns:
        The figure.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.5, 2.8), layout="constrained")
        axis = figure.subplots()
        for name, meaning in SELECTIVITIES.items():
            multiples = [found[name] / noise[name] for found in curves.values()]
            axis.plot(list(curves), multiples, "o-", markersize=3, label=f"{name}: {meaning}")
        axis.axhline(1, color="black", linestyle="--", linewidth=0.7)
        axis.set(xlabel="step", ylabel="energy, in multiples of white noise's", ylim=(0, None))
        axis.legend(frameon=False, fontsize=6)
        return figure


def selectivity_rows(curves: Mapping[int, Mapping[str, float]]) -> Sequence[Sequence[str]]:
    """Cells of a table: step and the four shares.

    Example:
        >>> selectivity_rows({5: {"spectral": 0.5, "onset": 0.25, "joint": 0.25, "constant": 0.0}})
        [['5', '0.500', '0.250', '0.250', '0.000']]
    """
    return [[str(step), *(f"{found[name]:.3f}" for name in SELECTIVITIES)] for step, found in curves.items()]
