import math

import numpy as np
import pytest
import torch

from audiopg.modeling.spectrogram_doppelganger import SILENCE, vggish_log_mel


def noise(*shape):
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def by_the_formula(waveform):
    """VGGish's log-mel of one waveform, frame by frame and bin by bin, in float64."""
    window = [0.5 - 0.5 * math.cos(2 * math.pi * n / 400) for n in range(400)]
    mel = [1127 * math.log(1 + 31.25 * k / 700) for k in range(257)]
    lowest, highest = (1127 * math.log(1 + hertz / 700) for hertz in (125, 7500))
    edges = np.linspace(lowest, highest, 66)
    frames = []
    for start in range(0, len(waveform) - 399, 160):
        magnitudes = np.abs(np.fft.fft(waveform[start : start + 400] * window, 512))[:257]
        bands = []
        for left, centre, right in zip(edges, edges[1:], edges[2:], strict=False):
            weights = [max(0.0, min((m - left) / (centre - left), (right - m) / (right - centre))) for m in mel]
            bands.append(math.log(0.01 + np.dot(weights, magnitudes)))
        frames.append(bands)
    return np.array(frames)


def test_a_tone_has_the_golden_values_of_the_original():
    tone = 0.5 * torch.sin(2 * math.pi * 440 * torch.arange(16000, dtype=torch.float64) / 16000)
    example = vggish_log_mel(tone.float())[:96]
    assert example.shape == (96, 64)
    assert float(example.mean()) == pytest.approx(-3.50186, abs=1e-4)
    assert float(example.max()) == pytest.approx(4.08917, abs=1e-4)
    assert int(example.mean(dim=0).argmax()) == 8
    golden = [-3.73631, -2.74374, -2.20471, -2.05262, -2.33952, -0.34757]
    np.testing.assert_allclose(example[0, :6], golden, atol=1e-4)


def test_noise_has_the_values_of_the_formula_written_out():
    waveform = noise(4000)
    np.testing.assert_allclose(vggish_log_mel(waveform), by_the_formula(waveform.double().numpy()), atol=2e-5)


def test_silence_is_the_offset_alone():
    assert round(SILENCE, 6) == -4.605170
    torch.testing.assert_close(vggish_log_mel(torch.zeros(1600)), torch.full((8, 64), SILENCE))


def test_a_clip_has_the_same_values_in_any_batch_and_in_any_cut():
    clips = noise(3, 2, 16000)
    together = vggish_log_mel(clips)
    assert together.shape == (3, 2, 98, 64)
    torch.testing.assert_close(together[2, 1], vggish_log_mel(clips[2, 1]), atol=1e-5, rtol=0)
    torch.testing.assert_close(together[0, 0, 10:], vggish_log_mel(clips[0, 0, 1600:]), atol=1e-5, rtol=0)


def test_gradients_reach_the_waveform_also_when_the_constants_were_first_made_in_inference_mode():
    with torch.inference_mode():
        vggish_log_mel(noise(400), num_mel_bins=32)
    waveform = noise(2, 800).requires_grad_()
    vggish_log_mel(waveform, num_mel_bins=32).sum().backward()
    assert waveform.grad.isfinite().all()
    assert waveform.grad.abs().amax() > 0


def test_gradients_of_silence_are_finite():
    waveform = torch.zeros(800, requires_grad=True)
    vggish_log_mel(waveform).sum().backward()
    assert waveform.grad.isfinite().all()


def test_autocast_does_not_lower_the_precision():
    waveform = noise(1, 4000)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lowered = vggish_log_mel(waveform)
    assert torch.equal(lowered, vggish_log_mel(waveform))


def test_it_compiles_and_exports_for_any_batch_and_length():
    class FrontEnd(torch.nn.Module):
        def forward(self, waveform):
            return vggish_log_mel(waveform)

    dynamic = torch.export.Dim.DYNAMIC
    exported = torch.export.export(FrontEnd(), (noise(2, 8000),), dynamic_shapes=({0: dynamic, 1: dynamic},)).module()
    torch.testing.assert_close(exported(noise(3, 16000)), vggish_log_mel(noise(3, 16000)))


@pytest.mark.parametrize(
    ("waveform", "message"),
    [
        (torch.zeros(399), "at least one frame of 25 ms.*399 samples"),
        (torch.zeros(800, dtype=torch.int16), "floating point.*torch.int16"),
    ],
)
def test_what_is_no_waveform_is_refused(waveform, message):
    with pytest.raises(ValueError, match=message):
        vggish_log_mel(waveform)
