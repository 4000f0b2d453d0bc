"""Research checkpoints of masked autoencoders as AudioPG models: names, shapes and positions, each checked.

Those of images may be brought over to audio (`to_audio`), with mel on the image's vertical axis, lowest band at the
bottom. ViTMAE cuts an image from the upper left, row by row, so its model is turned (`turn`); ours lie so already.
"""

import json
import logging
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audiopg.modeling.configuration_audiopg import AudioPGConfig
from audiopg.modeling.feature_extraction_audiopg import AudioPGFeatureExtractor
from audiopg.modeling.modeling_audiopg import AudioPGForPreTraining, AudioPGModel
from audiopg.modeling.patches_audiopg import sincos_positions
from audiopg.training.objectives.bridge import as_spectrograms, audio_feature_extractor, kernel_norms, to_audio
from audiopg.training.objectives.pretraining import TrainedRun
from audiopg.training.publishing.cards import converted_card, pretrained_card
from audiopg.training.publishing.exporting import LICENSE
from audiopg.training.publishing.hub import write_hub_folder
from audiopg.training.publishing.weight_files import read_checkpoint
from audiopg.training.runs.files import read_json, reading

logger = logging.getLogger(__name__)

# One row per part: its name there, its name here. `{n}` is the number of a block.
ENCODER_RENAMES = {
    "cls_token": "audiopg.embeddings.cls_token",
    "patch_embed.proj.weight": "audiopg.embeddings.patch_embeddings.weight",
    "patch_embed.proj.bias": "audiopg.embeddings.patch_embeddings.bias",
    "blocks.{n}.norm1.weight": "audiopg.layers.{n}.layernorm_before.weight",
    "blocks.{n}.norm1.bias": "audiopg.layers.{n}.layernorm_before.bias",
    "blocks.{n}.attn.qkv.weight": "audiopg.layers.{n}.attention.qkv.weight",
    "blocks.{n}.attn.qkv.bias": "audiopg.layers.{n}.attention.qkv.bias",
    "blocks.{n}.attn.proj.weight": "audiopg.layers.{n}.attention.o_proj.weight",
    "blocks.{n}.attn.proj.bias": "audiopg.layers.{n}.attention.o_proj.bias",
    "blocks.{n}.norm2.weight": "audiopg.layers.{n}.layernorm_after.weight",
    "blocks.{n}.norm2.bias": "audiopg.layers.{n}.layernorm_after.bias",
    "blocks.{n}.mlp.fc1.weight": "audiopg.layers.{n}.mlp.fc1.weight",
    "blocks.{n}.mlp.fc1.bias": "audiopg.layers.{n}.mlp.fc1.bias",
    "blocks.{n}.mlp.fc2.weight": "audiopg.layers.{n}.mlp.fc2.weight",
    "blocks.{n}.mlp.fc2.bias": "audiopg.layers.{n}.mlp.fc2.bias",
    "norm.weight": "audiopg.norm.weight",
    "norm.bias": "audiopg.norm.bias",
}
DECODER_RENAMES = {
    "mask_token": "decoder.mask_token",
    "decoder_embed.weight": "decoder.decoder_embed.weight",
    "decoder_embed.bias": "decoder.decoder_embed.bias",
    **{
        f"decoder_{old}": new.replace("audiopg.", "decoder.")
        for old, new in ENCODER_RENAMES.items()
        if old.startswith(("blocks", "norm"))
    },
    "decoder_pred.weight": "decoder.decoder_pred.weight",
    "decoder_pred.bias": "decoder.decoder_pred.bias",
}
RENAMES = ENCODER_RENAMES | DECODER_RENAMES

# Not carried over: ours are computed. Each is compared with the computed ones before it is let go.
AUDIOSET_STATISTICS: dict[str, Any] = {
    "mean": -4.2677393,
    "std": 4.5689974,
    "statistics": {
        "source": "AudioSet, which is real audio: what the converted weights were trained with",
        "saw_real_data": True,
    },
}
"""Standardisation that both code bases train with; our own models use statistics of synthesized clips instead."""

CLASSIFIER = ("head.", "fc_norm.", "classifier.")
"""How the names of a fine-tuned model's last layers start: no encoder is left behind as it was pre-trained."""

POSITIONS = ("pos_embed", "decoder_pos_embed")

SIZES = ("num_attention_heads", "decoder_num_attention_heads", "num_mel_bins")
"""Options of `convert_state_dict` that no shape of a research checkpoint tells."""

# Names of ViTMAE's weights, as files and memory of different versions have them, to those of MAE; applied in order.
VITMAE_RENAMES = (
    (r"^(vit\.)?(encoder\.layer|layers)\.", "blocks."),
    (r"^decoder\.decoder_(encoder\.layer|layers)\.", "decoder_blocks."),
    (r"^decoder\.", ""),
    (r"^(vit\.)?embeddings\.position_embeddings", "pos_embed"),
    (r"^(vit\.)?embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^(vit\.)?embeddings\.cls_token", "cls_token"),
    (r"^(vit\.)?layernorm\.", "norm."),
    (r"\.attention\.(attention\.query|q_proj)\.", ".attn.q."),
    (r"\.attention\.(attention\.key|k_proj)\.", ".attn.k."),
    (r"\.attention\.(attention\.value|v_proj)\.", ".attn.v."),
    (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
)
# Taken over from ViTMAE's configuration; the sizes are read off the weights.
VITMAE_HEADS = ("num_attention_heads", "decoder_num_attention_heads")
VITMAE_SETTINGS = ("hidden_act", "layer_norm_eps", "mask_ratio", "norm_pix_loss")

# Which axis of a weight counts the channels that carry positions: what is added to them, what reads them, tokens.
_POSITION_AXES = (
    (r"(patch_embeddings|decoder_embed|o_proj|fc2|norm|layernorm_before|layernorm_after)\.(weight|bias)$", 0),
    (r"(qkv|fc1|decoder_embed|decoder_pred)\.weight$", 1),
    (r"(cls_token|mask_token)$", -1),
)


def read_vitmae(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a ViTMAE of transformers, with weights renamed as in MAE.

    Args:
        folder: With `config.json` and `model.safetensors` or `pytorch_model.bin`.

    Returns:
        Its configuration, and weights as `read_checkpoint` gives them.

    Raises:
        ValueError: if the folder holds no ViTMAE.
    """
    config = _vitmae_config(folder / "config.json")
    weights = {_mae_name(name): weight for name, weight in _load_weights(folder).items()}
    for name in [name for name in weights if ".attn.q." in name]:
        names = [name.replace(".attn.q.", f".attn.{part}.") for part in "qkv"]
        _check_there(names, weights, folder)
        weights[name.replace(".attn.q.", ".attn.qkv.")] = torch.cat([weights.pop(name) for name in names])
    _check_there(["patch_embed.proj.weight", "pos_embed"], weights, folder)
    return config, weights


def grey(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights as from `read_vitmae`, reduced from three channels to one.

    A grey picture has three equal channels: their kernels are summed, so the embedding is the same, and what the
    decoder predicts for them is averaged.

    Example:
        >>> grey({"patch_embed.proj.weight": torch.ones(8, 3, 4, 4)})["patch_embed.proj.weight"].mean()
        tensor(3.)
    """
    found, kernel = dict(weights), weights["patch_embed.proj.weight"]
    found["patch_embed.proj.weight"] = kernel.sum(dim=1, keepdim=True)
    for name in ("decoder_pred.weight", "decoder_pred.bias"):
        if name in found:  # (p * p * channels, ...), the channel innermost
            found[name] = found[name].unflatten(0, (-1, kernel.shape[1])).mean(dim=1)
    return found


def turn(weights: Mapping[str, Tensor], patch_size: int) -> dict[str, Tensor]:
    r"""Weights of a model that cuts images row by row, for images that lie as spectrograms (`as_spectrograms`).

    Kernels are turned, and predicted patches with them. Half of the channels code the position across, half that down,
    and these halves change places everywhere, so that what has learnt to look to the side looks along time; the model
    is otherwise the same, since no layer cares for the order of its channels. That rows then count from below is the
    one thing that no turning of weights makes up for: those positions are replaced.

    Args:
        weights: Of ours, by name, of one channel.
        patch_size: Side of a patch.

    Returns:
        All of them.

    Example:
        >>> across = torch.tensor([[1.0, 1.0, 0.0, 0.0]])  # the upper row of a patch
        >>> turn({"audiopg.embeddings.patch_embeddings.weight": across}, 2)
        {'audiopg.embeddings.patch_embeddings.weight': tensor([[0., 1., 0., 1.]])}
    """
    found = {}
    for name, weight in weights.items():
        if name.endswith("patch_embeddings.weight"):
            weight = as_spectrograms(weight.unflatten(1, (patch_size, patch_size))).flatten(1)
        if name.endswith(("decoder_pred.weight", "decoder_pred.bias")):
            pixels = weight.unflatten(0, (patch_size, patch_size)).movedim((0, 1), (-2, -1))
            weight = as_spectrograms(pixels).movedim((-2, -1), (0, 1)).flatten(0, 1)
        for pattern, axis in _POSITION_AXES:
            if re.search(pattern, name):
                weight = weight.roll(weight.shape[axis] // 2, axis)
        found[name] = weight
    return found


def _vitmae_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise ValueError(f"{path} must be JSON, and is not ({error}): download it again.") from error
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind != "vit_mae":
        found = repr(kind) if config else "no config.json"
        raise ValueError(f"A folder must hold a ViTMAE (model_type 'vit_mae'), got {found} in {path.parent}.")
    _check_there(VITMAE_HEADS, config, path)
    return config


def _check_there(names: Sequence[str], content: Mapping[str, Any], where: Path) -> None:
    if missing := [name for name in names if name not in content]:
        raise ValueError(f"A ViTMAE must have {missing}, and {where} lacks them: download it again.")


def _load_weights(folder: Path) -> dict[str, Tensor]:
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return read_checkpoint(folder / name)
    raise ValueError(f"Weights must be in model.safetensors or pytorch_model.bin, got neither in {folder}.")


def _mae_name(name: str) -> str:
    for pattern, replacement in VITMAE_RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def convert_state_dict(
    state_dict: Mapping[str, Tensor],
    *,
    num_attention_heads: int | None = None,
    decoder_num_attention_heads: int = 16,
    num_mel_bins: int = 128,
    columns: int | None = None,
    encoder_only: bool = False,
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Rename weights for `AudioPGForPreTraining`, and read its configuration off their shapes.

    Args:
        state_dict: Weights under the names of the research code, which are those of timm and MAE.
        num_attention_heads: Heads of the encoder, which no shape tells; None means that each is 64 wide, as in every
            ViT from tiny to huge.
        decoder_num_attention_heads: Heads of the decoder, which no shape tells either.
        num_mel_bins: Mel bands of the spectrograms that the model was trained on, or is to be used on.
        columns: Patches in a row of what it was trained on, if that was no spectrogram.
        encoder_only: Leave the decoder out, whatever it is made of. Without this, a checkpoint that has no decoder at
            all is converted as an encoder, too.

    Returns:
        Arguments for `AudioPGConfig`, and the weights under our names. Without a decoder the names are still those
        of `AudioPGForPreTraining`, with `audiopg.` in front.

    Raises:
        ValueError: if a weight has no place in our model, if stored positions differ from ours, or if heads of width
            64 do not fit and no number of heads is given.

    Example:
        >>> convert_state_dict({"head.weight": torch.zeros(50, 768)})
        Traceback (most recent call last):
        ...
        ValueError: Weights must be those of a masked autoencoder, got a classifier's in ['head.weight']...
    """
    if head := sorted(name for name in state_dict if name.startswith(CLASSIFIER)):
        raise ValueError(
            f"Weights must be those of a masked autoencoder, got a classifier's in {head}: this checkpoint was "
            "fine-tuned, so convert the pre-trained one that it started from."
        )
    if encoder_only:
        state_dict = {name: w for name, w in state_dict.items() if not name.startswith(("decoder_", "mask_token"))}
    unknown = sorted(name for name in state_dict if _pattern(name) not in RENAMES and name not in POSITIONS)
    if unknown:
        raise ValueError(
            f"Every weight must have a place in our model, got no place for {unknown}: if they belong to a decoder of "
            "another kind, convert the encoder only (--encoder_only)."
        )
    config = _infer_config(state_dict, num_attention_heads, decoder_num_attention_heads, num_mel_bins)
    for name in POSITIONS:
        if name in state_dict:
            _check_positions(name, state_dict[name], columns or num_mel_bins // config["patch_size"])
    weights = {_rename(name): w for name, w in state_dict.items() if name not in POSITIONS}
    projection = "audiopg.embeddings.patch_embeddings.weight"
    weights[projection] = weights[projection].flatten(1)  # (D, 1, p, p) -> (D, p * p), pixels time-major as ours
    return config, weights


def _pattern(name: str) -> str:
    return re.sub(r"\.\d+\.", ".{n}.", name, count=1)


def _rename(name: str) -> str:
    number = re.search(r"\.(\d+)\.", name)
    return RENAMES[_pattern(name)].replace("{n}", number[1] if number else "")


def _infer_config(
    state_dict: Mapping[str, Tensor], heads: int | None, decoder_heads: int, num_mel_bins: int
) -> dict[str, Any]:
    required = ("patch_embed.proj.weight", "blocks.0.mlp.fc1.weight")
    if missing := [name for name in required if name not in state_dict]:
        raise ValueError(
            f"The sizes are read off {list(required)}, got none of {missing}: is it a masked autoencoder?"
        )
    hidden_size, channels, patch_time, patch_mel = state_dict["patch_embed.proj.weight"].shape
    if channels != 1 or patch_time != patch_mel:
        raise ValueError(
            "Patches must be square and of one channel, got a projection for "
            f"{(channels, patch_time, patch_mel)}: such a model cannot be converted."
        )
    if heads is None and hidden_size % 64:
        raise ValueError(
            f"Heads are taken to be 64 wide, so the width must be a multiple of 64, got {hidden_size}: pass the "
            "number of heads (--num_attention_heads)."
        )
    config = {
        "num_mel_bins": num_mel_bins,
        "patch_size": patch_time,
        "hidden_size": hidden_size,
        "num_hidden_layers": _count_blocks(state_dict, "blocks"),
        "num_attention_heads": hidden_size // 64 if heads is None else heads,
        "intermediate_size": state_dict["blocks.0.mlp.fc1.weight"].shape[0],
        "qkv_bias": "blocks.0.attn.qkv.bias" in state_dict,
    }
    if "decoder_blocks.0.mlp.fc1.weight" in state_dict:
        intermediate_size, width = state_dict["decoder_blocks.0.mlp.fc1.weight"].shape
        config |= {
            "decoder_hidden_size": width,
            "decoder_num_hidden_layers": _count_blocks(state_dict, "decoder_blocks"),
            "decoder_num_attention_heads": decoder_heads,
            "decoder_intermediate_size": intermediate_size,
        }
    return config


def _count_blocks(state_dict: Mapping[str, Tensor], part: str) -> int:
    return len({name.split(".")[1] for name in state_dict if name.startswith(f"{part}.")})


def _check_positions(name: str, stored: Tensor, columns: int) -> None:
    length, dim = stored.shape[-2:]
    if (length - 1) % columns:
        raise ValueError(
            f"`{name}` must hold a class token and whole rows of {columns} patches, got {length} positions: pass the "
            "number of mel bands that the model was trained on."
        )
    ours = torch.cat([torch.zeros(1, dim), sincos_positions((length - 1) // columns, columns, dim)])
    difference = (stored.float().reshape(length, dim) - ours).abs().max().item()
    if not difference < 1e-4:
        raise ValueError(
            f"`{name}` must equal the sin-cos positions of our model, got a difference of {difference:.3g}: this "
            "model was trained with others, and would not work with ours."
        )


def convert(
    source: Path, folder: Path, license_name: str | None = None, *, over_to_audio: bool = False, **options: Any
) -> AudioPGForPreTraining | AudioPGModel:
    """Convert a checkpoint and save it as a folder with its code and a card.

    Args:
        source: Checkpoint file, see `read_checkpoint`, or a folder, see `read_vitmae`.
        folder: Where to save; made if it does not exist.
        license_name: Of the weights, as the Hub spells it; None is "not known".
        over_to_audio: Bring a model of images over to audio: a ViTMAE, a run of images, or a folder with a model of
            ours with several channels.
        options: As for `convert_state_dict`; sizes are not of runs and models of ours, which tell them.

    Returns:
        The model: `AudioPGForPreTraining`, or `AudioPGModel` if there is no decoder.

    Raises:
        ValueError: as `read_checkpoint`, `read_vitmae` and `convert_state_dict`; or if a weight of our model is
            missing, or has another shape; or if what should be brought over to audio is of audio already; or if sizes
            are given that the source tells.
    """
    if over_to_audio and not source.is_dir():
        raise ValueError(f"A model of images is in a folder, got the file {source}: convert it without --to_audio.")
    is_run = over_to_audio and (source / "recipe.yaml").is_file()
    is_ours = over_to_audio and not is_run and _is_ours(source)
    if (is_run or is_ours) and (sizes := {name: options[name] for name in SIZES if options.get(name) is not None}):
        raise ValueError(f"{source} says its own sizes, got {sizes} beside it: leave these options out.")
    if is_run:
        return _convert_run(TrainedRun.open(source), folder, license_name, options)
    if is_ours:
        model, extractor = _bring_over(source, options)
        card = converted_card(folder.name, model, extractor, source.name, license_name)
        write_hub_folder(model, extractor, folder, card)
        return model
    if source.is_dir():
        theirs, coloured = read_vitmae(source)
        settings, weights = _convert_vitmae(theirs, grey(coloured), options)
        # No statistics of images apply to log-mel: the synthetic ones stand in, and say what the weights have seen.
        seen = {"source": f"images: the weights are those of {source.name}", "saw_real_data": True}
        if over_to_audio:
            kernel = coloured["patch_embed.proj.weight"]
            weights = turn(weights, settings["patch_size"])
            seen |= {"kernel_norms": kernel_norms(kernel.flatten(1), kernel.shape[1])}
        extractor = audio_feature_extractor(AudioPGConfig(**settings), **seen)
    else:
        settings, weights = convert_state_dict(read_checkpoint(source), **options)
        grid = {name: settings[name] for name in ("num_mel_bins", "patch_size")}
        extractor = AudioPGFeatureExtractor(**grid, **AUDIOSET_STATISTICS)
    config = AudioPGConfig(**settings)
    if any(name.startswith("decoder.") for name in weights):
        model = AudioPGForPreTraining(config)
    else:
        model = AudioPGModel(config)
        weights = {name.removeprefix("audiopg."): w for name, w in weights.items()}
    _load(model, weights)
    write_hub_folder(
        model, extractor, folder, converted_card(folder.name, model, extractor, source.name, license_name)
    )
    return model


def _convert_run(
    run: TrainedRun, folder: Path, license_name: str | None, options: Mapping[str, Any]
) -> AudioPGForPreTraining | AudioPGModel:
    """Release a run of images, as `training/export.py` does; with its encoder alone where that is asked for."""
    if not run.recipe.sees:
        raise ValueError(f"{run.folder} is a run of audio; training/export.py releases it.")
    model, extractor = run.final_model(), run.feature_extractor()
    model = model.base_model if options.get("encoder_only") else model
    card = pretrained_card(run.recipe, run.facts, model, extractor, {}, license_name or LICENSE)
    write_hub_folder(model, extractor, folder, card)
    return model


def _is_ours(folder: Path) -> bool:
    path = folder / "config.json"
    return path.is_file() and read_json(path, "Save the model again.").get("model_type") == AudioPGConfig.model_type


def _bring_over(source: Path, options: Mapping[str, Any]) -> tuple[Any, AudioPGFeatureExtractor]:
    """A model of images of ours for audio, and its extractor; what it has seen, no extractor of images can say."""
    with reading(source):
        loaded: Any = AudioPGForPreTraining.from_pretrained(source, output_loading_info=True)
    images, report = loaded
    missing = set(report["missing_keys"])
    if missing and missing != {name for name in images.state_dict() if name.startswith("decoder.")}:
        raise ValueError(
            f"{source} must hold a whole encoder, with a whole decoder or none, and lacks {sorted(missing)}: save or "
            "download it again."
        )
    has_decoder = not missing and not options.get("encoder_only")
    model = to_audio(images if has_decoder else images.audiopg)
    norms = kernel_norms(images.audiopg.embeddings.patch_embeddings.weight, images.config.num_channels)
    seen = {"images": source.name, "saw_real_data": None, "kernel_norms": norms}
    return model, audio_feature_extractor(model.config, **seen)


def _load(model: AudioPGForPreTraining | AudioPGModel, weights: Mapping[str, Tensor]) -> None:
    ours = model.state_dict()
    missing = sorted(ours.keys() - weights.keys())
    shapes = [
        f"{name} {tuple(w.shape)} for {tuple(ours[name].shape)}"
        for name, w in weights.items()
        if name in ours and w.shape != ours[name].shape
    ]
    if missing or shapes:
        raise ValueError(
            f"Every weight of our model must be there in its shape, got none for {missing} and other shapes of "
            f"{shapes}: is the checkpoint whole, and do its blocks have one size?"
        )
    model.load_state_dict(weights, strict=True)


def _convert_vitmae(
    theirs: dict[str, Any], weights: Mapping[str, Tensor], options: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """`convert_state_dict` with what ViTMAE's configuration knows; transformers leaves no default out of it."""
    heads = {name: theirs[name] for name in VITMAE_HEADS}
    columns = math.isqrt(weights["pos_embed"].shape[1] - 1)  # pictures are square
    settings, converted = convert_state_dict(weights, **{**options, **heads}, columns=columns)
    return settings | {name: theirs[name] for name in VITMAE_SETTINGS if name in theirs}, converted
