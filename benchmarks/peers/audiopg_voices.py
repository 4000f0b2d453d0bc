"""AudioPG's voices: sounds number `step * batch_size` and on, of seed 0, parameters and noise included."""

from collections.abc import Callable

import torch

from audiopg.data_scripts.voices import draw, get_voice, noise_of, render


def prepare(
    batch_size: int,
    architecture: str = "voice",
    preset: str = "voices",
    duration: float = 1.0,
    compiled: bool = False,
    device: str = "cpu",
) -> tuple[float, Callable[[int], float]]:
    """Waveforms from (seed, index)."""
    voice = get_voice(architecture, preset, duration)
    made = torch.compile(render, dynamic=False) if compiled else render

    def make(step: int) -> float:
        indices = torch.arange(step * batch_size, (step + 1) * batch_size)
        with torch.no_grad():
            noise = noise_of(voice, 0, indices, device)
            return float(made(voice, draw(voice, 0, indices).to(device), noise).sum())

    make(0)  # what libraries allocate once is not a sound's
    return batch_size * duration, make
