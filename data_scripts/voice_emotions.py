"""Emotions that voices express, VIVAE and CREMA-D as they are unpacked: a folder to a `Dataset`, folds by speaker."""

import re
from collections.abc import Callable
from pathlib import Path

from datasets import Dataset

from audiopg.data_scripts.labelled_audio import identify_by_total, labelled_dataset, some
from audiopg.data_scripts.recorded_files import recordings_below

OFFICIAL_TOTALS = {"VIVAE": (6, 1085, 11), "CREMA-D": (6, 7442, 5)}
"""Classes, clips, and the folds that are made here. The clips are from memory."""

NUM_FOLDS = 5

_VIVAE_NAME = re.compile(r"(?P<speaker>S\d+)_(?P<emotion>[a-z]+)_[a-z]+_\d+")
_CREMA_D_NAME = re.compile(r"(?P<speaker>\d{4})_[A-Z]{3}_(?P<emotion>[A-Z]{3})_[A-Z]+")


def load_vivae(folder: str | Path) -> Dataset:
    """VIVAE, emotions in bursts of voice without words (N. Holz et al., "The variably intense vocalizations", 2022).

    The folder holds `full_set`, or else `core_set`, with files called as `S01_achievement_low_01.wav`: speaker,
    emotion, intensity, number. The class is the emotion. There is no official split; as in ARCH (M. La Quatra et al.,
    2024) each of the eleven speakers is tested by a model of the others: a speaker is a fold. (ARCH chooses by the
    speaker that follows; settings are chosen here as for any folds, by each of the others in turn.)

    Args:
        folder: The data set's folder, or that of the files.

    Returns:
        One row per recording; emotions in alphabetical order. `info.dataset_name` is "VIVAE", or "part of VIVAE".

    Raises:
        FileNotFoundError: if there are no recordings.
        ValueError: if a file is called otherwise.
    """
    folder = Path(folder)
    inside = next((path for name in ("full_set", "core_set") if (path := folder / name).is_dir()), folder)
    return _load("VIVAE", inside, _VIVAE_NAME, lambda speakers: {name: int(name[1:]) for name in speakers})


def load_crema_d(folder: str | Path) -> Dataset:
    """CREMA-D, six emotions in spoken sentences (H. Cao et al., "CREMA-D: Crowd-sourced Emotional Multimodal Actors").

    The folder holds `AudioWAV` with files called as `1001_DFA_ANG_XX.wav`: actor, sentence, emotion, level. The class
    is the emotion that was meant. There is no official split: of the actors in their order the first is in fold 1,
    the second in fold 2, the sixth in fold 1 again. HEAR's folds share actors, so that its results do not compare.

    Args:
        folder: The data set's folder, or that of the files.

    Returns:
        One row per recording; emotions in alphabetical order. `info.dataset_name` is "CREMA-D", or "part of CREMA-D".

    Raises:
        FileNotFoundError: if there are no recordings.
        ValueError: if a file is called otherwise.
    """
    folder = Path(folder)
    inside = folder / "AudioWAV" if (folder / "AudioWAV").is_dir() else folder
    return _load(
        *("CREMA-D", inside, _CREMA_D_NAME),
        lambda speakers: {name: number % NUM_FOLDS + 1 for number, name in enumerate(speakers)},
        note="the folds were drawn here, by actors, as there are no official ones",
    )


def _load(
    name: str,
    folder: Path,
    pattern: re.Pattern[str],
    folds_of: Callable[[list[str]], dict[str, int]],
    note: str | None = None,
) -> Dataset:
    """Recordings whose names say who expresses what."""
    paths = recordings_below(folder) if folder.is_dir() else []
    if not paths:
        raise FileNotFoundError(f"{folder} holds no recordings of {name}. Give the folder that was unpacked.")
    matches = [pattern.fullmatch(path.stem) for path in paths]
    wrong = [path.name for path, match in zip(paths, matches, strict=True) if match is None]
    if wrong:
        raise ValueError(
            f"Files of {name} are called by speaker, emotion and take, and these are not: {some(wrong)}. Use the "
            "official files."
        )
    found = [match for match in matches if match is not None]
    speakers, emotions = [match["speaker"] for match in found], [match["emotion"] for match in found]
    classes, folds = sorted(set(emotions)), folds_of(sorted(set(speakers)))
    parts = [folds[speaker] for speaker in speakers]
    return labelled_dataset(
        identify_by_total(name, len(classes), parts, OFFICIAL_TOTALS[name]),
        classes,
        audio=[str(path) for path in paths],
        labels=[classes.index(emotion) for emotion in emotions],
        parts=parts,
        sources=speakers,
        notes=[note] if note else [],
    )
