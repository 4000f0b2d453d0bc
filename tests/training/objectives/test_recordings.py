import json
import os
import shutil
import sys
import zipfile
from pathlib import Path

import datasets
import numpy as np
import pytest
import soundfile
import torch
from huggingface_hub import ModelCard

from audiopg.modeling.audio_audiopg import AudioFileError, match_length, read_audio
from audiopg.modeling.modeling_audiopg import AudioPGForPreTraining
from audiopg.modeling.spectrogram_audiopg import log_mel_spectrogram
from audiopg.training.objectives import recordings as recordings_module
from audiopg.training.objectives.pretraining import pretrain
from audiopg.training.objectives.recipe import RecordingsRecipe
from audiopg.training.objectives.recordings import Recordings
from audiopg.training.pretrain import main
from audiopg.training.publishing.exporting import export_run
from audiopg.training.runs.metrics_log import read_metrics
from audiopg.training.runs.recipes import given

NUM_FILES, DURATION = 6, 0.64
NUM_SAMPLES = round(DURATION * 16000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files of 0.3 to 1.8 s, of two rates and three formats, mono and stereo, in subfolders."""
    root = tmp_path_factory.mktemp("recordings")
    noise = np.random.default_rng(0)
    for n, (suffix, rate, channels) in enumerate(
        [
            ("wav", 16000, 1),
            ("flac", 16000, 1),
            ("ogg", 22050, 1),
            ("wav", 16000, 2),
            ("flac", 22050, 2),
            ("wav", 16000, 1),
        ]
    ):
        path = root / "abcabc"[n] / f"{n}.{suffix}"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, 0.1 * noise.standard_normal((round((0.3 + 0.3 * n) * rate), channels)), rate)
    (root / "notes.txt").write_text("not a recording")
    return root


@pytest.fixture
def damaged(folder, tmp_path):
    """The same folder, one file of which cannot be read."""
    copy = tmp_path / "damaged"
    for path in folder.rglob("*.*"):
        target = copy / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    (copy / "a/3.wav").write_bytes(b"RIFF, but no more")
    return copy


def recordings(folder, **changes) -> Recordings:
    return Recordings(RecordingsRecipe(folder=str(folder), duration=DURATION, **changes), seed=1)


def test_a_clip_is_the_same_in_any_batch_and_after_reading_ahead(folder):
    clips = recordings(folder)
    batch = clips.draw(torch.arange(20))
    assert batch.shape == (20, NUM_SAMPLES)
    again = recordings(folder)
    assert all(torch.equal(again.draw(torch.tensor([i]))[0], batch[i]) for i in (19, 7, 0, 7))


def test_a_pass_holds_every_recording_once_and_the_next_in_another_order(folder):
    clips = recordings(folder)
    passes = [clips._order(n) for n in range(4)]
    assert all(sorted(order) == list(range(NUM_FILES)) for order in passes)
    assert len({tuple(order) for order in passes}) > 1


def test_long_recordings_are_cut_at_random_and_short_ones_repeated(folder):
    clips = recordings(folder)
    starts = set()
    for index in range(10 * NUM_FILES):
        position = clips._order(index // NUM_FILES)[index % NUM_FILES]
        whole, clip = read_audio(clips.files[position][1]), clips.clip(index)
        if len(whole) <= NUM_SAMPLES:
            assert torch.equal(clip, whole.repeat(9)[:NUM_SAMPLES])
        else:
            start = int((whole.unfold(0, 8, 1) == clip[:8]).all(dim=1).nonzero())
            assert torch.equal(whole[start : start + NUM_SAMPLES], clip)
            starts.add((position, start))
    assert len(starts) > 30


def test_a_file_that_cannot_be_read_is_named_counted_and_skipped_by_rule(damaged, folder, caplog):
    clips, whole = recordings(damaged), recordings(folder)
    batch = clips.draw(torch.arange(12))
    assert len(clips.unreadable) == 1
    assert caplog.text.count("a/3.wav cannot be used") == 1
    order = clips._order(0)
    lost = order.index([path.name for path in clips.files.paths].index("3.wav"))
    kept = [i for i in range(NUM_FILES) if i != lost]
    assert torch.equal(batch[kept], whole.draw(torch.tensor(kept)))
    again = recordings(damaged)
    assert torch.equal(again.draw(torch.tensor([lost]))[0], batch[lost])


def test_too_many_unreadable_files_end_the_run_with_a_list(damaged):
    with pytest.raises(AudioFileError, match=r"1 of 6 recordings cannot be read[\s\S]*a/3\.wav"):
        recordings(damaged, max_unreadable=0).draw(torch.arange(6))


def test_a_folder_of_nothing_but_noise_in_the_bytes_is_refused(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"nothing")
    with pytest.raises(AudioFileError, match="none of its recordings can be read"):
        recordings(tmp_path).clip(0)


def test_a_folder_without_recordings_is_refused(tmp_path):
    with pytest.raises(ValueError, match="found none below"):
        recordings(tmp_path)


def test_a_saved_data_set_gives_the_clips_of_the_files_that_it_was_made_of(folder, tmp_path):
    import datasets

    paths = sorted(p for p in folder.rglob("*.*") if p.suffix != ".txt")
    rows = [{"bytes": path.read_bytes(), "path": path.name} for path in paths]
    table = datasets.Dataset.from_dict({"audio": rows}).cast_column("audio", datasets.Audio(decode=False))
    table.save_to_disk(tmp_path / "saved")
    saved = recordings(tmp_path / "saved").draw(torch.arange(8))
    assert torch.equal(saved, recordings(folder).draw(torch.arange(8)))


@pytest.fixture
def streamed(folder, tmp_path):
    """A data set of the same recordings as a folder of Parquet, as the Hub has it, and the names of their files."""
    paths = sorted(path for path in folder.rglob("*.*") if path.suffix != ".txt")
    rows = [{"bytes": path.read_bytes(), "path": path.name} for path in paths]
    (tmp_path / "hub").mkdir()
    datasets.Dataset.from_dict({"audio": rows}).to_parquet(tmp_path / "hub" / "train-00000-of-00001.parquet")
    return tmp_path / "hub", paths


def test_a_data_set_is_streamed_in_its_own_order_pass_after_pass(streamed):
    hub, paths = streamed
    source = recordings(hub, split="train")
    clips = source.draw(torch.arange(2 * NUM_FILES))
    for index, clip in enumerate(clips):
        whole = read_audio(paths[index % NUM_FILES], 16000)
        assert clip.shape == (NUM_SAMPLES,)
        if len(whole) > NUM_SAMPLES:
            assert any(torch.equal(clip, part) for part in whole.unfold(0, NUM_SAMPLES, 1))
    assert torch.equal(source.draw(torch.arange(3, 5)), clips[3:5])  # from before: the stream begins anew
    assert torch.equal(recordings(hub, split="train").draw(torch.tensor([7])), clips[7:8])
    assert source.description()["num_recordings"] is None


def test_a_row_from_long_ago_begins_the_stream_anew(streamed, monkeypatch):
    monkeypatch.setattr(recordings_module, "_ROWS_KEPT", 2)
    source = recordings(streamed[0], split="train")
    first = source.draw(torch.tensor([0]))
    source.draw(torch.tensor([9]))
    assert torch.equal(source.draw(torch.tensor([0])), first)


def test_a_stopped_run_over_a_stream_goes_on_with_the_same_clips(streamed, tmp_path, toy_recipe):
    values = {"recordings": {"folder": str(streamed[0]), "split": "train", "duration": DURATION}, "preset": ""}
    whole = pretrain(toy_recipe(**values, synthesis={}), tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    (tmp_path / "cut" / "run.json").unlink()
    shutil.rmtree(tmp_path / "cut" / "checkpoints" / "step_00000006")
    assert pretrain(toy_recipe(**values, synthesis={}), tmp_path / "cut")["loss"] == whole["loss"]
    export_run(tmp_path / "whole", tmp_path / "hub_folder")
    assert "streamed recordings of `hub`" in (tmp_path / "hub_folder" / "README.md").read_text()


@pytest.fixture(params=["files", "zip"])
def not_parquet(request, folder, tmp_path):
    """The same recordings in the other forms that the Hub holds, and the paths in their order."""
    hub, paths = tmp_path / "hub", sorted(path for path in folder.rglob("*.*") if path.suffix not in (".txt", ".ogg"))
    (hub / "train").mkdir(parents=True)
    names = [f"{n}{path.suffix}" for n, path in enumerate(paths)]
    for name, path in zip(names, paths, strict=True):
        if request.param == "zip":
            with zipfile.ZipFile(hub / "train.zip", "a") as archive:
                archive.write(path, name)
        else:
            shutil.copy(path, hub / "train" / name)
    if request.param == "zip":
        (hub / "train").rmdir()
    return hub, paths


def test_data_sets_of_files_and_archives_are_streamed_without_torchcodec(not_parquet, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    hub, paths = not_parquet
    source = recordings(hub, split="train")
    for index, clip in enumerate(source.draw(torch.arange(len(paths)))):
        whole = read_audio(paths[index])
        parts = whole.unfold(0, NUM_SAMPLES, 1) if len(whole) > NUM_SAMPLES else match_length(whole, NUM_SAMPLES)[None]
        assert any(torch.equal(clip, part) for part in parts)


def test_a_row_without_audio_is_an_unreadable_recording(folder, tmp_path, caplog):
    paths = sorted(folder.rglob("*.wav"))
    rows = [{"bytes": path.read_bytes(), "path": path.name} for path in paths]
    rows[1] = None
    features = datasets.Features({"audio": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}})
    table = datasets.Dataset.from_dict({"audio": rows}, features=features)
    table.save_to_disk(tmp_path / "saved")
    (tmp_path / "hub").mkdir()
    table.to_parquet(tmp_path / "hub" / "train.parquet")
    for source in (recordings(tmp_path / "saved"), recordings(tmp_path / "hub", split="train")):
        caplog.clear()
        assert source.draw(torch.arange(len(rows))).shape == (len(rows), NUM_SAMPLES)
        assert list(source.unreadable) == [1]
        assert "Skipped row 1 (no audio): row 1 (no audio) cannot be used: it is missing" in caplog.text
    with pytest.raises(AudioFileError, match="1 of 3 recordings cannot be read"):
        recordings(tmp_path / "saved", max_unreadable=0).draw(torch.arange(3))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_file_whose_name_is_not_utf_8_is_read_and_one_that_cannot_be_read_is_named(folder, tmp_path, caplog):
    for name in (b"caf\xe9.wav", b"broken\xe9.wav"):
        shutil.copy(folder / "a/0.wav", os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/broken\xe9.wav")).write_bytes(b"RIFF")
    source = recordings(tmp_path)
    assert source.draw(torch.arange(4)).shape == (4, NUM_SAMPLES)
    assert r"broken\udce9.wav cannot be used" in caplog.text.encode().decode()


def test_clips_come_by_their_indices_too(folder):
    source = recordings(folder)
    assert torch.equal(source.waveforms(torch.arange(3)), source.draw(torch.arange(3)))


def test_an_address_without_a_split_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match="give its name, ORG/NAME, and a split"):
        recordings("hf://datasets/someone/sounds")


def test_a_data_set_of_several_splits_asks_for_one(folder, tmp_path):
    rows = datasets.Dataset.from_dict({"audio": ["a"]})
    datasets.DatasetDict({"train": rows}).save_to_disk(tmp_path / "saved")
    with pytest.raises(ValueError, match="holds several splits; name one of them"):
        recordings(tmp_path / "saved")


def test_a_stream_without_a_column_of_audio_is_refused(tmp_path):
    datasets.Dataset.from_dict({"sound": ["a"]}).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(ValueError, match=r"needs a column `audio`, and has \['sound'\]"):
        recordings(tmp_path, split="train")


def test_the_real_data_reference_measures_its_own_statistics_and_says_so(folder, tmp_path, toy_recipe):
    recipe = toy_recipe(preset="", synthesis={}, recordings={"folder": str(folder), "duration": DURATION})
    assert pretrain(recipe, tmp_path / "run")["finished"]
    statistics = json.loads((tmp_path / "run/statistics.json").read_text())
    clips = Recordings(RecordingsRecipe(folder=str(folder), duration=DURATION), recipe.seed)
    log_mel = log_mel_spectrogram(clips.draw(torch.arange(16)))
    assert statistics["mean"] == pytest.approx(float(log_mel.mean()), abs=1e-3)
    assert statistics["std"] == pytest.approx(float(log_mel.std()), abs=1e-3)
    assert (statistics["num_recordings"], statistics["recordings"]) == (NUM_FILES, folder.name)

    export_run(tmp_path / "run", tmp_path / "exported")
    card = ModelCard.load(tmp_path / "exported/README.md")
    assert not {"no-real-data", "synthetic-data"} & set(card.data.tags)
    assert f"| real audio | {NUM_FILES} recordings of `{folder.name}`" in card.text
    assert "measured on the first 16 clips" in card.text
    assert "without a single recording" not in card.text
    assert "world is synthetic" not in card.text
    assert str(folder.parent) not in card.text


def test_adaptation_goes_on_from_a_model_and_keeps_its_standardisation(folder, tmp_path, toy_recipe, toy_run):
    export_run(toy_run, tmp_path / "toy")
    changes = {"preset": "", "synthesis": {}, "init_from": str(tmp_path / "toy"), "learning_rate": 1e-9}
    recipe = toy_recipe(**changes, recordings={"folder": str(folder), "duration": DURATION})
    pretrain(recipe, tmp_path / "run")
    before = json.loads((toy_run / "statistics.json").read_text())
    after = json.loads((tmp_path / "run/statistics.json").read_text())
    assert (after["mean"], after["std"], after["kept_from"]) == (before["mean"], before["std"], "toy")

    export_run(tmp_path / "run", tmp_path / "adapted")
    models = [AudioPGForPreTraining.from_pretrained(tmp_path / name) for name in ("toy", "adapted")]
    for ours, theirs in zip(*(model.state_dict().values() for model in models), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
    card = ModelCard.load(tmp_path / "adapted/README.md")
    assert "no-real-data" not in card.data.tags
    assert "| starts from | `toy` |" in card.text
    assert "those of the weights that it starts from" in card.text


def test_weights_of_another_shape_are_refused(tmp_path, toy_recipe, toy_run):
    export_run(toy_run, tmp_path / "toy")
    with pytest.raises(ValueError, match=r"init_from is a model of the recipe's shape .*hidden_size 48"):
        pretrain(toy_recipe(init_from=str(tmp_path / "toy"), model={}), tmp_path / "run")
    model = {**given(toy_recipe().model), "patch_frames": 8}
    with pytest.raises(ValueError, match=r"got patch_shape \(16, 16\); change"):
        pretrain(toy_recipe(init_from=str(tmp_path / "toy"), model=model), tmp_path / "run")


def test_a_folder_that_changed_since_the_run_began_is_refused(damaged, tmp_path, toy_recipe):
    recipe = toy_recipe(preset="", synthesis={}, recordings={"folder": str(damaged), "duration": DURATION})
    pretrain(recipe, tmp_path / "run")
    (damaged / "a/3.wav").unlink()
    with pytest.raises(ValueError, match="has changed since the run began: it had 6 recordings and has 5"):
        pretrain(recipe, tmp_path / "run")


def test_a_stopped_run_over_recordings_goes_on_with_the_same_clips(folder, tmp_path, toy_recipe):
    recipe = toy_recipe(preset="", synthesis={}, recordings={"folder": str(folder), "duration": DURATION})
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    pretrain(recipe, whole)
    pretrain(recipe, cut)
    for path in sorted((cut / "checkpoints").iterdir())[1:]:
        (path / "manifest.json").unlink()
    pretrain(recipe, cut)
    assert [row["loss"] for row in read_metrics(cut)] == [row["loss"] for row in read_metrics(whole)]


def test_the_command_line_takes_the_folder(folder, tmp_path, toy_run, capsys):
    words = ["--preset", '""', "--synthesis", "{}", f"--recordings={{folder: {folder}, duration: {DURATION}}}"]
    main([str(toy_run / "recipe.yaml"), "--output_dir", str(tmp_path), *words, "--profile"])
    assert "reading" in capsys.readouterr().out
