"""Optimizers and their rates over a run."""

import math
from typing import Any

import torch
from torch import nn

from audiopg.training.engine.recipe import RunRecipe

_STEPS = (0.775, 0.85, 0.925)
"""Where the schedule `steps` goes down, as shares of the run (Cherep & Singh, 2024: epochs 155, 170, 185 of 200)."""


def learning_rate_at(step: int, recipe: RunRecipe) -> float:
    r"""Learning rate of a step, counted from 0: linear warm-up, then constant, in steps, or a half cosine to zero.

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
    if recipe.schedule == "steps":
        return recipe.learning_rate * 0.1 ** sum(step >= int(share * recipe.num_steps) for share in _STEPS)
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


def build_optimizer(model: nn.Module, recipe: RunRecipe) -> torch.optim.Optimizer:
    """AdamW, or plain SGD, as the recipe has it."""
    groups = parameter_groups(model, recipe.weight_decay)
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.learning_rate, fused=True)
    betas = (recipe.betas[0], recipe.betas[1])
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=betas, fused=True)
