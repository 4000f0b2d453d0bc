"""Pre-train on clips synthesized on the training device, or on unlabelled recordings.

    accelerate launch training/pretrain.py training/recipes/tiny.yaml [--num_clips 1000 ...]
    python training/pretrain.py training/recipes/base.yaml --profile
    python training/pretrain.py --list

The run's folder receives the recipe, the statistics, `metrics.jsonl`, TensorBoard logs, checkpoints and, at the end,
`run.json`. The same command goes on from the last checkpoint of a run that was stopped or killed; a run is defined by
its recipe alone, so it may go on with another number of processes. `--profile` prints where a step's time goes,
`--list` what can be pre-trained here and what each costs.
"""

import sys
from pathlib import Path

from audiopg.training.engine.loop import profile
from audiopg.training.objectives.costs import listing
from audiopg.training.objectives.pretraining import FAMILIES, pretrain
from audiopg.training.objectives.recipe import PretrainingRecipe
from audiopg.training.runs.recipes import load_recipe, parse_overrides, recipe_parser

__all__ = ["main", "pretrain"]


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = recipe_parser(__doc__, PretrainingRecipe)
    parser.add_argument("recipe", nargs="?", help="a YAML file, or the name of a recipe of the package, such as tiny")
    parser.add_argument("--output_dir", type=Path, help="folder of the run; default runs/NAME")
    parser.add_argument("--profile", action="store_true", help="print where a step's time goes, and train nothing")
    parser.add_argument("--list", action="store_true", help="print what can be pre-trained here, and what it costs")
    known, rest = parser.parse_known_args(arguments)
    if known.list:
        sys.stdout.write(listing())
        return
    if known.recipe is None:
        parser.error("give a recipe: a YAML file, or a name out of --list")
    try:
        recipe = load_recipe(PretrainingRecipe, known.recipe, parse_overrides(rest))
        folder = known.output_dir or Path("runs") / recipe.name
        if known.profile:
            sys.stdout.write(profile(recipe, folder, FAMILIES[recipe.objective]) + "\n")
            return
        facts = pretrain(recipe, folder)
    except (ValueError, FloatingPointError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    if not facts["finished"]:
        message = f"Stopped after step {facts['steps']} of {recipe.num_steps}, saved; the same command goes on.\n"
        sys.stderr.write(message)
        sys.exit(130)
    sys.stderr.write(
        f"{facts['clips']} clips in {facts['seconds']:.0f} s ({facts['clips_per_second']:.1f} clips/s), "
        f"loss {facts['loss']:.4f}: {folder}\n"
    )


if __name__ == "__main__":
    main()
