"""Images of a set of patterns as a data set of `datasets`: PNG, with class and index, made when asked for.

    dataset = AudioPGPatterns(patterns="shaders", num_images=1000).as_streaming_dataset(split="train")

As `audiopg_synthetic`, which does so for clips.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import datasets

from audiopg.data_scripts.audiopg_synthetic import AddressableRows, one_thread, shards_of, validate_stream
from audiopg.data_scripts.patterns import PATTERNS, PATTERNS_VERSION, SIZE, PatternSet, get_patterns
from audiopg.data_scripts.patterns.measures import png, to_bytes

BATCH = 16
"""Images that are made together."""

_VERSION = datasets.Version(PATTERNS_VERSION)


def features(patterns: PatternSet) -> datasets.Features:
    """Types of the columns of `rows`.

    Args:
        patterns: Whose images.

    Returns:
        `image`, `index`, `seed`, and `label` where the set has classes.

    Example:
        >>> list(features(get_patterns("zone_plates"))), list(features(get_patterns("perlin")))
        (['image', 'index', 'seed', 'label'], ['image', 'index', 'seed'])
    """
    described = {"image": datasets.Image(), "index": datasets.Value("int64"), "seed": datasets.Value("int64")}
    if patterns.num_classes:
        described["label"] = datasets.ClassLabel(num_classes=patterns.num_classes)
    return datasets.Features(described)


@one_thread()
def _batch_of_rows(patterns: PatternSet, seed: int, indices: range, size: int) -> list[dict[str, Any]]:
    pixels = to_bytes(patterns.images(seed, indices, size))
    found: list[dict[str, Any]] = [
        {"image": {"bytes": png(image), "path": f"{index:08d}.png"}, "index": index, "seed": seed}
        for index, image in zip(indices, pixels, strict=True)
    ]
    if patterns.num_classes:
        for row, label in zip(found, patterns.classes(seed, indices).tolist(), strict=True):
            row["label"] = label
    return found


def rows(patterns: PatternSet, seed: int, first: int, end: int, size: int = SIZE) -> Iterator[dict[str, Any]]:
    """The images from index `first` to before `end`.

    Args:
        patterns: Which set.
        seed: Which stream.
        first: Index of the first.
        end: Index after the last.
        size: Side of an image in pixels.

    Yields:
        Rows of `features(patterns)`.

    Example:
        >>> row = next(rows(get_patterns("zone_plates"), seed=0, first=3, end=4, size=32))
        >>> row["index"], row["image"]["bytes"][1:4], 0 <= row["label"] < 4
        (3, b'PNG', True)
    """
    for start in range(first, end, BATCH):
        yield from _batch_of_rows(patterns, seed, range(start, min(start + BATCH, end)), size)


@dataclass
class AudioPGPatternsConfig(datasets.BuilderConfig):
    """Which images. The name is that of the set; version and values are part of the cache key.

    Args:
        num_images: How many, from index 0 on.
        seed: Which stream of images; any integer of 64 bits with a sign.
        size: Side of an image in pixels.
        ranges: Overrides of the set's ranges.
        images_per_shard: What one process prepares, or one worker streams, in one go.
    """

    version: datasets.Version | str | None = _VERSION
    num_images: int = 10_000
    seed: int = 0
    size: int = SIZE
    ranges: dict[str, Any] = field(default_factory=dict)
    images_per_shard: int = 512

    def validated_patterns(self) -> PatternSet:
        """The set with its overrides.

        Raises:
            ValueError: if any field cannot be, with the rule, what came and the remedy.
        """
        validate_stream(self.seed, num_images=self.num_images, images_per_shard=self.images_per_shard)
        patterns = get_patterns(self.name, **self.ranges)
        patterns.drawing(self.seed, [0], self.size)
        return patterns

    def shards(self) -> list[tuple[int, int]]:
        """First index and index after the last of every shard."""
        return shards_of(self.num_images, self.images_per_shard)

    def features(self) -> datasets.Features:
        """Types of the columns."""
        return features(self.validated_patterns())

    def rows(self, first: int, end: int) -> Iterator[dict[str, Any]]:
        """The images from index `first` to before `end`."""
        return rows(self.validated_patterns(), self.seed, first, end, self.size)


class AudioPGPatterns(AddressableRows):
    """Images of one set as a data set with one split, `train`.

    Args:
        patterns: A name out of `PATTERNS`.
        args: As for any builder; the first is `cache_dir`.
        kwargs: Fields of `AudioPGPatternsConfig`, or arguments of any builder.

    Raises:
        ValueError: for an unknown set, an impossible range or size, no images.
        TypeError: for a field that does not exist.

    Example:
        >>> import tempfile
        >>> builder = AudioPGPatterns(tempfile.mkdtemp(), patterns="zone_plates", num_images=4, size=32)
        >>> row = next(iter(builder.as_streaming_dataset(split="train")))
        >>> row["index"], row["image"].size
        (0, (32, 32))
    """

    VERSION = _VERSION
    BUILDER_CONFIG_CLASS = AudioPGPatternsConfig
    BUILDER_CONFIGS = [  # noqa: RUF012 - the name is that of datasets
        AudioPGPatternsConfig(name=name, description=patterns.description) for name, patterns in PATTERNS.items()
    ]

    def __init__(self, *args: Any, patterns: str = "shaders", **kwargs: Any):
        get_patterns(patterns)
        super().__init__(*args, config_name=patterns, **kwargs)

    def _info(self) -> datasets.DatasetInfo:
        patterns = self.config.validated_patterns()
        return datasets.DatasetInfo(
            description=f"{patterns.description}\n\n{patterns.source}",
            features=features(patterns),
            license="apache-2.0",
            version=self.config.version,
        )
