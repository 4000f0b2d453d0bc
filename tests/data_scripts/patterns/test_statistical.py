import numpy as np
import pytest
import torch
from scipy import stats

from audiopg.data_scripts.patterns import PATTERNS, get_patterns
from audiopg.data_scripts.patterns.statistical import (
    _peaked_quantiles,
    _pyramid,
    _reference_colours,
    _resized,
    decorrelated,
    match_histogram,
)


def total_variation(images):
    pixels = images.shape[1] * images.shape[2] * images.shape[3]
    return (images.diff(dim=3).abs().sum((1, 2, 3)) + images.diff(dim=2).abs().sum((1, 2, 3))) / pixels


@pytest.mark.parametrize("size", [64, 224])
def test_amplitudes_fall_with_the_slopes_asked_for(size):
    patterns = PATTERNS["spectrum"]
    drawing = patterns.drawing(seed=0, indices=range(6), size=size)
    slope = drawing.sample("slope")
    difference = 0.05 * drawing.normal("slope_difference")
    for index, image in enumerate(patterns.make(drawing)):
        power = (np.abs(np.fft.fft2(image.double().numpy())) ** 2).sum(0)
        frequency = np.log(np.arange(1, size // 2) / size)
        for line, expected in (
            (power[0], slope[index] + difference[index]),
            (power[:, 0], slope[index] - difference[index]),
        ):
            found = stats.linregress(frequency, np.log(line[1 : size // 2]) / 2)
            assert -found.slope == pytest.approx(float(expected), abs=0.02)
            assert found.rvalue**2 > 0.995


@pytest.mark.parametrize("slope", [1.0, 2.5])
def test_amplitudes_are_the_reciprocal_of_the_sum_of_both_axes(slope):
    image = get_patterns("spectrum", slope=slope, slope_difference=0).images(0, [5], 64)[0].double().numpy()
    amplitude = np.sqrt((np.abs(np.fft.fft2(image)) ** 2).sum(0))
    frequency = np.abs(np.fft.fftfreq(64))
    expected = 1 / (frequency[:, None] ** slope + frequency**slope + 1e-300)
    inner = (slice(1, 32), slice(1, 32))
    ratio = amplitude[inner] / expected[inner]
    assert ratio.std() / ratio.mean() < 0.01


@pytest.mark.parametrize(
    ("slope", "expected"), [(0.5, 0.242), (1.0, 0.124), (1.5, 0.036), (2.0, 0.013), (2.5, 0.009), (3.5, 0.008)]
)
def test_total_variation_falls_with_the_slope_as_measured_elsewhere(slope, expected):
    variation = total_variation(get_patterns("spectrum", slope=slope).images(1, range(12)))
    assert variation.mean() == pytest.approx(expected, rel=0.35, abs=0.002)


def test_total_variation_over_all_slopes_is_within_the_spread_measured_elsewhere():
    assert total_variation(PATTERNS["spectrum"].images(2, range(48))).mean() == pytest.approx(0.052, abs=0.03)


@pytest.mark.parametrize("target", ["gamma", "bimodal", "few values"])
def test_a_histogram_is_matched_to_the_distribution_asked_for(target):
    generator = np.random.default_rng(0)
    samples = {
        "gamma": generator.gamma(0.5, size=4096) - 0.5,
        "bimodal": np.concatenate([generator.normal(-1, 0.05, 3000), generator.normal(1, 0.3, 1096)]),
        "few values": np.repeat([-0.6, 0.1, 0.5], [1000, 2000, 1096]) + generator.uniform(-0.02, 0.02, 4096),
    }[target]
    ordered = torch.tensor(np.sort(samples))[None]
    values = torch.tensor(generator.standard_t(2, size=(1, 50176)), dtype=torch.float32)

    def quantiles(probability):
        return torch.from_numpy(np.interp(probability.numpy(), np.linspace(0, 1, 4096), ordered[0].numpy()))

    matched = match_histogram(values, quantiles)
    assert stats.ks_2samp(matched[0].numpy(), samples, method="asymp").statistic < 0.02
    order = values[0].argsort()
    assert (matched[0][order].diff() >= -1e-6).all()  # nothing changes places


@pytest.mark.parametrize("exponent", [0.4, 0.8])
@pytest.mark.parametrize("scale", [4.0, 16.0, 65536.0])
def test_quantiles_of_peaked_densities_are_those_of_numerical_integration(scale, exponent):
    quantiles = _peaked_quantiles(scale, torch.tensor([exponent]).double(), 200.0)
    x = np.linspace(-200, 200, 400001)
    cumulative = np.cumsum(np.exp(-((np.abs(x) / scale) ** exponent)))
    probability = np.linspace(0.001, 0.999, 201)
    expected = np.interp(probability, cumulative / cumulative[-1], x)
    found = quantiles(torch.from_numpy(probability)[None])[0].numpy()
    reached = np.interp(found, x, cumulative / cumulative[-1])
    assert np.abs(reached - probability).max() < 0.02
    assert np.abs(found - expected)[[0, 20, 180, 200]].max() < 1.0


@pytest.mark.parametrize("name", ["spectrum_colour", "spectrum_colour_wmm"])
@pytest.mark.parametrize("size", [64, 224])
def test_colours_have_the_histograms_of_their_reference(name, size):
    drawing = PATTERNS[name].drawing(seed=0, indices=range(2), size=size)
    channels, mean, axes = decorrelated(drawing, spectrum=True, marginals=name.endswith("wmm"), colour=True)
    wanted = axes.mT.double() @ (_reference_colours(drawing) - mean)
    for found, target in zip(channels.flatten(0, 1).flatten(1), wanted.flatten(0, 1), strict=True):
        assert stats.ks_2samp(found.numpy(), target.numpy(), method="asymp").statistic < 0.02


def test_the_axes_are_those_of_the_principal_components():
    drawing = PATTERNS["spectrum"].drawing(seed=0, indices=range(5), size=32)
    colours = _reference_colours(drawing).numpy()
    _, mean, axes = decorrelated(drawing, spectrum=True)
    for number, samples in enumerate(colours):
        np.testing.assert_allclose(mean[number, :, 0].numpy(), samples.mean(1), atol=1e-6)
        variance = axes[number].double().numpy().T @ np.cov(samples) @ axes[number].double().numpy()
        np.testing.assert_allclose(variance, np.diag(np.diag(variance)), atol=1e-6)
        assert (np.diff(np.diag(variance)) >= 0).all()


@pytest.mark.parametrize("size", [32, 51, 224])
def test_the_pyramid_gives_back_what_it_is_made_of(size):
    image = torch.rand(1, size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    spectrum = torch.fft.rfft2(image)
    high, levels, low_squared = _pyramid(size, "cpu")
    total = spectrum * (low_squared + high.double() ** 2)
    for side, masks in levels:
        bands = torch.fft.irfft2(_resized(spectrum, side)[:, None] * (-1j * masks), s=(side, side))
        assert bands.dtype == torch.float64
        total += _resized((torch.fft.rfft2(bands) * (1j * masks)).sum(1), size)
    back = torch.fft.irfft2(total, s=(size, size))
    if size % 2:
        torch.testing.assert_close(back, image, rtol=0, atol=1e-5)
    else:  # on the edge of the spectrum the odd masks see nothing of an image that is its own mirror image there
        inner = torch.fft.rfft2(back - image)[:, :, :-1].abs()
        inner[:, size // 2] = 0
        assert inner.max() < 1e-3


def kurtosis_of_fine_detail(images):
    """Beyond that of a normal distribution, of what lies above 0.35 cycles per pixel."""
    fine = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.fftfreq(128)) > 0.35
    detail = np.fft.ifft2(np.fft.fft2(images.double().numpy()) * fine).real
    return stats.kurtosis(detail.reshape(len(images) * 3, -1), axis=1).mean()


def test_wavelet_histograms_are_peaked_where_they_are_imposed():
    assert kurtosis_of_fine_detail(PATTERNS["wmm"].images(0, range(4), 128)) > 1
    assert abs(kurtosis_of_fine_detail(get_patterns("spectrum", slope=1.0).images(0, range(4), 128))) < 0.3
