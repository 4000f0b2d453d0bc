from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from audiopg.data_scripts.patterns.measures import (
    bits_per_pixel,
    blank_share,
    flat_share,
    measures,
    png,
    to_bytes,
    total_variation,
)


def test_total_variation_is_the_sum_of_steps_over_the_number_of_values():
    image = torch.zeros(3, 2, 3)
    image[0] = torch.tensor([[0.0, 0.5, 0.5], [0.2, 0.5, 1.0]])
    # Right: 0.5 + 0 + 0.3 + 0.5; down: 0.2 + 0 + 0.5; over 3 x 2 x 3 values.
    assert total_variation(image[None]).tolist() == pytest.approx([2.0 / 18])


def test_total_variation_of_white_noise_is_two_thirds():
    images = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    assert total_variation(images).tolist() == pytest.approx([0.666, 0.666], abs=0.004)


def test_a_patch_is_blank_if_all_its_values_are_the_same_and_flat_if_it_has_one_colour():
    images = torch.zeros(2, 3, 32, 48)
    images[0, :, :16, :16] = 0.5  # blank, like the black ones
    images[0, 1, 16:, 16:32] = 0.7  # one colour, not grey: flat, not blank
    images[0, 2, 20, 40] = 1.0  # a pixel: neither
    assert blank_share(images).tolist() == pytest.approx([4 / 6, 1])
    assert flat_share(images).tolist() == pytest.approx([5 / 6, 1])


def test_what_does_not_fill_a_patch_is_not_seen():
    image = torch.zeros(1, 3, 40, 40)
    image[..., 32:] = torch.rand(40, 8)
    assert blank_share(image).tolist() == [1]


def test_a_png_gives_back_the_image_to_half_a_step():
    image = torch.rand(1, 3, 20, 30, generator=torch.Generator().manual_seed(0))
    back = np.asarray(Image.open(BytesIO(png(to_bytes(image)[0]))))
    np.testing.assert_allclose(back / 255, image[0].permute(1, 2, 0).numpy(), atol=0.5001 / 255)


def test_bits_per_pixel_are_the_size_of_the_file_over_its_pixels():
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    content = BytesIO()
    Image.fromarray((image[0].permute(1, 2, 0) * 255).round().byte().numpy()).save(content, "PNG")
    assert bits_per_pixel(image).tolist() == [8 * len(content.getvalue()) / 64**2]
    assert bits_per_pixel(image) > 24 > 1 > bits_per_pixel(torch.ones(1, 3, 64, 64))


def test_all_measures_are_by_name_and_per_image():
    found = measures(torch.rand(3, 3, 32, 32))
    assert {values.shape for values in found.values()} == {(3,)}
    assert torch.equal(found["blank_share"], torch.zeros(3))
