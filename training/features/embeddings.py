"""What classifiers read of clips: embeddings of any encoder on spectrograms, and statistics of the log-mel itself.

Every function takes spectrograms one by one, standardised frames `(frames, bands)` without padding: those of a cache
(`Batches.spectrograms`) or of waveforms (`spectrograms_of`). Our models hear recordings longer than a window in
windows, so that an embedding is that of their `embed`. Any other takes clips whole, all of one length, and is read at
its `pooler_output` or, without one, at the mean of its tokens.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel

from audiopg.modeling.configuration_audiopg import check_pooling
from audiopg.modeling.embedding_audiopg import pool_moments, spectrogram_embeddings, time_patch_stacks
from audiopg.modeling.modeling_doppelganger import DoppelgangerModel


def model_digest(model: PreTrainedModel, feature_extractor: Any) -> str:
    """16 hexadecimal digits that change when a weight, the read-out or the front end does; names change nothing.

    Args:
        model: Of any head; the weights are hashed as they are computed with.
        feature_extractor: The checkpoint's own.

    Returns:
        The first digits of a SHA-256.

    Example:
        >>> from audiopg import AudioPGConfig, AudioPGFeatureExtractor, AudioPGModel
        >>> config = AudioPGConfig(hidden_size=12, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
        >>> model, extractor = AudioPGModel(config), AudioPGFeatureExtractor()
        >>> before = model_digest(model, extractor)
        >>> model.config.embedding_pooling = "mel"
        >>> model_digest(model, extractor) == before
        False
    """
    incidental = {"architectures", "auto_map", "transformers_version", "_name_or_path", "custom_pipelines", "dtype"}
    incidental |= {"minimum_transformers_version", "id2label", "label2id", "statistics", "_processor_class"}
    settings = [
        {name: value for name, value in described.to_dict().items() if name not in incidental}
        for described in (model.config, feature_extractor)
    ]
    digest = hashlib.sha256(json.dumps([type(model).__name__, *settings], sort_keys=True, default=str).encode())
    for name, weights in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(weights.cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def spectrograms_of(feature_extractor: Any, waveforms: Iterable[Any]) -> Iterator[Tensor]:
    """Standardised frames of waveforms.

    Args:
        feature_extractor: One of ours.
        waveforms: Mono, at its rate, of any lengths.

    Yields:
        For each `(frames, bands)`.

    Example:
        >>> from audiopg import AudioPGFeatureExtractor
        >>> [frames.shape for frames in spectrograms_of(AudioPGFeatureExtractor(), [torch.zeros(16000)])]
        [torch.Size([98, 128])]
    """
    for waveform in waveforms:
        inputs = feature_extractor(waveform, sampling_rate=feature_extractor.sampling_rate)
        yield inputs["input_values"][0][inputs["attention_mask"][0].bool()]


def log_mel_statistics(spectrograms: Iterable[Tensor]) -> np.ndarray:
    """Mean and standard deviation over time of each mel band: the features that an encoder has to beat.

    Args:
        spectrograms: Of each clip `(frames, bands)`, raw or standardised.

    Returns:
        Float64, shape `(clips, 2 * bands)`: all means, then all standard deviations (divided by the frames).

    Example:
        >>> log_mel_statistics([torch.tensor([[1.0], [3.0]])])
        array([[2., 1.]])
    """
    wide = (frames.double().cpu() for frames in spectrograms)
    return torch.stack([torch.cat([f.mean(dim=0), f.std(dim=0, correction=0)]) for f in wide]).numpy()


def has_token_grid(model: PreTrainedModel) -> bool:
    """Whether a model's tokens are a class token and patches in rows of time, so that mel rows can be told apart."""
    return hasattr(model.config, "num_mel_patches")


def hears_windows(model: PreTrainedModel) -> bool:
    """Whether a model takes clips of any length, in windows: ours do."""
    return has_token_grid(model) or isinstance(model, DoppelgangerModel)


def embed(
    model: PreTrainedModel,
    feature_extractor: Any,
    spectrograms: Iterable[Tensor],
    *,
    layers: Sequence[int] = (),
    pooling: str = "mean",
    batch_size: int = 16,
    device: str | torch.device = "cpu",
) -> dict[int | None, np.ndarray]:
    """One vector for each clip of a frozen encoder.

    Args:
        model: Any `AutoModel` on spectrograms; it is moved to `device`, and its training mode left as it was found.
        feature_extractor: The checkpoint's own.
        spectrograms: Of the clips.
        layers: Layers beside the output: 0 is what enters the first block, `k` what leaves block `k`.
        pooling: What is kept of the tokens, one of `POOLINGS`.
        batch_size: Clips, or windows of them, at a time.
        device: Where to compute.

    Returns:
        By layer, the output being None: shape `(clips, hidden_size)`, as much wider as there are rows with "mel", and
        twice that with "mel_std"; float32.

    Raises:
        ValueError: if the model has no such layer, or no rows.

    Example:
        >>> from audiopg import AudioPGConfig, AudioPGFeatureExtractor, AudioPGModel
        >>> config = AudioPGConfig(hidden_size=12, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8)
        >>> clips = [torch.zeros(98, 128), torch.zeros(1500, 128)]
        >>> embed(AudioPGModel(config), AudioPGFeatureExtractor(), clips, pooling="mel")[None].shape
        (2, 96)
    """
    check_pooling("pooling", pooling)
    _check_layers(model, layers)
    if pooling != "mean" and not has_token_grid(model):
        raise ValueError(f"pooling is mean for a {type(model).__name__}, which has no rows; got {pooling!r}.")
    if not hears_windows(model):
        outputs = _outputs(model, spectrograms, batch_size, device)
        return {None: torch.cat([_pooled(found) for found in outputs]).numpy()}
    found: dict[int | None, list[Tensor]] = {layer: [] for layer in (None, *layers)}
    for grids in _grids(model, feature_extractor, spectrograms, layers, batch_size, device):
        for layer, grid in grids.items():
            found[layer].append(grid.mean(dim=(0, 1)) if pooling == "mean" else pool_moments(grid.flatten(1), pooling))
    return {layer: torch.stack(vectors).numpy() for layer, vectors in found.items()}


def embed_tokens(
    model: PreTrainedModel,
    feature_extractor: Any,
    spectrograms: Iterable[Tensor],
    *,
    layers: Sequence[int] = (),
    batch_size: int = 16,
    device: str | torch.device = "cpu",
) -> dict[int | None, list[Tensor]]:
    """All tokens of each clip of a frozen encoder; the arguments are those of `embed`.

    Returns:
        By layer, for each clip its tokens (of a grid, its patches; of a `DoppelgangerModel`, its windows), shape
        `(tokens, hidden_size)`, float16, on the CPU: 0.4 GB for 1000 clips of 5 s with the paper's model.

    Raises:
        ValueError: if the model has no such layer.

    Example:
        >>> from audiopg import AudioPGConfig, AudioPGFeatureExtractor, AudioPGModel
        >>> config = AudioPGConfig(hidden_size=12, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8)
        >>> clips = [torch.zeros(98, 128), torch.zeros(1, 128)]
        >>> tokens = embed_tokens(AudioPGModel(config), AudioPGFeatureExtractor(), clips, layers=[1])
        >>> [clip.shape for clip in tokens[1]]
        [torch.Size([56, 12]), torch.Size([8, 12])]
    """
    _check_layers(model, layers)
    if not hears_windows(model):
        outputs = _outputs(model, spectrograms, batch_size, device)
        return {None: [clip.half().cpu() for found in outputs for clip in found.last_hidden_state]}
    found: dict[int | None, list[Tensor]] = {layer: [] for layer in (None, *layers)}
    for grids in _grids(model, feature_extractor, spectrograms, layers, batch_size, device):
        for layer, grid in grids.items():
            found[layer].append(grid.flatten(0, 1).half())
    return found


def random_encoder(model: PreTrainedModel, seed: int) -> PreTrainedModel:
    """An encoder of the same configuration that has learnt nothing; the global random state is left alone.

    Where a model has batch normalisation, as a `DoppelgangerModel` has, the running means are 0 and the variances 1:
    no data were seen, and in evaluation channels are not normalised, as they are from the first step of training on.

    Example:
        >>> from audiopg import AudioPGConfig, AudioPGModel
        >>> config = AudioPGConfig(hidden_size=12, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
        >>> random_encoder(AudioPGModel(config), seed=0).num_parameters() == AudioPGModel(config).num_parameters()
        True
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return type(model)(model.config)


def _check_layers(model: PreTrainedModel, layers: Sequence[int]) -> None:
    if layers and not has_token_grid(model):
        raise ValueError(
            f"Layers are those of our own models on patches, and this is a {type(model).__name__}. Leave them out."
        )
    missing = [layer for layer in layers if not 0 <= layer <= model.config.num_hidden_layers]
    if missing:
        raise ValueError(
            f"Layers are numbered from 0, what enters the first block, to {model.config.num_hidden_layers}, what "
            f"leaves the last, and got {missing}. Leave them out; the output after the final norm is always there."
        )


@contextmanager
def _evaluating(model: PreTrainedModel, device: str | torch.device) -> Iterator[None]:
    was_training = model.training
    model.to(device).eval()  # type: ignore[arg-type]
    try:
        yield
    finally:
        model.train(was_training)


@torch.inference_mode()
def _grids(
    model: PreTrainedModel,
    feature_extractor: Any,
    spectrograms: Iterable[Tensor],
    layers: Sequence[int],
    batch_size: int,
    device: str | torch.device,
) -> Iterator[dict[int | None, Tensor]]:
    """Of each clip, by layer, the tokens of its patches `(time, mel, hidden_size)`, float32, on the CPU."""
    columns = model.config.num_mel_patches if has_token_grid(model) else 1

    def encode(inputs: dict[str, Tensor]) -> Tensor:
        if isinstance(model, DoppelgangerModel):
            return model.time_patch_embeddings(inputs)
        outputs = model(**inputs, output_hidden_states=bool(layers))
        chosen = [outputs.last_hidden_state, *(outputs.hidden_states[layer] for layer in layers)]
        return torch.cat([time_patch_stacks(hidden_states, columns) for hidden_states in chosen], dim=-1)

    with _evaluating(model, device):
        for stacks in spectrogram_embeddings(
            encode,
            tqdm(spectrograms, desc="Embedding", unit="clip", disable=None),
            device=device,
            **feature_extractor.patch_grid,
            padding_value=feature_extractor.padding_value,
            batch_size=batch_size,
        ):
            by_layer = stacks.cpu().unflatten(-1, (1 + len(layers), columns, -1)).unbind(dim=1)
            yield dict(zip((None, *layers), by_layer, strict=True))


@torch.inference_mode()
def _outputs(
    model: PreTrainedModel, spectrograms: Iterable[Tensor], batch_size: int, device: str | torch.device
) -> Iterator[Any]:
    """What a model says of batches of clips of one length."""
    with _evaluating(model, device):
        clips = iter(tqdm(spectrograms, desc="Embedding", unit="clip", disable=None))
        while batch := list(islice(clips, batch_size)):
            yield model(torch.stack(batch).to(device))


def _pooled(outputs: Any) -> Tensor:
    read = getattr(outputs, "pooler_output", None)
    return (outputs.last_hidden_state.mean(dim=1) if read is None else read).float().cpu()
