"""Turn a finished run, pre-training or fine-tuning, into a folder that can go to the Hub as it is.

    python training/export.py runs/audiopg-tiny exported/audiopg-tiny [--results results.json] [--push_to_hub ORG/NAME]
    python training/export.py runs/audiopg-tiny-ESC-10-fast exported/audiopg-esc10 [--license cc-by-4.0]

The folder holds safetensors, the configuration with the full `auto_map`, the feature extractor, the modeling files and
a model card. It loads with and without this package installed.
"""

import argparse
import sys
from pathlib import Path

from audiopg.training.publishing.exporting import LICENSE, export_run
from audiopg.training.publishing.hub import upload, write_hub_folder
from audiopg.training.runs.files import read_json

__all__ = ["export_run", "main", "write_hub_folder"]


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("run_folder", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--results", type=Path, help="JSON of what was measured, as training/demo.py writes it")
    parser.add_argument("--license", default=LICENSE, help="of the weights; the recordings' licences may bind it")
    parser.add_argument("--push_to_hub", metavar="REPOSITORY", help="also upload the folder there")
    known = parser.parse_args(arguments)
    try:
        results = read_json(known.results, "Give what training/demo.py wrote.") if known.results else None
        export_run(known.run_folder, known.output, results, known.license)
    except (OSError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    sys.stderr.write(f"{known.output}: " + ", ".join(sorted(p.name for p in known.output.iterdir())) + "\n")
    if known.push_to_hub:
        upload(known.output, known.push_to_hub)


if __name__ == "__main__":
    main()
