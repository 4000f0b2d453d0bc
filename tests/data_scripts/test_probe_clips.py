import numpy as np

from audiopg.data_scripts.probe_clips import factor_clips
from audiopg.data_scripts.synthesis import get_preset


def test_the_factors_can_be_heard_in_the_clips():
    clips = factor_clips(get_preset("reference", duration=2.0, damping_probability=0, noise_gain=0.001), num_clips=24)
    for waveform, octaves, onset in zip(
        clips.waveforms, clips.factors["frequency"], clips.factors["onset"], strict=True
    ):
        loud = np.flatnonzero(np.abs(waveform) > 0.05)
        assert abs(loud[0] / clips.sampling_rate - onset) < 0.2
        assert loud[-1] / clips.sampling_rate < onset + 1.01
        spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform))))
        hertz = np.arange(len(spectrum)) * clips.sampling_rate / len(waveform)
        assert spectrum[np.abs(hertz / 2**octaves - 1) < 0.01].max() > 0.2 * spectrum.max()


def test_level_is_the_ratio_of_powers_in_decibels():
    quiet = factor_clips(get_preset("reference", duration=1.5, noise_gain=0.01), num_clips=6).factors["level"]
    loud = factor_clips(get_preset("reference", duration=1.5, noise_gain=0.1), num_clips=6).factors["level"]
    np.testing.assert_allclose(quiet - loud, 20.0, atol=0.01)
