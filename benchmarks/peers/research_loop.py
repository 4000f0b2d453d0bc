"""The `reference` clip as research code makes it: one at a time, NumPy and SciPy, then torchaudio's Kaldi filterbank.

With `scipy.signal.lfilter`, which is faster than torchaudio's biquad. NumPy's own precision is float64; float32 is
about twice as fast, but its phases are off by up to 0.01 rad at the end of a clip. Nothing here is AudioPG's.
"""

from collections.abc import Callable

import numpy as np
import torch
from scipy.signal import lfilter
from torchaudio.compliance import kaldi

SAMPLING_RATE = 16000
MEAN, STD = -5.4, 4.5  # of the research code's own clips; the cost does not depend on them


def source(generator: np.random.Generator, time: np.ndarray) -> np.ndarray:
    """A steady sound: harmonic, frequency-modulated or a pulse."""
    f0 = generator.uniform(50, 2000)
    cycles = time * f0
    mode = generator.integers(3)
    if mode == 0:
        sound = np.zeros_like(time)
        for k in range(1, generator.integers(3, 16) + 1):
            amplitude = k ** -generator.uniform(0.5, 1.5) * generator.uniform(0.5, 1.2)
            detuned, phase = k * generator.uniform(0.995, 1.005), generator.uniform(0, 2 * np.pi)
            sound += amplitude * np.sin((2 * np.pi * detuned) * cycles + phase)
        return sound
    if mode == 1:
        index, ratio = generator.uniform(0.5, 8), float(generator.choice([0.5, 1, 1.5, 2, 2.5, 3.14]))
        angle = 2 * np.pi * cycles
        return np.sin(angle + index * np.sin(ratio * angle))
    if generator.random() < 0.5:
        return 2 * (cycles - np.floor(cycles + 0.5))
    return np.sign(np.sin(2 * np.pi * cycles))


def envelope(generator: np.random.Generator, length: int, precision: type) -> np.ndarray:
    """Attack, decay, release."""
    attack, decay = int(length * generator.uniform(0.01, 0.3)), int(length * generator.uniform(0.1, 0.4))
    lines = (0, 1, attack), (1, 0.6, decay), (0.6, 0, length - attack - decay)
    return np.concatenate([np.linspace(*line, dtype=precision) for line in lines])


def low_pass(sound: np.ndarray, cutoff: float) -> np.ndarray:
    """Biquad with Q 0.707, its output clipped as torchaudio's is."""
    omega = 2 * np.pi * cutoff / SAMPLING_RATE
    alpha, cosine = np.sin(omega) / (2 * 0.707), np.cos(omega)
    numerator = np.array([(1 - cosine) / 2, 1 - cosine, (1 - cosine) / 2], dtype=sound.dtype)
    denominator = np.array([1 + alpha, -2 * cosine, 1 - alpha], dtype=sound.dtype)
    return np.clip(lfilter(numerator, denominator, sound), -1, 1)


def clip(generator: np.random.Generator, num_samples: int, precision: type) -> np.ndarray:
    """One clip, float32 in [-1, 1]."""
    duration = num_samples / SAMPLING_RATE
    sound = source(generator, np.arange(num_samples, dtype=precision) / precision(SAMPLING_RATE))
    if generator.random() < 0.6:
        length = int(generator.uniform(0.01, 0.1) * SAMPLING_RATE)
        onset = generator.integers(num_samples - length)
        burst = 2 * generator.random(length, dtype=precision) - 1
        sound[onset : onset + length] += float(generator.uniform(0.5, 2)) * burst
    mixture = np.zeros(num_samples, dtype=precision)
    num_events = generator.integers(1, 6)
    for _ in range(num_events):
        longest = duration / num_events
        length = int(generator.uniform(min(0.5, longest), longest) * SAMPLING_RATE)
        start, onset = generator.integers(num_samples - length + 1, size=2)
        mixture[onset : onset + length] += sound[start : start + length] * envelope(generator, length, precision)
    if generator.random() < 0.7:
        mixture = low_pass(mixture, generator.uniform(200, 6000))
    noise = 2 * generator.random(num_samples, dtype=precision) - 1
    mixture += float(generator.uniform(0.001, 0.02)) * noise
    return (mixture / np.abs(mixture).max()).astype(np.float32)


def features(waveform: np.ndarray) -> torch.Tensor:
    """Standardised log-mel of one clip, its frames padded to whole patches."""
    log_mel = kaldi.fbank(
        torch.from_numpy(waveform)[None],
        sample_frequency=SAMPLING_RATE,
        window_type="hanning",
        num_mel_bins=128,
        dither=0.0,
        frame_shift=10,
        htk_compat=True,
        use_energy=False,
    )
    return (torch.nn.functional.pad(log_mel, (0, 0, 0, -len(log_mel) % 16)) - MEAN) / (2 * STD)


def prepare(
    batch_size: int, precision: str = "float32", duration: float = 10.24, device: str = "cpu"
) -> tuple[float, Callable[[int], float]]:
    """Standardised log-mel, clip by clip; `precision` is NumPy's name of a floating point type."""
    number, num_samples = getattr(np, precision), round(duration * SAMPLING_RATE)

    def make(step: int) -> float:
        clips = (clip(np.random.default_rng((0, step, i)), num_samples, number) for i in range(batch_size))
        return float(torch.stack([features(waveform) for waveform in clips]).to(device).sum())

    make(0)
    return batch_size * duration, make
