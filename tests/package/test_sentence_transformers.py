"""`SentenceTransformer(folder)` of the real package gives the model's own embeddings."""

import numpy as np
import pytest
import soundfile
import torch
from sentence_transformers import SentenceTransformer

from audiopg import AudioPGConfig, AudioPGFeatureExtractor, AudioPGForAudioClassification, AudioPGForPreTraining
from audiopg.training.publishing.hub import write_hub_folder

SMALL = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.mark.parametrize("head", [AudioPGForPreTraining, AudioPGForAudioClassification])
@pytest.mark.parametrize("read", [{}, {"embedding_pooling": "mel_std", "embedding_layer": 1}])
def test_alone_batched_and_reloaded_clips_give_what_embed_gives(head, read, tmp_path):
    torch.manual_seed(0)
    config = AudioPGConfig(**SMALL, decoder_num_hidden_layers=1, **read)
    model, extractor = head(config).eval(), AudioPGFeatureExtractor()
    write_hub_folder(model, extractor, tmp_path / "folder")
    rng = np.random.default_rng(0)
    clips = [rng.uniform(-0.5, 0.5, length).astype(np.float32) for length in (400, 16000, 400_000)]
    expected = model.audiopg.embed(clips, extractor).numpy()
    embedder = SentenceTransformer(str(tmp_path / "folder"), device="cpu")
    assert embedder.get_embedding_dimension() == expected.shape[1]
    np.testing.assert_allclose(embedder.encode(clips), expected, atol=1e-6)
    for clip, embedding in zip(clips, expected, strict=True):
        np.testing.assert_allclose(embedder.encode([clip])[0], embedding, atol=1e-6)
    embedder.save(str(tmp_path / "again"), create_model_card=False)
    again = SentenceTransformer(str(tmp_path / "again"), device="cpu")
    np.testing.assert_allclose(again.encode(clips), expected, atol=1e-6)


@pytest.fixture(scope="module")
def embedder_and_embed(tmp_path_factory):
    """A folder as the real package loads it, and what `embed` gives of anything."""
    torch.manual_seed(0)
    config = AudioPGConfig(**SMALL, decoder_num_hidden_layers=1, embedding_pooling="mel_std", embedding_layer=1)
    model, extractor = AudioPGForPreTraining(config).eval(), AudioPGFeatureExtractor()
    folder = tmp_path_factory.mktemp("exported") / "toy"
    write_hub_folder(model, extractor, folder)
    embedder = SentenceTransformer(str(folder), device="cpu")
    return embedder, lambda recordings: model.audiopg.embed(recordings, extractor).numpy()


def noise(length, seed=0):
    return np.random.default_rng(seed).uniform(-0.5, 0.5, length).astype(np.float32)


def test_paths_arrays_and_dictionaries_of_all_lengths_in_one_batch_give_what_each_gives_alone(
    embedder_and_embed, tmp_path
):
    embedder, embed = embedder_and_embed
    files = {"a.wav": (noise(20_000), 16000), "b.flac": (noise(30_000, 1), 44_100), "c.ogg": (noise(200_000, 2), 8000)}
    for name, (samples, rate) in files.items():
        soundfile.write(tmp_path / name, samples, rate)
    paths = [str(tmp_path / name) for name in files]
    arrays = [noise(400, 3), noise(16000, 4), torch.from_numpy(noise(400_000, 5))]
    dictionaries = [{"array": noise(length, 6), "sampling_rate": 16000} for length in (9000, 170_000)]
    recordings = [*paths, *arrays, *dictionaries, {"audio": dictionaries[0]}]
    expected = np.concatenate([embed([*paths, *arrays, *dictionaries]), embed(dictionaries[:1])])
    np.testing.assert_allclose(embedder.encode(recordings), expected, atol=1e-6)
    for recording, embedding in zip(recordings, expected, strict=True):
        np.testing.assert_allclose(embedder.encode(recording), embedding, atol=1e-6)


@pytest.mark.parametrize(
    ("rates", "told"),
    [
        ([44_100], "takes audio at 16000 Hz, and got 44100 Hz. Resample first"),
        ([8000, 8000], "takes audio at 16000 Hz, and got 8000 Hz. Resample first"),
        ([16000, 44_100], "mixes audio with different sampling rates"),  # by the package itself
    ],
)
def test_samples_of_another_rate_are_refused_never_misread(embedder_and_embed, rates, told):
    embedder, _ = embedder_and_embed
    with pytest.raises(ValueError, match=told):
        embedder.encode([{"array": noise(20_000), "sampling_rate": rate} for rate in rates])


def test_it_says_that_it_takes_audio_alone_and_names_no_training_data(embedder_and_embed):
    embedder, _ = embedder_and_embed
    assert embedder.modalities == ["audio"]
    assert embedder.model_card_data.train_datasets == embedder.model_card_data.datasets == []
    with pytest.raises(ValueError, match="Modality 'text' is not supported"):
        embedder.encode("a dog that barks")
