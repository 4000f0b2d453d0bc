"""Labelled recordings as one safetensors file of log-mel frames: decoded once, then read without audio libraries.

    waveforms -> frames (all frames of all clips, bands) float16, lengths (clips), labels, fold or split, source

A recording is brought to `clip_seconds`, if any, before its frames are computed. The frames of our front ends are kept
raw, so that one file serves every checkpoint of one front end; `batches.Batches` standardises and pads them. Any other
feature extractor that gives (frames, bands) is asked for its `input_values`, which are kept as they come. Half
precision holds a log-mel to 0.004 at most, a thousandth of its deviation.
"""

import dataclasses
import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import constants
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

import audiopg  # noqa: F401 - registers the feature extractor
from audiopg.modeling.feature_extraction_audiopg import LogMelFeatureExtractor
from audiopg.modeling.spectrogram_audiopg import num_frames
from audiopg.training.runs.files import written_aside

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
        feature_extractor: One of ours, or any that turns a waveform into `(frames, bands)`.
        clip_seconds: Length that waveforms are brought to by `match_length`; None keeps each as long as it is.

    Returns:
        The front end.

    Raises:
        ValueError: if the extractor gives something else than frames.

    Example:
        >>> from audiopg import AudioPGFeatureExtractor
        >>> front_end_of(AudioPGFeatureExtractor()).frames_of(torch.zeros(16000)).shape
        torch.Size([98, 128])
        >>> front_end_of(AudioPGFeatureExtractor(), clip_seconds=10.24).frames_of(torch.zeros(16000)).shape
        torch.Size([1022, 128])
    """
    rate, ours = feature_extractor.sampling_rate, isinstance(feature_extractor, LogMelFeatureExtractor)
    settings: dict[str, Any] = {"version": FRONT_END_VERSION}
    if ours:
        settings |= feature_extractor.front_end
    else:
        kept = {name: value for name, value in feature_extractor.to_dict().items() if name != "_processor_class"}
        settings |= {"name": type(feature_extractor).__name__, "extractor": kept}
    if clip_seconds is not None:
        settings["clip_seconds"] = clip_seconds

    def frames_of(waveform: Tensor) -> Tensor:
        from audiopg.modeling.audio_audiopg import match_length

        if clip_seconds is not None:
            waveform = match_length(waveform, round(clip_seconds * rate))
        if ours:
            return feature_extractor.log_mel(waveform)
        values = feature_extractor(waveform.numpy(), sampling_rate=rate, return_tensors="pt")["input_values"][0]
        if values.ndim != 2:
            raise ValueError(
                f"The front end gives spectrograms, (frames, bands), and {type(feature_extractor).__name__} gives "
                f"{tuple(values.shape)}. Models that read waveforms cannot be used here."
            )
        return values

    return FrontEnd(settings, rate, frames_of)


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
        notes: What results must say of the data: folds that were drawn, clips that were left out.
    """

    dataset_name: str
    class_names: list[str]
    front_end: dict[str, Any]
    clips: list[str]
    parts: list[int | str]
    sources: list[str]
    frames: Tensor
    lengths: Tensor
    labels: Tensor
    digest: str
    notes: str = ""

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def multi_label(self) -> bool:
        """Whether clips may have several labels."""
        return self.labels.ndim == 2

    @property
    def metric(self) -> str:
        """What a classifier is scored by, see `scores.score`."""
        return "macro_average_precision" if self.multi_label else "accuracy"

    @property
    def clip_seconds(self) -> float | None:
        """What recordings were brought to; None if each is as long as it was."""
        return self.front_end.get("clip_seconds")

    @cached_property
    def starts(self) -> Tensor:
        """First frame of each clip, int64, shape `(clips,)`."""
        return self.lengths.cumsum(0) - self.lengths

    def clip_frames(self, index: int) -> Tensor:
        """All frames of a clip, float16, shape `(frames, bands)`."""
        start = int(self.starts[index])
        return self.frames[start : start + int(self.lengths[index])]

    def padded_frames(self, indices: Tensor, length: int) -> Tensor:
        """Frames of clips side by side; what lies behind the end of a clip repeats its last frame.

        Args:
            indices: Of the clips, shape `(batch,)`.
            length: That of the longest of them, or more.

        Returns:
            Float16, shape `(batch, length, bands)`, where the frames are.
        """
        last = self.lengths[indices][:, None] - 1
        positions = self.starts[indices][:, None] + torch.arange(length).minimum(last)
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
        written = json.dumps(texts)
        with written_aside(path) as partial:
            save_file(tensors, partial, {"audiopg": written, "sha256": _digest_of(written, tensors)})

    @classmethod
    def load(cls, path: str | Path) -> "FeatureCache":
        """Open a file that `save` wrote; its frames are mapped from the disk, not read.

        Raises:
            ValueError: if it is another kind of file, or not what was written.
            OSError: if it cannot be read.
        """
        remedy = "Make one: python training/feature_cache.py CHECKPOINT DATA_DIR features.safetensors"
        try:
            with safe_open(str(path), framework="pt") as file:
                known = file.metadata() or {}
                if "audiopg" not in known:
                    raise ValueError(f"{path} is no cache of features. {remedy}")
                tensors = {name: file.get_tensor(name) for name in ("frames", "lengths", "labels")}
            digest = known.get("sha256")  # caches from before have none
            if digest not in (None, _digest_of(known["audiopg"], tensors)):
                raise ValueError(f"{path} is damaged: its content has changed since it was written. {remedy}")
            return cls(**json.loads(known["audiopg"]), **tensors)
        except (SafetensorError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is damaged, or no cache of features ({error}). {remedy}") from error


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
    if path.is_file():
        try:
            return FeatureCache.load(path)
        except ValueError as error:
            logger.warning("%s: it is made again.", error)
    extract_features(dataset, front_end, digest).save(path)
    logger.info("%s: log-mel of %d clips", path, len(dataset))
    return FeatureCache.load(path)


def _digest_of(texts: str, tensors: Mapping[str, Tensor]) -> str:
    """The SHA-256 of all that a cache holds, in hexadecimal digits."""
    digest = hashlib.sha256(texts.encode())
    for name in sorted(tensors):
        digest.update(tensors[name].cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def content_digest(dataset: "Dataset", front_end: FrontEnd) -> str:
    """16 hexadecimal digits that change when a label, a fold, a file's size or time, or the front end does."""
    digest = hashlib.sha256(json.dumps(front_end.settings, sort_keys=True).encode())
    notes = [dataset.info.description] if dataset.info.description else []
    digest.update(json.dumps([dataset.info.dataset_name, str(dataset.features), *notes]).encode())
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
    from audiopg.data_scripts.labelled_audio import class_names_of, is_multi_label, notes_of, parts_of
    from audiopg.modeling.audio_audiopg import AudioFileError, read_waveform

    def attempt(audio: Any) -> Tensor | AudioFileError:
        try:
            waveform = read_waveform(audio, front_end.sampling_rate, _name(audio))
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
        parts=parts_of(dataset),
        sources=list(dataset["source"]),
        frames=torch.cat(frames),
        lengths=torch.tensor([len(clip) for clip in frames]),
        labels=_multi_hot(dataset["labels"], len(class_names))
        if is_multi_label(dataset)
        else torch.tensor(dataset["label"][:]),
        digest=digest,
        notes=notes_of(dataset),
    )


def _identity(audio: Any) -> list[Any]:
    """What tells one content of a file from another without reading it all."""
    if not isinstance(audio, str):
        content = audio["bytes"]
        return _identity(audio["path"]) if content is None else [hashlib.sha256(content).hexdigest()]
    if not Path(audio).exists():  # an address; or a link to nothing, which is for whoever reads it to say
        return [audio]
    status = Path(audio).stat()
    return [Path(audio).name, status.st_size, status.st_mtime_ns]


def _name(audio: Any) -> str:
    return audio if isinstance(audio, str) else str(audio["path"])


def _short_names(names: list[str]) -> list[str]:
    """Paths without the folder that all of them share, if need be two names long: a cache goes to other machines."""
    parents = [os.path.dirname(os.path.abspath(name)) for name in names if os.sep in name]
    shared = os.path.commonpath(parents) if parents else ""
    tells_of_the_machine = shared == os.path.sep

    def short(name: str) -> str:
        if os.sep not in name:
            return name
        return os.path.join(*Path(name).parts[-2:]) if tells_of_the_machine else os.path.relpath(name, shared)

    return [short(name) for name in names]


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
