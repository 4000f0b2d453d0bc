import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from scipy import stats

from audiopg.data_scripts.counter_random import random_bits
from audiopg.data_scripts.patterns.atoms import (
    RCDB,
    VISUALATOM,
    atom_lines,
    exponential_vertices,
    first_that_differs,
    painted,
    perlin_values,
    polylines,
)
from audiopg.data_scripts.patterns.catalogue import class_constants

SETS = {"visualatom": VISUALATOM, "rcdb": RCDB}


@pytest.mark.parametrize("name", SETS)
def test_an_image_is_the_same_in_any_batch_and_seed_and_index_change_it(name):
    indices = [5, 0, 2**40, 11, 3]
    together = SETS[name].images(1, indices, size=96)
    assert together.dtype == torch.float32
    assert together.shape == (5, 3, 96, 96)
    assert 0 <= together.min() < together.max() <= 1
    for row in (1, 2, 4):
        assert torch.equal(SETS[name].images(1, indices[row : row + 1], size=96)[0], together[row])
    assert not torch.equal(SETS[name].images(2, [5], size=96)[0], together[0])
    assert len({image.numpy().tobytes() for image in together}) == 5


def test_labels_are_counted_and_do_not_depend_on_the_batch():
    labels = VISUALATOM.labels(VISUALATOM.drawing(0, torch.arange(20_000)))
    assert torch.bincount(labels, minlength=VISUALATOM.num_classes).min() > 0
    assert labels.max() == VISUALATOM.num_classes - 1
    assert torch.equal(VISUALATOM.labels(VISUALATOM.drawing(0, [77])), labels[77:78])


def test_vertices_move_outward_as_a_plain_loop_moves_them():
    """The formula of the published code, vertex by vertex, in float64."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(6, 2, 9, generator=generator) - 0.5
    cx, cy, r0, ox, oy, drift, n1, n2, w = 30.0, 20.0, 12.0, 1.3, 1.9, 2.5, 3, 5, 0.07
    given = (torch.tensor(v, dtype=torch.float64) for v in ([cx, cy], r0, [ox, oy], drift, [n1, n2], w))
    found = polylines(*given, noise)
    for v in range(9):
        theta = 2 * math.pi * v / 9
        x, y = cx + r0 * ox * math.cos(theta), cy + r0 * oy * math.sin(theta)
        for line in range(6):
            ripple = 0.5 * math.sin(n1 * theta) + 0.5 * math.sin(n2 * theta)
            x -= math.cos(theta) * (drift * (float(noise[line, 0, v]) - 1) - ripple - w)
            y -= math.sin(theta) * (drift * (float(noise[line, 1, v]) - 1) - ripple - w)
            assert found[line, :, v].tolist() == pytest.approx([x, y], abs=1e-4)


def test_pixels_are_those_of_pillow():
    """Atoms drawn by another library, polyline by polyline."""
    for lines in atom_lines(VISUALATOM.drawing(3, range(6))):
        image = Image.new("I", (512, 512))
        draw = ImageDraw.Draw(image)
        for number, (x, y) in enumerate(lines.tolist(), start=1):
            corners = list(zip(x, y, strict=True))
            draw.line([*corners, corners[0]], fill=number)
        expected, found = np.array(image), painted(lines, 512).numpy()
        assert (expected > 0).sum() > 100
        assert (expected != found).sum() == 0


def test_later_lines_cover_earlier_ones_and_lines_beyond_the_edges_nothing():
    square = torch.tensor([[2.0, 12.0, 12.0, 2.0], [2.0, 2.0, 12.0, 12.0]])
    flat = torch.tensor([[-90.0, 90.0, 90.0, -90.0], [7.0, 7.0, 7.0, 7.0]])
    far = square + 500
    which = painted(torch.stack([square, flat, far]), 16)
    assert (which[7] == 2).all()
    assert (which[2, 2:13] == 1).all()
    assert which.unique().tolist() == [0, 1, 2]
    assert (which > 0).sum() == 40 + 16 - 2


def test_noise_has_the_distribution_of_perlin_noise_at_random_places():
    rng = np.random.default_rng(0)
    fraction = rng.random(200_000)
    left, right = (np.where(rng.random(200_000) < 0.5, -1, rng.integers(1, 9, 200_000)) for _ in range(2))
    fade = 6 * fraction**5 - 15 * fraction**4 + 10 * fraction**3
    expected = 0.4 * ((1 - fade) * left * fraction + fade * right * (fraction - 1))
    found = perlin_values(random_bits(0, torch.arange(1), "p"), 200_000)[0].double().numpy()
    assert stats.ks_2samp(found, expected).pvalue > 0.01
    assert found.std() == pytest.approx(0.319, abs=0.003)
    assert np.quantile(found, [0.01, 0.05, 0.95, 0.99]) == pytest.approx([-0.83, -0.58, 0.58, 0.84], abs=0.02)


def test_the_second_number_of_waves_differs_from_the_first_and_else_is_uniform():
    classes = torch.arange(50_000)
    first = class_constants(VISUALATOM.ranges, classes, "waves")
    second = first_that_differs(class_constants(VISUALATOM.ranges, classes, "other_waves", 8), first)
    assert (second[first == 0] == 0).any()
    assert (second != first)[first != 0].all()
    counts = torch.bincount(second[first == 7], minlength=21)
    assert counts[7] == 0
    assert stats.chisquare(counts[counts > 0].numpy()).pvalue > 0.01


def test_vertices_of_contours_are_exponential_within_their_limits():
    vertices = exponential_vertices(RCDB.ranges, torch.arange(50_000)).double().numpy()
    assert (vertices.min(), vertices.max()) == (3, 200)
    law = stats.truncexpon(b=(201 - 3) / 100, loc=3, scale=100)
    edges = np.arange(3, 202, 9)
    counts = np.histogram(vertices, edges)[0]
    expected = np.diff(law.cdf(edges)) * len(vertices)
    assert stats.chisquare(counts, expected * counts.sum() / expected.sum()).pvalue > 0.01


def test_total_variation_and_blank_patches_lie_where_the_published_rendering_has_them():
    images = VISUALATOM.images(0, range(48))[:, :1]
    variation = images.diff(dim=-1).abs().mean() + images.diff(dim=-2).abs().mean()
    assert variation.item() == pytest.approx(0.11, abs=0.03)
    patches = images.unfold(2, 16, 16).unfold(3, 16, 16).flatten(-2)
    assert (patches.amax(-1) == patches.amin(-1)).float().mean().item() == pytest.approx(0.48, abs=0.08)


def test_images_of_one_class_differ_by_their_centre_and_grays_alone():
    same = replace(
        VISUALATOM, ranges={**VISUALATOM.ranges, "class": replace(VISUALATOM.ranges["class"], low=7, high=7)}
    )
    lines = list(atom_lines(same.drawing(0, range(3))))
    assert len({tuple(line.shape) for line in lines}) == 1
    spread = [(line[0].amax(-1) - line[0].amin(-1)).tolist() for line in lines]
    assert spread[0] == pytest.approx(spread[1], abs=2 * 4 * 2)
    assert (lines[0].mean((0, 2)) - lines[1].mean((0, 2))).abs().max() > 1
