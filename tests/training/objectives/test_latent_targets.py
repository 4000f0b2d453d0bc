import numpy as np
import pytest
import safetensors.torch
import torch

from audiopg.modeling.modeling_audiopg import AudioPGForPreTraining, AudioPGModel
from audiopg.training.engine.processes import StopRequest
from audiopg.training.objectives.latent_targets import LatentTargets, latent_targets
from audiopg.training.objectives.masked_audio import MaskedAudio
from audiopg.training.objectives.pretraining import TrainedRun, pretrain
from audiopg.training.objectives.recipe import LatentsRecipe
from audiopg.training.runs.checkpoints import checkpoints_of
from audiopg.training.runs.metrics_log import read_metrics

LATENTS = {"objective": "latent_targets", "latents": {"layers": 1, "momentum": 0.9}}


@pytest.fixture(scope="module")
def latent_run(tmp_path_factory, toy_recipe):
    """A finished run, with all its checkpoints."""
    folder = tmp_path_factory.mktemp("latents")
    pretrain(toy_recipe(**LATENTS, checkpoint_every=1, keep_checkpoints=100), folder)
    return folder


def test_targets_are_a_mean_of_standardised_blocks():
    states = [torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
    expected = np.zeros((2, 4, 8))
    for block in (2, 3):
        values = states[block].numpy()[:, 1:]
        expected += (values - values.mean(2, keepdims=True)) / np.sqrt(values.var(2, keepdims=True) + 1e-5) / 2
    np.testing.assert_allclose(latent_targets(tuple(states), layers=2).numpy(), expected, atol=1e-5)


def test_the_teacher_is_the_exponential_average_of_the_encoder(latent_run, toy_recipe):
    weights = [safetensors.torch.load_file(folder / "model.safetensors") for folder in checkpoints_of(latent_run)]
    assert len(weights) > 1
    teacher = LatentTargets.build_model(toy_recipe(**LATENTS)).teacher.state_dict()
    for after in weights:
        for name, theirs in teacher.items():
            expected = 0.9 * theirs + 0.1 * after[f"audiopg.{name}"]
            torch.testing.assert_close(after[f"teacher.{name}"], expected, atol=1e-6, rtol=1e-5)
        teacher = {name: after[f"teacher.{name}"] for name in teacher}
    assert not torch.equal(teacher["norm.weight"], weights[-1]["audiopg.norm.weight"])


def test_encoder_and_teacher_start_as_the_masked_autoencoder_of_the_same_seed(toy_recipe):
    model = LatentTargets.build_model(toy_recipe(**LATENTS))
    for name, value in MaskedAudio.build_model(toy_recipe()).audiopg.state_dict().items():
        assert torch.equal(value, model.audiopg.state_dict()[name])
        assert torch.equal(value, model.teacher.state_dict()[name])


def test_the_loss_is_on_hidden_patches_alone_and_reaches_the_encoder_not_the_teacher(toy_recipe):
    model = LatentTargets.build_model(toy_recipe(**LATENTS))
    values = torch.randn(2, 32, model.config.num_mel_bins)
    noise = torch.rand(2, 32 * model.config.num_mel_bins // model.config.patch_values)
    losses = model(values, noise, {})
    losses["loss"].backward()
    assert all(parameter.grad is None for parameter in model.teacher.parameters())
    assert model.audiopg.embeddings.patch_embeddings.weight.grad.abs().sum() > 0
    with torch.no_grad():
        encoded = model.audiopg(values, None, noise)
        decoded = model.decoder.tokens(encoded.last_hidden_state, encoded.mask, encoded.ids_restore, None)
        targets = latent_targets(model.teacher(values, output_hidden_states=True).hidden_states, 1)
        hidden = encoded.mask.bool()
        expected = (model.prediction(decoded)[hidden] - targets[hidden]).square().mean()
    assert losses["latents"].item() == pytest.approx(float(expected), rel=1e-5)
    assert losses["target_spread"].item() == pytest.approx(targets.numpy().std(axis=(0, 1)).mean(), rel=1e-4)


def test_parts_of_a_step_add_up_to_the_step(tmp_path, toy_recipe, latent_run):
    pretrain(toy_recipe(**LATENTS, micro_batch_size=2), tmp_path)
    for mine, theirs in zip(read_metrics(tmp_path), read_metrics(latent_run), strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-4)


def test_a_stopped_run_goes_on_to_the_same_bits_teacher_and_all(tmp_path, toy_recipe, latent_run, monkeypatch):
    recipe = toy_recipe(**LATENTS)
    monkeypatch.setattr(StopRequest, "signal", property(lambda self: 15, lambda self, value: None), raising=False)
    assert pretrain(recipe, tmp_path)["steps"] == 1
    monkeypatch.undo()
    pretrain(recipe, tmp_path)
    a, b = (checkpoints_of(folder)[-1] / "model.safetensors" for folder in (tmp_path, latent_run))
    assert a.read_bytes() == b.read_bytes()


def test_the_teacher_is_left_behind_and_so_is_a_decoder_that_draws_nothing(latent_run, toy_recipe, tmp_path):
    assert type(TrainedRun.open(latent_run).final_model()) is AudioPGModel
    all_three = {"layers": 1, "reconstruction_weight": 1.0, "factors_weight": 0.5}
    pretrain(toy_recipe(objective="latent_targets", latents=all_three), tmp_path)
    model = TrainedRun.open(tmp_path).final_model()
    assert type(model) is AudioPGForPreTraining
    assert not [name for name in model.state_dict() if "teacher" in name or "heads" in name]
    row = read_metrics(tmp_path)[0]
    assert row["loss"] == pytest.approx(row["latents"] + row["reconstruction"] + 0.5 * row["factors"], rel=1e-5)


def test_training_learns_to_predict_a_teacher_that_still_tells_patches_apart(tmp_path, toy_recipe):
    pretrain(toy_recipe(**LATENTS, num_clips=800, learning_rate=3e-3), tmp_path)
    rows = read_metrics(tmp_path)
    mean = lambda name, part: np.mean([row[name] for row in rows[part]])  # noqa: E731
    assert mean("latents", slice(-10, None)) < 0.8 * mean("latents", slice(10))
    assert mean("target_spread", slice(-10, None)) > 0.2


@pytest.mark.parametrize(
    ("latents", "message"),
    [
        ({"momentum": 1.0}, "momentum is 0 or more and below 1"),
        ({"layers": 0}, "layers is 1 or more"),
        ({"latents_weight": 0.0}, "other objectives are without latents"),
        ({"factors_weight": -1.0}, "0 or more"),
    ],
)
def test_a_teacher_that_cannot_be_is_refused(latents, message):
    with pytest.raises(ValueError, match=message):
        LatentsRecipe(**latents)


def test_targets_are_of_blocks_that_the_model_has_and_factors_of_a_preset(toy_recipe):
    with pytest.raises(ValueError, match=r"latents\.layers are of the model's 2, got 4"):
        toy_recipe(objective="latent_targets")
    voices = {"preset": "", "synthesis": {}, "voices": {"architecture": "voice"}}
    with pytest.raises(ValueError, match=r"latents\.factors_weight is of what the synthesizer"):
        toy_recipe(**voices, objective="latent_targets", latents={"layers": 1, "factors_weight": 1.0})
