"""Labelled recordings as one safetensors file of log-mel frames: decoded once, then read without audio libraries.

    waveforms -> frames (all frames of all clips, bands) float16, lengths (clips), labels, fold or split, source

    python training/feature_cache.py CHECKPOINT DATA_DIR features.safetensors

The frames of AudioPG's front end are kept raw and at their native length, so that one file serves every checkpoint and
every length; a checkpoint's standardisation, and the crop or repetition to a length, happen when a batch is made. Any
other feature extractor that gives (frames, bands) is asked for its `input_values`, which are kept as they come.
"""

import argparse
import sys
from pathlib import Path

from transformers import AutoFeatureExtractor

import audiopg  # noqa: F401 - registers the feature extractor
from audiopg.training.features.cache import content_digest, extract_features, front_end_of


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("checkpoint", help="whose front end is used")
    parser.add_argument("data_dir", help="labelled recordings, as for training/finetune.py")
    parser.add_argument("output", type=Path, help="the file to write")
    known = parser.parse_args(arguments)
    from audiopg.data_scripts.own_recordings import load_recordings

    try:
        dataset = load_recordings(known.data_dir)
        front_end = front_end_of(AutoFeatureExtractor.from_pretrained(known.checkpoint))
        cache = extract_features(dataset, front_end, content_digest(dataset, front_end))
    except (OSError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    cache.save(known.output)
    sys.stderr.write(f"{known.output}: {len(cache)} clips of {cache.dataset_name}, {len(cache.frames)} frames\n")


if __name__ == "__main__":
    main()
