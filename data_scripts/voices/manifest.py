"""What the sounds of voices are, written down: a change of any of them, meant or not, shows as a difference.

    python -m audiopg.data_scripts.voices.manifest tests/assets/voices_manifest.json

As `synthesis.manifest`, which does so for clips.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import torch

from audiopg.data_scripts.synthesis.manifest import INDICES, SEED, sound_statistics
from audiopg.data_scripts.voices.parameters import draw, noise_of
from audiopg.data_scripts.voices.synthesizer import render
from audiopg.data_scripts.voices.voice import ARCHITECTURES, VOICE_PRESETS, VOICES_VERSION, Voice, get_voice


def describe_voice(voice: Voice) -> dict[str, Any]:
    """Digest of the parameters and statistics of the sound of a few sounds of a voice."""
    parameters = draw(voice, SEED, INDICES)
    with torch.no_grad():
        waveforms = render(voice, parameters, noise_of(voice, SEED, INDICES))
    return {
        "parameters": hashlib.sha256(parameters.numpy().tobytes()).hexdigest(),
        "sound": [sound_statistics(waveform) for waveform in waveforms],
    }


def build_manifest() -> dict[str, Any]:
    """The manifest of all voices as they are.

    Returns:
        `voices_version`, `seed`, `indices`, and what `describe_voice` says of every architecture with every preset.
    """
    return {
        "voices_version": VOICES_VERSION,
        "seed": SEED,
        "indices": list(INDICES),
        "voices": {
            f"{architecture} {preset}": describe_voice(get_voice(architecture, preset))
            for architecture in ARCHITECTURES
            for preset in VOICE_PRESETS
        },
    }


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("path", type=Path, help="JSON file to write")
    path = parser.parse_args(arguments).path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(build_manifest(), indent=1) + "\n", encoding="utf-8")
    sys.stderr.write(f"{path}: voices {VOICES_VERSION}\n")


if __name__ == "__main__":
    main()
