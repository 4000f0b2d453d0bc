"""AudioPG behind the HEAR 2021 interface (https://hearbenchmark.com/hear-api.html), for its runners and others'.

J. Turian et al., "HEAR: Holistic Evaluation of Audio Representations", 2022.

    import audiopg.training.evaluation.adapters.hear as module
    model = module.load_model("exported/base")
    embeddings = module.get_scene_embeddings(audio, model)

HEAR asks for a timestamp every 50 ms at most; ours are one for each time patch, 160 ms where it has 16 frames, so that
event detection is scored at the resolution that the model has.
"""

import importlib
import sys
import types
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from transformers import AutoFeatureExtractor, AutoModel

from audiopg.modeling.embedding_audiopg import AudioPGFrameEmbeddings, pool_moments
from audiopg.modeling.feature_extraction_audiopg import LogMelFeatureExtractor
from audiopg.modeling.modeling_audiopg import AudioPGModel
from audiopg.modeling.modeling_doppelganger import DoppelgangerModel
from audiopg.modeling.spectrogram_audiopg import hop_length, samples_spanned
from audiopg.training.runs.files import reading


class HearModel(nn.Module):
    """A frozen encoder with its feature extractor, and the three attributes that HEAR reads.

    `hop_in_ms` is the distance of its timestamps.

    Args:
        encoder: An `AudioPGModel` or a `DoppelgangerModel`.
        feature_extractor: The checkpoint's own.

    Example:
        >>> from audiopg import AudioPGConfig, AudioPGFeatureExtractor
        >>> model = HearModel(AudioPGModel(AudioPGConfig.of_size("tiny")), AudioPGFeatureExtractor())
        >>> model.sample_rate, model.scene_embedding_size, model.timestamp_embedding_size
        (16000, 192, 192)
    """

    def __init__(self, encoder: AudioPGModel | DoppelgangerModel, feature_extractor: LogMelFeatureExtractor) -> None:
        super().__init__()
        self.encoder: Any = encoder
        self.feature_extractor = feature_extractor
        self.sample_rate = feature_extractor.sampling_rate
        self.scene_embedding_size = self.timestamp_embedding_size = encoder.config.hidden_size
        if isinstance(encoder, AudioPGModel):
            pooling = encoder.config.embedding_pooling
            self.scene_embedding_size = encoder.config.pooled_size(pooling)
            self.timestamp_embedding_size = encoder.config.pooled_size("mean" if pooling == "mean" else "mel")
        frames = feature_extractor.patch_grid["patch_size"]
        self.hop_in_ms = 1000 * frames * hop_length(self.sample_rate) / self.sample_rate

    def forward(self, audio: Tensor) -> list[AudioPGFrameEmbeddings]:
        """Frame embeddings of each clip of `audio`, shape `(clips, samples)`, on the device of the encoder."""
        return self.encoder.embed_frames(audio, self.feature_extractor)


def load_model(model_file_path: str = "") -> HearModel:
    """Load a checkpoint.

    Args:
        model_file_path: Its folder, or its name on the Hub.

    Returns:
        The model, in evaluation mode on the CPU.

    Raises:
        ValueError: if no path is given: no weights come with this package; or if the checkpoint is damaged.
        OSError: if there is no such checkpoint.
    """
    if not model_file_path:
        raise ValueError("No weights come with this package: give the folder of a checkpoint, or its name on the Hub.")
    with reading(model_file_path):
        encoder = AutoModel.from_pretrained(model_file_path)
        return HearModel(encoder, AutoFeatureExtractor.from_pretrained(model_file_path)).eval()


def get_scene_embeddings(audio: Tensor, model: HearModel) -> Tensor:
    """One embedding for each clip.

    Args:
        audio: Shape `(clips, samples)` in [-1, 1], at `model.sample_rate`.
        model: From `load_model`.

    Returns:
        Shape `(clips, scene_embedding_size)`: those of the encoder's `embed`.
    """
    pooling = getattr(model.encoder.config, "embedding_pooling", "mean")
    return torch.stack([pool_moments(clip.embeddings, pooling) for clip in model(audio)])


def get_timestamp_embeddings(audio: Tensor, model: HearModel) -> tuple[Tensor, Tensor]:
    """One embedding for each time patch of each clip, or each window of 0.96 s of a `DoppelgangerModel`.

    Args:
        audio: Shape `(clips, samples)` in [-1, 1], at `model.sample_rate`.
        model: From `load_model`.

    Returns:
        The embeddings, shape `(clips, time patches, timestamp_embedding_size)`, and the centres of their time patches
        in ms, shape `(clips, time patches)`. HEAR wants equal steps: the last patch, which a clip may fill in part, is
        dated as the others, up to half a patch after the clip's end. The encoder's `embed_frames` has the centre of
        its part.
    """
    embeddings = torch.stack([clip.embeddings for clip in model(audio)])
    rate, patch_size = model.sample_rate, model.feature_extractor.patch_grid["patch_size"]
    first = 1000 * samples_spanned(patch_size, rate) / rate / 2
    times = first + model.hop_in_ms * torch.arange(embeddings.shape[1], dtype=torch.float32, device=embeddings.device)
    return embeddings, times.expand(len(embeddings), -1)


def validate(checkpoint: str, device: str = "cpu") -> None:
    """HEAR's own validator, of the package `hearvalidator`, on a checkpoint; it prints what it checks.

    The package imports TensorFlow, and needs none of it for a model in PyTorch: where there is none, an empty module
    stands for it.

    Args:
        checkpoint: As for `load_model`.
        device: Where to compute.

    Raises:
        ImportError: if `hearvalidator` is missing, with the command that installs it.
        ValueError: with what the validator found; as `load_model`.
    """
    try:
        validator = _validator()
    except ModuleNotFoundError as error:
        raise ImportError(
            "HEAR's validator is the package hearvalidator, which is not there. Install it by `pip install --no-deps "
            "hearvalidator==2021.0.2`: with its dependencies it would bring TensorFlow."
        ) from error
    try:
        validator.ValidateModel(__name__, checkpoint, device=device)()
    except validator.ModelError as error:  # no `Exception`: nobody else would catch it
        raise ValueError(f"HEAR's validator refuses {checkpoint}: {error}") from error


def _validator() -> Any:
    try:
        importlib.import_module("tensorflow")
    except ModuleNotFoundError:
        tensorflow = types.ModuleType("tensorflow")
        vars(tensorflow)["Module"] = type("Module", (), {})
        with patch.dict(sys.modules, {"tensorflow": tensorflow}):
            return importlib.import_module("hearvalidator.validate")
    return importlib.import_module("hearvalidator.validate")
