"""What eight bits lose, measured on labelled recordings: both types are probed on the same clips."""

import json

import pytest
import torch
from toys import SMALL, write_recordings

from audiopg import AudioPGConfig, AudioPGFeatureExtractor, AudioPGModel
from audiopg.training.export_onnx import main
from audiopg.training.features.batches import Batches
from audiopg.training.features.labelled import DataOptions
from audiopg.training.publishing.eight_bits import in_words, measure_eight_bits
from audiopg.training.publishing.graph_files import Exportable, read_facts


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    AudioPGModel(AudioPGConfig(**SMALL)).save_pretrained(folder)
    AudioPGFeatureExtractor().save_pretrained(folder)
    return folder


def test_the_loss_is_measured_and_goes_into_the_file_and_the_results(checkpoint, tmp_path):
    write_recordings(tmp_path / "data")
    file, results = tmp_path / "int8.onnx", tmp_path / "results.json"
    data = ["--data_dir", str(tmp_path / "data"), "--results", str(results)]
    main([str(checkpoint), str(file), "--input", "spectrogram", "--int8", *data])
    report = json.loads(results.read_text())
    assert report["num_clips"] == 18
    for kind in ("float32", "int8"):
        row = report["results"][kind]
        assert len(row["right"]) == 18
        assert row["mean"] == pytest.approx(row["right"].count("1") / 18)
        assert report["milliseconds"][kind] > 0
    right = [report["results"][kind]["mean"] for kind in ("int8", "float32")]
    assert report["points"] == pytest.approx(100 * (right[0] - right[1]), abs=0.01)
    assert 0 < report["largest_difference"] < 0.2
    assert report["clip_seconds"] == pytest.approx(0.49)  # 48 whole frames of 0.5 s
    assert {"hardware", "versions", "commit", "model_digest"} <= set(report)
    assert read_facts(file)["measured"] == in_words(report)


def test_clips_longer_than_a_window_are_refused(checkpoint, tmp_path):
    write_recordings(tmp_path / "data")
    source = Exportable.load(checkpoint)
    cache = DataOptions(data_dir=str(tmp_path / "data")).cache(source.feature_extractor, clip_seconds=11.0)
    with pytest.raises(ValueError, match=r"at most 10.24 s, .* has one of 11.0 s"):
        measure_eight_bits(source, Batches(cache, source.feature_extractor))
