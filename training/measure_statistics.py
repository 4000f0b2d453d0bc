"""Mean and standard deviation of the raw log-mel of synthesized clips: what inputs are standardised with.

    python training/measure_statistics.py --preset reference --num_clips 2000

No recording is involved; pre-training measures those of its own recipe in the same way before its first step.
"""

import argparse
import json
import sys

from audiopg.data_scripts.synthesis import PRESETS, get_preset
from audiopg.modeling.spectrogram_audiopg import WINDOWS
from audiopg.training.objectives.statistics import measure_statistics
from audiopg.training.runs.recipes import parse_overrides


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--preset", default="reference", choices=list(PRESETS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num_clips", type=int, default=2000)
    parser.add_argument("--window", default="hann", choices=sorted(WINDOWS))
    known, rest = parser.parse_known_args(arguments)
    preset = get_preset(known.preset, **parse_overrides(rest))
    measured = measure_statistics(preset, known.seed, known.num_clips, window=known.window)
    sys.stdout.write(json.dumps(measured, indent=2) + "\n")


if __name__ == "__main__":
    main()
