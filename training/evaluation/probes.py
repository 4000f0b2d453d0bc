"""What frozen features are worth: classes by linear, neighbour and attentive probes, on the rounds of any data set.

Every probe has one setting, which is chosen among the clips of a round that are not tested on (`inner_rounds`); the
test clips are scored once. The log-mel without any encoder, and a random encoder, are probed beside.
"""

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.special import log_softmax
from sklearn.decomposition import PCA
from sklearn.feature_selection import VarianceThreshold
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from threadpoolctl import threadpool_limits
from transformers import PreTrainedModel

from audiopg.training.evaluation.attentive import WEIGHT_DECAYS, prepare_attentive
from audiopg.training.evaluation.logistic import fit_logistic
from audiopg.training.evaluation.protocols import Round, describe_protocol, inner_rounds, rounds_of
from audiopg.training.evaluation.results import FROZEN, LOG_MEL, RANDOM_ENCODER, READ_AS, read_out_name, row_of
from audiopg.training.evaluation.scores import bootstrap_interval, chroma_accuracy, pitches_of, score
from audiopg.training.features.batches import Batches
from audiopg.training.features.cache import FeatureCache
from audiopg.training.features.embeddings import (
    embed,
    embed_tokens,
    has_token_grid,
    log_mel_statistics,
    random_encoder,
)

INVERSE_REGULARISATIONS = (1e-3, 1e-2, 1e-1, 1.0)
"""Candidates for scikit-learn's `C`. On ESC-10 the inner folds choose 0.01 to 1; wider grids chose the same."""

RIDGE_PENALTIES = tuple(float(penalty) for penalty in np.logspace(5, 0, 6))
"""Candidates where clips have several labels."""

NEIGHBOURS = (1, 3, 5, 10, 20, 40)
"""Candidates for the number of neighbours; those that the smallest training part cannot have are left out."""

GRADIENT_TOLERANCE = 1e-8
"""Largest component of the gradient of the mean loss where a logistic regression ends. At 1e-6 every clip of ESC-10 is
classified as here; at the 1e-3 of former versions, by L-BFGS, up to 5 of 320 inner test clips were not."""

NEGLIGIBLE = 1e-5
"""A feature that varies less than this share of the one that varies most is left out. Standardised, rounding in it
would count as much as any other: two numbers of the log-mel are constant on ESC-10, and noise of 1e-8 or 1e-6 in
them moved its accuracy between 78.75 and 79.75 %, single folds by 6."""

Predict = Callable[[Any], np.ndarray]
"""Features of clips to scores, `(clips, classes)`."""

Fit = Callable[[float], Predict]
"""A setting to a classifier, on features that were prepared for it."""


def standardiser(features: np.ndarray) -> Pipeline:
    """What standardises features by these, in float64, and leaves out those whose deviation is `NEGLIGIBLE`.

    Example:
        >>> features = np.array([[1.0, 5.0], [3.0, 5.0 + 1e-9]])
        >>> standardiser(features).transform(features).tolist()
        [[-1.0], [1.0]]
    """
    wide = features.astype(np.float64)
    least = (NEGLIGIBLE * wide.std(axis=0).max()) ** 2
    return make_pipeline(FunctionTransformer(_wide), VarianceThreshold(least), StandardScaler()).fit(wide)


def prepare_linear(features: np.ndarray, labels: np.ndarray, num_classes: int, device: Any = None) -> Fit:
    r"""Multinomial logistic regression with an L2 penalty on standardised features, run to its only minimum.

    Where clips have several labels, ridge regression onto zeros and ones. The features are turned to their principal
    axes first. That changes neither the penalty nor any score, and no axis is needed that the training clips do not
    have; `fit_logistic` then needs 10 to 20 steps for a gradient of 1e-8. The minimum is that of float64: what is
    found depends neither on threads nor on the order of the clips.

    Args:
        features: Shape `(clips, features)`.
        labels: Classes `(clips,)`, or zeros and ones `(clips, classes)`.
        num_classes: How many there are; scores of one that is not among the labels are minus infinity.
        device: Not used.

    Returns:
        What fits one setting: `C` of scikit-learn, or the penalty of the ridge.

    Raises:
        RuntimeError: by the result, if the regression does not converge.

    Example:
        >>> features = np.random.default_rng(0).standard_normal((40, 3))
        >>> predict = prepare_linear(features, (features[:, 0] > 0).astype(int), 2)(1.0)
        >>> predict(np.array([[1.0, 0.0, 0.0]])).argmax(axis=1).tolist()
        [1]
    """
    scale = standardiser(features)
    axes = PCA().fit(scale.transform(features))

    def turned(asked: np.ndarray) -> np.ndarray:
        return axes.transform(scale.transform(asked))

    inside = turned(features)

    def fit(setting: float) -> Predict:
        if labels.ndim == 2:
            ridge = Ridge(alpha=setting).fit(inside, labels)
            return lambda asked: ridge.predict(turned(asked))
        classes, targets = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(f"A classifier is fitted on clips of two classes or more, and got {classes.tolist()}.")
        try:
            weights = fit_logistic(inside, np.eye(len(classes))[targets], setting, GRADIENT_TOLERANCE)
        except ArithmeticError as error:
            raise RuntimeError(
                f"A logistic regression on {features.shape[0]} clips and {features.shape[1]} features did not "
                f"converge at C = {setting} ({error}). Look for features that are not finite or of huge range."
            ) from error

        def predict(asked: np.ndarray) -> np.ndarray:
            scores = np.full((len(asked), num_classes), -np.inf)
            scores[:, classes] = log_softmax(turned(asked) @ weights[:-1] + weights[-1], axis=1)
            return scores

        return predict

    return fit


def prepare_neighbours(features: np.ndarray, labels: np.ndarray, num_classes: int, device: Any = None) -> Fit:
    """A vote of the nearest training clips by cosine similarity, each by the inverse of its cosine distance.

    Features are standardised first: what all clips have in common would make all of them similar.

    Args:
        features: Shape `(clips, features)`.
        labels: Classes `(clips,)`, or zeros and ones `(clips, classes)`.
        num_classes: How many there are.
        device: Not used.

    Returns:
        What fits one number of neighbours; the scores are shares of the vote.

    Example:
        >>> features, labels = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 1.0]]), np.array([0, 1, 1])
        >>> prepare_neighbours(features, labels, 2)(1)(features).tolist()
        [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]
    """
    targets = labels if labels.ndim == 2 else np.eye(num_classes)[labels]
    scale = standardiser(features)

    def fit(setting: float) -> Predict:
        vote = KNeighborsRegressor(int(setting), metric="cosine", weights="distance")
        vote.fit(scale.transform(features), targets)
        return lambda asked: vote.predict(scale.transform(asked))

    return fit


@dataclass(frozen=True)
class Probe:
    """A classifier of frozen features with one setting to choose.

    Args:
        prepare: From features, labels, the number of classes and a device to what fits a setting.
        settings: Candidates, the one to prefer where several do equally well first, given the fewest clips that one
            is trained on and whether clips have several labels.
        reads_tokens: Whether it reads all tokens of a clip, `(tokens, width)`, rather than one vector.
        most_choices: How many of the inner rounds choose the setting; all if None.
    """

    prepare: Callable[[Any, np.ndarray, int, Any], Fit]
    settings: Callable[[int, bool], Sequence[float]]
    reads_tokens: bool = False
    most_choices: int | None = None


PROBES = {
    "linear": Probe(
        prepare_linear,
        lambda clips, several: RIDGE_PENALTIES if several else INVERSE_REGULARISATIONS,
    ),
    "neighbours": Probe(
        prepare_neighbours,
        lambda clips, several: [k for k in NEIGHBOURS if k <= clips],
    ),
    "attentive": Probe(prepare_attentive, lambda clips, several: WEIGHT_DECAYS, reads_tokens=True, most_choices=1),
}
"""By their names on the command line."""


class Outcome(NamedTuple):
    """What came of a round: the score (see `scores.score`), the setting, and the scores of the test clips by class."""

    score: float
    setting: float
    logits: np.ndarray


def best_setting(
    probe: Probe, features: Any, cache: FeatureCache, one: Round, device: str | torch.device = "cpu"
) -> float:
    """The setting that is best within the clips of a round that are not tested on.

    Args:
        probe: As for `probe_round`, like the other arguments; features of other clips are not looked at.
        features: See there.
        cache: See there.
        one: See there.
        device: See there.

    Returns:
        The first of those that do equally well.
    """
    labels, num_classes = cache.labels.numpy(), len(cache.class_names)
    inner = inner_rounds(cache, one)[: probe.most_choices]
    settings = probe.settings(min(len(train) for train, _ in inner), cache.multi_label)
    found: dict[float, list[float]] = {setting: [] for setting in settings}
    with _one_thread():
        for train, held_out in inner:
            fit = probe.prepare(_taken(features, train), labels[train], num_classes, device)
            for setting in settings:
                found[setting].append(score(fit(setting)(_taken(features, held_out)), labels[held_out]))
    return max(settings, key=lambda setting: math.fsum(found[setting]))  # the first of equals


def _one_thread() -> Any:
    """Of the linear algebra: threads would wait for each other on matrices this small.

    On a busy machine that took twenty times longer than one thread works.
    """
    return threadpool_limits(limits=1, user_api="blas")


def probe_round(
    probe: Probe, features: Any, cache: FeatureCache, one: Round, device: str | torch.device = "cpu"
) -> Outcome:
    """A probe on the test clips of a round, with the setting that is best within its other clips.

    Args:
        probe: Which.
        features: Of every clip of the data set: an array `(clips, features)`, or tokens, one tensor per clip.
        cache: The data set.
        one: The round.
        device: Where the attentive probe is trained.

    Returns:
        The score, the setting, and the logits `(test clips, classes)`.
    """
    labels, known = cache.labels.numpy(), [*one.train, *one.validation]
    chosen = best_setting(probe, features, cache, one, device)
    with _one_thread():
        predict = probe.prepare(_taken(features, known), labels[known], len(cache.class_names), device)(chosen)
        logits = predict(_taken(features, one.test))
    return Outcome(score(logits, labels[one.test]), chosen, logits)


def probe_features(
    name: str, features: Any, cache: FeatureCache, rounds: Sequence[Round], device: str | torch.device = "cpu"
) -> dict[str, Any]:
    """A row of results of a probe: its score in every round.

    Args:
        name: One of `PROBES`.
        features: As for `probe_round`.
        cache: The data set.
        rounds: What to train and to test on.
        device: As for `probe_round`.

    Returns:
        As from `row_of`, and `settings`, as chosen in each round. Where clips have one label each, `right` has a `1`
        or a `0` for every tested clip, round after round; of a single round, `low` and `high` are those of
        `bootstrap_interval`; where the classes are pitches, `chroma` has the chroma accuracy of each round.
    """
    found = [probe_round(PROBES[name], features, cache, one, device) for one in rounds]
    row = {**row_of([tested.score for tested in found]), "settings": [tested.setting for tested in found]}
    if cache.multi_label:
        return row
    labels, pitches = cache.labels.numpy(), pitches_of(cache.class_names)
    pairs = [(tested.logits.argmax(axis=1), labels[one.test]) for tested, one in zip(found, rounds, strict=True)]
    row["right"] = "".join(str(int(right)) for predicted, true in pairs for right in predicted == true)
    if len(pairs) == 1:
        [(predicted, true)] = pairs
        row["low"], row["high"] = bootstrap_interval(predicted == true)
    if pitches is not None:
        row["chroma"] = [chroma_accuracy(pitches[predicted], pitches[true]) for predicted, true in pairs]
    return row


def clip_features(
    encoder: PreTrainedModel, batches: Batches, poolings: Sequence[str] = ("mean",), **options: Any
) -> dict[str, np.ndarray]:
    """What a probe may read of a frozen encoder but its tokens, by what it is called in a row of results.

    Args:
        encoder: Any `AutoModel` on spectrograms.
        batches: The data set, for the checkpoint's feature extractor.
        poolings: Some of `POOLINGS`.
        options: `layers`, `batch_size` and `device` of `embed`.

    Returns:
        By `read_out_name`, what each pooling makes of the output and of each layer, and what the checkpoint's own
        `embed` gives; where a model's tokens are no grid, means alone.
    """
    inputs = encoder, batches.feature_extractor, batches.spectrograms(range(len(batches.cache)))
    if not has_token_grid(encoder):
        return {read_out_name(layer, "mean"): vectors for layer, vectors in embed(*inputs, **options).items()}
    config, layers = encoder.config, options.pop("layers", ())
    own = [] if config.embedding_layer in (None, *layers) else [config.embedding_layer]
    wanted = {(layer, pooling) for layer in (None, *layers) for pooling in poolings}
    wanted.add((config.embedding_layer, config.embedding_pooling))
    features: dict[str, np.ndarray] = {}
    for layer, rows in embed(*inputs, layers=[*layers, *own], pooling="mel_std", **options).items():
        means, _ = np.split(rows, 2, axis=1)
        found = {"mean": means.reshape(len(rows), -1, config.hidden_size).mean(axis=1), "mel": means, "mel_std": rows}
        features |= {read_out_name(layer, kind): found[kind] for kind in READ_AS if (layer, kind) in wanted}
    return features


def probe_encoder(
    model: PreTrainedModel,
    batches: Batches,
    *,
    probes: Sequence[str] = ("linear",),
    layers: Sequence[int] = (),
    batch_size: int = 16,
    device: str | torch.device = "cpu",
    seed: int = 0,
    spare_test: bool = False,
) -> dict[str, Any]:
    """Probes of the log-mel, of a random encoder and of the pre-trained one, on the same clips and rounds.

    Args:
        model: Any `AutoModel` on spectrograms.
        batches: The data set, for the checkpoint's feature extractor.
        probes: One or several. `"linear"` and `"neighbours"` read the mean over a clip and, where a model's tokens
            are a grid, the means over time of the mel rows apart, and what the checkpoint's own `embed` gives (of the
            log-mel, mean and deviation); `"attentive"` reads the tokens (of the log-mel, the frames). Rows of all but
            the first say whose they are.
        layers: Layers of both encoders to probe as well, numbered as in `embed`, by every pooling.
        batch_size: Clips at a time in the encoders.
        device: Where the encoders and the attentive probe run; the other probes run on the CPU.
        seed: Of the random encoder's weights.
        spare_test: As in `rounds_of`.

    Returns:
        `dataset`, `protocol`, `metric`, `num_clips`, `num_classes`, `probe` (the first), `seed`, `results` (by
        features, what `probe_features` returns) and `seconds` (by step, wall-clock).

    Raises:
        ValueError: if there is no such probe, or the model has no such layer or no tokens to give.
    """
    if not probes or not set(probes) <= set(PROBES):
        raise ValueError(f"`probes` are some of {list(PROBES)}, and got {list(probes)}.")
    cache = batches.cache
    rounds, clips = rounds_of(cache, spare_test=spare_test), range(len(cache))
    options: dict[str, Any] = {"layers": layers, "batch_size": batch_size, "device": device}

    def of_log_mel(reads_tokens: bool) -> dict[str, Any]:
        if reads_tokens:
            return {"log-mel frames": [frames.half() for frames in batches.spectrograms(clips)]}
        return {LOG_MEL: log_mel_statistics(cache.clip_frames(clip) for clip in clips)}

    def of_encoder(encoder: PreTrainedModel, reads_tokens: bool) -> dict[str, Any]:
        if not reads_tokens:
            return clip_features(encoder, batches, tuple(READ_AS) if layers else ("mean", "mel"), **options)
        inputs = encoder, batches.feature_extractor, batches.spectrograms(clips)
        return {read_out_name(layer, "mean"): tokens for layer, tokens in embed_tokens(*inputs, **options).items()}

    sources: dict[str, Callable[[bool], dict[str, Any]]] = {
        "": of_log_mel,
        f"{RANDOM_ENCODER} (seed {seed})": lambda tokens: of_encoder(random_encoder(model, seed), tokens),
        FROZEN: lambda tokens: of_encoder(model, tokens),
    }
    seconds: dict[str, float] = {}
    results = {}
    for source, features_of in sources.items():
        for tokens in dict.fromkeys(PROBES[probe].reads_tokens for probe in probes):
            started = time.perf_counter()
            found = features_of(tokens)
            seconds[f"features: {source or next(iter(found))}"] = time.perf_counter() - started
            readers = [probe for probe in dict.fromkeys(probes) if PROBES[probe].reads_tokens == tokens]
            for (which, features), probe in itertools.product(found.items(), readers):
                started = time.perf_counter()
                row = f"{source}{which}" + ("" if probe == probes[0] else f", {probe} probe")
                results[row] = probe_features(probe, features, cache, rounds, device)
                seconds[f"probe: {row}"] = time.perf_counter() - started
    return {
        "dataset": cache.dataset_name,
        "protocol": describe_protocol(cache, spare_test=spare_test),
        "metric": cache.metric,
        "num_clips": len(cache),
        "num_classes": len(cache.class_names),
        "probe": probes[0],
        "seed": seed,
        "results": results,
        "seconds": {step: round(value, 3) for step, value in seconds.items()},
    }


def _wide(features: np.ndarray) -> np.ndarray:
    return features.astype(np.float64)


def _taken(features: Any, clips: Sequence[int]) -> Any:
    return features[list(clips)] if isinstance(features, np.ndarray) else [features[clip] for clip in clips]
