import logging
from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from transformers import pipeline

from audiopg import AudioPGAudioClassificationPipeline
from audiopg.modeling.audio_audiopg import AudioFileError, read_audio, read_waveform
from audiopg.modeling.configuration_audiopg import AudioPGConfig
from audiopg.modeling.feature_extraction_audiopg import AudioPGFeatureExtractor
from audiopg.modeling.modeling_audiopg import AudioPGForAudioClassification, AudioPGModel

SMALL = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
RATE = 16000


def noise(num_samples, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(num_samples)).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return AudioPGModel(AudioPGConfig(**SMALL)).eval()


@pytest.fixture(scope="module")
def embed(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    model.save_pretrained(folder)
    AudioPGFeatureExtractor().save_pretrained(folder)
    return pipeline("audio-feature-extraction", model=str(folder), device="cpu")


@pytest.fixture(scope="module")
def classify():
    torch.manual_seed(0)
    config = AudioPGConfig(**SMALL, num_labels=3, id2label={0: "rain", 1: "dog", 2: "siren"})
    return pipeline(
        "audio-classification",
        model=AudioPGForAudioClassification(config),
        feature_extractor=AudioPGFeatureExtractor(),
        pipeline_class=AudioPGAudioClassificationPipeline,
        device="cpu",
    )


def test_the_pipeline_gives_what_the_checkpoint_embeds(tmp_path):
    torch.manual_seed(0)
    model = AudioPGModel(AudioPGConfig(**SMALL, embedding_pooling="mel_std", embedding_layer=1)).eval()
    clips = [noise(25 * RATE), noise(8000, seed=1)]
    pipe = pipeline("audio-feature-extraction", model=model, feature_extractor=AudioPGFeatureExtractor(), device="cpu")
    expected = model.embed(clips, AudioPGFeatureExtractor()).numpy()
    np.testing.assert_allclose(np.stack(pipe(clips, batch_size=3)), expected, atol=1e-5)
    asked = model.embed(clips, AudioPGFeatureExtractor(), pooling="mel", layer=2).numpy()
    np.testing.assert_allclose(np.stack(pipe(clips, pooling="mel", layer=2)), asked, atol=1e-5)
    frames = pipe(clips[1], frames=True, pooling="mel")["embeddings"]
    assert frames.shape == (3, 8 * SMALL["hidden_size"])


@pytest.fixture
def recording(tmp_path):
    """Two channels at 44.1 kHz."""
    samples = np.stack([noise(44100), noise(44100, seed=1)], axis=1)
    soundfile.write(tmp_path / "recording.flac", samples, 44100)
    return tmp_path / "recording.flac"


@pytest.fixture
def decoder(recording):
    """What `datasets` has in a column of audio."""
    samples = SimpleNamespace(
        data=torch.from_numpy(soundfile.read(recording, dtype="float32")[0].T), sample_rate=44100
    )
    return SimpleNamespace(get_all_samples=lambda: samples)


def test_narrow_patches_go_through_the_pipeline_with_their_own_feature_extractor_alone():
    torch.manual_seed(0)
    model = AudioPGModel(AudioPGConfig(**SMALL, patch_frames=8)).eval()
    embed, astray = (
        pipeline("audio-feature-extraction", model=model, feature_extractor=AudioPGFeatureExtractor(patch_size=size))
        for size in (8, 16)
    )
    clips = [noise(12 * RATE), noise(8000)]
    expected = model.embed_frames(clips, AudioPGFeatureExtractor(patch_size=8))
    for found, frames in zip(embed(clips, frames=True, batch_size=2), expected, strict=True):
        np.testing.assert_allclose(found["embeddings"], frames.embeddings, atol=1e-5)
        np.testing.assert_allclose(found["times"], frames.times)
    with pytest.raises(ValueError, match="8 frames each, got patch_size 16"):
        astray(clips[1])


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_pipeline_gives_what_the_model_gives(embed, model, batch_size):
    clips = [noise(length, seed) for seed, length in enumerate([16000, 25 * RATE, 400, 12 * RATE, 50000])]
    expected = model.embed(clips, AudioPGFeatureExtractor())
    for one, other in zip(embed(clips, batch_size=batch_size), expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    options = {"window_seconds": 3.2, "overlap_seconds": 0.32}
    frames = embed(clips, batch_size=batch_size, frames=True, **options)
    for one, other in zip(frames, model.embed_frames(clips, AudioPGFeatureExtractor(), **options), strict=True):
        np.testing.assert_allclose(one["embeddings"], other.embeddings, atol=1e-5)
        np.testing.assert_allclose(one["times"], other.times)


def test_paths_bytes_rows_of_a_data_set_and_arrays_are_one_recording(embed, recording, decoder):
    mono = read_audio(recording)
    stereo, _ = soundfile.read(recording, dtype="float32")
    expected = embed(mono)
    content = recording.read_bytes()
    for same in (
        str(recording),
        recording,
        content,
        mono.numpy(),
        {"bytes": content, "path": None},
        {"bytes": None, "path": str(recording)},
        {"array": stereo.mean(axis=1), "sampling_rate": 44100},
        {"raw": mono, "sampling_rate": RATE},
        {"array": stereo, "sampling_rate": 44100},
        {"array": stereo.T, "sampling_rate": 44100},
        BytesIO(content),
        decoder,
    ):
        np.testing.assert_allclose(embed(same), expected, atol=1e-5)
    np.testing.assert_allclose(embed([str(recording), mono])[0], expected, atol=1e-5)


@pytest.mark.parametrize("damage", ["cut short", "not finite"])
def test_a_damaged_file_is_refused_rather_than_embedded(embed, tmp_path, damage):
    path = tmp_path / "damaged.flac"
    soundfile.write(path, noise(160000), RATE)
    if damage == "cut short":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        path = path.with_suffix(".wav")
        soundfile.write(path, np.full(16000, np.nan), RATE, subtype="FLOAT")
    with pytest.raises(AudioFileError, match=r"damaged\.\w+ cannot be used"):
        embed(path)


def test_integers_of_another_rate_keep_their_scale():
    samples = noise(8000)
    integers = (samples * 32768).round().astype(np.int16)
    resampled = read_waveform({"array": integers, "sampling_rate": 8000}, RATE)
    expected = read_waveform({"array": (integers / 32768).astype(np.float32), "sampling_rate": 8000}, RATE)
    torch.testing.assert_close(resampled, expected)


def test_a_classifier_takes_files_without_ffmpeg_and_is_not_called_unsupported(
    classify, recording, decoder, monkeypatch, caplog
):
    monkeypatch.setenv("PATH", "")  # FFmpeg, if there is one, is out of reach
    with caplog.at_level(logging.ERROR, logger="transformers"):
        expected = classify(read_audio(recording).numpy())
        classify.check_model_type({})
    assert not caplog.records
    for same in (
        str(recording),
        recording.read_bytes(),
        {"path": str(recording)},
        BytesIO(recording.read_bytes()),
        decoder,
    ):
        answer = classify(same)
        assert [entry["label"] for entry in answer] == [entry["label"] for entry in expected]
        assert [entry["score"] for entry in answer] == pytest.approx([entry["score"] for entry in expected], abs=1e-6)
    assert {entry["label"] for entry in expected} == {"rain", "dog", "siren"}


def test_what_is_no_recording_is_refused(embed, tmp_path):
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"no sound")
    for audio, message in (
        (str(tmp_path / "nowhere.wav"), "there is no such file"),
        (broken, "libsndfile cannot decode it"),
        (b"no sound", "The audio given as bytes cannot be used"),
        ("nowhere://a.wav", "Download it first"),
        ({"array": noise(8000)}, "Add what is missing"),
        ({"sampling_rate": RATE}, "Add what is missing"),
        (np.zeros((20, 8000), dtype=np.float32), r"mono.*\(20, 8000\)"),
        (None, "it is missing"),
        (noise(100), "at least 25 ms"),
    ):
        with pytest.raises(ValueError, match=message):
            embed(audio)
