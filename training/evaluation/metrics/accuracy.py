"""Accuracy as an `evaluate` module that loads without a network."""

import datasets
import evaluate
import numpy as np

from audiopg.training.evaluation.scores import accuracy

_DESCRIPTION = "Share of clips whose class was predicted."


class Accuracy(evaluate.Metric):
    """See `audiopg.training.evaluation.scores.accuracy`."""

    def _info(self) -> evaluate.MetricInfo:
        features = {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}
        return evaluate.MetricInfo(
            description=_DESCRIPTION, citation="", inputs_description="", features=datasets.Features(features)
        )

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        return {"accuracy": accuracy(np.asarray(predictions), np.asarray(references))}
