"""The checkpoint that the app runs on. Knows no Gradio."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForPreTraining

import audiopg  # registers the classes
from audiopg.data_scripts.synthesis import Preset, get_preset
from audiopg.modeling.feature_extraction_audiopg import AudioPGFeatureExtractor
from audiopg.modeling.modeling_audiopg import AudioPGForPreTraining, AudioPGModel

HERE = Path(__file__).parent
BESIDE = HERE.parent / "checkpoints" / "audiopg-tiny"
"""Where the released checkpoint lies in a clone of the repository."""


@dataclass(frozen=True)
class Checkpoint:
    """A pre-trained encoder, with its decoder if it was released with one.

    Args:
        name: How it is called.
        encoder: The encoder.
        masked: The masked autoencoder around it; None if the checkpoint has no decoder.
        feature_extractor: Its own.
    """

    name: str
    encoder: AudioPGModel
    masked: AudioPGForPreTraining | None
    feature_extractor: AudioPGFeatureExtractor

    @property
    def sampling_rate(self) -> int:
        """In Hz."""
        return self.feature_extractor.sampling_rate

    @property
    def statistics(self) -> dict[str, Any]:
        """What is known of the clips that it learnt from."""
        return self.feature_extractor.statistics

    @property
    def preset(self) -> Preset:
        """The clips that it learnt from; of a model of recordings or images, those of the paper."""
        return get_preset(self.statistics.get("preset") or "audiopg", **self.statistics.get("overrides", {}))

    def embed(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Embeddings `(sounds, width)` of waveforms at its sampling rate."""
        return self.encoder.embed(list(waveforms), self.feature_extractor).cpu().numpy()


def load_checkpoint(checkpoint: str) -> Checkpoint:
    """A released checkpoint, from a folder or the Hub.

    Args:
        checkpoint: A folder, or a name on the Hub.

    Returns:
        It, ready to be asked.

    Raises:
        ValueError, OSError: if there is none, or it is of another kind.
    """
    config = AutoConfig.from_pretrained(checkpoint)
    if not isinstance(config, audiopg.AudioPGConfig) or config.num_channels > 1:
        raise ValueError(f"The app runs on an AudioPG encoder of sounds, and {checkpoint} is none; name another.")
    feature_extractor = AutoFeatureExtractor.from_pretrained(checkpoint)
    name = Path(checkpoint).resolve().name if Path(checkpoint).is_dir() else checkpoint.rpartition("/")[2]
    masked = None
    if AudioPGForPreTraining.__name__ in (config.architectures or ()):
        masked = AutoModelForPreTraining.from_pretrained(checkpoint, dtype=torch.float32).eval()
        return Checkpoint(name, masked.audiopg, masked, feature_extractor)
    encoder = AutoModel.from_pretrained(checkpoint, dtype=torch.float32).eval()
    return Checkpoint(name, encoder, None, feature_extractor)


def default_checkpoint() -> str:
    """The released checkpoint beside this folder, or else the first of the models in the Space's own card."""
    if BESIDE.is_dir():
        return str(BESIDE)
    _, front_matter, _ = (HERE / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(front_matter)["models"][0]


__all__ = ["Checkpoint", "default_checkpoint", "load_checkpoint"]
