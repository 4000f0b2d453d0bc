"""Encoder and classifier as graphs that run without our code: ONNX files, and `.pt2` files of `torch.export`.

    waveform (batch, samples), lengths (batch,)                    -> embedding or logits, log_mel
    input_values (batch, frames, bands), attention_mask (batch, frames) -> embedding or logits

Batch and length are free in both. `embedding` is what `AudioPGModel.embed` gives of a clip of one window: longer ones
are heard as a whole, where `embed` cuts them. With the waveform as input the log-mel front end, its standardisation by
the checkpoint's statistics, the padding to whole patches and the mask are inside; `log_mel` is what the encoder heard.
What the feature extractor refuses (samples that are not finite, or far outside [-1, 1]) a graph cannot. Clips last 25
ms at least; those of `.pt2` files two frames, 35 ms, since one alone is a graph of its own to torch.export.
"""

import json
import logging
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForAudioClassification
from transformers.utils import cached_file

import audiopg
from audiopg.modeling.embedding_audiopg import WINDOW_SECONDS, pool_moments
from audiopg.modeling.feature_extraction_audiopg import AudioPGFeatureExtractor
from audiopg.modeling.modeling_audiopg import AudioPGForAudioClassification, AudioPGModel
from audiopg.modeling.patches_audiopg import valid_patches
from audiopg.modeling.spectrogram_audiopg import frame_length, hop_length
from audiopg.training.publishing.cards import with_graphs
from audiopg.training.runs.files import reading, sha256_of, write_atomically, written_aside
from audiopg.training.runs.names import public_name

INPUTS = {"waveform": ("waveform", "lengths"), "spectrogram": ("input_values", "attention_mask")}
"""What a graph takes, and what its inputs are called."""

HEADS = {"embedding": AudioPGModel, "logits": AudioPGForAudioClassification}
"""What a graph gives, and of which model."""

SUFFIXES = (".onnx", ".pt2")

FOLDER = "onnx"
"""Where such files lie in the folder of a checkpoint, whose card then tells of them."""

_FACTS = "audiopg.json"
"""Where a `.pt2` file holds its metadata, among its extra files."""

_EXAMPLE_SAMPLES, _EXAMPLE_FRAMES = (12345, 5000), (77, 20)
"""Of the clips that are traced: neither fills whole patches, which would be a graph of its own."""


class SpectrogramGraph(nn.Module):
    """Standardised log-mel in, embedding or logits out.

    Args:
        model: One of `HEADS`, in evaluation.

    Example:
        >>> from audiopg import AudioPGConfig
        >>> graph = SpectrogramGraph(AudioPGModel(AudioPGConfig.of_size("tiny")).eval())
        >>> graph(torch.zeros(2, 98, 128), torch.ones(2, 98, dtype=torch.long)).shape
        torch.Size([2, 192])
    """

    def __init__(self, model: AudioPGModel | AudioPGForAudioClassification) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_values: Tensor, attention_mask: Tensor) -> Tensor:
        """Of `(batch, frames, bands)` with a mask `(batch, frames)`, int64, 1 at real frames; any number of frames."""
        config = self.model.config
        patch_frames, _ = config.patch_shape
        frames = input_values.shape[1]
        # Two rows of patches at least: what has only one would be a graph of its own to torch.export.
        missing = patch_frames * torch.sym_max(2, (frames + patch_frames - 1) // patch_frames) - frames
        values, mask = pad(input_values, (0, 0, 0, missing)), pad(attention_mask, (0, missing))
        if isinstance(self.model, AudioPGForAudioClassification):
            return self.model(values, mask).logits
        moments = self.model.time_patch_embeddings({"input_values": values, "attention_mask": mask})
        return pool_moments(moments, config.embedding_pooling, valid_patches(mask, patch_frames, columns=1))


class WaveformGraph(nn.Module):
    """Samples in, embedding or logits out, and the log-mel that the encoder heard.

    Args:
        head: What hears it.
        feature_extractor: The checkpoint's own.

    Example:
        >>> from audiopg import AudioPGConfig
        >>> head = SpectrogramGraph(AudioPGModel(AudioPGConfig.of_size("tiny")).eval())
        >>> embedding, log_mel = WaveformGraph(head, AudioPGFeatureExtractor())(
        ...     torch.zeros(2, 16000), torch.tensor([16000, 400])
        ... )
        >>> embedding.shape, log_mel.shape
        (torch.Size([2, 192]), torch.Size([2, 98, 128]))
    """

    def __init__(self, head: SpectrogramGraph, feature_extractor: AudioPGFeatureExtractor) -> None:
        super().__init__()
        self.head = head
        self.feature_extractor = feature_extractor

    def forward(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Of `(batch, samples)`, float32 in [-1, 1], padded behind `lengths` samples, int64, `(batch,)`."""
        extractor, rate = self.feature_extractor, self.feature_extractor.sampling_rate
        log_mel = extractor.standardise(extractor.log_mel(waveform))
        real_frames = (lengths - frame_length(rate)) // hop_length(rate) + 1  # `num_frames` of a tensor
        mask = torch.arange(log_mel.shape[1]) < real_frames[:, None]
        log_mel = log_mel.masked_fill(~mask[:, :, None], extractor.padding_value)
        return self.head(log_mel, mask.long()), log_mel


@dataclass(frozen=True)
class Exportable:
    """A checkpoint as a graph is made of it.

    Args:
        model: In float32 and in evaluation.
        feature_extractor: Its own.
        name: What it is called.
        digest: SHA-256 of its `model.safetensors`, in hexadecimal digits: which weights these are.
    """

    model: AudioPGModel | AudioPGForAudioClassification
    feature_extractor: AudioPGFeatureExtractor
    name: str
    digest: str

    @classmethod
    def load(cls, checkpoint: str | Path, head: str | None = None) -> "Exportable":
        """That of a folder or a name on the Hub.

        Args:
            checkpoint: Which.
            head: One of `HEADS`; by default the logits of a classifier, the embedding of any other.

        Raises:
            ValueError: if it is no AudioPG Transformer on audio, or has no classifier where logits are wanted.
        """
        with reading(checkpoint):
            architectures = AutoConfig.from_pretrained(checkpoint).architectures or []
            is_classifier = AudioPGForAudioClassification.__name__ in architectures
            head = head or ("logits" if is_classifier else "embedding")
            if head == "logits" and not is_classifier:
                raise ValueError(
                    f"Logits are those of a classifier, and {checkpoint} holds {', '.join(architectures)}: fine-tune "
                    "it with training/finetune.py first, or export its embedding."
                )
            auto = AutoModelForAudioClassification if head == "logits" else AutoModel
            model: Any = auto.from_pretrained(checkpoint, dtype=torch.float32).eval()
            extractor = AutoFeatureExtractor.from_pretrained(checkpoint)
            weights: Any = cached_file(checkpoint, "model.safetensors")
            digest = sha256_of(Path(weights))
        fits = isinstance(model, HEADS[head]) and isinstance(extractor, AudioPGFeatureExtractor)
        if not fits:
            raise ValueError(
                f"Graphs are made of AudioPG's Transformers on audio, and {checkpoint} is a {type(model).__name__} "
                f"with a {type(extractor).__name__}: choose a checkpoint of that kind."
            )
        return cls(model, extractor, public_name(checkpoint), digest)

    @property
    def gives(self) -> str:
        """One of `HEADS`."""
        return "logits" if isinstance(self.model, AudioPGForAudioClassification) else "embedding"

    def facts(self, takes: str) -> dict[str, str]:
        """What a graph says of itself, as texts: its metadata.

        Args:
            takes: One of `INPUTS`.

        Returns:
            `what`, `name`, `input`, `output`, `sampling_rate` in Hz, `shortest_samples`, `window_samples` (up to which
            the embedding is that of `embed`), `labels` (a JSON list), `weights` (their type), `model_digest` and
            `audiopg`, our version.
        """
        rate = self.feature_extractor.sampling_rate
        names: dict[Any, str] = dict(self.model.config.id2label or {})
        labels = [names[index] for index in sorted(names)] if self.gives == "logits" else []
        return {
            "what": f"AudioPG {'classifier' if labels else 'encoder'}: {takes} in, {self.gives} out",
            "name": self.name,
            "input": takes,
            "output": self.gives,
            "sampling_rate": str(rate),
            "shortest_samples": str(frame_length(rate)),
            "window_samples": str(round(WINDOW_SECONDS * rate)),
            "labels": json.dumps(labels),
            "weights": "float32",
            "model_digest": self.digest,
            "audiopg": audiopg.__version__,
        }


def write_graph(source: Exportable, file: Path, takes: str = "waveform") -> None:
    """Write a model as a graph.

    Args:
        source: Whose.
        file: Its suffix, `.onnx` or `.pt2`, says of which kind.
        takes: One of `INPUTS`.

    Raises:
        ValueError: if there is no such kind or input.
        ImportError: for ONNX, if its packages are missing.
        OSError: if it cannot be written.
    """
    check_file(file)
    if takes not in INPUTS:
        raise ValueError(f"A graph takes {' or '.join(INPUTS)}, got {takes!r}.")
    head = SpectrogramGraph(source.model)
    program = _program(WaveformGraph(head, source.feature_extractor) if takes == "waveform" else head)
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".pt2":
        with written_aside(file) as partial, partial.open("wb") as content:
            torch.export.save(program, content, extra_files={_FACTS: json.dumps(source.facts(takes))})
    else:
        _write_onnx(program, source.facts(takes), file)


def check_file(file: Path) -> None:
    """Refuse a name that does not say what the file is to be.

    Raises:
        ValueError: with the suffixes that do.

    Example:
        >>> check_file(Path("model.tflite"))
        Traceback (most recent call last):
        ...
        ValueError: A graph is written to a file that ends in .onnx or .pt2 (torch.export), got model.tflite.
    """
    if file.suffix not in SUFFIXES:
        raise ValueError(
            f"A graph is written to a file that ends in {SUFFIXES[0]} or {SUFFIXES[1]} (torch.export), got {file}."
        )


@torch.no_grad()
def _program(graph: SpectrogramGraph | WaveformGraph) -> torch.export.ExportedProgram:
    """The graph traced on two clips of two lengths, which stand for any number of any length."""
    random = torch.Generator().manual_seed(0)
    if isinstance(graph, WaveformGraph):
        lengths = torch.tensor(_EXAMPLE_SAMPLES)
        inputs = 0.1 * torch.randn(len(lengths), int(lengths.max()), generator=random), lengths
    else:
        mask = (torch.arange(max(_EXAMPLE_FRAMES)) < torch.tensor(_EXAMPLE_FRAMES)[:, None]).long()
        inputs = torch.randn(*mask.shape, graph.model.config.num_mel_bins, generator=random), mask
    free = torch.export.Dim.DYNAMIC
    shapes = tuple(dict.fromkeys(range(min(tensor.ndim, 2)), free) for tensor in inputs)
    program = torch.export.export(graph.eval(), inputs, dynamic_shapes=shapes)
    for part in program.graph_module.modules():  # what autocast surrounds is a graph within
        if isinstance(part, torch.fx.GraphModule):
            for node in part.graph.nodes:  # where the code lies on this machine is nobody's business
                node.meta.pop("stack_trace", None)
    return program


def import_onnx() -> Any:
    """The package, where all three are there that ONNX files need.

    Raises:
        ImportError: with what to install.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401 - what reads the file
        import onnxscript  # noqa: F401 - what writes it
    except ImportError as error:
        raise ImportError(f"ONNX files need {error.name}: pip install 'audiopg[onnx]'.") from error
    return onnx


def _write_onnx(program: torch.export.ExportedProgram, facts: Mapping[str, str], file: Path) -> None:
    import_onnx()
    with quietly():
        graph = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            input_names=INPUTS[facts["input"]],
            output_names=[facts["output"], *(["log_mel"] if facts["input"] == "waveform" else [])],
        )
    assert graph is not None
    content = graph.model_proto
    _name_axes(content, "samples" if facts["input"] == "waveform" else "frames")
    for node in content.graph.node:  # of half a megabyte of notes the name of the module is kept
        scope = [entry.value for entry in node.metadata_props if entry.key == "namespace"]
        del node.metadata_props[:]
        node.doc_string = ""
        node.metadata_props.add(key="namespace", value="".join(scope))
    save_onnx(content, facts, file)


def _name_axes(content: Any, second: str) -> None:
    """Call the free axes `batch` and `second`, instead of the tracer's `s16` and `s39`, wherever they are named."""
    first_input = content.graph.input[0].type.tensor_type.shape.dim
    names = {first_input[0].dim_param: "batch", first_input[1].dim_param: second}
    for value in (*content.graph.input, *content.graph.output, *content.graph.value_info):
        del value.metadata_props[:]
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param:
                axis.dim_param = re.sub(r"\bs\d+\b", lambda found: names.get(found[0], found[0]), axis.dim_param)


def save_onnx(content: Any, facts: Mapping[str, str], file: Path) -> None:
    """Write an ONNX model with its metadata.

    Args:
        content: An `onnx.ModelProto`; its metadata becomes `facts`.
        facts: By name.
        file: To write.
    """
    onnx = import_onnx()
    del content.metadata_props[:]
    onnx.helper.set_model_props(content, dict(facts))
    with written_aside(file) as partial:
        partial.write_bytes(content.SerializeToString())


def read_facts(file: Path) -> dict[str, Any]:
    """What a graph's file says of itself.

    Returns:
        The metadata of `Exportable.facts`; `file` (its name), `megabytes` and, of ONNX, `opset`; of one in eight
        bits `measured`, a sentence, where their loss was.
    """
    told: dict[str, Any]
    if file.suffix == ".pt2":
        with reading(file), zipfile.ZipFile(file) as archive:
            ours = [name for name in archive.namelist() if name.endswith(_FACTS)]
            if not ours:
                raise ValueError(f"{file} does not say what it is: training/export_onnx.py writes files that do.")
            told = json.loads(archive.read(ours[0]))
    else:
        content = import_onnx().load(file)
        told = {entry.key: entry.value for entry in content.metadata_props}
        told["opset"] = next(one.version for one in content.opset_import if one.domain == "")
    return {**told, "file": file.name, "megabytes": file.stat().st_size / 1e6}


def update_card(checkpoint: Path) -> None:
    """Have the card in a checkpoint's folder tell of the graphs that lie in `FOLDER` there.

    Raises:
        OSError: if there is no card, or it cannot be written.
    """
    card = checkpoint / "README.md"
    files = sorted(file for file in (checkpoint / FOLDER).glob("*") if file.suffix in SUFFIXES)
    told = with_graphs(card.read_text(encoding="utf-8"), FOLDER, [read_facts(file) for file in files])
    write_atomically(card, told)


class OnnxGraph:
    """An ONNX file in ONNX Runtime on the CPU, as a function of tensors.

    Args:
        file: As `write_graph` or `quantise` wrote it.
        threads: Of the computation; 0 for as many as there are cores.

    Raises:
        ImportError: if the packages are missing.
    """

    def __init__(self, file: Path, threads: int = 0) -> None:
        import_onnx()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        with reading(file):
            self.session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        self.names = [each.name for each in self.session.get_inputs()]

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The first output, embedding or logits, of what `INPUTS` names."""
        arrays = {name: tensor.numpy() for name, tensor in zip(self.names, inputs, strict=True)}
        first = self.session.get_outputs()[0].name
        return torch.from_numpy(self.session.run([first], arrays)[0])


@contextmanager
def quietly() -> Iterator[None]:
    """Without what the exporters say of themselves: missing packages that nobody asked for, their own old calls."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
