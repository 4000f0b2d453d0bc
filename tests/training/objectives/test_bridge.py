import pytest
import torch
from toys import SMALL

from audiopg.modeling.configuration_audiopg import AudioPGConfig
from audiopg.modeling.modeling_audiopg import AudioPGForPreTraining, AudioPGModel
from audiopg.modeling.spectrogram_audiopg import log_mel_spectrogram
from audiopg.training.objectives.bridge import (
    as_spectrograms,
    audio_config,
    audio_feature_extractor,
    kernel_norms,
    to_audio,
)
from audiopg.training.objectives.evidence import saw_real_data


@pytest.fixture(scope="module")
def image_model():
    torch.manual_seed(0)
    model = AudioPGForPreTraining(AudioPGConfig(**SMALL, num_channels=3, num_mel_bins=48)).eval()
    for parameter in model.parameters():  # biases too
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


@pytest.mark.parametrize("frames", [48, 96])
def test_a_spectrogram_in_three_equal_colours_gives_the_image_model_what_it_gives_the_audio_model(frames, image_model):
    spectrogram = torch.randn(2, frames, 48)
    noise = torch.rand(2, frames * 48 // 256)
    theirs = image_model(spectrogram[:, None].expand(-1, 3, -1, -1), noise=noise, output_hidden_states=True)
    ours = to_audio(image_model, num_mel_bins=48)(spectrogram, noise=noise, output_hidden_states=True)
    for mine, other in zip(ours.hidden_states, theirs.hidden_states, strict=True):
        assert (mine - other).abs().max() < 1e-5
    assert (ours.logits - theirs.logits.unflatten(-1, (3, -1)).mean(dim=-2)).abs().max() < 1e-5


def test_the_audio_model_has_the_usual_mel_bands_and_takes_spectrograms_of_any_length(image_model):
    audio = to_audio(image_model.audiopg)
    assert type(audio) is AudioPGModel
    assert (audio.config.num_channels, audio.config.num_mel_bins) == (1, 128)
    assert audio.config.hidden_size == image_model.config.hidden_size
    for frames in (16, 160):
        assert audio(torch.randn(1, frames, 128)).last_hidden_state.shape == (1, 1 + frames // 2, 24)
    with pytest.raises(ValueError, match="got one of audio: use it as it is"):
        to_audio(audio)


def test_weights_of_the_image_model_stay_as_they_are(image_model):
    before = {name: value.clone() for name, value in image_model.state_dict().items()}
    for parameter in to_audio(image_model).parameters():
        parameter.data.zero_()
    assert all(torch.equal(value, before[name]) for name, value in image_model.state_dict().items())


def test_horizontal_stripes_are_constant_tones_with_the_lowest_at_the_bottom():
    """A picture drawn here against a tone heard through the front end: both light the same end of the mel axis."""
    stripe = torch.zeros(1, 1, 128, 64)
    stripe[..., -10:, :] = 1.0  # the lowest rows of the picture
    laid = as_spectrograms(stripe)[0, 0]
    assert laid.shape == (64, 128), "its columns are where frames are"
    low, high = (
        log_mel_spectrogram(
            torch.sin(2 * torch.pi * f * torch.arange(16000) / 16000)[None],
            sampling_rate=16000,
            num_mel_bins=128,
            window="hann",
        )[0]
        for f in (150.0, 7000.0)
    )
    assert laid.mean(dim=0).argmax() < 10
    assert low.mean(dim=0).argmax() < 10
    assert high.mean(dim=0).argmax() > 118
    assert laid.std(dim=0).max() == 0, "a tone does not change in time"


def test_a_line_that_rises_to_the_right_goes_up_in_frequency_with_time():
    picture = torch.eye(16).flip(0)[None, None]  # from the lower left to the upper right
    assert torch.equal(as_spectrograms(picture)[0, 0], torch.eye(16))


def test_vertical_stripes_light_a_row_of_patches_along_mel():
    picture = torch.zeros(1, 3, 48, 48)
    picture[..., 16:32] = 1.0  # the middle third of the columns
    patches = as_spectrograms(picture).unflatten(-2, (3, 16)).sum(dim=(0, 1, 3, 4))
    assert (patches > 0).tolist() == [False, True, False], "patches along time, all mel bands together"


def test_colours_that_cancel_are_told_by_the_norm_of_their_sum():
    kernel = torch.randn(8, 16)
    norm = float(kernel.norm())
    alike = kernel_norms(torch.cat([kernel, kernel, kernel], dim=1), 3)
    assert (*alike["colours"], alike["sum"]) == pytest.approx((norm, norm, norm, 3 * norm), abs=1e-3)
    opposed = kernel_norms(torch.cat([kernel, -2 * kernel, kernel], dim=1), 3)
    assert (*opposed["colours"], opposed["sum"]) == pytest.approx((norm, 2 * norm, norm, 0), abs=1e-3)


def test_the_standardisation_is_that_of_synthesized_clips_and_says_what_the_weights_saw():
    config = audio_config(AudioPGConfig(**SMALL, num_channels=3, num_mel_bins=48, patch_size=8))
    extractor = audio_feature_extractor(config, saw_real_data=False, patterns="shaders")
    assert extractor.patch_size == 8
    assert extractor.statistics["preset"] == "reference"
    assert saw_real_data(extractor.statistics) is False
    photographs = audio_feature_extractor(config, source="photographs", saw_real_data=True)
    assert saw_real_data(photographs.statistics) is True
