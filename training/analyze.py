"""What an encoder has learnt of how its sounds were made: every factor is known, and is looked for in the embedding.

    python training/analyze.py CHECKPOINT [--output_dir FOLDER] [--audio FILE ...] [--run_folder RUN] [--data_dir DIR]

The folder receives `report.html`, which needs no other file, `report.json`, every figure as PNG and SVG, and sounds.
Beside the checkpoint stand a random encoder of its shape, the mean and deviation of each log-mel band, and chance: a
figure means nothing without them. `--audio` adds recordings to the gallery of reconstructions, `--run_folder` shows
how the filters formed over the checkpoints of the run, `--data_dir` compares synthetic sounds with those of a folder.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from transformers.utils import logging

from audiopg.training.analysis.analysis import analyse
from audiopg.training.analysis.factors import Design
from audiopg.training.runs.names import public_word


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("checkpoint", type=Path, help="folder with a checkpoint and its feature extractor")
    parser.add_argument("--output_dir", type=Path, default=Path("analysis"))
    parser.add_argument("--preset", default="reference", help="whose clips to probe with")
    parser.add_argument(
        "--audio", type=Path, nargs="+", default=[], help="recordings to redraw beside synthetic clips"
    )
    parser.add_argument("--run_folder", type=Path, help="the run it came from, to see its filters form")
    parser.add_argument("--data_dir", type=Path, help="recordings, at any depth, to compare synthetic sounds with")
    for name, value in asdict(Design()).items():
        parser.add_argument(f"--{name}", type=int, default=value)
    known = parser.parse_args(arguments)
    logging.disable_progress_bar()
    logging.set_verbosity_error()  # the decoder's weights are not missed in an encoder
    words = sys.argv[1:] if arguments is None else arguments
    try:
        design = Design(**{name: getattr(known, name) for name in asdict(Design())})
        command = shlex.join(["python", "training/analyze.py", *map(public_word, words)])
        known.output_dir.mkdir(parents=True, exist_ok=True)
        analyse(
            *(known.checkpoint, known.output_dir, known.preset, design, command),
            recordings=known.audio,
            run_folder=known.run_folder,
            data_dir=known.data_dir,
        )
    except (OSError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    sys.stderr.write(f"{known.output_dir / 'report.html'}\n")


if __name__ == "__main__":
    main()
