from dataclasses import asdict
from pathlib import Path

import pytest

from audiopg.data_scripts.synthesis import get_preset
from audiopg.modeling.configuration_audiopg import AudioPGConfig
from audiopg.training.runs.recipes import (
    RECIPES,
    PretrainingRecipe,
    RecordingsRecipe,
    build_recipe,
    load_recipe,
    parse_overrides,
)

COMPLETE = {"name": "x", "description": "d", "size": "tiny", "preset": "sine", "num_clips": 8}


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_describes_a_model_and_clips_that_can_be_made(path: Path):
    recipe = load_recipe(PretrainingRecipe, path)
    AudioPGConfig.of_size(recipe.size, **recipe.model)
    if recipe.recordings:
        assert build_recipe(RecordingsRecipe, recipe.recordings).duration == 10.24
    else:
        get_preset(recipe.preset, **recipe.synthesis)
    assert recipe.description


def test_no_two_recipes_share_a_name_and_with_it_a_folder():
    names = [load_recipe(PretrainingRecipe, path).name for path in RECIPES.glob("*.yaml")]
    assert len(set(names)) == len(names)


# What each row of the paper's tables changes of base; f0 ranges are our choice.
ROWS = {
    "base_500": {"num_clips": 2_500_000},
    "small": {"size": "small"},
    "ablation_1_sine": {"preset": "sine"},
    "ablation_2_harmonic": {"preset": "harmonic"},
    "ablation_3_dynamic": {"preset": "dynamic"},
    "ablation_4_reference": {},
    "f0_narrow": {"synthesis": {"f0": [200, 800]}},
    "f0_wide": {"synthesis": {"f0": [25, 4000]}},
    "events_1": {"synthesis": {"num_events": 1}},
    "events_1_5": {"synthesis": {"num_events": [1, 5]}},
    "events_5_10": {"synthesis": {"num_events": [5, 10]}},
    "mask_50": {"model": {"mask_ratio": 0.5}},
    "mask_75": {"model": {"mask_ratio": 0.75}},
    "mask_90": {"model": {"mask_ratio": 0.9}},
}


@pytest.mark.parametrize("row", ROWS)
def test_a_row_differs_from_base_in_what_it_is_named_for_alone(row):
    base, recipe = (asdict(load_recipe(PretrainingRecipe, name)) for name in ("base", row))
    changed = {name: value for name, value in recipe.items() if value != base[name]}
    assert changed == {"name": changed["name"], "description": changed["description"], **ROWS[row]}


def test_a_recipe_extends_another_of_its_folder(tmp_path):
    (tmp_path / "parent.yaml").write_text("{name: p, description: d, size: tiny, preset: sine, num_clips: 8}")
    (tmp_path / "child.yaml").write_text("{extends: parent, name: c, synthesis: {f0: [60, 70]}}")
    (tmp_path / "grandchild.yaml").write_text("{extends: child}")
    recipe = load_recipe(PretrainingRecipe, tmp_path / "child.yaml", {"synthesis": {"duration": 1.0}})
    assert (recipe.name, recipe.num_clips, recipe.synthesis) == ("c", 8, {"f0": [60, 70], "duration": 1.0})
    with pytest.raises(ValueError, match="one step is allowed"):
        load_recipe(PretrainingRecipe, tmp_path / "grandchild.yaml")


@pytest.mark.parametrize(
    "values", [{"folder": 1}, {"folder": "x", "duration": 0.0}, {"folder": "x", "max_unreadable": -1}, {"rate": 1}]
)
def test_impossible_recordings_are_refused(values):
    with pytest.raises(ValueError, match=r"folder is of type str|duration lies|max_unreadable is 0|no field 'rate'"):
        build_recipe(RecordingsRecipe, values)


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
    assert recipe.synthesis == {"duration": 2.56, "f0": [60, 70]}
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
        ({"preset": ""}, "either a preset, to synthesize clips, or recordings"),
        ({"recordings": {"folder": "x"}}, "either a preset, to synthesize clips, or recordings"),
        ({"micro_batch_size": 0}, "micro_batch_size is 1 or more"),
        ({"batch_size": 8, "micro_batch_size": 3}, "micro_batch_size divides batch_size, 8, got 3"),
        ({"milestones": [0]}, "milestones are steps, 1 or more"),
        ({"max_minutes": 0.0}, "max_minutes is above 0"),
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
