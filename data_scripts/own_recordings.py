"""Anyone's own labelled recordings: a folder per class, a CSV file or a data set of the Hub, as one kind of `Dataset`.

The columns are those of `labelled_audio`. Where nothing says what to test on, five folds are drawn: stratified by
class, repeatable, and never with one source on both sides.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Audio, Dataset, DatasetDict, concatenate_datasets, load_dataset, load_from_disk

from audiopg.data_scripts.benchmarks import detect_benchmark, load_benchmark
from audiopg.data_scripts.labelled_audio import (
    SPLITS,
    Part,
    find_audio,
    labelled_dataset,
    read_table,
    some,
)
from audiopg.data_scripts.recorded_files import recordings_below

logger = logging.getLogger(__name__)

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""What people call the splits."""

NUM_FOLDS = 5

# What the columns are called in copies of the benchmarks on the Hub.
_COLUMN_NAMES = {
    "label": ("label", "category", "class", "classID", "target"),
    "source": ("source", "src_file", "fsID", "speaker_id"),
}


def load_recordings(path: str | Path) -> Dataset:
    """Labelled recordings from whatever is at a path.

    Args:
        path: A benchmark's folder (see `load_benchmark`), a CSV file (`load_csv`), a folder that `datasets` saved
            (`from_dataset`), or a folder with one sub-folder per class (`load_class_folders`).

    Returns:
        The data set.

    Raises:
        FileNotFoundError: if there is nothing at the path.
        ValueError: as the loader that is chosen.
    """
    path = Path(path)
    if path.is_file():
        return load_csv(path)
    if not path.is_dir():
        raise FileNotFoundError(
            f"{path} is neither a folder nor a CSV file. Check the path (a data set of the Hub is not a path)."
        )
    if detect_benchmark(path) is not None:
        return load_benchmark("auto", path)
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        return from_dataset(load_from_disk(str(path)), path.name)
    return load_class_folders(path)


def load_class_folders(folder: str | Path) -> Dataset:
    """A sub-folder per class, whose names are the labels; or `train`, `validation` and `test` with those inside.

    Args:
        folder: It is searched at any depth below the classes.

    Returns:
        The data set, in five drawn folds unless there are folders called as in `SPLIT_NAMES`.

    Raises:
        ValueError: if there are fewer than two classes, or as `draw_folds`.
    """
    folder = Path(folder)
    splits = {path: SPLIT_NAMES.get(path.name.lower()) for path in _sub_folders(folder)}
    by_split = bool(splits) and None not in splits.values() and len(splits) > 1
    rows = [
        (label_folder.name, part, path)
        for root, part in (splits.items() if by_split else [(folder, None)])
        for label_folder in _sub_folders(root)
        for path in recordings_below(label_folder)
    ]
    return _build(
        folder.name,
        [str(path) for _, _, path in rows],
        [[label] for label, _, _ in rows],
        [part for _, part, _ in rows],
        [str(path) for _, _, path in rows],
    )


def load_csv(path: str | Path) -> Dataset:
    """A table of recordings.

    Args:
        path: A CSV file with the column `file` (a path from the table's own folder on) and either `label` or `labels`
            (several, with `;` between them); optionally `fold` or `split`, and `source`: what the clip was cut from.

    Returns:
        The data set, in five drawn folds if there is neither `fold` nor `split`.

    Raises:
        FileNotFoundError: if the table, or a file that it names, is missing.
        ValueError: if a column is missing, or as `load_class_folders`.
    """
    path = Path(path)
    rows = read_table(path, ("file",), "a table of recordings has the columns file and label")
    if ("label" in rows[0]) == ("labels" in rows[0]):
        raise ValueError(f"{path} needs either the column label or the column labels, and has {list(rows[0])}.")
    multi_label = "labels" in rows[0]
    files = [row["file"] for row in rows]
    audio = files if all(Path(name).is_absolute() for name in files) else find_audio(path.parent, files)
    return _build(
        path.stem,
        audio,
        [_names(row["labels"]) if multi_label else [row["label"].strip()] for row in rows],
        [_part(row) for row in rows],
        [row.get("source") or row["file"] for row in rows],
        multi_label=multi_label,
    )


def from_dataset(dataset: Dataset | DatasetDict, name: str) -> Dataset:
    """Rows of a `datasets` data set, of one split or of all, with the audio left encoded.

    Args:
        dataset: With the column `audio` and a label: `labels` where there are several per clip, or else `label` or
            what the benchmarks' copies call it (`category`, `class`). Also `fold` and `source`, if there are.
        name: Becomes `info.dataset_name`.

    Returns:
        The data set. Splits are kept where there are two or more and no folds; otherwise as `load_csv`.

    Raises:
        ValueError: if a column is missing, or as `load_class_folders`.
    """
    splits: list[Part | None] = []
    if isinstance(dataset, DatasetDict):
        for split, rows in dataset.items():
            splits += [SPLIT_NAMES.get(str(split).lower())] * len(rows)
        dataset = concatenate_datasets(list(dataset.values()))
    columns = {
        new: next((old for old in olds if old in dataset.features), None) for new, olds in _COLUMN_NAMES.items()
    }
    label = "labels" if "labels" in dataset.features else columns["label"]
    if "audio" not in dataset.features or label is None:
        raise ValueError(
            f"{name} needs the columns audio and label (or labels), and has {list(dataset.features)}. Rename them."
        )
    encoded = dataset.cast_column("audio", Audio(decode=False))
    folds = list(dataset["fold"]) if "fold" in dataset.features else None
    parts: Sequence[Part | None] = folds or (splits if len(set(splits)) > 1 else [None] * len(dataset))
    sources = list(dataset[columns["source"]]) if columns["source"] else range(len(dataset))
    return _build(
        name,
        list(encoded["audio"]),
        _label_names(dataset, label),
        parts,
        [str(source) for source in sources],
        multi_label=label == "labels",
    )


def load_hub_dataset(name: str) -> Dataset:
    """A data set of the Hub, or a local folder in a layout that `datasets.load_dataset` reads; see `from_dataset`."""
    return from_dataset(load_dataset(name), name)


def draw_folds(labels: Sequence[int], sources: Sequence[str], num_folds: int = NUM_FOLDS, seed: int = 0) -> list[int]:
    """Folds for recordings that came without: each class is dealt over the folds, source by source.

    Args:
        labels: Class of each clip.
        sources: What each clip was cut from; a source stays in one fold.
        num_folds: How many, unless a class has fewer sources: then that many.
        seed: Of the order in which sources are dealt.

    Returns:
        A fold from 1 on for each clip.

    Raises:
        ValueError: if a class has a single source: it could not be trained on and tested too.

    Example:
        >>> draw_folds([0, 0, 1, 1], ["a", "b", "c", "d"])
        [1, 2, 1, 2]
    """
    label_of = dict(zip(reversed(sources), reversed(labels), strict=True))
    sources_of: dict[int, list[str]] = defaultdict(list)
    for source in sorted(label_of):
        sources_of[label_of[source]].append(source)
    fewest = min(len(found) for found in sources_of.values())
    if fewest < 2:
        alone = [label for label, found in sources_of.items() if len(found) < 2]
        raise ValueError(
            f"Every class needs two recordings or more, to train and to test on, and the classes {alone} have one. "
            "Add recordings, or leave those classes out."
        )
    rng, num_folds, dealt = np.random.default_rng(seed), min(num_folds, fewest), 0
    fold_of = {}
    for label in sorted(sources_of):
        for source in rng.permutation(sources_of[label]):
            fold_of[str(source)] = dealt % num_folds + 1
            dealt += 1
    return [fold_of[source] for source in sources]


def _sub_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] not in "_.")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(";") if name.strip()]


def _part(row: dict[str, str]) -> Part | None:
    if row.get("fold"):
        return int(row["fold"])
    split = row.get("split")
    if not split:
        return None
    if split.lower() not in SPLIT_NAMES:
        raise ValueError(f"A split is one of {', '.join(SPLIT_NAMES)}, and {row['file']} has {split!r}.")
    return SPLIT_NAMES[split.lower()]


def _label_names(dataset: Dataset, column: str) -> list[list[str]]:
    feature = dataset.features[column]
    names = getattr(getattr(feature, "feature", feature), "names", None)
    rows = [value if isinstance(value, list) else [value] for value in dataset[column]]
    return [[names[value] if names else str(value) for value in row] for row in rows]


def _build(
    name: str,
    audio: list[Any],
    label_names: list[list[str]],
    parts: Sequence[Part | None],
    sources: list[str],
    *,
    multi_label: bool = False,
) -> Dataset:
    """From names of labels to labels, and parts where there are none."""
    class_names = sorted({label for row in label_names for label in row})
    if len(class_names) < 2:
        raise ValueError(
            f"{name} needs two classes or more, and has {class_names}: a sub-folder per class, or a CSV file with the "
            "columns file and label."
        )
    position = {label: index for index, label in enumerate(class_names)}
    labels = [[position[label] for label in row] for row in label_names]
    known = _drawn_if_missing(name, parts, labels, sources, multi_label)
    return labelled_dataset(
        name,
        class_names,
        audio=audio,
        labels=labels if multi_label else [row[0] for row in labels],
        parts=known,
        sources=sources,
        multi_label=multi_label,
    )


def _drawn_if_missing(
    name: str, parts: Sequence[Part | None], labels: list[list[int]], sources: list[str], multi_label: bool
) -> list[Part]:
    known = [part for part in parts if part is not None]
    if not known:
        # Several labels have no strata to speak of: sources are dealt as they come.
        strata = [0] * len(labels) if multi_label else [row[0] for row in labels]
        folds = draw_folds(strata, sources)
        logger.warning(
            "%s says nothing of folds or splits: %d folds were drawn, each class dealt evenly. If several clips come "
            "from one recording, say so in a CSV file with a column `source`.",
            name,
            max(folds),
        )
        return list(folds)
    if len(known) != len(parts):
        raise ValueError(
            f"Every clip of {name} has a fold or a split, or none has, and {len(parts) - len(known)} of {len(parts)} "
            f"have none. Complete the table."
        )
    if isinstance(known[0], str) and "test" not in known:
        logger.warning("%s has no test split: its validation split is tested on.", name)
        known = ["test" if part == "validation" else part for part in known]
    _check_parts(name, known)
    return known


def _check_parts(name: str, parts: list[Part]) -> None:
    counts = Counter(parts)
    if isinstance(parts[0], str):
        missing = [split for split in ("train", "test") if split not in counts]
        if missing:
            raise ValueError(
                f"{name} needs the splits {SPLITS[0]} and {SPLITS[2]}, and has {some(sorted(map(str, counts)))}."
            )
    elif len(counts) < 2:
        raise ValueError(f"{name} needs two folds or more, and has one.")
