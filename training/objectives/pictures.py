"""Pictures of what goes in, what comes out and how it went. Each function draws one figure and writes one PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from audiopg.data_scripts.figures import STYLE, WAVEFORM_COLOUR, save_figure
from audiopg.data_scripts.synthesis import Parameters, render_components, signal_to_noise_ratio
from audiopg.data_scripts.synthesis.parameters import MODES
from audiopg.data_scripts.synthesis.shaping import peak_normalise
from audiopg.modeling.modeling_audiopg import AudioPGForPreTraining
from audiopg.modeling.patches_audiopg import patchify, unpatchify
from audiopg.modeling.spectrogram_audiopg import HOP_LENGTH_SECONDS, log_mel_spectrogram


def _caption(parameters: Parameters, clip: int, snr_db: float) -> str:
    """A clip's index, sources, pitches, number of events and level over the noise, in words."""
    num_events = int(parameters["num_events"][clip])
    num_sources = 1 if parameters.preset.shared_source else num_events
    modes = [MODES[mode] for mode in parameters["mode"][clip, :num_sources].tolist()]
    sources = [
        f"{mode} {float(parameters['band_centre' if mode == 'noise' else 'f0'][clip, source]):.0f} Hz"
        for source, mode in enumerate(modes)
    ]
    listed = ", ".join(sources[:2]) + (" ..." if num_sources > 2 else "")
    events = f"{num_events} event{'s' if num_events > 1 else ''}"
    return f"#{int(parameters.indices[clip])}  {listed}\n{events}, SNR {snr_db:.0f} dB"


def draw_clips(parameters: Parameters, path: Path, columns: int = 4) -> Path:
    """A sheet of clips: waveform over log-mel, with what each is made of.

    Args:
        parameters: Of the clips, from `draw`.
        path: PNG to write.
        columns: Clips side by side.

    Returns:
        The path.
    """
    preset = parameters.preset
    signal, noise = render_components(parameters)
    snr_db = signal_to_noise_ratio(signal, noise)
    captions = [_caption(parameters, clip, float(level)) for clip, level in enumerate(snr_db)]
    title = f"Synthesized clips: preset {preset.name}, seed {parameters.seed}"
    return draw_sounds(peak_normalise(signal + noise), captions, preset.sampling_rate, title, path, columns)


def draw_sounds(
    waveforms: Tensor, captions: Sequence[str], sampling_rate: int, title: str, path: Path, columns: int = 4
) -> Path:
    """A sheet of sounds: waveform over log-mel.

    Args:
        waveforms: Shape `(batch, samples)`.
        captions: Of each sound.
        sampling_rate: In Hz.
        title: Above all.
        path: PNG to write.
        columns: Sounds side by side.

    Returns:
        The path.
    """
    log_mel = log_mel_spectrogram(waveforms, sampling_rate=sampling_rate).numpy()
    rows, duration = -(-len(waveforms) // columns), waveforms.shape[1] / sampling_rate
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.2 * columns, 2.6 * rows), layout="constrained")
        axes = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=[1, 2] * rows)
        for axis in axes.flat:
            axis.set_axis_off()
        for clip, waveform in enumerate(waveforms.numpy()):
            row, column = divmod(clip, columns)
            top, bottom = axes[2 * row, column], axes[2 * row + 1, column]
            top.plot(np.arange(len(waveform)) / sampling_rate, waveform, linewidth=0.3, color=WAVEFORM_COLOUR)
            top.set(xlim=(0, duration), ylim=(-1.05, 1.05))
            top.set_title(captions[clip], loc="left")
            bottom.set_axis_on()
            bottom.imshow(log_mel[clip].T, extent=(0, duration, 0, log_mel.shape[-1]))
            bottom.set(yticks=[], xlabel="s" if row == rows - 1 else "", ylabel="mel band" if column == 0 else "")
        figure.suptitle(title, x=0.01, ha="left")
        return save_figure(figure, path)


def destandardise_patches(predicted: Tensor, patches: Tensor) -> Tensor:
    """Give predicted patches, standardised as in the loss, the mean and deviation of the true ones.

    Args:
        predicted: Shape `(batch, patches, pixels)`.
        patches: The true ones, of the same shape.

    Returns:
        Of the same shape.

    Example:
        >>> patches = torch.randn(1, 2, 256)
        >>> from audiopg.modeling.losses_audiopg import standardize_patches
        >>> torch.allclose(destandardise_patches(standardize_patches(patches), patches), patches, atol=1e-4)
        True
    """
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return predicted * (variance + 1e-6).sqrt() + mean


@torch.no_grad()
def draw_reconstruction(model: AudioPGForPreTraining, input_values: Tensor, noise: Tensor, path: Path) -> Path:
    """What went in, what the encoder saw, and what the decoder drew, one clip a row.

    Only the shape within a patch is the model's: its loss has each patch standardised, so the picture lends every
    drawn patch the mean and deviation of the true one.

    Args:
        model: The masked autoencoder.
        input_values: Shape `(batch, frames, num_mel_bins)`.
        noise: Masking noise, shape `(batch, patches)`.
        path: PNG to write.

    Returns:
        The path.
    """
    output = model.eval()(input_values, noise=noise)
    config, masked = model.config, output.mask[..., None].bool()
    patches = patchify(input_values, config.patch_shape)
    drawn = destandardise_patches(output.logits, patches) if config.norm_pix_loss else output.logits
    panels = {
        "input": patches,
        f"visible: {100 * (1 - float(output.mask.mean())):.0f} %": patches.masked_fill(masked, float("nan")),
        "visible and drawn": torch.where(masked, drawn, patches),
    }
    duration = input_values.shape[1] * HOP_LENGTH_SECONDS
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4 * len(panels), 1.7 * len(patches)), layout="constrained")
        axes = figure.subplots(len(patches), len(panels), squeeze=False, sharex=True, sharey=True)
        low, high = float(input_values.min()), float(input_values.max())
        for column, (title, panel) in enumerate(panels.items()):
            axes[0, column].set_title(title, loc="left")
            images = unpatchify(panel, config.patch_shape, config.num_mel_bins).numpy()
            for row, image in enumerate(images):
                axes[row, column].set_facecolor("#bbbbbb")
                extent = (0, duration, 0, config.num_mel_bins)
                axes[row, column].imshow(image.T, vmin=low, vmax=high, extent=extent, interpolation="none")
            axes[-1, column].set_xlabel("s")
        for axis in axes[:, 0]:
            axis.set_ylabel("mel band")
        return save_figure(figure, path)


def draw_loss(metrics: Sequence[Mapping[str, float]], path: Path, title: str) -> Path:
    """The loss over the clips seen.

    Args:
        metrics: Rows with `clips` and `loss`, as from `read_metrics`.
        path: PNG to write.
        title: Above the figure.

    Returns:
        The path.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5, 3), layout="constrained")
        axis = figure.subplots()
        axis.plot([row["clips"] for row in metrics], [row["loss"] for row in metrics], color=WAVEFORM_COLOUR)
        axis.set(xlabel="clips seen", ylabel="loss")
        axis.set_title(title, loc="left")
        axis.grid(alpha=0.3)
        return save_figure(figure, path)
