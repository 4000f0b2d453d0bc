"""Recipes: YAML files that become dataclasses, any field of which can be overridden on the command line.

Unknown fields, wrong types and impossible values are refused before anything runs, with the nearest name that exists.
A field whose type is another dataclass is a section: a mapping in YAML, a dot on the command line.
"""

import argparse
import copy
import difflib
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import docstring_parser
import jsonargparse
import yaml

Recipe = TypeVar("Recipe")

RECIPES = Path(__file__).parents[1] / "recipes"

_MOST_VALUES = 100_000
"""In one recipe; those of the package hold some 30."""

_MOST_SHOWN = 200
"""Characters of a text or value that a message repeats."""


class _Loader(yaml.SafeLoader):
    """The safe loader, which also reads 1e-4 as a number (YAML 1.1: text), and lets no key be given twice."""

    def get_single_node(self) -> yaml.Node | None:
        """The text as a tree, refused if its aliases would make it grow: a few lines can stand for billions of values.

        Nothing is built before this, and whoever shows or checks a value afterwards goes through all of it.
        """
        root = super().get_single_node()
        if root is not None:
            _count_values(root, {})
        return root

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        if not isinstance(node, yaml.MappingNode):
            raise yaml.constructor.ConstructorError(None, None, "a mapping was promised", node.start_mark)
        names = [key.value for key, _ in node.value]
        if twice := [name for name in names if names.count(name) > 1]:
            raise yaml.constructor.ConstructorError(None, None, f"{twice[0]!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _count_values(node: yaml.Node, counts: dict[int, int]) -> int:
    """Values that a node stands for, aliases written out.

    Args:
        node: Of a tree, or of what aliases made of one.
        counts: Of nodes that were met before, by their identity; 0 as long as one is being counted.

    Raises:
        yaml.constructor.ConstructorError: if there are too many, or a value holds itself.
    """
    if id(node) not in counts:
        counts[id(node)] = 0
        pairs = node.value if isinstance(node, yaml.CollectionNode) else []
        parts = [part for pair in pairs for part in (pair if isinstance(pair, tuple) else (pair,))]
        counts[id(node)] = 1 + sum(_count_values(part, counts) for part in parts)
    count = counts[id(node)]
    if not 0 < count <= _MOST_VALUES:
        what = f"it stands for more than {_MOST_VALUES} values" if count else "it holds itself"
        raise yaml.constructor.ConstructorError(None, None, f"{what}; write out what its aliases (*) repeat")
    return count


def _read_yaml(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)  # a subclass of the safe loader
    except RecursionError as error:
        raise ValueError(f"{where}: it is nested too deeply to be a recipe.") from error
    # The constructors of dates, numbers and tags have errors of their own.
    except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        shown = text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."
        raise ValueError(f"{where}: {shown!r} is not a value that YAML can read; quote it.\n{error}") from error


def _section(annotation: Any) -> Any:
    """The dataclass that a field holds, always or where it is not None."""
    is_union = isinstance(annotation, types.UnionType)
    kinds = typing.get_args(annotation) if is_union else (annotation,)
    return next((kind for kind in kinds if is_dataclass(kind)), None)


def _default(known: Field) -> Any:
    return known.default if known.default_factory is MISSING else known.default_factory()


@cache
def _parser_of(kind: type) -> jsonargparse.ArgumentParser:
    """A parser that knows, checks and describes the fields of `kind` and of its sections.

    It gets one argument for each plain value, and never a class: nothing that a recipe says can import one.
    """
    parser = jsonargparse.ArgumentParser(usage=argparse.SUPPRESS, add_help=False, exit_on_error=False)
    _add_fields(parser, kind, "", "Fields of the recipe, any of which can be overridden")
    return parser


def _add_fields(parser: jsonargparse.ArgumentParser, kind: Any, prefix: str, title: str) -> None:
    group = parser.add_argument_group(title)
    parameters = [p for base in reversed(kind.__mro__) for p in docstring_parser.parse(base.__doc__ or "").params]
    meanings = {p.arg_name: (p.description or "").replace("%", "%%") for p in parameters}
    annotations = typing.get_type_hints(kind)
    for known in fields(kind):
        name, annotation = f"{prefix}{known.name}", annotations[known.name]
        if section := _section(annotation):
            _add_fields(parser, section, f"{name}.", meanings.get(known.name, name).rstrip("."))
            continue
        default = _default(known)
        action = group.add_argument(
            f"--{name}",
            type=dict if typing.get_origin(annotation) is dict else annotation,  # a dict of Any would import classes
            default=argparse.SUPPRESS if default is MISSING else default,
            help=meanings.get(known.name, ""),
        )
        action.option_strings = [f"--{name}"]  # without the variant that appends to a list


def recipe_parser(description: str | None, kind: type) -> argparse.ArgumentParser:
    """The command line of a script with a recipe: its help ends with every field of `kind`.

    Words that it does not know are for `parse_overrides`.
    """
    return argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_parser_of(kind).format_help(),
        allow_abbrev=False,
    )


def _checked(kind: Any, name: str, value: Any, annotation: Any, path: str) -> Any:
    """`value` as the annotated type; whole numbers pass as floats, nothing else is converted."""
    ours = copy.deepcopy(value)  # the parser converts lists where they are
    try:
        read = _parser_of(kind).parse_object({name: ours}, env=False, defaults=False)[name]
        fits = read == value and (value is not None or type(None) in typing.get_args(annotation))
    except (jsonargparse.ArgumentError, OverflowError):  # the latter: a whole number beyond all floats
        fits = False
    if not fits:
        expected = annotation.__name__ if isinstance(annotation, type) else annotation
        shown = repr(value)
        shown = shown if len(shown) <= _MOST_SHOWN else f"{shown[:_MOST_SHOWN]}..."
        raise ValueError(f"{path} is of type {expected}, got {shown}.")
    return read


def build_recipe(kind: type[Recipe], values: dict[str, Any]) -> Recipe:
    """A recipe out of plain values.

    Args:
        kind: The recipe's dataclass.
        values: Its fields, sections as mappings; an empty section, `{}` or None, is as good as none.

    Returns:
        The recipe.

    Raises:
        ValueError: for a field that does not exist (with the nearest that does), is missing, or has a wrong type or
            value.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass
        ... class Tea:
        ...     minutes: float
        >>> build_recipe(Tea, {"minutes": 3})
        Tea(minutes=3.0)
        >>> build_recipe(Tea, {"minuets": 3})
        Traceback (most recent call last):
        ...
        ValueError: Tea has no field 'minuets'; did you mean 'minutes'?
    """
    return _build(kind, values, "")


def _build(kind: Any, values: Any, prefix: str) -> Any:
    owner = prefix[:-1] or kind.__name__
    if not isinstance(values, dict):
        raise ValueError(f"{owner} maps fields to values, got {values!r}.")
    known, annotations = {f.name: f for f in fields(kind)}, typing.get_type_hints(kind)
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"its fields are {', '.join(known)}."
            raise ValueError(f"{owner} has no field {name!r}; {hint}")
    if missing := [name for name in known if name not in values and _default(known[name]) is MISSING]:
        raise ValueError(f"{owner} needs the fields {', '.join(missing)}; add them to the recipe.")
    ready = {}
    for name, value in values.items():
        path, section = f"{prefix}{name}", _section(annotations[name])
        if section is None:
            ready[name] = _checked(kind, name, value, annotations[name], path)
        elif value not in (None, {}):
            ready[name] = _build(section, value, f"{path}.")
    return kind(**ready)


def given(section: Any) -> dict[str, Any]:
    """What a section sets, by name: its fields that are not None."""
    return {name: value for name, value in vars(section).items() if value is not None}


def plain(recipe: Any) -> dict[str, Any]:
    """A recipe as the values that `build_recipe` makes it of: every field, and what each section sets."""
    return {name: given(value) if is_dataclass(value) else value for name, value in vars(recipe).items()}


def differences(recipe: Any) -> dict[str, Any]:
    """What a recipe sets otherwise than its dataclass, sections as mappings; a new field with a default adds nothing.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass
        ... class Tea:
        ...     minutes: float
        ...     sugar: int = 0
        >>> differences(Tea(3.0))
        {'minutes': 3.0}
    """
    changed = {f.name: getattr(recipe, f.name) for f in fields(recipe) if getattr(recipe, f.name) != _default(f)}
    return {name: differences(value) if is_dataclass(value) else value for name, value in changed.items()}


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
        value = _read_yaml(text, f"--{path}") if text else text  # YAML: None; a shell's "" is empty text
        *mappings, name = path.split(".")
        target = overrides
        for mapping in mappings:
            target = target.setdefault(mapping, {})
            if not isinstance(target, dict):
                raise ValueError(f"--{path}: {mapping} was set to {target!r} before; set it or its fields.")
        target[name] = value
    return overrides


def extended(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with `changes`: a mapping is extended, anything else replaced.

    Example:
        >>> extended({"preset": "sine", "synthesis": {"duration": 2}}, {"synthesis": {"f0": 440}})
        {'preset': 'sine', 'synthesis': {'duration': 2, 'f0': 440}}
    """
    both = {name for name in changes if isinstance(changes[name], dict) and isinstance(values.get(name), dict)}
    return {**values, **changes, **{name: {**values[name], **changes[name]} for name in both}}


def _read_values(path: Path) -> dict[str, Any]:
    if not path.is_file():
        names = ", ".join(sorted(p.stem for p in RECIPES.glob("*.yaml")))
        raise ValueError(f"A recipe is a YAML file or one of {names}; found nothing at {path}.")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8 ({error}); save it as such.") from error
    values = _read_yaml(text, str(path))
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
    """
    path = Path(path) if Path(path).suffix else RECIPES / f"{path}.yaml"
    values = _read_values(path)
    if "extends" in values:
        parent = _read_values(path.parent / f"{values.pop('extends')}.yaml")
        if "extends" in parent:
            raise ValueError(f"{path} extends a recipe that extends another; one step is allowed: repeat its fields.")
        values = extended(parent, values)
    return build_recipe(kind, extended(values, overrides or {}))
