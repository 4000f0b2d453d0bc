"""Accuracy as an `evaluate` module that loads without a network and without the package that it comes from."""

import datasets
import evaluate
from sklearn.metrics import accuracy_score

_DESCRIPTION = "Share of clips whose class was predicted."


class Accuracy(evaluate.Metric):
    """As `audiopg.training.evaluation.scores.accuracy`."""

    def _info(self) -> evaluate.MetricInfo:
        features = {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}
        return evaluate.MetricInfo(
            description=_DESCRIPTION, citation="", inputs_description="", features=datasets.Features(features)
        )

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        return {"accuracy": float(accuracy_score(references, predictions))}
