"""Write synthesized clips, or synthetic images, as a data set for the Hub: Parquet shards, a card, a picture.

    python training/build_dataset.py datasets/audiopg-10k --preset audiopg --num_clips 10000 [--num_proc 2]
        [--engine ray] [--synthesis.f0 "[50, 4000]"] [--push_to_hub ORG/NAME]
    python training/build_dataset.py datasets/voice-10k --voice voice [--options.preset synthax]
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
from audiopg.data_scripts.audiopg_voices import AudioPGVoicesConfig
from audiopg.data_scripts.patterns import PATTERNS
from audiopg.data_scripts.synthesis import PRESETS
from audiopg.data_scripts.voices import ARCHITECTURES
from audiopg.training.publishing.dataset import Config, build_dataset
from audiopg.training.publishing.hub import upload
from audiopg.training.runs.engines import ENGINES
from audiopg.training.runs.recipes import parse_overrides

_KINDS: dict[str, tuple[tuple[str, ...], str, str]] = {
    "clips": (
        ("preset", "num_clips", "clips_per_shard"),
        "synthesis",
        "Ranges of the preset are overridden as --synthesis.f0 '[50, 4000]'",
    ),
    "sounds of a voice": (
        ("voice", "num_clips", "clips_per_shard"),
        "options",
        "Options of the voice are given as --options.preset synthax",
    ),
    "images": (
        ("patterns", "num_images", "size", "images_per_shard"),
        "ranges",
        "Ranges of the set are overridden as --ranges.cells '[LOW, HIGH]'",
    ),
}
"""What data sets are of: options, what other overrides begin with, and how they are given."""


def _config(known: argparse.Namespace, rest: list[str]) -> Config:
    """The values of the command line.

    Raises:
        ValueError: for an option that does not exist or a value that cannot be.
    """
    kind = "images" if known.patterns is not None else "sounds of a voice" if known.voice is not None else "clips"
    own, key, rule = _KINDS[kind]
    named = dict.fromkeys(name for names, _, _ in _KINDS.values() for name in names)
    given = {name: getattr(known, name) for name in named if getattr(known, name) is not None}
    foreign = [f"--{name}" for name in given if name not in own]
    if foreign:
        raise ValueError(
            f"{', '.join(foreign)}: a data set of {kind} has the options --{', --'.join(own)}; leave out the others."
        )
    overrides = parse_overrides(rest)
    if any(name != key for name in overrides) or not isinstance(overrides.get(key, {}), dict):
        raise ValueError(f"{rule}, got {' '.join(rest)}; see --help.")
    given |= {"seed": known.seed, key: overrides.get(key, {})}
    if kind == "images":
        images = AudioPGPatternsConfig(name=given.pop("patterns"), **given)
        images.validated_patterns()
        return images
    if kind == "clips":
        clips = AudioPGSyntheticConfig(name=given.pop("preset", "audiopg"), **given)
        clips.validated_preset()
        return clips
    sounds = AudioPGVoicesConfig(name=given.pop("voice"), **given)
    sounds.validated_voice()
    return sounds


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    clips, images = AudioPGSyntheticConfig(name="audiopg"), AudioPGPatternsConfig(name="shaders")
    sounds = AudioPGVoicesConfig(name="voice").clips_per_shard
    parser.add_argument("folder", type=Path)
    parser.add_argument("--preset", help=f"of clips: {', '.join(PRESETS)}; {clips.name} by default")
    parser.add_argument("--voice", help=f"sounds of a modular synthesizer instead: {', '.join(ARCHITECTURES)}")
    parser.add_argument("--num_clips", type=int, help=f"{clips.num_clips} by default")
    parser.add_argument("--clips_per_shard", type=int, help=f"{clips.clips_per_shard} by default; of a voice {sounds}")
    parser.add_argument("--patterns", help=f"images instead of clips: {', '.join(PATTERNS)}")
    parser.add_argument("--num_images", type=int, help=f"{images.num_images} by default")
    parser.add_argument("--size", type=int, help=f"side of an image in pixels, {images.size} by default")
    parser.add_argument("--images_per_shard", type=int, help=f"{images.images_per_shard} by default")
    parser.add_argument("--seed", type=int, default=clips.seed)
    parser.add_argument("--num_proc", type=int, default=1, help="worker processes of one thread each")
    parser.add_argument(
        "--engine", choices=ENGINES, default="processes", help="whose processes: this machine's, Ray's"
    )
    parser.add_argument("--push_to_hub", metavar="REPOSITORY", help="also upload the folder there")
    known, rest = parser.parse_known_args(arguments)
    try:
        shards = build_dataset(_config(known, rest), known.folder, known.num_proc, known.engine)
    except (ValueError, ImportError) as error:
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
        try:
            upload(known.folder, known.push_to_hub, "dataset")
        except (OSError, ValueError) as error:
            parser.exit(2, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
