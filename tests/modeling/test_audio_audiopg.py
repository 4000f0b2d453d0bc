import logging
import math
import os
import re
import sys
import wave
import zipfile
from fractions import Fraction
from io import BytesIO

import numpy as np
import pytest
import soundfile
import torch
from scipy.signal import resample_poly

from audiopg.modeling import audio_audiopg
from audiopg.modeling.audio_audiopg import (
    AudioFileError,
    match_length,
    read_audio,
    read_waveform,
    resample,
    resampling_ratios,
    to_float,
    to_mono,
)

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


@pytest.mark.parametrize("address", ["nowhere://someone/sounds/a.wav", "file:///nowhere/a.wav"])
def test_an_address_that_cannot_be_read_is_named_with_the_remedy(address):
    with pytest.raises(
        AudioFileError, match=r"a\.wav cannot be used: it cannot be read from its address.*Download it"
    ):
        read_audio(address)


def test_addresses_and_open_files_are_read_like_the_file(tmp_path):
    path = write(tmp_path / "clip.flac", tone(440.0, 16000))
    expected = read_audio(path)
    with zipfile.ZipFile(tmp_path / "clips.zip", "w") as archive:
        archive.write(path, "inside/clip.flac")
    assert torch.equal(read_audio(f"zip://inside/clip.flac::{tmp_path / 'clips.zip'}"), expected)
    with path.open("rb") as file:
        assert torch.equal(read_audio(file), expected)
    with zipfile.ZipFile(tmp_path / "clips.zip") as archive, archive.open("inside/clip.flac") as file:
        assert torch.equal(read_audio(file), expected)
    written = BytesIO()
    soundfile.write(written, tone(440.0, 16000), 16000, format="FLAC")  # stands at its end
    assert torch.equal(read_audio(written), expected)
    assert torch.equal(read_audio(bytearray(path.read_bytes())), expected)


def test_a_file_that_is_open_as_text_is_refused(tmp_path):
    (tmp_path / "clip.wav").write_text("text")
    with (tmp_path / "clip.wav").open() as file, pytest.raises(AudioFileError, match="open as text"):
        read_audio(file)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_not_utf_8_is_read_and_can_be_printed(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav")
    write(tmp_path / "clip.wav", tone(440.0, 16000)).rename(path)
    assert read_audio(path).shape == (16000,)
    with pytest.raises(AudioFileError, match=r"caf\\udce8\.wav cannot be used") as raised:
        read_audio(path.replace("\udce9", "\udce8"))
    str(raised.value).encode()


CONTAINERS = {
    "wav": {"subtype": "PCM_16"},
    "float.wav": {"subtype": "FLOAT"},
    "adpcm.wav": {"subtype": "IMA_ADPCM"},
    "gsm.wav": {"subtype": "GSM610"},
    "wavex.wav": {"format": "WAVEX", "subtype": "PCM_24"},
    "rf64": {"format": "RF64"},
    "w64": {"format": "W64"},
    "aiff": {"format": "AIFF"},
    "caf": {"format": "CAF"},
    "au": {"format": "AU"},
    "voc": {"format": "VOC", "subtype": "PCM_16"},
    "sph": {"format": "NIST"},
    "flac": {"format": "FLAC"},
    "vorbis.ogg": {"format": "OGG", "subtype": "VORBIS"},
    "opus.ogg": {"format": "OGG", "subtype": "OPUS"},
    "mp3": {"format": "MP3"},
}


@pytest.fixture(scope="module")
def containers():
    """The same two seconds of noise in every container."""
    samples = 0.1 * np.random.default_rng(0).standard_normal(32000)
    contents = {}
    for name, kind in CONTAINERS.items():
        content = BytesIO()
        soundfile.write(content, samples, 16000, **{"format": "WAV", **kind})
        contents[name] = content.getvalue()
    return contents


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_recording_that_was_cut_short_is_named_wherever_it_was_cut(containers, name):
    content = containers[name]
    assert len(read_audio(content)) >= 32000
    step = len(content) // 23
    for length in range(step, len(content) - 3 * 417, step):  # the last frames of MP3 hold no sound
        with pytest.raises(AudioFileError) as raised:
            read_audio(content[:length])
        if not ("ogg" in name or name == "caf") and length > 5000:
            assert re.search(r"ends,? after \d+ of \d+|before all of its \d+ frames are read", str(raised.value))


def test_a_cut_that_libsndfile_does_not_see_names_what_is_there_and_what_was_promised(containers):
    content = containers["wav"]
    assert soundfile.info(BytesIO(content[:5000])).frames == 2478  # lowered to what is there
    with pytest.raises(AudioFileError, match="it ends after 4956 of 64000 bytes of sound"):
        read_audio(content[:5000])


@pytest.mark.parametrize("name", ["flac", "vorbis.ogg", "opus.ogg"])
def test_what_has_checksums_is_refused_wherever_it_is_damaged(containers, name):
    content = containers[name]
    for place in range(len(content) // 3, len(content), len(content) // 29):
        damaged = bytearray(content)
        damaged[place] ^= 1
        with pytest.raises(AudioFileError):
            read_audio(bytes(damaged))


def test_ogg_in_a_chain_or_with_a_tag_behind_it(containers):
    other = bytearray(containers["opus.ogg"])
    assert torch.equal(read_audio(bytes(other) + b"TAG" + bytes(125)), read_audio(bytes(other)))
    with pytest.raises(AudioFileError, match="a chain of recordings in one file"):
        read_audio(containers["vorbis.ogg"] + bytes(other))


@pytest.mark.parametrize("promise", [0xFFFFFFFF, 0x7FFFFFFF - 36, 0x80000000])
def test_a_recording_from_a_pipe_promises_nothing_and_is_read(containers, promise):
    content = bytearray(containers["wav"])
    content[40:44] = promise.to_bytes(4, "little")
    assert torch.equal(read_audio(bytes(content)), read_audio(containers["wav"]))


def test_chunks_before_and_after_the_sound_are_no_matter(containers):
    content = containers["wav"]
    chunk = b"LIST" + (5).to_bytes(4, "little") + b"notes\0"
    assert torch.equal(read_audio(content[:36] + chunk + content[36:] + chunk), read_audio(content))


def test_an_mp3_whose_length_libsndfile_would_guess_wrong_is_refused(containers):
    content = BytesIO()
    quieter = np.linspace(1, 0, 32000) ** 4 * np.random.default_rng(0).standard_normal(32000) * 0.1
    with soundfile.SoundFile(content, "w", 16000, 1, format="MP3", bitrate_mode="VARIABLE") as file:
        file.write(quieter)
    whole = content.getvalue()
    assert len(read_audio(whole)) == 32000
    table = whole.index(whole[:2], 2)  # the first frame holds the table of lengths
    with soundfile.SoundFile(BytesIO(whole[table:])) as file:
        assert len(file.read()) < 30000  # and no word of it
    with pytest.raises(AudioFileError, match=r"ends, after \d+ of \d+ frames"):
        read_audio(whole[table:])


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW"])
def test_every_width_has_its_full_scale_at_one(tmp_path, subtype):
    path = write(tmp_path / "clip.wav", tone(440.0, 16000), subtype=subtype)
    error = np.abs(read_audio(path).numpy() - tone(440.0, 16000)).max()
    assert error < {"PCM_U8": 2**-6, "ULAW": 2**-5}.get(subtype, 2**-14)


def test_unsigned_bytes_are_scaled_as_another_reader_of_wav_says(tmp_path):
    path = write(tmp_path / "clip.wav", tone(440.0, 16000), subtype="PCM_U8")
    with wave.open(str(path)) as file:
        values = np.frombuffer(file.readframes(16000), np.uint8)
    assert torch.equal(to_float(values), read_audio(path))


def test_float_files_far_outside_full_scale_are_refused_as_arrays_are(tmp_path):
    path = write(tmp_path / "clip.wav", (20000 * tone(440.0, 16000)).astype(np.float32), subtype="FLOAT")
    with pytest.raises(AudioFileError, match=r"lie in \[-1, 1\], and it reaches 1\d{4}.*divide by 32768"):
        read_audio(path)
    loud = write(tmp_path / "loud.wav", 3 * tone(440.0, 16000), subtype="FLOAT")
    assert read_audio(loud).abs().max() > 1.4


def patched(content, offset, value, size):
    return content[:offset] + value.to_bytes(size, "little") + content[offset + size :]


@pytest.mark.parametrize(
    ("offset", "value", "size", "message"),
    [
        (24, 7, 4, "whole number of Hz from 1000 to 1000000, and this one is 7"),
        (24, 2**31 - 1, 4, "whole number of Hz from 1000 to 1000000"),
        (22, 1000, 2, "1000 channels, more than 256|cannot decode it"),
        (40, 2**30, 4, "it ends after 64000 of 1073741824 bytes"),
    ],
)
def test_a_header_with_what_no_recording_has_is_refused(containers, offset, value, size, message):
    content = patched(containers["wav"], offset, value, size)
    if offset == 22:  # a header whose other fields agree
        content = patched(patched(content, 32, 2000, 2), 28, 2000 * 16000, 4)
    with pytest.raises(AudioFileError, match=message):
        read_audio(content)


def test_a_flac_that_promises_more_than_memory_is_refused(containers):
    content = bytearray(containers["flac"])
    content[21:26] = bytes([content[21] | 0x0F, 255, 255, 255, 255])  # 2 ** 36 - 1 samples
    with pytest.raises(AudioFileError):
        read_audio(bytes(content))


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_blocks_give_the_bits_of_a_whole_read(tmp_path, monkeypatch, suffix):
    noise = np.random.default_rng(0).standard_normal((50000, 2)) * 0.1
    path = write(tmp_path / f"clip.{suffix}", noise)
    with soundfile.SoundFile(path) as file:
        whole = file.read(dtype="float32", always_2d=True)
    monkeypatch.setattr(audio_audiopg, "_VALUES_PER_BLOCK", 9999)
    assert torch.equal(read_audio(path), torch.from_numpy(whole).mean(dim=1))


@pytest.mark.parametrize("rate", [44099, 11127, 22254, 16001, 47999, 15999, 999983, 1009])
def test_odd_rates_keep_a_tone_with_a_small_filter(rate):
    ratios = resampling_ratios(rate, 16000)
    assert abs(math.prod(ratios) * rate / 16000 - 1) <= 1e-5
    assert all(ratio.numerator * ratio.denominator <= 2**20 for ratio in ratios)
    frequency = 200.0
    waveform = resample(torch.from_numpy(tone(frequency, rate)).float(), rate, 16000).numpy()
    assert len(waveform) == pytest.approx(16000, abs=3)
    inside = slice(1000, 15000)  # 1e-5 of a second of 200 Hz is a hundredth of a radian
    assert np.abs(waveform[inside] - tone(frequency, 16000)[inside]).max() < 1e-2


@pytest.mark.parametrize("rate", [8000, 11025, 12000, 22050, 24000, 32000, 37800, 44100, 48000, 88200, 96000, 192000])
def test_usual_rates_are_exact(rate):
    assert resampling_ratios(rate, 16000) == (Fraction(16000, rate),)


@pytest.mark.parametrize("rate", [0, -16000, 44100.5, math.nan, 10**9, "44100", None])
def test_a_rate_that_no_recording_has_is_refused(rate):
    with pytest.raises(ValueError, match=r"whole number of Hz from 1000 to 1000000, and this one is"):
        resample(torch.zeros(8000), rate, 16000)


def test_channels_that_cancel_are_averaged_with_a_warning(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(audio_audiopg.logger, "warning", logging.getLogger("heard").warning, raising=False)
    noise = np.random.default_rng(0).standard_normal((2, 16000)) * 0.1
    for fine in (noise, noise[:1].repeat(2, 0), np.stack([noise[0], 0 * noise[0]]), np.zeros((2, 16000))):
        to_mono(fine)
        read_audio(write(tmp_path / "fine.wav", fine.T, subtype="FLOAT"))
    assert not caplog.records
    reversed_polarity = np.stack([noise[0], -0.99 * noise[0]])
    to_mono(reversed_polarity, "clip 7")
    read_audio(write(tmp_path / "reversed.wav", reversed_polarity.T, subtype="FLOAT"))
    assert "channels of clip 7 cancel" in caplog.text
    assert "reversed.wav cancel" in caplog.text


class Samples:
    """What torchcodec decodes to."""

    def __init__(self, data, sample_rate):
        self.data, self.sample_rate = data, sample_rate


class Decoder:
    """What `datasets` has in a column of audio since its version 4."""

    def __init__(self, data, sample_rate):
        self.samples = Samples(data, sample_rate)

    def get_all_samples(self):
        return self.samples


def test_a_decoder_of_datasets_is_averaged_and_resampled(tmp_path):
    noise = torch.randn(2, 44100, generator=torch.Generator().manual_seed(0)) * 0.1
    path = write(tmp_path / "clip.wav", noise.T.numpy(), 44100, subtype="FLOAT")
    for recording in (Decoder(noise, 44100), Samples(noise, 44100), {"array": noise.numpy(), "sampling_rate": 44100}):
        torch.testing.assert_close(read_waveform(recording, 16000), read_audio(path))


@pytest.mark.parametrize("missing", [None, {"bytes": None, "path": None}, {"path": None}])
def test_a_recording_that_is_missing_is_refused_as_a_file_that_cannot_be_used(missing):
    with pytest.raises(AudioFileError, match="missing"):
        read_waveform(missing)


def test_a_missing_library_is_named_with_the_remedy(tmp_path, monkeypatch):
    path = write(tmp_path / "clip.wav", tone(440.0, 16000))
    monkeypatch.setitem(sys.modules, "torchaudio.transforms", None)
    with pytest.raises(ImportError, match=r"Resampling from 7000 Hz to 16000 Hz needs torchaudio.*pip install"):
        resample(torch.zeros(8000), 7000, 16000)
    assert read_audio(path).shape == (16000,)  # the rate is right: nothing is resampled
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(ImportError, match=r"Decoding a file needs soundfile.*pip install soundfile"):
        read_audio(path)
