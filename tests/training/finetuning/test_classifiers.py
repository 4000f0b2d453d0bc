import pytest
import torch
from safetensors.torch import load_file, save_file
from toys import SMALL
from transformers import ASTConfig, ASTForAudioClassification

from audiopg.modeling.configuration_audiopg import AudioPGConfig
from audiopg.modeling.configuration_doppelganger import DoppelgangerConfig
from audiopg.modeling.modeling_audiopg import AudioPGForPreTraining
from audiopg.modeling.modeling_doppelganger import DoppelgangerModel
from audiopg.training.finetuning.classifiers import build_classifier, parameter_groups

TWO_BLOCKS = {**SMALL, "num_hidden_layers": 2}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    AudioPGForPreTraining(AudioPGConfig(**TWO_BLOCKS)).save_pretrained(folder)
    return folder


def build(checkpoint, **options):
    options = {"multi_label": False, "drop_path_rate": 0.2, "pooling": "mean", "seed": 0, **options}
    return build_classifier(checkpoint, ["a", "b", "c"], **options)


def test_a_classifier_has_the_checkpoint_s_encoder_and_its_own_names(checkpoint):
    state = torch.get_rng_state()
    model = build(checkpoint)
    assert torch.equal(torch.get_rng_state(), state)
    kept = load_file(checkpoint / "model.safetensors")
    encoder = {name: value for name, value in model.state_dict().items() if name.startswith("audiopg.")}
    assert all(torch.equal(value, kept[name]) for name, value in encoder.items())
    assert model.config.id2label == {0: "a", 1: "b", 2: "c"}
    assert model.audiopg.layers[-1].drop_path.drop_rate == pytest.approx(0.2)


@pytest.mark.parametrize("from_scratch", [False, True])
def test_a_classifier_reads_what_the_recipe_says(checkpoint, from_scratch):
    model = build(checkpoint, pooling="mel", from_scratch=from_scratch)
    assert model.classifier.in_features == 8 * SMALL["hidden_size"]
    with pytest.raises(ValueError, match="`pooling` must be one of mean, mel, mel_std, got 'max'"):
        build(checkpoint, pooling="max", from_scratch=from_scratch)


def test_another_model_s_pooling_is_its_own(tmp_path):
    ast().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="pooling is mean for ASTConfig"):
        build(tmp_path, pooling="mel")


def test_from_scratch_nothing_is_taken_from_the_checkpoint(checkpoint):
    kept = load_file(checkpoint / "model.safetensors")
    scratch = build(checkpoint, seed=1, from_scratch=True)
    assert not torch.equal(scratch.audiopg.layers[0].mlp.fc1.weight, kept["audiopg.layers.0.mlp.fc1.weight"])
    assert scratch.num_parameters() == build(checkpoint).num_parameters()


def test_new_weights_are_a_function_of_the_seed(checkpoint):
    first, second, other = (build(checkpoint, seed=seed).classifier.weight for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_an_encoder_without_a_classifier_is_refused_in_a_few_words(tmp_path):
    DoppelgangerModel(DoppelgangerConfig.of_size("resnet_tiny")).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="There is no classifier on encoders of type audiopg_doppelganger"):
        build(tmp_path)


def test_a_checkpoint_without_a_whole_encoder_is_refused(checkpoint, tmp_path):
    (tmp_path / "config.json").write_text((checkpoint / "config.json").read_text())
    weights = load_file(checkpoint / "model.safetensors")
    del weights["audiopg.layers.1.mlp.fc1.weight"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 of its weights, audiopg\.layers\.1\.mlp\.fc1\.weight"):
        build(tmp_path)


def ast():
    sizes = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}
    return ASTForAudioClassification(ASTConfig(**sizes, num_labels=5))


def test_another_classifier_s_head_is_replaced(tmp_path, caplog):
    ast().save_pretrained(tmp_path)
    model = build(tmp_path)
    assert model.classifier.dense.weight.shape == (3, 12)
    assert "has no stochastic depth" in caplog.text


@pytest.mark.parametrize("kind", ["audiopg", "ast"])
def test_rates_fall_from_block_to_block_and_every_parameter_has_one(checkpoint, kind):
    model = build(checkpoint) if kind == "audiopg" else ast()
    groups = parameter_groups(model, learning_rate=1.0, layer_decay=0.5, weight_decay=0.1)
    rate, decay = {}, {}
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for group in groups:
        for parameter in group["params"]:
            rate[names[id(parameter)]], decay[names[id(parameter)]] = group["lr"], group["weight_decay"]
    assert set(rate) == set(names.values())
    for name, value in rate.items():
        expected = {"embeddings": 0.125, ".layers.0.": 0.25, ".layers.1.": 0.5}
        assert value == next((rate for part, rate in expected.items() if part in name), 1.0), name
        plain = name.endswith("bias") or "norm" in name or "token" in name or "position" in name
        assert decay[name] == (0.0 if plain else 0.1), name


def test_a_model_without_blocks_cannot_have_falling_rates():
    with pytest.raises(ValueError, match="Set layer_decay to 1"):
        parameter_groups(torch.nn.Linear(2, 2), learning_rate=1.0, layer_decay=0.5, weight_decay=0.0)
    assert len(parameter_groups(torch.nn.Linear(2, 2), learning_rate=1.0, layer_decay=1.0, weight_decay=0.0)) == 2
