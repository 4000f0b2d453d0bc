"""The family of the paper: a masked autoencoder of log-mel spectrograms, of synthesized clips or recordings."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from audiopg.data_scripts.counter_random import uniform
from audiopg.modeling.configuration_audiopg import AudioPGConfig
from audiopg.modeling.feature_extraction_audiopg import AudioPGFeatureExtractor
from audiopg.modeling.losses_audiopg import reconstruction_loss
from audiopg.modeling.modeling_audiopg import AudioPGForPreTraining
from audiopg.modeling.patches_audiopg import num_visible_patches, patchify
from audiopg.modeling.spectrogram_audiopg import HOP_LENGTH_SECONDS, num_frames
from audiopg.training.engine.objective import LOSS
from audiopg.training.engine.optimisation import build_optimizer, learning_rate_at
from audiopg.training.engine.throughput import block_flop, phase
from audiopg.training.objectives.evidence import run_saw_real_data
from audiopg.training.objectives.mixtures import mixed
from audiopg.training.objectives.recipe import PretrainingRecipe
from audiopg.training.objectives.sources import Source, SyntheticSource, VoiceSource
from audiopg.training.objectives.statistics import mean_and_std, measure_statistics
from audiopg.training.runs.files import reading
from audiopg.training.runs.recipes import given

_WINDOW = "hann"

# What a model's weights fit to, and what they were trained with.
_SHAPE = (
    *("num_mel_bins", "patch_shape", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
    *("num_channels", "hidden_act", "layer_norm_eps", "qkv_bias"),
    *("decoder_hidden_size", "decoder_num_hidden_layers", "decoder_num_attention_heads", "decoder_intermediate_size"),
)


class MaskedAudio:
    """Hides patches of clips and has them redrawn (`Objective`).

    Args:
        recipe: Which clips, and which model.
        measured: As from `measure`.

    Raises:
        ValueError: if the weights to start from do not fit, or recordings are not those that the run began with.
    """

    splits: ClassVar[bool] = True  # every clip hides as many patches as every other

    def __init__(self, recipe: PretrainingRecipe, measured: Mapping[str, Any]) -> None:
        self.recipe, self.statistics, self.config = recipe, measured, recipe.config
        self.feature_extractor = self.build_feature_extractor(recipe, measured)
        self.source = self.build_source(recipe, measured)
        self.model: nn.Module = self.build_model(recipe)

    @classmethod
    def measure(cls, recipe: PretrainingRecipe, device: torch.device) -> dict[str, Any]:
        """The statistics that a run standardises with: `find_statistics`."""
        return find_statistics(recipe, device)

    @classmethod
    def flop_per_example(cls, recipe: PretrainingRecipe) -> float:
        """`flop_per_clip` of the recipe's model and clips."""
        return flop_per_clip(recipe.config, num_patches_of(recipe))

    @classmethod
    def build_model(cls, recipe: PretrainingRecipe) -> nn.Module:
        """The recipe's model, with its initial weights."""
        torch.manual_seed(recipe.seed)
        return with_initial_weights(AudioPGForPreTraining(recipe.config), recipe)

    @classmethod
    def build_feature_extractor(cls, recipe: PretrainingRecipe, statistics: Mapping[str, Any]) -> Any:
        """The extractor that goes with the model of this recipe."""
        return build_feature_extractor(recipe, statistics)

    @classmethod
    def build_source(cls, recipe: PretrainingRecipe, measured: Mapping[str, Any]) -> Source:
        """The source of the recipe's clips."""
        return build_source(recipe, measured)

    @classmethod
    def released(cls, recipe: PretrainingRecipe, weights: Mapping[str, Tensor]) -> Any:
        """The model that others are given, out of the weights of a checkpoint."""
        return released_model(recipe, weights, redraws=True)

    @cached_property
    def time_rows(self) -> tuple[int, float]:
        """How many rows of patches a clip has along time, and how long each lasts in s.

        Worked out once: a recipe builds its configuration whenever it is asked, and this is asked of every batch.
        """
        patch_frames, _ = self.config.patch_shape
        return num_patches_of(self.recipe) // self.config.num_mel_patches, patch_frames * HOP_LENGTH_SECONDS

    def draw(self, examples: range) -> Any:
        """Parameters of synthesized clips, or recorded samples."""
        return self.source.draw(torch.arange(examples.start, examples.stop))

    def batch(self, examples: range, drawn: Any, device: torch.device) -> dict[str, Tensor]:
        """`input_values`, `(batch, frames, mel bins)`, `noise`, `(batch, patches)`; of mixtures, `target_values`."""
        with phase("reading" if self.recipe.recordings else "synthesis"):
            waveforms = self.source.waveforms(drawn, device)
        return self.inputs(examples, waveforms)

    def inputs(self, examples: range, waveforms: Tensor) -> dict[str, Tensor]:
        """The same of clips that are there already, shape `(batch, samples)`."""
        extract, mixtures = self.feature_extractor.extract, self.recipe.mixtures
        with phase("log-mel"):
            values = extract(waveforms)
            alone = {"target_values": values} if mixtures else {}
            if mixtures:
                values = extract(mixed(mixtures, self.recipe.seed, examples, waveforms))
        # Counted on the device: an index that is copied there would be waited for.
        indices = torch.arange(examples.start, examples.stop, device=values.device)
        num_patches = values[0].numel() // self.config.patch_values
        noise = masking_noise(self.recipe.seed, indices, num_patches, values.device)
        return {"input_values": values, "noise": noise, **alone}

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Mean squared error of the hidden patches."""
        return {LOSS: model(**batch).loss}

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """The recipe's."""
        return build_optimizer(model, self.recipe)

    def learning_rate(self, step: int) -> float:
        """By the recipe's schedule."""
        return learning_rate_at(step, self.recipe)

    def after_step(self) -> None:
        """Nothing: all that is trained is trained by gradients."""

    def facts(self) -> dict[str, Any]:
        """The objective's name, and what is known of the data."""
        return {"objective": self.recipe.objective, "saw_real_data": run_saw_real_data(self.recipe, self.statistics)}


def released_model(recipe: PretrainingRecipe, weights: Mapping[str, Tensor], *, redraws: bool) -> Any:
    """The masked autoencoder without whatever else was trained beside it; the encoder alone where nothing redraws.

    Args:
        recipe: Of the run.
        weights: Of a checkpoint: those of the autoencoder and of heads, by name.
        redraws: Whether its decoder was trained.

    Returns:
        An `AudioPGForPreTraining` or an `AudioPGModel`.
    """
    model: Any = AudioPGForPreTraining(recipe.config)
    model.load_state_dict({name: weights[name] for name in model.state_dict()}, strict=True)
    return model if redraws else model.audiopg


def decoded_tokens(model: AudioPGForPreTraining, encoded: Any) -> Tensor:
    """What the decoder makes of tokens that the encoder has made of a part of the patches.

    Args:
        model: The masked autoencoder.
        encoded: What its encoder returned.

    Returns:
        A token for every patch, seen or not, shape `(batch, patches, decoder_hidden_size)`.
    """
    return model.decoder.tokens(encoded.last_hidden_state, encoded.mask, encoded.ids_restore, None)


def redrawing_loss(model: AudioPGForPreTraining, decoded: Tensor, encoded: Any, input_values: Tensor) -> Tensor:
    """How well hidden patches are redrawn.

    Args:
        model: The masked autoencoder.
        decoded: As from `decoded_tokens`.
        encoded: What its encoder returned.
        input_values: Shape `(batch, frames, mel bins)`.

    Returns:
        Mean squared error of the hidden patches, a scalar.
    """
    logits = model.decoder.decoder_pred(decoded)
    patches = patchify(input_values, model.config.patch_shape)
    return reconstruction_loss(logits, patches, encoded.mask, norm_pix_loss=model.config.norm_pix_loss)


def weighted_sum(losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> dict[str, Tensor]:
    """What is minimised, and what it is made of.

    Args:
        losses: Scalars by name.
        weights: Of each of them; those of losses that are not there are not looked at.

    Returns:
        The same, and their weighted sum first.

    Example:
        >>> losses = {"factors": torch.tensor(0.5), "latents": torch.tensor(3.0)}
        >>> float(weighted_sum(losses, {"factors": 2.0, "latents": 1.0, "reconstruction": 1.0})["loss"])
        4.0
    """
    return {LOSS: torch.stack([weights[name] * loss for name, loss in losses.items()]).sum(), **losses}


def masking_noise(
    seed: int, indices: Tensor, num_patches: int, device: torch.device | str, name: str = "masking"
) -> Tensor:
    """Which patches of which clip are masked, as noise to be ranked: a function of seed and index alone.

    Args:
        seed: Of the run.
        indices: Clip indices, shape `(batch,)`.
        num_patches: Patches of a clip.
        device: Where to draw; every device draws the same.
        name: Clips of one index that are masked by themselves have a name each.

    Returns:
        float32 in [0, 1], shape `(batch, num_patches)`.

    Example:
        >>> masking_noise(0, torch.tensor([3]), 8, "cpu").shape
        torch.Size([1, 8])
    """
    return uniform(seed, indices.to(device), name, (num_patches,)).float()


def build_feature_extractor(recipe: PretrainingRecipe, statistics: Mapping[str, Any]) -> AudioPGFeatureExtractor:
    """The extractor that goes with the model of this recipe."""
    config = recipe.config
    return AudioPGFeatureExtractor(
        sampling_rate=int(recipe.heard.sampling_rate),
        num_mel_bins=config.num_mel_bins,
        patch_size=config.patch_shape[0],
        window=statistics["window"],
        mean=statistics["mean"],
        std=statistics["std"],
        statistics=dict(statistics),
    )


def build_source(recipe: PretrainingRecipe, statistics: Mapping[str, Any]) -> Source:
    """The source of the recipe's clips.

    Raises:
        ValueError: if the folder of recordings is not the one that the run began with.
    """
    if recipe.voices:
        return VoiceSource(recipe.voices.voice, recipe.seed)
    if recipe.recordings is None:
        return SyntheticSource(recipe.clips, recipe.seed)
    from audiopg.training.objectives.recordings import Recordings  # needs soundfile, which a GPU machine may lack

    recordings = Recordings(recipe.recordings, recipe.seed)
    if recordings.description()["recordings_digest"] != statistics["recordings_digest"]:
        raise ValueError(
            f"{recipe.recordings.folder} has changed since the run began: it had {statistics['num_recordings']} "
            f"recordings and has {recordings.num_files}. Restore it, or choose another --output_dir."
        )
    return recordings


def find_statistics(recipe: PretrainingRecipe, device: torch.device) -> dict[str, Any]:
    """The statistics that a run standardises with, and their origin.

    Those of the weights that it starts from; or else measured on its own first clips, synthesized or recorded.

    Args:
        recipe: Of the run.
        device: Where to render and measure.

    Returns:
        `mean`, `std`, `window`, how they came about, with recordings what was read, and `saw_real_data` of the weights
        that will come out.
    """
    found: dict[str, Any] = {}
    if recipe.init_from is not None:
        found = _inherited_statistics(recipe.init_from)
    elif recipe.preset:
        found = measure_statistics(recipe.clips, recipe.seed, recipe.statistics_clips, device=device)
    elif recipe.voices:
        measured = _measured(recipe, build_source(recipe, {}), device)
        found = {**measured, **recipe.made_with, "voices": given(recipe.voices)}
    if recipe.recordings is not None:
        from audiopg.training.objectives.recordings import Recordings

        recordings = Recordings(recipe.recordings, recipe.seed)
        found = {**(found or _measured(recipe, recordings, "cpu")), **recordings.description()}
    return {**found, "saw_real_data": run_saw_real_data(recipe, found)}


def _inherited_statistics(folder: str) -> dict[str, Any]:
    """The standardisation that the weights of a folder were trained with, and where that came from."""
    with reading(folder):
        extractor = AudioPGFeatureExtractor.from_pretrained(folder)
    kept = {"mean": extractor.mean, "std": extractor.std, "window": extractor.window}
    return {**extractor.statistics, **kept, "kept_from": Path(folder).name}


def _measured(recipe: PretrainingRecipe, source: Source, device: torch.device | str) -> dict[str, Any]:
    mean, std = mean_and_std(
        lambda indices: source.waveforms(source.draw(indices), device),
        recipe.statistics_clips,
        sampling_rate=int(recipe.heard.sampling_rate),
        num_mel_bins=recipe.config.num_mel_bins,
        window=_WINDOW,
    )
    return {"mean": mean, "std": std, "window": _WINDOW, "seed": recipe.seed, "num_clips": recipe.statistics_clips}


def with_initial_weights(model: AudioPGForPreTraining, recipe: PretrainingRecipe) -> AudioPGForPreTraining:
    """The model, with the weights that the recipe starts from where it names some.

    Args:
        model: Of the recipe; whatever it has beyond a masked autoencoder keeps its own weights.
        recipe: Its `init_from`.

    Raises:
        ValueError: if the weights that it starts from are of another model.
    """
    if recipe.init_from is None:
        return model
    with reading(recipe.init_from):
        loaded: Any = AudioPGForPreTraining.from_pretrained(recipe.init_from, output_loading_info=True)
    source, report = loaded
    if report["missing_keys"]:
        raise ValueError(
            f"init_from is a pre-trained model with its decoder, got {recipe.init_from} without "
            f"{len(report['missing_keys'])} of its weights; name the folder that it was fine-tuned from."
        )
    different = [
        f"{name} {getattr(source.config, name)}"
        for name in _SHAPE
        if getattr(source.config, name) != getattr(model.config, name)
    ]
    if different:
        raise ValueError(
            f"init_from is a model of the recipe's shape (size {recipe.size!r}), got {', '.join(different)}; change "
            "size or model."
        )
    model.load_state_dict(model.state_dict() | source.state_dict(), strict=True)
    return model


def num_patches_of(recipe: PretrainingRecipe) -> int:
    """Patches of one of the recipe's clips."""
    config, clips = recipe.config, recipe.heard
    rows = -(-num_frames(clips.num_samples, int(clips.sampling_rate)) // config.patch_shape[0])
    return rows * config.num_mel_patches


def flop_per_clip(config: AudioPGConfig, num_patches: int, *, redraws: bool = True) -> int:
    r"""FLOP of a training step per clip: forward, and backward at twice that.

    The encoder sees $1 + \lfloor n (1 - r) \rfloor$ tokens, the decoder all $1 + n$. Besides the blocks there are
    three linear layers: patches into the encoder, tokens into the decoder, patches out of it. The backward pass has
    two products, for the inputs and for the weights, where the forward pass has one.

    Args:
        config: Of the model.
        num_patches: Patches $n$ of a clip.
        redraws: Whether the decoder takes part.

    Returns:
        The number, synthesis and log-mel not included.

    Example:
        >>> round(flop_per_clip(AudioPGConfig(), num_patches=512) / 1e9)
        159
    """
    visible = num_visible_patches(num_patches, config.mask_ratio)
    pixels, width, decoder_width = config.patch_values, config.hidden_size, config.decoder_hidden_size
    encoder = config.num_hidden_layers * block_flop(1 + visible, width, config.intermediate_size)
    encoder += 2 * visible * pixels * width
    decoder = config.decoder_num_hidden_layers * block_flop(
        1 + num_patches, decoder_width, config.decoder_intermediate_size
    )
    decoder += 2 * (num_patches * decoder_width * pixels + (1 + visible) * width * decoder_width)
    return 3 * (encoder + (decoder if redraws else 0))
