import math

import pytest
import torch

from audiopg.modeling.losses_audiopg import classification_loss, reconstruction_loss, standardize_patches


def test_loss_equals_a_slow_loop():
    generator = torch.Generator().manual_seed(0)
    logits, patches = torch.randn(2, 2, 4, 9, generator=generator).unbind(0)
    mask = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0]])
    errors = []
    for clip, number in ((0, 0), (0, 3), (1, 1)):
        pixels = patches[clip, number].tolist()
        mean = sum(pixels) / 9
        variance = sum((pixel - mean) ** 2 for pixel in pixels) / 8
        target = [(pixel - mean) / math.sqrt(variance + 1e-6) for pixel in pixels]
        guess = logits[clip, number].tolist()
        errors.append(sum((g - t) ** 2 for g, t in zip(guess, target, strict=True)) / 9)
    assert reconstruction_loss(logits, patches, mask).item() == pytest.approx(sum(errors) / 3, rel=1e-5)
    plain = ((logits - patches).square().mean(-1) * mask).sum() / 3
    torch.testing.assert_close(reconstruction_loss(logits, patches, mask, norm_pix_loss=False), plain)


def test_constant_patches_standardise_to_zero():
    assert not standardize_patches(torch.full((1, 2, 256), 3.0)).any()


def test_soft_labels_give_soft_cross_entropy():
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 1.0, 3.0]])
    labels = torch.tensor([[0.7, 0.3, 0.0], [0.1, 0.1, 0.8]])
    expected = -(labels * logits.log_softmax(-1)).sum(-1).mean()
    for problem_type in (None, "single_label_classification"):
        torch.testing.assert_close(classification_loss(logits, labels, problem_type), expected)


def test_several_labels_per_clip_give_binary_cross_entropy():
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 1.0, 3.0]])
    labels = torch.tensor([[1, 0, 1], [0, 0, 0]])
    chances = logits.sigmoid()
    expected = -(labels * chances.log() + (1 - labels) * (1 - chances).log()).mean()
    torch.testing.assert_close(classification_loss(logits, labels, "multi_label_classification"), expected)


def test_single_output_is_a_regression():
    logits, labels = torch.tensor([[1.0], [2.0]]), torch.tensor([3.0, 2.0])
    assert classification_loss(logits, labels).item() == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("labels", "problem_type", "message"),
    [
        (torch.ones(2, 3, dtype=torch.long), None, "multi_label_classification"),
        (torch.ones(2, 4), None, r"shape of the logits, \(2, 3\), got \(2, 4\)"),
        (torch.ones(2), "multi_label_classification", r"shape of the logits, \(2, 3\), got \(2,\)"),
        (torch.ones(2), "ranking", "got 'ranking'"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, problem_type, message):
    with pytest.raises(ValueError, match=message):
        classification_loss(torch.zeros(2, 3), labels, problem_type)


@pytest.mark.parametrize("problem_type", [None, "single_label_classification"])
@pytest.mark.parametrize("row", [[1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [2.0, -1.0, 0.0], [math.nan, 1.0, 0.0]])
def test_several_labels_a_clip_are_refused_unless_the_model_is_told_so(row, problem_type):
    logits, labels = torch.zeros(2, 3), torch.tensor([[1.0, 0.0, 0.0], row])
    with pytest.raises(ValueError, match=r"in row 1: .*multi_label_classification"):
        classification_loss(logits, labels, problem_type)
    if not math.isnan(row[0]):
        assert torch.isfinite(classification_loss(logits, labels, "multi_label_classification"))


def test_rounded_probabilities_are_probabilities():
    labels = torch.full((1, 7), 1 / 7).bfloat16()
    assert torch.isfinite(classification_loss(torch.zeros(1, 7), labels))
