r"""Latent targets: from the patches that the encoder sees, tell what a teacher makes of the whole clip.

The teacher is the exponential average of the encoder: after every step, each of its weights is
$\theta' \leftarrow m \theta' + (1 - m) \theta$. It sees every patch; the target of a patch is the mean of what its
last K blocks make of it, each standardised over the channels. The decoder predicts the targets of hidden patches from
the tokens of visible ones, by squared error. So data2vec (Baevski et al., 2022) learns from context, with a small
decoder for hidden patches as in M2D (Niizumi et al., 2023) and EAT (Chen et al., 2024).

A teacher could be predicted perfectly by saying the same of every patch. `target_spread`, the standard deviation of
targets over patches and clips, is logged beside the loss: 1 at most, and near 0 if that has happened. Redrawing and
naming factors may be added by a weight, which holds the encoder to the clips. The teacher is dropped at a release.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from audiopg.modeling.configuration_audiopg import AudioPGConfig
from audiopg.modeling.modeling_audiopg import AudioPGModel
from audiopg.training.objectives.factor_heads import FactorHeads, FactorHeadsModel, heads_of
from audiopg.training.objectives.masked_audio import (
    decoded_tokens,
    flop_per_clip,
    num_patches_of,
    redrawing_loss,
    with_initial_weights,
)
from audiopg.training.objectives.recipe import LatentsRecipe, PretrainingRecipe


def latent_targets(hidden_states: tuple[Tensor, ...], layers: int) -> Tensor:
    """Targets of all patches: the mean of the last blocks' outputs, each standardised over the channels.

    Args:
        hidden_states: The input of the first block and the output of each, `(batch, 1 + patches, width)`.
        layers: How many of the last blocks count.

    Returns:
        Without the class token, float32, shape `(batch, patches, width)`.

    Example:
        >>> blocks = torch.randn(3, 2, 5, 8).unbind()
        >>> latent_targets(blocks, layers=1).std(dim=-1, correction=0).round(decimals=2).unique().tolist()
        [1.0]
    """
    last = [states[:, 1:].float() for states in hidden_states[-layers:]]
    return torch.stack([layer_norm(states, states.shape[-1:]) for states in last]).mean(dim=0)


@torch.no_grad()
def follow(teacher: nn.Module, encoder: nn.Module, momentum: float) -> None:
    """Move a teacher's weights towards an encoder's, in place.

    Args:
        teacher: Of the encoder's shape.
        encoder: What it follows.
        momentum: The share of its weights that stays.

    Example:
        >>> teacher, encoder = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        >>> _ = teacher.weight.data.fill_(1.0), encoder.weight.data.fill_(3.0)
        >>> follow(teacher, encoder, momentum=0.75)
        >>> teacher.weight.item()
        1.5
    """
    for theirs, weights in zip(teacher.parameters(), encoder.parameters(), strict=True):
        theirs.lerp_(weights, 1 - momentum)


class LatentTargetsModel(FactorHeadsModel):
    """The masked autoencoder with a teacher, a prediction of what that sees, and heads that name factors.

    Args:
        config: Of the autoencoder.
        head_sizes: Of the heads, as from `heads_of`; none without a weight for factors.
        weights: Of the losses, and which blocks are targets.

    Example:
        >>> model = LatentTargetsModel(AudioPGConfig.of_size("tiny"), {}, LatentsRecipe())
        >>> list(model(torch.randn(2, 64, 128), torch.rand(2, 32), {}))
        ['loss', 'latents', 'target_spread']
    """

    def __init__(self, config: AudioPGConfig, head_sizes: Mapping[str, int], weights: LatentsRecipe) -> None:
        super().__init__(config, head_sizes, weights)
        self.layers = weights.layers
        self.prediction = nn.Linear(config.decoder_hidden_size, config.hidden_size)
        self.teacher = AudioPGModel(config).requires_grad_(False)
        self.decoder.requires_grad_(True)
        self.decoder.decoder_pred.requires_grad_(weights.reconstruction_weight > 0)

    def losses_beside(self, encoded: Any, values: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The loss on the teacher's targets and, if it has a weight, that of redrawing; and the `target_spread`."""
        with torch.no_grad():
            seen = self.teacher(values, output_hidden_states=True, return_dict=True)
            targets = latent_targets(seen.hidden_states, self.layers)
            spread = targets.flatten(0, 1).std(dim=0, correction=0).mean()
        decoded = decoded_tokens(self, encoded)
        errors = (self.prediction(decoded).float() - targets).square().mean(dim=-1)
        losses = {"latents": (errors * encoded.mask).sum() / encoded.mask.sum()}
        if self.weights.reconstruction_weight:
            losses["reconstruction"] = redrawing_loss(self, decoded, encoded, values)
        return losses, {"target_spread": spread}


class LatentTargets(FactorHeads):
    """Predicts what a mean of the encoder's past sees in whole clips (`Objective`)."""

    @classmethod
    def weights_of(cls, recipe: PretrainingRecipe) -> LatentsRecipe:
        """The section of the recipe that says how losses are added."""
        return recipe.latents

    @classmethod
    def build_model(cls, recipe: PretrainingRecipe) -> nn.Module:
        """The masked autoencoder of the same seed; its teacher begins as its encoder."""
        torch.manual_seed(recipe.seed)
        sizes = heads_of(recipe.clips) if recipe.latents.factors_weight else {}
        model = LatentTargetsModel(recipe.config, sizes, recipe.latents)
        with_initial_weights(model, recipe)
        model.teacher.load_state_dict(model.audiopg.state_dict())
        return model

    @classmethod
    def flop_per_example(cls, recipe: PretrainingRecipe) -> float:
        """As of `MaskedAudio`, and the forward pass of an encoder that sees everything."""
        config, num_patches = recipe.config, num_patches_of(recipe)
        student = flop_per_clip(config, num_patches)
        config.mask_ratio = 0.0
        return student + flop_per_clip(config, num_patches, redraws=False) / 3

    def after_step(self) -> None:
        """The teacher follows."""
        model: Any = self.model
        follow(model.teacher, model.audiopg, self.recipe.latents.momentum)
