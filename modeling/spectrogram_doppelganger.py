"""The log-mel of VGGish, batched, on any device: the front end of Audio Doppelgängers.

As in Hershey et al. 2017, "CNN Architectures for Large-Scale Audio Classification", and the code that came with it.
What differs from AudioPG's own front end, beside the numbers: neither the mean is removed nor a pre-emphasis applied,
magnitudes stand where powers do there, and a constant is added before the logarithm instead of a floor.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor
from transformers.audio_utils import mel_filter_bank

from .spectrogram_audiopg import frame_length, hop_length, window_values

SAMPLING_RATE = 16000
FFT_LENGTH = 512
LOWEST_FREQUENCY_HZ = 125.0
HIGHEST_FREQUENCY_HZ = 7500.0
LOG_OFFSET = 0.01
SILENCE = math.log(LOG_OFFSET)
"""The log-mel of digital silence, about -4.605."""


def vggish_log_mel(waveform: Tensor, num_mel_bins: int = 64) -> Tensor:
    r"""Natural logarithm of mel magnitudes, $\log(0.01 + \sum_k w_{mk} |X_k|)$, of waveforms at 16 kHz.

    Frames are 25 ms every 10 ms, wholly inside the waveform, under a periodic Hann window, padded with zeros to 512
    samples. The triangles $w_m$ are of equal width on the mel scale $1127 \ln(1 + f / 700)$ between 125 and 7500 Hz,
    linear in mel, at most 1 high. Nothing is standardised.

    A clip gives the same result in any batch. It is differentiable, and computed in float32 under autocast too.

    Args:
        waveform: Shape `(..., samples)`, floating point in [-1, 1], on any device.
        num_mel_bins: Number of mel bands.

    Returns:
        Shape `(..., frames, num_mel_bins)`, float32, on the waveform's device: 98 frames for 1 s.

    Raises:
        ValueError: if the waveform is shorter than one frame or not floating point.

    Example:
        >>> log_mel = vggish_log_mel(torch.zeros(2, 16000))
        >>> log_mel.shape, round(float(log_mel[0, 0, 0]), 5)
        (torch.Size([2, 98, 64]), -4.60517)
    """
    if not waveform.is_floating_point():
        raise ValueError(
            f"vggish_log_mel takes floating point samples in [-1, 1], and got {waveform.dtype}. Divide int16 samples "
            "by 32768, or use DoppelgangerFeatureExtractor, which does it."
        )
    if waveform.shape[-1] < frame_length(SAMPLING_RATE):
        raise ValueError(
            f"A waveform must hold at least one frame of 25 ms ({frame_length(SAMPLING_RATE)} samples), and this one "
            f"has {waveform.shape[-1]} samples. Pad it with zeros, or leave it out."
        )
    # A cache that is filled while a tracer runs would keep the tracer's stand-ins for tensors.
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
    window, weights = (_constants if traced else _cached_constants)(num_mel_bins, waveform.device)
    with torch.autocast(waveform.device.type, enabled=False):
        frames = waveform.to(torch.float32).unfold(-1, frame_length(SAMPLING_RATE), hop_length(SAMPLING_RATE))
        magnitudes = torch.fft.rfft(frames * window, n=FFT_LENGTH).abs()
        return (magnitudes @ weights + LOG_OFFSET).log()


def _constants(num_mel_bins: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The window, `(400,)`, and the weights of the mel bands, `(257, num_mel_bins)`."""
    with torch.inference_mode(False):  # an inference tensor in the cache could never take part in a backward pass
        length = frame_length(SAMPLING_RATE)
        window = window_values("hann", length + 1)[:length]  # periodic: a symmetric one without its last value
        weights = mel_filter_bank(
            num_frequency_bins=FFT_LENGTH // 2 + 1,
            num_mel_filters=num_mel_bins,
            min_frequency=LOWEST_FREQUENCY_HZ,
            max_frequency=HIGHEST_FREQUENCY_HZ,
            sampling_rate=SAMPLING_RATE,
            mel_scale="kaldi",
            triangularize_in_mel_space=True,
        )
        return window.to(device), torch.from_numpy(weights).to(device, torch.float32)


_cached_constants = lru_cache(maxsize=16)(_constants)
