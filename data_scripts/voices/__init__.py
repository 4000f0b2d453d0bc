"""A modular synthesizer: `draw` parameters, make `noise_of` each sound, `render` waveforms; `perturb` makes doubles.

Architectures and formulas are those of SynthAX 0.2.2 (Cherep & Singh, 2023), which is torchsynth (Turian et al., 2021)
in JAX, as Audio Doppelgängers (Cherep & Singh, 2024) uses it. The preset `synthax` is what it does, the default
`voices` what it means; each difference is a switch of `VoicePreset`. What one alone does to `voices`, measured by
`python benchmarks/voices.py --differences` on 64 random sounds of `voice` (`voice_fm` for carriers):

| switch | `voices` | `synthax` | what its value in `synthax` does |
|---|---|---|---|
| `uniform_in_units` | False: curves shape random sounds | True: none does | noise 0.5 to 38 % of energy; log-mel 3.3 |
| `noise_curve` | 0.025: mostly no noise | 1: a curve not applied | noise 0.5 to 32 % of energy; log-mel 2.8 |
| `fixed_noise` | False: noise of each sound's own | True: one row for all | level as it was; log-mel 0.03 |
| `below_nyquist` | True | False: up to MIDI note 127, 12.5 kHz | aliases of square-saws 0.08 to 0.44 %; log-mel 0.3 |
| `enveloped_carriers` | True | False: carriers sound all the time | level +1.9 dB; log-mel 0.3 |
| `wrapped_phases` | True: phases go around | False: they stop at their ends | none on a sound: it is of `perturb` |

log-mel is the mean distance of VGGish's log-mel spectrograms. FM sidebands may still lie above Nyquist: only the
frequency of a carrier is limited.

In both presets: a sound that clips is scaled by its own peak (SynthAX scales a whole batch by that of its first sound,
which no sound's parameters decide); phases are sums of whole steps of 2^-30 cycles (SynthAX sums float32, and long,
fast sounds drift); weights of an oscillator's shapes that are all 0 make 0 (in SynthAX, no number); `synthax` has a
fixed row of noise of our own, for that of JAX's generator cannot be made without it.
"""

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
