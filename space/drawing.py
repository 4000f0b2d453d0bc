"""The app's figures, in the style of all figures. Knows no Gradio."""

import math
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from audiopg.data_scripts.figures import STYLE, WAVEFORM_COLOUR
from audiopg.data_scripts.probe_clips import FACTORS
from audiopg.modeling.spectrogram_audiopg import (
    HOP_LENGTH_SECONDS,
    LOWEST_FREQUENCY_HZ,
    hertz_to_mel,
    log_mel_spectrogram,
)
from audiopg.training.analysis.gallery import Reconstruction

_TICKS_HZ = (100, 500, 1000, 2000, 4000, 8000)
_DECADES_KHZ = (0.1, 0.3, 1, 3)
_LARGER = {**STYLE, "font.size": 10, "axes.titlesize": 10}
"""For a page, which is read from further away than a report."""
_HIDDEN_COLOUR = "#c9ccd3"
_DYNAMICS = 14.0
"""Natural logarithms from the loudest to what is drawn black: 60 dB."""


def mel_position(frequency: float, num_mel_bins: int, sampling_rate: int) -> float:
    """Where a frequency in Hz lies on an axis of mel bands, from 0 to their number.

    Example:
        >>> mel_position(20, 128, 16000), mel_position(8000, 128, 16000)
        (0.0, 128.0)
    """
    lowest, highest = hertz_to_mel(LOWEST_FREQUENCY_HZ), hertz_to_mel(sampling_rate / 2)
    return num_mel_bins * (hertz_to_mel(frequency) - lowest) / (highest - lowest)


def _label_bands(axis: Axes, num_mel_bins: int, sampling_rate: int) -> None:
    """Frequencies beside mel bands."""
    ticks = [frequency for frequency in _TICKS_HZ if frequency <= sampling_rate / 2]
    axis.set_yticks(
        [mel_position(frequency, num_mel_bins, sampling_rate) for frequency in ticks],
        [f"{frequency / 1000:g}" for frequency in ticks],
    )
    axis.set_ylabel("kHz")


def draw_sound(waveform: Tensor, sampling_rate: int, events: Sequence[tuple[float, float]] = ()) -> Figure:
    """A waveform with its events over its log-mel, as the model's front end has it.

    Args:
        waveform: Shape `(samples,)`.
        sampling_rate: In Hz.
        events: Begin and length of each, in s.

    Returns:
        The figure.
    """
    log_mel = log_mel_spectrogram(waveform, sampling_rate=sampling_rate).numpy()
    frames, bands = log_mel.shape
    seconds = len(waveform) / sampling_rate
    with matplotlib.rc_context(_LARGER):
        figure = Figure(figsize=(8, 4.2), layout="constrained", dpi=120)
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[1, 2.6])
        time = np.arange(len(waveform)) / sampling_rate
        top.plot(time, waveform.numpy(), linewidth=0.4, color=WAVEFORM_COLOUR)
        for number, (onset, length) in enumerate(events):
            top.axvspan(onset, min(onset + length, seconds), alpha=0.15, color=f"C{number % 10}", linewidth=0)
            top.text(onset, 1.08, str(number + 1), color=f"C{number % 10}", fontweight="bold")
        top.set(xlim=(0, seconds), ylim=(-1.05, 1.05), yticks=[])
        top.spines[["left", "bottom"]].set_visible(False)
        top.tick_params(bottom=False)
        high = float(log_mel.max())
        extent = (0, frames * HOP_LENGTH_SECONDS, 0, bands)
        bottom.set_facecolor("black")
        bottom.imshow(log_mel.T, extent=extent, vmin=high - _DYNAMICS, vmax=high)
        bottom.set(xlim=(0, seconds), xlabel="s")
        _label_bands(bottom, bands, sampling_rate)
        return figure


def draw_completion(found: Reconstruction, sampling_rate: int) -> Figure:
    """What there was, what the model saw of it, and what it drew, one below the other.

    Args:
        found: From `reconstruct`.
        sampling_rate: In Hz.

    Returns:
        The figure.
    """
    frames, bands = found.truth.shape
    share = float(found.hidden.float().mean())
    low, high = float(found.truth.min()), float(found.truth.max())
    panels = {
        "the original": found.truth,
        f"what the model saw: {100 * (1 - share):.0f} % of the patches": found.truth.masked_fill(
            found.hidden, float("nan")
        ),
        "what it saw, and drew of the rest": found.drawn,
    }
    with matplotlib.rc_context(_LARGER):
        figure = Figure(figsize=(8, 6.3), layout="constrained", dpi=120)
        axes = figure.subplots(len(panels), 1, sharex=True)
        for axis, (title, image) in zip(axes, panels.items(), strict=True):
            axis.set_facecolor(_HIDDEN_COLOUR)
            extent = (0, frames * HOP_LENGTH_SECONDS, 0, bands)
            axis.imshow(image.T.numpy(), vmin=low, vmax=high, extent=extent, interpolation="none")
            axis.set_title(title, loc="left")
            _label_bands(axis, bands, sampling_rate)
        axes[-1].set_xlabel("s")
        return figure


def draw_decoded(
    truth: Mapping[str, np.ndarray],
    decoded: Mapping[str, np.ndarray],
    here: Mapping[str, tuple[float, float]],
) -> Figure:
    """Each factor as decoded over the truth, of held-out clips, and of one clip in colour.

    Args:
        truth: Of each factor, shape `(clips,)`.
        decoded: Of the same.
        here: Of each factor, truth and what was decoded of the one clip.

    Returns:
        The figure.
    """
    with matplotlib.rc_context(_LARGER):
        figure = Figure(figsize=(max(2.2 * len(here), 4.4), 2.5), layout="constrained", dpi=120)
        axes = figure.subplots(1, len(here), squeeze=False)[0]
        for axis, (name, (true, found)) in zip(axes, here.items(), strict=True):
            factor = FACTORS[name]
            jitter = np.zeros(len(truth[name]))
            if factor.kind == "class":  # points of classes lie on each other
                jitter = 0.3 * (np.random.default_rng(0).random(len(jitter)) - 0.5)
            axis.scatter(truth[name] + jitter, decoded[name] + jitter[::-1], s=9, color="#9aa7c7", linewidth=0)
            ends = [min(truth[name].min(), decoded[name].min()), max(truth[name].max(), decoded[name].max())]
            axis.plot(ends, ends, color="#666666", linewidth=0.7, zorder=0)
            axis.scatter([true], [found], s=80, color="#d1495b", edgecolor="white", linewidth=1, zorder=3)
            unit = "kHz" if factor.logarithmic else factor.unit
            axis.set_title(f"{name}, {unit}" if unit else name, loc="left")
            axis.set_xlabel("true")
            if factor.logarithmic:
                ticks = [khz for khz in _DECADES_KHZ if ends[0] <= math.log2(1000 * khz) <= ends[1]]
                for put in (axis.set_xticks, axis.set_yticks):
                    put([math.log2(1000 * khz) for khz in ticks], [f"{khz:g}" for khz in ticks])
            if factor.names:
                for put in (axis.set_xticks, axis.set_yticks):
                    put(range(len(factor.names)), factor.names)
        axes[0].set_ylabel("decoded")
        return figure


__all__ = ["draw_completion", "draw_decoded", "draw_sound", "mel_position"]
