import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix as confusion_matrix_of_scikit_learn

from audiopg.training.evaluation.confusions import (
    NUM_PAIRS,
    confusion_matrix,
    confusions,
    draw_confused_clips,
    draw_confusion_matrix,
    format_pairs,
)
from audiopg.training.features.cache import FeatureCache


def cache_of(labels, num_classes):
    return FeatureCache(
        dataset_name="toy",
        class_names=[f"class {index}" for index in range(num_classes)],
        front_end={},
        clips=[f"clip {index}.wav" for index in range(len(labels))],
        parts=[1] * len(labels),
        sources=[str(index) for index in range(len(labels))],
        frames=torch.randn(len(labels) * 20, 128).half(),
        lengths=torch.full((len(labels),), 20),
        labels=torch.as_tensor(labels),
        digest="",
    )


def test_the_matrix_is_scikit_learn_s():
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((80, 5)), rng.integers(0, 5, 80)
    expected = confusion_matrix_of_scikit_learn(labels, logits.argmax(axis=1))
    assert np.array_equal(confusion_matrix(logits, labels), expected)
    one_hot = np.eye(5)[labels]
    assert np.array_equal(confusion_matrix(logits, one_hot), expected)


def test_with_several_labels_the_highest_score_is_right_if_it_is_one_of_them():
    logits = np.array([[3.0, 1.0, 0.0], [0.0, 1.0, 3.0]])
    labels = np.array([[1, 1, 0], [1, 1, 0]])
    assert confusion_matrix(logits, labels).tolist() == [[1, 0, 1], [0, 0, 1], [0, 0, 0]]


def planted():
    """Ten clips of each of three classes; class 2 is taken for 0 seven times, class 1 for 2 three times."""
    labels = np.repeat([0, 1, 2], 10)
    logits = 2 * np.eye(3)[labels]
    logits[20:27, 0] = 3 + np.arange(7)
    logits[10:13, 2] = 5 - np.arange(3)
    return logits, labels


def test_pairs_come_by_rate_with_the_most_confident_clip():
    logits, labels = planted()
    clips = np.arange(30)[::-1]  # the clip at each row
    found = confusions(logits, labels, clips, cache_of(labels[::-1].copy(), 3))
    assert found["pairs"] == [
        {"true": "class 2", "predicted": "class 0", "rate": 0.7, "count": 7, "of": 10, "example": "clip 3.wav"},
        {"true": "class 1", "predicted": "class 2", "rate": 0.3, "count": 3, "of": 10, "example": "clip 19.wav"},
    ]
    assert found["matrix"] == [[10, 0, 0], [0, 7, 3], [7, 0, 3]]


def test_no_more_than_ten_pairs_are_kept():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 8, 200)
    found = confusions(rng.standard_normal((200, 8)), labels, range(200), cache_of(labels, 8))
    assert len(found["pairs"]) == NUM_PAIRS
    rates = [pair["rate"] for pair in found["pairs"]]
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize("num_classes", [3, 30])
def test_pictures_are_drawn(tmp_path, num_classes):
    logits, labels = planted()
    logits = np.pad(logits, ((0, 0), (0, num_classes - 3)), constant_values=-1)
    cache = cache_of(labels, num_classes)
    found = confusions(logits, labels, range(30), cache)
    for path in (
        draw_confusion_matrix(found, tmp_path / "a" / "matrix.png"),
        draw_confused_clips(found, cache, tmp_path / "a" / "clips.png"),
    ):
        assert path.read_bytes().startswith(b"\x89PNG")


def test_without_errors_there_is_nothing_to_draw(tmp_path):
    labels = np.array([0, 1])
    cache = cache_of(labels, 2)
    found = confusions(np.eye(2), labels, range(2), cache)
    assert found["pairs"] == []
    assert draw_confused_clips(found, cache, tmp_path / "clips.png") is None
    assert not (tmp_path / "clips.png").exists()


def test_names_of_classes_may_hold_any_sign(tmp_path):
    names = ["$x_{$", "a|b", "<script>"]
    pair = {"true": names[0], "predicted": names[1], "rate": 0.5, "count": 1, "of": 2, "example": "$\\frac{$.wav"}
    found = {"class_names": names, "matrix": [[1, 1, 0], [0, 1, 0], [0, 0, 1]], "pairs": [pair]}
    assert draw_confusion_matrix(found, tmp_path / "matrix.png").is_file()
    assert {line.count("|") for line in format_pairs(found).splitlines()} == {6}
