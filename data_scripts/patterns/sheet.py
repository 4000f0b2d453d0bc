"""One picture of all sets of patterns, a row each, with what is measured of them; and the numbers as JSON.

    python -m audiopg.data_scripts.patterns.sheet patterns [--sets perlin fbm] [--num_images 64] [--size 224]

Writes sheet.png and sheet.json into the folder. Measures are means over the images, and their standard deviations.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from audiopg.data_scripts.figures import STYLE, save_figure
from audiopg.data_scripts.patterns import PATTERNS, PatternSet, get_patterns
from audiopg.data_scripts.patterns.measures import measures, to_bytes
from audiopg.data_scripts.patterns.pattern_set import SIZE

_BATCH = 8
"""Images that are made together; the first ones are shown."""


def batches_of(patterns: PatternSet, num_images: int, size: int = SIZE, seed: int = 0) -> Iterator[Tensor]:
    """The first images of a stream, eight at a time.

    Args:
        patterns: The set.
        num_images: How many.
        size: Side of an image in pixels.
        seed: Which stream.

    Yields:
        Images in [0, 1], shape `(eight or fewer, 3, size, size)`.
    """
    for start in range(0, num_images, _BATCH):
        yield patterns.images(seed, range(start, min(start + _BATCH, num_images)), size)


def measure(batches: Iterable[Tensor]) -> dict[str, Any]:
    """What is measured of images.

    Args:
        batches: Images in [0, 1], each of shape `(batch, 3, height, width)`.

    Returns:
        By measure its `mean` and, over images, its standard deviation `std`.

    Example:
        >>> found = measure(batches_of(get_patterns("perlin"), num_images=4, size=64))
        >>> found["blank_share"]["mean"], 0 < found["total_variation"]["mean"] < 0.2
        (0.0, True)
    """
    found = [measures(images) for images in batches]
    values = {name: torch.cat([batch[name] for batch in found]).double() for name in found[0]}
    return {
        name: {"mean": round(float(of.mean()), 5), "std": round(float(of.std(correction=0)), 5)}
        for name, of in values.items()
    }


def draw_sheet(rows: dict[str, np.ndarray], measured: dict[str, dict[str, Any]], path: Path) -> Path:
    """A row per set: its name and measures, then images.

    Args:
        rows: By name of set images of 8 bits, shape `(images, size, size, 3)`.
        measured: By name of set, as from `measure`.
        path: PNG to write.

    Returns:
        The path.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2 + max(map(len, rows.values())), len(rows)), layout="constrained")
        axes = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
        for axis, (name, images) in zip(axes, rows.items(), strict=True):
            axis.imshow(np.concatenate(list(images), axis=1), origin="upper", aspect="equal")
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            found = {measure: values["mean"] for measure, values in measured[name].items()}
            axis.set_ylabel(
                f"{name}\ntotal variation {found['total_variation']:.3f}\nblank {found['blank_share']:.0%}, "
                f"flat {found['flat_share']:.0%}\n{found['bits_per_pixel']:.1f} bits per pixel",
                rotation=0,
                ha="right",
                va="center",
            )
        return save_figure(figure, path)


def write_sheet(sets: Sequence[PatternSet], folder: Path, num_images: int, size: int = SIZE, seed: int = 0) -> Path:
    """Write sheet.png and sheet.json.

    Args:
        sets: What to show.
        folder: Created if missing.
        num_images: How many of each are measured; the first eight are shown.
        size: Side of an image in pixels.
        seed: Which stream.

    Returns:
        The PNG.
    """
    rows, measured = {}, {}
    for patterns in tqdm(sets, desc="sets", unit="set", leave=False, disable=None):
        first, *others = batches_of(patterns, num_images, size, seed)
        rows[patterns.name] = to_bytes(first)
        measured[patterns.name] = measure([first, *others])
    path = draw_sheet(rows, measured, folder / "sheet.png")
    results = {"num_images": num_images, "size": size, "seed": seed, "sets": measured}
    (folder / "sheet.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return path


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sets", nargs="+", default=list(PATTERNS), help=", ".join(PATTERNS))
    parser.add_argument("--num_images", type=int, default=64, help="of each set that are measured")
    parser.add_argument("--size", type=int, default=SIZE, help="side of an image in pixels")
    parser.add_argument("--seed", type=int, default=0)
    known = parser.parse_args(arguments)
    try:
        if known.num_images < 1:
            raise ValueError(f"--num_images is 1 or more, got {known.num_images}.")
        sets = [get_patterns(name) for name in known.sets]
        path = write_sheet(sets, known.folder, known.num_images, known.size, known.seed)
    except ValueError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    sys.stderr.write(f"{path}: {len(sets)} sets; their numbers are in sheet.json beside it\n")


if __name__ == "__main__":
    main()
