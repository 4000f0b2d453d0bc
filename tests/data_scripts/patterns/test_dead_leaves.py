import math

import numpy as np
import pytest
import torch

from audiopg.data_scripts.patterns import PATTERNS, dead_leaves, get_patterns
from audiopg.data_scripts.patterns.dead_leaves import SHAPES, _corners, _radii, visible_leaves

SETS = ("squares", "oriented", "mixed")


def painted(drawing, number):
    """The same leaves painted one over the other until no pixel is open, each as a polygon by its corners."""
    size = drawing.size
    places = (drawing.uniform("centre", number, 2) * size).floor()[0].numpy()
    radii = _radii(drawing, number)[0].numpy().astype(float)
    corners, is_circle = (values[0].numpy() for values in _corners(drawing, number))
    rows, columns = np.mgrid[:size, :size]
    image = np.full((size, size), -1)
    for leaf in range(number):
        x, y = columns - places[leaf, 0], rows - places[leaf, 1]
        inside = x**2 + y**2 <= radii[leaf] ** 2
        if not is_circle[leaf]:
            px, py = radii[leaf] * np.cos(corners[leaf]), radii[leaf] * np.sin(corners[leaf])
            for first, second in ((0, 1), (1, 2), (2, 3), (3, 0)):
                dx, dy = px[second] - px[first], py[second] - py[first]
                inside &= dx * (y - py[first]) - dy * (x - px[first]) >= -1e-4 * math.hypot(dx, dy)
        image[inside] = leaf
        if (image >= 0).all():
            return image
    raise AssertionError("not covered")


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("index", [0, 1, 2])
def test_the_visible_leaves_are_those_of_the_painter(name, index):
    drawing = PATTERNS[f"dead_leaves_{name}"].drawing(seed=1, indices=[index], size=80)
    ours, number = visible_leaves(drawing)
    theirs = painted(drawing, number)
    assert (ours[0].numpy() == theirs).mean() > 0.999  # a pixel on an edge is a matter of rounding
    assert ours.max() == theirs.max()


@pytest.mark.parametrize("name", SETS)
def test_every_pixel_of_every_image_shows_a_leaf_in_its_colour(name):
    patterns = PATTERNS[f"dead_leaves_{name}"]
    drawing = patterns.drawing(seed=2, indices=range(6), size=224)
    leaves, number = visible_leaves(drawing)
    assert leaves.min() >= 0
    assert leaves.max() < number
    colours, images = drawing.sample("colour", number, 3).float(), patterns.make(drawing)
    for image in range(6):
        np.testing.assert_array_equal(images[image].permute(1, 2, 0).numpy(), colours[image][leaves[image]].numpy())


def test_small_leaves_take_as_many_as_it_takes():
    drawing = get_patterns("dead_leaves_mixed", radius=(0.02, 0.05)).drawing(0, [0, 1], size=96)
    leaves, number = visible_leaves(drawing)
    assert number > 2048
    assert leaves.min() >= 0


def test_leaves_too_small_to_cover_an_image_are_refused(monkeypatch):
    monkeypatch.setattr(dead_leaves, "_MOST_LEAVES", 4096)
    patterns = get_patterns("dead_leaves_squares", radius=(0.002, 0.003))
    with pytest.raises(ValueError, match="4096 leaves leave a pixel open; enlarge radius"):
        patterns.images(0, [0], size=96)


def test_radii_have_the_density_asked_for():
    drawing = PATTERNS["dead_leaves_mixed"].drawing(0, range(8), size=10000)
    radii = np.sort((_radii(drawing, 5000).double() / 10000).flatten().numpy())
    # The integral of r^-3 - 1 from 0.03 on, over the one to 1; steps of 0.005 are coarse at the small end.
    for r in (0.1, 0.2, 0.5):
        expected = 1 - ((r**-2 - 1) / 2 - (1 - r)) / ((0.03**-2 - 1) / 2 - 0.97)
        assert np.searchsorted(radii, r) / len(radii) == pytest.approx(expected, abs=0.012)


def test_shapes_have_the_corners_of_their_kind():
    for shape in SHAPES:
        drawing = get_patterns("dead_leaves_mixed", shape=[shape]).drawing(0, range(4), size=64)
        corners, is_circle = _corners(drawing, 50)
        assert is_circle.all() == is_circle.any() == (shape == "circle")
        gaps = corners.diff(dim=-1)
        assert (gaps >= 0).all()
        if shape in ("square", "oriented square"):
            torch.testing.assert_close(gaps, torch.full_like(gaps, math.pi / 2))
        if shape == "rectangle":  # opposite corners
            torch.testing.assert_close(corners[..., 2] - corners[..., 0], torch.full((4, 50), math.pi).double())
        if shape == "triangle":
            assert (gaps[..., 2] == 0).all()


def test_leaves_with_textures_have_the_colours_of_their_images_where_these_are():
    patterns = get_patterns("dead_leaves_textures", textures=2)
    drawing = patterns.drawing(seed=4, indices=[0], size=64)
    image, (leaves, _) = patterns.make(drawing)[0], visible_leaves(drawing)
    plain = PATTERNS["spectrum_colour_wmm"].images(seed=4, indices=range(2), size=64).flatten(2).mT
    colours = {tuple(colour) for texture in plain.tolist() for colour in texture}
    assert all(tuple(colour) in colours for colour in image.flatten(1).mT.tolist())
    largest = leaves[0] == leaves[0].flatten().mode().values
    assert len(torch.unique(image[:, largest], dim=1).T) > 20  # no leaf is of one colour


@pytest.mark.parametrize(
    ("name", "expected", "spread"), [("squares", 0.041, 0.013), ("oriented", 0.045, 0.015), ("mixed", 0.036, 0.019)]
)
def test_total_variation_and_flat_patches_are_those_of_the_original(name, expected, spread):
    images = PATTERNS[f"dead_leaves_{name}"].images(seed=3, indices=range(24))
    variation = (images.diff(dim=3).abs().sum((1, 2, 3)) + images.diff(dim=2).abs().sum((1, 2, 3))) / (3 * 224 * 224)
    assert variation.mean() == pytest.approx(expected, abs=spread)
    patches = images.unfold(2, 16, 16).unfold(3, 16, 16)
    assert 0.1 < (patches.amax((-1, -2)) == patches.amin((-1, -2))).all(dim=1).float().mean() < 0.35
