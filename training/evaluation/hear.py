"""AudioPG behind the HEAR 2021 interface (https://hearbenchmark.com/hear-api.html), for its runners and others'.

    import audiopg.training.evaluation.hear as module
    model = module.load_model("exported/base")
    embeddings = module.get_scene_embeddings(audio, model)

HEAR asks for a timestamp every 50 ms at most; ours are one for each time patch, 160 ms where it has 16 frames, so that
event detection is scored at the resolution that the model has.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoFeatureExtractor, AutoModel

from audiopg.modeling.embedding_audiopg import AudioPGFrameEmbeddings, pool_moments
from audiopg.modeling.feature_extraction_audiopg import LogMelFeatureExtractor
from audiopg.modeling.modeling_audiopg import AudioPGModel
from audiopg.modeling.modeling_doppelganger import DoppelgangerModel
from audiopg.modeling.spectrogram_audiopg import hop_length, samples_spanned


class HearModel(nn.Module):
    """A frozen encoder with its feature extractor, and the three attributes that HEAR reads.

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
        ValueError: if no path is given: no weights come with this package.
    """
    if not model_file_path:
        raise ValueError("No weights come with this package: give the folder of a checkpoint, or its name on the Hub.")
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
    step = 1000 * patch_size * hop_length(rate) / rate
    first = 1000 * samples_spanned(patch_size, rate) / rate / 2
    times = first + step * torch.arange(embeddings.shape[1], dtype=torch.float32, device=embeddings.device)
    return embeddings, times.expand(len(embeddings), -1)
