"""torchsynth's Voice (Turian et al., 2021): random parameters and waveforms."""

from collections.abc import Callable

import torch
from torchsynth.config import SynthConfig
from torchsynth.synth import Voice


def prepare(batch_size: int, duration: float = 4.0, device: str = "cpu") -> tuple[float, Callable[[int], float]]:
    """Its default use, at 16 kHz; batches other than multiples of 32 are what it calls not reproducible."""
    config = SynthConfig(
        batch_size=batch_size, sample_rate=16000, buffer_size_seconds=duration, reproducible=batch_size % 32 == 0
    )
    voice = Voice(config).to(device)

    def make(step: int) -> float:
        with torch.no_grad():
            return float(voice(step)[0].sum())

    make(0)
    return batch_size * duration, make
