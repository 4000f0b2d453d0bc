"""Formants, resonances that move while an event sounds: where they are, and what they leave of a partial."""

import torch
from torch import Tensor


def glide(points: Tensor, num_points: Tensor, position: Tensor) -> Tensor:
    r"""Tracks that pass through points at equal distances in time and rest for a moment at each.

    Between points $p_j$ and $p_{j+1}$ a track is at $p_j + (p_{j+1} - p_j)\, v^2 (3 - 2 v)$, where v runs from 0 to 1:
    the cubic whose slope is 0 at both. Tracks that keep their order at the points keep it between them.

    Args:
        points: Shape `(batch, tracks, points)`.
        num_points: How many of them count, int64, at least 1, shape `(batch,)`; a track of one point does not move.
        position: Where to look, from 0 at the first point to 1 at the last, shape `(batch, positions)`.

    Returns:
        Of the dtype of `points`, shape `(batch, tracks, positions)`.

    Example:
        >>> points, when = torch.tensor([[[500.0, 700.0, 300.0]]]), torch.tensor([[0.0, 0.25, 0.5, 1.0]])
        >>> glide(points, torch.tensor([3]), when).tolist()
        [[[500.0, 600.0, 700.0, 300.0]]]
    """
    last = (num_points - 1)[:, None]
    along = position * last
    first = along.floor()
    here = first.to(torch.int64)
    there = torch.minimum(here + 1, last)
    begin, end = (points.gather(2, j[:, None].expand(-1, points.shape[1], -1)) for j in (here, there))
    v = (along - first).to(points.dtype)[:, None]
    return torch.lerp(begin, end, v * v * (3 - 2 * v))


def resonance(frequency: Tensor, centre: Tensor, bandwidth: Tensor, level: Tensor) -> Tensor:
    r"""What resonances side by side leave of a partial: the sum of their magnitudes at its frequency.

    $g(f) = \sum_i a_i \left(1 + \left(\frac{f^2 - F_i^2}{f B_i}\right)^2\right)^{-1/2}$: formants in parallel, each
    with a level of its own (Klatt, 1980, "Software for a cascade/parallel formant synthesizer"). A summand is $|H(s)|$
    of the second-order band-pass $H(s) = a_i\, s B_i / (s^2 + s B_i + F_i^2)$ at $s = j f$: $a_i$ at its centre, half
    its power at two frequencies that are $B_i$ apart. No sampling rate matters, and no phase changes.

    Args:
        frequency: f in Hz, float64, shape `(batch, partials)`; below 0 as above.
        centre: $F_i$ in Hz, at several moments, float64, shape `(batch, formants, moments)`.
        bandwidth: $B_i$ in Hz, shape `(batch, formants)`.
        level: $a_i$, linear, shape `(batch, formants)`; 0 leaves a formant out.

    Returns:
        float32 of shape `(batch, partials, moments)`.

    Example:
        >>> one = torch.ones(1, 1, dtype=torch.float64)
        >>> frequency = torch.tensor([[0.0, 400.0, 500.0, 625.0]], dtype=torch.float64)
        >>> gain = resonance(frequency, 500 * one[..., None], 225 * one, one)
        >>> gain.square().flatten().round(decimals=3).tolist()
        [0.0, 0.5, 1.0, 0.5]
    """
    squared, inverse = frequency.square()[..., None].float(), 1 / frequency.abs().clamp(min=1e-3)[..., None]
    total = torch.zeros(*frequency.shape, centre.shape[2], dtype=torch.float32, device=frequency.device)
    for i in range(centre.shape[1]):
        detuning = squared - centre[:, None, i].square().float()
        detuning *= (inverse / bandwidth[:, i, None, None]).float()
        total.addcmul_(level[:, i, None, None].float(), detuning.square_().add_(1).rsqrt_())
    return total
