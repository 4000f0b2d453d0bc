"""Augmentation of batches of spectrograms. Every draw comes from a generator that is passed in.

Shapes: `input_values` (batch, frames, bands), `targets` (batch, classes), on any device; the generator is the CPU's.
"""

import math

import numpy as np
import torch
from torch import Tensor


def soft_targets(labels: Tensor, num_classes: int, smoothing: float = 0.0) -> Tensor:
    r"""Class numbers to probabilities, smoothed: $(1 - \epsilon) \, \mathrm{onehot} + \epsilon / K$.

    Args:
        labels: Shape `(batch,)`, whole numbers.
        num_classes: $K$.
        smoothing: $\epsilon$, the share that is spread over all classes.

    Returns:
        Shape `(batch, num_classes)`, float32.

    Example:
        >>> soft_targets(torch.tensor([1]), num_classes=2, smoothing=0.1)
        tensor([[0.0500, 0.9500]])
    """
    one_hot = torch.nn.functional.one_hot(labels, num_classes).float()
    return one_hot * (1 - smoothing) + smoothing / num_classes


def time_roll(input_values: Tensor, generator: torch.Generator) -> Tensor:
    """Turn each clip round in time by an amount of its own: what comes out at the end goes in at the start.

    Args:
        input_values: Shape `(batch, frames, bands)`.
        generator: Of the amounts, uniform over the clip.

    Returns:
        The same shape.

    Example:
        >>> clip = torch.arange(3.0).reshape(1, 3, 1)
        >>> time_roll(clip, torch.Generator().manual_seed(0)).flatten().tolist()
        [1.0, 2.0, 0.0]
    """
    batch, frames, _ = input_values.shape
    shifts = torch.randint(frames, (batch, 1), generator=generator)
    positions = (torch.arange(frames) - shifts) % frames
    return input_values.gather(1, positions.to(input_values.device)[:, :, None].expand_as(input_values))


def spec_augment(input_values: Tensor, generator: torch.Generator, *, time_mask: int, frequency_mask: int) -> Tensor:
    """Hide bands and stretches of time (Park et al. 2019, "SpecAugment", without its time warping).

    The masks are torchaudio's, each clip with its own; what is hidden becomes zero, the mean of standardised input.

    Args:
        input_values: Shape `(batch, frames, bands)`.
        generator: Of the masks.
        time_mask: Fewer frames than this are hidden; 0 hides none.
        frequency_mask: Fewer bands than this are hidden; 0 hides none.

    Returns:
        The same shape.
    """
    from torchaudio.functional import mask_along_axis_iid  # a machine may lack it, and a recipe need not mask

    seed = int(torch.randint(2**62, (), generator=generator))
    on_cuda = [input_values.device] if input_values.device.type == "cuda" else []
    masked = input_values[:, None]  # (batch, channel, frames, bands)
    with torch.random.fork_rng(devices=on_cuda):  # torchaudio draws from the global generator
        torch.manual_seed(seed)
        masked = mask_along_axis_iid(masked, time_mask, 0.0, axis=2)
        masked = mask_along_axis_iid(masked, frequency_mask, 0.0, axis=3)
    return masked[:, 0]


def mixup(input_values: Tensor, targets: Tensor, generator: torch.Generator, *, alpha: float) -> tuple[Tensor, Tensor]:
    r"""Blend each clip with another of the batch, and their targets alike (Zhang et al. 2018, "mixup").

    $x \leftarrow \lambda x + (1 - \lambda) x'$ with one $\lambda \sim \mathrm{Beta}(\alpha, \alpha)$ per batch.

    Args:
        input_values: Shape `(batch, frames, bands)`.
        targets: Shape `(batch, classes)`, floating point.
        generator: Of the partners and of the share.
        alpha: Of the Beta distribution, above 0.

    Returns:
        Both, mixed.

    Example:
        >>> clips, targets = torch.tensor([0.0, 1.0]).reshape(2, 1, 1), torch.eye(2)
        >>> mixed, soft = mixup(clips, targets, torch.Generator().manual_seed(0), alpha=1.0)
        >>> torch.allclose(mixed[:, 0, 0], soft[:, 1])
        True
    """
    partner, share = _draw_partners(len(input_values), alpha, generator)
    partner = partner.to(input_values.device)
    return (
        share * input_values + (1 - share) * input_values[partner],
        share * targets + (1 - share) * targets[partner],
    )


def cutmix(
    input_values: Tensor, targets: Tensor, generator: torch.Generator, *, alpha: float
) -> tuple[Tensor, Tensor]:
    r"""Replace a box of each clip by that of another, targets by area (Yun et al. 2019, "CutMix").

    Each side of the box is $\sqrt{1 - \lambda}$ of the spectrogram's, $\lambda \sim \mathrm{Beta}(\alpha,
    \alpha)$; its middle is uniform, and what of it lies outside is cut off before the area is taken.

    Args:
        input_values: Shape `(batch, frames, bands)`.
        targets: Shape `(batch, classes)`, floating point.
        generator: Of the partners, the share and the place.
        alpha: Of the Beta distribution, above 0.

    Returns:
        Both, mixed.
    """
    partner, share = _draw_partners(len(input_values), alpha, generator)
    partner = partner.to(input_values.device)
    side = math.sqrt(1 - share)
    middles = torch.rand(2, generator=generator).tolist()
    (top, bottom), (left, right) = (
        _interval(size, side, middle) for size, middle in zip(input_values.shape[1:], middles, strict=True)
    )
    mixed = input_values.clone()
    mixed[:, top:bottom, left:right] = input_values[partner, top:bottom, left:right]
    kept = 1 - (bottom - top) * (right - left) / (input_values.shape[1] * input_values.shape[2])
    return mixed, kept * targets + (1 - kept) * targets[partner]


def mixup_or_cutmix(
    input_values: Tensor,
    targets: Tensor,
    generator: torch.Generator,
    *,
    mixup_alpha: float,
    cutmix_alpha: float,
    probability: float,
    switch_probability: float,
) -> tuple[Tensor, Tensor]:
    """One of the two for a whole batch, or neither.

    Args:
        input_values: Shape `(batch, frames, bands)`.
        targets: Shape `(batch, classes)`, floating point.
        generator: Of everything.
        mixup_alpha: As `mixup`; 0 rules it out.
        cutmix_alpha: As `cutmix`; 0 rules it out.
        probability: That a batch is mixed at all.
        switch_probability: That it is by `cutmix`, where both are possible.

    Returns:
        Both, mixed or as they were.
    """
    mixes, switches = torch.rand(2, generator=generator).tolist()
    if mixes >= probability or not (mixup_alpha or cutmix_alpha):
        return input_values, targets
    if cutmix_alpha and (not mixup_alpha or switches < switch_probability):
        return cutmix(input_values, targets, generator, alpha=cutmix_alpha)
    return mixup(input_values, targets, generator, alpha=mixup_alpha)


def _draw_partners(batch: int, alpha: float, generator: torch.Generator) -> tuple[Tensor, float]:
    """A permutation of the batch and a share from Beta(alpha, alpha)."""
    partner = torch.randperm(batch, generator=generator)
    # torch's own Beta distribution takes no generator.
    rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
    return partner, float(rng.beta(alpha, alpha))


def _interval(size: int, share: float, middle: float) -> tuple[int, int]:
    """Start and end of a stretch of `share * size` about `middle * size`, inside the size."""
    length, centre = round(share * size), int(middle * size)
    return max(0, centre - length // 2), min(size, centre - length // 2 + length)
