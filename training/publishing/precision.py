"""What weights are stored in: half of float32's bytes, if probes of the frozen encoder see no difference."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from audiopg.training.evaluation.probes import clip_features, probe_features
from audiopg.training.evaluation.protocols import rounds_of
from audiopg.training.features.batches import Batches
from audiopg.training.features.labelled import DataOptions
from audiopg.training.objectives.pretraining import TrainedRun
from audiopg.training.publishing.hub import stored_weights

CANDIDATES = ("float16", "bfloat16")
"""Of half the size, the more exact first; float32 is what is left."""

TOLERANCE = 0.001
"""The largest difference of a score, in either direction, that is none: 0.1 points."""


def rounded(model: PreTrainedModel, dtype: str) -> PreTrainedModel:
    """A copy of a model as others will load it: its weights stored in `dtype`, its computations as they were.

    Raises:
        ValueError: as `stored_weights`.

    Example:
        >>> from audiopg import AudioPGConfig, AudioPGModel
        >>> config = AudioPGConfig(hidden_size=12, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
        >>> rounded(AudioPGModel(config), "float16").dtype
        torch.float32
    """
    other = copy.deepcopy(model)
    other.load_state_dict(stored_weights(model, dtype))  # converts to what is there
    return other


def choose_dtype_of(run_folder: Path, data_dirs: Sequence[str | Path]) -> dict[str, Any]:
    """`choose_dtype` for a finished pre-training, on labelled recordings of any kind that fine-tuning takes."""
    run = TrainedRun.open(run_folder)
    model, extractor = run.final_model(), run.feature_extractor()
    recordings = [Batches(DataOptions(data_dir=str(folder)).cache(extractor), extractor) for folder in data_dirs]
    return choose_dtype(model, recordings)


def probe_scores(encoder: PreTrainedModel, batches: Batches) -> dict[str, float]:
    """Scores of the linear probe, means over the rounds, by data set and what it reads.

    That is the mean of a clip's tokens, and what the checkpoint's own `embed` gives.
    """
    rounds = rounds_of(batches.cache)
    return {
        f"{batches.cache.dataset_name}{name}": float(
            np.mean(probe_features("linear", features, batches.cache, rounds)["scores"])
        )
        for name, features in clip_features(encoder, batches).items()
    }


def choose_dtype(model: PreTrainedModel, recordings: Sequence[Batches]) -> dict[str, Any]:
    """Compare stored weights with those in float32 by linear probes of frozen features, and choose.

    The linear probe finds the only minimum of its loss: two calls on the same weights agree to the last clip, so every
    difference is that of the weights.

    Args:
        model: In float32, with a decoder or without.
        recordings: Labelled data, one set or several.

    Returns:
        `chosen`, the first of `CANDIDATES` with which no score differs by more than `TOLERANCE`, or else float32;
        `tolerance`; and `scores` by type, and by set and what is read. A type that cannot hold the weights has none.

    Raises:
        ValueError: if there are no data.
    """
    if not recordings:
        raise ValueError("Types of weights are compared on labelled recordings, got none: give data, or name a type.")
    names = [one.cache.dataset_name for one in recordings]
    if len(set(names)) < len(names):
        raise ValueError(f"Data sets are told apart by their names, got {', '.join(names)}; rename one.")
    encoder: Any = model.base_model
    scores: dict[str, dict[str, float]] = {"float32": _scores(encoder, recordings)}
    chosen = "float32"
    for dtype in CANDIDATES:
        try:
            candidate = rounded(encoder, dtype)
        except ValueError:  # beyond its range
            scores[dtype] = {}
            continue
        scores[dtype] = _scores(candidate, recordings)
        if largest_difference(scores, dtype) <= TOLERANCE:
            chosen = dtype
            break
    return {"chosen": chosen, "tolerance": TOLERANCE, "scores": scores}


def _scores(encoder: PreTrainedModel, recordings: Sequence[Batches]) -> dict[str, float]:
    return {name: score for batches in recordings for name, score in probe_scores(encoder, batches).items()}


def largest_difference(scores: Mapping[str, Mapping[str, float]], dtype: str) -> float:
    """How far the scores of a type are from those of float32, at most.

    Example:
        >>> round(largest_difference({"float32": {"a": 0.5, "b": 0.8}, "float16": {"a": 0.6, "b": 0.5}}, "float16"), 3)
        0.3
    """
    return max(abs(score - scores["float32"][name]) for name, score in scores[dtype].items())


def format_choice(report: Mapping[str, Any]) -> str:
    """What `choose_dtype` found, as a Markdown table and a sentence.

    Example:
        >>> scores = {"float32": {"ESC-10": 0.8}, "float16": {"ESC-10": 0.8}}
        >>> print(format_choice({"chosen": "float16", "tolerance": 0.001, "scores": scores}))
        | weights, linear probe, score in % | ESC-10 | largest difference |
        |---|---|---|
        | float32 | 80.00 | 0.00 |
        | float16 | 80.00 | 0.00 |
        <BLANKLINE>
        float16 agrees with float32 within 0.1 points.
    """
    scores, chosen = report["scores"], report["chosen"]
    names = list(scores["float32"])
    lines = [f"| weights, linear probe, score in % | {' | '.join(names)} | largest difference |"]
    lines.append("|---" * (2 + len(names)) + "|")
    for dtype, found in scores.items():
        cells = [f"{100 * found[name]:.2f}" if found else "" for name in names]
        difference = f"{100 * largest_difference(scores, dtype):.2f}" if found else "out of range"
        lines.append(f"| {dtype} | {' | '.join(cells)} | {difference} |")
    points = f"{100 * report['tolerance']:g} points"
    verdict = f"{chosen} agrees with float32 within {points}."
    if chosen == "float32":
        verdict = f"No type of half the size agrees with float32 within {points}."
    return "\n".join([*lines, "", verdict])
