"""Labelled recordings as one kind of `Dataset`, whatever layout they came in, and the checks that all layouts share.

| column | what |
|---|---|
| `audio` | the file's path, or `{"bytes", "path"}` where a data set holds the files themselves |
| `label` or `labels` | a `ClassLabel`, or a list of them where a clip has several |
| `fold` or `split` | whole numbers, or `train`, `validation` and `test` |
| `source` | the recording, or the speaker, that the clip comes from |
"""

import hashlib
import logging
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Dataset, DatasetInfo, Features, List, Value

from audiopg.data_scripts.cells import Part
from audiopg.data_scripts.recorded_files import AUDIO_SUFFIXES

logger = logging.getLogger(__name__)

MOST_LISTED = 10


def labelled_dataset(
    name: str,
    class_names: Sequence[str],
    *,
    audio: Sequence[Any],
    labels: Sequence[Any],
    parts: Sequence[Part],
    sources: Sequence[str],
    multi_label: bool = False,
    notes: Sequence[str] = (),
) -> Dataset:
    """Put columns together after checking that nothing of one part can be known from another.

    Args:
        name: Becomes `info.dataset_name`.
        class_names: Name of each class, in the order of the labels.
        audio: Paths, or what `datasets.Audio(decode=False)` gives.
        labels: A class per clip, or a list of classes if `multi_label`.
        parts: A fold (whole number) or a split (one of `SPLITS`) per clip.
        sources: What each clip was cut from.
        multi_label: Whether a clip may have several labels.
        notes: What results on it must say, as clauses: that folds were drawn, that clips were left out. They become
            `info.description`.

    Returns:
        The data set, in the order given.

    Raises:
        ValueError: if there are no clips, a clip is there twice, has no label or a name that is not Unicode, or clips
            of one source lie in several parts.

    Example:
        >>> dataset = labelled_dataset(
        ...     "mine", ["cat", "dog"], audio=["a.wav", "b.wav"], labels=[0, 1], parts=[1, 2], sources=["a", "b"]
        ... )
        >>> dataset[1]
        {'audio': 'b.wav', 'label': 1, 'fold': 2, 'source': 'b'}
    """
    if not audio:
        raise ValueError(f"{name} holds no clips. Check the folder and its table.")
    _check_names_are_unicode([*class_names, *(_name(item) for item in audio)])
    _check_listed_once(audio)
    check_sources_stay_in_a_part(sources, parts)
    if multi_label and not all(labels):
        raise ValueError(f"Every clip of {name} has a label, and {sum(not item for item in labels)} have none.")
    one = ClassLabel(names=list(class_names))
    by_fold = isinstance(parts[0], int)
    label_column, part_column = "labels" if multi_label else "label", "fold" if by_fold else "split"
    paths = isinstance(audio[0], str)
    features = Features(
        {
            "audio": Value("string") if paths else {"bytes": Value("binary"), "path": Value("string")},
            label_column: List(one) if multi_label else one,
            part_column: Value("int64") if by_fold else Value("string"),
            "source": Value("string"),
        }
    )
    columns = {
        "audio": list(audio),
        label_column: [list(item) if multi_label else item for item in labels],
        part_column: list(parts),
        "source": list(sources),
    }
    return Dataset.from_dict(
        columns, info=DatasetInfo(features=features, dataset_name=name, description="; ".join(notes))
    )


def notes_of(dataset: Dataset) -> str:
    """What results on a labelled data set must say of it: what was drawn or left out; nothing if all is as given."""
    return dataset.info.description or ""


def is_multi_label(dataset: Dataset) -> bool:
    """Whether clips of a labelled data set may have several labels."""
    return "labels" in dataset.features


def class_names_of(dataset: Dataset) -> list[str]:
    """Names of the classes of a labelled data set, in the order of the labels."""
    feature = dataset.features["labels"].feature if is_multi_label(dataset) else dataset.features["label"]
    return list(feature.names)


def parts_of(dataset: Dataset) -> list[Part]:
    """Fold or split of each clip of a labelled data set."""
    return list(dataset["fold" if "fold" in dataset.features else "split"])


def identify(
    name: str, num_classes: int, parts: Iterable[Part], official: Mapping[str, tuple[int, Mapping[Part, int]]]
) -> str:
    """The benchmark that a data set is by its counts; anything else is logged and called a part of it.

    Args:
        name: The benchmark whose layout the folder has.
        num_classes: How many classes it has.
        parts: Fold or split of each clip.
        official: Per benchmark, its number of classes and the number of clips of each part.

    Returns:
        One of the names of `official`, or "part of " and `name`.

    Example:
        >>> identify("two", 2, [1, 2, 2], {"two": (2, {1: 1, 2: 2})})
        'two'
    """
    counts = dict(Counter(parts))
    for official_name, size in official.items():
        if (num_classes, counts) == (size[0], dict(size[1])):
            return official_name
    return _part_of(name, num_classes, counts)


def identify_by_total(name: str, num_classes: int, parts: Sequence[Part], official: tuple[int, int, int]) -> str:
    """As `identify`, for a benchmark whose parts are of sizes that are not known.

    Args:
        name: The benchmark whose layout the folder has.
        num_classes: How many classes it has.
        parts: Fold or split of each clip.
        official: The benchmark's number of classes, of clips, and of folds or splits.

    Returns:
        `name`, or "part of" it.

    Example:
        >>> identify_by_total("two", 2, [1, 2, 2], (2, 3, 2))
        'two'
    """
    whole = (num_classes, len(parts), len(set(parts))) == official
    return name if whole else _part_of(name, num_classes, dict(Counter(parts)))


def _part_of(name: str, num_classes: int, counts: Mapping[Part, int]) -> str:
    what = f"{len(counts)} folds" if all(isinstance(part, int) for part in counts) else f"splits of {counts}"
    logger.warning(
        "This is a part of %s: %d clips, %d classes, %s. Its results do not compare with published ones.",
        name,
        sum(counts.values()),
        num_classes,
        what,
    )
    return f"part of {name}"


def find_audio(folder: Path, filenames: Sequence[str]) -> list[str]:
    """Paths of named files: as they are named, or by their stem, as a copy in another format is as good.

    Separators of Windows, and letters that another system composes otherwise, are no difference.

    Args:
        folder: Where the names start from; they may enter sub-folders, or be whole paths.
        filenames: One name per clip.

    Returns:
        One path per name.

    Raises:
        FileNotFoundError: if any is missing, with a list.
    """
    folders: dict[Path, _Folder] = {}

    def find(name: str) -> str | None:
        for way in dict.fromkeys((name, name.replace("\\", "/"))):
            path = folder / way
            if path.parent not in folders:
                folders[path.parent] = _Folder(_existing(path.parent))
            if found := folders[path.parent].find(path.name):
                return found
        return None

    paths = [find(name) for name in filenames]
    missing = [name for name, path in zip(filenames, paths, strict=True) if path is None]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(filenames)} clips are not in {folder}, with none of {AUDIO_SUFFIXES}: "
            f"{some(missing)}. Fetch them again, or leave their rows out: results on a part of a data set must not "
            "pass for results on all of it."
        )
    return [path for path in paths if path is not None]


class _Folder:
    """The files of a folder by their composed names, and the recordings among them by their stems."""

    def __init__(self, folder: Path | None) -> None:
        self.files = {_composed(path.name): path for path in sorted(folder.iterdir())} if folder else {}

    @cached_property
    def recordings(self) -> dict[str, Path]:
        return {_composed(p.stem): p for p in reversed(self.files.values()) if p.suffix.lower() in AUDIO_SUFFIXES}

    def find(self, name: str) -> str | None:
        name = _composed(name)
        stem, _, suffix = name.rpartition(".")
        exact = self.files.get(name)
        if exact is not None and exact.suffix.lower() in AUDIO_SUFFIXES:
            return str(exact)
        named = self.recordings.get(name)  # without a suffix, as some tables have it
        if named is None and suffix and not suffix.isdigit():
            named = self.recordings.get(stem)
        found = named or exact
        return str(found) if found else None


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _existing(folder: Path) -> Path | None:
    """A folder, be its name composed otherwise; None if there is none."""
    if folder.is_dir():
        return folder
    if folder.parent == folder or (parent := _existing(folder.parent)) is None:
        return None
    return next((p for p in parent.iterdir() if p.is_dir() and _composed(p.name) == _composed(folder.name)), None)


def check_sources_stay_in_a_part(sources: Sequence[str], parts: Sequence[Part]) -> None:
    """Refuse parts that share a source: a classifier would be tested on recordings that it has heard.

    Raises:
        ValueError: with the sources.
    """
    parts_of_source: dict[str, set[Part]] = defaultdict(set)
    for source, part in zip(sources, parts, strict=True):
        parts_of_source[source].add(part)
    leaks = [source for source, found in parts_of_source.items() if len(found) > 1]
    if leaks:
        raise ValueError(
            "Clips of one source recording share a fold or split, and these sources lie in several: "
            f"{some(leaks)}. Use the official folds, or keep each source in one."
        )


def some(items: Sequence[str]) -> str:
    """The first of many, and how many more there are.

    Example:
        >>> some([str(i) for i in range(12)])
        '0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more'
    """
    listed = ", ".join(items[:MOST_LISTED])
    return listed if len(items) <= MOST_LISTED else f"{listed} and {len(items) - MOST_LISTED} more"


def content_of(audio: Any) -> str:
    """What tells one clip from another: its path, or a digest of its bytes where a data set holds them.

    Example:
        >>> content_of("a.wav"), content_of({"bytes": b"x", "path": "a.wav"})[:8]
        ('a.wav', '2d711642')
    """
    if isinstance(audio, str):
        return audio
    content = audio["bytes"]
    return str(audio["path"]) if content is None else hashlib.sha256(content).hexdigest()


def _name(audio: Any) -> str:
    return audio if isinstance(audio, str) else str(audio.get("path"))


def _check_names_are_unicode(names: Sequence[str]) -> None:
    wrong = [ascii(name) for name in dict.fromkeys(names) if not _is_unicode(name)]
    if wrong:
        raise ValueError(
            f"Names of labelled files and classes are UTF-8, and {len(wrong)} are not: {some(wrong)}. Rename them, "
            "for instance with convmv."
        )


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_listed_once(audio: Sequence[Any]) -> None:
    """Names in an encoded data set have lost their folders: such clips are the same where the bytes are, too."""
    clips = Counter((_name(item), content_of(item)) for item in audio if isinstance(item, str) or item["path"])
    twice = [name for (name, _), count in clips.items() if count > 1]
    if twice:
        raise ValueError(f"Each clip is listed once, and {some(twice)} is listed again. Remove the second row.")
