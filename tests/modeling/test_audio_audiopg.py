import math
import sys

import numpy as np
import pytest
import soundfile
import torch
from scipy.signal import resample_poly

from audiopg.modeling.audio_audiopg import AudioFileError, match_length, read_audio, resample

FORMATS = {".wav": "PCM_16", ".flac": "PCM_16", ".ogg": "VORBIS"}


def tone(frequency, sampling_rate, seconds=1.0, amplitude=0.5):
    return amplitude * np.sin(2 * math.pi * frequency * np.arange(int(seconds * sampling_rate)) / sampling_rate)


def write(path, samples, sampling_rate=16000, **options):
    soundfile.write(path, samples, sampling_rate, **options)
    return path


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_is_decoded(tmp_path, suffix):
    samples = tone(440.0, 16000)
    path = write(tmp_path / f"clip{suffix}", samples, subtype=FORMATS[suffix])
    waveform = read_audio(path)
    assert waveform.dtype == torch.float32
    assert waveform.shape == (16000,)
    tolerance = 0.05 if suffix == ".ogg" else 2**-15
    assert np.abs(waveform.numpy() - samples).max() < tolerance


def test_bytes_are_decoded_like_the_file(tmp_path):
    path = write(tmp_path / "clip.flac", tone(440.0, 16000))
    assert torch.equal(read_audio(path.read_bytes()), read_audio(path))


def test_channels_are_averaged(tmp_path):
    left, right = tone(440.0, 16000), tone(1000.0, 16000)
    path = write(tmp_path / "clip.wav", np.stack([left, right], axis=1), subtype="FLOAT")
    np.testing.assert_allclose(read_audio(path).numpy(), (left + right) / 2, atol=1e-6)


@pytest.mark.parametrize("sampling_rate", [44100, 48000, 8000, 22050])
def test_resampling_keeps_a_tone(tmp_path, sampling_rate):
    path = write(tmp_path / "clip.wav", tone(1000.0, sampling_rate), sampling_rate, subtype="FLOAT")
    waveform = read_audio(path).numpy()
    assert len(waveform) == 16000
    inside = slice(1000, -1000)
    assert np.abs(waveform - tone(1000.0, 16000))[inside].max() < 1e-3


def test_resampling_agrees_with_scipy_in_the_pass_band(tmp_path):
    noise = np.random.default_rng(0).standard_normal(44100)
    low_passed = resample_poly(resample_poly(noise, 1, 6), 6, 1)[:44100] * 0.1
    path = write(tmp_path / "clip.wav", low_passed, 44100, subtype="FLOAT")
    expected = resample_poly(low_passed, 160, 441, window=("kaiser", 14.0))
    assert np.abs(read_audio(path).numpy() - expected)[1000:-1000].max() < 5e-3


def test_resampling_lets_no_alias_through(tmp_path):
    path = write(tmp_path / "clip.wav", tone(9000.0, 44100), 44100, subtype="FLOAT")
    assert read_audio(path)[1000:-1000].abs().max() < 1e-4


def test_length_is_matched_by_the_middle_or_by_repetition():
    waveform = torch.arange(10)
    assert match_length(waveform, 4).tolist() == [3, 4, 5, 6]
    assert match_length(waveform, 10).tolist() == waveform.tolist()
    assert match_length(waveform, 23).tolist() == (3 * waveform.tolist())[:23]
    assert match_length(torch.zeros(2, 3, 10), 15).shape == (2, 3, 15)


def test_nothing_cannot_be_repeated():
    with pytest.raises(ValueError, match="cannot be repeated"):
        match_length(torch.zeros(0), 10)


def corrupt(tmp_path, kind):
    path = tmp_path / f"{kind}.wav"
    if kind == "text":
        path.write_text("this is not audio")
    elif kind == "zero bytes":
        path.touch()
    elif kind == "no samples":
        write(path, np.zeros(0))
    elif kind == "not finite":
        write(path, np.array([0.0, np.nan, np.inf] * 1000), subtype="FLOAT")
    elif kind == "cut short":
        path = write(tmp_path / "cut short.flac", np.random.default_rng(0).standard_normal(160000) * 0.1)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


REASONS = {
    "text": "libsndfile cannot decode it",
    "zero bytes": "libsndfile cannot decode it",
    "no samples": "it holds no samples",
    "not finite": "2000 of its samples are NaN or infinite",
    "cut short": "cannot decode|ends after",
    "missing": "there is no such file",
}


@pytest.mark.parametrize("kind", REASONS)
def test_a_file_that_cannot_be_used_is_named_with_the_reason(tmp_path, kind):
    path = corrupt(tmp_path, kind)
    with pytest.raises(AudioFileError, match=REASONS[kind]) as raised:
        read_audio(path)
    assert str(raised.value).startswith(str(path))


def test_bytes_that_are_not_audio_are_refused():
    with pytest.raises(AudioFileError, match="The audio given as bytes cannot be used"):
        read_audio(b"nothing")


def test_a_flac_that_does_not_say_how_long_it_is_is_named(tmp_path):
    path = write(tmp_path / "piped.flac", tone(440, 16000))
    content = bytearray(path.read_bytes())
    content[21:26] = bytes([content[21] & 0xF0, 0, 0, 0, 0])  # the number of samples in STREAMINFO: unknown
    path.write_bytes(content)
    with pytest.raises(AudioFileError, match=r"piped\.flac"):
        read_audio(path)


@pytest.mark.parametrize("address", ["https://example.org/a.wav", "hf://datasets/someone/sounds/a.wav"])
def test_an_address_is_refused_with_the_remedy(address):
    with pytest.raises(AudioFileError, match=r"a\.wav cannot be used: it is an address.*Download it first"):
        read_audio(address)


def test_a_missing_library_is_named_with_the_remedy(tmp_path, monkeypatch):
    path = write(tmp_path / "clip.wav", tone(440.0, 16000))
    monkeypatch.setitem(sys.modules, "torchaudio.transforms", None)
    with pytest.raises(ImportError, match=r"Resampling from 7000 Hz to 16000 Hz needs torchaudio.*pip install"):
        resample(torch.zeros(8000), 7000, 16000)
    assert read_audio(path).shape == (16000,)  # the rate is right: nothing is resampled
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(ImportError, match=r"Decoding a file needs soundfile.*pip install soundfile"):
        read_audio(path)
