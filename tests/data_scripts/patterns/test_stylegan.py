import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn.functional import conv2d, conv_transpose2d

from audiopg.data_scripts.patterns import get_patterns, stylegan
from audiopg.data_scripts.patterns.stylegan import (
    STYLEGAN,
    doubled,
    kernel_bank,
    modulated,
    pink_noise,
    with_statistics,
)

SETS = {
    patterns.name: get_patterns(patterns, channel_budget=1024, most_channels=16, styles=32, images_per_network=4)
    for patterns in STYLEGAN
}


@pytest.mark.parametrize("name", SETS)
def test_an_image_is_the_same_in_any_batch_and_seed_and_index_change_it(name):
    indices = [5, 0, 2**40, 3, 6, 9]
    together = SETS[name].images(1, indices, size=32)
    assert together.dtype == torch.float32
    assert together.shape == (6, 3, 32, 32)
    assert 0 <= together.min() < together.max() <= 1
    for row in range(6):
        assert torch.equal(SETS[name].images(1, indices[row : row + 1], size=32)[0], together[row])
    assert not torch.equal(SETS[name].images(2, [5], size=32)[0], together[0])
    assert len({image.numpy().tobytes() for image in together}) == 6


def test_the_largest_number_below_one_still_chooses_a_kernel(monkeypatch):
    largest = 1 - 2**-53

    def uniform(seed, index, name, size=()):
        return torch.full((1, *size), largest, dtype=torch.float64)

    monkeypatch.setattr(stylegan, "uniform", uniform)
    stylegan._network.cache_clear()
    image = SETS["stylegan_sparse"].images(0, [0], size=32)
    stylegan._network.cache_clear()
    assert image.isfinite().all()


def test_a_network_and_the_image_of_its_number_share_no_random_numbers(monkeypatch):
    drawn, real = [], stylegan.normal

    def normal(seed, index, name, size=()):
        drawn.append((name, int(index)))
        return real(seed, index, name, size)

    monkeypatch.setattr(stylegan, "normal", normal)
    stylegan._network.cache_clear()
    SETS["stylegan_sparse"].images(0, [0], size=32)
    assert len(drawn) == len(set(drawn)) > 20


def test_sets_are_the_four_of_the_paper_at_their_size():
    assert list(SETS) == ["stylegan_random", "stylegan_high_freq", "stylegan_sparse", "stylegan_oriented"]
    assert all(patterns.ranges["channel_budget"].low == 32768 for patterns in STYLEGAN)
    assert all(patterns.ranges["images_per_network"].low == 400 for patterns in STYLEGAN)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("demodulate", [False, True])
def test_a_modulated_convolution_is_a_plain_one_with_weights_of_its_own(kernel, demodulate):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 5, 9, 9, generator=generator)
    weight = torch.randn(4, 5, kernel, kernel, generator=generator)
    style = torch.randn(5, generator=generator)
    found = modulated(x, weight, style, demodulate)
    own = weight.double().numpy().copy()
    for o in range(4):
        own[o] *= style.double().numpy()[:, None, None]
        if demodulate:
            own[o] /= np.sqrt((own[o] ** 2).sum() + 1e-8)
    torch.testing.assert_close(found, conv2d(x.double(), torch.tensor(own), padding=kernel // 2).float())


def test_demodulated_activations_of_white_noise_have_unit_variance():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 16, 64, 64, generator=generator)
    found = modulated(x, torch.randn(8, 16, 3, 3, generator=generator), torch.ones(16))
    assert found[..., 1:-1, 1:-1].var().item() == pytest.approx(1, abs=0.05)


def test_doubling_is_the_filter_of_stylegan_after_zeros_away_from_the_edges():
    x = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 4
    expected = conv_transpose2d(x, torch.outer(taps, taps)[None, None], stride=2, padding=1)
    torch.testing.assert_close(doubled(x)[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1])


@pytest.mark.parametrize("name", ["signs", "waves"])
def test_banks_hold_forty_different_kernels_of_norm_one(name):
    bank = kernel_bank(name).double()
    assert bank.shape == (40, 3, 3)
    torch.testing.assert_close(bank.square().sum((1, 2)), torch.ones(40, dtype=torch.float64))
    assert len({tuple(kernel.flatten().round(decimals=4).add(0.0).tolist()) for kernel in bank}) >= 30
    negatives = -bank
    assert all((bank - kernel).abs().amax((1, 2)).min() < 1e-6 for kernel in negatives)
    if name == "waves":
        assert bank.mean((1, 2)).abs().max() < 1e-6
    else:
        levels = bank / bank.abs().amax((1, 2), keepdim=True)
        assert set(levels.round(decimals=5).unique().tolist()) <= {-1.0, 0.0, 1.0}


def test_noise_has_the_slope_that_is_asked_for():
    """By regression on the periodogram: power falls twice as fast as magnitude."""
    white = torch.randn(128, 128, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for exponent in (0.5, 1.0, 1.5):
        noise = pink_noise(white, torch.tensor(exponent, dtype=torch.float64)).numpy()
        assert noise.std() == pytest.approx(1, abs=1e-3)
        power = np.abs(np.fft.fft2(noise)) ** 2
        f = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.fftfreq(128))
        chosen = (f > 0.02) & (f < 0.5)
        slope = stats.linregress(np.log(f[chosen]), np.log(power[chosen])).slope
        assert slope == pytest.approx(-2 * exponent, abs=0.05)


def test_statistics_are_those_asked_for_where_nothing_is_cut():
    image = torch.randn(3, 40, 40, generator=torch.Generator().manual_seed(0)) * 7 + 3
    mean, deviation = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.05, 0.08, 0.06])
    found = with_statistics(image, mean, deviation)
    torch.testing.assert_close(found.mean((1, 2)), mean)
    torch.testing.assert_close(found.std((1, 2)), deviation, atol=1e-4, rtol=1e-3)


def test_means_over_images_are_those_of_photographs():
    images = get_patterns(SETS["stylegan_random"], images_per_network=400).images(0, range(150), size=32)
    assert images.mean((0, 2, 3)).tolist() == pytest.approx([0.483, 0.455, 0.401], abs=0.05)
    assert images.mean((2, 3)).std(0).tolist() == pytest.approx([0.145, 0.142, 0.162], abs=0.04)


def test_the_network_of_an_image_is_counted_by_images_per_network():
    """Image 5 is of network 1 by fours and by fives, and of network 2 by twos."""
    by_fours, by_fives, by_twos = (
        get_patterns(SETS["stylegan_sparse"], images_per_network=count).images(0, [5], size=32) for count in (4, 5, 2)
    )
    assert torch.equal(by_fours, by_fives)
    assert (by_fours - by_twos).abs().mean() > 0.02
