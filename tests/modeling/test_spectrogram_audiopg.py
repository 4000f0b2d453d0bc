import math

import pytest
import torch
from torchaudio.compliance import kaldi

from audiopg.modeling import spectrogram_audiopg as spectrogram
from audiopg.modeling.spectrogram_audiopg import LOG_FLOOR, log_mel_spectrogram, mel_filter_bank, num_frames

SAMPLING_RATE = 16000


def torchaudio_fbank(waveform, window="hanning", sampling_rate=SAMPLING_RATE, num_mel_bins=128):
    return kaldi.fbank(
        waveform[None],
        sample_frequency=sampling_rate,
        window_type=window,
        num_mel_bins=num_mel_bins,
        dither=0.0,
        use_energy=False,
    )


def noise(num_samples, seed=0):
    return torch.randn(num_samples, generator=torch.Generator().manual_seed(seed))


def tone(frequency, num_samples=16000):
    return torch.sin(2 * math.pi * frequency * torch.arange(num_samples, dtype=torch.float64) / SAMPLING_RATE).float()


WAVEFORMS = {
    "noise": 0.1 * noise(163840),
    "quiet noise": 1e-4 * noise(20000),
    "full-scale noise": noise(20000).clamp(-1, 1),
    "full-scale square": tone(311.0).sign(),
    "low tone": 0.5 * tone(55.0),
    "tone between two bins": tone(1015.6),
    "high tone": tone(7990.0),
    "silence": torch.zeros(16000),
    "constant": torch.ones(16000),
    "noise on a large constant": 0.9 + 0.01 * noise(16000),
    "one frame": 0.3 * noise(400),
    "odd length": 0.3 * noise(12347),
}


@pytest.mark.parametrize("name", WAVEFORMS)
@pytest.mark.parametrize(("window", "kaldi_window"), [("hann", "hanning"), ("hamming", "hamming")])
def test_log_mel_is_the_kaldi_filterbank(name, window, kaldi_window):
    ours = log_mel_spectrogram(WAVEFORMS[name], window=window)
    torch.testing.assert_close(ours, torchaudio_fbank(WAVEFORMS[name], kaldi_window), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("sampling_rate", "num_mel_bins"), [(8000, 40), (22050, 64), (44100, 128), (16000, 23)])
def test_other_rates_and_band_counts_are_the_kaldi_filterbank_too(sampling_rate, num_mel_bins):
    waveform = 0.1 * noise(sampling_rate)
    ours = log_mel_spectrogram(waveform, sampling_rate=sampling_rate, num_mel_bins=num_mel_bins)
    expected = torchaudio_fbank(waveform, sampling_rate=sampling_rate, num_mel_bins=num_mel_bins)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4)


def test_mel_triangles_are_kaldis():
    expected, _ = kaldi.get_mel_banks(128, 512, 16000.0, 20.0, 0.0, 100.0, -500.0, 1.0)
    torch.testing.assert_close(mel_filter_bank(128, 16000)[:-1].T, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("num_mel_bins", [1, 23, 32, 33, 128])
@pytest.mark.parametrize("sampling_rate", [8000, 16000, 44100])
def test_groups_of_bands_miss_no_weight(num_mel_bins, sampling_rate):
    groups = spectrogram._constants("hann", sampling_rate, num_mel_bins, torch.device("cpu")).mel_groups
    assembled = torch.zeros_like(mel_filter_bank(num_mel_bins, sampling_rate))
    band = 0
    for first, end, weights in groups:
        assembled[first:end, band : band + weights.shape[1]] = weights
        band += weights.shape[1]
    assert torch.equal(assembled, mel_filter_bank(num_mel_bins, sampling_rate))


@pytest.mark.parametrize("num_samples", [400, 559, 560, 16000, 163840])
def test_number_of_frames_is_what_comes_out(num_samples):
    assert log_mel_spectrogram(torch.zeros(num_samples)).shape == (num_frames(num_samples), 128)


@pytest.mark.parametrize("num_samples", [400, 16000, 163840, 400000])
def test_a_batch_is_its_clips_one_by_one(num_samples):
    clips = torch.stack([noise(num_samples, seed) for seed in range(5)])
    one_by_one = torch.stack([log_mel_spectrogram(clip) for clip in clips])
    torch.testing.assert_close(log_mel_spectrogram(clips), one_by_one, rtol=0, atol=1e-5)


@pytest.mark.parametrize("num_frames", [1024, 1025, 1027, 2049, 5000])
def test_a_frame_has_the_same_bits_wherever_a_waveform_is_cut(num_frames):
    """Also where one frame is left over after whole blocks."""
    waveform = noise(400 + 160 * (num_frames - 1))
    whole = log_mel_spectrogram(waveform)
    for first in (16, 160, num_frames - 16):
        assert torch.equal(log_mel_spectrogram(waveform[160 * first :]), whole[first:])


def test_leading_dimensions_are_kept():
    clips = noise(2 * 3 * 4000).reshape(2, 3, 4000)
    assert log_mel_spectrogram(clips).shape == (2, 3, num_frames(4000), 128)
    torch.testing.assert_close(log_mel_spectrogram(clips)[1, 2], log_mel_spectrogram(clips[1, 2]))


def test_silence_is_the_floor():
    assert torch.equal(log_mel_spectrogram(torch.zeros(800)).unique(), torch.tensor([LOG_FLOOR]).log())


def test_the_waveform_is_left_alone():
    waveform = noise(4000)
    before = waveform.clone()
    log_mel_spectrogram(waveform)
    assert torch.equal(waveform, before)


def test_float64_and_float16_waveforms_give_float32():
    waveform = 0.1 * noise(4000)
    assert torch.equal(log_mel_spectrogram(waveform.double()), log_mel_spectrogram(waveform))
    assert log_mel_spectrogram(waveform.half()).dtype == torch.float32


def test_autocast_changes_nothing():
    waveform = noise(4000)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = log_mel_spectrogram(waveform)
    assert torch.equal(mixed, log_mel_spectrogram(waveform))


def test_gradient_reaches_the_waveform_even_after_a_first_use_in_inference_mode():
    spectrogram._cached_constants.cache_clear()
    waveform = noise(800).requires_grad_()
    with torch.inference_mode():
        log_mel_spectrogram(waveform)
    log_mel_spectrogram(waveform).sum().backward()
    assert waveform.grad.abs().sum() > 0


@pytest.mark.parametrize("strict", [False, True])
def test_it_can_be_exported_and_leaves_no_stand_ins_in_the_cache(strict):
    class FrontEnd(torch.nn.Module):
        def forward(self, waveform):
            return log_mel_spectrogram(waveform)

    waveform = noise(8000).reshape(2, 4000)
    spectrogram._cached_constants.cache_clear()
    exported = torch.export.export(FrontEnd(), (waveform,), strict=strict)
    assert torch.equal(exported.module()(waveform), log_mel_spectrogram(waveform))


def test_it_compiles_without_a_graph_break():
    waveform = noise(8000).reshape(2, 4000)
    compiled = torch.compile(log_mel_spectrogram, backend="eager", fullgraph=True)
    assert torch.equal(compiled(waveform), log_mel_spectrogram(waveform))


@pytest.mark.parametrize("window", ["hann", "hamming"])
@pytest.mark.parametrize("length", [200, 400, 551, 1102])
def test_windows_have_the_bits_of_torch_s_own(window, length):
    theirs = getattr(torch, f"{window}_window")(length, periodic=False)
    assert torch.equal(spectrogram.window_values(window, length), theirs)


@pytest.mark.gpu
def test_a_gpu_gives_the_same_values():
    waveform = 0.1 * noise(163840)
    on_gpu = log_mel_spectrogram(waveform.cuda())
    assert on_gpu.device.type == "cuda"
    # Where a single bin near a zero of the spectrum feeds a band, the rounding of another FFT shows.
    difference = (on_gpu.cpu() - log_mel_spectrogram(waveform)).abs()
    assert difference.max() < 1e-2
    assert difference.mean() < 1e-5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"waveform": torch.zeros(399)}, "at least one frame of 25 ms"),
        ({"waveform": torch.zeros(4000, dtype=torch.int16)}, "floating point samples"),
        ({"waveform": torch.zeros(4000), "window": "povey"}, "`window` is one of"),
    ],
)
def test_what_cannot_be_analysed_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        log_mel_spectrogram(**arguments)
