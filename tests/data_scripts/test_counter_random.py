import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import signal, stats

from audiopg.data_scripts.counter_random import normal, random_bits, uniform, white_noise

ODD_SEEDS = (0, 1, 42, -1, 2**63 - 1, -(2**63), 2**64 - 1, 0xDEADBEEFCAFEBABE)
GOLDEN = 0x9E3779B97F4A7C15


def splitmix64(state):
    """The output function of SplitMix64 in unbounded integers, as published."""
    z = state % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


def expected_bits(seed, index, name, *position):
    slot = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    counter = 0
    for coordinate in position:
        counter = counter * 65536 + coordinate
    clip = splitmix64(splitmix64(seed + GOLDEN) + index * GOLDEN)
    return splitmix64(clip + (counter + slot) * GOLDEN)


def expected_noise(key, num_samples):
    """The 32-bit hash sample by sample, in unbounded integers."""
    low, high = key % 2**32, key % 2**64 >> 32
    samples = []
    for position in range(num_samples):
        x = (position // 2 * 0x9E3779B9 + low) % 2**32
        x = ((x ^ (x >> 16)) * 0x21F0AAAD + high) % 2**32
        x = (x ^ (x >> 15)) * 0x735A2D97 % 2**32
        x ^= x >> 15
        half = x >> 16 if position % 2 else x % 2**16
        samples.append(((half ^ 0x8000) - 0x8000 + 0.5) / 2**15)
    return samples


def unsigned(bits):
    return bits.numpy().view(np.uint64)


def keys(num_rows, seed=0):
    return random_bits(seed, torch.arange(num_rows), "noise")


def correlation(x, y):
    return np.corrcoef(np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64))[0, 1]


@pytest.mark.parametrize("state", [0, 1234567])
def test_the_oracle_is_the_published_splitmix64(state):
    # The first outputs of java.util.SplittableRandom and of Vigna's splitmix64.c.
    published = {0: 0xE220A8397B1DCDAF, 1234567: 6457827717110365317}
    assert splitmix64(state + GOLDEN) == published[state]


@pytest.mark.parametrize("seed", ODD_SEEDS)
def test_bits_are_splitmix64_of_seed_index_and_name(seed):
    indices = [0, 1, 7, 2**31, 2**40 + 3, 2**63 - 1]
    bits = unsigned(random_bits(seed, torch.tensor(indices), "f0"))
    assert bits.tolist() == [expected_bits(seed, index, "f0") for index in indices]


def test_bits_of_every_position_are_splitmix64_of_its_coordinates():
    bits = unsigned(random_bits(5, torch.tensor([3, 9]), "partial_gain", (2, 3)))
    expected = [[[expected_bits(5, i, "partial_gain", a, b) for b in range(3)] for a in range(2)] for i in (3, 9)]
    assert bits.tolist() == expected


def test_uniform_numbers_are_the_upper_53_bits():
    indices = torch.arange(200)
    expected = [(expected_bits(-7, i, "cutoff") >> 11) / 2**53 for i in range(200)]
    assert uniform(-7, indices, "cutoff").tolist() == expected


@pytest.mark.parametrize("num_samples", [1, 2, 257, 1024])
def test_white_noise_is_the_32_bit_hash_of_key_and_position(num_samples):
    odd_keys = torch.tensor([0, 1, -1, 2**63 - 1, -(2**63), 0x80000000, 0x7FFFFFFF_80000000, -123456789012345678])
    noise = white_noise(odd_keys, num_samples)
    assert noise.dtype == torch.float32
    assert noise.tolist() == [expected_noise(key, num_samples) for key in odd_keys.tolist()]


def test_white_noise_of_a_whole_clip_is_the_hash_at_its_end_too():
    key = keys(1)
    assert white_noise(key, 163840)[0, -9:].tolist() == expected_noise(int(key), 163840)[-9:]


def test_a_clip_has_the_same_bits_in_any_batch_and_order():
    indices = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    whole = random_bits(3, torch.arange(50), "onset", (5,))
    assert torch.equal(random_bits(3, indices, "onset", (5,)), whole[indices])
    assert all(torch.equal(random_bits(3, indices[i : i + 1], "onset", (5,))[0], whole[indices[i]]) for i in range(50))


def test_noise_of_a_row_is_the_same_in_any_batch():
    rows = keys(6)
    together = white_noise(rows, 999)
    assert all(torch.equal(white_noise(rows[i : i + 1], 999)[0], together[i]) for i in range(6))


@pytest.mark.parametrize(("short", "long"), [((3,), (15,)), ((2, 4), (5, 4)), ((2, 4), (2, 15)), ((0,), (2,))])
def test_a_longer_axis_continues_a_shorter_one(short, long):
    indices = torch.arange(4)
    part = random_bits(0, indices, "gain", long)[(slice(None), *map(slice, short))]
    assert torch.equal(random_bits(0, indices, "gain", short), part)


def test_longer_noise_continues_shorter_noise():
    assert torch.equal(white_noise(keys(3), 5000)[:, :1001], white_noise(keys(3), 1001))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_any_integer_type_of_the_indices_gives_the_same(dtype):
    indices = torch.arange(200)
    assert torch.equal(random_bits(1, indices.to(dtype), "f0"), random_bits(1, indices, "f0"))


@pytest.mark.parametrize("seed", [np.int64(3), np.int32(3), np.uint64(3)])
def test_a_numpy_seed_is_the_same_seed(seed):
    assert torch.equal(random_bits(seed, torch.arange(4), "f0"), random_bits(3, torch.arange(4), "f0"))


def test_another_process_draws_the_same_bytes():
    program = (
        "import hashlib, torch\n"
        "from audiopg.data_scripts.counter_random import random_bits, white_noise\n"
        "bits = random_bits(11, torch.arange(64), 'noise', (3,))\n"
        "print(hashlib.sha256(bits.numpy().tobytes() + white_noise(bits[:, 0], 777).numpy().tobytes()).hexdigest())\n"
    )
    bits = random_bits(11, torch.arange(64), "noise", (3,))
    here = hashlib.sha256(bits.numpy().tobytes() + white_noise(bits[:, 0], 777).numpy().tobytes()).hexdigest()
    there = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert there.stdout.strip() == here


def test_no_two_of_many_draws_are_equal():
    bits = [random_bits(s, torch.arange(500), name, (20,)) for s in (0, 1, -1) for name in ("f0", "onset")]
    assert torch.cat(bits).unique().numel() == 6 * 500 * 20


def test_neighbouring_seeds_names_indices_and_positions_are_uncorrelated():
    numbers = {
        (seed, name): uniform(seed, torch.arange(4001), name, (4,)).numpy()
        for seed in (0, 1, 2**32)
        for name in ("f0", "f1", "onset")
    }
    columns = [u[:4000, j] for u in numbers.values() for j in range(4)] + [u[1:, 0] for u in numbers.values()]
    correlations = np.corrcoef(columns)
    # 45 columns of 4 000: one correlation has a standard deviation of 0.016, the largest of 990 lies near 0.05.
    assert np.abs(correlations - np.eye(len(columns))).max() < 0.08


def test_every_bit_is_set_half_of_the_time():
    bits = unsigned(random_bits(0, torch.arange(20000), "f0"))
    share = [((bits >> np.uint64(j)) & np.uint64(1)).mean() for j in range(64)]
    assert np.abs(np.array(share) - 0.5).max() < 0.02


@pytest.mark.parametrize("name", ["f0", "onset"])
def test_uniform_numbers_are_uniform(name):
    u = uniform(0, torch.arange(20000), name).numpy()
    assert u.min() >= 0
    assert u.max() < 1
    assert stats.kstest(u, "uniform").pvalue > 0.01


def test_white_noise_is_uniform_in_the_open_interval():
    noise = white_noise(keys(4), 100_000).double().numpy()
    assert np.abs(noise).max() < 1
    assert np.abs(noise).max() > 0.9999
    assert abs(noise.mean()) < 0.003
    assert abs(noise.var() - 1 / 3) < 0.002
    assert all(stats.kstest(row, "uniform", args=(-1, 2)).pvalue > 0.01 for row in noise)


def test_white_noise_reaches_every_16_bit_level_alike():
    levels = ((white_noise(keys(1), 2**20)[0].double() * 2**15 - 0.5).long() + 2**15).numpy()
    counts = np.bincount(levels, minlength=2**16)
    assert counts.size == 2**16
    assert 0.001 < stats.chisquare(counts.reshape(256, 256).sum(1)).pvalue < 0.999
    assert 0.001 < stats.chisquare(counts.reshape(256, 256).sum(0)).pvalue < 0.999


def test_white_noise_has_a_flat_spectrum():
    _, density = signal.welch(white_noise(keys(8), 2**17).numpy(), fs=2.0, nperseg=256, detrend=False)
    # Variance 1/3 over a band of width 1; 8 rows of 1 023 half-overlapping segments leave about 1 %.
    np.testing.assert_allclose(density.mean(0)[1:-1], 1 / 3, rtol=0.06)


def test_white_noise_is_uncorrelated_with_itself_at_any_lag():
    noise = white_noise(keys(1), 2**17)[0].double().numpy()
    power = np.abs(np.fft.rfft(noise, 2**18)) ** 2
    autocorrelation = np.fft.irfft(power)[: 2**16] / (noise**2).sum()
    assert autocorrelation[0] == pytest.approx(1)
    # A standard deviation of 0.0028; the largest of 65 535 lies near 4.3 of them.
    assert np.abs(autocorrelation[1:]).max() < 0.018


def test_noise_of_different_rows_is_uncorrelated_at_any_shift():
    # Lower halves one increment apart: without the upper halves these rows would be shifted copies.
    related = (keys(5, seed=1) >> 32 << 32) + torch.arange(5) * 0x9E3779B9 % 2**32
    rows = torch.cat([keys(6), related])
    spectra = np.fft.rfft(white_noise(rows, 2**15).double().numpy(), 2**16)
    cross = [np.abs(np.fft.irfft(spectra[i] * spectra[j].conj())).max() for i in range(len(rows)) for j in range(i)]
    assert max(cross) / (2**15 / 3) < 0.04


def test_even_and_odd_samples_which_share_a_hash_are_uncorrelated():
    noise = white_noise(keys(1), 2**18)[0]
    assert abs(correlation(noise[::2], noise[1::2])) < 0.01
    assert abs(correlation(noise[::2].abs(), noise[1::2].abs())) < 0.01


@pytest.mark.parametrize("seed", [2**64, -(2**63) - 1, 10**30])
def test_a_seed_beyond_64_bits_is_refused(seed):
    with pytest.raises(ValueError, match=r"64 bits, got -?\d+; choose one between"):
        random_bits(seed, torch.arange(1), "f0")


@pytest.mark.parametrize("size", [(65537,), (2, 70000)])
def test_an_axis_beyond_the_counter_is_refused(size):
    with pytest.raises(ValueError, match="65536 elements at most"):
        random_bits(0, torch.arange(1), "f0", size)


def test_an_axis_as_long_as_the_counter_is_accepted():
    assert random_bits(0, torch.arange(1), "f0", (65536,))[0].unique().numel() == 65536


@pytest.mark.parametrize("seed", [0.5, "3", None])
def test_a_seed_that_is_no_integer_is_refused(seed):
    with pytest.raises(TypeError, match="integer"):
        random_bits(seed, torch.arange(1), "f0")


def test_normal_numbers_are_those_of_scipy_at_the_same_uniform_numbers():
    indices = torch.arange(50_000)
    z = normal(3, indices, "z")
    expected = stats.norm.ppf(uniform(3, indices, "z").numpy() + 2.0**-54)
    np.testing.assert_allclose(z.numpy(), expected, rtol=1e-9, atol=1e-12)
    assert stats.kstest(z.numpy(), "norm").pvalue > 0.01
    assert torch.equal(normal(3, indices[7:9], "z"), z[7:9])
    assert torch.special.ndtri(torch.tensor(2.0**-54, dtype=torch.float64)).isfinite()
