"""Scores as `evaluate` modules, a folder each, which load without a network and without this package.

`evaluate.load(str(METRICS / "accuracy")).compute(predictions=..., references=...)`

They say in scikit-learn's words what `evaluation.scores` and `evaluation.factor_scores` compute, and tests hold each
to the other: a folder may be copied to where nothing else of this package is.
"""

from pathlib import Path

METRICS = Path(__file__).parent
"""This folder."""
