# /// script
# requires-python = ">=3.11"
# dependencies = ["audiopg"]
# ///
"""Pre-train, export and, if told where to, publish: one file that brings its environment with it.

    uv run scripts/pretrain.py RECIPE OUT [--push_to_hub ORG/NAME] [--num_clips 1000 ...]

OUT receives the run and, in `exported`, the folder for the Hub. The same command goes on with a run that was stopped
or killed, as `training/pretrain.py` does, whose `--help` knows all fields of a recipe. RECIPE is a name such as tiny,
or a file.
"""

import argparse
from pathlib import Path

from audiopg.training import export, pretrain


def main(arguments: list[str] | None = None) -> None:
    """Command line; words that it does not know are for the recipe."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("recipe")
    parser.add_argument("output", type=Path, metavar="OUT")
    parser.add_argument("--push_to_hub", metavar="REPOSITORY", help="also upload the exported folder there")
    known, fields = parser.parse_known_args(arguments)
    run, exported = known.output / "run", known.output / "exported"
    pretrain.main([known.recipe, "--output_dir", str(run), *fields])
    upload = ["--push_to_hub", known.push_to_hub] if known.push_to_hub else []
    export.main([str(run), str(exported), *upload])


if __name__ == "__main__":
    main()
