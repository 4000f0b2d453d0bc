"""Labelled recordings as scripts take them: which options name them, and how they become features."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audiopg.training.features.cache import FeatureCache, cached_features

if TYPE_CHECKING:  # a machine that reads a cache may lack it
    from datasets import Dataset


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Give a script the options that `DataOptions` reads; one of them is required.

    `--esc50_dir` is a name of `--data_dir` from when nothing else than ESC-50's layout was read.
    """
    data = parser.add_mutually_exclusive_group(required=True)
    data.add_argument(
        *("--data_dir", "--esc50_dir"),
        help="a benchmark's folder, a folder of class folders, a CSV file, a saved data set",
    )
    data.add_argument("--hub_dataset", help="a data set of the Hub with the columns audio and label")
    data.add_argument("--features", type=Path, help="a file of training/feature_cache.py: needs no audio libraries")
    parser.add_argument("--benchmark", default="auto", help="read data_dir as this benchmark, such as esc10")


def load_labelled(
    data_dir: str | Path | None = None, *, hub_dataset: str | None = None, benchmark: str = "auto"
) -> "Dataset":
    """Labelled recordings from wherever they are.

    Args:
        data_dir: What `load_recordings` takes: a benchmark's folder, a folder per class, a CSV file, a saved data set.
        hub_dataset: Instead of it, the name of a data set on the Hub.
        benchmark: Read `data_dir` as this one of `load_benchmark`; `auto` looks at the files.

    Returns:
        The data set, as `labelled_audio` describes it.

    Raises:
        FileNotFoundError: if there is nothing at the path.
        ValueError: as the loader that is chosen, or if neither or both are given.
    """
    from audiopg.data_scripts import benchmarks, own_recordings

    if hub_dataset is not None and data_dir is None:
        return own_recordings.load_hub_dataset(hub_dataset)
    if data_dir is None or hub_dataset is not None:
        raise ValueError(f"Give data_dir or hub_dataset, one of the two; got {data_dir!r} and {hub_dataset!r}.")
    if benchmark != "auto":
        return benchmarks.load_benchmark(benchmark, data_dir)
    return own_recordings.load_recordings(data_dir)


@dataclass(frozen=True)
class DataOptions:
    """The options of `add_data_options`, as parsed; another process may have them.

    Args:
        data_dir: See `load_labelled`.
        hub_dataset: See `load_labelled`.
        benchmark: See `load_labelled`.
        features: A file of features instead.
    """

    data_dir: str | None = None
    hub_dataset: str | None = None
    benchmark: str = "auto"
    features: Path | None = None

    @classmethod
    def of(cls, parsed: argparse.Namespace) -> "DataOptions":
        """Those of a command line."""
        return cls(parsed.data_dir, parsed.hub_dataset, parsed.benchmark, parsed.features)

    def words(self) -> list[str]:
        """What a reader would type for the same, without where this machine keeps its files.

        Example:
            >>> DataOptions(data_dir="/data/ESC-50", benchmark="esc10").words()
            ['--data_dir', 'ESC-50', '--benchmark', 'esc10']
        """
        given = {"data_dir": self.data_dir, "hub_dataset": self.hub_dataset, "features": self.features}
        words = [
            word
            for name, value in given.items()
            if value is not None
            for word in (f"--{name}", str(value) if name == "hub_dataset" else Path(value).name)
        ]
        return [*words, *([] if self.benchmark == "auto" else ["--benchmark", self.benchmark])]

    def cache(self, feature_extractor: Any, clip_seconds: float | None = None) -> FeatureCache:
        """The features of the recordings.

        Args:
            feature_extractor: Of the checkpoint.
            clip_seconds: Length to bring recordings to; a file of features has its own.

        Returns:
            The features.

        Raises:
            ValueError: as `load_labelled`, or `FeatureCache.load`.
        """
        if self.features is not None:
            return FeatureCache.load(self.features)
        dataset = load_labelled(self.data_dir, hub_dataset=self.hub_dataset, benchmark=self.benchmark)
        return cached_features(dataset, feature_extractor, clip_seconds=clip_seconds)
