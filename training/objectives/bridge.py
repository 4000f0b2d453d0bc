r"""The bridge from images to audio: what a masked autoencoder of images becomes when it is given spectrograms.

    patch projection   summed over the colours, its bias kept: the embedding of an image whose colours are all equal to
                       the spectrogram
    positions          computed for whatever grid is there, so there is nothing to convert
    orientation        mel on the image's vertical axis, lowest band at the bottom, as spectrograms are drawn; images
                       lie so in our models already (`as_spectrograms`)
    decoder            what it predicts is averaged over the colours, so that training may go on
    standardisation    that of synthesized clips (`REFERENCE_STATISTICS`): mean 0 and variance 1, as images have it

The sum is that of Ishikawa, Komatsu & Aoki ("Pre-training with Synthetic Patterns for Audio", 2025). The colours of
images are alike, so their kernels may cancel; `kernel_norms` tells.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from audiopg.modeling.configuration_audiopg import AudioPGConfig
from audiopg.modeling.feature_extraction_audiopg import AudioPGFeatureExtractor
from audiopg.modeling.modeling_audiopg import AudioPGForPreTraining, AudioPGModel

PATCH_PROJECTION = "embeddings.patch_embeddings.weight"
_PREDICTION = ("decoder.decoder_pred.weight", "decoder.decoder_pred.bias")


def as_spectrograms(images: Tensor) -> Tensor:
    """Lay images as spectrograms lie: columns where frames are, and in each its pixels from the lowest row up.

    So horizontal stripes are constant tones, a vertical line is a click, and what rises to the right goes up in
    frequency.

    Args:
        images: Rows from the top, shape `(batch, channels, rows, columns)`.

    Returns:
        Shape `(batch, channels, columns, rows)`.

    Example:
        >>> as_spectrograms(torch.tensor([[[[1, 2], [3, 4]]]])).tolist()
        [[[[3, 1], [4, 2]]]]
    """
    return images.flip(-2).transpose(-1, -2)


def audio_config(config: AudioPGConfig, **changes: Any) -> AudioPGConfig:
    """The configuration for audio of a model of images: one channel, and the usual number of mel bands.

    Args:
        config: Of the model of images.
        changes: Fields to set otherwise.

    Raises:
        ValueError: if it is of audio already, or its patches do not divide the mel bands.

    Example:
        >>> audio_config(AudioPGConfig.of_size("tiny", num_channels=3, num_mel_bins=224)).num_mel_bins
        128
    """
    if config.num_channels == 1:
        raise ValueError("Only a model of images can be brought over to audio, got one of audio: use it as it is.")
    audio = {"num_channels": 1, "num_mel_bins": AudioPGConfig.num_mel_bins}
    sizes = {name: value for name, value in config.to_dict().items() if name in AudioPGConfig.__annotations__}
    return AudioPGConfig(**{**sizes, **audio, **changes})


def audio_weights(weights: Mapping[str, Tensor], num_channels: int) -> dict[str, Tensor]:
    """Weights for audio out of those of a model of images.

    Args:
        weights: By name, of an encoder with or without a decoder.
        num_channels: That the images have.

    Returns:
        All of them, the patch projection summed over the colours and the prediction of patches averaged over them.

    Example:
        >>> audio_weights({"embeddings.patch_embeddings.weight": torch.ones(2, 3 * 4)}, 3)
        {'embeddings.patch_embeddings.weight': tensor([[3., 3., 3., 3.],
                [3., 3., 3., 3.]])}
    """
    found = dict(weights)
    for name, weight in weights.items():
        if name.endswith(PATCH_PROJECTION):
            found[name] = weight.unflatten(1, (num_channels, -1)).sum(dim=1)
        elif name.endswith(_PREDICTION):
            found[name] = weight.unflatten(0, (num_channels, -1)).mean(dim=0)
    return found


def to_audio(model: AudioPGForPreTraining | AudioPGModel, **changes: Any) -> Any:
    """A model of images as one of audio: of the same class, with weights of its own.

    Args:
        model: Of images.
        changes: Fields of the configuration to set otherwise.

    Raises:
        ValueError: as `audio_config`.

    Example:
        >>> images = AudioPGModel(AudioPGConfig.of_size("tiny", num_channels=3, num_mel_bins=224))
        >>> to_audio(images)(torch.randn(1, 64, 128)).pooler_output.shape
        torch.Size([1, 192])
    """
    audio = type(model)(audio_config(model.config, **changes))
    audio.load_state_dict(audio_weights(model.state_dict(), model.config.num_channels), strict=True)
    return audio


def audio_feature_extractor(config: AudioPGConfig, **facts: Any) -> AudioPGFeatureExtractor:
    """The extractor of a model that came over the bridge, standardised by synthesized clips.

    Args:
        config: Of the model, as from `audio_config`.
        facts: What its `statistics` say of where the weights come from, among it `saw_real_data`.

    Example:
        >>> audio_feature_extractor(AudioPGConfig(), saw_real_data=False).statistics["preset"]
        'reference'
    """
    extractor = AudioPGFeatureExtractor(num_mel_bins=config.num_mel_bins, patch_size=config.patch_shape[0])
    extractor.statistics = {**extractor.statistics, **facts}
    return extractor


def kernel_norms(projection: Tensor, num_channels: int) -> dict[str, Any]:
    r"""Norm of the patch projection of each colour, and of their sum, which is what audio meets.

    Three kernels that are equal have a sum of three times their norm; of kernels that have nothing to do with each
    other it is $\sqrt{3}$ times; far below, colours cancel, and little of what was learnt arrives.

    Args:
        projection: Shape `(hidden_size, channels * patch_size ** 2)`.
        num_channels: That the images have.

    Returns:
        Frobenius norms: those of the `colours`, and that of the `sum`.

    Example:
        >>> kernel_norms(torch.ones(4, 3 * 4), 3)
        {'colours': [4.0, 4.0, 4.0], 'sum': 12.0}
    """
    whole = projection.full_tensor() if isinstance(projection, DTensor) else projection  # FSDP's is in pieces
    kernels = whole.detach().double().unflatten(1, (num_channels, -1)).transpose(0, 1)
    norms = torch.linalg.matrix_norm(torch.cat([kernels, kernels.sum(dim=0, keepdim=True)]))
    *colours, summed = [round(norm, 4) for norm in norms.tolist()]
    return {"colours": colours, "sum": summed}
