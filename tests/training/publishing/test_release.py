"""A release at toy size, from recipe to folder; and the releases of this repository."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from toys import write_recordings
from transformers import AutoModel

from audiopg.training import pretrain as pretrain_door
from audiopg.training import release as door
from audiopg.training.objectives.pretraining import pretrain
from audiopg.training.publishing import release as script
from audiopg.training.publishing.exporting import export_run
from audiopg.training.publishing.release import check_release, recipe_of

RELEASED = sorted(path for path in (Path(__file__).parents[3] / "checkpoints").glob("*") if path.is_dir())
TOY = ["--num_clips", "16", "--batch_size", "8", "--statistics_clips", "8", "--log_every", "1", "--milestones", "[1]"]
TOY += ["--synthesis.duration", "1.28"]
LOAD_ELSEWHERE = """
import sys
sys.modules["audiopg"] = None
import torch, transformers
folder = sys.argv[1]
extractor = transformers.AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=True)
model = transformers.AutoModel.from_pretrained(folder, trust_remote_code=True)
inputs = extractor(torch.linspace(-1, 1, 16000).numpy(), sampling_rate=16000)
with torch.no_grad():
    embedding = model(**inputs).pooler_output
sys.exit(0 if embedding.dtype == torch.float32 and embedding.isfinite().all() else f"{embedding}")
"""


def load_elsewhere(folder, home):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(home)}
    subprocess.run([sys.executable, "-c", LOAD_ELSEWHERE, str(folder)], check=True, env=environment, cwd=home)


@pytest.mark.parametrize("folder", RELEASED, ids=lambda path: path.name)
def test_what_was_released_is_whole_small_and_loads_without_the_package(folder, tmp_path):
    check_release(folder)
    assert ModelCard.load(folder / "README.md").data.library_name == "transformers"
    load_elsewhere(folder, tmp_path)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A release at toy size, by its command; tests only read it."""
    root = tmp_path_factory.mktemp("release")
    write_recordings(root / "tones")
    words = ["audiopg-tiny", "--data_dir", "tones", *TOY]
    environment = {**os.environ, "HF_HOME": str(root / "home")}
    command = [sys.executable, door.__file__, *words]
    run = subprocess.run(command, capture_output=True, text=True, cwd=root, env=environment, timeout=280)
    assert run.returncode == 0, run.stderr
    return root


def test_a_release_is_whole_measured_and_loads_without_the_package(made, tmp_path):
    folder = made / "checkpoints" / "audiopg-tiny"
    check_release(folder)
    load_elsewhere(folder, tmp_path)
    results = json.loads((folder / "results.json").read_text())
    assert results["precision"]["chosen"] == "float16"
    assert {value.dtype for value in load_file(folder / "model.safetensors").values()} == {torch.float16}
    card = (folder / "README.md").read_text()
    assert card.startswith("---")
    assert "# audiopg-tiny" in card
    [benchmark] = results["benchmarks"]
    assert f"| pre-trained encoder | {100 * benchmark['results']['pre-trained encoder']['mean']:.2f} |" in card
    assert f"| onset | {results['factors']['onset']['pretrained']:.3f} |" in card
    pictures = {"clips.png", "loss.png", "reconstruction.png"}
    assert pictures <= {path.name for path in folder.iterdir()}
    assert all(f"]({picture})" in card for picture in pictures)
    assert str(made) not in "".join(path.read_text() for path in folder.glob("*.json")) + card


@pytest.mark.slow
def test_a_run_that_finished_elsewhere_in_another_precision_is_not_made_again(tmp_path, monkeypatch):
    folder = tmp_path / "runs/releases/audiopg-tiny"
    words = ["audiopg_tiny", *TOY, "--precision", "bf16", "--output_dir", str(folder)]
    subprocess.run([sys.executable, pretrain_door.__file__, *words], check=True, capture_output=True, timeout=200)
    assert json.loads((folder / "begun_with.json").read_text())["precision"] == "bf16"
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name not in (".lock", "recipe.yaml")}
    monkeypatch.chdir(tmp_path)
    door.main(["audiopg-tiny", "--dtype", "bfloat16", *TOY])
    assert {
        path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name not in (".lock", "recipe.yaml")
    } == before
    released = tmp_path / "checkpoints" / "audiopg-tiny"
    check_release(released)
    assert {value.dtype for value in load_file(released / "model.safetensors").values()} == {torch.bfloat16}
    assert "probe on the frozen embedding: not measured." in (released / "README.md").read_text()


def refusal_of(words, capsys):
    with pytest.raises(SystemExit) as stop:
        door.main(words)
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_a_finished_run_of_another_recipe_is_refused_with_the_difference(made, monkeypatch, capsys):
    monkeypatch.chdir(made)
    said = refusal_of(["audiopg-tiny", "--dtype", "float16", *TOY, "--num_clips", "24"], capsys)
    assert "holds a run of another recipe" in said
    assert "num_clips: 16 there, 24 here" in said


@pytest.mark.slow
def test_a_release_that_is_too_large_leaves_the_older_one(made, monkeypatch, capsys):
    monkeypatch.chdir(made)
    monkeypatch.setitem(script.MOST_MEGABYTES, "tiny", 5)
    before = {path.name: path.stat().st_mtime_ns for path in (made / "checkpoints" / "audiopg-tiny").iterdir()}
    said = refusal_of(["audiopg-tiny", "--dtype", "float32", *TOY], capsys)
    assert "MB, and audiopg-tiny may have 5 in a repository; store its weights in float16 or bfloat16" in said
    assert {path.name: path.stat().st_mtime_ns for path in (made / "checkpoints/audiopg-tiny").iterdir()} == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["audiopg-tiny"], "Probes choose what weights are stored in: give --data_dir, or name a type (--dtype)"),
        (["audiopg-base"], "The name of a release has one of the words tiny, small, between hyphens"),
        (["audiopg-tiny-wide"], "A recipe is a YAML file or one of"),
        (["doppelgangers-tiny", "--dtype", "float16"], "draws clips of a preset, and doppelgangers-tiny has none"),
        (["audiopg-tiny", "--data_dir", "nowhere"], "nowhere"),
        (["audiopg-tiny", "--num_clip", "3", "--dtype", "float16"], "did you mean 'num_clips'?"),
    ],
)
def test_what_cannot_be_released_is_refused_before_hours_are_spent(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    assert message in refusal_of(words, capsys)
    assert not (tmp_path / "runs").exists()


def test_a_release_has_the_name_of_its_recipe():
    with pytest.raises(ValueError, match="A release has the name of its recipe, 'wide', got 'audiopg-tiny'"):
        recipe_of("audiopg-tiny", ["--name", "wide"])


@pytest.mark.parametrize("part", ["model.safetensors", "results.json", "provenance.json", "modeling_audiopg.py"])
def test_a_folder_that_lacks_a_part_is_no_release(toy_run, tmp_path, part):
    folder = tmp_path / "toy-tiny"
    export_run(toy_run, folder, {"benchmarks": []})
    check_release(folder)
    (folder / part).unlink()
    with pytest.raises(ValueError, match=f"is no whole release, {part} is missing"):
        check_release(folder)


def test_a_model_without_a_decoder_is_released_too(toy_recipe, tmp_path):
    factors = {"reconstruction_weight": 0.0}
    pretrain(toy_recipe(objective="factor_heads", num_clips=8, factors=factors), tmp_path / "run")
    export_run(tmp_path / "run", tmp_path / "toy-tiny", {"benchmarks": []}, dtype="float16")
    check_release(tmp_path / "toy-tiny")
    assert AutoModel.from_pretrained(tmp_path / "toy-tiny").dtype == torch.float32


def test_releases_differ_in_size_and_in_nothing_of_what_is_learnt():
    tiny, small = recipe_of("audiopg-tiny"), recipe_of("audiopg-small")
    shared = ("objective", "preset", "synthesis", "num_clips", "factors", "learning_rate", "schedule")
    assert [getattr(tiny, name) for name in shared] == [getattr(small, name) for name in shared]
    assert (tiny.size, small.size) == ("tiny", "small")
