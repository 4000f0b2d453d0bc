"""How a representation holds known factors: decoding, mutual information, principal components, disentanglement.

Features are `(clips, neurons)` and one factor is `(clips,)`; a factor's `kind` is that of `factors.Factor`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor
from sklearn.feature_selection import mutual_info_classif, mutual_info_regression
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from audiopg.training.evaluation.probes import prepare_linear, standardiser

NEIGHBOURS = 3
"""The k of Kraskov's estimator; scikit-learn's default."""

ENTROPY_BINS = 20
"""A continuous factor has no finite entropy: for the gap it counts as so many equally likely values."""

_TREES = 50

RIDGE_ALPHAS = tuple(float(alpha) for alpha in np.logspace(-3, 5, 17))


def decode_factors(
    features_train: np.ndarray, targets_train: np.ndarray, features_test: np.ndarray, targets_test: np.ndarray
) -> np.ndarray:
    """How much of each factor of synthesis a linear map reads out of the features: R^2 on held-out clips.

    Ridge regression on standardised features; the penalty of each factor is chosen by leave-one-out on the training
    clips. 1 is perfect, 0 no better than the mean of the held-out targets, and less is worse.

    Args:
        features_train: Shape `(clips, features)`.
        targets_train: Shape `(clips, factors)`, or `(clips,)` for one factor.
        features_test: Shape `(other clips, features)`.
        targets_test: Shape `(other clips, factors)`, or `(other clips,)`.

    Returns:
        R^2 of each factor, shape `(factors,)`.

    Example:
        >>> features = np.random.default_rng(0).standard_normal((100, 3))
        >>> factors = np.stack([features[:, 0] - features[:, 2], 2 * features[:, 1]], axis=1)
        >>> decode_factors(features[:50], factors[:50], features[50:], factors[50:]).round(3).tolist()
        [1.0, 1.0]
    """
    predictions = fit_decoder(features_train, targets_train, "continuous")(features_test)
    return r2_score(_columns(targets_test), _columns(predictions), multioutput="raw_values")


def fit_decoder(features_train: np.ndarray, values_train: np.ndarray, kind: str) -> Callable[[np.ndarray], np.ndarray]:
    """The linear map that `decode` and `decode_factors` score.

    Args:
        features_train: Shape `(clips, features)`.
        values_train: Shape `(clips,)`; `(clips, factors)` for several that are not classes.
        kind: As for `decode`.

    Returns:
        From features `(other clips, features)` to values like those of training; to classes that occurred there.

    Example:
        >>> features = np.random.default_rng(0).standard_normal((50, 3))
        >>> decoder = fit_decoder(features, 2 * features[:, 1], "continuous")
        >>> decoder(np.array([[0.0, 1.0, 0.0]])).round(3).tolist()
        [2.0]
    """
    if kind == "class":
        classes, known = np.unique(values_train, return_inverse=True)
        with threadpool_limits(limits=1):
            logits = prepare_linear(features_train, known, len(classes))(0.1)
        return lambda features: classes[_alone(logits, features).argmax(axis=1)]
    scale, ridge = _fitted_ridge(features_train, values_train)
    shape = values_train.shape[1:]
    return lambda features: _alone(ridge.predict, scale.transform(features)).reshape(len(features), *shape)


def _alone(compute: Callable[[np.ndarray], np.ndarray], features: np.ndarray) -> np.ndarray:
    """What a function computes on one thread."""
    with threadpool_limits(limits=1):
        return compute(features)


def _fitted_ridge(features: np.ndarray, targets: np.ndarray) -> tuple[Pipeline, RidgeCV]:
    scale, ridge = standardiser(features), RidgeCV(alphas=RIDGE_ALPHAS, alpha_per_target=True)
    with threadpool_limits(limits=1):
        return scale, ridge.fit(scale.transform(features), _columns(targets))


def linear_decoder(features: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The map that `decode_factors` scores, as one of the features as they are: standardisation is in it.

    Args:
        features: Of the training clips, shape `(clips, features)`.
        targets: Shape `(clips, factors)`, or `(clips,)` for one factor.

    Returns:
        Weights `(features, factors)` and biases `(factors,)`, float64: `features @ weights + biases` are the factors.

    Example:
        >>> features = np.random.default_rng(0).standard_normal((100, 2))
        >>> weights, biases = linear_decoder(features, 3 * features[:, 0] + 5)
        >>> weights.round(2).ravel().tolist(), biases.round(2).tolist()
        ([3.0, 0.0], [5.0])
    """
    scale, ridge = _fitted_ridge(features, targets)
    biases = ridge.predict(scale.transform(np.zeros((1, features.shape[1])))).reshape(-1)
    weights = np.zeros((features.shape[1], len(biases)))
    _, kept, deviation = (step for _, step in scale.steps)
    weights[kept.get_support()] = np.reshape(ridge.coef_, (len(biases), -1)).T / deviation.scale_[:, None]
    return weights, biases


def decode(
    features_train: np.ndarray, values_train: np.ndarray, features_test: np.ndarray, values_test: np.ndarray, kind: str
) -> float:
    """How well a linear map reads a factor on held-out clips: R^2, or, for classes, accuracy.

    Args:
        features_train: Shape `(clips, neurons)`.
        values_train: Shape `(clips,)`.
        features_test: Shape `(other clips, neurons)`.
        values_test: Shape `(other clips,)`.
        kind: `class` is read as by a linear probe; `continuous` and `count` by ridge regression, as in
            `decode_factors`.

    Returns:
        R^2 (1 perfect, 0 the mean, negative worse) or accuracy in [0, 1].

    Example:
        >>> features = np.random.default_rng(0).standard_normal((90, 3))
        >>> decode(features[:60], features[:60, 0] > 0, features[60:], features[60:, 0] > 0, "class") > 0.8
        True
    """
    found = fit_decoder(features_train, values_train, kind)(features_test)
    return float(np.mean(found == values_test)) if kind == "class" else float(r2_score(values_test, found))


def chance(values_train: np.ndarray, values_test: np.ndarray, kind: str) -> float:
    """What is reached without looking: R^2 of 0, or the share of the most frequent training class.

    Example:
        >>> chance(np.array([0, 1, 1]), np.array([1, 0]), "class")
        0.5
    """
    if kind != "class":
        return 0.0
    classes, counts = np.unique(values_train, return_counts=True)
    return float(np.mean(values_test == classes[counts.argmax()]))


def decode_above_chance(
    features_train: np.ndarray, values_train: np.ndarray, features_test: np.ndarray, values_test: np.ndarray, kind: str
) -> float:
    r"""`decode` on one scale: R^2, or, for classes, the share of what chance leaves, $(a - c) / (1 - c)$.

    Args:
        features_train: As for `decode`, like the others.
        values_train: See `features_train`.
        features_test: See `features_train`.
        values_test: See `features_train`.
        kind: See `features_train`.

    Returns:
        1 for what is always right, 0 for what knows nothing.

    Example:
        >>> values = np.array([0, 1] * 15)
        >>> decode_above_chance(values[:, None], values, values[:, None], values, "class")
        1.0
    """
    found = fit_decoder(features_train, values_train, kind)(features_test)
    return score_above_chance(found, values_train, values_test, kind)


def score_above_chance(found: np.ndarray, values_train: np.ndarray, values_test: np.ndarray, kind: str) -> float:
    """`decode_above_chance` of what was decoded already.

    Args:
        found: What the decoder says of the held-out clips, shape `(other clips,)`.
        values_train: As for `decode`, like the others.
        values_test: See `values_train`.
        kind: See `values_train`.

    Returns:
        1 for what is always right, 0 for what knows nothing.

    Example:
        >>> score_above_chance(np.array([1.0, 2.0]), np.zeros(1), np.array([1.0, 2.0]), "continuous")
        1.0
    """
    least = chance(values_train, values_test, kind)
    score = float(np.mean(found == values_test)) if kind == "class" else float(r2_score(values_test, found))
    return (score - least) / (1 - least) if least < 1 else 0.0


def neuron_information(features: np.ndarray, values: np.ndarray, kind: str, seed: int = 0) -> np.ndarray:
    """Mutual information of every neuron and a factor, by nearest neighbours.

    For a continuous factor the estimator of Kraskov et al. (2004), for whole numbers and classes that of Ross (2014),
    which counts neighbours within a class; both as scikit-learn has them, with 3 neighbours.

    Args:
        features: Shape `(clips, neurons)`.
        values: The factor, shape `(clips,)`.
        kind: `continuous`, `count` or `class`.
        seed: Of the tiny noise that breaks ties.

    Returns:
        In nats, 0 or more, shape `(neurons,)`.

    Example:
        >>> values = np.random.default_rng(0).standard_normal(300)
        >>> features = np.stack([values, np.random.default_rng(1).standard_normal(300)], axis=1)
        >>> bool(np.diff(neuron_information(features, values, "continuous"))[0] < -1)
        True
    """
    estimate = mutual_info_regression if kind == "continuous" else mutual_info_classif
    with threadpool_limits(limits=1):
        return estimate(
            features.astype(np.float64), values, discrete_features=False, n_neighbors=NEIGHBOURS, random_state=seed
        )


def factor_entropy(values: np.ndarray, kind: str) -> float:
    """Entropy of a factor in nats; a continuous one counts as 20 equally likely values.

    Example:
        >>> round(factor_entropy(np.array([0, 1, 0, 1]), "class"), 4)
        0.6931
    """
    if kind == "continuous":
        return float(np.log(ENTROPY_BINS))
    shares = np.unique(values, return_counts=True)[1] / len(values)
    return float(-(shares * np.log(shares)).sum())


def information_gap(information: np.ndarray, entropy: float) -> float:
    r"""Mutual information gap of one factor (Chen et al. 2018): $(I_{(1)} - I_{(2)}) / H$, the two best neurons.

    Args:
        information: Of each neuron with the factor, in nats, shape `(neurons,)`.
        entropy: $H$ of the factor, in nats.

    Returns:
        1 if one neuron holds the factor and no other does, 0 if two hold it equally.

    Example:
        >>> round(information_gap(np.array([0.1, 0.9, 0.4]), entropy=1.0), 3)
        0.5
    """
    second, best = np.sort(information)[-2:]
    return float((best - second) / entropy)


@dataclass(frozen=True)
class Components:
    """Principal components of an embedding.

    Args:
        shares: Share of the variance of each component, falling, shape `(components,)`.
        scores: Coordinates of the clips, shape `(clips, components)`.
    """

    shares: np.ndarray
    scores: np.ndarray


def principal_components(features: np.ndarray, count: int = 20) -> Components:
    """The first principal components of centred features, not rescaled; fewer where there are fewer dimensions.

    Example:
        >>> components = principal_components(np.random.default_rng(0).standard_normal((50, 4)))
        >>> components.scores.shape, round(float(components.shares.sum()), 6)
        ((50, 4), 1.0)
    """
    with threadpool_limits(limits=1):
        pca = PCA(n_components=min(count, *features.shape), svd_solver="full")
        scores = pca.fit_transform(features.astype(np.float64))
    return Components(pca.explained_variance_ratio_, scores)


def importances(features: np.ndarray, values: np.ndarray, kind: str, seed: int = 0) -> np.ndarray:
    """What each neuron contributes to 50 gradient-boosted trees that predict a factor (Locatello et al. 2019).

    Args:
        features: Shape `(clips, neurons)`.
        values: The factor, shape `(clips,)`.
        kind: `class` has the trees classify.
        seed: Of the neurons that each split may choose from, the square root of all.

    Returns:
        Shares of the reduction of impurity, shape `(neurons,)`.

    Example:
        >>> features = np.random.default_rng(0).standard_normal((80, 3))
        >>> int(importances(features, features[:, 1], "continuous").argmax())
        1
    """
    kinds: dict[bool, Any] = {True: GradientBoostingClassifier, False: GradientBoostingRegressor}
    trees = kinds[kind == "class"](n_estimators=_TREES, max_features="sqrt", random_state=seed)
    return trees.fit(features, values).feature_importances_


def _one_minus_entropy(shares: np.ndarray) -> np.ndarray:
    """1 minus the entropy of each row to the base of its length; 0 for a row that does not add up to 1."""
    logarithms = np.log(np.where(shares > 0, shares, 1.0)) / np.log(shares.shape[1])
    return np.where(shares.sum(axis=1) > 0, 1 + (shares * logarithms).sum(axis=1), 0.0)


def disentanglement_and_completeness(importance: np.ndarray) -> tuple[float, float]:
    r"""Two of the three DCI scores (Eastwood & Williams 2018), from importances $R$.

    Disentanglement is $\sum_i \rho_i (1 - H_K(P_i))$ with $P_{ij} = R_{ij} / \sum_k R_{ik}$ and $\rho_i$ the share of
    neuron $i$ in all of $R$: how far a neuron serves one factor alone. Completeness is the mean over factors of
    $1 - H_D(\tilde P_j)$ with $\tilde P_{ij} = R_{ij} / \sum_k R_{kj}$: how far a factor has one neuron. The third,
    informativeness, is what `decode` gives.

    Args:
        importance: Of each neuron for each factor, 0 or more, shape `(neurons, factors)`; two of each at least.

    Returns:
        Disentanglement and completeness, each in [0, 1].

    Raises:
        ValueError: if there are not two neurons and two factors.

    Example:
        >>> disentanglement_and_completeness(np.eye(2)), disentanglement_and_completeness(np.ones((2, 2)))
        ((1.0, 1.0), (0.0, 0.0))
    """
    if importance.ndim != 2 or min(importance.shape) < 2:
        raise ValueError(f"DCI compares two neurons and two factors at least, got shape {importance.shape}.")
    by_neuron, total = importance.sum(axis=1, keepdims=True), importance.sum()
    own = importance / np.where(by_neuron > 0, by_neuron, 1.0)
    disentanglement = float((by_neuron[:, 0] / total * _one_minus_entropy(own)).sum())
    by_factor = importance.sum(axis=0, keepdims=True)
    shares = importance / np.where(by_factor > 0, by_factor, 1.0)
    return disentanglement, float(_one_minus_entropy(shares.T).mean())


def _columns(values: np.ndarray) -> np.ndarray:
    """`(clips,)` or `(clips, factors)` to `(clips, factors)`."""
    return values.reshape(len(values), -1)
