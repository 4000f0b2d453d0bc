"""Sources of training examples: (seed, clip indices, device) to a batch of model inputs.

A source is any callable `source(indices, device) -> {"input_values": ...}` that gives the same example for the same
index whatever the batch, so that a run can be cut into processes, stopped and resumed at will.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from audiopg.data_scripts.counter_random import uniform
from audiopg.data_scripts.synthesis import Preset, draw, render
from audiopg.modeling.feature_extraction_audiopg import AudioPGFeatureExtractor


class Source(Protocol):
    """What pre-training asks of a source; waveforms and their log-mel are apart so that each can be timed."""

    @property
    def feature_extractor(self) -> AudioPGFeatureExtractor:
        """Log-mel and standardisation."""

    def waveforms(self, indices: Tensor, device: torch.device | str) -> Tensor:
        """Waveforms of the clips `indices`, shape `(batch, samples)`."""

    def prefetch(self, indices: Tensor) -> None:
        """Begin to read what these clips will need, without waiting for it."""

    def __call__(self, indices: Tensor, device: torch.device | str) -> dict[str, Tensor]:
        """Model inputs of the clips `indices`: `input_values` of shape `(batch, frames, num_mel_bins)`."""


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

    def waveforms(self, indices: Tensor, device: torch.device | str) -> Tensor:
        """Waveforms of the clips `indices`, shape `(batch, samples)`."""
        return render(draw(self.preset, self.seed, indices), device)

    def prefetch(self, indices: Tensor) -> None:
        """Nothing: there is nothing to read."""

    def __call__(self, indices: Tensor, device: torch.device | str) -> dict[str, Tensor]:
        """Model inputs of the clips `indices`: `input_values` of shape `(batch, frames, num_mel_bins)`."""
        return {"input_values": self.feature_extractor.extract(self.waveforms(indices, device))}


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


def training_batches(
    source: Source, seed: int, batches: Iterable[range], device: torch.device | str
) -> Iterator[dict[str, Tensor]]:
    """Model inputs and masking noise of one batch of clips after the other, made while the device trains.

    On a GPU they are made on a stream of their own: copying parameters there then waits for the synthesis before, a
    matter of milliseconds, and not for the training step that was launched and is still running.

    Args:
        source: Of the examples.
        seed: Of the masks.
        batches: Ranges of clip indices.
        device: Where to make them.

    Yields:
        `input_values`, shape `(batch, frames, num_mel_bins)`, and `noise`, shape `(batch, patches)`.

    Example:
        >>> from audiopg.data_scripts.synthesis import get_preset
        >>> source = SyntheticSource(get_preset("audiopg", duration=1.0), 0, AudioPGFeatureExtractor())
        >>> [inputs["noise"].shape for inputs in training_batches(source, 0, [range(2), range(2, 3)], "cpu")]
        [torch.Size([2, 56]), torch.Size([1, 56])]
    """
    device = torch.device(device)
    side = torch.cuda.Stream(device) if device.type == "cuda" else None
    patch_size = source.feature_extractor.patch_size
    upcoming = iter(batches)
    following = next(upcoming, None)
    while (clips := following) is not None:
        following = next(upcoming, None)
        if following is not None:
            source.prefetch(torch.arange(following.start, following.stop))
        with torch.cuda.stream(side):  # of None: nothing changes
            inputs = dict(source(torch.arange(clips.start, clips.stop), device))
            num_patches = inputs["input_values"][0].numel() // patch_size**2
            # Counted on the device: an index that is copied there would be waited for.
            indices = torch.arange(clips.start, clips.stop, device=device)
            inputs["noise"] = masking_noise(seed, indices, num_patches, device)
        if side is not None:
            training = torch.cuda.current_stream(device)
            training.wait_stream(side)
            for value in inputs.values():
                value.record_stream(training)  # its memory is not to be used again before the step is done with it
        yield inputs
