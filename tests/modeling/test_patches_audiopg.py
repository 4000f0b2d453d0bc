"""Patches, positions and masks against slow loops, and the number of visible patches against fractions."""

import math
from fractions import Fraction

import pytest
import torch

from audiopg.modeling.patches_audiopg import (
    num_visible_patches,
    patchify,
    random_masking,
    sincos_positions,
    unpatchify,
    valid_patches,
)

SHAPES = [(16, 16), (8, 16), (4, 16), (16, 8)]
RATIOS = ["0", *(f"0.{percent:02}" for percent in range(5, 100, 5)), "0.99", "0.333", "0.123456"]


@pytest.mark.parametrize(("time", "mel"), SHAPES)
def test_patches_run_time_outer_and_mel_inner_and_are_put_back_where_they_were(time, mel):
    values = torch.arange(2 * 32 * 48, dtype=torch.float32).reshape(2, 32, 48)
    patches = patchify(values, (time, mel))
    assert patches.shape == (2, 32 * 48 // (time * mel), time * mel)
    for clip in range(2):
        for frame in range(32):
            for band in range(48):
                patch = frame // time * (48 // mel) + band // mel
                assert patches[clip, patch, frame % time * mel + band % mel] == values[clip, frame, band]
    assert torch.equal(unpatchify(patches, (time, mel), num_mel_bins=48), values)


def test_patches_of_several_channels_hold_one_after_the_other():
    values = torch.arange(2 * 3 * 32 * 48, dtype=torch.float32).reshape(2, 3, 32, 48)
    patches = patchify(values, (16, 16))
    assert patches.shape == (2, 6, 768)
    for channel in range(3):
        part = patches[..., 256 * channel : 256 * channel + 256]
        assert torch.equal(part, patchify(values[:, channel], (16, 16)))
    assert torch.equal(unpatchify(patches, (16, 16), num_mel_bins=48, num_channels=3), values)
    with pytest.raises(ValueError, match=r"3 \* 16 \* 16 values .* got 6 patches of 256"):
        unpatchify(patches[..., :256], (16, 16), num_mel_bins=48, num_channels=3)


def test_patches_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="8 frames and 16 mel bins, got 30 frames and 48 mel bins"):
        patchify(torch.zeros(1, 30, 48), (8, 16))
    with pytest.raises(ValueError, match="fill rows of 48 mel bins, got 4 patches"):
        unpatchify(torch.zeros(1, 4, 256), (16, 16), num_mel_bins=48)


def test_patch_is_valid_when_any_of_its_frames_is_real():
    attention_mask = torch.zeros(2, 48)
    attention_mask[0, :17] = 1
    attention_mask[1, 47] = 1
    valid = valid_patches(attention_mask, 16, columns=2)
    assert valid.tolist() == [[True] * 4 + [False] * 2, [False] * 4 + [True] * 2]


def test_positions_equal_a_slow_loop():
    rows, columns, dim = 5, 3, 24
    positions = sincos_positions(rows, columns, dim)
    assert positions.dtype == torch.float32
    for row in range(rows):
        for column in range(columns):
            expected = []
            for coordinate in (column, row):  # the mel axis has the first half
                angles = [coordinate * 10000 ** (-i / (dim / 4)) for i in range(dim // 4)]
                expected += [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
            torch.testing.assert_close(positions[row * columns + column], torch.tensor(expected), atol=1e-7, rtol=0)


def test_longer_grid_starts_with_the_positions_of_a_shorter_one():
    assert torch.equal(sincos_positions(9, 3, 16)[: 4 * 3], sincos_positions(4, 3, 16))


@pytest.mark.parametrize("mask_ratio", RATIOS)
def test_the_number_of_visible_patches_is_that_of_the_decimal_number_that_is_written(mask_ratio):
    counts = range(1, 2001)
    expected = [max(1, math.floor(count * (1 - Fraction(mask_ratio)))) for count in counts]
    assert [num_visible_patches(count, float(mask_ratio)) for count in counts] == expected
    assert num_visible_patches(torch.arange(1, 2001), float(mask_ratio)).tolist() == expected


def test_a_tenth_of_eighty_patches_is_eight_also_when_compiled():
    """The nearest binary number to 0.9 is above it, and a product rounded down would leave seven."""
    torch._dynamo.reset()
    noise, valid = torch.rand(2, 80), torch.ones(2, 80, dtype=torch.bool)
    compiled = torch.compile(random_masking, fullgraph=True, backend="aot_eager")
    for mask_ratio, visible in ((0.75, 20), (0.9, 8), (0.8, 16)):
        for masking in (random_masking, compiled):
            for padding in (None, valid):
                ids_keep, _, mask, _ = masking(noise, mask_ratio, padding)
                assert ids_keep.shape == (2, visible)
                assert (mask == 0).sum(dim=1).tolist() == [visible, visible]


def test_noise_determines_the_mask():
    noise = torch.rand(2, 15, generator=torch.Generator().manual_seed(1))
    ids_keep, slot_valid, mask, ids_restore = random_masking(noise, 0.75)
    assert slot_valid is None
    assert ids_keep.shape == (2, int(15 * 0.25))
    for clip in range(2):
        order = sorted(range(15), key=lambda patch: noise[clip, patch].item())
        assert ids_keep[clip].tolist() == order[:3]
        assert [order[rank] for rank in ids_restore[clip].tolist()] == list(range(15))
        assert mask[clip].tolist() == [0.0 if patch in order[:3] else 1.0 for patch in range(15)]


@pytest.mark.parametrize("mask_ratio", [0, 0.1, 0.5, 0.7, 0.75, 0.8, 0.9, 0.99])
def test_padded_clips_keep_as_many_patches_as_alone(mask_ratio):
    num_patches = 40
    valid = torch.arange(num_patches) < torch.arange(1, num_patches + 1)[:, None]
    noise = torch.rand(num_patches, num_patches, generator=torch.Generator().manual_seed(0))
    ids_keep, slot_valid, mask, _ = random_masking(noise, mask_ratio, valid)
    assert slot_valid is not None
    for clip in range(num_patches):
        count = clip + 1
        alone, _, mask_alone, _ = random_masking(noise[clip : clip + 1, :count], mask_ratio)
        assert ids_keep[clip][slot_valid[clip]].tolist() == alone[0].tolist()
        assert mask[clip, :count].tolist() == mask_alone[0].tolist()
        assert not mask[clip, count:].any()
