"""MTEB's own evaluation, of the package `mteb`, on recordings that the test makes."""

import json
import shutil

import numpy as np
import pytest
import soundfile
import torch
from sentence_transformers import SentenceTransformer

from audiopg import AudioPGConfig, AudioPGFeatureExtractor, AudioPGForPreTraining
from audiopg.data_scripts.labelled_audio import labelled_dataset
from audiopg.training.benchmark_kits import main
from audiopg.training.evaluation.adapters.mteb import evaluate, load_model, recordings_task
from audiopg.training.publishing.hub import write_hub_folder

pytestmark = [
    pytest.mark.integration,
    # What mteb calls of sentence-transformers, how it fits, and what it calls of itself.
    pytest.mark.filterwarnings("ignore:The .get_sentence_embedding_dimension. method:FutureWarning"),
    pytest.mark.filterwarnings("ignore:lbfgs failed to converge"),
    pytest.mark.filterwarnings("ignore:The fill_missing parameter is deprecated:DeprecationWarning"),
]
SIZES = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "decoder_num_hidden_layers": 1}


@pytest.fixture(autouse=True)
def mteb():
    return pytest.importorskip("mteb")


def written(folder, seed, saw_real_data):
    torch.manual_seed(seed)
    extractor = AudioPGFeatureExtractor()
    extractor.statistics = {**extractor.statistics, "saw_real_data": saw_real_data}
    config = AudioPGConfig(**SIZES, embedding_pooling="mel_std")
    write_hub_folder(AudioPGForPreTraining(config), extractor, folder)
    return str(folder)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return written(tmp_path_factory.mktemp("models") / "toy", 0, False)


@pytest.fixture(scope="module")
def tones(tmp_path_factory):
    """Three registers of tones of several lengths, at another rate than the model's; two folds."""
    folder, rng = tmp_path_factory.mktemp("tones"), np.random.default_rng(0)
    files, labels = [], []
    for clip in range(36):
        label, samples = clip % 3, int(rng.integers(3000, 9000))
        f0 = rng.uniform(*((100, 200), (800, 1600), (3000, 3800))[label])
        tone = 0.3 * np.sin(2 * np.pi * f0 * np.arange(samples) / 8000) + 0.01 * rng.standard_normal(samples)
        soundfile.write(folder / f"{clip}.wav", tone, 8000)
        files.append(str(folder / f"{clip}.wav"))
        labels.append(label)
    parts = [1 + (clip >= 18) for clip in range(36)]
    return labelled_dataset(
        "three tones", ["low", "mid", "high"], audio=files, labels=labels, parts=parts, sources=files
    )


def test_a_task_of_mteb_on_local_recordings_is_solved(checkpoint, tones):
    scores = evaluate(load_model(checkpoint), [recordings_task(tones)])
    assert list(scores) == ["ThreeTonesClassification"]
    assert scores["ThreeTonesClassification"] > 0.9  # 0.33 by chance


def test_the_door_runs_it_on_a_folder_of_recordings(checkpoint, tones, tmp_path):
    for row in tones:
        home = tmp_path / "tones" / tones.features["label"].int2str(row["label"])
        home.mkdir(parents=True, exist_ok=True)
        shutil.copy(row["audio"], home)
    main(["mteb", checkpoint, "--data_dir", str(tmp_path / "tones"), "--output", str(tmp_path / "results.json")])
    report = json.loads((tmp_path / "results.json").read_text())
    assert report["results"] == {"TonesClassification": pytest.approx(1.0, abs=0.1)}


def test_tasks_that_it_has_not_or_whose_data_are_not_here_are_named(checkpoint, capsys):
    for task, message in (
        ("ESC51", "Did you mean: 'ESC50'"),
        ("Banking77Classification", "are of other things"),
        ("ESC50", "hf download --repo-type dataset mteb/esc50"),
    ):
        with pytest.raises(SystemExit):
            main(["mteb", checkpoint, "--tasks", task])
        assert message in capsys.readouterr().err


def test_scores_come_from_the_sounds_and_not_from_anything_else(checkpoint, tones):
    """With the labels dealt anew, the same task falls to chance."""
    shuffled = np.random.default_rng(1).permutation(tones["label"][:]).tolist()
    task = recordings_task(tones.remove_columns("label").add_column("label", shuffled))
    [score] = evaluate(load_model(checkpoint), [task]).values()
    assert score < 0.65


def test_without_the_adapter_mteb_takes_the_same_folder_for_a_model_of_text(checkpoint, tones, mteb):
    with pytest.raises(ValueError, match=r"supports \['text'\], but none overlap"):
        mteb.evaluate(SentenceTransformer(checkpoint, device="cpu"), recordings_task(tones), cache=None)


def test_mteb_hears_what_embed_gives(checkpoint, tones):
    from mteb._create_dataloaders import create_dataloader

    model, task = load_model(checkpoint), recordings_task(tones)
    task.load_data()
    loader = create_dataloader(task.dataset["test"], task_metadata=task.metadata, input_column="audio", batch_size=5)
    found = model.encode(loader, task_metadata=task.metadata, hf_split="test", hf_subset="default")
    encoder = AudioPGForPreTraining.from_pretrained(checkpoint).eval().audiopg
    clips = [row["audio"]["array"] for row in task.dataset["test"]]
    expected = encoder.embed(clips, AudioPGFeatureExtractor.from_pretrained(checkpoint))
    np.testing.assert_allclose(np.asarray(found), expected.numpy(), atol=1e-5)


def test_the_metadata_say_that_nothing_was_trained_on_where_that_is_known(checkpoint, tmp_path, mteb):
    meta = load_model(checkpoint).mteb_model_meta
    assert meta.training_datasets == set()
    assert meta.is_zero_shot_on(mteb.get_tasks(tasks=["ESC50"]))
    assert (meta.name, meta.modalities) == ("audiopg/toy", ["audio"])
    assert meta.embed_dim == 2 * 8 * 24
    assert type(meta).model_validate(meta.model_dump()).training_datasets == set()  # its own checks
    other = load_model(written(tmp_path / "toy", 1, True)).mteb_model_meta
    assert other.training_datasets is None
    assert other.revision != meta.revision


def test_what_mteb_cannot_read_is_refused(tmp_path, tones):
    AudioPGForPreTraining(AudioPGConfig(**SIZES)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"holds no modules.json.*training/export.py"):
        load_model(str(tmp_path))
    with pytest.raises(ValueError, match="has clips in \\['1'\\] alone"):
        recordings_task(tones.select(range(18)))
