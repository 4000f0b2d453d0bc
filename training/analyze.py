"""What an encoder has learnt of how its sounds were made: every factor is known, and is looked for in the embedding.

    python training/analyze.py CHECKPOINT_FOLDER [--output_dir analysis] [--preset reference] [--num_clips 900]

The folder receives `report.html`, which needs no other file, `report.json`, and every figure as PNG and SVG. Beside
the checkpoint stand a random encoder of its shape, the mean and deviation of each log-mel band, and chance: a figure
means nothing without them.
"""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers.utils import logging

from audiopg.data_scripts.synthesis import Preset, get_preset
from audiopg.modeling.feature_extraction_audiopg import AudioPGFeatureExtractor
from audiopg.modeling.modeling_audiopg import AudioPGModel
from audiopg.training.analysis_figures import (
    draw_best_neurons,
    draw_component_information,
    draw_component_variance,
    draw_decoding,
    draw_information,
    draw_layers,
    draw_subspaces,
    save_both,
)
from audiopg.training.factor_analysis import SOURCES, Design, analyse_factors, encoders_of
from audiopg.training.factors import FACTORS, PROBE_SETS
from audiopg.training.provenance import environment
from audiopg.training.report import Medium, Section, Table, write_report

PAPER_VARIANCE = 0.9649
"""Share of the variance in the first 20 components, in the paper."""


def probing_preset(feature_extractor: AudioPGFeatureExtractor, name: str) -> Preset:
    """The preset to probe with, in clips as long as those that the checkpoint was trained on, where it says so.

    Example:
        >>> probing_preset(AudioPGFeatureExtractor(), "reference").duration
        10.24
    """
    trained = feature_extractor.statistics.get("overrides", {})
    duration = {"duration": trained["duration"]} if "duration" in trained else {}
    return get_preset(name, sampling_rate=feature_extractor.sampling_rate, **duration)


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
                figure(
                    "layers",
                    draw_layers({name: found["layers"] for name, found in factors.items()}),
                    "Held-out scores by layer: 0 is what enters the first block.",
                ),
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


def analyse(checkpoint: Path, output_dir: Path, preset_name: str, design: Design, command: str) -> dict[str, Any]:
    """Analyse a checkpoint and write the report.

    Args:
        checkpoint: Folder with a model and its feature extractor.
        output_dir: Receives report and figures.
        preset_name: Whose clips to probe with.
        design: Which of them.
        command: What a reader would type for the same.

    Returns:
        What `report.json` holds.

    Raises:
        ValueError: for an unknown preset.
    """
    started = time.perf_counter()
    feature_extractor = AudioPGFeatureExtractor.from_pretrained(checkpoint)
    preset = probing_preset(feature_extractor, preset_name)
    encoders = encoders_of(AudioPGModel.from_pretrained(checkpoint), feature_extractor, design.seed)
    results = analyse_factors(encoders, preset, design)
    sections = factor_sections(results, output_dir)
    probe = {
        "preset": preset.name,
        "duration": preset.duration,
        "sampling_rate": preset.sampling_rate,
        "design": asdict(design),
        "indices": design.indices(),
        "sets": {name: dict(changes) for name, changes in PROBE_SETS.items()},
    }
    report = {
        "checkpoint": checkpoint.name,
        **environment(),
        "probe": probe,
        "paper": {name: dict(factor.paper) for name, factor in FACTORS.items() if factor.paper},
        "factors": results["factors"],
        "dci": results["dci"],
        "components": {key: results["components"][key] for key in ("shares", "information")},
        "seconds": round(time.perf_counter() - started, 1),
    }
    (output_dir / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    provenance = json.dumps({key: report[key] for key in ("hardware", "versions", "commit", "probe")}, indent=2)
    write_report(
        output_dir / "report.html", f"What {checkpoint.name} knows of its sounds", sections, command, provenance
    )
    return report


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("checkpoint", type=Path, help="folder with a checkpoint and its feature extractor")
    parser.add_argument("--output_dir", type=Path, default=Path("analysis"))
    parser.add_argument("--preset", default="reference", help="whose clips to probe with")
    for name, value in asdict(Design()).items():
        parser.add_argument(f"--{name}", type=int, default=value)
    known = parser.parse_args(arguments)
    logging.disable_progress_bar()
    logging.set_verbosity_error()  # the decoder's weights are not missed in an encoder
    words = sys.argv[1:] if arguments is None else arguments
    try:
        design = Design(**{name: getattr(known, name) for name in asdict(Design())})
        command = shlex.join(["python", "training/analyze.py", *words])
        known.output_dir.mkdir(parents=True, exist_ok=True)
        analyse(known.checkpoint, known.output_dir, known.preset, design, command)
    except (OSError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    sys.stderr.write(f"{known.output_dir / 'report.html'}\n")


if __name__ == "__main__":
    main()
