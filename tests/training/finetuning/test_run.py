import json
import math
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from toys import SMALL
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTForAudioClassification,
    AutoModelForAudioClassification,
    Trainer,
)

from audiopg.modeling.configuration_audiopg import AudioPGConfig
from audiopg.modeling.feature_extraction_audiopg import AudioPGFeatureExtractor
from audiopg.modeling.modeling_audiopg import AudioPGForAudioClassification, AudioPGForPreTraining
from audiopg.training.evaluation.probes import probe_features
from audiopg.training.evaluation.protocols import Round, cut_validation, rounds_of
from audiopg.training.evaluation.results import PRETRAINED, SCRATCH
from audiopg.training.evaluation.scores import score
from audiopg.training.features.batches import Batches
from audiopg.training.features.cache import FeatureCache, front_end_of
from audiopg.training.features.embeddings import embed, log_mel_statistics
from audiopg.training.finetune import main
from audiopg.training.finetuning import fitting
from audiopg.training.finetuning import run as finetune_module
from audiopg.training.finetuning.fitting import augment, fit, predict, training_arguments
from audiopg.training.finetuning.heads import affine_of, check_head
from audiopg.training.finetuning.recipe import FinetuningRecipe
from audiopg.training.finetuning.run import FinetuningRun, Progress
from audiopg.training.runs.folder import held
from audiopg.training.runs.recipes import RECIPES, build_recipe, load_recipe

PLAIN = {
    "name": "toy",
    "description": "A toy for the tests.",
    "epochs": 2,
    "batch_size": 8,
    "learning_rate": 3e-3,
    "layer_decay": 1.0,
    "drop_path_rate": 0.0,
    "clip_seconds": None,
    "time_roll": False,
    "time_mask": 0,
    "frequency_mask": 0,
    "mixup": 0.0,
    "cutmix": 0.0,
    "label_smoothing": 0.0,
}
EXTRACTOR = AudioPGFeatureExtractor(mean=0.0, std=0.5)


def recipe(**changes):
    return build_recipe(FinetuningRecipe, PLAIN | changes)


def cache_of(values, labels, parts, num_classes=2, sources=None):
    """A data set out of frames, shape (clips, frames, 128), without any audio."""
    clips = [f"{index}.wav" for index in range(len(values))]
    return FeatureCache(
        dataset_name="toy sounds",
        class_names=[f"class {index}" for index in range(num_classes)],
        front_end=front_end_of(EXTRACTOR).settings,
        clips=clips,
        parts=list(parts),
        sources=sources or clips,
        frames=torch.as_tensor(values, dtype=torch.float16).reshape(-1, 128),
        lengths=torch.full((len(values),), values.shape[1]),
        labels=torch.as_tensor(labels),
        digest="0" * 16,
    )


def easy_cache(clips_per_fold=8, folds=3, frames=16):
    """Two classes that differ in level: every fold can be learnt from the others."""
    rng = np.random.default_rng(0)
    labels = np.tile([0, 1], clips_per_fold * folds // 2)
    values = rng.standard_normal((len(labels), frames, 128)) * 0.3 + (2 * labels - 1)[:, None, None]
    return cache_of(values, labels, np.repeat(np.arange(1, folds + 1), clips_per_fold).tolist())


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained") / "toy-encoder"
    torch.manual_seed(0)
    AudioPGForPreTraining(AudioPGConfig(**SMALL)).save_pretrained(folder)
    EXTRACTOR.save_pretrained(folder)
    return str(folder)


def silent_run(checkpoint, cache, folder, **changes):
    return FinetuningRun(checkpoint, cache, recipe(**changes), folder, write=lambda line: None)


@pytest.fixture(scope="module")
def finished(checkpoint, tmp_path_factory):
    """A run with all controls through the command line; tests only read it."""
    folder = tmp_path_factory.mktemp("runs")
    easy_cache().save(folder / "features.safetensors")
    (folder / "toy.yaml").write_text(json.dumps(PLAIN))
    arguments = [checkpoint, "--features", folder / "features.safetensors", "--recipe", folder / "toy.yaml"]
    main([str(word) for word in [*arguments, "--device", "cpu", "--output_dir", folder / "run", "--epochs", 4]])
    return folder / "run"


def results_of(folder):
    return json.loads((folder / "results.json").read_text())


@pytest.mark.parametrize("path", sorted((RECIPES / "finetuning").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_can_be_read_and_is_called_as_its_file(path):
    assert load_recipe(FinetuningRecipe, path).name == path.stem


def test_the_paper_s_protocol_is_the_paper_s():
    paper, fast = (
        load_recipe(FinetuningRecipe, RECIPES / "finetuning" / f"{name}.yaml") for name in ("paper", "fast")
    )
    assert (paper.epochs, fast.epochs, paper.batch_size, fast.batch_size) == (300, 50, 32, 32)
    assert (paper.learning_rate, paper.mixup, paper.cutmix, paper.label_smoothing) == (2e-4, 0.8, 1.0, 0.1)
    assert paper.select == fast.select == "last"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("epochs", 0, "1 or more, 0 with head linear"),
        ("head", "mean", "random or linear"),
        ("learning_rate", 0.0, "above 0"),
        ("mixup", -1.0, "0 or more"),
        ("label_smoothing", 2.0, "between 0 and 1"),
        ("select", "test", "nothing is chosen on test clips"),
        ("epoch", 3, "did you mean 'epochs'"),
    ],
)
def test_recipes_that_cannot_be_run_are_refused(field, value, message):
    with pytest.raises(ValueError, match=message):
        recipe(**{field: value})


def test_one_call_trains_every_fold_its_controls_and_a_model_of_all_clips(finished):
    results = results_of(finished)
    assert list(results["results"]) == [
        PRETRAINED,
        SCRATCH,
        "log-mel mean and deviation, linear",
        "random encoder, frozen, linear",
        "pre-trained encoder, frozen, linear",
    ]
    for row in results["results"].values():
        assert len(row["scores"]) == 3
        assert row["mean"] == pytest.approx(np.mean(row["scores"]))
    assert results["results"][PRETRAINED]["mean"] == 1.0
    assert results["dataset"] == "toy sounds"
    assert results["protocol"] == "3 folds, each tested once by a model trained on the others"
    assert {"hardware", "versions", "commit", "checkpoint", "weights", "recipe"} <= set(results)
    assert {path.name for path in finished.iterdir()} >= {"results.json", "confusion.png", "model", "rounds"}
    model = AutoModelForAudioClassification.from_pretrained(finished / "model")
    assert model.config.id2label == {0: "class 0", 1: "class 1"}


def test_no_path_of_this_machine_is_in_the_results(finished, checkpoint):
    assert str(finished.parent) not in (finished / "results.json").read_text()
    assert results_of(finished)["checkpoint"] == "toy-encoder"


def test_scores_can_be_had_again_from_the_logits_that_were_kept(finished):
    labels = easy_cache().labels.numpy()
    for number, path in enumerate(sorted((finished / "rounds").glob("pre-trained*.safetensors"))):
        kept = load_file(path)
        right = kept["logits"].numpy().argmax(axis=1) == labels[kept["clips"].numpy()]
        assert right.mean() == results_of(finished)["results"][PRETRAINED]["scores"][number]


def test_a_finished_run_trains_nothing_again_and_says_the_same(finished, checkpoint, monkeypatch):
    before = results_of(finished)
    monkeypatch.setattr(finetune_module, "fit", lambda *a, **k: pytest.fail("it trained again"))
    run = silent_run(checkpoint, easy_cache(), finished, epochs=4)
    assert run.run()["results"] == before["results"]


def test_a_folder_of_another_run_is_refused_with_the_difference(finished, checkpoint):
    with pytest.raises(ValueError, match=r"holds another run: epochs 4, not 5\."):
        silent_run(checkpoint, easy_cache(), finished, epochs=5)


def test_test_clips_are_read_once_and_after_training(checkpoint, tmp_path, monkeypatch):
    events = []
    call, train = Batches.__call__, fitting._Trainer.train
    monkeypatch.setattr(Batches, "__call__", lambda self, clips: events.append(set(clips)) or call(self, clips))
    monkeypatch.setattr(fitting._Trainer, "train", lambda self, **k: (train(self, **k), events.append("trained")))
    cache = easy_cache()
    run = silent_run(checkpoint, cache, tmp_path, select="validation", batch_size=32)
    run.run(controls=(), final_model=False)
    for one in run.rounds:
        end = events.index("trained")
        seen = set().union(*events[:end])
        assert seen == set(one.train) | set(one.validation)
        assert not seen & set(one.test)
        assert events[end + 1] == set(one.test)
        events = events[end + 2 :]
    assert not events


def test_a_planted_leak_shows_and_the_protocol_does_not_have_it(checkpoint, tmp_path):
    """Labels are drawn at random, so a clip's own label can be known only from having been trained on."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 60)
    values = 2 * rng.standard_normal((60, 1, 128)) + np.zeros((60, 16, 1))
    cache = cache_of(values, labels, np.repeat([1, 2], 30).tolist())
    options = {"epochs": 25, "learning_rate": 1e-2, "batch_size": 16}
    honest = silent_run(checkpoint, cache, tmp_path / "honest", **options)
    leaking = silent_run(checkpoint, cache, tmp_path / "leaking", **options)
    leaking.rounds = [Round(one.name, [*one.train, *one.test], [], one.test) for one in leaking.rounds]
    found = [run.run(controls=(), final_model=False)["results"][PRETRAINED]["mean"] for run in (honest, leaking)]
    assert found[0] < 0.7
    assert found[1] > 0.95


def test_sources_stay_on_one_side_when_validation_is_cut():
    sources = [f"recording {index // 3}" for index in range(90)]
    labels = np.arange(90) // 3 % 3
    train, validation = cut_validation(range(90), labels, sources, 0.2, seed=0)
    assert not {sources[i] for i in train} & {sources[i] for i in validation}
    assert sorted(train + validation) == list(range(90))
    assert [sum(labels[i] == label for i in validation) for label in range(3)] == [6, 6, 6]


def test_official_validation_clips_choose_the_epoch_and_are_not_trained_on():
    cache = easy_cache()
    parts = ["train"] * 8 + ["validation"] * 8 + ["test"] * 8
    split = cache_of(cache.frames.reshape(24, 16, 128).numpy(), cache.labels, parts)
    (one,) = rounds_of(split, select_on_validation=True)
    assert (one.train, one.validation, one.test) == (list(range(8)), list(range(8, 16)), list(range(16, 24)))


def test_the_chosen_epoch_s_weights_are_the_ones_tested(checkpoint, tmp_path, monkeypatch):
    cache = easy_cache()
    run = silent_run(checkpoint, cache, tmp_path, epochs=4, select="validation")
    weights, found = [], iter([0.5, 0.9, 0.9, 0.1])
    monkeypatch.setattr(fitting, "score", lambda logits, labels: next(found))
    model = run._build(PRETRAINED)
    facts = fit(
        model,
        run.batches,
        run.rounds[0],
        run.recipe,
        device="cpu",
        folder=tmp_path / "round",
        on_epoch=lambda epoch, loss: weights.append(model.classifier.weight.detach().clone()),
    )
    assert facts["epoch"] == 2
    assert facts["validation"] == [0.5, 0.9, 0.9, 0.1]
    assert torch.equal(model.classifier.weight, weights[1])
    assert not torch.equal(weights[1], weights[3])


AUGMENTED = {
    "epochs": 4,
    "drop_path_rate": 0.2,
    "time_roll": True,
    "time_mask": 4,
    "frequency_mask": 16,
    "mixup": 0.8,
    "cutmix": 1.0,
    "label_smoothing": 0.1,
}


class InterruptionError(Exception):
    pass


def cut_short(checkpoint, name):
    file = checkpoint / name
    file.write_bytes(file.read_bytes()[:-8])


@pytest.mark.parametrize(
    ("saves", "damage", "goes_on_with"),
    [
        (1, None, [3, 4]),
        (1, lambda newest: cut_short(newest, "model.safetensors"), [1, 2, 3, 4]),
        (1, lambda newest: (newest / "manifest.json").unlink(), [1, 2, 3, 4]),
        (3, lambda newest: cut_short(newest, "optimizer.pt"), [2, 3, 4]),
    ],
    ids=["sound", "torn", "unsealed", "torn, and a sound one before it"],
)
def test_an_interrupted_round_goes_on_to_the_same_bits_from_the_newest_sound_checkpoint(
    checkpoint, tmp_path, caplog, saves, damage, goes_on_with
):
    cache, one = easy_cache(), Round("fold 1", list(range(8, 24)), [], list(range(8)))

    def train(folder, on_epoch):
        run = silent_run(checkpoint, cache, folder, **AUGMENTED, checkpoints_per_round=saves)
        model = run._build(PRETRAINED)
        path = folder / "round"
        facts = fit(model, run.batches, one, run.recipe, device="cpu", folder=path, on_epoch=on_epoch)
        assert not path.exists()
        return facts, predict(model, run.batches, one.test, "cpu", 8)

    def interrupt(epoch, loss):
        if epoch == 3:
            raise InterruptionError

    whole, expected = train(tmp_path / "whole", lambda epoch, loss: None)
    with pytest.raises(InterruptionError):
        train(tmp_path / "parts", interrupt)
    if damage is not None:
        (newest,) = (tmp_path / "parts/round").glob("checkpoint-4")
        damage(newest)
    seen = []
    resumed, found = train(tmp_path / "parts", lambda epoch, loss: seen.append(epoch))
    assert seen == goes_on_with
    assert torch.equal(found, expected)
    assert resumed["losses"] == whole["losses"]
    assert ("checkpoint-4 cannot be used" in caplog.text) == (damage is not None)


def test_the_order_of_a_batch_s_augmentation_depends_on_the_step_alone(checkpoint):
    values, labels = torch.randn(8, 16, 128), torch.tensor([0, 1] * 4)
    options = recipe(**AUGMENTED)
    first, second, other = (
        augment(values, labels, 2, options, fitting._generator(0, "fold 1", step)) for step in (5, 5, 6)
    )
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[0], other[0])


def test_several_labels_are_trained_with_binary_targets_and_scored_by_mean_average_precision(checkpoint, tmp_path):
    single = easy_cache()
    labels = torch.nn.functional.one_hot(single.labels, 3).float()
    labels[:, 2] = torch.arange(24) % 3 == 0
    cache = cache_of(single.frames.reshape(24, 16, 128).numpy(), labels, single.parts, num_classes=3)
    run = silent_run(checkpoint, cache, tmp_path, epochs=3)
    results = run.run(controls=("linear",), final_model=False)
    assert results["metric"] == "macro_average_precision"
    assert run._build(PRETRAINED).config.problem_type == "multi_label_classification"
    assert 0.6 < results["results"][PRETRAINED]["mean"] <= 1
    _, targets = augment(torch.randn(24, 16, 128), labels, 3, recipe(label_smoothing=0.5), torch.Generator())
    assert torch.equal(targets, labels)


def test_linear_controls_are_the_probe_s(finished):
    cache = easy_cache()
    features = log_mel_statistics(cache.clip_frames(clip) for clip in range(len(cache)))
    expected = probe_features("linear", features, cache, rounds_of(cache))
    found = results_of(finished)["results"]["log-mel mean and deviation, linear"]
    assert found == {name: value for name, value in expected.items() if name not in ("settings", "right")}


@pytest.mark.parametrize("pooling", ["mean", "mel", "mel_std"])
def test_the_linear_control_reads_what_the_classifier_reads(pooling):
    torch.manual_seed(0)
    model = AudioPGForAudioClassification(AudioPGConfig(**SMALL, num_labels=2, classifier_pooling=pooling)).eval()
    batches = Batches(easy_cache(), EXTRACTOR)
    read = embed(model.base_model, EXTRACTOR, batches.spectrograms(range(5)), pooling=pooling)[None]
    inputs = batches.finish(batches(range(5)))
    with torch.no_grad():
        logits = model(inputs["input_values"], inputs.get("attention_mask")).logits
        torch.testing.assert_close(model.classifier(torch.from_numpy(read)), logits, rtol=0, atol=1e-5)
    assert read.shape == (5, model.config.pooled_size(pooling))


def hard_cache(classes=3, clips_per_fold=18, frames=48):
    """Classes that differ little: no classifier gets all of them."""
    rng = np.random.default_rng(1)
    labels = np.tile(np.arange(classes), clips_per_fold * 3 // classes)
    values = rng.standard_normal((len(labels), frames, 128)) + 0.1 * labels[:, None, None]
    return cache_of(values, labels, np.repeat([1, 2, 3], clips_per_fold).tolist(), num_classes=classes)


@pytest.mark.parametrize("pooling", ["mean", "mel_std"])
def test_a_linear_head_without_epochs_is_the_linear_probe(checkpoint, tmp_path, pooling):
    run = silent_run(checkpoint, hard_cache(), tmp_path, head="linear", epochs=0, pooling=pooling)
    results = run.run(controls=("linear",))["results"]
    assert results[PRETRAINED]["scores"] == results["pre-trained encoder, frozen, linear"]["scores"]
    assert 0.4 < results[PRETRAINED]["mean"] < 1
    encoder, model = run._build(PRETRAINED), AutoModelForAudioClassification.from_pretrained(tmp_path / "model")
    kept = model.base_model.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in encoder.base_model.state_dict().items())


def test_training_goes_on_from_a_linear_head(checkpoint, tmp_path):
    changes = {"epochs": 1, "learning_rate": 1e-6, "select": "last"}
    linear, random = (
        silent_run(checkpoint, hard_cache(), tmp_path / head, head=head, **changes).run((), final_model=False)
        for head in ("linear", "random")
    )
    assert linear["results"][PRETRAINED]["mean"] > random["results"][PRETRAINED]["mean"] + 0.05


def test_a_class_that_no_training_clip_has_is_the_last_to_be_named():
    weight, bias = affine_of(lambda x: np.column_stack([x[:, 0], -x[:, 0], np.full(len(x), -np.inf)]), 2)
    assert np.isfinite(weight).all()
    assert bias[2] < bias[:2].min() - 5
    assert not weight[2].any()


def test_heads_that_cannot_be_linear_are_refused_before_anything_is_trained(checkpoint, tmp_path):
    several = cache_of(np.zeros((6, 16, 128)), torch.ones(6, 2), [1, 2, 3] * 2)
    with pytest.raises(ValueError, match="head linear is for clips of one label each"):
        silent_run(checkpoint, several, tmp_path / "several", head="linear")
    torch.manual_seed(0)
    sizes = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    other = ASTForAudioClassification(ASTConfig(**sizes, max_length=48, num_mel_bins=32))
    with pytest.raises(ValueError, match="got a ASTForAudioClassification: leave it random"):
        check_head(other, hard_cache())


def test_features_of_another_length_than_the_recipe_s_are_refused(checkpoint, tmp_path):
    with pytest.raises(ValueError, match=r"clip_seconds 5\.0, and features of toy sounds were made with None"):
        silent_run(checkpoint, easy_cache(), tmp_path, clip_seconds=5.0)


@pytest.fixture
def four_gpus(monkeypatch):
    """A machine that seems to have four, as far as Trainer looks before it computes."""
    from accelerate.state import AcceleratorState, PartialState

    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(fitting, "_has_bfloat16", lambda device: False)
    yield
    monkeypatch.undo()
    AcceleratorState._reset_state(reset_partial_state=True)
    PartialState._reset_state()


@pytest.mark.usefixtures("four_gpus")
def test_a_batch_stays_as_large_as_the_recipe_says_on_a_machine_with_several_gpus(tmp_path):
    for device in ("cuda", "cuda:0"):
        arguments = training_arguments(recipe(batch_size=32), tmp_path, device)
        assert (arguments.n_gpu, arguments.train_batch_size, arguments.device) == (1, 32, torch.device("cuda:0"))


@pytest.mark.usefixtures("four_gpus")
def test_a_device_that_the_trainer_would_not_use_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"asked for cuda:1 in 1 processes.*CUDA_VISIBLE_DEVICES=1"):
        training_arguments(recipe(), tmp_path, "cuda:1")


def write_class_folders(folder, clips=3):
    rng = np.random.default_rng(0)
    for name in ("noise", "tone"):
        (folder / name).mkdir(parents=True)
        for index in range(clips):
            tone = 0.5 * np.sin(2 * np.pi * rng.uniform(200, 2000) * np.arange(6400) / 16000)
            samples = 0.1 * rng.standard_normal(6400) if name == "noise" else tone
            soundfile.write(folder / name / f"{index}.flac", samples, 16000)
    return folder


def test_a_user_s_own_folder_is_enough(checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sounds = write_class_folders(tmp_path / "my_sounds")
    main([checkpoint, "--data_dir", str(sounds), "--recipe", "tiny", "--epochs", "1", "--device", "cpu"])
    captured = capsys.readouterr()
    assert "| my_sounds, accuracy in % | mean | std | 95 % interval | each |" in captured.out
    assert "min left in all" in captured.err
    assert "s/epoch" in captured.err
    folder = tmp_path / "runs" / "toy-encoder-my_sounds-tiny"
    assert results_of(folder)["protocol"].startswith("3 folds")
    assert (folder / "model" / "preprocessor_config.json").is_file()


def test_another_model_may_take_our_place(tmp_path, capsys, monkeypatch):
    torch.manual_seed(0)
    sizes = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = ASTConfig(**sizes, max_length=48, num_mel_bins=32)
    ASTForAudioClassification(config).save_pretrained(tmp_path / "ast")
    ASTFeatureExtractor(max_length=48, num_mel_bins=32).save_pretrained(tmp_path / "ast")
    sounds = write_class_folders(tmp_path / "my_sounds")
    options = ["--recipe", "fast", "--epochs", "1", "--device", "cpu", "--output_dir", str(tmp_path / "run")]
    main([str(tmp_path / "ast"), "--data_dir", str(sounds), *options, "--clip_seconds", "0.4", "--no_final_model"])
    assert len(results_of(tmp_path / "run")["results"]) == 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data_dir", "nowhere"], "neither a folder nor a CSV"),
        (["--data_dir", ".", "--epoch", "3"], "did you mean 'epochs'"),
        (["--data_dir", ".", "--benchmark", "esc5"], "`name` is auto"),
        (["--data_dir", ".", "--recipe", "slow"], "found nothing at"),
    ],
)
def test_mistakes_on_the_command_line_are_refused_in_one_line(checkpoint, capsys, words, message):
    with pytest.raises(SystemExit) as stop:
        main([checkpoint, *words])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_progress_counts_what_a_former_call_did():
    lines = []
    progress = Progress(30, lines.append)
    progress.round_done(10)
    for epoch in range(1, 11):
        progress.epoch("x", epoch, 10, 0.5)
    progress.round_done(10)
    assert progress.left == 10
    assert len(lines) == 10
    assert lines[0].startswith("x: epoch 1/10, loss 0.500, ")


def test_fine_tuning_from_a_cache_needs_no_audio_or_data_set_library(finished, checkpoint, tmp_path):
    code = (
        "import sys\n"
        "for name in ('datasets', 'evaluate', 'soundfile', 'torchcodec'):\n"
        "    sys.modules[name] = None\n"
        "from audiopg.training.finetune import main\n"
        "main(sys.argv[1:])\n"
    )
    features, recipe_path = finished.parent / "features.safetensors", finished.parent / "toy.yaml"
    words = [checkpoint, "--features", features, "--recipe", recipe_path, "--output_dir", tmp_path / "r"]
    options = ["--device", "cpu", "--epochs", "1", "--controls", "linear", "--no_final_model"]
    command = [sys.executable, "-c", code, *map(str, words), *options]
    subprocess.run(command, check=True, timeout=200, capture_output=True)
    assert len(results_of(tmp_path / "r")["results"]) == 4


@pytest.mark.parametrize("select", ["last", "validation"])
def test_a_training_that_diverges_ends_with_an_error_and_publishes_nothing(checkpoint, tmp_path, select):
    run = silent_run(checkpoint, easy_cache(), tmp_path, learning_rate=1e12, select=select)
    with pytest.raises(FloatingPointError, match=r"not finite.*: nothing is published"):
        run.run(controls=())
    assert not (tmp_path / "results.json").exists()
    assert not list(tmp_path.glob("rounds/*.json"))
    assert not (tmp_path / "model").exists()


def test_the_command_line_says_of_a_diverged_training_what_to_do(finished, checkpoint, tmp_path, capsys):
    words = ["--features", finished.parent / "features.safetensors", "--recipe", finished.parent / "toy.yaml"]
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in [checkpoint, *words, "--output_dir", tmp_path / "r", "--learning_rate", "1e12"]])
    assert stop.value.code == 2
    assert "Lower learning_rate and choose another --output_dir." in capsys.readouterr().err


def test_logits_that_are_not_finite_have_no_score():
    with pytest.raises(ValueError, match="those of 1 of 2 clips are not: no score"):
        score(np.array([[0.0, np.nan], [0.0, 1.0]]), np.array([0, 1]))


def test_a_run_from_before_that_holds_nan_trains_that_round_again(finished, checkpoint, tmp_path, caplog):
    shutil.copytree(finished, tmp_path / "run")
    (path,) = (tmp_path / "run/rounds").glob("pre-trained*fold_1.json")
    logits = load_file(path.with_suffix(".safetensors"))
    save_file({**logits, "logits": logits["logits"] * math.nan}, path.with_suffix(".safetensors"))
    facts = json.loads(path.read_text())
    del facts["logits"]
    path.write_text(json.dumps(facts))
    results = silent_run(checkpoint, easy_cache(), tmp_path / "run", epochs=4).run()
    assert "fold 1, is damaged and is trained again: Logits are finite numbers" in caplog.text
    assert scores_of(results) == scores_of(results_of(finished))


def scores_of(results):
    return {name: row["scores"] for name, row in results["results"].items()}


def damaged_json(run):
    (path,) = (run / "rounds").glob("pre-trained*fold_1.json")
    path.write_text(path.read_text()[:20])


def altered_score(run):
    (path,) = (run / "rounds").glob("pre-trained*fold_1.json")
    path.write_text(path.read_text().replace('"score": 1.0', '"score": 0.5'))


def torn_logits(run):
    (path,) = (run / "rounds").glob("pre-trained*fold_1.safetensors")
    path.write_bytes(path.read_bytes()[:-8])


def altered_model(run):
    weights = bytearray((run / "model/model.safetensors").read_bytes())
    weights[-1] ^= 1
    (run / "model/model.safetensors").write_bytes(weights)


def torn_controls(run):
    (run / "linear.json").write_text("{")


@pytest.mark.parametrize("damage", [damaged_json, altered_score, torn_logits, altered_model, torn_controls])
def test_what_is_damaged_in_a_run_is_named_and_made_again(finished, checkpoint, tmp_path, caplog, damage):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    damage(run)
    results = silent_run(checkpoint, easy_cache(), run, epochs=4).run()
    assert "again: " in caplog.text
    assert scores_of(results) == scores_of(results_of(finished))
    weights = (run / "model/model.safetensors", finished / "model/model.safetensors")
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_what_is_left_of_a_kill_does_not_stand_in_the_way(finished, checkpoint, tmp_path):
    """A model that was being written, by this version or one before, a round's file, and a checkpoint without seal."""
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    shutil.rmtree(run / "model")
    for left in (
        "model.partial",
        "rounds/pre-trained_all_clips.0a1b.partial",
        "rounds/pre-trained_all_clips/checkpoint-3",
    ):
        (run / left).mkdir(parents=True)
        (run / left / "model.safetensors").write_bytes(b"half of")
    silent_run(checkpoint, easy_cache(), run, epochs=4).run()
    assert {path.name for path in run.iterdir()} >= {"model", "results.json"}
    assert not list(run.rglob("*.partial"))
    assert (run / "model/model.safetensors").read_bytes() == (finished / "model/model.safetensors").read_bytes()


def test_a_disk_that_is_full_while_the_trainer_saves_is_named_and_the_same_command_goes_on(
    finished, checkpoint, tmp_path, monkeypatch
):
    def full(self, *words, **options):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    options = {"epochs": 4, "checkpoints_per_round": 1}
    monkeypatch.setattr(Trainer, "_save_checkpoint", full)
    with pytest.raises(
        OSError, match=r"checkpoint-\d+ could not be written: .*No space left.*the same command goes on"
    ):
        silent_run(checkpoint, easy_cache(), tmp_path / "run", **options).run(controls=())
    monkeypatch.undo()
    results = silent_run(checkpoint, easy_cache(), tmp_path / "run", **options).run(controls=())
    assert scores_of(results)[PRETRAINED] == scores_of(results_of(finished))[PRETRAINED]


def test_a_fine_tuning_does_not_claim_the_folder_of_a_pre_training(checkpoint, tmp_path, toy_run):
    shutil.copytree(toy_run, tmp_path / "run")
    before = (tmp_path / "run/run.json").read_bytes()
    with pytest.raises(ValueError, match="holds another run"):
        silent_run(checkpoint, easy_cache(), tmp_path / "run")
    assert (tmp_path / "run/run.json").read_bytes() == before


def test_a_second_command_in_the_folder_is_refused(checkpoint, tmp_path):
    run = silent_run(checkpoint, easy_cache(), tmp_path / "run")
    with held(tmp_path / "run"), pytest.raises(ValueError, match="Another command is at work"):
        run.run()


@pytest.mark.parametrize("field", ["learning_rate", "weight_decay", "clip_seconds", "mixup", "warmup_fraction"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_of_a_recipe_are_finite(field, value):
    with pytest.raises(ValueError, match=f"{field} is a finite number|{field} is of type"):
        FinetuningRecipe(**PLAIN | {field: value})
