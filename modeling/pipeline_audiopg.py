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

from .audio_audiopg import read_audio, resample
from .embedding_audiopg import (
    Window,
    WindowOptions,
    check_mono,
    merge_windows,
    patch_times,
    plan_windows,
    time_patch_means,
)


def read_waveform(audio: Any, sampling_rate: int) -> np.ndarray | Tensor:
    """One mono waveform out of whatever stands for a recording.

    Args:
        audio: A path; a file's content as bytes; samples, already at `sampling_rate`; or a dictionary as `datasets`
            has them, with `array` (or `raw`) and `sampling_rate`, or with `bytes` or `path`.
        sampling_rate: Rate in Hz of the result.

    Returns:
        Shape `(samples,)`. Channels of a file are averaged, channels of an array are refused later.

    Raises:
        ImportError: as `read_audio`; samples at the right rate need no library.
        ValueError: as `read_audio`, or if a dictionary holds no audio.

    Example:
        >>> read_waveform({"array": np.zeros(8000, dtype="float32"), "sampling_rate": 8000}, 16000).shape
        torch.Size([16000])
    """
    if isinstance(audio, dict):
        return _read_dictionary(audio, sampling_rate)
    if isinstance(audio, (str, PathLike, bytes)):
        return read_audio(audio, sampling_rate)
    return audio


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

    def __call__(self, inputs: Any, **options: Any) -> Any:  # type: ignore[override]
        """Embed one recording, a list of them, or a data set.

        Args:
            inputs: One recording as `read_waveform` takes it, or a list, generator or data set of these.
            options: `frames`, whether to return an embedding every 160 ms instead of one; `window_seconds` and
                `overlap_seconds`, see `plan_windows`; `batch_size` and `num_workers`, see `Pipeline`.

        Returns:
            For each recording a float32 array of shape `(hidden_size,)`, or with `frames` a dictionary of
            `embeddings`, `(time patches, hidden_size)`, and `times`, their centres in seconds.

        Raises:
            ImportError: as `read_waveform`.
            ValueError: as `read_waveform`, `plan_windows` and `AudioPGFeatureExtractor`.
        """
        return super().__call__(inputs, **options)

    def _sanitize_parameters(  # type: ignore[override]
        self,
        frames: bool | None = None,
        window_seconds: float | None = None,
        overlap_seconds: float | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        windows = {"window_seconds": window_seconds, "overlap_seconds": overlap_seconds}
        windows = {name: value for name, value in windows.items() if value is not None}
        return windows, {}, windows if frames is None else {**windows, "frames": frames}

    def preprocess(  # type: ignore[override]
        self, audio: Any, **windows: Unpack[WindowOptions]
    ) -> Iterator[dict[str, Any]]:
        """Model inputs of one window after the other."""
        feature_extractor = self.feature_extractor
        waveform = read_waveform(audio, feature_extractor.sampling_rate)
        check_mono(waveform)
        plan = self._plan(len(waveform), **windows)
        for window in plan:
            inputs = feature_extractor(
                waveform[window.start : window.end], sampling_rate=feature_extractor.sampling_rate
            )
            num_samples = torch.tensor([len(waveform)])
            yield {"is_last": window is plan[-1], "num_samples": num_samples, **inputs}

    def _forward(self, inputs: dict[str, Any]) -> dict[str, Any]:  # type: ignore[override]
        outputs = self.model(input_values=inputs["input_values"], attention_mask=inputs["attention_mask"])
        columns = self.model.config.num_mel_patches
        frames = time_patch_means(outputs.last_hidden_state, columns)
        return {"frames": frames, "num_samples": inputs["num_samples"], "is_last": inputs["is_last"]}

    def postprocess(  # type: ignore[override]
        self,
        parts: Sequence[dict[str, Tensor]],
        frames: bool = False,
        **windows: Unpack[WindowOptions],
    ) -> np.ndarray | dict[str, np.ndarray]:
        """Put the windows of one recording together."""
        num_samples = int(parts[0]["num_samples"])
        plan = self._plan(num_samples, **windows)
        embeddings = merge_windows(plan, [part["frames"][0] for part in parts])
        if not frames:
            return embeddings.mean(dim=0).numpy()
        times = patch_times(
            num_samples,
            sampling_rate=self.feature_extractor.sampling_rate,
            patch_size=self.feature_extractor.patch_size,
        )
        return {"embeddings": embeddings.numpy(), "times": times.numpy()}

    def _plan(self, num_samples: int, **windows: Unpack[WindowOptions]) -> list[Window]:
        return plan_windows(
            num_samples,
            sampling_rate=self.feature_extractor.sampling_rate,
            patch_size=self.feature_extractor.patch_size,
            **windows,
        )


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


def _read_dictionary(audio: dict[str, Any], sampling_rate: int) -> np.ndarray | Tensor:
    samples = audio.get("raw") if audio.get("array") is None else audio["array"]
    if samples is not None and "sampling_rate" in audio:
        return _resample(samples, audio["sampling_rate"], sampling_rate)
    file = audio.get("path") if audio.get("bytes") is None else audio["bytes"]
    if samples is None and file is not None:
        return read_waveform(file, sampling_rate)
    raise ValueError(
        'A recording in a dictionary has "array" (or "raw") and "sampling_rate", or else "bytes" or "path", and this '
        f"one has {sorted(audio)}. Add what is missing."
    )


def _resample(samples: Any, from_rate: int, to_rate: int) -> Any:
    if from_rate == to_rate:
        return samples
    waveform = torch.as_tensor(samples)
    check_mono(waveform)
    return resample(waveform.float() if waveform.is_floating_point() else _full_scale(waveform), from_rate, to_rate)


def _full_scale(waveform: Tensor) -> Tensor:
    return waveform.to(torch.float32) / -torch.iinfo(waveform.dtype).min


def _as_array(waveform: Any) -> Any:
    return waveform.numpy(force=True) if isinstance(waveform, Tensor) else waveform


__all__ = ["AudioPGAudioClassificationPipeline", "AudioPGFeatureExtractionPipeline", "read_waveform"]
