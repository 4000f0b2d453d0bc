"""From a recipe to a run of its objective, and from a run's folder to the model that came out of it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import safetensors.torch
from torch import nn

from audiopg.training.engine.loop import train
from audiopg.training.objectives.doubles import Doubles, ResNetDoubles
from audiopg.training.objectives.factor_heads import FactorHeads
from audiopg.training.objectives.latent_targets import LatentTargets
from audiopg.training.objectives.masked_audio import MaskedAudio
from audiopg.training.objectives.masked_images import MaskedImages, PatternClasses
from audiopg.training.objectives.recipe import PretrainingRecipe
from audiopg.training.runs.checkpoints import WEIGHTS, checkpoints_of, newest_sound_checkpoint, sound, step_of, verify
from audiopg.training.runs.files import read_json
from audiopg.training.runs.folder import name_of
from audiopg.training.runs.recipes import load_recipe

FAMILIES: Mapping[str, type[MaskedAudio]] = MappingProxyType(
    {
        "masked_audio": MaskedAudio,
        "factor_heads": FactorHeads,
        "latent_targets": LatentTargets,
        "doubles": Doubles,
        "resnet_doubles": ResNetDoubles,
        "masked_images": MaskedImages,
        "pattern_classes": PatternClasses,
    }
)
"""What `objective` of a recipe names."""


def pretrain(recipe: PretrainingRecipe, folder: Path) -> dict[str, Any]:
    """Run a recipe to its end, or to a signal, from the last checkpoint in `folder` if there is one.

    Returns:
        The facts of the run; these and errors are those of `engine.loop.train`.
    """
    return train(recipe, folder, FAMILIES[recipe.objective])


@dataclass(frozen=True)
class TrainedRun:
    """A run's folder, read with suspicion: weights come from checkpoints that are what was written.

    Args:
        folder: As `training/pretrain.py` left it.
        recipe: Of the run.
        statistics: What it standardises with.

    Example:
        >>> TrainedRun.open(Path("nothing"))
        Traceback (most recent call last):
        ...
        ValueError: nothing holds no run (no recipe.yaml); give a folder of training/pretrain.py.
    """

    folder: Path
    recipe: PretrainingRecipe
    statistics: Mapping[str, Any]

    @classmethod
    def open(cls, folder: Path) -> "TrainedRun":
        """Read a run's folder.

        Raises:
            ValueError: if it holds no run.
        """
        for name in ("recipe.yaml", "statistics.json"):
            if not (folder / name).is_file():
                raise ValueError(f"{folder} holds no run (no {name}); give a folder of training/pretrain.py.")
        statistics = read_json(folder / "statistics.json", "The run's command, given again, measures what is damaged.")
        return cls(folder, load_recipe(PretrainingRecipe, folder / "recipe.yaml"), statistics)

    @cached_property
    def name(self) -> str:
        """What its checkpoints carry."""
        return name_of(self.folder, self.recipe)

    @property
    def facts(self) -> dict[str, Any]:
        """`run.json`.

        Raises:
            ValueError: if the run has not finished.
        """
        path = self.folder / "run.json"
        if not path.exists():
            raise ValueError(
                f"{self.folder} holds no finished run (no run.json); let training/pretrain.py run it to its end."
            )
        return read_json(path, "The run's command, given again, makes it anew.")

    @property
    def family(self) -> type[MaskedAudio]:
        """What it trained."""
        return FAMILIES[self.recipe.objective]

    def feature_extractor(self) -> Any:
        """The extractor that goes with its model."""
        return self.family.build_feature_extractor(self.recipe, self.statistics)

    def initial_model(self) -> nn.Module:
        """What was trained, as it was before the first step."""
        return self.family.build_model(self.recipe)

    def model(self) -> Any:
        """The model to be given to others, of the newest checkpoint that can be trusted.

        Raises:
            ValueError: if there is none.
        """
        newest = newest_sound_checkpoint(self.folder, self.name)
        if newest is None:
            raise ValueError(f"{self.folder} has no checkpoint; let training/pretrain.py run longer.")
        return self._released(newest[0])

    def final_model(self) -> Any:
        """The model of the last step of a finished run.

        Raises:
            ValueError: if the run has not finished, or its last checkpoint is not what was written.
        """
        last = self.folder / "checkpoints" / f"step_{self.facts['steps']:08d}"
        verify(last, self.name)
        return self._released(last)

    def _released(self, checkpoint: Path) -> Any:
        weights = safetensors.torch.load_file(checkpoint / WEIGHTS)
        return self.family.released(self.recipe, weights)

    def weights_files(self) -> Iterator[tuple[int, Path]]:
        """Steps, and files of the weights after them, of all checkpoints that can be trusted, oldest first."""
        for checkpoint, _ in sound(checkpoints_of(self.folder), self.name):
            yield step_of(checkpoint), checkpoint / WEIGHTS
