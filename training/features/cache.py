"""Labelled recordings as one safetensors file of log-mel frames: decoded once, then read without audio libraries.

    waveforms -> frames (all frames of all clips, bands) float16, lengths (clips), labels, fold or split, source

    python training/feature_cache.py CHECKPOINT DATA_DIR features.safetensors

The frames of AudioPG's front end are kept raw and at their native length, so that one file serves every checkpoint and
every length; a checkpoint's standardisation, and the crop or repetition to a length, happen when a batch is made. Any
other feature extractor that gives (frames, bands) is asked for its `input_values`, which are kept as they come.
"""

import dataclasses
import hashlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import constants
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

import audiopg  # noqa: F401 - registers the feature extractor
from audiopg.modeling.feature_extraction_audiopg import AudioPGFeatureExtractor
from audiopg.modeling.spectrogram_audiopg import HOP_LENGTH_SECONDS, log_mel_spectrogram, num_frames

if TYPE_CHECKING:  # a machine that reads a cache may have neither
    from datasets import Dataset

logger = logging.getLogger(__name__)

FRONT_END_VERSION = 1
"""To be raised when decoding, resampling or the log-mel gives other values: caches of before are then made anew."""

CACHE_FOLDER = Path(constants.HF_HOME) / "audiopg" / "features"

_MOST_THREADS = 8


@dataclass(frozen=True)
class FrontEnd:
    """How waveforms become frames.

    Args:
        settings: All that the frames depend on; part of the cache's key.
        sampling_rate: Of the waveforms, in Hz.
        frames_of: A waveform `(samples,)` to frames `(frames, bands)`.
    """

    settings: dict[str, Any]
    sampling_rate: int
    frames_of: Callable[[Tensor], Tensor]


def front_end_of(feature_extractor: Any, clip_seconds: float | None = None) -> FrontEnd:
    """The front end of a feature extractor.

    Args:
        feature_extractor: An `AudioPGFeatureExtractor`, or any that turns a waveform into `(frames, bands)`.
        clip_seconds: Length that waveforms are matched to; only for extractors that are not ours, whose frames cannot
            be cropped or repeated afterwards.

    Returns:
        The front end.

    Raises:
        ValueError: if the extractor gives something else than frames.

    Example:
        >>> front_end_of(AudioPGFeatureExtractor()).frames_of(torch.zeros(16000)).shape
        torch.Size([98, 128])
    """
    rate = feature_extractor.sampling_rate
    if isinstance(feature_extractor, AudioPGFeatureExtractor):
        options: dict[str, Any] = {
            "num_mel_bins": feature_extractor.num_mel_bins,
            "window": feature_extractor.window,
        }
        settings = {"name": "audiopg", "version": FRONT_END_VERSION, "sampling_rate": rate, **options}
        return FrontEnd(settings, rate, lambda waveform: log_mel_spectrogram(waveform, sampling_rate=rate, **options))

    def frames_of(waveform: Tensor) -> Tensor:
        from audiopg.modeling.audio_audiopg import match_length

        if clip_seconds is not None:
            waveform = match_length(waveform, round(clip_seconds * rate))
        values = feature_extractor(waveform.numpy(), sampling_rate=rate, return_tensors="pt")["input_values"][0]
        if values.ndim != 2:
            raise ValueError(
                f"The front end gives spectrograms, (frames, bands), and {type(feature_extractor).__name__} gives "
                f"{tuple(values.shape)}. Models that read waveforms cannot be fine-tuned here."
            )
        return values

    kept = {name: value for name, value in feature_extractor.to_dict().items() if name != "_processor_class"}
    settings = {"name": type(feature_extractor).__name__, "clip_seconds": clip_seconds, "version": FRONT_END_VERSION}
    return FrontEnd({**settings, "extractor": kept}, rate, frames_of)


@dataclass(frozen=True)
class FeatureCache:
    """Frames and labels of a data set, in memory or mapped from a file.

    Args:
        dataset_name: As the loader of the data set names it.
        class_names: In the order of the labels.
        front_end: The settings that the frames were made with.
        clips: The file of each clip, from the data set's folder on.
        parts: Fold (a whole number) or split (`train`, `validation`, `test`) of each clip.
        sources: What each clip was cut from.
        frames: Frames of all clips, one after another, float16, shape `(all frames, bands)`.
        lengths: Frames of each clip, int64, shape `(clips,)`.
        labels: Class of each clip, int64, shape `(clips,)`; or zeros and ones, float32, shape `(clips, classes)`.
        digest: Of the front end and the content, as in the file's name.
    """

    dataset_name: str
    class_names: list[str]
    front_end: dict[str, Any]
    clips: list[str]
    parts: list[int] | list[str]
    sources: list[str]
    frames: Tensor
    lengths: Tensor
    labels: Tensor
    digest: str

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def multi_label(self) -> bool:
        """Whether clips may have several labels."""
        return self.labels.ndim == 2

    @cached_property
    def starts(self) -> Tensor:
        """First frame of each clip, int64, shape `(clips,)`."""
        return self.lengths.cumsum(0) - self.lengths

    def clip_frames(self, index: int) -> Tensor:
        """All frames of a clip, float16, shape `(frames, bands)`."""
        start = int(self.starts[index])
        return self.frames[start : start + int(self.lengths[index])]

    def matched_frames(self, indices: Tensor, length: int) -> Tensor:
        """Frames of clips, each brought to one length as `match_length` does with waveforms (AudioPG).

        Args:
            indices: Of the clips, shape `(batch,)`.
            length: The middle of a longer clip is taken, a shorter one repeated from its start.

        Returns:
            Float16, shape `(batch, length, bands)`, where the frames are.
        """
        own = self.lengths[indices][:, None]
        first = ((own - length) // 2).clamp(min=0)
        positions = self.starts[indices][:, None] + (first + torch.arange(length)) % own
        return self.frames[positions.to(self.frames.device)]

    def to(self, device: str) -> "FeatureCache":
        """The same with its frames on a device, so that batches are made there."""
        return dataclasses.replace(self, frames=self.frames.to(device))

    def save(self, path: Path) -> None:
        """Write it, so that a file of this name is always whole."""
        path.parent.mkdir(parents=True, exist_ok=True)
        texts = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if not isinstance(getattr(self, field.name), Tensor)
        }
        tensors = {name: getattr(self, name) for name in ("frames", "lengths", "labels")}
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        save_file(tensors, partial, {"audiopg": json.dumps(texts)})
        partial.replace(path)

    @classmethod
    def load(cls, path: str | Path) -> "FeatureCache":
        """Open a file that `save` wrote; its frames are mapped from the disk, not read.

        Raises:
            ValueError: if it is another kind of file.
        """
        with safe_open(str(path), framework="pt") as file:
            texts = (file.metadata() or {}).get("audiopg")
            if texts is None:
                raise ValueError(
                    f"{path} is no cache of features. Make one: python training/feature_cache.py CHECKPOINT DATA_DIR "
                    "features.safetensors"
                )
            return cls(
                **json.loads(texts), **{name: file.get_tensor(name) for name in ("frames", "lengths", "labels")}
            )


def cached_features(
    dataset: "Dataset", feature_extractor: Any, *, clip_seconds: float | None = None, folder: Path | None = None
) -> FeatureCache:
    """The features of a data set, from a file if its content and the front end have not changed since.

    Args:
        dataset: As from `audiopg.data_scripts`, with paths or encoded bytes in `audio`.
        feature_extractor: Of the checkpoint.
        clip_seconds: As for `front_end_of`.
        folder: Where the files are; by default `CACHE_FOLDER`, beside what the Hugging Face libraries keep.

    Returns:
        The features.

    Raises:
        AudioFileError: if any recording cannot be used; all such are listed.
    """
    front_end = front_end_of(feature_extractor, clip_seconds)
    digest = content_digest(dataset, front_end)
    name = "".join(c if c.isalnum() else "_" for c in dataset.info.dataset_name or "recordings").lower()
    path = (folder or CACHE_FOLDER) / f"{name}-{digest}.safetensors"
    if not path.is_file():
        extract_features(dataset, front_end, digest).save(path)
        logger.info("%s: log-mel of %d clips", path, len(dataset))
    return FeatureCache.load(path)


def content_digest(dataset: "Dataset", front_end: FrontEnd) -> str:
    """16 hexadecimal digits that change when a label, a fold, a file's size or time, or the front end does."""
    digest = hashlib.sha256(json.dumps(front_end.settings, sort_keys=True).encode())
    digest.update(json.dumps([dataset.info.dataset_name, str(dataset.features)]).encode())
    for row in dataset:
        columns: dict[str, Any] = dict(row)
        audio = columns.pop("audio")
        digest.update(json.dumps([_identity(audio), *columns.values()]).encode())
    return digest.hexdigest()[:16]


def extract_features(dataset: "Dataset", front_end: FrontEnd, digest: str = "") -> FeatureCache:
    """Decode every clip and compute its frames, on threads.

    Args:
        dataset: As for `cached_features`.
        front_end: How waveforms become frames.
        digest: Is kept with the features.

    Returns:
        The features, in memory.

    Raises:
        AudioFileError: if any recording cannot be used; all such are listed.
    """
    from audiopg.data_scripts.labelled_audio import class_names_of, is_multi_label, parts_of
    from audiopg.modeling.audio_audiopg import AudioFileError, read_audio

    def attempt(audio: Any) -> Tensor | AudioFileError:
        try:
            waveform = read_audio(_path_or_bytes(audio), front_end.sampling_rate)
            if num_frames(len(waveform), front_end.sampling_rate) < 1:
                raise AudioFileError(_name(audio), "it is shorter than 25 ms", "Leave it out.")
            return front_end.frames_of(waveform).half()
        except AudioFileError as error:
            return error

    rows = list(dataset["audio"])
    with ThreadPoolExecutor(max_workers=min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
        progress = tqdm(pool.map(attempt, rows), total=len(rows), desc="Log-mel", unit="clip", disable=None)
        results = list(progress)
    _refuse_failures([result for result in results if isinstance(result, AudioFileError)], len(rows))
    frames = [result for result in results if isinstance(result, Tensor)]
    class_names = class_names_of(dataset)
    return FeatureCache(
        dataset_name=dataset.info.dataset_name or "recordings",
        class_names=class_names,
        front_end=front_end.settings,
        clips=_short_names([_name(audio) for audio in rows]),
        parts=parts_of(dataset),  # type: ignore[arg-type]
        sources=list(dataset["source"]),
        frames=torch.cat(frames),
        lengths=torch.tensor([len(clip) for clip in frames]),
        labels=_multi_hot(dataset["labels"], len(class_names))
        if is_multi_label(dataset)
        else torch.tensor(dataset["label"][:]),
        digest=digest,
    )


class Batches:
    """Model inputs of clips of a cache, for one checkpoint and one length.

    Args:
        cache: The features.
        feature_extractor: Of the checkpoint.
        clip_seconds: Length that clips are matched to, in whole patches; None keeps each as long as it is and pads to
            the longest of the batch, with a mask.

    Raises:
        ValueError: if the cache was made with another front end, or by one that is not ours at several lengths.

    Example:
        >>> cache = FeatureCache(
        ...     "x", ["a"], front_end_of(AudioPGFeatureExtractor()).settings, ["0", "1"], [1, 2], ["0", "1"],
        ...     torch.zeros(130, 128).half(), torch.tensor([100, 30]), torch.tensor([0, 0]), "",
        ... )
        >>> batch = Batches(cache, AudioPGFeatureExtractor(), clip_seconds=None)([0, 1])
        >>> batch["input_values"].shape, batch["attention_mask"].sum(dim=1)
        (torch.Size([2, 112, 128]), tensor([100,  30]))
    """

    def __init__(self, cache: FeatureCache, feature_extractor: Any, clip_seconds: float | None) -> None:
        expected = json.loads(json.dumps(front_end_of(feature_extractor, clip_seconds).settings))
        if cache.front_end != expected:
            raise ValueError(
                f"The features of {cache.dataset_name} were made with {cache.front_end}, and this checkpoint and "
                f"length need {expected}. Make them with this checkpoint."
            )
        self.cache = cache
        self.is_ours = isinstance(feature_extractor, AudioPGFeatureExtractor)
        if not self.is_ours and len(cache.lengths.unique()) > 1:
            raise ValueError(
                f"Clips of {type(feature_extractor).__name__} are stacked, so they have one length, and those of "
                f"{cache.dataset_name} have several. Set clip_seconds."
            )
        self.feature_extractor = feature_extractor
        self.length = _whole_patches(clip_seconds, feature_extractor) if self.is_ours and clip_seconds else None

    def __call__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """`input_values` in float16 (see `finish`), `labels`, and `attention_mask` where it hides anything."""
        chosen = torch.as_tensor(indices)
        lengths, length = self.cache.lengths[chosen], self.length
        batch = {"labels": self.cache.labels[chosen]}
        if not self.is_ours:
            length = int(lengths[0])
        if length is not None:
            return {"input_values": self.cache.matched_frames(chosen, length), **batch}
        extractor, longest = self.feature_extractor, int(lengths.max())
        is_real = torch.arange(longest + -longest % extractor.patch_size) < lengths[:, None]
        values = self.cache.matched_frames(chosen, is_real.shape[1])
        # What standardisation will turn into the extractor's own padding.
        silence = extractor.padding_value * 2.0 * extractor.std + extractor.mean
        values = values.masked_fill(~is_real[:, :, None].to(values.device), silence)
        # A mask that hides no patch changes nothing, and keeps attention from its fast kernels.
        if (lengths <= is_real.shape[1] - extractor.patch_size).any():
            batch["attention_mask"] = is_real.long()
        return {"input_values": values, **batch}

    def finish(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The same batch, on whatever device it is by now, in float32 and standardised."""
        values = batch["input_values"].float()
        if self.is_ours:
            values = (values - self.feature_extractor.mean) / (2.0 * self.feature_extractor.std)
        return {**batch, "input_values": values}


def _whole_patches(seconds: float, feature_extractor: AudioPGFeatureExtractor) -> int:
    """Frames of a length, rounded up to whole patches: 10.24 s are 1024, every one of them real."""
    return -(-round(seconds / HOP_LENGTH_SECONDS) // feature_extractor.patch_size) * feature_extractor.patch_size


def _identity(audio: Any) -> list[Any]:
    """What tells one content of a file from another without reading it all."""
    if isinstance(audio, str):
        status = Path(audio).stat()
        return [Path(audio).name, status.st_size, status.st_mtime_ns]
    content = audio["bytes"]
    return _identity(audio["path"]) if content is None else [hashlib.sha256(content).hexdigest()]


def _path_or_bytes(audio: Any) -> str | bytes:
    return audio if isinstance(audio, str) else audio["bytes"] or audio["path"]


def _name(audio: Any) -> str:
    return audio if isinstance(audio, str) else str(audio["path"])


def _short_names(names: list[str]) -> list[str]:
    """Paths without the folder that all of them share: a cache goes to other machines."""
    parents = [str(Path(name).parent) for name in names]
    shared = os.path.commonpath(parents) if all(Path(name).is_absolute() for name in names) else ""
    return [os.path.relpath(name, shared) if shared else name for name in names]


def _multi_hot(labels: Sequence[Sequence[int]], num_classes: int) -> Tensor:
    rows = torch.zeros(len(labels), num_classes)
    for row, present in zip(rows, labels, strict=True):
        row[list(present)] = 1
    return rows


def _refuse_failures(failures: Sequence[Exception], total: int) -> None:
    from audiopg.modeling.audio_audiopg import AudioFileError

    if failures:
        listing = "\n".join(f"  {failure}" for failure in failures)
        raise AudioFileError(
            f"{len(failures)} of {total} recordings", "see the list", f"Replace them or leave them out.\n{listing}"
        )
