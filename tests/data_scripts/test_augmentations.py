import numpy as np
import pytest
import torch
import torchaudio
from scipy import signal

from audiopg.data_scripts.augmentations import (
    PROBABILITY,
    RANGES,
    SHORTEST,
    augment,
    draw_augmentations,
    filtered,
    pitch_shifted,
    turned,
)
from audiopg.data_scripts.synthesis import draw, render

CLIPS = render(draw("audiopg", 0, range(6), duration=1.0))
NONE = torch.full((6,), torch.nan)


def test_each_change_happens_to_half_of_the_views_by_itself():
    drawn = draw_augmentations(1, torch.arange(4000), views=2)
    happens = torch.stack([~drawn[name].isnan() for name in ("high_pass", "low_pass", "pitch", "shift", "room_time")])
    assert (happens.float().mean(dim=1) - PROBABILITY).abs().max() < 0.02
    off_diagonal = torch.corrcoef(happens.float()) - torch.eye(5)
    assert off_diagonal.abs().max() < 0.05
    assert torch.equal(drawn["room_time"].isnan(), drawn["room_level"].isnan())
    for name, distribution in RANGES.items():
        values = drawn[name][~drawn[name].isnan()]
        assert values.min() >= distribution.low - 1e-4
        assert values.max() <= distribution.high + 1e-4
        first, second = drawn[name].unflatten(0, (-1, 2)).unbind(dim=1)
        assert not torch.equal(first.nan_to_num(), second.nan_to_num())


def test_a_clip_is_changed_alike_in_any_batch():
    drawn = draw_augmentations(1, torch.arange(6))
    whole = augment(CLIPS, drawn, sampling_rate=16000)
    for clip in range(6):
        one = augment(
            CLIPS[clip : clip + 1], {name: v[clip : clip + 1] for name, v in drawn.items()}, sampling_rate=16000
        )
        torch.testing.assert_close(one[0], whole[clip], rtol=1e-4, atol=1e-5)


def test_what_is_left_alone_is_what_it_was():
    nothing = dict.fromkeys(RANGES, NONE) | {"room_key": torch.arange(6)}
    torch.testing.assert_close(augment(CLIPS, nothing, sampling_rate=16000), CLIPS, rtol=1e-4, atol=1e-6)
    assert torch.equal(pitch_shifted(CLIPS, torch.zeros(6)), CLIPS)


def test_filters_have_the_magnitude_of_butterworth_s():
    click = torch.zeros(1, 8000)
    click[0, 4000] = 1
    cut = filtered(click, torch.tensor([500.0]), torch.tensor([3000.0]), sampling_rate=16000)[0].double().numpy()
    frequency = np.fft.rfftfreq(8000, 1 / 16000)[1:-1]
    expected = np.ones_like(frequency)
    for cutoff, kind in ((500, "highpass"), (3000, "lowpass")):
        _, response = signal.freqs(*signal.butter(4, cutoff, kind, analog=True), worN=frequency)
        expected *= np.abs(response)
    np.testing.assert_allclose(np.abs(np.fft.rfft(cut))[1:-1], expected, atol=2e-4)


def test_turning_is_that_of_numpy():
    shifted = turned(CLIPS, torch.tensor([0.25, -0.25, 0.1, 0.0, -0.01, 0.2]))
    for clip, steps in enumerate((4000, -4000, 1600, 0, -160, 3200)):
        np.testing.assert_array_equal(shifted[clip].numpy(), np.roll(CLIPS[clip].numpy(), steps))


def test_pitch_goes_where_it_should_and_as_torchaudio_has_it():
    time = torch.arange(16000) / 16000
    tones = torch.stack([torch.sin(2 * torch.pi * f * time) for f in (300, 1000, 3000)])
    semitones = torch.tensor([2.0, -2.0, 1.0])
    shifted = pitch_shifted(tones, semitones)
    found = torch.fft.rfft(shifted * torch.hann_window(16000)).abs().argmax(dim=1)
    expected = torch.tensor([300.0, 1000, 3000]) * 2 ** (semitones / 12)
    assert (found - expected).abs().max() <= 1
    middle = slice(2000, 14000)
    level = shifted[:, middle].square().mean(dim=1) / tones[:, middle].square().mean(dim=1)
    assert (level - 1).abs().max() < 0.1
    # Bands of real clips: torchaudio's own phase vocoder and resampling.
    ours = pitch_shifted(CLIPS, torch.full((6,), 2.0))
    theirs = torchaudio.functional.pitch_shift(CLIPS, 16000, 2, n_fft=512)
    bands = [torch.stft(x, 512, 128, window=torch.hann_window(512), return_complex=True).abs() for x in (ours, theirs)]
    similar = torch.nn.functional.cosine_similarity(*(b.flatten(1) for b in bands))
    assert similar.min() > 0.9


def test_nothing_folds_back_from_above_the_nyquist_frequency():
    time = torch.arange(16000) / 16000
    high = torch.sin(2 * torch.pi * 7500 * time)[None]  # would go to 8418 Hz
    assert pitch_shifted(high, torch.tensor([2.0]))[:, 2000:14000].abs().max() < 0.05


def test_the_shortest_clip_is_augmented_and_a_shorter_one_refused():
    drawn = {name: value[:1].nan_to_num(1.0) for name, value in draw_augmentations(0, torch.arange(1)).items()}
    drawn["low_pass"] = torch.tensor([4000.0])
    assert augment(CLIPS[:1, :SHORTEST], drawn, sampling_rate=16000).isfinite().all()
    with pytest.raises(ValueError, match="augmented from 257 samples on, got 256"):
        augment(CLIPS[:1, : SHORTEST - 1], drawn, sampling_rate=16000)
