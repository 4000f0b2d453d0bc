"""Reconstructions: what the encoder saw, what the decoder drew of the rest, how wrong it was, and how it sounds."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import soundfile
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torchaudio.functional import deemphasis, griffinlim

from audiopg.data_scripts.counter_random import uniform
from audiopg.data_scripts.figures import STYLE
from audiopg.modeling.feature_extraction_audiopg import AudioPGFeatureExtractor
from audiopg.modeling.modeling_audiopg import AudioPGForPreTraining
from audiopg.modeling.patches_audiopg import patchify, unpatchify
from audiopg.modeling.spectrogram_audiopg import (
    HOP_LENGTH_SECONDS,
    PREEMPHASIS,
    frame_length,
    hop_length,
    mel_filter_bank,
    window_values,
)
from audiopg.training.objectives.pictures import destandardise_patches

MASK_RATIOS = (0.5, 0.75, 0.9)
PATTERNS = ("random", "time stripes", "mel stripes")
"""Patches one by one; all of a moment, as long as a patch; all of a band, as high as a patch."""


def masking_pattern(pattern: str, rows: int, columns: int, seed: int) -> Tensor:
    """Masking noise that hides patches in a pattern: the model keeps the patches with the smallest numbers.

    A stripe shares one random number, and within it patches go by another, so that of a stripe that is hidden in part
    a random part is.

    Args:
        pattern: One of `PATTERNS`.
        rows: Patches along time.
        columns: Patches along mel.
        seed: Of the choice.

    Returns:
        Shape `(1, rows * columns)`, float32.

    Raises:
        ValueError: if there is no such pattern.

    Example:
        >>> noise = masking_pattern("time stripes", rows=4, columns=2, seed=0)
        >>> hidden = noise.argsort()[0, 4:] // 2  # half of the patches: two whole rows
        >>> len(hidden.unique())
        2
    """
    if pattern not in PATTERNS:
        raise ValueError(f"Patterns are {', '.join(PATTERNS)}; got {pattern!r}.")
    number = torch.tensor([0])
    noise = uniform(seed, number, "gallery", (rows * columns,))
    if pattern == "random":
        return noise.float()
    along_time = pattern == "time stripes"
    stripes = uniform(seed, number, "gallery stripes", (rows if along_time else columns,))[0]
    order = stripes.argsort().argsort()
    grid = order[:, None].expand(rows, columns) if along_time else order.expand(rows, columns)
    return ((grid.reshape(1, -1) + noise) / len(order)).float()


@dataclass(frozen=True)
class Reconstruction:
    """One clip, redrawn under one mask.

    Args:
        truth: Standardised log-mel, shape `(frames, mel bands)`.
        hidden: True where it was hidden, of the same shape.
        drawn: The truth where it was visible, and what the decoder drew where it was not, of the same shape.
        error: Mean squared error of the hidden patches, as in the loss.
    """

    truth: Tensor
    hidden: Tensor
    drawn: Tensor
    error: float


@torch.no_grad()
def reconstruct(
    model: AudioPGForPreTraining, input_values: Tensor, pattern: str, mask_ratio: float, seed: int = 0
) -> Reconstruction:
    """Hide patches of one clip, and have them redrawn.

    A model whose loss standardises each patch tells the shape within a patch only; its patches are lent the mean and
    deviation of the true ones.

    Args:
        model: The masked autoencoder; its configuration is left as it was found.
        input_values: Of one clip, shape `(1, frames, mel bands)`.
        pattern: One of `PATTERNS`.
        mask_ratio: Share of the patches to hide.
        seed: Of the pattern.

    Returns:
        What went in and what came out.

    Raises:
        ValueError: if there is no such pattern, or the ratio is not between 0 and 1.

    Example:
        >>> from audiopg.modeling.configuration_audiopg import AudioPGConfig
        >>> model = AudioPGForPreTraining(AudioPGConfig.of_size("tiny"))
        >>> found = reconstruct(model, torch.randn(1, 64, 128), "mel stripes", mask_ratio=0.75)
        >>> found.drawn.shape, float(found.hidden.float().mean())
        (torch.Size([64, 128]), 0.75)
    """
    if not 0 < mask_ratio < 1:
        raise ValueError(f"mask_ratio lies between 0 and 1, got {mask_ratio}.")
    config, trained_with = model.config, model.config.mask_ratio
    columns = config.num_mel_patches
    noise = masking_pattern(pattern, input_values.shape[1] // config.patch_shape[0], columns, seed)
    was_training = model.training
    try:
        config.mask_ratio = mask_ratio
        output = model.eval()(input_values, noise=noise)
    finally:
        config.mask_ratio = trained_with
        model.train(was_training)
    patches = patchify(input_values, config.patch_shape)
    drawn = destandardise_patches(output.logits, patches) if config.norm_pix_loss else output.logits
    masked = output.mask[..., None].bool().expand_as(patches)

    def image(values: Tensor) -> Tensor:
        return unpatchify(values, config.patch_shape, config.num_mel_bins)[0]

    return Reconstruction(
        input_values[0], image(masked), image(torch.where(masked, drawn, patches)), float(output.loss)
    )


def draw_gallery(rows: Sequence[tuple[str, Reconstruction]]) -> Figure:
    """For each mask a row: what was visible, what was drawn, and the error.

    Args:
        rows: The masks' names and what came out.

    Returns:
        The figure.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 1.1 * len(rows) + 0.5), layout="constrained")
        axes = figure.subplots(len(rows), 3, squeeze=False, sharey=True)
        for (label, found), (seen, drawn, wrong) in zip(rows, axes, strict=True):
            frames, bands = found.truth.shape
            extent = (0, frames * HOP_LENGTH_SECONDS, 0, bands)
            low, high = float(found.truth.min()), float(found.truth.max())
            shown = {"extent": extent, "interpolation": "none"}
            seen.set_facecolor("#bbbbbb")
            seen.imshow(found.truth.masked_fill(found.hidden, float("nan")).T.numpy(), vmin=low, vmax=high, **shown)
            drawn.imshow(found.drawn.T.numpy(), vmin=low, vmax=high, **shown)
            difference = (found.drawn - found.truth).T.numpy()
            reach = 0.5 * (high - low)
            wrong.imshow(difference, cmap="RdBu_r", vmin=-reach, vmax=reach, **shown)
            wrong.text(1.01, 0.5, f"loss {found.error:.2f}", transform=wrong.transAxes, va="center")
            seen.set_ylabel(label, rotation=0, ha="right", va="center")
        for axis, title in zip(axes[0], ("visible", "visible and drawn", "drawn minus true"), strict=True):
            axis.set_title(title, loc="left")
        for axis in axes[-1]:
            axis.set_xlabel("s")
        for axis in axes.flat:
            axis.set_yticks([])
        return figure


def listen(input_values: Tensor, feature_extractor: AudioPGFeatureExtractor, num_iterations: int = 32) -> np.ndarray:
    """A waveform with about this log-mel, by least squares back to a power spectrum and Griffin-Lim's phases.

    The front end is undone step by step: standardisation, logarithm, mel bands (the smallest spectrum in the sense of
    least squares, its negative parts set to zero), phases (Griffin & Lim 1984, as in torchaudio, from phases of zero),
    and pre-emphasis. What the mel bands have averaged away stays lost, so a true log-mel sounds rough as well.

    Args:
        input_values: Standardised log-mel, shape `(frames, mel bands)`.
        feature_extractor: That made it.
        num_iterations: Of Griffin-Lim.

    Returns:
        float32, peak 0.9 (silence stays silent), shape `(samples,)`.

    Example:
        >>> listen(torch.randn(32, 128), AudioPGFeatureExtractor(), num_iterations=1).dtype
        dtype('float32')
    """
    rate = feature_extractor.sampling_rate
    log_mel = input_values.double() * (2 * feature_extractor.std) + feature_extractor.mean
    bank = mel_filter_bank(feature_extractor.num_mel_bins, rate).double()
    power = (log_mel.exp() @ torch.linalg.pinv(bank)).clamp(min=0.0).T.float()
    length = frame_length(rate)
    waveform = griffinlim(
        power,
        window_values(feature_extractor.window, length + 1)[:-1],  # periodic, as overlapping frames want it
        n_fft=2 * (len(power) - 1),
        hop_length=hop_length(rate),
        win_length=length,
        power=2.0,
        n_iter=num_iterations,
        momentum=0.99,
        length=None,
        rand_init=False,
    )
    sound = deemphasis(waveform, PREEMPHASIS)
    return (0.9 * sound / sound.abs().max().clamp(min=1e-9)).numpy()


def write_sounds(
    name: str, waveform: np.ndarray, found: Reconstruction, feature_extractor: AudioPGFeatureExtractor, folder: Path
) -> dict[str, Path]:
    """Three WAV files: the clip, its log-mel made audible, and the reconstruction made audible the same way.

    Args:
        name: Begins the names of the files.
        waveform: The clip, shape `(samples,)`.
        found: One reconstruction of it.
        feature_extractor: That made the log-mel.
        folder: To write to.

    Returns:
        The files, by what they are.
    """
    sounds = {
        "original": waveform,
        "log-mel": listen(found.truth, feature_extractor),
        "redrawn": listen(found.drawn, feature_extractor),
    }
    paths = {}
    for kind, samples in sounds.items():
        paths[kind] = folder / f"{name}_{kind}.wav"
        soundfile.write(paths[kind], samples, feature_extractor.sampling_rate, subtype="PCM_16")
    return paths
