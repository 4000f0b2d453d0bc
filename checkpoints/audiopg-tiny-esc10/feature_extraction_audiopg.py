"""Waveforms to model inputs: standardised log-mel frames with a mask that says which of them are real."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import BatchFeature, SequenceFeatureExtractor
from transformers.utils import logging

from .audio_audiopg import MOST_CHANNELS, check_peak, is_one_recording, read_waveform, to_mono
from .configuration_audiopg import MINIMUM_TRANSFORMERS  # noqa: F401 - refuses older ones, which may begin here
from .spectrogram_audiopg import WINDOWS, PatchGrid, frame_length, log_mel_spectrogram, num_frames, num_time_patches

if TYPE_CHECKING:  # older ones copy what this file names, and stumble over what only those name before they read any
    from .containers_audiopg import cut_short  # noqa: F401

logger = logging.get_logger(__name__)

REFERENCE_STATISTICS: dict[str, Any] = {
    "mean": -5.428,
    "std": 4.418,
    "preset": "reference",
    "overrides": {},
    "seed": 0,
    "num_clips": 2000,
    "window": "hann",
    "synthesizer_version": "0.1.0",
}
"""Mean and standard deviation of the raw log-mel, over every frame and band of synthesized clips, and which clips.

`python training/measure_statistics.py --preset reference --num_clips 2000` measures them; a trained model has its own.
"""

# A deviation of log-mel energies, in natural logarithms, is several; below this, standardising would give noise.
SMALLEST_STD = 1e-3

ArrayLike = np.ndarray | Tensor | Sequence[float]


class LogMelFeatureExtractor(SequenceFeatureExtractor, ABC):
    """What our feature extractors share: recordings in every form to log-mel frames, padded, with a mask.

    A front end has frames of 25 ms every 10 ms, its own log-mel of them, and its own grid of patches along time, which
    the frames of a batch fill whole. A clip gives the same values in any batch, as an array or as a tensor, on the
    device that it is on.

    Args:
        num_mel_bins: Number of mel bands.
        statistics: What is known of where the weights beside it come from; it changes nothing.
        kwargs: As for `SequenceFeatureExtractor`: `sampling_rate` in Hz, `padding_value` of padding frames.
    """

    model_input_names = ["input_values", "attention_mask"]  # noqa: RUF012 - the name and form that transformers reads
    sampling_rate: int
    padding_value: float

    def __init__(self, num_mel_bins: int, statistics: dict[str, Any], **kwargs: Any) -> None:
        kwargs.pop("feature_size", None)  # saved by the base class; one number has one name here
        super().__init__(feature_size=num_mel_bins, **kwargs)
        self.num_mel_bins = num_mel_bins
        self.statistics = statistics

    @property
    @abstractmethod
    def front_end(self) -> dict[str, Any]:
        """All that `log_mel` depends on, by name."""

    @property
    @abstractmethod
    def patch_grid(self) -> PatchGrid:
        """How recordings are cut along time."""

    @property
    @abstractmethod
    def raw_padding_value(self) -> float:
        """What `standardise` turns into `padding_value`."""

    @abstractmethod
    def log_mel(self, waveforms: Tensor) -> Tensor:
        """Raw log-mel of waveforms, `(..., samples)` to `(..., frames, num_mel_bins)`, float32, on their device."""

    @abstractmethod
    def standardise(self, log_mel: Tensor) -> Tensor:
        """What the model takes of raw log-mel energies of any shape; they may be overwritten."""

    def __call__(
        self,
        audio: Any = None,
        sampling_rate: int | None = None,
        padding: bool | str = True,
        return_tensors: str | None = "pt",
        device: str | torch.device | None = None,
        return_attention_mask: bool | None = None,
        *,
        max_length: int | None = None,
        truncation: bool | None = None,
        pad_to_multiple_of: int | None = None,
        raw_speech: Any = None,
        **unknown: Any,
    ) -> BatchFeature:
        """Log-mel frames of one clip or many, as the model takes them.

        Args:
            audio: One clip: samples (a 1-D array, a 1-D tensor, a list of floats), or anything else that
                `read_waveform` takes, such as a decoder of `datasets`, a file's bytes, an open file or a path. Or
                many: a list of these, of any lengths, or a 2-D array or tensor of shape `(batch, samples)`. Floating
                point samples lie in [-1, 1]; integers of 8, 16 and 32 bits are divided by their full scale. At least
                25 ms each. Where a clip of a list has two dimensions, the one of 8 or less counts channels, which are
                averaged; and so it is for an array alone, but that one of shape `(few, many)` is a batch.
            sampling_rate: Rate in Hz at which the samples were taken. Giving it guards against silent mistakes.
            padding: `True` or `"longest"`: clips are padded to the longest of the batch, in whole patches.
                `"max_length"`: to `max_length` samples. `False`: not at all, so that `return_tensors` is None unless
                all are of one length.
            return_tensors: `"pt"` for torch, `"np"` for numpy; None for a list with an array for each clip.
            device: Where to compute; by default tensors stay where they are and everything else is on the CPU.
            return_attention_mask: Whether to return the mask; by default as the extractor was set up, which is to.
            max_length: In samples: where clips are cut with `truncation`, and what they are padded to with
                `padding="max_length"`.
            truncation: Whether to keep only the first `max_length` samples of each clip.
            pad_to_multiple_of: In samples: what clips are padded to is rounded up to a multiple of it.
            raw_speech: A name of `audio` in older feature extractors.
            unknown: Is refused by name.

        Returns:
            `input_values` of shape `(batch, frames, num_mel_bins)`, float32, and `attention_mask` of shape
            `(batch, frames)`, int64, 1 for real frames and 0 for padding.

        Raises:
            ValueError: if the sampling rate is another one; if a clip is empty, shorter than 25 ms, not finite, of an
                unknown integer type or far outside [-1, 1]; if a recording cannot be read (`AudioFileError`); if it
                cannot be told what counts channels; or if an option is unknown, or has an unknown value.
            ImportError: as `read_waveform`.
        """
        if unknown:
            raise ValueError(
                f"This feature extractor has no option {', '.join(map(repr, unknown))}. Those that shape its output "
                "are padding, max_length, truncation, pad_to_multiple_of, return_tensors and return_attention_mask."
            )
        if (audio is None) == (raw_speech is None):
            raise ValueError("Clips come as `audio`, or by its older name `raw_speech`: pass one of the two.")
        self._check_options(sampling_rate, padding, return_tensors, max_length, truncation)
        clips = split_clips(raw_speech if audio is None else audio)
        tensors = list(self._tensors(clips, device, max_length if truncation else None))
        lengths = [len(clip) for clip in tensors]
        if padding == "max_length" and max(lengths) > (max_length or 0):
            raise ValueError(
                f'padding="max_length" pads clips to max_length={max_length} samples, and clip '
                f"{lengths.index(max(lengths))} has {max(lengths)}. Pass truncation=True to cut it, or raise it."
            )
        if padding in (False, "do_not_pad") and len(set(lengths)) > 1:
            if return_tensors is not None:
                raise ValueError(
                    f"Clips of {min(lengths)} to {max(lengths)} samples make one array only with padding. Pass "
                    "padding=True, or return_tensors=None for a list with an array for each."
                )
            alone = [self._features(clip[None], [len(clip)], return_attention_mask) for clip in tensors]
            return BatchFeature({name: [_array(one[name][0]) for one in alone] for name in alone[0]})
        waveforms = pad_sequence(tensors, batch_first=True)
        wanted = max_length or 0 if padding == "max_length" else waveforms.shape[1]
        missing = wanted + -wanted % (pad_to_multiple_of or 1) - waveforms.shape[1]
        if missing:
            waveforms = torch.nn.functional.pad(waveforms, (0, missing))
        features = self._features(waveforms, lengths, return_attention_mask)
        if return_tensors == "pt":
            return BatchFeature(features)
        arrays = {name: _array(values) for name, values in features.items()}
        return BatchFeature(arrays if return_tensors else {name: list(values) for name, values in arrays.items()})

    def _tensors(
        self, clips: Sequence[Any], device: str | torch.device | None, longest: int | None
    ) -> Iterator[Tensor]:
        """Each clip in float32, mono, on one device, cut after the longest length."""
        if device is None:
            device = next((clip.device for clip in clips if isinstance(clip, Tensor)), torch.device("cpu"))
        shortest = frame_length(self.sampling_rate)
        for index, clip in enumerate(clips):
            clip = to_mono(read_waveform(clip, self.sampling_rate, f"clip {index}"), f"clip {index}")[:longest]
            if len(clip) < shortest:
                raise ValueError(
                    f"A clip must last at least 25 ms ({shortest} samples), and clip {index} has {len(clip)} samples. "
                    "Leave it out, or pad it with zeros if it is a real sound."
                )
            yield clip.to(device)

    def _features(
        self, waveforms: Tensor, lengths: list[int], return_attention_mask: bool | None
    ) -> dict[str, Tensor]:
        """Frames of clips side by side, and the mask of their real ones if it is wanted."""
        _check_samples(waveforms, lengths)
        input_values = self.extract(waveforms)
        frames = [num_frames(length, self.sampling_rate) for length in lengths]
        real_frames = torch.tensor([min(number, self._frames_in_patches(number)) for number in frames])
        attention_mask = (torch.arange(input_values.shape[1]) < real_frames[:, None]).to(input_values.device)
        # Frames beyond the end of a shorter clip hold silence, or a mixture of sound and silence, up to here.
        features = {"input_values": input_values.masked_fill_(~attention_mask[:, :, None], self.padding_value)}
        if self.return_attention_mask if return_attention_mask is None else return_attention_mask:
            features["attention_mask"] = attention_mask.long()
        return features

    def extract(self, waveforms: Tensor) -> Tensor:
        """Log-mel frames, as the model takes them, of clips of one length that are known to be sound.

        Nothing is checked, so nothing waits for the device: this is for callers that made the waveforms themselves.

        Args:
            waveforms: Floating point, shape `(batch, samples)`, at `sampling_rate`.

        Returns:
            `input_values` of shape `(batch, frames, num_mel_bins)`, the frames padded or cut to whole patches.

        Example:
            >>> AudioPGFeatureExtractor().extract(torch.zeros(2, 16000)).shape
            torch.Size([2, 112, 128])
        """
        log_mel = self.log_mel(waveforms)
        missing = self._frames_in_patches(log_mel.shape[1]) - log_mel.shape[1]
        return torch.nn.functional.pad(self.standardise(log_mel), (0, 0, 0, missing), value=self.padding_value)

    def _frames_in_patches(self, frames: int) -> int:
        """Frames in all patches of a recording of so many frames."""
        patch_size = self.patch_grid["patch_size"]
        return patch_size * num_time_patches(frames, patch_size, self.patch_grid["shortest_patch"])

    def _check_options(
        self,
        sampling_rate: int | None,
        padding: bool | str,
        return_tensors: str | None,
        max_length: int | None,
        truncation: bool | None,
    ) -> None:
        if sampling_rate is None:
            logger.warning_once(
                f"{type(self).__name__} was called without `sampling_rate`. Pass it, so that audio of a rate other "
                f"than {self.sampling_rate} Hz is refused rather than misread."
            )
        elif sampling_rate != self.sampling_rate:
            raise ValueError(
                f"This feature extractor takes audio at {self.sampling_rate} Hz, and got {sampling_rate} Hz. Resample "
                f"first: torchaudio.functional.resample(waveform, {sampling_rate}, {self.sampling_rate})."
            )
        if padding not in (True, False, "longest", "max_length", "do_not_pad"):
            raise ValueError(f'`padding` is True, "longest", "max_length" or False, and got {padding!r}.')
        if return_tensors not in ("pt", "np", None):
            raise ValueError(f'`return_tensors` is "pt", "np" or None, and got {return_tensors!r}.')
        if truncation not in (True, False, None):
            raise ValueError(
                f"`truncation` is True or False, and got {truncation!r}: samples are kept from the start."
            )
        is_count = isinstance(max_length, (int, np.integer)) and not isinstance(max_length, bool) and max_length > 0
        if max_length is not None and not is_count:
            raise ValueError(f"`max_length` is a number of samples, 1 or more, and got {max_length!r}.")
        uses_length = bool(truncation) or padding == "max_length"
        if uses_length != (max_length is not None):
            raise ValueError(
                'truncation=True and padding="max_length" need `max_length`, in samples, and it says nothing without '
                f"one of them; got truncation={truncation!r}, padding={padding!r} and max_length={max_length!r}."
            )


class AudioPGFeatureExtractor(LogMelFeatureExtractor):
    r"""Turns mono waveforms into `input_values` and `attention_mask` for the AudioPG models.

    Kaldi-compatible log-mel energies (`log_mel_spectrogram`) are standardised as $(x - \mu) / (2 \sigma)$ with one
    mean and one deviation for all bands, and clips are padded to the longest of the batch, in whole patches. A clip
    gives the same values in any batch, as an array or as a tensor, on the device that it is on.

    Args:
        sampling_rate: Rate in Hz of the model's waveforms. Samples are of this rate; files and decoded audio, which
            say their own, are resampled to it.
        num_mel_bins: Number of mel bands.
        patch_size: Frames of a patch along time, the `patch_shape[0]` of the model's configuration; frames are padded
            to a multiple of it.
        window: `"hann"` or `"hamming"`.
        mean: Mean of the raw log-mel energies; measured on synthesized clips unless given.
        std: Their standard deviation.
        statistics: How `mean` and `std` were measured (preset, seed, number of clips, version of the synthesizer).
            It changes nothing: it is kept in `preprocessor_config.json` so that the two can be traced.
        padding_value: Value of padding frames, after standardisation.

    Raises:
        ValueError: if `window` is unknown, or `mean` and `std` are no finite statistics.

    Example:
        >>> inputs = AudioPGFeatureExtractor()([np.zeros(16000), np.zeros(8000)], sampling_rate=16000)
        >>> inputs["input_values"].shape, inputs["attention_mask"].sum(dim=1)
        (torch.Size([2, 112, 128]), tensor([98, 48]))
    """

    def __init__(
        self,
        sampling_rate: int = 16000,
        num_mel_bins: int = 128,
        patch_size: int = 16,
        window: str = "hann",
        mean: float = REFERENCE_STATISTICS["mean"],
        std: float = REFERENCE_STATISTICS["std"],
        statistics: dict[str, Any] | None = None,
        padding_value: float = 0.0,
        **kwargs,
    ):
        statistics = _provenance(mean, std) if statistics is None else statistics
        super().__init__(num_mel_bins, statistics, sampling_rate=sampling_rate, padding_value=padding_value, **kwargs)
        if window not in WINDOWS:
            raise ValueError(f"`window` is one of {sorted(WINDOWS)}, and got {window!r}.")
        if not SMALLEST_STD <= std < math.inf:
            raise ValueError(
                f"`std` is a positive standard deviation of log-mel energies, {SMALLEST_STD} or more, and got {std}: "
                "measure it with training/measure_statistics.py."
            )
        if not -math.inf < mean < math.inf:
            raise ValueError(
                f"`mean` is the finite mean of log-mel energies, and got {mean}: measure it with "
                "training/measure_statistics.py."
            )
        self.patch_size = patch_size
        self.window = window
        self.mean = mean
        self.std = std

    @property
    def front_end(self) -> dict[str, Any]:
        """All that `log_mel` depends on."""
        options = {"num_mel_bins": self.num_mel_bins, "window": self.window}
        return {"name": "audiopg", "sampling_rate": self.sampling_rate, **options}

    @property
    def patch_grid(self) -> PatchGrid:
        """Patches of `patch_size` frames, any of them real."""
        return {"sampling_rate": self.sampling_rate, "patch_size": self.patch_size, "shortest_patch": 1}

    @property
    def raw_padding_value(self) -> float:
        """The log-mel energy that `padding_value` stands for."""
        return self.padding_value * 2.0 * self.std + self.mean

    def log_mel(self, waveforms: Tensor) -> Tensor:
        """`log_mel_spectrogram` with this extractor's options."""
        return log_mel_spectrogram(
            waveforms, sampling_rate=self.sampling_rate, num_mel_bins=self.num_mel_bins, window=self.window
        )

    def standardise(self, log_mel: Tensor) -> Tensor:
        """Standardise raw log-mel energies of any shape, in place: memory traffic is half of the cost.

        Args:
            log_mel: As from `log_mel_spectrogram`; overwritten.

        Returns:
            The same tensor.

        Example:
            >>> AudioPGFeatureExtractor(mean=1.0, std=2.0).standardise(torch.tensor([1.0, 5.0]))
            tensor([0., 1.])
        """
        return log_mel.sub_(self.mean).div_(2.0 * self.std)

    def to_dict(self) -> dict[str, Any]:
        """The arguments that make an equal extractor, as they are saved in `preprocessor_config.json`."""
        # The base class leaves out any attribute called `window`: elsewhere it is an array, here it is a name.
        return {**super().to_dict(), "window": self.window}


def _provenance(mean: float, std: float) -> dict[str, Any]:
    """Where the reference mean and deviation come from; of other numbers nothing is known."""
    if (mean, std) != (REFERENCE_STATISTICS["mean"], REFERENCE_STATISTICS["std"]):
        return {}
    return {name: value for name, value in REFERENCE_STATISTICS.items() if name not in ("mean", "std")}


def split_clips(audio: Any) -> Sequence[Any]:
    """One clip or many, as a sequence of clips.

    Args:
        audio: As the feature extractor takes it.

    Returns:
        A clip each; an array or a tensor of two dimensions is a batch, unless its second one counts channels.

    Raises:
        ValueError: if there is none.

    Example:
        >>> [len(split_clips(np.zeros(shape))) for shape in (400, (3, 400), (400, 2))]
        [1, 3, 1]
    """
    if is_one_recording(audio):
        return [audio]
    if not isinstance(audio, (np.ndarray, Tensor, Sequence)):
        try:  # an array of another library, or a generator, a set, a column of a data set
            audio = np.asarray(audio) if hasattr(audio, "__array__") else list(audio)
        except TypeError as error:
            raise ValueError(
                f"The feature extractor takes samples, files or decoded audio, and got a {type(audio).__name__}. Pass "
                "an array of mono samples, or a list of them."
            ) from error
    if isinstance(audio, (np.ndarray, Tensor)):
        is_batch = isinstance(audio, np.ndarray) or audio.layout is torch.strided
        has_channels = is_batch and audio.ndim == 2 and 1 <= audio.shape[1] <= MOST_CHANNELS < audio.shape[0]
        if audio.ndim <= 1 or has_channels or not is_batch:
            return [audio]
    if len(audio) == 0:
        raise ValueError("There is no clip in the input: pass at least one clip of at least 25 ms.")
    is_one_clip = isinstance(audio[0], Real) or getattr(audio[0], "ndim", 1) == 0
    return [audio] if is_one_clip else list(audio)


def _array(values: Tensor) -> np.ndarray:
    return values.detach().cpu().numpy()


def _check_samples(waveforms: Tensor, lengths: list[int]) -> None:
    """Refuse what is not sound, after a single pass over the batch and a single wait for its device."""
    peaks = waveforms.detach().abs().amax(dim=-1).tolist()  # NaN where any sample is
    for index, peak in enumerate(peaks):
        if np.isfinite(peak):
            check_peak(peak, f"clip {index}")
            continue
        wrong = int((~torch.isfinite(waveforms[index, : lengths[index]])).sum())
        raise ValueError(
            f"Samples are finite, and clip {index} has {wrong} NaN or infinite samples of {lengths[index]}. Leave the "
            "clip out, or find out where they come from: a corrupt file or a division by zero."
        )


# Every save copies this file and what it imports, and notes where the class is.
AudioPGFeatureExtractor.register_for_auto_class()
