"""The configuration of the encoder of Audio Doppelgängers: plain numbers, checked. This file knows no torch."""

from typing import Any

from huggingface_hub.dataclasses import strict

from .configuration_audiopg import PortableConfig

AUTO_MAP = {
    "AutoConfig": "configuration_doppelganger.DoppelgangerConfig",
    "AutoModel": "modeling_doppelganger.DoppelgangerModel",
}
"""The `auto_map` of every configuration; the feature extractor's is in `preprocessor_config.json`."""

SIZES: dict[str, dict[str, Any]] = {
    "resnet18": {},
    "resnet_tiny": {"stem_size": 16, "hidden_sizes": (16, 32, 64, 128)},
}
"""Named sizes as differences from the defaults of `DoppelgangerConfig`, which are the paper's."""

_COUNTS = ("num_mel_bins", "window_frames", "stem_size", "embedding_size")


@strict
class DoppelgangerConfig(PortableConfig):
    """Describes a DoppelgangerModel; the defaults are ResNet18 as in "Audio Doppelgängers" (arXiv 2406.05923).

    Args:
        num_mel_bins: Mel bands of a spectrogram.
        window_frames: Frames of a window: what the network hears at once.
        stem_size: Channels of the first convolution.
        hidden_sizes: Channels of each stage; every stage after the first halves both sides of its input.
        depths: Residual blocks of each stage.
        embedding_size: Width of an embedding; `hidden_size` is another name of it.

    Raises:
        ValueError: if a number counts nothing, or stages are of two numbers; the message has the rule and the remedy.

    Example:
        >>> config = DoppelgangerConfig.of_size("resnet_tiny")
        >>> config.hidden_sizes, config.hidden_size, config.num_hidden_layers
        ([16, 32, 64, 128], 512, 8)
    """

    model_type = "audiopg_doppelganger"
    attribute_map = {"hidden_size": "embedding_size"}  # noqa: RUF012 - the name and form that transformers reads
    auto_classes = AUTO_MAP
    sizes = SIZES

    num_mel_bins: int = 64
    window_frames: int = 96
    stem_size: int = 64
    hidden_sizes: list[int] | tuple[int, ...] = (64, 128, 256, 512)
    depths: list[int] | tuple[int, ...] = (2, 2, 2, 2)
    embedding_size: int = 512

    def __post_init__(self, **kwargs: Any) -> None:
        """Check the numbers, then hand what is left to `PreTrainedConfig`."""
        self._check_positive(_COUNTS)
        self.hidden_sizes, self.depths = list(self.hidden_sizes), list(self.depths)
        if len(self.hidden_sizes) != len(self.depths) or min([*self.hidden_sizes, *self.depths], default=0) < 1:
            raise ValueError(
                "`hidden_sizes` and `depths` have a number, 1 or more, for each stage, got "
                f"{self.hidden_sizes} and {self.depths}: ResNet18 has 64, 128, 256, 512 and 2, 2, 2, 2."
            )
        super().__post_init__(**kwargs)

    @property
    def num_hidden_layers(self) -> int:
        """Residual blocks of all stages."""
        return sum(self.depths)


# Every save of a configuration copies this file; the model and the feature extractor do the same.
DoppelgangerConfig.register_for_auto_class()

__all__ = ["AUTO_MAP", "SIZES", "DoppelgangerConfig"]
