"""Random numbers as a pure function of (seed, index, slot): no generator, no state, the same on every device.

A *slot* is the name of what is drawn ("f0", "cutoff"): adding a parameter to a preset never changes another one's
numbers. Everything but `normal` is integer arithmetic modulo 2^64 or 2^32 and exactly rounded IEEE operations, so
equal arguments give equal bits whatever the batch, the process or the machine.
"""

import hashlib
import math
import operator
from functools import cache, lru_cache

import torch
from torch import Tensor


def _wrap(value: int, bits: int) -> int:
    """The two's-complement integer of `bits` bits that is congruent to `value`, as PyTorch's signed types want it."""
    return (value + (1 << (bits - 1))) % (1 << bits) - (1 << (bits - 1))


# Weyl increment and finaliser of SplitMix64 (Steele, Lea & Flood, 2014).
_WEYL_64 = _wrap(0x9E3779B97F4A7C15, 64)
_MULTIPLIERS_64 = (_wrap(0xBF58476D1CE4E5B9, 64), _wrap(0x94D049BB133111EB, 64))
# A 32-bit Weyl increment, and multipliers of Wellons' low-bias 32-bit integer hash ("hash-prospector", 2018).
_WEYL_32 = _wrap(0x9E3779B9, 32)
_MULTIPLIERS_32 = (0x21F0AAAD, 0x735A2D97)
_MAX_AXIS = 1 << 16


def _xor_shift(x: Tensor, shift: int, bits: int) -> Tensor:
    """`x ^ (x >> shift)` with a logical shift: PyTorch's own copies the sign bit, which the mask removes."""
    return x ^ ((x >> shift) & ((1 << (bits - shift)) - 1))


def _xor_shift_(x: Tensor, shift: int, bits: int) -> Tensor:
    """`_xor_shift` in place: for many numbers, asking for memory costs more than the arithmetic."""
    return x.bitwise_xor_((x >> shift).bitwise_and_((1 << (bits - shift)) - 1))


def _mix(x: Tensor) -> Tensor:
    """The finaliser of SplitMix64: a bijection of 64-bit integers in which every input bit moves every output bit."""
    x = _xor_shift(x, 30, 64) * _MULTIPLIERS_64[0]
    x = _xor_shift(x, 27, 64) * _MULTIPLIERS_64[1]
    return _xor_shift(x, 31, 64)


@lru_cache(maxsize=16)
def _stream(seed: int) -> int:
    return int(_mix(torch.tensor(_wrap(seed, 64), device="cpu") + _WEYL_64))


@cache
def _slot(name: str) -> int:
    return _wrap(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little"), 64)


def random_bits(seed: int, indices: Tensor, name: str, size: tuple[int, ...] = ()) -> Tensor:
    """64 random bits for every element of a named quantity of every clip.

    Args:
        seed: Any integer of 64 bits.
        indices: Clip indices, int64, shape `(batch,)`.
        name: What is drawn. Different names give independent numbers.
        size: Shape of the quantity within one clip. A longer axis continues a shorter one: its first elements are
            the same.

    Returns:
        int64 of shape `(batch, *size)` on the device of `indices`.

    Raises:
        TypeError: if the seed is not an integer.
        ValueError: if the seed does not fit in 64 bits or an axis is longer than 65 536.

    Example:
        >>> random_bits(0, torch.tensor([7, 8]), "f0").tolist() == [
        ...     int(random_bits(0, torch.tensor([index]), "f0")) for index in (7, 8)
        ... ]
        True
    """
    seed = operator.index(seed)  # NumPy's integers would overflow below.
    if not -(1 << 63) <= seed < 1 << 64:
        raise ValueError(f"A seed is an integer of 64 bits, got {seed}; choose one between -2^63 and 2^64 - 1.")
    if any(length > _MAX_AXIS for length in size):
        raise ValueError(
            f"An axis may have {_MAX_AXIS} elements at most, got size {size}; draw it under several names."
        )
    counter = torch.zeros((), dtype=torch.int64, device=indices.device)
    for length in size:
        counter = counter[..., None] * _MAX_AXIS + torch.arange(length, device=indices.device)
    clip = _mix(indices.to(torch.int64) * _WEYL_64 + _stream(seed))
    return _mix(clip.view(-1, *[1] * len(size)) + (counter + _slot(name)) * _WEYL_64)


def uniform(seed: int, indices: Tensor, name: str, size: tuple[int, ...] = ()) -> Tensor:
    """Uniform numbers in [0, 1) with 53 bits, for a named quantity of every clip.

    Args:
        seed: Any integer of 64 bits.
        indices: Clip indices, int64, shape `(batch,)`.
        name: What is drawn.
        size: Shape of the quantity within one clip.

    Returns:
        float64 of shape `(batch, *size)`.

    Raises:
        TypeError, ValueError: as `random_bits`.

    Example:
        >>> uniform(0, torch.arange(2), "f0", (3,)).shape
        torch.Size([2, 3])
    """
    bits = random_bits(seed, indices, name, size)
    return ((bits >> 11) & ((1 << 53) - 1)).to(torch.float64) * 2.0**-53


def normal(seed: int, indices: Tensor, name: str, size: tuple[int, ...] = ()) -> Tensor:
    r"""Numbers of the standard normal distribution, for a named quantity of every clip.

    $z = \Phi^{-1}(u + 2^{-54})$ of the uniform numbers $u$ of that name: within 8.3 standard deviations, and as
    exact as the device's inverse of the normal distribution.

    Args:
        seed: Any integer of 64 bits.
        indices: Clip indices, int64, shape `(batch,)`.
        name: What is drawn.
        size: Shape of the quantity within one clip.

    Returns:
        float64 of shape `(batch, *size)`.

    Raises:
        TypeError, ValueError: as `random_bits`.

    Example:
        >>> z = normal(0, torch.arange(1000), "z", (8,))
        >>> round(float(z.mean()), 1), round(float(z.std()), 1)
        (0.0, 1.0)
    """
    return torch.special.ndtri(uniform(seed, indices, name, size) + 2.0**-54)


def white_noise(keys: Tensor, num_samples: int, first_pair: Tensor | None = None) -> Tensor:
    r"""Uniform white noise in (-1, 1), each sample a hash of (key, position) alone.

    $n_j = (h_j + 1/2) / 2^{15}$ with $h_j$ a 16-bit signed half of a 32-bit hash of `(key, j // 2)`. 16 bits are the
    resolution of a sound file, and one hash then serves two samples.

    Args:
        keys: int64 of random bits, one per row, shape `(batch,)`; see `random_bits`.
        num_samples: Length of the result.
        first_pair: Pair of samples that each row begins with, int64, shape `(batch,)`; row i begins with sample
            `2 * first_pair[i]`. Zeros by default.

    Returns:
        float32 of shape `(batch, num_samples)` on the device of `keys`; mean 0, variance 1/3.

    Example:
        >>> key = random_bits(0, torch.arange(1), "noise")
        >>> torch.equal(white_noise(key, 8)[:, :5], white_noise(key, 5))
        True
    """
    low, high = keys.to(torch.int32)[:, None], (keys >> 32).to(torch.int32)[:, None]
    words = torch.arange(math.ceil(num_samples / 2), dtype=torch.int32, device=keys.device)
    if first_pair is not None:
        words = words + first_pair.to(torch.int32)[:, None]
    words = words * _WEYL_32
    # The second half of the key enters between the rounds, or rows of related keys would be shifted copies.
    words = _xor_shift_(words + low, 16, 32).mul_(_MULTIPLIERS_32[0]).add_(high)
    words = _xor_shift_(words, 15, 32).mul_(_MULTIPLIERS_32[1])
    halves = _xor_shift_(words, 15, 32).view(torch.int16)[:, :num_samples]
    return halves.to(torch.float32).add_(0.5).mul_(2.0**-15)
