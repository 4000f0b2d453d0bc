import itertools

import numpy as np
import pytest
import torch

from audiopg.data_scripts.synthesis.dynamics import RELEASE_LEVEL, adsr, gate, strikes

EVENTS = (
    (2.0, 2.0, 7),
    (10.0, 40.0, 100),
    (1.3, 27.9, 70),
    (0.4, 3.7, 9),
    (30.5, 40.25, 101),
    (480.0, 640.0, 1600),
    (0.3 * 163840, 0.4 * 163840, 163840),
)


def slow_adsr(start, attack, decay, length, num_samples):
    """Sample by sample, as the specification says it."""
    envelope = []
    for time in range(start, start + num_samples):
        if time < 0 or time >= length:
            level = 0.0
        elif time < attack:
            level = time / attack
        elif time < attack + decay:
            level = 1.0 + (0.6 - 1.0) * (time - attack) / decay
        else:
            level = 0.6 * (1 - (time - attack - decay) / (length - attack - decay))
        envelope.append(level)
    return envelope


def envelope_of(start, attack, decay, length, num_samples):
    numbers = (torch.tensor([x]) for x in (start, float(attack), float(decay), length))
    return adsr(*numbers, num_samples=num_samples)[0]


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("start", [0, -1, -50, 5, 98])
def test_the_envelope_is_that_of_a_slow_loop(event, start):
    envelope = envelope_of(start, *event, num_samples=300)
    np.testing.assert_allclose(envelope.numpy(), slow_adsr(start, *event, 300), rtol=0, atol=2e-6)


def test_the_envelope_of_the_longest_event_is_that_of_a_slow_loop_at_every_turn():
    attack, decay, length = EVENTS[-1]
    for corner in (0, attack, attack + decay, length):
        start = int(corner) - 20
        expected = slow_adsr(start, attack, decay, length, 40)
        np.testing.assert_allclose(envelope_of(start, attack, decay, length, 40).numpy(), expected, atol=2e-6)


def test_every_row_of_a_batch_has_its_own_envelope():
    start, attack, decay, length = map(torch.tensor, zip(*[(-3, *event) for event in EVENTS], strict=True))
    together = adsr(start, attack, decay, length, num_samples=200)
    assert together.dtype == torch.float32
    assert torch.equal(together, torch.stack([envelope_of(-3, *event, 200) for event in EVENTS]))


@pytest.mark.parametrize("event", EVENTS[:-1])
def test_the_envelope_is_zero_outside_the_event_and_positive_inside(event):
    length = event[2]
    envelope = envelope_of(-1000, *event, num_samples=1000 + length + 1000)
    assert not envelope[:1001].any()
    assert bool((envelope[1001 : 1000 + length] > 0).all())
    assert not envelope[1000 + length :].any()


def test_a_tile_of_an_envelope_is_the_envelope_at_that_place():
    whole = envelope_of(0, *EVENTS[5], num_samples=1600)
    assert torch.equal(envelope_of(700, *EVENTS[5], num_samples=300), whole[700:1000])


def test_the_envelope_turns_at_one_and_at_the_release_level_without_a_jump():
    attack, decay, length = 400.0, 600.0, 2000
    envelope = envelope_of(0, attack, decay, length, 2000)
    assert (envelope[400], envelope[1000], envelope.max()) == (1, pytest.approx(RELEASE_LEVEL), 1)
    slopes = envelope.diff().double()
    expected = [1 / attack] * 400 + [(RELEASE_LEVEL - 1) / decay] * 600 + [-RELEASE_LEVEL / 1000] * 999
    np.testing.assert_allclose(slopes, expected, atol=1e-6)


@pytest.mark.parametrize("length", range(6))
def test_an_event_of_a_few_samples_stays_between_silence_and_full_level(length):
    # A true length of `length` + 0.49 rounds down to `length`, but attack and decay are shares of the true one.
    for attack, decay in itertools.product((0.01, 0.3, 0.5), (0.1, 0.4, 0.49)):
        envelope = envelope_of(-5, attack * (length + 0.49), decay * (length + 0.49), length, num_samples=50)
        assert bool(((envelope >= 0) & (envelope <= 1)).all())
        assert not envelope[5 + length + 1 :].any()


@pytest.mark.parametrize("start", [-7, -1, 0, 3, 20])
@pytest.mark.parametrize("length", [0, 1, 5, 100])
def test_the_gate_is_open_for_exactly_the_event(start, length):
    opened = gate(torch.tensor([start, start - 2]), torch.tensor([length, 4]), num_samples=30)
    expected = [[float(0 <= t < long) for t in range(s, s + 30)] for s, long in ((start, length), (start - 2, 4))]
    assert opened.tolist() == expected
    assert opened.dtype == torch.float32


@pytest.mark.parametrize("start", [0, 3, -5, 10**6, 5 * 10**7 + 1])
def test_strikes_fall_exponentially_and_come_back(start):
    periods, decays = (2.5, 100.0, 640.3), (1.5, 30.0, 5000.0)
    period, decay = (torch.tensor(values, dtype=torch.float64) for values in (periods, decays))
    level = strikes(torch.full((3,), start), period, decay, num_samples=900)
    time = start + np.arange(900)
    for row, period, decay in zip(level, periods, decays, strict=True):
        since = time % period
        steady = np.minimum(since, period - since) > 1e-3  # rounding may put off a strike by that much of a sample
        np.testing.assert_allclose(row.numpy()[steady], np.exp(-since / decay)[steady], rtol=1e-4)
