"""Images that no camera took: sets of synthetic patterns, each image a function of (set, seed, index)."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from audiopg.data_scripts.patterns.atoms import ATOMS
from audiopg.data_scripts.patterns.closed_form import CLOSED_FORM
from audiopg.data_scripts.patterns.dead_leaves import DEAD_LEAVES
from audiopg.data_scripts.patterns.feature_vis import FEATURE_VIS
from audiopg.data_scripts.patterns.fractals import FRACTALS
from audiopg.data_scripts.patterns.pattern_set import PATTERNS_VERSION, SIZE, Drawing, PatternSet
from audiopg.data_scripts.patterns.shaders import SHADERS
from audiopg.data_scripts.patterns.statistical import STATISTICAL
from audiopg.data_scripts.patterns.stylegan import STYLEGAN
from audiopg.data_scripts.patterns.time_frequency import TIME_FREQUENCY
from audiopg.data_scripts.synthesis import with_overrides

__all__ = ["OF_THE_PAPER", "PATTERNS", "PATTERNS_VERSION", "SIZE", "Drawing", "PatternSet", "get_patterns"]

PATTERNS: Mapping[str, PatternSet] = MappingProxyType(
    {
        patterns.name: patterns
        for patterns in (
            # A tuple of sets from each file; the order is that of sheets and tables.
            *FRACTALS,
            *ATOMS,
            SHADERS,
            *DEAD_LEAVES,
            *STATISTICAL,
            *STYLEGAN,
            *FEATURE_VIS,
            *CLOSED_FORM,
            *TIME_FREQUENCY,
        )
    }
)
"""All sets by name."""

OF_THE_PAPER = (
    "fractaldb",
    "visualatom",
    *(one.name for one in (SHADERS, *DEAD_LEAVES, *STATISTICAL, *STYLEGAN, *FEATURE_VIS)),
)
"""The 17 of "Pre-training with Synthetic Patterns for Audio": the first three for certain, the rest most probably."""


def get_patterns(patterns: str | PatternSet, **overrides: Any) -> PatternSet:
    """A set of images by name, any of its ranges overridden by name.

    Args:
        patterns: A name out of `PATTERNS`, or a set to vary further.
        overrides: `(low, high)` or one number for a `Range`, the list of values for a `Choice`.

    Returns:
        A set that records its overrides. Its classes end with the last of the range `class`, where it has one.

    Raises:
        ValueError: for an unknown set or range, a reversed or impossible range, or two ends for what is one number.

    Example:
        >>> smooth = get_patterns("power_law", exponent=(2, 3))
        >>> smooth.images(seed=0, indices=[7], size=32).shape, dict(smooth.overrides)
        (torch.Size([1, 3, 32, 32]), {'exponent': (2, 3)})
    """
    if isinstance(patterns, str):
        if patterns not in PATTERNS:
            raise ValueError(f"Sets of patterns are {', '.join(PATTERNS)}; got {patterns!r}.")
        patterns = PATTERNS[patterns]
    unknown = [name for name in overrides if name not in patterns.ranges]
    if unknown:
        raise ValueError(f"{patterns.name} has the ranges {', '.join(patterns.ranges)}; got {', '.join(unknown)}.")
    ranges = with_overrides(patterns.ranges, overrides)
    for name, distribution in ranges.items():
        distribution.validate(f"{patterns.name}: {name}")
    num_classes = int(ranges["class"].high) + 1 if "class" in ranges else patterns.num_classes
    overrides = {**patterns.overrides, **overrides}
    return replace(patterns, ranges=ranges, overrides=overrides, num_classes=num_classes)
