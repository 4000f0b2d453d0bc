import json

import numpy as np
import pytest
import torchaudio.compliance.kaldi as kaldi

from audiopg.data_scripts.synthesis import SYNTHESIZER_VERSION, draw, get_preset, render
from audiopg.modeling.feature_extraction_audiopg import REFERENCE_STATISTICS
from audiopg.training.measure_statistics import main
from audiopg.training.objectives.statistics import measure_statistics


def test_statistics_equal_those_of_kaldi_s_filterbank_over_the_same_clips():
    preset = get_preset("reference", duration=1.0)
    waveforms = render(draw(preset, 3, range(20)))
    log_mel = np.concatenate(
        [kaldi.fbank(w[None], num_mel_bins=128, window_type="hanning", dither=0.0).numpy() for w in waveforms]
    )
    measured = measure_statistics(preset, seed=3, num_clips=20)
    assert measured["mean"] == pytest.approx(log_mel.mean(dtype=np.float64), abs=1e-3)
    assert measured["std"] == pytest.approx(log_mel.std(dtype=np.float64), abs=1e-3)


def test_the_command_prints_the_statistics_with_their_provenance(capsys):
    main(["--preset", "audiopg", "--num_clips", "3", "--duration", "0.5", "--seed", "2"])
    printed = json.loads(capsys.readouterr().out)
    assert printed == measure_statistics(get_preset("audiopg", duration=0.5), seed=2, num_clips=3)
    assert printed["overrides"] == {"duration": 0.5}
    assert printed["synthesizer_version"] == SYNTHESIZER_VERSION


def test_the_feature_extractor_s_own_statistics_are_those_of_the_reference_preset():
    measured = measure_statistics("reference", seed=0, num_clips=128)
    assert measured["mean"] == pytest.approx(REFERENCE_STATISTICS["mean"], abs=0.2)
    assert measured["std"] == pytest.approx(REFERENCE_STATISTICS["std"], abs=0.1)


@pytest.mark.slow
def test_the_feature_extractor_s_own_statistics_are_measured_again_to_the_last_digit():
    assert measure_statistics("reference", seed=0, num_clips=2000) == REFERENCE_STATISTICS
