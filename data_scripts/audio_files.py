"""Real recordings: decoded, mono, at one sampling rate, and never silence in place of a file that cannot be read.

Decoding is libsndfile's (wav, flac, ogg, mp3; no FFmpeg), resampling torchaudio's.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import soundfile
import torch
from torch import Tensor
from torchaudio.transforms import Resample
from tqdm import tqdm

DEFAULT_SAMPLING_RATE = 16000

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


def read_audio(path_or_bytes: str | Path | bytes, sampling_rate: int = DEFAULT_SAMPLING_RATE) -> Tensor:
    """Decode a recording to one mono waveform.

    Args:
        path_or_bytes: A file's path, or its whole content.
        sampling_rate: Rate in Hz of the result.

    Returns:
        Shape `(samples,)`, float32; integer formats have their full scale at 1. Channels are averaged.

    Raises:
        AudioFileError: if the file is missing, cannot be decoded, ends before its header says, is empty, or holds
            samples that are not finite.

    Example:
        >>> import numpy as np
        >>> content = BytesIO()
        >>> soundfile.write(content, np.zeros((44100, 2)), 44100, format="WAV")
        >>> read_audio(content.getvalue()).shape
        torch.Size([16000])
    """
    name = "The audio given as bytes" if isinstance(path_or_bytes, bytes) else str(path_or_bytes)
    samples, file_rate = _decode(path_or_bytes, name)
    if samples.numel() == 0:
        raise AudioFileError(name, "it holds no samples", "Leave it out, or replace the file.")
    mono = samples.mean(dim=1)
    if not torch.isfinite(mono).all():
        wrong = int((~torch.isfinite(samples)).sum())
        raise AudioFileError(name, f"{wrong} of its samples are NaN or infinite", "Write it again from its source.")
    return mono if file_rate == sampling_rate else _resampler(file_rate, sampling_rate)(mono)


def read_audio_files(
    paths: Sequence[str | Path],
    sampling_rate: int = DEFAULT_SAMPLING_RATE,
    *,
    num_samples: int | None = None,
    num_threads: int = 4,
) -> list[Tensor]:
    """Decode many recordings on a few threads, with a progress bar.

    Args:
        paths: The files.
        sampling_rate: Rate in Hz of the results.
        num_samples: Match each waveform to this length (see `match_length`); by default lengths stay as they are.
        num_threads: Decoding and resampling leave Python, so threads share the work without copies.

    Returns:
        One float32 waveform `(samples,)` per path, in the order of `paths`.

    Raises:
        AudioFileError: if any file cannot be used; every such file is listed, after all have been tried.

    Example:
        >>> read_audio_files([])
        []
    """
    read = _returning_errors(lambda path: _read_matched(path, sampling_rate, num_samples))
    with ThreadPoolExecutor(max_workers=num_threads) as pool:
        results = list(tqdm(pool.map(read, paths), total=len(paths), desc="Reading audio", unit="file", disable=None))
    failures = [result for result in results if isinstance(result, AudioFileError)]
    if failures:
        listing = "\n".join(f"  {failure}" for failure in failures)
        raise AudioFileError(
            f"{len(failures)} of {len(paths)} files", "see the list", f"Replace them or leave them out.\n{listing}"
        )
    return [result for result in results if isinstance(result, Tensor)]


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


def _decode(path_or_bytes: str | Path | bytes, name: str) -> tuple[Tensor, int]:
    """Samples `(frames, channels)` in float32, and their rate in Hz."""
    if not isinstance(path_or_bytes, bytes) and not Path(path_or_bytes).is_file():
        raise AudioFileError(name, "there is no such file", "Check the path.")
    source = BytesIO(path_or_bytes) if isinstance(path_or_bytes, bytes) else str(path_or_bytes)
    try:
        with soundfile.SoundFile(source) as file:
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


def _read_matched(path: str | Path, sampling_rate: int, num_samples: int | None) -> Tensor:
    waveform = read_audio(path, sampling_rate)
    return waveform if num_samples is None else match_length(waveform, num_samples)


def _returning_errors(read: Callable[[str | Path], Tensor]) -> Callable[[str | Path], Tensor | AudioFileError]:
    """The same function, but that one bad file does not end the reading of the others."""

    def attempt(path: str | Path) -> Tensor | AudioFileError:
        try:
            return read(path)
        except AudioFileError as error:
            return error

    return attempt


@lru_cache(maxsize=16)
def _resampler(from_rate: int, to_rate: int) -> Resample:
    """Computing the filter costs more than applying it to a few seconds."""
    return Resample(from_rate, to_rate, **RESAMPLING)
