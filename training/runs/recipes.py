"""Recipes: YAML files that become dataclasses, any field of which can be overridden on the command line.

Unknown fields, wrong types and impossible values are refused before anything runs, with the nearest name that exists.
"""

import argparse
import difflib
import re
import types
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

Recipe = TypeVar("Recipe")

RECIPES = Path(__file__).parents[1] / "recipes"


class _Loader(yaml.SafeLoader):
    """The safe loader, which also reads 1e-4 as a number: YAML 1.1 takes it for text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


@dataclass(frozen=True)
class PretrainingRecipe:
    """Everything that defines a pre-training run. Two runs of one recipe see the same clips in the same order.

    Args:
        name: Names the run's folder and the model.
        description: One sentence: what it reproduces or is for.
        size: Size of the model: tiny, small or base.
        model: Overrides of `AudioPGConfig`.
        num_clips: How many clips are seen, each once; rounded up to whole batches. Of recordings, each is seen once
            per pass over the folder.
        preset: Preset of the synthesizer; empty where recordings are read instead.
        synthesis: Overrides of the preset's ranges, `duration` and `sampling_rate` included.
        recordings: Fields of `RecordingsRecipe`, to train on real audio instead of a preset.
        init_from: An AudioPG folder whose weights and standardisation the run starts from; None starts from scratch.
        seed: Seed of the clips, the masks and the initial weights.
        batch_size: Clips per step over all processes.
        micro_batch_size: Clips that one process takes at a time, the gradient being accumulated; None takes its whole
            share. It changes memory and speed alone.
        max_minutes: The run ends after this wall-clock time if it has not seen `num_clips` by then.
        learning_rate: Peak of the schedule.
        schedule: `constant` or `cosine` (to zero), both after the warm-up.
        warmup_fraction: Share of the steps in which the learning rate rises from zero.
        weight_decay: AdamW's, on matrices alone.
        betas: AdamW's.
        max_grad_norm: Gradients are clipped to this norm.
        statistics_clips: How many of the run's first clips the standardisation is measured on.
        log_every: Steps from one logged loss to the next.
        checkpoint_every: Steps from one checkpoint to the next.
        keep_checkpoints: How many of the newest checkpoints stay.
        milestones: Steps with a checkpoint that stays for ever, to study how the weights came about.
        compile: Whether to compile the model, whose shapes never change: minutes at the start, less time per step.
    """

    name: str
    description: str
    size: str
    num_clips: int
    preset: str = ""
    model: dict[str, Any] = field(default_factory=dict)
    synthesis: dict[str, Any] = field(default_factory=dict)
    recordings: dict[str, Any] = field(default_factory=dict)
    init_from: str | None = None
    seed: int = 0
    batch_size: int = 64
    micro_batch_size: int | None = None
    max_minutes: float | None = None
    learning_rate: float = 1e-4
    schedule: str = "constant"
    warmup_fraction: float = 0.0
    weight_decay: float = 0.05
    betas: list[float] = field(default_factory=lambda: [0.9, 0.95])
    max_grad_norm: float = 1.0
    statistics_clips: int = 512
    log_every: int = 10
    checkpoint_every: int = 500
    keep_checkpoints: int = 2
    milestones: list[int] = field(default_factory=list)
    compile: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        if bool(self.preset) == bool(self.recordings):
            raise ValueError(
                "A recipe has either a preset, to synthesize clips, or recordings, to read them, got "
                f"preset {self.preset!r} and recordings {self.recordings}; set one and empty the other."
            )
        for name in (
            "num_clips",
            "batch_size",
            "statistics_clips",
            "log_every",
            "checkpoint_every",
            "keep_checkpoints",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is 1 or more, got {getattr(self, name)}.")
        if self.micro_batch_size is not None and self.micro_batch_size < 1:
            raise ValueError(f"micro_batch_size is 1 or more, got {self.micro_batch_size}.")
        if self.micro_batch_size is not None and self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"micro_batch_size divides batch_size, {self.batch_size}, got {self.micro_batch_size}; parts of a "
                "step must be equal for their mean to be that of the step."
            )
        if any(step < 1 for step in self.milestones):
            raise ValueError(f"milestones are steps, 1 or more, got {self.milestones}.")
        for name in ("learning_rate", "max_grad_norm", "max_minutes"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise ValueError(f"{name} is above 0, got {getattr(self, name)}.")
        if self.schedule not in ("constant", "cosine"):
            raise ValueError(f"schedule is constant or cosine, got {self.schedule!r}.")
        if not 0 <= self.warmup_fraction < 1:
            raise ValueError(f"warmup_fraction is at least 0 and below 1, got {self.warmup_fraction}.")
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay is 0 or more, got {self.weight_decay}.")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas are two numbers at least 0 and below 1, got {self.betas}.")

    @property
    def num_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return -(-self.num_clips // self.batch_size)


@dataclass(frozen=True)
class RecordingsRecipe:
    """Which recordings a run is trained on, and how clips are cut from them.

    Args:
        folder: A folder that is searched for audio files, or a data set that `datasets` saved to disk, with a column
            `audio`. With a `split`, whatever `datasets.load_dataset` takes, on the Hub or on disk: it is streamed.
        split: Of a data set that is streamed, such as `train`; it too has a column `audio`.
        duration: Length of a clip in s; longer recordings are cropped at random, shorter ones repeated.
        sampling_rate: In Hz; everything is resampled to it.
        max_unreadable: So many files that cannot be read are skipped and named; one more ends the run.
    """

    folder: str
    split: str | None = None
    duration: float = 10.24
    sampling_rate: int = 16000
    max_unreadable: int = 10

    def __post_init__(self) -> None:
        """Refuse what cannot be cut."""
        if not 0.025 <= self.duration <= 3600:
            raise ValueError(f"recordings.duration lies between 0.025 and 3600 s, got {self.duration}.")
        if self.sampling_rate < 1000:
            raise ValueError(f"recordings.sampling_rate is 1000 Hz at least, got {self.sampling_rate}.")
        if self.max_unreadable < 0:
            raise ValueError(f"recordings.max_unreadable is 0 or more, got {self.max_unreadable}.")

    @property
    def num_samples(self) -> int:
        """Length of a clip in samples."""
        return round(self.duration * self.sampling_rate)


def _checked(name: str, value: Any, annotation: Any) -> Any:
    """`value` as the annotated type; whole numbers pass as floats, nothing else is converted."""
    if annotation is Any:
        return value
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        return _checked(name, value, next(kind for kind in inner if kind is not type(None)))
    if origin is list and isinstance(value, list):
        return [_checked(f"{name}[{i}]", item, inner[0]) for i, item in enumerate(value)]
    if annotation is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    expected = origin or annotation
    if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
        raise ValueError(f"{name} is of type {expected.__name__}, got {value!r}.")
    return value


def build_recipe(kind: type[Recipe], values: dict[str, Any]) -> Recipe:
    """A recipe out of plain values.

    Args:
        kind: The recipe's dataclass.
        values: Its fields.

    Returns:
        The recipe.

    Raises:
        ValueError: for a field that does not exist (with the nearest that does), is missing, or has a wrong type or
            value.

    Example:
        >>> build_recipe(PretrainingRecipe, {"naem": "x"})
        Traceback (most recent call last):
        ...
        ValueError: PretrainingRecipe has no field 'naem'; did you mean 'name'?
    """
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"its fields are {', '.join(known)}."
            raise ValueError(f"{kind.__name__} has no field {name!r}; {hint}")
    missing = [
        n for n, f in known.items() if n not in values and f.default is MISSING and f.default_factory is MISSING
    ]
    if missing:
        raise ValueError(f"{kind.__name__} needs the fields {', '.join(missing)}; add them to the recipe.")
    annotations = get_type_hints(kind)
    return kind(**{name: _checked(name, value, annotations[name]) for name, value in values.items()})


def parse_overrides(arguments: Sequence[str]) -> dict[str, Any]:
    """Command-line words to nested values: `--learning_rate 1e-3 --synthesis.f0 [50,4000]`.

    Args:
        arguments: Pairs of `--field value` or single words `--field=value`; values are YAML, a dot enters a mapping.

    Returns:
        The values, mappings nested.

    Raises:
        ValueError: for a word that is neither, or a value that is not YAML.

    Example:
        >>> parse_overrides(["--num_clips", "64", "--synthesis.f0=[50, 4e3]"])
        {'num_clips': 64, 'synthesis': {'f0': [50, 4000.0]}}
    """
    words = list(arguments)
    overrides: dict[str, Any] = {}
    while words:
        word = words.pop(0)
        if not word.startswith("--") or ("=" not in word and not words):
            raise ValueError(f"Overrides are pairs such as `--num_clips 1000`, got {word!r}.")
        path, _, text = word[2:].partition("=")
        text = text if "=" in word else words.pop(0)
        try:
            value = yaml.load(text, Loader=_Loader)  # a subclass of the safe loader
        except yaml.YAMLError as error:
            raise ValueError(f"--{path}: {text!r} is not a value that YAML can read; quote it.") from error
        *mappings, name = path.split(".")
        target = overrides
        for mapping in mappings:
            target = target.setdefault(mapping, {})
        target[name] = value
    return overrides


def _merged(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`values` with `changes`: a mapping is extended, anything else replaced."""
    merged = dict(values)
    for name, value in changes.items():
        extends = isinstance(value, dict) and isinstance(values.get(name), dict)
        merged[name] = {**values[name], **value} if extends else value
    return merged


def _read_values(path: Path) -> dict[str, Any]:
    if not path.is_file():
        names = ", ".join(sorted(p.stem for p in RECIPES.glob("*.yaml")))
        raise ValueError(f"A recipe is a YAML file or one of {names}; found nothing at {path}.")
    values = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    if not isinstance(values, dict):
        raise ValueError(f"{path}: a recipe maps fields to values, got {type(values).__name__}.")
    return values


def load_recipe(kind: type[Recipe], path: Path | str, overrides: dict[str, Any] | None = None) -> Recipe:
    """Read a recipe file and apply overrides; a mapping is extended by an override, anything else replaced.

    A file may begin with `extends: NAME`: then it holds only what differs from the recipe NAME beside it, which
    extends no other.

    Args:
        kind: The recipe's dataclass.
        path: A YAML file, or the bare name of one of the recipes that come with the package.
        overrides: As from `parse_overrides`.

    Returns:
        The recipe.

    Raises:
        ValueError: if there is no such file, it is not a mapping, or as `build_recipe`.

    Example:
        >>> load_recipe(PretrainingRecipe, "base").num_clips
        500000
    """
    path = Path(path) if Path(path).suffix else RECIPES / f"{path}.yaml"
    values = _read_values(path)
    if "extends" in values:
        parent = _read_values(path.parent / f"{values.pop('extends')}.yaml")
        if "extends" in parent:
            raise ValueError(f"{path} extends a recipe that extends another; one step is allowed: repeat its fields.")
        values = _merged(parent, values)
    return build_recipe(kind, _merged(values, overrides or {}))


def recipe_parser(description: str | None, default_output: str) -> argparse.ArgumentParser:
    """The command line that scripts with a recipe share: recipe, `--output_dir`, then any field of the recipe."""
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Any field of the recipe can be overridden: --num_clips 1000 --synthesis.f0 '[50, 4000]'",
        allow_abbrev=False,
    )
    parser.add_argument("recipe", help="a YAML file, or the name of a recipe of the package, such as tiny")
    parser.add_argument("--output_dir", type=Path, help=f"folder of the run; default {default_output}")
    return parser
