"""Which files are recordings: the one listing of everything that looks into folders, and what it passed over."""

import logging
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff")

_OF_SYSTEMS = {"__macosx", "__pycache__", "@eadir", "$recycle.bin", "lost+found", "system volume information"}
"""Folders that systems and tools leave behind, in small letters."""


@dataclass(frozen=True)
class Listing:
    """The recordings below a folder, and what else was there.

    Args:
        paths: In the order of the paths.
        passed_over: How many of each kind were no recordings: `hidden`, or their suffix.
    """

    paths: list[Path]
    passed_over: Counter[str]


def is_hidden(name: str) -> bool:
    """Whether a file or a folder is not the user's: `.name`, AppleDouble's `._name`, folders of systems.

    Example:
        >>> [name for name in ("a.wav", "._a.wav", ".ipynb_checkpoints", "__MACOSX") if is_hidden(name)]
        ['._a.wav', '.ipynb_checkpoints', '__MACOSX']
    """
    return name.startswith(".") or name.lower() in _OF_SYSTEMS


def list_recordings(folder: Path) -> Listing:
    """Every recording below a folder, at any depth, links to folders included; what is hidden is left out.

    A link to nothing that is called as a recording is one: whoever reads it says that it cannot be read.

    Args:
        folder: Where to look.

    Returns:
        The files whose names end as recordings do, in small letters or large, and counts of the others.

    Raises:
        OSError: if a folder cannot be opened.

    Example:
        >>> folder = getfixture("tmp_path")
        >>> for name in ("b.WAV", "a.flac", "._a.flac", "c.m4a"):
        ...     (folder / name).touch()
        >>> listing = list_recordings(folder)
        >>> [path.name for path in listing.paths], dict(listing.passed_over)
        (['a.flac', 'b.WAV'], {'hidden': 1, '.m4a': 1})
    """
    passed_over: Counter[str] = Counter()
    paths = sorted(_walk(folder, passed_over))
    return Listing(paths, Counter(dict(sorted(passed_over.items(), reverse=True))))


def recordings_below(folder: Path) -> list[Path]:
    """The paths of `list_recordings`; what was passed over is logged."""
    listing = list_recordings(folder)
    warn_of_passed_over(folder, listing.passed_over)
    return listing.paths


def recordings_by_class(folder: Path) -> tuple[dict[str, list[Path]], Counter[str]]:
    """The recordings of a folder that has a sub-folder for each class, which holds them at any depth.

    Folders whose names begin with `_`, as `_background_noise_`, are no classes; nor is what lies beside the folders.

    Args:
        folder: That of the classes.

    Returns:
        The recordings of each class by its name, in Unicode's composed form, and counts of what was passed over.

    Raises:
        ValueError: if a class has no recording, with what lies in its folder.
        OSError: if a folder cannot be opened.

    Example:
        >>> folder = getfixture("tmp_path")
        >>> for name in ("dog", "cat", "_noise_"):
        ...     (folder / name).mkdir()
        ...     (folder / name / "1.wav").touch()
        >>> classes, passed_over = recordings_by_class(folder)
        >>> {name: len(paths) for name, paths in classes.items()}, dict(passed_over)
        ({'cat': 1, 'dog': 1}, {'folder _noise_': 1})
    """
    classes: dict[str, list[Path]] = {}
    passed_over: Counter[str] = Counter()
    empty = []
    for path in sorted(folder.iterdir()):
        if is_hidden(path.name):
            passed_over["hidden"] += 1
        elif not path.is_dir():
            passed_over[f"{path.suffix.lower() or 'without a suffix'} beside the folders"] += 1
        elif path.name.startswith("_"):
            passed_over[f"folder {path.name}"] += 1
        else:
            listing = list_recordings(path)
            passed_over += listing.passed_over
            classes.setdefault(unicodedata.normalize("NFC", path.name), []).extend(listing.paths)
            if not listing.paths:
                empty.append(f"{path.name} ({counted(listing.passed_over) or 'nothing at all'})")
    if empty:
        raise ValueError(
            f"A sub-folder of {folder} is a class and holds recordings, {', '.join(AUDIO_SUFFIXES)}, and these hold "
            f"none: {', '.join(empty)}. Convert their files, or take the folders out."
        )
    return classes, passed_over


def warn_of_passed_over(folder: Path, passed_over: Mapping[str, int]) -> None:
    """Name in the log what was no recording, with counts."""
    if passed_over:
        logger.warning("%s: passed over what is no recording: %s.", ascii(str(folder))[1:-1], counted(passed_over))


def counted(passed_over: Mapping[str, int]) -> str:
    """Kinds and their counts in words.

    Example:
        >>> counted({"hidden": 2, ".m4a": 1})
        '2 hidden, 1 .m4a'
    """
    return ", ".join(f"{count} {kind}" for kind, count in passed_over.items())


def _walk(folder: Path, passed_over: Counter[str]) -> Iterator[Path]:
    """Folders before links to folders, so that what is reached by both ways is listed where it lies, once."""
    seen: set[Path] = set()
    folders, links = [folder], list[Path]()
    while folders or links:
        here = folders.pop() if folders else links.pop(0)
        if here.resolve() in seen:
            passed_over["links to what is listed"] += 1
            continue
        seen.add(here.resolve())
        for path in sorted(here.iterdir()):
            if is_hidden(path.name):
                passed_over["hidden"] += 1
            elif path.is_dir():
                (links if path.is_symlink() else folders).append(path)
            elif path.suffix.lower() in AUDIO_SUFFIXES and (path.is_file() or not path.exists()):
                yield path
            else:  # pipes and devices too, whatever they are called: reading them could wait for ever
                passed_over[path.suffix.lower() or "without a suffix"] += 1
