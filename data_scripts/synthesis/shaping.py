"""What happens to a whole clip: damping and normalisation. Pure functions, waveform to waveform."""

import math

import torch
from torch import Tensor

BUTTERWORTH_Q = 0.707
_TAIL_LEVEL = 1e-8


def _tail_samples(cutoff_hz: float, sampling_rate: int) -> int:
    """Samples after which the impulse response of the biquad has fallen below 1e-8."""
    alpha = math.sin(2 * math.pi * cutoff_hz / sampling_rate) / (2 * BUTTERWORTH_Q)
    pole_radius = math.sqrt((1 - alpha) / (1 + alpha))
    return math.ceil(math.log(_TAIL_LEVEL) / math.log(pole_radius))


def _fast_length(minimum: int) -> int:
    """The smallest even product of powers of 2, 3 and 5 that is not below `minimum`: FFTs are fast there."""
    products = (3**b * 5**c for b in range(12) for c in range(8) if 3**b * 5**c <= 2 * minimum)
    return min(p * 2 ** max(1, math.ceil(math.log2(minimum / p))) for p in products)


def low_pass(waveform: Tensor, cutoff: Tensor, *, sampling_rate: int, cutoff_range: tuple[float, float]) -> Tensor:
    r"""Second-order low-pass filter with Q 0.707 (Bristow-Johnson, "Cookbook formulae for audio EQ biquad filters").

    The bilinear transform of $H(s) = 1 / (s^2 + s / Q + 1)$ with $s = j \tan(\omega / 2) / \tan(\omega_c / 2)$,
    applied in the frequency domain to the clip and enough silence after it for the filter to ring out.

    Args:
        waveform: float32, shape `(batch, samples)`.
        cutoff: Cutoff frequency in Hz, shape `(batch,)`.
        sampling_rate: In Hz.
        cutoff_range: The lowest and the highest cutoff that can occur, in Hz; the filter rings longest at one of them.
            They set the silence, so that a clip does not depend on its batch.

    Returns:
        float32 of the shape of `waveform`.

    Example:
        >>> click = torch.eye(1, 64)
        >>> y = low_pass(click, torch.tensor([4000.0]), sampling_rate=16000, cutoff_range=(4000.0, 4000.0))
        >>> bool(torch.isclose(y[0, 0], torch.tensor(0.2929), atol=1e-4))
        True
    """
    num_samples = waveform.shape[-1]
    tail = max(_tail_samples(end, sampling_rate) for end in cutoff_range)
    padded = _fast_length(num_samples + tail)
    omega = 2 * math.pi / padded * torch.arange(padded // 2 + 1, device=waveform.device, dtype=torch.float64)
    inverse_tangent = 1 / torch.tan(math.pi * cutoff.double() / sampling_rate).float()[:, None]
    # Both halves of the fraction times 2 cos^2(omega / 2), which leaves nothing infinite at the Nyquist frequency.
    numerator = (1 + omega.cos()).float()
    real = numerator - (1 - omega.cos()).float() * inverse_tangent.square()
    imaginary = omega.sin().float() * (inverse_tangent / BUTTERWORTH_Q)
    spectrum = torch.fft.rfft(waveform, padded)
    spectrum *= numerator / torch.complex(real, imaginary)
    return torch.fft.irfft(spectrum, padded)[..., :num_samples]


def peak_normalise(waveform: Tensor) -> Tensor:
    r"""Divide each clip by its largest absolute sample (AudioPG, equation 1); a silent clip stays silent.

    Args:
        waveform: Shape `(batch, samples)`.

    Returns:
        In [-1, 1], of the same shape.

    Example:
        >>> peak_normalise(torch.tensor([[0.5, -2.0], [0.0, 0.0]])).tolist()
        [[0.25, -1.0], [0.0, 0.0]]
    """
    peak = torch.linalg.vector_norm(waveform, ord=math.inf, dim=-1, keepdim=True)
    return waveform / peak.clamp(min=torch.finfo(waveform.dtype).tiny)
