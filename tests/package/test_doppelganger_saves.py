"""An encoder of doubles loads, embeds and goes through pipelines wherever it is saved to, with and without audiopg."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, pipeline

from audiopg import DoppelgangerConfig, DoppelgangerFeatureExtractor, DoppelgangerModel
from audiopg.training.publishing.hub import is_ours, write_hub_folder

SMALL = {"stem_size": 4, "hidden_sizes": [4, 8], "depths": [1, 1], "embedding_size": 12}
CLIPS = [np.random.default_rng(n).uniform(-0.5, 0.5, n).astype(np.float32) for n in (400, 16000, 40_000)]
LOAD_ELSEWHERE = """
import sys
sys.modules["audiopg"] = None
import json, pathlib
import numpy as np, torch, transformers
clip, answers = np.load("clip.npy"), {}
for folder in sorted(path.name for path in pathlib.Path().iterdir() if (path / "config.json").exists()):
    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=True)
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=True)
    model = transformers.AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
    with torch.no_grad():
        pooled = model(**extractor(clip, sampling_rate=16000)).pooler_output[0]
    embed = transformers.pipeline("audio-feature-extraction", model=folder, trust_remote_code=True, device="cpu")
    model.save_pretrained(pathlib.Path("again") / folder)
    answers[folder] = {
        "pooled": pooled.tolist(),
        "pipeline": embed(clip).tolist(),
        "embed": model.embed(clip, extractor)[0].tolist(),
        "config": type(config).__name__,
        "again": sorted(path.name for path in (pathlib.Path("again") / folder).glob("*.py")),
    }
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = DoppelgangerModel(DoppelgangerConfig(**SMALL)).train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(8, 96, 64))
    return model.eval()


@pytest.fixture(scope="module")
def extractor():
    return DoppelgangerFeatureExtractor()


@pytest.fixture(scope="module")
def expected(model, extractor):
    with torch.no_grad():
        return [model(**extractor(clip, sampling_rate=16000)).pooler_output[0].numpy() for clip in CLIPS]


def test_every_folder_loads_where_the_package_cannot_be_imported(model, extractor, expected, tmp_path):
    model.save_pretrained(tmp_path / "plain")
    extractor.save_pretrained(tmp_path / "plain")
    write_hub_folder(model, extractor, tmp_path / "exported")
    AutoModel.from_pretrained(tmp_path / "plain").save_pretrained(tmp_path / "saved_again")
    extractor.save_pretrained(tmp_path / "saved_again")
    np.save(tmp_path / "clip.npy", CLIPS[2])
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", LOAD_ELSEWHERE]
    done = subprocess.run(command, env=environment, cwd=tmp_path, timeout=240, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    answers = json.loads(done.stdout)
    assert answers.keys() == {"plain", "exported", "saved_again"}
    for name, answer in answers.items():
        assert answer["config"] == "DoppelgangerConfig"
        for way in ("pooled", "pipeline", "embed"):
            np.testing.assert_allclose(answer[way], expected[2], atol=1e-5)
        assert answer["again"] == sorted(path.name for path in (tmp_path / name).glob("*.py"))
        assert {"modeling_doppelganger.py", "pipeline_audiopg.py"} <= set(answer["again"])
        assert "modeling_audiopg.py" not in answer["again"]


def test_an_extractor_and_a_configuration_saved_alone_bring_their_code(extractor, tmp_path):
    extractor.save_pretrained(tmp_path / "extractor")
    DoppelgangerConfig(**SMALL).save_pretrained(tmp_path / "config")
    assert {"feature_extraction_doppelganger.py", "spectrogram_doppelganger.py", "audio_audiopg.py"} <= {
        path.name for path in (tmp_path / "extractor").glob("*.py")
    }
    assert {path.name for path in (tmp_path / "config").glob("*.py")} == {
        "configuration_doppelganger.py",
        "configuration_audiopg.py",
    }


def test_the_pipeline_embeds_files_of_any_length_and_says_when(model, extractor, expected, tmp_path):
    write_hub_folder(model, extractor, tmp_path / "model")
    embed = pipeline("audio-feature-extraction", model=str(tmp_path / "model"), device="cpu")
    long = np.tile(CLIPS[2], 6)
    soundfile.write(tmp_path / "long.wav", long, 16000, subtype="FLOAT")
    np.testing.assert_allclose(np.stack(embed(CLIPS, batch_size=1)), expected, atol=1e-5)
    wanted = model.embed(long, extractor)[0].numpy()
    np.testing.assert_allclose(embed(str(tmp_path / "long.wav")), wanted, atol=1e-5)
    frames = embed(long, frames=True)
    [directly] = model.embed_frames(long, extractor)
    np.testing.assert_allclose(frames["embeddings"], directly.embeddings, atol=1e-5)
    np.testing.assert_allclose(frames["times"], directly.times)
    with pytest.raises(ValueError, match="no rows along mel, and `layer` None, got 'mel'"):
        embed(CLIPS[0], pooling="mel")


def test_sentence_transformers_gives_the_same_vectors(model, extractor, expected, tmp_path):
    assert is_ours(model)
    write_hub_folder(model, extractor, tmp_path / "model")
    embedder = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    np.testing.assert_allclose(embedder.encode(CLIPS), expected, atol=1e-5)
