"""A grid of recipes: a base, what every cell changes, and the cells."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from audiopg.modeling.configuration_audiopg import check_pooling
from audiopg.training.evaluation.results import LOG_MEL, RANDOM_ENCODER
from audiopg.training.objectives.recipe import PretrainingRecipe
from audiopg.training.runs.folder import fingerprint
from audiopg.training.runs.names import check_name
from audiopg.training.runs.recipes import RECIPES, build_recipe, extended, load_recipe

GRIDS = RECIPES / "ablations"


@dataclass(frozen=True)
class Cell:
    """One of what is compared.

    Args:
        overrides: Of the recipe.
        paper: The paper's figure, in per cent.
    """

    overrides: dict[str, Any] = field(default_factory=dict)
    paper: float | None = None


@dataclass(frozen=True)
class AblationGrid:
    """A comparison: cells that differ in what is named, and in nothing else.

    Equal clips is what a base recipe gives; for equal time, override `max_minutes` and a `num_clips` out of reach.

    Args:
        name: Of the comparison.
        description: One sentence: what it reproduces or asks.
        base: Recipe that every cell begins with, by name or path.
        reference: The cell that the others are compared with.
        cells: By name, each with `overrides` of the recipe and perhaps the `paper`'s figure; they become `Cell`s.
        overrides: Of the recipe, in every cell.
        seeds: Of clips, masks and initial weights; every cell runs with each.
        test_folds: Folds whose score counts; all if empty. A grid from which something is to be chosen leaves some
            out, for the choice to be confirmed on.
        spare_test: Whether scores are of the validation split, where there are official splits: the same for a choice
            that is to be confirmed on the test split.
        pooling: What is read of an encoder, one of `POOLINGS`. One that has no rows along mel, a ResNet, is read at
            its mean in any case.
    """

    name: str
    description: str
    base: str
    reference: str
    cells: dict[str, Any]
    overrides: dict[str, Any] = field(default_factory=dict)
    seeds: list[int] = field(default_factory=lambda: [0, 1])
    test_folds: list[int] = field(default_factory=list)
    spare_test: bool = False
    pooling: str = "mean"

    def __post_init__(self) -> None:
        """Refuse what cannot be compared."""
        check_name("name", self.name)
        check_pooling("pooling", self.pooling)
        cells = {name: build_recipe(Cell, cell) for name, cell in self.cells.items()}
        object.__setattr__(self, "cells", cells)
        if self.reference not in self.cells:
            raise ValueError(f"reference is one of the cells, {', '.join(self.cells)}; got {self.reference!r}.")
        if taken := {RANDOM_ENCODER, LOG_MEL} & set(self.cells):
            raise ValueError(f"Every table has rows of its own beside the cells; call {', '.join(taken)} otherwise.")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds are one or more different numbers, got {self.seeds}.")
        keys: dict[str, str] = {}
        for name in self.cells:
            key = run_key(self.recipe(name, self.seeds[0]))  # a wrong field is found before hours have gone by
            if key in keys:
                raise ValueError(f"Cells of a grid differ in what is learnt, and {keys[key]!r} and {name!r} do not.")
            keys[key] = name

    def recipe(self, cell: str, seed: int) -> PretrainingRecipe:
        """The recipe of a cell.

        Raises:
            ValueError: as `load_recipe`.
        """
        changes = extended(self.overrides, self.cells[cell].overrides)
        return load_recipe(PretrainingRecipe, self.base, {**changes, "name": f"{self.name}-{cell}", "seed": seed})


def load_grid(name: str, overrides: dict[str, Any] | None = None) -> AblationGrid:
    """Read a grid.

    Args:
        name: A YAML file, or the bare name of a grid of the package.
        overrides: Of its fields, as from `parse_overrides`.

    Returns:
        The grid.

    Raises:
        ValueError: if there is no such file, or as `AblationGrid`.

    Example:
        >>> list(load_grid("ladder").cells)
        ['sine', 'harmonic', 'dynamic', 'reference']
    """
    return load_recipe(AblationGrid, Path(name) if Path(name).suffix else GRIDS / f"{name}.yaml", overrides)


def run_key(recipe: PretrainingRecipe) -> str:
    """A name for a run, equal for recipes that give the same encoder with this synthesizer.

    Example:
        >>> import dataclasses
        >>> recipe = load_recipe(PretrainingRecipe, "tiny")
        >>> run_key(recipe) == run_key(dataclasses.replace(recipe, name="another"))
        True
    """
    limit = "" if recipe.max_minutes is None else f"-{recipe.max_minutes:g}min"
    return fingerprint(recipe, recipe.made_with) + limit
