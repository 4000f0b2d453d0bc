"""The seam between the loop and what it trains: what a family of pre-training must say, and nothing more."""

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from audiopg.training.engine.recipe import RunRecipe

LOSS = "loss"
"""The name of the loss that is minimised; whatever else an objective names is logged beside it."""


class Objective(Protocol):
    """A family of pre-training, built for one recipe.

    The class itself is what the loop is given: it measures once per run what all processes must share, and then builds
    the objective from the recipe and what was measured.

    An example is a pure function of its index, so that a run can be cut into processes and micro-batches, stopped and
    resumed at will. It is made in two steps: `draw` on the CPU, on a thread ahead of the training, and `batch` on the
    device. A batch may hold anything, two views of each example included.
    """

    splits: ClassVar[bool]
    """Whether the loss of a batch is the mean of the losses of its equal parts, so that the loop may take parts.

    A loss over all examples of a step at once says no; to see those of the other processes too it gathers them, with
    gradients, by `torch.distributed.nn.functional.all_gather`, and the mean over processes is then its gradient.
    """

    model: nn.Module
    """What is trained, with its initial weights; the loop puts it on the device and into the processes."""

    def __init__(self, recipe: Any, measured: Mapping[str, Any]) -> None:
        """Build everything that a recipe asks for.

        Raises:
            ValueError: for what cannot be trained.
        """

    @classmethod
    def measure(cls, recipe: Any, device: torch.device) -> dict[str, Any]:
        """What one process finds out before a run's first step: plain values, kept in `statistics.json`."""

    @classmethod
    def flop_per_example(cls, recipe: Any) -> float:
        """FLOP of a training step per example, by formula."""

    def draw(self, examples: range) -> Any:
        """What `batch` needs of these examples from the CPU: drawn, or read from a disk."""

    def batch(self, examples: range, drawn: Any, device: torch.device) -> dict[str, Tensor]:
        """Model inputs of these examples, made on the device; nothing here waits for it."""

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Scalars by name, among them `LOSS`.

        Args:
            model: `self.model` as the loop has prepared it; it is called once.
            batch: As from `batch`.
        """

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimizer of the model's parameters; its rate is set before every step."""

    def learning_rate(self, step: int) -> float:
        """The rate of a step, counted from 0."""

    def after_step(self) -> None:
        """What follows a step of the optimizer, on every process alike; whatever it changes is part of `model`."""

    def facts(self) -> dict[str, Any]:
        """What belongs into `run.json`, among it `saw_real_data`: True, False, or None where that is not known."""


def check_batch(recipe: RunRecipe, num_processes: int, splits: bool) -> None:
    """Refuse a step that the processes cannot share.

    Args:
        recipe: Its `batch_size` and `micro_batch_size`.
        num_processes: How many take part.
        splits: Of the objective.

    Raises:
        ValueError: with what to change.

    Example:
        >>> check_batch(RunRecipe(name="x", description="", num_clips=8, batch_size=8), num_processes=3, splits=True)
        Traceback (most recent call last):
        ...
        ValueError: batch_size is shared by all processes and taken in equal parts: 8 do not divide by 3 processes...
    """
    share, rest = divmod(recipe.batch_size, num_processes)
    micro = min(share, recipe.micro_batch_size or share)
    if rest or share % max(1, micro):
        raise ValueError(
            f"batch_size is shared by all processes and taken in equal parts: {recipe.batch_size} do not divide by "
            f"{num_processes} processes and micro_batch_size {recipe.micro_batch_size}; change one."
        )
    if micro < share and not splits:
        raise ValueError(
            f"This objective compares all examples of a step with each other, so a process takes its share of {share} "
            f"at once, got micro_batch_size {micro}; leave it out, or lower batch_size."
        )
