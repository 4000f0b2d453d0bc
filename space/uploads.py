"""Recordings that people bring: read, or refused in a sentence. Knows no Gradio."""

from pathlib import Path

import numpy as np
import soundfile
import torch

from audiopg.modeling.audio_audiopg import AudioFileError, printable, read_audio
from audiopg.modeling.spectrogram_audiopg import FRAME_LENGTH_SECONDS

LONGEST_SECONDS = 30.0
"""What is drawn and redrawn patch by patch on a page; `model.embed` takes hours."""


class UploadError(ValueError):
    """A recording that this page cannot take; the message is a sentence for whoever brought it."""


def read_upload(path: str | Path | None, sampling_rate: int, longest: float = LONGEST_SECONDS) -> np.ndarray:
    """A recording as samples.

    Args:
        path: The file, None where there is none.
        sampling_rate: In Hz, of the result.
        longest: In s.

    Returns:
        float32, mono, shape `(samples,)`.

    Raises:
        UploadError: if there is none, it is no sound, it is empty or silent, too short or too long.

    Example:
        >>> path = Path(getfixture("tmp_path")) / "tone.wav"
        >>> soundfile.write(path, np.sin(np.arange(8000)), 8000)
        >>> read_upload(path, 16000).shape
        (16000,)
    """
    if path is None:
        raise UploadError("There is no sound yet: drop a file or record one.")
    name = printable(Path(path).name)
    if not Path(path).stat().st_size:
        raise UploadError(f"{name} is empty: it holds no bytes. Choose another file.")
    try:
        seconds = soundfile.info(str(path)).duration  # the header's word, before anything is decoded
        if seconds <= longest:
            waveform = read_audio(path, sampling_rate)
    except (soundfile.LibsndfileError, AudioFileError) as error:
        detail = str(error).partition(": ")[2] if isinstance(error, AudioFileError) else ""
        raise UploadError(
            f"{name} cannot be read as a sound{': ' + detail if detail else '.'} WAV, FLAC, OGG and MP3 files can be."
        ) from error
    if seconds > longest:
        raise UploadError(
            f"{name} lasts {said_time(seconds)}, and this page takes up to {said_time(longest)}. Cut a part out of "
            "it; from Python, model.embed takes recordings of hours."
        )
    if len(waveform) < FRAME_LENGTH_SECONDS * sampling_rate:
        raise UploadError(
            f"{name} lasts {1000 * len(waveform) / sampling_rate:.0f} ms, and a sound lasts "
            f"{1000 * FRAME_LENGTH_SECONDS:.0f} ms at least. Choose a longer one."
        )
    if not torch.any(waveform):
        raise UploadError(f"{name} is silent: all of its samples are 0. Choose another, or check the microphone.")
    return waveform.numpy()


def said_time(seconds: float) -> str:
    """A length in words.

    Example:
        >>> said_time(30), said_time(3600)
        ('30 s', '60 min')
    """
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


__all__ = ["LONGEST_SECONDS", "UploadError", "read_upload", "said_time"]
