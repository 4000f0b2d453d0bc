"""The model against independent loops, the research code's numbers, and its own promises.

`tests/assets/audiopg_tiny_golden.safetensors` holds the weights of a seeded toy model, its inputs and what it computed
from them. After a change that is meant to alter numbers, write it anew with

    python tests/modeling/test_modeling_audiopg.py
"""

import copy
import math
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Trainer, TrainingArguments

from audiopg.modeling import modeling_audiopg
from audiopg.modeling.configuration_audiopg import AudioPGConfig
from audiopg.modeling.modeling_audiopg import (
    AudioPGDropPath,
    AudioPGForAudioClassification,
    AudioPGForPreTraining,
    AudioPGModel,
)
from audiopg.modeling.patches_audiopg import random_masking, sincos_positions, unpatchify, valid_patches

GOLDEN = Path(__file__).parents[1] / "assets" / "audiopg_tiny_golden.safetensors"
FRAMES, COLUMNS = 80, 3  # five rows of three patches
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def small_config(**overrides):
    settings = {
        "num_mel_bins": 48,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "decoder_hidden_size": 24,
        "decoder_num_hidden_layers": 1,
        "decoder_num_attention_heads": 2,
        "decoder_intermediate_size": 48,
    }
    return AudioPGConfig(**{**settings, **overrides})


def build(model_class, **overrides):
    torch.manual_seed(0)
    model = model_class(small_config(**overrides)).eval()
    with torch.no_grad():
        # Biases and norms start at 0 and 1, where a forgotten one would not show.
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def draw(batch=2, frames=FRAMES, seed=1, patch_frames=16):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(batch, frames, 48, generator=generator)
    noise = torch.rand(batch, frames // patch_frames * COLUMNS, generator=generator)
    return values, noise


def padded_batch(patch_frames=16):
    """Three clips of five, two and one rows of patches, the last with a row that is real only in part."""
    values, noise = draw(batch=3, patch_frames=patch_frames)
    attention_mask = torch.ones(3, FRAMES, dtype=torch.long)
    for clip, length in enumerate((80, 32, 10)):
        attention_mask[clip, length:] = 0
        values[clip, length:] = 100.0  # loud, to be noticed if it leaks
    return values, attention_mask, noise, (80, 32, -(-10 // patch_frames) * patch_frames)


# --- images --------------------------------------------------------------------------------------------------------


def test_an_embedded_image_is_a_convolution_of_all_its_channels():
    """Against `conv2d` with the same kernel, the class token and positions taken off."""
    model = build(AudioPGModel, num_channels=3)
    images = torch.randn(2, 3, FRAMES, 48)
    tokens = model(images, output_hidden_states=True).hidden_states[0][:, 1:]
    embedded = tokens - sincos_positions(5, COLUMNS, 32)
    projection = model.embeddings.patch_embeddings
    expected = torch.nn.functional.conv2d(
        images, projection.weight.unflatten(1, (3, 16, 16)), projection.bias, stride=16
    )
    torch.testing.assert_close(embedded, expected.flatten(2).transpose(1, 2), **CLOSE)


def test_images_are_redrawn_in_all_their_channels():
    model = build(AudioPGForPreTraining, num_channels=3, norm_pix_loss=False)
    images, noise = torch.randn(2, 3, FRAMES, 48), draw()[1]
    output = model(images, noise=noise)
    redrawn = unpatchify(output.logits, (16, 16), num_mel_bins=48, num_channels=3)
    assert redrawn.shape == images.shape
    hidden = output.mask[..., None].expand(-1, -1, 768)
    hidden = unpatchify(hidden, (16, 16), num_mel_bins=48, num_channels=3).bool()
    torch.testing.assert_close(output.loss, (redrawn - images)[hidden].square().mean(), **CLOSE)


def test_an_image_has_the_same_mask_in_every_evaluation_and_all_its_channels_choose_it():
    model = build(AudioPGForPreTraining, num_channels=3)
    images = torch.randn(2, 3, FRAMES, 48)
    mask = model(images).mask
    assert torch.equal(model(images[1:]).mask[0], mask[1])
    for channel in range(3):
        other = images.clone()
        other[:, channel] += 1
        assert not torch.equal(model(other).mask, mask)


def test_a_model_of_images_trains_a_classifier_and_saves(tmp_path):
    model = build(AudioPGForAudioClassification, num_channels=3, num_labels=7)
    images = torch.randn(2, 3, FRAMES, 48)
    assert model(images, labels=torch.tensor([0, 6])).loss.isfinite()
    model.save_pretrained(tmp_path)
    loaded = AudioPGForAudioClassification.from_pretrained(tmp_path)
    assert torch.equal(loaded(images).logits, model(images).logits)


@pytest.mark.parametrize("shape", [(2, FRAMES, 48), (2, 1, FRAMES, 48), (2, 3, 48, FRAMES)])
def test_inputs_that_are_no_images_say_how_to_come_to_audio(shape):
    with pytest.raises(ValueError, match=r"\(batch, 3 channels, columns, 48 rows\), got .*--to_audio"):
        build(AudioPGModel, num_channels=3)(torch.randn(shape))


# --- patches that are no squares -----------------------------------------------------------------------------------


@pytest.mark.parametrize("patch_frames", [8, 4, 40])
def test_patches_of_any_frames_are_embedded_as_a_convolution_and_scored_where_they_stand(patch_frames):
    """Against `conv2d` with the same kernel, and the error of the hidden pixels."""
    model = build(AudioPGForPreTraining, patch_frames=patch_frames, norm_pix_loss=False)
    values, noise = draw(patch_frames=patch_frames)
    rows, shape = FRAMES // patch_frames, (patch_frames, 16)
    tokens = model.audiopg(values, output_hidden_states=True).hidden_states[0][:, 1:]
    projection = model.audiopg.embeddings.patch_embeddings
    kernel = projection.weight.unflatten(1, (1, *shape))
    expected = torch.nn.functional.conv2d(values[:, None], kernel, projection.bias, stride=shape)
    embedded = tokens - sincos_positions(rows, COLUMNS, 32)
    torch.testing.assert_close(embedded, expected.flatten(2).transpose(1, 2), **CLOSE)

    output = model(values, noise=noise)
    assert output.logits.shape == (2, rows * COLUMNS, patch_frames * 16)
    redrawn = torch.full_like(values, torch.nan)
    squares = []
    for clip in range(2):
        for patch, hidden in enumerate(output.mask[clip].tolist()):
            row, column = divmod(patch, COLUMNS)
            place = (clip, slice(row * patch_frames, (row + 1) * patch_frames), slice(column * 16, column * 16 + 16))
            redrawn[place] = output.logits[clip, patch].reshape(shape)
            if hidden:
                squares.append((redrawn[place] - values[place]).square().flatten())
    torch.testing.assert_close(output.loss, torch.cat(squares).mean(), **CLOSE)
    assert torch.equal(unpatchify(output.logits, shape, num_mel_bins=48), redrawn)


# --- positions -----------------------------------------------------------------------------------------------------


def test_positions_reach_the_model_in_float32_before_they_are_rounded():
    model = build(AudioPGModel).to(torch.bfloat16)
    model.embeddings.patch_embeddings.weight.data.zero_()
    model.embeddings.patch_embeddings.bias.data.zero_()
    values, _ = draw()
    with torch.no_grad():
        tokens = model(values, output_hidden_states=True).hidden_states[0][0, 1:]
    assert torch.equal(tokens, sincos_positions(5, 3, 32).to(torch.bfloat16))


# --- masking -------------------------------------------------------------------------------------------------------


def test_clip_of_nothing_but_padding_shows_nothing_and_stays_finite():
    values, noise = draw()
    attention_mask = torch.ones(2, FRAMES)
    attention_mask[1] = 0
    output = build(AudioPGForPreTraining)(values, attention_mask, noise)
    assert not output.mask[1].any()
    assert output.logits.isfinite().all()
    assert output.loss.isfinite()


def test_without_a_loss_evaluation_masks_nothing():
    values, _ = draw()
    model = build(AudioPGForPreTraining)
    output = model(values, return_loss=False)
    assert output.loss is None
    assert not output.mask.any()
    assert output.logits.shape == (2, 15, 256)
    assert output.ids_restore.tolist() == [list(range(15))] * 2
    assert torch.equal(output.logits, model(values, return_loss=False).logits)


def test_a_clip_has_the_same_mask_in_every_evaluation_whatever_its_batch():
    values, attention_mask, _, (_, frames, _) = padded_batch()
    model = build(AudioPGForPreTraining)
    together = model(values, attention_mask)
    alone = model(values[1:2, :frames])
    assert torch.equal(together.mask[1:2, : alone.mask.shape[1]], alone.mask)
    assert torch.equal(model(values.flip(0), attention_mask.flip(0)).mask, together.mask.flip(0))
    assert torch.isfinite(together.loss)


@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true")
def test_trainer_evaluates_pretraining_to_one_number_whatever_the_batch_size(tmp_path):
    values, _ = draw(batch=6)
    rows = [{"input_values": clip} for clip in values]
    losses = []
    for batch_size in (2, 3, 6):
        arguments = TrainingArguments(
            output_dir=str(tmp_path),
            per_device_eval_batch_size=batch_size,
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
        )
        trainer = Trainer(build(AudioPGForPreTraining), arguments, eval_dataset=rows)
        losses += [trainer.evaluate()["eval_loss"], trainer.evaluate()["eval_loss"]]
    assert losses[0] == losses[1]
    assert losses == pytest.approx([losses[0]] * 6, rel=1e-5)


def test_encoder_and_classifier_never_mask_in_training_without_noise():
    values, _ = draw()
    encoder = build(AudioPGModel)
    assert torch.equal(encoder.train()(values).last_hidden_state, encoder.eval()(values).last_hidden_state)
    classifier = build(AudioPGForAudioClassification)
    assert torch.equal(classifier.train()(values).logits, classifier.eval()(values).logits)


def test_training_draws_its_own_noise():
    values, _ = draw()
    model = build(AudioPGForPreTraining).train()
    torch.manual_seed(3)
    output = model(values)
    torch.manual_seed(3)
    again = model(values, noise=torch.rand(2, 15))
    assert output.mask.sum().item() == 2 * 12
    assert torch.equal(output.mask, again.mask)
    assert torch.equal(output.loss, again.loss)
    assert not torch.equal(output.mask, model(values).mask)


def test_encoder_sees_only_visible_patches():
    model = build(AudioPGForPreTraining)
    values, noise = draw()
    before = model(values, noise=noise)
    hidden = unpatchify(before.mask[..., None].expand(-1, -1, 256), (16, 16), num_mel_bins=48).bool()
    after = model(torch.where(hidden, 1000.0, values), noise=noise)
    assert torch.equal(before.logits, after.logits)
    encode = model.audiopg
    tokens = encode(values, noise=noise).last_hidden_state
    assert tokens.shape == (2, 1 + 3, 32)
    assert torch.equal(tokens, encode(torch.where(hidden, 1000.0, values), noise=noise).last_hidden_state)
    changed = encode(torch.where(hidden, values, 1000.0), noise=noise).last_hidden_state
    assert not torch.equal(tokens, changed)


def test_unfilled_slots_show_no_masked_patch():
    model = build(AudioPGForPreTraining)
    values, attention_mask, noise, _ = padded_batch()
    before = model(values, attention_mask, noise)
    hidden = unpatchify(before.mask[..., None].expand(-1, -1, 256), (16, 16), num_mel_bins=48).bool()
    louder = torch.where(hidden, 1000.0, values)
    torch.testing.assert_close(before.logits, model(louder, attention_mask, noise).logits, atol=0, rtol=0)
    encode = model.audiopg
    tokens = encode(values, attention_mask, noise).last_hidden_state
    assert torch.equal(tokens, encode(louder, attention_mask, noise).last_hidden_state)


def test_visible_patches_are_encoded_where_they_stand():
    # At so high a ratio one patch is left, the one with the smallest noise.
    model = build(AudioPGModel, mask_ratio=0.99)
    values, noise = draw()
    tokens = model(values, noise=noise, output_hidden_states=True).hidden_states[0]
    everything = model(values, output_hidden_states=True).hidden_states[0]
    for clip in range(2):
        torch.testing.assert_close(tokens[clip, 1], everything[clip, 1 + noise[clip].argmin()], **CLOSE)


def test_decoder_puts_visible_patches_back_in_place():
    # Without noise nothing is masked; noise that hides nothing must redraw the same.
    model = build(AudioPGForPreTraining, mask_ratio=0)
    values, noise = draw()
    torch.testing.assert_close(model(values, noise=noise).logits, model(values).logits, **CLOSE)


# --- loss ----------------------------------------------------------------------------------------------------------


def test_silence_gives_finite_losses_and_gradients():
    model = build(AudioPGForPreTraining).train()
    output = model(torch.zeros(2, FRAMES, 48))
    output.loss.backward()
    assert output.loss.isfinite()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_every_weight_gets_a_gradient():
    values, noise = draw()
    model = build(AudioPGForPreTraining).train()
    model(values, noise=noise).loss.backward()
    assert not [name for name, parameter in model.named_parameters() if not parameter.grad.any()]


def test_loss_is_float32_in_a_bfloat16_model():
    values, noise = draw()
    reference = build(AudioPGForPreTraining)
    output = copy.deepcopy(reference).to(torch.bfloat16)(values, noise=noise)
    assert output.logits.dtype == torch.bfloat16
    assert output.loss.dtype == torch.float32
    torch.testing.assert_close(output.loss, reference(values, noise=noise).loss, atol=0.05, rtol=0.05)


def test_autocast_trains():
    values, noise = draw()
    model = build(AudioPGForPreTraining).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(values, noise=noise)
    output.loss.backward()
    torch.testing.assert_close(output.loss, model(values, noise=noise).loss, atol=0.05, rtol=0.05)


# --- padding -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("patch_frames", [16, 8])
def test_batch_with_padding_equals_its_clips_one_by_one_in_the_encoder(patch_frames):
    model = build(AudioPGModel, patch_frames=patch_frames)
    values, attention_mask, _, lengths = padded_batch(patch_frames)
    batch = model(values, attention_mask)
    for clip, length in enumerate(lengths):
        one = slice(clip, clip + 1)
        alone = model(values[one, :length])
        patches = length // patch_frames * COLUMNS
        torch.testing.assert_close(batch.last_hidden_state[one, : 1 + patches], alone.last_hidden_state, **CLOSE)
        torch.testing.assert_close(batch.pooler_output[one], alone.pooler_output, **CLOSE)


@pytest.mark.parametrize("patch_frames", [16, 8])
def test_batch_with_padding_equals_its_clips_one_by_one_in_pretraining(patch_frames):
    model = build(AudioPGForPreTraining, mask_ratio=0.6, patch_frames=patch_frames)
    values, attention_mask, noise, lengths = padded_batch(patch_frames)
    batch = model(values, attention_mask, noise)
    total, count = 0.0, 0.0
    for clip, length in enumerate(lengths):
        one, patches = slice(clip, clip + 1), length // patch_frames * COLUMNS
        alone = model(values[one, :length], noise=noise[one, :patches])
        assert torch.equal(batch.mask[one, :patches], alone.mask)
        assert not batch.mask[one, patches:].any()
        torch.testing.assert_close(batch.logits[one, :patches], alone.logits, **CLOSE)
        total += alone.loss.item() * alone.mask.sum().item()
        count += alone.mask.sum().item()
    assert batch.loss.item() == pytest.approx(total / count, abs=1e-5)


@pytest.mark.parametrize("patch_frames", [16, 8])
@pytest.mark.parametrize("pooling", ["mean", "mel", "mel_std"])
def test_batch_with_padding_equals_its_clips_one_by_one_in_the_classifier(pooling, patch_frames):
    settings = {"num_labels": 5, "classifier_pooling": pooling, "patch_frames": patch_frames}
    model = build(AudioPGForAudioClassification, **settings)
    values, attention_mask, _, lengths = padded_batch(patch_frames)
    logits = model(values, attention_mask).logits
    for clip, length in enumerate(lengths):
        one = slice(clip, clip + 1)
        torch.testing.assert_close(logits[one], model(values[one, :length]).logits, **CLOSE)


def test_a_classifier_of_deviations_learns_from_clips_that_do_not_move():
    model = build(AudioPGForAudioClassification, num_labels=5, classifier_pooling="mel_std").train()
    values, _ = draw()
    one_time_patch = values[:, :16]
    loss = model(one_time_patch, labels=torch.zeros(len(values), dtype=torch.long)).loss
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_a_classifier_may_read_every_mel_row_apart(tmp_path):
    model = build(AudioPGForAudioClassification, num_labels=5, classifier_pooling="mel")
    columns, width = model.config.num_mel_patches, model.config.hidden_size
    assert model.classifier.weight.shape == (5, columns * width)
    values, _ = draw()
    tokens = model.audiopg(values).last_hidden_state[:, 1:]
    rows = torch.cat([tokens[:, row::columns].mean(dim=1) for row in range(columns)], dim=1)
    torch.testing.assert_close(model(values).logits, model.classifier(rows), **CLOSE)
    model.save_pretrained(tmp_path)
    again = AudioPGForAudioClassification.from_pretrained(tmp_path)
    assert torch.equal(again(values).logits, model(values).logits)
    with pytest.raises(ValueError, match="`classifier_pooling` must be one of mean, mel, mel_std, got 'max'"):
        AudioPGConfig(classifier_pooling="max")


def test_mask_of_ones_changes_nothing():
    model = build(AudioPGForPreTraining)
    values, noise = draw()
    masked = model(values, torch.ones(2, FRAMES), noise)
    torch.testing.assert_close(masked.logits, model(values, noise=noise).logits, **CLOSE)


def test_padding_may_be_anywhere():
    model = build(AudioPGModel)
    values, _ = draw(batch=1)
    attention_mask = torch.ones(1, FRAMES)
    attention_mask[:, 16:32] = 0
    before = model(values, attention_mask).pooler_output
    values[:, 16:32] = torch.nan
    assert torch.equal(before, model(values, attention_mask).pooler_output)


@pytest.mark.parametrize(("frames", "patch_frames"), [(16, 16), (48, 16), (1600, 16), (8, 8), (24, 8), (800, 8)])
def test_any_number_of_patch_rows_works(frames, patch_frames):
    values, noise = draw(batch=1, frames=frames, patch_frames=patch_frames)
    model = build(AudioPGForPreTraining, patch_frames=patch_frames).train()
    output = model(values, noise=noise)
    assert output.logits.shape == (1, frames // patch_frames * COLUMNS, patch_frames * 16)
    assert output.loss.isfinite()


# --- attention, recording, memory ----------------------------------------------------------------------------------


def test_eager_attention_equals_sdpa():
    model = build(AudioPGForPreTraining)
    values, attention_mask, noise, _ = padded_batch()
    fused = model(values, attention_mask, noise)
    model.set_attn_implementation("eager")
    written_out = model(values, attention_mask, noise)
    torch.testing.assert_close(written_out.loss, fused.loss, **CLOSE)
    valid = valid_patches(attention_mask, 16, COLUMNS)
    torch.testing.assert_close(written_out.logits[valid], fused.logits[valid], **CLOSE)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_hidden_states_are_recorded_before_and_after_every_block(implementation):
    model = build(AudioPGModel)
    model.set_attn_implementation(implementation)
    values, _ = draw()
    output = model(values, output_hidden_states=True)
    assert [tuple(states.shape) for states in output.hidden_states] == [(2, 16, 32)] * 3
    torch.testing.assert_close(model.norm(output.hidden_states[-1]), output.last_hidden_state, **CLOSE)
    assert model(values).hidden_states is None


def test_heads_pass_on_the_encoders_hidden_states_only():
    values, noise = draw()
    output = build(AudioPGForPreTraining)(values, noise=noise, output_hidden_states=True)
    assert [tuple(states.shape) for states in output.hidden_states] == [(2, 4, 32)] * 3
    output = build(AudioPGForAudioClassification)(values, output_hidden_states=True)
    assert len(output.hidden_states) == 3


def test_eager_attentions_are_recorded_and_sum_to_one():
    model = build(AudioPGForAudioClassification)
    model.set_attn_implementation("eager")
    values, attention_mask, _, _ = padded_batch()
    attentions = model(values, attention_mask, output_attentions=True).attentions
    assert [tuple(weights.shape) for weights in attentions] == [(3, 2, 16, 16)] * 2
    torch.testing.assert_close(attentions[0].sum(-1), torch.ones(3, 2, 16))
    assert not attentions[0][1, :, :, 1 + 2 * COLUMNS :].any()


def test_attentions_under_sdpa_are_absent_with_a_warning(monkeypatch):
    warnings = []
    monkeypatch.setattr(modeling_audiopg.logger, "warning_once", warnings.append)
    values, _ = draw()
    output = build(AudioPGModel)(values, output_attentions=True)
    assert not output.attentions
    assert torch.isfinite(output.pooler_output).all()
    assert len(warnings) == 1
    assert 'set_attn_implementation("eager")' in warnings[0]


def test_tuples_come_back_where_asked_for():
    values, noise = draw()
    model = build(AudioPGForPreTraining)
    loss, logits, *_ = model(values, noise=noise, return_dict=False)
    assert loss.ndim == 0
    assert logits.shape == (2, 15, 256)
    assert isinstance(model.audiopg(values, return_dict=False), tuple)
    model.config.return_dict = False
    assert isinstance(model(values, noise=noise), tuple)


def test_misspelt_argument_is_refused():
    values, noise = draw()
    with pytest.raises(TypeError, match="noize"):
        build(AudioPGForPreTraining)(values, noize=noise)


def gradients(model, values, noise):
    model.zero_grad()
    torch.manual_seed(5)
    model(values, noise=noise).loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable`:FutureWarning")  # its successor is too young
def test_gradient_checkpointing_gives_equal_gradients():
    values, noise = draw()
    model = build(AudioPGForPreTraining, drop_path_rate=0.5).train()
    plain = gradients(model, values, noise)
    model.gradient_checkpointing_enable()
    assert all(layer.gradient_checkpointing for layer in [*model.audiopg.layers, *model.decoder.layers])
    torch.testing.assert_close(gradients(model, values, noise), plain, atol=1e-6, rtol=1e-5)


def test_stochastic_depth_grows_linearly_with_depth():
    model = build(AudioPGForPreTraining, num_hidden_layers=5, drop_path_rate=0.2)
    rates = [layer.drop_path.drop_rate for layer in model.audiopg.layers]
    assert rates == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])
    assert [layer.drop_path.drop_rate for layer in model.decoder.layers] == [0]


def test_stochastic_depth_drops_whole_clips_and_keeps_the_mean():
    torch.manual_seed(0)
    branch = torch.ones(4000, 2, 3)
    dropped = AudioPGDropPath(0.25).train()(branch)
    assert dropped.unique().tolist() == pytest.approx([0, 4 / 3])
    assert (dropped == dropped[:, :1, :1]).all()
    assert dropped.mean().item() == pytest.approx(1, abs=0.03)
    assert torch.equal(AudioPGDropPath(0.25).eval()(branch), branch)


# --- compiling -----------------------------------------------------------------------------------------------------


def test_training_compiles_in_one_graph():
    torch._dynamo.reset()
    values, noise = draw()
    model = build(AudioPGForPreTraining).train()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    expected = gradients(model, values, noise)
    torch.testing.assert_close(gradients(compiled, values, noise), {f"_orig_mod.{k}": v for k, v in expected.items()})
    assert compiled(values).loss.isfinite()


def test_inference_compiles_in_one_graph():
    torch._dynamo.reset()
    values, attention_mask, _, _ = padded_batch()
    model = build(AudioPGForAudioClassification)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(values).logits, model(values).logits, **CLOSE)
        padded = model(values, attention_mask).logits
        torch.testing.assert_close(compiled(values, attention_mask).logits, padded, **CLOSE)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # by inductor itself, on import
def test_training_compiles_with_inductor():
    torch._dynamo.reset()
    values, noise = draw()
    model = build(AudioPGForPreTraining).train()
    compiled = torch.compile(model, fullgraph=True)
    torch.testing.assert_close(compiled(values, noise=noise).loss, model(values, noise=noise).loss, **CLOSE)


def test_export_serves_any_length():
    model = build(AudioPGForAudioClassification)
    values, _ = draw()
    rows = torch.export.Dim("rows", min=1, max=1000)
    exported = torch.export.export(model, (values,), dynamic_shapes={"input_values": {1: 16 * rows}})
    longer, _ = draw(frames=160)
    torch.testing.assert_close(exported.module()(longer).logits, model(longer).logits, **CLOSE)


def test_masking_never_waits_for_the_device():
    # Nothing on the meta device has a value, so reading one back to choose a length would fail.
    with torch.device("meta"):
        model = AudioPGForPreTraining(small_config())
        output = model(torch.empty(2, FRAMES, 48), noise=torch.empty(2, 15))
        ids_keep, slot_valid, _, _ = random_masking(torch.empty(2, 15), 0.75, torch.ones(2, 15, dtype=torch.bool))
    assert output.loss.shape == ()
    assert ids_keep.shape == slot_valid.shape == (2, 3)


# --- weights -------------------------------------------------------------------------------------------------------


def test_base_size_has_the_papers_number_of_parameters():
    with torch.device("meta"):
        model = AudioPGForPreTraining(AudioPGConfig())
    encoder = sum(parameter.numel() for parameter in model.audiopg.parameters())
    total = sum(parameter.numel() for parameter in model.parameters())
    # The paper counts its fixed positions, which we compute: 513 of 768 and of 512 channels.
    assert round((total + 513 * (768 + 512)) / 1e6, 1) == 111.7
    assert 85e6 < encoder < 87e6


def test_weights_start_as_a_masked_autoencoder_does():
    torch.manual_seed(0)
    model = AudioPGForPreTraining(AudioPGConfig.of_size("tiny"))
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            fan_out, fan_in = module.weight.shape
            bound = math.sqrt(6 / (fan_in + fan_out))
            assert module.weight.abs().max() <= bound
            assert module.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
            assert not module.bias.any()
        if isinstance(module, torch.nn.LayerNorm):
            assert (module.weight == 1).all()
            assert not module.bias.any()
    for token in (model.audiopg.embeddings.cls_token, model.decoder.mask_token):
        assert token.std().item() == pytest.approx(0.02, rel=0.3)


def test_qkv_bias_can_be_left_out():
    model = build(AudioPGModel, qkv_bias=False)
    assert model.layers[0].attention.qkv.bias is None
    assert model(draw()[0]).last_hidden_state.isfinite().all()


@pytest.mark.parametrize("model_class", [AudioPGModel, AudioPGForPreTraining, AudioPGForAudioClassification])
def test_saved_model_loads_bit_for_bit(model_class, tmp_path):
    model = build(model_class)
    model.save_pretrained(tmp_path)
    loaded, report = model_class.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    values, _ = draw()
    assert torch.equal(model(values)[0], loaded(values)[0])
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, loaded.state_dict()[name])


def test_classifier_from_a_pretrained_folder_misses_its_head_and_nothing_else(tmp_path):
    pretrained = build(AudioPGForPreTraining)
    pretrained.save_pretrained(tmp_path)
    classifier, report = AudioPGForAudioClassification.from_pretrained(
        tmp_path, num_labels=7, output_loading_info=True
    )
    assert set(report["missing_keys"]) == {"classifier.weight", "classifier.bias"}
    assert not report["unexpected_keys"]  # the decoder is meant to be left
    assert not report["mismatched_keys"]
    values, _ = draw()
    ours, theirs = classifier.audiopg(values), pretrained.audiopg(values)
    assert torch.equal(ours.last_hidden_state, theirs.last_hidden_state)
    assert classifier.classifier.weight.any()


def test_encoder_from_a_pretrained_folder_misses_nothing(tmp_path):
    pretrained = build(AudioPGForPreTraining)
    pretrained.save_pretrained(tmp_path)
    encoder, report = AudioPGModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    values, _ = draw()
    assert torch.equal(encoder(values).last_hidden_state, pretrained.audiopg(values).last_hidden_state)


def test_loading_still_names_all_other_weights_that_have_no_place(tmp_path):
    classifier = build(AudioPGForAudioClassification, num_labels=2)
    classifier.save_pretrained(tmp_path / "classifier")
    _, report = AudioPGModel.from_pretrained(tmp_path / "classifier", output_loading_info=True)
    assert set(report["unexpected_keys"]) == {"classifier.weight", "classifier.bias"}
    build(AudioPGForPreTraining, decoder_num_hidden_layers=2).save_pretrained(tmp_path / "deep")
    _, report = AudioPGForPreTraining.from_pretrained(
        tmp_path / "deep", decoder_num_hidden_layers=1, output_loading_info=True
    )
    assert report["unexpected_keys"]
    assert all(name.startswith("decoder.layers.1.") for name in report["unexpected_keys"])


def test_sharding_and_adapters_find_the_parts_they_look_for():
    model = build(AudioPGForPreTraining)
    assert {"layers", "norm"} <= {name for name, _ in model.base_model.named_children()}
    assert model._no_split_modules == {"AudioPGEmbeddings", "AudioPGLayer"}
    assert model.get_input_embeddings() is model.audiopg.embeddings.patch_embeddings


# --- classifier ----------------------------------------------------------------------------------------------------


def test_classifier_reads_the_mean_of_the_patch_tokens():
    model = build(AudioPGForAudioClassification, num_labels=4)
    values, _ = draw()
    tokens = model.audiopg(values).last_hidden_state
    expected = model.classifier(tokens[:, 1:].mean(dim=1))
    torch.testing.assert_close(model(values).logits, expected, **CLOSE)


def test_soft_labels_leave_the_problem_type_alone():
    model = build(AudioPGForAudioClassification, num_labels=3)
    values, _ = draw()
    loss = model(values, labels=torch.eye(3)[:2]).loss
    assert model.config.problem_type is None
    torch.testing.assert_close(loss, model(values, labels=torch.tensor([0, 1])).loss)


def test_freeze_feature_encoder_freezes_only_the_patch_projection():
    model = build(AudioPGForAudioClassification)
    model.freeze_feature_encoder()
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {f"audiopg.embeddings.patch_embeddings.{part}" for part in ("weight", "bias")}


# --- errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((80, 48), r"\(batch, frames, 48 mel bins\), got \(80, 48\)"),
        ((2, 80, 64), r"\(batch, frames, 48 mel bins\), got \(2, 80, 64\)"),
        ((2, 70, 48), "multiple of the 16 of a patch, got 70"),
        ((2, 0, 48), "multiple of the 16 of a patch, got 0"),
    ],
)
@pytest.mark.parametrize("model_class", [AudioPGModel, AudioPGForPreTraining])
def test_inputs_that_do_not_fit_name_the_feature_extractor(model_class, shape, message):
    with pytest.raises(ValueError, match=rf"(?s){message}.*AudioPGFeatureExtractor"):
        build(model_class).train()(torch.zeros(shape))


def test_frames_of_another_patch_are_refused():
    with pytest.raises(ValueError, match=r"multiple of the 8 of a patch, got 60: the AudioPGFeatureExtractor of this"):
        build(AudioPGModel, patch_frames=8)(torch.zeros(2, 60, 48))


def test_masks_and_noise_that_do_not_fit_are_refused():
    values, noise = draw()
    model = build(AudioPGForPreTraining)
    with pytest.raises(ValueError, match=r"one number per frame, shape \(2, 80\), got \(2, 5\)"):
        model(values, torch.ones(2, 5))
    with pytest.raises(ValueError, match=r"one number per patch, shape \(2, 15\), got \(2, 14\)"):
        model(values, noise=noise[:, 1:])


# --- golden values -------------------------------------------------------------------------------------------------


def golden_config():
    return small_config(patch_size=4, num_mel_bins=12, hidden_size=16, intermediate_size=32, decoder_hidden_size=8)


def golden_outputs(model, values, attention_mask, noise):
    with torch.no_grad():
        masked, encoded = model(values, attention_mask, noise), model.audiopg(values, attention_mask)
    return {
        "loss": masked.loss,
        "logits": masked.logits,
        "mask": masked.mask,
        "last_hidden_state": encoded.last_hidden_state,
        "pooler_output": encoded.pooler_output,
    }


def write_golden(path):
    torch.manual_seed(2606)
    model = AudioPGForPreTraining(golden_config()).eval()
    inputs = {"values": torch.randn(2, 32, 12), "attention_mask": torch.ones(2, 32), "noise": torch.rand(2, 24)}
    inputs["attention_mask"][1, 18:] = 0
    weights = {f"weights.{name}": weight for name, weight in model.state_dict().items()}
    save_file({**weights, **inputs, **golden_outputs(model, **inputs)}, path)


def test_toy_model_still_computes_its_golden_values():
    golden = load_file(GOLDEN)
    model = AudioPGForPreTraining(golden_config()).eval()
    model.load_state_dict({k.removeprefix("weights."): v for k, v in golden.items() if k.startswith("weights.")})
    outputs = golden_outputs(model, golden["values"], golden["attention_mask"], golden["noise"])
    for name, value in outputs.items():
        torch.testing.assert_close(value, golden[name], atol=1e-6, rtol=1e-5, msg=lambda m, name=name: f"{name}: {m}")


def test_model_computes_what_the_research_code_computes(tmp_path):
    folder = os.environ.get("AUDIOPG_GOLDEN_DIR")
    if not folder:
        pytest.skip("set AUDIOPG_GOLDEN_DIR to a folder with research_checkpoint.safetensors")
    from audiopg.training.publishing.research_weights import convert

    source = Path(folder) / "research_checkpoint.safetensors"
    model = convert(source, tmp_path, num_attention_heads=3, decoder_num_attention_heads=2).eval()
    golden = load_file(source)
    with torch.no_grad():
        masked = model(golden["input_values"], noise=golden["noise"])
        encoded = model.audiopg(golden["input_values"])
    assert torch.equal(masked.mask, golden["mask"])
    tolerance = {"atol": 1e-4, "rtol": 0}
    torch.testing.assert_close(masked.loss, golden["loss"][0], **tolerance)
    torch.testing.assert_close(masked.logits, golden["logits"], **tolerance)
    torch.testing.assert_close(encoded.last_hidden_state, golden["last_hidden_state"], **tolerance)
    torch.testing.assert_close(encoded.pooler_output, golden["pooled"], **tolerance)


if __name__ == "__main__":
    write_golden(GOLDEN)
