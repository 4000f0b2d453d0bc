import datasets
import numpy as np
import pytest
import torch

from audiopg.data_scripts.audiopg_patterns import AudioPGPatterns, AudioPGPatternsConfig, features, rows
from audiopg.data_scripts.patterns import PATTERNS, get_patterns


def build(cache, **values):
    return AudioPGPatterns(str(cache), **{"patterns": "zone_plates", "num_images": 40, "size": 32, "seed": 5} | values)


def test_rows_hold_the_images_and_classes_of_their_indices(tmp_path):
    found = list(build(tmp_path).as_streaming_dataset(split="train"))
    patterns = PATTERNS["zone_plates"]
    assert [row["index"] for row in found] == list(range(40))
    assert {row["seed"] for row in found} == {5}
    assert [row["label"] for row in found] == patterns.classes(5, range(40)).tolist()
    images = patterns.images(5, range(40), 32)
    for row, image in zip(found, images, strict=True):
        np.testing.assert_allclose(np.asarray(row["image"]) / 255, image.permute(1, 2, 0).numpy(), atol=0.501 / 255)


def test_what_is_prepared_is_what_is_streamed_whatever_the_shards(tmp_path):
    streamed = list(build(tmp_path / "a", images_per_shard=7).as_streaming_dataset(split="train"))
    builder = build(tmp_path / "b", images_per_shard=16)
    builder.download_and_prepare()
    prepared = builder.as_dataset(split="train")
    assert prepared.features == features(PATTERNS["zone_plates"])
    assert [np.asarray(row["image"]).tobytes() for row in prepared] == [
        np.asarray(row["image"]).tobytes() for row in streamed
    ]


def test_an_image_is_the_same_bytes_whoever_asks_for_it():
    patterns = get_patterns("fbm")
    several = list(rows(patterns, seed=0, first=0, end=20, size=64))
    threads = torch.get_num_threads()
    assert next(rows(patterns, seed=0, first=17, end=18, size=64)) == several[17]
    assert torch.get_num_threads() == threads


def test_a_set_without_classes_has_no_label(tmp_path):
    row = next(iter(build(tmp_path, patterns="perlin").as_streaming_dataset(split="train")))
    assert "label" not in row
    assert isinstance(features(PATTERNS["zone_plates"])["label"], datasets.ClassLabel)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"patterns": "nothing"}, "Sets of patterns are .*got 'nothing'"),
        ({"num_images": 0}, "num_images is a whole number, 1 or more, got 0"),
        ({"size": 16}, "32 or more, got 16"),
        ({"ranges": {"cells": 3}}, "zone_plates has the ranges .*got cells"),
        ({"seed": 1 << 63}, "seed is a whole number"),
    ],
)
def test_what_cannot_be_made_is_refused_before_anything_is(tmp_path, values, said):
    with pytest.raises(ValueError, match=said):
        build(tmp_path, **values)


def test_the_cache_key_follows_every_value(tmp_path):
    other = [{}, {"seed": 6}, {"size": 48}, {"ranges": {"contrast": 1.0}}, {"num_images": 41}, {"patterns": "perlin"}]
    assert len({build(tmp_path, **values).cache_dir for values in other}) == len(other)


def test_shards_cover_all_images_once():
    config = AudioPGPatternsConfig(name="perlin", num_images=5, images_per_shard=2)
    assert config.shards() == [(0, 2), (2, 4), (4, 5)]
