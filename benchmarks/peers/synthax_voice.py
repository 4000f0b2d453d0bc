"""SynthAX's Voice (Cherep & Singh, 2023): random parameters and waveforms, compiled by JAX."""

from collections.abc import Callable

import jax
from synthax.config import SynthConfig
from synthax.synth import Voice


def prepare(batch_size: int, duration: float = 4.0, device: str = "cpu") -> tuple[float, Callable[[int], float]]:
    """Its own benchmark's protocol (initialise and render in one compiled function), but waiting for the result."""
    if jax.default_backend() != {"cuda": "gpu"}.get(device, device):
        raise RuntimeError(f"JAX was installed for {jax.default_backend()}, not for {device}.")
    voice = Voice(config=SynthConfig(batch_size=batch_size, sample_rate=16000, buffer_size_seconds=duration))
    sounds = jax.jit(lambda key: voice.apply(voice.init(key)))
    key = jax.random.PRNGKey(0)

    def make(step: int) -> float:
        return float(sounds(jax.random.fold_in(key, step)).sum())

    make(0)  # compiles
    return batch_size * duration, make
