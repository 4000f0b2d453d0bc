import numpy as np
import pytest
import torch
from toys import SMALL
from transformers import ASTConfig, ASTModel

from audiopg.modeling.configuration_audiopg import AudioPGConfig
from audiopg.modeling.configuration_doppelganger import DoppelgangerConfig
from audiopg.modeling.feature_extraction_audiopg import AudioPGFeatureExtractor
from audiopg.modeling.feature_extraction_doppelganger import DoppelgangerFeatureExtractor
from audiopg.modeling.modeling_audiopg import AudioPGModel
from audiopg.modeling.modeling_doppelganger import DoppelgangerModel
from audiopg.training.features.embeddings import (
    embed,
    embed_tokens,
    log_mel_statistics,
    random_encoder,
    spectrograms_of,
)

EXTRACTOR = AudioPGFeatureExtractor()


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return AudioPGModel(AudioPGConfig(**SMALL))


def noises(lengths):
    rng = np.random.default_rng(0)
    return [(0.1 * rng.standard_normal(length)).astype(np.float32) for length in lengths]


@pytest.mark.parametrize(("pooling", "patch_frames"), [("mean", 16), ("mel", 16), ("mel", 8)])
def test_embeddings_are_the_model_s_own_in_batches_of_any_size_also_of_recordings_longer_than_a_window(
    pooling, patch_frames
):
    torch.manual_seed(0)
    model = AudioPGModel(AudioPGConfig(**SMALL, patch_frames=patch_frames))
    extractor = AudioPGFeatureExtractor(patch_size=patch_frames)
    waveforms = noises([16000, 4000, 16000, 9000, 400, 12 * 16000])
    expected = model.embed(waveforms, extractor, pooling=pooling)
    for batch_size in (1, 3):
        found = embed(model, extractor, spectrograms_of(extractor, waveforms), pooling=pooling, batch_size=batch_size)[
            None
        ]
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_half_precision_of_the_frames_moves_an_embedding_by_a_thousandth(model):
    waveforms = noises([16000, 4000])
    raw = [EXTRACTOR.std * 2 * frames + EXTRACTOR.mean for frames in spectrograms_of(EXTRACTOR, waveforms)]
    kept = embed(model, EXTRACTOR, [EXTRACTOR.standardise(frames.half().float()) for frames in raw])[None]
    expected = model.embed(waveforms, EXTRACTOR).numpy()
    assert 0 < np.abs(kept - expected).max() < 1e-3 * expected.std()


def test_tokens_of_any_layer_are_the_encoder_s_without_padding(model):
    waveforms = noises([16000, 4000, 400])
    tokens = embed_tokens(model, EXTRACTOR, spectrograms_of(EXTRACTOR, waveforms), layers=[0, 1], batch_size=2)
    means, rows = (
        embed(model, EXTRACTOR, spectrograms_of(EXTRACTOR, waveforms), layers=[0, 1], batch_size=3, pooling=pooling)
        for pooling in ("mean", "mel")
    )
    with torch.no_grad():
        for index, waveform in enumerate(waveforms):
            outputs = model.eval()(**EXTRACTOR(waveform, sampling_rate=16000), output_hidden_states=True)
            by_hand = {None: outputs.last_hidden_state, **dict(enumerate(outputs.hidden_states))}
            for layer, hidden_states in by_hand.items():
                torch.testing.assert_close(tokens[layer][index].float(), hidden_states[0, 1:], rtol=1e-3, atol=1e-3)
                np.testing.assert_allclose(means[layer][index], hidden_states[0, 1:].mean(dim=0), atol=1e-5)
                of_mel_row = [hidden_states[0, 1 + row :: 8].mean(dim=0) for row in range(8)]
                np.testing.assert_allclose(rows[layer][index], torch.cat(of_mel_row), atol=1e-5)


def test_embedding_leaves_the_training_mode(model):
    model.train()
    embed(model, EXTRACTOR, spectrograms_of(EXTRACTOR, noises([4000])))
    assert model.training


def test_another_s_encoder_is_read_at_its_own_pooling():
    torch.manual_seed(0)
    sizes = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    model = ASTModel(ASTConfig(**sizes, max_length=48, num_mel_bins=32)).eval()
    clips = list(torch.randn(5, 48, 32))
    with torch.no_grad():
        expected = model(torch.stack(clips))
    np.testing.assert_allclose(embed(model, None, clips, batch_size=2)[None], expected.pooler_output, atol=1e-6)
    tokens = embed_tokens(model, None, clips, batch_size=2)[None]
    torch.testing.assert_close(torch.stack(tokens).float(), expected.last_hidden_state, atol=1e-2, rtol=0)
    with pytest.raises(ValueError, match="pooling is mean for a ASTModel"):
        embed(model, None, clips, pooling="mel")
    with pytest.raises(ValueError, match="Layers are those of our own models"):
        embed(model, None, clips, layers=[0])


def test_an_encoder_of_doubles_is_read_at_the_mean_of_the_windows_that_count():
    torch.manual_seed(0)
    sizes = {"stem_size": 4, "hidden_sizes": [4, 8], "depths": [1, 1], "embedding_size": 12}
    model, extractor = DoppelgangerModel(DoppelgangerConfig(**sizes)), DoppelgangerFeatureExtractor()
    waveforms = noises([400, 16000, 24_000, 12 * 16000])  # 24 000 samples leave 52 frames after a window
    expected = model.embed(waveforms, extractor)
    for batch_size in (1, 3):
        spectrograms = spectrograms_of(extractor, waveforms)
        np.testing.assert_allclose(
            embed(model, extractor, spectrograms, batch_size=batch_size)[None], expected, atol=1e-5
        )
    tokens = embed_tokens(model, extractor, spectrograms_of(extractor, waveforms))[None]
    assert [clip.shape for clip in tokens] == [(1, 12), (1, 12), (2, 12), (12, 12)]
    torch.testing.assert_close(torch.stack([clip.float().mean(dim=0) for clip in tokens]), expected, atol=1e-3, rtol=0)
    with pytest.raises(ValueError, match="pooling is mean for a DoppelgangerModel"):
        embed(model, extractor, [], pooling="mel")
    with pytest.raises(ValueError, match="Layers are those of our own models on patches"):
        embed(model, extractor, [], layers=[0])


def test_a_layer_that_does_not_exist_is_refused(model):
    with pytest.raises(ValueError, match=r"from 0.*to 1.*got \[2\]"):
        embed(model, EXTRACTOR, [], layers=[0, 2])


def test_log_mel_statistics_are_mean_and_deviation_over_time():
    clips = [torch.randn(length, 5, generator=torch.Generator().manual_seed(length)) for length in (20, 12, 1)]
    found = log_mel_statistics(clips)
    assert found.dtype == np.float64
    for row, clip in zip(found, clips, strict=True):
        frames = clip.double().numpy()
        np.testing.assert_allclose(row, np.concatenate([frames.mean(axis=0), frames.std(axis=0)]), rtol=1e-12)


def test_a_random_encoder_is_a_function_of_its_seed(model):
    state = torch.get_rng_state()
    first, second, other = (random_encoder(model, seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
