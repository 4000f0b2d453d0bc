"""Send a finished folder, of a model or of a data set, to the Hub: what is in `checkpoints/` and `datasets/`.

    python training/publish.py audiopg-tiny ORG/NAME            # checkpoints/audiopg-tiny
    python training/publish.py datasets/audiopg-preview ORG/NAME

The repository is made if it does not exist, and receives what belongs there of the folder, byte for byte. The token is
that of `hf auth login`, or HF_TOKEN.
"""

import argparse
from pathlib import Path

from audiopg.training.publishing.hub import kind_of, upload
from audiopg.training.runs.names import say

CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("folder", help="the folder, or the name of one in checkpoints/")
    parser.add_argument("repository", metavar="ORG/NAME")
    known = parser.parse_args(arguments)
    folder = Path(known.folder) if Path(known.folder).is_dir() else CHECKPOINTS / known.folder
    try:
        upload(folder, known.repository, kind_of(folder))
    except (OSError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    say(f"{folder} is now {known.repository}")


if __name__ == "__main__":
    main()
