"""Every recipe of the package, one per published row, with what it costs on a GPU: `training/pretrain.py --list`.

The cost is a prediction, not a measurement: the formula's FLOP over a share of the device's peak. A run's log shows
the share that a device really reaches.
"""

import math

from audiopg.training.objectives.pretraining import FAMILIES
from audiopg.training.objectives.recipe import PretrainingRecipe
from audiopg.training.runs.recipes import RECIPES, load_recipe

H200_TFLOPS = 790.0
"""What a bf16 matrix product of random numbers reaches on an H200, in 10^12 FLOP/s."""

SHARE = 0.4
"""A share of the peak that training reaches, synthesis included."""


def flop_of(recipe: PretrainingRecipe) -> float:
    """FLOP of a whole run, by formula.

    Example:
        >>> round(flop_of(load_recipe(PretrainingRecipe, "base")) / 1e16)
        8
    """
    return recipe.num_steps * recipe.batch_size * FAMILIES[recipe.objective].flop_per_example(recipe)


def gpu_minutes(recipe: PretrainingRecipe, peak_tflops: float = H200_TFLOPS, share: float = SHARE) -> float:
    """Minutes that a recipe takes on one device, by formula; no more than its `max_minutes`.

    Args:
        recipe: What to run.
        peak_tflops: The device's peak in 10^12 FLOP/s.
        share: The part of it that training reaches, synthesis or reading included.

    Returns:
        Minutes.

    Example:
        >>> round(gpu_minutes(load_recipe(PretrainingRecipe, "base")), 1)
        4.2
    """
    return min(flop_of(recipe) / (peak_tflops * 1e12 * share) / 60, recipe.max_minutes or math.inf)


def listing() -> str:
    """All recipes with their clips, FLOP, predicted minutes and first words, and how each is run, as text."""
    rows = [f"{'recipe':<22}{'clips':>10}{'FLOP':>10}{'minutes':>9}  what"]
    for path in sorted(RECIPES.glob("*.yaml")):
        recipe = load_recipe(PretrainingRecipe, path)
        flop, minutes = flop_of(recipe), gpu_minutes(recipe)
        rows.append(f"{path.stem:<22}{recipe.num_clips:>10}{flop:>10.1e}{minutes:>9.1f}  {recipe.description}")
    table = "\n".join(rows)
    return (
        f"{table}\n\nMinutes are predicted for one GPU at {SHARE:.0%} of {H200_TFLOPS:g} TFLOP/s. Each is run with\n"
        "  accelerate launch --config_file training/accelerate/single_gpu_bf16.yaml training/pretrain.py RECIPE\n"
    )
