import re

import pytest

from audiopg.training.ablation.grid import load_grid
from audiopg.training.finetuning.recipe import FinetuningRecipe
from audiopg.training.objectives.recipe import PretrainingRecipe
from audiopg.training.runs.names import check_name, markdown
from audiopg.training.runs.recipes import RECIPES, load_recipe

WRONG = ["../x", "/etc/x", "a/b", "a\\b", ".", "..", ".hidden", "", " ", "x ", "a\nb", "a\0b", "-rf", "x" * 300]


@pytest.mark.parametrize("name", WRONG)
def test_a_name_is_one_part_of_a_path(name):
    for make in (
        lambda: load_recipe(PretrainingRecipe, "tiny", {"name": name}),
        lambda: load_recipe(FinetuningRecipe, RECIPES / "finetuning" / "tiny.yaml", {"name": name}),
        lambda: load_grid("ladder", {"name": name}),
    ):
        with pytest.raises(ValueError, match="name becomes a folder"):
            make()


@pytest.mark.parametrize("name", ["tiny", "tiny-2", "my run", "naïve", "v1.0", "x_{$"])
def test_other_names_are_names(name):
    check_name("name", name)
    assert load_recipe(PretrainingRecipe, "tiny", {"name": name}).name == name


def test_a_cell_of_a_grid_is_named_likewise():
    with pytest.raises(ValueError, match="name becomes a folder"):
        load_grid("ladder", {"cells": {"../x": {}, "reference": {"overrides": {"preset": "reference"}}}})


@pytest.mark.parametrize("name", ["$x_{$", "a|b", "<script>", "**b**", "`c`", "[d](e)", "f\\g", "h\ni", "&amp;"])
def test_a_name_is_only_itself_in_a_table(name):
    shown = markdown(name)
    assert not re.search(r"[|<>$`*\[\]\n\\]", shown)
    assert "&" not in re.sub(r"&(#\d+|lt|gt|amp);", "", shown)


def test_ordinary_names_are_left_as_they_are():
    assert [markdown(name) for name in ("car_horn", "sea waves", "café", "5 %")] == [
        *("car_horn", "sea waves", "café", "5 %"),
    ]
