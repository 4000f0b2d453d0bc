import json
import math
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import yaml
from toys import torchrun

from audiopg.data_scripts.augmentations import augment, draw_augmentations
from audiopg.data_scripts.synthesis import GROUPS, draw_doubles, render
from audiopg.data_scripts.voices import get_voice
from audiopg.modeling.feature_extraction_doppelganger import DoppelgangerFeatureExtractor
from audiopg.modeling.modeling_audiopg import AudioPGForPreTraining, AudioPGModel
from audiopg.modeling.modeling_doppelganger import DoppelgangerModel
from audiopg.training.engine.optimisation import build_optimizer, learning_rate_at
from audiopg.training.objectives.doubles import Doubles, DoublesModel, ResNetDoubles
from audiopg.training.objectives.pretraining import FAMILIES, TrainedRun, pretrain
from audiopg.training.objectives.recipe import DoublesRecipe, PretrainingRecipe
from audiopg.training.objectives.sources import SyntheticDoubles, VoiceDoubles
from audiopg.training.runs.checkpoints import checkpoints_of
from audiopg.training.runs.metrics_log import read_metrics
from audiopg.training.runs.recipes import RECIPES, load_recipe, plain

ALL = {"masked": True, "reconstruction_weight": 1.0, "factors_weight": 0.5, "augmented": True}
BOTH = {"objective": "doubles", "doubles": ALL}
RESNET = {
    "objective": "resnet_doubles",
    "size": "resnet_tiny",
    "model": {},
    "preset": "",
    "synthesis": {},
    "voices": {"architecture": "voice"},
    # A step by the sign of a gradient, as AdamW's first ones are, makes much of the last bit of one that is nearly 0.
    "optimizer": "sgd",
    "learning_rate": 0.002,
}
KINDS = {"both": BOTH, "resnet": RESNET}


@pytest.fixture(scope="module")
def runs(tmp_path_factory, toy_recipe):
    """A finished run of each kind."""
    folder = tmp_path_factory.mktemp("doubles")
    for name, changes in KINDS.items():
        pretrain(toy_recipe(**changes), folder / name)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_run_goes_on_to_the_same_bits(kind, runs, toy_recipe, tmp_path):
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(plain(toy_recipe(**KINDS[kind]))))
    command = [sys.executable, "training/pretrain.py", tmp_path / "recipe.yaml", "--output_dir", tmp_path / "run"]
    killed = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list((tmp_path / "run/checkpoints").glob("step_*/manifest.json")) and killed.poll() is None:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    pretrain(toy_recipe(**KINDS[kind]), tmp_path / "run")
    a, b = (checkpoints_of(folder)[-1] / "model.safetensors" for folder in (tmp_path / "run", runs / kind))
    assert a.read_bytes() == b.read_bytes()
    mine, theirs = ([row["loss"] for row in read_metrics(folder)] for folder in (tmp_path / "run", runs / kind))
    assert mine == theirs


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_train_as_one_does(kind, runs, toy_recipe, tmp_path):
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(plain(toy_recipe(**KINDS[kind]))))
    done = torchrun(2, "training/pretrain.py", tmp_path / "recipe.yaml", "--output_dir", tmp_path / "run")
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = read_metrics(runs / kind), read_metrics(tmp_path / "run")
    # Of the ResNet the first steps: what rounding makes of its ReLUs grows from step to step, by tens of times.
    steps = len(one) if kind == "both" else 3
    for name in ("loss", "alignment", "uniformity"):
        mine, theirs = ([row[name] for row in rows[:steps]] for rows in (two, one))
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)


def test_the_head_is_left_behind_and_each_kind_releases_its_encoder(runs, toy_recipe):
    both = TrainedRun.open(runs / "both").final_model()
    assert type(both) is AudioPGForPreTraining
    assert not [name for name in both.state_dict() if "projection" in name or "heads" in name]
    run = TrainedRun.open(runs / "resnet")
    encoder, extractor = run.final_model().eval(), run.feature_extractor()
    assert (type(encoder), type(extractor)) == (DoppelgangerModel, DoppelgangerFeatureExtractor)
    assert extractor.statistics["saw_real_data"] is False
    assert run.facts["objective"] == "resnet_doubles"
    assert encoder(**extractor(torch.randn(20000), sampling_rate=16000)).pooler_output.isfinite().all()
    recipe = toy_recipe(objective="doubles")
    alone = Doubles.released(recipe, Doubles.build_model(recipe).state_dict())
    assert type(alone) is AudioPGModel, "no decoder was trained"


def test_the_encoder_starts_as_the_masked_autoencoder_s_of_the_same_seed(toy_recipe):
    theirs = Doubles.build_model(toy_recipe(objective="doubles")).state_dict()
    mine = FAMILIES["masked_audio"].build_model(toy_recipe()).state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in mine.items())


def test_a_batch_is_the_doubles_of_its_examples_augmented_each_by_itself(toy_recipe):
    recipe = toy_recipe(**BOTH)
    objective = Doubles(recipe, {"window": "hann", "mean": -8.0, "std": 4.0})
    batch = objective.batch(range(3, 5), objective.draw(range(3, 5)), torch.device("cpu"))
    clips = render(draw_doubles(recipe.clips, recipe.seed, [3, 4], 0.25))
    clips = augment(clips, draw_augmentations(recipe.seed, torch.tensor([3, 4]), 2), sampling_rate=16000)
    torch.testing.assert_close(batch["input_values"], objective.feature_extractor.extract(clips))
    one = objective.batch(range(4, 5), objective.draw(range(4, 5)), torch.device("cpu"))
    torch.testing.assert_close(one["input_values"], batch["input_values"][2:], rtol=1e-4, atol=1e-3)
    assert torch.equal(one["noise"], batch["noise"][2:])
    assert not torch.equal(one["noise"][0], one["noise"][1]), "doubles are masked each by itself"


def test_the_loss_is_the_weighted_sum_and_the_decoder_redraws_hidden_patches():
    config = load_recipe(PretrainingRecipe, "tiny").config
    model = DoublesModel(config, DoublesRecipe(masked=True, doubles_weight=0.3, reconstruction_weight=2.0))
    values, noise = torch.randn(4, 64, 128), torch.rand(4, 32)
    losses = model(values, noise)
    expected = 0.3 * (losses["alignment"] + losses["uniformity"]) + 2 * losses["reconstruction"]
    torch.testing.assert_close(losses["loss"], expected)
    plain_model = AudioPGForPreTraining(config)
    plain_model.load_state_dict({name: model.state_dict()[name] for name in plain_model.state_dict()})
    torch.testing.assert_close(losses["reconstruction"], plain_model(values, noise=noise).loss)


def test_heads_are_asked_what_their_own_double_is(toy_recipe):
    recipe = toy_recipe(**BOTH)
    objective = Doubles(recipe, {"window": "hann", "mean": -8.0, "std": 4.0})
    batch = objective.batch(range(2), objective.draw(range(2)), torch.device("cpu"))
    f0 = draw_doubles(recipe.clips, recipe.seed, [0, 1], 0.25)["f0"][:, 0]
    octaves = (f0 / 50).log2() / math.log2(2000 / 50)
    torch.testing.assert_close(batch["f0"], (2 * octaves - 1).float(), rtol=1e-5, atol=1e-5)
    assert not torch.equal(batch["f0"][0::2], batch["f0"][1::2])
    losses = objective.loss(objective.model, batch)
    parts = losses["alignment"] + losses["uniformity"] + losses["reconstruction"] + 0.5 * losses["factors"]
    torch.testing.assert_close(losses["loss"], parts)


@pytest.mark.parametrize("world", ["clips", "voices"])
def test_the_distance_of_doubles_grows_with_delta(world, toy_recipe):
    indices, distances = torch.arange(16), []
    for delta in (0.0, 0.02, 0.1, 0.5):
        if world == "voices":
            source = VoiceDoubles(get_voice("voice"), 0, dict.fromkeys(GROUPS, delta))
        else:
            source = SyntheticDoubles(toy_recipe().clips, 0, delta)
        mel = DoppelgangerFeatureExtractor().extract(
            torch.nn.functional.pad(source.waveforms(source.draw(indices), "cpu"), (0, 16000))[:, :16000]
        )
        first, second = mel.unflatten(0, (-1, 2)).unbind(dim=1)
        distances.append(float((first - second).abs().mean()))
    assert distances == sorted(distances)
    assert distances[-1] > 2 * distances[1]


def test_training_finds_doubles(toy_recipe, tmp_path):
    """Better than a head on the untrained encoder: doubles of new clips are each other's nearest."""
    recipe = toy_recipe(objective="doubles", doubles={"delta": 0.05}, num_clips=960, batch_size=32, learning_rate=3e-3)
    pretrain(recipe, tmp_path)
    rows = read_metrics(tmp_path)
    assert np.mean([row["loss"] for row in rows[-5:]]) < np.mean([row["loss"] for row in rows[:5]]) - 0.5
    assert rows[-1]["uniformity"] < rows[0]["uniformity"] - 0.5


def test_the_paper_s_schedule_and_optimizer():
    recipe = load_recipe(PretrainingRecipe, "doppelgangers")
    assert recipe.num_steps == 200 * 131
    rates = [learning_rate_at(131 * epoch, recipe) for epoch in (0, 154, 155, 170, 185, 199)]
    assert rates == pytest.approx([0.36, 0.36, 0.036, 0.0036, 0.00036, 0.00036])
    optimizer = build_optimizer(torch.nn.Linear(2, 2), recipe)
    assert type(optimizer) is torch.optim.SGD
    assert [group["weight_decay"] for group in optimizer.param_groups] == [1e-6, 0.0]
    assert optimizer.param_groups[0]["momentum"] == 0


def test_flop_of_the_resnet_are_those_of_its_layers():
    """Against a hand count of the stem and the last layer, and the published 1.8 GFLOP at 224 x 224, scaled."""
    recipe = load_recipe(PretrainingRecipe, "doppelgangers")
    per_sound = ResNetDoubles.flop_per_example(recipe) / 6
    published = 2 * 1.814e9 * (96 * 64) / 224**2
    assert per_sound == pytest.approx(published, rel=0.12)


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*doppelgangers*.yaml")), ids=lambda path: path.stem)
def test_recipes_of_doubles_build(path):
    recipe = load_recipe(PretrainingRecipe, path)
    assert recipe.is_contrastive
    assert math.isfinite(FAMILIES[recipe.objective].flop_per_example(recipe))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": "doubles", "preset": "", "recordings": {"folder": "x"}}, "nobody drew recordings"),
        ({"objective": "doubles", "doubles": {"delta": 2.0}}, "doubles.delta lies between 0 and 1"),
        (
            {"objective": "doubles", "doubles": {"delta_of": {"colour": 0.1}}},
            "groups pitch, envelope, modulation, mixer",
        ),
        ({"objective": "doubles", "doubles": {"reconstruction_weight": 1.0}}, "set doubles.masked"),
        ({**RESNET, "objective": "doubles", "size": "tiny", "doubles": {"factors_weight": 1.0}}, "set a preset, or 0"),
        ({"objective": "doubles", "batch_size": 1, "num_clips": 1}, "holds sounds apart, two at least"),
        ({"preset": "reference", "voices": {"architecture": "voice"}}, "set one and empty the others"),
        ({**RESNET, "voices": {"architecture": "voice", "duration": 0.5}}, "0.975 s at least"),
        ({**RESNET, "voices": {"architecture": "violin"}}, "voice"),
        ({**RESNET, "model": {"patch_size": 8}}, "for a ResNet; leave it out"),
        ({**RESNET, "size": "tiny"}, "resnet18"),
        ({"optimizer": "lion"}, "optimizer is one of adamw, sgd"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(changes, message, toy_recipe):
    with pytest.raises(ValueError, match=message):
        toy_recipe(**changes)


def test_voices_may_be_redrawn_too(toy_recipe, tmp_path):
    recipe = toy_recipe(preset="", synthesis={}, voices={"architecture": "voice", "duration": 0.64}, num_clips=16)
    pretrain(recipe, tmp_path)
    statistics = json.loads((tmp_path / "statistics.json").read_text())
    assert statistics["saw_real_data"] is False
    assert statistics["voices"]["architecture"] == "voice"
