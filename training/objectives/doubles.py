r"""Doubles: of two sounds whose parameters differ a little, learn that they belong together, and others do not.

"Contrastive Learning from Synthetic Audio Doppelgängers" (Cherep & Singh, 2024): a synthesizer makes a sound of random
parameters; two perturbed copies of them make its doubles. An encoder is trained to bring doubles near each other on
the unit sphere and to spread all sounds over it (`contrastive`). Here

    synthesizer    the modular one of the paper (`voices`), or the one of AudioPG's clips (`preset`)
    encoder        the paper's ResNet18 on 0.96 s (`ResNetDoubles`), or AudioPG's Transformer on patches of clips of
                   any length (`Doubles`), which may see a part of each, redraw the rest and name what was drawn beside

The Transformer is compared at a projection of the mean of its tokens, without a norm over the batch: it needs no
statistics of other processes. The ResNet's batch normalisation takes those of all processes, and of both doubles.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from audiopg.data_scripts.augmentations import augment, draw_augmentations
from audiopg.modeling.configuration_audiopg import AudioPGConfig
from audiopg.modeling.feature_extraction_doppelganger import DoppelgangerFeatureExtractor
from audiopg.modeling.modeling_audiopg import AudioPGForPreTraining
from audiopg.modeling.modeling_doppelganger import DoppelgangerModel
from audiopg.training.engine.throughput import phase
from audiopg.training.objectives.contrastive import doubles_losses, synchronise_batch_norm
from audiopg.training.objectives.factor_heads import FactorReadout, factor_targets, heads_of
from audiopg.training.objectives.masked_audio import (
    MaskedAudio,
    decoded_tokens,
    flop_per_clip,
    masking_noise,
    num_patches_of,
    redrawing_loss,
    released_model,
    weighted_sum,
    with_initial_weights,
)
from audiopg.training.objectives.recipe import DoublesRecipe, PretrainingRecipe
from audiopg.training.objectives.sources import Source, SyntheticDoubles, VoiceDoubles

_VIEWS = 2


class DoublesModel(AudioPGForPreTraining):
    """The masked autoencoder with a head on which sounds are compared.

    Args:
        config: Of the autoencoder.
        recipe: Width of the head, and weights of the losses.
        head_sizes: Of the heads that name what was drawn, as from `heads_of`.

    Example:
        >>> model = DoublesModel(AudioPGConfig.of_size("tiny"), DoublesRecipe())
        >>> list(model(torch.randn(4, 64, 128), None))
        ['loss', 'alignment', 'uniformity']
    """

    def __init__(
        self, config: AudioPGConfig, recipe: DoublesRecipe, head_sizes: Mapping[str, int] = MappingProxyType({})
    ) -> None:
        super().__init__(config)
        self.recipe = recipe
        width = config.hidden_size
        self.projection = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.Linear(width, recipe.projection_size, bias=False)
        )
        self.heads = FactorReadout(config, head_sizes) if recipe.factors_weight else None
        # What has no part in the loss gets no gradient, and processes would wait for it.
        self.decoder.requires_grad_(recipe.reconstruction_weight > 0)

    def forward(
        self, input_values: Tensor, noise: Tensor | None, targets: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Losses of pairs.

        Args:
            input_values: Doubles beside each other, shape `(2 * batch, frames, mel bins)`.
            noise: Which patches the encoder sees, shape `(2 * batch, patches)`; None for all.
            targets: What heads should say of each double, as from `factor_targets`.

        Returns:
            Scalars: `loss`, and those that it is made of.
        """
        encoded = self.audiopg(input_values, None, noise, return_dict=True)
        losses = doubles_losses(self.projection(encoded.pooler_output))
        if self.recipe.reconstruction_weight:
            losses["reconstruction"] = redrawing_loss(self, decoded_tokens(self, encoded), encoded, input_values)
        if self.heads is not None:
            losses["factors"] = torch.stack(list(self.heads(encoded, targets).values())).mean()
        return weighted_sum(losses, self.recipe.weights)


class Doubles(MaskedAudio):
    """Tells doubles from other sounds by a Transformer on patches (`Objective`)."""

    splits: ClassVar[bool] = False  # every sound is compared with every other of the step

    @classmethod
    def build_model(cls, recipe: PretrainingRecipe) -> nn.Module:
        """The masked autoencoder of the same seed, with a head."""
        torch.manual_seed(recipe.seed)
        sizes = heads_of(recipe.clips) if recipe.doubles.factors_weight else {}
        return with_initial_weights(DoublesModel(recipe.config, recipe.doubles, sizes), recipe)

    @classmethod
    def build_source(cls, recipe: PretrainingRecipe, measured: Mapping[str, Any]) -> Source:
        """Two doubles of each of the recipe's sounds."""
        if recipe.voices:
            return VoiceDoubles(recipe.voices.voice, recipe.seed, recipe.doubles.deltas)
        return SyntheticDoubles(recipe.clips, recipe.seed, recipe.doubles.deltas)

    @classmethod
    def flop_per_example(cls, recipe: PretrainingRecipe) -> float:
        """Of a pair: twice that of a clip, whose decoder only works where something is redrawn."""
        config = recipe.config
        if not recipe.doubles.masked:
            config.mask_ratio = 0.0
        redraws = recipe.doubles.reconstruction_weight > 0
        return _VIEWS * flop_per_clip(config, num_patches_of(recipe), redraws=redraws)

    @classmethod
    def released(cls, recipe: PretrainingRecipe, weights: Mapping[str, Tensor]) -> Any:
        """The masked autoencoder without the head; the encoder alone where no decoder was trained."""
        return released_model(recipe, weights, redraws=recipe.doubles.reconstruction_weight > 0)

    def draw(self, examples: range) -> tuple[Any, dict[str, Tensor], dict[str, Tensor]]:
        """Parameters of the doubles, how each is augmented, and what is to be told of it."""
        indices, doubles = torch.arange(examples.start, examples.stop), self.recipe.doubles
        parameters = self.source.draw(indices)
        changes = draw_augmentations(self.recipe.seed, indices, _VIEWS) if doubles.augmented else {}
        targets = factor_targets(parameters, *self.time_rows) if doubles.factors_weight else {}
        return parameters, changes, targets

    def batch(self, examples: range, drawn: Any, device: torch.device) -> dict[str, Tensor]:
        """`input_values`, `(2 * batch, frames, mel bins)`; if need be `noise`, `(2 * batch, patches)`, and targets."""
        parameters, changes, targets = drawn
        with phase("synthesis"):
            waveforms = self.source.waveforms(parameters, device)
        if changes:
            with phase("augmentation"):
                moved = {name: value.to(device, non_blocking=True) for name, value in changes.items()}
                waveforms = augment(waveforms, moved, sampling_rate=self.feature_extractor.sampling_rate)
        told = {name: value.to(device, non_blocking=True) for name, value in targets.items()}
        return {**self.inputs(examples, waveforms), **told}

    def inputs(self, examples: range, waveforms: Tensor) -> dict[str, Tensor]:
        """The same of doubles that are there already, shape `(2 * batch, samples)`."""
        with phase("log-mel"):
            values = self.feature_extractor.extract(waveforms)
        if not self.recipe.doubles.masked:
            return {"input_values": values}
        indices = torch.arange(examples.start, examples.stop, device=values.device)
        num_patches = values[0].numel() // self.config.patch_values
        names = [f"masking, double {view}" for view in range(_VIEWS)]
        noise = [masking_noise(self.recipe.seed, indices, num_patches, values.device, name) for name in names]
        return {"input_values": values, "noise": torch.stack(noise, dim=1).flatten(0, 1)}

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Those of `DoublesModel`."""
        targets = {name: value for name, value in batch.items() if name not in ("input_values", "noise")}
        return model(batch["input_values"], batch.get("noise"), targets)


class ResNetDoublesModel(nn.Module):
    """The paper's encoder, and the loss of its own output: it has no head beyond.

    Args:
        encoder: Of any size.
        recipe: Weight of the loss.
    """

    def __init__(self, encoder: DoppelgangerModel, recipe: DoublesRecipe) -> None:
        super().__init__()
        self.encoder, self.recipe = encoder, recipe
        synchronise_batch_norm(encoder)

    def forward(self, input_values: Tensor) -> dict[str, Tensor]:
        """Losses of pairs, doubles beside each other, shape `(2 * batch, frames, mel bins)`."""
        return weighted_sum(doubles_losses(self.encoder(input_values).pooler_output), self.recipe.weights)


class ResNetDoubles(Doubles):
    """Tells doubles from other sounds by the convolutional encoder of the paper (`Objective`)."""

    @classmethod
    def measure(cls, recipe: PretrainingRecipe, device: torch.device) -> dict[str, Any]:
        """Where the weights come from; this front end standardises nothing."""
        return {"seed": recipe.seed, **recipe.made_with, "saw_real_data": False}

    @classmethod
    def build_model(cls, recipe: PretrainingRecipe) -> nn.Module:
        """The encoder, with its initial weights."""
        torch.manual_seed(recipe.seed)
        return ResNetDoublesModel(DoppelgangerModel(recipe.config), recipe.doubles)

    @classmethod
    def build_feature_extractor(cls, recipe: PretrainingRecipe, statistics: Mapping[str, Any]) -> Any:
        """VGGish's log-mel."""
        return DoppelgangerFeatureExtractor(statistics=dict(statistics))

    @classmethod
    def flop_per_example(cls, recipe: PretrainingRecipe) -> float:
        """Of a pair: three times the products of its forward pass, as PyTorch counts them."""
        with torch.device("meta"):
            encoder = DoppelgangerModel(recipe.config)
            sound = torch.empty(1, recipe.config.window_frames, recipe.config.num_mel_bins)
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            encoder(sound)
        return _VIEWS * 3 * counter.get_total_flops()

    @classmethod
    def released(cls, recipe: PretrainingRecipe, weights: Mapping[str, Tensor]) -> Any:
        """The encoder."""
        model = DoppelgangerModel(recipe.config)
        prefix = "encoder."
        model.load_state_dict({name.removeprefix(prefix): value for name, value in weights.items()}, strict=True)
        return model

    def inputs(self, examples: range, waveforms: Tensor) -> dict[str, Tensor]:
        """`input_values` of doubles: the first window of each, shape `(2 * batch, frames, mel bins)`."""
        with phase("log-mel"):
            values = self.feature_extractor.extract(waveforms)
        return {"input_values": values[:, : self.feature_extractor.window_frames]}

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Those of `ResNetDoublesModel`."""
        return model(batch["input_values"])
