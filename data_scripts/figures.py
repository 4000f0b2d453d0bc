"""Pictures of clips as they sound, without the model's view of them; and the style of every figure."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure

STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
    "image.cmap": "magma",
    "image.origin": "lower",
    "image.aspect": "auto",
    "text.parse_math": False,  # names of classes may hold any sign
}
WAVEFORM_COLOUR = "#33508a"
_QUIETEST_DB = -80.0


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, its folder too where it is missing; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, bbox_inches="tight")
    return path


def save_both(figure: Figure, folder: Path, name: str) -> Path:
    """Write a figure as `NAME.png` and `NAME.svg`, the same bytes each time; returns the PNG."""
    with matplotlib.rc_context({"svg.hashsalt": name}):
        png = save_figure(figure, folder / f"{name}.png")
        figure.savefig(png.with_suffix(".svg"), metadata={"Date": None})
    return png


def spectrogram_db(waveform: np.ndarray, sampling_rate: int) -> np.ndarray:
    r"""Level of every frequency over time, relative to the loudest: $20 \log_{10} (|X| / \max |X|)$ of a Hann STFT.

    Args:
        waveform: Shape `(samples,)`.
        sampling_rate: In Hz. Windows are 64 ms long, 8 ms apart.

    Returns:
        In dB, from -80 to 0, shape `(frequencies, frames)`; frequencies go from 0 to half the sampling rate.

    Example:
        >>> spectrogram_db(np.sin(np.arange(16000)), 16000).shape
        (513, 126)
    """
    length, hop = round(0.064 * sampling_rate), round(0.008 * sampling_rate)
    window = torch.hann_window(length, dtype=torch.float64)
    signal = torch.from_numpy(waveform).double()
    spectrum = torch.stft(signal, length, hop, window=window, pad_mode="constant", return_complex=True).abs()
    peak = spectrum.max().clamp(min=torch.finfo(torch.float64).tiny)
    return (20 * torch.log10((spectrum / peak).clamp(min=10 ** (_QUIETEST_DB / 20)))).numpy()


def draw_clip(
    waveform: np.ndarray, row: Mapping[str, Any], words: Sequence[str], sampling_rate: int, path: Path
) -> Path:
    """One clip: waveform with its events, spectrogram, and what it is made of in words.

    Args:
        waveform: Shape `(samples,)`.
        row: Its factors, as from `clip_rows`.
        words: Lines to write below, as from `describe`.
        sampling_rate: In Hz.
        path: PNG to write.

    Returns:
        The path.
    """
    duration = len(waveform) / sampling_rate
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7, 4), layout="constrained")
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[1, 2])
        top.plot(np.arange(len(waveform)) / sampling_rate, waveform, linewidth=0.3, color=WAVEFORM_COLOUR)
        for event, (onset, length) in enumerate(zip(row["onset"], row["event_length"], strict=True)):
            top.axvspan(onset, onset + length, alpha=0.12, color=f"C{event % 10}", linewidth=0)
            top.text(onset, 1.05, str(event + 1), color=f"C{event % 10}")
        top.set(xlim=(0, duration), ylim=(-1.05, 1.3), ylabel="waveform")
        top.set_title(f"clip {row['index']} of seed {row['seed']}", loc="left")
        extent = (0, duration, 0, sampling_rate / 2000)
        image = bottom.imshow(spectrogram_db(waveform, sampling_rate), extent=extent, vmin=_QUIETEST_DB, vmax=0)
        bottom.set(xlabel="s", ylabel="kHz")
        figure.colorbar(image, ax=bottom, label="dB")
        figure.supxlabel("\n".join(words), x=0.01, ha="left", fontsize=8)
        return save_figure(figure, path)
