import numpy as np
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from audiopg.training.evaluation.factor_scores import RIDGE_ALPHAS, decode_factors


def test_factors_are_decoded_as_by_a_ridge_of_the_best_penalty():
    rng = np.random.default_rng(0)
    features = rng.standard_normal((300, 20))
    factors = features @ rng.standard_normal((20, 2)) + rng.standard_normal((300, 2)) * [0.1, 3.0]
    scores = decode_factors(features[:200], factors[:200], features[200:], factors[200:])
    by_hand = [
        max(
            r2_score(
                factors[200:, factor], ridge(features[:200], factors[:200, factor], alpha).predict(features[200:])
            )
            for alpha in RIDGE_ALPHAS
        )
        for factor in range(2)
    ]
    assert scores.shape == (2,)
    assert scores[0] > 0.99
    np.testing.assert_allclose(scores, by_hand, atol=0.03)
    alone = decode_factors(features[:200], factors[:200, 0], features[200:], factors[200:, 0])
    np.testing.assert_allclose(alone, scores[:1], atol=1e-6)


def ridge(features, targets, alpha):
    return make_pipeline(StandardScaler(), Ridge(alpha=alpha)).fit(features, targets)


def test_unrelated_factors_are_not_decoded():
    rng = np.random.default_rng(0)
    scores = decode_factors(*(rng.standard_normal((100, size)) for size in (10, 3, 10, 3)))
    assert (scores < 0.1).all()
