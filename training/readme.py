"""Write the measured numbers of README.md from `benchmarks/results/*.json`.

    python training/readme.py            # rewrite the marked parts
    python training/readme.py --check    # fail if they are out of date

A part starts at `<!-- results:NAME -->` and ends at `<!-- /results -->`; NAME is one of `PARTS`.
"""

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"
_PART = re.compile(r"(<!-- results:(\w+) -->\n).*?(<!-- /results -->)", re.DOTALL)


def _measured_on(results: dict[str, Any]) -> str:
    versions = results["versions"]
    return f"Measured on {results['hardware']}, torch {versions['torch']}, commit {results['commit']}"


def demo_part(results: dict[str, Any]) -> str:
    """What `make demo` printed on the machine that it was recorded on."""
    run, benchmark = results["pretraining"], results["benchmark"]
    lines = [
        f"{run['clips']} clips in {run['seconds']:.0f} s ({run['clips_per_second']} clips/s), final loss "
        f"{run['loss']:.3f}; the whole demo took {results['seconds']:.0f} s.",
        "",
        "| decoded from the frozen embedding, R² on held-out clips | pre-trained | random encoder |",
        "|---|---|---|",
        *(f"| {name} | {r['pretrained']:.3f} | {r['random']:.3f} |" for name, r in results["factors"].items()),
        "",
        f"| linear probe, {benchmark['benchmark']}, official folds | accuracy, mean ± std over folds | each fold |",
        "|---|---|---|",
    ]
    for name, row in benchmark["results"].items():
        folds = ", ".join(f"{100 * accuracy:.1f}" for accuracy in row["fold_accuracies"])
        lines.append(f"| {name} | {100 * row['mean']:.1f} ± {100 * row['std']:.1f} % | {folds} |")
    return "\n".join([*lines, "", f"{_measured_on(results)}; `benchmarks/results/demo.json`."])


PARTS: dict[str, Callable[[dict[str, Any]], str]] = {"demo": demo_part}


def render(text: str) -> str:
    """`text` with every marked part written anew from its results file.

    Args:
        text: Of README.md.

    Returns:
        The text, all else unchanged.

    Raises:
        KeyError: for a part that is not one of `PARTS`.
        FileNotFoundError: if a part has no results.
    """

    def part(match: re.Match[str]) -> str:
        name = match[2]
        results = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
        return f"{match[1]}{PARTS[name](results)}\n{match[3]}"

    return _PART.sub(part, text)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if anything would change")
    known = parser.parse_args(arguments)
    readme = ROOT / "README.md"
    before = readme.read_text(encoding="utf-8")
    after = render(before)
    if known.check and after != before:
        parser.exit(1, "README.md differs from benchmarks/results; run python training/readme.py.\n")
    if not known.check:
        readme.write_text(after, encoding="utf-8")


if __name__ == "__main__":
    main()
