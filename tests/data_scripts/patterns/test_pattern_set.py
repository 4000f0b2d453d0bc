import pytest
import torch

from audiopg.data_scripts.patterns import PATTERNS, get_patterns
from audiopg.data_scripts.patterns.closed_form import CLOSED_FORM
from audiopg.data_scripts.patterns.dead_leaves import DEAD_LEAVES
from audiopg.data_scripts.patterns.statistical import STATISTICAL
from audiopg.data_scripts.patterns.time_frequency import TIME_FREQUENCY

SLOW = ("stylegan", "feature_vis")
"""Sets that cost seconds an image, by the beginning of their names."""
DRAWN_AT_ONCE = [patterns.name for patterns in (*DEAD_LEAVES, *STATISTICAL, *CLOSED_FORM, *TIME_FREQUENCY)]


def quick(name):
    """The set, with few images to cut leaves out of."""
    return get_patterns(name, textures=2) if name == "dead_leaves_textures" else get_patterns(name)


@pytest.mark.parametrize("name", DRAWN_AT_ONCE)
@pytest.mark.parametrize("size", [32, 51, 64])
def test_images_fill_the_range_from_0_to_1_at_any_size(name, size):
    images = quick(name).images(seed=3, indices=range(4), size=size)
    assert images.shape == (4, 3, size, size)
    assert images.dtype == torch.float32
    assert images.min() >= 0
    assert images.max() <= 1
    assert (images.flatten(1).std(dim=1) > 0.02).all()


@pytest.mark.parametrize("name", DRAWN_AT_ONCE)
def test_an_image_is_the_same_in_any_batch_and_order(name):
    patterns = quick(name)
    together = patterns.images(seed=5, indices=[9, 2, 4, 123456, 7], size=64)
    alone = torch.cat([patterns.images(seed=5, indices=[index], size=64) for index in (9, 2, 4, 123456, 7)])
    assert torch.equal(together, alone)
    assert torch.equal(together, patterns.images(seed=5, indices=torch.tensor([9, 2, 4, 123456, 7]), size=64))


@pytest.mark.parametrize("name", DRAWN_AT_ONCE)
def test_seeds_and_indices_give_other_images(name):
    patterns = quick(name)
    first, second = patterns.images(seed=0, indices=[0, 1], size=32)
    other = patterns.images(seed=1, indices=[0], size=32)[0]
    for a, b in ((first, second), (first, other), (second, other)):
        assert (a - b).abs().mean() > 0.01


@pytest.mark.parametrize("name", [name for name in DRAWN_AT_ONCE if PATTERNS[name].labels is not None])
def test_classes_are_all_drawn_and_do_not_depend_on_the_size_of_the_image(name):
    patterns = PATTERNS[name]
    classes = patterns.classes(seed=0, indices=range(400))
    assert classes.dtype == torch.int64
    assert sorted(set(classes.tolist())) == list(range(patterns.num_classes))
    assert torch.equal(patterns.labels(patterns.drawing(0, range(400), size=48)), classes)


@pytest.mark.parametrize("name", DRAWN_AT_ONCE)
def test_every_number_has_a_meaning_and_lies_within_its_limits(name):
    patterns = PATTERNS[name]
    assert patterns.ranges
    for parameter, distribution in patterns.ranges.items():
        distribution.validate(parameter)
        assert distribution.description
    assert patterns.description.endswith(".")
    assert patterns.source
    assert (patterns.labels is not None) == (patterns.num_classes > 0) == bool(patterns.class_name)


def test_overrides_change_the_images_and_are_recorded():
    smooth = get_patterns(get_patterns("power_law", exponent=3), exponent=(2.5, 3))
    rough = get_patterns("power_law", exponent=0.5)
    assert dict(smooth.overrides) == {"exponent": (2.5, 3)}
    assert (PATTERNS["power_law"].ranges["exponent"].low, rough.ranges["exponent"].high) == (0.5, 0.5)
    step = [patterns.images(0, range(4), 64).diff(dim=3).abs().mean() for patterns in (smooth, rough)]
    assert step[0] < step[1] / 5


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"patterns": "fractal"}, "dead_leaves_squares, .*spectrogram_like.*got 'fractal'"),
        ({"patterns": "perlin", "cell": 3}, "perlin has the ranges cells, octaves.*got cell"),
        ({"patterns": "perlin", "cells": (8, 2)}, r"perlin: cells: a range is \(low, high\).*swap"),
        ({"patterns": "zone_plates", "wave": ["square"]}, "plane wave.*got .'square'"),
        ({"patterns": "wmm", "iterations": (1, 3)}, r"wmm: iterations: one number for all images, got \(1, 3\)"),
        ({"patterns": "dead_leaves_mixed", "radius_exponent": (2, 3)}, "radius_exponent: one number for all images"),
        ({"patterns": "spectrogram_like", "floor": (-90, -80)}, "floor: one number for all images"),
        ({"patterns": "shaders", "class": (0, 1000)}, "shaders: class: values lie between 0 and 999"),
    ],
)
def test_what_cannot_be_is_refused_by_name(arguments, said):
    with pytest.raises(ValueError, match=said):
        get_patterns(**arguments)


@pytest.mark.parametrize(
    ("indices", "size", "said"),
    [
        ([0], 31, "perlin: size is a whole number of pixels, 32 or more, got 31"),
        ([0], 64.0, "whole number of pixels.*got 64.0"),
        ([], 32, "at least one image"),
        ([-1], 32, "Image indices count from 0, got -1"),
        ([0.5], 32, "Image indices are whole numbers"),
    ],
)
def test_sizes_and_indices_that_cannot_be_are_refused(indices, size, said):
    with pytest.raises(ValueError, match=said):
        PATTERNS["perlin"].images(0, indices, size)


def test_a_set_without_classes_says_so():
    with pytest.raises(ValueError, match="perlin has no classes; choose a set that has"):
        PATTERNS["perlin"].classes(0, [0])


def test_classes_are_counted_up_to_the_last_that_may_be_drawn():
    few = get_patterns("shaders", **{"class": (0, 9)})
    assert (few.num_classes, PATTERNS["shaders"].num_classes) == (10, 1000)
    assert set(few.classes(seed=0, indices=range(200)).tolist()) == set(range(10))
    assert get_patterns(few, **{"class": 4}).num_classes == 5
    assert get_patterns("zone_plates", wave=["circular"]).num_classes == 4


def test_lattices_finer_than_pixels_are_refused_before_they_fill_the_memory():
    fine = get_patterns("fbm", cells=64, octaves=8, lacunarity=4)
    with pytest.raises(ValueError, match=r"4 per pixel at most, 256 at a size of 64; got 1\.04858e\+06\. Lower one"):
        fine.images(0, [0], 64)


@pytest.mark.gpu
@pytest.mark.parametrize("name", [name for name in PATTERNS if not name.startswith(SLOW)])
def test_a_gpu_makes_the_same_images_up_to_rounding(name):
    patterns = quick(name)
    on_cpu, on_gpu = (patterns.images(0, range(8), 96, device).cpu() for device in ("cpu", "cuda"))
    # A pixel on the edge of a leaf or line, in the other of two bins, or that a point just meets may differ, few do.
    assert ((on_cpu - on_gpu).abs() > 2e-3).float().mean() < 2e-3
