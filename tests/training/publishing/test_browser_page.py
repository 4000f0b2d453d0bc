"""What of the page needs no browser: its decoder, its runtime, what it refuses to lose."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from toys import SMALL

from audiopg import AudioPGConfig, AudioPGFeatureExtractor, AudioPGModel
from audiopg.data_scripts.probe_clips import FACTORS, probe_clips
from audiopg.data_scripts.synthesis import get_preset
from audiopg.training.evaluation.factor_scores import decode_factors, linear_decoder
from audiopg.training.export_browser import main
from audiopg.training.publishing import browser_page
from audiopg.training.publishing.browser_page import RUNTIME_FILES, decoders_for_page, write_page
from audiopg.training.publishing.graph_files import Exportable

STATISTICS = {"preset": "reference", "overrides": {"duration": 0.64}}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    AudioPGModel(AudioPGConfig(**SMALL, embedding_pooling="mel_std")).save_pretrained(folder)
    AudioPGFeatureExtractor(statistics=STATISTICS).save_pretrained(folder)
    return folder


def test_a_linear_decoder_is_the_map_that_is_scored():
    rng = np.random.default_rng(0)
    features = rng.standard_normal((120, 5)) * (1, 10, 0.1, 3, 0) + 7
    targets = features[:, :2] @ rng.standard_normal((2, 3)) + 0.1 * rng.standard_normal((120, 3))
    weights, biases = linear_decoder(features[:80], targets[:80])
    read = features[80:] @ weights + biases
    residual = ((targets[80:] - read) ** 2).sum(axis=0) / ((targets[80:] - targets[80:].mean(axis=0)) ** 2).sum(axis=0)
    np.testing.assert_allclose(1 - residual, decode_factors(features[:80], targets[:80], features[80:], targets[80:]))
    assert (weights[4] == 0).all()  # what never varies is not read
    assert np.abs(read - Ridge(1e-3).fit(features[:80], targets[:80]).predict(features[80:])).max() < 0.2


def test_the_decoder_has_every_factor_that_is_a_number_and_reads_what_embed_gives(checkpoint):
    source = Exportable.load(checkpoint)
    factors, example, truth = decoders_for_page(source, 24)
    assert {factor["name"] for factor in factors} == {name for name, one in FACTORS.items() if one.kind != "class"}
    assert [factor["r2"] for factor in factors] == sorted((factor["r2"] for factor in factors), reverse=True)
    clips = probe_clips(get_preset("reference", duration=0.64), "one event", 24)
    assert np.array_equal(example, clips.waveforms[-1])
    assert truth == {name: values[-1] for name, values in clips.factors.items()}
    [onset] = [factor for factor in factors if factor["name"] == "onset"]
    embeddings = source.model.embed(list(clips.waveforms), source.feature_extractor).numpy()
    read, drawn = embeddings @ np.array(onset["weights"]) + onset["bias"], clips.factors["onset"]
    assert np.corrcoef(read[:16], drawn[:16])[0, 1] > 0.5  # those that it was fitted on
    assert (onset["low"], onset["high"]) == (drawn[:16].min(), drawn[:16].max())


@pytest.mark.parametrize(
    ("runtime", "said"),
    [
        ("no/such/folder", "begins with https://"),
        ("https://example.org/dist", "ends in /"),
        (".", "holds no ort.wasm"),
    ],
)
def test_a_runtime_that_is_none_is_refused(runtime, said, checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        main([str(checkpoint), str(tmp_path / "page"), "--runtime", runtime])
    assert said in " ".join(capsys.readouterr().err.split())


def test_a_folder_with_something_else_in_it_is_not_replaced(checkpoint, tmp_path):
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(ValueError, match="holds no page"):
        write_page(checkpoint, tmp_path)


def test_a_copied_runtime_is_whole(checkpoint, tmp_path, monkeypatch):
    # The graph takes seconds to write; tests/integration writes and runs a whole page.
    monkeypatch.setattr(browser_page, "write_graph", lambda source, file: file.touch())
    for name in RUNTIME_FILES:
        (tmp_path / name).write_text(name)
    write_page(checkpoint, tmp_path / "page", tmp_path, clips=24)
    found = {path.relative_to(tmp_path / "page").as_posix() for path in (tmp_path / "page").rglob("*.*")}
    assert found >= {"index.html", "page.js", "style.css", "page.json", "encoder.onnx", "example.wav"}
    assert {name for name in found if name.startswith("runtime/")} == {f"runtime/{name}" for name in RUNTIME_FILES}
