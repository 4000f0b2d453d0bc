"""Write the measured numbers of README.md and docs/*.md from `benchmarks/results/*.json` and releases.

    python training/readme.py            # rewrite the marked parts
    python training/readme.py --check    # fail if they are out of date

What nobody measured is said to be "Not measured".
"""

import argparse

from audiopg.training.ablation.milestones import format_milestones
from audiopg.training.ablation.table import format_table
from audiopg.training.publishing.pages import out_of_date


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if anything would change")
    known = parser.parse_args(arguments)
    for page, text in out_of_date({"ablation": format_table, "milestones": format_milestones}).items():
        if known.check:
            parser.exit(1, f"{page.name} differs from benchmarks/results; run python training/readme.py.\n")
        page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
