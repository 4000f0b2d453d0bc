"""A modular synthesizer."""

from audiopg.data_scripts.synthesis import GROUPS
from audiopg.data_scripts.voices.parameters import draw, from_units, noise_of, perturb, to_units
from audiopg.data_scripts.voices.synthesizer import render
from audiopg.data_scripts.voices.voice import (
    ARCHITECTURES,
    VOICE_PRESETS,
    VOICES_VERSION,
    Voice,
    VoicePreset,
    get_voice,
)

__all__ = [
    "ARCHITECTURES",
    "GROUPS",
    "VOICES_VERSION",
    "VOICE_PRESETS",
    "Voice",
    "VoicePreset",
    "draw",
    "from_units",
    "get_voice",
    "noise_of",
    "perturb",
    "render",
    "to_units",
]
