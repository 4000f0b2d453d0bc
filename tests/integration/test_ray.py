"""Shards written by the workers of a real Ray cluster, which the test starts, are those of one process."""

import json
import logging
import os
import re

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import torch

from audiopg import AudioPGConfig, AudioPGFeatureExtractor, AudioPGModel
from audiopg.training import build_dataset, embed
from audiopg.training.publishing.hub import write_hub_folder
from audiopg.training.runs.engines import answers

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context"),  # it sets deprecated fields of its own
]

ON_RAY = ["--engine", "ray", "--num_proc", "2"]
SMALL = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.fixture(autouse=True, scope="module")
def _alone():
    """Clusters of these tests' own, which write nothing into anybody's home; one thread, as their workers have."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")  # others may use the machine too
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def cluster():
    """One with two workers, joined by this process."""
    ray = pytest.importorskip("ray")
    options = {"include_dashboard": False, "object_store_memory": 100 * 2**20, "logging_level": logging.ERROR}
    ray.init(address="local", num_cpus=2, **options)
    yield
    ray.shutdown()


def content_of(folder):
    return {path.name: path.read_bytes() for path in sorted((folder / "data").iterdir())}


def test_a_corpus_on_ray_has_the_rows_of_one_process_and_of_embed(tmp_path, capsys):
    pytest.importorskip("ray")
    torch.manual_seed(0)
    model, extractor = AudioPGModel(AudioPGConfig(**SMALL)).eval(), AudioPGFeatureExtractor()
    write_hub_folder(model, extractor, tmp_path / "model")
    (tmp_path / "sounds").mkdir()
    rng = np.random.default_rng(0)
    for number in range(6):
        soundfile.write(tmp_path / f"sounds/{number}.wav", rng.uniform(-0.5, 0.5, 4000 * (number + 1)), 16000)
    (tmp_path / "sounds/broken.wav").touch()
    words = [str(tmp_path / "model"), str(tmp_path / "sounds")]
    embed.main([*words, str(tmp_path / "one"), "--recordings_per_shard", "2"])
    embed.main([*words, str(tmp_path / "ray"), "--recordings_per_shard", "2", *ON_RAY])
    assert capsys.readouterr().err.count("1 of 7 recordings left out") == 2
    assert content_of(tmp_path / "ray") == content_of(tmp_path / "one")
    assert len(content_of(tmp_path / "ray")) == 4
    for name in ("recipe.json", "unreadable.json"):
        assert json.loads((tmp_path / "ray" / name).read_text()) == json.loads((tmp_path / "one" / name).read_text())
    table = pq.read_table(tmp_path / "ray/data")
    alone = torch.cat([model.embed(tmp_path / "sounds" / path.as_py(), extractor) for path in table["path"]])
    np.testing.assert_allclose(np.stack(table["embedding"].to_numpy()), alone.numpy(), atol=1e-6)


def test_clips_on_ray_are_those_of_one_process_byte_for_byte_and_go_on(cluster, tmp_path):
    options = ["--num_clips", "40", "--clips_per_shard", "16", "--synthesis.duration", "0.5"]
    one, ray = (tmp_path / engine / "clips" for engine in ("processes", "ray"))
    build_dataset.main([str(one), *options])
    build_dataset.main([str(ray), *options, *ON_RAY])
    assert len(content_of(ray)) == 3
    assert content_of(ray) == content_of(one)
    for name in ("README.md", "recipe.json"):
        assert (ray / name).read_text() == (one / name).read_text()
    (ray / "data/train-00001-of-00003.parquet").unlink()
    build_dataset.main([str(ray), *options, *ON_RAY])
    assert content_of(ray) == content_of(one)


MEET = """(lambda os, time: (
    open(os.path.join({folder!r}, str(os.getpid())), "w").close(),
    next((True for _ in range(600) if len(os.listdir({folder!r})) > 1 or time.sleep(0.1)), False),
    os.getpid(),
)[-1])(__import__("os"), __import__("time"))"""
"""Says that it is there, and waits for another process to say so; returns its own number."""


def test_both_workers_work_and_an_error_arrives_as_what_it_was(cluster, tmp_path):
    found = list(answers(eval, [MEET.format(folder=str(tmp_path))] * 8, engine="ray", num_proc=2))
    assert len(found) == 8
    assert len(set(found)) == 2
    assert os.getpid() not in found
    with pytest.raises(FileNotFoundError, match=re.escape("'/not/there'")):
        list(answers(os.listdir, ["/not/there"], engine="ray", num_proc=2))
