"""The folder of a run: claimed by one recipe, and refused to any other.

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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from audiopg.training.runs.checkpoints import checkpoints_of
from audiopg.training.runs.files import write_atomically
from audiopg.training.runs.recipes import differences, load_recipe, plain

MAY_CHANGE = frozenset(
    {"name", "description", "micro_batch_size", "compile", "precision", "max_minutes"}
    | {"log_every", "checkpoint_every", "keep_checkpoints", "milestones"}
)
"""Fields of a recipe that move neither clips nor masks nor the schedule: a run may go on with others.

What `precision` comes to on a machine is kept in `begun_with.json`, and may not change.
"""

_FIRST_FIELDS = (
    *("size", "num_clips", "preset", "model", "synthesis", "recordings", "init_from", "seed", "batch_size"),
    *("learning_rate", "schedule", "warmup_fraction", "weight_decay", "betas", "max_grad_norm", "statistics_clips"),
)
"""What a run's fingerprint was made of before `begun_with.json`."""


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
        ValueError: if the folder belongs to another run, with what differs.
    """
    path, beside = folder / "recipe.yaml", folder / "begun_with.json"
    was_trained = checkpoints_of(folder) or any((folder / name).exists() for name in ("metrics.jsonl", "run.json"))
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
    return name_of(folder, theirs)


def read_begun_with(folder: Path) -> dict[str, Any]:
    """What a run was begun with; of older runs, the version of the synthesizer that its statistics name."""
    path, statistics = folder / "begun_with.json", folder / "statistics.json"
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    measured = json.loads(statistics.read_text(encoding="utf-8")) if statistics.exists() else {}
    was_inherited = "kept_from" in measured or "synthesizer_version" not in measured
    return {} if was_inherited else {"synthesizer": measured["synthesizer_version"]}
