from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import ndimage

from audiopg.data_scripts.patterns.fractals import (
    FRACTALDB,
    IFS,
    category,
    cells,
    contractive_maps,
    coverage,
    fractaldb_canvas,
    lyapunov_exponents,
    orbits,
    singular_values,
    stamped,
)
from audiopg.data_scripts.patterns.fractals import variations as varied

SETS = {"fractaldb": FRACTALDB, "ifs": IFS}
# Few classes, so that few are searched.
FEW = replace(FRACTALDB, ranges={**FRACTALDB.ranges, "class": replace(FRACTALDB.ranges["class"], high=3)})


def total_variation(images):
    return float(images.diff(dim=-1).abs().mean() + images.diff(dim=-2).abs().mean())


@pytest.mark.parametrize("patterns", [FEW, IFS], ids=["fractaldb", "ifs"])
def test_an_image_is_the_same_in_any_batch_and_seed_and_index_change_it(patterns):
    indices = [5, 0, 2**40, 11, 3, 8, 1, 2, 9, 4]
    together = patterns.images(1, indices, size=64)
    assert together.dtype == torch.float32
    assert together.shape == (10, 3, 64, 64)
    assert 0 <= together.min() < together.max() <= 1
    for row in (0, 2, 9):
        assert torch.equal(patterns.images(1, indices[row : row + 1], size=64)[0], together[row])
    assert not torch.equal(patterns.images(2, [5], size=64)[0], together[0])
    assert len({image.numpy().tobytes() for image in together}) == 10


@pytest.mark.parametrize("name", SETS)
def test_labels_reach_every_class_and_no_other(name):
    drawing = SETS[name].drawing(0, torch.arange(20_000))
    counts = torch.bincount(SETS[name].labels(drawing), minlength=SETS[name].num_classes)
    assert len(counts) == SETS[name].num_classes == 1000
    assert counts.min() > 0


def test_points_of_the_chaos_game_follow_one_of_the_maps():
    """Each next point of a sequence is the image of the one before under some map, computed in float64 by NumPy."""
    found = category(FRACTALDB.ranges, 0)
    x, y = orbits(found.systems[:1], found.cumulative[None], chains=7, steps=50, burn_in=3)
    points = torch.stack([x, y], -1).view(50, 7, 2).double().numpy()
    maps = found.systems[0].double().numpy()
    used = np.diff(found.cumulative.numpy(), prepend=0) > 0
    for before, after in pairwise(points):
        images = np.einsum("kij,cj->kci", maps[:, :4].reshape(-1, 2, 2), before) + maps[:, None, 4:]
        error = np.abs(images - after).max(-1)[used].min(0)
        assert error.max() < 1e-5 * max(1, np.abs(after).max())


def test_maps_are_picked_as_often_as_their_probabilities_say():
    """With constant maps a point tells which map it came from."""
    maps = torch.zeros(1, 3, 6)
    maps[0, :, 4] = torch.tensor([1.0, 2.0, 3.0])
    x, _ = orbits(maps, torch.tensor([[0.2, 0.9, 1.0]]), chains=400, steps=50, burn_in=0)
    shares = [(x == value).float().mean().item() for value in (1, 2, 3)]
    assert shares == pytest.approx([0.2, 0.7, 0.1], abs=0.02)


def test_the_exponent_of_similarities_is_the_mean_logarithm_of_their_scales():
    scales, probabilities = np.array([0.3, 0.8, 1.4]), np.array([0.5, 0.3, 0.2])
    angles = np.array([0.4, 2.0, -1.0])
    c, s = scales * np.cos(angles), scales * np.sin(angles)
    maps = torch.tensor(np.stack([c, -s, s, c, 0 * c, 0 * c], -1), dtype=torch.float32)[None]
    cumulative = torch.tensor(probabilities.cumsum(), dtype=torch.float32)[None]
    exponent = lyapunov_exponents(maps, cumulative, chains=500, steps=60, burn_in=5)
    assert exponent.item() == pytest.approx((probabilities * np.log(scales)).sum(), abs=0.01)


@pytest.mark.parametrize("number", range(4))
def test_an_accepted_category_covers_a_fifth_and_contracts_with_all_its_variations(number):
    found = category(FRACTALDB.ranges, number)
    one = found.systems[:1], found.cumulative[None]
    x, y = orbits(*one, chains=1000, steps=100, burn_in=20)
    xs, ys = x[0].double().numpy(), y[0].double().numpy()
    column = ((xs - xs.min()) / np.ptp(xs) * 500).astype(int)
    row = ((ys - ys.min()) / np.ptp(ys) * 500).astype(int)
    share = len(set(zip(column.tolist(), row.tolist(), strict=True))) / 512**2
    assert share == pytest.approx(coverage(*one, chains=1000, steps=100, burn_in=20, side=512).item(), abs=1e-4)
    assert share >= 0.2 - 1e-4
    assert (lyapunov_exponents(*one, chains=256, steps=40, burn_in=10) < 0).all()
    assert found.systems.abs().max() <= 1.8


def test_a_category_is_the_same_wherever_it_is_found():
    """The maps of class 0, committed: another catalogue would make other classes."""
    found = category(FRACTALDB.ranges, 0)
    assert found.candidate == 57
    expected = [0.355571, 0.1259906, 0.2175287, 0.1299871, -0.9941174, 0.0838023]
    assert found.systems[0, 0].tolist() == pytest.approx(expected, abs=1e-6)


def test_variations_change_one_coefficient_of_all_maps_by_one_factor():
    maps = torch.rand(3, 6) + 0.5
    ratios = varied(maps, (0.2, 0.6, 1.4, 1.8)) / maps
    assert ratios.shape == (25, 3, 6)
    expected = {(1.0,) * 6} | {
        tuple(factor if j == k else 1.0 for j in range(6)) for k in range(6) for factor in (0.2, 0.6, 1.4, 1.8)
    }
    found = {tuple(round(value, 4) for value in row) for variant in ratios.tolist() for row in variant}
    assert found == expected
    assert (ratios == ratios[:, :1]).float().mean() > 0.8


def test_stamps_are_painted_as_a_loop_paints_them():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(2, 300, generator=generator)[:, None].unbind()
    bits = torch.randint(1, 512, (1, 300), generator=generator)
    expected = np.zeros((40, 40))
    for cell, stamp in zip(cells(x, y, 40, 4)[0].tolist(), bits[0].tolist(), strict=True):
        row, column = divmod(cell, 40)
        expected[row - 1 : row + 2, column - 1 : column + 2] = [
            [stamp >> 3 * r + c & 1 for c in range(3)] for r in range(3)
        ]
    assert 0.2 < expected.mean() < 0.6
    np.testing.assert_array_equal(stamped(x, y, bits, 40, 4)[0, 0], expected)


def test_total_variation_lies_where_the_published_rendering_has_it():
    """Near 0.10 resized and 0.43 at the canvas's own scale inside the fractal, half of the pixels of which are set."""
    indices = range(12)
    assert 0.05 < total_variation(FEW.images(0, indices)) < 0.15
    canvas = fractaldb_canvas(FEW.drawing(0, indices))
    assert set(canvas.unique().tolist()) == {0.0, float(np.float32(127 / 255))}
    inside = torch.from_numpy(
        ndimage.minimum_filter(ndimage.maximum_filter(canvas.numpy(), (1, 1, 5, 5)), (1, 1, 9, 9))
    )
    steps = (canvas.diff(dim=-1).abs()[..., :-1, :] + canvas.diff(dim=-2).abs()[..., :-1])[inside[..., 1:, 1:] > 0]
    assert steps.mean().item() == pytest.approx(0.43, abs=0.08)


def test_singular_values_keep_their_order_and_their_sum():
    generator = torch.Generator().manual_seed(0)
    shares, splits = torch.rand(2, 500, 8, generator=generator, dtype=torch.float64)
    count = torch.randint(2, 9, (500,), generator=generator)
    used = torch.arange(8) < count[:, None]
    budget = (5 + count + torch.rand(500, generator=generator, dtype=torch.float64)) / 2
    first, second = singular_values(budget, shares, splits, used)
    assert (second >= -1e-12).all()
    assert (first >= second - 1e-12).all()
    assert (first <= 1 + 1e-12).all()
    torch.testing.assert_close((first + 2 * second).sum(1), budget)
    assert (first[~used] == 0).all()


def test_maps_of_ifs_contract_by_the_singular_values_of_numpy():
    maps, cumulative = contractive_maps(IFS.drawing(0, range(200)))
    values = np.linalg.svd(maps[..., :4].unflatten(-1, (2, 2)).double().numpy(), compute_uv=False)
    assert values.max() <= 1 + 1e-5
    counted = (values[..., 0] > 1e-6).sum(1)
    sums = (values[..., 0] + 2 * values[..., 1]).sum(1)
    assert ((2 * sums - 5 - counted > -1e-4) & (2 * sums - 5 - counted < 1 + 1e-4)).all()
    torch.testing.assert_close(cumulative[:, -1], torch.ones(200))


def test_images_of_one_class_are_alike_but_not_equal():
    same = replace(IFS, ranges={**IFS.ranges, "class": replace(IFS.ranges["class"], low=7, high=7)})
    maps, _ = contractive_maps(same.drawing(0, range(6)))
    other, _ = contractive_maps(same.drawing(5, range(6)))
    assert (maps - maps[0]).abs().max() < 0.6
    assert (maps - other).abs().max() < 0.6
    assert not torch.equal(maps[0], maps[1])
