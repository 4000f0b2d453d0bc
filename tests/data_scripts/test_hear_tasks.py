import json

import pytest

from audiopg.data_scripts.benchmarks import BENCHMARKS, OFFICIAL_NAMES, detect_benchmark, load_benchmark
from audiopg.data_scripts.hear_tasks import HEAR_TASKS, load_hear_task
from audiopg.data_scripts.labelled_audio import class_names_of, is_multi_label


def hear_task(folder, parts, vocabulary, rate=16000, **metadata):
    """A folder as hear-preprocess leaves it: empty audio files, as nothing is decoded here."""
    folder.mkdir(exist_ok=True)
    usual = {"task_name": "libricount", "mode": "full", "version": "v1", "embedding_type": "scene"}
    usual |= {"prediction_type": "multiclass", "evaluation": ["top1_acc", "mAP"]}
    (folder / "task_metadata.json").write_text(json.dumps(usual | metadata))
    rows = [f'{index},"{label}"' for index, label in enumerate(vocabulary)]
    (folder / "labelvocabulary.csv").write_text("\n".join(["idx,label", *rows]) + "\n")
    for part, clips in parts.items():
        (folder / f"{part}.json").write_text(json.dumps(clips))
        (folder / f"labelcount_{part}.json").write_text("{}")
        (folder / str(rate) / part).mkdir(parents=True, exist_ok=True)
        for name in clips:
            (folder / str(rate) / part / name).touch()
    return folder


FOLDS = {"fold00": {"a.wav": ["2"], "b.wav": ["10"]}, "fold01": {"c.wav": ["2"]}, "fold02": {"d.wav": ["10"]}}
SPLITS = {"train": {"a.wav": ["dog", "bark"]}, "valid": {"b.wav": ["dog"]}, "test": {"c.wav": ["wind"]}}


def test_folds_are_read_as_they_are_and_classes_are_in_the_order_of_the_vocabulary(tmp_path):
    dataset = load_benchmark("auto", hear_task(tmp_path, FOLDS, ["10", "2"]))
    assert dataset.info.dataset_name == "part of LibriCount (HEAR)"
    assert class_names_of(dataset) == ["10", "2"]
    assert list(dataset["label"]) == [1, 0, 1, 0]
    assert list(dataset["fold"]) == [0, 0, 1, 2]
    assert [path.rsplit("/", 3)[1:] for path in dataset["audio"]][2] == ["16000", "fold01", "c.wav"]


def test_splits_and_several_labels_are_read(tmp_path):
    folder = hear_task(tmp_path, SPLITS, ["bark", "dog", "wind"], task_name="fsd50k", prediction_type="multilabel")
    dataset = load_benchmark("fsd50k", folder)
    assert dataset.info.dataset_name == "part of FSD50K (HEAR)"
    found = dict(zip(dataset["split"], dataset["labels"], strict=True))
    assert found == {"train": [1, 0], "validation": [1], "test": [2]}


def test_a_task_of_single_labels_that_is_scored_by_mean_average_precision_has_lists_of_one(tmp_path):
    task = {"task_name": "vocal_imitation", "evaluation": ["mAP", "top1_acc"]}
    dataset = load_benchmark("vocal_imitation", hear_task(tmp_path, FOLDS, ["10", "2"], **task))
    assert is_multi_label(dataset)
    assert list(dataset["labels"]) == [[1], [0], [1], [0]]


def test_pitches_are_called_as_such(tmp_path):
    parts = {"train": {"a.wav": [60]}, "valid": {"b.wav": [61]}, "test": {"c.wav": [60]}}
    task = {"task_name": "nsynth_pitch", "mode": "5h", "evaluation": ["pitch_acc", "chroma_acc"]}
    dataset = load_benchmark("nsynth_pitch", hear_task(tmp_path, parts, [60, 61], **task))
    assert class_names_of(dataset) == ["MIDI 60", "MIDI 61"]
    assert dataset.info.dataset_name == "part of NSynth Pitch 5 h (HEAR)"


@pytest.mark.parametrize(("rates", "taken"), [((48000,), "48000"), ((48000, 16000), "16000")])
def test_audio_is_taken_at_our_rate_or_else_at_what_there_is(tmp_path, rates, taken):
    for rate in rates:
        hear_task(tmp_path, FOLDS, ["10", "2"], rate)
    assert {path.split("/")[-3] for path in load_hear_task(tmp_path)["audio"]} == {taken}


def test_a_whole_task_has_its_own_name_and_a_task_that_nobody_counted_that_of_its_files(tmp_path):
    parts = {f"fold{fold:02}": {f"{fold}-{clip}.wav": [str(clip % 11)] for clip in range(1144)} for fold in range(5)}
    whole = load_hear_task(hear_task(tmp_path / "whole", parts, range(11)))
    assert whole.info.dataset_name == "LibriCount (HEAR)"
    other = load_hear_task(hear_task(tmp_path / "other", FOLDS, ["10", "2"], task_name="gtzan"))
    assert other.info.dataset_name == "gtzan full (HEAR)"


@pytest.mark.parametrize(
    ("metadata", "vocabulary", "message"),
    [
        ({"embedding_type": "event"}, ["10", "2"], "one of events in time"),
        ({}, ["10"], "these are not: 2"),
        ({"task_name": "tfds_crema_d"}, ["10", "2"], "The task libricount was asked for, and .* holds tfds_crema_d"),
    ],
)
def test_another_kind_of_task_or_label_is_refused(tmp_path, metadata, vocabulary, message):
    with pytest.raises(ValueError, match=message):
        load_benchmark("libricount", hear_task(tmp_path, FOLDS, vocabulary, **metadata))


def test_a_clip_of_several_labels_is_refused_where_one_is_scored(tmp_path):
    with pytest.raises(ValueError, match=r"these have none or several: train/a\.wav"):
        load_hear_task(hear_task(tmp_path, SPLITS, ["bark", "dog", "wind"]))


def test_missing_files_are_named(tmp_path):
    folder = hear_task(tmp_path, FOLDS, ["10", "2"])
    (folder / "16000/fold01/c.wav").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 4 clips .*fold01/c\.wav"):
        load_hear_task(folder)
    for path in folder.glob("fold*.json"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match="lacks the files of its parts"):
        load_hear_task(folder)


def test_the_totals_are_those_of_the_table_of_tasks():
    assert {task: clips for (task, _), (_, _, clips, _) in HEAR_TASKS.items()} == {
        "esc50": 2000,
        "tfds_crema_d": 7438,
        "fsd50k": 36796 + 4170 + 10231 - 12,  # HEAR leaves out twelve clips that are longer than they should be
        "libricount": 5720,
        "nsynth_pitch": 5000,
        "vocal_imitation": 5601,
    }


def voices(folder, names):
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).touch()


def test_a_speaker_of_vivae_is_a_fold(tmp_path):
    names = [f"S{s:02}_{e}_{i}_01.wav" for s in (1, 2, 11) for e in ("anger", "fear") for i in ("low", "peak")]
    voices(tmp_path / "full_set", names)
    voices(tmp_path / "core_set", names[:3])
    dataset = load_benchmark("auto", tmp_path)
    assert dataset.info.dataset_name == "part of VIVAE"
    assert class_names_of(dataset) == ["anger", "fear"]
    assert list(dataset["fold"]) == [1] * 4 + [2] * 4 + [11] * 4
    assert list(dataset["label"]) == [0, 0, 1, 1] * 3


def test_all_of_vivae_is_called_so(tmp_path):
    emotions = ("achievement", "anger", "fear", "pain", "pleasure", "surprise")
    names = [f"S{1 + n % 11:02}_{emotions[n % 6]}_low_{n:03}.wav" for n in range(1085)]
    voices(tmp_path / "full_set", names)
    assert load_benchmark("vivae", tmp_path).info.dataset_name == "VIVAE"


def test_actors_of_crema_d_are_dealt_over_five_folds_in_their_order(tmp_path):
    names = [f"{a}_DFA_{e}_{i}.wav" for a in range(1001, 1013) for e, i in (("ANG", "XX"), ("SAD", "HI"))]
    voices(tmp_path / "AudioWAV", names)
    dataset = load_benchmark("auto", tmp_path)
    assert dataset.info.dataset_name == "part of CREMA-D"
    assert dict(zip(dataset["source"], dataset["fold"], strict=True)) == {
        str(1001 + n): (1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 1, 2)[n] for n in range(12)
    }
    assert "the folds were drawn here, by actors" in dataset.info.description


@pytest.mark.parametrize(("name", "folder"), [("vivae", "full_set"), ("crema_d", "AudioWAV")])
def test_voices_without_a_name_that_tells_are_refused(tmp_path, name, folder):
    voices(tmp_path / folder, ["angry.wav"])
    with pytest.raises(ValueError, match=r"these are not: angry\.wav"):
        load_benchmark(name, tmp_path)
    (tmp_path / folder / "angry.wav").unlink()
    with pytest.raises(FileNotFoundError, match="holds no recordings"):
        load_benchmark(name, tmp_path)


def test_every_probe_task_has_a_loader_and_its_name_is_reserved():
    tasks = {"esc50", "urbansound8k", "vivae", "nsynth_pitch", "crema_d", "fsd50k", "vocal_imitation", "libricount"}
    assert tasks <= set(BENCHMARKS)
    assert {"VIVAE", "CREMA-D", "CREMA-D (HEAR)", "ESC-50"} <= OFFICIAL_NAMES


def test_a_folder_of_hear_s_is_told_by_its_metadata(tmp_path):
    assert detect_benchmark(hear_task(tmp_path, FOLDS, ["10", "2"])) == "hear"
