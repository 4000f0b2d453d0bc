"""The sections of the report: results put into tables, pictures, sounds and words."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from audiopg.data_scripts.figures import save_both
from audiopg.data_scripts.probe_clips import FACTORS
from audiopg.modeling.feature_extraction_audiopg import AudioPGFeatureExtractor
from audiopg.modeling.modeling_audiopg import AudioPGForPreTraining
from audiopg.training.analysis.distributions import DESCRIPTORS, compare, draw_distributions
from audiopg.training.analysis.factors import SOURCES
from audiopg.training.analysis.figures import (
    draw_best_neurons,
    draw_component_information,
    draw_component_variance,
    draw_decoding,
    draw_information,
    draw_layers,
    draw_subspaces,
)
from audiopg.training.analysis.filters import (
    SELECTIVITIES,
    draw_filters,
    draw_selectivity,
    noise_selectivity,
    selectivity,
    selectivity_rows,
)
from audiopg.training.analysis.gallery import MASK_RATIOS, PATTERNS, draw_gallery, reconstruct, write_sounds
from audiopg.training.analysis.report import Medium, Section, Table

PAPER_VARIANCE = 0.9649
"""Share of the variance in the first 20 components, in the paper."""


def _number(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def decoding_table(factors: Mapping[str, Any]) -> Table:
    """Held-out scores with all else sampled, and, in the last columns, with all else held."""
    head = ["factor", "score", "paper", *SOURCES, "permuted", "chance", *(f"held: {source}" for source in SOURCES)]
    rows = [
        [
            name,
            "accuracy" if FACTORS[name].kind == "class" else "R²",
            _number(FACTORS[name].paper.get("r2"), 4),
            *(_number(found["decoding"][source]) for source in (*SOURCES, "permuted")),
            _number(found["chance"]),
            *(_number(found["held"][source]) for source in SOURCES),
        ]
        for name, found in factors.items()
    ]
    return Table(head, rows)


def information_table(factors: Mapping[str, Any]) -> Table:
    """Best neuron in nats, and the gap to the next."""
    sources = [*SOURCES, "permuted"]
    head = ["factor", "paper, nats", *(f"{s}, nats" for s in sources), "paper, gap", *(f"{s}, gap" for s in sources)]
    rows = [
        [
            name,
            _number(FACTORS[name].paper.get("information"), 2),
            *(_number(found["best"][source]["information"], 2) for source in sources),
            _number(FACTORS[name].paper.get("gap"), 4),
            *(_number(found["best"][source]["gap"], 4) for source in sources),
        ]
        for name, found in factors.items()
    ]
    return Table(head, rows)


def dci_table(dci: Mapping[str, Mapping[str, float]]) -> Table:
    """Disentanglement and completeness by source."""
    rows = [[s, *(_number(found[key]) for key in ("disentanglement", "completeness"))] for s, found in dci.items()]
    return Table(["features", "disentanglement", "completeness"], rows)


def factor_sections(results: Mapping[str, Any], folder: Path) -> list[Section]:
    """Draw the results of `analyse_factors` and put them into words.

    Args:
        results: Of `analyse_factors`.
        folder: Receives the figures.

    Returns:
        Sections of a report.
    """
    factors, components = results["factors"], results["components"]

    def figure(name: str, drawn: Any, caption: str) -> Medium:
        return Medium(save_both(drawn, folder, name), caption)

    curves = {name: found["layers"] for name, found in factors.items() if any(found["layers"].values())}
    by_layer = "Held-out scores by layer: 0 is what enters the first block."
    bars = {name: {**found["decoding"], "chance": found["chance"]} for name, found in factors.items()}
    first_20 = ", ".join(f"{source} {100 * sum(shares):.2f} %" for source, shares in components["shares"].items())
    return [
        Section(
            "Decoding factors",
            [
                "Linear maps read each factor out of frozen features, on clips that they were not fitted on: ridge "
                "regression (R²), or logistic regression (accuracy) for classes. All else in a clip is sampled from "
                "the preset; in the last columns all else is held, but for the samples of the noise. 'Permuted' fits "
                "shuffled values. Frequency and cutoff are in octaves, level is the signal-to-noise ratio in dB."
            ],
            [decoding_table(factors)],
            [
                figure("decoding", draw_decoding(bars), "Held-out scores; diamonds: the paper; lines: chance."),
                *([figure("layers", draw_layers(curves), by_layer)] if curves else []),
            ],
        ),
        Section(
            "Single neurons",
            [
                "Mutual information of each neuron with each factor by nearest neighbours (Kraskov et al. 2004; Ross "
                "2014 for whole numbers and classes), in nats. The gap is that between the two best neurons over the "
                "entropy of the factor (Chen et al. 2018), where a continuous factor counts as 20 equally likely "
                "values; how the paper's gap is normalised is not known. Many noisy estimates have a maximum above "
                "zero: 'permuted' says where chance ends."
            ],
            [information_table(factors)],
            [
                figure(
                    "information",
                    draw_information({name: found["information"] for name, found in factors.items()}),
                    "Mutual information of all neurons, ranked; diamonds: the paper's best neuron.",
                ),
                figure(
                    "best_neurons",
                    draw_best_neurons(results["scatters"]),
                    "The neuron of the pre-trained encoder that knows most of each factor.",
                ),
            ],
        ),
        Section(
            "Disentanglement and completeness",
            [
                "DCI (Eastwood & Williams 2018) over all factors, from the importances of 50 gradient-boosted trees. "
                "1: each neuron serves one factor, each factor has one neuron. Informativeness is the first table."
            ],
            [dci_table(results["dci"])],
        ),
        Section(
            "Principal components",
            [f"Variance in the first 20 components: {first_20}; paper {100 * PAPER_VARIANCE:.2f} %."],
            [],
            [
                figure("variance", draw_component_variance(components["shares"]), "Cumulated variance."),
                figure(
                    "component_information",
                    draw_component_information(components["information"]),
                    "Mutual information of components and factors; in the paper amplitude peaks on component 1 with "
                    "1.03, frequency on component 5 with 1.41.",
                ),
                figure(
                    "subspaces",
                    draw_subspaces(components["scores"], results["values"], components["information"]),
                    "Clips in the plane of the two components that tell most of each factor.",
                ),
            ],
        ),
    ]


def gallery_section(
    model: AudioPGForPreTraining,
    feature_extractor: AudioPGFeatureExtractor,
    waveforms: Mapping[str, np.ndarray],
    folder: Path,
    seed: int,
) -> tuple[Section, dict[str, Any]]:
    """Redraw clips under every pattern and ratio of masks.

    Args:
        model: The masked autoencoder.
        feature_extractor: Its own.
        waveforms: Clips by name, each of shape `(samples,)`.
        folder: Receives pictures and sounds.
        seed: Of the masks.

    Returns:
        The section, and the loss of each clip by pattern and ratio.
    """
    losses: dict[str, Any] = {}
    figures, sounds = [], []
    for number, (name, waveform) in enumerate(waveforms.items()):
        inputs = feature_extractor(waveform, sampling_rate=feature_extractor.sampling_rate)["input_values"]
        found = {
            (pattern, ratio): reconstruct(model, inputs.to(model.device), pattern, ratio, seed)
            for pattern in PATTERNS
            for ratio in MASK_RATIOS
        }
        losses[name] = {f"{pattern} {ratio}": round(one.error, 4) for (pattern, ratio), one in found.items()}
        rows = [(f"{pattern}, {100 * ratio:.0f} %", one) for (pattern, ratio), one in found.items()]
        figures.append(Medium(save_both(draw_gallery(rows), folder, f"gallery_{number}"), name))
        played = found[PATTERNS[0], model.config.mask_ratio if model.config.mask_ratio in MASK_RATIOS else 0.75]
        files = write_sounds(f"gallery_{number}", waveform, played, feature_extractor, folder)
        sounds += [Medium(path, f"{name}: {kind}") for kind, path in files.items()]
    head = ["clip", *(f"{pattern}, {100 * ratio:.0f} %" for pattern in PATTERNS for ratio in MASK_RATIOS)]
    rows_of_losses = [[name, *(f"{loss:.3f}" for loss in by_mask.values())] for name, by_mask in losses.items()]
    lent = (
        "The model tells the shape within a patch; its mean and deviation are lent by the true patch, in pictures "
        "and sounds alike. Drawing no shape at all has a loss of about 1 where there is sound, and of 0 in "
        "digital silence. "
        if model.config.norm_pix_loss
        else ""
    )
    words = (
        f"What the encoder saw, what the decoder drew, and the difference. {lent}The table has the loss on hidden "
        "patches. Sounds are Griffin-Lim on the log-mel: compare 'redrawn' with 'log-mel', which has lost its phases "
        "and fine structure in the same way."
    )
    return Section("Reconstructions", [words], [Table(head, rows_of_losses)], figures, sounds), losses


def filter_section(filters: Mapping[int, np.ndarray], folder: Path) -> tuple[Section, dict[str, Any]]:
    """Draw how the patch projection came about.

    Args:
        filters: By step, as from `filters.filters_of`.
        folder: Receives the figures.

    Returns:
        The section, and the selectivity by step, with that of white noise.
    """
    curves = {step: selectivity(weights) for step, weights in filters.items()}
    noise = noise_selectivity(*next(iter(filters.values())).shape[1:])
    words = (
        "Principal components of the patch projection's flattened filters at the start and at each checkpoint of the "
        "run, with their share of the variance; time runs to the right, mel upwards. Selectivity is the share "
        "of the filters' energy that depends on mel alone (bands), on time alone (onsets), on both or on neither."
    )
    rows = [*selectivity_rows(curves), ["white noise", *(f"{noise[name]:.3f}" for name in SELECTIVITIES)]]
    figures = [
        Medium(save_both(draw_filters(filters), folder, "filters"), "Components over training."),
        Medium(
            save_both(draw_selectivity(curves, noise), folder, "selectivity"),
            "Selectivity over training; dashed: as white noise.",
        ),
    ]
    section = Section("How filters form", [words], [Table(["step", *SELECTIVITIES], rows)], figures)
    return section, {"white noise": noise, **{str(step): found for step, found in curves.items()}}


def distribution_section(
    collections: Mapping[str, Mapping[str, np.ndarray]], real: str, folder: Path
) -> tuple[Section, dict[str, Any]]:
    """Draw what spectra of synthetic sounds are like beside those of real ones.

    Args:
        collections: By name, as from `distributions.describe_collection`.
        real: The name of the one that others are compared with.
        folder: Receives the figure.

    Returns:
        The section, and quartiles and distances as from `distributions.compare`.
    """
    found = compare(collections, real)
    words = (
        "Spectra in frames of 64 ms, 32 ms apart, averaged over what is within 60 dB of a clip's loudest frame in its "
        "first five seconds. Flux: the distance of each spectrum to the one before, both of norm 1. "
        "Inharmonicity: how far partials are from multiples of the fundamental, as a share of half of it; noise has "
        "about 0.5. Centroid: the centre of mass of the spectrum. Flatness: geometric over arithmetic mean of the "
        "power; white noise has 0.56. The table has medians, and in brackets the distance to the real ones by "
        "Kolmogorov and Smirnov: 0 for the same distribution, 1 for two that share nothing."
    )
    rows = [
        [
            name,
            str(by_kind["flux"]["clips"]),
            *(f"{by_kind[kind]['median']:.4g} ({by_kind[kind]['distance']:.2f})" for kind in DESCRIPTORS),
        ]
        for name, by_kind in found.items()
    ]
    figure = Medium(save_both(draw_distributions(collections, real), folder, "distributions"), "Lines: medians.")
    table = Table(["sounds", "clips", *DESCRIPTORS.values()], rows)
    return Section("Synthetic sounds beside real ones", [words], [table], [figure]), found
