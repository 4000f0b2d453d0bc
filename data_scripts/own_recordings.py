"""Anyone's own labelled recordings: a folder per class, tables or a data set of the Hub, as one kind of `Dataset`.

The columns are those of `labelled_audio`. Where nothing says what to test on, five folds are drawn: stratified by
class, repeatable, and never with one source on both sides. What is missing or incidental never becomes a class, a fold
or a source; what was drawn or left out is logged and goes with the data set, see `labelled_audio.notes_of`.
"""

import itertools
import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Audio, Dataset, DatasetDict, concatenate_datasets, load_from_disk

from audiopg.data_scripts.benchmarks import OFFICIAL_NAMES, detect_benchmark, load_benchmark
from audiopg.data_scripts.cells import (
    SPLITS,
    Part,
    is_called_as_a_part,
    is_missing,
    part_called,
    parts_called,
    text_of,
)
from audiopg.data_scripts.labelled_audio import content_of, find_audio, labelled_dataset, some
from audiopg.data_scripts.recorded_files import is_hidden, recordings_by_class, warn_of_passed_over
from audiopg.data_scripts.stored_audio import load_stored
from audiopg.data_scripts.tables import plain, read_table, table_columns

logger = logging.getLogger(__name__)

NUM_FOLDS = 5

COLUMN_NAMES = {
    "file": ("file", "file_name", "filename", "file_path", "filepath", "path", "audio"),
    "label": ("label", "category", "class", "classid", "target"),
    "source": ("source", "src_file", "fsid", "speaker_id", "speaker"),
}
"""What people call the columns, as `tables.plain` has them; the first that is there is taken."""


@dataclass
class _Clips:
    """Clips as they were found, before labels have numbers and all have a part.

    Args:
        audio: Paths, or what `datasets.Audio(decode=False)` gives.
        labels: Names of the labels of each.
        parts: Fold or split of each, if anything says so.
        sources: What each was cut from.
        multi_label: Whether a clip may have several labels.
        notes: What results must say.
    """

    audio: list[Any] = field(default_factory=list)
    labels: list[list[str]] = field(default_factory=list)
    parts: list[Part | None] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    multi_label: bool = False
    notes: list[str] = field(default_factory=list)


def load_recordings(path: str | Path) -> Dataset:
    """Labelled recordings from whatever is at a path.

    Args:
        path: A benchmark's folder (see `load_benchmark`), a table (`load_csv`), a folder that `datasets` saved
            (`from_dataset`), a folder of tables called as splits or of a `metadata.csv` (`load_tables`), or a folder
            with one sub-folder per class (`load_class_folders`).

    Returns:
        The data set, named after the file or the folder.

    Raises:
        FileNotFoundError: if there is nothing at the path.
        ValueError: as the loader that is chosen.
    """
    path = Path(os.path.abspath(path))
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
    tables = _tables_of_parts(path)
    return load_tables(tables, path.name) if tables else load_class_folders(path)


def load_class_folders(folder: str | Path) -> Dataset:
    """A sub-folder per class, whose names are the labels; or folders of splits or folds with those inside.

    Args:
        folder: It is searched at any depth below the classes.

    Returns:
        The data set, in five drawn folds unless there are folders called as parts: `train` and `test`, `fold1` ...

    Raises:
        ValueError: if there are fewer than two classes, one has no recordings, a class is called as a part or holds
            parts, a file lies in two classes, or as `draw_folds`.
    """
    folder = Path(os.path.abspath(folder))
    clips, passed_over = _Clips(), Counter[str]()
    classes_of: dict[str, set[str]] = defaultdict(set)
    for part, root in _roots(folder):
        classes, others = recordings_by_class(root)
        passed_over += others
        _check_folders_are_classes(root, classes)
        for name, paths in classes.items():
            clips.audio += map(str, paths)
            clips.labels += [[name]] * len(paths)
            clips.parts += [part] * len(paths)
            # A file that links reach twice is one source.
            real = [os.path.relpath(path.resolve(), folder.resolve()) for path in paths]
            clips.sources += real
            for source in real:
                classes_of[source].add(name)
    warn_of_passed_over(folder, passed_over)
    several = [f"{source} ({', '.join(sorted(names))})" for source, names in classes_of.items() if len(names) > 1]
    if several:
        raise ValueError(
            f"A file lies in one class, and links put these into several: {some(several)}. Remove a link."
        )
    return _build(folder.name, clips)


def load_csv(path: str | Path) -> Dataset:
    """A table of recordings; its dialect is told by `tables.read_table`.

    Args:
        path: A table with the column `file` (a path from the table's own folder on) and either `label` or `labels`
            (several, with `;` between them); optionally `fold` or `split`, and `source`: what the clip was cut from.
            `COLUMN_NAMES` lists what else these may be called.

    Returns:
        The data set, in five drawn folds if there is neither `fold` nor `split`.

    Raises:
        FileNotFoundError: if the table, or a file that it names, is missing.
        ValueError: if a column is missing, a row is incomplete, or as `load_class_folders`.
    """
    return load_tables({None: Path(path)}, Path(path).stem)


def load_tables(tables: Mapping[Part | None, Path], name: str) -> Dataset:
    """Tables of one data set, one for each of its parts.

    Args:
        tables: By fold or split; None for a table whose rows say it.
        name: Becomes `info.dataset_name`.

    Returns:
        As `load_csv`.

    Raises:
        FileNotFoundError: as `load_csv`.
        ValueError: as `load_csv`, or if some tables have `label` and some `labels`.
    """
    clips, kinds = _Clips(), set()
    for part, path in tables.items():
        found = table_columns(path) if path.is_file() else ()
        label = _column(found, "label")
        if found and ("labels" in found) == (label is not None):
            raise ValueError(
                f"{path} needs either the column label or the column labels, and has {list(found)}. Rename them."
            )
        label = label or "labels"
        kinds.add(label == "labels")
        file = _column(found, "file") or "file"
        rows = read_table(path, (file, label))
        source, part_column = _column(found, "source"), next((c for c in ("fold", "split") if c in found), None)
        clips.audio += find_audio(path.parent, [row[file] for row in rows])
        clips.labels += [row[label].split(";") if label == "labels" else [row[label]] for row in rows]
        clips.sources += [
            text_of(row[source]) if source and not is_missing(row[source]) else row[file] for row in rows
        ]
        if part is None and part_column is not None:
            clips.parts += parts_called([row[part_column] for row in rows], part_column)
        else:
            clips.parts += [part] * len(rows)
    if len(kinds) > 1:
        raise ValueError(f"The tables of {name} have either the column label or labels, and some have each. Use one.")
    clips.multi_label = kinds == {True}
    clips.labels = [[text_of(label) for label in labels if label.strip()] for labels in clips.labels]
    return _build(name, clips)


def from_dataset(dataset: Dataset | DatasetDict, name: str) -> Dataset:
    """Rows of a `datasets` data set, of one split or of all, with the audio left encoded.

    Rows without a label (None, NaN, -1, nothing) or without audio are left out, which is logged and noted.

    Args:
        dataset: With the column `audio` and a label: `labels`, or else `label` or what the benchmarks' copies call it
            (`COLUMN_NAMES`). Lists are several labels per clip. Also `fold` or `split`, and `source`, if there are.
        name: Becomes `info.dataset_name`.

    Returns:
        The data set. A column `fold` or `split` says the parts, or else the names of splits where there are several;
        otherwise as `load_csv`.

    Raises:
        ValueError: if a column is missing, or as `load_class_folders`.
    """
    named: list[Part | None] = []
    if isinstance(dataset, DatasetDict):
        if len(dataset) > 1:
            parts = parts_called([str(split) for split in dataset], f"of splits of {name}")
            named = [part for part, rows in zip(parts, dataset.values(), strict=True) for _ in range(len(rows))]
        dataset = concatenate_datasets(list(dataset.values()))
    columns = {plain(column): column for column in reversed(dataset.column_names)}
    label = "labels" if "labels" in columns else _column(columns, "label")
    if "audio" not in columns or label is None:
        raise ValueError(
            f"{name} needs the columns audio and label (or labels), and has {list(dataset.features)}. Rename them."
        )
    audio = list(dataset.cast_column(columns["audio"], Audio(decode=False))[columns["audio"]])
    values = _values(dataset, columns[label])
    clips = _Clips(multi_label=any(isinstance(value, list) for value in values))
    rows = [value if isinstance(value, list) else [value] for value in values]
    odd = {type(value).__name__ for row in rows for value in row or () if not _is_plain(value)}
    if odd:
        raise ValueError(f"A label of {name} is a text or a whole number, and {label} holds {some(sorted(odd))}.")
    kept = _with_label_and_audio(name, rows, audio, clips.notes)
    _check_no_zeros_and_ones(name, label, [rows[row] for row in kept] if clips.multi_label else [])
    part_column = next((column for column in ("fold", "split") if column in columns), None)
    if part_column is not None:
        parts = parts_called(_values(dataset, columns[part_column]), part_column)
    else:
        parts = named or [None] * len(rows)
    source = _column(columns, "source")
    sources = _values(dataset, columns[source]) if source else [None] * len(rows)
    first_with: dict[str, int] = {}
    for row in kept:
        clips.audio.append(audio[row])
        clips.labels.append([text_of(value) for value in rows[row]])
        clips.parts.append(parts[row])
        # Without a source a row is one of its own; where folds are drawn, copies of one content stay together.
        own = row if parts[row] is not None else first_with.setdefault(content_of(audio[row]), row)
        clips.sources.append(f"row {own}" if source and is_missing(sources[row]) else text_of(sources[row] or own))
    return _build(name, clips)


def load_hub_dataset(name: str) -> Dataset:
    """A data set of the Hub, or a local folder in a layout that `datasets.load_dataset` reads; see `from_dataset`."""
    is_local = Path(name).exists()
    return from_dataset(load_stored(name), Path(os.path.abspath(name)).name if is_local else name)


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


def _column(found: Iterable[str], kind: str) -> str | None:
    """The first of the names of a kind of column that is there."""
    return next((name for name in COLUMN_NAMES[kind] if name in found), None)


def _tables_of_parts(folder: Path) -> dict[Part | None, Path]:
    """Tables that list a folder's recordings: `train.csv` and others called as parts, or else a `metadata.csv`."""
    tables = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in (".csv", ".tsv")]
    tables = [path for path in tables if path.is_file() and not is_hidden(path.name) and _lists_recordings(path)]
    parts: dict[Part | None, Path] = {}
    for path in tables:
        part = part_called(path.stem)
        if part is not None and parts.setdefault(part, path) != path:
            raise ValueError(f"{path} and {parts[part].name} are both called as {part}. Remove or rename one.")
    if len(parts) > 1:
        return parts
    return {None: path for path in tables if path.stem.lower() == "metadata"}  # noqa: B035 - one at most


def _lists_recordings(path: Path) -> bool:
    columns = table_columns(path)
    return _column(columns, "file") is not None and (_column(columns, "label") is not None or "labels" in columns)


def _roots(folder: Path) -> list[tuple[Part | None, Path]]:
    """Folders that hold class folders, with the part that their names stand for: one each, or the folder itself."""
    inside = [path for path in sorted(folder.iterdir()) if path.is_dir() and not is_hidden(path.name)]
    inside = [path for path in inside if not path.name.startswith("_")]
    parts = [path for path in inside if is_called_as_a_part(path.name)]
    if not parts:
        return [(None, folder)]
    if len(parts) < len(inside):
        others = [path.name for path in inside if path not in parts]
        raise ValueError(
            f"{some([path.name for path in parts])} in {folder} are called as folds or splits, not as classes, and "
            f"beside them lie {some(others)}. Put every class into the folds or splits, or list the files in a table."
        )
    if len(parts) == 1:
        return [(None, parts[0])]  # a part alone says nothing of what to test on
    found = parts_called([path.name for path in parts], f"of folders of {folder.name}")
    return list(zip(found, parts, strict=True))


def _check_folders_are_classes(root: Path, classes: Iterable[str]) -> None:
    if is_called_as_a_part(root.name) and not any(classes):
        raise ValueError(
            f"{root} is called as a fold or a split, not as a class, and holds no folder for each class. Put its "
            "files into class folders, or list them in a table with the columns file, label and fold or split."
        )
    for name in classes:
        inside = [path.name for path in (root / name).glob("*") if path.is_dir() and is_called_as_a_part(path.name)]
        if is_called_as_a_part(name) or inside:
            raise ValueError(
                f"A sub-folder of {root} is a class, and {name} "
                f"{'holds ' + some(sorted(inside)) if inside else 'is called as a part'}: folds or splits lie outside "
                "of the classes. Move them, or list the files in a table."
            )


def _values(dataset: Dataset, column: str) -> list[Any]:
    """The values of a column, classes by their names; what has none is None."""
    feature = dataset.features[column]
    names = getattr(getattr(feature, "feature", feature), "names", None)

    def name(value: Any) -> Any:
        if isinstance(value, list):
            return [name(item) for item in value]
        return names[value] if names and not is_missing(value) else (None if names else value)

    return [name(value) for value in dataset[column]]


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)


def _with_label_and_audio(name: str, rows: list[list[Any]], audio: list[Any], notes: list[str]) -> list[int]:
    """Which rows have both; the others are counted in `notes` and logged."""
    labelled = {row for row, labels in enumerate(rows) if labels and not any(map(is_missing, labels))}
    heard = {row for row, item in enumerate(audio) if item and (item["bytes"] is not None or item["path"])}
    for what, count in (
        ("without a label (None, NaN, -1, nothing)", len(rows) - len(labelled)),
        ("without audio", len(labelled - heard)),
    ):
        if count:
            notes.append(f"{count} of {len(rows)} clips {what} were left out")
            logger.warning("%s: %s.", name, notes[-1])
    if not labelled & heard:
        raise ValueError(f"{name} has no clip with audio and a label: {'; '.join(notes) or 'it is empty'}.")
    return sorted(labelled & heard)


def _check_no_zeros_and_ones(name: str, column: str, rows: list[list[Any]]) -> None:
    lengths, values = {len(row) for row in rows}, {value for row in rows for value in row}
    if len(lengths) == 1 and max(lengths) > 1 and values == {0, 1}:
        raise ValueError(
            f"{column} of {name} lists the labels of each clip, and reads as zeros and ones for {max(lengths)} "
            "classes. Replace each row by the names of the classes that are there."
        )


_LISTED = re.compile(r"\S[,;]\S|^\[.*\]$")


def _check_labels(clips: _Clips) -> None:
    """Refuse what is no name of a class: words for a missing one, several in one, fractions."""
    names = Counter(itertools.chain.from_iterable(clips.labels))

    def refuse(found: list[str], what: str, remedy: str) -> None:
        if found:
            wrong = [f"{label!r} ({names[label]} clips)" for label in found]
            raise ValueError(f"A label is the name of a class, and {some(wrong)} {what}. {remedy}")

    refuse(
        [name for name in names if is_missing(name)],
        "stand for a missing label",
        "Label these clips or leave them out; a class that is really called so needs another name.",
    )
    several = [name for name in names if _LISTED.search(name)]
    several += [name for name in names if "|" in name and all(part.strip() in names for part in name.split("|"))]
    several += [name for name in names if ", " in name and all(part.strip() in names for part in name.split(","))]
    refuse(
        list(dict.fromkeys(several)),
        "reads as several" if len(several) == 1 else "read as several",
        "If clips have several labels, use the column labels, with ; between them; if it is one name, write it "
        "without the comma or semicolon.",
    )
    refuse(
        [name for name in names if re.fullmatch(r"\d*\.\d+(e-?\d+)?", name)],
        "are fractions",
        "Values to predict are no classes here: give them names.",
    )


def _build(name: str, clips: _Clips) -> Dataset:
    """From names of labels to labels, and parts where there are none."""
    if name in OFFICIAL_NAMES:
        logger.warning("This is called %s, and is not in its layout: it is taken for a part of it.", name)
        name = f"part of {name}"  # the name alone would claim a place among published results
    _check_labels(clips)
    class_names = sorted({label for row in clips.labels for label in row})
    if len(class_names) < 2:
        raise ValueError(
            f"{name} needs two classes or more, and has {class_names}: a sub-folder per class, or a CSV file with the "
            "columns file and label."
        )
    position = {label: index for index, label in enumerate(class_names)}
    labels = [[position[label] for label in row] for row in clips.labels]
    parts = _drawn_if_missing(name, clips, labels)
    return labelled_dataset(
        name,
        class_names,
        audio=clips.audio,
        labels=labels if clips.multi_label else [row[0] for row in labels],
        parts=parts,
        sources=clips.sources,
        multi_label=clips.multi_label,
        notes=clips.notes,
    )


def _drawn_if_missing(name: str, clips: _Clips, labels: list[list[int]]) -> list[Part]:
    known = [part for part in clips.parts if part is not None]
    if not known:
        # Several labels have no strata to speak of: sources are dealt as they come.
        strata = [0] * len(labels) if clips.multi_label else [row[0] for row in labels]
        folds = draw_folds(strata, clips.sources)
        logger.warning(
            "%s says nothing of folds or splits: %d folds were drawn, each class dealt evenly. If several clips come "
            "from one recording, say so in a CSV file with a column `source`.",
            name,
            max(folds),
        )
        clips.notes.append("the folds were drawn here, as the data say nothing of any")
        return list(folds)
    if len(known) != len(clips.parts):
        raise ValueError(
            f"Every clip of {name} has a fold or a split, or none has, and {len(clips.parts) - len(known)} of "
            f"{len(clips.parts)} have none. Complete the table."
        )
    if "test" not in known and "validation" in known:
        logger.warning("%s has no test split: its validation split is tested on.", name)
        clips.notes.append("there is no test split: the validation split is tested on")
        known = ["test" if part == "validation" else part for part in known]
    _check_parts(name, known, clips.notes)
    return known


def _check_parts(name: str, parts: list[Part], notes: Sequence[str]) -> None:
    counts = Counter(parts)
    left_out = f" ({'; '.join(notes)})" if notes else ""
    if len({type(part) for part in counts}) > 1:
        raise ValueError(f"{name} has either folds or splits, and has {some(list(map(str, counts)))}. Rename them.")
    if isinstance(parts[0], str):
        if not {"train", "test"} <= set(counts):
            raise ValueError(
                f"{name} needs the splits {SPLITS[0]} and {SPLITS[2]}, and has {some(sorted(map(str, counts)))}"
                f"{left_out}. Complete them; if a split's labels are hidden, give the other splits alone."
            )
    elif len(counts) < 2:
        raise ValueError(f"{name} needs two folds or more, and has one{left_out}.")
