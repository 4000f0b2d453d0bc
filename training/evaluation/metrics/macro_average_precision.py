"""Macro-averaged average precision (mAP) as an `evaluate` module that loads without a network."""

import datasets
import evaluate
import numpy as np

from audiopg.training.evaluation.scores import macro_average_precision

_DESCRIPTION = "Mean over classes of the average precision, for clips with several labels."


class MacroAveragePrecision(evaluate.Metric):
    """See `audiopg.training.evaluation.scores.macro_average_precision`."""

    def _info(self) -> evaluate.MetricInfo:
        features = {
            "predictions": datasets.List(datasets.Value("float64")),
            "references": datasets.List(datasets.Value("int64")),
        }
        return evaluate.MetricInfo(
            description=_DESCRIPTION, citation="", inputs_description="", features=datasets.Features(features)
        )

    def _compute(self, predictions: list[list[float]], references: list[list[int]]) -> dict[str, float]:
        return {"macro_average_precision": macro_average_precision(np.asarray(predictions), np.asarray(references))}
