"""Runs on doubles, exported: what their cards say, and that the folder is probed as any other."""

import json

import numpy as np
import pytest
import soundfile
import torch
from huggingface_hub import ModelCard
from toys import write_recordings
from transformers import AutoFeatureExtractor, AutoModel, AutoModelForPreTraining

from audiopg import AudioPGModel, DoppelgangerFeatureExtractor, DoppelgangerModel
from audiopg.data_scripts.probe_clips import PROBE_SETS, probe_clips
from audiopg.data_scripts.synthesis import get_preset
from audiopg.training.analysis.factors import encoders_of
from audiopg.training.analysis.filters import filters_of
from audiopg.training.objectives.pretraining import TrainedRun, pretrain
from audiopg.training.objectives.recipe import PretrainingRecipe
from audiopg.training.probe import main as probe
from audiopg.training.publishing.exporting import export_run
from audiopg.training.runs.recipes import build_recipe

RESNET = {
    "name": "toy-doubles",
    "description": "A toy for the tests.",
    "objective": "resnet_doubles",
    "size": "resnet_tiny",
    "voices": {"architecture": "voice"},
    "doubles": {"delta": 0.25, "delta_of": {"pitch": 0.02}},
    "optimizer": "sgd",
    "num_clips": 8,
    "batch_size": 4,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("doubles") / "run"
    pretrain(build_recipe(PretrainingRecipe, RESNET), folder)
    return folder


@pytest.fixture(scope="module")
def exported(run):
    export_run(run, run.parent / "exported")
    return run.parent / "exported"


def test_the_folder_holds_the_encoder_of_the_run_with_its_statistics(run, exported):
    model, trained = AutoModel.from_pretrained(exported), TrainedRun.open(run).final_model()
    assert type(model) is DoppelgangerModel
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in trained.state_dict().items())
    assert model.resnet.embedder.embedder.normalization.num_batches_tracked == 2
    extractor = AutoFeatureExtractor.from_pretrained(exported)
    assert type(extractor) is DoppelgangerFeatureExtractor
    assert extractor.statistics["saw_real_data"] is False
    assert {"modules.json", "modeling_doppelganger.py", "spectrogram_doppelganger.py"} <= {
        path.name for path in exported.iterdir()
    }


def test_its_card_says_what_was_done_and_nothing_of_patches(run, exported):
    card = ModelCard.load(exported / "README.md")
    facts = json.loads((run / "run.json").read_text())
    assert {"contrastive-learning", "synthetic-data", "no-real-data"} <= set(card.data.tags)
    assert "masked-autoencoder" not in card.data.tags
    for said in (
        "learned to hold doubles together and all others apart among sounds invented by a\nmodular synthesizer",
        "| pairs | 8 pairs of doubles of sounds of `architecture=voice`",
        "0.02 of pitch, 0.25 of envelope, 0.25 of modulation, 0.25 of mixer; not augmented |",
        f"| synthesizer | version {facts['versions']['voices']}; every pair",
        "| standardisation | none:",
        "| objective | nothing masked; alignment of doubles and uniformity",
        "of the embedding itself, times 1.0 |",
        "2 steps of 4 pairs, SGD without momentum, learning rate",
        "a vector for every 960 ms",
        "(arXiv 2406.05923); this is an independent",
    ):
        assert said in card.text, said
    for foreign in ("patches", "Patches", "pooling=", "2606.14791", "AdamW", "clips/s", "{{", "{%"):
        assert foreign not in card.text, foreign


def test_cards_of_the_transformer_say_what_is_masked_and_redrawn(toy_recipe, tmp_path):
    both = {"doubles_weight": 0.5, "reconstruction_weight": 2.0, "masked": True, "augmented": True}
    for name, doubles in (("alone", {}), ("both", both)):
        recipe = toy_recipe(objective="doubles", num_clips=8, doubles=doubles)
        pretrain(recipe, tmp_path / name)
        export_run(tmp_path / name, tmp_path / name / "out")
    alone, both = (ModelCard.load(tmp_path / name / "out" / "README.md") for name in ("alone", "both"))
    assert type(AutoModel.from_pretrained(tmp_path / "alone" / "out")) is AudioPGModel
    _, report = AutoModelForPreTraining.from_pretrained(tmp_path / "both" / "out", output_loading_info=True)
    assert not any(report.values())
    assert "masked-autoencoder" not in alone.data.tags
    assert "| objective | nothing masked; alignment" in alone.text
    assert "of a projection of the embedding that is not in this folder, times 1.0 |" in alone.text
    assert "with the decoder" not in alone.text
    assert "| pairs | 8 pairs of doubles of sounds of preset `reference` with `duration=0.64`" in alone.text
    assert "masked-autoencoder" in both.data.tags
    assert "75.0 % of the patches masked, mean squared error on standardised patches, times 2.0; and" in both.text
    assert "times 0.5 |" in both.text
    assert "; augmented at random by filters" in both.text
    assert "and to hold their doubles together and all others apart." in both.text


def test_it_is_probed_on_clips_of_several_lengths_beside_its_controls(exported, tmp_path):
    write_recordings(tmp_path / "esc")
    for number, path in enumerate(sorted((tmp_path / "esc" / "audio").glob("*.flac"))):
        samples, rate = soundfile.read(path)
        soundfile.write(path, np.tile(samples, 1 + number % 5), rate)  # 0.5 to 2.5 s: 1, 2 or 3 windows
    for name in ("linear", "attentive"):
        words = ["--data_dir", str(tmp_path / "esc"), "--device", "cpu", "--output", str(tmp_path / f"{name}.json")]
        probe([str(exported), *words, "--probe", name])
        results = json.loads((tmp_path / f"{name}.json").read_text())["results"]
        log_mel = "log-mel mean and deviation" if name == "linear" else "log-mel frames"
        assert list(results) == [log_mel, "random encoder (seed 0)", "pre-trained encoder"]
        assert results[log_mel]["mean"] == 1.0  # a low and a high tone
    with pytest.raises(SystemExit):
        probe([str(exported), *words, "--layers", "all"])


def test_its_factors_are_decoded_without_layers_and_a_run_without_filters_is_refused(run, exported):
    model, extractor = AutoModel.from_pretrained(exported), AutoFeatureExtractor.from_pretrained(exported)
    clips = probe_clips(get_preset("reference", duration=1.5), next(iter(PROBE_SETS)), num_clips=6)
    features, layers = encoders_of(model, extractor, seed=0, device="cpu").features(clips)
    np.testing.assert_allclose(features["pre-trained"], model.embed(clips.waveforms, extractor), atol=1e-5)
    assert {source: found.shape for source, found in features.items()} == {
        "log-mel": (6, 128),
        "random": (6, 512),
        "pre-trained": (6, 512),
    }
    assert layers == {"random": [], "pre-trained": []}
    with pytest.raises(ValueError, match="trained a convolutional encoder"):
        filters_of(run)
