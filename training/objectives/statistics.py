"""Mean and standard deviation of the raw log-mel of synthesized clips: what inputs are standardised with.

    python training/measure_statistics.py --preset reference --num_clips 2000

No recording is involved; pre-training measures those of its own recipe in the same way before its first step.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from audiopg.data_scripts.synthesis import SYNTHESIZER_VERSION, Preset, draw, get_preset, render
from audiopg.modeling.spectrogram_audiopg import log_mel_spectrogram

_BATCH = 16
_DECIMALS = 3


def mean_and_std(
    waveforms_of: Callable[[Tensor], Tensor], num_clips: int, *, sampling_rate: int, num_mel_bins: int, window: str
) -> tuple[float, float]:
    """Mean and (population) standard deviation of the raw log-mel over all frames and bands of clips.

    Args:
        waveforms_of: Clip indices, shape `(batch,)`, to waveforms, shape `(batch, samples)`.
        num_clips: How many clips, from index 0 on.
        sampling_rate: Of the waveforms, in Hz.
        num_mel_bins: Number of mel bands.
        window: Of the log-mel, `hann` or `hamming`.

    Returns:
        Both, rounded to 3 decimals, which makes every device agree.

    Example:
        >>> mean_and_std(
        ...     lambda indices: torch.zeros(len(indices), 400), 3, sampling_rate=16000, num_mel_bins=128, window="hann"
        ... )
        (-15.942, 0.0)
    """
    total, total_of_squares, count = 0.0, 0.0, 0
    for first in tqdm(range(0, num_clips, _BATCH), desc="statistics", unit="batch", leave=False, disable=None):
        waveforms = waveforms_of(torch.arange(first, min(first + _BATCH, num_clips)))
        log_mel = log_mel_spectrogram(
            waveforms, sampling_rate=sampling_rate, num_mel_bins=num_mel_bins, window=window
        ).double()
        total += float(log_mel.sum())
        total_of_squares += float(log_mel.square().sum())
        count += log_mel.numel()
    mean = total / count
    variance = max(0.0, total_of_squares / count - mean**2)
    return round(mean, _DECIMALS), round(variance**0.5, _DECIMALS)


def measure_statistics(
    preset: str | Preset,
    seed: int,
    num_clips: int,
    *,
    window: str = "hann",
    num_mel_bins: int = 128,
    device: torch.device | str = "cpu",
) -> dict[str, Any]:
    """Mean and (population) standard deviation over all frames and mel bands of the first clips of a seed.

    Args:
        preset: What clips.
        seed: Which stream.
        num_clips: How many, from index 0 on.
        window: Of the log-mel, `hann` or `hamming`.
        num_mel_bins: Number of mel bands.
        device: Where to render. Rounding to 3 decimals makes every device agree.

    Returns:
        `mean` and `std`, and how they were measured: `preset`, `overrides`, `seed`, `num_clips`, `window`,
        `synthesizer_version`.

    Example:
        >>> measured = measure_statistics("sine", seed=0, num_clips=2)
        >>> measured["num_clips"], measured["std"] > 0
        (2, True)
    """
    preset = get_preset(preset)
    mean, std = mean_and_std(
        lambda indices: render(draw(preset, seed, indices), device),
        num_clips,
        sampling_rate=preset.sampling_rate,
        num_mel_bins=num_mel_bins,
        window=window,
    )
    return {
        "mean": mean,
        "std": std,
        "preset": preset.name,
        "overrides": dict(preset.overrides),
        "seed": seed,
        "num_clips": num_clips,
        "window": window,
        "synthesizer_version": SYNTHESIZER_VERSION,
    }
