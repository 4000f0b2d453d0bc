import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import HfApi, ModelCard
from huggingface_hub.utils import filter_repo_objects
from transformers import (
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForPreTraining,
)

import audiopg
from audiopg.modeling.configuration_audiopg import AudioPGConfig
from audiopg.training.analysis.filters import filters_of
from audiopg.training.analysis.gallery import reconstruct
from audiopg.training.evaluation.results import row_of
from audiopg.training.export import main
from audiopg.training.objectives.pretraining import TrainedRun, pretrain
from audiopg.training.publishing.cards import pretrained_card
from audiopg.training.publishing.exporting import export_run
from audiopg.training.publishing.hub import upload, write_hub_folder
from audiopg.training.runs.recipes import given, parse_overrides

WAVEFORM = np.random.default_rng(0).uniform(-0.5, 0.5, 16000).astype(np.float32)
HEADS = {"AutoModel": AutoModel, "AutoModelForPreTraining": AutoModelForPreTraining}
CLASSES = (audiopg.AudioPGModel, audiopg.AudioPGForPreTraining, audiopg.AudioPGForAudioClassification)
RESULTS = {
    "factors": {"frequency": {"pretrained": 0.875, "random": 0.125}},
    "benchmark": {
        "dataset": "ESC-10",
        "protocol": "Official folds",
        "metric": "accuracy",
        "probe": "linear",
        "results": {"pre-trained encoder": row_of([0.7, 0.7375])},
    },
}
LOAD_ELSEWHERE = """
import sys
sys.modules["audiopg"] = None
import numpy as np, torch, transformers
folder, auto_class, target = sys.argv[1:]
extractor = transformers.AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=True)
model = getattr(transformers, auto_class).from_pretrained(folder, trust_remote_code=True).eval()
inputs = extractor(np.load(target), sampling_rate=16000)
with torch.no_grad():
    output = model(**inputs)
np.save(target, (output.logits if "logits" in output else output.last_hidden_state).numpy())
"""


@pytest.fixture(scope="module")
def exported(toy_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "toy"
    export_run(toy_run, folder, RESULTS)
    return folder


def run_elsewhere(folder, auto_class, tmp_path) -> np.ndarray:
    """What a model says of `WAVEFORM` in a process that cannot import this package, offline."""
    target = tmp_path / "array.npy"
    np.save(target, WAVEFORM)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", LOAD_ELSEWHERE, str(folder), auto_class, str(target)]
    subprocess.run(command, check=True, env=environment, cwd=tmp_path, timeout=120)
    return np.load(target)


def run_here(folder, auto_class) -> np.ndarray:
    model = auto_class.from_pretrained(folder).eval()
    assert type(model).__module__.startswith("audiopg.")
    inputs = AutoFeatureExtractor.from_pretrained(folder)(WAVEFORM, sampling_rate=16000)
    with torch.no_grad():
        output = model(**inputs)
    return (output.logits if "logits" in output else output.last_hidden_state).numpy()


@pytest.mark.parametrize("name", HEADS)
def test_a_folder_loads_without_the_package_to_the_same_bits(exported, name, tmp_path):
    assert np.array_equal(run_elsewhere(exported, name, tmp_path), run_here(exported, HEADS[name]))


@pytest.mark.parametrize("model_class", CLASSES)
def test_a_folder_saved_from_any_head_loads_as_every_other(model_class, tmp_path):
    model = model_class(AudioPGConfig.of_size("tiny", num_hidden_layers=1, decoder_num_hidden_layers=1, num_labels=3))
    write_hub_folder(model, audiopg.AudioPGFeatureExtractor(), tmp_path)
    encoders = [
        AutoModel.from_pretrained(tmp_path),
        AutoModelForPreTraining.from_pretrained(tmp_path).audiopg,
        AutoModelForAudioClassification.from_pretrained(tmp_path).audiopg,
    ]
    original = getattr(model, "audiopg", model).state_dict()
    for encoder in encoders:
        assert all(torch.equal(value, original[name]) for name, value in encoder.state_dict().items())


def test_a_classifier_s_folder_loads_elsewhere_as_a_bare_encoder(tmp_path):
    model = audiopg.AudioPGForAudioClassification(AudioPGConfig.of_size("tiny", num_hidden_layers=1))
    write_hub_folder(model, audiopg.AudioPGFeatureExtractor(), tmp_path / "folder")
    assert np.array_equal(
        run_elsewhere(tmp_path / "folder", "AutoModel", tmp_path), run_here(tmp_path / "folder", AutoModel)
    )


def test_a_run_with_narrow_patches_is_released_with_an_extractor_of_the_same(toy_recipe, tmp_path):
    values = parse_overrides(["--model.patch_frames", "8", "--num_clips", "24"])
    model = given(toy_recipe().model)
    recipe = toy_recipe(**{**values, "model": {**model, **values["model"]}})
    pretrain(recipe, tmp_path / "run")
    folder = tmp_path / "narrow"
    export_run(tmp_path / "run", folder)
    model, extractor = (kind.from_pretrained(folder) for kind in (AutoModel, AutoFeatureExtractor))
    assert model.config.patch_shape == (8, 16)
    [frames] = model.embed_frames(WAVEFORM, extractor)
    assert frames.embeddings.shape == (13, 48)  # 98 frames in patches of eight
    assert frames.times[:2].tolist() == pytest.approx([0.0475, 0.1275])
    assert "Patches last 80 ms" in (folder / "README.md").read_text()
    assert "a vector for every 80 ms" in (folder / "README.md").read_text()
    projection = model.embeddings.patch_embeddings.weight.detach().numpy()
    np.testing.assert_array_equal(filters_of(tmp_path / "run")[recipe.num_steps].reshape(48, 8 * 16), projection)
    whole = AutoModelForPreTraining.from_pretrained(folder)
    values = extractor(WAVEFORM, sampling_rate=16000)["input_values"]
    hidden = reconstruct(whole, values, "random", 0.5).hidden.float().unflatten(1, (8, 16)).unflatten(0, (13, 8))
    assert hidden.mean(dim=(1, 3)).unique(return_counts=True)[1].tolist() == [52, 52]  # whole patches, half of them


def test_the_folder_holds_safetensors_and_no_pickle(exported):
    names = {path.name for path in exported.iterdir()}
    assert {"config.json", "preprocessor_config.json", "model.safetensors", "README.md"} <= names
    assert {
        "configuration_audiopg.py",
        "modeling_audiopg.py",
        "feature_extraction_audiopg.py",
        "spectrogram_audiopg.py",
    } <= names
    assert not {name for name in names if name.endswith((".bin", ".pt", ".pth", ".pkl"))}


def test_the_card_says_how_it_was_made_and_what_was_measured(exported, toy_run):
    card = (exported / "README.md").read_text()
    run, statistics = (json.loads((toy_run / f"{name}.json").read_text()) for name in ("run", "statistics"))
    for fact in (
        run["clips"],
        run["hardware"],
        run["seconds"],
        statistics["mean"],
        statistics["std"],
        run["versions"]["torch"],
    ):
        assert str(fact) in card
    assert "preset `reference` with `duration=0.64`, seed 0" in card
    assert "| frequency | 0.875 | 0.125 |" in card
    assert 'linear probe on the frozen encoder; `embed` gives what the row "pre-trained encoder" reads.' in card
    assert "reads. Official folds:\n\n| ESC-10, linear probe, accuracy in %" in card
    assert "| pre-trained encoder | 71.88 | 2.65 | 48.1 to 95.7 | 70.0 73.8 |" in card
    assert "real audio | none" in card
    assert "{{" not in card
    assert "{%" not in card


def test_the_card_s_metadata_names_the_measured_accuracy(exported):
    data = ModelCard.load(exported / "README.md").data
    assert (data.license, data.library_name) == ("apache-2.0", "transformers")
    assert data.eval_results[0].metric_value == RESULTS["benchmark"]["results"]["pre-trained encoder"]["mean"]


def test_what_was_not_measured_is_said(toy_run, tmp_path):
    export_run(toy_run, tmp_path / "plain")
    card = (tmp_path / "plain" / "README.md").read_text()
    assert card.count("not measured.") == 3


@pytest.mark.parametrize(("missing", "message"), [("recipe.yaml", "holds no run"), ("run.json", "no finished run")])
def test_a_run_that_has_not_finished_is_refused(toy_run, tmp_path, capsys, missing, message):
    shutil.copytree(toy_run, tmp_path / "run", ignore=shutil.ignore_patterns(missing))
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path / "run"), str(tmp_path / "out")])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_results_of_a_probe_in_the_form_of_before_are_still_read(toy_run, tmp_path):
    rows = {"pre-trained encoder": {"mean": 0.71875, "std": 0.01875, "fold_accuracies": [0.7, 0.7375]}}
    before = {"benchmark": {"benchmark": "ESC-10", "probe": "linear", "results": rows}}
    (tmp_path / "results.json").write_text(json.dumps(before))
    main([str(toy_run), str(tmp_path / "out"), "--results", str(tmp_path / "results.json")])
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert "| pre-trained encoder | 71.88 | 2.65 | 48.1 to 95.7 | 70.0 73.8 |" in card.text
    assert card.data.eval_results[0].metric_value == pytest.approx(0.71875)


def exported_with(toy_run, folder, **changes):
    """The card of the toy run, had its recipe and its statistics been others."""
    shutil.copytree(toy_run, folder / "run")
    for name, read, write in (("recipe", yaml.safe_load, yaml.safe_dump), ("statistics", json.loads, json.dumps)):
        path = next((folder / "run").glob(f"{name}.*"))
        values = read(path.read_text())
        values.update(changes.get(name, {}))
        path.write_text(write({key: value for key, value in values.items() if value is not REMOVED}))
    run = TrainedRun.open(folder / "run")
    model = audiopg.AudioPGForPreTraining(run.recipe.config)
    return pretrained_card(run.recipe, run.facts, model, run.feature_extractor(), {}, "apache-2.0")


REMOVED = object()
GOES_ON = {"recipe": {"init_from": "theirs"}}
OF_UNKNOWN_ORIGIN = {"kept_from": "theirs", "saw_real_data": None}
OF_SOUNDS = {"kept_from": "theirs", "source": "AudioSet", "saw_real_data": True}


@pytest.mark.parametrize(
    ("changes", "certified", "said"),
    [
        ({}, True, "**without a single recording**"),
        ({"statistics": {"saw_real_data": REMOVED}}, True, "**without a single recording**"),  # a run of before
        (
            {"recipe": {"init_from": "theirs"}, "statistics": {"kept_from": "theirs"}},
            True,
            "| starts from | `theirs` |",
        ),
        ({"recipe": {"init_from": "theirs"}, "statistics": OF_SOUNDS}, False, "it starts from: AudioSet |"),
        ({"recipe": {"init_from": "theirs"}, "statistics": OF_UNKNOWN_ORIGIN}, False, "| real data | not known:"),
    ],
)
def test_no_real_data_is_certified_on_positive_evidence_alone(toy_run, tmp_path, changes, certified, said):
    card = exported_with(toy_run, tmp_path, **changes)
    assert ("no-real-data" in card.data.tags) == certified
    assert ("| real audio | none" in card.text) == certified
    assert ("It has heard no voice" in card.text) == certified
    assert said in card.text
    assert "{{" not in card.text


def test_heads_that_named_factors_stay_behind_and_are_named(toy_recipe, tmp_path):
    pretrain(toy_recipe(objective="factor_heads", num_clips=8, factors={"factors_weight": 0.25}), tmp_path / "run")
    export_run(tmp_path / "run", tmp_path / "out")
    _, report = AutoModelForPreTraining.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(report.values())
    card = (tmp_path / "out" / "README.md").read_text()
    assert "times 1.0; and what the synthesizer drew, by heads that are not in this folder, times 0.25 |" in card


def test_a_commit_that_is_not_known_is_said_to_be(toy_run, tmp_path):
    shutil.copytree(toy_run, tmp_path / "run")
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps(facts | {"commit": None}))
    export_run(tmp_path / "run", tmp_path / "out")
    assert "; commit not known |" in (tmp_path / "out" / "README.md").read_text()


def test_an_exported_folder_is_pushed_when_asked_to(toy_run, tmp_path, monkeypatch):
    calls = []
    for name in ("create_repo", "upload_folder"):
        monkeypatch.setattr(HfApi, name, lambda self, *a, _name=name, **k: calls.append((_name, a, k)))
    main([str(toy_run), str(tmp_path / "out"), "--push_to_hub", "org/toy", "--license", "mit"])
    (create, upload) = calls
    assert create == ("create_repo", ("org/toy",), {"repo_type": "model", "exist_ok": True})
    expected = {"repo_id": "org/toy", "folder_path": tmp_path / "out", "repo_type": "model"}
    assert {name: upload[2][name] for name in expected} == expected
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.license == "mit"
    assert "Weights: mit. Code: Apache-2.0." in card.text


def test_a_checkpoint_that_is_not_what_was_written_is_not_exported(toy_run, tmp_path):
    shutil.copytree(toy_run, tmp_path / "run")
    weights = tmp_path / "run" / "checkpoints" / "step_00000006" / "model.safetensors"
    altered = bytearray(weights.read_bytes())
    altered[-1] ^= 1
    weights.write_bytes(altered)
    with pytest.raises(ValueError, match=r"content of model\.safetensors has changed"):
        export_run(tmp_path / "run", tmp_path / "out")


def test_an_export_takes_the_place_of_an_older_one_with_no_file_of_both(toy_run, tmp_path):
    export_run(toy_run, tmp_path / "out")
    for stale in ("old.safetensors", ".tmpAb12", "model.0a1b.partial"):
        (tmp_path / "out" / stale).touch()
    export_run(toy_run, tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"config.json", "model.safetensors", "README.md"} <= names
    assert not names & {"old.safetensors", ".tmpAb12", "model.0a1b.partial"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_export_that_fails_leaves_the_older_one_as_it_was(toy_run, tmp_path, monkeypatch):
    export_run(toy_run, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file()}
    monkeypatch.setattr(ModelCard, "save", lambda self, path: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(OSError, match="out could not be written: No space left"):
        export_run(toy_run, tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("foreign", ["thesis.tex", ".git/config", "notes/plan.txt", "package.json"])
def test_a_folder_with_other_things_in_it_is_not_replaced(toy_run, tmp_path, foreign):
    path = tmp_path / "out" / foreign
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine")
    with pytest.raises(ValueError, match=f"holds {foreign}, which no export wrote"):
        export_run(toy_run, tmp_path / "out")
    assert path.read_text() == "mine"


def test_only_what_belongs_there_is_uploaded(toy_run, tmp_path, monkeypatch):
    export_run(toy_run, tmp_path / "out")
    belongs = {
        path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()
    }
    (tmp_path / "out/x.1f.partial").mkdir()
    for left in (".lock", ".tmpAb12", "x.1f.partial/model.safetensors", "notes.txt", ".env"):
        (tmp_path / "out" / left).touch()
    found = []

    def upload_folder(self, *, folder_path, allow_patterns, ignore_patterns, **_):
        names = [path.relative_to(folder_path).as_posix() for path in folder_path.rglob("*") if path.is_file()]
        found.extend(filter_repo_objects(names, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns))

    monkeypatch.setattr(HfApi, "create_repo", lambda self, *words, **options: None)
    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    upload(tmp_path / "out", "org/toy")
    assert set(found) == belongs
