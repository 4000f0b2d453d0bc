import dataclasses
import json
import shutil
from dataclasses import dataclass

import pytest
import yaml

from audiopg.training.objectives import recipe as recipe_module
from audiopg.training.objectives.pretraining import TrainedRun, pretrain
from audiopg.training.runs.checkpoints import MANIFEST, checkpoints_of, seal, sound, verify
from audiopg.training.runs.folder import _FIRST_FIELDS, _digest, fingerprint, name_of
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
