"""X-ARES's own checker and runner, of the package `xares`, on tar files that the test makes."""

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from audiopg import (
    AudioPGConfig,
    AudioPGFeatureExtractor,
    AudioPGForPreTraining,
    DoppelgangerConfig,
    DoppelgangerFeatureExtractor,
    DoppelgangerModel,
)
from audiopg.training.benchmark_kits import main
from audiopg.training.evaluation.adapters.xares import CHECKPOINT, ENCODER, AudioPGEncoder, evaluate

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true:UserWarning"),
    pytest.mark.filterwarnings("ignore:.torch.jit.* is deprecated:DeprecationWarning"),  # which ignite calls
    pytest.mark.filterwarnings("ignore:unclosed file .*wds-:ResourceWarning"),  # webdataset closes none that it reads
]
SIZES = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "decoder_num_hidden_layers": 1}
TASK = """
from xares.task import TaskConfig

def {name}_config(encoder):
    return TaskConfig(
        encoder=encoder, name="{name}", formal_name="{name}", private=True, k_fold_splits=[1, 2], eval_weight=8,
        label_processor=lambda x: int(x["label"]), output_dim=2, epochs=8, learning_rate=0.05, batch_size_train=8,
    )
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    AudioPGForPreTraining(AudioPGConfig(**SIZES, embedding_pooling="mel")).save_pretrained(path)
    AudioPGFeatureExtractor().save_pretrained(path)
    return path


@pytest.fixture(autouse=True)
def unclosed_files_are_collected_here():
    yield
    gc.collect()


@pytest.fixture
def folder(tmp_path):
    """Where X-ARES is run: a task of two folds, low tones against high ones, as its own writer packs them."""
    xares = pytest.importorskip("xares.audiowebdataset")
    name = f"tones_{tmp_path.parent.name.replace('-', '_')}_{tmp_path.name.replace('-', '_')}"  # modules stay imported
    (tmp_path / f"{name}_task.py").write_text(TASK.format(name=name))
    home = tmp_path / "env" / name
    home.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for fold in (1, 2):
        paths, labels = [], []
        for clip in range(12):
            high = clip % 2
            tone = np.sin(2 * np.pi * rng.uniform(*((200, 400), (2000, 4000))[high]) * np.arange(8000) / 16000)
            path = tmp_path / f"{fold}_{clip}.wav"
            soundfile.write(path, 0.3 * tone + 0.01 * rng.standard_normal(8000), 16000)
            paths.append(str(path))
            labels.append(str(high))
        xares.write_audio_tar(paths, labels, str(home / f"wds-audio-fold-{fold}-*.tar"), num_shards=1)
    (home / ".audio_tar_ready").touch()
    return tmp_path


def task_of(folder):
    return next(folder.glob("*_task.py")).name


def test_x_ares_accepts_the_encoder_which_gives_the_frames_of_embed_frames(checkpoint):
    checker = pytest.importorskip("xares.audio_encoder_checker")
    encoder = AudioPGEncoder(str(checkpoint))
    assert checker.check_audio_encoder(encoder)
    audio = torch.rand(2, 20 * 16000, generator=torch.Generator().manual_seed(0)) * 2 - 1
    frames = encoder(audio)
    assert frames.shape == (2, 125, encoder.output_dim) == (2, 125, 8 * 24)
    assert encoder.hop_size_in_ms == 160
    for clip, found in zip(audio, frames, strict=True):
        [alone] = encoder.model.encoder.embed_frames(clip, encoder.model.feature_extractor)
        torch.testing.assert_close(found, alone.embeddings)
    broken = AudioPGEncoder(str(checkpoint))
    broken.output_dim += 1
    assert not checker.check_audio_encoder(broken)


def test_its_runner_reads_tones_apart_by_mlp_and_by_neighbours(checkpoint, folder):
    output = folder / "results.json"
    main(["xares", str(checkpoint), "--data_dir", str(folder), "--tasks", task_of(folder), "--output", str(output)])
    [scores] = json.loads(output.read_text())["results"].values()
    assert scores["mlp"] >= 0.9
    assert scores["knn"] >= 0.9


def test_another_checkpoint_does_not_get_the_scores_that_x_ares_kept(checkpoint, folder, tmp_path):
    evaluate(str(checkpoint), folder, [task_of(folder)])
    for kept in folder.glob("env/*/checkpoints/*/*_score.txt"):
        kept.write_text("0.123\n8")
    assert evaluate(str(checkpoint), folder, [task_of(folder)])[task_of(folder)] == {"mlp": 0.123, "knn": 0.123}
    torch.manual_seed(1)
    AudioPGForPreTraining(AudioPGConfig(**SIZES, embedding_pooling="mel")).save_pretrained(tmp_path / "other")
    AudioPGFeatureExtractor().save_pretrained(tmp_path / "other")
    assert evaluate(str(tmp_path / "other"), folder, [task_of(folder)])[task_of(folder)]["knn"] >= 0.9


def test_the_name_that_x_ares_keeps_scores_by_tells_what_is_read_and_heard_apart_too(checkpoint, tmp_path):
    model, names = AudioPGForPreTraining.from_pretrained(checkpoint), {type(AudioPGEncoder(str(checkpoint))).__name__}
    for number, (pooling, mean) in enumerate([("mean", 0.0), ("mean", -5.0)]):
        model.config.embedding_pooling = pooling
        model.save_pretrained(tmp_path / str(number))
        AudioPGFeatureExtractor(mean=mean).save_pretrained(tmp_path / str(number))
        names.add(type(AudioPGEncoder(str(tmp_path / str(number)))).__name__)
    assert len(names) == 3


def test_x_ares_takes_a_resnet_whose_batch_normalisation_counts(tmp_path):
    DoppelgangerModel(DoppelgangerConfig(hidden_size=16)).save_pretrained(tmp_path)
    DoppelgangerFeatureExtractor().save_pretrained(tmp_path)
    assert AudioPGEncoder(str(tmp_path)).output_dim == 16


def test_with_folds_x_ares_reports_the_epoch_that_is_best_on_the_test_fold(checkpoint, folder, monkeypatch):
    """As the docs say of its MLP: what it validates on while training is what it then tests on."""
    task = pytest.importorskip("xares.task")
    seen = []
    for name in ("train_mlp", "evaluate_mlp"):
        original = getattr(task.XaresTask, name)

        def spying(self, *urls, original=original, name=name, **options):
            seen.append((name, urls[-1]))
            return original(self, *urls, **options)

        monkeypatch.setattr(task.XaresTask, name, spying)
    evaluate(str(checkpoint), folder, [task_of(folder)])
    validated = [urls for name, urls in seen if name == "train_mlp"]
    tested = [urls for name, urls in seen if name == "evaluate_mlp"]
    assert len(validated) == 2
    assert validated == tested


def test_data_that_are_missing_or_damaged_are_refused(checkpoint, folder):
    with pytest.raises(FileNotFoundError, match=r"the data of esc50 are missing.*--to-stage 0"):
        evaluate(str(checkpoint), folder, ["esc50"])
    with pytest.raises(ValueError, match="X-ARES has no task 'nothing'; it has asvspoof"):
        evaluate(str(checkpoint), folder, ["nothing"])
    with pytest.raises(FileNotFoundError, match="no task's data are in"):
        evaluate(str(checkpoint), folder)
    write = pytest.importorskip("xares.audiowebdataset").write_audio_tar
    (folder / "damaged.wav").write_bytes(b"RIFF" + bytes(400))
    [home] = folder.glob("env/tones*")
    write([str(folder / "damaged.wav")], ["1"], str(home / "wds-audio-fold-1-*.tar"), num_shards=1, force=True)
    with pytest.raises(ValueError, match=r"would go on without clips of tones.* libsndfile cannot decode it"):
        evaluate(str(checkpoint), folder, [task_of(folder)])


def test_the_kit_s_own_command_takes_the_file(checkpoint, folder):
    """`python -m xares.run`, up to its check of the encoder: its decoder needs FFmpeg from there on."""
    command = [sys.executable, "-m", "xares.run", ENCODER, task_of(folder), "--max-jobs", "0", "--from-stage", "1"]
    environment = {**os.environ, CHECKPOINT: str(checkpoint), "HF_HUB_OFFLINE": "1"}
    evaluate(str(checkpoint), folder, [task_of(folder)])  # decodes; the command then finds what was encoded
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "Weighted Average MLP Score for All Datasets" in done.stdout
    scores = {path.name: float(path.read_text().split()[0]) for path in Path(folder).glob("env/*/checkpoints/*/*.txt")}
    assert str(scores["knn_score.txt"]) in done.stdout, json.dumps(scores)
