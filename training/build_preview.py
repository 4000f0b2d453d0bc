"""Write a preview of all that is synthesized as one small data set: a configuration for each preset and each voice.

    python training/build_preview.py datasets/audiopg-preview [--num_clips 100] [--duration 0.8]

FLAC in Parquet, every factor a column, a card with the commands that make a million of each. `load_dataset(FOLDER)`
reads it, `load_dataset(FOLDER, "voice")` another configuration; `training/publish.py` sends it to the Hub.
"""

import argparse
import sys
from pathlib import Path

from audiopg.training.publishing.preview import MOST_MEGABYTES, build_preview


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--num_clips", type=int, default=100, help="of each preset and each voice")
    parser.add_argument(
        "--duration", type=float, default=0.8, help=f"of presets' clips, in s; {MOST_MEGABYTES} MB in all"
    )
    known = parser.parse_args(arguments)
    try:
        shards = build_preview(known.folder, known.num_clips, known.duration)
    except (OSError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    size = sum(path.stat().st_size for path in shards.values()) / 1e6
    sys.stderr.write(f"{known.folder}: {known.num_clips} clips each of {', '.join(shards)}, {size:.1f} MB\n")


if __name__ == "__main__":
    main()
