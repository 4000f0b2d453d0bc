"""The main job from end to end on a CPU: synthesize, pre-train, export, load elsewhere, measure.

    python training/demo.py [--output_dir demo] [--data_dir FOLDER] [--num_clips 9000 ...]

Further options override fields of the recipe `tiny`. With `--data_dir`, labelled recordings of any kind that
`training/finetune.py` takes, or with AUDIOPG_ESC50_DIR set to such, the encoder is also probed on them. The released
checkpoint stands beside it in both. The last lines name every file that was made.
"""

import argparse
import os
import subprocess
from pathlib import Path

from transformers.utils import logging

from audiopg.training.publishing.demonstration import run_demo, say

RELEASED = Path(__file__).parents[1] / "checkpoints" / "audiopg-tiny"
"""What the demo's encoder is compared with, where it lies beside the code."""


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--recipe", default="tiny")
    parser.add_argument("--output_dir", type=Path, default=Path("demo"))
    parser.add_argument("--data_dir", "--esc50_dir", default=os.environ.get("AUDIOPG_ESC50_DIR") or None)
    known, rest = parser.parse_known_args(arguments)
    logging.disable_progress_bar()
    logging.set_verbosity_error()  # the decoder's weights are not missed in an encoder
    try:
        data = [known.data_dir] if known.data_dir else []
        beside = RELEASED if RELEASED.is_dir() else None
        results = run_demo(known.recipe, rest, known.output_dir, data, beside=beside)
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    made = sorted(path for path in known.output_dir.rglob("*") if path.is_file())
    say(f"Done in {results['seconds']:.0f} s. Files made:")
    for path in made:
        say(f"  {path}")


if __name__ == "__main__":
    main()
