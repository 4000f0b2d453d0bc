"""Write synthesized clips, or synthetic images, as a data set for the Hub: Parquet shards, a card, a picture.

    python training/build_dataset.py datasets/audiopg-10k --preset audiopg --num_clips 10000 [--num_proc 2]
        [--synthesis.f0 "[50, 4000]"] [--push_to_hub ORG/NAME]
    python training/build_dataset.py datasets/shaders-1k --patterns shaders --num_images 1000 [--size 224]

Killed, or out of disk, it leaves whole shards alone: the same command goes on after them. `load_dataset(folder)` reads
the result, and needs neither this package nor FFmpeg for it.
"""

import argparse
import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from audiopg.data_scripts.audiopg_patterns import AudioPGPatternsConfig
from audiopg.data_scripts.audiopg_synthetic import AudioPGSyntheticConfig
from audiopg.data_scripts.patterns import PATTERNS
from audiopg.data_scripts.synthesis import PRESETS
from audiopg.training.publishing.dataset import Config, build_dataset
from audiopg.training.publishing.hub import upload
from audiopg.training.runs.recipes import parse_overrides

_OF_CLIPS = ("preset", "num_clips", "clips_per_shard")
_OF_IMAGES = ("num_images", "size", "images_per_shard")


def _config(known: argparse.Namespace, rest: list[str]) -> Config:
    """The values of the command line.

    Raises:
        ValueError: for an option that does not exist or a value that cannot be.
    """
    of_images = known.patterns is not None
    given = {name: getattr(known, name) for name in (*_OF_CLIPS, *_OF_IMAGES) if getattr(known, name) is not None}
    foreign = [f"--{name}" for name in (_OF_CLIPS if of_images else _OF_IMAGES) if name in given]
    if foreign:
        what, other = ("clips", "without") if of_images else ("images", "with")
        raise ValueError(f"{', '.join(foreign)}: options of a data set of {what}, {other} --patterns; leave them out.")
    overrides, key = parse_overrides(rest), "ranges" if of_images else "synthesis"
    unknown = [name for name in overrides if name != key]
    if unknown or not isinstance(overrides.get(key, {}), dict):
        example = (
            "of the set are overridden as --ranges.cells"
            if of_images
            else "of the preset are overridden as --synthesis.f0"
        )
        raise ValueError(f"Ranges {example} '[LOW, HIGH]', got {' '.join(rest)}; see --help.")
    given |= {"seed": known.seed, key: overrides.get(key, {})}
    if of_images:
        images = AudioPGPatternsConfig(name=known.patterns, **given)
        images.validated_patterns()
        return images
    clips = AudioPGSyntheticConfig(name=given.pop("preset", "audiopg"), **given)
    clips.validated_preset()
    return clips


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    clips, images = AudioPGSyntheticConfig(name="audiopg"), AudioPGPatternsConfig(name="shaders")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--preset", help=f"of clips: {', '.join(PRESETS)}; {clips.name} by default")
    parser.add_argument("--num_clips", type=int, help=f"{clips.num_clips} by default")
    parser.add_argument("--clips_per_shard", type=int, help=f"{clips.clips_per_shard} by default")
    parser.add_argument("--patterns", help=f"images instead of clips: {', '.join(PATTERNS)}")
    parser.add_argument("--num_images", type=int, help=f"{images.num_images} by default")
    parser.add_argument("--size", type=int, help=f"side of an image in pixels, {images.size} by default")
    parser.add_argument("--images_per_shard", type=int, help=f"{images.images_per_shard} by default")
    parser.add_argument("--seed", type=int, default=clips.seed)
    parser.add_argument("--num_proc", type=int, default=1, help="worker processes of one thread each")
    parser.add_argument("--push_to_hub", metavar="REPOSITORY", help="also upload the folder there")
    known, rest = parser.parse_known_args(arguments)
    try:
        shards = build_dataset(_config(known, rest), known.folder, known.num_proc)
    except ValueError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    except (OSError, BrokenProcessPool) as error:
        parser.exit(
            1,
            f"{parser.prog}: {known.folder} could not be written to its end: {error} Whole shards are kept; free disk "
            "or memory, and give the same command again.\n",
        )
    except KeyboardInterrupt:
        parser.exit(130, f"{parser.prog}: stopped; whole shards are kept, and the same command goes on.\n")
    sys.stderr.write(f"{known.folder}: {len(shards)} shards, a picture of the first, README.md\n")
    if known.push_to_hub:
        upload(known.folder, known.push_to_hub, "dataset")


if __name__ == "__main__":
    main()
