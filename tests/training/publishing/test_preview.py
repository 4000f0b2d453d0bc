import re

import datasets
import pytest
from huggingface_hub import DatasetCard

from audiopg.data_scripts.audiopg_synthetic import decode
from audiopg.data_scripts.audiopg_synthetic import rows as clip_rows_of
from audiopg.data_scripts.audiopg_voices import rows as sound_rows_of
from audiopg.data_scripts.synthesis import PRESETS, get_preset
from audiopg.data_scripts.voices import ARCHITECTURES, get_voice
from audiopg.training import build_dataset
from audiopg.training.build_preview import main
from audiopg.training.publishing import preview as script
from audiopg.training.publishing.preview import MOST_MEGABYTES, preview_configs

CLIPS, DURATION = 3, 0.5


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A preview of three clips each; tests only read it."""
    folder = tmp_path_factory.mktemp("datasets") / "preview"
    main([str(folder), "--num_clips", str(CLIPS), "--duration", str(DURATION)])
    return folder


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_loads_as_the_rows_that_are_synthesized(built, tmp_path, name):
    loaded = datasets.load_dataset(str(built), name, split="train", cache_dir=str(tmp_path))
    assert list(loaded) == list(clip_rows_of(get_preset(name, duration=DURATION), 0, 0, CLIPS))
    assert decode(loaded[0]).shape == (16000 * DURATION,)
    assert loaded.features == preview_configs(CLIPS, DURATION)[name].features()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_voice_loads_as_the_sounds_that_are_made(built, tmp_path, name):
    loaded = datasets.load_dataset(str(built), name, split="train", cache_dir=str(tmp_path))
    expected = list(sound_rows_of(get_voice(name), 0, 0, CLIPS))
    assert [row["audio"] for row in loaded] == [row["audio"] for row in expected]
    assert loaded.column_names == list(expected[0])


def test_a_folder_alone_is_enough_to_load_it(built, tmp_path):
    loaded = datasets.load_dataset(str(built), cache_dir=str(tmp_path))
    assert loaded["train"]["index"][:] == list(range(CLIPS))
    streamed = datasets.load_dataset(str(built), split="train", streaming=True)
    assert [row["seed"] for row in streamed] == [0] * CLIPS
    assert sorted(datasets.get_dataset_config_names(str(built))) == sorted([*PRESETS, *ARCHITECTURES])


def test_the_card_says_what_it_holds_and_how_to_make_the_million(built, monkeypatch, tmp_path):
    card = DatasetCard.load(built / "README.md")
    assert [one["config_name"] for one in card.data.configs if one.get("default")] == ["audiopg"]
    assert "{{" not in card.text
    assert "{%" not in card.text
    assert "- `f0` (Hz) of each event" in card.text
    assert "- `keyboard/midi_f0` (MIDI notes)" in card.text
    commands = re.findall(r"^python training/build_dataset.py (.*)$", card.text, re.MULTILINE)
    asked = []
    monkeypatch.setattr(build_dataset, "build_dataset", lambda config, *_: asked.append(config) or [])
    for command in commands:
        build_dataset.main(command.split())
    assert [config.name for config in asked] == [*PRESETS, *ARCHITECTURES]
    assert {config.num_clips for config in asked} == {1_000_000}
    assert asked[0].validated_preset().duration == 10.24
    rows = [line for line in card.text.splitlines() if line.startswith("| ")]
    assert {line.count("|") for line in rows} == {7}


def test_the_same_command_writes_the_same_shards(built, tmp_path):
    main([str(tmp_path / "again"), "--num_clips", str(CLIPS), "--duration", str(DURATION)])
    before = {path.name: path.read_bytes() for path in (built / "data").iterdir()}
    main([str(tmp_path / "again"), "--num_clips", str(CLIPS), "--duration", str(DURATION)])
    assert {path.name: path.read_bytes() for path in (tmp_path / "again" / "data").iterdir()} == before
    assert {path.name for path in built.iterdir()} == {".lock", "README.md", "clips.png", "data", "recipe.json"}


def refusal_of(words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_a_preview_that_is_too_large_is_not_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, "MOST_MEGABYTES", 0.1)
    said = refusal_of([str(tmp_path / "x"), "--num_clips", "2"], capsys)
    assert "A preview holds at most 0.1 MB, and 2 clips of each, 0.8 s long, come to " in said
    assert "take fewer (--num_clips) or shorter ones (--duration)" in said
    assert not (tmp_path / "x").exists()
    assert MOST_MEGABYTES == 15


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--num_clips", "0"], "num_clips is a whole number, 1 or more, got 0"), (["--duration", "0"], "duration")],
)
def test_what_cannot_be_made_is_refused(tmp_path, capsys, words, message):
    assert message in refusal_of([str(tmp_path / "x"), *words], capsys)
    assert not (tmp_path / "x").exists()


def test_a_data_set_of_something_else_is_not_replaced(built, tmp_path, capsys):
    words = ["--num_clips", str(CLIPS + 1), "--duration", str(DURATION)]
    assert f"num_clips: {CLIPS} there, {CLIPS + 1} here" in refusal_of([str(built), *words], capsys)
    (tmp_path / "notes.txt").write_text("mine")
    assert "holds notes.txt" in refusal_of([str(tmp_path), *words], capsys)
