import os
from pathlib import Path

import pytest

from audiopg.data_scripts.benchmarks import load_esc50

COLUMNS = "filename,fold,target,category,esc10,src_file,take"


@pytest.fixture
def esc50(tmp_path):
    """A maker of folders in ESC-50's layout: empty audio files, as nothing is decoded here."""

    def make(rows, suffix=".wav"):
        (tmp_path / "meta").mkdir()
        (tmp_path / "audio").mkdir()
        (tmp_path / "meta" / "esc50.csv").write_text("\n".join([COLUMNS, *rows]) + "\n")
        for row in rows:
            (tmp_path / "audio" / row.split(",")[0]).with_suffix(suffix).touch()
        return tmp_path

    return make


def table(num_classes, clips_per_class_and_fold, first_target=0):
    return [
        f"{fold}-{take}-A-{target}.wav,{fold},{target},class {target},False,{fold}{target:02}{take},A"
        for target in range(first_target, first_target + num_classes)
        for fold in range(1, 6)
        for take in range(clips_per_class_and_fold)
    ]


@pytest.mark.parametrize(
    ("num_classes", "clips", "name"), [(50, 8, "ESC-50"), (10, 8, "ESC-10"), (3, 2, "part of ESC-50")]
)
def test_the_data_set_is_named_by_its_counts(esc50, num_classes, clips, name):
    dataset = load_esc50(esc50(table(num_classes, clips)))
    assert len(dataset) == num_classes * clips * 5
    assert dataset.features["label"].num_classes == num_classes
    assert set(dataset["fold"]) == {1, 2, 3, 4, 5}
    assert dataset.info.dataset_name == name


def test_a_part_is_logged_as_one(esc50, caplog):
    load_esc50(esc50(table(3, 2)))
    assert "a part of ESC-50: 30 clips, 3 classes, 5 folds" in caplog.text


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg"])
def test_files_are_found_whatever_their_format(esc50, suffix):
    dataset = load_esc50(esc50(table(2, 1), suffix))
    assert all(Path(path).is_file() and path.endswith(suffix) for path in dataset["audio"])


def test_labels_are_contiguous_in_the_order_of_the_targets(esc50):
    rows = [
        "1-1-A-40.wav,1,40,helicopter,True,1,A",
        "1-2-A-0.wav,1,0,dog,True,2,A",
        "2-3-A-40.wav,2,40,helicopter,T,3,A",
    ]
    dataset = load_esc50(esc50(rows))
    assert dataset.features["label"].names == ["dog", "helicopter"]
    assert list(dataset["label"]) == [1, 0, 1]


def test_missing_audio_is_listed(esc50):
    folder = esc50(table(2, 1))
    (folder / "audio" / "3-0-A-1.wav").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 10 clips are not in .*: 3-0-A-1\.wav"):
        load_esc50(folder)


def test_a_long_list_of_missing_audio_is_cut(esc50):
    folder = esc50(table(4, 1))
    for path in (folder / "audio").iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"20 of 20 clips .* and 10 more"):
        load_esc50(folder)


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="layout of ESC-50"):
        load_esc50(tmp_path)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["1-7-A-0.wav,1,0,dog,T,7,A", "2-7-B-0.wav,2,0,dog,T,7,B"], "lie in several: 7"),
        (["1-7-A-0.wav,1,0,dog,T,7,A", "1-8-A-0.wav,1,0,cat,T,8,A"], "target 0 is 'dog' and 'cat'"),
        (["1-7-A-0.wav,1,0,dog,T,7,A", "1-7-A-0.wav,1,0,dog,T,7,A"], "1-7-A-0.wav is listed again"),
        ([], "must have rows"),
    ],
)
def test_a_broken_table_is_refused(esc50, rows, message):
    with pytest.raises(ValueError, match=message):
        load_esc50(esc50(rows))


def test_a_table_without_source_recordings_is_refused(esc50):
    folder = esc50(table(1, 1))
    (folder / "meta" / "esc50.csv").write_text("filename,fold,target,category\n1-0-A-0.wav,1,0,dog\n")
    with pytest.raises(ValueError, match=r"lacks \['src_file'\]"):
        load_esc50(folder)


def test_the_real_data_set_is_what_it_says():
    folder = os.environ.get("AUDIOPG_ESC50_DIR")
    if folder is None:
        pytest.skip("AUDIOPG_ESC50_DIR names no folder with ESC-50 or ESC-10")
    dataset = load_esc50(folder)
    assert dataset.info.dataset_name in ("ESC-50", "ESC-10")
    counts = {(label, fold): 0 for label in set(dataset["label"]) for fold in set(dataset["fold"])}
    for label, fold in zip(dataset["label"], dataset["fold"], strict=True):
        counts[label, fold] += 1
    assert set(counts.values()) == {8}
