"""Pipelines that take recordings as they come: paths, bytes, arrays or rows of a data set, and no FFmpeg.

    pipeline("audio-feature-extraction", model=folder)("recording.flac")
    pipeline("audio-classification", model=folder, pipeline_class=AudioPGAudioClassificationPipeline)("recording.flac")

transformers' own audio-classification pipeline works with the models too; but for paths it calls FFmpeg.
"""

from collections.abc import Iterator, Sequence
from os import PathLike
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor
from transformers import AudioClassificationPipeline
from transformers.pipelines.base import ChunkPipeline

from .audio_audiopg import read_waveform
from .embedding_audiopg import (
    Window,
    WindowOptions,
    check_time_patches,
    merge_windows,
    patch_times,
    plan_windows,
    pool_moments,
)


class AudioPGFeatureExtractionPipeline(ChunkPipeline):
    """`pipeline("audio-feature-extraction")`: recordings of any length from 25 ms on to embeddings.

    The embeddings are those of `AudioPGModel.embed` and `embed_frames`; `batch_size` windows go through the model at a
    time, across recordings if they are short.

    Example:
        >>> from audiopg import AudioPGConfig, AudioPGFeatureExtractor, AudioPGModel
        >>> from transformers import pipeline
        >>> model = AudioPGModel(AudioPGConfig.of_size("tiny"))
        >>> embed = pipeline("audio-feature-extraction", model=model, feature_extractor=AudioPGFeatureExtractor())
        >>> embed(np.zeros(16000, dtype="float32")).shape
        (192,)
        >>> embed(np.zeros(16000, dtype="float32"), frames=True)["embeddings"].shape
        (7, 192)
    """

    _load_processor: Any = False
    _load_image_processor: Any = False
    _load_feature_extractor: Any = True
    _load_tokenizer: Any = False
    feature_extractor: Any
    model: Any  # one of ours

    def __call__(self, inputs: Any, **options: Any) -> Any:  # type: ignore[override]
        """Embed one recording, a list of them, or a data set.

        Args:
            inputs: One recording as `read_waveform` takes it, or a list, generator or data set of these.
            options: `frames`, whether to return an embedding of every time patch instead of one; `pooling` and
                `layer`, as in `AudioPGModel.embed`, by default the checkpoint's; `window_seconds` and
                `overlap_seconds`, see `plan_windows`; `batch_size` and `num_workers`, see `Pipeline`.

        Returns:
            For each recording a float32 array, what `AudioPGModel.embed` gives, or with `frames` a dictionary of
            `embeddings` and `times`, as from `AudioPGModel.embed_frames`.

        Raises:
            ImportError: as `read_waveform`.
            ValueError: as `read_waveform`, `plan_windows` and `AudioPGFeatureExtractor`.
        """
        return super().__call__(inputs, **options)

    def save_pretrained(self, save_directory: str | PathLike, **kwargs: Any) -> None:
        """Save the model and the feature extractor; the code of this pipeline goes with every model.

        Args:
            save_directory: Made if it does not exist.
            kwargs: As for `PreTrainedModel.save_pretrained`.
        """
        # The parent would also note the task in the model's configuration here, where it is registered already:
        # from then on `pipeline(..., model=self.model)` would ask for `trust_remote_code`.
        self.model.save_pretrained(save_directory, **kwargs)
        self.feature_extractor.save_pretrained(save_directory, **kwargs)

    def _sanitize_parameters(  # type: ignore[override]
        self,
        frames: bool | None = None,
        pooling: str | None = None,
        layer: int | None = None,
        window_seconds: float | None = None,
        overlap_seconds: float | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        windows = {"window_seconds": window_seconds, "overlap_seconds": overlap_seconds}
        windows = {name: value for name, value in windows.items() if value is not None}
        pooled = {} if pooling is None else {"pooling": pooling}
        forward = pooled if layer is None else {**pooled, "layer": layer}
        return windows, forward, {**windows, **pooled, **({} if frames is None else {"frames": frames})}

    def preprocess(  # type: ignore[override]
        self, audio: Any, **windows: Unpack[WindowOptions]
    ) -> Iterator[dict[str, Any]]:
        """Model inputs of one window after the other."""
        feature_extractor = self.feature_extractor
        waveform = read_waveform(audio, feature_extractor.sampling_rate)
        plan = self._plan(len(waveform), **windows)
        for window in plan:
            inputs = feature_extractor(
                waveform[window.start : window.end], sampling_rate=feature_extractor.sampling_rate
            )
            num_samples = torch.tensor([len(waveform)])
            yield {"is_last": window is plan[-1], "num_samples": num_samples, **inputs}

    def _forward(  # type: ignore[override]
        self, inputs: dict[str, Any], pooling: str | None = None, layer: int | None = None
    ) -> dict[str, Any]:
        values = {name: inputs[name] for name in ("input_values", "attention_mask")}
        frames = self.model.time_patch_embeddings(values, pooling, layer)
        patch_size = self.feature_extractor.patch_grid["patch_size"]
        check_time_patches(frames, values["input_values"].shape[1], patch_size)
        return {"frames": frames, "num_samples": inputs["num_samples"], "is_last": inputs["is_last"]}

    def postprocess(  # type: ignore[override]
        self,
        parts: Sequence[dict[str, Tensor]],
        frames: bool = False,
        pooling: str | None = None,
        **windows: Unpack[WindowOptions],
    ) -> np.ndarray | dict[str, np.ndarray]:
        """Put the windows of one recording together."""
        num_samples = int(parts[0]["num_samples"])
        plan = self._plan(num_samples, **windows)
        embeddings = merge_windows(plan, [part["frames"][0] for part in parts])
        if not frames:
            default: str = getattr(self.model.config, "embedding_pooling", "mean")
            return pool_moments(embeddings, pooling or default).numpy()
        times = patch_times(num_samples, **self.feature_extractor.patch_grid)
        return {"embeddings": embeddings.numpy(), "times": times.numpy()}

    def _plan(self, num_samples: int, **windows: Unpack[WindowOptions]) -> list[Window]:
        return plan_windows(num_samples, **self.feature_extractor.patch_grid, **windows)


class AudioPGAudioClassificationPipeline(AudioClassificationPipeline):
    """transformers' audio-classification pipeline, but that it decodes files by libsndfile instead of FFmpeg.

    `pipeline("audio-classification", model=folder, pipeline_class=AudioPGAudioClassificationPipeline)`; its inputs are
    those of `read_waveform`, everything else is the parent's.
    """

    feature_extractor: Any

    def preprocess(self, audio: Any) -> Any:  # type: ignore[override]
        """Model inputs of one recording."""
        return super().preprocess(_as_array(read_waveform(audio, self.feature_extractor.sampling_rate)))

    def check_model_type(self, supported_models: list[str] | dict[str, Any]) -> None:
        """Nothing: the parent's list holds the classes that come with transformers and reports all others as wrong."""


def _as_array(waveform: Any) -> Any:
    return waveform.numpy(force=True) if isinstance(waveform, Tensor) else waveform


__all__ = ["AudioPGAudioClassificationPipeline", "AudioPGFeatureExtractionPipeline"]
