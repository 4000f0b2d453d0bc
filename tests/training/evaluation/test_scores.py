import os
import shutil
import subprocess
import sys

import evaluate
import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score, average_precision_score

from audiopg.training.evaluation.metrics import METRICS
from audiopg.training.evaluation.scores import (
    accuracy,
    bootstrap_interval,
    chroma_accuracy,
    macro_average_precision,
    mean_and_interval,
    paired_interval,
    pitches_of,
    score,
)


def tied_scores(num_clips=60, num_classes=5):
    rng = np.random.default_rng(0)
    return rng.integers(0, 4, (num_clips, num_classes)) / 4, rng.integers(0, 2, (num_clips, num_classes))


def test_macro_average_precision_is_scikit_learn_s_also_with_ties():
    scores, targets = tied_scores()
    expected = average_precision_score(targets, scores, average="macro")
    assert macro_average_precision(scores, targets) == pytest.approx(expected, abs=1e-12)


def test_a_class_without_a_positive_clip_is_left_out():
    scores, targets = tied_scores()
    targets[:, 2] = 0
    expected = macro_average_precision(np.delete(scores, 2, axis=1), np.delete(targets, 2, axis=1))
    assert macro_average_precision(scores, targets) == expected


def test_evaluate_loads_the_same_scores_without_a_network(monkeypatch, tmp_path):
    monkeypatch.setattr("evaluate.config.HF_EVALUATE_CACHE", str(tmp_path))
    scores, targets = tied_scores()
    module = evaluate.load(str(METRICS / "macro_average_precision"))
    found = module.compute(predictions=scores, references=targets)
    assert found == {"macro_average_precision": macro_average_precision(scores, targets)}
    predictions, references = targets[:, 0], targets[:, 1]
    found = evaluate.load(str(METRICS / "accuracy")).compute(predictions=predictions, references=references)
    assert found == {"accuracy": accuracy_score(references, predictions)}
    assert accuracy(predictions, references) == accuracy_score(references, predictions)


def test_each_metric_is_a_folder_that_stands_alone(tmp_path):
    shutil.copytree(METRICS, tmp_path / "metrics")
    script = (
        "import sys\n"
        "sys.modules['audiopg'] = None\n"
        "import evaluate\n"
        "numbers = [[float((7 * i * j) % 11) for j in range(1, 4)] for i in range(30)]\n"
        "ones = [[i % 2, 1 - i % 2, 1] for i in range(30)]\n"
        "first = [row[0] for row in ones]\n"
        "load = lambda name: evaluate.load('metrics/' + name).compute\n"
        "assert load('accuracy')(predictions=first, references=first) == {'accuracy': 1.0}\n"
        "assert load('macro_average_precision')(predictions=ones, references=ones).popitem()[1] == 1.0\n"
        "found = load('factor_information')(predictions=numbers, references=[row[1] for row in numbers])\n"
        "assert found['best_neuron'] == 1 and found['decoding'] > 0.99\n"
    )
    alone = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=alone, check=True, timeout=120)


def test_average_precision_is_its_formula_written_out():
    """Precision at each rank of a positive clip, averaged; no two scores are equal."""
    rng = np.random.default_rng(1)
    scores, targets = rng.standard_normal((40, 1)), rng.integers(0, 2, (40, 1))
    ranked = targets[np.argsort(-scores[:, 0]), 0]
    precisions = [ranked[: rank + 1].mean() for rank in np.flatnonzero(ranked)]
    assert macro_average_precision(scores, targets) == pytest.approx(np.mean(precisions))


def test_a_score_is_accuracy_of_classes_and_average_precision_of_labels():
    logits, labels = np.array([[2.0, 1.0], [0.0, 1.0], [3.0, 0.0]]), np.array([0, 0, 0])
    assert score(logits, labels) == pytest.approx(2 / 3)
    several = np.array([[1, 1], [0, 1], [1, 0]])
    assert score(logits, several) == macro_average_precision(logits, several)


def test_the_interval_of_a_mean_is_scipy_s():
    values = [0.81, 0.78, 0.9, 0.84, 0.79]
    summary = mean_and_interval(values)
    expected = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    assert (summary["low"], summary["high"]) == pytest.approx(expected)
    assert summary["std"] == pytest.approx(np.std(values, ddof=1))


def test_one_value_has_no_spread():
    assert mean_and_interval([0.5]) == {"mean": 0.5, "std": None, "low": None, "high": None}


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="take the argmax"):
        accuracy(np.zeros((3, 2)), np.zeros(3))
    with pytest.raises(ValueError, match="one number per clip and class"):
        macro_average_precision(np.zeros((3, 2)), np.zeros((3, 1)))
    with pytest.raises(ValueError, match="needs a positive clip"):
        macro_average_precision(np.zeros((3, 2)), np.zeros((3, 2)))


def test_the_bootstrap_is_scipy_s_with_ever_more_resamples():
    correct = np.random.default_rng(0).random(80) < 0.7
    drawn = stats.bootstrap(
        (correct.astype(float),), np.mean, n_resamples=20000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert bootstrap_interval(correct) == pytest.approx(drawn, abs=1 / 80)
    assert bootstrap_interval(np.ones(5, dtype=bool)) == (1.0, 1.0)


def test_chroma_forgives_octaves_alone():
    true = np.random.default_rng(0).integers(21, 109, 200)
    assert chroma_accuracy(np.where(true < 97, true + 12, true - 12), true) == 1.0
    assert chroma_accuracy(true + 7, true) == 0.0
    guessed = np.random.default_rng(1).permutation(true)
    expected = np.mean([a % 12 == b % 12 for a, b in zip(guessed, true, strict=True)])
    assert chroma_accuracy(guessed, true) == expected > accuracy(guessed, true)


def test_classes_are_pitches_only_if_all_are():
    assert pitches_of(["MIDI 61", "MIDI 21"]).tolist() == [61, 21]
    assert pitches_of(["MIDI 61", "60"]) is None


def test_a_paired_difference_has_the_interval_of_scipy_s_bootstrap_of_pairs():
    rng = np.random.default_rng(0)
    first = rng.random(400) < 0.8
    second = np.where(rng.random(400) < 0.7, first, rng.random(400) < 0.6)
    drawn = stats.bootstrap(
        (first.astype(float), second.astype(float)),
        lambda a, b, axis=-1: np.mean(a, axis=axis) - np.mean(b, axis=axis),
        **{"paired": True, "method": "percentile", "vectorized": True, "rng": np.random.default_rng(1)},
    ).confidence_interval
    texts = ["".join(str(int(one)) for one in row) for row in (first, second)]
    difference, low, high = paired_interval(*texts)
    assert difference == pytest.approx(first.mean() - second.mean())
    assert (low, high) == pytest.approx((drawn.low, drawn.high), abs=0.006)
    with pytest.raises(ValueError, match="on the same clips, got 400 and 399"):
        paired_interval(texts[0], texts[1][1:])
