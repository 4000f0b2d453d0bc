import gc

import datasets
import numpy as np
import pytest
import soundfile

from audiopg.data_scripts.own_recordings import load_hub_dataset
from audiopg.data_scripts.stored_audio import StoredAudio, load_stored


@pytest.fixture
def folder(tmp_path):
    """Three recordings of two classes each."""
    for name in ("cat", "dog"):
        (tmp_path / "sounds" / name).mkdir(parents=True)
        for n in range(3):
            noise = 0.1 * np.random.default_rng([n, name == "cat"]).standard_normal(8000)
            soundfile.write(tmp_path / "sounds" / name / f"{n}.wav", noise, 16000)
    return tmp_path / "sounds"


def test_a_folder_of_files_on_the_hub_is_labelled_data_without_torchcodec(folder):
    dataset = load_hub_dataset(str(folder))
    assert dataset.features["label"].names == ["cat", "dog"]
    assert sorted(audio["path"] for audio in dataset["audio"]) == sorted(map(str, folder.rglob("*.wav")))
    assert [dataset.features["label"].int2str(row["label"]) in row["audio"]["path"] for row in dataset] == [True] * 6


def test_parquet_keeps_its_bytes(folder, tmp_path):
    rows = [{"bytes": path.read_bytes(), "path": path.name} for path in sorted(folder.rglob("*.wav"))]
    table = datasets.Dataset.from_dict({"audio": rows}).cast_column("audio", datasets.Audio(decode=False))
    (tmp_path / "hub").mkdir()
    table.cast_column("audio", datasets.Audio()).to_parquet(tmp_path / "hub" / "train.parquet")
    assert list(load_stored(str(tmp_path / "hub"), split="train")["audio"]) == rows
    assert [row["audio"] for row in load_stored(str(tmp_path / "hub"), split="train", streaming=True)] == rows


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_files_with_a_table_are_where_the_table_says(folder):
    (folder / "metadata.csv").write_text("file_name,number\ncat/0.wav,1\ndog/2.wav,2\n")
    rows = list(load_stored(str(folder), split="train", streaming=True))
    assert [row["audio"] for row in rows] == [
        {"bytes": None, "path": str(folder / name)} for name in ("cat/0.wav", "dog/2.wav")
    ]
    gc.collect()  # the table, which `datasets` leaves open, is closed here, where it may be


def test_what_is_no_stored_audio_is_refused():
    with pytest.raises(ValueError, match=r"path, bytes or both, and got a float"):
        StoredAudio().encode_example(0.5)
    assert StoredAudio().encode_example(bytearray(b"a")) == {"bytes": b"a", "path": None}
