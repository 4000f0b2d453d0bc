r"""Mixtures: a clip is heard together with another, and is itself what has to be told.

Clips of the stream are paired, 2k with 2k + 1, and each is heard through the other:

$$y_i = x_i + \sqrt{\frac{P(x_i)}{P(x_j)} 10^{-s_i / 10}}\; x_j, \qquad j = i \oplus 1,$$

with $P$ the mean power of a clip and $s_i$, in dB, drawn for each clip by its index. What is redrawn, what a teacher
sees and the factors that heads name are those of $x_i$ alone, the louder of the two where $s_i > 0$. So M2D-X (Niizumi
et al., "Masked Modeling Duo: Towards a Universal Audio Pre-training Framework", 2024) mixes background into what its
student hears and none into its targets. No clip is rendered that would not have been.
"""

import torch
from torch import Tensor

from audiopg.data_scripts.counter_random import uniform
from audiopg.training.objectives.recipe import MixturesRecipe


def mix_neighbours(waveforms: Tensor, snr_db: Tensor) -> Tensor:
    """Each clip with its neighbour behind it.

    Args:
        waveforms: Clips, an even number of them, in pairs, shape `(batch, samples)`.
        snr_db: How far the mean power of each is above that of its neighbour, in dB, shape `(batch,)`.

    Returns:
        Shape `(batch, samples)`; clips keep their level. A silent neighbour stays silent.

    Raises:
        ValueError: if one clip has no neighbour.

    Example:
        >>> mix_neighbours(torch.tensor([[1.0, -1.0], [2.0, 2.0]]), torch.tensor([0.0, 20.0]))
        tensor([[2.0000, 0.0000],
                [2.2000, 1.8000]])
    """
    if len(waveforms) % 2:
        raise ValueError(
            f"Clips are mixed in pairs, got {len(waveforms)} at a time: choose a batch_size that is even in every "
            "process, and an even micro_batch_size."
        )
    neighbours = waveforms.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)
    own, other = (clips.square().mean(dim=-1) for clips in (waveforms, neighbours))
    gain = torch.where(other > 0, own / other.clamp(min=1e-20) * 10 ** (-snr_db / 10), 0.0).sqrt()
    return waveforms + gain[:, None] * neighbours


def mixed(recipe: MixturesRecipe, seed: int, examples: range, waveforms: Tensor) -> Tensor:
    """What is heard of clips: a function of seed and index.

    Args:
        recipe: How loud the other clip is.
        seed: Of the run.
        examples: Which clips; the first of them is even.
        waveforms: Of these, shape `(batch, samples)`.

    Returns:
        Shape `(batch, samples)`.

    Raises:
        ValueError: as `mix_neighbours`, or if the first clip is the second of a pair.

    Example:
        >>> mixed(MixturesRecipe(), 0, range(1, 3), torch.zeros(2, 8))
        Traceback (most recent call last):
        ...
        ValueError: Clips are mixed in pairs, got 2 at a time from clip 1 on: choose a batch_size that is even in...
    """
    if examples.start % 2:
        raise ValueError(
            f"Clips are mixed in pairs, got {len(examples)} at a time from clip {examples.start} on: choose a "
            "batch_size that is even in every process, and an even micro_batch_size."
        )
    indices = torch.arange(examples.start, examples.stop, device=waveforms.device)
    low, high = recipe.snr_db
    snr_db = low + (high - low) * uniform(seed, indices, "mixtures", ()).float()
    return mix_neighbours(waveforms, snr_db)
