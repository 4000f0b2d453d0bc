"""What the sounds of voices are, written down: a change of any of them, meant or not, shows as a difference.

    python -m audiopg.data_scripts.voices.manifest tests/assets/voices_manifest.json

As `synthesis.manifest`, which does so for clips.
"""

import hashlib
from typing import Any

import torch

from audiopg.data_scripts.synthesis.manifest import INDICES, SEED, sound_statistics, write_manifest
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
    write_manifest(build_manifest, f"voices {VOICES_VERSION}", __doc__, arguments)


if __name__ == "__main__":
    main()
