"""EVAR's contract as its source has it: the calls that its `lineareval.py` and `finetune.py` make, without EVAR."""

import textwrap

import pytest
import torch
import yaml

from audiopg import (
    AudioPGConfig,
    AudioPGFeatureExtractor,
    AudioPGForPreTraining,
    DoppelgangerConfig,
    DoppelgangerFeatureExtractor,
    DoppelgangerModel,
)
from audiopg.training.evaluation.adapters.evar import AR_AudioPG, configuration, evaluate

SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "decoder_num_hidden_layers": 1}


class EasyDict(dict):
    """As EVAR's configurations are: a dictionary whose items are attributes as well."""

    __getattr__ = dict.__getitem__


def written(folder, model, extractor):
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    config = AudioPGConfig(**SIZES, embedding_pooling="mel_std", embedding_layer=1)
    return written(tmp_path_factory.mktemp("toy"), AudioPGForPreTraining(config), AudioPGFeatureExtractor())


def made(checkpoint, **changes):
    return AR_AudioPG(EasyDict({**configuration(str(checkpoint)), **changes}))


@pytest.fixture
def audio():
    return torch.rand(3, int(12.5 * 16000), generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_linear_evaluation_reads_what_embed_gives(checkpoint, audio):
    """`precompute`, then clips in batches through `DataParallel`, as `lineareval.py` does."""
    ar = made(checkpoint)
    ar.precompute("cpu", [(audio, torch.zeros(3))])
    parallel = torch.nn.DataParallel(ar).eval()
    with torch.no_grad():
        embeddings = parallel(audio).detach().cpu()
    expected = ar.encoder.embed(audio, ar.feature_extractor)
    assert embeddings.shape == (3, ar.cfg["feature_d"]) == (3, 2 * 8 * 24)
    torch.testing.assert_close(embeddings, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ar(audio[1:2]), expected[1:2], atol=1e-5, rtol=1e-5)


def test_frames_have_their_width_first_and_time_last(checkpoint, audio):
    ar = made(checkpoint).eval()
    frames = ar.encode_frames(audio)
    [clip] = ar.encoder.embed_frames(audio[0], ar.feature_extractor)
    assert frames.shape == (3, 8 * 24, 78)
    torch.testing.assert_close(frames[0].T, clip.embeddings, atol=1e-5, rtol=1e-5)


def test_layers_are_stacked_in_their_order(checkpoint, audio):
    one = 2 * 8 * 24
    ar = made(checkpoint, output_layers=[-1, 0], feature_d=2 * one).eval()
    embeddings = ar(audio)
    for layer, found in zip((2, 0), embeddings.split(one, dim=1), strict=True):
        expected = ar.encoder.embed(audio, ar.feature_extractor, layer=layer)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="`output_layers` must be from 0"):
        made(checkpoint, output_layers=[3], feature_d=one)


def test_fine_tuning_gets_gradients_and_its_augmentation_while_training_alone(checkpoint, audio):
    ar, seen = made(checkpoint), []

    def silence(features):
        seen.append(tuple(features.shape))
        return torch.zeros_like(features)

    ar.set_augment_tf_feature_fn(silence)
    ar.train()
    augmented = ar(audio[:, :16000])
    assert seen == [(3, 1, 128, 112)]
    torch.testing.assert_close(augmented[0], augmented[1])
    augmented.sum().backward()
    assert any(weights.grad is not None and weights.grad.abs().max() > 0 for weights in ar.parameters())
    ar.eval()
    plain = ar(audio[:, :16000])
    assert len(seen) == 1
    assert not torch.allclose(plain[0], plain[1])


def test_another_rate_or_width_than_the_checkpoint_s_is_refused(checkpoint):
    with pytest.raises(ValueError, match=r"sample_rate of .* is 16000, and EVAR's configuration has 48000"):
        made(checkpoint, sample_rate=48000)
    with pytest.raises(ValueError, match=r"feature_d of .* is 384, and EVAR's configuration has 768"):
        made(checkpoint, feature_d=768)


def test_an_encoder_of_doubles_keeps_the_contract(tmp_path, audio):
    torch.manual_seed(0)
    model = DoppelgangerModel(DoppelgangerConfig.of_size("resnet_tiny"))
    ar = made(written(tmp_path, model, DoppelgangerFeatureExtractor())).eval()
    torch.testing.assert_close(ar(audio), ar.encoder.embed(audio, ar.feature_extractor), atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="has no layers to stack"):
        made(tmp_path, output_layers=[-1])


RUNNER = """
import sys
import yaml, torch
import evar.ar_base

settings, task = yaml.safe_load(open(sys.argv[1])), sys.argv[2]
ar = eval("evar." + settings["audio_repr"])(settings)
ar.precompute("cpu", None)
open("results.csv", "a").write(f"{task},{tuple(ar(torch.zeros(2, 8000)).shape)[1]}\\n")
"""


def test_the_command_puts_the_class_where_evar_looks_for_it(checkpoint, tmp_path):
    """In a checkout of which only the way from configuration to class is as EVAR's."""
    with pytest.raises(FileNotFoundError, match="git clone https://github"):
        evaluate(str(checkpoint), tmp_path, ["esc50"])
    (tmp_path / "lineareval.py").write_text(textwrap.dedent(RUNNER))
    (tmp_path / "evar/metadata").mkdir(parents=True)
    for name in ("__init__.py", "ar_base.py", "metadata/esc50.csv"):
        (tmp_path / "evar" / name).touch()
    with pytest.raises(FileNotFoundError, match=r"work/16k/esc50\. Its Preparing-datasets.md"):
        evaluate(str(checkpoint), tmp_path, ["esc50"])
    (tmp_path / "work/16k/esc50").mkdir(parents=True)
    evaluate(str(checkpoint), tmp_path, ["esc50"])
    assert (tmp_path / "results.csv").read_text() == "esc50,384\n"
    assert yaml.safe_load(yaml.safe_dump(configuration(str(checkpoint))))["sample_rate"] == 16000
