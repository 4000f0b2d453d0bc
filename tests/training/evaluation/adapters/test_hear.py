import importlib.util
import sys

import pytest
import torch

import audiopg.training.evaluation.adapters.hear as module
from audiopg import DoppelgangerConfig, DoppelgangerFeatureExtractor, DoppelgangerModel
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
    """Attributes, shapes, types, and timestamps in milliseconds at equal steps, about where the frames are."""
    model = module.load_model(folder)
    assert isinstance(model, torch.nn.Module)
    assert model.sample_rate in (16000, 22050, 32000, 44100, 48000)
    audio = torch.rand(3, int(seconds * model.sample_rate), generator=torch.Generator().manual_seed(0)) * 2 - 1
    scenes = module.get_scene_embeddings(audio, model)
    assert (scenes.dtype, tuple(scenes.shape)) == (torch.float32, (3, model.scene_embedding_size))
    embeddings, timestamps = module.get_timestamp_embeddings(audio, model)
    assert tuple(embeddings.shape) == (3, timestamps.shape[1], model.timestamp_embedding_size)
    assert (timestamps.diff(dim=1) == 160).all()
    exact = 1000 * torch.stack([clip.times for clip in model(audio)])
    torch.testing.assert_close(timestamps[:, :-1], exact[:, :-1])
    assert timestamps.max() < 1000 * seconds + 80
    torch.testing.assert_close(embeddings.mean(dim=1), scenes)
    torch.testing.assert_close(scenes, model.encoder.embed(audio, model.feature_extractor))


def test_narrow_patches_have_the_timestamps_that_hear_asks_for(tmp_path):
    AudioPGForPreTraining(AudioPGConfig(**SIZES, patch_frames=4)).save_pretrained(tmp_path)
    AudioPGFeatureExtractor(patch_size=4).save_pretrained(tmp_path)
    model = module.load_model(str(tmp_path))
    embeddings, timestamps = module.get_timestamp_embeddings(torch.zeros(2, model.sample_rate), model)
    assert embeddings.shape == (2, 25, 24)
    assert timestamps[0, :3].tolist() == [27.5, 67.5, 107.5]  # four frames last 55 ms


def test_an_encoder_of_doubles_has_a_timestamp_for_each_window(tmp_path):
    torch.manual_seed(0)
    DoppelgangerModel(DoppelgangerConfig.of_size("resnet_tiny")).save_pretrained(tmp_path)
    DoppelgangerFeatureExtractor().save_pretrained(tmp_path)
    model = module.load_model(str(tmp_path))
    audio = torch.rand(2, 3 * model.sample_rate, generator=torch.Generator().manual_seed(0)) * 2 - 1
    embeddings, timestamps = module.get_timestamp_embeddings(audio, model)
    assert tuple(embeddings.shape) == (2, 3, model.timestamp_embedding_size) == (2, 3, 512)
    assert timestamps.tolist() == [[487.5, 1447.5, 2407.5]] * 2
    torch.testing.assert_close(
        module.get_scene_embeddings(audio, model), model.encoder.embed(audio, model.feature_extractor)
    )


@pytest.mark.filterwarnings("ignore:We suggest a interval")  # ours are 160 ms apart, as the module says
def test_hear_s_own_validator_passes(folder, monkeypatch):
    if importlib.util.find_spec("hearvalidator") is None:
        pytest.skip("needs hearvalidator")
    module.validate(folder)
    monkeypatch.setattr(module, "get_timestamp_embeddings", irregular)
    with pytest.raises(ValueError, match=r"HEAR's validator refuses .* regular intervals"):
        module.validate(folder)


def test_without_the_validator_its_command_is_told(folder, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("hearvalidator")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "hearvalidator", None)
    with pytest.raises(ImportError, match="pip install --no-deps hearvalidator"):
        module.validate(folder)


def irregular(audio, model):
    frames = model(audio)
    return torch.stack([clip.embeddings for clip in frames]), torch.stack([1000 * clip.times for clip in frames])


def test_a_checkpoint_must_be_named():
    with pytest.raises(ValueError, match="No weights come with this package"):
        module.load_model()
