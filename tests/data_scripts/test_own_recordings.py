from collections import Counter

import datasets
import numpy as np
import pytest

from audiopg.data_scripts.labelled_audio import class_names_of, is_multi_label, notes_of
from audiopg.data_scripts.own_recordings import draw_folds, from_dataset, load_hub_dataset, load_recordings

ENCODED = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}  # Audio itself would need FFmpeg


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_a_folder_of_class_folders_gets_five_folds_with_every_class_in_each(tmp_path, caplog):
    touch(*(tmp_path / name / "deep" / f"{i}.flac" for name in ("rain", "dog") for i in range(10)))
    touch(tmp_path / "dog" / "notes.txt")
    dataset = load_recordings(tmp_path)
    assert dataset.features["label"].names == ["dog", "rain"]
    assert set(Counter(zip(dataset["label"], dataset["fold"], strict=True)).values()) == {2}
    assert "5 folds were drawn" in caplog.text
    assert load_recordings(tmp_path)["fold"][:] == dataset["fold"][:]


def test_folders_called_as_splits_are_splits(tmp_path):
    touch(*(tmp_path / split / name / f"{split}.wav" for split in ("Train", "val", "test") for name in ("a", "b")))
    dataset = load_recordings(tmp_path)
    assert Counter(dataset["split"]) == {"train": 2, "validation": 2, "test": 2}


def test_without_a_test_split_validation_is_tested_on(tmp_path, caplog):
    touch(*(tmp_path / split / name / f"{split}.wav" for split in ("train", "dev") for name in ("a", "b")))
    assert Counter(load_recordings(tmp_path)["split"]) == {"train": 2, "test": 2}
    assert "validation split is tested on" in caplog.text


def write_csv(folder, header, rows):
    for row in rows:
        touch((folder / row.split(",")[0]).with_suffix(".wav"))
    path = folder / "mine.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_a_table_names_files_labels_folds_and_sources(tmp_path):
    rows = ["x/1.wav,dog,1,s1", "x/2.wav,cat,1,s1", "y/3.flac,dog,2,s2", "4.wav,cat,2,"]
    dataset = load_recordings(write_csv(tmp_path, "file,label,fold,source", rows))
    assert dataset.info.dataset_name == "mine"
    assert list(dataset["label"]) == [1, 0, 1, 0]
    assert list(dataset["source"]) == ["s1", "s1", "s2", "4.wav"]
    assert dataset[2]["audio"].endswith("y/3.wav")


def test_a_table_may_give_several_labels(tmp_path):
    dataset = load_recordings(write_csv(tmp_path, "file,labels,split", ["1.wav,dog; cat,train", "2.wav,dog,eval"]))
    assert list(dataset["labels"]) == [[1, 0], [1]]
    assert list(dataset["split"]) == ["train", "test"]


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        ("file,name", ["1.wav,dog"], "either the column label or the column labels"),
        ("file,label", ["1.wav,dog", "2.wav,dog"], "needs two classes or more"),
        ("file,label,split", ["1.wav,dog,train", "2.wav,cat,somewhere"], "has 'somewhere'"),
        ("file,label,fold", ["1.wav,dog,1", "2.wav,cat,"], "1 of 2 have none"),
        ("file,label,split", ["1.wav,dog,train", "2.wav,cat,train"], r"needs the splits train and test"),
        ("file,label,fold", ["1.wav,dog,1", "2.wav,cat,1"], "two folds or more"),
        ("file,label,fold,source", ["1.wav,dog,1,s", "2.wav,cat,2,s"], "lie in several: s"),
        ("file,label,fold", ["1.wav,dog,1", "1.wav,dog,1", "2.wav,cat,2"], "is listed again"),
        ("file,labels,fold", ["1.wav,dog;cat,1", "2.wav,,2"], "Row 3 of .* has nothing in labels"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(tmp_path, header, rows, message):
    with pytest.raises(ValueError, match=message):
        load_recordings(write_csv(tmp_path, header, rows))


def test_files_that_a_table_names_and_nobody_has_are_listed(tmp_path):
    path = write_csv(tmp_path, "file,label", ["1.wav,dog", "2.wav,cat"])
    (tmp_path / "2.wav").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 2 clips .*: 2\.wav"):
        load_recordings(path)


def test_nothing_at_a_path_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="neither a folder nor a CSV"):
        load_recordings(tmp_path / "nowhere")


def test_a_copy_of_esc50_as_the_hub_has_it_keeps_its_folds_and_its_encoded_audio(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rows = {
        "audio": [{"bytes": bytes([i]), "path": f"{i}.wav"} for i in range(4)],
        "fold": [1, 1, 2, 2],
        "category": ["dog", "cat", "dog", "cat"],
        "src_file": [10, 11, 12, 13],
    }
    features = datasets.Features(
        {
            "audio": ENCODED,
            "fold": datasets.Value("int64"),
            "category": datasets.Value("string"),
            "src_file": datasets.Value("int64"),
        }
    )
    hub = datasets.Dataset.from_dict(rows, features=features).cast_column("audio", datasets.Audio(decode=False))
    hub.save_to_disk(tmp_path / "saved")
    (tmp_path / "repository").mkdir()
    hub.to_parquet(tmp_path / "repository" / "train.parquet")
    for dataset in (
        load_recordings(tmp_path / "saved"),
        from_dataset(hub, "copy"),
        load_hub_dataset(str(tmp_path / "repository")),
    ):
        assert list(dataset["label"]) == [1, 0, 1, 0]
        assert list(dataset["fold"]) == [1, 1, 2, 2]
        assert dataset[3]["audio"] == {"bytes": b"\x03", "path": "3.wav"}
        assert dataset[3]["source"] == "13"


def test_splits_of_a_hub_data_set_are_kept():
    def split(first):
        features = {"audio": ENCODED, "label": datasets.ClassLabel(names=["a", "b"])}
        rows = {"audio": [{"bytes": b"", "path": f"{first}{i}.wav"} for i in range(2)], "label": [0, 1]}
        return datasets.Dataset.from_dict(rows, features=datasets.Features(features))

    dataset = from_dataset(datasets.DatasetDict(train=split("x"), test=split("y")), "mine")
    assert list(dataset["split"]) == ["train", "train", "test", "test"]
    assert dataset.features["label"].names == ["a", "b"]


def test_a_hub_data_set_without_labels_is_refused():
    with pytest.raises(ValueError, match="needs the columns audio and label"):
        from_dataset(datasets.Dataset.from_dict({"text": ["a"]}), "mine")


def test_drawn_folds_keep_sources_together_and_classes_even():
    rng = np.random.default_rng(0)
    sources = rng.integers(0, 60, 300)
    labels = sources % 3
    folds = np.array(draw_folds(labels.tolist(), [str(source) for source in sources]))
    assert all(len(set(folds[sources == source])) == 1 for source in set(sources))
    counts = Counter(label_fold for label_fold in {(int(s) % 3, int(f)) for s, f in zip(sources, folds, strict=True)})
    assert len(counts) == 15


def test_a_class_with_one_recording_cannot_be_tested():
    with pytest.raises(ValueError, match=r"the classes \[1\] have one"):
        draw_folds([0, 0, 1], ["a", "b", "c"])


# What is missing or incidental never becomes data.

NAMED = datasets.ClassLabel(names=["cat", "dog", "zebra"])
TEXT, WHOLE, REAL = datasets.Value("string"), datasets.Value("int64"), datasets.Value("float64")


def rows(labels, feature=TEXT, prefix="", **columns):
    """A data set with the audio inside; `columns` are (values, feature)."""
    features = {"audio": ENCODED, "label": feature, **{name: kind for name, (_, kind) in columns.items()}}
    values = {name: found for name, (found, _) in columns.items()}
    audio = [{"bytes": f"{prefix}{i}".encode(), "path": f"{prefix}{i}.wav"} for i in range(len(labels))]
    return datasets.Dataset.from_dict(
        {"audio": audio, "label": labels, **values}, features=datasets.Features(features)
    )


@pytest.mark.parametrize(
    ("labels", "feature"),
    [
        ([0, 1, 0, 1, -1, -1], NAMED),
        ([0, 1, 0, 1, None, -1], NAMED),
        ([0, 1, 0, 1, -1, None], WHOLE),
        ([0.0, 1.0, 0.0, 1.0, float("nan"), -1.0], REAL),
        (["cat", "dog", "cat", "dog", None, " "], TEXT),
        (["cat", "dog", "cat", "dog", "nan", "-1"], TEXT),
        ([["cat"], ["dog"], ["cat", "dog"], ["dog"], [], [None]], datasets.List(TEXT)),
        ([[0], [1], [0, 1], [1], None, [-1]], datasets.List(NAMED)),
    ],
)
def test_clips_without_a_label_are_left_out_with_a_count_and_make_no_class(labels, feature, caplog):
    dataset = from_dataset(rows(labels, feature), "mine")
    assert len(dataset) == 4
    assert class_names_of(dataset) in (["cat", "dog"], ["0", "1"])
    assert is_multi_label(dataset) == isinstance(labels[0], list)
    for said in (caplog.text, notes_of(dataset)):
        assert "2 of 6 clips without a label" in said


def test_a_test_split_of_hidden_labels_is_no_test_split():
    splits = datasets.DatasetDict(train=rows([0, 1, 2] * 2, NAMED, "a"), test=rows([-1] * 3, NAMED, "b"))
    with pytest.raises(ValueError, match=r"splits train and test, and has train \(3 of 9 clips without a label"):
        from_dataset(splits, "mine")
    with pytest.raises(ValueError, match="no clip with audio and a label: 3 of 3 clips without a label"):
        from_dataset(rows([-1] * 3, NAMED), "mine")


def test_rows_without_audio_are_left_out_with_a_count():
    data = rows(["cat", "dog"] * 3)
    audio = [None, {"bytes": None, "path": None}, *data["audio"][2:]]
    data = data.remove_columns("audio").add_column("audio", audio, feature=ENCODED)
    dataset = from_dataset(data, "mine")
    assert len(dataset) == 4
    assert "2 of 6 clips without audio" in notes_of(dataset)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["cat,dog", "cat", "dog"], "'cat,dog' .2 clips. reads as several"),
        (["cat;dog", "cat", "dog"], "reads as several"),
        (["cat|dog", "cat", "dog"], "reads as several"),
        (["cat, dog", "cat", "dog"], "reads as several"),
        (["['cat', 'dog']", "['cat']", "['dog']"], "read as several"),
        (["0.25", "0.5", "1.25"], "are fractions"),
    ],
)
def test_what_is_no_name_of_a_class_is_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        from_dataset(rows(labels * 2), "mine")


@pytest.mark.parametrize("name", ["Male speech, man speaking", "a|b", "$x_{$", "<script>", "no", "na", "zoom in", "5"])
def test_names_with_odd_letters_are_names(name):
    assert name in from_dataset(rows([name, "cat"] * 2), "mine").features["label"].names


@pytest.mark.parametrize(
    ("labels", "feature", "kind"),
    [
        ([[["cat"]], [["dog"]]], datasets.List(datasets.List(TEXT)), "list"),
        ([{"a": "cat"}, {"a": "dog"}], {"a": TEXT}, "dict"),
        ([b"cat", b"dog"], datasets.Value("binary"), "bytes"),
    ],
)
def test_labels_are_texts_or_whole_numbers(labels, feature, kind):
    with pytest.raises(ValueError, match=f"and label holds {kind}"):
        from_dataset(rows(labels * 2, feature), "mine")


def test_zeros_and_ones_for_each_class_are_no_lists_of_labels():
    with pytest.raises(ValueError, match="zeros and ones for 3 classes"):
        from_dataset(rows([[0, 1, 0], [1, 0, 0]] * 2, datasets.List(WHOLE)), "mine")


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["fold1/0.wav", "fold2/1.wav"], "called as a fold or a split.*no folder for each class|needs two classes"),
        (["train/0.wav", "test/1.wav"], "called as a fold or a split, not as a class"),
        (["cat/0.wav", "dog/1.wav", "train/2.wav"], "train in .* called as folds or splits, not as classes"),
        (
            ["cat/train/0.wav", "cat/test/1.wav", "dog/train/2.wav"],
            "cat holds test, train: folds or splits lie outside",
        ),
        (["audio/fold1/0.wav", "audio/fold2/0.wav", "b/1.wav"], "audio holds fold1, fold2"),
        (["cat/0.wav", "_background_noise_/1.wav"], r"needs two classes or more, and has \['cat'\]"),
        (["nan/0.wav", "cat/1.wav"], "'nan' .1 clips. stand for a missing label"),
        (["cat,dog/0.wav", "cat/1.wav"], "reads as several"),
    ],
)
def test_folders_that_are_no_classes_make_none(tmp_path, paths, message):
    touch(*(tmp_path / path for path in paths))
    with pytest.raises(ValueError, match=message):
        load_recordings(tmp_path)


def test_folders_called_as_folds_are_folds(tmp_path):
    touch(*(tmp_path / f"fold{fold}" / name / f"{fold}.wav" for fold in (1, 2, 10) for name in ("a", "b")))
    dataset = load_recordings(tmp_path)
    assert Counter(dataset["fold"]) == {1: 2, 2: 2, 10: 2}
    assert not notes_of(dataset)


def test_digits_are_classes(tmp_path):
    touch(*(tmp_path / str(digit) / f"{i}.wav" for digit in range(3) for i in range(2)))
    assert load_recordings(tmp_path).features["label"].names == ["0", "1", "2"]


def test_words_for_a_missing_label_in_a_table_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"'NaN' \(1 clips\) stand for a missing label"):
        load_recordings(write_csv(tmp_path, "file,label", ["1.wav,cat", "2.wav,NaN", "3.wav,dog"]))


# Official parts are kept.


@pytest.mark.parametrize(
    ("column", "values", "feature", "expected"),
    [
        ("fold", ["1", "1", "2", "2"], TEXT, [1, 1, 2, 2]),
        ("fold", ["1.0", "1.0", "2.0", "2.0"], TEXT, [1, 1, 2, 2]),
        ("fold", [1.0, 1.0, 2.0, 2.0], REAL, [1, 1, 2, 2]),
        ("fold", ["fold1", "Fold 1", "fold_02", "fold-2"], TEXT, [1, 1, 2, 2]),
        ("fold", ["north", "north", "south", "south"], TEXT, [1, 1, 2, 2]),
        ("fold", ["train", "train", "test", "test"], TEXT, ["train", "train", "test", "test"]),
        ("fold", [0, 0, 1, 1], datasets.ClassLabel(names=["a", "b"]), [1, 1, 2, 2]),
        ("split", ["train", "Train", "TEST", "eval"], TEXT, ["train", "train", "test", "test"]),
        ("split", ["dev", "training", "test", "val"], TEXT, ["validation", "train", "test", "validation"]),
        ("split", [1, 1, 0, 0], datasets.ClassLabel(names=["test", "train"]), ["train", "train", "test", "test"]),
        ("split", ["fold1", "fold1", "fold2", "fold2"], TEXT, [1, 1, 2, 2]),
    ],
)
def test_a_column_says_the_parts_however_they_are_written(column, values, feature, expected):
    dataset = from_dataset(rows(["cat", "dog"] * 2, **{column: (values, feature)}), "mine")
    assert dataset["split" if isinstance(expected[0], str) else "fold"][:] == expected
    assert not notes_of(dataset)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["train", "somewhere", "test", "test"], "the column split has 'somewhere'"),
        (["train", "1", "test", "2"], "Parts are either folds or splits, and split has both"),
        (["train", None, "test", "test"], "1 of 4 have none"),
        (["1.5", "1.5", "2", "2"], "the column split has '1.5'"),
    ],
)
def test_parts_that_say_nothing_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        from_dataset(rows(["cat", "dog"] * 2, split=(values, TEXT)), "mine")


def test_splits_of_a_data_set_that_are_called_as_folds_are_folds():
    splits = datasets.DatasetDict({f"fold{i}": rows(["cat", "dog"], prefix=str(i)) for i in (1, 2, 3)})
    assert from_dataset(splits, "mine")["fold"][:] == [1, 1, 2, 2, 3, 3]
    splits["extra"] = rows(["cat", "dog"], prefix="x")
    with pytest.raises(ValueError, match="of splits of mine has 'extra'"):
        from_dataset(splits, "mine")


@pytest.mark.parametrize("missing", [None, "", "nan"])
def test_clips_without_a_speaker_are_sources_of_their_own(missing):
    splits = {
        split: rows(["yes", "no", "yes"], prefix=split, speaker_id=([f"{split}0", f"{split}1", missing], TEXT))
        for split in ("train", "validation", "test")
    }
    dataset = from_dataset(datasets.DatasetDict(splits), "mine")
    assert len(set(dataset["source"])) == 9


def test_clips_of_one_base_name_are_told_apart_by_their_content():
    data = rows(["cat", "dog"] * 3)
    same_names = [{"bytes": item["bytes"], "path": "0.wav"} for item in data["audio"]]
    data = data.remove_columns("audio").add_column("audio", same_names, feature=ENCODED)
    assert len(from_dataset(data, "mine")) == 6
    twice = datasets.concatenate_datasets([data, data.select([0])])
    with pytest.raises(ValueError, match=r"0\.wav is listed again"):
        from_dataset(twice, "mine")


def test_copies_of_one_content_stay_together_where_folds_are_drawn():
    data = rows(["cat", "dog"] * 4)
    copies = [{"bytes": b"same" if i % 2 == 0 and i < 4 else f"{i}".encode(), "path": f"{i}.wav"} for i in range(8)]
    dataset = from_dataset(data.remove_columns("audio").add_column("audio", copies, feature=ENCODED), "mine")
    assert dataset["fold"][0] == dataset["fold"][2]
    assert "folds were drawn here" in notes_of(dataset)


def test_tables_side_by_side_that_are_called_as_splits_are_one_data_set(tmp_path):
    for number, split in enumerate(("train", "val", "test")):
        lines = [f"{word}/{number}.wav,{word},s{number}" for word in ("yes", "no", "zoom in")]
        touch(*(tmp_path / line.split(",")[0] for line in lines))
        (tmp_path / f"{split}.csv").write_text("\n".join(["file,label,speaker", *lines]))
    dataset = load_recordings(tmp_path)
    assert Counter(dataset["split"]) == {"train": 3, "validation": 3, "test": 3}
    assert set(dataset["source"]) == {"s0", "s1", "s2"}
    assert (dataset.info.dataset_name, notes_of(dataset)) == (tmp_path.name, "")


def test_a_metadata_table_is_read_where_it_has_labels(tmp_path):
    touch(*(tmp_path / name / f"{i}.wav" for name in ("cat", "dog") for i in range(2)))
    (tmp_path / "metadata.csv").write_text("file_name,weather\ncat/0.wav,rain\n")
    assert load_recordings(tmp_path).features["label"].names == ["cat", "dog"]
    lines = [f"{name}/{i}.wav,{i}" for name in ("cat", "dog") for i in range(2)]
    (tmp_path / "metadata.csv").write_text("\n".join(["file_name,label", *lines]))
    assert load_recordings(tmp_path).features["label"].names == ["0", "1"]


def test_a_data_set_is_called_by_its_folder_s_own_name(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "sounds").mkdir()
    rows(["cat", "dog"] * 3).to_parquet(tmp_path / "sounds" / "train.parquet")
    assert load_hub_dataset(str(tmp_path / "sounds")).info.dataset_name == "sounds"
    touch(*(tmp_path / "own" / name / f"{i}.wav" for name in ("cat", "dog") for i in range(2)))
    monkeypatch.chdir(tmp_path / "own")
    assert load_recordings(".").info.dataset_name == "own"
    assert not any(str(tmp_path) in source for source in load_recordings(".")["source"])


def test_a_folder_that_is_called_as_a_benchmark_is_none(tmp_path, caplog):
    touch(*(tmp_path / "ESC-10" / name / f"{i}.wav" for name in ("cat", "dog") for i in range(2)))
    assert load_recordings(tmp_path / "ESC-10").info.dataset_name == "part of ESC-10"
    assert "not in its layout" in caplog.text
