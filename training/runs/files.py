"""Files and folders that are whole whenever they are there: written to the side, put on the disk, then renamed."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".partial"
"""How the names of what is being written end; what a killed process left of them may be removed."""


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A name beside `path`, for a file or a folder that gets its own name once it is on the disk.

    Whoever reads `path` finds the old content or the new, whenever the power fails; several writers do not meet,
    since every one has another name.

    Args:
        path: The file, or a folder that is not there yet; what holds it exists.

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
        yield partial
        for written in (partial, *partial.rglob("*")):
            if written.is_file():
                with written.open("rb") as file:
                    os.fsync(file.fileno())
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
