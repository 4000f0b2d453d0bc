"""From a run of images to a folder that takes recordings, and on from there."""

import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from huggingface_hub import ModelCard
from transformers import AutoFeatureExtractor, AutoModel, AutoModelForPreTraining, pipeline

from audiopg.modeling.modeling_audiopg import AudioPGForPreTraining, AudioPGModel
from audiopg.training.analysis.filters import filters_of
from audiopg.training.convert_checkpoint import main as convert
from audiopg.training.export import main as export
from audiopg.training.objectives.bridge import audio_weights
from audiopg.training.objectives.pretraining import TrainedRun, pretrain
from audiopg.training.runs.metrics_log import read_metrics

IMAGES = {"preset": "", "synthesis": {}, "objective": "masked_images", "patterns": {"name": "power_law", "size": 32}}
CLASSES = {"objective": "pattern_classes", "patterns": {"name": "zone_plates", "size": 32, "flip": False}}


@pytest.fixture(scope="module")
def image_run(tmp_path_factory, toy_recipe):
    """Folder of a finished run of images."""
    folder = tmp_path_factory.mktemp("images") / "run"
    pretrain(toy_recipe(**IMAGES, milestones=[1]), folder)
    return folder


@pytest.fixture(scope="module")
def exported(image_run):
    """What is released of it."""
    folder = image_run.parent / "exported"
    export([str(image_run), str(folder)])
    return folder


def test_an_exported_run_of_images_embeds_a_recording_elsewhere(exported, tmp_path):
    """In a process that does not know the package, from a file of another rate."""
    sound = 0.3 * np.sin(2 * np.pi * 440 * np.arange(22050) / 22050)
    soundfile.write(tmp_path / "a.wav", sound, 22050)
    code = (
        "import sys\n"
        "from transformers import pipeline\n"
        "assert 'audiopg' not in sys.modules\n"
        f"embed = pipeline('audio-feature-extraction', model={str(exported)!r}, trust_remote_code=True)\n"
        f"print(len(embed({str(tmp_path / 'a.wav')!r})))\n"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, cwd="/", timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["48"]


def test_auto_classes_find_an_audio_model_with_a_decoder(exported, image_run):
    model, extractor = AutoModel.from_pretrained(exported), AutoFeatureExtractor.from_pretrained(exported)
    assert type(model) is AudioPGModel
    assert (model.config.num_channels, model.config.num_mel_bins) == (1, 128)
    inputs = extractor(np.random.default_rng(0).normal(0, 0.1, 16000), sampling_rate=16000)
    assert inputs["input_values"].shape[-1] == 128
    with torch.no_grad():
        assert model(**inputs).pooler_output.shape == (1, 48)
    redraws = AutoModelForPreTraining.from_pretrained(exported)
    assert type(redraws) is AudioPGForPreTraining
    trained = TrainedRun.open(image_run).initial_model()
    assert redraws.decoder.decoder_pred.weight.shape == (256, trained.config.decoder_hidden_size)


def test_the_card_says_images_of_the_set_no_recordings_and_no_photographs(exported, image_run):
    card = ModelCard.load(exported / "README.md")
    text = " ".join(card.text.split())
    assert {"no-real-data", "synthetic-images", "masked-autoencoder", "audio"} <= set(card.data.tags)
    for told in (
        "pre-trained on **synthetic images**, without a single recording and without a single photograph",
        "masked autoencoder that learned to complete images of the set `power_law`",
        "It has heard no sound at all.",
        "32 by 32 pixels in three colours",
        "48 views of 48 images of `power_law`",
        "mel rises from its lowest row to its highest",
        "of 2000 clips of the synthesizer's preset `reference`",
    ):
        assert told in text, told
    norms = json.loads((image_run / "run.json").read_text())["kernel_norms"]
    assert f"that of their sum is {norms['sum']}" in text
    for mark in ("{{", "{%", "None", "Undefined"):
        assert mark not in card.text


def test_to_audio_gives_what_export_gives(image_run, exported, tmp_path, capsys):
    convert([str(image_run), str(tmp_path / "converted"), "--to_audio"])
    convert([str(image_run), str(tmp_path / "encoder"), "--to_audio", "--encoder_only"])
    for name in ("model.safetensors", "config.json", "preprocessor_config.json"):
        assert (tmp_path / "converted" / name).read_bytes() == (exported / name).read_bytes()
    encoder, report = AudioPGModel.from_pretrained(tmp_path / "encoder", output_loading_info=True)
    assert not any(report.values())
    theirs = AudioPGModel.from_pretrained(exported).state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in encoder.state_dict().items())


def test_a_saved_model_of_images_comes_to_audio_with_its_decoder_or_without(image_run, tmp_path):
    trained = TrainedRun.open(image_run).initial_model()
    trained.save_pretrained(tmp_path / "saved")
    convert([str(tmp_path / "saved"), str(tmp_path / "whole"), "--to_audio"])
    trained.audiopg.save_pretrained(tmp_path / "saved encoder")
    convert([str(tmp_path / "saved encoder"), str(tmp_path / "encoder"), "--to_audio"])
    whole, report = AudioPGForPreTraining.from_pretrained(tmp_path / "whole", output_loading_info=True)
    assert not any(report.values())
    expected = audio_weights(trained.state_dict(), 3)
    assert all(torch.equal(value, expected[name]) for name, value in whole.state_dict().items())
    encoder, report = AudioPGModel.from_pretrained(tmp_path / "encoder", output_loading_info=True)
    assert not any(report.values())
    assert torch.equal(encoder.norm.weight, whole.audiopg.norm.weight)
    card = " ".join((tmp_path / "whole/README.md").read_text().split())
    assert "real data | not known" in card
    assert "mel lies on the vertical axis, lowest at the bottom" in card


def test_a_damaged_model_of_images_is_refused_instead_of_filled_up_at_random(image_run, tmp_path, capsys):
    saved, whole = tmp_path / "saved", TrainedRun.open(image_run).initial_model()
    for lost in ("audiopg.layers.0.mlp.fc1.weight", "decoder.mask_token"):
        weights = {name: value for name, value in whole.state_dict().items() if name != lost}
        whole.save_pretrained(saved, state_dict=weights)
        with pytest.raises(SystemExit):
            convert([str(saved), str(tmp_path / "out"), "--to_audio"])
        assert f"a whole decoder or none, and lacks ['{lost}']" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", ["--num_mel_bins", "--num_attention_heads", "--decoder_num_attention_heads"])
def test_sizes_that_the_source_tells_are_refused_instead_of_ignored(image_run, tmp_path, capsys, option):
    TrainedRun.open(image_run).initial_model().save_pretrained(tmp_path / "saved")
    capsys.readouterr()
    for source in (image_run, tmp_path / "saved"):
        with pytest.raises(SystemExit):
            convert([str(source), str(tmp_path / "out"), "--to_audio", option, "4"])
        assert f"says its own sizes, got {{'{option[2:]}': 4}} beside it" in capsys.readouterr().err


def test_what_is_of_audio_already_is_refused(toy_run, exported, tmp_path, capsys):
    for source, message in (
        (toy_run, "is a run of audio; training/export.py releases it"),
        (exported, "got one of audio: use it as it is"),
        (exported / "model.safetensors", "A model of images is in a folder"),
    ):
        with pytest.raises(SystemExit):
            convert([str(source), str(tmp_path / "out"), "--to_audio"])
        assert message in capsys.readouterr().err


def test_audio_goes_on_from_images(exported, toy_recipe, tmp_path):
    """The warm start: patterns first, clips after; the first loss is that of the released model."""
    recipe = toy_recipe(init_from=str(exported))
    facts = pretrain(recipe, tmp_path / "run")
    assert facts["saw_real_data"] is False
    run = TrainedRun.open(tmp_path / "run")
    assert run.statistics["images"]["patterns"] == "power_law"
    assert run.statistics["kept_from"] == "exported"
    start = run.initial_model().state_dict()
    released = AudioPGForPreTraining.from_pretrained(exported).state_dict()
    assert all(torch.equal(value, released[name]) for name, value in start.items())
    assert all(np.isfinite(row["loss"]) for row in read_metrics(tmp_path / "run"))
    export([str(tmp_path / "run"), str(tmp_path / "out")])
    assert "starts from | `exported`" in (tmp_path / "out/README.md").read_text()


def test_a_run_of_classes_releases_the_encoder_and_says_so(toy_recipe, tmp_path):
    pretrain(toy_recipe(**{**IMAGES, **CLASSES}), tmp_path / "run")
    export([str(tmp_path / "run"), str(tmp_path / "out")])
    embed = pipeline("audio-feature-extraction", model=str(tmp_path / "out"), trust_remote_code=True)
    assert np.isfinite(embed(np.zeros(16000, dtype=np.float32))).all()
    card = " ".join((tmp_path / "out/README.md").read_text().split())
    assert "learned to tell the classes of images of the set `zone_plates`" in card
    assert "cross-entropy of 4 classes" in card
    assert "no flips" in card
    assert "masked-autoencoder" not in ModelCard.load(tmp_path / "out/README.md").data.tags


def test_filters_of_a_run_of_images_are_those_that_audio_meets(image_run):
    filters = filters_of(image_run)
    last = TrainedRun.open(image_run).final_model().audiopg.embeddings.patch_embeddings.weight
    np.testing.assert_allclose(filters[max(filters)].reshape(48, -1), last.detach().numpy(), atol=1e-6)
    assert {0, 1, 6} <= set(filters)
