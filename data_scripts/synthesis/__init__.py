"""The procedural synthesizer: `draw` parameters, `render` waveforms."""

from audiopg.data_scripts.synthesis.parameters import (
    GROUPS,
    PRESETS,
    SYNTHESIZER_VERSION,
    Choice,
    Parameters,
    Preset,
    Range,
    delta_of_groups,
    draw,
    draw_doubles,
    get_preset,
    validated_indices,
    with_overrides,
)
from audiopg.data_scripts.synthesis.synthesizer import render, render_components, signal_to_noise_ratio

__all__ = [
    "GROUPS",
    "PRESETS",
    "SYNTHESIZER_VERSION",
    "Choice",
    "Parameters",
    "Preset",
    "Range",
    "delta_of_groups",
    "draw",
    "draw_doubles",
    "get_preset",
    "render",
    "render_components",
    "signal_to_noise_ratio",
    "validated_indices",
    "with_overrides",
]
