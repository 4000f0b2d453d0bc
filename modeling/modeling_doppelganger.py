"""The encoder of Audio Doppelgängers: a ResNet18 on windows of 0.96 s of VGGish's log-mel.

Cherep and Singh, "Contrastive Learning from Synthetic Audio Doppelgängers" (arXiv 2406.05923), train it to hold two
sounds together whose synthesizer parameters differ a little. The loss sees its output, normalised to length 1; there
is no projection head to be dropped afterwards.

    input_values (batch, frames, 64 mel bins)
      -> windows (batch * windows, 1, 96, 64)
      -> channels (batch * windows, 512, 3, 2), their mean, a linear layer
      -> last_hidden_state (batch, windows, 512)         their mean is the pooler_output (batch, 512)

The network is transformers' `ResNetModel` with basic blocks. The original gave its first convolution a bias, which the
batch normalisation behind it takes away again, and torch's default initialisation, whose scale the same undoes; here
that convolution is as all others, without a bias and He-normal.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import ResNetConfig, ResNetModel
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.resnet.modeling_resnet import ResNetPreTrainedModel
from transformers.utils.generic import can_return_tuple

from .configuration_doppelganger import DoppelgangerConfig
from .embedding_audiopg import AudioPGFrameEmbeddings, frame_embeddings
from .feature_extraction_audiopg import ArrayLike
from .feature_extraction_doppelganger import DoppelgangerFeatureExtractor, shortest_window
from .spectrogram_audiopg import hop_length
from .spectrogram_doppelganger import SAMPLING_RATE, SILENCE

if TYPE_CHECKING:  # transformers follows such a line when it saves a model: so the pipeline travels with every one
    from .pipeline_audiopg import AudioPGFeatureExtractionPipeline  # noqa: F401


class DoppelgangerModel(ResNetPreTrainedModel):
    """The encoder: spectrograms in, one vector for each window of 0.96 s and their mean out.

    Args:
        config: Sizes of the model.

    Example:
        >>> model = DoppelgangerModel(DoppelgangerConfig.of_size("resnet_tiny")).eval()
        >>> output = model(torch.randn(2, 288, 64))
        >>> output.last_hidden_state.shape, output.pooler_output.shape
        (torch.Size([2, 3, 512]), torch.Size([2, 512]))
    """

    config: DoppelgangerConfig  # type: ignore[assignment]
    base_model_prefix = "doppelganger"
    main_input_name = "input_values"
    input_modalities = ("audio",)

    def __init__(self, config: DoppelgangerConfig) -> None:
        super().__init__(config)
        self.resnet = ResNetModel(
            ResNetConfig(
                num_channels=1,
                embedding_size=config.stem_size,
                hidden_sizes=list(config.hidden_sizes),
                depths=list(config.depths),
                layer_type="basic",
            )
        )
        self.fc = nn.Linear(config.hidden_sizes[-1], config.embedding_size)
        self.post_init()

    @can_return_tuple
    def forward(self, input_values: Tensor, attention_mask: Tensor | None = None) -> BaseModelOutputWithPooling:
        """Encode a batch of spectrograms.

        In evaluation a clip gives the same in any batch. While training, batch normalisation ties all windows of a
        batch together, those of padding included.

        Args:
            input_values: Log-mel, shape `(batch, frames, num_mel_bins)`; the frames are a multiple of
                `config.window_frames`.
            attention_mask: 1 at real frames, 0 at padding, shape `(batch, frames)`; None when all windows count. With
                it, padding is heard as silence, and a window counts if half of its frames are real or it is the first.

        Returns:
            `last_hidden_state`, `(batch, windows, embedding_size)`, where vectors of windows that do not count mean
            nothing; and `pooler_output`, `(batch, embedding_size)`, the mean of those that do.

        Raises:
            ValueError: if a shape does not fit.
        """
        _check_inputs(self.config, input_values, attention_mask)
        if attention_mask is not None:
            input_values = input_values.masked_fill(attention_mask[:, :, None] == 0, SILENCE)
        batch, frames, num_mel_bins = input_values.shape
        windows = frames // self.config.window_frames
        images = input_values.reshape(batch * windows, 1, self.config.window_frames, num_mel_bins)
        pooled = self.resnet(images.to(self.fc.weight.dtype), return_dict=True).pooler_output
        vectors = self.fc(pooled.flatten(1)).reshape(batch, windows, self.config.embedding_size)
        if attention_mask is None:
            return BaseModelOutputWithPooling(last_hidden_state=vectors, pooler_output=vectors.mean(dim=1))
        weights = self._counting(attention_mask).to(vectors.dtype)[:, :, None]
        mean = (vectors * weights).sum(dim=1) / weights.sum(dim=1)
        return BaseModelOutputWithPooling(last_hidden_state=vectors, pooler_output=mean)

    def time_patch_embeddings(
        self, inputs: Mapping[str, Tensor], pooling: str | None = None, layer: int | None = None
    ) -> Tensor:
        """One vector for each window: what `embed` and `embed_frames`, and the pipeline, are made of.

        Args:
            inputs: As from `DoppelgangerFeatureExtractor`.
            pooling: "mean" alone: a window has no rows along mel.
            layer: None alone: there are no tokens but the output.

        Returns:
            Shape `(batch, windows, embedding_size)`, float32; those of padding mean nothing.

        Raises:
            ValueError: as `forward`, or if there is no such pooling or layer.

        Example:
            >>> model = DoppelgangerModel(DoppelgangerConfig.of_size("resnet_tiny")).eval()
            >>> model.time_patch_embeddings({"input_values": torch.randn(2, 192, 64)}).shape
            torch.Size([2, 2, 512])
        """
        if pooling not in (None, "mean") or layer is not None:
            raise ValueError(
                f"`pooling` must be mean for a DoppelgangerModel, which has no rows along mel, and `layer` None, got "
                f"{pooling!r} and {layer!r}: leave them out."
            )
        return self(**inputs, return_dict=True).last_hidden_state.float()

    def embed(
        self,
        waveforms: ArrayLike | Sequence[ArrayLike],
        feature_extractor: DoppelgangerFeatureExtractor,
        *,
        batch_size: int = 16,
    ) -> Tensor:
        """Embed recordings of any length from 25 ms on, each to one vector: the mean of its windows.

        It is the `pooler_output` of the whole recording, in the memory of a batch of windows.

        Args:
            waveforms: One mono recording or many, as `DoppelgangerFeatureExtractor` takes them.
            feature_extractor: The checkpoint's own.
            batch_size: Windows at a time; it changes nothing but speed and memory.

        Returns:
            Shape `(recordings, embedding_size)`, float32, on the model's device.

        Raises:
            ValueError: if a recording is too short, or the feature extractor refuses the samples.

        Example:
            >>> model = DoppelgangerModel(DoppelgangerConfig.of_size("resnet_tiny"))
            >>> model.embed([torch.zeros(400), torch.zeros(12 * 16000)], DoppelgangerFeatureExtractor()).shape
            torch.Size([2, 512])
        """
        recordings = self._embed(waveforms, feature_extractor, batch_size)
        return torch.stack([windows.embeddings.mean(dim=0) for windows in recordings])

    def embed_frames(
        self,
        waveforms: ArrayLike | Sequence[ArrayLike],
        feature_extractor: DoppelgangerFeatureExtractor,
        *,
        batch_size: int = 16,
    ) -> list[AudioPGFrameEmbeddings]:
        """Embed recordings of any length from 25 ms on, each to one vector every 0.96 s.

        Args:
            waveforms: As `embed`, like the other arguments.
            feature_extractor: See `embed`.
            batch_size: See `embed`.

        Returns:
            For each recording its `embeddings`, `(windows, embedding_size)`, and `times`, their centres in seconds.

        Raises:
            ValueError: as `embed`.

        Example:
            >>> model = DoppelgangerModel(DoppelgangerConfig.of_size("resnet_tiny"))
            >>> [windows] = model.embed_frames(torch.zeros(32000), DoppelgangerFeatureExtractor())
            >>> windows.embeddings.shape, windows.times.round(decimals=4)
            (torch.Size([2, 512]), tensor([0.4875, 1.4475]))
        """
        return list(self._embed(waveforms, feature_extractor, batch_size))

    @torch.no_grad()
    def _embed(self, waveforms: Any, feature_extractor: Any, batch_size: int) -> Iterator[AudioPGFrameEmbeddings]:
        was_training = self.training
        self.eval()
        try:
            yield from frame_embeddings(
                self.time_patch_embeddings,
                feature_extractor,
                waveforms,
                device=self.device,
                batch_size=batch_size,
                window_seconds=self.config.window_frames * hop_length(SAMPLING_RATE) / SAMPLING_RATE,
                overlap_seconds=0.0,
            )
        finally:
            self.train(was_training)

    def _counting(self, attention_mask: Tensor) -> Tensor:
        """Which windows count, shape `(batch, windows)`."""
        real = attention_mask.unflatten(1, (-1, self.config.window_frames)).sum(dim=2)
        counts = real >= shortest_window(self.config.window_frames)
        counts[:, 0] = True
        return counts


def _check_inputs(config: DoppelgangerConfig, input_values: Tensor, attention_mask: Tensor | None) -> None:
    shape = tuple(input_values.shape)
    if len(shape) != 3 or shape[2] != config.num_mel_bins or shape[1] == 0 or shape[1] % config.window_frames:
        raise ValueError(
            f"`input_values` must have shape (batch, frames, {config.num_mel_bins} mel bins), with a multiple of "
            f"{config.window_frames} frames, got {shape}: make them with the DoppelgangerFeatureExtractor of this "
            "checkpoint, which takes waveforms."
        )
    if attention_mask is not None and tuple(attention_mask.shape) != shape[:2]:
        raise ValueError(
            f"`attention_mask` must have one number per frame, shape {shape[:2]}, got {tuple(attention_mask.shape)}: "
            "take the one that the DoppelgangerFeatureExtractor returns."
        )


# Every save of a model copies this file and what it imports.
DoppelgangerModel.register_for_auto_class("AutoModel")

__all__ = ["DoppelgangerModel"]
