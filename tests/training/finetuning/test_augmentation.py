import pytest
import torch
from torch.nn.functional import cross_entropy

from audiopg.training.finetuning.augmentation import (
    cutmix,
    mixup,
    mixup_or_cutmix,
    soft_targets,
    spec_augment,
    time_roll,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(size=4, frames=32, bands=16):
    """Clips whose every value is their own number, so that what came from where can be read off."""
    return torch.arange(1.0, size + 1)[:, None, None].expand(size, frames, bands).clone(), torch.eye(size)


def augmentations():
    options = {"mixup_alpha": 0.8, "cutmix_alpha": 1.0, "probability": 0.9, "switch_probability": 0.5}
    return {
        "roll": lambda x, y, g: (time_roll(x, g), y),
        "spec_augment": lambda x, y, g: (spec_augment(x, g, time_mask=8, frequency_mask=4), y),
        "mixup": lambda x, y, g: mixup(x, y, g, alpha=0.8),
        "cutmix": lambda x, y, g: cutmix(x, y, g, alpha=1.0),
        "either": lambda x, y, g: mixup_or_cutmix(x, y, g, **options),
    }


@pytest.mark.parametrize("name", augmentations())
def test_a_result_is_a_function_of_its_generator_alone(name):
    augment, (values, targets) = augmentations()[name], batch()
    values = values + torch.rand(values.shape, generator=generator())
    state = torch.get_rng_state()
    first, second, other = (augment(values, targets, generator(seed)) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[0], other[0])
    assert first[0].shape == values.shape


def test_soft_targets_with_smoothing_give_the_loss_of_torch_s_label_smoothing():
    logits, labels = torch.randn(6, 5, generator=generator()), torch.tensor([0, 1, 2, 3, 4, 0])
    found = cross_entropy(logits, soft_targets(labels, 5, smoothing=0.1))
    torch.testing.assert_close(found, cross_entropy(logits, labels, label_smoothing=0.1))


def test_rolling_moves_whole_frames_and_loses_none():
    values = torch.randn(3, 10, 4, generator=generator())
    rolled = time_roll(values, generator(1))
    for before, after in zip(values, rolled, strict=True):
        assert any(torch.equal(after, before.roll(shift, dims=0)) for shift in range(10))


def test_masks_hide_no_more_than_they_may_and_differ_among_clips():
    values = torch.ones(200, 32, 16)
    masked = spec_augment(values, generator(), time_mask=8, frequency_mask=4)
    hidden_frames = (masked == 0).all(dim=2).sum(dim=1)
    hidden_bands = (masked == 0).all(dim=1).sum(dim=1)
    assert hidden_frames.max() == 7  # torchaudio draws from [0, 8)
    assert hidden_bands.max() == 3
    assert len(set(hidden_frames.tolist())) == 8
    assert hidden_frames.float().mean() == pytest.approx(3.5, abs=0.5)


def test_masks_of_no_size_hide_nothing():
    values = torch.ones(4, 32, 16)
    assert torch.equal(spec_augment(values, generator(), time_mask=0, frequency_mask=0), values)


@pytest.mark.parametrize("mix", [mixup, cutmix])
def test_targets_tell_what_share_of_a_clip_comes_from_whom(mix):
    for seed in range(50):
        values, targets = batch()
        mixed, soft = mix(values, targets, generator(seed), alpha=1.0)
        whose = torch.arange(1.0, 5.0)
        torch.testing.assert_close(mixed.mean(dim=(1, 2)), soft @ whose)
        torch.testing.assert_close(soft.sum(dim=1), torch.ones(4))


def test_a_cut_box_has_the_shape_of_the_clip_and_comes_from_one_other():
    values, targets = batch(frames=320, bands=160)
    mixed, _ = cutmix(values, targets, generator(7), alpha=1.0)
    foreign = (mixed != values)[:, :, :]
    rows, columns = foreign.any(dim=2).sum(dim=1), foreign.any(dim=1).sum(dim=1)
    assert torch.equal(foreign.sum(dim=(1, 2)), rows * columns)


def test_zero_probability_or_no_alpha_leaves_a_batch_alone():
    values, targets = batch()
    for options in (
        {"mixup_alpha": 0.8, "cutmix_alpha": 1.0, "probability": 0.0},
        {"mixup_alpha": 0.0, "cutmix_alpha": 0.0, "probability": 1.0},
    ):
        mixed, soft = mixup_or_cutmix(values, targets, generator(), switch_probability=0.5, **options)
        assert mixed is values
        assert soft is targets


@pytest.mark.parametrize(("switch_probability", "boxes"), [(1.0, True), (0.0, False)])
def test_the_switch_chooses_between_the_two(switch_probability, boxes):
    values, targets = batch()
    for seed in range(10):
        mixed, _ = mixup_or_cutmix(
            values,
            targets,
            generator(seed),
            mixup_alpha=1.0,
            cutmix_alpha=1.0,
            probability=1.0,
            switch_probability=switch_probability,
        )
        only_whole_values = torch.equal(mixed, mixed.round())
        assert only_whole_values == (boxes or torch.equal(mixed, values))
