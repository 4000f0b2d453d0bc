"""Where clips come from: a source draws what a clip needs on the CPU, and makes waveforms of it on a device.

A clip is the same for the same index whatever the batch, so that a run can be cut into processes, stopped and resumed
at will.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from audiopg.data_scripts.counter_random import normal
from audiopg.data_scripts.synthesis import Parameters, Preset, draw, draw_doubles, render
from audiopg.data_scripts.voices import Voice, noise_of, perturb
from audiopg.data_scripts.voices import draw as draw_voices
from audiopg.data_scripts.voices import render as render_voices


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


@dataclass(frozen=True)
class SyntheticDoubles:
    """Two doubles of each clip, beside each other.

    Args:
        preset: What clips.
        seed: Which stream of them.
        delta: As of `draw_doubles`.

    Example:
        >>> from audiopg.data_scripts.synthesis import get_preset
        >>> source = SyntheticDoubles(get_preset("audiopg", duration=1.0), seed=0, delta=0.25)
        >>> source.waveforms(source.draw(torch.arange(2)), "cpu").shape
        torch.Size([4, 16000])
    """

    preset: Preset
    seed: int
    delta: float | Mapping[str, float]

    def draw(self, indices: Tensor) -> Parameters:
        """Parameters of the doubles of the clips `indices`."""
        return draw_doubles(self.preset, self.seed, indices, self.delta)

    def waveforms(self, drawn: Parameters, device: torch.device | str) -> Tensor:
        """Waveforms, shape `(2 * batch, samples)`."""
        return render(drawn, device)


@dataclass(frozen=True)
class VoiceSource:
    """Sounds of a modular synthesizer.

    Args:
        voice: Which one.
        seed: Which stream of its sounds.

    Example:
        >>> from audiopg.data_scripts.voices import get_voice
        >>> source = VoiceSource(get_voice("voice"), seed=0)
        >>> source.waveforms(source.draw(torch.arange(2)), "cpu").shape
        torch.Size([2, 16000])
    """

    voice: Voice
    seed: int

    def draw(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Indices and parameters of the sounds."""
        return indices, draw_voices(self.voice, self.seed, indices)

    @torch.no_grad()
    def waveforms(self, drawn: tuple[Tensor, Tensor], device: torch.device | str) -> Tensor:
        """Waveforms, shape `(batch, samples)`."""
        indices, parameters = drawn
        noise = noise_of(self.voice, self.seed, indices, device)
        return render_voices(self.voice, parameters.to(device, non_blocking=True), noise)


@dataclass(frozen=True)
class VoiceDoubles:
    """Two doubles of each sound of a modular synthesizer, beside each other.

    Args:
        voice: Which one.
        seed: Which stream of its sounds.
        delta: As of `perturb`.

    Example:
        >>> from audiopg.data_scripts.voices import get_voice
        >>> source = VoiceDoubles(get_voice("voice"), seed=0, delta=0.25)
        >>> source.waveforms(source.draw(torch.arange(2)), "cpu").shape
        torch.Size([4, 16000])
    """

    voice: Voice
    seed: int
    delta: float | Mapping[str, float]

    def draw(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Indices of the sounds, and parameters of their doubles, shape `(2 * batch, parameters)`."""
        parameters = draw_voices(self.voice, self.seed, indices).repeat_interleave(2, dim=0)
        z = normal(self.seed, indices, "doubles", (2, self.voice.num_parameters)).flatten(0, 1)
        return indices, perturb(self.voice, parameters, z.float(), self.delta)

    @torch.no_grad()
    def waveforms(self, drawn: tuple[Tensor, Tensor], device: torch.device | str) -> Tensor:
        """Waveforms, shape `(2 * batch, samples)`."""
        indices, parameters = drawn
        noise = [noise_of(self.voice, self.seed, indices, device, view=view) for view in (1, 2)]
        noises = torch.stack(noise, dim=1).flatten(0, 1)
        return render_voices(self.voice, parameters.to(device, non_blocking=True), noises)
