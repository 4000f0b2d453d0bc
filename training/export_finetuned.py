"""Turn a finished fine-tuning into a folder that can go to the Hub as it is: `training/export.py` does the same.

    python training/export_finetuned.py runs/tiny-ESC-10-fast exported/audiopg-esc10 [--push_to_hub ORG/NAME]

The folder holds the model that was trained on all clips, with its labels, and a card whose numbers all come from the
run's `results.json`, which lies beside it.
"""

import argparse
from pathlib import Path

from audiopg.training.publishing.exporting import LICENSE, export_finetuned
from audiopg.training.publishing.hub import upload


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("run_folder", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--license", default=LICENSE, help="of the weights; the recordings' licences may bind it")
    parser.add_argument("--push_to_hub", metavar="REPOSITORY", help="also upload the folder there")
    known = parser.parse_args(arguments)
    try:
        export_finetuned(known.run_folder, known.output, known.license)
        if known.push_to_hub:
            upload(known.output, known.push_to_hub)
    except (OSError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
