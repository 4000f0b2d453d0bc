import argparse
import copy
import math
import os
import subprocess
import sys

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import save_file
from transformers import AutoFeatureExtractor, ViTMAEConfig, ViTMAEForPreTraining

from audiopg.modeling.configuration_audiopg import AUTO_MAP, AudioPGConfig
from audiopg.modeling.feature_extraction_audiopg import AudioPGFeatureExtractor
from audiopg.modeling.modeling_audiopg import AudioPGForPreTraining, AudioPGModel
from audiopg.modeling.patches_audiopg import sincos_positions, unpatchify
from audiopg.training.convert_checkpoint import main
from audiopg.training.objectives.evidence import saw_real_data
from audiopg.training.publishing.research_weights import (
    DECODER_RENAMES,
    ENCODER_RENAMES,
    RENAMES,
    convert_state_dict,
    read_vitmae,
)

ROWS, COLUMNS = 4, 8
OPTIONS = ["--num_attention_heads", "2", "--decoder_num_attention_heads", "4"]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = AudioPGConfig(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=48,
        decoder_hidden_size=24,
        decoder_num_hidden_layers=2,
        decoder_num_attention_heads=4,
        decoder_intermediate_size=40,
    )
    return AudioPGForPreTraining(config).eval()


@pytest.fixture
def research_weights(model):
    """The model's weights as the research code would have stored them."""
    weights = model.state_dict()
    renamed = {}
    for old, new in RENAMES.items():
        for block in range(3) if "{n}" in old else [0]:
            if (name := new.replace("{n}", str(block))) in weights:
                renamed[old.replace("{n}", str(block))] = weights.pop(name).clone()
    assert not weights
    renamed["patch_embed.proj.weight"] = renamed["patch_embed.proj.weight"].reshape(32, 1, 16, 16)
    for name, dim in (("pos_embed", 32), ("decoder_pos_embed", 24)):
        renamed[name] = torch.cat([torch.zeros(1, dim), sincos_positions(ROWS, COLUMNS, dim)])[None]
    return renamed


def save_as(kind, weights, folder):
    path = folder / ("checkpoint.safetensors" if kind == "safetensors" else "checkpoint.pth")
    if kind == "research":
        optimizer = {"state": {}, "param_groups": []}
        torch.save({"model_state_dict": weights, "optimizer_state_dict": optimizer, "epoch": 3, "loss": 0.5}, path)
    elif kind == "audiomae":
        torch.save({"model": weights, "epoch": 3, "args": argparse.Namespace(lr=1e-4, model="mae")}, path)
    else:
        save_file({**{f"model_state_dict.{k}": v for k, v in weights.items()}, "loss": torch.ones(1)}, path)
    return path


@pytest.mark.parametrize("kind", ["research", "audiomae", "safetensors"])
def test_command_line_turns_each_kind_of_file_into_a_folder_with_equal_outputs(
    kind, model, research_weights, tmp_path
):
    main([str(save_as(kind, research_weights, tmp_path)), str(tmp_path / "out"), *OPTIONS])
    loaded, report = AudioPGForPreTraining.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(report.values())
    generator = torch.Generator().manual_seed(0)
    values, noise = torch.randn(2, 64, 128, generator=generator), torch.rand(2, 32, generator=generator)
    assert torch.equal(loaded(values, noise=noise).logits, model(values, noise=noise).logits)
    assert AUTO_MAP.items() <= loaded.config.auto_map.items()


def test_the_feature_extractor_has_the_bands_and_the_patches_of_the_weights(research_weights, tmp_path):
    research_weights["patch_embed.proj.weight"] = research_weights["patch_embed.proj.weight"][..., :8, :8]
    research_weights["decoder_pred.weight"] = research_weights["decoder_pred.weight"][:64]
    research_weights["decoder_pred.bias"] = research_weights["decoder_pred.bias"][:64]
    source = save_as("research", research_weights, tmp_path)
    main([str(source), str(tmp_path / "out"), *OPTIONS, "--num_mel_bins", "64"])
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path / "out")
    assert (extractor.num_mel_bins, extractor.patch_size) == (64, 8)
    loaded = AudioPGModel.from_pretrained(tmp_path / "out")
    inputs = extractor(torch.zeros(16000), sampling_rate=16000)
    assert loaded(**inputs).last_hidden_state.shape == (1, 1 + 13 * 8, 32)  # 98 frames, eight to a patch


def test_configuration_is_read_off_the_shapes(model, research_weights):
    settings, weights = convert_state_dict(research_weights, num_attention_heads=2, decoder_num_attention_heads=4)
    assert {name: getattr(model.config, name) for name in settings} == settings
    assert set(weights) == set(model.state_dict())


def test_no_two_weights_get_one_name():
    assert len(set(RENAMES.values())) == len(RENAMES) == len(ENCODER_RENAMES) + len(DECODER_RENAMES)


def test_pixels_of_the_patch_projection_stay_time_major(research_weights):
    kernel = torch.zeros(32, 1, 16, 16)
    kernel[:, 0, 3, 5] = 1.0
    _, weights = convert_state_dict({**research_weights, "patch_embed.proj.weight": kernel}, num_attention_heads=2)
    pixel = weights["audiopg.embeddings.patch_embeddings.weight"].argmax(dim=1)
    assert set(pixel.tolist()) == {3 * 16 + 5}


def refused(capsys, *words) -> str:
    """What the command line says when it does not convert."""
    with pytest.raises(SystemExit) as stop:
        main([*map(str, words)])
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert "weights_only" not in message
    assert message.count("\n") == 1
    return message


def test_unknown_weight_is_refused(research_weights):
    research_weights["gate.weight"] = torch.zeros(50, 32)
    with pytest.raises(ValueError, match=r"got no place for \['gate.weight'\]"):
        convert_state_dict(research_weights, num_attention_heads=2)


@pytest.mark.parametrize("name", ["head.weight", "fc_norm.bias", "classifier.dense.weight"])
@pytest.mark.parametrize("encoder_only", [False, True])
def test_a_fine_tuned_checkpoint_is_refused_as_one(name, encoder_only, research_weights):
    research_weights[name] = torch.zeros(50, 32)
    with pytest.raises(ValueError, match=r"a classifier's in .* was fine-tuned"):
        convert_state_dict(research_weights, num_attention_heads=2, encoder_only=encoder_only)


def test_missing_and_misshapen_weights_are_refused(research_weights, tmp_path, capsys):
    del research_weights["blocks.1.norm2.bias"]
    research_weights["blocks.1.norm2.weight"] = torch.zeros(31)
    source = save_as("research", research_weights, tmp_path)
    message = refused(capsys, source, tmp_path / "out", *OPTIONS)
    assert "got none for ['audiopg.layers.1.layernorm_after.bias']" in message
    assert "audiopg.layers.1.layernorm_after.weight (31,) for (32,)" in message


@pytest.mark.parametrize("name", ["pos_embed", "decoder_pos_embed"])
def test_positions_that_differ_from_ours_are_refused(name, research_weights):
    half = research_weights[name].shape[-1] // 2
    research_weights[name] = research_weights[name].roll(half, dims=-1)  # time first, mel second
    with pytest.raises(ValueError, match=f"`{name}` must equal the sin-cos positions"):
        convert_state_dict(research_weights, num_attention_heads=2)


def test_positions_of_another_mel_count_are_refused(research_weights):
    with pytest.raises(ValueError, match="whole rows of 5 patches, got 33 positions"):
        convert_state_dict(research_weights, num_attention_heads=2, num_mel_bins=80)


def test_heads_that_cannot_be_64_wide_must_be_given(research_weights):
    with pytest.raises(ValueError, match=r"multiple of 64, got 32: pass the number of heads"):
        convert_state_dict(research_weights)


def test_decoder_of_another_kind_can_be_left_out(model, research_weights, tmp_path, capsys):
    research_weights["decoder_blocks.0.attn.relative_position_bias_table"] = torch.zeros(49, 4)
    source = save_as("audiomae", research_weights, tmp_path)
    assert "encoder_only" in refused(capsys, source, tmp_path / "out", *OPTIONS)
    main([str(source), str(tmp_path / "out"), *OPTIONS, "--encoder_only"])
    loaded, report = AudioPGModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(report.values())
    values = torch.randn(1, 64, 128, generator=torch.Generator().manual_seed(0))
    assert torch.equal(loaded(values).last_hidden_state, model.audiopg(values).last_hidden_state)


def test_folder_loads_where_audiopg_is_not_installed(model, research_weights, tmp_path):
    main([str(save_as("research", research_weights, tmp_path)), str(tmp_path / "out"), *OPTIONS])
    values = torch.randn(1, 64, 128, generator=torch.Generator().manual_seed(0))
    torch.save(values, tmp_path / "values.pt")
    script = """
import sys
sys.modules["audiopg"] = None
import torch
from transformers import AutoModel, AutoModelForAudioClassification, AutoModelForPreTraining
folder, values = sys.argv[1], torch.load(sys.argv[2])
for auto in (AutoModel, AutoModelForPreTraining, AutoModelForAudioClassification):
    loaded = auto.from_pretrained(folder, trust_remote_code=True)
    encoder = getattr(loaded, "audiopg", loaded)
    assert type(loaded).__module__.startswith("transformers_modules."), type(loaded)
    torch.save(encoder(values).pooler_output, sys.argv[3])
"""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    files = [str(tmp_path / name) for name in ("out", "values.pt", "pooled.pt")]
    done = subprocess.run(
        [sys.executable, "-c", script, *files], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert torch.equal(torch.load(tmp_path / "pooled.pt"), model.audiopg(values).pooler_output)


@pytest.fixture(scope="module")
def vitmae(tmp_path_factory):
    """A small random ViTMAE, and its folder as transformers saves it.

    Its positions are set to those that facebook's weights hold, half of the channels for columns and half for rows:
    transformers leaves them at zero until weights are loaded.
    """
    config = ViTMAEConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        decoder_hidden_size=24,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=4,
        decoder_intermediate_size=40,
        image_size=128,
        mask_ratio=0.5,
        norm_pix_loss=True,
    )
    torch.manual_seed(0)
    model = ViTMAEForPreTraining(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
        for name, parameter in model.named_parameters():
            if "pos" in name:
                dim = parameter.shape[-1]
                parameter.copy_(torch.cat([torch.zeros(1, dim), mae_positions(8, dim)])[None])
    folder = tmp_path_factory.mktemp("vitmae") / "vit-mae-toy"
    model.save_pretrained(folder)
    return model, folder


def mae_positions(side: int, dim: int) -> torch.Tensor:
    """The positions of MAE's own code, written out patch by patch: width first, sine before cosine."""
    frequencies = [10000 ** (-i / (dim / 4)) for i in range(dim // 4)]
    rows = [
        [f(place * w) for place in (column, row) for f in (math.sin, math.cos) for w in frequencies]
        for row in range(side)
        for column in range(side)
    ]
    return torch.tensor(rows)


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_a_vitmae_of_grey_pictures_becomes_a_model_with_equal_outputs(kind, vitmae, tmp_path):
    theirs, folder = vitmae
    if kind == "bin":
        source = tmp_path / "vit-mae-toy"
        source.mkdir()
        (source / "config.json").write_text((folder / "config.json").read_text())
        torch.save(theirs.state_dict(), source / "pytorch_model.bin")
        folder = source
    main([str(folder), str(tmp_path / "out")])
    ours, report = AudioPGForPreTraining.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(report.values())
    generator = torch.Generator().manual_seed(0)
    grey, noise = torch.randn(2, 128, 128, generator=generator), torch.rand(2, 64, generator=generator)
    picture = grey[:, None].expand(-1, 3, -1, -1)
    with torch.no_grad():
        expected, output = theirs(picture, noise=noise), ours(grey, noise=noise)
        latent = theirs.vit(picture, noise=noise).last_hidden_state
    torch.testing.assert_close(ours.audiopg(grey, noise=noise).last_hidden_state, latent, atol=1e-5, rtol=1e-5)
    channels = expected.logits.unflatten(-1, (256, 3))
    torch.testing.assert_close(output.logits, channels.mean(dim=-1), atol=1e-4, rtol=1e-5)
    assert torch.equal(output.mask, expected.mask)


def test_a_converted_vitmae_takes_audio_and_says_that_it_has_seen_pictures(vitmae, tmp_path):
    main([str(vitmae[1]), str(tmp_path / "out"), "--encoder_only"])
    model, extractor = (kind.from_pretrained(tmp_path / "out") for kind in (AudioPGModel, AudioPGFeatureExtractor))
    assert (model.config.layer_norm_eps, model.config.mask_ratio, model.config.norm_pix_loss) == (1e-12, 0.5, True)
    inputs = extractor(torch.zeros(163840), sampling_rate=16000)
    assert model(**inputs).last_hidden_state.shape == (1, 513, 32)
    assert extractor.statistics["source"] == "images: the weights are those of vit-mae-toy"


def test_a_vitmae_brought_over_to_audio_sees_spectrograms_as_it_saw_pictures(vitmae, tmp_path):
    """All of it against theirs on the picture that one sees: low tones at the bottom, time to the right.

    Theirs is told to count rows from below, which is what no turning of weights can make up for.
    """
    main([str(vitmae[1]), str(tmp_path / "out"), "--to_audio"])
    ours = AudioPGForPreTraining.from_pretrained(tmp_path / "out")
    theirs = copy.deepcopy(vitmae[0])
    for name, positions in theirs.named_parameters():
        if "pos" in name:
            grid = positions.data[:, 1:].unflatten(1, (8, 8)).flip(1).flatten(1, 2)
            positions.data = torch.cat([positions.data[:, :1], grid], dim=1)
    generator = torch.Generator().manual_seed(0)
    picture = torch.randn(2, 128, 128, generator=generator)  # rows from the top
    noise = torch.rand(2, 8, 8, generator=generator)
    spectrogram = picture.flip(1).transpose(1, 2)
    with torch.no_grad():
        expected = theirs(picture[:, None].expand(-1, 3, -1, -1), noise=noise.flatten(1))
        latent = theirs.vit(picture[:, None].expand(-1, 3, -1, -1), noise=noise.flatten(1)).last_hidden_state
        turned_noise = noise.flip(1).transpose(1, 2).flatten(1)
        output = ours(spectrogram, noise=turned_noise)
        tokens = ours.audiopg(spectrogram, noise=turned_noise).last_hidden_state
    torch.testing.assert_close(tokens.roll(16, -1), latent, atol=1e-5, rtol=1e-5)
    redrawn = unpatchify(output.logits, (16, 16), num_mel_bins=128).transpose(1, 2).flip(1)
    grey = unpatchify(expected.logits.unflatten(-1, (256, 3)).mean(dim=-1), (16, 16), num_mel_bins=128)
    torch.testing.assert_close(redrawn, grey, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("stripes", ["horizontal", "vertical"])
def test_a_vitmae_s_detector_of_stripes_becomes_one_of_tones_or_of_clicks(stripes, vitmae, tmp_path):
    """Kernels of stripes of 4 pixels, so that they answer to what looks like them, and to nothing else."""
    wave = torch.sign(torch.sin(2 * torch.pi * (torch.arange(16) + 0.5) / 8))
    kernel = wave[:, None].expand(16, 16) if stripes == "horizontal" else wave[None].expand(16, 16)
    weights = {name: value.clone() for name, value in vitmae[0].state_dict().items()}
    weights["vit.embeddings.patch_embeddings.projection.weight"] = kernel.expand(32, 3, 16, 16).contiguous()
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text((vitmae[1] / "config.json").read_text())
    torch.save(weights, tmp_path / "model/pytorch_model.bin")
    main([str(tmp_path / "model"), str(tmp_path / "out"), "--to_audio", "--encoder_only"])
    projection = AudioPGModel.from_pretrained(tmp_path / "out").embeddings.patch_embeddings.weight.detach()
    answer = {
        "tones": float((projection[0] * wave.expand(16, 16).flatten()).sum().abs()),  # the same in every frame
        "clicks": float((projection[0] * wave[:, None].expand(16, 16).flatten()).sum().abs()),
    }
    heard, not_heard = ("tones", "clicks") if stripes == "horizontal" else ("clicks", "tones")
    assert answer[heard] == pytest.approx(3 * 256)
    assert answer[not_heard] == pytest.approx(0)


def test_a_vitmae_brought_over_says_that_it_saw_real_pictures_and_whether_colours_cancel(vitmae, tmp_path):
    main([str(vitmae[1]), str(tmp_path / "out"), "--to_audio", "--encoder_only"])
    statistics = AudioPGFeatureExtractor.from_pretrained(tmp_path / "out").statistics
    assert saw_real_data(statistics) is True
    kernel = vitmae[0].vit.embeddings.patch_embeddings.projection.weight.detach()
    assert statistics["kernel_norms"]["sum"] == pytest.approx(float(kernel.sum(dim=1).norm()), abs=1e-3)
    assert statistics["kernel_norms"]["colours"][2] == pytest.approx(float(kernel[:, 2].norm()), abs=1e-3)
    card = ModelCard.load(tmp_path / "out/README.md").text
    assert "mel lies on the vertical axis" in card
    assert "yes: images: the weights are those of vit-mae-toy" in card


def test_a_vitmae_trained_with_other_positions_is_refused(vitmae, tmp_path, capsys):
    """Such as those of a run that began from transformers' random weights: zeros, which were never trained."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text((vitmae[1] / "config.json").read_text())
    weights = vitmae[0].state_dict()
    weights["vit.embeddings.position_embeddings"] = torch.zeros(1, 65, 32)
    torch.save(weights, tmp_path / "model/pytorch_model.bin")
    assert "must equal the sin-cos positions" in refused(capsys, tmp_path / "model", tmp_path / "out")


def test_a_folder_of_another_kind_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"got no config\.json"):
        read_vitmae(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(ValueError, match="got 'vit'"):
        read_vitmae(tmp_path)
    (tmp_path / "config.json").write_text("<html>")
    with pytest.raises(ValueError, match="must be JSON"):
        read_vitmae(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "vit_mae"}')
    with pytest.raises(ValueError, match=r"must have \['num_attention_heads', 'decoder_num_attention_heads'\]"):
        read_vitmae(tmp_path)
    heads = '"num_attention_heads": 2, "decoder_num_attention_heads": 2'
    (tmp_path / "config.json").write_text(f'{{"model_type": "vit_mae", {heads}}}')
    with pytest.raises(ValueError, match="got neither"):
        read_vitmae(tmp_path)
    save_file({"vit.embeddings.cls_token": torch.zeros(1, 1, 32)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"must have \['patch_embed.proj.weight', 'pos_embed'\]"):
        read_vitmae(tmp_path)


def test_a_card_says_whose_weights_they_are_what_they_saw_and_how_to_load_them(vitmae, research_weights, tmp_path):
    main([str(save_as("research", research_weights, tmp_path)), str(tmp_path / "sounds"), *OPTIONS])
    main([str(vitmae[1]), str(tmp_path / "pictures"), "--encoder_only", "--license", "cc-by-nc-4.0"])
    sounds, pictures = (ModelCard.load(tmp_path / name / "README.md") for name in ("sounds", "pictures"))
    for card in (sounds, pictures):
        assert "no-real-data" not in card.data.tags
        assert "AutoModel.from_pretrained" in card.text
        assert "(1, 32)" in card.text
        assert "{{" not in card.text
        assert "{%" not in card.text
    assert "the weights of `checkpoint.pth`" in sounds.text
    assert "| real data | yes: AudioSet" in sounds.text
    assert "M with the decoder" in sounds.text
    assert "Weights: not known" in sounds.text
    assert sounds.data.license is None
    assert "| real data | yes: images: the weights are those of vit-mae-toy |" in pictures.text
    assert "M with the decoder" not in pictures.text
    assert "Weights: cc-by-nc-4.0" in pictures.text
    assert pictures.data.license == "cc-by-nc-4.0"


@pytest.mark.parametrize("kind", ["research", "vitmae"])
def test_what_converted_weights_saw_travels_with_them(kind, vitmae, research_weights, tmp_path):
    source = vitmae[1] if kind == "vitmae" else save_as("research", research_weights, tmp_path)
    main([str(source), str(tmp_path / "out"), *OPTIONS])
    assert saw_real_data(AudioPGFeatureExtractor.from_pretrained(tmp_path / "out").statistics) is True
