"""What features know of factors, as an `evaluate` module that loads without a network."""

import datasets
import evaluate
import numpy as np

from audiopg.training.evaluation.factor_scores import (
    decode,
    factor_entropy,
    information_gap,
    neuron_information,
)

_DESCRIPTION = (
    "How a representation holds one known factor: held-out R^2 of ridge regression, or accuracy of logistic "
    "regression for classes; mutual information of the best neuron (Kraskov et al. 2004; Ross 2014) in nats; and the "
    "mutual information gap (Chen et al. 2018)."
)
_INPUTS = (
    "predictions: features, one list of numbers per clip. references: the factor, one number per clip. kind: "
    "'continuous', 'count' or 'class'. The last third of the clips is held out for decoding."
)


class FactorInformation(evaluate.Metric):
    """See `audiopg.training.evaluation.factor_scores`."""

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
        features, values = np.asarray(predictions), np.asarray(references)
        if kind != "continuous":
            values = values.astype(np.int64)
        cut = 2 * len(values) // 3
        information = neuron_information(features, values, kind, seed)
        return {
            "decoding": decode(features[:cut], values[:cut], features[cut:], values[cut:], kind),
            "information": float(information.max()),
            "best_neuron": int(information.argmax()),
            "gap": information_gap(information, factor_entropy(values, kind)),
        }
