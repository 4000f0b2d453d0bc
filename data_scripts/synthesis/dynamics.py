"""How loud a sound is over time: the envelope of an event, in closed form. Pure functions of time."""

import torch
from torch import Tensor

RELEASE_LEVEL = 0.6
"""Level at which the decay ends and the release begins, relative to the peak (research code)."""


def gate(start: Tensor, length: Tensor, *, num_samples: int) -> Tensor:
    """1 while an event lasts, 0 before and after.

    Args:
        start: Samples from the event's onset to the first sample of the result, int64, shape `(batch,)`; negative
            when the event begins later.
        length: Length of the event in samples, shape `(batch,)`.
        num_samples: Length of the result.

    Returns:
        float32 of shape `(batch, num_samples)`.

    Example:
        >>> gate(torch.tensor([-1]), torch.tensor([2]), num_samples=4).tolist()
        [[0.0, 1.0, 1.0, 0.0]]
    """
    time = start[:, None] + torch.arange(num_samples, device=start.device)
    return ((time >= 0) & (time < length[:, None])).float()


def adsr(start: Tensor, attack: Tensor, decay: Tensor, length: Tensor, *, num_samples: int) -> Tensor:
    r"""Piecewise linear envelope: 0 to 1 in `attack`, 1 to 0.6 in `decay`, then 0.6 to 0 (AudioPG, section 3.1).

    There is no held sustain: the release takes what is left of the event.

    Args:
        start: Samples from the event's onset to the first sample of the result, int64, shape `(batch,)`; negative
            when the event begins later.
        attack: In samples, need not be whole, shape `(batch,)`; above 0.
        decay: In samples, shape `(batch,)`; above 0.
        length: Length of the whole event in samples, shape `(batch,)`; more than attack and decay together.
        num_samples: Length of the result.

    Returns:
        float32 in [0, 1], shape `(batch, num_samples)`; 0 outside the event.

    Example:
        >>> samples = lambda x: torch.tensor([x])
        >>> tenths = 10 * adsr(samples(0), samples(2.0), samples(2.0), samples(7), num_samples=8)
        >>> tenths.round().int().tolist()
        [[0, 5, 10, 8, 6, 4, 2, 0]]
    """
    start, attack, decay, length = (x.float()[:, None] for x in (start, attack, decay, length))
    time = start + torch.arange(num_samples, device=start.device, dtype=torch.float32)
    fall = (1 - RELEASE_LEVEL) / decay
    # A few samples may be rounded to less than attack and decay: no release is left then, not a rising one.
    fade = RELEASE_LEVEL / (length - attack - decay).clamp(min=1e-3)
    decaying = (time - attack).mul_(-fall).add_(1)  # exactly 1 at the peak
    releasing = (time - length).mul_(-fade)
    falling = torch.where(time < attack + decay, decaying, releasing)
    # Outside the event the attack or the release is negative.
    return torch.minimum(falling, time.div_(attack), out=falling).clamp_(min=0.0)


def strikes(start: Tensor, period: Tensor, decay: Tensor, *, num_samples: int) -> Tensor:
    r"""Level of a sound that is struck again and again: $e^{-(t \bmod T) / \tau}$.

    Args:
        start: Samples from the first strike to the first sample of the result, int64, shape `(batch,)`.
        period: T in samples, need not be whole, shape `(batch,)`.
        decay: $\tau$ in samples, the time in which the level falls to 1/e; shape `(batch,)`.
        num_samples: Length of the result.

    Returns:
        float32 in (0, 1], shape `(batch, num_samples)`.

    Example:
        >>> level = strikes(torch.tensor([0]), torch.tensor([3.0]), torch.tensor([1.0]), num_samples=5)
        >>> (1000 * level).round().int().tolist()
        [[1000, 368, 135, 1000, 368]]
    """
    since = torch.remainder(start.double(), period.double()).float()[:, None]  # since a strike, however late the start
    time = since + torch.arange(num_samples, device=start.device, dtype=torch.float32)
    return torch.remainder(time, period.float()[:, None]).div_(-decay.float()[:, None]).exp_()
