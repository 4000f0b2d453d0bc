"""Labelled recordings as one safetensors file of log-mel frames: decoded once, then read without audio libraries.

    python training/feature_cache.py CHECKPOINT DATA_DIR features.safetensors [--clip_seconds 10.24|null]

Recordings are brought to `--clip_seconds`, by default 10.24 as the fine-tuning recipes `fast` and `paper` want it;
`null` keeps each as long as it is, as for the recipe `tiny` and for probes.
"""

import argparse
import sys
from pathlib import Path

from transformers import AutoFeatureExtractor

import audiopg  # noqa: F401 - registers the feature extractor
from audiopg.training.features.cache import content_digest, extract_features, front_end_of
from audiopg.training.features.labelled import load_labelled
from audiopg.training.runs.files import reading


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("checkpoint", help="whose front end is used")
    parser.add_argument("data_dir", help="labelled recordings, as for training/finetune.py")
    parser.add_argument("output", type=Path, help="the file to write")
    parser.add_argument("--clip_seconds", type=_seconds, default=10.24, help="length of a clip, or null")
    known = parser.parse_args(arguments)
    try:
        dataset = load_labelled(known.data_dir)
        with reading(known.checkpoint):
            feature_extractor = AutoFeatureExtractor.from_pretrained(known.checkpoint)
        front_end = front_end_of(feature_extractor, known.clip_seconds)
        cache = extract_features(dataset, front_end, content_digest(dataset, front_end))
        cache.save(known.output)
    except (OSError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    sys.stderr.write(f"{known.output}: {len(cache)} clips of {cache.dataset_name}, {len(cache.frames)} frames\n")


def _seconds(text: str) -> float | None:
    return None if text == "null" else float(text)


if __name__ == "__main__":
    main()
