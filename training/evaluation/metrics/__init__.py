"""Scores as `evaluate` modules, which load from this folder without a network.

`evaluate.load(str(METRICS / "accuracy.py")).compute(predictions=..., references=...)`
"""

from pathlib import Path

METRICS = Path(__file__).parent
"""This folder."""
