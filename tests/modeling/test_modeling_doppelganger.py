import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import AutoConfig, AutoModel

from audiopg.modeling.configuration_doppelganger import AUTO_MAP, SIZES, DoppelgangerConfig
from audiopg.modeling.feature_extraction_doppelganger import DoppelgangerFeatureExtractor
from audiopg.modeling.modeling_doppelganger import DoppelgangerModel
from audiopg.modeling.spectrogram_doppelganger import SILENCE

RATE = 16000
SMALL = {"stem_size": 4, "hidden_sizes": [4, 8, 8], "depths": [1, 2, 1], "embedding_size": 12}


def noise(num_samples, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(num_samples)).astype(np.float32)


def spectrograms(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def build(seed=0, **settings):
    """A model whose batch normalisation has seen data, so that its numbers are no identity."""
    torch.manual_seed(seed)
    model = DoppelgangerModel(DoppelgangerConfig(**SMALL | settings)).train()
    with torch.no_grad():
        for step in range(20):
            model(2 * spectrograms(8, model.config.window_frames, model.config.num_mel_bins) - 2 + step / 20)
    return model.eval()


@pytest.fixture(scope="module")
def model():
    return build()


@pytest.fixture(scope="module")
def extractor():
    return DoppelgangerFeatureExtractor()


# --- the network -----------------------------------------------------------------------------------------------------


def resnet18(weights, images):
    """ResNet18 as He et al. 2016 have it ("Deep Residual Learning", table 1), from weights by their names."""

    def conv(x, name, stride, padding):
        x = functional.conv2d(x, weights[f"{name}.convolution.weight"], stride=stride, padding=padding)
        statistics = (weights[f"{name}.normalization.running_{which}"] for which in ("mean", "var"))
        scale, shift = (weights[f"{name}.normalization.{which}"] for which in ("weight", "bias"))
        return functional.batch_norm(x, *statistics, scale, shift, training=False, eps=1e-5)

    x = functional.max_pool2d(functional.relu(conv(images, "resnet.embedder.embedder", 2, 3)), 3, stride=2, padding=1)
    for stage in range(4):
        for block in range(2):
            name = f"resnet.encoder.stages.{stage}.layers.{block}"
            stride = 2 if stage > 0 and block == 0 else 1
            inside = functional.relu(conv(x, f"{name}.layer.0", stride, 1))
            inside = conv(inside, f"{name}.layer.1", 1, 1)
            shortcut = conv(x, f"{name}.shortcut", stride, 0) if stride == 2 else x
            x = functional.relu(inside + shortcut)
    return functional.linear(x.mean(dim=(2, 3)), weights["fc.weight"], weights["fc.bias"])


def test_the_network_is_resnet18_written_out_by_hand():
    torch.manual_seed(0)
    model = DoppelgangerModel(DoppelgangerConfig.of_size("resnet18")).eval()
    for name, buffer in model.named_buffers():  # statistics that do something
        if name.endswith("running_mean"):
            buffer.normal_(std=0.1)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2.0)
    values = spectrograms(3, 96, 64)
    with torch.no_grad():
        vectors = model(values).pooler_output
        torch.testing.assert_close(vectors, resnet18(model.state_dict(), values[:, None]), atol=1e-4, rtol=1e-4)
    assert vectors.shape == (3, 512)


def test_sizes_have_the_parameters_of_their_layers():
    def parameters(widths):
        stem = 49 * widths[0] + 2 * widths[0]
        inputs = [widths[0], *widths]
        blocks = 0
        for before, width in zip(inputs, widths, strict=False):
            first = 9 * before * width + (before * width + 2 * width) * (before != width)
            blocks += first + 3 * 9 * width * width + 4 * 2 * width
        return stem + blocks + 512 * widths[-1] + 512

    for size, widths in {"resnet18": [64, 128, 256, 512], "resnet_tiny": [16, 32, 64, 128]}.items():
        assert DoppelgangerModel(DoppelgangerConfig.of_size(size)).num_parameters() == parameters(widths)
    assert parameters([64, 128, 256, 512]) == 11_432_896


def test_weights_start_he_normal_and_statistics_untouched():
    torch.manual_seed(0)
    model = DoppelgangerModel(DoppelgangerConfig.of_size("resnet18"))
    convolution = model.resnet.encoder.stages[3].layers[1].layer[0]
    assert float(convolution.convolution.weight.detach().std()) == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)
    assert torch.equal(convolution.normalization.running_var, torch.ones(512))
    assert float(model.fc.weight.detach().abs().amax()) == pytest.approx(512**-0.5, rel=0.01)


# --- windows, batches, masks -----------------------------------------------------------------------------------------


@torch.no_grad()
def test_one_window_is_a_plain_forward_pass(model):
    values = spectrograms(5, 96, 64)
    output = model(values)
    vectors = model.fc(model.resnet(values[:, None]).pooler_output.flatten(1))
    assert output.last_hidden_state.shape == (5, 1, 12)
    assert torch.equal(output.last_hidden_state[:, 0], vectors)
    assert torch.equal(output.pooler_output, vectors)


@torch.no_grad()
def test_windows_are_heard_by_themselves_and_averaged(model):
    values = spectrograms(2, 3 * 96, 64)
    output = model(values)
    for window in range(3):
        alone = model(values[:, 96 * window : 96 * (window + 1)]).pooler_output
        torch.testing.assert_close(output.last_hidden_state[:, window], alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(output.pooler_output, output.last_hidden_state.mean(dim=1))


@torch.no_grad()
def test_recordings_of_any_lengths_give_in_a_batch_what_each_gives_alone(model, extractor):
    clips = [noise(length, seed) for seed, length in enumerate((400, 7000, RATE, 23_000, 40_000, 5 * RATE))]
    together = model(**extractor(clips, sampling_rate=RATE)).pooler_output
    alone = torch.cat([model(**extractor(clip, sampling_rate=RATE)).pooler_output for clip in clips])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    assert (torch.cdist(alone, alone) + torch.eye(6)).amin() > 1e-3  # they differ from each other


@torch.no_grad()
def test_nothing_of_the_padding_gets_through(model, extractor):
    inputs = extractor([noise(9000), noise(40_000)], sampling_rate=RATE)
    expected = model(**inputs).pooler_output
    padding = inputs["attention_mask"] == 0
    inputs["input_values"][padding] = 100.0 * spectrograms(int(padding.sum()), 64)
    torch.testing.assert_close(model(**inputs).pooler_output, expected, atol=0, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize(("real", "windows"), [(0, 1), (10, 1), (96, 1), (143, 1), (144, 2), (287, 3)])
def test_a_window_counts_if_half_of_it_is_real_or_it_is_the_first(model, real, windows):
    values = spectrograms(1, 3 * 96, 64)
    mask = (torch.arange(3 * 96) < real).long()[None]
    heard = values.masked_fill(mask[..., None] == 0, SILENCE)
    expected = model(heard[:, : 96 * windows]).pooler_output
    torch.testing.assert_close(model(values, mask).pooler_output, expected, atol=1e-5, rtol=1e-5)


def test_gradients_reach_every_weight_in_training():
    model = build().train()
    model(spectrograms(4, 96, 64)).pooler_output.square().sum().backward()
    assert all(weight.grad is not None and weight.grad.abs().amax() > 0 for weight in model.parameters())


def test_a_step_waits_for_no_device():
    """A device that has no values cannot be waited for, with a mask or without."""
    with torch.device("meta"):
        model = DoppelgangerModel(DoppelgangerConfig(**SMALL)).train()
        values, mask = torch.empty(4, 192, 64), torch.empty(4, 192, dtype=torch.long)
    for attention_mask in (None, mask):
        pooled = model(values, attention_mask).pooler_output
        pooled.sum().backward()
        assert (tuple(pooled.shape), pooled.device.type) == ((4, 12), "meta")


@torch.no_grad()
def test_the_exported_model_takes_any_batch_and_number_of_windows(model):
    def inputs(clips, windows):
        mask = torch.ones(clips, 96 * windows, dtype=torch.long)
        mask[-1, 50:] = 0
        return spectrograms(clips, 96 * windows, 64), mask

    frames, clips = 96 * torch.export.Dim("windows", min=1, max=512), torch.export.Dim.DYNAMIC
    dynamic_shapes = ({0: clips, 1: frames}, {0: clips, 1: frames})
    exported = torch.export.export(model, inputs(2, 2), dynamic_shapes=dynamic_shapes).module()
    for shape in ((1, 2), (3, 4)):  # a single window is a graph of its own to torch.export
        expected = model(*inputs(*shape)).pooler_output
        torch.testing.assert_close(exported(*inputs(*shape)).pooler_output, expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_half_precision_and_tuples_are_as_everywhere(model):
    values = spectrograms(2, 96, 64)
    lowered = build().to(torch.bfloat16)(values).pooler_output
    assert lowered.dtype is torch.bfloat16
    torch.testing.assert_close(lowered.float(), model(values).pooler_output, atol=0.05, rtol=0.05)
    last_hidden_state, pooled = model(values, return_dict=False)
    assert torch.equal(last_hidden_state[:, 0], pooled)


@pytest.mark.parametrize(
    ("shape", "mask", "message"),
    [
        ((2, 98, 64), None, r"multiple of 96 frames, got \(2, 98, 64\)"),
        ((2, 96, 128), None, r"64 mel bins\).*got \(2, 96, 128\)"),
        ((96, 64), None, r"got \(96, 64\)"),
        ((2, 0, 64), None, r"got \(2, 0, 64\)"),
        ((2, 96, 64), (2, 98), r"shape \(2, 96\), got \(2, 98\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(model, shape, mask, message):
    with pytest.raises(ValueError, match=message):
        model(torch.zeros(shape), None if mask is None else torch.ones(mask))


# --- recordings ------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_embed_gives_the_pooler_output_of_the_whole_recording(model, extractor):
    recordings = [noise(length, seed) for seed, length in enumerate((400, RATE, 23_000, 7 * RATE + 123))]
    expected = torch.cat([model(**extractor(clip, sampling_rate=RATE)).pooler_output for clip in recordings])
    for batch_size in (1, 3, 64):
        found = model.embed(recordings, extractor, batch_size=batch_size)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_embed_frames_has_a_vector_and_a_time_for_each_window(model, extractor):
    [frames] = model.embed_frames(noise(2 * 15_360 + 400 + 160 * 46), extractor)  # two windows and 47 frames
    assert frames.embeddings.shape == (2, 12)
    np.testing.assert_allclose(frames.times, [15_600 / 2 / RATE, 0.96 + 15_600 / 2 / RATE], rtol=1e-6)
    [frames] = model.embed_frames(noise(2 * 15_360 + 400 + 160 * 47), extractor)  # and 48, the centre of what is real
    np.testing.assert_allclose(frames.times[2], 1.92 + (400 + 160 * 47) / 2 / RATE, rtol=1e-6)


def test_embedding_needs_no_gradient_and_leaves_the_mode_as_it_was(extractor):
    model = build().train()
    assert not model.embed(noise(RATE), extractor).requires_grad
    assert model.training


# --- configuration and saving ----------------------------------------------------------------------------------------


def test_a_configuration_survives_json(tmp_path):
    config = DoppelgangerConfig(**SMALL)
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert type(loaded) is DoppelgangerConfig
    assert loaded.to_diff_dict() | {"_name_or_path": ""} == config.to_diff_dict() | {"_name_or_path": ""}
    assert loaded.auto_map == AUTO_MAP
    assert (loaded.hidden_size, loaded.num_hidden_layers) == (12, 4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"depths": [2, 2]}, "`hidden_sizes` and `depths`"),
        ({"hidden_sizes": [], "depths": []}, "`hidden_sizes` and `depths`"),
        ({"depths": [2, 2, 0, 2]}, "`hidden_sizes` and `depths`"),
        ({"window_frames": 0}, "`window_frames` must be at least 1"),
    ],
)
def test_a_configuration_refuses_what_cannot_be(settings, message):
    with pytest.raises(ValueError, match=message):
        DoppelgangerConfig(**settings)


def test_sizes_are_named_and_others_are_refused():
    assert set(SIZES) == {"resnet18", "resnet_tiny"}
    assert DoppelgangerConfig.of_size("resnet18", embedding_size=8).hidden_sizes == [64, 128, 256, 512]
    with pytest.raises(ValueError, match=r"`size` must be one of \['resnet18', 'resnet_tiny'\], got 'base'"):
        DoppelgangerConfig.of_size("base")
    with pytest.raises(ValueError, match=r"must be fields of DoppelgangerConfig, got \['width'\]"):
        DoppelgangerConfig.of_size("resnet18", width=3)


def test_weights_and_statistics_survive_saving(model, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert type(loaded) is DoppelgangerModel
    state, again = model.state_dict(), loaded.state_dict()
    assert state.keys() == again.keys()
    assert all(torch.equal(state[name], again[name]) for name in state)
    assert state["resnet.embedder.embedder.normalization.num_batches_tracked"] == 20
