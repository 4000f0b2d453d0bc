"""Sources of training examples: (seed, clip indices, device) to a batch of model inputs.

A source is any callable `source(indices, device) -> {"input_values": ...}` that gives the same example for the same
index whatever the batch, so that a run can be cut into processes, stopped and resumed at will.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from audiopg.data_scripts.counter_random import uniform
from audiopg.data_scripts.synthesis import Preset, draw, render
from audiopg.modeling.feature_extraction_audiopg import AudioPGFeatureExtractor


@dataclass(frozen=True)
class SyntheticSource:
    """Clips invented on the device that trains on them.

    Args:
        preset: What clips.
        seed: Which stream of them.
        feature_extractor: Log-mel and standardisation.

    Example:
        >>> from audiopg.data_scripts.synthesis import get_preset
        >>> source = SyntheticSource(get_preset("audiopg", duration=1.0), 0, AudioPGFeatureExtractor())
        >>> source(torch.arange(2), "cpu")["input_values"].shape
        torch.Size([2, 112, 128])
    """

    preset: Preset
    seed: int
    feature_extractor: AudioPGFeatureExtractor

    def __call__(self, indices: Tensor, device: torch.device | str) -> dict[str, Tensor]:
        """Model inputs of the clips `indices`: `input_values` of shape `(batch, frames, num_mel_bins)`."""
        waveforms = render(draw(self.preset, self.seed, indices), device)
        return {"input_values": self.feature_extractor.extract(waveforms)}


def masking_noise(seed: int, indices: Tensor, num_patches: int, device: torch.device | str) -> Tensor:
    """Which patches of which clip are masked, as noise to be ranked: a function of seed and index alone.

    Args:
        seed: Of the run.
        indices: Clip indices, shape `(batch,)`.
        num_patches: Patches of a clip.
        device: Where to draw; every device draws the same.

    Returns:
        float32 in [0, 1], shape `(batch, num_patches)`.

    Example:
        >>> masking_noise(0, torch.tensor([3]), 8, "cpu").shape
        torch.Size([1, 8])
    """
    return uniform(seed, indices.to(device), "masking", (num_patches,)).float()
