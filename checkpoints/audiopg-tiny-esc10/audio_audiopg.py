"""Recordings as waveforms: decoded, mono, at one sampling rate, and never silence in place of what cannot be read.

Training, embedding and the pipelines read through this file alone, so that one set of rules holds: what stands for a
recording is in `read_waveform`, what a file must fulfil in `read_audio`, which samples are sound in `to_float` and
`check_peak`, and which of two dimensions counts channels in `to_mono`.

Decoding is libsndfile's (wav, flac, ogg, mp3; no FFmpeg), resampling torchaudio's. Both are imported when they are
first needed: samples at the right rate need neither.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import lru_cache
from importlib import import_module
from io import BytesIO
from math import isfinite
from os import PathLike, fspath
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor
from transformers.utils import logging

from .containers_audiopg import cut_short, mp3_samples

logger = logging.get_logger(__name__)

# A Kaiser window over 64 zero crossings with the pass band up to 0.95 of Nyquist and about 120 dB of rejection: the
# setting that resampy calls "kaiser_best". torchaudio's default, 6 zero crossings, lets audible aliases through.
RESAMPLING = {
    "resampling_method": "sinc_interp_kaiser",
    "lowpass_filter_width": 64,
    "rolloff": 0.9475937167399596,
    "beta": 14.769656459379492,
}

LOWEST_RATE, HIGHEST_RATE = 1_000, 1_000_000
"""Rates in Hz that recordings have: speech codecs start at 8 kHz, and bats are recorded at 500 kHz."""

# A filter's table has as many values as the two whole numbers of the ratio multiplied, times a few. The usual rates
# stay far below this bound and are exact. A ratio above it is met by smaller numbers to within 1e-5, a sixtieth of a
# cent, which no ear and no mel band can tell.
LARGEST_RATIO_PRODUCT = 2**20
LARGEST_NEAR_TERM = 2**9
RATIO_TOLERANCE = Fraction(1, 100_000)

# Float audio that was never clipped may pass 1 by some decibels, and a click in a clip of unit variance may pass 100.
# Samples with the values of 16-bit integers pass this unless they stay below -48 dB.
LARGEST_PEAK = 128.0

# No recording is this short, so a dimension this small counts channels.
MOST_CHANNELS = 8

# Of a file, which says so itself: the largest arrays of microphones.
MOST_FILE_CHANNELS = 256

# A mean this far below that of independent channels is what is left of channels that cancel.
CANCELLED = 0.01

FULL_SCALE = {
    torch.int8: (0, 2.0**7),
    torch.int16: (0, 2.0**15),
    torch.int32: (0, 2.0**31),
    torch.uint8: (2**7, 2.0**7),
    torch.uint16: (2**15, 2.0**15),
}
"""Of integer samples the value of silence, which unsigned ones have in the middle, and what they are divided by."""

# What encoders of MP3 add to a recording at both ends, at most, and a decoder leaves out: two fields of 12 bits, and a
# frame for the table that says so.
_MOST_MP3_PADDING = 2 * 4095 + 1152

# Where libsndfile lowers its promise to what it finds and only its log says so: Creative Voice, and Ogg, whose damaged
# pages it leaves out.
_LOGGED_DAMAGE = ("truncated file", "Corrupted bitstream")

_CONTENT = (bytes, bytearray, memoryview)

# So many values are decoded at a time: what a header says is never allocated on its word.
_VALUES_PER_BLOCK = 2**20


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
        super().__init__(f"{printable(name)} cannot be used: {reason}. {remedy}")


def printable(name: str) -> str:
    r"""The name of a file, which need not be UTF-8 on disk, as a log can hold it.

    Example:
        >>> printable("caf\udce9.wav")
        'caf\\udce9.wav'
    """
    return name.encode("utf-8", "backslashreplace").decode()


def read_waveform(recording: Any, sampling_rate: int = 16000, name: str = "this recording") -> Any:
    """One mono waveform out of whatever stands for a recording.

    Args:
        recording: What `read_audio` takes; a decoder of `datasets` or torchcodec, or what it decoded; a dictionary as
            `datasets` has them, with `array` (or `raw`) and `sampling_rate`, or with `bytes` or `path`; or samples,
            which are already at `sampling_rate`: an array, a tensor or a list.
        sampling_rate: Rate in Hz of the result.
        name: What messages call it, if it has no name of its own.

    Returns:
        Shape `(samples,)`. Decoded and resampled it is a float32 tensor; samples of one dimension come back as they
        are, and of two as `to_mono` makes them.

    Raises:
        AudioFileError: as `read_audio`, or if there is nothing where a recording should be.
        ImportError: as `read_audio`; samples at the right rate need no library.
        ValueError: as `to_float`, `to_mono` and `resample`, or if a dictionary holds no audio.

    Example:
        >>> read_waveform({"array": np.zeros(8000, dtype="float32"), "sampling_rate": 8000}, 16000).shape
        torch.Size([16000])
    """
    if recording is None:
        raise AudioFileError(name, "it is missing (None)", "Leave it out, or look for its file.")
    if isinstance(recording, dict):
        return _read_dictionary(recording, sampling_rate, name)
    if is_file(recording):
        return read_audio(recording, sampling_rate)
    if hasattr(recording, "get_all_samples"):
        return _read_decoded(_decoded(recording, name), sampling_rate, name)
    if _is_decoded(recording):
        return _read_decoded(recording, sampling_rate, name)
    is_row = isinstance(recording, (np.ndarray, Tensor)) and recording.ndim == 1 and not _is_special(recording)
    return recording if is_row or isinstance(recording, (list, tuple)) else to_mono(recording, name)


def is_file(recording: Any) -> bool:
    """Whether this is what `read_audio` takes: a path, an address, a file's content or an open file."""
    return isinstance(recording, (str, PathLike, *_CONTENT)) or hasattr(recording, "read")


def is_one_recording(audio: Any) -> bool:
    """Whether this is one recording that says what it is, not samples and not a list of recordings."""
    return is_file(audio) or isinstance(audio, dict) or hasattr(audio, "get_all_samples") or _is_decoded(audio)


def read_audio(source: Any, sampling_rate: int = 16000) -> Tensor:
    """Decode a recording to one mono waveform.

    Args:
        source: A file's path; an address with a protocol, such as `hf://` or `zip://`, that fsspec opens; a file's
            whole content; or a file that is open for reading bytes.
        sampling_rate: Rate in Hz of the result.

    Returns:
        Shape `(samples,)`, float32; integer formats have their full scale at 1. Channels are averaged.

    Raises:
        AudioFileError: if the file is missing, cannot be decoded, ends before its header says, is empty, is of a rate
            or a number of channels that no recording has, or holds samples that are not finite or far outside [-1, 1].
        ImportError: if soundfile is missing, or torchaudio where the rate changes.

    Example:
        >>> import soundfile
        >>> content = BytesIO()
        >>> soundfile.write(content, np.zeros((44100, 2)), 44100, format="WAV")
        >>> read_audio(content.getvalue()).shape
        torch.Size([16000])
    """
    name = _name(source)
    with _opened(source, name) as file:
        ending = cut_short(file)
        if ending is not None:
            raise AudioFileError(name, ending, "Fetch it again if it was cut short, or convert it to WAV or FLAC.")
        mono, file_rate = _decode(file, name)
    return resample(mono, file_rate, sampling_rate)


def to_float(samples: Any, name: str = "this recording") -> Tensor:
    """Samples as a float32 tensor of the same shape, whatever numbers they are.

    Args:
        samples: An array, a tensor, or a list of floats. Integers are divided by their full scale; unsigned ones have
            silence in the middle of their range.
        name: What the message calls it.

    Returns:
        A new tensor, or the same one if it is a tensor of float32.

    Raises:
        ValueError: if these are no real numbers, values are masked, or the full scale of their type is not known.

    Example:
        >>> to_float(np.array([-128, 0, 64], dtype=np.int8)), to_float(np.array([128, 255], dtype=">u2")).shape
        (tensor([-1.0000,  0.0000,  0.5000]), torch.Size([2]))
    """
    tensor = samples if isinstance(samples, Tensor) else _to_tensor(samples, name)
    if _is_special(tensor):
        raise ValueError(
            f"Samples are plain numbers in memory, and {name} is a tensor that is {tensor.layout}, {tensor.dtype} and "
            f"on the device {tensor.device}. Convert it first: `to_dense()`, or `dequantize()`."
        )
    if tensor.is_floating_point():
        return tensor.to(torch.float32)
    if tensor.dtype not in FULL_SCALE:
        raise ValueError(
            f"Samples are floating point in [-1, 1], or integers of 8, 16 or 32 bits, and {name} has {tensor.dtype}. "
            "Convert it to floating point and divide by its full scale."
        )
    silence, full_scale = FULL_SCALE[tensor.dtype]
    return (tensor.to(torch.float32) - silence) / full_scale if silence else tensor.to(torch.float32) / full_scale


def to_mono(samples: Any, name: str = "this recording") -> Tensor:
    """The mean over the channels of one recording, wherever they are.

    Of two dimensions, the one of 8 or less counts channels and the longer one samples; a recording of one dimension is
    mono. Channels that cancel each other are averaged too, and a warning says so.

    Args:
        samples: As for `to_float`, of one or two dimensions.
        name: What messages call it.

    Returns:
        Shape `(samples,)`, float32.

    Raises:
        ValueError: as `to_float`, or if it cannot be told which dimension counts channels.

    Example:
        >>> to_mono(np.ones((2, 16000))).shape, to_mono(np.ones((16000, 2))).shape
        (torch.Size([16000]), torch.Size([16000]))
    """
    waveform = to_float(samples, name)
    if waveform.ndim == 1:
        return waveform
    few = [dim for dim, size in enumerate(waveform.shape) if 1 <= size <= MOST_CHANNELS]
    if waveform.ndim != 2 or len(few) != 1:
        raise ValueError(
            f"A recording is mono, of shape (samples,), or has another dimension, of {MOST_CHANNELS} channels "
            f"or fewer, and {name} has {tuple(waveform.shape)}. Average its channels first: `waveform.mean(0)` if "
            "they come first, `waveform.mean(-1)` if they come last."
        )
    mono = waveform.mean(dim=few[0])
    _warn_of_cancelled_channels(name, waveform.shape[few[0]], waveform.square().mean(), mono.square().mean())
    return mono


def check_peak(peak: float, name: str) -> None:
    """Refuse finite samples that are far outside [-1, 1].

    Args:
        peak: The largest magnitude.
        name: What the message calls the recording.

    Raises:
        ValueError: if it is above `LARGEST_PEAK`.

    Example:
        >>> check_peak(1.5, "clip 0")
    """
    if peak > LARGEST_PEAK:
        raise ValueError(
            f"Floating point samples lie in [-1, 1], and {name} reaches {peak:.6g}. If these are the values of 16-bit "
            "integers, pass them as int16 or divide them by 32768."
        )


def resample(waveform: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """Change the sampling rate, with no audible alias.

    Args:
        waveform: Floating point, shape `(..., samples)`.
        from_rate: Its rate in Hz.
        to_rate: Rate in Hz of the result.

    Returns:
        Shape `(..., samples * to_rate / from_rate, rounded up)`, on the same device, the ratio as `resampling_ratios`
        has it; the waveform itself where the rates are equal.

    Raises:
        ImportError: if torchaudio is missing and the rates differ.
        ValueError: if a rate is none that recordings have.

    Example:
        >>> resample(torch.zeros(2, 44100), 44100, 16000).shape
        torch.Size([2, 16000])
    """
    if from_rate != to_rate:
        for ratio in resampling_ratios(from_rate, to_rate):
            waveform = _resampler(from_rate, to_rate, ratio, waveform.device)(waveform)
    return waveform


@lru_cache(maxsize=64)
def resampling_ratios(from_rate: int, to_rate: int) -> tuple[Fraction, ...]:
    """`to_rate / from_rate` as steps of resampling: exactly, or within 1e-5 where an exact filter would be huge.

    Few ratios of small numbers lie near one such as 16000 / 16001; two steps after each other get there.

    Args:
        from_rate: In Hz.
        to_rate: In Hz.

    Returns:
        Ratios whose product it is; one, and exact, for all rates of audio hardware.

    Raises:
        ValueError: if a rate is no whole number between `LOWEST_RATE` and `HIGHEST_RATE`.

    Example:
        >>> resampling_ratios(44100, 16000), resampling_ratios(44099, 16000)
        ((Fraction(160, 441),), (Fraction(5, 4), Fraction(137, 472)))
    """
    for rate in (from_rate, to_rate):
        reason = _wrong_rate(rate)
        if reason is not None:
            raise ValueError(f"{reason}. Check where it comes from.")
    exact = Fraction(int(to_rate), int(from_rate))
    if exact.numerator * exact.denominator <= LARGEST_RATIO_PRODUCT:
        return (exact,)
    first_steps = (Fraction(n + 1, n) if n else Fraction(1) for n in range(LARGEST_NEAR_TERM))
    for first in first_steps:
        rest = exact / first
        near = rest.limit_denominator(int(LARGEST_NEAR_TERM / max(Fraction(1), rest)))
        if abs(first * near / exact - 1) <= RATIO_TOLERANCE:
            return tuple(step for step in (first, near) if step != 1)
    raise AssertionError(f"{exact} is within {RATIO_TOLERANCE} of no two ratios of small numbers.")


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


def _name(source: Any) -> str:
    if isinstance(source, _CONTENT):
        return "The audio given as bytes"
    if isinstance(source, (str, PathLike)):
        return str(fspath(source))
    return str(getattr(source, "name", "The audio given as a file"))


@contextmanager
def _opened(source: Any, name: str) -> Iterator[BinaryIO]:
    """Something to seek and read in, from the start of the recording on."""
    if isinstance(source, (str, PathLike)) and "://" not in name:
        try:
            if not Path(source).is_file():
                raise AudioFileError(name, "there is no such file", "Check the path.")
            # Unbuffered: libsndfile goes on where the operating system says that the file stands.
            file = open(source, "rb", buffering=0)  # noqa: SIM115 - closed below; only opening may fail with these words
        except OSError as error:
            raise AudioFileError(name, f"it cannot be opened ({error.strerror})", "Check who may read it.") from error
        with file:
            yield file
    elif isinstance(source, _CONTENT):
        yield BytesIO(source)
    else:
        yield BytesIO(_content(source, name))


def _content(source: Any, name: str) -> bytes:
    """All bytes of an open file from its start on, or of an address."""
    if hasattr(source, "read"):
        if getattr(source, "seekable", bool)():
            source.seek(0)
        content = source.read()
        if not isinstance(content, bytes):
            raise AudioFileError(name, "it is open as text", 'Open it for reading bytes: open(path, "rb").')
        return content
    fsspec = _import("fsspec", "Reading from an address")
    try:
        with fsspec.open(name, "rb") as file:
            return file.read()
    except Exception as error:  # each protocol fails in ways of its own
        reason = f"it cannot be read from its address ({type(error).__name__}: {error})"
        raise AudioFileError(name, reason, "Download it first, or check the address and the network.") from error


def _decode(file: BinaryIO, name: str) -> tuple[Tensor, int]:
    """The mean of the channels, `(frames,)` in float32, and the rate in Hz."""
    soundfile = _import("soundfile", "Decoding a file")
    file.seek(0)
    promised = None
    try:
        # By its number, for then libsndfile reads alone; a name would have to be UTF-8.
        with soundfile.SoundFile(file if isinstance(file, BytesIO) else file.fileno(), closefd=False) as audio:
            promised, file_rate = audio.frames, audio.samplerate
            _check_header(name, promised, file_rate, audio.channels)
            channels = _Channels(name, audio.channels)
            # After each block soundfile would seek to where it is: there MP3 would start anew, and damaged Ogg repeat.
            audio.seekable = lambda: False
            while channels.frames < promised:
                wanted = min(_VALUES_PER_BLOCK // audio.channels, promised - channels.frames)
                block = audio.read(wanted, dtype="float32", always_2d=True)
                if len(block):
                    channels.add(torch.from_numpy(block))
                if len(block) < wanted:
                    break
            is_mp3, log = audio.format == "MP3", audio.extra_info
    except soundfile.LibsndfileError as error:
        detail = error.error_string.removeprefix("Error : ").strip(" .") or "it gives no reason"
        reason = f"libsndfile cannot decode it ({detail})"
        if promised is not None:
            reason += f": it ends or is damaged before all of its {promised} frames are read"
        remedy = "Fetch it again if it was cut short, or convert it to WAV or FLAC."
        raise AudioFileError(name, reason, remedy) from error
    if is_mp3:  # libsndfile guesses the length where no table has it, and reads no further
        promised = max(promised, mp3_samples(file) - _MOST_MP3_PADDING)
    if channels.frames < promised or any(word in log for word in _LOGGED_DAMAGE):
        reason = f"it is damaged, or ends, after {channels.frames} of {promised} frames"
        raise AudioFileError(name, reason, "Fetch it again if it was cut short, or convert it to WAV or FLAC.")
    return channels.mono(), file_rate


class _Channels:
    """The mean over the channels of one block after the other, and what is wrong with the samples of all."""

    def __init__(self, name: str, count: int) -> None:
        self.name, self.count, self.frames = name, count, 0
        self._mono: list[Tensor] = []
        self._peak, self._not_finite = 0.0, 0
        self._power, self._mono_power = 0.0, 0.0

    def add(self, samples: Tensor) -> None:
        """Take the next frames, `(frames, channels)`."""
        self.frames += len(samples)
        mono = samples.mean(dim=1)
        self._mono.append(mono)
        peak = float(samples.abs().amax())  # NaN where any sample is
        if isfinite(peak):
            self._peak = max(self._peak, peak)
        else:
            self._not_finite += int((~torch.isfinite(samples)).sum())
        if self.count > 1:
            self._power += float(samples.square().mean(dim=1).sum())
            self._mono_power += float(mono.square().sum())

    def mono(self) -> Tensor:
        """The mean of all of them, `(frames,)`.

        Raises:
            AudioFileError: if they are no sound.
        """
        if not self.frames:
            raise AudioFileError(self.name, "it holds no samples", "Leave it out, or replace the file.")
        if self._not_finite:
            reason = f"{self._not_finite} of its samples are NaN or infinite"
            raise AudioFileError(self.name, reason, "Write it again from its source.")
        if self._peak > LARGEST_PEAK:
            reason = f"floating point samples lie in [-1, 1], and it reaches {self._peak:.6g}"
            remedy = "If these are the values of 16-bit integers, write it again as 16-bit PCM, or divide by 32768."
            raise AudioFileError(self.name, reason, remedy)
        _warn_of_cancelled_channels(self.name, self.count, self._power, self._mono_power)
        return self._mono[0] if len(self._mono) == 1 else torch.cat(self._mono)


def _check_header(name: str, frames: int, rate: int, channels: int) -> None:
    """Refuse what no recording has, before memory is asked for."""
    remedy = "Its header is damaged: fetch it again, or write it again from its source."
    reason = _wrong_rate(rate)
    if reason is not None:
        raise AudioFileError(name, f"{reason[0].lower()}{reason[1:]}", remedy)
    if not 1 <= channels <= MOST_FILE_CHANNELS:
        raise AudioFileError(name, f"it has {channels} channels, more than {MOST_FILE_CHANNELS}", remedy)
    if frames >= 2**62:  # libsndfile's word for a length that it does not know
        remedy = "Write it again, to a file instead of a pipe."
        raise AudioFileError(name, "it does not say how long it is", remedy)


def _wrong_rate(rate: Any) -> str | None:
    try:
        if rate == int(rate) and LOWEST_RATE <= rate <= HIGHEST_RATE:
            return None
    except (TypeError, ValueError, OverflowError):
        pass
    return f"A sampling rate is a whole number of Hz from {LOWEST_RATE} to {HIGHEST_RATE}, and this one is {rate!r}"


def _warn_of_cancelled_channels(name: str, count: int, power: Any, mono_power: Any) -> None:
    """Of independent channels the mean has a `count`-th of their power; far less is left where they cancel."""
    if float(mono_power) < CANCELLED * float(power) / count:
        logger.warning(
            "The channels of %s cancel each other: little but their difference is left of their mean. If one of them "
            "has its polarity reversed, pass one channel alone.",
            name,
        )


def _read_dictionary(audio: dict[str, Any], sampling_rate: int, name: str) -> Any:
    samples = audio.get("raw") if audio.get("array") is None else audio["array"]
    if samples is not None and audio.get("sampling_rate") is not None:
        return _resampled(samples, audio["sampling_rate"], sampling_rate, name)
    file = audio.get("path") if audio.get("bytes") is None else audio["bytes"]
    if samples is None and file is not None:
        return read_audio(file, sampling_rate)
    if {"bytes", "path"} & set(audio):
        raise AudioFileError(name, "both its bytes and its path are missing", "Leave it out.")
    raise ValueError(
        'A recording in a dictionary has "array" (or "raw") and "sampling_rate", or else "bytes" or "path", and this '
        f"one has {sorted(map(str, audio))}. Add what is missing."
    )


def _decoded(decoder: Any, name: str) -> Any:
    """All that a decoder of torchcodec, or of `datasets`, has."""
    try:
        samples = decoder.get_all_samples()
    except RuntimeError as error:  # FFmpeg's, of a file that it cannot read
        reason = f"its decoder cannot read it ({error})"
        raise AudioFileError(name, reason, "Fetch it again, or pass its path instead.") from error
    if not _is_decoded(samples):
        raise ValueError(
            f"A decoder gives an object with `data`, a tensor, and `sample_rate`, and that of {name} gave a "
            f"{type(samples).__name__}. Pass its samples in an array instead."
        )
    return samples


def _is_decoded(audio: Any) -> bool:
    """Whether this is what decoders of torchcodec give: `data`, `(channels, samples)`, and `sample_rate`."""
    return hasattr(audio, "sample_rate") and isinstance(getattr(audio, "data", None), Tensor)


def _read_decoded(samples: Any, sampling_rate: int, name: str) -> Tensor:
    channels = _Channels(name, len(samples.data))
    channels.add(to_float(samples.data).T)
    return resample(channels.mono(), int(samples.sample_rate), sampling_rate)


def _resampled(samples: Any, from_rate: int, to_rate: int, name: str) -> Any:
    """Samples of one dimension at the right rate as they are: they need neither a copy nor a library."""
    if from_rate == to_rate and getattr(samples, "ndim", 1) == 1:
        return samples
    return resample(to_mono(samples, name), from_rate, to_rate)


def _is_special(samples: Any) -> bool:
    """Whether a tensor is no plain row of numbers in memory: sparse, nested, quantized, or without any values."""
    if not isinstance(samples, Tensor):
        return False
    return samples.layout is not torch.strided or samples.is_quantized or samples.device.type == "meta"


def _to_tensor(samples: Any, name: str) -> Tensor:
    try:
        array = np.asarray(samples)
    except (ValueError, TypeError, OverflowError) as error:  # nested lists of several lengths, numbers beyond 64 bits
        raise ValueError(f"Samples are numbers in an array or a list, and {name} makes none: {error}.") from error
    if array.dtype.kind not in "fiu" or array.ndim == 0:
        raise ValueError(
            f"Samples are real numbers in a row, and {name} is a {type(samples).__name__} of {array.dtype} and of the "
            f"shape {array.shape}. Pass an array of floating point samples in [-1, 1]."
        )
    if np.ma.is_masked(samples):
        raise ValueError(
            f"Samples are all there, and {np.ma.count_masked(samples)} of {name} are masked. Fill them with what was "
            "recorded there, or cut the recording."
        )
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused as such
            array = array.astype(np.float32)
    # Not from_numpy on the original: it refuses reversed views and foreign byte orders, and warns of read-only arrays.
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C"))


@lru_cache(maxsize=16)
def _resampler(from_rate: int, to_rate: int, ratio: Fraction, device: torch.device) -> Any:
    """Computing the filter costs more than applying it to a few seconds."""
    transforms = _import("torchaudio.transforms", f"Resampling from {from_rate} Hz to {to_rate} Hz")
    return transforms.Resample(ratio.denominator, ratio.numerator, **RESAMPLING).to(device)


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


__all__ = [
    "RESAMPLING",
    "AudioFileError",
    "check_peak",
    "is_one_recording",
    "match_length",
    "printable",
    "read_audio",
    "read_waveform",
    "resample",
    "resampling_ratios",
    "to_float",
    "to_mono",
]
