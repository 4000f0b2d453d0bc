"""Correlations over sets of images, and what is drawn of them."""

import numpy as np
import pytest
from scipy.stats import linregress, norm

from audiopg.data_scripts.patterns import OF_THE_PAPER, PATTERNS
from audiopg.training.ablation.predictors import (
    PREDICTORS,
    correlation,
    correlations,
    draw_predictors,
    format_correlations,
    points,
)
from audiopg.training.evaluation.results import LOG_MEL, RANDOM_ENCODER


def report_of(cells):
    """A report; by cell the set, its total variation, loss, score, and how many images there are."""
    results = {
        name: [
            {
                "images": {"patterns": patterns, "total_variation": tv, "blank_share": 0.0},
                "loss": loss,
                "factors": {"frequency": 0.8 - tv, "onset": 0.4},
            }
        ]
        for name, (patterns, tv, loss, _, _) in cells.items()
    }
    overrides = {
        name: {"patterns": {} if many is None else {"num_images": many}} for name, (*_, many) in cells.items()
    }
    scores = {name: one[3] for name, one in cells.items()} | {"clips": 0.9, RANDOM_ENCODER: 0.5, LOG_MEL: 0.4}
    return {
        "grid": {"cells": {name: {"overrides": changes} for name, changes in (overrides | CLIPS).items()}},
        "results": {
            **results,
            "clips": [{"loss": 1.0, "factors": {"frequency": 1.0}}],
            RANDOM_ENCODER: [],
            LOG_MEL: [],
        },
        "summary": {name: {"score": {"mean": score}} for name, score in scores.items()},
        "dataset": "toy",
        "metric": "accuracy",
    }


CLIPS = {"clips": {"patterns": None}}
CELLS = {
    "shaders": ("shaders", 0.1, 0.5, 0.8, None),
    "spectrum": ("spectrum", 0.2, 0.7, 0.7, None),
    "wmm": ("wmm", 0.4, 0.6, 0.65, None),
    "fractaldb": ("fractaldb", 0.9, 0.9, 0.2, None),
    "stylegan_random": ("stylegan_random", 0.3, 0.8, 0.6, 256),
    "fbm": ("fbm", 0.05, 0.3, 0.6, None),
    "fbm_256": ("fbm", 0.05, 0.3, 0.1, 256),
}


def test_the_paper_has_seventeen_sets():
    assert len(set(OF_THE_PAPER)) == 17
    assert set(OF_THE_PAPER) < set(PATTERNS)


def test_a_correlation_is_that_of_other_formulas():
    rng = np.random.default_rng(0)
    x = rng.standard_normal(17)
    y = -0.4 * x + rng.standard_normal(17)
    found = correlation(x.tolist(), y.tolist())
    line = linregress(x, y)
    half = norm.ppf(0.975) / np.sqrt(17 - 3)
    expected = np.tanh([np.arctanh(line.rvalue) - half, np.arctanh(line.rvalue) + half])
    assert (found["r"], found["p"]) == pytest.approx((line.rvalue, line.pvalue), abs=6e-4)
    assert (found["low"], found["high"]) == pytest.approx(tuple(expected), abs=6e-4)
    ranks = np.corrcoef(x.argsort().argsort(), y.argsort().argsort())[0, 1]
    assert found["rho"] == pytest.approx(ranks, abs=6e-4)


def test_sets_are_points_and_a_control_of_few_images_is_none():
    found = points(report_of(CELLS))
    assert list(found) == [*(name for name in CELLS if name != "fbm_256"), "clips"]
    expected = {"total_variation": 0.4, "blank_share": 0.0, "loss": 0.6, "score": 65.0, "factors": 0.4}
    assert found["wmm"] == pytest.approx(expected)
    assert found["clips"] == {"score": 90.0, "factors": 1.0}, "no images, and a loss that compares with none"


def test_sets_of_the_paper_are_also_looked_at_by_themselves():
    report = report_of(CELLS)
    found = correlations(report)
    assert [group["loss"]["number"] for group in found.values()] == [6, 5]
    assert [group["factors"]["number"] for group in found.values()] == [7, 5]
    without = {name: one for name, one in CELLS.items() if not name.startswith("fbm")}
    assert found["sets of the paper"]["loss"] == correlations(report_of(without))["all cells"]["loss"]
    assert found["all cells"]["blank_share"]["r"] is None  # none of them has any
    few = correlations(report_of({name: CELLS[name] for name in ("shaders", "wmm", "fbm")}))
    assert list(few) == ["all cells"]
    assert list(few["all cells"]) == ["factors"]
    assert correlations(report_of({name: CELLS[name] for name in ("shaders", "wmm")})) == {}


def test_correlations_are_told_and_drawn():
    report = report_of(CELLS)
    report["correlations"] = correlations(report)
    table = format_correlations(report)
    assert f"{report['correlations']['all cells']['loss']['r']:+.2f} [" in table
    assert "none: all alike (6)" in table
    figure = draw_predictors(report)
    assert [axis.get_xlabel() for axis in figure.axes] == list(PREDICTORS.values())
    for axis, predictor in zip(figure.axes, PREDICTORS, strict=True):
        drawn = {text.get_text(): text.xy for text in axis.texts}
        found = {name: (one[predictor], one["score"]) for name, one in points(report).items() if predictor in one}
        assert drawn == found
    assert format_correlations({}) == ""
