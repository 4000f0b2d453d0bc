"""Tasks of HEAR 2021 as they are unpacked: a task's folder to a `Dataset` with its official folds or splits.

J. Turian et al., "HEAR: Holistic Evaluation of Audio Representations", 2022. A task lies in a folder:

- `task_metadata.json`: `task_name`, `mode`, `embedding_type`, `prediction_type`, and `evaluation`, the metrics with
  the main one first;
- `labelvocabulary.csv`: `idx` and `label`;
- `train.json`, `valid.json` and `test.json`, or where a task has folds `fold00.json`, `fold01.json` ...: the labels of
  each file;
- `16000/train/*.wav` ...: the files of each part at a sampling rate; or `48000`, as most were published.

One loader reads them all: nothing but its folder tells one task from another. (The interface that HEAR asks of models
is `training/evaluation/adapters/hear.py`.)
"""

import json
from pathlib import Path
from typing import Any

from datasets import Dataset

from audiopg.data_scripts.cells import Part, part_called
from audiopg.data_scripts.labelled_audio import find_audio, identify_by_total, labelled_dataset, some
from audiopg.data_scripts.tables import read_table

METADATA = "task_metadata.json"
"""By which a folder is told to be a task of HEAR."""

SAMPLING_RATE = 16000

HEAR_TASKS: dict[tuple[str, str], tuple[str, int, int, int]] = {
    ("esc50", "full"): ("ESC-50 (HEAR)", 50, 2000, 5),
    ("tfds_crema_d", "full"): ("CREMA-D (HEAR)", 6, 7438, 5),
    ("fsd50k", "full"): ("FSD50K (HEAR)", 200, 51185, 3),
    ("libricount", "full"): ("LibriCount (HEAR)", 11, 5720, 5),
    ("nsynth_pitch", "5h"): ("NSynth Pitch 5 h (HEAR)", 88, 5000, 3),
    ("vocal_imitation", "full"): ("Vocal Imitation (HEAR)", 302, 5601, 3),
}
"""By `task_name` and `mode`: what results call a task, its classes, its clips, and its folds or splits. The clips are
those of the paper's table of tasks; the classes are from memory. A folder with other counts is called a part."""

_LAYOUT = "a folder of HEAR's tasks holds task_metadata.json, labelvocabulary.csv and a .json file for each part"


def is_hear_task(folder: str | Path) -> bool:
    """Whether a folder is a task of HEAR."""
    return (Path(folder) / METADATA).is_file()


def load_hear_task(folder: str | Path, task: str | None = None) -> Dataset:
    """A task of HEAR that labels whole clips.

    The metric that the task names first decides how labels are read: where it is mAP, a clip has a list of labels, be
    it of one (Vocal Imitation), and is scored by macro mAP; otherwise it has one, scored by accuracy. Classes of
    tasks of pitch are called `MIDI` and their number, so that octaves can be told, see `scores.pitches_of`.

    HEAR's parts are taken as they are. No file says what a clip was cut from: each is a source of its own, though
    clips of one person lie in several folds of CREMA-D and Vocal Imitation.

    Args:
        folder: Of the task.
        task: Refuse any other than this one, by HEAR's `task_name` (`crema_d` stands for `tfds_crema_d`).

    Returns:
        One row per clip; classes are in the order of the vocabulary. `info.dataset_name` is that of `HEAR_TASKS`
        where the counts are the official ones, and otherwise "part of" it, which is also logged; a task that is not
        listed there has its own name.

    Raises:
        FileNotFoundError: if a file of the layout, or the audio of a clip, is missing.
        ValueError: if it is another task, one of events in time, or a label is not in the vocabulary.

    Example:
        >>> load_hear_task(".")
        Traceback (most recent call last):
        ...
        FileNotFoundError: task_metadata.json is missing: a folder of HEAR's tasks holds task_metadata.json, \
labelvocabulary.csv and a .json file for each part. Give the folder of one task.
    """
    folder = Path(folder)
    metadata = _read_json(folder / METADATA)
    name = metadata["task_name"]
    if task is not None and task != name.removeprefix("tfds_"):
        raise ValueError(f"The task {task} was asked for, and {folder} holds {name}. Give the folder of {task}.")
    if metadata["embedding_type"] != "scene":
        raise ValueError(
            f"A task labels whole clips here, and {name} is one of {metadata['embedding_type']}s in time. Use "
            "HEAR's own runner for it, with audiopg.training.evaluation.adapters.hear."
        )
    classes = _class_names(folder, of_pitch="pitch_acc" in metadata["evaluation"])
    several = metadata["prediction_type"] == "multilabel" or metadata["evaluation"][0] == "mAP"
    files, labels, parts = [], [], []
    for part, path in _parts(folder).items():
        for file, found in _read_json(path).items():
            files.append(f"{path.stem}/{file}")
            labels.append([str(label) for label in found])
            parts.append(part)
    unknown = sorted({label for found in labels for label in found} - set(classes))
    if unknown:
        raise ValueError(f"Labels of {folder} are in labelvocabulary.csv, and these are not: {some(unknown)}.")
    crowded = [file for file, found in zip(files, labels, strict=True) if len(found) != 1]
    if crowded and not several:
        raise ValueError(f"A clip of {name} has one label, and these have none or several: {some(crowded)}.")
    position = {label: index for index, label in enumerate(classes)}
    return labelled_dataset(
        _name(name, metadata.get("mode", "full"), len(classes), parts),
        list(classes.values()),
        audio=find_audio(_audio_folder(folder), files),
        labels=[[position[label] for label in found] if several else position[found[0]] for found in labels],
        parts=parts,
        sources=[Path(file).stem for file in files],
        multi_label=several,
    )


def _class_names(folder: Path, of_pitch: bool) -> dict[str, str]:
    """Labels, in the order of the vocabulary, to names of classes."""
    rows = read_table(folder / "labelvocabulary.csv", ("idx", "label"), _LAYOUT)
    labels = [row["label"] for row in sorted(rows, key=lambda row: int(row["idx"]))]
    return {label: f"MIDI {label}" if of_pitch else label for label in labels}


def _parts(folder: Path) -> dict[Part, Path]:
    """The file of each fold or split."""
    files = {part_called(path.stem): path for path in sorted(folder.glob("*.json"))}
    parts = {part: path for part, path in files.items() if part is not None}
    if len(parts) < 2:
        raise FileNotFoundError(f"{folder} lacks the files of its parts: {_LAYOUT}. Give the folder of one task.")
    return parts


def _audio_folder(folder: Path) -> Path:
    """At our sampling rate, or else at the highest."""
    rates = sorted(int(path.name) for path in folder.iterdir() if path.is_dir() and path.name.isdigit())
    if not rates:
        raise FileNotFoundError(f"{folder} has no folder of audio that is called as its sampling rate, as 16000.")
    return folder / str(SAMPLING_RATE if SAMPLING_RATE in rates else rates[-1])


def _name(task: str, mode: str, num_classes: int, parts: list[Part]) -> str:
    known = [entry for (name, of_mode), entry in HEAR_TASKS.items() if name == task and mode in (of_mode, "small")]
    if not known:
        return f"{task} {mode} (HEAR)"
    [(name, *official)] = known
    return identify_by_total(name, num_classes, parts, (official[0], official[1], official[2]))


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: {_LAYOUT}. Give the folder of one task.")
    return dict(json.loads(path.read_text(encoding="utf-8")))
