"""Make a released checkpoint from its recipe: pre-train, export, probe, fill in the card. `make release NAME=...`.

    python training/release.py audiopg-tiny --data_dir ESC-10 SPEECH_COMMANDS [--dtype float16] [--num_clips 1000 ...]

The recipe is `training/recipes/` NAME `.yaml`, with `_` for `-`; further options override its fields. The run stays in
`runs/releases/NAME`: the same command goes on where it was stopped, and takes a finished run as it is, wherever it was
made. `checkpoints/NAME` receives the Hub folder, which `training/publish.py` sends.

    python training/release.py audiopg-tiny --results_only

writes the results of a release anew as the Hub reads them, in the card's metadata and in `.eval_results/`, from the
`results.json` that lies beside; nothing is trained, measured or loaded, and nothing else in the folder changes.
"""

import argparse
import subprocess
from pathlib import Path

from transformers.utils import logging

from audiopg.training.publishing.exporting import rewrite_results
from audiopg.training.publishing.hub import AUTO, DTYPES
from audiopg.training.publishing.release import release
from audiopg.training.runs.names import say


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("name", help="of the release, such as audiopg-tiny")
    parser.add_argument(
        "--data_dir", nargs="+", default=[], help="labelled recordings to probe on, one set or several"
    )
    parser.add_argument(
        "--dtype",
        choices=(*DTYPES, AUTO),
        default=AUTO,
        help="of the weights; auto, which needs data, has probes choose",
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/releases"), help="where the run's folder is")
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"), help="where the release goes")
    parser.add_argument("--results_only", action="store_true", help="write the results of a release anew, see above")
    known, rest = parser.parse_known_args(arguments)
    if known.results_only and (rest or known.data_dir):
        parser.error("--results_only writes what results.json has: it takes neither data nor fields of a recipe.")
    logging.disable_progress_bar()
    logging.set_verbosity_error()  # the decoder's weights are not missed in an encoder
    try:
        if known.results_only:
            rewrite_results(known.checkpoints / known.name)
        else:
            release(known.name, rest, known.data_dir, known.dtype, known.runs, known.checkpoints)
    except subprocess.CalledProcessError as error:
        what = f"a part of it ended with exit status {error.returncode}, see above"
        parser.exit(2, f"{parser.prog}: {what}; the same command goes on.\n")
    except (OSError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, f"{parser.prog}: stopped; the same command goes on.\n")
    made = known.checkpoints / known.name
    say(f"{made}: " + ", ".join(sorted(path.name for path in made.iterdir())))


if __name__ == "__main__":
    main()
