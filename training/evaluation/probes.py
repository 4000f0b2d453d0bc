"""What frozen features are worth: classes by linear, neighbour and attentive probes, factors by ridge regression.

    python training/probe.py CHECKPOINT_FOLDER --esc50_dir FOLDER [--probe neighbours|attentive] [--layers all|0 4 ...]

compares three kinds of features on a benchmark in ESC-50's layout: the log-mel itself, a random encoder of the same
architecture, and the pre-trained one; of the encoders the output and, if asked for, any of their layers, as the mean
of a clip's tokens and with their mel rows kept apart.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, LeaveOneGroupOut
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import Tensor
from tqdm import tqdm
from transformers import BatchFeature, PreTrainedModel

from audiopg.data_scripts.benchmarks import load_esc50
from audiopg.modeling.configuration_audiopg import check_pooling
from audiopg.modeling.feature_extraction_audiopg import AudioPGFeatureExtractor
from audiopg.modeling.modeling_audiopg import valid_patches
from audiopg.training.evaluation.attentive import attentive_probe
from audiopg.training.evaluation.baselines import INVERSE_REGULARISATIONS, LOGISTIC_TOLERANCE
from audiopg.training.features.reading import read_audio_files

NEIGHBOURS = (1, 3, 5, 10, 20, 40)
"""Candidates for the number of neighbours; those that the smallest training part cannot have are left out."""

PROBES = {
    "linear": "linear probe",
    "neighbours": "nearest neighbours",
    "attentive": "attentive probe",
}
"""Names on the command line, and in the head of the table."""

RIDGE_ALPHAS = tuple(float(alpha) for alpha in np.logspace(-3, 5, 17))


def linear_probe(features: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> dict[str, Any]:
    """Accuracy of logistic regression on standardised features, by cross-validation over given folds.

    In each round the strength of the regularisation is chosen by a second cross-validation, over the training folds
    only; the standardisation is fitted on what is being trained on; the test fold is used once, for the accuracy.

    Args:
        features: Shape `(clips, features)`.
        labels: Class of each clip, shape `(clips,)`.
        folds: Fold of each clip, shape `(clips,)`; three or more different ones.

    Returns:
        `fold_accuracies`, in the order of the fold numbers, each in [0, 1]; their `mean`; and `std`, their sample
        standard deviation (divided by folds - 1).

    Raises:
        ValueError: if there are fewer than three folds: one to test on, and two to choose the regularisation.

    Example:
        >>> labels = np.tile([0, 1], 30)
        >>> features = labels[:, None] + 0.1 * np.random.default_rng(0).standard_normal((60, 4))
        >>> linear_probe(features, labels, np.repeat([1, 2, 3], 20))["fold_accuracies"]
        [1.0, 1.0, 1.0]
    """
    classifier = LogisticRegression(max_iter=2000, tol=LOGISTIC_TOLERANCE)
    return _cross_validate(classifier, {"C": INVERSE_REGULARISATIONS}, features, labels, folds)


def neighbours_probe(features: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> dict[str, Any]:
    """Accuracy of a vote of the nearest training clips by cosine similarity, by cross-validation over given folds.

    Votes count by the inverse of the cosine distance; the number of neighbours is chosen as `linear_probe` chooses
    its regularisation. Features are standardised first: what all clips have in common would make all of them similar.

    Args:
        features: Shape `(clips, features)`.
        labels: Class of each clip, shape `(clips,)`.
        folds: Fold of each clip, shape `(clips,)`; three or more different ones.

    Returns:
        As `linear_probe`.

    Raises:
        ValueError: as `linear_probe`.

    Example:
        >>> labels = np.tile([0, 1], 30)
        >>> features = labels[:, None] + 0.1 * np.random.default_rng(0).standard_normal((60, 4))
        >>> neighbours_probe(features, labels, np.repeat([1, 2, 3], 20))["mean"]
        1.0
    """
    sizes = np.sort(np.unique(folds, return_counts=True)[1])
    candidates = [k for k in NEIGHBOURS if k <= sizes[:-2].sum()]
    classifier = KNeighborsClassifier(metric="cosine", weights="distance")
    return _cross_validate(classifier, {"n_neighbors": candidates}, features, labels, folds)


def decode_factors(
    features_train: np.ndarray, targets_train: np.ndarray, features_test: np.ndarray, targets_test: np.ndarray
) -> np.ndarray:
    """How much of each factor of synthesis a linear map reads out of the features: R^2 on held-out clips.

    Ridge regression on standardised features; the penalty of each factor is chosen by leave-one-out on the training
    clips. 1 is perfect, 0 no better than the mean of the held-out targets, and less is worse.

    Args:
        features_train: Shape `(clips, features)`.
        targets_train: Shape `(clips, factors)`, or `(clips,)` for one factor.
        features_test: Shape `(other clips, features)`.
        targets_test: Shape `(other clips, factors)`, or `(other clips,)`.

    Returns:
        R^2 of each factor, shape `(factors,)`.

    Example:
        >>> features = np.random.default_rng(0).standard_normal((100, 3))
        >>> factors = np.stack([features[:, 0] - features[:, 2], 2 * features[:, 1]], axis=1)
        >>> decode_factors(features[:50], factors[:50], features[50:], factors[50:]).round(3).tolist()
        [1.0, 1.0]
    """
    ridge = make_pipeline(StandardScaler(), RidgeCV(alphas=RIDGE_ALPHAS, alpha_per_target=True))
    with threadpool_limits(limits=1):
        ridge.fit(features_train, _columns(targets_train))
        predictions = ridge.predict(features_test)
    return r2_score(_columns(targets_test), _columns(predictions), multioutput="raw_values")


def log_mel_statistics(log_mel: Tensor, mask: Tensor) -> Tensor:
    """Mean and standard deviation over time of each mel band: the features that an encoder has to beat.

    Args:
        log_mel: Log-mel energies, standardised or not, shape `(batch, frames, bands)`.
        mask: 1 for real frames, 0 for padding, shape `(batch, frames)`.

    Returns:
        Shape `(batch, 2 * bands)`: all means, then all standard deviations (divided by the number of frames).

    Example:
        >>> log_mel_statistics(torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([[1, 1, 0]]))
        tensor([[2., 1.]])
    """
    weights = (mask / mask.sum(dim=1, keepdim=True))[:, :, None].to(log_mel.dtype)
    mean = (weights * log_mel).sum(dim=1, keepdim=True)
    variance = (weights * (log_mel - mean).square()).sum(dim=1)
    return torch.cat([mean[:, 0], variance.sqrt()], dim=1)


def embed(
    model: PreTrainedModel,
    feature_extractor: AudioPGFeatureExtractor,
    waveforms: Sequence[Tensor] | Sequence[np.ndarray],
    batch_size: int = 16,
    device: str | torch.device = "cpu",
) -> np.ndarray:
    """Mean of the patch tokens of a frozen encoder, for each clip, as in `AudioPGModel.embed`.

    Args:
        model: An `AudioPGModel`; it is moved to `device`, and its training mode is left as it was found.
        feature_extractor: The checkpoint's own.
        waveforms: Mono clips at the extractor's sampling rate, of any lengths.
        batch_size: Clips at a time.
        device: Where to compute.

    Returns:
        Shape `(clips, hidden_size)`, float32.
    """
    tokens = embed_tokens(model, feature_extractor, waveforms, [None], batch_size, device, pooling="mean")
    return pooled(tokens[None])


@torch.inference_mode()
def embed_tokens(
    model: PreTrainedModel,
    feature_extractor: AudioPGFeatureExtractor,
    waveforms: Sequence[Tensor] | Sequence[np.ndarray],
    layers: Sequence[int | None],
    batch_size: int = 16,
    device: str | torch.device = "cpu",
    *,
    pooling: str | None = None,
) -> dict[int | None, list[Tensor]]:
    """Patch tokens of a frozen encoder at one or more of its layers, in one pass over the clips.

    Args:
        model: An `AudioPGModel`; it is moved to `device`, and its training mode is left as it was found.
        feature_extractor: The checkpoint's own.
        waveforms: Mono clips at the extractor's sampling rate, of any lengths.
        layers: 0 is what enters the first block, `k` what leaves block `k`, and None the output after the final norm.
        batch_size: Clips at a time.
        device: Where to compute.
        pooling: Whether to keep only a mean over a clip: of all its tokens ("mean"), or over time, its mel rows side
            by side ("mel").

    Returns:
        For each layer and each clip its valid patch tokens, shape `(tokens, hidden_size)`, float16, on the CPU: 0.4 GB
        for 1000 clips of 5 s with the paper's model. With a `pooling` a single row, in float32.

    Example:
        >>> from audiopg import AudioPGConfig, AudioPGModel
        >>> config = AudioPGConfig(hidden_size=12, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8)
        >>> clips = [torch.zeros(16000), torch.zeros(400)]
        >>> tokens = embed_tokens(AudioPGModel(config), AudioPGFeatureExtractor(), clips, layers=[None, 1])
        >>> [clip.shape for clip in tokens[1]]
        [torch.Size([56, 12]), torch.Size([8, 12])]
    """
    if pooling is not None:
        check_pooling("pooling", pooling)
    was_training = model.training
    model.to(device).eval()  # type: ignore[arg-type]
    columns, inner = model.config.num_mel_patches, [k for k in layers if k is not None]
    tokens: dict[int | None, list[Tensor]] = {layer: [] for layer in layers}
    for inputs in _input_batches(feature_extractor, waveforms, batch_size, device, "Embedding"):
        outputs = model(**inputs, output_hidden_states=bool(inner))
        valid = valid_patches(inputs["attention_mask"], model.config.patch_size, columns)
        for layer in layers:
            hidden_states = outputs.last_hidden_state if layer is None else outputs.hidden_states[layer]
            for clip, real in zip(hidden_states[:, 1:], valid, strict=True):
                kept = clip[real].float()
                if pooling == "mel":
                    kept = kept.unflatten(0, (-1, columns)).flatten(1)
                tokens[layer].append(kept.mean(dim=0, keepdim=True).cpu() if pooling else kept.half().cpu())
    model.train(was_training)
    return tokens


def pooled(tokens: Sequence[Tensor]) -> np.ndarray:
    """Mean over the tokens of each clip, shape `(clips, hidden_size)`, float32.

    Example:
        >>> pooled([torch.tensor([[1.0, 2.0], [3.0, 4.0]])]).tolist()
        [[2.0, 3.0]]
    """
    return torch.stack([clip.float().mean(dim=0) for clip in tokens]).numpy()


@torch.inference_mode()
def log_mel_tokens(
    feature_extractor: AudioPGFeatureExtractor,
    waveforms: Sequence[Tensor] | Sequence[np.ndarray],
    batch_size: int = 16,
    device: str | torch.device = "cpu",
) -> list[Tensor]:
    """Standardised log-mel frames of each clip, `(frames, bands)`, float16; the arguments are those of `embed`."""
    batches = _input_batches(feature_extractor, waveforms, batch_size, device, "Log-mel")
    return [
        frames[mask.bool()].half().cpu()
        for inputs in batches
        for frames, mask in zip(inputs["input_values"], inputs["attention_mask"], strict=True)
    ]


@torch.inference_mode()
def log_mel_features(
    feature_extractor: AudioPGFeatureExtractor,
    waveforms: Sequence[Tensor] | Sequence[np.ndarray],
    batch_size: int = 16,
    device: str | torch.device = "cpu",
) -> np.ndarray:
    """`log_mel_statistics` of each clip, shape `(clips, 2 * bands)`; the arguments are those of `embed`."""
    batches = _input_batches(feature_extractor, waveforms, batch_size, device, "Log-mel statistics")
    features = [log_mel_statistics(inputs["input_values"], inputs["attention_mask"]).cpu() for inputs in batches]
    return torch.cat(features).numpy()


def random_encoder(model: PreTrainedModel, seed: int) -> PreTrainedModel:
    """An encoder of the same configuration that has learnt nothing; the global random state is left alone.

    Example:
        >>> from audiopg import AudioPGConfig, AudioPGModel
        >>> config = AudioPGConfig(hidden_size=12, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
        >>> random_encoder(AudioPGModel(config), seed=0).num_parameters() == AudioPGModel(config).num_parameters()
        True
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return type(model)(model.config)


def probe_benchmark(
    model: PreTrainedModel,
    feature_extractor: AudioPGFeatureExtractor,
    esc50_dir: str | Path,
    *,
    probe: str = "linear",
    layers: Sequence[int] = (),
    batch_size: int = 16,
    device: str | torch.device = "cpu",
    seed: int = 0,
) -> dict[str, Any]:
    """Probes of the log-mel, of a random encoder and of the pre-trained one, on the same clips and folds.

    Args:
        model: The pre-trained `AudioPGModel`.
        feature_extractor: The checkpoint's own.
        esc50_dir: A folder in ESC-50's layout (see `load_esc50`).
        probe: `"linear"` and `"neighbours"` read the mean over a clip, and the mean over time with the mel rows apart
            (of the log-mel, mean and deviation); `"attentive"` reads its tokens (of the log-mel, its frames).
        layers: Layers of both encoders to probe as well, numbered as in `embed_tokens`.
        batch_size: Clips at a time in the encoders.
        device: Where the encoders and the attentive probe run; the other probes run on the CPU.
        seed: Of the random encoder's weights.

    Returns:
        `benchmark`, `num_clips`, `num_classes`, `probe`, `seed`, `results` (by features, what `linear_probe` returns)
        and `seconds` (by step, wall-clock).

    Raises:
        ValueError: if there is no such probe or no such layer.
    """
    _check_choice(probe, layers, model.config.num_hidden_layers)
    dataset = load_esc50(esc50_dir)
    seconds: dict[str, float] = {}
    started = time.perf_counter()
    waveforms = read_audio_files(dataset["audio"], feature_extractor.sampling_rate)
    seconds["read"] = time.perf_counter() - started

    labels, folds = np.array(dataset["label"]), np.array(dataset["fold"])
    tokens, attentive = (feature_extractor, waveforms, batch_size, device), probe == "attentive"

    def of_encoder(encoder: PreTrainedModel) -> dict[str, Any]:
        inputs = (encoder, feature_extractor, waveforms, [None, *layers], batch_size, device)
        found = embed_tokens(*inputs, pooling=None if attentive else "mel")
        features: dict[str, Any] = {}
        for layer, clips in found.items():
            name = "" if layer is None else f", layer {layer}"
            if attentive:
                features[name] = clips
            else:
                rows = pooled(clips)
                features[name] = rows.reshape(len(rows), -1, model.config.hidden_size).mean(axis=1)
                features[f"{name}, mel rows apart"] = rows
        return features

    log_mel = "log-mel frames" if attentive else "log-mel mean and deviation"
    sources: dict[str, Callable[[], dict[str, Any]]] = {
        log_mel: lambda: {"": log_mel_tokens(*tokens) if attentive else log_mel_features(*tokens)},
        f"random encoder (seed {seed})": lambda: of_encoder(random_encoder(model, seed)),
        "pre-trained encoder": lambda: of_encoder(model),
    }
    results = {}
    for source, features_of in sources.items():
        started = time.perf_counter()
        found = features_of()
        seconds[f"features: {source}"] = time.perf_counter() - started
        for which, features in found.items():
            name = source + which
            started = time.perf_counter()
            results[name] = _run_probe(probe, features, labels, folds, device)
            seconds[f"probe: {name}"] = time.perf_counter() - started
    return {
        "benchmark": dataset.info.dataset_name,
        "num_clips": len(dataset),
        "num_classes": dataset.features["label"].num_classes,
        "probe": probe,
        "seed": seed,
        "results": results,
        "seconds": {step: round(value, 3) for step, value in seconds.items()},
    }


def format_results(report: dict[str, Any]) -> str:
    """The results of `probe_benchmark` as a Markdown table, in per cent.

    Example:
        >>> result = {"fold_accuracies": [0.5, 0.75], "mean": 0.625, "std": 0.17677}
        >>> print(format_results({"benchmark": "ESC-10", "probe": "linear", "results": {"log-mel": result}}))
        | ESC-10, linear probe | mean | std | folds |
        |---|---|---|---|
        | log-mel | 62.50 | 17.68 | 50.0 75.0 |
    """
    lines = [f"| {report['benchmark']}, {PROBES[report['probe']]} | mean | std | folds |", "|---|---|---|---|"]
    for name, result in report["results"].items():
        folds = " ".join(f"{100 * accuracy:.1f}" for accuracy in result["fold_accuracies"])
        lines.append(f"| {name} | {100 * result['mean']:.2f} | {100 * result['std']:.2f} | {folds} |")
    return "\n".join(lines)


def _check_choice(probe: str, layers: Sequence[int], num_hidden_layers: int) -> None:
    if probe not in PROBES:
        raise ValueError(f"`probe` is one of {list(PROBES)}, and got {probe!r}.")
    missing = [layer for layer in layers if not 0 <= layer <= num_hidden_layers]
    if missing:
        raise ValueError(
            f"Layers are numbered from 0, what enters the first block, to {num_hidden_layers}, what leaves the last, "
            f"and got {missing}. Leave them out; the output after the final norm is always probed."
        )


def _run_probe(
    probe: str, features: Any, labels: np.ndarray, folds: np.ndarray, device: str | torch.device
) -> dict[str, Any]:
    if probe == "attentive":
        return attentive_probe(features, labels, folds, device=device)
    return (linear_probe if probe == "linear" else neighbours_probe)(features, labels, folds)


def _cross_validate(
    classifier: Any, candidates: dict[str, Sequence], features: np.ndarray, labels: np.ndarray, folds: np.ndarray
) -> dict[str, Any]:
    """Test on each fold in turn, with what the other folds choose among the candidates."""
    numbers = np.unique(folds)
    if len(numbers) < 3:
        raise ValueError(
            f"A probe needs at least 3 folds (one to test on, two to choose its setting), and got {len(numbers)}. "
            "Give the benchmark's own folds."
        )
    name = type(classifier).__name__.lower()
    grid = {f"{name}__{setting}": values for setting, values in candidates.items()}
    pipeline = make_pipeline(StandardScaler(), classifier)
    accuracies = [_fold_accuracy(pipeline, grid, features, labels, folds, test_fold) for test_fold in numbers]
    return {
        "fold_accuracies": accuracies,
        "mean": float(np.mean(accuracies)),
        "std": float(np.std(accuracies, ddof=1)),
    }


def _fold_accuracy(
    pipeline: Pipeline,
    grid: dict[str, Sequence],
    features: np.ndarray,
    labels: np.ndarray,
    folds: np.ndarray,
    test_fold: int,
) -> float:
    train, test = folds != test_fold, folds == test_fold
    search = GridSearchCV(pipeline, grid, cv=LeaveOneGroupOut())
    # Hundreds of steps on matrices this small: threads of the linear algebra would wait for each other, on a busy
    # machine twenty times longer than one thread works.
    with threadpool_limits(limits=1):
        search.fit(features[train], labels[train], groups=folds[train])
        return float(search.score(features[test], labels[test]))


def _columns(values: np.ndarray) -> np.ndarray:
    """`(clips,)` or `(clips, factors)` to `(clips, factors)`."""
    return values.reshape(len(values), -1)


def _input_batches(
    feature_extractor: AudioPGFeatureExtractor,
    waveforms: Sequence[Tensor] | Sequence[np.ndarray],
    batch_size: int,
    device: str | torch.device,
    description: str,
) -> Iterator[BatchFeature]:
    """Model inputs of `batch_size` clips at a time, with a progress bar."""
    for start in tqdm(range(0, len(waveforms), batch_size), desc=description, unit="batch", disable=None):
        batch: list[Any] = list(waveforms[start : start + batch_size])
        yield feature_extractor(batch, sampling_rate=feature_extractor.sampling_rate, device=device)
