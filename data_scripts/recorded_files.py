"""Which files are recordings."""

from pathlib import Path

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff")


def recordings_below(folder: Path) -> list[Path]:
    """Every recording below a folder, at any depth, in the order of the paths.

    Args:
        folder: Where to look.

    Returns:
        The files whose names end as recordings do, in small letters or large.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("b.WAV", "a.flac", "notes.txt"):
        ...         (Path(folder) / name).touch()
        ...     [path.name for path in recordings_below(Path(folder))]
        ['a.flac', 'b.WAV']
    """
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES)
