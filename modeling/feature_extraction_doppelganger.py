"""Waveforms to inputs of the encoder of Audio Doppelgängers: VGGish's log-mel in windows of 0.96 s."""

from typing import Any

from torch import Tensor

from .feature_extraction_audiopg import LogMelFeatureExtractor
from .spectrogram_audiopg import PatchGrid
from .spectrogram_doppelganger import SAMPLING_RATE, SILENCE, vggish_log_mel


class DoppelgangerFeatureExtractor(LogMelFeatureExtractor):
    """Turns mono waveforms into `input_values` and `attention_mask` for the DoppelgangerModel.

    VGGish's log-mel (`vggish_log_mel`) as it is, neither standardised nor brought to a loudness. The frames of a batch
    fill whole windows. A clip shorter than a window is padded with silence; of a longer one, what remains after its
    last whole window counts, padded, if it is half a window or more, and is left out if it is less. So 1 s, 98 frames,
    gives exactly the one example of 96 frames that VGGish and the paper take of it.

    Args:
        sampling_rate: 16000 Hz: the front end is defined there alone. Files and decoded audio are resampled to it.
        num_mel_bins: Number of mel bands.
        window_frames: Frames of a window, 10 ms each.
        statistics: What is known of where the weights beside it come from. It changes nothing: it is kept in
            `preprocessor_config.json`.
        padding_value: Value of padding frames: that of digital silence.

    Raises:
        ValueError: if the sampling rate is another one.

    Example:
        >>> import torch
        >>> inputs = DoppelgangerFeatureExtractor()([torch.zeros(16000), torch.zeros(40000)], sampling_rate=16000)
        >>> inputs["input_values"].shape, inputs["attention_mask"].sum(dim=1)
        (torch.Size([2, 288, 64]), tensor([ 96, 248]))
        >>> DoppelgangerFeatureExtractor().extract(torch.zeros(2, 16000)).shape
        torch.Size([2, 96, 64])
    """

    def __init__(
        self,
        sampling_rate: int = SAMPLING_RATE,
        num_mel_bins: int = 64,
        window_frames: int = 96,
        statistics: dict[str, Any] | None = None,
        padding_value: float = SILENCE,
        **kwargs: Any,
    ) -> None:
        if sampling_rate != SAMPLING_RATE:
            raise ValueError(
                f"VGGish's front end is defined at {SAMPLING_RATE} Hz, and got sampling_rate={sampling_rate}. Leave "
                "it out; files and decoded audio are resampled, and arrays are for you to resample."
            )
        super().__init__(
            num_mel_bins, statistics or {}, sampling_rate=sampling_rate, padding_value=padding_value, **kwargs
        )
        self.window_frames = window_frames

    @property
    def front_end(self) -> dict[str, Any]:
        """All that `log_mel` depends on."""
        return {"name": "vggish", "sampling_rate": self.sampling_rate, "num_mel_bins": self.num_mel_bins}

    @property
    def patch_grid(self) -> PatchGrid:
        """A window is a patch of all mel bands."""
        shortest = shortest_window(self.window_frames)
        return {"sampling_rate": self.sampling_rate, "patch_size": self.window_frames, "shortest_patch": shortest}

    @property
    def raw_padding_value(self) -> float:
        """The same as `padding_value`."""
        return self.padding_value

    def log_mel(self, waveforms: Tensor) -> Tensor:
        """`vggish_log_mel` with this extractor's options."""
        return vggish_log_mel(waveforms, self.num_mel_bins)

    def standardise(self, log_mel: Tensor) -> Tensor:
        """The same tensor: nothing is standardised."""
        return log_mel


def shortest_window(window_frames: int) -> int:
    """Real frames without which a window is left out, unless it is a recording's only one: half of all.

    Example:
        >>> shortest_window(96)
        48
    """
    return (window_frames + 1) // 2


# Every save copies this file and what it imports, and notes where the class is.
DoppelgangerFeatureExtractor.register_for_auto_class()
