"""Held-out synthesized clips whose factors are to be found again in an embedding."""

from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from audiopg.data_scripts.synthesis import Preset, draw, get_preset, render_components, signal_to_noise_ratio
from audiopg.data_scripts.synthesis.shaping import peak_normalise

PROBE_SEED = 2**40
"""A stream of clips of its own: no run that counts its seed from 0 has seen one of them."""

_EVENT_SECONDS = 1.0
_BATCH = 32


@dataclass(frozen=True)
class FactorClips:
    """Clips of one event each, and what is to be decoded from them.

    Args:
        waveforms: Shape `(clips, samples)`, float32.
        sampling_rate: In Hz.
        factors: `frequency` (octaves: log2 of f0 in Hz), `level` (SNR in dB), `onset` (s), each of shape `(clips,)`.
    """

    waveforms: np.ndarray
    sampling_rate: int
    factors: dict[str, np.ndarray]


def factor_clips(preset: str | Preset, num_clips: int, seed: int = PROBE_SEED) -> FactorClips:
    """Clips with one harmonic event of 1 s, in which pitch, level and onset vary together and everything else too.

    Args:
        preset: Whose ranges; one event, one kind of source, no transient.
        num_clips: How many.
        seed: Which stream.

    Returns:
        The clips and their factors.

    Example:
        >>> clips = factor_clips(get_preset("audiopg", duration=2.0), num_clips=2)
        >>> clips.waveforms.shape, sorted(clips.factors)
        ((2, 32000), ['frequency', 'level', 'onset'])
    """
    preset = get_preset(
        preset, num_events=1, event_length=_EVENT_SECONDS, mode=["harmonic"], transient_probability=0.0
    )
    waveforms, levels, f0, onset = [], [], [], []
    for first in tqdm(range(0, num_clips, _BATCH), desc="probe clips", unit="batch", leave=False, disable=None):
        parameters = draw(preset, seed, range(first, min(first + _BATCH, num_clips)))
        signal, noise = render_components(parameters)
        waveforms.append(peak_normalise(signal + noise).numpy())
        levels.append(signal_to_noise_ratio(signal, noise).numpy())
        f0.append(parameters["f0"][:, 0].numpy())
        onset.append(parameters["onset"][:, 0].numpy())
    factors = {
        "frequency": np.log2(np.concatenate(f0)),
        "level": np.concatenate(levels).astype(np.float64),
        "onset": np.concatenate(onset),
    }
    return FactorClips(np.concatenate(waveforms), preset.sampling_rate, factors)
