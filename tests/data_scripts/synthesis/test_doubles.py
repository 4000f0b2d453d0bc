import pytest
import torch
from scipy import stats

from audiopg.data_scripts.counter_random import normal, uniform
from audiopg.data_scripts.synthesis import GROUPS, draw, draw_doubles, get_preset, render
from audiopg.data_scripts.synthesis.parameters import GROUP_OF, _reflected

CLIPS = get_preset(
    "audiopg",
    duration=1.0,
    mode=["harmonic", "fm", "noise"],
    event_length=[0.15, 1.0],
    room_probability=0.5,
    strike_probability=0.5,
    formant_probability=0.5,
)
KEPT = (
    "mode",
    "num_partials",
    "num_events",
    "modulation_ratio",
    "pulse_shape",
    "strike",
    "formant",
    "num_formants",
    "formant_points",
    "transient",
    "damping",
    "room",
)


def test_doubles_are_what_a_clip_is_and_differ_in_how_it_sounds():
    doubles, clips = draw_doubles(CLIPS, 3, range(64), 0.2), draw(CLIPS, 3, range(64))
    for name in KEPT:
        assert torch.equal(doubles[name][0::2], clips[name]), name
        assert torch.equal(doubles[name][1::2], clips[name]), name
    for name in set(doubles) - set(KEPT):
        assert (doubles[name][0::2] != doubles[name][1::2]).float().mean() > 0.9, name
        assert (doubles[name][0::2] != clips[name]).float().mean() > 0.9, name
    sounds = render(doubles)
    assert (sounds[0::2] - sounds[1::2]).abs().amax(dim=1).min() > 0.01


def test_every_range_is_perturbed_or_is_what_a_clip_is():
    ranges = set(CLIPS.ranges) - {name for name in CLIPS.ranges if name.endswith("_probability")}
    assert ranges - set(GROUP_OF) == {name for name in KEPT if name in CLIPS.ranges}
    assert set(GROUP_OF) - ranges == {"onset", "source_start", "transient_onset"}


def test_without_a_difference_doubles_are_the_clip_but_for_noise():
    doubles, clips = draw_doubles(CLIPS, 3, range(8), 0.0), draw(CLIPS, 3, range(8))
    for name in clips:
        same = torch.equal(doubles[name], clips[name].repeat_interleave(2, dim=0))
        assert same is not name.endswith("_key"), name


def test_each_double_is_distributed_as_any_clip():
    """Reflection keeps a uniform number uniform; clipping would pile them up at the ends."""
    doubles = draw_doubles("reference", 0, range(4000), 0.25)
    for half in (0, 1):
        f0 = doubles["f0"][half::2, 0].numpy()
        assert stats.kstest(f0, stats.uniform(50, 1950).cdf).pvalue > 0.01


def test_reflection_at_both_ends_as_often_as_need_be():
    numbers = torch.tensor([-0.25, 0.0, 0.75, 1.25, 2.5, -1.25, 1.0], dtype=torch.float64)
    expected = torch.tensor([0.25, 0.0, 0.75, 0.75, 0.5, 0.75, 1.0], dtype=torch.float64)
    torch.testing.assert_close(_reflected(numbers), expected, rtol=0, atol=1e-15)
    assert _reflected(numbers).max() < 1


def test_a_group_is_perturbed_by_its_own_delta():
    doubles = draw_doubles(CLIPS, 0, range(32), {**dict.fromkeys(GROUPS, 0.0), "pitch": 0.1})
    clips = draw(CLIPS, 0, range(32))
    u = uniform(0, torch.arange(32), "f0", (5,))[:, None]
    moved = _reflected(u + 0.1 * normal(0, torch.arange(32), "f0, doubles", (2, 5))).flatten(0, 1)
    torch.testing.assert_close(doubles["f0"], 50 + 1950 * moved)
    for name in ("onset", "attack", "modulation_index", "cutoff", "noise_gain"):
        assert torch.equal(doubles[name], clips[name].repeat_interleave(2, dim=0)), name


def test_doubles_do_not_depend_on_the_batch():
    whole, part = draw_doubles(CLIPS, 1, range(6), 0.3), draw_doubles(CLIPS, 1, [4], 0.3)
    assert all(torch.equal(part[name], whole[name][8:10]) for name in whole)


@pytest.mark.parametrize("delta", [-0.1, float("nan"), {"pitch": 0.1}, {**dict.fromkeys(GROUPS, 0.1), "colour": 1.0}])
def test_what_is_no_delta_is_refused(delta):
    with pytest.raises(ValueError, match="delta is a number, 0 or more, or one for each of pitch, envelope"):
        draw_doubles(CLIPS, 0, range(2), delta)
