import errno
import json
import math
import os
import random
import shutil
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
from audiopg.modeling.feature_extraction_audiopg import AudioPGFeatureExtractor
from audiopg.modeling.modeling_audiopg import AudioPGForAudioClassification, AudioPGForPreTraining
from audiopg.training import pretrain as pretrain_door
from audiopg.training.engine import loop
from audiopg.training.engine.optimisation import learning_rate_at, parameter_groups
from audiopg.training.engine.processes import StopRequest
from audiopg.training.objectives.pretraining import pretrain
from audiopg.training.objectives.recipe import PretrainingRecipe
from audiopg.training.pretrain import main
from audiopg.training.runs import metrics_log
from audiopg.training.runs.checkpoints import checkpoints_of
from audiopg.training.runs.metrics_log import read_metrics
from audiopg.training.runs.recipes import load_recipe


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
    def add_and_ask_to_stop(log, *values):
        add(log, *values)
        if log.step == 3:  # settled, so this is the fourth
            os.kill(os.getpid(), signal.SIGTERM)

    add = metrics_log.MetricsLog.add
    monkeypatch.setattr(metrics_log.MetricsLog, "add", add_and_ask_to_stop)
    facts = pretrain(toy_recipe(), tmp_path)
    assert (facts["finished"], facts["steps"]) == (False, 4)  # the step under way when the signal came is finished
    assert not (tmp_path / "run.json").exists()
    monkeypatch.undo()

    assert pretrain(toy_recipe(), tmp_path)["finished"]
    assert losses(tmp_path) == losses(toy_run)
    theirs = final_weights(toy_run)
    assert all(torch.equal(value, theirs[name]) for name, value in final_weights(tmp_path).items())


def command_of(folder: Path, recipe_file: Path) -> list[str]:
    return [sys.executable, pretrain_door.__file__, str(recipe_file), "--output_dir", str(folder)]


def kill_at_random_moments(command: list[str], folder: Path, moments: int, seed: int) -> None:
    """Start a run and kill it, again and again: while it starts, between two steps, while it saves."""
    chance = random.Random(seed)
    for _ in range(moments):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        lines = len(read_metrics(folder)) + chance.choice([0, 1, 2, 3, 5, 8])
        deadline = time.monotonic() + 120
        while len(read_metrics(folder)) < lines and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.1))
        process.kill()
        process.wait()


def assert_kills_leave_no_trace(tmp_path, recipe, moments: int) -> None:
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    pretrain(recipe, undisturbed)
    command = command_of(killed, undisturbed / "recipe.yaml")
    kill_at_random_moments(command, killed, moments, seed=0)
    assert not (killed / "run.json").exists(), "no kill came in time: make the run longer"
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    without_time = [{k: row[k] for k in ("step", "loss", "learning_rate", "clips")} for row in read_metrics(killed)]
    assert without_time == [{k: row[k] for k in without_time[0]} for row in read_metrics(undisturbed)]
    theirs = final_weights(undisturbed)
    assert all(torch.equal(value, theirs[name]) for name, value in final_weights(killed).items())


def test_a_run_killed_at_two_random_moments_ends_at_the_same_bits(tmp_path, toy_recipe):
    recipe = toy_recipe(num_clips=240, checkpoint_every=3, log_every=2)
    assert_kills_leave_no_trace(tmp_path, recipe, moments=2)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_killed_at_twenty_random_moments_ends_at_the_same_bits(tmp_path, toy_recipe):
    recipe = toy_recipe(num_clips=3200, checkpoint_every=3, log_every=2)
    assert_kills_leave_no_trace(tmp_path, recipe, moments=20)


def test_gradient_accumulation_changes_no_loss(tmp_path, toy_recipe, fifty_steps):
    pretrain(toy_recipe(num_clips=400, checkpoint_every=100, micro_batch_size=2), tmp_path)
    np.testing.assert_allclose(losses(tmp_path), losses(fifty_steps), rtol=1e-5)


@pytest.fixture(scope="module")
def fifty_steps(tmp_path_factory, toy_recipe):
    """The toy run, 50 steps long."""
    folder = tmp_path_factory.mktemp("runs") / "fifty"
    pretrain(toy_recipe(num_clips=400, checkpoint_every=100), folder)
    return folder


TWO_PROCESSES = """
import os, signal, sys
from pathlib import Path
from audiopg.training.engine.processes import StopRequest
from audiopg.training.objectives.pretraining import pretrain
from audiopg.training.objectives.recipe import PretrainingRecipe
from audiopg.training.runs import metrics_log
from audiopg.training.objectives.recipe import PretrainingRecipe
from audiopg.training.runs.recipes import load_recipe

def add(log, *values):
    original(log, *values)
    if os.environ["RANK"] == "1" and log.step == 44:
        os.kill(os.getpid(), signal.SIGTERM)

original, metrics_log.MetricsLog.add = metrics_log.MetricsLog.add, add
recipe = load_recipe(PretrainingRecipe, sys.argv[1], {"micro_batch_size": 2})
facts = pretrain(recipe, Path(sys.argv[2]))
assert (facts["finished"], facts["steps"], facts["processes"]) == (False, 45, 2), facts
"""


def test_two_processes_see_the_clips_of_one_agree_to_stop_and_leave_the_rest_to_one(tmp_path, fifty_steps):
    """Half the batch each, in two parts; a signal to one of them ends both; a single process does the last steps."""
    script, recipe_file = tmp_path / "two.py", fifty_steps / "recipe.yaml"
    script.write_text(TWO_PROCESSES)
    # Of several CPU processes accelerate's own launcher makes one; torchrun's does not.
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    command = [*launch, str(script), str(recipe_file), str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(losses(tmp_path / "run")) == 45
    assert pretrain(load_recipe(PretrainingRecipe, recipe_file), tmp_path / "run")["finished"]
    np.testing.assert_allclose(losses(tmp_path / "run"), losses(fifty_steps), rtol=1e-5)


def test_a_step_logged_after_resuming_averages_the_losses_from_before(tmp_path, toy_recipe, toy_run):
    recipe = toy_recipe(log_every=4, checkpoint_every=3)
    stop_after(3, recipe, tmp_path)
    pretrain(recipe, tmp_path)
    expected = losses(toy_run)
    assert losses(tmp_path) == [sum(expected[:4]) / 4, sum(expected[4:]) / 2]


def stop_after(step: int, recipe: PretrainingRecipe, folder: Path) -> None:
    """As if the machine had been lost after the checkpoint of `step`."""
    pretrain(recipe, folder)
    (folder / "run.json").unlink()
    for path in checkpoints_of(folder):
        if path.name > f"step_{step:08d}":
            shutil.rmtree(path)


def test_a_truncated_checkpoint_is_named_and_the_one_before_it_taken(tmp_path, toy_recipe, toy_run, caplog):
    pretrain(toy_recipe(), tmp_path)
    weights = checkpoints_of(tmp_path)[-1] / "model.safetensors"
    size = weights.stat().st_size
    os.truncate(weights, size - 1)
    pretrain(toy_recipe(), tmp_path)
    assert f"step_00000006 cannot be used: model.safetensors has {size - 1} bytes of {size}" in caplog.text
    theirs = final_weights(toy_run)
    assert all(torch.equal(value, theirs[name]) for name, value in final_weights(tmp_path).items())


def test_a_run_over_checkpoints_none_of_which_can_be_used_is_refused(tmp_path, toy_recipe, toy_run):
    run = tmp_path / "run"
    shutil.copytree(toy_run / "checkpoints", run / "checkpoints")
    with pytest.raises(ValueError, match="None of the 2 checkpoints"):
        pretrain(toy_recipe(seed=1), run)


def test_milestones_stay_beside_the_newest_checkpoints(tmp_path, toy_recipe):
    pretrain(toy_recipe(milestones=[1, 2], keep_checkpoints=1), tmp_path)
    assert [path.name for path in checkpoints_of(tmp_path)] == ["step_00000001", "step_00000002", "step_00000006"]


def full_disk_from(monkeypatch, step: int) -> None:
    """Every checkpoint from `step` on meets a full disk, halfway through."""

    def write(path, content):
        if "step_" in str(path) and path.parent.name >= f"step_{step:08d}" and path.name == "manifest.json":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(path, content)

    original = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", write)


def test_a_disk_that_is_full_for_a_while_costs_a_checkpoint_and_nothing_else(
    tmp_path, toy_recipe, toy_run, monkeypatch, caplog
):
    full_disk_from(monkeypatch, 4)
    message = r"step 6 could not be saved \(.*No space.*The last checkpoint is .*step_00000002"
    with pytest.raises(OSError, match=message):
        pretrain(toy_recipe(), tmp_path)
    assert losses(tmp_path) == losses(toy_run)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_00000002"]
    assert caplog.text.count("could not be saved") == 2
    monkeypatch.undo()
    assert pretrain(toy_recipe(), tmp_path)["finished"]
    theirs = final_weights(toy_run)
    assert all(torch.equal(value, theirs[name]) for name, value in final_weights(tmp_path).items())


def test_metrics_that_meet_a_full_disk_are_written_later(tmp_path, toy_recipe, toy_run, monkeypatch, caplog):
    def append(path, text):
        calls.append(text)
        if len(calls) in (2, 3):
            original(path, text[:5])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(path, text)

    calls: list[str] = []
    original = metrics_log.append_text
    monkeypatch.setattr(metrics_log, "append_text", append)
    pretrain(toy_recipe(), tmp_path)
    assert caplog.text.count("its lines are kept for later") == 2
    assert losses(tmp_path) == losses(toy_run)


def test_a_wall_clock_budget_ends_a_run_that_counts_as_finished(tmp_path, toy_recipe):
    recipe = toy_recipe(num_clips=80_000, max_minutes=0.005, schedule="constant")
    facts = pretrain(recipe, tmp_path)
    assert facts["finished"]
    assert 1 <= facts["steps"] < 10_000
    assert read_metrics(tmp_path)[-1]["step"] == facts["steps"]
    assert pretrain(recipe, tmp_path)["steps"] == facts["steps"]


def test_a_finished_run_that_is_started_again_keeps_its_facts(tmp_path, toy_recipe):
    first = pretrain(toy_recipe(), tmp_path)
    again = pretrain(toy_recipe(), tmp_path)
    assert {name: again[name] for name in ("steps", "loss", "seconds")} == {
        name: first[name] for name in ("steps", "loss", "seconds")
    }


def test_a_profile_names_the_phases_of_a_step_and_trains_nothing(tmp_path, toy_run, capsys):
    main([str(toy_run / "recipe.yaml"), "--output_dir", str(tmp_path), "--profile", "--micro_batch_size", "4"])
    table = [line.split() for line in capsys.readouterr().out.splitlines()]
    names = ["phase", "draw", "synthesis", "log-mel", "forward", "backward", "optimizer", "together"]
    assert [row[0] for row in table] == names
    assert all(float(row[1]) > 0 for row in table[1:])
    assert not checkpoints_of(tmp_path)


def test_stochastic_depth_is_refused_because_it_could_not_be_repeated(tmp_path, toy_recipe):
    with pytest.raises(ValueError, match="drop_path_rate is 0 in pre-training"):
        pretrain(toy_recipe(model={"drop_path_rate": 0.1}), tmp_path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # PyTorch's own
def test_a_compiled_run_has_the_losses_of_one_that_is_not(tmp_path, toy_recipe, toy_run):
    pretrain(toy_recipe(compile=True, micro_batch_size=4), tmp_path)
    np.testing.assert_allclose(losses(tmp_path), losses(toy_run), rtol=1e-4)


def test_a_folder_of_another_recipe_is_refused_with_the_difference(toy_recipe, toy_run):
    with pytest.raises(ValueError, match=r"learning_rate: 0.001 there, 0.002 here"):
        pretrain(toy_recipe(learning_rate=2e-3), toy_run)


def test_a_command_that_failed_leaves_its_folder_to_the_corrected_one(tmp_path, toy_recipe):
    with pytest.raises(ValueError, match="f0: a range is"):
        pretrain(toy_recipe(synthesis={"duration": 0.64, "f0": [400, 50]}), tmp_path)
    assert pretrain(toy_recipe(num_clips=8), tmp_path)["finished"]


def test_a_finished_run_that_is_started_elsewhere_keeps_the_facts_of_where_it_ran(tmp_path, toy_recipe, monkeypatch):
    pretrain(toy_recipe(num_clips=8), tmp_path)
    before = (tmp_path / "run.json").read_text()
    monkeypatch.setattr(loop, "environment", lambda: {"hardware": "another machine"})
    assert pretrain(toy_recipe(num_clips=8), tmp_path) == json.loads(before)
    assert (tmp_path / "run.json").read_text() == before


def test_a_newer_checkpoint_that_was_refused_costs_no_sound_one(tmp_path, toy_recipe):
    pretrain(toy_recipe(num_clips=32), tmp_path)
    for later in ("step_00000090", "step_00000091"):
        shutil.copytree(checkpoints_of(tmp_path)[0], tmp_path / "checkpoints" / later)
        (tmp_path / "checkpoints" / later / "manifest.json").unlink()
    (tmp_path / "run.json").unlink()
    (tmp_path / "checkpoints/step_00000004/manifest.json").unlink()
    assert pretrain(toy_recipe(num_clips=32), tmp_path)["steps"] == 4
    assert {path.name for path in checkpoints_of(tmp_path)} >= {"step_00000002", "step_00000004"}


def test_a_model_without_its_decoder_is_no_beginning(tmp_path, toy_recipe):
    config = toy_recipe().config
    AudioPGForAudioClassification(config).save_pretrained(tmp_path / "classifier")
    AudioPGFeatureExtractor().save_pretrained(tmp_path / "classifier")
    with pytest.raises(ValueError, match="a pre-trained model with its decoder"):
        pretrain(toy_recipe(init_from=str(tmp_path / "classifier")), tmp_path / "run")


def test_a_loss_that_is_not_finite_stops_the_run_and_names_clips_and_checkpoint(tmp_path, toy_recipe, monkeypatch):
    def forward(model, input_values, noise):
        output = original(model, input_values=input_values, noise=noise)
        steps.append(len(steps))
        output.loss = output.loss * (math.nan if len(steps) == 4 else 1)
        return output

    steps: list[int] = []
    original = AudioPGForPreTraining.forward
    monkeypatch.setattr(AudioPGForPreTraining, "forward", forward)
    message = r"Step 4, of the clips 24 to 31, has the loss nan .* The last checkpoint is .*step_00000002"
    with pytest.raises(FloatingPointError, match=message):
        pretrain(toy_recipe(log_every=5), tmp_path)
    assert [path.name for path in checkpoints_of(tmp_path)] == ["step_00000002"]


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


def test_a_stopped_run_whose_optimizer_remembers_nothing_goes_on_to_the_same_bits(tmp_path, toy_recipe, monkeypatch):
    recipe = toy_recipe(optimizer="sgd", learning_rate=0.01)
    pretrain(recipe, tmp_path / "whole")
    monkeypatch.setattr(StopRequest, "signal", property(lambda self: 15, lambda self, value: None), raising=False)
    assert pretrain(recipe, tmp_path / "stopped")["steps"] == 1
    monkeypatch.undo()
    pretrain(recipe, tmp_path / "stopped")
    a, b = (checkpoints_of(tmp_path / name)[-1] / "model.safetensors" for name in ("whole", "stopped"))
    assert a.read_bytes() == b.read_bytes()
