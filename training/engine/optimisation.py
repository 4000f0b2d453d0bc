"""Optimizers and their rates over a run."""

import math
from typing import Any

import torch
from torch import nn

from audiopg.training.engine.recipe import RunRecipe


def learning_rate_at(step: int, recipe: RunRecipe) -> float:
    r"""Learning rate of a step, counted from 0: linear warm-up, then constant or a half cosine to zero.

    Example:
        >>> recipe = RunRecipe(
        ...     name="x", description="", num_clips=100, batch_size=1, learning_rate=1.0, schedule="cosine",
        ...     warmup_fraction=0.1,
        ... )
        >>> [round(learning_rate_at(step, recipe), 2) for step in (0, 9, 10, 55, 99)]
        [0.1, 1.0, 1.0, 0.5, 0.0]
    """
    warmup_steps = round(recipe.warmup_fraction * recipe.num_steps)
    if step < warmup_steps:
        return recipe.learning_rate * (step + 1) / warmup_steps
    if recipe.schedule == "constant":
        return recipe.learning_rate
    progress = (step - warmup_steps) / max(1, recipe.num_steps - warmup_steps)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay on matrices alone: not on biases, norms and tokens."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    is_matrix = [p.squeeze().ndim >= 2 for p in parameters]
    return [
        {"params": [p for p, m in zip(parameters, is_matrix, strict=True) if m], "weight_decay": weight_decay},
        {"params": [p for p, m in zip(parameters, is_matrix, strict=True) if not m], "weight_decay": 0.0},
    ]


def adamw(model: nn.Module, recipe: RunRecipe) -> torch.optim.Optimizer:
    """AdamW as the recipe has it."""
    return torch.optim.AdamW(
        parameter_groups(model, recipe.weight_decay),
        lr=recipe.learning_rate,
        betas=(recipe.betas[0], recipe.betas[1]),
        fused=True,
    )
