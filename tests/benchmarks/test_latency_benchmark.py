import json

import latency as benchmark
import pytest
import torch

from audiopg import AudioPGConfig, AudioPGFeatureExtractor, AudioPGModel

SMALL = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    torch.manual_seed(0)
    AudioPGModel(AudioPGConfig(**SMALL)).save_pretrained(folder)
    AudioPGFeatureExtractor().save_pretrained(folder)
    return folder


def test_contenders_take_turns_and_say_what_they_hold(checkpoint):
    names = ("eager", "ast_without_overlap")
    files = dict.fromkeys(names, str(checkpoint))
    held = torch.ones(100_000_000)  # 400 MB of this process, which are none of theirs
    rows = benchmark.compare(files, threads=1, rounds=2, seconds=1.0, names=names)
    assert [row["name"] for row in rows] == list(names)
    for row in rows:
        assert row["milliseconds"] > 0
        assert 0 < row["memory"] < held.nbytes / 1e6
        assert row["memory"] < row["held"]


def test_times_and_memory_are_for_a_second_of_sound():
    made = [
        {"seconds": seconds, "cpu_seconds": 2 * seconds, "made": {"before": 100_000_000, "peak": 150_000_000}}
        for seconds in (60.0, 1.0, 2.0, 9.0)
    ]
    row = benchmark._row("onnx", 2, 10.0, made)
    assert (row["milliseconds"], row["cpu"], row["first_seconds"]) == (200.0, 400.0, 60.0)
    assert (row["memory"], row["memory_per_second"], row["held"]) == (50.0, 5.0, 150.0)


def test_a_checkpoint_that_cannot_be_exported_is_named(tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(SystemExit, match="2"):
        benchmark.main([str(tmp_path)])
    assert str(tmp_path) in capsys.readouterr().err
