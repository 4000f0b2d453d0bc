"""`SentenceTransformer(folder)` of the real package gives the model's own embeddings."""

import numpy as np
import pytest
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
