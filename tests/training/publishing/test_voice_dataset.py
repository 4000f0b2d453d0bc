import shlex

import datasets
import numpy as np
import pytest
from huggingface_hub import DatasetCard

from audiopg.data_scripts.audiopg_synthetic import decode
from audiopg.data_scripts.audiopg_voices import columns, features, rows
from audiopg.data_scripts.voices import VOICES_VERSION, get_voice
from audiopg.training.build_dataset import main
from audiopg.training.publishing.dataset import column_statistics

OPTIONS = ["--voice", "voice", "--num_clips", "40", "--clips_per_shard", "25", "--options.duration", "0.5"]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A finished data set of two shards; tests only read it."""
    folder = tmp_path_factory.mktemp("datasets") / "sounds"
    main([str(folder), *OPTIONS])
    return folder


def content_of(folder):
    return {path.name: path.read_bytes() for path in (folder / "data").iterdir()}


def test_a_folder_loads_as_the_sounds_that_were_made(built, tmp_path):
    loaded = datasets.load_dataset(str(built), split="train", cache_dir=str(tmp_path))
    voice = get_voice("voice", duration=0.5)
    assert loaded.features == features(voice)
    expected = list(rows(voice, 0, 0, 40))
    assert loaded["index"][:] == list(range(40))
    assert [row["audio"] for row in loaded] == [row["audio"] for row in expected]
    assert decode(loaded[0]).shape == (8000,)


def test_statistics_are_those_of_the_columns(built):
    voice = get_voice("voice", duration=0.5)
    found = column_statistics(sorted((built / "data").iterdir()), columns(voice))
    notes = np.array([row["keyboard/midi_f0"] for row in rows(voice, 0, 0, 40)])
    expected = {"count": 40, "unit": "MIDI notes", "min": notes.min(), "mean": notes.mean(), "max": notes.max()}
    assert found["keyboard/midi_f0"] == pytest.approx(expected)
    assert found["mod_matrix/weight"]["count"] == 40 * 20


def test_the_card_says_what_it_holds_and_how_to_make_it_again(built, tmp_path):
    card = DatasetCard.load(built / "README.md")
    for fact in (
        "40 of 0.5 s at 16000 Hz",
        f"voices {VOICES_VERSION}, `voice` with 78 parameters, preset `voices`, `duration=0.5`, seed 0, indices 0 to ",
        "- `keyboard/midi_f0` (MIDI notes): note that is played",
        "(clips.png)",
    ):
        assert fact in card.text
    assert "{{" not in card.text
    assert "{%" not in card.text
    command = next(line for line in card.text.splitlines() if line.startswith("python training/build_dataset.py"))
    _, _, _, *options = shlex.split(command)
    main([str(tmp_path / "again"), *options])
    assert content_of(tmp_path / "again") == content_of(built)
    assert (built / "clips.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--voice", "organ"], "Architectures are voice, voice_fm, parametric; got 'organ'"),
        (
            ["--voice", "voice", "--preset", "audiopg"],
            "--preset: a data set of sounds of a voice has",
        ),
        (["--voice", "voice", "--synthesis.f0", "3"], "Options of the voice are given as --options.preset synthax"),
        (["--voice", "voice", "--options.colour", "3"], "A voice has the options preset, duration"),
        (["--voice", "voice", "--options.sines", "3"], "Only a parametric voice has sines"),
        (["--voice", "voice", "--num_clips", "0"], "num_clips is a whole number, 1 or more, got 0"),
    ],
)
def test_what_cannot_be_made_is_refused_before_anything_is_written(options, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path / "new"), *options])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
