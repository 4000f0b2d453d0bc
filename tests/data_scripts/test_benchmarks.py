import os
from pathlib import Path

import pytest

from audiopg.data_scripts.benchmarks import OFFICIAL_SIZES, load_benchmark, load_esc50
from audiopg.data_scripts.labelled_audio import class_names_of

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


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_esc10_is_the_part_of_esc50_that_its_column_marks(esc50):
    rows = [row.replace("False", str(int(row.split(",")[2]) < 10)) for row in table(50, 8)]
    folder = esc50(rows)
    assert load_benchmark("auto", folder).info.dataset_name == "ESC-50"
    dataset = load_benchmark("esc10", folder)
    assert dataset.info.dataset_name == "ESC-10"
    assert len(dataset) == 400


def urbansound8k(folder, rows):
    (folder / "metadata").mkdir(parents=True)
    header = "slice_file_name,fsID,start,end,salience,fold,classID,class"
    (folder / "metadata" / "UrbanSound8K.csv").write_text("\n".join([header, *rows]) + "\n")
    for row in rows:
        touch(folder / "audio" / f"fold{row.split(',')[5]}" / row.split(",")[0])
    return folder


US8K_ROWS = ["7-1-0-0.wav,7,0,4,1,1,1,car_horn", "7-1-0-1.wav,7,4,8,1,1,1,car_horn", "9-0-0-0.wav,9,0,1,2,10,0,fan"]


def test_urbansound8k_keeps_its_folds_and_its_class_numbers(tmp_path):
    dataset = load_benchmark("auto", urbansound8k(tmp_path, US8K_ROWS))
    assert dataset.info.dataset_name == "part of UrbanSound8K"
    assert list(dataset["fold"]) == [1, 1, 10]
    assert list(dataset["label"]) == [1, 1, 0]
    assert dataset.features["label"].names == ["fan", "car_horn"]
    assert list(dataset["source"]) == ["7", "7", "9"]
    assert dataset[2]["audio"].endswith("audio/fold10/9-0-0-0.wav")


def test_a_recording_in_two_folds_of_urbansound8k_is_refused(tmp_path):
    folder = urbansound8k(tmp_path, [*US8K_ROWS, "7-1-0-2.wav,7,8,9,1,10,1,car_horn"])
    with pytest.raises(ValueError, match="these sources lie in several: 7"):
        load_benchmark("auto", folder)


def test_a_slice_in_another_folder_than_its_fold_s_is_missing(tmp_path):
    folder = urbansound8k(tmp_path, US8K_ROWS)
    (folder / "audio/fold10/9-0-0-0.wav").rename(folder / "audio/fold1/9-0-0-0.wav")
    with pytest.raises(FileNotFoundError, match=r"1 of 3 clips .*fold10/9-0-0-0\.wav"):
        load_benchmark("auto", folder)


def speech_commands(folder, validation, testing):
    for name in ("yes/aa_nohash_0.wav", "yes/bb_nohash_0.wav", "no/aa_nohash_0.wav", "no/cc_nohash_0.wav"):
        touch(folder / name)
    touch(folder / "_background_noise_" / "tap.wav")
    (folder / "validation_list.txt").write_text("\n".join(validation) + "\n")
    (folder / "testing_list.txt").write_text("\n".join(testing) + "\n")
    return folder


def test_speech_commands_reads_its_lists_and_the_rest_is_for_training(tmp_path):
    folder = speech_commands(tmp_path, ["yes/bb_nohash_0.wav"], ["no/cc_nohash_0.wav"])
    dataset = load_benchmark("auto", folder)
    assert dataset.info.dataset_name == "part of Speech Commands V2"
    assert dataset.features["label"].names == ["no", "yes"]
    assert {Path(row["audio"]).name: (row["split"], row["source"]) for row in dataset if row["label"] == 1} == {
        "aa_nohash_0.wav": ("train", "aa"),
        "bb_nohash_0.wav": ("validation", "bb"),
    }


@pytest.mark.parametrize(
    ("validation", "testing", "error", "message"),
    [
        (["yes/bb_nohash_0.wav"], ["yes/bb_nohash_0.wav"], ValueError, "in both lists"),
        (["yes/aa_nohash_0.wav"], ["no/cc_nohash_0.wav"], ValueError, "lie in several: aa"),
        (["yes/zz_nohash_0.wav"], ["no/cc_nohash_0.wav"], FileNotFoundError, "1 of 1 clips"),
    ],
)
def test_broken_lists_of_speech_commands_are_refused(tmp_path, validation, testing, error, message):
    with pytest.raises(error, match=message):
        load_benchmark("speech_commands", speech_commands(tmp_path, validation, testing))


def fsd50k(folder, evaluation="30,Bark"):
    truth = folder / "FSD50K.ground_truth"
    truth.mkdir(parents=True)
    (truth / "vocabulary.csv").write_text("0,Animal,/m/0jbk\n1,Bark,/m/05tny_\n2,Wind,/m/03m9d0z\n")
    dev = 'fname,labels,mids,split\n10,"Bark,Animal",x,train\n20,Wind,x,val\n'
    (truth / "dev.csv").write_text(dev)
    (truth / "eval.csv").write_text(f"fname,labels,mids\n{evaluation},x\n")
    touch(folder / "FSD50K.dev_audio/10.wav", folder / "FSD50K.dev_audio/20.wav", folder / "FSD50K.eval_audio/30.flac")
    return folder


def test_fsd50k_has_several_labels_and_the_official_parts(tmp_path):
    dataset = load_benchmark("auto", fsd50k(tmp_path))
    assert dataset.info.dataset_name == "part of FSD50K"
    assert list(dataset["labels"]) == [[1, 0], [2], [1]]
    assert list(dataset["split"]) == ["train", "validation", "test"]
    assert class_names_of(dataset) == ["Animal", "Bark", "Wind"]


@pytest.mark.parametrize(("evaluation", "message"), [("30,Song", "these are not: Song"), ("10,Bark", "several: 10")])
def test_broken_tables_of_fsd50k_are_refused(tmp_path, evaluation, message):
    folder = fsd50k(tmp_path, evaluation)
    touch(folder / "FSD50K.eval_audio/10.wav")
    with pytest.raises(ValueError, match=message):
        load_benchmark("fsd50k", folder)


def test_official_counts_add_up_to_the_published_totals():
    totals = {name: sum(parts.values()) for name, (_, parts) in OFFICIAL_SIZES.items()}
    assert totals == {
        "ESC-50": 2000,
        "ESC-10": 400,
        "UrbanSound8K": 8732,
        "Speech Commands V2": 105829,
        "FSD50K": 51197,
    }


def test_a_folder_of_no_benchmark_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="which tell the benchmarks apart"):
        load_benchmark("auto", tmp_path)


def test_urbansound8k_as_mirrors_unpack_it_keeps_its_folds_and_classes(tmp_path):
    folder = urbansound8k(tmp_path, US8K_ROWS)
    (folder / "metadata" / "UrbanSound8K.csv").rename(folder / "UrbanSound8K.csv")
    for path in (folder / "audio").iterdir():
        path.rename(folder / path.name)
    (folder / "audio").rmdir()
    dataset = load_benchmark("auto", folder)
    assert list(dataset["fold"]) == [1, 1, 10]
    assert class_names_of(dataset) == ["fan", "car_horn"]


def test_esc50_s_table_may_lie_at_the_top_and_come_from_a_spreadsheet(esc50):
    folder = esc50(table(2, 1))
    content = (folder / "meta" / "esc50.csv").read_text()
    (folder / "meta" / "esc50.csv").unlink()
    (folder / "esc50.csv").write_bytes(content.replace(",", ";").replace("\n", "\r\n").encode("utf-16"))
    assert len(load_benchmark("auto", folder)) == 10
