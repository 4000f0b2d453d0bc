"""What transformers' own common tests ask of every model and feature extractor, asked of these.

The files themselves (`tests/test_modeling_common.py` and its kin) are part of no package, so their properties are
written here. Left out, because there is nothing of the kind: tied weights, token embeddings and their resizing,
`inputs_embeds`, generation and caches, head pruning, chunked feed-forward parts, tensor parallel plans, causal masks,
composite configurations, and what needs several GPUs. Batches, masks, compilation and export are in
`test_modeling_audiopg.py` and `test_exports.py`, saving elsewhere in `tests/package/`.
"""

import copy
import inspect
import json
import pickle

import numpy as np
import pytest
import torch
from transformers import AutoModel, PreTrainedConfig

from audiopg.modeling.configuration_audiopg import AudioPGConfig
from audiopg.modeling.feature_extraction_audiopg import AudioPGFeatureExtractor
from audiopg.modeling.modeling_audiopg import AudioPGForAudioClassification, AudioPGForPreTraining, AudioPGModel

HEADS = (AudioPGModel, AudioPGForPreTraining, AudioPGForAudioClassification)
SMALL = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
SMALL |= {"num_mel_bins": 32, "decoder_hidden_size": 16, "decoder_num_attention_heads": 2}
SMALL |= {"decoder_num_hidden_layers": 1, "decoder_intermediate_size": 24, "num_labels": 3}
every_head = pytest.mark.parametrize("head", HEADS)


def build(head, **settings):
    torch.manual_seed(0)
    return head(AudioPGConfig(**SMALL | settings)).eval()


def inputs_of(model):
    generator = torch.Generator().manual_seed(1)
    mask = torch.ones(3, 64, dtype=torch.long)
    mask[1, 20:] = 0
    inputs = {"input_values": torch.randn(3, 64, 32, generator=generator), "attention_mask": mask}
    if isinstance(model, AudioPGForAudioClassification):
        inputs["labels"] = torch.tensor([0, 2, 1])
    return inputs


def main_output(model, **inputs):
    output = model(**inputs)
    return output.logits if "logits" in output else output.pooler_output


def loss_of(model, **inputs):
    output = model(**inputs)
    return output.loss if "loss" in output else output.last_hidden_state.square().mean()


# --- configuration ---------------------------------------------------------------------------------------------------


def test_a_configuration_survives_json_files_pickle_and_copies(tmp_path):
    config = AudioPGConfig(**SMALL, mask_ratio=0.8, id2label={0: "rain", 1: "dog", 2: "siren"})
    config.to_json_file(tmp_path / "config.json")
    config.save_pretrained(tmp_path / "folder")
    for again in (
        AudioPGConfig.from_json_file(tmp_path / "config.json"),
        AudioPGConfig.from_pretrained(tmp_path / "folder"),
        AudioPGConfig.from_dict(config.to_dict()),
        pickle.loads(pickle.dumps(config)),
        copy.deepcopy(config),
    ):
        assert again.to_dict() == config.to_dict()
    assert json.loads(config.to_json_string())["mask_ratio"] == 0.8


def test_a_configuration_has_the_common_names_and_settings():
    config = AudioPGConfig()
    assert {"hidden_size", "num_attention_heads", "num_hidden_layers"} <= set(vars(config))
    common = {"output_hidden_states": True, "return_dict": False, "architectures": ["X"], "problem_type": "regression"}
    config = AudioPGConfig(**common, num_labels=5)
    assert {name: getattr(config, name) for name in common} == common
    assert (len(config.id2label), len(config.label2id)) == (5, 5)
    config.num_labels = 3
    assert len(config.id2label) == 3
    assert isinstance(config, PreTrainedConfig)


# --- models ----------------------------------------------------------------------------------------------------------


@every_head
def test_forward_begins_with_the_main_input_and_takes_both_outputs_of_the_extractor(head):
    names = list(inspect.signature(head.forward).parameters)
    assert names[1:3] == AudioPGFeatureExtractor.model_input_names
    assert head.main_input_name == names[1]


@every_head
def test_equal_inputs_give_equal_outputs(head):
    model = build(head)
    first, second = (main_output(model, **inputs_of(model)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.isfinite(first).all()


@every_head
def test_a_tuple_holds_what_the_dictionary_holds(head):
    model = build(head)
    model.set_attn_implementation("eager")
    wanted = {"output_hidden_states": True, "output_attentions": True}
    named = model(**inputs_of(model), **wanted).to_tuple()
    plain = model(**inputs_of(model), **wanted, return_dict=False)
    assert len(named) == len(plain)
    for one, other in zip(named, plain, strict=True):
        pairs = zip(one, other, strict=True) if isinstance(one, tuple) else [(one, other)]
        assert all(torch.equal(*pair) for pair in pairs)


@every_head
def test_a_clip_alone_gives_what_it_gives_in_a_batch(head):
    model = build(head)
    inputs = inputs_of(model)
    together = main_output(model, **inputs)
    for row in range(3):
        alone = main_output(model, **{name: values[row : row + 1] for name, values in inputs.items()})
        torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=0)


@every_head
def test_hidden_states_and_attentions_come_one_a_block_and_keep_gradients(head):
    model = build(head)
    model.set_attn_implementation("eager")
    output = model(**inputs_of(model), output_hidden_states=True, output_attentions=True)
    assert (len(output.hidden_states), len(output.attentions)) == (3, 2)
    for tensor in (output.hidden_states[0], output.attentions[0]):
        tensor.retain_grad()
    output[0 if head is AudioPGModel else 1].sum().backward()
    assert output.hidden_states[0].grad is not None
    assert output.attentions[0].grad is not None


@every_head
@pytest.mark.parametrize("reentrant", [None, False, True])
@pytest.mark.filterwarnings("ignore:.*is deprecated and will be removed in v6:FutureWarning")
def test_training_reaches_every_parameter_with_checkpoints_of_activations_and_without(head, reentrant):
    model = build(head).train()
    if reentrant is not None:
        model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        # A reentrant checkpoint wants an input with a gradient, as `Trainer` sees to with frozen embeddings.
        model.enable_input_require_grads()
    loss_of(model, **inputs_of(model)).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@every_head
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sdpa_gives_what_attention_written_out_gives(head, dtype):
    model = build(head).to(dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    outputs = []
    for implementation in ("eager", "sdpa"):
        model.set_attn_implementation(implementation)
        inputs = inputs_of(model)
        inputs["input_values"] = inputs["input_values"].to(dtype)
        outputs.append(main_output(model, **inputs))
    torch.testing.assert_close(*outputs, atol=tolerance, rtol=tolerance)


@every_head
def test_the_input_embeddings_can_be_read_and_replaced(head):
    model = build(head)
    embeddings = model.get_input_embeddings()
    assert isinstance(embeddings, torch.nn.Linear)
    model.set_input_embeddings(torch.nn.Linear(256, 24))
    assert model.get_input_embeddings() is not embeddings


@every_head
def test_weights_come_back_from_shards_state_dicts_and_other_precisions(head, tmp_path):
    model = build(head)
    model.save_pretrained(tmp_path, max_shard_size="10kB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    weights = model.state_dict()
    for again in (
        head.from_pretrained(tmp_path),
        head.from_pretrained(tmp_path, device_map="cpu"),
        head.from_pretrained(None, config=model.config, state_dict=copy.deepcopy(weights)),
    ):
        assert all(torch.equal(value, weights[name]) for name, value in again.state_dict().items())
    halved = head.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {value.dtype for value in halved.state_dict().values()} == {torch.bfloat16}
    with torch.device("meta"):
        assert {parameter.device.type for parameter in head(model.config).parameters()} == {"meta"}


@every_head
def test_weights_that_a_file_lacks_are_initialised_as_in_a_new_model(head, tmp_path):
    model = build(head)
    model.save_pretrained(tmp_path)
    kept = {name: value for name, value in model.state_dict().items() if name.endswith("fc1.weight")}
    loaded, report = head.from_pretrained(None, config=model.config, state_dict=kept, output_loading_info=True)
    assert set(report["missing_keys"]) == model.state_dict().keys() - kept.keys()
    for name, value in loaded.state_dict().items():
        fresh = model.state_dict()[name]
        assert torch.isfinite(value).all()
        if value.numel() > 100:
            assert value.std().item() == pytest.approx(fresh.std().item(), rel=0.2)
        else:
            assert bool(value.any()) == bool(fresh.any())


def test_a_classifier_of_other_classes_loads_only_where_that_is_asked_for(tmp_path):
    build(AudioPGForAudioClassification).save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="mismatch"):
        AudioPGForAudioClassification.from_pretrained(tmp_path, num_labels=5)
    loaded = AudioPGForAudioClassification.from_pretrained(tmp_path, num_labels=5, ignore_mismatched_sizes=True)
    assert loaded.classifier.weight.shape == (5, 24)
    assert main_output(loaded, input_values=torch.zeros(1, 16, 32)).shape == (1, 5)


@pytest.mark.parametrize(
    ("problem_type", "num_labels", "labels"),
    [
        ("single_label_classification", 3, torch.tensor([0, 2, 1])),
        ("multi_label_classification", 3, torch.tensor([[1.0, 0, 1], [0, 0, 0], [0, 1, 0]])),
        ("regression", 1, torch.tensor([0.5, -1.0, 2.0])),
    ],
)
def test_every_problem_type_trains(problem_type, num_labels, labels):
    model = build(AudioPGForAudioClassification, problem_type=problem_type, num_labels=num_labels).train()
    loss = model(**{**inputs_of(model), "labels": labels}).loss
    loss.backward()
    assert torch.isfinite(loss)


@every_head
def test_models_are_copied_named_and_made_from_a_configuration(head):
    model = build(head)
    assert torch.equal(main_output(copy.deepcopy(model), **inputs_of(model)), main_output(model, **inputs_of(model)))
    assert not list(model.buffers())  # none that could be lost in a file
    assert not model.can_generate()
    assert model.base_model is getattr(model, "audiopg", model)
    assert type(AutoModel.from_config(model.config)) is AudioPGModel


# --- feature extractor -----------------------------------------------------------------------------------------------


def test_an_extractor_survives_json_files_and_folders(tmp_path):
    extractor = AudioPGFeatureExtractor(mean=-3.0, std=2.0, window="hamming", padding_value=0.5)
    extractor.to_json_file(tmp_path / "extractor.json")
    extractor.save_pretrained(tmp_path / "folder")
    expected = json.loads(extractor.to_json_string())
    assert expected["mean"] == -3.0
    for again in (
        AudioPGFeatureExtractor.from_json_file(tmp_path / "extractor.json"),
        AudioPGFeatureExtractor.from_pretrained(tmp_path / "folder"),
        AudioPGFeatureExtractor.from_dict(extractor.to_dict()),
    ):
        found = json.loads(again.to_json_string())
        assert {name: found[name] for name in expected if name != "auto_map"} == {
            name: value for name, value in expected.items() if name != "auto_map"
        }


def test_an_extractor_has_the_common_names():
    extractor = AudioPGFeatureExtractor()
    assert (extractor.feature_size, extractor.sampling_rate, extractor.padding_value) == (128, 16000, 0.0)
    assert extractor.model_input_names == ["input_values", "attention_mask"]


def test_lists_arrays_and_tensors_of_any_lengths_give_the_same_batch_and_a_mask_of_their_frames():
    rng = np.random.default_rng(0)
    clips = [(0.1 * rng.standard_normal(length)).astype(np.float32) for length in (800, 1600, 4000)]
    kinds = (clips, [clip.tolist() for clip in clips], [torch.from_numpy(clip) for clip in clips])
    first, *others = (AudioPGFeatureExtractor()(kind, sampling_rate=16000) for kind in kinds)
    for other in others:
        assert torch.equal(first["input_values"], other["input_values"])
    arrays = AudioPGFeatureExtractor()(clips, sampling_rate=16000, return_tensors="np")
    assert np.array_equal(arrays["input_values"], first["input_values"].numpy())
    assert first["attention_mask"].sum(dim=1).tolist() == [1 + (len(clip) - 400) // 160 for clip in clips]
    assert first["input_values"].dtype == torch.float32
    assert not first["input_values"][~first["attention_mask"].bool()].any()
