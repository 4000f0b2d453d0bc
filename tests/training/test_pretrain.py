import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from audiopg.modeling.configuration_audiopg import AudioPGConfig
from audiopg.modeling.modeling_audiopg import AudioPGForPreTraining
from audiopg.training import pretrain as pretrain_module
from audiopg.training.pretrain import checkpoints_of, learning_rate_at, main, parameter_groups, pretrain, read_metrics


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in read_metrics(folder)]


def final_weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(checkpoints_of(folder)[-1] / "model.safetensors")


def test_a_run_leaves_its_facts_metrics_and_newest_checkpoints(toy_run):
    facts = json.loads((toy_run / "run.json").read_text())
    assert (facts["finished"], facts["steps"], facts["clips"]) == (True, 6, 48)
    assert [row["step"] for row in read_metrics(toy_run)] == [1, 2, 3, 4, 5, 6]
    assert [path.name for path in checkpoints_of(toy_run)] == ["step_00000004", "step_00000006"]
    assert facts["loss"] == losses(toy_run)[-1]
    events = EventAccumulator(str(toy_run / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3, 4, 5, 6]


def test_training_lowers_the_loss(tmp_path, toy_recipe):
    pretrain(toy_recipe(num_clips=240, learning_rate=3e-3, checkpoint_every=1000), tmp_path)
    curve = losses(tmp_path)
    assert np.mean(curve[-5:]) < 0.95 * np.mean(curve[:5])


def test_the_same_recipe_gives_the_same_run(tmp_path, toy_recipe, toy_run):
    pretrain(toy_recipe(), tmp_path)
    assert losses(tmp_path) == losses(toy_run)


def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path, toy_recipe, toy_run, monkeypatch):
    def ask_to_stop(*arguments, step, **values):
        row = write(*arguments, step, **values)
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return row

    write = pretrain_module.MetricsLog.write
    monkeypatch.setattr(pretrain_module.MetricsLog, "write", lambda log, step, **v: ask_to_stop(log, step=step, **v))
    facts = pretrain(toy_recipe(), tmp_path)
    assert (facts["finished"], facts["steps"]) == (False, 3 + 1)  # the step under way when the signal came is finished
    assert not (tmp_path / "run.json").exists()
    monkeypatch.undo()

    assert pretrain(toy_recipe(), tmp_path)["finished"]
    assert losses(tmp_path) == losses(toy_run)
    theirs = final_weights(toy_run)
    assert all(torch.equal(value, theirs[name]) for name, value in final_weights(tmp_path).items())


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path, toy_recipe, toy_run):
    recipe_file = tmp_path / "toy.yaml"
    recipe_file.write_text((toy_run / "recipe.yaml").read_text())
    script = Path(pretrain_module.__file__)
    command = [sys.executable, str(script), str(recipe_file), "--output_dir", str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not checkpoints_of(tmp_path / "run") and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert checkpoints_of(tmp_path / "run")
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    assert losses(tmp_path / "run") == losses(toy_run)
    theirs = final_weights(toy_run)
    assert all(torch.equal(value, theirs[name]) for name, value in final_weights(tmp_path / "run").items())


def test_two_processes_see_the_clips_of_one(tmp_path, toy_run):
    """The loss of two processes on half the batch each is that of one process on the whole."""
    script = Path(pretrain_module.__file__)
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    quiet = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    recipe_file = toy_run / "recipe.yaml"
    command = [*launch, *quiet, str(script), str(recipe_file), "--output_dir", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, timeout=240, env={**os.environ, "OMP_NUM_THREADS": "1"})
    np.testing.assert_allclose(losses(tmp_path), losses(toy_run), rtol=1e-5)


def test_a_folder_of_another_recipe_is_refused_with_the_difference(toy_recipe, toy_run):
    with pytest.raises(ValueError, match=r"learning_rate: 0.001 there, 0.002 here"):
        pretrain(toy_recipe(learning_rate=2e-3), toy_run)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, toy_recipe):
    with pytest.raises(FloatingPointError, match="the last checkpoint is sound"):
        pretrain(toy_recipe(learning_rate=1e30, schedule="constant", max_grad_norm=1e30, log_every=1), tmp_path)


def test_decay_touches_matrices_alone():
    model = AudioPGForPreTraining(AudioPGConfig.of_size("tiny"))
    decayed, spared = parameter_groups(model, 0.05)
    names = {id(p): name for name, p in model.named_parameters()}
    assert all(names[id(p)].endswith("weight") and p.ndim == 2 for p in decayed["params"])
    assert {names[id(p)].rsplit(".", 1)[-1] for p in spared["params"]} == {"bias", "weight", "cls_token", "mask_token"}
    assert all(p.squeeze().ndim < 2 for p in spared["params"])
    assert spared["weight_decay"] == 0
    assert len(decayed["params"]) + len(spared["params"]) == len(names)


def test_the_learning_rate_warms_up_and_falls_to_zero(toy_recipe):
    recipe = toy_recipe(num_clips=800, warmup_fraction=0.1)
    rates = [learning_rate_at(step, recipe) for step in range(recipe.num_steps)]
    assert rates[:10] == pytest.approx(np.linspace(1e-4, 1e-3, 10))
    assert rates[10] == recipe.learning_rate
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[-1] < 0.001 * recipe.learning_rate


def test_the_statistics_are_those_of_the_recipe_s_own_clips(toy_run):
    statistics = json.loads((toy_run / "statistics.json").read_text())
    assert statistics["preset"] == "reference"
    assert statistics["overrides"] == {"duration": 0.64}
    assert statistics["num_clips"] == 16
    assert -8 < statistics["mean"] < -3


def test_the_command_line_refuses_a_mistyped_field_before_it_starts(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["tiny", "--output_dir", str(tmp_path / "run"), "--lerning_rate", "1e-3"])
    assert stop.value.code == 2
    assert "did you mean 'learning_rate'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_line_cut_short_by_a_crash_ends_the_metrics(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"st')
    assert read_metrics(tmp_path) == [{"step": 1}]


def test_the_recipe_is_kept_beside_the_run(toy_run, toy_recipe):
    assert yaml.safe_load((toy_run / "recipe.yaml").read_text())["synthesis"] == {"duration": 0.64}
