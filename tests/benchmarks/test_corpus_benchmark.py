import importlib.util
import json
from pathlib import Path

import pytest
import soundfile
import torch

from audiopg import AudioPGConfig, AudioPGFeatureExtractor, AudioPGModel
from audiopg.training.publishing.hub import write_hub_folder
from audiopg.training.publishing.pages import corpus_part

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "corpus.py"
SPEC = importlib.util.spec_from_file_location("corpus_benchmark", SCRIPT)
benchmark = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(benchmark)

SMALL = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


def test_a_corpus_has_files_of_one_length_that_are_all_different_sounds(tmp_path):
    assert benchmark.write_corpus(tmp_path / "sounds", 0.5, 22_050, 2.0) == 4
    files = sorted((tmp_path / "sounds").iterdir())
    assert {(soundfile.info(file).duration, soundfile.info(file).samplerate) for file in files} == {(0.5, 22_050)}
    assert len({file.read_bytes() for file in files}) == 4


def test_the_command_line_writes_what_was_measured_and_the_page_what_it_comes_to(tmp_path, monkeypatch):
    torch.manual_seed(0)
    write_hub_folder(AudioPGModel(AudioPGConfig(**SMALL)), AudioPGFeatureExtractor(), tmp_path / "toy")
    monkeypatch.setattr(AudioPGConfig, "of_size", classmethod(lambda cls, size: cls(**SMALL)))
    monkeypatch.setattr(benchmark, "CORPORA", {"clips": (0.5, 16000), "recordings": (12.0, 22_050)})
    output = tmp_path / "results" / "speed.json"
    benchmark.main(["--checkpoint", str(tmp_path / "toy"), "--minutes", "0.5", "--output", str(output)])
    report = json.loads(output.read_text())
    assert {"hardware", "versions", "commit", "load_average"} <= set(report)
    assert str(tmp_path) not in output.read_text()
    assert [(row["model"], row["seconds_of_sound"]) for row in report["rows"]] == [
        ("toy", 30.0),
        ("base", 3.0),
        ("toy", pytest.approx(24.0, abs=0.1)),
        ("base", pytest.approx(24.0, abs=0.1)),
    ]
    for row in report["rows"]:
        assert row["width"] == 24
        assert row["times_real_time"] == pytest.approx(row["seconds_of_sound"] / row["seconds"], rel=0.01, abs=0.06)


def test_what_a_million_hours_come_to_is_in_the_table():
    row = {"model": "toy", "recordings": "5 s each, FLAC, 16 kHz", "seconds_each": 5.0, "width": 3072}
    report = {
        "rows": [{**row, "times_real_time": 100.0}],
        "command": "python benchmarks/corpus.py",
        "load_average": 1.2,
    }
    told = corpus_part({**report, "hardware": "a computer", "versions": {"torch": "2"}, "commit": "0" * 12})
    [line] = [line for line in told.splitlines() if line.startswith("| toy")]
    # A machine 100 times as fast as sound: 10,000 h, 416.7 days; and 720 million rows of 12,288 bytes.
    assert line == "| toy | 5 s each, FLAC, 16 kHz | 100 s | 10,000 h | 416.7 | 41.7 | 4.2 | 0.4 | 8.8 TB |"
