import json
import os

import numpy as np
import pytest
import soundfile
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import r2_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn.functional import normalize
from toys import SMALL

from audiopg.modeling.configuration_audiopg import AudioPGConfig
from audiopg.modeling.feature_extraction_audiopg import AudioPGFeatureExtractor
from audiopg.modeling.modeling_audiopg import AudioPGForPreTraining, AudioPGModel
from audiopg.training.evaluation import probes as probe
from audiopg.training.evaluation.probes import (
    decode_factors,
    embed,
    embed_tokens,
    linear_probe,
    log_mel_statistics,
    neighbours_probe,
    random_encoder,
)
from audiopg.training.probe import main


def clusters(num_clips=200, num_features=8, num_classes=4, num_folds=5, spread=0.8, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.tile(np.arange(num_classes), num_clips // num_classes)
    features = rng.standard_normal((num_classes, num_features))[labels] + spread * rng.standard_normal(
        (num_clips, num_features)
    )
    return features, labels, np.repeat(np.arange(1, num_folds + 1), num_clips // num_folds)


def test_linear_probe_is_the_pipeline_written_out_by_hand():
    features, labels, folds = clusters()
    expected = []
    for test_fold in range(1, 6):
        train, test = folds != test_fold, folds == test_fold
        inner = {}
        for c in probe.INVERSE_REGULARISATIONS:
            inner[c] = np.mean(
                [
                    fit(features, labels, train & (folds != held_out), c).score(
                        features[folds == held_out], labels[folds == held_out]
                    )
                    for held_out in range(1, 6)
                    if held_out != test_fold
                ]
            )
        best = max(inner, key=inner.get)
        expected.append(fit(features, labels, train, best).score(features[test], labels[test]))
    result = linear_probe(features, labels, folds)
    assert result["fold_accuracies"] == pytest.approx(expected)
    assert result["mean"] == pytest.approx(np.mean(expected))
    assert result["std"] == pytest.approx(np.std(expected, ddof=1))


def fit(features, labels, chosen, c):
    model = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=2000, tol=probe.LOGISTIC_TOLERANCE))
    return model.fit(features[chosen], labels[chosen])


def test_permuted_labels_give_chance():
    features, labels, folds = clusters(spread=0.2)
    permuted = np.random.default_rng(1).permutation(labels)
    assert linear_probe(features, labels, folds)["mean"] > 0.95
    assert linear_probe(features, permuted, folds)["mean"] < 0.4


def test_recordings_that_were_heard_in_training_are_recognised_and_others_are_not():
    """A planted leak: clips of one source are near copies, and the label of a source is drawn at random."""
    rng = np.random.default_rng(0)
    sources = np.repeat(np.arange(60), 5)
    features = rng.standard_normal((60, 80))[sources] + 0.01 * rng.standard_normal((300, 80))
    labels = rng.integers(0, 2, 60)[sources]
    assert linear_probe(features, labels, rng.permutation(300) % 5)["mean"] > 0.95
    assert linear_probe(features, labels, sources % 5)["mean"] < 0.65


def test_the_test_fold_changes_nothing_but_its_own_accuracy(monkeypatch):
    seen = []
    fit_search = probe.GridSearchCV.fit

    def recording_fit(self, features, labels, **options):
        seen.append((features.copy(), options["groups"].copy()))
        return fit_search(self, features, labels, **options)

    monkeypatch.setattr(probe.GridSearchCV, "fit", recording_fit)
    features, labels, folds = clusters()
    linear_probe(features, labels, folds)
    assert len(seen) == 5
    for test_fold, (train_features, groups) in zip(range(1, 6), seen, strict=True):
        assert set(groups) == set(range(1, 6)) - {test_fold}
        assert np.array_equal(train_features, features[folds != test_fold])


def test_two_folds_are_too_few():
    features, labels, _ = clusters()
    with pytest.raises(ValueError, match="at least 3 folds"):
        linear_probe(features, labels, np.tile([1, 2], 100))


def test_neighbours_vote_by_cosine_similarity(monkeypatch):
    monkeypatch.setattr(probe, "NEIGHBOURS", (5,))
    features, labels, folds = clusters()
    expected = []
    for test_fold in range(1, 6):
        train = folds != test_fold
        scaler = StandardScaler().fit(features[train])
        known, asked = (
            normalize(torch.from_numpy(scaler.transform(part)), dim=1) for part in (features[train], features[~train])
        )
        distances, nearest = (1 - asked @ known.T).topk(5, largest=False)
        votes = torch.zeros(len(asked), 4, dtype=distances.dtype)
        votes.scatter_add_(1, torch.from_numpy(labels[train])[nearest], 1 / distances)
        expected.append(float((votes.argmax(1).numpy() == labels[~train]).mean()))
    result = neighbours_probe(features, labels, folds)
    assert result["fold_accuracies"] == pytest.approx(expected)
    assert result["mean"] > 0.8


def test_neighbours_give_chance_for_permuted_labels_and_tiny_folds_have_few():
    features, labels, folds = clusters(spread=0.2)
    assert neighbours_probe(features, np.random.default_rng(1).permutation(labels), folds)["mean"] < 0.4
    features, labels, folds = clusters(num_clips=12, num_classes=2, num_folds=3, spread=0.1)
    assert neighbours_probe(features, labels, folds)["mean"] > 0.8
    with pytest.raises(ValueError, match="at least 3 folds"):
        neighbours_probe(features, labels, np.tile([1, 2], 6))


def test_factors_are_decoded_as_by_a_ridge_of_the_best_penalty():
    rng = np.random.default_rng(0)
    features = rng.standard_normal((300, 20))
    factors = features @ rng.standard_normal((20, 2)) + rng.standard_normal((300, 2)) * [0.1, 3.0]
    scores = decode_factors(features[:200], factors[:200], features[200:], factors[200:])
    by_hand = [
        max(
            r2_score(
                factors[200:, factor], ridge(features[:200], factors[:200, factor], alpha).predict(features[200:])
            )
            for alpha in probe.RIDGE_ALPHAS
        )
        for factor in range(2)
    ]
    assert scores.shape == (2,)
    assert scores[0] > 0.99
    np.testing.assert_allclose(scores, by_hand, atol=0.03)
    alone = decode_factors(features[:200], factors[:200, 0], features[200:], factors[200:, 0])
    np.testing.assert_allclose(alone, scores[:1], atol=1e-6)


def ridge(features, targets, alpha):
    return make_pipeline(StandardScaler(), Ridge(alpha=alpha)).fit(features, targets)


def test_unrelated_factors_are_not_decoded():
    rng = np.random.default_rng(0)
    scores = decode_factors(*(rng.standard_normal((100, size)) for size in (10, 3, 10, 3)))
    assert (scores < 0.1).all()


def test_log_mel_statistics_ignore_padding():
    log_mel = torch.randn(3, 20, 5, generator=torch.Generator().manual_seed(0))
    lengths = [20, 12, 1]
    mask = (torch.arange(20) < torch.tensor(lengths)[:, None]).long()
    statistics = log_mel_statistics(log_mel, mask)
    assert statistics.shape == (3, 10)
    for index, length in enumerate(lengths):
        real = log_mel[index, :length]
        expected = torch.cat([real.mean(dim=0), real.std(dim=0, correction=0)])
        torch.testing.assert_close(statistics[index], expected, rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return AudioPGModel(AudioPGConfig(**SMALL))


def noises(lengths):
    rng = np.random.default_rng(0)
    return [(0.1 * rng.standard_normal(length)).astype(np.float32) for length in lengths]


def test_embeddings_do_not_depend_on_the_batch(model):
    waveforms = noises([16000, 4000, 16000, 9000, 400])
    together = embed(model, AudioPGFeatureExtractor(), waveforms, batch_size=3)
    alone = embed(model, AudioPGFeatureExtractor(), waveforms, batch_size=1)
    assert together.shape == (5, SMALL["hidden_size"])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_tokens_of_any_layer_are_the_encoder_s_without_padding(model):
    feature_extractor, waveforms = AudioPGFeatureExtractor(), noises([16000, 4000, 400])
    tokens = embed_tokens(model, feature_extractor, waveforms, [None, 0, 1], batch_size=2)
    means, rows = (
        embed_tokens(model, feature_extractor, waveforms, [None, 0, 1], batch_size=3, pooling=pooling)
        for pooling in ("mean", "mel")
    )
    with torch.no_grad():
        for index, waveform in enumerate(waveforms):
            outputs = model.eval()(**feature_extractor(waveform, sampling_rate=16000), output_hidden_states=True)
            by_hand = {None: outputs.last_hidden_state, **dict(enumerate(outputs.hidden_states))}
            for layer, hidden_states in by_hand.items():
                torch.testing.assert_close(tokens[layer][index].float(), hidden_states[0, 1:], rtol=1e-3, atol=1e-3)
                expected = hidden_states[0, 1:].mean(dim=0, keepdim=True)
                torch.testing.assert_close(means[layer][index], expected, rtol=0, atol=1e-5)
                of_mel_row = [hidden_states[0, 1 + row :: 8].mean(dim=0) for row in range(8)]
                torch.testing.assert_close(rows[layer][index][0], torch.cat(of_mel_row), rtol=0, atol=1e-5)


def test_embedding_leaves_the_training_mode(model):
    model.train()
    embed(model, AudioPGFeatureExtractor(), noises([4000]))
    assert model.training


def test_a_random_encoder_is_a_function_of_its_seed(model):
    state = torch.get_rng_state()
    first, second, other = (random_encoder(model, seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


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


def test_command_line_prints_a_table_and_writes_the_results(tmp_path, capsys):
    torch.manual_seed(0)
    AudioPGForPreTraining(AudioPGConfig(**SMALL)).save_pretrained(tmp_path / "checkpoint")
    AudioPGFeatureExtractor().save_pretrained(tmp_path / "checkpoint")
    esc50_dir = write_benchmark(tmp_path / "esc50")
    output = tmp_path / "results.json"
    main(
        [
            str(tmp_path / "checkpoint"),
            *("--esc50_dir", str(esc50_dir)),
            *("--output", str(output)),
            *("--device", "cpu"),
            *("--seed", "5"),
            *("--layers", "all"),
        ]
    )
    table = capsys.readouterr().out
    rows = [line.split(" | ")[0] for line in table.splitlines()[2:]]
    assert [row for row in rows if not row.endswith(", mel rows apart")] == [
        "| log-mel mean and deviation",
        "| random encoder (seed 5)",
        "| random encoder (seed 5), layer 0",
        "| random encoder (seed 5), layer 1",
        "| pre-trained encoder",
        "| pre-trained encoder, layer 0",
        "| pre-trained encoder, layer 1",
    ]
    assert len(rows) == 13
    report = json.loads(output.read_text())
    assert report["benchmark"] == "part of ESC-50"
    assert report["results"]["log-mel mean and deviation"]["fold_accuracies"] == [1.0, 1.0, 1.0]
    assert len(report["results"]["pre-trained encoder"]["fold_accuracies"]) == 3


@pytest.mark.parametrize("choice", ["neighbours", "attentive"])
def test_other_probes_and_layers_have_the_same_controls(choice, tmp_path, model):
    report = probe.probe_benchmark(
        model, AudioPGFeatureExtractor(), write_benchmark(tmp_path / "esc50"), probe=choice, layers=[0, 1]
    )
    log_mel = "log-mel frames" if choice == "attentive" else "log-mel mean and deviation"
    encoders = ["random encoder (seed 0)", "pre-trained encoder"]
    poolings = [""] if choice == "attentive" else ["", ", mel rows apart"]
    rows = [name + layer + kept for name in encoders for layer in ("", ", layer 0", ", layer 1") for kept in poolings]
    assert list(report["results"]) == [log_mel, *rows]
    assert report["results"][log_mel]["mean"] > 0.9
    assert f"| part of ESC-50, {probe.PROBES[choice]} |" in probe.format_results(report)


def test_a_probe_or_a_layer_that_does_not_exist_is_refused(tmp_path, model):
    for options, message in (
        ({"probe": "quadratic"}, "`probe` is one of"),
        ({"layers": [0, 2]}, r"from 0.*to 1.*got \[2\]"),
    ):
        with pytest.raises(ValueError, match=message):
            probe.probe_benchmark(model, AudioPGFeatureExtractor(), tmp_path, **options)


def test_log_mel_statistics_reach_their_known_accuracy_on_real_recordings():
    folder = os.environ.get("AUDIOPG_ESC50_DIR")
    if folder is None:
        pytest.skip("AUDIOPG_ESC50_DIR names no folder with ESC-50 or ESC-10")
    dataset = probe.load_esc50(folder)
    if dataset.info.dataset_name != "ESC-10":
        pytest.skip(f"the known accuracy is that of ESC-10, and AUDIOPG_ESC50_DIR is {dataset.info.dataset_name}")
    features = probe.log_mel_features(AudioPGFeatureExtractor(), probe.read_audio_files(dataset["audio"]))
    labels, folds = np.array(dataset["label"]), np.array(dataset["fold"])
    assert 0.74 < linear_probe(features, labels, folds)["mean"] < 0.84
    permuted = np.random.default_rng(0).permutation(labels)
    assert linear_probe(features, permuted, folds)["mean"] < 0.2
