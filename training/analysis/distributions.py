r"""How sounds differ from real ones: flux, inharmonicity, centroid and flatness of spectra, clip by clip.

Frames are 64 ms long, 32 ms apart, under a Hann window; $|X_t(f)|$ is the magnitude of frame $t$. A clip's value is
the mean over its frames within 60 dB of its loudest one: silence has no spectrum. No value depends on level. A clip
that has no two such frames side by side has a flux of 0, one without any partials an inharmonicity of 0.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from scipy import stats
from torch import Tensor
from torch.nn.functional import pad

from audiopg.data_scripts import voices
from audiopg.data_scripts.figures import STYLE
from audiopg.data_scripts.recorded_files import recordings_below
from audiopg.data_scripts.synthesis import Preset, draw, get_preset, render
from audiopg.modeling.audio_audiopg import read_audio

DESCRIPTORS = {
    "flux": "spectral flux",
    "inharmonicity": "inharmonicity",
    "centroid": "spectral centroid, Hz",
    "flatness": "spectral flatness",
}
"""What is measured, in words, with its unit if it has one."""

NUM_CLIPS = 100
"""Of each collection."""

SECONDS = 5.0
"""What of a clip is measured at most, from its start on."""

_FRAME_SECONDS = 0.064
_AUDIBLE = 1e-6  # -60 dB
_FLOOR = 1e-10  # of a frame's largest power: what is called silence between partials
_PEAK = 10 ** (-30 / 20)  # of a frame's largest magnitude; the side lobes of a Hann window are below -31 dB
_LOWEST_F0, _HIGHEST_F0 = 50.0, 2000.0
_PERIOD_SHARE = 0.9
_FINER = 4  # lags of the autocorrelation between two samples
_CLIPS_AT_ONCE = 10


def spectral_centroid(magnitudes: Tensor, sampling_rate: int) -> Tensor:
    r"""The centre of mass of each spectrum: $\sum_f f |X_t(f)| / \sum_f |X_t(f)|$.

    Args:
        magnitudes: Shape `(frames, frequencies)`, from 0 Hz to half the sampling rate, none of them silent.
        sampling_rate: In Hz.

    Returns:
        In Hz, shape `(frames,)`.

    Example:
        >>> spectral_centroid(torch.tensor([[0.0, 1.0, 1.0]]), 16000)
        tensor([6000.])
    """
    frequencies = torch.linspace(0, sampling_rate / 2, magnitudes.shape[1], dtype=magnitudes.dtype)
    return magnitudes @ frequencies / magnitudes.sum(dim=1)


def spectral_flatness(magnitudes: Tensor) -> Tensor:
    r"""Geometric over arithmetic mean of each power spectrum, without its ends: $e^{\overline{\ln P}} / \overline{P}$.

    Of white noise it is $e^{-\gamma} = 0.561$, as powers are exponentially distributed; of a tone it is near 0.

    Args:
        magnitudes: As for `spectral_centroid`.

    Returns:
        In (0, 1], shape `(frames,)`.

    Example:
        >>> spectral_flatness(torch.tensor([[9.0, 1.0, 1.0, 9.0]]))
        tensor([1.])
    """
    power = magnitudes[:, 1:-1].square()
    power = power.maximum(_FLOOR * power.amax(dim=1, keepdim=True))
    return power.log().mean(dim=1).exp() / power.mean(dim=1)


def spectral_flux(magnitudes: Tensor) -> Tensor:
    r"""How much each spectrum differs from the one before, both of norm 1: $\| \hat X_t - \hat X_{t-1} \|_2$.

    Args:
        magnitudes: As for `spectral_centroid`.

    Returns:
        From 0 where nothing changes to $\sqrt 2$ where nothing is shared, shape `(frames - 1,)`.

    Example:
        >>> spectral_flux(torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]]))
        tensor([0.0000, 1.4142])
    """
    shapes = torch.nn.functional.normalize(magnitudes, dim=1)
    return (shapes[1:] - shapes[:-1]).norm(dim=1)


def inharmonicity(frequencies: Tensor, powers: Tensor, fundamental: Tensor) -> Tensor:
    r"""How far partials are from multiples of the fundamental (Peeters, "A Large Set of Audio Features", 2004).

    $\frac{2}{f_0} \sum_p |f_p - n_p f_0| P_p / \sum_p P_p$ with the nearest whole $n_p \ge 1$.

    Args:
        frequencies: Of the partials, in Hz, shape `(frames, partials)`.
        powers: Of the partials, 0 where there is none.
        fundamental: In Hz, shape `(frames,)`.

    Returns:
        In [0, 1], shape `(frames,)`: 0 where all are multiples, near 0.5 where they lie anywhere; NaN for a frame
        without partials.

    Example:
        >>> inharmonicity(torch.tensor([[100.0, 210.0]]), torch.ones(1, 2), torch.tensor([100.0]))
        tensor([0.1000])
    """
    f0 = fundamental[:, None]
    deviation = (frequencies - (frequencies / f0).round().clamp(min=1) * f0).abs()
    return (2 * (deviation * powers).sum(dim=1) / (fundamental * powers.sum(dim=1))).clamp(max=1)


def fundamental_frequency(frames: Tensor, window: Tensor, sampling_rate: int) -> Tensor:
    r"""The fundamental by autocorrelation, over that of the window (Boersma 1993), from 50 to 2000 Hz.

    Of the lags where it has a maximum, the first that reaches 0.9 of the highest is the period. There is one even of
    noise; what rises to no maximum is given the lowest fundamental.

    Args:
        frames: Under the window, shape `(frames, samples)`.
        window: Shape `(samples,)`.
        sampling_rate: In Hz.

    Returns:
        In Hz, shape `(frames,)`.

    Example:
        >>> window = torch.hann_window(1024)
        >>> tone = torch.sin(2 * torch.pi * 440 * torch.arange(1024) / 16000)
        >>> fundamental_frequency((tone * window)[None], window, 16000).round()
        tensor([440.])
    """
    length = len(window)

    def correlated(signals: Tensor) -> Tensor:
        power = torch.fft.rfft(signals, 2 * length).abs().square()
        return torch.fft.irfft(power, 2 * length * _FINER)[..., : length * _FINER]

    own = correlated(frames)
    ratio = own / own[:, :1] / (correlated(window) / correlated(window)[:1])
    rate = sampling_rate * _FINER
    first, last = round(rate / _HIGHEST_F0), min(round(rate / _LOWEST_F0), length * _FINER - 2)
    before, here, after = (ratio[:, first + shift : last + 1 + shift] for shift in (-1, 0, 1))
    maxima = torch.where((here > before) & (here >= after), here, -torch.inf)
    reached = (maxima >= _PERIOD_SHARE * maxima.amax(dim=1, keepdim=True)) & maxima.isfinite()
    index = reached.int().argmax(dim=1)
    lag = torch.where(reached.any(dim=1), first + index + _peak_offset(before, here, after, index), last)
    return rate / lag


def describe(waveform: Tensor, sampling_rate: int) -> dict[str, float]:
    """All of `DESCRIPTORS` of one clip.

    Args:
        waveform: Shape `(samples,)`; what is shorter than a frame ends in silence.
        sampling_rate: In Hz.

    Returns:
        By name; nothing for a clip that is silent.

    Example:
        >>> tone = torch.sin(2 * torch.pi * 440 * torch.arange(16000) / 16000)
        >>> {name: round(value, 2) for name, value in describe(tone, 16000).items()}
        {'flux': 0.0, 'inharmonicity': 0.0, 'centroid': 440.98, 'flatness': 0.0}
    """
    length = round(_FRAME_SECONDS * sampling_rate)
    window = torch.hann_window(length, dtype=torch.float64)
    signal = pad(waveform.double(), (0, max(0, length - len(waveform))))
    frames = signal.unfold(0, length, length // 2) * window
    energy = frames.square().sum(dim=1)
    audible = energy > _AUDIBLE * energy.max()
    if not audible.any():
        return {}
    magnitudes = torch.fft.rfft(frames).abs()
    neighbours = audible[1:] & audible[:-1]
    flux = spectral_flux(magnitudes)[neighbours]
    partials = _partials(frames[audible], sampling_rate)
    f0 = fundamental_frequency(frames[audible], window, sampling_rate)
    has_partials = partials[1].any(dim=1)
    off = inharmonicity(*partials, f0)[has_partials]
    return {
        "flux": float(flux.mean()) if len(flux) else 0.0,
        "inharmonicity": float(off.mean()) if len(off) else 0.0,
        "centroid": float(spectral_centroid(magnitudes[audible], sampling_rate).mean()),
        "flatness": float(spectral_flatness(magnitudes[audible]).mean()),
    }


def describe_collection(waveforms: Iterable[Tensor], sampling_rate: int) -> dict[str, np.ndarray]:
    """`DESCRIPTORS` of the first five seconds of each clip; silent clips are left out.

    Args:
        waveforms: Each of shape `(samples,)`.
        sampling_rate: In Hz.

    Returns:
        By name, shape `(clips,)`.

    Raises:
        ValueError: if every clip is silent, or there is none.
    """
    most = round(SECONDS * sampling_rate)
    found = [described for waveform in waveforms if (described := describe(waveform[:most], sampling_rate))]
    if not found:
        raise ValueError("Spectra are those of clips that are not silent, and there is none. Give other recordings.")
    return {name: np.array([described[name] for described in found]) for name in DESCRIPTORS}


def synthetic_collections(sampling_rate: int, num_clips: int = NUM_CLIPS) -> Iterator[tuple[str, Iterator[Tensor]]]:
    """Sounds of both synthesizers, as they are trained on.

    Args:
        sampling_rate: In Hz.
        num_clips: Of each preset, from the start of stream 0 on.

    Yields:
        The synthesizer with its preset, and the clips, each of shape `(samples,)`.
    """
    for name in ("reference", "audiopg"):
        yield f"AudioPG, {name}", _clips_of(get_preset(name, sampling_rate=sampling_rate), num_clips)
    for name in voices.VOICE_PRESETS:
        yield f"Voice, {name}", _sounds_of(voices.get_voice("voice", name, sampling_rate=sampling_rate), num_clips)


# Functions, not expressions: each has a preset of its own, also where all are asked for before any is heard.
def _clips_of(preset: Preset, num_clips: int) -> Iterator[Tensor]:
    for start in range(0, num_clips, _CLIPS_AT_ONCE):
        yield from render(draw(preset, 0, range(start, min(start + _CLIPS_AT_ONCE, num_clips))))


def _sounds_of(voice: voices.Voice, num_clips: int) -> Iterator[Tensor]:
    for start in range(0, num_clips, _CLIPS_AT_ONCE):
        indices = range(start, min(start + _CLIPS_AT_ONCE, num_clips))
        yield from voices.render(voice, voices.draw(voice, 0, indices), voices.noise_of(voice, 0, indices))


def real_recordings(folder: Path, sampling_rate: int, num_clips: int = NUM_CLIPS) -> Iterator[Tensor]:
    """Recordings of a folder, at any depth, evenly over the order of their paths.

    Args:
        folder: Where they are.
        sampling_rate: To bring them to, in Hz.
        num_clips: At most.

    Yields:
        Each of shape `(samples,)`.

    Raises:
        ValueError: if there are none, or one cannot be read.
    """
    paths = recordings_below(folder) if folder.is_dir() else []
    if not paths:
        raise ValueError(f"{folder} holds no recordings to compare with. Give a folder of sound files.")
    chosen = np.linspace(0, len(paths) - 1, min(num_clips, len(paths))).round().astype(int)
    for index in chosen:
        yield read_audio(paths[index], sampling_rate)


def compare(collections: Mapping[str, Mapping[str, np.ndarray]], real: str) -> dict[str, dict[str, dict[str, float]]]:
    r"""Quartiles of each collection, and its distance to the real one.

    The distance is that of Kolmogorov and Smirnov, $\sup_x |F(x) - F_\mathrm{real}(x)|$: from 0 to 1, and free of the
    scales of what is measured, so that those of all four compare.

    Args:
        collections: By name, as from `describe_collection`.
        real: The name of the one that others are compared with.

    Returns:
        By collection and descriptor: `quartile_1`, `median`, `quartile_3`, `distance` and `clips`.

    Example:
        >>> one = {"flux": np.array([0.0, 1.0, 2.0])}
        >>> compare({"x": one, "real": {"flux": np.array([1.5, 3.0])}}, "real")["x"]["flux"]["median"]
        1.0
    """
    return {
        name: {
            kind: {
                **dict(zip(_QUARTILES, map(float, np.quantile(values, (0.25, 0.5, 0.75))), strict=True)),
                "distance": float(stats.ks_2samp(values, collections[real][kind]).statistic),
                "clips": len(values),
            }
            for kind, values in described.items()
        }
        for name, described in collections.items()
    }


def draw_distributions(collections: Mapping[str, Mapping[str, np.ndarray]], real: str) -> Figure:
    """Violins of every descriptor, a panel each and a violin for each collection, with its median.

    Args:
        collections: By name, as from `describe_collection`.
        real: The name of the one that is drawn apart.

    Returns:
        The figure.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2.1 * len(DESCRIPTORS) + 1.5, 0.35 * len(collections) + 1), layout="constrained")
        axes = figure.subplots(1, len(DESCRIPTORS), sharey=True)
        places = np.arange(len(collections), 0, -1)
        for axis, (kind, words) in zip(axes, DESCRIPTORS.items(), strict=True):
            samples: Sequence[np.ndarray] = [described[kind] for described in collections.values()]
            parts = axis.violinplot(samples, places, orientation="horizontal", widths=0.8, showextrema=False)
            for body, name in zip(parts["bodies"], collections, strict=True):
                body.set(facecolor=_REAL if name == real else _SYNTHETIC, alpha=0.7)
            axis.plot([np.median(sample) for sample in samples], places, "|", color="black", markersize=8)
            axis.set(xlabel=words, yticks=places, yticklabels=list(collections))
        return figure


_QUARTILES = ("quartile_1", "median", "quartile_3")
_REAL, _SYNTHETIC = "#d49a3a", "#33508a"


def _partials(frames: Tensor, sampling_rate: int) -> tuple[Tensor, Tensor]:
    """Frequencies in Hz and powers of the maxima of each spectrum, both `(frames, frequencies)`, power 0 elsewhere."""
    padded = 2 * frames.shape[1]
    levels = torch.fft.rfft(frames, padded).abs()
    levels = levels.maximum(_FLOOR * levels.amax(dim=1, keepdim=True)).log()
    before, here, after = levels[:, :-2], levels[:, 1:-1], levels[:, 2:]
    is_peak = (here > before) & (here >= after) & (here > here.amax(dim=1, keepdim=True) + np.log(_PEAK))
    bins = torch.arange(1, levels.shape[1] - 1) + _offset(before, here, after)
    return bins * sampling_rate / padded, torch.where(is_peak, (2 * here).exp(), 0.0)


def _offset(before: Tensor, here: Tensor, after: Tensor) -> Tensor:
    """Where the parabola through three values has its top, from the middle one; a line has none."""
    curvature = before - 2 * here + after
    return torch.where(curvature < 0, (before - after) / (2 * curvature), 0.0).clamp(-0.5, 0.5)


def _peak_offset(before: Tensor, here: Tensor, after: Tensor, index: Tensor) -> Tensor:
    chosen = [values.gather(1, index[:, None])[:, 0] for values in (before, here, after)]
    return _offset(*chosen)
