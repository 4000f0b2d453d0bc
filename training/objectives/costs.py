"""List everything that can be pre-trained here, one recipe per published row, and what each costs on a GPU.

    python training/reproduce.py [--peak_tflops 790] [--share 0.4]

The cost is a prediction, not a measurement: the formula's FLOP over a share of the device's peak. `pretrain.py` shows
the share that a device really reaches.
"""

import math

from audiopg.training.objectives.building import flop_per_step
from audiopg.training.runs.recipes import RECIPES, PretrainingRecipe, load_recipe

H200_TFLOPS = 790.0
"""What a bf16 matrix product of random numbers reaches on an H200, in 10^12 FLOP/s."""


def gpu_minutes(recipe: PretrainingRecipe, peak_tflops: float, share: float) -> float:
    """Minutes that a recipe takes on one device, by formula; no more than its `max_minutes`.

    Args:
        recipe: What to run.
        peak_tflops: The device's peak in 10^12 FLOP/s.
        share: The part of it that training reaches, synthesis or reading included.

    Returns:
        Minutes.

    Example:
        >>> round(gpu_minutes(load_recipe(PretrainingRecipe, "base"), peak_tflops=790, share=0.4), 1)
        4.2
    """
    minutes = recipe.num_steps * flop_per_step(recipe) / (peak_tflops * 1e12 * share) / 60
    return min(minutes, recipe.max_minutes or math.inf)


def table(peak_tflops: float, share: float) -> str:
    """All recipes with their clips, FLOP, predicted minutes and first words, as text."""
    rows = [f"{'recipe':<22}{'clips':>10}{'FLOP':>10}{'minutes':>9}  what"]
    for path in sorted(RECIPES.glob("*.yaml")):
        recipe = load_recipe(PretrainingRecipe, path)
        flop = recipe.num_steps * flop_per_step(recipe)
        minutes = gpu_minutes(recipe, peak_tflops, share)
        rows.append(f"{path.stem:<22}{recipe.num_clips:>10}{flop:>10.1e}{minutes:>9.1f}  {recipe.description}")
    return "\n".join(rows)
