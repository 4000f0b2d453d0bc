"""A run looked at along its way: what is measured is what an export of that checkpoint would give."""

import json
import shutil

import numpy as np
import pytest
from safetensors.torch import load_file
from toys import write_recordings

from audiopg.data_scripts.probe_clips import FACTORS
from audiopg.modeling.modeling_audiopg import AudioPGForPreTraining
from audiopg.training.ablation import milestones as script
from audiopg.training.ablation.milestones import encoders_of, foretold, loss_curve
from audiopg.training.milestones import main
from audiopg.training.objectives.pretraining import TrainedRun, pretrain


@pytest.fixture(scope="module")
def run_folder(toy_recipe, tmp_path_factory):
    """A finished run of six steps with two milestones; tests only read it."""
    folder = tmp_path_factory.mktemp("runs") / "long"
    pretrain(toy_recipe(milestones=[1, 3], keep_checkpoints=1), folder)
    return folder


@pytest.fixture(autouse=True)
def few_clips(monkeypatch):
    monkeypatch.setattr("audiopg.training.ablation.jobs.NUM_TRAINING_CLIPS", 48)
    monkeypatch.setattr("audiopg.training.ablation.jobs.NUM_TEST_CLIPS", 24)


def test_milestones_and_the_end_are_read_before_them_the_untrained_encoder(run_folder):
    run = TrainedRun.open(run_folder)
    found = dict(encoders_of(run))
    assert list(found) == [0, 1, 3, 6]
    for step, encoder in list(found.items())[1:]:
        weights = load_file(run_folder / f"checkpoints/step_{step:08d}/model.safetensors")
        for name, value in encoder.state_dict().items():
            assert np.array_equal(value.numpy(), weights[f"audiopg.{name}"].numpy())
    same, other = (AudioPGForPreTraining(run.recipe.config) for _ in range(2))
    initial = run.initial_model().state_dict()
    same.load_state_dict(initial)
    assert all(
        np.array_equal(v.numpy(), same.audiopg.state_dict()[n].numpy()) for n, v in found[0].state_dict().items()
    )
    assert any(
        not np.array_equal(v.numpy(), other.audiopg.state_dict()[n].numpy()) for n, v in found[0].state_dict().items()
    )


def test_the_command_measures_tabulates_and_draws_and_keeps_what_it_measured(
    run_folder, tmp_path, capsys, monkeypatch
):
    write_recordings(tmp_path / "tones")
    words = [str(run_folder), "--data_dir", str(tmp_path / "tones"), "--output_dir", str(tmp_path / "out")]
    main(words)
    report = json.loads((tmp_path / "out" / "milestones.json").read_text())
    assert [(row["step"], row["clips"]) for row in report["milestones"]] == [(0, 0), (1, 8), (3, 24), (6, 48)]
    [title] = report["datasets"]
    assert report["datasets"][title] == {"metric": "accuracy", "rounds": ["fold 1", "fold 2", "fold 3"]}
    rows = (*report["milestones"], report["log_mel"])
    assert all(len(row["classes"][title][probe]) == 3 for row in rows for probe in ("scores", "neighbours"))
    assert list(report["log_mel"]["factors"]) == list(FACTORS)
    assert report["log_mel"]["classes"][title]["scores"] == [1.0, 1.0, 1.0]  # a low and a high tone
    assert [point["clips"] for point in report["loss"]] == [8, 16, 24, 32, 40, 48]
    assert str(tmp_path) not in (tmp_path / "out" / "milestones.json").read_text()
    table = (tmp_path / "out" / "milestones.md").read_text().splitlines()
    assert len(table) == 2 + 4 + 1
    assert len({line.count("|") for line in table}) == 1
    assert (
        f"| 48 | {report['loss'][-1]['loss']:.3f} | {report['milestones'][-1]['factors']['frequency']:.3f} |"
        in table[-2]
    )
    assert (tmp_path / "out" / "milestones.png").stat().st_size > 5000
    for name in ("measure_classes", "measure_factors"):
        monkeypatch.setattr(script, name, lambda *_, **__: pytest.fail("it is measured again"))
    capsys.readouterr()
    main(words)
    assert capsys.readouterr().out.splitlines() == table


def test_a_run_under_way_is_read_as_far_as_it_came(run_folder, tmp_path):
    shutil.copytree(run_folder, tmp_path / "run", ignore=shutil.ignore_patterns("run.json", "step_00000006"))
    main([str(tmp_path / "run"), "--output_dir", str(tmp_path / "out")])
    report = json.loads((tmp_path / "out" / "milestones.json").read_text())
    assert [row["step"] for row in report["milestones"]] == [0, 1, 3]
    assert report["datasets"] == {}


def refusal_of(words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_a_run_without_milestones_is_refused(toy_run, tmp_path, capsys):
    shutil.copytree(toy_run, tmp_path / "run", ignore=shutil.ignore_patterns("run.json"))
    words = [str(tmp_path / "run"), "--output_dir", str(tmp_path / "out")]
    assert "has no checkpoint that stays; give its recipe `milestones`, in steps" in refusal_of(words, capsys)
    assert "holds no run" in refusal_of([str(tmp_path)], capsys)


def test_the_same_data_set_twice_is_refused(run_folder, tmp_path, capsys):
    write_recordings(tmp_path / "tones")
    words = [str(run_folder), "--data_dir", *[str(tmp_path / "tones")] * 2, "--output_dir", str(tmp_path / "out")]
    assert "Data sets are told apart by their names" in refusal_of(words, capsys)


def test_the_curve_of_the_loss_is_that_of_its_rows_where_there_are_few():
    rows = [{"clips": 16 * (1 + step), "loss": float(step)} for step in range(5)]
    assert loss_curve(rows) == rows
    assert loss_curve([]) == []


def test_a_long_curve_keeps_the_mean_of_each_stretch():
    clips = np.arange(1, 10_001)
    curve = loss_curve([{"clips": int(one), "loss": float(np.log(one))} for one in clips], 20)
    assert len(curve) == 20
    widths = np.diff([np.log(point["clips"]) for point in curve])
    assert np.allclose(widths[-10:], np.log(1e4) / 20, rtol=0.02)
    ends = 1e4 ** (np.arange(1, 20) / 20)
    inside = clips[(clips >= ends[-2]) & (clips < ends[-1])]
    assert curve[-2]["loss"] == pytest.approx(np.log(inside).mean())


def test_the_correlation_is_of_ranks_over_all_encoders():
    """By hand: of three ranks, one pair exchanged leaves 1/2."""
    rows = [
        {"factors": {"level": level, "onset": 0.0}, "classes": {"words": {"scores": [score, score]}}}
        for level, score in ((0.1, 0.2), (0.2, 0.9), (0.9, 0.8))
    ]
    assert foretold({"milestones": rows, "datasets": {"words": {}}}) == {"words": pytest.approx(0.5)}
