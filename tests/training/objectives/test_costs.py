import pytest

from audiopg.training.objectives.costs import gpu_minutes
from audiopg.training.reproduce import main
from audiopg.training.runs.recipes import RECIPES, PretrainingRecipe, load_recipe


def test_base_costs_101_seconds_at_an_h200_s_full_peak():
    """The bound that the issue of speed is measured against, 8.0e16 FLOP at 790 TFLOP/s."""
    minutes = gpu_minutes(load_recipe(PretrainingRecipe, "base"), peak_tflops=790, share=1.0)
    assert 60 * minutes == pytest.approx(101, rel=0.01)


def test_a_wall_clock_budget_bounds_the_cost():
    recipe = load_recipe(PretrainingRecipe, "recordings")
    assert gpu_minutes(recipe, peak_tflops=1, share=0.1) == recipe.max_minutes


def test_the_command_lists_every_recipe_with_its_cost(capsys):
    main(["--peak_tflops", "100", "--share", "0.5"])
    printed = capsys.readouterr().out
    assert all(f"\n{path.stem} " in printed for path in RECIPES.glob("*.yaml"))
    assert "predicted for one GPU at 50% of 100 TFLOP/s" in printed


@pytest.mark.parametrize("words", [["--share", "0"], ["--share", "2"], ["--peak_tflops", "-1"]])
def test_an_impossible_device_is_refused(words, capsys):
    with pytest.raises(SystemExit):
        main(words)
    assert "a share in (0, 1]" in capsys.readouterr().err
