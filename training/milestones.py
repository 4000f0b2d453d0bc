"""Does more synthetic listening help, and until when: loss, factors and probes at the milestones of one long run.

    python training/milestones.py runs/releases/audiopg-tiny --data_dir ESC-10 COMMANDS [--output_dir milestones]

The run's recipe has `milestones`, steps whose checkpoints stay. Of each, and of the encoder before its first step, the
factors of held-out synthesized clips are decoded, and labelled recordings, where any are given, are read by a linear
probe, beside the log-mel. The folder receives `milestones.json`, a table and a picture. The run may still be under
way: what was measured is kept, and the same command adds what has come since.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers.utils import logging

from audiopg.modeling.configuration_audiopg import POOLINGS
from audiopg.training.ablation.milestones import format_milestones, measure_milestones
from audiopg.training.features.labelled import DataOptions
from audiopg.training.runs.names import public_word, say


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("run_folder", type=Path)
    parser.add_argument("--data_dir", nargs="+", default=[], help="labelled recordings, one set or several")
    parser.add_argument("--output_dir", type=Path, default=Path("milestones"))
    parser.add_argument("--pooling", choices=POOLINGS, help="what is read of an encoder; default: as the recipe says")
    parser.add_argument("--layer", type=int, help="whose tokens are read; default: as the recipe says")
    parser.add_argument("--spare_test", action="store_true", help="test on validation clips where there are splits")
    known = parser.parse_args(arguments)
    logging.set_verbosity_error()
    words = sys.argv[1:] if arguments is None else arguments
    command = shlex.join(["python", "training/milestones.py", *map(public_word, words)])
    try:
        data = [DataOptions(data_dir=folder) for folder in known.data_dir]
        device = "cuda" if torch.cuda.is_available() else "cpu"
        report = measure_milestones(
            *(known.run_folder, data, known.output_dir),
            command=command,
            pooling=known.pooling,
            layer=known.layer,
            spare_test=known.spare_test,
            device=device,
        )
    except (OSError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    say(format_milestones(report).rstrip())


if __name__ == "__main__":
    main()
