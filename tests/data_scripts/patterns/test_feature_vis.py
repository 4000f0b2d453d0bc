import math

import numpy as np
import pytest
import torch
from torch import nn

from audiopg.data_scripts.patterns import get_patterns
from audiopg.data_scripts.patterns.feature_vis import (
    FEATURE_VIS,
    _network,
    from_spectrum,
    moved,
    normalised,
    units,
)

SETS = {patterns.name: get_patterns(patterns, most_channels=64, steps=4) for patterns in FEATURE_VIS}
CPU = torch.device("cpu")


@pytest.mark.parametrize("name", SETS)
def test_an_image_is_the_same_in_any_batch_and_seed_and_index_change_it(name):
    together = SETS[name].images(1, [5, 2**40, 3], size=32)
    assert together.dtype == torch.float32
    assert together.shape == (3, 3, 32, 32)
    assert 0 <= together.min() < together.max() <= 1
    assert not together.requires_grad
    assert torch.equal(SETS[name].images(1, [3], size=32)[0], together[2])
    assert not torch.equal(SETS[name].images(2, [5], size=32)[0], together[0])
    assert len({image.numpy().tobytes() for image in together}) == 3


@pytest.mark.parametrize("name", SETS)
def test_units_answer_more_strongly_than_at_the_beginning(name):
    """To nearly every unit: what the network says of the images that are made for it, and of the noise at first."""
    weights = name.removeprefix("feature_vis_")
    network = _network(weights, 64, CPU)

    def answers(steps):
        images = get_patterns(SETS[name], steps=steps).images(0, range(4), size=32)
        return network(normalised(images)).pooler_output[:, :, 0, 0].diagonal()

    assert (answers(12) > answers(1)).float().mean() >= 0.75


def test_the_state_of_torch_s_generator_is_left_alone():
    _network.cache_clear()
    before = torch.random.get_rng_state()
    _network("random", 64, CPU)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_random_weights_have_the_deviation_of_he():
    network = _network("random", 64, CPU)
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 53
    for module in convolutions:
        outputs, _, height, width = module.weight.shape
        expected = math.sqrt(2 / (outputs * height * width))
        assert module.weight.std().item() == pytest.approx(expected, rel=0.35)
        assert not module.weight.requires_grad


def test_weights_of_dead_leaves_are_unit_patches_and_whiten_activations():
    network = _network("dead_leaves", 64, CPU)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            norms = module.weight.square().sum((1, 2, 3)).sqrt()
            assert ((norms - 1).abs() < 1e-3).float().mean() > 0.9
            assert module.weight.mean((1, 2, 3)).abs().max() < 1e-4
        if isinstance(module, nn.BatchNorm2d):
            assert not module.training
            assert module.running_mean.abs().max() > 0


def test_a_single_coefficient_is_a_wave():
    spectrum = torch.zeros(3, 16, 9, 2)
    spectrum[1, 0, 2, 0] = 1.0
    image = from_spectrum(spectrum, 16)[0]
    wave = np.cos(2 * np.pi * 2 * np.arange(16) / 16) * 2 / 16 / (4 * 2 / 16)
    np.testing.assert_allclose(image[1], np.broadcast_to(1 / (1 + np.exp(-wave)), (16, 16)), atol=1e-6)
    assert (image[0] == 0.5).all()


def test_an_image_that_is_not_moved_is_itself_and_a_quarter_turn_is_numpy_s():
    image = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    zero, one = torch.zeros(()), torch.ones(())
    torch.testing.assert_close(moved(image, torch.zeros(2), zero, one), image)
    quarter = moved(image, torch.zeros(2), torch.tensor(math.pi / 2), one)
    np.testing.assert_allclose(quarter, np.rot90(image.numpy(), axes=(2, 3)), atol=1e-5)


def test_images_go_through_single_units_first_and_then_through_pairs():
    found = units(FEATURE_VIS[0].drawing(0, [0, 7, 2047, 2048, 5000]))
    assert found[:3] == [[0], [7], [2047]]
    assert all(len(pair) == 2 and max(pair) < 2048 for pair in found[3:])
    assert found[3] != found[4]
