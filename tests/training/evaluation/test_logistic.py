import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from audiopg.training.evaluation.logistic import fit_logistic


@pytest.mark.parametrize("num_classes", [2, 5])
@pytest.mark.parametrize("c", [1e-3, 1.0, 100.0])
@pytest.mark.parametrize("num_features", [7, 150])  # more than clips, too, and then separable
def test_the_minimum_is_scikit_learn_s(num_classes, c, num_features):
    rng = np.random.default_rng(0)
    labels = np.arange(100) % num_classes
    features = rng.standard_normal((100, num_features)) * np.logspace(1, -2, num_features)
    features[:, 0] += labels
    weights = fit_logistic(features, np.eye(num_classes)[labels], c, tolerance=1e-9)
    expected = LogisticRegression(C=c, solver="newton-cg", tol=1e-10, max_iter=2000).fit(features, labels)
    shares = np.exp(features @ weights[:-1] + weights[-1])
    np.testing.assert_allclose(
        shares / shares.sum(axis=1, keepdims=True), expected.predict_proba(features), rtol=1e-4, atol=1e-7
    )


def test_the_gradient_at_the_end_is_as_small_as_asked():
    rng = np.random.default_rng(1)
    features, targets = rng.standard_normal((80, 4)), np.eye(3)[np.arange(80) % 3]
    weights = fit_logistic(features, targets, c=0.5, tolerance=1e-11)
    scores = features @ weights[:-1] + weights[-1]
    shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    assert np.abs((shares - targets).sum(axis=0) / 80).max() < 2e-11  # biases are not penalised
    np.testing.assert_allclose(weights[:-1], -0.5 * features.T @ (shares - targets), atol=1e-8)


def test_a_gradient_that_cannot_be_is_an_error():
    with pytest.raises(ArithmeticError):
        fit_logistic(np.random.default_rng(0).standard_normal((20, 2)), np.eye(2)[np.arange(20) % 2], 1.0, 0.0)
