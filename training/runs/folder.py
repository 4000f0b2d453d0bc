"""The folder of a run: claimed by one recipe, and refused to any other.

What lies in it:

    recipe.yaml       what was asked for
    begun_with.json   what the recipe does not say and the run may not change: versions of what makes its examples,
                      the precision that it computes in
    statistics.json   what was measured before the first step
    checkpoints/      see `checkpoints`
    metrics.jsonl     see `metrics_log`
    run.json          the facts of a finished run
"""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from audiopg.training.runs.checkpoints import checkpoints_of
from audiopg.training.runs.files import PARTIAL, read_json, write_atomically, writing
from audiopg.training.runs.recipes import differences, load_recipe, plain

MAY_CHANGE = frozenset(
    {"name", "description", "micro_batch_size", "compile", "precision", "max_minutes"}
    | {"log_every", "checkpoint_every", "keep_checkpoints", "milestones", "embedding"}
)
"""Fields of a recipe that move neither clips nor masks nor the schedule: a run may go on with others.

What `precision` comes to on a machine is kept in `begun_with.json`, and may not change.
"""

_OWN = {"recipe.yaml", "begun_with.json", "statistics.json", "checkpoints", "metrics.jsonl", "tensorboard", "run.json"}

_FIRST_FIELDS = (
    *("size", "num_clips", "preset", "model", "synthesis", "recordings", "init_from", "seed", "batch_size"),
    *("learning_rate", "schedule", "warmup_fraction", "weight_decay", "betas", "max_grad_norm", "statistics_clips"),
)
"""What a run's fingerprint was made of before `begun_with.json`."""


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Have a folder to oneself for as long as the block takes: another command is refused, not waited for.

    The lock is the system's, on the file `.lock`, and ends with the process, however that ends; the file stays.

    Args:
        folder: Created if missing.

    Raises:
        ValueError: if another command is at work there.
        OSError: if the folder cannot be written to, or its file system has no locks.

    Example:
        >>> folder = getfixture("tmp_path")
        >>> with held(folder), held(folder):
        ...     pass
        Traceback (most recent call last):
        ...
        ValueError: Another command is at work in ...; wait for its end, or choose another folder.
    """
    path = folder / ".lock"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        path.touch()  # the lock itself would say of a read-only place that somebody else has it
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise ValueError(
            f"Another command is at work in {folder}; wait for its end, or choose another folder."
        ) from error
    except NotImplementedError as error:
        raise OSError(
            f"{folder} lies on a file system without locks ({error}); choose a folder on another."
        ) from error
    try:
        yield
    finally:
        lock.release()


def refuse_foreign(folder: Path, own: Collection[str], what: str) -> None:
    """Make sure that a folder that is about to be claimed holds nothing of anybody else's.

    Hidden files, and what killed processes left, count for nothing.

    Args:
        folder: May be missing.
        own: Names that what is claimed for gives to its files.
        what: Is claimed for, for the message.

    Raises:
        ValueError: with what was found.

    Example:
        >>> folder = getfixture("tmp_path")
        >>> (folder / "thesis.tex").touch()
        >>> refuse_foreign(folder, {"run.json"}, "a fine-tuning")
        Traceback (most recent call last):
        ...
        ValueError: ... holds thesis.tex, which is not of a fine-tuning; choose another folder, or an empty one.
    """
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    foreign = [name for name in names if name not in own and not name.startswith(".") and not name.endswith(PARTIAL)]
    if foreign:
        listed = ", ".join(foreign[:3]) + f" and {len(foreign) - 3} more" * (len(foreign) > 3)
        raise ValueError(f"{folder} holds {listed}, which is not of {what}; choose another folder, or an empty one.")


def identity(recipe: Any, begun_with: Mapping[str, Any]) -> dict[str, Any]:
    """All that defines a run: fields that differ from their defaults, so that a new field with a default orphans none.

    Args:
        recipe: A dataclass.
        begun_with: As in `begun_with.json`.

    Returns:
        Plain values.
    """
    fields = {name: value for name, value in differences(recipe).items() if name not in MAY_CHANGE}
    return {**fields, "begun_with": dict(begun_with)}


def fingerprint(recipe: Any, begun_with: Mapping[str, Any]) -> str:
    """A short name of the run that these define, equal where nothing differs but `MAY_CHANGE`."""
    return _digest(identity(recipe, begun_with))


def name_of(folder: Path, recipe: Any) -> str:
    """The name that the checkpoints of a run found on a disk carry.

    Args:
        folder: The run's.
        recipe: As read from it.
    """
    if (folder / "begun_with.json").exists():
        return fingerprint(recipe, read_begun_with(folder))
    values = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))
    return _digest({name: values[name] for name in _FIRST_FIELDS})


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def claim(folder: Path, recipe: Any, begun_with: Mapping[str, Any]) -> str:
    """Make a folder this run's, or make sure that a run found there is this one.

    A folder in which nothing was trained yet is nobody's: a command that failed leaves the way free for the next. One
    process of a run calls this.

    Args:
        folder: The run's.
        recipe: A dataclass.
        begun_with: What else may not change.

    Returns:
        The name that the run's checkpoints carry.

    Raises:
        ValueError: if the folder belongs to another run, with what differs, or to something else.
    """
    path, beside = folder / "recipe.yaml", folder / "begun_with.json"
    was_trained = checkpoints_of(folder) or any((folder / name).exists() for name in ("metrics.jsonl", "run.json"))
    if not path.exists():
        refuse_foreign(folder, _OWN, "a pre-training")
    if not (path.exists() and was_trained):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "statistics.json").unlink(missing_ok=True)
        write_atomically(beside, json.dumps(begun_with, indent=2))
        write_atomically(path, yaml.safe_dump(plain(recipe), sort_keys=False))
        return fingerprint(recipe, begun_with)
    theirs, theirs_begun_with = load_recipe(type(recipe), path), read_begun_with(folder)
    there = {**plain(theirs), **theirs_begun_with}
    here = {**plain(recipe), **{name: begun_with[name] for name in theirs_begun_with if name in begun_with}}
    changed = [
        f"{name}: {there.get(name)!r} there, {here.get(name)!r} here"
        for name in here
        if (name not in MAY_CHANGE or name in theirs_begun_with) and there.get(name) != here.get(name)
    ]
    if changed:
        listed = "\n  ".join(changed)
        raise ValueError(f"{folder} holds a run of another recipe; choose another --output_dir.\n  {listed}")
    if beside.exists() and plain(theirs) != plain(recipe):  # what may change is from now on as it is asked for
        write_atomically(path, yaml.safe_dump(plain(recipe), sort_keys=False))
    return name_of(folder, theirs)


def read_begun_with(folder: Path) -> dict[str, Any]:
    """What a run was begun with; of older runs, the version of the synthesizer that its statistics name."""
    path, statistics = folder / "begun_with.json", folder / "statistics.json"
    if path.exists():
        return read_json(path, "It says what the run may not change: restore it, or choose another --output_dir.")
    remedy = "Restore it, or choose another --output_dir."
    measured = read_json(statistics, remedy) if statistics.exists() else {}
    was_inherited = "kept_from" in measured or "synthesizer_version" not in measured
    return {} if was_inherited else {"synthesizer": measured["synthesizer_version"]}
