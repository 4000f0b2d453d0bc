"""Which ingredient taught what: a grid of recipes, each pre-trained and probed on real sounds by one protocol.

    python training/ablate.py ladder --data_dir FOLDER [--processes 2] [--output_dir ablations]
    python training/ablate.py events --data_dir FOLDER --seeds "[0, 1, 2]" --overrides.num_clips 40000

A grid names a base recipe, what every cell changes, and the cells. Each cell is pre-trained with each seed; from its
frozen embeddings, a linear probe reads the classes of real sounds, whatever `training/finetune.py` takes, over folds
or official splits, and ridge regression the factors of held-out synthesized clips. A run is kept under a name made of
all that defines it, `runs/KEY`, its measurements under that of the recordings: the same command goes on where it was
stopped, and grids that share a cell share its runs. `GRID/` then holds `table.md`, `results.json` and `chart.png`:
scores, differences to the grid's reference cell with intervals, a random encoder, the log-mel, and the paper's figures
beside.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers.utils import logging

from audiopg.training.ablation.grid import AblationGrid, load_grid
from audiopg.training.ablation.jobs import STOPPED, ablate
from audiopg.training.features.labelled import DataOptions, add_data_options
from audiopg.training.runs.names import public_word, say
from audiopg.training.runs.recipes import parse_overrides, recipe_parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = recipe_parser(__doc__, AblationGrid)
    parser.add_argument("grid", help="a YAML file, or the name of a grid of the package, such as ladder")
    add_data_options(parser)
    parser.add_argument("--output_dir", type=Path, default=Path("ablations"), help="default ablations")
    parser.add_argument("--processes", type=int, default=1, help="runs at a time; on a CPU, as many as it has cores")
    known, rest = parser.parse_known_args(arguments)
    if known.processes < 1:
        parser.error(f"--processes is 1 or more, got {known.processes}.")
    logging.set_verbosity_error()
    try:
        grid, data = load_grid(known.grid, parse_overrides(rest)), DataOptions.of(known)
        # What a reader would type: neither where this machine keeps the recordings nor where the results went.
        command = shlex.join(
            ["python", "training/ablate.py", public_word(known.grid), *data.words(), *map(public_word, rest)]
        )
        device = "cuda" if torch.cuda.is_available() else "cpu"
        ablate(grid, data, known.output_dir, command, device, known.processes)
    except (OSError, ValueError, RuntimeError, FloatingPointError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    except KeyboardInterrupt:
        parser.exit(STOPPED, f"{parser.prog}: stopped; the same command goes on.\n")
    say((known.output_dir / grid.name / "table.md").read_text(encoding="utf-8").rstrip())


if __name__ == "__main__":
    main()
