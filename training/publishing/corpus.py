"""Embeddings of a corpus as Parquet shards: each follows from the job and its number, whoever writes it.

What lies in the folder:

    plan.parquet      which recordings belong to which shard: written first, and never again
    recipe.json       the claim: what was asked for, and the digest of the model
    data/             the shards, each whole from the moment that it has its name
    unreadable.json   the recordings that could not be read, with the reasons, as the shards' metadata name them
"""

import json
import logging
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import AutoFeatureExtractor, AutoModel

import audiopg  # noqa: F401 - registers our classes
from audiopg.data_scripts.audiopg_synthetic import one_thread, shards_of
from audiopg.data_scripts.stored_audio import load_stored
from audiopg.modeling.audio_audiopg import AudioFileError, printable, read_waveform
from audiopg.modeling.embedding_audiopg import OVERLAP_SECONDS, WINDOW_SECONDS, plan_windows
from audiopg.modeling.spectrogram_audiopg import frame_length, hop_length, num_frames
from audiopg.training.features.cache import FRONT_END_VERSION
from audiopg.training.features.embeddings import hears_windows, model_digest
from audiopg.training.objectives.recordings import DatasetRows, FolderOfFiles, is_saved_dataset, saved_dataset
from audiopg.training.publishing.dataset import claim_folder, shard_path
from audiopg.training.runs.engines import answers
from audiopg.training.runs.files import reading, sweep, write_atomically, written_aside
from audiopg.training.runs.folder import held, refuse_foreign
from audiopg.training.runs.names import public_name

logger = logging.getLogger(__name__)

BYTES_PER_SHARD = 2**30
"""Of files: a shard closes at the first recording that would pass it, so that little is lost with one that was not
finished, some hours of sound."""

_ROWS_PER_GROUP = 1024
_BATCHES_AT_ONCE = 4
_MOST_THREADS = 4
_OWN = ("data", "plan.parquet", "unreadable.json")


@dataclass(frozen=True)
class Job:
    """What is embedded, how, by which model.

    Args:
        checkpoint: Folder or Hub name of one of our models.
        source: A folder of audio files or one that `datasets` saved; with `split`, a name for `load_dataset`.
        folder: Where the shards go; created if missing.
        split: Of a data set with a column `audio`.
        unit: What a row is, one of `UNITS`.
        window_seconds: Length of the windows of `windows`.
        overlap_seconds: What neighbouring windows share.
        recordings_per_shard: At most.
        batch_size: Windows at a time in the encoder.
        device: Where to compute.
    """

    checkpoint: str
    source: str
    folder: Path
    split: str | None = None
    unit: str = "clip"
    window_seconds: float = WINDOW_SECONDS
    overlap_seconds: float = OVERLAP_SECONDS
    recordings_per_shard: int = 4096
    batch_size: int = 16
    device: str = "cpu"

    @property
    def key(self) -> str:
        """The column that names a recording: `path` from the folder on, or `id`, the number of a data set's row."""
        return "id" if self.split is not None or is_saved_dataset(Path(self.source)) else "path"


@dataclass(frozen=True)
class Moments:
    """Rows of one recording.

    Args:
        starts: In seconds, shape `(rows,)`.
        ends: In seconds, shape `(rows,)`.
        embeddings: Float32, on the CPU, shape `(rows, width)`.
    """

    starts: Sequence[float]
    ends: Sequence[float]
    embeddings: Tensor


def embed_clips(model: Any, feature_extractor: Any, waveforms: Sequence[Tensor], job: Job) -> list[Moments]:
    """What `model.embed` gives of each recording, from its start to its end."""
    rate = feature_extractor.sampling_rate
    found = model.embed(waveforms, feature_extractor, batch_size=job.batch_size).cpu()
    return [Moments([0.0], [len(clip) / rate], row[None]) for clip, row in zip(waveforms, found, strict=True)]


def embed_windows(model: Any, feature_extractor: Any, waveforms: Sequence[Tensor], job: Job) -> list[Moments]:
    """What `model.embed` gives of the windows of each recording, each for itself, cut as `plan_windows` says."""
    grid = feature_extractor.patch_grid
    options: dict[str, Any] = {"window_seconds": job.window_seconds, "overlap_seconds": job.overlap_seconds}
    plans = [plan_windows(len(clip), **grid, **options) for clip in waveforms]
    pieces = [clip[part.start : part.end] for clip, plan in zip(waveforms, plans, strict=True) for part in plan]
    found = (
        model.embed(pieces, feature_extractor, batch_size=job.batch_size).cpu().split([len(plan) for plan in plans])
    )
    rate = feature_extractor.sampling_rate
    return [
        Moments([part.start / rate for part in plan], [part.end / rate for part in plan], rows)
        for plan, rows in zip(plans, found, strict=True)
    ]


def embed_frames(model: Any, feature_extractor: Any, waveforms: Sequence[Tensor], job: Job) -> list[Moments]:
    """What `model.embed_frames` gives of each recording, each time patch from its first frame to its last."""
    rate, patch_size = feature_extractor.sampling_rate, feature_extractor.patch_grid["patch_size"]
    hop, length = hop_length(rate), frame_length(rate)
    rows = []
    found = model.embed_frames(waveforms, feature_extractor, batch_size=job.batch_size)
    for clip, frames in zip(waveforms, found, strict=True):
        first = np.arange(len(frames.times)) * patch_size
        last = np.minimum(first + patch_size, num_frames(len(clip), rate)) - 1
        rows.append(Moments(first * hop / rate, (last * hop + length) / rate, frames.embeddings.cpu()))
    return rows


UNITS: dict[str, Callable[[Any, Any, Sequence[Tensor], Job], list[Moments]]] = {
    "clip": embed_clips,
    "windows": embed_windows,
    "frames": embed_frames,
}
"""What a row is: a recording, a window of it, or a time patch."""


def plan_shards(
    sizes: Sequence[int], most_recordings: int, most_bytes: int = BYTES_PER_SHARD
) -> list[tuple[int, int]]:
    """Cut a list of recordings into shards.

    Args:
        sizes: Of each recording in bytes.
        most_recordings: Of a shard.
        most_bytes: Of a shard, unless a single recording has more.

    Returns:
        First position and position after the last of every shard.

    Example:
        >>> plan_shards([1, 1, 1, 5, 1], most_recordings=2, most_bytes=4)
        [(0, 2), (2, 3), (3, 4), (4, 5)]
    """
    shards, first, held_bytes = [], 0, 0
    for position, size in enumerate(sizes):
        if position > first and (position - first == most_recordings or held_bytes + size > most_bytes):
            shards.append((first, position))
            first, held_bytes = position, 0
        held_bytes += size
    return [*shards, (first, len(sizes))]


def embed_corpus(job: Job, *, engine: str = "processes", num_proc: int = 1) -> list[dict[str, Any]]:
    """Write the shards that are not there yet, then `unreadable.json`.

    Args:
        job: What, how, where to.
        engine: Who writes, one of `engines.ENGINES`; all workers see source, checkpoint and folder at these paths.
        num_proc: Worker processes, of one thread each if there is more than one, or they are Ray's.

    Returns:
        What each shard tells: `recordings`, `rows`, `seconds` of sound, and `unreadable`, a list of dictionaries.

    Raises:
        ValueError: if the checkpoint is none of ours, the folder belongs to another job, there are no recordings, or
            none of them can be read; all but the last before anything is embedded.
        OSError: if a shard cannot be written; whole shards stay.
    """
    _check(job)
    job = _for_any_process(job)
    with held(job.folder):
        plan = _claim(job)
        (job.folder / "data").mkdir(exist_ok=True)
        sweep(job.folder)
        sweep(job.folder / "data")
        told = {number: shard for number in range(len(plan)) if (shard := read_told(_path(job, number, len(plan))))}
        missing = [number for number in range(len(plan)) if number not in told]
        _check_sources(job, plan, missing)
        for number, shard in _written(job, plan, missing, engine, num_proc):
            told[number] = shard
        shards = [told[number] for number in range(len(plan))]
        unreadable = [one for shard in shards for one in shard["unreadable"]]
        write_atomically(job.folder / "unreadable.json", json.dumps(unreadable, indent=2, ensure_ascii=False) + "\n")
    if len(unreadable) == plan[-1]["end"]:
        raise ValueError(f"None of {len(unreadable)} recordings could be read: see {job.folder / 'unreadable.json'}.")
    return shards


def read_told(path: Path) -> dict[str, Any] | None:
    """What a shard tells of itself in its metadata, or None where there is none that is whole."""
    if not path.exists():
        return None
    try:
        known = pq.read_metadata(path).metadata or {}
    except pa.ArrowInvalid:
        return None
    return json.loads(known[b"audiopg"]) if b"audiopg" in known else None


def write_shard(job: Job, number: int, tick: Callable[[int], object] = lambda count: None) -> dict[str, Any]:
    """Write one shard of a job that is claimed.

    Args:
        job: Whose folder has a plan.
        number: Of the shard.
        tick: Told how many recordings were done since it was told last.

    Returns:
        As `embed_corpus` for each shard.

    Raises:
        OSError: if it cannot be written; nothing of it is left then.
    """
    plan = _read_plan(job.folder)
    model, feature_extractor, digest = _loaded(job.checkpoint, job.device)
    embed, rate = UNITS[job.unit], feature_extractor.sampling_rate
    width = embed(model, feature_extractor, [torch.zeros(rate)], job)[0].embeddings.shape[1]
    schema = _schema(job.key, width)
    told: dict[str, Any] = {"model": digest, "recordings": 0, "rows": 0, "seconds": 0.0, "unreadable": []}

    def tables() -> Iterator[pa.Table]:
        readable = _readable(_recordings(job, plan[number]), rate, told, job.key, tick)
        for group in _groups(readable, job.batch_size * _BATCHES_AT_ONCE, round(WINDOW_SECONDS * rate)):
            found = embed(model, feature_extractor, [waveform for _, waveform in group], job)
            for (name, waveform), rows in zip(group, found, strict=True):
                told["seconds"] += len(waveform) / rate
                yield _table(schema, name, rows, digest)
            tick(len(group))

    path = _path(job, number, len(plan))
    with (
        written_aside(path) as partial_path,
        pq.ParquetWriter(
            partial_path, schema, use_dictionary=[job.key, "model"], write_statistics=[job.key, "start", "end"]
        ) as writer,
    ):
        for table in _gathered(tables()):
            told["rows"] += len(table)
            writer.write_table(table, row_group_size=_ROWS_PER_GROUP)
        told["recordings"] = plan[number]["end"] - plan[number]["first"]
        writer.add_key_value_metadata({"audiopg": json.dumps(told, ensure_ascii=False)})
    return told


def _check(job: Job) -> None:
    """Refuse, before anything is read, what no job can have."""
    if job.unit not in UNITS:
        raise ValueError(f"unit is one of {', '.join(UNITS)}, got {job.unit!r}.")
    for name in ("recordings_per_shard", "batch_size"):
        if getattr(job, name) < 1:
            raise ValueError(f"{name} is 1 or more, got {getattr(job, name)}.")
    for name in ("window_seconds", "overlap_seconds"):
        if job.unit != "windows" and getattr(job, name) != getattr(Job, name):
            raise ValueError(f"{name} is of the unit windows, and the unit is {job.unit}: leave one out.")
    if job.split is None and not Path(job.source).is_dir():
        raise ValueError(
            f"{job.source} is no folder of this machine. Check the path; of a data set, on the Hub or in a folder of "
            "Parquet, also name the split (--split train)."
        )


def _for_any_process(job: Job) -> Job:
    """The same with paths that do not depend on where a process was started."""

    def placed(name: str) -> str:
        return os.path.abspath(name) if Path(name).exists() else name

    return replace(
        job, checkpoint=placed(job.checkpoint), source=placed(job.source), folder=Path(os.path.abspath(job.folder))
    )


def _source(job: Job) -> FolderOfFiles | DatasetRows:
    if job.split is not None:
        return _dataset_rows(job.source, job.split)
    folder = Path(job.source)
    return _dataset_rows(job.source, None) if is_saved_dataset(folder) else FolderOfFiles(folder)


@lru_cache(maxsize=1)
def _dataset_rows(source: str, split: str | None) -> DatasetRows:
    if split is None:
        return saved_dataset(Path(source))
    rows = load_stored(source, split=split)
    size = rows.info.splits[split].num_bytes if rows.info.splits and split in rows.info.splits else None
    return DatasetRows(rows, source, f"{len(rows)} rows of {size} bytes")


@lru_cache(maxsize=2)  # to claim with, and to compute with
def _loaded(checkpoint: str, device: str) -> tuple[Any, Any, str]:
    """Model, feature extractor, digest: a worker loads them once."""
    with reading(checkpoint):
        feature_extractor = AutoFeatureExtractor.from_pretrained(checkpoint)
        model = AutoModel.from_pretrained(checkpoint)
    if not hears_windows(model):
        raise ValueError(
            f"{checkpoint} is a {type(model).__name__}; a corpus is embedded by our own models, which have `embed`."
        )
    return model.to(device).eval(), feature_extractor, model_digest(model, feature_extractor)


def _claim(job: Job) -> list[dict[str, Any]]:
    """The plan of the folder, made where there is none; the folder is refused to any other job."""
    _, feature_extractor, digest = _loaded(job.checkpoint, "cpu")  # who claims may have no GPU, as a cluster's head
    windows: dict[str, Any] = {"window_seconds": job.window_seconds, "overlap_seconds": job.overlap_seconds}
    if job.unit == "windows":
        plan_windows(10 * feature_extractor.sampling_rate, **feature_extractor.patch_grid, **windows)  # refuses
    asked = {
        "model": digest,
        "checkpoint": public_name(job.checkpoint),
        "front_end_version": FRONT_END_VERSION,
        "source": public_name(job.source),
        "split": job.split,
        "unit": job.unit,
        **(windows if job.unit == "windows" else {}),
        "recordings_per_shard": job.recordings_per_shard,
    }
    if not (job.folder / "recipe.json").exists() and not list((job.folder / "data").glob("*.parquet")):
        refuse_foreign(job.folder, _OWN, "embeddings")
        _write_plan(job)
    claim_folder(job.folder, asked, _OWN)
    return _read_plan(job.folder)


def _write_plan(job: Job) -> None:
    source = _source(job)
    if isinstance(source, FolderOfFiles):
        names = _names(source, job)
        shards = plan_shards([_size(path) for path in source.paths], job.recordings_per_shard)
        paths: list[list[bytes] | None] = [names[first:end] for first, end in shards]
    else:
        shards = shards_of(len(source), job.recordings_per_shard)
        paths = [None] * len(shards)
    rows = [{"first": first, "end": end, "paths": part} for (first, end), part in zip(shards, paths, strict=True)]
    table = pa.Table.from_pylist(rows, _PLAN.with_metadata({"digest": source.digest}))
    with written_aside(job.folder / "plan.parquet") as partial_path:
        pq.write_table(table, partial_path)


_PLAN = pa.schema({"first": pa.int64(), "end": pa.int64(), "paths": pa.list_(pa.binary())})
"""A row for each shard; names of files need not be UTF-8, and rows of data sets have none."""


@lru_cache(maxsize=1)
def _plan_at(folder: Path, changed: int) -> list[dict[str, Any]]:
    return pq.read_table(folder / "plan.parquet").to_pylist()


def _read_plan(folder: Path) -> list[dict[str, Any]]:
    path = folder / "plan.parquet"
    try:
        return _plan_at(folder, path.stat().st_mtime_ns)
    except (OSError, pa.ArrowInvalid) as error:
        raise ValueError(
            f"{path} says which recordings belong to which shard, and cannot be read ({error}). Restore it, or choose "
            "another folder."
        ) from error


def _check_sources(job: Job, plan: Sequence[dict[str, Any]], missing: Sequence[int]) -> None:
    """Refuse a source that lacks what is still to be embedded; say what came to it since the plan was made."""
    if not missing and job.key == "id":
        return
    source = _source(job)
    if isinstance(source, DatasetRows):
        known = pq.read_schema(job.folder / "plan.parquet").metadata[b"digest"].decode()
        if source.digest != known:
            raise ValueError(
                f"{job.source} has changed since {job.folder} was begun ({known} there, {source.digest} now); embed "
                "it into another folder."
            )
        return
    listed, planned = set(_names(source, job)), {name for shard in plan for name in shard["paths"]}
    gone = [name for number in missing for name in plan[number]["paths"] if name not in listed]
    if gone:
        raise ValueError(
            f"{len(gone)} recordings of the plan of {job.folder} are not in {job.source}, the first "
            f"{printable(os.fsdecode(gone[0]))}. Give the folder that it was begun with, or embed into another one."
        )
    if new := len(listed - planned):
        logger.warning(
            "%d recordings came to %s after the plan of %s was made and are not in it: embed them into another one.",
            new,
            job.source,
            job.folder,
        )


def _names(files: FolderOfFiles, job: Job) -> list[bytes]:
    return [os.fsencode(path.relative_to(job.source).as_posix()) for path in files.paths]


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _path(job: Job, number: int, num_shards: int) -> Path:
    return shard_path(job.folder, number, num_shards)


def _written(
    job: Job, plan: Sequence[dict[str, Any]], missing: Sequence[int], engine: str, num_proc: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Have shards written, by whomever, and tell of each as it is done."""
    total = plan[-1]["end"]
    done = total - sum(plan[number]["end"] - plan[number]["first"] for number in missing)
    started, seconds = time.monotonic(), 0.0
    with tqdm(total=total, initial=done, desc=job.folder.name, unit="recording", disable=None) as bar:
        is_here = engine == "processes" and num_proc == 1
        write = partial(_write_here, job, bar.update) if is_here else partial(_write_alone, job)
        for number, told in answers(
            write, missing, engine=engine, num_proc=num_proc, num_gpus=float(job.device != "cpu")
        ):
            if not is_here:
                bar.update(told["recordings"])
            seconds += told["seconds"]
            bar.set_postfix_str(f"{seconds / (time.monotonic() - started):.0f} s of sound a second")
            for one in told["unreadable"]:
                bar.write(f"Left out: {one['reason']}", file=sys.stderr)
            yield number, told


def _write_here(job: Job, tick: Callable[[int], object], number: int) -> tuple[int, dict[str, Any]]:
    return number, write_shard(job, number, tick)


def _write_alone(job: Job, number: int) -> tuple[int, dict[str, Any]]:
    with one_thread():
        return number, write_shard(job, number)


def _recordings(job: Job, shard: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    """The name of each recording of a shard, as in its rows, and what `read_waveform` takes."""
    if shard["paths"] is not None:
        for name in map(os.fsdecode, shard["paths"]):
            yield printable(name), Path(job.source) / name
    else:
        rows = _dataset_rows(job.source, job.split)
        for position in range(shard["first"], shard["end"]):
            yield position, rows[position][1]


def _readable(
    recordings: Iterable[tuple[Any, Any]], rate: int, told: dict[str, Any], key: str, tick: Callable[[int], object]
) -> Iterator[tuple[Any, Tensor]]:
    """Waveforms of recordings, decoded by threads some recordings ahead; what cannot be read is told."""
    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
        waiting: deque[tuple[Any, Any, Future[Tensor]]] = deque()

        def first() -> Iterator[tuple[Any, Tensor]]:
            name, content, future = waiting.popleft()
            try:
                yield name, future.result()
            except (AudioFileError, OSError) as error:
                reason = str(error)
                if isinstance(content, Path):  # as the rows call it, without where this machine keeps it
                    reason = reason.replace(printable(str(content)), name)
                told["unreadable"].append({key: name, "reason": reason})
                tick(1)

        for name, content in recordings:
            waiting.append((name, content, pool.submit(_read, content, rate, f"row {name}")))
            if len(waiting) > _MOST_THREADS:
                yield from first()
        while waiting:
            yield from first()


def _read(content: Any, rate: int, name: str) -> Tensor:
    waveform = read_waveform(content, rate, name)
    if num_frames(len(waveform), rate) < 1:
        called = str(content) if isinstance(content, Path) else name
        raise AudioFileError(called, "it is shorter than 25 ms", "Leave it out, or pad it if it is a real sound.")
    return waveform


def _groups(
    recordings: Iterable[tuple[Any, Tensor]], most: int, samples_each: int
) -> Iterator[list[tuple[Any, Tensor]]]:
    """Recordings that are embedded together: some whole batches of windows."""
    group: list[tuple[Any, Tensor]] = []
    for recording in recordings:
        group.append(recording)
        if len(group) == most or sum(len(waveform) for _, waveform in group) >= most * samples_each:
            yield group
            group = []
    if group:
        yield group


def _schema(key: str, width: int) -> pa.Schema:
    names = {key: pa.string() if key == "path" else pa.int64(), "start": pa.float64(), "end": pa.float64()}
    return pa.schema({**names, "embedding": pa.list_(pa.float32(), width), "model": pa.string()})


def _table(schema: pa.Schema, name: Any, rows: Moments, digest: str) -> pa.Table:
    count = len(rows.embeddings)
    values = pa.array(rows.embeddings.contiguous().numpy().ravel())
    vectors = pa.FixedSizeListArray.from_arrays(values, rows.embeddings.shape[1])
    columns = [[name] * count, rows.starts, rows.ends, vectors, [digest] * count]
    return pa.Table.from_arrays(
        [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
    )


def _gathered(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Tables of `_ROWS_PER_GROUP` rows or more, but for the last."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        if sum(map(len, waiting)) >= _ROWS_PER_GROUP:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)
