import numpy as np
import pytest
import torch

from audiopg.data_scripts.patterns import PATTERNS, get_patterns
from audiopg.data_scripts.patterns.time_frequency import KINDS, mel_to_hz

SIZE = 160
QUIET = {"noise": -200, "level": 0, "layers": 1, "start": -1, "length": 10, "decay": 0}


def rows_of(hertz, size=SIZE, highest=8000):
    """Rows, counted from the top, of frequencies on O'Shaughnessy's mel scale."""
    mel = 2595 * np.log10(1 + np.asarray(hertz) / 700) / (2595 * np.log10(1 + highest / 700))
    return (1 - mel) * size - 0.5


def drawn(kind, **numbers):
    image = get_patterns("spectrogram_like", kind=[kind], **{**QUIET, **numbers}).images(0, [0], SIZE)[0]
    assert torch.equal(image[0], image[1])
    return image[0].numpy()


def test_harmonics_lie_at_multiples_of_the_fundamental_from_the_bottom_up():
    image = drawn("harmonic comb", f0=500, harmonics=6, glide=0, vibrato_depth=0, rolloff=1, line_width=1)
    profile = image[:, SIZE // 2]
    peaks = [row for row in range(1, SIZE - 1) if profile[row - 1] < profile[row] > profile[row + 1]]
    expected = np.sort(rows_of(500 * np.arange(1, 7)))
    np.testing.assert_allclose(peaks, expected, atol=0.75)
    levels = -80 * (1 - profile[peaks][::-1])
    np.testing.assert_allclose(levels, -20 * np.log10(np.arange(1, 7)), atol=1.5)  # up to half a row beside the peak


def test_a_comb_glides_upwards_to_the_right():
    image = drawn("harmonic comb", f0=400, harmonics=1, glide=0.5, vibrato_depth=0, line_width=1)
    rows = image.argmax(axis=0)
    time = (np.arange(SIZE) + 0.5) / SIZE * 2.24
    expected = rows_of(400 * 2 ** (0.5 * (time - time[-1] / 2)))
    np.testing.assert_allclose(rows, expected, atol=0.6)
    assert rows[-1] < rows[0]


def test_chirps_rise_at_their_slope_and_come_again_after_their_period():
    image = drawn("chirp", chirp_start=0.1, chirp_slope=0.5, chirp_bend=0, chirp_period=1.12, phase=0)
    rows = image.argmax(axis=0)
    half = SIZE // 2  # 1.12 s
    np.testing.assert_allclose(image[:, :half], image[:, half:], rtol=0, atol=1e-5)
    height = 1 - (rows[:half] + 0.5) / SIZE
    np.testing.assert_allclose(height, 0.1 + 0.5 * (np.arange(half) + 0.5) / SIZE * 2.24, atol=0.6 / SIZE)


def test_blows_are_broadband_and_die_away():
    image = drawn("onset", onset_period=1.12, phase=0, onset_decay=60, onset_damping=0, onset_tilt=0)
    level = -80 * (1 - image.mean(axis=0))
    half = SIZE // 2
    assert level[half] - level[half - 1] > 30
    fall = np.polyfit((np.arange(half) + 0.5) / SIZE * 2.24, level[:half], 1)[0]
    assert fall == pytest.approx(-30, abs=3)  # half of onset_decay at every height without damping


def test_bands_lie_at_their_height_and_swing_at_their_rate():
    image = drawn("modulated band", band_centre=0.75, band_width=0.1, modulation_rate=5 / 2.24, modulation_depth=30)
    across, along = image.mean(axis=1), image.mean(axis=0)
    assert 1 - np.average(np.arange(SIZE) + 0.5, weights=across) / SIZE == pytest.approx(0.75, abs=0.02)
    assert np.abs(np.fft.rfft(along - along.mean())).argmax() == 5


def test_noise_has_its_mean_power_and_the_distribution_of_power_in_one_cell():
    images = get_patterns("spectrogram_like", noise=-40, level=-200, floor=-80).images(0, range(4), 128)[:, 0]
    power = 10 ** (-8 * (1 - images.double()))
    assert float(power.mean()) == pytest.approx(1e-4, rel=0.03)
    assert float((power < 1e-4).double().mean()) == pytest.approx(1 - np.exp(-1), abs=0.01)


def test_classes_are_the_kinds_of_layers():
    patterns = PATTERNS["spectrogram_like"]
    classes, images = patterns.classes(0, range(20)), patterns.images(0, range(20), 64)
    assert len(set(classes.tolist())) > 3
    for index, number in enumerate(classes.tolist()):
        alone = get_patterns("spectrogram_like", kind=[KINDS[number]]).images(0, [index], 64)[0]
        assert torch.equal(images[index], alone)


def test_the_mel_scale_is_that_of_1000_hz_at_1000_mel():
    hertz = mel_to_hz(torch.tensor([0.0, 1000.0, 2595 * np.log10(2)], dtype=torch.float64))
    np.testing.assert_allclose(hertz.numpy(), [0, 1000, 700], rtol=1e-4)
