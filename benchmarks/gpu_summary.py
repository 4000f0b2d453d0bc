"""What the parts of `benchmarks/gpu.sh` have measured so far, a line each. Needs Python alone.

python benchmarks/gpu_summary.py OUT_DIR
"""

import argparse
import json
import sys
from pathlib import Path

PARTS = ("synthesis", "model", "comparisons", "base", "doubles")


def format_summary(output: Path) -> str:
    """A table of every measurement in the parts' JSON files; parts without one are "not measured"."""
    lines = [f"{'part':<13}{'what':<44}result"]
    for part in PARTS:
        path = output / f"{part}.json"
        if not path.is_file():
            lines.append(f"{part:<13}not measured")
            continue
        report = json.loads(path.read_text(encoding="utf-8"))
        for name, row in report["rows"].items():
            lines.append(f"{part:<13}{name:<44}" + ", ".join(f"{label} {value}" for label, value in row.items()))
        lines.append(f"{part:<13}{'on':<44}{report['hardware']}, commit {report['commit']}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("output", type=Path)
    sys.stdout.write(format_summary(parser.parse_args(arguments).output) + "\n")


if __name__ == "__main__":
    main()
