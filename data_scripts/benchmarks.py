"""Benchmarks of real recordings as they lie on disk: a folder to a `Dataset` of `audio` (a path), `label`, `fold`.

The official folds are read, never drawn, and a recording that was cut into several clips stays in one fold.
"""

import csv
import logging
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from datasets import ClassLabel, Dataset, DatasetInfo, Features, Value

logger = logging.getLogger(__name__)

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg")

OFFICIAL_SIZES = {"ESC-50": (2000, 50, 5), "ESC-10": (400, 10, 5)}
"""Clips, classes and folds of the official data sets."""

MOST_LISTED = 10


def load_esc50(folder: str | Path) -> Dataset:
    r"""ESC-50, ESC-10, or any folder in their layout (K. J. Piczak, "ESC: Dataset for Environmental Sound", 2015).

    The folder holds `meta/esc50.csv`, with the columns `filename`, `fold`, `target`, `category` and `src_file`, and
    `audio/`. Files are found by their stem, so a copy in .flac or .ogg is as good as the .wav that the table names.

    Args:
        folder: The data set's folder.

    Returns:
        One row per clip: `audio` (the file's path), `label` (a `ClassLabel`, 0 to classes - 1 in the order of the
        official target numbers, named by category) and `fold` (as in the table). `info.dataset_name` is "ESC-50" or
        "ESC-10" where the counts are the official ones, and "part of ESC-50" otherwise, which is also logged.

    Raises:
        FileNotFoundError: if the table, or the audio of any of its rows, is missing.
        ValueError: if a column is missing, a clip is listed twice, a target has two names, or clips of one source
            recording lie in several folds (a classifier would be tested on recordings it has heard).

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / "meta").mkdir(), (folder / "audio").mkdir()
        (None, None)
        >>> (folder / "audio" / "1-7-A-40.flac").touch()
        >>> table = "filename,fold,target,category,src_file\n1-7-A-40.wav,1,40,helicopter,7\n"
        >>> _ = (folder / "meta" / "esc50.csv").write_text(table)
        >>> dataset = load_esc50(folder)
        >>> dataset[0]["label"], dataset.features["label"].names, dataset.info.dataset_name
        (0, ['helicopter'], 'part of ESC-50')
    """
    folder = Path(folder)
    rows = _read_table(folder / "meta" / "esc50.csv", ("filename", "fold", "target", "category", "src_file"))
    _check_listed_once(row["filename"] for row in rows)
    _check_sources_stay_in_a_fold(rows)
    names = _class_names(rows)
    position = {target: label for label, target in enumerate(sorted(names))}
    features = Features(
        {
            "audio": Value("string"),
            "label": ClassLabel(names=[names[target] for target in sorted(names)]),
            "fold": Value("int64"),
        }
    )
    folds = [int(row["fold"]) for row in rows]
    columns = {
        "audio": _find_audio(folder / "audio", [row["filename"] for row in rows]),
        "label": [position[int(row["target"])] for row in rows],
        "fold": folds,
    }
    dataset_name = _identify(len(rows), len(names), len(set(folds)))
    return Dataset.from_dict(columns, info=DatasetInfo(features=features, dataset_name=dataset_name))


def _read_table(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: a folder in the layout of ESC-50 holds meta/esc50.csv and audio/. "
            "Give the folder that was unpacked from the official archive."
        )
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    missing = [column for column in columns if not rows or column not in rows[0]]
    if missing:
        raise ValueError(
            f"{path} must have rows with the columns {columns}, and lacks {missing}. Use the official file."
        )
    return rows


def _check_listed_once(filenames: Iterable[str]) -> None:
    seen: set[str] = set()
    for filename in filenames:
        if filename in seen:
            raise ValueError(f"Each clip is listed once, and {filename} is listed again. Use the official table.")
        seen.add(filename)


def _check_sources_stay_in_a_fold(rows: list[dict[str, str]]) -> None:
    folds_of: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        folds_of[row["src_file"]].add(row["fold"])
    leaks = [source for source, folds in folds_of.items() if len(folds) > 1]
    if leaks:
        raise ValueError(
            f"Clips of one source recording share a fold, and these sources lie in several: {_some(leaks)}. "
            "Use the official folds."
        )


def _class_names(rows: list[dict[str, str]]) -> dict[int, str]:
    names: dict[int, str] = {}
    for row in rows:
        target, category = int(row["target"]), row["category"]
        if names.setdefault(target, category) != category:
            raise ValueError(
                f"A target has one category, and target {target} is {names[target]!r} and {category!r}. "
                "Use the official table."
            )
    return names


def _find_audio(folder: Path, filenames: list[str]) -> list[str]:
    by_stem = {path.stem: str(path) for path in folder.glob("*") if path.suffix.lower() in AUDIO_SUFFIXES}
    missing = [filename for filename in filenames if Path(filename).stem not in by_stem]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(filenames)} clips are not in {folder}, with none of {AUDIO_SUFFIXES}: "
            f"{_some(missing)}. Fetch the data set again: results on a part of it would pass for results on all of it."
        )
    return [by_stem[Path(filename).stem] for filename in filenames]


def _identify(num_clips: int, num_classes: int, num_folds: int) -> str:
    for name, size in OFFICIAL_SIZES.items():
        if (num_clips, num_classes, num_folds) == size:
            return name
    logger.warning(
        "This is a part of ESC-50: %d clips, %d classes, %d folds. Its results do not compare with published ones.",
        num_clips,
        num_classes,
        num_folds,
    )
    return "part of ESC-50"


def _some(items: list[str]) -> str:
    listed = ", ".join(items[:MOST_LISTED])
    return listed if len(items) <= MOST_LISTED else f"{listed} and {len(items) - MOST_LISTED} more"
