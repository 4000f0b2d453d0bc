"""AudioPG as an encoder of X-ARES (pip `xares`): the file that its runner takes, and its tasks on data in a folder.

    AUDIOPG_CHECKPOINT=exported/base python -m xares.run audiopg/training/evaluation/adapters/xares.py TASK.py ...

X-ARES encodes every clip once and reads the frames with a linear layer on their mean (which it calls MLP) and with the
votes of 10 neighbours. Five things that its source does are worth knowing (version 0.1.3):

- With folds, the epoch whose score is reported is the one that does best on the test fold, which is also what its MLP
  validates on. Figures of its MLP on ESC-50, UrbanSound8K and others are too high by that. Neighbours choose nothing.
- The clips of a batch are padded with zeros to the longest, and the encoder is not told their lengths: where these
  differ, clips are heard with silence behind them.
- Embeddings and scores are kept by the name of the encoder's class, whatever it computes; so ours has the digest of
  weights, read-out and front end in its name.
- It decodes by torchaudio, which needs FFmpeg, and warns of clips that cannot be decoded, then goes on without them;
  `evaluate` decodes by this package's reader instead, and stops.
- It does not close the files of embeddings that it writes: read again in the same process (`--max-jobs 0`), their ends
  are missing, and so are the clips there, with no more than a warning; `evaluate` closes them.

J. Zhang et al., "X-ARES: A Comprehensive Framework for Assessing Audio Encoder Performance", 2025.
"""

import contextlib
import glob
import importlib
import importlib.util
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from audiopg.modeling.audio_audiopg import AudioFileError, read_audio
from audiopg.training.evaluation.adapters.hear import load_model
from audiopg.training.features.embeddings import model_digest

CHECKPOINT = "AUDIOPG_CHECKPOINT"
"""The environment variable that names the checkpoint: X-ARES makes encoders without arguments."""

ENCODER = f"{__name__.replace('.', '/')}.py"
"""This file, as X-ARES wants it named: it imports what the path says."""

DATA = "env"
"""Folder of all tasks in the folder that X-ARES is run in."""

READY = ".audio_tar_ready"
"""A file in a task's folder that says that its audio is there."""

_SUFFIXES = (".flac", ".mp3", ".wav", ".ogg", ".m4a", ".wma")
"""What X-ARES takes as the audio of a clip."""


class AudioPGEncoder(nn.Module):
    """An encoder as X-ARES wants it, with the three attributes that it reads.

    The frames are those of `embed_frames`: mel rows side by side where the checkpoint's `embed` keeps them apart.
    X-ARES takes their mean over a clip, so that deviations over time, which `embed` may have too, are not read.

    Args:
        checkpoint: Its folder, or its name on the Hub; by default what the environment variable `AUDIOPG_CHECKPOINT`
            says.

    Raises:
        ValueError: if neither is given.
    """

    def __init__(self, checkpoint: str | None = None) -> None:
        super().__init__()
        checkpoint = checkpoint or os.environ.get(CHECKPOINT)
        if not checkpoint:
            raise ValueError(f"No weights come with this package: set {CHECKPOINT} to a checkpoint's folder or name.")
        self.model = load_model(checkpoint)
        self.sampling_rate = self.model.sample_rate
        self.output_dim = self.model.timestamp_embedding_size
        self.hop_size_in_ms = self.model.hop_in_ms
        digest = model_digest(self.model.encoder, self.model.feature_extractor)
        self.__class__ = type(f"AudioPG{digest}Encoder", (type(self),), {})  # X-ARES caches by this name

    def forward(self, audio: Tensor) -> Tensor:
        """Frame embeddings.

        Args:
            audio: Shape `(clips, samples)`, at `sampling_rate`; 25 ms or longer.

        Returns:
            Shape `(clips, frames, output_dim)`.
        """
        return torch.stack([clip.embeddings for clip in self.model(audio)])


def evaluate(checkpoint: str, folder: Path, tasks: Sequence[str] = ()) -> dict[str, dict[str, float]]:
    """Run tasks of X-ARES on a checkpoint; one that is stopped goes on with what it has encoded and scored.

    Args:
        checkpoint: As for `AudioPGEncoder`.
        folder: Where X-ARES is run: `env/TASK/` holds the tar files of each task, and `.audio_tar_ready`.
        tasks: Names of X-ARES's own tasks, such as `esc50`, or files in `folder` that end in `_task.py`; by default
            those whose data are there.

    Returns:
        By task, `mlp` and `knn`: its metric, from 0 to 1, as its runner returns them.

    Raises:
        ImportError: if `xares` is missing.
        FileNotFoundError: if the data of a task are missing, with what fetches them.
        ValueError: if there is no such task, X-ARES refuses the encoder, or would go on without clips that it cannot
            read.
    """
    if importlib.util.find_spec("xares") is None:
        raise ImportError("X-ARES is the package xares, which is not there: pip install 'audiopg[kits]'.")
    if not folder.is_dir():
        raise FileNotFoundError(f"X-ARES runs in a folder that holds {DATA}/TASK/*.tar, and there is no {folder}.")
    place = checkpoint if not Path(checkpoint).exists() else str(Path(checkpoint).resolve())
    with contextlib.chdir(folder), patch.dict(os.environ, {CHECKPOINT: place}), _from_here():
        from xares.audio_encoder_checker import check_audio_encoder
        from xares.run import worker

        if not tasks:
            tasks = [name for name in _own_tasks() if Path(DATA, name, READY).exists()]
            if not tasks:
                raise FileNotFoundError(_missing(f"no task's data are in {folder / DATA}", "esc50"))
        files = {task: _file_of(task) for task in tasks}
        encoder = AudioPGEncoder()
        for task, file in files.items():
            _check_data(task, file, encoder)
        if not check_audio_encoder(encoder):
            raise ValueError(f"X-ARES refuses the encoder of {checkpoint}; what it found is said above.")
        scores = {}
        for task, file in files.items():
            with _mended(encoder.sampling_rate, task):
                worker(ENCODER, file, do_encode=True)
            with _mended(encoder.sampling_rate, task):
                _, mlp, knn, _ = worker(ENCODER, file, do_mlp=True, do_knn=True)
            scores[task] = {"mlp": float(mlp[0]), "knn": float(knn[0])}
    return scores


def _own_tasks() -> list[str]:
    """Names of the tasks that come with X-ARES, in a package of their own that is called `tasks`."""
    spec = importlib.util.find_spec("tasks")
    places = list(spec.submodule_search_locations or ()) if spec else []
    return sorted(path.name.removesuffix("_task.py") for place in places for path in Path(place).glob("*_task.py"))


def _file_of(task: str) -> str:
    if task.endswith("_task.py"):
        if not Path(task).is_file():
            raise ValueError(f"A task is a name, or a file in the folder that X-ARES is run in, and {task} is none.")
        return task
    if task not in _own_tasks():
        raise ValueError(f"X-ARES has no task {task!r}; it has {', '.join(_own_tasks())}.")
    return f"tasks/{task}_task.py"


def _check_data(task: str, file: str, encoder: nn.Module) -> None:
    """Make sure that a task's audio is there: X-ARES would fetch gigabytes, or score what it finds."""
    from xares.utils import attr_from_py_path

    config: Any = attr_from_py_path(file, endswith="_config")(encoder)
    home = Path(config.env_root, config.name)
    lacking = [name for name in config.audio_tar_name_of_split.values() if not glob.glob(str(home / name))]
    if not (home / READY).exists() or lacking:
        what = f"{home / lacking[0]} is not there" if lacking else f"{home / READY} is not there"
        raise FileNotFoundError(_missing(f"the data of {task} are missing: {what}", task))


def _missing(what: str, task: str) -> str:
    return (
        f"X-ARES: {what}. In that folder, `python -m xares.run {ENCODER} tasks/{task}_task.py --to-stage 0` fetches "
        f"them from Zenodo; tar files of one's own lie in {DATA}/TASK/ beside an empty file {READY}."
    )


@contextlib.contextmanager
def _from_here() -> Iterator[None]:
    """Let X-ARES import tasks of the folder that it is run in."""
    sys.path.insert(0, "")
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove("")


@contextlib.contextmanager
def _mended(sampling_rate: int, task: str) -> Iterator[None]:
    """Let X-ARES decode by this package's reader, close the files that it writes, and stop where it would warn."""
    import webdataset

    write, failures = webdataset.ShardWriter, []

    def read(key: str, content: bytes) -> tuple[Tensor, int] | None:
        if f".{key.rpartition('.')[2]}" not in _SUFFIXES:
            return None
        try:
            return read_audio(content, sampling_rate)[None], sampling_rate
        except AudioFileError as error:
            failures.append(error)
            raise

    try:
        with (
            contextlib.ExitStack() as writers,
            patch.object(webdataset, "torch_audio", read),
            patch.object(webdataset, "ShardWriter", lambda *a, **k: writers.enter_context(write(*a, **k))),
            patch(
                "torch.multiprocessing.get_start_method", lambda: "spawn"
            ),  # as in its command: no reading processes
            warnings.catch_warnings(),
        ):
            warnings.filterwarnings("error", module="xares.audiowebdataset")
            yield
    except UserWarning as warning:
        raise ValueError(
            f"X-ARES would go on without clips of {task}: {failures[-1] if failures else warning} Mend or remove them."
        ) from warning
