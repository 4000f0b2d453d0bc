import pytest

from audiopg.training.objectives.costs import gpu_minutes, listing
from audiopg.training.objectives.recipe import PretrainingRecipe
from audiopg.training.runs.recipes import RECIPES, load_recipe


def test_base_costs_101_seconds_at_an_h200_s_full_peak():
    """The bound that the issue of speed is measured against, 8.0e16 FLOP at 790 TFLOP/s."""
    minutes = gpu_minutes(load_recipe(PretrainingRecipe, "base"), peak_tflops=790, share=1.0)
    assert 60 * minutes == pytest.approx(101, rel=0.01)


def test_a_wall_clock_budget_bounds_the_cost():
    recipe = load_recipe(PretrainingRecipe, "recordings")
    assert gpu_minutes(recipe, peak_tflops=1, share=0.1) == recipe.max_minutes


def test_every_recipe_is_listed_with_its_cost_and_how_to_run_it():
    text = listing()
    for path in RECIPES.glob("*.yaml"):
        recipe = load_recipe(PretrainingRecipe, path)
        (row,) = [line for line in text.splitlines() if line.split()[:1] == [path.stem]]
        assert f"{gpu_minutes(recipe):.1f}" in row.split()
        assert recipe.description in row
    assert "predicted for one GPU at 40% of 790 TFLOP/s" in text
    assert "training/pretrain.py RECIPE" in text
