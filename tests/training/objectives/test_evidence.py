import json

import pytest

from audiopg.modeling.feature_extraction_audiopg import REFERENCE_STATISTICS, AudioPGFeatureExtractor
from audiopg.training.objectives.evidence import run_saw_real_data, saw_real_data
from audiopg.training.objectives.statistics import measure_statistics

OF_A_RUN = {"preset": "sine", "overrides": {}, "seed": 3, "num_clips": 8, "window": "hann"}
OF_A_RUN |= {"synthesizer_version": "0.1.0", "mean": -5.0, "std": 4.0}
DEFAULT = AudioPGFeatureExtractor().statistics


@pytest.mark.parametrize(
    ("statistics", "expected"),
    [
        ({"recordings": "ESC-50", "num_clips": 8, "seed": 0}, True),
        ({"source": "AudioSet"}, True),
        (OF_A_RUN | {"kept_from": "tiny", "recordings": "ESC-50"}, True),
        (OF_A_RUN | {"saw_real_data": True}, True),
        ({"saw_real_data": True}, True),
        ({"saw_real_data": False, "recordings": "ESC-50"}, True),  # what is named outweighs what is claimed
        ({"saw_real_data": False}, False),
        (OF_A_RUN | {"saw_real_data": False}, False),
        (OF_A_RUN, False),
        (OF_A_RUN | {"kept_from": "tiny"}, False),
        (OF_A_RUN | {"saw_real_data": None}, None),  # a run from weights of unknown origin
        ({}, None),
        (DEFAULT, None),
        (DEFAULT | {"kept_from": "theirs"}, None),
        (REFERENCE_STATISTICS, None),
        ({"mean": 0.0, "std": 1.0}, None),
        *[({key: value for key, value in OF_A_RUN.items() if key != name}, None)
          for name in ("preset", "synthesizer_version", "num_clips", "seed")],
    ],
)  # fmt: skip
def test_only_positive_evidence_counts(statistics, expected):
    assert saw_real_data(statistics) is expected


def test_what_is_measured_on_synthesized_clips_is_evidence_even_with_seed_0():
    assert saw_real_data(measure_statistics("sine", seed=0, num_clips=1)) is False


def test_an_extractor_of_unknown_origin_proves_nothing_before_and_after_saving(tmp_path):
    for extractor in (AudioPGFeatureExtractor(), AudioPGFeatureExtractor(mean=0.0, std=0.5)):
        extractor.save_pretrained(tmp_path)
        saved = json.loads((tmp_path / "preprocessor_config.json").read_text())
        assert saw_real_data(extractor.statistics) is None
        assert saw_real_data(saved["statistics"]) is None


@pytest.mark.parametrize(
    ("changes", "statistics", "expected"),
    [
        ({}, {}, False),  # whatever statistics say: all that it saw was synthesized
        ({"init_from": "weights"}, {}, None),
        ({"init_from": "weights"}, DEFAULT | {"kept_from": "weights"}, None),
        ({"init_from": "weights"}, OF_A_RUN | {"kept_from": "weights"}, False),
        ({"init_from": "weights"}, {"source": "AudioSet", "kept_from": "weights"}, True),
        ({"preset": "", "synthesis": {}, "recordings": {"folder": "sounds"}}, {}, True),
        ({"preset": "", "synthesis": {}, "recordings": {"folder": "x"}, "init_from": "weights"}, OF_A_RUN, True),
    ],
)
def test_a_run_has_seen_its_recordings_and_what_its_first_weights_saw(toy_recipe, changes, statistics, expected):
    assert run_saw_real_data(toy_recipe(**changes), statistics) is expected
