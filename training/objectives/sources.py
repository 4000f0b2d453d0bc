"""Where clips come from: a source draws what a clip needs on the CPU, and makes waveforms of it on a device.

A clip is the same for the same index whatever the batch, so that a run can be cut into processes, stopped and resumed
at will.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from audiopg.data_scripts.synthesis import Parameters, Preset, draw, render


class Source(Protocol):
    """What pre-training asks of a source; drawing and rendering are apart, since they run at different places."""

    def draw(self, indices: Tensor) -> Any:
        """What `waveforms` needs of the clips `indices`, on the CPU."""

    def waveforms(self, drawn: Any, device: torch.device | str) -> Tensor:
        """Waveforms, shape `(batch, samples)`, on the device."""


@dataclass(frozen=True)
class SyntheticSource:
    """Clips invented on the device that trains on them.

    Args:
        preset: What clips.
        seed: Which stream of them.

    Example:
        >>> from audiopg.data_scripts.synthesis import get_preset
        >>> source = SyntheticSource(get_preset("audiopg", duration=1.0), seed=0)
        >>> source.waveforms(source.draw(torch.arange(2)), "cpu").shape
        torch.Size([2, 16000])
    """

    preset: Preset
    seed: int

    def draw(self, indices: Tensor) -> Parameters:
        """Parameters of the clips `indices`."""
        return draw(self.preset, self.seed, indices)

    def waveforms(self, drawn: Parameters, device: torch.device | str) -> Tensor:
        """Waveforms, shape `(batch, samples)`."""
        return render(drawn, device)
