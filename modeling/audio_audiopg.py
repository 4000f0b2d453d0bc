"""Recordings as waveforms: decoded, mono, at one sampling rate, and never silence in place of what cannot be read.

Decoding is libsndfile's (wav, flac, ogg, mp3; no FFmpeg), resampling torchaudio's. Both are imported when they are
first needed: samples at the right rate need neither.
"""

from functools import lru_cache
from importlib import import_module
from io import BytesIO
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# A Kaiser window over 64 zero crossings with the pass band up to 0.95 of Nyquist and about 120 dB of rejection: the
# setting that resampy calls "kaiser_best". torchaudio's default, 6 zero crossings, lets audible aliases through.
RESAMPLING = {
    "resampling_method": "sinc_interp_kaiser",
    "lowpass_filter_width": 64,
    "rolloff": 0.9475937167399596,
    "beta": 14.769656459379492,
}


class AudioFileError(ValueError):
    """A recording cannot be used; the message names the file, the reason and the remedy.

    Args:
        name: The file's path, or what stands for it.
        reason: What is wrong, as a clause.
        remedy: What to do, as a sentence.

    Example:
        >>> str(AudioFileError("clip.wav", "it holds no samples", "Replace the file."))
        'clip.wav cannot be used: it holds no samples. Replace the file.'
    """

    def __init__(self, name: str, reason: str, remedy: str):
        super().__init__(f"{name} cannot be used: {reason}. {remedy}")


def read_audio(path_or_bytes: str | PathLike | bytes, sampling_rate: int = 16000) -> Tensor:
    """Decode a recording to one mono waveform.

    Args:
        path_or_bytes: A file's path, or its whole content.
        sampling_rate: Rate in Hz of the result.

    Returns:
        Shape `(samples,)`, float32; integer formats have their full scale at 1. Channels are averaged.

    Raises:
        AudioFileError: if the file is missing, cannot be decoded, ends before its header says, is empty, or holds
            samples that are not finite.
        ImportError: if soundfile is missing, or torchaudio where the rate changes.

    Example:
        >>> import numpy as np, soundfile
        >>> content = BytesIO()
        >>> soundfile.write(content, np.zeros((44100, 2)), 44100, format="WAV")
        >>> read_audio(content.getvalue()).shape
        torch.Size([16000])
    """
    name = "The audio given as bytes" if isinstance(path_or_bytes, bytes) else fspath(path_or_bytes)
    samples, file_rate = _decode(path_or_bytes, name)
    if samples.numel() == 0:
        raise AudioFileError(name, "it holds no samples", "Leave it out, or replace the file.")
    mono = samples.mean(dim=1)
    if not torch.isfinite(mono).all():
        wrong = int((~torch.isfinite(samples)).sum())
        raise AudioFileError(name, f"{wrong} of its samples are NaN or infinite", "Write it again from its source.")
    return resample(mono, file_rate, sampling_rate)


def resample(waveform: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """Change the sampling rate, with no audible alias.

    Args:
        waveform: Floating point, shape `(..., samples)`.
        from_rate: Its rate in Hz.
        to_rate: Rate in Hz of the result.

    Returns:
        Shape `(..., samples * to_rate / from_rate, rounded up)`, on the same device; the waveform itself where the
        rates are equal.

    Raises:
        ImportError: if torchaudio is missing and the rates differ.

    Example:
        >>> resample(torch.zeros(2, 44100), 44100, 16000).shape
        torch.Size([2, 16000])
    """
    return waveform if from_rate == to_rate else _resampler(from_rate, to_rate, waveform.device)(waveform)


def match_length(waveform: Tensor, num_samples: int) -> Tensor:
    """Bring a waveform to a length: the middle of a longer one, a shorter one repeated from its start (AudioPG).

    Args:
        waveform: Shape `(..., samples)`.
        num_samples: The length wanted.

    Returns:
        Shape `(..., num_samples)`.

    Raises:
        ValueError: if the waveform is empty: repeating nothing gives nothing.

    Example:
        >>> match_length(torch.arange(5), 3), match_length(torch.arange(3), 7)
        (tensor([1, 2, 3]), tensor([0, 1, 2, 0, 1, 2, 0]))
    """
    length = waveform.shape[-1]
    if length == 0:
        raise ValueError("A waveform of no samples cannot be repeated to a length. Leave the clip out.")
    if length >= num_samples:
        start = (length - num_samples) // 2
        return waveform[..., start : start + num_samples]
    positions = torch.arange(num_samples, device=waveform.device) % length
    return waveform[..., positions]


def _decode(path_or_bytes: str | PathLike | bytes, name: str) -> tuple[Tensor, int]:
    """Samples `(frames, channels)` in float32, and their rate in Hz."""
    if not isinstance(path_or_bytes, bytes) and not Path(path_or_bytes).is_file():
        if "://" in name:
            raise AudioFileError(name, "it is an address, and recordings are read from files", "Download it first.")
        raise AudioFileError(name, "there is no such file", "Check the path.")
    soundfile = _import("soundfile", "Decoding a file")
    try:
        with soundfile.SoundFile(BytesIO(path_or_bytes) if isinstance(path_or_bytes, bytes) else name) as file:
            samples = file.read(dtype="float32", always_2d=True)
            promised, sampling_rate = file.frames, file.samplerate
    except soundfile.LibsndfileError as error:
        raise AudioFileError(
            name,
            f"libsndfile cannot decode it ({error.error_string.rstrip('.')})",
            "Convert it to WAV or FLAC, or fetch it again if it should be one of them.",
        ) from error
    except (ValueError, MemoryError) as error:  # NumPy's, of a length that no file has
        raise AudioFileError(
            name, f"it does not say how long it is ({error})", "Write it again, to a file instead of a pipe."
        ) from error
    if len(samples) < promised:
        raise AudioFileError(
            name, f"it ends after {len(samples)} of {promised} frames", "It was cut short: fetch it again."
        )
    return torch.from_numpy(samples), sampling_rate


@lru_cache(maxsize=16)
def _resampler(from_rate: int, to_rate: int, device: torch.device) -> Any:
    """Computing the filter costs more than applying it to a few seconds."""
    transforms = _import("torchaudio.transforms", f"Resampling from {from_rate} Hz to {to_rate} Hz")
    return transforms.Resample(from_rate, to_rate, **RESAMPLING).to(device)


def _import(module: str, purpose: str) -> Any:
    # By name: the loader of remote code refuses a file when anything that it imports, at any depth, is missing.
    try:
        return import_module(module)
    except ImportError as error:
        package = module.split(".")[0]
        raise ImportError(
            f"{purpose} needs {package}, which cannot be imported here ({error}). Install it with `pip install "
            f"{package}`, or pass mono samples at the model's own rate, which need nothing. FFmpeg is not used."
        ) from error


__all__ = ["RESAMPLING", "AudioFileError", "match_length", "read_audio", "resample"]
