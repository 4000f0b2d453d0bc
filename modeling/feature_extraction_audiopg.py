"""Waveforms to model inputs: standardised log-mel frames with a mask that says which of them are real."""

from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import BatchFeature, SequenceFeatureExtractor
from transformers.utils import logging

from .spectrogram_audiopg import WINDOWS, frame_length, log_mel_spectrogram, num_frames

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

FULL_SCALE = {torch.int16: 2.0**15, torch.int32: 2.0**31}
"""What integer samples are divided by."""

# Float audio that was never clipped may pass 1 by some decibels, and a click in a clip of unit variance may pass 100.
# Samples with the values of 16-bit integers pass this unless they stay below -48 dB.
LARGEST_PEAK = 128.0

# No recording is this short, so a second dimension this small counts channels.
MOST_CHANNELS = 8

ArrayLike = np.ndarray | Tensor | Sequence[float]


class AudioPGFeatureExtractor(SequenceFeatureExtractor):
    r"""Turns mono waveforms into `input_values` and `attention_mask` for the AudioPG models.

    Kaldi-compatible log-mel energies (`log_mel_spectrogram`) are standardised as $(x - \mu) / (2 \sigma)$ with one
    mean and one deviation for all bands, and clips are padded to the longest of the batch, in whole patches. A clip
    gives the same values in any batch, as an array or as a tensor, on the device that it is on.

    Args:
        sampling_rate: Rate in Hz of the waveforms that are accepted; nothing is resampled here.
        num_mel_bins: Number of mel bands.
        patch_size: Frames are padded to a multiple of it.
        window: `"hann"` or `"hamming"`.
        mean: Mean of the raw log-mel energies; measured on synthesized clips unless given.
        std: Their standard deviation.
        statistics: How `mean` and `std` were measured (preset, seed, number of clips, version of the synthesizer).
            It changes nothing: it is kept in `preprocessor_config.json` so that the two can be traced.
        padding_value: Value of padding frames, after standardisation.

    Raises:
        ValueError: if `window` is unknown or `std` is not positive.

    Example:
        >>> inputs = AudioPGFeatureExtractor()([np.zeros(16000), np.zeros(8000)], sampling_rate=16000)
        >>> inputs["input_values"].shape, inputs["attention_mask"].sum(dim=1)
        (torch.Size([2, 112, 128]), tensor([98, 48]))
    """

    model_input_names = ["input_values", "attention_mask"]  # noqa: RUF012 - the name and form that transformers reads

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
        kwargs.pop("feature_size", None)  # saved by the base class; one number has one name here
        super().__init__(feature_size=num_mel_bins, sampling_rate=sampling_rate, padding_value=padding_value, **kwargs)
        if window not in WINDOWS:
            raise ValueError(f"`window` is one of {sorted(WINDOWS)}, and got {window!r}.")
        if not std > 0:
            raise ValueError(f"`std` is a positive standard deviation of log-mel energies, and got {std}.")
        self.num_mel_bins = num_mel_bins
        self.patch_size = patch_size
        self.window = window
        self.mean = mean
        self.std = std
        self.statistics = _provenance(mean, std) if statistics is None else statistics

    def __call__(
        self,
        audio: ArrayLike | Sequence[ArrayLike],
        sampling_rate: int | None = None,
        padding: bool | str = True,
        return_tensors: str = "pt",
        device: str | torch.device | None = None,
        return_attention_mask: bool | None = None,
    ) -> BatchFeature:
        """Standardised log-mel frames of one clip or many.

        Args:
            audio: One mono clip (a 1-D array, a 1-D tensor, a list of floats), or many: a list of these, of any
                lengths, or a 2-D array or tensor of shape `(batch, samples)`. Floating point samples lie in [-1, 1];
                int16 and int32 samples are divided by their full scale. At least 25 ms each.
            sampling_rate: Rate in Hz at which the clips were sampled. Giving it guards against silent mistakes.
            padding: `True` or `"longest"`: clips are padded to the longest of the batch, in whole patches.
            return_tensors: `"pt"` for torch, `"np"` for numpy.
            device: Where to compute; by default tensors stay where they are and everything else is on the CPU.
            return_attention_mask: Whether to return the mask; by default as the extractor was set up, which is to.

        Returns:
            `input_values` of shape `(batch, frames, num_mel_bins)`, float32, and `attention_mask` of shape
            `(batch, frames)`, int64, 1 for real frames and 0 for padding.

        Raises:
            ValueError: if the sampling rate is another one; if a clip is empty, shorter than 25 ms, stereo, not
                finite, of an unknown integer type or far outside [-1, 1]; or if an option has an unknown value.
        """
        self._check_options(sampling_rate, padding, return_tensors)
        waveforms, lengths = _batch(audio, device, frame_length(self.sampling_rate))
        _check_samples(waveforms, lengths)
        input_values = self.extract(waveforms)
        real_frames = torch.tensor([num_frames(length, self.sampling_rate) for length in lengths])
        attention_mask = (torch.arange(input_values.shape[1]) < real_frames[:, None]).to(input_values.device)
        # Frames beyond the end of a shorter clip hold silence, or a mixture of sound and silence, up to here.
        features = {"input_values": input_values.masked_fill_(~attention_mask[:, :, None], self.padding_value)}
        if self.return_attention_mask if return_attention_mask is None else return_attention_mask:
            features["attention_mask"] = attention_mask.long()
        if return_tensors == "np":
            return BatchFeature({name: values.detach().cpu().numpy() for name, values in features.items()})
        return BatchFeature(features)

    def extract(self, waveforms: Tensor) -> Tensor:
        """Standardised log-mel frames of clips of one length that are known to be sound.

        Nothing is checked, so nothing waits for the device: this is for callers that made the waveforms themselves.

        Args:
            waveforms: Floating point, shape `(batch, samples)`, at `sampling_rate`.

        Returns:
            `input_values` of shape `(batch, frames, num_mel_bins)`, the frames padded to whole patches.

        Example:
            >>> AudioPGFeatureExtractor().extract(torch.zeros(2, 16000)).shape
            torch.Size([2, 112, 128])
        """
        log_mel = log_mel_spectrogram(
            waveforms, sampling_rate=self.sampling_rate, num_mel_bins=self.num_mel_bins, window=self.window
        )
        num_padding = -log_mel.shape[1] % self.patch_size
        return torch.nn.functional.pad(self.standardise(log_mel), (0, 0, 0, num_padding), value=self.padding_value)

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

    def _check_options(self, sampling_rate: int | None, padding: bool | str, return_tensors: str) -> None:
        if sampling_rate is None:
            logger.warning_once(
                "AudioPGFeatureExtractor was called without `sampling_rate`. Pass it, so that audio of a rate other "
                f"than {self.sampling_rate} Hz is refused rather than misread."
            )
        elif sampling_rate != self.sampling_rate:
            raise ValueError(
                f"This feature extractor takes audio at {self.sampling_rate} Hz, and got {sampling_rate} Hz. Resample "
                f"first: torchaudio.functional.resample(waveform, {sampling_rate}, {self.sampling_rate})."
            )
        if padding is not True and padding != "longest":
            raise ValueError(
                f'`padding` is True or "longest", and got {padding!r}. Clips of a batch are padded to its longest, '
                "and the attention mask marks the padding; crop the waveforms first for a fixed length."
            )
        if return_tensors not in ("pt", "np"):
            raise ValueError(f'`return_tensors` is "pt" or "np", and got {return_tensors!r}.')


def _provenance(mean: float, std: float) -> dict[str, Any]:
    """Where the reference mean and deviation come from; of other numbers nothing is known."""
    if (mean, std) != (REFERENCE_STATISTICS["mean"], REFERENCE_STATISTICS["std"]):
        return {}
    return {name: value for name, value in REFERENCE_STATISTICS.items() if name not in ("mean", "std")}


def _batch(
    audio: ArrayLike | Sequence[ArrayLike], device: str | torch.device | None, shortest: int
) -> tuple[Tensor, list[int]]:
    """Waveforms `(batch, samples)` in float32, with zeros after the end of shorter clips, and each clip's length."""
    clips = split_clips(audio)
    if device is None:
        device = next((clip.device for clip in clips if isinstance(clip, Tensor)), torch.device("cpu"))
    tensors = [_to_float(_to_tensor(clip, index).to(device), index) for index, clip in enumerate(clips)]
    lengths = [len(clip) for clip in tensors]
    for index, length in enumerate(lengths):
        if length < shortest:
            raise ValueError(
                f"A clip must last at least 25 ms ({shortest} samples), and clip {index} has {length} samples. "
                "Leave it out, or pad it with zeros if it is a real sound."
            )
    return pad_sequence(tensors, batch_first=True), lengths


def split_clips(audio: ArrayLike | Sequence[ArrayLike]) -> Sequence[Any]:
    """One clip or many, as a sequence of clips."""
    if isinstance(audio, (str, bytes, dict)):
        raise ValueError(
            f"The feature extractor takes samples, and got a {type(audio).__name__}. Decode the file first and pass "
            'its mono samples (of an example of `datasets`: example["audio"]["array"]).'
        )
    if isinstance(audio, (np.ndarray, Tensor)):
        if audio.ndim == 1:
            return [audio]
        if audio.ndim != 2 or audio.shape[1] <= MOST_CHANNELS:
            raise ValueError(
                f"An array of clips has the shape (batch, samples), and this one has {tuple(audio.shape)}, which "
                "looks like channels. Average them to mono first: `audio.mean(-1)` if channels are the last dimension."
            )
        audio = list(audio)
    if len(audio) == 0:
        raise ValueError("There is no clip in the input: pass at least one clip of at least 25 ms.")
    is_one_clip = isinstance(audio[0], Real) or (isinstance(audio[0], (np.ndarray, Tensor)) and audio[0].ndim == 0)
    return [audio] if is_one_clip else audio


def _to_tensor(clip: ArrayLike, index: int) -> Tensor:
    if not isinstance(clip, Tensor):
        array = np.asarray(clip)
        if array.dtype.kind not in "fiu":
            raise ValueError(f"A clip holds numbers, and clip {index} is a {type(clip).__name__} of {array.dtype}.")
        # Not from_numpy on the original: it refuses reversed views and warns of read-only arrays.
        clip = torch.from_numpy(array.astype(np.float32 if array.dtype.kind == "f" else array.dtype, order="C"))
    if clip.ndim != 1:
        raise ValueError(
            f"Each clip of a list is mono, of shape (samples,), and clip {index} has {tuple(clip.shape)}. Average its "
            "channels first: `clip.mean(0)` if they come first, `clip.mean(-1)` if they come last."
        )
    return clip


def _to_float(clip: Tensor, index: int) -> Tensor:
    if clip.is_floating_point():
        return clip.to(torch.float32)
    if clip.dtype not in FULL_SCALE:
        raise ValueError(
            f"Samples are floating point in [-1, 1], int16 or int32, and clip {index} has {clip.dtype}. Convert it to "
            "floating point and divide by its full scale."
        )
    return clip.to(torch.float32) / FULL_SCALE[clip.dtype]


def _check_samples(waveforms: Tensor, lengths: list[int]) -> None:
    """Refuse what is not sound, after a single pass over the batch and a single wait for its device."""
    peaks = waveforms.detach().abs().amax(dim=-1).tolist()  # NaN where any sample is
    for index, peak in enumerate(peaks):
        if peak <= LARGEST_PEAK:
            continue
        if np.isfinite(peak):
            raise ValueError(
                f"Floating point samples lie in [-1, 1], and clip {index} reaches {peak:.6g}. If these are the values "
                "of 16-bit integers, pass them as int16 or divide them by 32768."
            )
        wrong = int((~torch.isfinite(waveforms[index, : lengths[index]])).sum())
        raise ValueError(
            f"Samples are finite, and clip {index} has {wrong} NaN or infinite samples of {lengths[index]}. Leave the "
            "clip out, or find out where they come from: a corrupt file or a division by zero."
        )
