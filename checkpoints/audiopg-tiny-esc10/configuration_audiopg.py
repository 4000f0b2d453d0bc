"""The configuration of AudioPG models: plain numbers, checked when they are set down. This file knows no torch."""

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import fields
from typing import Any, ClassVar, Self

from transformers.utils.versions import require_version

MINIMUM_TRANSFORMERS = "5.17"
"""The oldest transformers that this code runs with."""

# Before anything that older ones lack: this file is the first of a checkpoint's to be read.
_NEEDED = f"transformers>={MINIMUM_TRANSFORMERS}"
require_version(_NEEDED, f"Upgrade it: pip install -U '{_NEEDED}'.")

from huggingface_hub.dataclasses import strict  # noqa: E402
from transformers import PreTrainedConfig  # noqa: E402

AUTO_MAP = {
    "AutoConfig": "configuration_audiopg.AudioPGConfig",
    "AutoModel": "modeling_audiopg.AudioPGModel",
    "AutoModelForPreTraining": "modeling_audiopg.AudioPGForPreTraining",
    "AutoModelForAudioClassification": "modeling_audiopg.AudioPGForAudioClassification",
}
"""The `auto_map` of every configuration, for every Auto class to find its class in whatever folder is saved.

`save_pretrained` alone would note only the class that is being saved. The feature extractor is absent on purpose:
`AutoFeatureExtractor` reads its class from `preprocessor_config.json`, which has an `auto_map` of its own.
"""

CUSTOM_PIPELINES = {
    "audio-feature-extraction": {
        "impl": "pipeline_audiopg.AudioPGFeatureExtractionPipeline",
        "pt": ["AutoModel"],
        "type": "audio",
    }
}
"""The `custom_pipelines` of every saved configuration, for `pipeline` to find its class in the folder.

It is not in the memory of a process that has the package: there the pipeline is registered, and `pipeline` would still
ask for `trust_remote_code`.
"""

SIZES: dict[str, dict[str, int]] = {
    "tiny": {
        "hidden_size": 192,
        "num_hidden_layers": 6,
        "num_attention_heads": 3,
        "intermediate_size": 768,
        "decoder_hidden_size": 128,
        "decoder_num_hidden_layers": 2,
        "decoder_num_attention_heads": 4,
        "decoder_intermediate_size": 512,
    },
    "small": {
        "hidden_size": 384,
        "num_hidden_layers": 12,
        "num_attention_heads": 6,
        "intermediate_size": 1536,
        "decoder_hidden_size": 256,
        "decoder_num_hidden_layers": 4,
        "decoder_num_attention_heads": 8,
        "decoder_intermediate_size": 1024,
    },
    "base": {},
}
"""Named sizes as differences from the defaults of `AudioPGConfig`, which are the paper's."""

POOLINGS = ("mean", "mel", "mel_std")
"""What may become of a clip's patches: "mean", one vector, their mean; "mel", the means over time of every row along
mel, side by side, lowest first; "mel_std", these, and then the standard deviations over time of every row."""

_COUNTS = (
    "num_channels",
    "num_mel_bins",
    "patch_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "decoder_hidden_size",
    "decoder_num_hidden_layers",
    "decoder_num_attention_heads",
    "decoder_intermediate_size",
)

# Accepted beside the fields: `PreTrainedConfig` turns them into attributes of another name.
_INDIRECT_OPTIONS = {"num_labels", "attn_implementation"}


def check_pooling(name: str, pooling: str) -> None:
    """Refuse what is none of `POOLINGS`.

    Raises:
        ValueError: with the name of the option and what there is.

    Example:
        >>> check_pooling("pooling", "mel")
    """
    if pooling not in POOLINGS:
        raise ValueError(f"`{name}` must be one of {', '.join(POOLINGS)}, got {pooling!r}: choose one of them.")


class PortableConfig(PreTrainedConfig):
    """What our configurations share: named sizes, and where their code is, for whatever is saved to load elsewhere."""

    auto_classes: ClassVar[Mapping[str, str]] = {}
    """By Auto class the place of its class: the `auto_map` of every configuration of the kind."""
    sizes: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """By name, differences from the defaults."""

    def __post_init__(self, **kwargs: Any) -> None:
        """Hand what are no fields to `PreTrainedConfig`, and the places of the code."""
        # Older transformers wrote "repository--file.Class"; the files lie beside every configuration that is saved.
        given = {auto: path for auto, path in (kwargs.pop("auto_map", None) or {}).items() if "--" not in path}
        pipelines = kwargs.pop("custom_pipelines", None) or {}
        if not __name__.startswith("transformers_modules."):
            pipelines = {task: info for task, info in pipelines.items() if task not in CUSTOM_PIPELINES}
        super().__post_init__(**kwargs, auto_map={**self.auto_classes, **given}, custom_pipelines=pipelines)

    def to_dict(self) -> dict[str, Any]:
        """What `config.json` holds: the fields, and what a process without the package needs to go on from there."""
        values = super().to_dict()
        values["custom_pipelines"] = deepcopy(CUSTOM_PIPELINES) | values.get("custom_pipelines", {})
        return values | {"minimum_transformers_version": MINIMUM_TRANSFORMERS}

    @classmethod
    def of_size(cls, size: str, **overrides: Any) -> Self:
        """Build the configuration of a named size.

        Args:
            size: One of `sizes`.
            overrides: Fields to set otherwise; `num_labels` and `attn_implementation` are accepted too.

        Returns:
            The configuration.

        Raises:
            ValueError: if the size is unknown, or an override is not a field. The constructor itself keeps unknown
                names silently, because a `config.json` may carry more than this version knows.

        Example:
            >>> AudioPGConfig.of_size("tiny", mask_ratio=0.8).hidden_size
            192
        """
        if size not in cls.sizes:
            raise ValueError(
                f"`size` must be one of {sorted(cls.sizes)}, got {size!r}: for others, set the fields yourself."
            )
        known = {field.name for field in fields(cls)} | _INDIRECT_OPTIONS
        unknown = sorted(set(overrides) - known)
        if unknown:
            raise ValueError(f"Overrides must be fields of {cls.__name__}, got {unknown}: check the spelling.")
        return cls(**{**cls.sizes[size], **overrides})

    def _check_positive(self, names: Sequence[str]) -> None:
        for name in names:
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}: it counts something.")


@strict
class AudioPGConfig(PortableConfig):
    """Describes an AudioPG model; the defaults are the ViT-Base/16 of the paper (AudioPG, section 4).

    Args:
        num_mel_bins: Mel bands of a spectrogram, a multiple of `patch_size`; of an image, its rows of pixels.
        patch_size: Side of a patch along mel, in bands; of an image, in pixels.
        patch_frames: Side of a patch along time, in frames of 10 ms; None for a square patch, `patch_size`. Patches of
            images are square.
        hidden_size: Width of the encoder, a multiple of 4 and of `num_attention_heads`.
        num_hidden_layers: Blocks of the encoder.
        num_attention_heads: Attention heads of each encoder block.
        intermediate_size: Width inside the feed-forward part of each encoder block.
        hidden_act: Name of the activation inside the feed-forward parts, encoder and decoder.
        layer_norm_eps: Added to the variance in every layer normalisation.
        qkv_bias: Whether the query, key and value projections have a bias.
        initializer_range: Standard deviation of the class and mask tokens at initialisation.
        drop_path_rate: Stochastic depth: the probability to skip a residual branch of the last encoder block while
            training; it grows linearly from 0 at the first block.
        decoder_hidden_size: Width of the decoder, a multiple of 4 and of `decoder_num_attention_heads`.
        decoder_num_hidden_layers: Blocks of the decoder.
        decoder_num_attention_heads: Attention heads of each decoder block.
        decoder_intermediate_size: Width inside the feed-forward part of each decoder block.
        mask_ratio: Share of the patches hidden from the encoder in pre-training, at least 0 and below 1.
        norm_pix_loss: Whether the loss compares with patches standardised each by its own mean and variance.
        classifier_pooling: What a classifier reads of the patch tokens: one of `POOLINGS`.
        embedding_pooling: What `AudioPGModel.embed` gives if it is not told otherwise: one of `POOLINGS`.
        embedding_layer: Whose tokens it pools: 0 for what enters the first block, `k` for what leaves block `k`; None
            for the output, which is that of the last block after the final norm.
        num_channels: 1 for spectrograms, `(batch, frames, num_mel_bins)`. With more, such as the colours of images,
            inputs are `(batch, num_channels, columns, num_mel_bins)`: an image lies as a spectrogram does, its columns
            where frames are, and in each its pixels from the lowest row up, where mel bands are.

    Raises:
        ValueError: if two numbers do not fit together; the message names the rule, the value and the remedy.

    Example:
        >>> config = AudioPGConfig()
        >>> config.hidden_size, config.num_mel_patches
        (768, 8)
    """

    model_type = "audiopg"
    auto_classes = AUTO_MAP
    sizes = SIZES

    num_mel_bins: int = 128
    patch_size: int = 16
    patch_frames: int | None = None
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-6
    qkv_bias: bool = True
    initializer_range: float | int = 0.02
    drop_path_rate: float | int = 0.0
    decoder_hidden_size: int = 512
    decoder_num_hidden_layers: int = 8
    decoder_num_attention_heads: int = 16
    decoder_intermediate_size: int = 2048
    mask_ratio: float | int = 0.75
    norm_pix_loss: bool = True
    classifier_pooling: str = "mean"
    embedding_pooling: str = "mean"
    embedding_layer: int | None = None
    num_channels: int = 1

    def __post_init__(self, **kwargs: Any) -> None:
        """Check the numbers against each other, then hand what is left to `PreTrainedConfig`."""
        self._check_positive(_COUNTS)
        self._check_sizes("hidden_size", "num_attention_heads")
        self._check_sizes("decoder_hidden_size", "decoder_num_attention_heads")
        if self.num_mel_bins % self.patch_size:
            raise ValueError(
                f"`num_mel_bins` must be a multiple of `patch_size`, got {self.num_mel_bins} and {self.patch_size}: "
                "choose a patch size that divides the mel bands."
            )
        if self.patch_frames is not None:
            self._check_positive(["patch_frames"])
        if self.num_channels > 1 and self.patch_shape != (self.patch_size, self.patch_size):
            raise ValueError(
                f"Patches of images must be square, got `patch_frames` {self.patch_frames} and `patch_size` "
                f"{self.patch_size} with {self.num_channels} channels: leave `patch_frames` out."
            )
        for name in ("mask_ratio", "drop_path_rate"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ValueError(f"`{name}` must be at least 0 and below 1, got {value}: write 75 % as 0.75.")
        if not 0 < self.layer_norm_eps < math.inf:
            raise ValueError(
                f"`layer_norm_eps` must be a finite number above 0, got {self.layer_norm_eps}: the usual one is 1e-6."
            )
        if not 0 <= self.initializer_range < math.inf:
            raise ValueError(
                f"`initializer_range` must be a finite number, 0 or more, got {self.initializer_range}: the usual one "
                "is 0.02."
            )
        for name in ("classifier_pooling", "embedding_pooling"):
            check_pooling(name, getattr(self, name))
        self.check_layer("embedding_layer", self.embedding_layer)
        super().__post_init__(**kwargs)

    @property
    def patch_shape(self) -> tuple[int, int]:
        """Sides of a patch: frames along time, bands along mel."""
        return self.patch_size if self.patch_frames is None else self.patch_frames, self.patch_size

    def check_layer(self, name: str, layer: int | None) -> None:
        """Refuse a layer that the encoder has not.

        Raises:
            ValueError: with the name of the option and what there is.

        Example:
            >>> AudioPGConfig.of_size("tiny").check_layer("layer", 6)
        """
        if layer is not None and not 0 <= layer <= self.num_hidden_layers:
            raise ValueError(
                f"`{name}` must be from 0, what enters the first block, to {self.num_hidden_layers}, what leaves the "
                f"last, got {layer}: leave it out for the output after the final norm."
            )

    def pooled_size(self, pooling: str) -> int:
        """How many numbers a clip comes to.

        Example:
            >>> AudioPGConfig().pooled_size("mean"), AudioPGConfig().pooled_size("mel_std")
            (768, 12288)
        """
        check_pooling("pooling", pooling)
        vectors = {"mean": 1, "mel": self.num_mel_patches, "mel_std": 2 * self.num_mel_patches}
        return vectors[pooling] * self.hidden_size

    @property
    def projection_dim(self) -> int:
        """Width of what `embed` gives, by the name under which sentence-transformers looks for it."""
        return self.pooled_size(self.embedding_pooling)

    @property
    def num_mel_patches(self) -> int:
        """Patches along mel."""
        return self.num_mel_bins // self.patch_size

    @property
    def patch_values(self) -> int:
        """Numbers in a patch, those of all channels."""
        return self.num_channels * math.prod(self.patch_shape)

    def _check_sizes(self, width_name: str, heads_name: str) -> None:
        width, heads = getattr(self, width_name), getattr(self, heads_name)
        if width % heads:
            raise ValueError(
                f"`{width_name}` must be a multiple of `{heads_name}`, got {width} and {heads}: every attention head "
                "has the same width, so change one of the two."
            )
        if width % 4:
            raise ValueError(
                f"`{width_name}` must be a multiple of 4, got {width}: the positions use a sine and a cosine for each "
                "of two axes, so round it to a multiple of 4."
            )


# Every save of a configuration copies this file; the models and the feature extractor do the same.
AudioPGConfig.register_for_auto_class()

__all__ = [
    "AUTO_MAP",
    "CUSTOM_PIPELINES",
    "MINIMUM_TRANSFORMERS",
    "POOLINGS",
    "SIZES",
    "AudioPGConfig",
    "PortableConfig",
    "check_pooling",
]
