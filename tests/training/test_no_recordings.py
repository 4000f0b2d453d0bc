"""No recording, and nothing that was measured on one, goes into pre-training."""

import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from audiopg.data_scripts.recorded_files import AUDIO_SUFFIXES

WATCHED = """
import sys

suffixes, readers, code = sys.argv[1].split(), sys.argv[2].split(), sys.argv[3]

def watch(event, arguments):
    if event == "open" and str(arguments[0]).lower().endswith(tuple(suffixes)):
        raise PermissionError(f"opened {arguments[0]}")

sys.addaudithook(watch)
for name in readers:
    sys.modules[name] = None
exec(code)
"""
# Python's own `open` is watched; these would open files behind its back.
READERS = ("soundfile", "torchaudio", "torchcodec", "librosa", "audioread", "av", "wave")
PRETRAIN_AND_EXPORT = """
from audiopg.training import export, pretrain
pretrain.main([{recipe!r}, "--output_dir", {run!r}])
export.main([{run!r}, {exported!r}])
"""
# AudioSet's mean and deviation of the log-mel, which the research code and others of its kind standardise with.
STATISTICS_OF_RECORDINGS = ("4.2677", "4.5689", "4.268", "4.569")


def run_without_audio(code):
    """Run code in a process in which no audio file can be opened and no library that reads them imported."""
    command = [sys.executable, "-c", WATCHED, " ".join(AUDIO_SUFFIXES), " ".join(READERS), code]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module")
def watched_run(toy_run, tmp_path_factory):
    """A run and its export, made without audio: how that ended, and the folders that it left."""
    folder = tmp_path_factory.mktemp("watched")
    run, exported = folder / "run", folder / "exported"
    code = PRETRAIN_AND_EXPORT.format(recipe=str(toy_run / "recipe.yaml"), run=str(run), exported=str(exported))
    return run_without_audio(code), run, exported


def test_a_recording_that_is_read_does_not_go_unseen(tmp_path):
    path = tmp_path / "recording.wav"
    soundfile.write(path, np.zeros(160), 16000)
    assert f"opened {path}" in run_without_audio(f"open({str(path)!r}, 'rb').read()").stderr
    read = "from audiopg.modeling.audio_audiopg import read_audio; "
    assert run_without_audio(read + f"read_audio({str(path)!r})").returncode != 0


def test_pretraining_opens_no_audio_file_and_imports_nothing_that_could(watched_run):
    ended, _, exported = watched_run
    assert ended.returncode == 0, ended.stderr
    assert (exported / "model.safetensors").exists()


def test_inputs_are_standardised_with_what_the_run_measured_on_its_own_clips(watched_run):
    _, run, exported = watched_run
    measured = json.loads((run / "statistics.json").read_text())
    saved = json.loads((exported / "preprocessor_config.json").read_text())
    assert (saved["mean"], saved["std"]) == (measured["mean"], measured["std"])
    assert saved["statistics"] == measured
    assert (measured["preset"], measured["num_clips"]) == ("reference", 16)


def test_no_statistic_of_recordings_is_in_what_a_run_leaves(watched_run):
    _, run, exported = watched_run
    settings = [run / "statistics.json", run / "recipe.yaml", *exported.glob("*config*.json"), *exported.glob("*.py")]
    assert len(settings) >= 8
    for path in settings:
        text = path.read_text(encoding="utf-8")
        assert not [number for number in STATISTICS_OF_RECORDINGS if number in text], path
