"""Files and folders that are whole whenever they are there: written to the side, put on the disk, then renamed.

What cannot be written or read is named, with what to do.
"""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

PARTIAL = ".partial"
"""How the names of what is being written end; what a killed process left of them may be removed."""

_OF_TORCH_SAVE = ("PytorchStreamWriter", "file write failed", "unexpected pos")
"""What torch.save says, in a RuntimeError, of a disk that is full."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Have a full disk or a read-only place become one kind of error, whichever library meets it.

    Args:
        path: What the block writes, for the message.

    Raises:
        OSError: with the path, the reason and the remedy.

    Example:
        >>> with writing(Path("weights")):
        ...     raise SafetensorError("No space left on device (os error 28)")
        Traceback (most recent call last):
        ...
        OSError: weights could not be written: No space left on device (os error 28). Make room there, or ...
    """
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(words in str(error) for words in _OF_TORCH_SAVE):
            raise
        reason = str(getattr(error, "strerror", None) or error).rstrip(".")
        raise OSError(
            f"{path} could not be written: {reason}. Make room there, or give a place that may be written to; the "
            "same command goes on."
        ) from error


@contextmanager
def reading(checkpoint: Path | str) -> Iterator[None]:
    """Have a checkpoint that is damaged, or of another kind, be named, whatever the libraries say of it.

    Args:
        checkpoint: The folder or name that the block loads; errors that explain themselves pass.

    Raises:
        ValueError: with the checkpoint, the reason and the remedy.

    Example:
        >>> with reading("exported/base"):
        ...     raise SafetensorError("header too small")
        Traceback (most recent call last):
        ...
        ValueError: exported/base cannot be loaded (SafetensorError: header too small): a file of it is damaged, or ...
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError | ValueError) and not isinstance(error, UnicodeDecodeError):
            raise
        raise ValueError(
            f"{checkpoint} cannot be loaded ({type(error).__name__}: {error}): a file of it is damaged, or of another "
            "kind than its name says. Export or download it again."
        ) from error


def read_json(path: Path, remedy: str) -> Any:
    """The content of a JSON file.

    Args:
        path: The file.
        remedy: A sentence: what a person does about a file that is damaged.

    Raises:
        ValueError: if it is no JSON, with the file and the remedy.
        OSError: if it cannot be read.

    Example:
        >>> path = getfixture("tmp_path") / "run.json"
        >>> write_atomically(path, '{"steps": 1')
        >>> read_json(path, "Remove it.")
        Traceback (most recent call last):
        ...
        ValueError: ...run.json is damaged, no JSON can be read from it (Expecting ',' delimiter...). Remove it.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged, no JSON can be read from it ({error}). {remedy}") from error


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A name beside `path`, for a file or a folder that gets its own name once it is on the disk.

    Whoever reads `path` finds the old content or the new, whenever the power fails; several writers do not meet,
    since every one has another name. A folder takes the place of another in two steps, between which there is none of
    its name; never is there one with files of both.

    Args:
        path: The file or folder; what holds it exists.

    Yields:
        What to write: nothing is there yet. It ends in `PARTIAL`, and is removed if the block raises.

    Raises:
        OSError: if it cannot be written; the old content is then still there.

    Example:
        >>> path = getfixture("tmp_path") / "statistics.json"
        >>> with written_aside(path) as partial:
        ...     _ = partial.write_text("{}")
        ...     path.exists()
        False
        >>> [found.name for found in path.parent.iterdir()]
        ['statistics.json']
    """
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}{PARTIAL}")
    try:
        with writing(path):
            yield partial
            for written in (partial, *partial.rglob("*")):
                if written.is_file():
                    with written.open("rb") as file:
                        os.fsync(file.fileno())
            if partial.is_dir() and path.is_dir():
                remove_folder(path)
            os.replace(partial, path)
    except BaseException:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that whoever reads it finds the old content or the new, see `written_aside`.

    Args:
        path: The file; its folder exists.
        content: All of it; text is written as UTF-8.

    Raises:
        OSError: if it cannot be written; the old content is then still there.

    Example:
        >>> path = getfixture("tmp_path") / "note.txt"
        >>> write_atomically(path, "é")
        >>> path.stat().st_size
        2
    """
    with written_aside(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def remove_folder(folder: Path) -> None:
    """Rename, then delete: a folder that is half deleted must not look like a whole one."""
    doomed = folder.with_name(f"{folder.name}.{secrets.token_hex(4)}{PARTIAL}")
    os.replace(folder, doomed)
    shutil.rmtree(doomed)


def sweep(folder: Path) -> None:
    """Remove what killed processes left in a folder that nobody else is writing to.

    Example:
        >>> folder = getfixture("tmp_path")
        >>> for name in ("model.0a1b2c3d.partial", "weights.4e5f.partial"):
        ...     (folder / name).touch()
        >>> sweep(folder)
        >>> list(folder.iterdir())
        []
    """
    for left in folder.glob(f"*{PARTIAL}"):
        if left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink()
