import numpy as np
import pytest
import torch

from audiopg.training.evaluation import attentive
from audiopg.training.evaluation.attentive import AttentivePooling, attentive_probe


def marked_clips(num_clips=120, num_tokens=12, hidden_size=16, seed=0):
    """The class stands in one token of each clip, which a mark tells from the others; the mean drowns in the rest."""
    rng = np.random.default_rng(seed)
    labels = np.tile(np.arange(3), num_clips // 3)
    tokens = []
    for label in labels:
        clip = rng.standard_normal((num_tokens + rng.integers(0, 5), hidden_size)).astype(np.float32) * 2
        clip[:, ::2] = 0.05 * clip[:, ::2]
        place = rng.integers(len(clip))
        clip[place] = 0.0
        clip[place, ::2] = 3.0  # the mark, in every head's slice
        clip[place, 1 + 2 * label] = 6.0
        tokens.append(torch.from_numpy(clip))
    return tokens, labels, np.arange(num_clips) // 3 % 4


def test_pooling_starts_as_the_mean_and_ignores_padding():
    tokens = torch.randn(2, 7, 24, generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(7) < torch.tensor([[7], [3]])).float()
    pooled = AttentivePooling(24, 5).pool(tokens, mask)
    torch.testing.assert_close(pooled, torch.stack([tokens[0].mean(0), tokens[1, :3].mean(0)]))


def test_pooling_is_the_formula():
    torch.manual_seed(0)
    probe, tokens = AttentivePooling(24, 5), torch.randn(1, 7, 24)
    torch.nn.init.normal_(probe.queries)
    probe.mean.normal_()
    probe.deviation.uniform_(0.5, 2.0)
    standardised = (tokens[0] - probe.mean) / probe.deviation
    expected = []
    for head in range(8):
        weights = torch.softmax(standardised @ probe.queries[head], dim=0)
        expected.append(weights @ standardised[:, 3 * head : 3 * head + 3])
    torch.testing.assert_close(probe.pool(tokens, torch.ones(1, 7))[0], torch.cat(expected))


def test_attention_finds_the_token_that_says_it(monkeypatch):
    monkeypatch.setattr(attentive, "WEIGHT_DECAYS", (0.01, 0.1))
    tokens, labels, folds = marked_clips()
    result = attentive_probe(tokens, labels, folds)
    assert result["mean"] > 0.9
    assert len(result["fold_accuracies"]) == len(result["weight_decays"]) == 4
    assert result["std"] == pytest.approx(np.std(result["fold_accuracies"], ddof=1))
    means = [clip.mean(dim=0, keepdim=True) for clip in tokens]
    assert attentive_probe(means, labels, folds)["mean"] < result["mean"]


def test_permuted_labels_give_chance_and_a_call_repeats(monkeypatch):
    monkeypatch.setattr(attentive, "EPOCHS", 15)
    tokens, labels, folds = marked_clips()
    permuted = np.random.default_rng(1).permutation(labels)
    state = torch.get_rng_state()
    result = attentive_probe(tokens, permuted, folds)
    assert result["mean"] < 0.5
    assert attentive_probe(tokens, permuted, folds) == result
    assert torch.equal(torch.get_rng_state(), state)


def test_the_test_fold_is_used_once_and_never_chosen_on(monkeypatch):
    calls = []
    accuracy = attentive._accuracy

    def recording(clips, train, test, weight_decay):
        calls.append((set(train), set(test)))
        return accuracy(clips, train, test, weight_decay)

    monkeypatch.setattr(attentive, "_accuracy", recording)
    monkeypatch.setattr(attentive, "EPOCHS", 1)
    tokens, labels, folds = marked_clips(num_clips=24)
    attentive_probe(tokens, labels, folds)
    per_round = len(attentive.WEIGHT_DECAYS) + 1
    for fold in range(4):
        clips_of_fold = set(np.flatnonzero(folds == fold))
        *choosing, (train, test) = calls[fold * per_round : (fold + 1) * per_round]
        assert test == clips_of_fold
        assert train == set(range(24)) - clips_of_fold
        for inner_train, held_out in choosing:
            assert not clips_of_fold & (inner_train | held_out)
            assert not inner_train & held_out


def test_a_constant_feature_and_half_precision_are_no_trouble(monkeypatch):
    monkeypatch.setattr(attentive, "EPOCHS", 5)
    tokens, labels, folds = marked_clips(num_clips=24)
    for clip in tokens:
        clip[:, 0] = 1.0
    result = attentive_probe([clip.half() for clip in tokens], labels, folds)
    assert np.isfinite(result["mean"])


def test_two_folds_are_too_few():
    tokens, labels, folds = marked_clips(num_clips=24)
    with pytest.raises(ValueError, match="at least 3 folds"):
        attentive_probe(tokens, labels, folds % 2)
