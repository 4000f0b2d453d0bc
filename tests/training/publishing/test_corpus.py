"""A corpus embedded at once gives what `model.embed` gives, whatever happens on the way."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from toys import SMALL
from transformers import ASTConfig, ASTFeatureExtractor, ASTModel

from audiopg import AudioPGConfig, AudioPGFeatureExtractor, AudioPGModel
from audiopg.modeling.audio_audiopg import read_audio
from audiopg.training.embed import main
from audiopg.training.publishing.corpus import Job, embed_corpus, model_digest
from audiopg.training.publishing.hub import write_hub_folder

LENGTHS = {  # samples and rate of each recording
    "a/1.wav": (16000, 16000),
    "a/2.flac": (400_000, 16000),
    "b/3.wav": (22_050, 44_100),
    "b/deeper/4.ogg": (8_000, 16000),
    "c.wav": (400, 16000),
    "d.wav": (200_000, 22_050),
    "e.wav": (48_000, 16000),
}
SHARDS = ["--recordings_per_shard", "3"]


def build_model(seed=0):
    torch.manual_seed(seed)
    config = AudioPGConfig(**SMALL | {"num_hidden_layers": 2}, embedding_pooling="mel_std", embedding_layer=1)
    return AudioPGModel(config).eval()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A folder of a model that reads a layer's rows and their deviations; tests only read it."""
    folder = tmp_path_factory.mktemp("checkpoints") / "toy"
    write_hub_folder(build_model(), AudioPGFeatureExtractor(), folder)
    return folder


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """A folder of recordings of all lengths, at several rates, of which two cannot be read; tests only read it."""
    folder = tmp_path_factory.mktemp("recordings") / "sounds"
    rng = np.random.default_rng(0)
    for name, (samples, rate) in LENGTHS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, rng.uniform(-0.5, 0.5, samples), rate)
    (folder / "b/broken.flac").write_bytes((folder / "a/2.flac").read_bytes()[:5000])
    soundfile.write(folder / "blink.wav", rng.uniform(-0.5, 0.5, 200), 16000)
    return folder


@pytest.fixture(scope="module")
def embedded(checkpoint, sounds, tmp_path_factory):
    """Embeddings of all clips, never interrupted; tests only read them."""
    folder = tmp_path_factory.mktemp("embeddings") / "clips"
    main([str(checkpoint), str(sounds), str(folder), *SHARDS])
    return folder


def shards_of(folder):
    return sorted((folder / "data").iterdir())


def content_of(folder):
    return {path.name: path.read_bytes() for path in shards_of(folder)}


def rows_of(folder):
    return [row for path in shards_of(folder) for row in pq.read_table(path).to_pylist()]


def vectors_of(rows):
    return torch.tensor([row["embedding"] for row in rows])


def test_a_row_of_a_clip_is_what_embed_gives_of_its_file_alone(embedded, sounds):
    rows, model, extractor = rows_of(embedded), build_model(), AudioPGFeatureExtractor()
    assert [row["path"] for row in rows] == sorted(LENGTHS, key=lambda name: Path(name).parts)
    alone = torch.cat([model.embed(sounds / row["path"], extractor) for row in rows])
    assert vectors_of(rows).shape == (7, 2 * 8 * 24)
    torch.testing.assert_close(vectors_of(rows), alone, atol=1e-6, rtol=0)
    assert {row["start"] for row in rows} == {0.0}
    for row in rows:
        samples, rate = LENGTHS[row["path"]]
        assert row["end"] == pytest.approx(samples / rate, abs=1e-4)
    assert {row["model"] for row in rows} == {model_digest(model, extractor)}


def test_a_row_of_a_window_is_what_embed_gives_of_that_part_of_the_recording(checkpoint, sounds, tmp_path):
    options = ["--unit", "windows", "--window_seconds", "3.2", "--overlap_seconds", "0"]
    main([str(checkpoint), str(sounds), str(tmp_path), *SHARDS, *options])
    rows, model, extractor = rows_of(tmp_path), build_model(), AudioPGFeatureExtractor()
    long = [row for row in rows if row["path"] == "a/2.flac"]
    # The last window ends where the recording ends; a window's last frame reaches 15 ms further than its patches.
    np.testing.assert_allclose([row["start"] for row in long], [0, 3.2, 6.4, 9.6, 12.8, 16.0, 19.2, 21.92])
    np.testing.assert_allclose([row["end"] - row["start"] for row in long][:-1], 3.215)
    assert long[-1]["end"] == 25.0
    for row in rows:
        waveform = read_audio(sounds / row["path"])
        part = waveform[round(row["start"] * 16000) : round(row["end"] * 16000)]
        torch.testing.assert_close(vectors_of([row]), model.embed(part, extractor), atol=1e-6, rtol=0)


def test_a_row_of_a_moment_is_what_embed_frames_gives(checkpoint, sounds, tmp_path):
    main([str(checkpoint), str(sounds), str(tmp_path), *SHARDS, "--unit", "frames"])
    rows, model, extractor = rows_of(tmp_path), build_model(), AudioPGFeatureExtractor()
    for name in LENGTHS:
        mine = [row for row in rows if row["path"] == name]
        [frames] = model.embed_frames(sounds / name, extractor)
        torch.testing.assert_close(vectors_of(mine), frames.embeddings, atol=1e-6, rtol=0)
        centres = [(row["start"] + row["end"]) / 2 for row in mine]
        np.testing.assert_allclose(centres, frames.times.numpy(), atol=1e-5)


def test_what_cannot_be_read_is_named_counted_and_nowhere_among_the_rows(
    checkpoint, sounds, embedded, tmp_path, capsys
):
    main([str(checkpoint), str(sounds), str(tmp_path), *SHARDS])
    said = capsys.readouterr()
    assert "b/broken.flac cannot be used: " in said.err
    assert "blink.wav cannot be used: it is shorter than 25 ms" in said.err
    assert "2 of 9 recordings left out" in said.err
    assert "7 rows of 7 recordings" in said.out
    listed = json.loads((tmp_path / "unreadable.json").read_text())
    assert [one["path"] for one in listed] == ["b/broken.flac", "blink.wav"]
    assert str(sounds.parent) not in (tmp_path / "unreadable.json").read_text()
    assert not {"b/broken.flac", "blink.wav"} & {row["path"] for row in rows_of(tmp_path)}
    assert content_of(tmp_path) == content_of(embedded)


KILLED = """
import os, signal, sys
from audiopg.training.embed import main
replace, calls = os.replace, []

def killed(*paths):
    calls.append(paths)
    if len(calls) == 4:  # plan, recipe, first shard; the second one is on the disk, and has not got its name yet
        os.kill(os.getpid(), signal.SIGKILL)
    replace(*paths)

os.replace = killed
main(sys.argv[1:])
"""


def test_a_killed_command_goes_on_to_the_same_bytes(checkpoint, sounds, embedded, tmp_path):
    words = [str(checkpoint), str(sounds), str(tmp_path), *SHARDS]
    killed = subprocess.run([sys.executable, "-c", KILLED, *words], capture_output=True, timeout=200)
    assert killed.returncode == -signal.SIGKILL
    [finished, partial] = sorted((tmp_path / "data").iterdir())
    assert finished.read_bytes() == (embedded / "data" / finished.name).read_bytes()
    assert partial.name.endswith(".partial")
    main(words)
    assert content_of(tmp_path) == content_of(embedded)


@pytest.mark.parametrize("last", ["plan.parquet", "recipe.json", "data", "a shard"])
def test_it_goes_on_from_wherever_it_was_killed(checkpoint, sounds, embedded, tmp_path, last):
    """All that a kill can leave: what is written comes in this order, each whole or not there."""
    for name in ("plan.parquet", "recipe.json"):
        shutil.copy(embedded / name, tmp_path)
        if name == last:
            break
    else:
        (tmp_path / "data").mkdir()
        if last == "a shard":
            shutil.copy(shards_of(embedded)[1], tmp_path / "data")
    main([str(checkpoint), str(sounds), str(tmp_path), *SHARDS])
    assert content_of(tmp_path) == content_of(embedded)


def test_shards_that_are_whole_stay_and_a_damaged_one_is_written_again(checkpoint, sounds, embedded, tmp_path):
    folder = shutil.copytree(embedded, tmp_path / "out")
    kept, damaged, _ = shards_of(folder)
    damaged.write_bytes(damaged.read_bytes()[:-100])
    before = kept.stat().st_mtime_ns
    main([str(checkpoint), str(sounds), str(folder), *SHARDS])
    assert kept.stat().st_mtime_ns == before
    assert content_of(folder) == content_of(embedded)
    assert (folder / "unreadable.json").read_text() == (embedded / "unreadable.json").read_text()


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (["--unit", "frames"], "unit: 'clip' there, 'frames' here"),
        (["--recordings_per_shard", "4"], "recordings_per_shard: 3 there, 4 here"),
    ],
)
def test_other_settings_are_refused(checkpoint, sounds, embedded, capsys, changed, told):
    with pytest.raises(SystemExit) as stop:
        main([str(checkpoint), str(sounds), str(embedded), *SHARDS, *changed])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert "holds embeddings of another recipe" in said
    assert told in said


def test_another_model_of_the_same_name_is_refused(sounds, embedded, tmp_path, capsys):
    write_hub_folder(build_model(seed=1), AudioPGFeatureExtractor(), tmp_path / "toy")
    with pytest.raises(SystemExit):
        main([str(tmp_path / "toy"), str(sounds), str(embedded), *SHARDS])
    assert "model: '" in capsys.readouterr().err


def test_a_folder_of_something_else_is_refused_and_left_as_it_was(checkpoint, sounds, tmp_path, capsys):
    (tmp_path / "thesis.tex").touch()
    (tmp_path / "mine.partial").touch()
    with pytest.raises(SystemExit):
        main([str(checkpoint), str(sounds), str(tmp_path)])
    assert "holds thesis.tex, which is not of embeddings" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"thesis.tex", "mine.partial", ".lock"}


def test_what_comes_to_the_corpus_later_is_told_of_and_what_is_gone_is_refused(
    checkpoint, sounds, embedded, tmp_path, caplog, capsys
):
    source = shutil.copytree(sounds, tmp_path / "sounds")
    folder = shutil.copytree(embedded, tmp_path / "out")
    shards_of(folder)[2].unlink()
    shutil.copy(source / "e.wav", source / "a/0.wav")
    main([str(checkpoint), str(source), str(folder), *SHARDS])
    assert "1 recordings came to" in caplog.text
    assert content_of(folder) == content_of(embedded)
    caplog.clear()
    main([str(checkpoint), str(source), str(folder), *SHARDS])
    assert "1 recordings came to" in caplog.text, "with all shards there it is told of too"
    shards_of(folder)[2].unlink()
    (source / "e.wav").unlink()
    with pytest.raises(SystemExit):
        main([str(checkpoint), str(source), str(folder), *SHARDS])
    assert "1 recordings of the plan" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["saved", "parquet"])
def test_a_data_set_gives_the_rows_of_its_files_by_their_numbers(
    checkpoint, sounds, embedded, tmp_path, kind, monkeypatch
):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    paths = [path for path in sorted(sounds.rglob("*")) if path.is_file()]
    audio = [{"bytes": path.read_bytes(), "path": path.name} for path in paths]
    rows = datasets.Dataset.from_dict({"audio": audio}).cast_column("audio", datasets.Audio(decode=False))
    source, split = tmp_path / "rows", []
    if kind == "saved":
        rows.save_to_disk(source)
    else:
        (source / "data").mkdir(parents=True)
        rows.to_parquet(source / "data/train-00000-of-00001.parquet")
        split = ["--split", "train"]
    main([str(checkpoint), str(source), str(tmp_path / "out"), *SHARDS, *split])
    found, expected = rows_of(tmp_path / "out"), rows_of(embedded)
    names = [path.relative_to(sounds).as_posix() for path in paths]
    assert [names[row["id"]] for row in found] == [row["path"] for row in expected]
    assert [row["embedding"] for row in found] == [row["embedding"] for row in expected]
    assert [names[one["id"]] for one in json.loads((tmp_path / "out/unreadable.json").read_text())] == [
        "b/broken.flac",
        "blink.wav",
    ]


def test_the_shards_load_as_a_data_set_and_their_plan_does_not(embedded, tmp_path):
    loaded = datasets.load_dataset(str(embedded), split="train", cache_dir=str(tmp_path))
    assert loaded.column_names == ["path", "start", "end", "embedding", "model"]
    assert loaded.features["embedding"].length == 384
    assert loaded["path"][:] == [row["path"] for row in rows_of(embedded)]


def test_names_that_are_no_utf8_are_read_and_written_with_their_numbers(checkpoint, tmp_path):
    folder = tmp_path / "sounds"
    folder.mkdir()
    soundfile.write(folder / "a.wav", np.full(16000, 0.1), 16000)
    os.rename(os.fsencode(folder / "a.wav"), os.fsencode(folder) + b"/caf\xe9.wav")
    main([str(checkpoint), str(folder), str(tmp_path / "out")])
    assert [row["path"] for row in rows_of(tmp_path / "out")] == ["caf\\udce9.wav"]


def test_a_full_disk_keeps_whole_shards_and_says_what_to_do(
    checkpoint, sounds, embedded, tmp_path, monkeypatch, capsys
):
    def full(descriptor):
        if len(list(tmp_path.glob("data/*.parquet"))) == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    sync = os.fsync
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SystemExit) as stop:
        main([str(checkpoint), str(sounds), str(tmp_path), *SHARDS])
    assert stop.value.code == 1
    assert "No space left on device" in capsys.readouterr().err
    monkeypatch.setattr(os, "fsync", sync)
    assert len(shards_of(tmp_path)) == 1
    main([str(checkpoint), str(sounds), str(tmp_path), *SHARDS])
    assert content_of(tmp_path) == content_of(embedded)


def test_a_corpus_of_nothing_that_can_be_read_is_an_error(checkpoint, tmp_path, capsys):
    (tmp_path / "sounds").mkdir()
    (tmp_path / "sounds/a.wav").touch()
    with pytest.raises(SystemExit) as stop:
        main([str(checkpoint), str(tmp_path / "sounds"), str(tmp_path / "out")])
    assert stop.value.code == 2
    assert "None of 1 recordings could be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"source": "org/name"}, "also name the split"),
        ({"unit": "seconds"}, "unit is one of clip, windows, frames"),
        ({"batch_size": 0}, "batch_size is 1 or more, got 0"),
        ({"window_seconds": 3.2}, "window_seconds is of the unit windows, and the unit is clip"),
        ({"unit": "windows", "overlap_seconds": 20.0}, "overlaps by less than its length"),
    ],
)
def test_what_no_job_can_have_is_refused_before_anything_is_written(checkpoint, sounds, tmp_path, changes, told):
    job = {"checkpoint": str(checkpoint), "source": str(sounds), "folder": tmp_path / "out"}
    with pytest.raises(ValueError, match=told):
        embed_corpus(Job(**job | changes))
    assert not list(tmp_path.glob("out/*.json")) + list(tmp_path.glob("out/*.parquet"))


def test_a_model_without_embed_is_refused(sounds, tmp_path):
    sizes = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    ASTModel(ASTConfig(**sizes)).save_pretrained(tmp_path / "ast")
    ASTFeatureExtractor().save_pretrained(tmp_path / "ast")
    with pytest.raises(ValueError, match="ast is a ASTModel; a corpus is embedded by our own models"):
        embed_corpus(Job(str(tmp_path / "ast"), str(sounds), tmp_path / "out"))


def test_the_digest_is_of_what_embeddings_follow_from_and_of_nothing_else(checkpoint):
    model, extractor = build_model(), AudioPGFeatureExtractor()
    digest = model_digest(model, extractor)
    assert model_digest(AudioPGModel.from_pretrained(checkpoint), extractor) == digest
    assert model_digest(model, AudioPGFeatureExtractor(statistics={"clips": 3})) == digest
    assert model_digest(model, AudioPGFeatureExtractor(mean=1.0)) != digest
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1
    assert model_digest(model, extractor) != digest
