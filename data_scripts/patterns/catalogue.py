"""Catalogues: which class an image is of, and the constants of a class, the same in every stream of images.

The class of image i of seed s is drawn from (s, i) like everything else, so neighbouring images are of different
classes. The constants of a class are drawn from its number alone: class 7 is the same fractal whatever the seed.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from audiopg.data_scripts.counter_random import uniform
from audiopg.data_scripts.patterns.pattern_set import Drawing
from audiopg.data_scripts.synthesis import Choice, Range

CATALOGUE_SEED = 20250112
"""The seed of every catalogue. Another one would be other classes."""


def class_range(num_classes: int, description: str) -> Range:
    """The range `class` of a set: whole numbers from 0 on, and none beyond its last class."""
    return Range(0, num_classes - 1, "", description, integer=True, maximum=num_classes - 1)


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


@dataclass(frozen=True)
class Constant(Range):
    """A range of one value, which all images share; its ends are equal.

    Example:
        >>> Constant(3, 6, "px", "edge").validate("padding")
        Traceback (most recent call last):
        ...
        ValueError: padding: one number for all images, got (3, 6); give one.
    """

    def validate(self, name: str) -> None:
        """As of `Range`, and raise ValueError if the ends differ."""
        super().validate(name)
        if self.low != self.high:
            raise ValueError(f"{name}: one number for all images, got ({self.low}, {self.high}); give one.")


def constant(ranges: Mapping[str, Range | Choice], name: str) -> float:
    """The value of a range that is a `Constant`.

    Raises:
        TypeError: if it is another, whose values differ from image to image.

    Example:
        >>> constant({"padding": Constant(6, 6, "px", "edge")}, "padding")
        6
    """
    only = ranges[name]
    if not isinstance(only, Constant):
        raise TypeError(f"{name} is a Constant where all images share its value, got {only}; declare it as one.")
    return only.low
