"""Benchmarks of real recordings as they are unpacked: a folder to a `Dataset` with its official folds or splits.

The official folds are read, never drawn, and a recording that was cut into several clips stays in one of them. The
columns are those of `labelled_audio`.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from datasets import Dataset

from audiopg.data_scripts.cells import Part
from audiopg.data_scripts.hear_tasks import HEAR_TASKS, METADATA, is_hear_task, load_hear_task
from audiopg.data_scripts.labelled_audio import find_audio, identify, labelled_dataset, some
from audiopg.data_scripts.recorded_files import recordings_by_class, warn_of_passed_over
from audiopg.data_scripts.tables import read_table
from audiopg.data_scripts.voice_emotions import OFFICIAL_TOTALS, load_crema_d, load_vivae

OFFICIAL_SIZES: dict[str, tuple[int, Mapping[Part, int]]] = {
    "ESC-50": (50, dict.fromkeys(range(1, 6), 400)),
    "ESC-10": (10, dict.fromkeys(range(1, 6), 80)),
    "UrbanSound8K": (
        10,
        dict(enumerate((873, 888, 925, 990, 936, 823, 838, 806, 816, 837), start=1)),
    ),
    "Speech Commands V2": (35, {"train": 84843, "validation": 9981, "test": 11005}),
    "FSD50K": (200, {"train": 36796, "validation": 4170, "test": 10231}),
}
"""Classes of the official data sets, and clips in each fold or split."""

OFFICIAL_NAMES = {*OFFICIAL_SIZES, *OFFICIAL_TOTALS, *(name for name, *_ in HEAR_TASKS.values())}
"""What complete benchmarks are called, and nothing else."""


def load_esc50(folder: str | Path, *, only_esc10: bool = False) -> Dataset:
    r"""ESC-50, ESC-10, or any folder in their layout (K. J. Piczak, "ESC: Dataset for Environmental Sound", 2015).

    The folder holds `meta/esc50.csv`, with the columns `filename`, `fold`, `target`, `category` and `src_file`, and
    `audio/`. Files are found by their stem, so a copy in .flac or .ogg is as good as the .wav that the table names.

    Args:
        folder: The data set's folder.
        only_esc10: Keep the clips that the column `esc10` marks.

    Returns:
        One row per clip; labels are 0 to classes - 1 in the order of the official target numbers.
        `info.dataset_name` is "ESC-50" or "ESC-10" where the counts are the official ones, and "part of ESC-50"
        otherwise, which is also logged.

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
    columns = ("filename", "fold", "target", "category", "src_file", *(("esc10",) if only_esc10 else ()))
    rows = read_table(
        _table(folder, "meta/esc50.csv"), columns, "a folder in the layout of ESC-50 holds meta/esc50.csv and audio/"
    )
    if only_esc10:
        rows = [row for row in rows if row["esc10"].lower() == "true"]
    names = _class_names((row["target"], row["category"]) for row in rows)
    position = {target: label for label, target in enumerate(names)}
    folds = [int(row["fold"]) for row in rows]
    return labelled_dataset(
        identify("ESC-50", len(names), folds, OFFICIAL_SIZES),
        list(names.values()),
        audio=find_audio(folder / "audio", [row["filename"] for row in rows]),
        labels=[position[int(row["target"])] for row in rows],
        parts=folds,
        sources=[row["src_file"] for row in rows],
    )


def load_urbansound8k(folder: str | Path) -> Dataset:
    """UrbanSound8K with its ten folds (J. Salamon et al., "A Dataset and Taxonomy for Urban Sound Research", 2014).

    The folder holds `metadata/UrbanSound8K.csv` and `audio/fold1` to `audio/fold10`. Drawing other folds would put
    slices of one recording on both sides, which is why the accuracies of those who did are higher.

    Args:
        folder: The data set's folder.

    Returns:
        One row per slice; labels are the official `classID`.

    Raises:
        FileNotFoundError: if the table, or the audio of any of its rows, is missing.
        ValueError: as `load_esc50`.
    """
    folder = Path(folder)
    rows = read_table(
        _table(folder, "metadata/UrbanSound8K.csv"),
        ("slice_file_name", "fsID", "fold", "classID", "class"),
        "a folder in the layout of UrbanSound8K holds metadata/UrbanSound8K.csv and audio/fold1 to audio/fold10",
    )
    names = _class_names((row["classID"], row["class"]) for row in rows)
    position = {target: label for label, target in enumerate(names)}
    folds = [int(row["fold"]) for row in rows]
    audio = folder / "audio" if (folder / "audio").is_dir() else folder  # as some mirrors unpack
    return labelled_dataset(
        identify("UrbanSound8K", len(names), folds, OFFICIAL_SIZES),
        list(names.values()),
        audio=find_audio(audio, [f"fold{row['fold']}/{row['slice_file_name']}" for row in rows]),
        labels=[position[int(row["classID"])] for row in rows],
        parts=folds,
        sources=[row["fsID"] for row in rows],
    )


def load_speech_commands(folder: str | Path) -> Dataset:
    """Speech Commands V2, 35 words (P. Warden, "Speech Commands", 2018).

    The folder holds a sub-folder per word, `validation_list.txt` and `testing_list.txt`; what neither names is for
    training. `_background_noise_` is no word and is left out.

    Args:
        folder: The data set's folder.

    Returns:
        One row per utterance, words in alphabetical order; `source` is the speaker.

    Raises:
        FileNotFoundError: if a list, or an utterance that it names, is missing.
        ValueError: if an utterance is in both lists, or a speaker is on both sides.
    """
    folder = Path(folder)
    listed = {
        split: _read_list(folder / name)
        for split, name in {"validation": "validation_list.txt", "test": "testing_list.txt"}.items()
    }
    both = sorted(set(listed["validation"]) & set(listed["test"]))
    if both:
        raise ValueError(f"No utterance is in both lists, and these are: {some(both)}. Use the official lists.")
    for names in listed.values():
        find_audio(folder, names)  # for its complaint: what the lists name must be there
    split_of = {str(Path(name).with_suffix("")): split for split, names in listed.items() for name in names}
    by_word, passed_over = recordings_by_class(folder)
    warn_of_passed_over(folder, passed_over)
    words = list(by_word)
    utterances = [(label, path) for label, paths in enumerate(by_word.values()) for path in paths]
    splits = [split_of.get(f"{path.parent.name}/{path.stem}", "train") for _, path in utterances]
    return labelled_dataset(
        identify("Speech Commands V2", len(words), splits, OFFICIAL_SIZES),
        words,
        audio=[str(path) for _, path in utterances],
        labels=[label for label, _ in utterances],
        parts=splits,
        sources=[path.name.split("_nohash_")[0] for _, path in utterances],
    )


def load_fsd50k(folder: str | Path) -> Dataset:
    """FSD50K, several labels per clip (E. Fonseca et al., "FSD50K: an Open Dataset of Human-Labeled Sound Events").

    The folder holds `FSD50K.ground_truth` with `dev.csv`, `eval.csv` and `vocabulary.csv`, `FSD50K.dev_audio` and
    `FSD50K.eval_audio`. The column `split` of `dev.csv` divides it into training and validation; eval is the test.

    Args:
        folder: The data set's folder.

    Returns:
        One row per clip; the classes are in the order of the official vocabulary.

    Raises:
        FileNotFoundError: if a table, or the audio of any of its rows, is missing.
        ValueError: if a label is not in the vocabulary, or a clip is listed twice.
    """
    folder = Path(folder)
    truth, layout = folder / "FSD50K.ground_truth", "a folder in the layout of FSD50K holds FSD50K.ground_truth"
    dev = read_table(truth / "dev.csv", ("fname", "labels", "split"), layout)
    evaluation = read_table(truth / "eval.csv", ("fname", "labels"), layout)
    names = [line.split(",")[1] for line in _read_list(truth / "vocabulary.csv")]
    position = {name: label for label, name in enumerate(names)}
    unknown = sorted({name for row in dev + evaluation for name in row["labels"].split(",")} - set(position))
    if unknown:
        raise ValueError(f"Labels are in vocabulary.csv, and these are not: {some(unknown)}. Use the official files.")
    # The audio has no suffix in the tables; any is looked for.
    audio = find_audio(folder / "FSD50K.dev_audio", [f"{row['fname']}.wav" for row in dev])
    audio += find_audio(folder / "FSD50K.eval_audio", [f"{row['fname']}.wav" for row in evaluation])
    parts = [{"train": "train", "val": "validation"}[row["split"]] for row in dev] + ["test"] * len(evaluation)
    return labelled_dataset(
        identify("FSD50K", len(names), parts, OFFICIAL_SIZES),
        names,
        audio=audio,
        labels=[[position[name] for name in row["labels"].split(",")] for row in dev + evaluation],
        parts=parts,
        sources=[row["fname"] for row in dev + evaluation],
        multi_label=True,
    )


BENCHMARKS: dict[str, Callable[[str | Path], Dataset]] = {
    "esc50": load_esc50,
    "esc10": lambda folder: load_esc50(folder, only_esc10=True),
    "urbansound8k": load_urbansound8k,
    "speech_commands": load_speech_commands,
    "fsd50k": load_fsd50k,
    "vivae": load_vivae,
    "crema_d": load_crema_d,
    **dict.fromkeys(("nsynth_pitch", "vocal_imitation", "libricount", "hear"), load_hear_task),
}
"""Loaders by name. A folder of HEAR's is read as such whatever the name, which says what task it must be; `hear` is
any of its tasks."""

_LANDMARKS = {
    "meta/esc50.csv": "esc50",
    "metadata/UrbanSound8K.csv": "urbansound8k",
    "esc50.csv": "esc50",
    "UrbanSound8K.csv": "urbansound8k",
    "testing_list.txt": "speech_commands",
    "FSD50K.ground_truth": "fsd50k",
    METADATA: "hear",
    "full_set": "vivae",
    "core_set": "vivae",
    "AudioWAV": "crema_d",
}


def detect_benchmark(folder: str | Path) -> str | None:
    """The name in `BENCHMARKS` of the layout that a folder has; None if it has none of them."""
    return next((name for mark, name in _LANDMARKS.items() if (Path(folder) / mark).exists()), None)


def load_benchmark(name: str, folder: str | Path) -> Dataset:
    """Load one of the benchmarks.

    Args:
        name: One of `BENCHMARKS`, or "auto" to tell from what the folder holds.
        folder: The folder as unpacked.

    Returns:
        As its loader does.

    Raises:
        ValueError: if the name is unknown, "auto" finds no benchmark, or the folder is that of another task of HEAR.
        FileNotFoundError: as its loader does.

    Example:
        >>> load_benchmark("esc5", ".")
        Traceback (most recent call last):
        ...
        ValueError: `name` is auto, esc50, esc10, urbansound8k, speech_commands, fsd50k, vivae, crema_d, \
nsynth_pitch, vocal_imitation, libricount or hear, and got 'esc5'.
    """
    if name == "auto":
        found = detect_benchmark(folder)
        if found is None:
            raise ValueError(
                f"{folder} holds none of {', '.join(_LANDMARKS)}, which tell the benchmarks apart. Give the folder "
                "that was unpacked from the official archive."
            )
        name = found
    if name not in BENCHMARKS:
        *names, last = BENCHMARKS
        raise ValueError(f"`name` is auto, {', '.join(names)} or {last}, and got {name!r}.")
    if is_hear_task(folder):
        return load_hear_task(folder, None if name == "hear" else name)
    return BENCHMARKS[name](folder)


def _table(folder: Path, name: str) -> Path:
    """Where a table lies: as published, or at the top, where mirrors put it."""
    at_the_top = folder / Path(name).name
    return at_the_top if at_the_top.is_file() and not (folder / name).is_file() else folder / name


def _class_names(pairs: Iterable[tuple[str, str]]) -> dict[int, str]:
    """Target to name, by rising target."""
    names: dict[int, str] = {}
    for text, category in pairs:
        if names.setdefault(int(text), category) != category:
            raise ValueError(
                f"A target has one category, and target {text} is {names[int(text)]!r} and {category!r}. "
                "Use the official table."
            )
    return dict(sorted(names.items()))


def _read_list(path: Path) -> list[str]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing. Give the folder that was unpacked from the official archive.")
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
