import math

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from audiopg.data_scripts.patterns import get_patterns
from audiopg.data_scripts.patterns.catalogue import class_constants
from audiopg.data_scripts.patterns.shaders import FIELDS, ROUNDS, SHADERS, palette, tiled, turned

SIZE = 48


def bare(field):
    """Programs of one field and nothing else, looked at straight on."""
    return get_patterns(
        SHADERS, num_rounds=0, field=[field], second_weight=0, tilt=0, pan_x=0, pan_y=0, zoom=1, **{"class": 5}
    )


def plane():
    middle = (np.arange(SIZE) + 0.5) / SIZE * 2 - 1
    return np.meshgrid(middle, -middle)


def constant(patterns, name, *size):
    """Of program 5 and its first field."""
    return class_constants(patterns.ranges, torch.tensor([5]), name, *size)[0].numpy()


def coloured(patterns, value):
    a, b, f, d = (constant(patterns, name, 3)[:, None, None] for name in ("centre", "reach", "periods", "shift"))
    return np.clip(a + b * np.cos(2 * np.pi * (f * value + d)), 0, 1)


def points(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator) for _ in range(2))


def constants(**values):
    return {name: torch.as_tensor(value, dtype=torch.float32).view(1, -1, 1, 1) for name, value in values.items()}


def scalars(**values):
    return {name: torch.full((1, 1, 1), float(value)) for name, value in values.items()}


def test_an_image_is_the_same_in_any_batch_and_seed_and_index_change_it():
    indices = [5, 0, 2**40, *range(100, 120), 3]
    together = SHADERS.images(1, indices, size=SIZE)
    assert together.dtype == torch.float32
    assert together.shape == (24, 3, SIZE, SIZE)
    assert 0 <= together.min() < together.max() <= 1
    for row in range(24):
        assert torch.equal(SHADERS.images(1, indices[row : row + 1], size=SIZE)[0], together[row])
    assert not torch.equal(SHADERS.images(2, [5], size=SIZE)[0], together[0])
    assert len({image.numpy().tobytes() for image in together}) == 24


def test_labels_are_the_programs():
    labels = SHADERS.classes(0, torch.arange(20_000))
    assert torch.bincount(labels, minlength=1000).min() > 0
    assert labels.max() == SHADERS.num_classes - 1


def test_a_program_differs_by_its_time_alone_and_moves_smoothly():
    def at(time):
        return get_patterns(SHADERS, time=time, **{"class": 3}).images(0, [0, 1], size=SIZE)

    still, next_moment, later = at(2.0), at(2.01), at(6.0)
    assert torch.equal(still[0], still[1])
    assert 0 < (still - next_moment).abs().mean() < 0.25 * (still - later).abs().mean()


def test_a_zone_plate_is_its_closed_form():
    patterns = bare("zone plate")
    x, y = plane()
    x, y = x - 0.5 * constant(patterns, "site_x", 2, 1)[0, 0], y - 0.5 * constant(patterns, "site_y", 2, 1)[0, 0]
    time = float(patterns.drawing(0, [9]).sample("time"))
    expected = coloured(patterns, 0.7 * np.cos(constant(patterns, "waves", 2)[0] * (x * x + y * y) - time))
    np.testing.assert_allclose(patterns.images(0, [9], size=SIZE)[0], expected, atol=2e-5)


def test_plane_waves_are_their_closed_form():
    patterns = bare("plane waves")
    x, y = plane()
    kx, ky, w = (constant(patterns, name, 2, 4)[0] for name in ("wave_x", "wave_y", "speed"))
    time, phase = float(patterns.drawing(0, [9]).sample("time")), constant(patterns, "phase", 2)[0]
    value = 0.5 * sum(np.sin(kx[j] * x + ky[j] * y + w[j] * time + phase) for j in range(4))
    np.testing.assert_allclose(patterns.images(0, [9], size=SIZE)[0], coloured(patterns, value), atol=2e-5)


def test_cells_are_distances_to_the_nearest_site_of_a_tree():
    x, y = points(1, 7, 7)
    site_x, site_y = points(10, seed=1)
    given = constants(site_x=site_x, site_y=site_y, speed=torch.zeros(10)) | scalars(time=3)
    tree = cKDTree(np.stack([site_x.numpy() + 0.2, site_y.numpy()], -1))
    expected = 2 * tree.query(torch.stack([x, y], -1)[0].numpy())[0]
    np.testing.assert_allclose(FIELDS["cell distance"](x, y, given)[0], expected, rtol=1e-4, atol=1e-5)


def test_the_julia_field_is_that_of_complex_numbers():
    x, y = (0.5 * axis for axis in points(1, 6, 6))
    z = x[0].numpy().astype(complex) + 1j * y[0].numpy()
    c = 0.7885 * np.exp(1j * (0.4 + 0.1 * 2.0))
    expected = np.zeros(z.shape)
    for _ in range(16):
        z = z * z + c
        z = np.clip(z.real, -3, 3) + 1j * np.clip(z.imag, -3, 3)
        expected += np.exp(-np.abs(z)) / 8
    np.testing.assert_allclose(FIELDS["julia"](x, y, scalars(phase=0.4, time=2))[0], expected, atol=1e-3)


def test_bands_are_waves_of_the_distance_to_a_box():
    given = scalars(box_x=0.5, box_y=0.25, waves=1, time=0)
    x, y = torch.tensor([[[0.0, 0.9, 0.8, 0.5]]]), torch.tensor([[[0.0, 0.0, 0.65, 0.1]]])
    distance = np.array([-0.25, 0.4, 0.5, 0.0])
    np.testing.assert_allclose(FIELDS["bands"](x, y, given)[0, 0], 0.7 * np.sin(distance), atol=1e-6)


def test_a_palette_is_the_cosine_of_its_constants():
    value = torch.linspace(-2, 2, 50).view(1, 5, 10)
    a, b, f, d = torch.rand(4, 3, generator=torch.Generator().manual_seed(0)).double().numpy()
    found = palette(value, *(torch.tensor(v, dtype=torch.float32).view(1, 3, 1, 1) for v in (a, b, f, d)))[0]
    for channel in range(3):
        wave = a[channel] + b[channel] * np.cos(2 * np.pi * (f[channel] * value[0].numpy() + d[channel]))
        np.testing.assert_allclose(found[channel], wave.clip(0, 1), atol=1e-5)


def test_tiles_are_the_identity_inside_and_mirrors_outside():
    values = torch.tensor([-0.9, 0.0, 0.7, 1.3, 1.9, 2.5, 3.5, -1.4])
    side = torch.tensor(1.0)
    assert tiled(values, side).tolist() == pytest.approx([-0.9, 0.0, 0.7, 0.7, 0.1, -0.5, -0.5, -0.6], abs=1e-6)


def test_turns_are_those_of_complex_numbers():
    x, y = points(1, 4, 4)
    turned_x, turned_y = turned(x, y, torch.tensor(0.7))
    expected = torch.complex(x, y) * complex(math.cos(0.7), math.sin(0.7))
    torch.testing.assert_close(torch.complex(turned_x, turned_y), expected)


def test_sectors_make_a_picture_that_a_turn_by_one_sector_does_not_change():
    x, y = points(1, 20, 20)
    given = scalars(sectors=5, turn_speed=0.3, time=2)
    there = ROUNDS["sectors"](*turned(x, y, torch.tensor(2 * math.pi / 5)), given)
    here = ROUNDS["sectors"](x, y, given)
    torch.testing.assert_close(torch.stack(there), torch.stack(here), atol=1e-5, rtol=1e-5)


def test_a_fold_is_the_inversion_of_absolute_values():
    x, y = (axis + 1.0 for axis in points(1, 5, 5))
    square = (x * x + y * y).clamp(min=0.04)
    found_x, found_y = ROUNDS["fold"](x, y, scalars(time=4, phase=0.2))
    centre = 0.9 + 0.4 * math.cos(0.2 * 4 + 0.2)
    torch.testing.assert_close(found_x, x.abs() / square - centre)
    torch.testing.assert_close(found_y, y.abs() / square - centre)


@pytest.mark.parametrize("name", ROUNDS)
def test_every_round_moves_points_and_keeps_them_finite(name):
    x, y = points(1, 9, 9)
    x[0, 0, 0] = y[0, 0, 0] = 0
    given = {
        n: torch.full((1, 1, 1), float(SHADERS.ranges[n].high)) for n in SHADERS.ranges if n not in ("round", "field")
    }
    before = x.clone()
    found = torch.stack(ROUNDS[name](x, y, given))
    assert found.isfinite().all()
    assert torch.equal(x, before)
    assert (found - torch.stack([x, y])).abs().max() > 0.05


def test_images_are_smooth_and_not_blank():
    images = SHADERS.images(0, range(128), size=224)
    variation = images.diff(dim=-1).abs().mean((1, 2, 3)) + images.diff(dim=-2).abs().mean((1, 2, 3))
    assert 0.05 < variation.mean().item() < 0.15
    patches = images.unfold(2, 16, 16).unfold(3, 16, 16).flatten(-2)
    blank = (patches.amax(-1) == patches.amin(-1)).all(1)
    assert blank.float().mean() < 0.01
    assert images.std((2, 3)).mean(1).min() > 0.005


def test_programs_use_every_round_and_every_field():
    classes = torch.arange(1000)
    for name, kinds in (("round", ROUNDS), ("field", FIELDS)):
        counts = torch.bincount(class_constants(SHADERS.ranges, classes, name), minlength=len(kinds))
        assert counts.min() > 60
        assert len(counts) == len(kinds)
