import numpy as np
import pytest
import torch
from matplotlib.image import imread

from audiopg.data_scripts.synthesis import draw
from audiopg.modeling.configuration_audiopg import AudioPGConfig
from audiopg.modeling.losses_audiopg import standardize_patches
from audiopg.modeling.modeling_audiopg import AudioPGForPreTraining
from audiopg.modeling.patches_audiopg import patchify
from audiopg.training.objectives.pictures import (
    _caption,
    destandardise_patches,
    draw_clips,
    draw_loss,
    draw_reconstruction,
)


def assert_is_a_picture(path):
    pixels = imread(path)
    assert min(pixels.shape[:2]) > 150
    assert len(np.unique(pixels[..., :3].reshape(-1, 3), axis=0)) > 20


@pytest.mark.parametrize("preset", ["reference", "audiopg", "sine"])
def test_a_sheet_of_clips_is_drawn(preset, tmp_path):
    assert_is_a_picture(draw_clips(draw(preset, 0, range(5), duration=0.5), tmp_path / "new" / "clips.png", columns=3))


def test_a_band_of_noise_has_its_centre_for_a_caption():
    parameters = draw("audiopg", 0, [0], mode="noise", num_events=1)
    assert f"noise {float(parameters['band_centre'][0, 0]):.0f} Hz" in _caption(parameters, 0, 20.0)


def test_a_reconstruction_is_drawn_of_what_was_visible_and_what_was_drawn(tmp_path):
    model = AudioPGForPreTraining(AudioPGConfig.of_size("tiny", num_hidden_layers=1, decoder_num_hidden_layers=1))
    values = torch.randn(2, 32, 128, generator=torch.Generator().manual_seed(0))
    assert_is_a_picture(draw_reconstruction(model, values, torch.rand(2, 16), tmp_path / "reconstruction.png"))


def test_a_loss_curve_is_drawn(tmp_path):
    metrics = [{"clips": 8 * n, "loss": 1 / n} for n in range(1, 9)]
    assert_is_a_picture(draw_loss(metrics, tmp_path / "loss.png", "loss"))


def test_patches_get_back_their_mean_and_deviation():
    patches = patchify(3 + 2 * torch.randn(2, 32, 128, generator=torch.Generator().manual_seed(0)), (16, 16))
    assert torch.allclose(destandardise_patches(standardize_patches(patches), patches), patches, atol=1e-4)
