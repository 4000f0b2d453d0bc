"""Write synthesized clips as a data set for the Hub: Parquet shards, a card, a picture.

    python training/build_dataset.py datasets/audiopg-10k --preset audiopg --num_clips 10000 [--num_proc 2]
        [--synthesis.f0 "[50, 4000]"] [--push_to_hub ORG/NAME]

Killed, or out of disk, it leaves whole shards alone: the same command goes on after them. `load_dataset(folder)` reads
the result, and needs neither this package nor FFmpeg for it.
"""

import argparse
import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from audiopg.data_scripts.audiopg_synthetic import AudioPGSyntheticConfig
from audiopg.data_scripts.synthesis import PRESETS
from audiopg.training.publishing.dataset import build_dataset
from audiopg.training.publishing.hub import upload
from audiopg.training.runs.recipes import parse_overrides


def _config(known: argparse.Namespace, rest: list[str]) -> AudioPGSyntheticConfig:
    """The values of the command line.

    Raises:
        ValueError: for an option that does not exist or a value that cannot be.
    """
    overrides = parse_overrides(rest)
    unknown = [name for name in overrides if name != "synthesis"]
    if unknown or not isinstance(overrides.get("synthesis", {}), dict):
        raise ValueError(
            f"Ranges of the preset are overridden as --synthesis.f0 '[50, 4000]', got {' '.join(rest)}; see --help."
        )
    config = AudioPGSyntheticConfig(
        name=known.preset,
        num_clips=known.num_clips,
        seed=known.seed,
        synthesis=overrides.get("synthesis", {}),
        clips_per_shard=known.clips_per_shard,
    )
    config.validated_preset()
    return config


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    default = AudioPGSyntheticConfig(name="audiopg")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--preset", default=default.name, help=", ".join(PRESETS))
    parser.add_argument("--num_clips", type=int, default=default.num_clips)
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--clips_per_shard", type=int, default=default.clips_per_shard)
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
    sys.stderr.write(f"{known.folder}: {len(shards)} shards, clips.png, README.md\n")
    if known.push_to_hub:
        upload(known.folder, known.push_to_hub, "dataset")


if __name__ == "__main__":
    main()
