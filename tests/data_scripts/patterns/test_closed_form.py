import math

import numpy as np
import pytest
import torch
from scipy import stats

from audiopg.data_scripts.patterns import PATTERNS, get_patterns
from audiopg.data_scripts.patterns.closed_form import WAVES, gradient_noise


def fixed(**numbers):
    """A wave of known numbers, the same in each channel."""
    return get_patterns("zone_plates", colour_phase=0.25, contrast=1.0, angle=0.0, **numbers).images(7, [3], 96)[0]


def test_a_plane_wave_is_its_formula():
    image = fixed(wave=["plane wave"], frequency=0.05, centre_x=0.25, centre_y=0.5)
    x = np.arange(96) + 0.5 - 24
    expected = 0.5 + 0.5 * np.cos(2 * np.pi * (0.05 * x + 0.25))
    np.testing.assert_allclose(image.numpy(), np.broadcast_to(expected, (3, 96, 96)), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("wave", "ratio"), [("circular", 1.0), ("elliptic", 0.5), ("hyperbolic", -0.5)])
def test_a_zone_plate_is_its_formula(wave, ratio):
    image = fixed(wave=[wave], frequency=0.2, reach=1.0, centre_x=0.5, centre_y=0.25, share=0.5)
    y, x = np.mgrid[:96, :96] + 0.5
    phase = 0.2 / 96 / 2 * ((x - 48) ** 2 + ratio * (y - 24) ** 2)
    expected = 0.5 + 0.5 * np.cos(2 * np.pi * (phase + 0.25))
    np.testing.assert_allclose(image[1].numpy(), expected, rtol=0, atol=2e-5)


def test_a_wave_turns_by_its_angle():
    image = get_patterns("zone_plates", wave=["plane wave"], angle=0.25, contrast=1.0).images(0, [0], 64)[0]
    assert image.diff(dim=2).abs().max() < 1e-3  # it runs down
    assert image.diff(dim=1).abs().max() > 0.05


def test_classes_of_zone_plates_are_their_waves():
    for number, wave in enumerate(WAVES):
        patterns = get_patterns("zone_plates", wave=[wave])
        assert patterns.classes(0, range(5)).tolist() == [number] * 5
    patterns = PATTERNS["zone_plates"]
    several = patterns.images(0, range(20), 64)
    for index, number in enumerate(patterns.classes(0, range(20)).tolist()):
        alone = get_patterns("zone_plates", wave=[WAVES[number]]).images(0, [index], 64)[0]
        torch.testing.assert_close(several[index], alone, rtol=0, atol=0)


def perlin_at(y, x, gradients):
    """Perlin's noise at one place, corner by corner."""
    fade = [t**3 * (t * (t * 6 - 15) + 10) for t in (y % 1, x % 1)]
    total = 0.0
    for down in (0, 1):
        for right in (0, 1):
            i, j = math.floor(y) + down, math.floor(x) + right
            dot = gradients[0, i, j] * (y - i) + gradients[1, i, j] * (x - j)
            total += dot * abs(1 - down - fade[0]) * abs(1 - right - fade[1])
    return total


def test_gradient_noise_is_interpolation_between_the_corners_of_a_cell():
    generator = torch.Generator().manual_seed(0)
    gradients = torch.randn(2, 2, 3, 6, 7, generator=generator)
    y, x = (torch.rand(2, 1, 9, generator=generator) * end for end in (4.99, 5.99))
    found = gradient_noise(y, x, gradients)
    for image, channel, row, column in ((0, 0, 0, 0), (0, 2, 4, 8), (1, 1, 7, 3), (1, 2, 8, 5)):
        place = float(y[image, 0, row]), float(x[image, 0, column])
        expected = perlin_at(*place, gradients[:, image, channel].double().numpy())
        assert float(found[image, channel, row, column]) == pytest.approx(expected, abs=1e-5)


def test_more_octaves_are_rougher_and_cells_have_the_size_asked_for():
    step = [
        float(get_patterns("fbm", octaves=octaves, cells=3).images(0, range(8), 128).diff(dim=3).abs().mean())
        for octaves in (1, 3, 5)
    ]
    assert step[0] < step[1] < step[2]
    # At the points of the lattice the noise is 0: between n cells it changes sign about n times.
    image = get_patterns("perlin", cells=8).images(0, range(16), 128)
    spectrum = np.abs(np.fft.rfft(image.double().numpy() - 0.5, axis=3)).mean((0, 1, 2))
    assert 3 <= spectrum.argmax() <= 8


def test_the_total_variation_of_fbm_is_that_measured_elsewhere():
    images = PATTERNS["fbm"].images(0, range(24))
    variation = (images.diff(dim=3).abs().sum((1, 2, 3)) + images.diff(dim=2).abs().sum((1, 2, 3))) / (3 * 224 * 224)
    assert variation.mean() == pytest.approx(0.027, abs=0.010)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0, 3.0])
def test_power_laws_have_their_exponent_in_every_direction(exponent):
    image = get_patterns("power_law", exponent=exponent).images(0, [1], 96)[0].double().numpy()
    amplitude = np.abs(np.fft.fft2(image))[:, 1:48, 1:48]
    radius = np.hypot(*np.meshgrid(np.arange(1, 48), np.arange(1, 48)))
    for channel in amplitude:
        found = stats.linregress(np.log(radius).ravel(), np.log(channel).ravel())
        assert -found.slope == pytest.approx(exponent, abs=0.02)
        assert found.rvalue**2 > 0.99
