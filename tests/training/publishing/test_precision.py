"""Weights stored in half the bytes: what a user meets who loads them, and who decides that it may be done."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from toys import write_recordings
from transformers import AutoFeatureExtractor, AutoModel, AutoModelForAudioClassification, AutoModelForPreTraining

from audiopg.data_scripts.own_recordings import load_recordings
from audiopg.training.export import main
from audiopg.training.features.batches import Batches
from audiopg.training.features.cache import extract_features, front_end_of
from audiopg.training.objectives.pretraining import TrainedRun
from audiopg.training.publishing.exporting import export_run
from audiopg.training.publishing.hub import stored_weights
from audiopg.training.publishing.precision import choose_dtype, format_choice, largest_difference

WAVEFORM = np.random.default_rng(0).uniform(-0.5, 0.5, 16000).astype(np.float32)
LOAD_ELSEWHERE = """
import sys
sys.modules["audiopg"] = None
import torch, transformers
model = transformers.AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)
pipe = transformers.pipeline("audio-feature-extraction", model=sys.argv[1], trust_remote_code=True)
found = {parameter.dtype for one in (model, pipe.model) for parameter in one.parameters()}
found |= {torch.as_tensor(pipe(torch.zeros(16000).numpy())).dtype}
print(*map(str, found))
"""


@pytest.fixture(scope="module")
def stored(toy_run, tmp_path_factory):
    """The toy run exported in each type; tests only read them."""
    folder = tmp_path_factory.mktemp("hub")
    for dtype in ("float32", "bfloat16", "float16"):
        export_run(toy_run, folder / dtype, dtype=dtype)
    return folder


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("head", [AutoModel, AutoModelForPreTraining, AutoModelForAudioClassification])
def test_a_file_of_half_the_size_is_computed_with_in_float32(stored, dtype, head):
    sizes = {name: (stored / name / "model.safetensors").stat().st_size for name in ("float32", dtype)}
    assert sizes[dtype] < 0.55 * sizes["float32"]
    assert {value.dtype for value in load_file(stored / dtype / "model.safetensors").values()} == {
        getattr(torch, dtype)
    }
    model = head.from_pretrained(stored / dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.config.dtype == torch.float32


def test_half_precision_is_there_for_whoever_asks_for_it(stored):
    assert AutoModel.from_pretrained(stored / "float16", dtype=torch.float16).dtype == torch.float16
    assert AutoModel.from_pretrained(stored / "float32", dtype="auto").dtype == torch.float32


def test_elsewhere_too_no_half_precision_is_met_unasked(stored, tmp_path):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    command = [sys.executable, "-c", LOAD_ELSEWHERE, str(stored / "float16")]
    run = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert run.stdout.strip() == "torch.float32"


def test_stored_weights_are_the_nearest_that_the_type_has(stored):
    whole, half = (load_file(stored / name / "model.safetensors") for name in ("float32", "float16"))
    for name, weight in whole.items():
        assert np.array_equal(half[name].numpy(), weight.numpy().astype(np.float16))
    loaded = AutoModel.from_pretrained(stored / "float16").eval()
    reference = AutoModel.from_pretrained(stored / "float32").eval()
    rounded = {
        n: torch.from_numpy(w.numpy().astype(np.float16).astype(np.float32)) for n, w in reference.state_dict().items()
    }
    reference.load_state_dict(rounded)
    inputs = AutoFeatureExtractor.from_pretrained(stored / "float16")(WAVEFORM, sampling_rate=16000)
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).pooler_output, reference(**inputs).pooler_output)


def test_whole_numbers_stay_whole():
    counted = torch.nn.BatchNorm1d(2)
    counted.num_batches_tracked.fill_(70_001)
    found = stored_weights(counted, "float16")
    assert found["num_batches_tracked"] == 70_001
    assert found["running_var"].dtype == torch.float16


def test_a_weight_beyond_the_range_is_refused_by_name():
    layer = torch.nn.Linear(2, 2)
    layer.weight.data[0, 0] = 7e4
    with pytest.raises(ValueError, match=r"in float16 weight is not: it has values up to 7e\+04"):
        stored_weights(layer, "float16")
    assert stored_weights(layer, "bfloat16")["weight"].isfinite().all()


@pytest.fixture
def tones(toy_run, tmp_path):
    """Two kinds of tones, that the toy can tell apart, for its feature extractor."""
    write_recordings(tmp_path / "tones")
    extractor = TrainedRun.open(toy_run).feature_extractor()
    return Batches(extract_features(load_recordings(tmp_path / "tones"), front_end_of(extractor)), extractor)


def test_float16_is_chosen_where_probes_see_no_difference(toy_run, tones):
    report = choose_dtype(TrainedRun.open(toy_run).final_model(), [tones])
    assert report["chosen"] == "float16"
    assert list(report["scores"]) == ["float32", "float16"]  # the other need not be tried
    assert list(report["scores"]["float32"]) == [tones.cache.dataset_name]
    assert "float16 agrees with float32 within 0.1 points." in format_choice(report)


def hears_in_small_differences(model):
    """Patches are projected by weights that are all 1 but for what only float32 keeps apart."""
    weight = model.base_model.embeddings.patch_embeddings.weight
    generator = torch.Generator().manual_seed(0)
    weight.data = 1 + 2e-4 * (2 * torch.rand(weight.shape, generator=generator) - 1)
    model.config.embedding_pooling = "mel"  # the mean alone would not tell
    return model


def test_float32_is_kept_where_half_precision_deafens_the_encoder(toy_run, tones):
    report = choose_dtype(hears_in_small_differences(TrainedRun.open(toy_run).final_model()), [tones])
    assert report["chosen"] == "float32"
    assert min(report["scores"]["float32"].values()) > 0.9
    assert all(largest_difference(report["scores"], dtype) > 0.1 for dtype in ("float16", "bfloat16"))
    assert "No type of half the size agrees with float32 within 0.1 points." in format_choice(report)


def test_bfloat16_is_next_where_weights_are_beyond_float16(toy_run, tones):
    model = TrainedRun.open(toy_run).final_model()
    first = model.base_model.layers[0]
    first.mlp.fc1.weight.data[0], first.mlp.fc2.weight.data[:, 0] = 1e5, 0  # a neuron that nobody reads
    report = choose_dtype(model, [tones])
    assert (report["chosen"], report["scores"]["float16"]) == ("bfloat16", {})
    assert "| float16 |  | out of range |" in format_choice(report)


def test_export_compares_and_stores_what_it_found(toy_run, tmp_path, capsys):
    write_recordings(tmp_path / "tones")
    main([str(toy_run), str(tmp_path / "out"), "--dtype", "auto", "--data_dir", str(tmp_path / "tones")])
    assert "float16 agrees with float32 within 0.1 points." in capsys.readouterr().out
    assert {v.dtype for v in load_file(tmp_path / "out" / "model.safetensors").values()} == {torch.float16}
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| weights | stored in float16, computed with in float32" in card
    provenance = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert provenance["recipe"]["num_clips"] == 48
    assert provenance["run"] == json.loads((toy_run / "run.json").read_text())
    assert provenance["name"] == TrainedRun.open(toy_run).name


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dtype", "auto"], "compared on labelled recordings, got none: give data, or name a type"),
        (["--dtype", "float16", "--data_dir", "x"], "--data_dir is what --dtype auto compares types of weights on"),
        (["--dtype", "int8"], "invalid choice: 'int8'"),
    ],
)
def test_a_type_that_cannot_be_chosen_is_refused(toy_run, tmp_path, capsys, words, message):
    with pytest.raises(SystemExit) as stop:
        main([str(toy_run), str(tmp_path / "out"), *words])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
