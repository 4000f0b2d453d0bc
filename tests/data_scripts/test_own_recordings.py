from collections import Counter

import datasets
import numpy as np
import pytest

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
