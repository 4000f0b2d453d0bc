"""A classifier's head before its first step: a linear probe of what the encoder gives as it is.

From a random head, the first steps bend the encoder to something that says nothing yet, and what it had learnt with it
(Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", 2022).
"""

from typing import Any

import numpy as np
import torch

from audiopg.training.evaluation.probes import PROBES, best_setting
from audiopg.training.evaluation.protocols import Round
from audiopg.training.features.batches import Batches
from audiopg.training.features.cache import FeatureCache
from audiopg.training.features.embeddings import embed

ABSENT = 10.0
"""How far below all others the logit of a class lies that no training clip has."""


def check_head(model: Any, cache: FeatureCache) -> None:
    """Make sure that a model's head can be a linear probe.

    Args:
        model: The classifier.
        cache: The data set.

    Raises:
        ValueError: if its head is another, or clips have several labels.
    """
    if not hasattr(model.config, "classifier_pooling"):
        raise ValueError(
            f"head linear is for classifiers of ours, whose head is one linear layer; got a {type(model).__name__}: "
            "leave it random."
        )
    if cache.multi_label:
        raise ValueError(
            f"head linear is for clips of one label each, and those of {cache.dataset_name} have several: leave it "
            "random."
        )


def fit_head(model: Any, batches: Batches, one: Round, device: str) -> None:
    """Set the head to the linear probe of the encoder, fitted on the training clips of a round.

    Its penalty is the one that is best within these clips, as for `training/probe.py`; test clips are not touched.

    Args:
        model: As for `check_head`; its encoder is left as it is.
        batches: Of the data set.
        one: The round.
        device: Where to embed.
    """
    cache, clips = batches.cache, sorted({*one.train, *one.validation})
    inputs = model.base_model, batches.feature_extractor, batches.spectrograms(clips)
    found = embed(*inputs, pooling=model.config.classifier_pooling, device=device)[None]
    features = np.zeros((len(cache), found.shape[1]), found.dtype)
    features[clips] = found
    setting = best_setting(PROBES["linear"], features, cache, one)
    labels, num_classes = cache.labels.numpy(), len(cache.class_names)
    predict = PROBES["linear"].prepare(features[one.train], labels[one.train], num_classes, device)(setting)
    weight, bias = affine_of(predict, features.shape[1])
    with torch.no_grad():
        model.classifier.weight.copy_(torch.from_numpy(weight))
        model.classifier.bias.copy_(torch.from_numpy(bias))


def affine_of(predict: Any, width: int) -> tuple[np.ndarray, np.ndarray]:
    r"""Weights and biases of a classifier whose scores are affine in the features, but for what classes share.

    With scores $s_k(x) = w_k \cdot x + b_k - c(x)$, as those of a logistic regression are, $s_k(0)$ and
    $s_k(e_i) - s_k(0)$ are biases and weights up to numbers that are the same for all classes, which no softmax sees;
    their means over classes are taken out.

    Args:
        predict: From features `(clips, width)` to scores `(clips, classes)`; minus infinity for absent classes.
        width: How many features.

    Returns:
        Weights `(classes, width)` and biases `(classes,)`, float64.

    Example:
        >>> weight, bias = affine_of(lambda x: x @ np.array([[1.0, -1.0]]) + np.array([0.5, -0.5]), 1)
        >>> weight.tolist(), bias.tolist()
        ([[1.0], [-1.0]], [0.5, -0.5])
    """
    at_zero = predict(np.zeros((1, width)))[0]
    there = np.isfinite(at_zero)
    weight, bias = np.zeros((len(at_zero), width)), np.zeros(len(at_zero))
    bias[there] = at_zero[there] - at_zero[there].mean()
    slopes = predict(np.eye(width))[:, there] - at_zero[there]
    weight[there] = (slopes - slopes.mean(axis=1, keepdims=True)).T
    bias[~there] = bias[there].min() - ABSENT
    return weight, bias
