"""Macro-averaged average precision as an `evaluate` module that loads without a network and without its package."""

import datasets
import evaluate
import numpy as np
from sklearn.metrics import average_precision_score

_DESCRIPTION = "Mean over classes of the average precision, for clips with several labels."


class MacroAveragePrecision(evaluate.Metric):
    """As `audiopg.training.evaluation.scores.macro_average_precision`; a class without a positive clip is left out."""

    def _info(self) -> evaluate.MetricInfo:
        features = {
            "predictions": datasets.List(datasets.Value("float64")),
            "references": datasets.List(datasets.Value("int64")),
        }
        return evaluate.MetricInfo(
            description=_DESCRIPTION, citation="", inputs_description="", features=datasets.Features(features)
        )

    def _compute(self, predictions: list[list[float]], references: list[list[int]]) -> dict[str, float]:
        scores, targets = np.asarray(predictions), np.asarray(references)
        known = targets.any(axis=0)
        if not known.any():
            raise ValueError("Average precision needs a positive clip in some class, and there is none.")
        found = average_precision_score(targets[:, known], scores[:, known], average="macro")
        return {"macro_average_precision": float(found)}
