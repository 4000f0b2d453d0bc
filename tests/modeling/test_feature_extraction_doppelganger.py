import numpy as np
import pytest
import soundfile
import torch
from transformers import AutoFeatureExtractor

from audiopg.modeling.feature_extraction_doppelganger import DoppelgangerFeatureExtractor
from audiopg.modeling.spectrogram_doppelganger import SILENCE, vggish_log_mel

RATE = 16000


def noise(num_samples, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(num_samples)).astype(np.float32)


def extract(audio, **options):
    return DoppelgangerFeatureExtractor()(audio, sampling_rate=RATE, **options)


def samples_of(frames):
    return 400 + 160 * (frames - 1)


def test_a_second_is_the_one_example_of_the_paper():
    inputs = extract(noise(RATE))
    expected = vggish_log_mel(torch.from_numpy(noise(RATE)))[:96]
    assert torch.equal(inputs["input_values"][0], expected)
    assert inputs["attention_mask"].tolist() == [[1] * 96]


@pytest.mark.parametrize(
    ("frames", "windows", "heard"),
    [(1, 1, 1), (47, 1, 47), (96, 1, 96), (143, 1, 96), (144, 2, 144), (192, 2, 192), (239, 2, 192), (240, 3, 240)],
)
def test_a_remainder_counts_from_half_a_window_on(frames, windows, heard):
    inputs = extract(noise(samples_of(frames)))
    assert inputs["input_values"].shape == (1, 96 * windows, 64)
    assert inputs["attention_mask"].tolist() == [[1] * heard + [0] * (96 * windows - heard)]
    assert (inputs["input_values"][0, heard:] == SILENCE).all()


def test_a_clip_has_the_same_mask_and_values_beside_longer_ones():
    clips = [noise(length, seed) for seed, length in enumerate((400, RATE, 40000, 8 * RATE))]
    together = extract(clips)
    for index, clip in enumerate(clips):
        alone = extract(clip)
        length = alone["input_values"].shape[1]
        real = alone["attention_mask"][0].bool()
        values = together["input_values"][index, :length]
        torch.testing.assert_close(values[real], alone["input_values"][0][real], atol=1e-5, rtol=0)
        assert torch.equal(together["attention_mask"][index, :length], alone["attention_mask"][0])
        assert not together["attention_mask"][index, length:].any()
        assert (together["input_values"][index][together["attention_mask"][index] == 0] == SILENCE).all()


def test_arrays_tensors_lists_and_files_of_any_rate_are_heard_alike(tmp_path):
    clip = noise(12000)
    expected = extract(clip)["input_values"]
    soundfile.write(tmp_path / "clip.wav", clip, RATE, subtype="FLOAT")
    decoded = {"array": clip, "sampling_rate": RATE}
    for form in (torch.from_numpy(clip), clip.tolist(), str(tmp_path / "clip.wav"), decoded, [clip], clip[None]):
        assert torch.equal(extract(form)["input_values"], expected)
    # The same tone at another rate, away from the edges of the resampling filter.
    tone = {rate: 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate) for rate in (RATE, 48000)}
    soundfile.write(tmp_path / "tone.wav", tone[48000], 48000, subtype="FLOAT")
    heard, wanted = (extract(audio)["input_values"][0, 5:90] for audio in (str(tmp_path / "tone.wav"), tone[RATE]))
    torch.testing.assert_close(heard, wanted, atol=0.02, rtol=0)


def test_samples_of_another_rate_are_refused_and_so_is_another_front_end():
    with pytest.raises(ValueError, match="takes audio at 16000 Hz, and got 44100 Hz"):
        DoppelgangerFeatureExtractor()(noise(RATE), sampling_rate=44100)
    with pytest.raises(ValueError, match="defined at 16000 Hz, and got sampling_rate=22050"):
        DoppelgangerFeatureExtractor(sampling_rate=22050)


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        (np.zeros(399), "at least 25 ms.*399 samples"),
        (np.full(RATE, np.nan), "16000 NaN or infinite samples"),
        (np.full(RATE, 30000.0), "clip 0"),
    ],
)
def test_what_is_no_sound_is_refused_as_everywhere(clip, message):
    with pytest.raises(ValueError, match=message):
        extract(clip)


def test_extract_is_what_a_call_gives_and_keeps_the_gradient():
    clips = torch.from_numpy(np.stack([noise(RATE, 1), noise(RATE, 2)]))
    extractor = DoppelgangerFeatureExtractor()
    assert torch.equal(extractor.extract(clips), extract(clips)["input_values"])
    waveforms = clips.clone().requires_grad_()
    extractor.extract(waveforms).sum().backward()
    assert waveforms.grad.isfinite().all()


def test_extract_waits_for_no_device():
    """What looks at a value on its way is no single graph."""

    class Extract(torch.nn.Module):
        def forward(self, waveforms):
            return DoppelgangerFeatureExtractor().extract(waveforms)

    waveforms = torch.from_numpy(np.stack([noise(RATE, 1), noise(RATE, 2)]))
    graph = torch.export.export(Extract(), (torch.zeros(2, RATE),)).module()
    torch.testing.assert_close(graph(waveforms), Extract()(waveforms))


def test_what_is_saved_is_what_is_loaded(tmp_path):
    extractor = DoppelgangerFeatureExtractor(statistics={"preset": "voices", "saw_real_data": False})
    extractor.save_pretrained(tmp_path)
    loaded = AutoFeatureExtractor.from_pretrained(tmp_path)
    assert type(loaded) is DoppelgangerFeatureExtractor
    assert loaded.statistics == extractor.statistics
    clip = noise(RATE)
    assert torch.equal(loaded(clip, sampling_rate=RATE)["input_values"], extract(clip)["input_values"])
