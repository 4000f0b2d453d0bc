"""What frozen features are worth: classes by linear, neighbour and attentive probes.

    python training/probe.py CHECKPOINT --data_dir FOLDER [--probe linear neighbours attentive] [--layers all|0 4 ...]

compares three kinds of features on labelled recordings, whatever `training/finetune.py` takes: the log-mel itself,
a random encoder of the same architecture, and the pre-trained one; of the encoders the mean of a clip's tokens, their
mel rows kept apart, and what `embed` gives. With `--layers`, of these layers and of the output the mean, the rows, and
the rows with their deviations over time: what `embed` of a model should read is chosen so with `--spare_test`, and
confirmed without. CHECKPOINT is any `AutoModel` on spectrograms: AudioPG, AST.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoFeatureExtractor, AutoModel

import audiopg  # noqa: F401 - registers our classes
from audiopg.training.evaluation.probes import PROBES, probe_encoder
from audiopg.training.evaluation.results import format_results
from audiopg.training.features.batches import Batches
from audiopg.training.features.labelled import DataOptions, add_data_options
from audiopg.training.runs.files import reading
from audiopg.training.runs.names import public_name, say
from audiopg.training.runs.provenance import environment


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; `arguments` are those after the program's name."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        with reading(options.checkpoint):
            feature_extractor = AutoFeatureExtractor.from_pretrained(options.checkpoint)
            model = AutoModel.from_pretrained(options.checkpoint)
        batches = Batches(DataOptions.of(options).cache(feature_extractor), feature_extractor)
        report = probe_encoder(
            model,
            batches,
            probes=options.probe,
            layers=_layer_numbers(options.layers, model.config.num_hidden_layers),
            batch_size=options.batch_size,
            device=options.device,
            seed=options.seed,
            spare_test=options.spare_test,
        )
    except (OSError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    say(format_results(report))
    if options.output is not None:
        report = {"checkpoint": public_name(options.checkpoint), **report, **environment()}
        options.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("checkpoint", help="folder or Hub name; any AutoModel on spectrograms")
    add_data_options(parser)
    parser.add_argument(
        "--probe", nargs="+", choices=PROBES, default=["linear"], help="what reads the frozen features: one or several"
    )
    parser.add_argument("--layers", nargs="+", default=[], help="layers to probe beside the output: numbers, or all")
    parser.add_argument("--spare_test", action="store_true", help="test on validation clips where there are splits")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    parser.add_argument("--batch_size", type=int, default=16, help="clips at a time in the encoders")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="for the encoders")
    parser.add_argument("--seed", type=int, default=0, help="of the random encoder's weights")
    return parser


def _layer_numbers(words: Sequence[str], num_hidden_layers: int) -> list[int]:
    return list(range(num_hidden_layers + 1)) if list(words) == ["all"] else [int(word) for word in words]


if __name__ == "__main__":
    main()
