"""From a recipe to the parts of its run: statistics, source, model. Knows no loop."""

import json
from pathlib import Path
from typing import Any

import torch

from audiopg.data_scripts.synthesis import get_preset
from audiopg.modeling.configuration_audiopg import AudioPGConfig
from audiopg.modeling.feature_extraction_audiopg import AudioPGFeatureExtractor
from audiopg.modeling.modeling_audiopg import AudioPGForPreTraining
from audiopg.modeling.spectrogram_audiopg import num_frames
from audiopg.training.engine.throughput import flop_per_clip
from audiopg.training.objectives.sources import Source, SyntheticSource
from audiopg.training.objectives.statistics import mean_and_std, measure_statistics
from audiopg.training.runs.checkpoints import write_atomically
from audiopg.training.runs.recipes import PretrainingRecipe, RecordingsRecipe, build_recipe

# What a model's weights fit to, and what they were trained with.
_SHAPE = (
    "num_mel_bins",
    "patch_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "layer_norm_eps",
    "qkv_bias",
    "decoder_hidden_size",
    "decoder_num_hidden_layers",
    "decoder_num_attention_heads",
    "decoder_intermediate_size",
)


def model_config(recipe: PretrainingRecipe) -> AudioPGConfig:
    """The configuration of the recipe's model.

    Raises:
        ValueError: if it has stochastic depth, whose chances no (seed, index) decides: the run could not be repeated.
    """
    config = AudioPGConfig.of_size(recipe.size, **recipe.model)
    if config.drop_path_rate:
        raise ValueError(
            f"model.drop_path_rate is 0 in pre-training, got {config.drop_path_rate}; keep it for fine-tuning."
        )
    return config


def _recordings_recipe(recipe: PretrainingRecipe) -> RecordingsRecipe:
    return build_recipe(RecordingsRecipe, recipe.recordings)


def _sampling_rate(recipe: PretrainingRecipe) -> int:
    if recipe.recordings:
        return _recordings_recipe(recipe).sampling_rate
    return get_preset(recipe.preset, **recipe.synthesis).sampling_rate


def build_feature_extractor(recipe: PretrainingRecipe, statistics: dict[str, Any]) -> AudioPGFeatureExtractor:
    """The extractor that goes with the model of this recipe."""
    config = AudioPGConfig.of_size(recipe.size, **recipe.model)
    return AudioPGFeatureExtractor(
        sampling_rate=_sampling_rate(recipe),
        num_mel_bins=config.num_mel_bins,
        patch_size=config.patch_size,
        window=statistics["window"],
        mean=statistics["mean"],
        std=statistics["std"],
        statistics=statistics,
    )


def _inherited_statistics(folder: str) -> dict[str, Any]:
    """The standardisation that the weights of a folder were trained with, and where that came from."""
    extractor = AudioPGFeatureExtractor.from_pretrained(folder)
    kept = {"mean": extractor.mean, "std": extractor.std, "window": extractor.window}
    return {**extractor.statistics, **kept, "kept_from": Path(folder).name}


def find_statistics(recipe: PretrainingRecipe, device: torch.device) -> dict[str, Any]:
    """The statistics that a run standardises with, and their origin.

    Those of the weights that it starts from; or else measured on its own first clips, synthetic or recorded.

    Args:
        recipe: Of the run.
        device: Where to render and measure.

    Returns:
        `mean`, `std`, `window` and how they came about; with recordings, what was read.
    """
    if not recipe.recordings and recipe.init_from is None:
        preset = get_preset(recipe.preset, **recipe.synthesis)
        return measure_statistics(preset, recipe.seed, recipe.statistics_clips, device=device)
    inherited = {} if recipe.init_from is None else _inherited_statistics(recipe.init_from)
    if not recipe.recordings:
        return inherited
    from audiopg.training.objectives.recordings import (
        Recordings,  # needs soundfile, which a machine for training may lack
    )

    recordings = Recordings(_recordings_recipe(recipe), recipe.seed)
    if inherited:
        return {**inherited, **recordings.description()}
    config, window = AudioPGConfig.of_size(recipe.size, **recipe.model), "hann"
    mean, std = mean_and_std(
        recordings.waveforms,
        recipe.statistics_clips,
        sampling_rate=recordings.recipe.sampling_rate,
        num_mel_bins=config.num_mel_bins,
        window=window,
    )
    measured = {"mean": mean, "std": std, "window": window, "seed": recipe.seed, "num_clips": recipe.statistics_clips}
    return {**measured, **recordings.description()}


def load_or_find_statistics(recipe: PretrainingRecipe, folder: Path, device: torch.device) -> dict[str, Any]:
    """`find_statistics`, once per run and kept beside it."""
    path = folder / "statistics.json"
    if not path.exists():
        write_atomically(path, json.dumps(find_statistics(recipe, device), indent=2))
    return json.loads(path.read_text(encoding="utf-8"))


def build_source(recipe: PretrainingRecipe, statistics: dict[str, Any]) -> Source:
    """The source of the recipe's clips.

    Raises:
        ValueError: if the folder of recordings is not the one that the run began with.
    """
    feature_extractor = build_feature_extractor(recipe, statistics)
    if not recipe.recordings:
        return SyntheticSource(get_preset(recipe.preset, **recipe.synthesis), recipe.seed, feature_extractor)
    from audiopg.training.objectives.recordings import Recordings, RecordingsSource

    recordings = Recordings(_recordings_recipe(recipe), recipe.seed)
    if recordings.description()["recordings_digest"] != statistics["recordings_digest"]:
        raise ValueError(
            f"{recipe.recordings['folder']} has changed since the run began: it had {statistics['num_recordings']} "
            f"recordings and has {recordings.num_files}. Restore it, or choose another --output_dir."
        )
    return RecordingsSource(recordings, feature_extractor)


def build_model(recipe: PretrainingRecipe) -> AudioPGForPreTraining:
    """The recipe's model, with its initial weights.

    Raises:
        ValueError: if the weights that it starts from are of another model.
    """
    config = model_config(recipe)
    torch.manual_seed(recipe.seed)
    if recipe.init_from is None:
        return AudioPGForPreTraining(config)
    loaded: Any = AudioPGForPreTraining.from_pretrained(recipe.init_from, output_loading_info=True)
    model, report = loaded
    if report["missing_keys"]:
        raise ValueError(
            f"init_from is a pre-trained model with its decoder, got {recipe.init_from} without "
            f"{len(report['missing_keys'])} of its weights; name the folder that it was fine-tuned from."
        )
    different = [
        f"{name} {getattr(model.config, name)}"
        for name in _SHAPE
        if getattr(model.config, name) != getattr(config, name)
    ]
    if different:
        raise ValueError(
            f"init_from is a model of the recipe's shape (size {recipe.size!r}), got {', '.join(different)}; change "
            "size or model."
        )
    fresh = AudioPGForPreTraining(config)
    fresh.load_state_dict(model.state_dict(), strict=True)
    return fresh


def num_patches_of(recipe: PretrainingRecipe) -> int:
    """Patches of one of the recipe's clips."""
    config = AudioPGConfig.of_size(recipe.size, **recipe.model)
    if recipe.recordings:
        num_samples = _recordings_recipe(recipe).num_samples
    else:
        num_samples = get_preset(recipe.preset, **recipe.synthesis).num_samples
    frames = num_frames(num_samples, _sampling_rate(recipe))
    return -(-frames // config.patch_size) * config.num_mel_patches


def flop_per_step(recipe: PretrainingRecipe) -> int:
    """FLOP of one optimizer step over all processes, by `flop_per_clip`.

    Example:
        >>> from audiopg.training.runs.recipes import load_recipe
        >>> round(flop_per_step(load_recipe(PretrainingRecipe, "base")) / 1e12, 1)
        10.2
    """
    return recipe.batch_size * flop_per_clip(model_config(recipe), num_patches_of(recipe))
