"""Render a set of patterns into a folder, once: PNG files named by index, and a table of them.

    python -m audiopg.data_scripts.patterns.render SET OUTPUT_DIR --num_images 1000 [--size 224] [--seed 0]
        [--ranges '{"steps": 32}'] [--device cuda]

Killed, or out of disk, it leaves whole files: the same command goes on after them, and writes again what is damaged.
The folder is the same bytes either way. One command at a time works in a folder.
`load_dataset("imagefolder", data_dir=OUTPUT_DIR)` reads it, and so does pre-training, with
`--patterns.name SET --patterns.folder OUTPUT_DIR --patterns.num_images 1000 --patterns.size 224`, and no
`patterns.settings`: the ranges are those of the folder.
"""

import argparse
import csv
import hashlib
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from audiopg.data_scripts.patterns import PATTERNS, PATTERNS_VERSION, SIZE, Drawing, PatternSet, get_patterns
from audiopg.data_scripts.patterns.measures import png, to_bytes

IDENTITY = "patterns.json"
"""What a folder was begun with: set, ranges, seed, size and version of the patterns."""
TABLE = "metadata.csv"
"""File name of every image, and its label where the set has classes."""
_BATCH = 16


def image_name(index: int) -> str:
    """The file of an image.

    Example:
        >>> image_name(7)
        '00000007.png'
    """
    return f"{index:08d}.png"


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that is there whole or not at all; what a power failure leaves of it, checksums find."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def is_sound(path: Path, size: int) -> bool:
    """Whether a file is a whole PNG of that size: the checksums of all its parts hold.

    Example:
        >>> path = getfixture("tmp_path") / image_name(0)
        >>> write_whole(path, png(np.zeros((32, 32, 3), np.uint8)))
        >>> is_sound(path, 32), is_sound(path, 64)
        (True, False)
        >>> write_whole(path, path.read_bytes()[:-5])
        >>> is_sound(path, 32)
        False
    """
    try:
        with Image.open(path, formats=["PNG"]) as image:
            whole = image.size == (size, size)
            image.verify()
        return whole
    except (OSError, SyntaxError, ValueError):
        return False


def claim(folder: Path, identity: dict[str, Any]) -> None:
    """Begin a folder of images, or go on with it; what a killed command left half written is removed.

    Args:
        folder: Created if missing.
        identity: What decides which images they are.

    Raises:
        ValueError: if it holds other images.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, content = folder / IDENTITY, (json.dumps(identity, indent=1) + "\n").encode()
    if not path.exists():
        if any(folder.glob("*.png")):
            raise ValueError(f"{folder} holds images, but no {IDENTITY} that says which; choose another folder.")
        write_whole(path, content)
    elif path.read_bytes() != content:
        begun = " ".join(path.read_text(encoding="utf-8", errors="replace").split())
        raise ValueError(
            f"A folder holds one set of images, of one version of the patterns: {folder} was begun with {begun}, got "
            f"{json.dumps(identity)}; give the same values, or another folder, as for another version."
        )
    for partial in folder.glob("*.[0-9]*.partial"):
        partial.unlink()


def images_in(folder: Path) -> int:
    """How many images the table of a folder names; 0 where there is none yet."""
    if not (folder / TABLE).is_file():
        return 0
    with (folder / TABLE).open(encoding="utf-8", newline="") as file:
        return sum(1 for _ in file) - 1


def _write_table(patterns: PatternSet, folder: Path, seed: int, indices: Tensor) -> None:
    columns: dict[str, list] = {"file_name": [image_name(index) for index in indices.tolist()]}
    if patterns.labels is not None:
        columns["label"] = patterns.classes(seed, indices).tolist()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([columns, *zip(*columns.values(), strict=True)])
    write_whole(folder / TABLE, text.getvalue().encode())


def _batches(missing: Sequence[int]) -> Iterator[Sequence[int]]:
    return (missing[first : first + _BATCH] for first in range(0, len(missing), _BATCH))


def render(
    patterns: PatternSet, folder: Path, num_images: int, size: int, seed: int, device: torch.device | str = "cpu"
) -> int:
    """Write images 0 to `num_images` - 1 of a stream; those that are there and whole stay.

    Args:
        patterns: What images.
        folder: Created if missing.
        num_images: How many files there are in the end; more than before adds to them, fewer takes none away.
        size: Side in pixels.
        seed: Which stream.
        device: Where to make them.

    Returns:
        How many were written.

    Raises:
        ValueError: if the folder holds other images, or as `PatternSet.images`.
        OSError: if it cannot be written.
    """
    ranges = {name: list(value) if isinstance(value, tuple) else value for name, value in patterns.overrides.items()}
    patterns.drawing(seed, [0], size)  # refuses what cannot be before there is a folder
    identity = {"patterns": patterns.name, "ranges": ranges, "seed": seed, "size": size, "version": PATTERNS_VERSION}
    claim(folder, identity)
    num_images = max(num_images, images_in(folder))
    missing = [index for index in range(num_images) if not is_sound(folder / image_name(index), size)]
    with tqdm(total=num_images, initial=num_images - len(missing), unit="image", leave=False, disable=None) as bar:
        for batch in _batches(missing):
            pixels = to_bytes(patterns.images(seed, batch, size, device))
            for index, image in zip(batch, pixels, strict=True):
                write_whole(folder / image_name(index), png(image))
            bar.update(len(batch))
    _write_table(patterns, folder, seed, torch.arange(num_images))
    return len(missing)


class Rendered(NamedTuple):
    """A folder of images that were rendered.

    Args:
        folder: Where they lie.
        patterns: The set, whose images are read instead of made, and whose classes are those of the images; whatever
            seed is asked for.
        num_images: How many there are.
        identity: What the folder was begun with: `patterns`, `ranges`, `seed`, `size`, `version`.
    """

    folder: Path
    patterns: PatternSet
    num_images: int
    identity: dict[str, Any]

    def digest(self, num_images: int) -> str:
        """Of what the folder was begun with, and of the first images the rows of the table and the sizes of files.

        Raises:
            ValueError: if one of them is missing.
        """
        lines = (self.folder / TABLE).read_text(encoding="utf-8").splitlines()[: num_images + 1]
        try:
            sizes = [(self.folder / image_name(index)).stat().st_size for index in range(num_images)]
        except OSError as error:
            raise ValueError(
                f"{self.folder} lacks an image of its table ({error}); the command that rendered it makes it again."
            ) from error
        return hashlib.sha256(json.dumps([self.identity, lines, sizes]).encode()).hexdigest()[:16]


def read_back(folder: Path) -> Rendered:
    """The images that lie in a folder.

    Args:
        folder: As `render` left it.

    Raises:
        ValueError: if there is no such folder, it is not finished, or holds images of no set, or of another version.

    Example:
        >>> folder = getfixture("tmp_path") / "images"
        >>> render(get_patterns("zone_plates"), folder, num_images=2, size=32, seed=5)
        2
        >>> found = read_back(folder)
        >>> found.patterns.name, found.num_images, found.patterns.images(0, [1], 32).shape
        ('zone_plates', 2, torch.Size([1, 3, 32, 32]))
    """
    if not (folder / TABLE).is_file():
        raise ValueError(
            f"{folder} holds no {TABLE}, which comes last; render it: python -m audiopg.data_scripts.patterns.render."
        )
    identity = _identity_of(folder)
    patterns, seed, size = get_patterns(identity["patterns"], **identity["ranges"]), identity["seed"], identity["size"]
    count = images_in(folder)

    def make(drawing: Drawing) -> Tensor:
        indices = drawing.indices.tolist()
        if drawing.size != size or max(indices) >= count:
            raise ValueError(
                f"{folder} holds {count} images of {size} pixels, got a size of {drawing.size} and index "
                f"{max(indices)}; ask for these, or render more."
            )
        return torch.stack([_read(folder / image_name(index)) for index in indices]).to(drawing.device)

    def labels(drawing: Drawing) -> Tensor:
        return patterns.classes(seed, drawing.indices, drawing.device)

    read = replace(patterns, make=make, labels=labels if patterns.labels else None)
    return Rendered(folder, read, count, identity)


def _identity_of(folder: Path) -> dict[str, Any]:
    """What a folder of a set of this version was begun with.

    Raises:
        ValueError: if that cannot be read, or it is of something else.
    """
    try:
        identity = json.loads((folder / IDENTITY).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder / IDENTITY} says whose images these are, and cannot be read ({error}).") from error
    wanted = {"patterns", "ranges", "seed", "size"}
    if not isinstance(identity, dict) or not wanted <= identity.keys():
        raise ValueError(
            f"{folder} needs images of a set by name, and {IDENTITY} says {identity}; render a set "
            "(audiopg.data_scripts.patterns.render). Those of GLSL programs are read by `imagefolder` alone."
        )
    if identity.get("version") != PATTERNS_VERSION:
        raise ValueError(
            f"{folder} holds images of version {identity.get('version')} of the patterns, and this is version "
            f"{PATTERNS_VERSION}; render them anew into another folder, or use the version that they are of."
        )
    return identity


def _read(path: Path) -> Tensor:
    """An image in [0, 1], shape `(3, size, size)`.

    Raises:
        ValueError: if it cannot be read.
    """
    try:
        with Image.open(path, formats=["PNG"]) as image:
            return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path} is no whole PNG ({error}); the command that rendered it makes it again.") from error


def _ranges(text: str) -> dict[str, Any]:
    try:
        ranges = json.loads(text)
    except ValueError:
        ranges = None
    if not isinstance(ranges, dict):
        raise ValueError(f"--ranges is JSON such as '{{\"steps\": 32}}', got {text!r}.")
    return ranges


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("patterns", metavar="SET", help=", ".join(PATTERNS))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--num_images", type=int, default=1000)
    parser.add_argument("--size", type=int, default=SIZE, help="side in pixels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ranges", default="{}", help="ranges with other values, as JSON by name")
    parser.add_argument("--device", default="cpu", help="where to make them: cpu, cuda, ...")
    known = parser.parse_args(arguments)
    try:
        if known.num_images < 1:
            raise ValueError(f"--num_images is 1 or more, got {known.num_images}.")
        patterns = get_patterns(known.patterns, **_ranges(known.ranges))
        written = render(patterns, known.folder, known.num_images, known.size, known.seed, known.device)
    except ValueError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    except OSError as error:
        parser.exit(
            1, f"{parser.prog}: {known.folder} could not be written: {error}. Whole files are kept; make room there.\n"
        )
    except KeyboardInterrupt:
        parser.exit(130, f"{parser.prog}: stopped; whole files are kept, and the same command goes on.\n")
    sys.stderr.write(f"{known.folder}: {written} images written, {images_in(known.folder)} there, {TABLE}\n")


if __name__ == "__main__":
    main()
