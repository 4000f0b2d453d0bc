"""Encoders from samples to an embedding, each as its users run it, one clip at a time.

`prepare` notes the memory of the process when the libraries of this way are there and no weights are, so that what it
takes more is that of the model and of hearing a clip. ONNX Runtime's ways import no torch. Linux alone tells the peak
of this process: what `getrusage` has begins with that of the process which started it.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

RATE = 16000


def prepare(
    way: str, seconds: float, batch_size: int, checkpoint: str, threads: int, device: str
) -> tuple[float, Callable[[int], dict[str, int]]]:
    """A clip of noise and what embeds it.

    Args:
        way: One of `WAYS`.
        seconds: Length of the clip.
        batch_size: Clips at a time.
        checkpoint: Folder of the checkpoint, or, for ONNX Runtime's ways, the file.
        threads: Of the computation.
        device: Always the CPU.

    Returns:
        Seconds of audio in a batch, and what embeds one and returns the bytes of memory that were held `before` the
        weights were there, and the `peak` so far.
    """
    del device
    clips = 0.1 * np.random.default_rng(0).standard_normal((batch_size, round(seconds * RATE))).astype(np.float32)
    begin = WAYS[way]
    load = begin(threads)
    before = _resident("VmRSS")
    embed = load(checkpoint)

    def make(step: int) -> dict[str, int]:
        embedding = embed(clips)
        assert len(embedding) == batch_size
        assert np.isfinite(embedding).all()
        return {"before": before, "peak": _resident("VmHWM")}

    return batch_size * seconds, make


def _resident(name: str) -> int:
    """Resident memory in bytes: now (`VmRSS`), or the most since this program began (`VmHWM`)."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(1024 * int(line.split()[1]) for line in status if line.startswith(f"{name}:"))


Embed = Callable[[np.ndarray], Any]
Load = Callable[[str], Embed]


def _torch(threads: int) -> Any:
    import torch

    torch.set_num_threads(threads)
    return torch


def eager(threads: int) -> Load:
    """`model.embed`."""
    _torch(threads)
    from transformers import AutoFeatureExtractor, AutoModel

    import audiopg  # noqa: F401 - registers our classes

    def load(checkpoint: str) -> Embed:
        model, extractor = AutoModel.from_pretrained(checkpoint), AutoFeatureExtractor.from_pretrained(checkpoint)
        return lambda clips: model.embed(clips, extractor).numpy()

    return load


def compiled(threads: int) -> Load:
    """The graph that is exported, front end included, by `torch.compile`."""
    torch = _torch(threads)
    from audiopg.training.publishing.graph_files import Exportable, SpectrogramGraph, WaveformGraph

    def load(checkpoint: str) -> Embed:
        source = Exportable.load(checkpoint, "embedding")
        graph = torch.compile(WaveformGraph(SpectrogramGraph(source.model), source.feature_extractor))

        @torch.no_grad()
        def embed(clips: np.ndarray) -> Any:
            lengths = torch.full((len(clips),), clips.shape[1])
            return graph(torch.from_numpy(clips), lengths)[0].numpy()

        return embed

    return load


def onnx(threads: int) -> Load:
    """A file of `training/export_onnx.py`, in float32 or in eight bits."""
    import onnxruntime

    def load(file: str) -> Embed:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

        def embed(clips: np.ndarray) -> Any:
            lengths = np.full(len(clips), clips.shape[1])
            return session.run(["embedding"], {"waveform": clips, "lengths": lengths})[0]

        return embed

    return load


def ast(threads: int, stride: int = 10) -> Load:
    """The Audio Spectrogram Transformer of transformers: random weights, the checkpoint's width, depth and heads."""
    torch = _torch(threads)
    from transformers import ASTConfig, ASTFeatureExtractor, ASTModel, AutoConfig

    import audiopg  # noqa: F401 - registers our classes

    def load(checkpoint: str) -> Embed:
        ours = AutoConfig.from_pretrained(checkpoint)
        sizes = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        config = ASTConfig(
            **{name: getattr(ours, name) for name in sizes}, frequency_stride=stride, time_stride=stride
        )
        model, extractor = ASTModel(config).eval(), ASTFeatureExtractor()

        @torch.no_grad()
        def embed(clips: np.ndarray) -> Any:
            inputs = extractor(list(clips), sampling_rate=RATE, return_tensors="pt")
            return model(**inputs).pooler_output.numpy()

        return embed

    return load


def ast_without_overlap(threads: int) -> Load:
    """The same with patches side by side, as ours are: 512 of a clip of 10.24 s where it has 1212."""
    return ast(threads, stride=16)


WAYS: dict[str, Callable[[int], Load]] = {
    "eager": eager,
    "compiled": compiled,
    "onnx": onnx,
    "ast": ast,
    "ast_without_overlap": ast_without_overlap,
}
