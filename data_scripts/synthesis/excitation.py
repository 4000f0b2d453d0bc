r"""Sources of sound in closed form: partials, frequency modulation, pulses, bands of noise. Functions of time.

Time is split as t = block + offset. A phase is taken modulo one cycle in float64 at each block and each offset, where
there are few, and added in float32, where there are many: exact to $10^{-6}$ however long the clip. A sum of sinusoids
then becomes a small matrix product, by the angle addition theorem, with two columns per partial.
"""

import math

import torch
from torch import Tensor

from audiopg.data_scripts.counter_random import white_noise

BLOCK = 64
"""Samples from one block to the next; levels of partials are told where blocks begin."""
_KNOT_SPACING = 0.5945
"""Knots of `band_noise` are this far apart, in reciprocal bandwidths: the half-power width of a cosine window."""


def _cycles_at_blocks(frequency: Tensor, start: Tensor, num_samples: int, sampling_rate: int) -> Tensor:
    """Phase in cycles, modulo one, at the start of every block.

    Args:
        frequency: In Hz, float64, shape `(batch, ...)`.
        start: Sample index of the first sample, int64, shape `(batch,)`.
        num_samples: Length; the last block may reach beyond it.
        sampling_rate: In Hz.

    Returns:
        float32 of shape `(batch, ..., blocks)`.
    """
    start = start.view(-1, *[1] * frequency.dim())
    blocks = start + BLOCK * torch.arange(math.ceil(num_samples / BLOCK), device=frequency.device)
    cycles = (frequency / sampling_rate)[..., None] * blocks
    return (cycles - cycles.floor()).float()


def _cycles_at_offsets(frequency: Tensor, sampling_rate: int) -> Tensor:
    """What the phase gains, modulo one cycle, at every offset within a block: float32, shape `(batch, ..., 64)`."""
    cycles = (frequency / sampling_rate)[..., None] * torch.arange(BLOCK, device=frequency.device)
    return (cycles - cycles.floor()).float()


def phase_in_cycles(frequency: Tensor, start: Tensor, *, num_samples: int, sampling_rate: int) -> Tensor:
    r"""Phase $f t$ of a steady oscillator in cycles, whole cycles removed at block starts.

    Args:
        frequency: In Hz, float64, shape `(batch,)`.
        start: Sample index of the first sample, int64, shape `(batch,)`; may be negative.
        num_samples: Length of the result.
        sampling_rate: In Hz.

    Returns:
        float32 in [0, 2), shape `(batch, num_samples)`.

    Example:
        >>> quarter = torch.tensor([4000.0], dtype=torch.float64)
        >>> phase_in_cycles(quarter, torch.tensor([1]), num_samples=4, sampling_rate=16000).tolist()
        [[0.25, 0.5, 0.75, 1.0]]
    """
    at_block = _cycles_at_blocks(frequency, start, num_samples, sampling_rate)
    at_offset = _cycles_at_offsets(frequency, sampling_rate)
    return (at_block[:, :, None] + at_offset[:, None, :]).flatten(1)[:, :num_samples]


def partial_sum(
    frequencies: Tensor,
    amplitudes: Tensor,
    phases: Tensor,
    start: Tensor,
    *,
    num_samples: int,
    sampling_rate: int,
    source: Tensor | None = None,
    levels: Tensor | None = None,
) -> Tensor:
    r"""Sum of sine partials (AudioPG, section 3.1): $x(t) = \sum_k a_k\, l_k(t) \sin(2 \pi (f_k t + \phi_k))$.

    Args:
        frequencies: In Hz, float64, shape `(sources, partials)`. Above the Nyquist frequency they alias.
        amplitudes: Linear, float32, same shape; 0 leaves a partial out.
        phases: In cycles, float64, same shape.
        start: Sample index of the first sample, int64, shape `(batch,)`.
        num_samples: Length of the result.
        sampling_rate: In Hz.
        source: Which source each row of the result shows, int64, shape `(batch,)`; row i shows source i by default.
        levels: $l_k$ at every 64th sample of the result, from its first to the first at or after its end, and linear
            between them; float32, shape `(batch, partials, blocks + 1)`. 1 throughout by default.

    Returns:
        float32 of shape `(batch, num_samples)`; its level is left alone, loudness belongs to the mixer.

    Raises:
        ValueError: if the first three differ in shape, or `levels` are not as many as there are blocks and one.

    Example:
        >>> one = torch.ones(1, 1)
        >>> f, start = one.double() * 4000, torch.tensor([0])
        >>> x = partial_sum(f, one, 0 * f, start, num_samples=2, sampling_rate=16000)
        >>> x.round(decimals=4).tolist()
        [[0.0, 1.0]]
    """
    if not frequencies.shape == amplitudes.shape == phases.shape:
        shapes = [tuple(x.shape) for x in (frequencies, amplitudes, phases)]
        raise ValueError(f"frequencies, amplitudes and phases have one shape, (batch, partials); got {shapes}.")
    source = torch.arange(len(frequencies), device=frequencies.device) if source is None else source
    at_block = _cycles_at_blocks(frequencies[source], start, num_samples, sampling_rate)
    at_block = (at_block + phases.float()[source, :, None]) * (2 * math.pi)
    at_offset = _cycles_at_offsets(frequencies, sampling_rate) * (2 * math.pi)
    # sin(b + o) = sin b cos o + cos b sin o
    rotations = torch.cat([at_block.sin(), at_block.cos()], dim=1)
    basis = torch.cat([at_offset.cos(), at_offset.sin()], dim=1) * amplitudes.repeat(1, 2)[..., None]
    if levels is not None:  # as the block begins, and what is gained up to the next times the share of it that is over
        expected = (len(at_block), at_block.shape[1], at_block.shape[2] + 1)
        if levels.shape != expected:
            raise ValueError(
                f"levels have the shape (batch, partials, blocks + 1), {expected}; got {tuple(levels.shape)}."
            )
        levels, share = levels.repeat(1, 2, 1), torch.arange(BLOCK, device=basis.device) / BLOCK
        rotations = torch.cat([rotations * levels[:, :, :-1], rotations * levels.diff(dim=2)], dim=1)
        basis = torch.cat([basis, basis * share], dim=1)
    return torch.bmm(rotations.transpose(1, 2), basis[source]).flatten(1)[:, :num_samples]


def frequency_modulation(
    f0: Tensor, index: Tensor, ratio: Tensor, start: Tensor, *, num_samples: int, sampling_rate: int
) -> Tensor:
    r"""Sine carrier, its phase modulated by a sine (Chowning, 1973; AudioPG, section 3.1).

    $x(t) = \sin(2 \pi f_0 t + \beta \sin(2 \pi r f_0 t))$

    Args:
        f0: Carrier frequency in Hz, float64, shape `(batch,)`.
        index: $\beta$, peak phase deviation in radians, shape `(batch,)`.
        ratio: r, modulator over carrier frequency, float64, shape `(batch,)`.
        start: Sample index of the first sample, int64, shape `(batch,)`.
        num_samples: Length of the result.
        sampling_rate: In Hz.

    Returns:
        float32 in [-1, 1], shape `(batch, num_samples)`.

    Example:
        >>> f0 = torch.tensor([1000.0], dtype=torch.float64)
        >>> x = frequency_modulation(f0, 0 * f0, f0 / f0, torch.tensor([4]), num_samples=1, sampling_rate=16000)
        >>> x.round(decimals=4).tolist()
        [[1.0]]
    """
    grid = {"num_samples": num_samples, "sampling_rate": sampling_rate}
    modulator = phase_in_cycles(f0 * ratio, start, **grid).mul_(2 * math.pi).sin_()
    carrier = phase_in_cycles(f0, start, **grid).mul_(2 * math.pi)
    return carrier.addcmul_(modulator, index.float()[:, None]).sin_()


def modulation_sidebands(index: Tensor, num_sidebands: int, largest_index: float) -> Tensor:
    r"""Amplitudes of the spectral lines of `frequency_modulation`: $J_n(\beta)$ for n from -N to N (Jacobi-Anger).

    $\sin(\theta + \beta \sin \phi) = \sum_n J_n(\beta) \sin(\theta + n \phi)$. The Bessel functions are the Fourier
    coefficients of one period of $e^{i \beta \sin \phi}$, which a short transform gives to machine precision.

    Args:
        index: $\beta$ in radians, float64, shape `(batch,)`.
        num_sidebands: N, sidebands on either side of the carrier.
        largest_index: The largest $\beta$ that can occur; it sets the length of the transform.

    Returns:
        float64 of shape `(batch, 2 N + 1)`.

    Example:
        >>> modulation_sidebands(torch.tensor([1.0], dtype=torch.float64), 1, 1.0).round(decimals=4).tolist()
        [[-0.4401, 0.7652, 0.4401]]
    """
    length = 2 * (num_sidebands + math.ceil(largest_index)) + 64  # what folds back is negligible
    phi = 2 * math.pi / length * torch.arange(length, device=index.device, dtype=torch.float64)
    deviation = index[:, None] * phi.sin()
    coefficients = torch.fft.fft(torch.complex(deviation.cos(), deviation.sin()), norm="forward").real
    return torch.cat([coefficients[:, length - num_sidebands :], coefficients[:, : num_sidebands + 1]], dim=1)


def sawtooth(cycles: Tensor) -> Tensor:
    r"""Sawtooth with sharp edges, which alias: $2 (c - \lfloor c + 1/2 \rfloor)$ of a phase c in cycles.

    Args:
        cycles: Phase in cycles, any shape.

    Returns:
        In [-1, 1], of the same shape.

    Example:
        >>> sawtooth(torch.tensor([0.0, 0.25, 0.5, 0.75])).tolist()
        [0.0, 0.5, -1.0, -0.5]
    """
    return 2 * (cycles - torch.floor(cycles + 0.5))


def square(cycles: Tensor) -> Tensor:
    r"""Square wave with sharp edges, which alias: the sign of $\sin(2 \pi c)$ of a phase c in cycles.

    The sign is read off the phase itself, so that every device agrees on it at the edges.

    Args:
        cycles: Phase in cycles, any shape.

    Returns:
        -1, 0 or 1, of the same shape.

    Example:
        >>> square(torch.tensor([0.0, 0.25, 0.5, 0.75])).tolist()
        [0.0, 1.0, 0.0, -1.0]
    """
    halves = 2 * (cycles - torch.floor(cycles))
    return torch.sign(halves * (1 - halves))


def pulse_partials(is_square: Tensor, num_partials: int) -> Tensor:
    r"""Fourier series of `sawtooth` and `square`: amplitudes of $\sin(2 \pi k c)$, k = 1, 2, ...

    Sawtooth: $\frac{2}{\pi} \frac{(-1)^{k+1}}{k}$. Square: $\frac{4}{\pi k}$ for odd k, 0 for even k. Summed up to the
    Nyquist frequency they give the band-limited pulses.

    Args:
        is_square: Which waveform, bool, shape `(batch,)`.
        num_partials: How many partials.

    Returns:
        float32 of shape `(batch, num_partials)`.

    Example:
        >>> (pulse_partials(torch.tensor([False, True]), 3) * 3 * math.pi).round().tolist()
        [[6.0, -3.0, 2.0], [12.0, 0.0, 4.0]]
    """
    k = torch.arange(1, num_partials + 1, device=is_square.device)
    odd = (k % 2 == 1).float()
    return torch.where(is_square[:, None], 2 * odd, 2 * odd - 1) * (2 / math.pi / k)


def band_noise(
    centre: Tensor, bandwidth: Tensor, keys: Tensor, start: Tensor, *, num_samples: int, sampling_rate: int
) -> Tensor:
    r"""Noise in a band: two slow noises on a carrier and on its quadrature (Rice, 1944).

    $x(t) = a(t) \cos(2 \pi f_c t) - b(t) \sin(2 \pi f_c t)$. Both noises are drawn at knots $T = 0.5945 / B$ apart and
    joined by $a(t) = a_j \cos(\pi u / 2) + a_{j+1} \sin(\pi u / 2)$, $u = t / T - j$, so that the variance is the same
    between the knots as at them, and the power at $f_c \pm B / 2$ is half of that at the centre. Like everything here
    it is a function of time alone: no filter has to run in.

    Args:
        centre: $f_c$ in Hz, float64, shape `(batch,)`.
        bandwidth: B in Hz, float64, shape `(batch,)`; above 0.59 times the sampling rate it has no effect, the noise
            is white then. What reaches beyond the Nyquist frequency folds back.
        keys: int64 of random bits, shape `(batch,)`.
        start: Sample index of the first sample, int64, shape `(batch,)`; may be negative.
        num_samples: Length of the result.
        sampling_rate: In Hz.

    Returns:
        float32 of shape `(batch, num_samples)`; mean 0, variance 1/3.

    Example:
        >>> from audiopg.data_scripts.counter_random import random_bits
        >>> one, key = torch.ones(1, dtype=torch.float64), random_bits(0, torch.arange(1), "band")
        >>> grid = {"num_samples": 8, "sampling_rate": 16000}
        >>> x = band_noise(1000 * one, 300 * one, key, torch.tensor([0]), **grid)
        >>> y = band_noise(1000 * one, 300 * one, key, torch.tensor([3]), **grid)
        >>> torch.allclose(x[:, 3:], y[:, :5], atol=1e-5)
        True
    """
    spacing = (_KNOT_SPACING * sampling_rate / bandwidth).clamp(min=1.0)[:, None]
    blocks = start[:, None] + BLOCK * torch.arange(math.ceil(num_samples / BLOCK), device=start.device)
    at_block = blocks / spacing
    first = at_block.floor()
    at_offset = torch.arange(BLOCK, device=start.device) / spacing
    position = (at_block - first).float()[:, :, None] + at_offset.float()[:, None, :]
    whole = position.floor()
    knot = ((first - first[:, :1]).to(torch.int64)[:, :, None] + whole.to(torch.int64)).flatten(1)[:, :num_samples]
    angle = (position - whole).flatten(1)[:, :num_samples].mul_(math.pi / 2)
    # Knots are a sample apart at least.
    drawn = white_noise(keys, 2 * (num_samples + BLOCK + 2), first[:, 0].to(torch.int64)).unflatten(1, (-1, 2))
    rising, falling = angle.sin(), angle.cos()
    slow = [
        component.gather(1, knot).mul_(falling).addcmul_(component.gather(1, knot + 1), rising)
        for component in drawn.unbind(2)
    ]
    carrier = phase_in_cycles(centre, start, num_samples=num_samples, sampling_rate=sampling_rate).mul_(2 * math.pi)
    return slow[0].mul_(carrier.cos()).sub_(slow[1].mul_(carrier.sin()))
