"""What features tell of each factor of synthesis, for a pre-trained encoder, a random one and the log-mel alike."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from audiopg.data_scripts.probe_clips import FACTORS, PROBE_SEED, PROBE_SETS, FactorClips, held_clips, probe_clips
from audiopg.data_scripts.synthesis import Preset
from audiopg.modeling.feature_extraction_audiopg import LogMelFeatureExtractor
from audiopg.modeling.modeling_audiopg import AudioPGModel
from audiopg.modeling.modeling_doppelganger import DoppelgangerModel
from audiopg.training.evaluation.factor_scores import (
    chance,
    decode,
    disentanglement_and_completeness,
    factor_entropy,
    importances,
    information_gap,
    neuron_information,
    principal_components,
)
from audiopg.training.features.embeddings import (
    embed,
    has_token_grid,
    log_mel_statistics,
    random_encoder,
    spectrograms_of,
)

SOURCES = ("log-mel", "random", "pre-trained")
"""What is compared: the mean and deviation of each log-mel band, and the mean patch token of two encoders."""

PAPER_SET = "one event"
"""The set whose embeddings are taken apart into components; the paper's three factors vary in it."""


@dataclass(frozen=True)
class Design:
    """Which clips are measured: indices count from 0 in the stream of `seed`.

    Args:
        num_clips: Of each probe set; the last third is held out.
        num_held: Clips in which one factor varies alone; the last third is held out.
        information_clips: The first so many of a probe set, for mutual information, whose cost is that of sorting.
        seed: The stream; also that of the random encoder, of permutations and of the trees.
    """

    num_clips: int = 900
    num_held: int = 240
    information_clips: int = 500
    seed: int = PROBE_SEED

    def __post_init__(self) -> None:
        """Refuse what cannot be measured."""
        for name in ("num_clips", "num_held", "information_clips"):
            if getattr(self, name) < 24:
                raise ValueError(f"{name} is 24 or more, got {getattr(self, name)}: less says nothing.")

    def indices(self) -> dict[str, list[int]]:
        """First and last clip of each part, both included.

        Example:
            >>> Design(num_clips=90).indices()["train"], Design(num_clips=90).indices()["test"]
            ([0, 59], [60, 89])
        """
        cut, held = _cut(self.num_clips), _cut(self.num_held)
        return {
            "train": [0, cut - 1],
            "test": [cut, self.num_clips - 1],
            "information": [0, min(self.information_clips, self.num_clips) - 1],
            "held train": [0, held - 1],
            "held test": [held, self.num_held - 1],
        }


@dataclass(frozen=True)
class Encoders:
    """What makes features out of waveforms.

    Args:
        pretrained: The encoder in question.
        random: One that has learnt nothing.
        feature_extractor: Of both.
        batch_size: Clips at a time.
        device: Where both run.
    """

    pretrained: AudioPGModel | DoppelgangerModel
    random: AudioPGModel | DoppelgangerModel
    feature_extractor: LogMelFeatureExtractor
    batch_size: int = 16
    device: str = "cpu"

    def features(self, clips: FactorClips) -> tuple[dict[str, np.ndarray], dict[str, list[np.ndarray]]]:
        """Features of each source, `(clips, neurons)`; and for each encoder those at every layer, first to last.

        An encoder that is no Transformer on patches has no layers here.
        """
        layers = list(range(self.pretrained.config.num_hidden_layers + 1)) if has_token_grid(self.pretrained) else []
        spectrograms = list(spectrograms_of(self.feature_extractor, clips.waveforms))
        output, by_layer = {"log-mel": log_mel_statistics(spectrograms)}, {}
        for source, model in (("random", self.random), ("pre-trained", self.pretrained)):
            inputs = model, self.feature_extractor, spectrograms
            found = embed(*inputs, layers=layers, batch_size=self.batch_size, device=self.device)
            output[source], by_layer[source] = found[None], [found[layer] for layer in layers]
        return output, by_layer


def _cut(num_clips: int) -> int:
    """Clips to train on, two thirds."""
    return 2 * num_clips // 3


def _decoded(features: np.ndarray, values: np.ndarray, kind: str) -> float:
    cut = _cut(len(values))
    return decode(features[:cut], values[:cut], features[cut:], values[cut:], kind)


def _permuted(values: np.ndarray, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(values)


def score_factor(
    features: Mapping[str, np.ndarray],
    layers: Mapping[str, list[np.ndarray]],
    values: np.ndarray,
    kind: str,
    design: Design,
) -> dict[str, Any]:
    """All that is measured of one factor on one set of clips.

    Args:
        features: By source, each of shape `(clips, neurons)`; `pre-trained` among them.
        layers: For each encoder, features at every layer.
        values: The factor, shape `(clips,)`.
        kind: Of the factor.
        design: How many clips go into mutual information, and the seed.

    Returns:
        `chance`; `decoding` by source, and by `permuted`: the pre-trained features with the values shuffled; `layers`
        (scores by encoder); `information` (nats by neuron, by source and `permuted`), `best` (`neuron`,
        `information`, `gap` and `gap_nats` by source).
    """
    cut, shuffled = _cut(len(values)), _permuted(values, design.seed)
    first = slice(design.information_clips)
    everything = {source: (x, values) for source, x in features.items()}
    everything["permuted"] = (features["pre-trained"], shuffled)
    information = {
        source: neuron_information(x[first], y[first], kind, seed=0) for source, (x, y) in everything.items()
    }
    entropy = factor_entropy(values[first], kind)
    best = {
        source: {
            "neuron": int(nats.argmax()),
            "information": float(nats.max()),
            "gap": information_gap(nats, entropy),
            "gap_nats": information_gap(nats, 1.0),
        }
        for source, nats in information.items()
    }
    return {
        "chance": chance(values[:cut], values[cut:], kind),
        "decoding": {source: _decoded(x, y, kind) for source, (x, y) in everything.items()},
        "layers": {source: [_decoded(x, values, kind) for x in by_layer] for source, by_layer in layers.items()},
        "information": {source: nats.round(4).tolist() for source, nats in information.items()},
        "best": best,
    }


def score_components(
    features: Mapping[str, np.ndarray], factors: Mapping[str, np.ndarray], design: Design
) -> dict[str, Any]:
    """Principal components of each source, and what those of the pre-trained encoder tell of each factor.

    Returns:
        `shares` (by source), `information` (nats by factor and component) and `scores`, the coordinates of the clips.
    """
    components = {source: principal_components(x) for source, x in features.items()}
    scores, first = components["pre-trained"].scores, slice(design.information_clips)
    information = {
        name: neuron_information(scores[first], values[first], FACTORS[name].kind).round(4).tolist()
        for name, values in factors.items()
    }
    shares = {source: found.shares.tolist() for source, found in components.items()}
    return {"shares": shares, "information": information, "scores": scores}


def analyse_factors(encoders: Encoders, preset: Preset, design: Design) -> dict[str, Any]:
    """Everything about every factor.

    Args:
        encoders: What makes features.
        preset: Whose clips.
        design: Which clips.

    Returns:
        `factors` (as `score_factor`, with `held`: decoding where the factor varies alone), `dci` (by source, and
        `permuted`), `components` (as `score_components`) and, for the figures, `scatters` and `values`.
    """
    factors: dict[str, Any] = {}
    scatters: dict[str, Any] = {}
    importance: dict[str, list[np.ndarray]] = {source: [] for source in (*SOURCES, "permuted")}
    components: dict[str, Any] = {}
    values_of: dict[str, np.ndarray] = {}
    for probe_set in tqdm(PROBE_SETS, desc="probe sets", unit="set", disable=None):
        clips = probe_clips(preset, probe_set, design.num_clips, design.seed)
        features, layers = encoders.features(clips)
        for name, values in clips.factors.items():
            kind = FACTORS[name].kind
            factors[name] = score_factor(features, layers, values, kind, design)
            for source, x in features.items():
                importance[source].append(importances(x, values, kind))
            shuffled = _permuted(values, design.seed)
            importance["permuted"].append(importances(features["pre-trained"], shuffled, kind))
            held = held_clips(preset, name, design.num_held, design.seed)
            held_features, _ = encoders.features(held)
            factors[name]["held"] = {
                source: _decoded(x, held.factors[name], kind) for source, x in held_features.items()
            }
            best = factors[name]["best"]["pre-trained"]
            scatters[name] = {
                **{key: best[key] for key in ("neuron", "information")},
                "values": values,
                "activations": features["pre-trained"][:, best["neuron"]],
                "held_values": held.factors[name],
                "held_activations": held_features["pre-trained"][:, best["neuron"]],
            }
        if probe_set == PAPER_SET:
            components, values_of = score_components(features, clips.factors, design), clips.factors
    scores = {source: disentanglement_and_completeness(np.stack(r, axis=1)) for source, r in importance.items()}
    dci = {source: {"disentanglement": d, "completeness": c} for source, (d, c) in scores.items()}
    ordered = {name: factors[name] for name in FACTORS}
    return {"factors": ordered, "dci": dci, "components": components, "scatters": scatters, "values": values_of}


def encoders_of(
    model: AudioPGModel | DoppelgangerModel,
    feature_extractor: LogMelFeatureExtractor,
    seed: int,
    batch_size: int = 16,
    device: str | None = None,
) -> Encoders:
    """The pre-trained encoder beside a random one of its shape."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    random: Any = random_encoder(model, seed)
    return Encoders(model, random, feature_extractor, batch_size, device)
