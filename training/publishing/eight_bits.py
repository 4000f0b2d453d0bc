"""ONNX files whose linear layers compute in eight bits: how they are made, what they lose and what they gain."""

import re
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from audiopg.modeling.embedding_audiopg import WINDOW_SECONDS
from audiopg.modeling.spectrogram_audiopg import hop_length, samples_spanned
from audiopg.training.evaluation.probes import probe_features
from audiopg.training.evaluation.protocols import describe_protocol, rounds_of
from audiopg.training.evaluation.scores import paired_interval
from audiopg.training.features.batches import Batches
from audiopg.training.publishing.graph_files import (
    Exportable,
    OnnxGraph,
    import_onnx,
    quietly,
    read_facts,
    save_onnx,
    write_graph,
)

TYPES = ("float32", "int8")
"""What is compared."""

_ROUNDS = 9


def quantise(source: Path, file: Path, measured: str | None = None) -> None:
    """Write an ONNX file with the linear layers of the Transformer's blocks in eight bits.

    Weights are kept in int8, a scale for each output; what enters is quantised as it comes, a scale for each call
    (dynamic quantisation of ONNX Runtime): so what a clip gives depends a little on the batch. The front end, the
    patch projection, attention itself and a classifier stay in float32.

    Args:
        source: As `write_graph` wrote it.
        file: To write.
        measured: What `measure_eight_bits` found, in words, for its metadata.

    Raises:
        ImportError: if the packages are missing.
    """
    onnx = import_onnx()
    from onnxruntime.quantization import QuantType, quantize_dynamic

    content = onnx.load(source)
    weights = {tensor.name for tensor in content.graph.initializer}
    linear = [
        node.name
        for node in content.graph.node
        if node.op_type == "MatMul" and node.input[1] in weights and re.search(r"\blayers\.\d", _scope(node))
    ]
    facts = {entry.key: entry.value for entry in content.metadata_props}
    facts |= {"weights": "int8", **({"measured": measured} if measured else {})}
    with tempfile.TemporaryDirectory() as scratch, quietly():
        quantised = Path(scratch) / "int8.onnx"
        quantize_dynamic(source, quantised, nodes_to_quantize=linear, per_channel=True, weight_type=QuantType.QInt8)
        content = onnx.load(quantised)
    file.parent.mkdir(parents=True, exist_ok=True)
    save_onnx(content, facts, file)


def _scope(node: Any) -> str:
    return "".join(entry.value for entry in node.metadata_props if entry.key == "namespace")


def measure_eight_bits(source: Exportable, batches: Batches, threads: int = 1) -> dict[str, Any]:
    """What an encoder's embeddings lose in eight bits, and what its computation gains: both hear the same log-mel.

    Args:
        source: The encoder.
        batches: Labelled clips of at most one window, for its feature extractor.
        threads: Of ONNX Runtime.

    Returns:
        `dataset`, `protocol`, `metric`, `num_clips`; by type of `TYPES` the `results` (rows of linear probes, as from
        `probe_features`), `megabytes` and `milliseconds` (median for the longest clip, in turns); its `clip_seconds`,
        `threads` and how much `faster` int8 is; `points` that its score is above float32's and, where clips have one
        label, the `interval` of that (95 %, see `paired_interval`); and `largest_difference` of an embedding, as a
        share of the largest number.

    Raises:
        ValueError: if the source gives no embedding, or a clip is longer than a window.
        ImportError: if the packages are missing.
    """
    cache, facts = batches.cache, source.facts("spectrogram")
    rate, longest = int(facts["sampling_rate"]), int(cache.lengths.max())
    if source.gives != "embedding":
        raise ValueError("What eight bits lose is measured by probes of an embedding: leave the data out for logits.")
    if longest * hop_length(rate) > int(facts["window_samples"]):
        raise ValueError(
            f"What eight bits lose is measured on clips of at most {WINDOW_SECONDS} s, which a graph hears as `embed` "
            f"does, and {cache.dataset_name} has one of {longest * hop_length(rate) / rate:.1f} s: give other data."
        )
    with tempfile.TemporaryDirectory() as scratch:
        files = {kind: Path(scratch) / f"{kind}.onnx" for kind in TYPES}
        write_graph(source, files["float32"], "spectrogram")
        quantise(files["float32"], files["int8"])
        graphs = {kind: OnnxGraph(file, threads) for kind, file in files.items()}
        megabytes = {kind: round(read_facts(file)["megabytes"], 2) for kind, file in files.items()}
    clip = next(batches.spectrograms([int(cache.lengths.argmax())]))
    seconds = _seconds_in_turns(graphs, clip)
    features = {kind: _embed(graph, batches, kind) for kind, graph in graphs.items()}
    rounds = rounds_of(cache)
    results = {kind: probe_features("linear", found, cache, rounds) for kind, found in features.items()}
    report: dict[str, Any] = {
        "dataset": cache.dataset_name,
        "protocol": describe_protocol(cache),
        "metric": cache.metric,
        "num_clips": len(cache),
        "results": results,
        "megabytes": megabytes,
        "milliseconds": {kind: round(1000 * value, 2) for kind, value in seconds.items()},
        "clip_seconds": round(samples_spanned(longest, rate) / rate, 2),
        "threads": threads,
        "faster": round(seconds["float32"] / seconds["int8"], 2),
        "points": round(100 * (results["int8"]["mean"] - results["float32"]["mean"]), 2),
        "largest_difference": _largest_difference(*features.values()),
    }
    if not cache.multi_label:
        _, *ends = paired_interval(results["int8"]["right"], results["float32"]["right"])
        report["interval"] = [round(100 * end, 2) for end in ends]
    return report


def _largest_difference(first: np.ndarray, second: np.ndarray) -> float:
    return round(float(np.abs(first - second).max() / np.abs(first).max()), 6)


def _embed(graph: OnnxGraph, batches: Batches, name: str) -> np.ndarray:
    """Embeddings of all clips, each by itself: in eight bits a batch would share one scale."""
    clips = tqdm(batches.spectrograms(range(len(batches.cache))), desc=name, total=len(batches.cache), disable=None)
    return np.concatenate([graph(clip[None], _all_real(clip)).numpy() for clip in clips])


def _all_real(clip: torch.Tensor) -> torch.Tensor:
    return torch.ones(1, len(clip), dtype=torch.long)


def _seconds_in_turns(graphs: Mapping[str, OnnxGraph], clip: torch.Tensor) -> dict[str, float]:
    """Median seconds of each for one clip, after one to warm up."""
    taken: dict[str, list[float]] = {kind: [] for kind in graphs}
    for _ in range(1 + _ROUNDS):
        for kind, graph in graphs.items():
            started = time.perf_counter()
            graph(clip[None], _all_real(clip))
            taken[kind].append(time.perf_counter() - started)
    return {kind: median(times[1:]) for kind, times in taken.items()}


def in_words(report: Mapping[str, Any]) -> str:
    """What was measured, as a sentence.

    Example:
        >>> report = {"dataset": "ESC-10", "metric": "accuracy", "points": -0.25, "interval": [-1.0, 0.5]}
        >>> report |= {"faster": 1.5, "threads": 1, "results": {"float32": {"mean": 0.8}, "int8": {"mean": 0.7975}}}
        >>> in_words(report | {"megabytes": {"float32": 7.1, "int8": 2.0}, "clip_seconds": 5.0})
        'linear probe on ESC-10: accuracy 79.75 % where float32 has 80.00 (-0.25 points, 95 % interval ...)...'
    """
    means = {kind: 100 * report["results"][kind]["mean"] for kind in TYPES}
    ends = report.get("interval")
    interval = f", 95 % interval {ends[0]:+.2f} to {ends[1]:+.2f}" if ends else ""
    threads = f"{report['threads']} thread{'s' * (report['threads'] > 1)}"
    return (
        f"linear probe on {report['dataset']}: {report['metric'].replace('_', ' ')} {means['int8']:.2f} % where "
        f"float32 has {means['float32']:.2f} ({report['points']:+.2f} points{interval}); without the front end, "
        f"it is {report['faster']:.2f} times as fast on a clip of {report['clip_seconds']:.1f} s with {threads}, in "
        f"{report['megabytes']['int8']:.1f} MB instead of {report['megabytes']['float32']:.1f}"
    )
