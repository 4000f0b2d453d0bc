"""Catalogues: which class an image is of, and the constants of a class, the same in every stream of images.

The class of image i of seed s is drawn from (s, i) like everything else, so neighbouring images are of different
classes. The constants of a class are drawn from its number alone: class 7 is the same fractal whatever the seed.
"""

from collections.abc import Mapping

from torch import Tensor

from audiopg.data_scripts.counter_random import uniform
from audiopg.data_scripts.patterns.pattern_set import Drawing
from audiopg.data_scripts.synthesis import Choice, Range

CATALOGUE_SEED = 20250112
"""The seed of every catalogue. Another one would be other classes."""


def class_range(num_classes: int, description: str) -> Range:
    """The range `class` of a set: whole numbers from 0 on."""
    return Range(0, num_classes - 1, "", description, integer=True)


def labels(drawing: Drawing) -> Tensor:
    """The classes of the images, int64, shape `(batch,)`: drawn from the range `class`."""
    return drawing.sample("class")


def class_constants(ranges: Mapping[str, Range | Choice], classes: Tensor, name: str, *size: int) -> Tensor:
    """Constants of classes: numbers of the range `name`, a function of the class alone.

    Args:
        ranges: Of the set.
        classes: int64, shape `(batch,)`.
        name: Which range.
        size: Shape of the constant within one class.

    Returns:
        Shape `(batch, *size)`, on the device of `classes`.

    Example:
        >>> import torch
        >>> ranges = {"lines": Range(1, 200, "", "lines", integer=True)}
        >>> a, b, c = class_constants(ranges, torch.tensor([7, 8, 7]), "lines").tolist()
        >>> a == c, a == b
        (True, False)
    """
    return ranges[name].sample(uniform(CATALOGUE_SEED, classes, name, size)).to(classes.device)


def constant(ranges: Mapping[str, Range | Choice], name: str) -> float:
    """The value of a range of one value.

    Raises:
        ValueError: if it is a range of more.

    Example:
        >>> constant({"padding": Range(6, 6, "px", "edge")}, "padding")
        6
    """
    only = ranges[name]
    if not isinstance(only, Range) or only.low != only.high:
        raise ValueError(f"{name}: one number for all images, got {only}; give one.")
    return only.low
