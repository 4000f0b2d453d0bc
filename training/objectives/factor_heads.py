r"""Factor heads: from the patches that the encoder sees, tell what the synthesizer drew. Alone, or beside redrawing.

Nobody else can have this objective: here every generative factor of every clip is known. Linear heads read

    each visible token     whether an event sounds in the time of its patch, and whether one begins there
    their mean             f0, cutoff, background level (each as its logarithm), modulation index, partials, number of
                           events; whether there is damping and a burst; the kind of source

The loss is $w_r L_r + w_f L_f$ with $L_r$ that of the masked autoencoder and $L_f$ the mean over heads: cross-entropy
for what is or is not, squared error of values scaled so that their range is [-1, 1]. What a clip has not (a cutoff
without damping) is not asked of it. A factor that does not vary in a preset has no head. Of a clip with several
sources those of its first event count. The heads are dropped when a model is released.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from audiopg.data_scripts.synthesis import Parameters, Preset
from audiopg.data_scripts.synthesis.parameters import MODES
from audiopg.modeling.configuration_audiopg import AudioPGConfig
from audiopg.modeling.modeling_audiopg import AudioPGForPreTraining
from audiopg.training.objectives.masked_audio import (
    MaskedAudio,
    decoded_tokens,
    flop_per_clip,
    num_patches_of,
    redrawing_loss,
    released_model,
    weighted_sum,
    with_initial_weights,
)
from audiopg.training.objectives.recipe import FactorsRecipe, LatentsRecipe, PretrainingRecipe

CONTINUOUS: Mapping[str, str | None] = {
    "f0": None,
    "cutoff": "damping",
    "noise_gain": None,
    "modulation_index": "fm",
    "num_partials": "harmonic",
    "num_events": None,
}
"""Parameters that are numbers, and what a clip must have for them to be heard: `damping`, or a kind of source."""

LOGARITHMIC = frozenset({"f0", "cutoff", "noise_gain"})
BINARY: Mapping[str, str] = {"damping": "damping_probability", "transient": "transient_probability"}
"""What a clip has or has not, and the range that says how often."""


def scale_of(preset: Preset, name: str) -> tuple[float, float] | None:
    """Ends of a continuous factor's range, or of its logarithm to base 2; None if it does not vary.

    Example:
        >>> from audiopg.data_scripts.synthesis import get_preset
        >>> scale_of(get_preset("reference", f0=(64, 2048)), "f0"), scale_of(get_preset("sine"), "num_events")
        ((6.0, 11.0), None)
    """
    ends = torch.tensor([preset.ranges[name].low, preset.ranges[name].high], dtype=torch.float64)
    low, high = (ends.log2() if name in LOGARITHMIC else ends).tolist()
    return (low, high) if -torch.inf < low < high else None


def heads_of(preset: Preset) -> dict[str, int]:
    """Outputs of each clip-wise head that a preset needs, by factor.

    Example:
        >>> from audiopg.data_scripts.synthesis import get_preset
        >>> heads_of(get_preset("sine"))
        {'f0': 1}
    """
    kinds = preset.ranges["mode"].values
    heard = {None, *kinds, *(["damping"] if preset.ranges["damping_probability"].low else [])}
    sizes = {n: 1 for n, needed in CONTINUOUS.items() if needed in heard and scale_of(preset, n) is not None}
    sizes |= {name: 1 for name, chance in BINARY.items() if 0 < preset.ranges[chance].low < 1}
    return {**sizes, "mode": len(MODES)} if len(kinds) > 1 else sizes


def clip_targets(parameters: Parameters) -> dict[str, Tensor]:
    """What each head should say of each clip.

    Args:
        parameters: Of the clips.

    Returns:
        By factor, float32 of shape `(batch,)`: a scaled value, or NaN where the clip has none; 0 or 1; or, for `mode`,
        the position in `MODES`.

    Example:
        >>> from audiopg.data_scripts.synthesis import draw
        >>> clip_targets(draw("sine", seed=0, indices=range(2)))["f0"].abs().max() <= 1
        tensor(True)
    """

    def first(name: str) -> Tensor:
        values = parameters[name]
        return values if values.dim() == 1 else values[:, 0]

    targets = {}
    for name in heads_of(parameters.preset):
        values = first(name).double()
        if name in CONTINUOUS:
            low, high = scale_of(parameters.preset, name) or (0.0, 1.0)
            values = (2 * (values.log2() if name in LOGARITHMIC else values) - low - high) / (high - low)
            needed = CONTINUOUS[name]
            if needed is not None:
                has = first("damping") if needed == "damping" else first("mode") == MODES.index(needed)
                values = values.masked_fill(~has, torch.nan)
        targets[name] = values.float()
    return targets


def time_targets(parameters: Parameters, rows: int, patch_seconds: float) -> Tensor:
    """Whether an event sounds, and whether one begins, in the time of each row of patches.

    Args:
        parameters: Of the clips.
        rows: Patches along time.
        patch_seconds: How long each lasts.

    Returns:
        Zeros and ones, float32, shape `(batch, rows, 2)`.

    Example:
        >>> from audiopg.data_scripts.synthesis import draw
        >>> time_targets(draw("sine", seed=0, indices=[0], duration=0.32), rows=2, patch_seconds=0.16).tolist()
        [[[1.0, 1.0], [1.0, 0.0]]]
    """
    onset, length = (parameters[name][:, :, None] for name in ("onset", "event_length"))  # (B, events, 1)
    start = torch.arange(rows, dtype=torch.float64) * patch_seconds
    exists = parameters.event_exists[:, :, None]
    sounds = (onset < start + patch_seconds) & (onset + length > start) & exists
    begins = (onset >= start) & (onset < start + patch_seconds) & exists
    return torch.stack([sounds.any(dim=1), begins.any(dim=1)], dim=-1).float()


def factor_targets(parameters: Parameters, rows: int, patch_seconds: float) -> dict[str, Tensor]:
    """Everything that heads should say of clips: `time` of `time_targets`, and `clip_targets`; arguments as of these.

    Example:
        >>> from audiopg.data_scripts.synthesis import draw
        >>> list(factor_targets(draw("sine", seed=0, indices=[0], duration=0.32), rows=2, patch_seconds=0.16))
        ['time', 'f0']
    """
    return {"time": time_targets(parameters, rows, patch_seconds), **clip_targets(parameters)}


class FactorReadout(nn.ModuleDict):
    """Linear heads on what an encoder sees: `time` on each of its tokens, the others on their mean.

    Args:
        config: Of the encoder.
        sizes: Outputs of each clip-wise head, as from `heads_of`.
    """

    def __init__(self, config: AudioPGConfig, sizes: Mapping[str, int]) -> None:
        super().__init__({name: nn.Linear(config.hidden_size, size) for name, size in {"time": 2, **sizes}.items()})
        self.columns = config.num_mel_patches

    def forward(self, encoded: Any, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Loss of each head.

        Args:
            encoded: What the encoder returned.
            targets: `time` as from `time_targets`, and those of `clip_targets`.

        Returns:
            Scalars by factor.
        """
        tokens = encoded.last_hidden_state[:, 1:]
        # Which row of patches each visible token stands in: token i is the patch of rank i.
        patch = encoded.ids_restore.argsort(dim=1)[:, : tokens.shape[1]]
        row = (patch // self.columns)[..., None].expand(-1, -1, 2)
        said = self["time"](tokens).float()
        losses = {"time": nn.functional.binary_cross_entropy_with_logits(said, targets["time"].gather(1, row))}
        clip_wise = {name: head for name, head in self.items() if name != "time"}
        mean = encoded.pooler_output
        return losses | {name: head_loss(name, head(mean).float(), targets[name]) for name, head in clip_wise.items()}


class FactorHeadsModel(AudioPGForPreTraining):
    """The masked autoencoder with linear heads on what its encoder sees.

    Args:
        config: Of the autoencoder.
        head_sizes: Outputs of each clip-wise head, as from `heads_of`.
        weights: Of the two losses.

    Example:
        >>> from audiopg.data_scripts.synthesis import draw
        >>> parameters = draw("reference", seed=0, indices=range(2), duration=0.64)
        >>> model = FactorHeadsModel(AudioPGConfig.of_size("tiny"), heads_of(parameters.preset), FactorsRecipe())
        >>> losses = model(torch.randn(2, 64, 128), torch.rand(2, 32), factor_targets(parameters, 4, 0.16))
        >>> list(losses)[:3]
        ['loss', 'reconstruction', 'factors']
    """

    def __init__(
        self, config: AudioPGConfig, head_sizes: Mapping[str, int], weights: FactorsRecipe | LatentsRecipe
    ) -> None:
        super().__init__(config)
        self.weights = weights
        self.heads = FactorReadout(config, head_sizes)
        # What has no part in the loss gets no gradient, and processes would wait for it.
        self.decoder.requires_grad_(weights.reconstruction_weight > 0)
        self.heads.requires_grad_(weights.factors_weight > 0)

    def forward(
        self,
        input_values: Tensor,
        noise: Tensor,
        targets: Mapping[str, Tensor],
        target_values: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Losses of a batch.

        Args:
            input_values: Shape `(batch, frames, mel bins)`.
            noise: Shape `(batch, patches)`.
            targets: As from `factor_targets`.
            target_values: What is redrawn where it is not what is seen, shaped as `input_values`.

        Returns:
            Scalars: `loss`, and those that it is made of.
        """
        encoded = self.audiopg(input_values, None, noise, return_dict=True)
        losses, said = self.losses_beside(encoded, input_values if target_values is None else target_values)
        if self.weights.factors_weight:
            by_head = self.heads(encoded, targets)
            losses["factors"] = torch.stack(list(by_head.values())).mean()
            said |= {f"factors/{name}": value.detach() for name, value in by_head.items()}
        return {**weighted_sum(losses, self.weights.weights), **said}

    def losses_beside(self, encoded: Any, values: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Losses of the decoder, as far as they have a weight.

        Args:
            encoded: What the encoder returned.
            values: What is to be told, shape `(batch, frames, mel bins)`.

        Returns:
            Scalars by name: losses, and what is only logged.
        """
        if not self.weights.reconstruction_weight:
            return {}, {}
        return {"reconstruction": redrawing_loss(self, decoded_tokens(self, encoded), encoded, values)}, {}


def head_loss(name: str, said: Tensor, target: Tensor) -> Tensor:
    """Loss of one clip-wise head, a mean over all clips.

    Those that are not asked count as 0, so that the loss of a batch is the mean of those of its equal parts.

    Args:
        name: Of the factor.
        said: Shape `(batch, outputs)`.
        target: As from `clip_targets`, shape `(batch,)`.

    Returns:
        A scalar.

    Example:
        >>> float(head_loss("cutoff", torch.tensor([[0.5], [9.0]]), torch.tensor([0.0, torch.nan])))
        0.125
    """
    if name == "mode":
        return nn.functional.cross_entropy(said, target.long())
    if name in BINARY:
        return nn.functional.binary_cross_entropy_with_logits(said[:, 0], target)
    asked = ~target.isnan()
    return torch.where(asked, said[:, 0] - target.nan_to_num(), 0.0).square().mean()


class FactorHeads(MaskedAudio):
    """Predicts what the synthesizer drew, alone or beside redrawing (`Objective`)."""

    @classmethod
    def weights_of(cls, recipe: PretrainingRecipe) -> FactorsRecipe | LatentsRecipe:
        """The section of the recipe that says how losses are added."""
        return recipe.factors

    @classmethod
    def build_model(cls, recipe: PretrainingRecipe) -> nn.Module:
        """The masked autoencoder of the same seed, with heads."""
        torch.manual_seed(recipe.seed)
        model = FactorHeadsModel(recipe.config, heads_of(recipe.clips), recipe.factors)
        return with_initial_weights(model, recipe)

    @classmethod
    def flop_per_example(cls, recipe: PretrainingRecipe) -> float:
        """As of `MaskedAudio`, without the decoder where it has no part; the heads are of lower order."""
        return flop_per_clip(recipe.config, num_patches_of(recipe), redraws=recipe.factors.reconstruction_weight > 0)

    @classmethod
    def released(cls, recipe: PretrainingRecipe, weights: Mapping[str, Tensor]) -> Any:
        """The masked autoencoder without heads; the encoder alone where no decoder was trained."""
        return released_model(recipe, weights, redraws=cls.weights_of(recipe).reconstruction_weight > 0)

    def draw(self, examples: range) -> tuple[Any, dict[str, Tensor]]:
        """Parameters of the clips, and what is to be told of them."""
        parameters = super().draw(examples)
        is_told = self.weights_of(self.recipe).factors_weight > 0
        return parameters, factor_targets(parameters, *self.time_rows) if is_told else {}

    def batch(self, examples: range, drawn: Any, device: torch.device) -> dict[str, Tensor]:
        """As of `MaskedAudio`, and the targets by name."""
        parameters, targets = drawn
        moved = {name: value.to(device, non_blocking=True) for name, value in targets.items()}
        return {**super().batch(examples, parameters, device), **moved}

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Those of `FactorHeadsModel`."""
        inputs = {name: batch[name] for name in ("input_values", "noise", "target_values") if name in batch}
        return model(**inputs, targets={name: value for name, value in batch.items() if name not in inputs})
