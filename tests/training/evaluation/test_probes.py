import json
import os
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from scipy import stats
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch.nn.functional import normalize
from toys import SMALL
from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

from audiopg.modeling.configuration_audiopg import AudioPGConfig
from audiopg.modeling.feature_extraction_audiopg import AudioPGFeatureExtractor
from audiopg.modeling.modeling_audiopg import AudioPGForPreTraining, AudioPGModel
from audiopg.training.evaluation import probes as probe
from audiopg.training.evaluation.probes import probe_encoder, probe_features, probe_round
from audiopg.training.evaluation.protocols import inner_rounds, rounds_of
from audiopg.training.evaluation.results import READ_AS, format_results
from audiopg.training.evaluation.scores import macro_average_precision
from audiopg.training.features.batches import Batches
from audiopg.training.features.cache import FeatureCache, cached_features, extract_features, front_end_of
from audiopg.training.features.embeddings import log_mel_statistics
from audiopg.training.features.labelled import load_labelled
from audiopg.training.probe import main


def data_of(labels, parts, sources=None):
    """A data set that has everything but sound."""
    labels = torch.as_tensor(labels)
    clips = [str(index) for index in range(len(labels))]
    num_classes = labels.shape[1] if labels.ndim == 2 else int(labels.max()) + 1
    return FeatureCache(
        dataset_name="toy",
        class_names=[f"class {index}" for index in range(num_classes)],
        front_end={},
        clips=clips,
        parts=list(parts),
        sources=sources or clips,
        frames=torch.zeros(len(labels), 128).half(),
        lengths=torch.ones(len(labels), dtype=torch.long),
        labels=labels,
        digest="",
    )


def clusters(num_clips=200, num_features=8, num_classes=4, num_folds=5, spread=0.8, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.tile(np.arange(num_classes), num_clips // num_classes)
    features = rng.standard_normal((num_classes, num_features))[labels]
    features = features + spread * rng.standard_normal((num_clips, num_features))
    return features, labels, np.repeat(np.arange(1, num_folds + 1), num_clips // num_folds).tolist()


def scores_of(name, features, labels, folds, sources=None):
    cache = data_of(labels, folds, sources)
    return probe_features(name, features, cache, rounds_of(cache))["scores"]


def searched(model, grid, features, labels, folds, **options):
    """The same by scikit-learn's own search over the training folds."""
    folds, scores = np.array(folds), []
    for test_fold in np.unique(folds):
        train = folds != test_fold
        pipeline = make_pipeline(StandardScaler(), model)
        search = GridSearchCV(pipeline, grid, cv=PredefinedSplit(folds[train]), **options)
        search.fit(features[train], labels[train])
        scores.append(search.score(features[~train], labels[~train]))
    return scores


def test_the_linear_probe_is_logistic_regression_with_scikit_learn_s_own_solver_and_search():
    features, labels, folds = clusters()
    model = LogisticRegression(max_iter=20000, tol=1e-10)
    grid = {"logisticregression__C": probe.INVERSE_REGULARISATIONS}
    assert scores_of("linear", features, labels, folds) == pytest.approx(
        searched(model, grid, features, labels, folds)
    )


def test_with_several_labels_it_is_ridge_regression_scored_by_mean_average_precision():
    features, labels, folds = clusters()
    targets = np.eye(4)[labels]
    targets[::3, 1] = 1
    grid = {"ridge__alpha": probe.RIDGE_PENALTIES}
    scoring = lambda model, x, y: macro_average_precision(model.predict(x), y)  # noqa: E731
    expected = searched(Ridge(), grid, features, targets, folds, scoring=scoring)
    assert scores_of("linear", features, targets, folds) == pytest.approx(expected)


def hard(num_clips=120, num_features=96):
    """Features like those of log-mels: neighbours nearly equal, a huge mean, classes that overlap, constant bands."""
    rng = np.random.default_rng(0)
    labels = np.tile(np.arange(6), num_clips // 6)
    smooth = np.cumsum(rng.standard_normal((num_clips, num_features)), axis=1) * 0.05
    features = smooth + rng.standard_normal((6, num_features)).cumsum(axis=1)[labels] * 0.02 - 6.0
    features[:, :4] = -15.9424
    return features, labels, np.repeat([1, 2, 3, 4], num_clips // 4).tolist()


def old_scores(features, labels, folds):
    model = LogisticRegression(max_iter=2000, tol=1e-3)
    return searched(model, {"logisticregression__C": probe.INVERSE_REGULARISATIONS}, features, labels, folds)


def test_what_needs_no_weights_is_a_number_and_not_a_draw():
    """Raw or standardised, in any order of clips or bands, with noise of a millionth: the same clips are right."""
    features, labels, folds = hard()
    rng = np.random.default_rng(1)
    order, bands = rng.permutation(len(labels)), rng.permutation(features.shape[1])
    variants = {
        "standardised": ((features + 5.428) / 8.836, labels, folds),
        "single": (((features + 5.428) / 8.836).astype(np.float32), labels, folds),
        "noise": (features + 1e-6 * rng.standard_normal(features.shape), labels, folds),
        "clips": (features[order], labels[order], [folds[clip] for clip in order]),
        "bands": (features[:, bands], labels, folds),
    }
    expected = scores_of("linear", features, labels, folds)
    assert 0.3 < np.mean(expected) < 0.95
    for name, variant in variants.items():
        assert scores_of("linear", *variant) == expected, name
    assert len({tuple(old_scores(*variant)) for variant in variants.values()}) > 1  # else nothing was tested


def test_threads_change_nothing(monkeypatch):
    features, labels, folds = hard()
    expected = scores_of("linear", features, labels, folds)
    monkeypatch.setattr(probe, "threadpool_limits", lambda **_: nullcontext())
    with threadpool_limits(limits=2):
        assert scores_of("linear", features, labels, folds) == expected


def test_a_regression_that_does_not_converge_is_an_error(monkeypatch):
    monkeypatch.setattr(probe, "GRADIENT_TOLERANCE", 1e-30)
    with pytest.raises(RuntimeError, match=r"did not\s+converge at C"):
        scores_of("linear", *clusters())


@pytest.mark.parametrize("name", ["linear", "neighbours"])
def test_permuted_labels_give_chance(name):
    features, labels, folds = clusters(spread=0.2)
    assert np.mean(scores_of(name, features, labels, folds)) > 0.95
    permuted = np.random.default_rng(1).permutation(labels)
    assert np.mean(scores_of(name, features, permuted, folds)) < 0.4


def test_recordings_that_were_heard_in_training_are_recognised_and_others_are_not():
    """A planted leak: clips of one source are near copies, and the label of a source is drawn at random."""
    rng = np.random.default_rng(0)
    sources = np.repeat(np.arange(60), 5)
    features = rng.standard_normal((60, 80))[sources] + 0.01 * rng.standard_normal((300, 80))
    labels = rng.integers(0, 2, 60)[sources]
    assert np.mean(scores_of("linear", features, labels, (rng.permutation(300) % 5).tolist())) > 0.95
    assert np.mean(scores_of("linear", features, labels, (sources % 5).tolist())) < 0.65


@pytest.mark.parametrize(
    "parts", [[1, 2, 3, 4] * 15, [1, 2] * 30, ["train", "train", "test"] * 20, ["train", "validation", "test"] * 20]
)
def test_a_setting_is_chosen_among_clips_that_are_not_tested_on(parts):
    sources = [str(index // 12) for index in range(60)] if parts[0] == "train" else None
    cache = data_of(np.arange(60) % 5 % 2, parts, sources)
    for one in rounds_of(cache):
        known = set(one.train) | set(one.validation)
        inner = inner_rounds(cache, one)
        for train, held_out in inner:
            assert train
            assert held_out
            assert not set(train) & set(held_out)
            assert set(train) | set(held_out) == known
            if one.validation:
                assert (train, held_out) == (one.train, one.validation)
            elif len(inner) == 1:
                assert not {cache.sources[clip] for clip in train} & {cache.sources[clip] for clip in held_out}
        if parts[:3] == [1, 2, 3]:
            tested = parts[one.test[0]]
            following = [part for part in (1, 2, 3, 4, 1, 2, 3) if part != tested]
            assert parts[inner[0][1][0]] == tested % 4 + 1
            assert len(inner) == 3
            assert {parts[held_out[0]] for _, held_out in inner} == set(following)


def test_a_probe_never_sees_the_test_clips_before_its_end(monkeypatch):
    seen = []
    real = probe.PROBES["linear"]

    def prepare(features, labels, num_classes, device):
        fit = real.prepare(features, labels, num_classes, device)
        seen.append(set(features[:, 0]))
        return lambda setting: lambda asked: (seen.append(set(asked[:, 0])), fit(setting)(asked))[1]

    monkeypatch.setitem(probe.PROBES, "linear", probe.Probe(prepare, real.settings))
    features, labels, folds = clusters()
    cache = data_of(labels, folds)
    for one in rounds_of(cache):
        seen.clear()
        probe_round(probe.PROBES["linear"], features, cache, one)
        *before, last_training, tested = seen
        test_clips = set(features[one.test, 0])
        assert tested == test_clips
        assert last_training == set(features[one.train, 0])
        assert not test_clips & set().union(*before)


def test_the_attentive_probe_chooses_on_the_fold_that_follows_alone(monkeypatch):
    monkeypatch.setattr("audiopg.training.evaluation.attentive.EPOCHS", 1)
    features, labels, folds = clusters(num_clips=24, num_folds=4)
    cache = data_of(labels, folds)
    tokens = [torch.from_numpy(row).float()[None] for row in features]
    row = probe_features("attentive", tokens, cache, rounds_of(cache))
    assert len(row["scores"]) == len(row["settings"]) == 4
    assert probe.PROBES["attentive"].most_choices == 1


def test_neighbours_vote_by_cosine_similarity(monkeypatch):
    monkeypatch.setattr(probe, "NEIGHBOURS", (5,))
    features, labels, folds = clusters()
    expected = []
    for test_fold in range(1, 6):
        train = np.array(folds) != test_fold
        scaler = StandardScaler().fit(features[train])
        known, asked = (
            normalize(torch.from_numpy(scaler.transform(part)), dim=1) for part in (features[train], features[~train])
        )
        distances, nearest = (1 - asked @ known.T).topk(5, largest=False)
        votes = torch.zeros(len(asked), 4, dtype=distances.dtype)
        votes.scatter_add_(1, torch.from_numpy(labels[train])[nearest], 1 / distances)
        expected.append(float((votes.argmax(1).numpy() == labels[~train]).mean()))
    found = scores_of("neighbours", features, labels, folds)
    assert found == pytest.approx(expected)
    assert np.mean(found) > 0.8


def test_tiny_folds_have_few_neighbours_and_classes_may_be_missing_from_one():
    features, labels, folds = clusters(num_clips=12, num_classes=2, num_folds=3, spread=0.1)
    assert np.mean(scores_of("neighbours", features, labels, folds)) > 0.8
    labels = np.where(np.arange(12) > 9, 2, labels)  # two of fold 3, and nobody trained on the others knows class 2
    for name in ("linear", "neighbours"):
        assert scores_of(name, features, labels, folds)[2] == 0.5


def write_benchmark(folder, num_folds=3, clips=4):
    (folder / "meta").mkdir(parents=True)
    (folder / "audio").mkdir()
    rng = np.random.default_rng(0)
    rows = ["filename,fold,target,category,esc10,src_file,take"]
    for fold in range(1, num_folds + 1):
        for target, category in [(0, "noise"), (3, "tone")]:
            for take in range(clips):
                name = f"{fold}-{take}-A-{target}.wav"
                tone = np.sin(2 * np.pi * rng.uniform(200, 2000) * np.arange(4000) / 16000)
                samples = 0.1 * rng.standard_normal(4000) if target == 0 else 0.5 * tone
                soundfile.write(folder / "audio" / name, samples, 16000)
                rows.append(f"{name},{fold},{target},{category},False,{fold}{target}{take},A")
    (folder / "meta" / "esc50.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return AudioPGModel(AudioPGConfig(**SMALL))


def batches_of(folder, extractor=None):
    extractor = extractor or AudioPGFeatureExtractor()
    return Batches(extract_features(load_labelled(folder), front_end_of(extractor)), extractor)


def test_command_line_prints_a_table_and_writes_the_results(tmp_path, capsys):
    torch.manual_seed(0)
    AudioPGForPreTraining(AudioPGConfig(**SMALL)).save_pretrained(tmp_path / "checkpoint")
    AudioPGFeatureExtractor().save_pretrained(tmp_path / "checkpoint")
    esc50_dir = write_benchmark(tmp_path / "esc50")
    output = tmp_path / "results.json"
    options = ["--output", str(output), "--device", "cpu", "--seed", "5", "--layers", "all"]
    main([str(tmp_path / "checkpoint"), "--esc50_dir", str(esc50_dir), *options])
    table = capsys.readouterr().out
    rows = [line.split(" | ")[0] for line in table.splitlines()[2:]]
    assert [row for row in rows if not row.endswith(" apart")] == [
        "| log-mel mean and deviation",
        "| random encoder (seed 5)",
        "| random encoder (seed 5), layer 0",
        "| random encoder (seed 5), layer 1",
        "| pre-trained encoder",
        "| pre-trained encoder, layer 0",
        "| pre-trained encoder, layer 1",
    ]
    assert len(rows) == 19
    report = json.loads(output.read_text())
    assert report["dataset"] == "part of ESC-50"
    assert report["results"]["log-mel mean and deviation"]["scores"] == [1.0, 1.0, 1.0]
    assert len(report["results"]["pre-trained encoder"]["scores"]) == 3


def test_another_s_model_on_official_splits_with_several_labels_from_a_file_of_features(tmp_path, capsys):
    """All that probes once refused, at once."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    checkpoint, extractor = tmp_path / "ast", ASTFeatureExtractor(max_length=48, num_mel_bins=32)
    ASTForAudioClassification(ASTConfig(**sizes, max_length=48, num_mel_bins=32)).save_pretrained(checkpoint)
    extractor.save_pretrained(checkpoint)
    rng, rows = np.random.default_rng(0), ["file,labels,split"]
    for number in range(24):
        tone = number % 2 * np.sin(2 * np.pi * 800 * np.arange(8000) / 16000)
        soundfile.write(tmp_path / f"{number}.wav", 0.4 * tone + 0.05 * rng.standard_normal(8000), 16000)
        rows.append(
            f"{number}.wav,{('noise', 'noise;tone')[number % 2]},{('train', 'train', 'test')[number // 2 % 3]}"
        )
    (tmp_path / "mine.csv").write_text("\n".join(rows) + "\n")
    cached_features(load_labelled(tmp_path / "mine.csv"), extractor, folder=tmp_path / "kept")
    (features,) = (tmp_path / "kept").iterdir()
    main([str(checkpoint), "--features", str(features), "--device", "cpu"])
    table = capsys.readouterr().out
    assert "| mine, linear probe, macro average precision in % |" in table
    assert [line.split(" | ")[0] for line in table.splitlines()[2:]] == [
        "| log-mel mean and deviation",
        "| random encoder (seed 0)",
        "| pre-trained encoder",
    ]
    with pytest.raises(SystemExit):
        main([str(checkpoint), "--features", str(features), "--device", "cpu", "--layers", "0"])
    assert "Layers are those of our own models" in capsys.readouterr().err


@pytest.mark.parametrize("choice", ["neighbours", "attentive"])
def test_other_probes_and_layers_have_the_same_controls(choice, tmp_path, model):
    batches = batches_of(write_benchmark(tmp_path / "esc50"))
    report = probe_encoder(model, batches, probes=[choice], layers=[0, 1])
    log_mel = "log-mel frames" if choice == "attentive" else "log-mel mean and deviation"
    encoders = ["random encoder (seed 0)", "pre-trained encoder"]
    poolings = [""] if choice == "attentive" else READ_AS.values()
    rows = [name + layer + kept for name in encoders for layer in ("", ", layer 0", ", layer 1") for kept in poolings]
    assert list(report["results"]) == [log_mel, *rows]
    assert report["results"][log_mel]["mean"] > 0.9
    assert f"| part of ESC-50, {choice} probe, accuracy in % |" in format_results(report)


def test_several_probes_read_the_same_features_and_give_what_each_gives_alone(tmp_path, model):
    batches = batches_of(write_benchmark(tmp_path / "esc50"))
    names = ("neighbours", "linear", "attentive")
    together = probe_encoder(model, batches, probes=names)
    rows = {}
    for name in names:
        alone = probe_encoder(model, batches, probes=[name])["results"]
        rows |= {row if name == "neighbours" else f"{row}, {name} probe": found for row, found in alone.items()}
    assert together["results"] == rows
    assert together["probe"] == "neighbours"
    assert "| pre-trained encoder, linear probe | " in format_results(together)


def test_what_is_chosen_on_validation_clips_never_reads_the_test(model):
    """Of either split there are as many answers as it has clips, and the splits differ in number."""
    labels, parts = np.tile([0, 1], 20), ["train"] * 24 + ["validation"] * 10 + ["test"] * 6
    levels = torch.from_numpy(2.0 * labels - 1).repeat_interleave(32)[:, None].half()
    extractor = AudioPGFeatureExtractor()
    cache = replace(
        data_of(labels, parts),
        front_end=front_end_of(extractor).settings,
        frames=levels + 0.1 * torch.randn(40 * 32, 128, generator=torch.Generator().manual_seed(0)).half(),
        lengths=torch.full((40,), 32),
    )
    spared, tested = (
        probe_encoder(model, Batches(cache, extractor), spare_test=spare_test) for spare_test in (True, False)
    )
    assert {len(row["right"]) for row in spared["results"].values()} == {10}
    assert {len(row["right"]) for row in tested["results"].values()} == {6}
    assert spared["protocol"] == "trained on 24 clips, 10 validation clips read, none of the test"
    assert tested["protocol"] == "trained on 24 clips, tested once on 6"


def test_a_single_test_has_the_interval_of_a_bootstrap_over_its_clips():
    features, labels, _ = clusters()
    parts = (["train"] * 3 + ["validation", "test"]) * 40
    cache = data_of(labels, parts)
    row = probe_features("linear", features, cache, rounds_of(cache))
    tested = np.array(parts) == "test"
    right = round(row["mean"] * tested.sum())
    assert (row["low"], row["high"]) == pytest.approx(
        tuple(stats.binom.ppf([0.025, 0.975], tested.sum(), right / tested.sum()) / tested.sum())
    )
    assert row["low"] < row["mean"] < row["high"]
    assert row["std"] is None
    assert f"| {100 * row['low']:.1f} to {100 * row['high']:.1f} |" in format_results(
        {"dataset": "toy", "metric": "accuracy", "results": {"x": row}}
    )


def test_a_task_of_pitch_and_one_of_mean_average_precision_go_through_the_command(tmp_path, capsys):
    torch.manual_seed(0)
    AudioPGForPreTraining(AudioPGConfig(**SMALL)).save_pretrained(tmp_path / "checkpoint")
    AudioPGFeatureExtractor().save_pretrained(tmp_path / "checkpoint")
    tasks = {
        "nsynth_pitch": {"evaluation": ["pitch_acc", "chroma_acc"], "parts": ("train", "valid", "test")},
        "vocal_imitation": {"evaluation": ["mAP", "top1_acc"], "parts": ("fold00", "fold01", "fold02")},
    }
    for name, task in tasks.items():
        folder, notes = tmp_path / name, (60, 63, 72)
        folder.mkdir()
        facts = {"task_name": name, "embedding_type": "scene", "prediction_type": "multiclass"}
        (folder / "task_metadata.json").write_text(json.dumps(facts | {"evaluation": task["evaluation"]}))
        (folder / "labelvocabulary.csv").write_text("idx,label\n0,60\n1,63\n2,72\n")
        for part in task["parts"]:
            (folder / "16000" / part).mkdir(parents=True)
            labels = {f"{part}-{take}-{note}.wav": [note] for take in range(3) for note in notes}
            (folder / f"{part}.json").write_text(json.dumps(labels))
            for take, (file, [note]) in enumerate(labels.items()):
                time = np.arange(4000 + 40 * take) / 16000
                tone = 0.4 * np.sin(2 * np.pi * 440 * 2 ** ((note - 69) / 12) * time)
                soundfile.write(folder / "16000" / part / file, tone, 16000)
        main([str(tmp_path / "checkpoint"), "--data_dir", str(folder), "--benchmark", name, "--device", "cpu"])
        table = capsys.readouterr().out.splitlines()
        if name == "nsynth_pitch":
            assert table[0].endswith("accuracy in % | mean | std | 95 % interval | each | chroma |")
            assert all(float(line.split(" | ")[5].strip(" |")) >= float(line.split(" | ")[1]) for line in table[2:])
        else:
            assert "macro average precision in %" in table[0]
            assert table[2].startswith("| log-mel mean and deviation | 100.00 |")


def test_a_probe_that_does_not_exist_is_refused(tmp_path, model):
    with pytest.raises(ValueError, match="`probes` are some of"):
        probe_encoder(model, batches_of(write_benchmark(tmp_path / "esc50")), probes=["quadratic"])


def test_log_mel_statistics_reach_their_known_accuracy_on_real_recordings():
    folder = os.environ.get("AUDIOPG_ESC50_DIR")
    if folder is None:
        pytest.skip("AUDIOPG_ESC50_DIR names no folder with ESC-50 or ESC-10")
    cache = batches_of(folder).cache
    if cache.dataset_name != "ESC-10":
        pytest.skip(f"the known accuracy is that of ESC-10, and AUDIOPG_ESC50_DIR is {cache.dataset_name}")
    features = log_mel_statistics(cache.clip_frames(clip) for clip in range(len(cache)))
    assert probe_features("linear", features, cache, rounds_of(cache))["mean"] == pytest.approx(0.795, abs=1e-4)
    permuted = np.random.default_rng(0).permutation(cache.labels.numpy())
    assert np.mean(scores_of("linear", features, permuted, cache.parts)) < 0.2
