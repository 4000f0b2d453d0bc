"""Linear classifiers on frozen features, on the very rounds that fine-tuning is tested on: what it has to beat."""

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import Tensor
from transformers import PreTrainedModel

from audiopg.training.evaluation.protocols import Round, cut_validation
from audiopg.training.evaluation.scores import accuracy, macro_average_precision
from audiopg.training.features.cache import Batches, FeatureCache

INVERSE_REGULARISATIONS = (1e-3, 1e-2, 1e-1, 1.0)
"""Candidates for scikit-learn's `C`. On ESC-10 the inner folds choose 0.01 to 1; wider grids chose the same."""

# The accuracy on ESC-10 is that of the default 1e-4, in a third of the time.
LOGISTIC_TOLERANCE = 1e-3
RIDGE_PENALTIES = tuple(float(penalty) for penalty in np.logspace(0, 5, 6))
_VALIDATION_SHARE = 0.2
_BATCH_SIZE = 16


def linear_baselines(
    pretrained: PreTrainedModel, random: PreTrainedModel, batches: Batches, rounds: Sequence[Round], device: str
) -> dict[str, list[float]]:
    """Scores per round of linear classifiers on frozen features.

    Args:
        pretrained: A classifier with the checkpoint's encoder.
        random: One with the same encoder, untrained.
        batches: Of the data set.
        rounds: What to train and to test on.
        device: Where the encoders run.

    Returns:
        For the log-mel's mean and deviation over time, the random encoder and the pre-trained one.
    """
    clips = range(len(batches.cache))
    features = {
        "log-mel mean and deviation, linear": log_mel_statistics_of(batches, clips),
        "random encoder, frozen, linear": pooled_embeddings(random, batches, clips, device),
        "pre-trained encoder, frozen, linear": pooled_embeddings(pretrained, batches, clips, device),
    }
    return {name: [linear_score(values, batches.cache, one) for one in rounds] for name, values in features.items()}


@torch.inference_mode()
def pooled_embeddings(model: PreTrainedModel, batches: Batches, clips: Sequence[int], device: str) -> np.ndarray:
    """What the classifier of a model reads of each clip.

    Args:
        model: Any classifier on spectrograms, ours or not, whose head is called `classifier`.
        batches: Of the data set.
        clips: Which clips.
        device: Where to compute.

    Returns:
        Shape `(clips, features of the head)`, float32.
    """
    model.to(device).eval()  # type: ignore[arg-type]
    embeddings: list[Tensor] = []
    reading = model.get_submodule("classifier").register_forward_pre_hook(
        lambda _, read: embeddings.append(read[0].float().cpu())
    )
    for start in range(0, len(clips), _BATCH_SIZE):
        batch = {name: values.to(device) for name, values in batches(clips[start : start + _BATCH_SIZE]).items()}
        inputs = batches.finish(batch)
        del inputs["labels"]
        model(**inputs)
    reading.remove()
    return torch.cat(embeddings).numpy()


def log_mel_statistics_of(batches: Batches, clips: Sequence[int]) -> np.ndarray:
    """Mean and standard deviation over time of each mel band, of each whole clip; shape `(clips, 2 * bands)`."""
    rows = []
    for clip in clips:
        frames = batches.cache.clip_frames(clip).float().cpu()
        rows.append(torch.cat([frames.mean(dim=0), frames.std(dim=0, correction=0)]))
    return torch.stack(rows).numpy()


def linear_score(features: np.ndarray, cache: FeatureCache, one: Round) -> float:
    """Score on a round's test clips of a linear classifier whose regularisation is chosen among its training clips.

    Logistic regression as in `probe.linear_probe`, or ridge regression onto zeros and ones where clips have several
    labels; the features are standardised. The choice is made by cross-validation over the training folds; or, where
    there are splits, on the validation clips, if need be on a fifth of the training clips with sources kept together.

    Args:
        features: Shape `(clips, features)`.
        cache: The data set.
        one: The round.

    Returns:
        Accuracy, or macro mAP.
    """
    labels, chosen = cache.labels.numpy(), [*one.train, *one.validation]
    if cache.multi_label:
        pipeline, grid = make_pipeline(StandardScaler(), Ridge()), {"ridge__alpha": RIDGE_PENALTIES}
    else:
        logistic = LogisticRegression(max_iter=2000, tol=LOGISTIC_TOLERANCE)
        pipeline = make_pipeline(StandardScaler(), logistic)
        grid = {"logisticregression__C": INVERSE_REGULARISATIONS}
    search = GridSearchCV(pipeline, grid, scoring=_scored, cv=_inner_rounds(cache, one, chosen))
    # Threads of the linear algebra would wait for each other on matrices this small.
    with threadpool_limits(limits=1):
        search.fit(features[chosen], labels[chosen])
        return _scored(search, features[one.test], labels[one.test])


def _scored(model: BaseEstimator, features: np.ndarray, labels: np.ndarray) -> float:
    predicted = model.predict(features)
    return macro_average_precision(predicted, labels) if labels.ndim == 2 else accuracy(predicted, labels)


def _inner_rounds(cache: FeatureCache, one: Round, chosen: list[int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Training and validation positions among the clips that are not tested on."""
    parts = np.array([cache.parts[clip] for clip in chosen])
    held_out: list[np.ndarray]
    if all(isinstance(part, int) for part in cache.parts) and len(set(parts.tolist())) > 1:
        held_out = [parts == part for part in np.unique(parts)]
    else:
        validation = one.validation
        if not validation:
            strata = np.zeros(len(cache)) if cache.multi_label else cache.labels.numpy()
            _, validation = cut_validation(one.train, strata, cache.sources, _VALIDATION_SHARE, seed=0)
        held_out = [np.isin(chosen, validation)]
    return [(np.flatnonzero(~held), np.flatnonzero(held)) for held in held_out]
