"""What steps of `benchmarks/gpu.sh` have measured so far, a line each, and what is brought home. Needs Python alone.

python benchmarks/gpu_summary.py OUT_DIR [STEP ...]
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path


def format_summary(output: Path, steps: Sequence[str]) -> str:
    """A table of every measurement of the steps; those without a file are "not measured". Then the files."""
    lines = [f"{'step':<12}{'what':<62}result"] if steps else []
    for step in steps:
        path = output / f"{step}.json"
        if not path.is_file():
            lines.append(f"{step:<12}not measured")
            continue
        report = json.loads(path.read_text(encoding="utf-8"))
        for name, row in report["rows"].items():
            lines.append(f"{step:<12}{name:<62}" + ", ".join(f"{label} {value}" for label, value in row.items()))
        lines.append(f"{step:<12}{'on':<62}{report['hardware']}, commit {report['commit']}")
    sizes = [path.stat().st_size for path in output.rglob("*") if path.is_file()]
    lines.append(f"files: {len(sizes)}, the largest of {max(sizes, default=0) / 1e6:.1f} MB")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("output", type=Path)
    parser.add_argument("steps", nargs="*")
    known = parser.parse_args(arguments)
    sys.stdout.write(format_summary(known.output, known.steps) + "\n")


if __name__ == "__main__":
    main()
