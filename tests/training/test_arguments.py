from pathlib import Path

import pytest

from audiopg.data_scripts.synthesis import get_preset
from audiopg.modeling.configuration_audiopg import AudioPGConfig
from audiopg.training.arguments import RECIPES, PretrainingRecipe, build_recipe, load_recipe, parse_overrides

COMPLETE = {"name": "x", "description": "d", "size": "tiny", "preset": "sine", "num_clips": 8}


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_describes_a_model_and_clips_that_can_be_made(path: Path):
    recipe = load_recipe(PretrainingRecipe, path)
    AudioPGConfig.of_size(recipe.size, **recipe.model)
    get_preset(recipe.preset, **recipe.synthesis)
    assert recipe.description


def test_base_is_the_published_recipe():
    recipe = load_recipe(PretrainingRecipe, "base")
    assert (recipe.num_clips, recipe.batch_size, recipe.learning_rate) == (500_000, 64, 1e-4)
    assert (recipe.schedule, recipe.weight_decay, recipe.betas) == ("constant", 0.05, [0.9, 0.95])
    assert recipe.preset == "reference"
    assert not recipe.synthesis
    assert not recipe.model


def test_overrides_replace_fields_and_extend_mappings():
    overrides = parse_overrides(["--learning_rate", "1e-3", "--synthesis.f0=[60, 70]", "--num_clips", "640"])
    recipe = load_recipe(PretrainingRecipe, "tiny", overrides)
    assert recipe.learning_rate == 1e-3
    assert recipe.synthesis == {"duration": 5.12, "f0": [60, 70]}
    assert recipe.num_steps == 640 // recipe.batch_size


def test_a_started_batch_counts_as_a_step():
    assert build_recipe(PretrainingRecipe, {**COMPLETE, "num_clips": 65, "batch_size": 32}).num_steps == 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lerning_rate": 1.0}, "no field 'lerning_rate'; did you mean 'learning_rate'"),
        ({"zzz": 1}, "its fields are name"),
        ({"num_clips": "many"}, "num_clips is of type int, got 'many'"),
        ({"num_clips": True}, "num_clips is of type int"),
        ({"num_clips": 0}, "num_clips is 1 or more"),
        ({"learning_rate": 0.0}, "learning_rate is above 0"),
        ({"schedule": "linear"}, "schedule is constant or cosine"),
        ({"warmup_fraction": 1.0}, "warmup_fraction"),
        ({"betas": [0.9]}, "betas are two numbers"),
        ({"betas": [0.9, "b"]}, r"betas\[1\] is of type float"),
        ({"weight_decay": -1.0}, "weight_decay is 0 or more"),
    ],
)
def test_a_wrong_field_is_refused_by_name(values, message):
    with pytest.raises(ValueError, match=message):
        build_recipe(PretrainingRecipe, COMPLETE | values)


def test_a_missing_field_is_named():
    with pytest.raises(ValueError, match="needs the fields name, description, size;"):
        build_recipe(PretrainingRecipe, {"num_clips": 1})


def test_an_unknown_recipe_lists_those_that_exist():
    with pytest.raises(ValueError, match=r"base, .*tiny"):
        load_recipe(PretrainingRecipe, "basis")


def test_a_recipe_file_must_be_a_mapping(tmp_path):
    (tmp_path / "r.yaml").write_text("- 1\n")
    with pytest.raises(ValueError, match="maps fields to values"):
        load_recipe(PretrainingRecipe, tmp_path / "r.yaml")


@pytest.mark.parametrize("words", [["tiny"], ["--num_clips"], ["--a", "[1"]])
def test_words_that_are_no_overrides_are_refused(words):
    with pytest.raises(ValueError, match=r"Overrides are pairs|is not a value"):
        parse_overrides(words)
