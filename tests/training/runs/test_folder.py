import dataclasses
import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass

import pytest
import torch
import yaml

from audiopg.training.objectives import recipe as recipe_module
from audiopg.training.objectives.masked_audio import MaskedAudio
from audiopg.training.objectives.pretraining import TrainedRun, pretrain
from audiopg.training.runs.checkpoints import MANIFEST, CheckpointWriter, checkpoints_of, seal, sound, verify
from audiopg.training.runs.folder import _FIRST_FIELDS, _digest, fingerprint, held, name_of
from audiopg.training.runs.metrics_log import read_metrics


@dataclass(frozen=True)
class Tea:
    minutes: float
    sugar: int = 0


@dataclass(frozen=True)
class TeaToday:
    minutes: float
    sugar: int = 0
    milk: bool = False


def test_what_is_read_of_a_model_may_be_chosen_after_its_run(toy_run, toy_recipe, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(toy_run, folder)
    name, weights = TrainedRun.open(folder).name, TrainedRun.open(folder).final_model().state_dict()
    pretrain(toy_recipe(embedding={"pooling": "mel_std", "layer": 1}), folder)
    run = TrainedRun.open(folder)
    config = run.final_model().config
    assert (run.name, config.embedding_pooling, config.embedding_layer) == (name, "mel_std", 1)
    assert all(torch.equal(value, weights[key]) for key, value in run.final_model().state_dict().items())


def test_a_new_field_with_a_default_orphans_no_run():
    assert fingerprint(Tea(3.0), {}) == fingerprint(TeaToday(3.0), {})
    assert fingerprint(Tea(3.0), {}) != fingerprint(TeaToday(3.0, milk=True), {})


def test_a_run_does_not_go_on_with_another_synthesizer(tmp_path, toy_recipe, monkeypatch):
    pretrain(toy_recipe(), tmp_path)
    monkeypatch.setattr(recipe_module, "SYNTHESIZER_VERSION", "9.9.9")
    with pytest.raises(ValueError, match=r"synthesizer: '0\.2\.0' there, '9\.9\.9' here"):
        pretrain(toy_recipe(), tmp_path)


def as_before(folder, synthesizer=None):
    """Turn a run's folder into one that was begun before `begun_with.json` and names of losses."""
    (folder / "begun_with.json").unlink()
    values = yaml.safe_load((folder / "recipe.yaml").read_text())
    old = {**{name: values[name] for name in _FIRST_FIELDS}, "recordings": {}}
    rest = {name: values[name] for name in ("name", "description", "micro_batch_size", "max_minutes", "log_every")}
    rest |= {name: values[name] for name in ("checkpoint_every", "keep_checkpoints", "milestones", "compile")}
    (folder / "recipe.yaml").write_text(yaml.safe_dump({**old, **rest}))
    for checkpoint in checkpoints_of(folder):
        manifest = json.loads((checkpoint / MANIFEST).read_text())
        manifest |= {"run": _digest(old), "losses": manifest["losses"].get("loss", [])}
        (checkpoint / MANIFEST).write_text(json.dumps(manifest))
    statistics = json.loads((folder / "statistics.json").read_text())
    del statistics["saw_real_data"]
    if synthesizer is not None:
        statistics["synthesizer_version"] = synthesizer
    (folder / "statistics.json").write_text(json.dumps(statistics))


@pytest.fixture
def old_run(tmp_path, toy_run):
    """A run from before, lost after step 4."""
    shutil.copytree(toy_run, tmp_path / "old")
    shutil.rmtree(checkpoints_of(tmp_path / "old")[-1])
    (tmp_path / "old/run.json").unlink()
    as_before(tmp_path / "old")
    return tmp_path / "old"


def test_a_run_begun_before_goes_on_to_the_same_losses(old_run, toy_recipe, toy_run):
    facts = pretrain(toy_recipe(), old_run)
    assert (facts["steps"], facts["saw_real_data"]) == (6, False)
    assert [row["loss"] for row in read_metrics(old_run)] == [row["loss"] for row in read_metrics(toy_run)]
    assert TrainedRun.open(old_run).final_model().num_parameters() > 0


def test_a_run_begun_before_by_another_synthesizer_is_refused(tmp_path, toy_run, toy_recipe):
    shutil.copytree(toy_run, tmp_path / "old")
    as_before(tmp_path / "old", synthesizer="0.1.0")
    with pytest.raises(ValueError, match=r"synthesizer: '0\.1\.0' there"):
        pretrain(toy_recipe(), tmp_path / "old")


def test_the_name_of_a_run_is_read_off_its_folder(toy_run, toy_recipe):
    manifest = json.loads((checkpoints_of(toy_run)[-1] / MANIFEST).read_text())
    assert manifest["run"] == name_of(toy_run, toy_recipe())


def test_a_model_is_taken_from_the_newest_checkpoint_that_is_what_was_written(tmp_path, toy_run, caplog):
    shutil.copytree(toy_run, tmp_path / "run")
    last = checkpoints_of(tmp_path / "run")[-1]
    before = TrainedRun.open(tmp_path / "run").model().decoder.mask_token.clone()
    (last / "model.safetensors").write_bytes(b"torn")
    model = TrainedRun.open(tmp_path / "run").model()
    assert "step_00000006 cannot be used" in caplog.text
    assert not model.decoder.mask_token.equal(before)
    assert [step for step, _ in TrainedRun.open(tmp_path / "run").weights_files()] == [4]
    with pytest.raises(ValueError, match="step_00000006 cannot be used"):
        TrainedRun.open(tmp_path / "run").final_model()


def test_a_sealed_folder_is_told_from_one_that_was_torn_altered_or_never_sealed(tmp_path, caplog):
    for name in ("whole", "torn", "altered", "unsealed", "another"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep/weights").write_bytes(b"0123456789")
        if name != "unsealed":
            seal(tmp_path / name, "other" if name == "another" else "mine", {"step": 3})
    (tmp_path / "torn/deep/weights").write_bytes(b"01234")
    (tmp_path / "altered/deep/weights").write_bytes(b"0123456780")
    found = list(sound([tmp_path / name for name in ("torn", "altered", "unsealed", "another", "whole")], "mine"))
    assert [(path.name, manifest["step"]) for path, manifest in found] == [("whole", 3)]
    assert caplog.text.count("It is passed over") == 4
    assert verify(tmp_path / "whole", "mine")["files"]["deep/weights"]["bytes"] == 10


def test_the_first_fields_are_still_fields_of_a_recipe(toy_recipe):
    assert set(_FIRST_FIELDS) <= {field.name for field in dataclasses.fields(toy_recipe())}


def lost_after_step_4(toy_run, folder):
    """A copy of the toy run, as if the machine had been lost after step 4."""
    shutil.copytree(toy_run, folder)
    shutil.rmtree(checkpoints_of(folder)[-1])
    (folder / "run.json").unlink()
    return folder


TIMES = ("seconds", "clips_per_second", "share_of_peak")


def rows_without_times(folder):
    return [{name: value for name, value in row.items() if name not in TIMES} for row in read_metrics(folder)]


@pytest.mark.parametrize("damage", [lambda text: text.replace("-", ""), lambda text: text[:20], lambda text: ""])
def test_statistics_that_were_changed_under_a_run_are_measured_again(tmp_path, toy_run, toy_recipe, caplog, damage):
    run = lost_after_step_4(toy_run, tmp_path / "run")
    before = (run / "statistics.json").read_text()
    (run / "statistics.json").write_text(damage(before))
    pretrain(toy_recipe(), run)
    assert "measured again, and is what it was" in caplog.text
    assert (run / "statistics.json").read_text() == before
    assert rows_without_times(run) == rows_without_times(toy_run)


def test_statistics_that_cannot_be_measured_again_are_refused(tmp_path, toy_run, toy_recipe, monkeypatch):
    run = lost_after_step_4(toy_run, tmp_path / "run")
    (run / "statistics.json").unlink()
    measured = {"mean": 0.0, "std": 1.0, "window": "hann"}
    monkeypatch.setattr(MaskedAudio, "measure", classmethod(lambda cls, recipe, device: measured))
    with pytest.raises(ValueError, match=r"statistics\.json is missing or has changed.*Restore it"):
        pretrain(toy_recipe(), run)


@pytest.mark.parametrize("fact", ["step", "seconds", "statistics"])
def test_a_manifest_that_was_altered_is_not_gone_on_from(toy_run, tmp_path, fact):
    shutil.copytree(checkpoints_of(toy_run)[-1], tmp_path / "step_00000006")
    path = tmp_path / "step_00000006" / MANIFEST
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, fact: "0" if fact == "statistics" else manifest[fact] + 1}))
    with pytest.raises(ValueError, match=r"content of manifest\.json has changed"):
        verify(tmp_path / "step_00000006", manifest["run"])


def test_a_damaged_line_of_metrics_is_named_and_costs_no_other(tmp_path, toy_run, caplog):
    lines = (toy_run / "metrics.jsonl").read_text().splitlines(keepends=True)
    lines[1] = lines[1].replace(":", ";", 1)
    (tmp_path / "metrics.jsonl").write_text("".join(lines))
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 3, 4, 5, 6]
    assert "Line 2 of " in caplog.text


def test_the_facts_of_a_finished_run_that_were_torn_are_made_again(tmp_path, toy_run, toy_recipe, caplog):
    shutil.copytree(toy_run, tmp_path / "run")
    (tmp_path / "run/run.json").write_text('{"finished": tr')
    with pytest.raises(ValueError, match=r"run\.json is damaged.*given again, makes it anew"):
        TrainedRun.open(tmp_path / "run").final_model()
    facts, before = pretrain(toy_recipe(), tmp_path / "run"), json.loads((toy_run / "run.json").read_text())
    assert {name: facts[name] for name in ("steps", "loss", "seconds")} == {
        name: before[name] for name in ("steps", "loss", "seconds")
    }
    assert "run.json is damaged" in caplog.text


def test_two_commands_at_once_are_one_and_a_refusal(tmp_path, toy_recipe):
    with held(tmp_path / "run"), pytest.raises(ValueError, match=r"Another command is at work in .*run; wait"):
        pretrain(toy_recipe(), tmp_path / "run")
    assert pretrain(toy_recipe(), tmp_path / "run")["finished"]


def test_a_lock_ends_with_its_process(tmp_path):
    code = (
        "import sys, pathlib, time\n"
        "from audiopg.training.runs.folder import held\n"
        "with held(pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(ValueError, match="at work"), held(tmp_path):
        pass
    process.kill()
    process.wait()
    process.stdout.close()
    with held(tmp_path):
        pass


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"file/run could not be written: Not a directory"), held(tmp_path / "file/run"):
        pass


def test_a_folder_of_something_else_is_not_claimed(tmp_path, toy_recipe):
    (tmp_path / "rounds").mkdir()
    (tmp_path / "run.json").write_text('{"checkpoint": "of a fine-tuning"}')
    with pytest.raises(ValueError, match="holds rounds, which is not of a pre-training"):
        pretrain(toy_recipe(), tmp_path)
    assert (tmp_path / "run.json").read_text() == '{"checkpoint": "of a fine-tuning"}'


def test_an_interrupted_run_has_the_metrics_of_one_that_was_not(tmp_path, toy_recipe, monkeypatch):
    """Checkpoints after every step, written late: what they keep of the losses is that of their own step."""
    write = CheckpointWriter._write

    def write_late(self, *words):
        time.sleep(0.03)
        write(self, *words)

    monkeypatch.setattr(CheckpointWriter, "_write", write_late)
    recipe = toy_recipe(checkpoint_every=1, keep_checkpoints=6, log_every=4)
    pretrain(recipe, tmp_path / "whole")
    expected = rows_without_times(tmp_path / "whole")
    for last in range(1, 6):
        run = tmp_path / f"lost after {last}"
        shutil.copytree(tmp_path / "whole", run)
        (run / "run.json").unlink()
        for checkpoint in checkpoints_of(run)[last:]:
            shutil.rmtree(checkpoint)
        pretrain(recipe, run)
        assert rows_without_times(run) == expected
