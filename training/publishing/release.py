"""Released checkpoints: folders under `checkpoints/`, each whole, and small enough for a repository."""

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from audiopg.training.objectives.recipe import PretrainingRecipe
from audiopg.training.publishing.demonstration import run_demo
from audiopg.training.runs.files import written_aside
from audiopg.training.runs.recipes import load_recipe, parse_overrides

MOST_MEGABYTES = {"tiny": 20, "small": 60}
"""What the files of a release may come to, by the word of its name that tells the size."""

PARTS = ("config.json", "model.safetensors", "preprocessor_config.json", "README.md", "results.json")
"""Every release has these, and the code that its configuration names; a pre-training also `provenance.json`."""


def check_release(folder: Path) -> None:
    """Make sure that a folder may be released: all its parts are there, and it is small enough for its name.

    Args:
        folder: As an export wrote it.

    Raises:
        ValueError: with what is missing or too large, and the remedy.

    Example:
        >>> check_release(getfixture("tmp_path"))
        Traceback (most recent call last):
        ...
        ValueError: ... is no whole release, config.json, ..., results.json is missing; let `make release` write it.
    """
    missing = [part for part in PARTS if not (folder / part).is_file()]
    if "config.json" not in missing:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        code = [f"{place.partition('.')[0]}.py" for place in config.get("auto_map", {}).values()]
        missing += [name for name in dict.fromkeys(code) if not (folder / name).is_file()]
        if not any("Classification" in name for name in config["architectures"]):
            missing += ["provenance.json"] if not (folder / "provenance.json").is_file() else []
    if missing:
        raise ValueError(
            f"{folder} is no whole release, {', '.join(missing)} is missing; let `make release` write it."
        )
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    most = most_megabytes(folder.name)
    if size > most:
        raise ValueError(
            f"{folder} holds {size:.1f} MB, and {folder.name} may have {most} in a repository; store its weights in "
            "float16 or bfloat16 (--dtype), or train a smaller encoder."
        )


def most_megabytes(name: str) -> int:
    """What a release of this name may come to.

    Raises:
        ValueError: if the name tells no size.

    Example:
        >>> most_megabytes("audiopg-tiny-esc10")
        20
    """
    found = [most for size, most in MOST_MEGABYTES.items() if size in name.split("-")]
    if len(found) != 1:
        raise ValueError(
            f"The name of a release has one of the words {', '.join(MOST_MEGABYTES)}, between hyphens, got {name!r}; "
            "larger models go to the Hub by training/export.py --push_to_hub."
        )
    return found[0]


def recipe_of(name: str, overrides: Sequence[str] = ()) -> PretrainingRecipe:
    """The recipe that a release is made by, which has its name.

    Raises:
        ValueError: if there is none.

    Example:
        >>> recipe_of("audiopg-tiny").name
        'audiopg-tiny'
    """
    recipe = load_recipe(PretrainingRecipe, recipe_name(name), parse_overrides(overrides))
    if recipe.name != name:
        raise ValueError(f"A release has the name of its recipe, {recipe.name!r}, got {name!r}; give that.")
    return recipe


def recipe_name(name: str) -> str:
    """The file of a release's recipe, without its ending.

    Example:
        >>> recipe_name("audiopg-tiny")
        'audiopg_tiny'
    """
    return name.replace("-", "_")


def release(
    name: str, overrides: Sequence[str], data_dirs: Sequence[str | Path], dtype: str, runs: Path, checkpoints: Path
) -> dict[str, Any]:
    """Pre-train, export and measure as `run_demo` does, and put the folder among the released checkpoints.

    Args:
        name: Of the release and of its recipe.
        overrides: Of the recipe's fields, as command-line words.
        data_dirs: Labelled recordings to probe on.
        dtype: As for `run_demo`.
        runs: `runs/NAME` is the run's folder. It stays: stopped or killed, the same call goes on from its last
            checkpoint, and a run that finished, here or elsewhere, is not made again.
        checkpoints: `checkpoints/NAME` receives the release, in place of an older one.

    Returns:
        As `run_demo`.

    Raises:
        ValueError, OSError: as `run_demo`, or if the release is too large; an older one is then as it was.
    """
    most_megabytes(name)
    recipe_of(name, overrides)
    checkpoints.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        results = run_demo(recipe_name(name), overrides, Path(scratch), data_dirs, run_folder=runs / name, dtype=dtype)
        check_release(Path(scratch) / name)
        with written_aside(checkpoints / name) as partial:
            shutil.copytree(Path(scratch) / name, partial)
    return results
