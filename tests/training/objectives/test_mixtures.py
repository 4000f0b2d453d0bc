"""Clips that are heard through their neighbours: what is heard, what is told, and that runs stay repeatable."""

import numpy as np
import pytest
import torch
from toys import SMALL

from audiopg.data_scripts.synthesis import draw, render
from audiopg.modeling.configuration_audiopg import AudioPGConfig
from audiopg.modeling.losses_audiopg import reconstruction_loss
from audiopg.modeling.modeling_audiopg import AudioPGForPreTraining
from audiopg.modeling.patches_audiopg import patchify
from audiopg.training.objectives.factor_heads import FactorHeads
from audiopg.training.objectives.latent_targets import LatentTargets
from audiopg.training.objectives.masked_audio import MaskedAudio
from audiopg.training.objectives.mixtures import mix_neighbours, mixed
from audiopg.training.objectives.pretraining import pretrain
from audiopg.training.objectives.recipe import MixturesRecipe
from audiopg.training.runs.metrics_log import read_metrics

STATISTICS = {"mean": -6.0, "std": 4.0, "window": "hann"}


def test_the_other_clip_is_as_many_decibels_below():
    clips, snr = torch.randn(6, 4000) * torch.rand(6, 1), torch.tensor([0.0, 3.0, -10.0, 20.0, 6.0, 60.0])
    rest = (mix_neighbours(clips, snr) - clips).double().numpy()
    own = clips.double().numpy()
    for clip, neighbour in enumerate([1, 0, 3, 2, 5, 4]):
        assert np.corrcoef(rest[clip], own[neighbour])[0, 1] > 0.999
        ratio = 10 * np.log10(np.mean(own[clip] ** 2) / np.mean(rest[clip] ** 2))
        assert ratio == pytest.approx(float(snr[clip]), abs=0.01)


def test_silence_is_mixed_into_nothing_and_stays_silent():
    clips = torch.stack([torch.zeros(100), torch.ones(100)])
    assert torch.equal(mix_neighbours(clips, torch.zeros(2)), clips)


def test_a_mixture_is_the_same_in_any_batch():
    clips = render(draw("reference", 0, range(8), duration=0.5), "cpu")
    together = mixed(MixturesRecipe(), 0, range(8), clips)
    apart = torch.cat(
        [mixed(MixturesRecipe(), 0, range(first, first + 2), clips[first : first + 2]) for first in range(0, 8, 2)]
    )
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-6)
    assert not torch.equal(together, mixed(MixturesRecipe(), 1, range(8), clips))


@pytest.mark.parametrize("examples", [range(1, 3), range(3)])
def test_a_clip_without_its_neighbour_is_refused(examples):
    with pytest.raises(ValueError, match="mixed in pairs"):
        mixed(MixturesRecipe(), 0, examples, torch.zeros(len(examples), 8))


def test_what_is_redrawn_is_the_clip_alone():
    torch.manual_seed(0)
    model = AudioPGForPreTraining(AudioPGConfig(**SMALL)).eval()
    heard, alone, noise = torch.randn(2, 64, 128), torch.randn(2, 64, 128), torch.rand(2, 32)
    output = model(heard, noise=noise, target_values=alone)
    expected = reconstruction_loss(
        output.logits, patchify(alone, model.config.patch_shape), output.mask, norm_pix_loss=model.config.norm_pix_loss
    )
    assert torch.equal(output.loss, expected)
    assert torch.equal(output.logits, model(heard, noise=noise).logits)


@pytest.mark.parametrize(
    ("objective", "family"),
    [("masked_audio", MaskedAudio), ("factor_heads", FactorHeads), ("latent_targets", LatentTargets)],
)
def test_losses_are_of_the_clip_and_inputs_of_the_mixture(objective, family, toy_recipe):
    latents = {"reconstruction_weight": 1.0, "factors_weight": 1.0, "layers": 1}
    alone = toy_recipe(objective=objective, latents=latents)
    both = toy_recipe(objective=objective, latents=latents, mixtures={"snr_db": [0, 10]})
    made = {}
    for name, recipe in (("alone", alone), ("both", both)):
        built = family(recipe, STATISTICS)
        made[name] = built.batch(range(4), built.draw(range(4)), torch.device("cpu"))
    assert torch.equal(made["both"]["target_values"], made["alone"]["input_values"])
    assert torch.equal(made["both"]["noise"], made["alone"]["noise"])
    assert not torch.equal(made["both"]["input_values"], made["alone"]["input_values"])
    built = family(both, STATISTICS)
    losses = built.loss(built.model, made["both"])
    silent = {name: value for name, value in made["both"].items() if name != "target_values"}
    assert losses["loss"].isfinite()
    assert losses["loss"] != built.loss(built.model, silent)["loss"]


def test_a_run_with_mixtures_is_the_same_in_parts(tmp_path, toy_recipe):
    for name, options in {"whole": {}, "parts": {"micro_batch_size": 2}}.items():
        pretrain(toy_recipe(mixtures={"snr_db": [0, 10]}, **options), tmp_path / name)
    whole, parts = ([row["loss"] for row in read_metrics(tmp_path / name)] for name in ("whole", "parts"))
    assert whole == pytest.approx(parts, rel=1e-4)


@pytest.mark.parametrize("snr_db", [[0], [10, 0], [0, 100]])
def test_what_is_no_range_of_decibels_is_refused(snr_db):
    with pytest.raises(ValueError, match="range of dB"):
        MixturesRecipe(snr_db=snr_db)


def test_doubles_are_not_mixed(toy_recipe):
    with pytest.raises(ValueError, match="mixtures are of objectives that tell of a clip what it is"):
        toy_recipe(objective="doubles", mixtures={"snr_db": [0, 10]})
