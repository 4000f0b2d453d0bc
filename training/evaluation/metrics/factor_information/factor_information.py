"""What features know of factors, as an `evaluate` module that loads without a network and without its package."""

import datasets
import evaluate
import numpy as np
from sklearn.feature_selection import VarianceThreshold, mutual_info_classif, mutual_info_regression
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import accuracy_score, r2_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

_DESCRIPTION = (
    "How a representation holds one known factor: held-out R^2 of ridge regression, or accuracy of logistic "
    "regression for classes; mutual information of the best neuron (Kraskov et al. 2004; Ross 2014) in nats; and the "
    "mutual information gap (Chen et al. 2018)."
)
_INPUTS = (
    "predictions: features, one list of numbers per clip. references: the factor, one number per clip. kind: "
    "'continuous', 'count' or 'class'. The last third of the clips is held out for decoding."
)
_BINS = 20  # a continuous factor counts as so many equally likely values


class FactorInformation(evaluate.Metric):
    """As `audiopg.training.evaluation.factor_scores`."""

    def _info(self) -> evaluate.MetricInfo:
        features = {
            "predictions": datasets.Sequence(datasets.Value("float32")),
            "references": datasets.Value("float64"),
        }
        return evaluate.MetricInfo(
            description=_DESCRIPTION, citation="", inputs_description=_INPUTS, features=datasets.Features(features)
        )

    def _compute(
        self, predictions: list[list[float]], references: list[float], kind: str = "continuous", seed: int = 0
    ) -> dict[str, float]:
        features, values = np.asarray(predictions, dtype=np.float64), np.asarray(references)
        if kind != "continuous":
            values = values.astype(np.int64)
        estimate = mutual_info_regression if kind == "continuous" else mutual_info_classif
        information = estimate(features, values, discrete_features=False, n_neighbors=3, random_state=seed)
        second, best = np.sort(information)[-2:]
        return {
            "decoding": _decoding(features, values, kind),
            "information": float(best),
            "best_neuron": int(information.argmax()),
            "gap": float((best - second) / _entropy(values, kind)),
        }


def _decoding(features: np.ndarray, values: np.ndarray, kind: str) -> float:
    """Of the last third of the clips, by what was fitted to the others."""
    cut = 2 * len(values) // 3
    least = (1e-5 * features[:cut].std(axis=0).max()) ** 2  # features that do not vary are rounding
    if kind == "class":
        reader = LogisticRegression(C=0.1, solver="newton-cg", tol=1e-8, max_iter=500)
    else:
        reader = RidgeCV(alphas=np.logspace(-3, 5, 17))
    reading = make_pipeline(VarianceThreshold(least), StandardScaler(), reader).fit(features[:cut], values[:cut])
    score = accuracy_score if kind == "class" else r2_score
    return float(score(values[cut:], reading.predict(features[cut:])))


def _entropy(values: np.ndarray, kind: str) -> float:
    """In nats."""
    if kind == "continuous":
        return float(np.log(_BINS))
    shares = np.unique(values, return_counts=True)[1] / len(values)
    return float(-(shares * np.log(shares)).sum())
