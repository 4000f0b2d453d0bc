"""Unlabelled recordings as a source: the same engine on real audio, for adaptation and for comparison.

A clip is a function of (seed, index, content of the folder): passes over the folder follow each other, each in an
order of its own, and every clip is cut at a place of its own.
"""

import hashlib
import logging
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audiopg.data_scripts.counter_random import uniform
from audiopg.data_scripts.recorded_files import AUDIO_SUFFIXES, recordings_below
from audiopg.modeling.audio_audiopg import AudioFileError, match_length, printable, read_waveform
from audiopg.training.objectives.recipe import RecordingsRecipe

logger = logging.getLogger(__name__)

_MOST_THREADS = 8
_ROWS_KEPT = 256


class FolderOfFiles:
    """Every audio file below a folder, in the order of their paths.

    Args:
        folder: Where to look, at any depth.

    Raises:
        ValueError: if there is none.
    """

    def __init__(self, folder: Path) -> None:
        self.paths = recordings_below(folder)
        if not self.paths:
            raise ValueError(f"Recordings are files ending in {', '.join(AUDIO_SUFFIXES)}; found none below {folder}.")
        listing = "\n".join(f"{path.relative_to(folder).as_posix()} {_size(path)}" for path in self.paths)
        self.digest = hashlib.sha256(os.fsencode(listing)).hexdigest()[:16]  # names need not be UTF-8

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, position: int) -> tuple[str, Any]:
        """What the recording is called, and what `read_waveform` takes."""
        return str(self.paths[position]), self.paths[position]


class DatasetRows:
    """The column `audio` of a data set whose rows are on this machine; decoded here, without FFmpeg.

    Args:
        rows: Of `datasets`.
        name: What errors call it.
        digest: Changes when its content does.

    Raises:
        ValueError: if it has no column `audio`.
    """

    def __init__(self, rows: Any, name: str | Path, digest: str) -> None:
        from audiopg.data_scripts.stored_audio import StoredAudio  # only for those who have such rows

        if "audio" not in rows.column_names:
            raise ValueError(f"{name} needs a column `audio`, and has {rows.column_names}; rename it.")
        self.rows = rows.select_columns("audio").cast_column("audio", StoredAudio())
        self.digest = digest

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> tuple[str, Any]:
        """As of `FolderOfFiles`; of a row without audio it is None."""
        return _named_row(position, self.rows[position]["audio"])


def saved_dataset(folder: Path) -> DatasetRows:
    """A data set that `datasets` saved with `save_to_disk`.

    Args:
        folder: As given to `save_to_disk`.

    Raises:
        ValueError: if it has several splits, or as `DatasetRows`.
    """
    import datasets  # only for those who have such a folder

    if (folder / "dataset_dict.json").is_file():
        raise ValueError(f"{folder} holds several splits; name one of them, such as {folder / 'train'}.")
    digest = hashlib.sha256((folder / "state.json").read_bytes()).hexdigest()[:16]
    return DatasetRows(datasets.load_from_disk(str(folder)), folder, digest)


def is_saved_dataset(folder: Path) -> bool:
    """Whether `datasets` saved a data set there, or several splits."""
    return (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file()


class StreamedDataset:
    """The rows of a data set in their own order, pass after pass, read from the Hub or a disk as they are wanted.

    They may be files, archives of files, or Parquet.

    Rows are asked for nearly in order; the last few are kept, and a row from before those begins the stream anew.

    Args:
        name: As for `datasets.load_dataset`.
        split: As there.

    Raises:
        ValueError: if it has no column `audio`.
    """

    def __init__(self, name: str, split: str) -> None:
        from audiopg.data_scripts.stored_audio import StoredAudio, load_stored  # only for those who stream

        rows = load_stored(name, split=split, streaming=True)
        columns = list(rows.features or next(iter(rows), {}))
        if "audio" not in columns:
            raise ValueError(f"{name} needs a column `audio`, and has {columns}; rename it.")
        self.name = name
        self.rows = rows.select_columns("audio").cast_column("audio", StoredAudio())
        self.digest = hashlib.sha256(f"{name} {split}".encode()).hexdigest()[:16]
        self._lock = threading.Lock()
        self._rewind()

    def _rewind(self) -> None:
        self._kept: dict[int, dict[str, Any]] = {}
        self._next = 0
        self._stream = self._passes()

    def _passes(self) -> Iterator[dict[str, Any]]:
        while True:
            is_empty = True
            for row in self.rows:
                is_empty = False
                yield row["audio"]
            if is_empty:
                raise ValueError(f"{self.name} has no rows; name a data set that has some.")

    def __getitem__(self, position: int) -> tuple[str, Any]:
        """As of `DatasetRows`."""
        with self._lock:
            if position < self._next and position not in self._kept:
                self._rewind()
            while self._next <= position:
                self._kept[self._next] = next(self._stream)
                self._kept.pop(self._next - _ROWS_KEPT, None)
                self._next += 1
            audio = self._kept[position]
        return _named_row(position, audio)


class Recordings:
    """A source of clips of recordings by index, decoded by threads.

    A file that cannot be read is named in the log, counted, and its place taken by the next file of that pass. A data
    set that is streamed is taken in its own order, which nobody can know the end of; any other in a new one each pass.

    Args:
        recipe: Which recordings, and how clips are cut.
        seed: Of the order and of the places that clips are cut at.

    Raises:
        ValueError: if there are no recordings.
    """

    def __init__(self, recipe: RecordingsRecipe, seed: int) -> None:
        self.recipe, self.seed = recipe, seed
        self.files = _open(recipe)
        self.num_files = None if isinstance(self.files, StreamedDataset) else len(self.files)
        self.unreadable: dict[int, AudioFileError] = {}
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(max_workers=min(_MOST_THREADS, os.cpu_count() or 1))
        self._order = lru_cache(maxsize=2)(self._new_order)

    def draw(self, indices: Tensor) -> Tensor:
        """The clips `indices`, float32, shape `(batch, samples)`, on the CPU.

        Raises:
            AudioFileError: if more files cannot be read than the recipe allows; it lists them.
        """
        return torch.stack(list(self._pool.map(self.clip, indices.tolist())))

    def waveforms(self, drawn: Tensor, device: torch.device | str = "cpu") -> Tensor:
        """Clips on a device, from what `draw` gave, or from their indices.

        Raises:
            AudioFileError: as `draw`, which indices are given to.
        """
        if not drawn.is_floating_point():
            drawn = self.draw(drawn)
        if torch.device(device).type == "cuda":
            return drawn.pin_memory().to(device, non_blocking=True)
        return drawn.to(device)

    def clip(self, index: int) -> Tensor:
        """One clip, shape `(samples,)`: cropped at random, or repeated if the recording is shorter.

        Raises:
            AudioFileError: as `draw`.
        """
        for position in self._positions(index):
            waveform = self._read(position)
            if waveform is not None:
                return self._cut(waveform, index)
        raise AudioFileError(self.recipe.folder, "none of its recordings can be read", "See the log for each.")

    def _positions(self, index: int) -> Sequence[int]:
        """Where the clip is taken from, and where instead if that cannot be read."""
        if self.num_files is None:
            return range(index, index + self.recipe.max_unreadable + 1)
        one_pass, place = divmod(index, self.num_files)
        order = self._order(one_pass)
        return order[place:] + order[:place]

    def _new_order(self, one_pass: int) -> list[int]:
        return uniform(self.seed, torch.arange(self.num_files or 0), f"order of pass {one_pass}").argsort().tolist()

    def _read(self, position: int) -> Tensor | None:
        """The whole recording at a position, or None if it cannot be read."""
        if position in self.unreadable:
            return None
        name, content = self.files[position]
        try:
            return read_waveform(content, self.recipe.sampling_rate, name)
        except AudioFileError as error:
            self._report(position, name, error)
            return None

    def _report(self, position: int, name: str, error: AudioFileError) -> None:
        with self._lock:
            if position not in self.unreadable:
                self.unreadable[position] = error
                logger.warning("Skipped %s: %s", printable(name), error)
            if len(self.unreadable) > self.recipe.max_unreadable:
                listing = "\n".join(f"  {failure}" for failure in self.unreadable.values())
                of_how_many = f" of {self.num_files}" if self.num_files else ""
                raise AudioFileError(
                    self.recipe.folder,
                    f"{len(self.unreadable)}{of_how_many} recordings cannot be read",
                    f"Replace them, or raise recordings.max_unreadable.\n{listing}",
                )

    def _cut(self, waveform: Tensor, index: int) -> Tensor:
        num_samples = self.recipe.num_samples
        room = len(waveform) - num_samples
        if room <= 0:
            return match_length(waveform, num_samples)
        start = int(uniform(self.seed, torch.tensor([index]), "crop") * (room + 1))
        return waveform[start : start + num_samples].clone()  # a view would keep the whole recording in memory

    def description(self) -> dict[str, Any]:
        """What was read: the folder's own name, the number of recordings and a digest of their names and sizes."""
        return {
            "recordings": Path(os.path.abspath(self.recipe.folder)).name,
            "num_recordings": self.num_files,
            "recordings_digest": self.files.digest,
        }


def _size(path: Path) -> int:
    """Of a file, in bytes; a link to nothing has none, and is found to be unreadable in its turn."""
    return path.stat().st_size if path.exists() else 0


def _named_row(position: int, audio: dict[str, Any] | None) -> tuple[str, Any]:
    return f"row {position} ({audio['path'] if audio else 'no audio'})", audio


def _open(recipe: RecordingsRecipe) -> FolderOfFiles | DatasetRows | StreamedDataset:
    folder = Path(recipe.folder)
    if recipe.split is not None:
        return StreamedDataset(recipe.folder, recipe.split)
    if "://" in recipe.folder:
        raise ValueError(
            f"recordings.folder is a folder of this machine, or with recordings.split a data set, and got "
            f"{recipe.folder!r}. For a data set of the Hub give its name, ORG/NAME, and a split."
        )
    return saved_dataset(folder) if is_saved_dataset(folder) else FolderOfFiles(folder)
