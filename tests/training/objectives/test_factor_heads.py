import json

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from toys import SMALL

from audiopg.data_scripts.synthesis import draw, get_preset, render
from audiopg.modeling.modeling_audiopg import AudioPGForPreTraining, AudioPGModel
from audiopg.training.engine.processes import StopRequest
from audiopg.training.objectives.factor_heads import (
    FactorHeads,
    clip_targets,
    head_loss,
    heads_of,
    scale_of,
    time_targets,
)
from audiopg.training.objectives.masked_audio import MaskedAudio
from audiopg.training.objectives.pretraining import TrainedRun, pretrain
from audiopg.training.runs.checkpoints import checkpoints_of
from audiopg.training.runs.metrics_log import read_metrics

CLIPS = draw("reference", seed=3, indices=range(64), duration=2.56)


def test_targets_are_what_was_drawn_on_a_scale_of_minus_one_to_one():
    targets = clip_targets(CLIPS)
    octaves = np.log2(CLIPS["f0"][:, 0].numpy() / 50) / np.log2(2000 / 50)
    np.testing.assert_allclose(targets["f0"].numpy(), 2 * octaves - 1, atol=1e-6)
    np.testing.assert_allclose(targets["num_events"].numpy(), (CLIPS["num_events"].numpy() - 3) / 2, atol=1e-6)
    assert all(value.nan_to_num().abs().max() <= 1 for name, value in targets.items() if name != "mode")


def test_what_a_clip_has_not_is_not_asked_of_it():
    targets = clip_targets(CLIPS)
    assert torch.equal(targets["cutoff"].isnan(), ~CLIPS["damping"])
    assert torch.equal(targets["modulation_index"].isnan(), CLIPS["mode"][:, 0] != 1)
    assert torch.equal(targets["num_partials"].isnan(), CLIPS["mode"][:, 0] != 0)
    said = torch.full((64, 1), 7.0, requires_grad=True)
    head_loss("cutoff", said, targets["cutoff"]).backward()
    assert torch.equal(said.grad[:, 0] == 0, ~CLIPS["damping"])


def test_a_factor_that_does_not_vary_has_no_head():
    assert heads_of(get_preset("sine")) == {"f0": 1}
    assert scale_of(get_preset("dynamic"), "noise_gain") is None
    assert "modulation_index" not in heads_of(get_preset("reference", mode=["harmonic", "pulse"]))


def test_events_sound_where_the_waveform_does():
    """Against the sound itself: one event in silence, no noise, no burst."""
    clips = draw(
        "dynamic", 0, range(16), duration=2.56, num_events=1, event_length=(0.4, 1.0), transient_probability=0.0
    )
    sound = render(clips).unfold(1, 2560, 2560).abs().amax(dim=-1) > 0.02
    told = time_targets(clips, rows=16, patch_seconds=0.16)
    agree = (sound == told[..., 0].bool()).float().mean()
    assert agree > 0.97
    assert torch.equal(told[..., 1].sum(dim=1), torch.ones(16))
    assert torch.equal(told[..., 1].argmax(dim=1), (clips["onset"][:, 0] / 0.16).floor().long())


def test_narrow_patches_are_told_the_onsets_of_their_own_time(toy_recipe):
    model = {**SMALL, "patch_frames": 4}
    recipe = toy_recipe(objective="factor_heads", model=model, preset="dynamic", synthesis={"duration": 1.0})
    objective = FactorHeads(recipe, {"mean": -6.0, "std": 4.0, "window": "hann"})
    parameters, targets = drawn = objective.draw(range(4))
    batch = objective.batch(range(4), drawn, torch.device("cpu"))
    assert batch["input_values"].shape == (4, 100, 128)  # 98 frames, in patches of four
    assert batch["noise"].shape == (4, 25 * 8)
    exists = parameters.event_exists
    for clip in range(4):
        begins = (parameters["onset"][clip][exists[clip]] / 0.04).floor().long()
        assert torch.equal(targets["time"][clip, :, 1].nonzero()[:, 0], begins.unique())
    assert objective.loss(objective.model, batch)["loss"].isfinite()


def test_losses_of_classes_are_scikit_learn_s():
    said, target = torch.randn(64, 4, generator=torch.Generator().manual_seed(0)), clip_targets(CLIPS)["mode"]
    expected = log_loss(target.numpy(), said.softmax(1).numpy(), labels=range(4))
    assert float(head_loss("mode", said, target)) == pytest.approx(expected, rel=1e-5)


def test_the_encoder_starts_as_the_masked_autoencoder_s_of_the_same_seed(toy_recipe):
    plain, heads = MaskedAudio.build_model(toy_recipe()), FactorHeads.build_model(toy_recipe(objective="factor_heads"))
    theirs = heads.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in plain.state_dict().items())


@pytest.fixture(scope="module")
def factor_run(tmp_path_factory, toy_recipe):
    """A finished run with both losses."""
    folder = tmp_path_factory.mktemp("factors")
    pretrain(toy_recipe(objective="factor_heads"), folder)
    return folder


def test_parts_of_a_step_add_up_to_the_step(tmp_path, toy_recipe, factor_run):
    pretrain(toy_recipe(objective="factor_heads", micro_batch_size=2), tmp_path)
    for mine, theirs in zip(read_metrics(tmp_path), read_metrics(factor_run), strict=True):
        for name in ("loss", "reconstruction", "factors", "factors/time", "factors/cutoff"):
            assert mine[name] == pytest.approx(theirs[name], rel=1e-4)


def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path, toy_recipe, factor_run, monkeypatch):
    recipe = toy_recipe(objective="factor_heads")
    monkeypatch.setattr(StopRequest, "signal", property(lambda self: 15, lambda self, value: None), raising=False)
    assert pretrain(recipe, tmp_path)["steps"] == 1
    monkeypatch.undo()
    pretrain(recipe, tmp_path)
    without_time = ("step", "loss", "factors", "factors/f0", "clips")
    mine, theirs = ([[row[n] for n in without_time] for row in read_metrics(f)] for f in (tmp_path, factor_run))
    assert mine == theirs
    a, b = (checkpoints_of(folder)[-1] / "model.safetensors" for folder in (tmp_path, factor_run))
    assert a.read_bytes() == b.read_bytes()


def test_heads_are_left_behind_when_a_model_is_released(factor_run, toy_recipe, tmp_path):
    model = TrainedRun.open(factor_run).final_model()
    assert type(model) is AudioPGForPreTraining
    assert not [name for name in model.state_dict() if "heads" in name]
    alone = toy_recipe(objective="factor_heads", factors={"reconstruction_weight": 0.0})
    facts = pretrain(alone, tmp_path)
    assert type(TrainedRun.open(tmp_path).final_model()) is AudioPGModel, "no decoder was trained"
    assert "reconstruction" not in read_metrics(tmp_path)[0]
    assert json.loads((tmp_path / "run.json").read_text())["objective"] == facts["objective"] == "factor_heads"


def test_training_learns_to_tell_the_factors(tmp_path, toy_recipe):
    recipe = toy_recipe(
        objective="factor_heads", factors={"reconstruction_weight": 0.0}, num_clips=800, learning_rate=3e-3
    )
    pretrain(recipe, tmp_path)
    curve = [row["factors"] for row in read_metrics(tmp_path)]
    assert np.mean(curve[-10:]) < 0.8 * np.mean(curve[:10])
