import pytest
import torch

import audiopg.training.evaluation.hear as module
from audiopg.modeling.configuration_audiopg import AudioPGConfig
from audiopg.modeling.feature_extraction_audiopg import AudioPGFeatureExtractor
from audiopg.modeling.modeling_audiopg import AudioPGForPreTraining

SIZES = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "decoder_num_hidden_layers": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    AudioPGForPreTraining(AudioPGConfig(**SIZES)).save_pretrained(path)
    AudioPGFeatureExtractor().save_pretrained(path)
    return str(path)


@pytest.mark.parametrize("seconds", [0.1, 4.0, 13.0])
def test_the_module_keeps_the_contract_of_hear(folder, seconds):
    """Checked as HEAR's own validator does: attributes, shapes, types and increasing timestamps in milliseconds."""
    model = module.load_model(folder)
    assert isinstance(model, torch.nn.Module)
    assert model.sample_rate in (16000, 22050, 32000, 44100, 48000)
    audio = torch.rand(3, int(seconds * model.sample_rate), generator=torch.Generator().manual_seed(0)) * 2 - 1
    scenes = module.get_scene_embeddings(audio, model)
    assert (scenes.dtype, tuple(scenes.shape)) == (torch.float32, (3, model.scene_embedding_size))
    embeddings, timestamps = module.get_timestamp_embeddings(audio, model)
    assert tuple(embeddings.shape) == (3, timestamps.shape[1], model.timestamp_embedding_size)
    assert (timestamps.diff(dim=1) > 0).all()
    assert 0 < timestamps.min() < timestamps.max() < 1000 * seconds or seconds < 0.16
    torch.testing.assert_close(embeddings.mean(dim=1), scenes)
    torch.testing.assert_close(scenes, model.encoder.embed(audio, model.feature_extractor))


def test_a_checkpoint_must_be_named():
    with pytest.raises(ValueError, match="No weights come with this package"):
        module.load_model()
