"""Graphs beside eager: five lengths, three batch sizes, padded batches beside clips alone, and what the files say."""

import hashlib
import json
import zipfile

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoModel, AutoModelForAudioClassification

from audiopg import AudioPGConfig, AudioPGFeatureExtractor, AudioPGForAudioClassification, AudioPGModel
from audiopg.training.export_onnx import main
from audiopg.training.publishing.eight_bits import quantise
from audiopg.training.publishing.graph_files import Exportable, OnnxGraph, read_facts, update_card, write_graph

SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
LENGTHS = (560, 2800, 16000, 5360, 40000)
"""Two frames, frames that fill one patch, seven patches not all full, two patches that are, and many."""
BATCHES = (1, 2, 5)
STATISTICS = {"mean": -4.0, "std": 3.0}
"""None of the defaults: a graph that had others inside would show."""

pytestmark = pytest.mark.filterwarnings("ignore:The given buffer is not writable:UserWarning")  # of torch.export.load


def waveforms(clips, samples):
    return 0.1 * torch.randn(clips, samples, generator=torch.Generator().manual_seed(samples))


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(0)
    options = {"embedding_pooling": "mel_std", "embedding_layer": 1, "classifier_pooling": "mel"}
    config = AudioPGConfig(**SIZES, **options, id2label={0: "dog", 1: "rain, heavy", 2: "bell"})
    for name, kind in (("embedding", AudioPGModel), ("logits", AudioPGForAudioClassification)):
        kind(config).save_pretrained(folder / name)
        AudioPGFeatureExtractor(**STATISTICS).save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="module", params=["embedding", "logits"])
def checkpoint(request, checkpoints):
    return checkpoints / request.param


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Writes each graph once, which takes seconds."""
    folder = tmp_path_factory.mktemp("graphs")

    def write(checkpoint, name):
        file = folder / f"{checkpoint.name}-{name}"
        if not file.exists():
            write_graph(Exportable.load(checkpoint), file, name.partition(".")[0])
        return file

    return write


@pytest.fixture(
    scope="module",
    params=[
        *("waveform.onnx", "waveform.pt2"),
        # They are parts of those, and a graph takes seconds to write.
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("spectrogram.onnx", "spectrogram.pt2")),
    ],
)
def graph_file(request, checkpoint, written):
    return written(checkpoint, request.param)


@pytest.fixture(scope="module")
def graph(graph_file):
    """The file as a function of clips of any lengths, in one batch."""
    return loaded(graph_file)


def loaded(file):
    if file.suffix == ".onnx":
        call = OnnxGraph(file, threads=1)
    else:
        call = torch.no_grad()(torch.export.load(file).module())
    extractor = AudioPGFeatureExtractor(**STATISTICS)

    def run(clips):
        if "spectrogram" in file.name:
            features = extractor([clip.numpy() for clip in clips], sampling_rate=16000)
            return call(features["input_values"], features["attention_mask"])
        padded = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
        found = call(padded, torch.tensor([len(clip) for clip in clips]))
        return found[0] if isinstance(found, tuple) else found

    return run


@pytest.fixture(scope="module")
def eager(checkpoint):
    return eager_of(checkpoint)


def eager_of(checkpoint):
    """Clips one by one: by `embed`, or by the classifier without any mask."""
    extractor = AudioPGFeatureExtractor(**STATISTICS)
    if checkpoint.name == "embedding":
        model = AutoModel.from_pretrained(checkpoint)
        return lambda clips: model.embed([clip.numpy() for clip in clips], extractor)
    model = AutoModelForAudioClassification.from_pretrained(checkpoint).eval()

    @torch.no_grad()
    def logits(clips):
        inputs = [extractor(clip.numpy(), sampling_rate=16000) for clip in clips]
        return torch.cat([model(**one).logits for one in inputs])

    return logits


def assert_equal(found, expected):
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-4


def test_a_graph_equals_eager_at_every_length_and_batch_size(graph, eager):
    for samples in LENGTHS:
        for clips in BATCHES:
            batch = list(waveforms(clips, samples))
            assert_equal(graph(batch), eager(batch))


def test_a_padded_batch_equals_its_clips_alone(graph, eager):
    clips = [waveforms(1, samples)[0] for samples in LENGTHS]
    assert_equal(graph(clips), eager(clips))


def test_a_file_says_what_it_is_and_whose_weights_it_has(graph_file, checkpoint):
    facts = read_facts(graph_file)
    takes = "waveform" if "waveform" in graph_file.name else "spectrogram"
    assert (facts["input"], facts["output"]) == (takes, checkpoint.name)
    assert int(facts["sampling_rate"]) == 16000
    assert json.loads(facts["labels"]) == (["dog", "rain, heavy", "bell"] if checkpoint.name == "logits" else [])
    assert facts["model_digest"] == hashlib.sha256((checkpoint / "model.safetensors").read_bytes()).hexdigest()
    assert ("opset" in facts) == (graph_file.suffix == ".onnx")


def test_a_file_does_not_tell_where_this_machine_keeps_its_code(graph_file):
    content = graph_file.read_bytes()
    if graph_file.suffix == ".pt2":
        with zipfile.ZipFile(graph_file) as archive:
            content = b"".join(archive.read(name) for name in archive.namelist())
    assert b"graph_files.py" not in content
    assert b"site-packages" not in content


@pytest.fixture(scope="module")
def encoder(checkpoints, written):
    return written(checkpoints / "embedding", "waveform.onnx")


def test_onnx_takes_a_single_frame(encoder, checkpoints):
    clips = list(waveforms(2, 400))
    assert_equal(loaded(encoder)(clips), eager_of(checkpoints / "embedding")(clips))


def test_the_log_mel_beside_is_what_the_feature_extractor_gives(encoder):
    session = OnnxGraph(encoder, threads=1).session
    clips = [waveforms(1, samples)[0].numpy() for samples in (16000, 5360)]
    padded = np.stack([clips[0], np.pad(clips[1], (0, 16000 - 5360))])
    [log_mel] = session.run(["log_mel"], {"waveform": padded, "lengths": np.array([16000, 5360])})
    expected = AudioPGFeatureExtractor(**STATISTICS)(clips, sampling_rate=16000)["input_values"].numpy()[:, :98]
    assert log_mel.shape == (2, 98, 128)
    assert np.abs(log_mel - expected).mean() < 1e-5


def test_eight_bits_touch_the_linear_layers_of_the_blocks_alone_and_change_little(encoder, checkpoints, tmp_path):
    import onnx

    small = tmp_path / "int8.onnx"
    quantise(encoder, small, "as measured")
    kinds = [node.op_type for node in onnx.load(small).graph.node]
    # Four linear layers in a block; the block after the layer that is read is not in the graph.
    assert kinds.count("MatMulInteger") == 4
    # Attention has two products in it, the front end four, and the patches one.
    assert kinds.count("MatMul") == 2 + 4 + 1
    clips = list(waveforms(2, 16000))
    exact, found = eager_of(checkpoints / "embedding")(clips), loaded(small)(clips)
    assert 1e-5 < (found - exact).abs().max() < 0.1 * exact.abs().max()
    facts = read_facts(small)
    assert (facts["weights"], facts["measured"], facts["output"]) == ("int8", "as measured", "embedding")
    assert facts["megabytes"] < read_facts(encoder)["megabytes"]


def test_the_card_of_a_checkpoint_tells_of_its_graphs_once(checkpoints, encoder, tmp_path):
    folder = tmp_path / "model"
    (folder / "onnx").mkdir(parents=True)
    for file in (checkpoints / "embedding").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    before = "---\nlicense: mit\n---\n\n# M\n\nWords.\n\n## How it was made\n\nSo.\n"
    (folder / "README.md").write_text(before)
    (folder / "onnx" / "other.onnx").write_bytes(encoder.read_bytes())
    main([str(folder), str(folder / "onnx" / "encoder.pt2"), "--input", "spectrogram"])
    update_card(folder)
    card = (folder / "README.md").read_text()
    assert card.count("## Without PyTorch") == card.count("## How it was made") == 1
    [row] = [line for line in card.splitlines() if line.startswith("| `other.onnx`")]
    megabytes = f"{encoder.stat().st_size / 1e6:.1f}"
    assert [cell.strip() for cell in row.split("|")[2:-1]] == ["waveform", "embedding", megabytes, "20", "float32"]
    assert "| `encoder.pt2` | spectrogram | embedding |" in card
    assert ModelCard(card).data.license == "mit"
    [code] = [part.partition("```")[0] for part in card.split("```python\n")[1:]]
    found = {}
    exec(code.replace('"onnx/', f'"{folder}/onnx/'), found)
    assert found["embedding"].shape == (1, 24 * 8 * 2)
    for file in (folder / "onnx").iterdir():
        file.unlink()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model.tflite"], "ends in .onnx or .pt2"),
        (["model.onnx", "--head", "logits"], "training/finetune.py"),
        (["model.pt2", "--int8"], "ONNX Runtime's"),
        (["model.onnx", "--data_dir", "x"], "give both"),
        (["model.onnx", "--int8", "--results", "x.json"], "give that too"),
    ],
)
def test_what_cannot_be_written_is_refused_with_a_remedy(words, said, checkpoints, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([str(checkpoints / "embedding"), str(tmp_path / words[0]), *words[1:]])
    assert said in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())


def test_a_model_of_another_kind_is_refused(tmp_path):
    from audiopg import DoppelgangerConfig, DoppelgangerFeatureExtractor, DoppelgangerModel

    DoppelgangerModel(DoppelgangerConfig(hidden_size=16)).save_pretrained(tmp_path)
    DoppelgangerFeatureExtractor().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"Transformers on audio, and .* is a DoppelgangerModel"):
        Exportable.load(tmp_path)
