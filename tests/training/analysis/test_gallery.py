import numpy as np
import pytest
import soundfile
import torch
from torchaudio.compliance.kaldi import fbank
from toys import SMALL

from audiopg.modeling.configuration_audiopg import AudioPGConfig
from audiopg.modeling.feature_extraction_audiopg import AudioPGFeatureExtractor
from audiopg.modeling.modeling_audiopg import AudioPGForPreTraining
from audiopg.modeling.patches_audiopg import patchify, random_masking
from audiopg.training.analysis.gallery import MASK_RATIOS, PATTERNS, listen, masking_pattern, reconstruct, write_sounds


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return AudioPGForPreTraining(AudioPGConfig(**SMALL))


@pytest.mark.parametrize(("pattern", "axis"), [("time stripes", 1), ("mel stripes", 0)])
def test_stripes_hide_whole_stripes_and_one_in_part_at_most(pattern, axis):
    for ratio in MASK_RATIOS:
        _, _, mask, _ = random_masking(masking_pattern(pattern, rows=12, columns=8, seed=3), ratio)
        share = mask.reshape(12, 8).mean(dim=axis)
        assert int(((share > 0) & (share < 1)).sum()) <= 1


def test_random_masks_of_two_seeds_differ_and_of_one_seed_agree():
    same = [masking_pattern("random", 8, 8, seed=1) for _ in range(2)]
    assert torch.equal(*same)
    assert not torch.equal(same[0], masking_pattern("random", 8, 8, seed=2))
    with pytest.raises(ValueError, match="Patterns are random, time stripes"):
        masking_pattern("checkerboard", 8, 8, seed=0)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("ratio", MASK_RATIOS)
def test_what_was_visible_stays_and_the_model_is_left_as_it_was(model, pattern, ratio):
    values = torch.randn(1, 160, 128, generator=torch.Generator().manual_seed(0))
    was_training = model.training
    found = reconstruct(model, values, pattern, ratio)
    assert torch.equal(found.drawn[~found.hidden], values[0][~found.hidden])
    assert float(found.hidden.float().mean()) == pytest.approx(ratio, abs=1.01 / 80)
    assert model.config.mask_ratio == 0.75
    assert model.audiopg.config.mask_ratio == 0.75
    assert model.training == was_training


def test_the_error_is_the_loss_of_the_drawn_patches_written_out(model):
    values = torch.randn(1, 64, 128, generator=torch.Generator().manual_seed(1))
    found = reconstruct(model, values, "random", 0.5)
    truth, drawn = (patchify(image[None], (16, 16))[0] for image in (found.truth, found.drawn))
    hidden = patchify(found.hidden[None].float(), (16, 16))[0, :, 0].bool()
    # Mean and deviation were lent, so that dividing by the deviation gives back the loss on standardised patches.
    by_patch = ((drawn - truth) / truth.std(dim=-1, keepdim=True)).square().mean(dim=-1)
    assert found.error == pytest.approx(float(by_patch[hidden].mean()), rel=1e-3)


def test_a_ratio_that_hides_nothing_is_refused(model):
    with pytest.raises(ValueError, match="between 0 and 1"):
        reconstruct(model, torch.zeros(1, 64, 128), "random", 1.0)


def test_a_tone_keeps_its_pitch_and_its_log_mel_through_griffin_lim():
    time = torch.arange(16000) / 16000
    waveform = 0.5 * torch.sin(2 * torch.pi * 1000 * time)
    extractor = AudioPGFeatureExtractor()
    heard = listen(extractor.extract(waveform[None])[0], extractor)
    spectrum = np.abs(np.fft.rfft(heard[4000:12000]))
    assert spectrum.argmax() * 16000 / 8000 == pytest.approx(1000, abs=20)
    kaldi = fbank(torch.from_numpy(heard)[None], num_mel_bins=128, dither=0.0, window_type="hanning")
    assert int(kaldi[20:60].mean(dim=0).argmax()) == int(
        fbank(waveform[None], num_mel_bins=128, dither=0.0, window_type="hanning").mean(dim=0).argmax()
    )


def test_sounds_are_files_of_the_clip_s_rate_and_about_its_length(model, tmp_path):
    extractor = AudioPGFeatureExtractor()
    waveform = np.random.default_rng(0).uniform(-0.5, 0.5, 8000).astype(np.float32)
    values = extractor(waveform, sampling_rate=16000)["input_values"]
    files = write_sounds("x", waveform, reconstruct(model, values, "random", 0.75), extractor, tmp_path)
    assert list(files) == ["original", "log-mel", "redrawn"]
    for path in files.values():
        samples, rate = soundfile.read(path)
        assert rate == 16000
        assert abs(len(samples) - 8000) < 16 * 160
