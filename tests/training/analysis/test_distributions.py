import numpy as np
import pytest
import soundfile
import torch
from scipy import signal, stats
from torchaudio.functional import spectral_centroid as of_torchaudio

from audiopg.data_scripts import voices
from audiopg.data_scripts.synthesis import draw, render
from audiopg.training.analysis import distributions
from audiopg.training.analysis.distributions import (
    DESCRIPTORS,
    compare,
    describe,
    describe_collection,
    draw_distributions,
    fundamental_frequency,
    inharmonicity,
    real_recordings,
    spectral_centroid,
    spectral_flatness,
    spectral_flux,
    synthetic_collections,
)
from audiopg.training.analysis.sections import distribution_section

RATE = 16000
TIME = torch.arange(RATE) / RATE


def partials(f0, stretch=0.0, count=15):
    """The first overtones of a string: f_n = n f0 sqrt(1 + B n^2)."""
    frequencies = [n * f0 * (1 + stretch * n * n) ** 0.5 for n in range(1, count + 1)]
    return sum(torch.sin(2 * np.pi * f * TIME + n) / n for n, f in enumerate(frequencies, 1) if f < RATE / 2)


def white(num_samples=5 * RATE, seed=0):
    return torch.randn(num_samples, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("frequency", [250.0, 1000.0, 3456.0])
def test_a_sine_is_a_point(frequency):
    found = describe(0.1 * torch.sin(2 * np.pi * frequency * TIME), RATE)
    assert found["centroid"] == pytest.approx(frequency, rel=0.05)  # its window leaks more upwards than downwards
    assert max(found["flux"], found["inharmonicity"], found["flatness"]) < 0.002


def test_white_noise_has_the_values_of_exponential_powers():
    found = describe(white(), RATE)
    assert found["centroid"] == pytest.approx(RATE / 4, rel=0.01)
    assert found["flatness"] == pytest.approx(np.exp(-np.euler_gamma), abs=0.01)
    # Neighbours of half overlap: coherence 1/36 of Hann windows; the mean product of two Rayleigh magnitudes over
    # their mean square is pi/4 (1 + coherence/4) to first order.
    assert found["flux"] == pytest.approx(np.sqrt(2 - np.pi / 2 * (1 + 1 / 144)), abs=0.005)
    assert 0.4 < found["inharmonicity"] < 0.6


def test_the_centroid_is_torchaudio_s():
    clip, window = white(RATE), torch.hann_window(1024)
    expected = of_torchaudio(clip, RATE, pad=0, window=window, n_fft=1024, hop_length=512, win_length=1024)
    magnitudes = torch.stft(clip, 1024, 512, window=window, return_complex=True).abs().T
    torch.testing.assert_close(spectral_centroid(magnitudes, RATE), expected)


def test_the_flatness_is_scipy_s_mean_of_a_periodogram():
    clip, window = white(1024).numpy(), signal.get_window("hann", 1024)
    _, power = signal.periodogram(clip, window=window, detrend=False)
    expected = stats.gmean(power[1:-1]) / power[1:-1].mean()
    magnitudes = torch.fft.rfft(torch.from_numpy(clip * window)).abs()[None]
    assert float(spectral_flatness(magnitudes)) == pytest.approx(expected, rel=1e-4)


def test_flux_is_the_chord_between_spectra_whatever_their_levels():
    angles = torch.tensor([0.0, 0.3, 1.0, 1.0])
    spectra = torch.tensor([[1.0], [5.0], [0.01], [2.0]]) * torch.stack([angles.cos(), angles.sin()], dim=1)
    torch.testing.assert_close(spectral_flux(spectra), 2 * torch.sin(angles.diff() / 2))


@pytest.mark.parametrize("f0", [110.0, 261.63, 880.0, 1900.0])
def test_multiples_are_harmonic_and_their_fundamental_is_found(f0):
    tone, window = partials(f0), torch.hann_window(1024, dtype=torch.float64)
    frame = tone[:1024].double() * window
    assert float(fundamental_frequency(frame[None], window, RATE)) == pytest.approx(f0, rel=0.002)
    assert describe(tone, RATE)["inharmonicity"] < 0.01


def test_stretched_partials_are_as_far_off_as_they_were_put():
    f0, stretch, n = 200.0, 0.002, np.arange(1, 7)
    powers, off = 1 / n**2, n * (np.sqrt(1 + stretch * n * n) - 1)  # in multiples of f0, all below a half
    found = inharmonicity(
        torch.from_numpy(n * f0 + off * f0)[None], torch.from_numpy(powers)[None], torch.tensor([f0]).double()
    )
    assert float(found) == pytest.approx(2 * (off * powers).sum() / powers.sum())


def test_what_is_stretched_more_is_less_harmonic():
    found = [describe(partials(150.0, stretch), RATE)["inharmonicity"] for stretch in (0, 1e-4, 1e-3, 1e-2)]
    assert found == sorted(found)
    assert found[0] < 0.005
    assert found[3] > 0.08


def test_level_and_silence_after_a_sound_change_nothing():
    clip = partials(300.0) * torch.exp(-3 * TIME) + 0.1 * white(RATE)
    expected = describe(clip, RATE)
    assert describe(0.001 * clip, RATE) == pytest.approx(expected, rel=1e-3)
    whole = clip[: 512 * 31]  # so that no frame is half silent
    longer = torch.cat([whole, torch.zeros(4 * RATE)])
    frames = {name: abs(describe(longer, RATE)[name] - describe(whole, RATE)[name]) for name in DESCRIPTORS}
    assert frames["centroid"] < 0.02 * expected["centroid"]
    assert max(frames["flatness"], frames["inharmonicity"]) < 0.03


def test_clips_without_sound_are_left_out_and_short_ones_are_not():
    clips = [torch.zeros(RATE), torch.sin(2 * np.pi * 1000 * TIME[:300]), torch.ones(RATE)]
    found = describe_collection(clips, RATE)
    assert {len(values) for values in found.values()} == {2}
    assert all(np.isfinite(values).all() for values in found.values())
    with pytest.raises(ValueError, match="not silent, and there is none"):
        describe_collection(clips[:1], RATE)


def test_only_five_seconds_of_a_clip_are_measured():
    clip = torch.cat([white(), torch.sin(2 * np.pi * 100 * torch.arange(5 * RATE) / RATE)])
    assert describe_collection([clip], RATE)["centroid"][0] == pytest.approx(4000, rel=0.02)


def test_every_synthesizer_is_described_and_the_first_clips_are_those_of_its_stream():
    """All collections are there before any is heard, as in the report."""
    collections = {name: list(clips) for name, clips in dict(synthetic_collections(RATE, num_clips=3)).items()}
    for preset in ("reference", "audiopg"):
        expected = render(draw(preset, 0, range(3), sampling_rate=RATE))
        assert torch.equal(torch.stack(collections[f"AudioPG, {preset}"]), expected)
    for preset in ("voices", "synthax"):
        voice = voices.get_voice("voice", preset, sampling_rate=RATE)
        expected = voices.render(voice, voices.draw(voice, 0, range(3)), voices.noise_of(voice, 0, range(3)))
        assert torch.equal(torch.stack(collections[f"Voice, {preset}"]), expected)
    for name, clips in collections.items():
        found = describe_collection(clips, RATE)
        assert 1 <= len(found["flux"]) <= 3, name
        assert (found["centroid"] < RATE / 2).all()
        assert all(np.isfinite(values).all() for values in found.values())


def test_recordings_are_taken_evenly_over_a_folder(tmp_path):
    for number in range(10):
        soundfile.write(tmp_path / f"{number}.wav", np.full(800, number / 20), RATE)
    found = [float(clip[0]) for clip in real_recordings(tmp_path, RATE, num_clips=4)]
    assert found == pytest.approx([0.0, 0.15, 0.3, 0.45], abs=1e-4)
    with pytest.raises(ValueError, match="holds no recordings to compare with"):
        next(real_recordings(tmp_path / "none", RATE))


def test_the_section_has_medians_and_distances_of_every_collection(tmp_path):
    rng = np.random.default_rng(0)
    near = {kind: rng.normal(size=400) for kind in DESCRIPTORS}
    far = {kind: rng.normal(10, 1, 50) for kind in DESCRIPTORS}
    collections = {"real": {kind: rng.normal(size=400) for kind in DESCRIPTORS}, "near": near, "far": far}
    section, found = distribution_section(collections, "real", tmp_path)
    assert found == compare(collections, "real")
    assert found["real"]["flux"]["distance"] == 0.0
    assert found["near"]["flux"]["distance"] < 0.15
    assert found["far"]["flux"] == pytest.approx(
        {
            **dict(zip(("quartile_1", "median", "quartile_3"), np.percentile(far["flux"], (25, 50, 75)), strict=True)),
            "distance": 1.0,
            "clips": 50,
        }
    )
    assert [row[:2] for row in section.tables[0].rows] == [["real", "400"], ["near", "400"], ["far", "50"]]
    assert {path.name for path in tmp_path.iterdir()} == {"distributions.png", "distributions.svg"}
    assert len(draw_distributions(collections, "real").axes) == len(DESCRIPTORS)


def test_the_report_compares_with_a_folder_of_recordings(tmp_path, monkeypatch):
    from audiopg.training.analysis import analysis

    soundfile.write(tmp_path / "a.wav", 0.1 * white(8000).numpy(), RATE)
    monkeypatch.setattr(
        analysis, "synthetic_collections", lambda rate: [("toy", distributions.real_recordings(tmp_path, rate))]
    )
    found = analysis._spectra(tmp_path, RATE)
    assert list(found) == [analysis.REAL, "toy"]
    assert found["toy"]["flatness"].tolist() == found[analysis.REAL]["flatness"].tolist()
