"""List everything that can be pre-trained here, one recipe per published row, and what each costs on a GPU.

    python training/reproduce.py [--peak_tflops 790] [--share 0.4]

The cost is a prediction, not a measurement: the formula's FLOP over a share of the device's peak. `pretrain.py` shows
the share that a device really reaches.
"""

import argparse
import sys

from audiopg.training.objectives.costs import H200_TFLOPS, table


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--peak_tflops", type=float, default=H200_TFLOPS, help="default: an H200's")
    parser.add_argument("--share", type=float, default=0.4, help="share of the peak that training reaches")
    known = parser.parse_args(arguments)
    if not (known.peak_tflops > 0 and 0 < known.share <= 1):
        parser.error(f"a peak is above 0 and a share in (0, 1], got {known.peak_tflops} and {known.share}.")
    sys.stdout.write(
        f"{table(known.peak_tflops, known.share)}\n\n"
        f"Minutes are predicted for one GPU at {known.share:.0%} of {known.peak_tflops:g} TFLOP/s. Each is run with\n"
        "  accelerate launch --config_file training/accelerate/single_gpu_bf16.yaml training/pretrain.py RECIPE\n"
    )


if __name__ == "__main__":
    main()
