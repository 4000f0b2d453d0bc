"""What frozen features are worth: classes by linear, neighbour and attentive probes, factors by ridge regression.

    python training/probe.py CHECKPOINT_FOLDER --esc50_dir FOLDER [--probe neighbours|attentive] [--layers all|0 4 ...]

compares three kinds of features on a benchmark in ESC-50's layout: the log-mel itself, a random encoder of the same
architecture, and the pre-trained one; of the encoders the output and, if asked for, any of their layers, as the mean
of a clip's tokens and with their mel rows kept apart.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from audiopg.modeling.feature_extraction_audiopg import AudioPGFeatureExtractor
from audiopg.modeling.modeling_audiopg import AudioPGModel
from audiopg.training.evaluation.probes import PROBES, format_results, probe_benchmark
from audiopg.training.runs.provenance import environment


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; `arguments` are those after the program's name."""
    options = _parser().parse_args(arguments)
    model = AudioPGModel.from_pretrained(options.checkpoint)
    feature_extractor = AudioPGFeatureExtractor.from_pretrained(options.checkpoint)
    report = probe_benchmark(
        model,
        feature_extractor,
        options.esc50_dir,
        probe=options.probe,
        layers=_layer_numbers(options.layers, model.config.num_hidden_layers),
        batch_size=options.batch_size,
        device=options.device,
        seed=options.seed,
    )
    sys.stdout.write(format_results(report) + "\n")
    if options.output is not None:
        report = {"checkpoint": str(options.checkpoint), **report, **environment()}
        options.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Probe a frozen AudioPG encoder on a benchmark in ESC-50's layout.")
    parser.add_argument("checkpoint", help="folder with a checkpoint and its feature extractor")
    parser.add_argument("--esc50_dir", type=Path, required=True, help="folder that holds meta/esc50.csv and audio/")
    parser.add_argument("--probe", choices=PROBES, default="linear", help="what reads the frozen features")
    parser.add_argument("--layers", nargs="+", default=[], help="layers to probe beside the output: numbers, or all")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    parser.add_argument("--batch_size", type=int, default=16, help="clips at a time in the encoders")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="for the encoders")
    parser.add_argument("--seed", type=int, default=0, help="of the random encoder's weights")
    return parser


def _layer_numbers(words: Sequence[str], num_hidden_layers: int) -> list[int]:
    return list(range(num_hidden_layers + 1)) if list(words) == ["all"] else [int(word) for word in words]


if __name__ == "__main__":
    main()
