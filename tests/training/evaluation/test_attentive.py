import numpy as np
import torch

from audiopg.training.evaluation import attentive
from audiopg.training.evaluation.attentive import AttentivePooling, prepare_attentive


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


def accuracy(tokens, labels, folds, weight_decay=0.1):
    """On fold 0, trained on the others."""
    train, test = np.flatnonzero(folds != 0), np.flatnonzero(folds == 0)
    predict = prepare_attentive([tokens[clip] for clip in train], labels[train], 3)(weight_decay)
    return (predict([tokens[clip] for clip in test]).argmax(axis=1) == labels[test]).mean()


def test_attention_finds_the_token_that_says_it():
    tokens, labels, folds = marked_clips()
    found = accuracy(tokens, labels, folds)
    assert found > 0.9
    means = [clip.mean(dim=0, keepdim=True) for clip in tokens]
    assert accuracy(means, labels, folds) < found


def test_permuted_labels_give_chance_and_a_call_repeats(monkeypatch):
    monkeypatch.setattr(attentive, "EPOCHS", 15)
    tokens, labels, folds = marked_clips()
    permuted = np.random.default_rng(1).permutation(labels)
    state = torch.get_rng_state()
    assert accuracy(tokens, permuted, folds) < 0.6
    first, second = (prepare_attentive(tokens, permuted, 3)(0.1)(tokens[:5]) for _ in range(2))
    assert np.array_equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)


def test_several_labels_are_learnt_at_once():
    tokens, labels, _ = marked_clips()
    targets = np.eye(3, dtype=np.float32)[labels]
    targets[:, 2] = 1.0
    logits = prepare_attentive(tokens, targets, 3)(0.01)(tokens)
    assert ((logits[:, :2] > 0) == targets[:, :2]).mean() > 0.9
    assert (logits[:, 2] > 0).all()


def test_a_constant_feature_and_half_precision_are_no_trouble(monkeypatch):
    monkeypatch.setattr(attentive, "EPOCHS", 5)
    tokens, labels, _folds = marked_clips(num_clips=24)
    for clip in tokens:
        clip[:, 0] = 1.0
    assert np.isfinite(prepare_attentive([clip.half() for clip in tokens], labels, 3)(0.1)(tokens)).all()
