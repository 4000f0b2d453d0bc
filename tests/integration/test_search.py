"""Search by example with the index that `datasets` has: FAISS, over the shards of `embed.py`."""

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from datasets import load_dataset

from audiopg import AudioPGConfig, AudioPGFeatureExtractor, AudioPGModel
from audiopg.training.embed import main
from audiopg.training.publishing.hub import write_hub_folder

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:builtin type (SwigPy|swigvar).*:DeprecationWarning"),  # of FAISS's wrapper
]

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A checkpoint, tones from low to high, and their embeddings, as the page names them."""
    pytest.importorskip("faiss")
    home = tmp_path_factory.mktemp("search")
    torch.manual_seed(0)
    config = AudioPGConfig(hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    write_hub_folder(AudioPGModel(config).eval(), AudioPGFeatureExtractor(), home / "checkpoints/audiopg-tiny")
    rng = np.random.default_rng(0)
    (home / "sounds").mkdir()
    for number in range(30):
        time = np.arange(8000 + 500 * number) / 16000
        tone = np.sin(2 * np.pi * 200 * 1.12**number * time) + 0.05 * rng.standard_normal(len(time))
        soundfile.write(home / f"sounds/{number:02d}.wav", 0.4 * tone, 16000)
    main([str(home / "checkpoints/audiopg-tiny"), str(home / "sounds"), str(home / "embeddings")])
    soundfile.write(home / "example.wav", soundfile.read(home / "sounds/17.wav")[0], 16000)
    return home


def test_the_nearest_of_a_clip_is_itself_and_the_order_that_of_all_distances(corpus, tmp_path):
    clips = load_dataset(str(corpus / "embeddings"), split="train", cache_dir=str(tmp_path))
    vectors = np.stack(clips.with_format("numpy")["embedding"][:])
    clips.add_faiss_index("embedding")
    for number in (0, 13, 29):
        distances, found = clips.get_nearest_examples("embedding", vectors[number], k=10)
        assert found["path"][0] == f"{number:02d}.wav"
        assert distances[0] == pytest.approx(0, abs=1e-5)
        exact = ((vectors.astype(np.float64) - vectors[number]) ** 2).sum(axis=1)
        assert found["path"] == [clips["path"][place] for place in np.argsort(exact)[:10]]
        np.testing.assert_allclose(distances, np.sort(exact)[:10], atol=1e-5)


@pytest.mark.parametrize("page", ["README.md", "docs/embeddings.md"])
def test_the_lines_of_the_page_find_the_recording_that_the_example_is(page, corpus, tmp_path, monkeypatch):
    monkeypatch.chdir(corpus)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    [search] = [number for number, block in enumerate(blocks) if "add_faiss_index" in block]
    told = {"recordings": ["example.wav"]}
    exec("\n".join(blocks[: search + 1]), told)
    assert told["nearest"]["path"][0] == "17.wav"
    assert len(told["nearest"]["path"]) == 5
