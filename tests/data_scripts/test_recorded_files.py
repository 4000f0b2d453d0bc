import dataclasses
import os
import unicodedata

import numpy as np
import pytest
import soundfile
import torch

from audiopg.data_scripts.benchmarks import load_benchmark
from audiopg.data_scripts.labelled_audio import find_audio
from audiopg.data_scripts.own_recordings import load_recordings
from audiopg.data_scripts.recorded_files import list_recordings
from audiopg.modeling.audio_audiopg import AudioFileError
from audiopg.training.objectives.recipe import RecordingsRecipe
from audiopg.training.objectives.recordings import FolderOfFiles, Recordings

APPLE_DOUBLE = b"\0\5\x16\7" + b"\0" * 90


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.fixture
def folder(tmp_path):
    """Two classes of two files, and what systems leave among them."""
    for name in ("cat", "dog"):
        touch(*(tmp_path / name / f"{i}.wav" for i in range(2)))
        (tmp_path / name / "._0.wav").write_bytes(APPLE_DOUBLE)
    touch(tmp_path / "cat" / ".ipynb_checkpoints" / "0-checkpoint.wav", tmp_path / "cat" / ".Trash-0" / "x" / "2.wav")
    touch(tmp_path / "__MACOSX" / "cat" / "._0.wav", tmp_path / "dog" / "@eaDir" / "0.wav", tmp_path / ".DS_Store")
    return tmp_path


def test_all_readers_leave_out_what_is_hidden(folder, caplog):
    assert len(list_recordings(folder).paths) == len(load_recordings(folder)) == len(FolderOfFiles(folder)) == 4
    assert "hidden" in caplog.text


def test_so_does_the_reader_of_speech_commands(folder):
    for name in ("cat", "dog"):
        for i in range(2):
            (folder / name / f"{i}.wav").rename(folder / name / f"{name}{i}_nohash_0.wav")
    (folder / "testing_list.txt").write_text("cat/cat0_nohash_0.wav\n")
    (folder / "validation_list.txt").write_text("dog/dog1_nohash_0.wav\n")
    assert len(load_benchmark("speech_commands", folder)) == 4


def test_what_is_passed_over_is_named_with_counts(tmp_path, caplog):
    touch(tmp_path / "a.wav", tmp_path / "b.m4a", tmp_path / "c.M4A", tmp_path / "notes.txt", tmp_path / "x")
    FolderOfFiles(tmp_path)
    assert "2 .m4a" in caplog.text
    assert "1 .txt" in caplog.text
    assert "1 without a suffix" in caplog.text


def test_links_to_folders_are_followed_once_and_never_in_circles(tmp_path):
    touch(tmp_path / "elsewhere" / "1.wav", tmp_path / "sounds" / "0.wav")
    (tmp_path / "sounds" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "sounds" / "again").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "up").symlink_to(tmp_path / "sounds")
    listing = list_recordings(tmp_path / "sounds")
    assert [str(path.relative_to(tmp_path)) for path in listing.paths] == ["sounds/0.wav", "sounds/again/1.wav"]
    assert listing.passed_over == {"links to what is listed": 2}


def test_folders_and_pipes_called_as_recordings_are_none(tmp_path):
    touch(tmp_path / "a.wav", tmp_path / "b.wav" / "c.wav")
    os.mkfifo(tmp_path / "d.wav")
    assert [path.name for path in list_recordings(tmp_path).paths] == ["a.wav", "c.wav"]


@pytest.mark.parametrize(("files", "named"), [(["1.m4a", "2.m4a"], r"bird \(2 \.m4a\)"), ([], "bird .nothing at all")])
def test_a_class_that_has_nothing_left_is_refused_by_name(folder, files, named):
    touch(*(folder / "bird" / name for name in files))
    (folder / "bird").mkdir(exist_ok=True)
    with pytest.raises(ValueError, match=named):
        load_recordings(folder)


def test_names_composed_otherwise_are_the_same(tmp_path):
    composed, taken_apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    touch(tmp_path / taken_apart / f"{taken_apart}.wav")
    assert find_audio(tmp_path, [f"{composed}/{composed}.wav"])
    touch(tmp_path / composed / "other.wav", *(tmp_path / "thé" / f"{i}.wav" for i in range(2)))
    assert load_recordings(tmp_path).features["label"].names == ["café", "thé"]


@pytest.mark.parametrize(
    ("there", "named", "found"),
    [
        ("a/1.wav", "a\\1.wav", True),
        ("1.wav", "1.flac", True),
        ("1.wav", "1", True),
        ("1.2.wav", "1.2", True),
        ("1.wav", "1.2", False),
        ("1.wav", "./1.wav", True),
        ("1.WAV", "1.wav", True),
        ("._1.wav", "1.wav", False),
    ],
)
def test_a_named_file_is_found_as_people_name_it(tmp_path, there, named, found):
    touch(tmp_path / there)
    if found:
        assert find_audio(tmp_path, [named]) == [str(tmp_path / there)]
    else:
        with pytest.raises(FileNotFoundError, match="1 of 1 clips"):
            find_audio(tmp_path, [named])


def test_names_that_are_not_utf8_are_listed_for_pretraining_and_named_where_labels_are(folder):
    name = os.fsdecode(b"caf\xe9.wav")
    touch(folder / "cat" / name)
    assert len(FolderOfFiles(folder)) == 5
    with pytest.raises(ValueError, match=r"UTF-8, and 1 are not: .*caf\\udce9\.wav"):
        load_recordings(folder)


def test_links_to_nothing_are_listed_so_that_reading_counts_them(folder):
    (folder / "cat" / "9.wav").symlink_to(folder / "gone.wav")
    assert len(FolderOfFiles(folder)) == len(load_recordings(folder)) == 5


def test_a_class_that_is_a_link_to_another_is_refused(folder):
    (folder / "kitten").symlink_to(folder / "cat")
    with pytest.raises(ValueError, match=r"links put .*: cat/0\.wav \(cat, kitten\)"):
        load_recordings(folder)


def test_links_to_nothing_and_damaged_files_count_against_max_unreadable(tmp_path):
    for number in range(3):
        soundfile.write(tmp_path / f"{number}.wav", np.full(3200, 0.1), 16000)
    (tmp_path / "gone.wav").symlink_to(tmp_path / "nothing.wav")
    (tmp_path / "damaged.flac").write_bytes(b"fLaC" + b"\0" * 40)
    allowed = RecordingsRecipe(folder=str(tmp_path), duration=0.1, max_unreadable=2)
    recordings = Recordings(allowed, seed=0)
    assert recordings.draw(torch.arange(10)).shape == (10, 1600)
    assert len(recordings.unreadable) == 2
    with pytest.raises(AudioFileError, match="2 of 5 recordings cannot be read"):
        Recordings(dataclasses.replace(allowed, max_unreadable=1), seed=0).draw(torch.arange(10))
