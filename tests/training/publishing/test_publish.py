"""Folders sent to a Hub: a server on this machine that keeps what it is given."""

import os
import socket
import subprocess
import sys

import pytest
from hub_stand_in import TOKEN, hub_stand_in
from huggingface_hub import constants

from audiopg.training import build_dataset, export
from audiopg.training import publish as door
from audiopg.training.publish import main
from audiopg.training.publishing.exporting import export_run

# What the Hub's client says to its own HTTP library.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


def content_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def exported(toy_run, tmp_path_factory):
    """An exported toy; tests only read it."""
    folder = tmp_path_factory.mktemp("hub") / "toy"
    export_run(toy_run, folder, {"benchmarks": []}, dtype="float16")
    return folder


@pytest.fixture
def here(monkeypatch, tmp_path):
    """Sends this process to another Hub, with a token or without; the large files by the older of two protocols."""

    def send_to(endpoint, token=TOKEN):
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
        monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
        monkeypatch.setenv("HF_TOKEN", token) if token else monkeypatch.delenv("HF_TOKEN", raising=False)

    return send_to


def test_a_model_arrives_whole_byte_for_byte(exported, tmp_path):
    environment = {**os.environ, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path)}
    environment.pop("HF_HUB_OFFLINE", None)
    with hub_stand_in() as hub:
        command = [sys.executable, door.__file__, str(exported), "org/toy"]
        environment["HF_ENDPOINT"] = hub.endpoint
        run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
        assert run.returncode == 0, run.stderr
    assert hub.repositories == {("model", "org/toy"): content_of(exported)}
    assert "model.safetensors" in hub.repositories["model", "org/toy"]
    assert "is now org/toy" in run.stdout


def test_a_second_time_the_repository_is_there_and_takes_what_changed(exported, here, tmp_path):
    with hub_stand_in() as hub:
        here(hub.endpoint)
        main([str(exported), "org/toy"])
        hub.repositories["model", "org/toy"]["README.md"] = b"older"
        main([str(exported), "org/toy"])
    assert hub.repositories["model", "org/toy"] == content_of(exported)


def test_a_released_checkpoint_is_sent_by_its_name(exported, here, monkeypatch, capsys):
    monkeypatch.setattr(door, "CHECKPOINTS", exported.parent)
    with hub_stand_in() as hub:
        here(hub.endpoint)
        main(["toy", "org/toy"])
    assert hub.repositories["model", "org/toy"] == content_of(exported)


def test_a_data_set_goes_where_data_sets_are(here, tmp_path):
    with hub_stand_in() as hub:
        here(hub.endpoint)
        words = ["--num_clips", "2", "--synthesis.duration", "0.5"]
        build_dataset.main([str(tmp_path / "clips"), *words, "--push_to_hub", "org/clips"])
        sent = dict(hub.repositories["dataset", "org/clips"])
        main([str(tmp_path / "clips"), "org/again"])
    own = {name: content for name, content in content_of(tmp_path / "clips").items() if name != ".lock"}
    assert sent == hub.repositories["dataset", "org/again"] == own
    assert "data/train-00000-of-00001.parquet" in sent


def test_who_has_sent_a_folder_still_replaces_nothing_of_git_s(exported, toy_run, here, tmp_path):
    with hub_stand_in() as hub:
        here(hub.endpoint)
        main([str(exported), "org/toy"])
    (tmp_path / "out" / ".git").mkdir(parents=True)
    (tmp_path / "out" / ".git" / "config").write_text("mine")
    with pytest.raises(ValueError, match=r"holds \.git/config, which no export wrote"):
        export_run(toy_run, tmp_path / "out")


def refusal_of(words, capsys, command=main):
    with pytest.raises(SystemExit) as stop:
        command(words)
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_without_a_token_a_sentence_says_where_to_get_one(exported, here, capsys):
    with hub_stand_in() as hub:
        here(hub.endpoint, token=None)
        said = refusal_of([str(exported), "org/toy"], capsys)
    assert "there is no token. Make one that may write at huggingface.co/settings/tokens, then set HF_TOKEN." in said
    assert f"python training/publish.py {exported} org/toy sends it again." in said
    assert not hub.repositories


def test_a_token_that_may_not_write_is_told_apart(exported, here, capsys):
    with hub_stand_in() as hub:
        here(hub.endpoint, token="hf_other")
        assert "the token may not write there." in refusal_of([str(exported), "org/toy"], capsys)


def test_a_hub_that_cannot_be_reached_is_named(exported, here, capsys):
    with socket.socket() as taken:  # bound, and never listening
        taken.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        here(endpoint)
        said = refusal_of([str(exported), "org/toy"], capsys)
    assert f"could not be sent to org/toy at {endpoint}: it cannot be reached, or broke off (" in said
    assert "See to the network and HF_ENDPOINT." in said


def test_an_export_that_is_pushed_nowhere_says_so_too(toy_run, here, tmp_path, capsys):
    with hub_stand_in() as hub:
        here(hub.endpoint, token=None)
        words = [str(toy_run), str(tmp_path / "out"), "--push_to_hub", "org/toy"]
        assert "there is no token." in refusal_of(words, capsys, export.main)
    assert (tmp_path / "out" / "config.json").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing", "org/toy"], "holds neither a model, config.json, nor a data set, data/*.parquet"),
        (["toy", "no/such/name"], "Repo id must be in the form"),
    ],
)
def test_what_cannot_be_sent_is_refused_before_anything_is(exported, here, monkeypatch, capsys, words, message):
    monkeypatch.setattr(door, "CHECKPOINTS", exported.parent)
    with hub_stand_in() as hub:
        here(hub.endpoint)
        assert message in refusal_of(words, capsys)
    assert not hub.repositories
