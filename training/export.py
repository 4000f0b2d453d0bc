"""Turn a finished run, pre-training or fine-tuning, into a folder that can go to the Hub as it is.

    python training/export.py runs/tiny exported/tiny [--results results.json] [--push_to_hub ORG/NAME]
    python training/export.py runs/tiny-ESC-10-fast exported/audiopg-esc10 [--license cc-by-4.0]
    python training/export.py runs/tiny exported/tiny --dtype auto --data_dir ESC-10

The folder holds safetensors, the configuration with the full `auto_map`, the feature extractor, the modeling files, a
card and the run's provenance. It loads with and without this package installed, and computes in float32 even where
`--dtype` has the weights stored in half the bytes; `auto` does so if linear probes of the frozen encoder give the same
score to 0.1 points.
"""

import argparse
import sys
from pathlib import Path

from audiopg.training.publishing.exporting import LICENSE, export_run
from audiopg.training.publishing.hub import AUTO, DTYPES, upload, write_hub_folder
from audiopg.training.runs.files import read_json
from audiopg.training.runs.names import say

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
    parser.add_argument(
        "--dtype", choices=(*DTYPES, AUTO), help="what the weights are stored in; default: as they are"
    )
    parser.add_argument("--data_dir", nargs="+", default=[], help="labelled recordings for --dtype auto to compare on")
    parser.add_argument("--push_to_hub", metavar="REPOSITORY", help="also upload the folder there")
    known = parser.parse_args(arguments)
    if known.data_dir and known.dtype != AUTO:
        parser.error("--data_dir is what --dtype auto compares types of weights on; give both, or leave it out.")
    try:
        results = read_json(known.results, "Give what training/demo.py wrote.") if known.results else None
        dtype = _chosen_dtype(known.run_folder, known.data_dir) if known.dtype == AUTO else known.dtype
        export_run(known.run_folder, known.output, results, known.license, dtype)
        sys.stderr.write(f"{known.output}: " + ", ".join(sorted(p.name for p in known.output.iterdir())) + "\n")
        if known.push_to_hub:
            upload(known.output, known.push_to_hub)
    except (OSError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


def _chosen_dtype(run_folder: Path, data_dirs: list[str]) -> str:
    """What probes choose; without `--dtype auto` an export needs none of their libraries."""
    from audiopg.training.publishing.precision import choose_dtype_of, format_choice

    report = choose_dtype_of(run_folder, data_dirs)
    say(format_choice(report))
    return report["chosen"]


if __name__ == "__main__":
    main()
