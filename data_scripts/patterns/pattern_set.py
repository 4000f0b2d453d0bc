"""What a set of synthetic images is: named ranges, a picture made of numbers drawn from them, perhaps classes.

Image i of seed s is the same in any batch and process, and on any device up to rounding: whatever is random in it is
drawn by its name from (seed, index), as in `counter_random`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from audiopg.data_scripts.counter_random import normal, random_bits, uniform
from audiopg.data_scripts.synthesis import validated_indices

PATTERNS_VERSION = "0.1.0"
"""Changes whenever any image of any set changes; recorded wherever images are used."""

SIZE = 224
"""Side of an image in pixels where nothing else is asked for: that of ImageNet's models."""

SMALLEST = 32
"""Smallest side in pixels: below it most sets have nothing to show."""


def elements_at_once(device: torch.device) -> int:
    """Elements of a temporary tensor that fits into a CPU's cache, or keeps another device busy.

    Example:
        >>> elements_at_once(torch.device("cpu"))
        131072
    """
    return 1 << 17 if device.type == "cpu" else 1 << 25


@contextmanager
def whole_convolutions() -> Iterator[None]:
    """Convolutions of a GPU in float32 instead of TF32, of 10 bits, which PyTorch allows them unasked.

    Example:
        >>> with whole_convolutions():
        ...     torch.backends.cudnn.allow_tf32
        False
        >>> torch.backends.cudnn.allow_tf32
        True
    """
    cudnn = torch.backends.cudnn
    with cudnn.flags(
        enabled=cudnn.enabled, benchmark=cudnn.benchmark, deterministic=cudnn.deterministic, allow_tf32=False
    ):
        yield


@dataclass(frozen=True)
class Drawing:
    """The images that are asked for, and where their numbers come from.

    Args:
        seed: The stream of images.
        indices: Which images, int64, shape `(batch,)`, on the device that makes them.
        size: Side of an image in pixels.
        ranges: Of the set, each a `Range` or a `Choice`.
    """

    seed: int
    indices: Tensor
    size: int
    ranges: Mapping[str, Any]

    @property
    def device(self) -> torch.device:
        """Where to compute."""
        return self.indices.device

    def sample(self, name: str, *size: int) -> Tensor:
        """Numbers of the range `name`, shape `(batch, *size)`."""
        return self.ranges[name].sample(self.uniform(name, *size))

    def uniform(self, name: str, *size: int) -> Tensor:
        """Uniform numbers in [0, 1), float64, shape `(batch, *size)`."""
        return uniform(self.seed, self.indices, name, size)

    def normal(self, name: str, *size: int) -> Tensor:
        """Numbers of the standard normal distribution, float64, shape `(batch, *size)`."""
        return normal(self.seed, self.indices, name, size)

    def of(self, positions: Tensor) -> "Drawing":
        """Some of the images alone, int64 positions in the batch, shape `(some,)`."""
        return replace(self, indices=self.indices[positions])

    def keys(self, name: str) -> Tensor:
        """64 random bits per image, for `white_noise`, shape `(batch,)`."""
        return random_bits(self.seed, self.indices, name)


@dataclass(frozen=True)
class PatternSet:
    """A family of images.

    Args:
        name: How it is called.
        description: One sentence.
        source: Who has described it, and where this one differs.
        ranges: Everything that varies, and every constant, each a `Range` or a `Choice` with its unit and meaning.
        make: From what is asked for to images in [0, 1], float32, shape `(batch, 3, size, size)`: rows from the top,
            red first.
        labels: From what is asked for to classes from 0 on, int64, shape `(batch,)`; None for a set without classes.
        num_classes: How many there are, up to the last one that the range `class` allows.
        class_name: What a class is: fractal, atom, program.
        overrides: Which ranges differ from those of the set of that name, see `get_patterns`.
    """

    name: str
    description: str
    source: str
    ranges: Mapping[str, Any]
    make: Callable[[Drawing], Tensor]
    labels: Callable[[Drawing], Tensor] | None = None
    num_classes: int = 0
    class_name: str = ""
    overrides: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def drawing(
        self, seed: int, indices: Tensor | Iterable[int], size: int = SIZE, device: torch.device | str = "cpu"
    ) -> Drawing:
        """What `make` and `labels` take.

        Args:
            seed: Any integer of 64 bits.
            indices: Whole numbers from 0 on.
            size: Side of an image in pixels, 32 or more.
            device: Where to make them.

        Raises:
            ValueError: for a size that is no whole number from 32 on, no indices, or negative ones.
        """
        if not isinstance(size, int) or size < SMALLEST:
            raise ValueError(f"{self.name}: size is a whole number of pixels, {SMALLEST} or more, got {size!r}.")
        return Drawing(seed, validated_indices(indices, "image").to(device), size, self.ranges)

    def images(
        self, seed: int, indices: Tensor | Iterable[int], size: int = SIZE, device: torch.device | str = "cpu"
    ) -> Tensor:
        """The images `indices` of the stream `seed`; arguments as of `drawing`.

        Returns:
            In [0, 1], float32, shape `(batch, 3, size, size)`.

        Raises:
            ValueError: as `drawing`.
        """
        return self.make(self.drawing(seed, indices, size, device))

    def classes(self, seed: int, indices: Tensor | Iterable[int], device: torch.device | str = "cpu") -> Tensor:
        """Which class each of the images is of; arguments as of `drawing`.

        Returns:
            From 0 to `num_classes` - 1, int64, shape `(batch,)`.

        Raises:
            ValueError: if this set has no classes, or as `drawing`.
        """
        if self.labels is None:
            raise ValueError(
                f"{self.name} has no classes; choose a set that has (its num_classes is above 0), or train without."
            )
        return self.labels(self.drawing(seed, indices, device=device))
