"""Whatever is saved after `import audiopg` loads in a process that cannot import it, offline."""

import json
import os
import subprocess
import sys

import numpy as np
import peft
import pytest
import torch
from huggingface_hub import HfApi, ModelCard
from transformers import AutoModelForAudioClassification, Trainer, TrainingArguments, pipeline

from audiopg import (
    AudioPGConfig,
    AudioPGFeatureExtractor,
    AudioPGForAudioClassification,
    AudioPGForPreTraining,
    AudioPGModel,
)
from audiopg.modeling.configuration_audiopg import AUTO_MAP
from audiopg.training.publishing.cards import converted_card
from audiopg.training.publishing.hub import write_hub_folder

SMALL = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
SMALL |= {"decoder_num_hidden_layers": 1, "num_labels": 3}
HEADS = (AudioPGModel, AudioPGForPreTraining, AudioPGForAudioClassification)
WAVEFORM = np.random.default_rng(0).uniform(-0.5, 0.5, 16000).astype(np.float32)
LOAD_ELSEWHERE = """
import sys
sys.modules["audiopg"] = None
import json, pathlib
import numpy as np, torch, transformers
names = ("AutoModel", "AutoModelForPreTraining", "AutoModelForAudioClassification")
waveform, answers = np.load("waveform.npy"), {}
for folder in sorted(path.name for path in pathlib.Path().iterdir() if (path / "config.json").exists()):
    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=True)
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=True)
    models = [getattr(transformers, name).from_pretrained(folder, trust_remote_code=True).eval() for name in names]
    with torch.no_grad():
        pooled = models[0](**extractor(waveform, sampling_rate=16000)).pooler_output[0]
    embed = transformers.pipeline("audio-feature-extraction", model=folder, trust_remote_code=True, device="cpu")
    wide = embed(waveform, pooling="mel")
    answers[folder] = {
        "pooled": pooled.tolist(),
        "pipeline": embed(waveform).tolist(),
        "wide": len(wide),
        "heads": [type(model).__name__ for model in models],
    }
    again = pathlib.Path("again") / folder
    models[1].audiopg.save_pretrained(again)
    answers[folder]["again"] = sorted(path.name for path in again.glob("*.py"))
print(json.dumps(answers))
"""


def build(model_class, patch_frames=None):
    torch.manual_seed(0)
    return model_class(AudioPGConfig(**SMALL, patch_frames=patch_frames)).eval()


def by_save_pretrained(model, folder):
    model.save_pretrained(folder)


def by_trainer(model, folder):
    arguments = TrainingArguments(output_dir=str(folder.parent / "run"), report_to="none", use_cpu=True)
    Trainer(model, arguments, processing_class=AudioPGFeatureExtractor()).save_model(str(folder))


def by_peft(model, folder):
    adapted = peft.get_peft_model(model, peft.LoraConfig(target_modules=["qkv"], r=2))
    adapted.merge_and_unload().save_pretrained(folder)


def by_pipeline(model, folder):
    embed = pipeline("audio-feature-extraction", model=model, feature_extractor=AudioPGFeatureExtractor())
    embed.save_pretrained(folder)
    # What was noted for the folder does not come between this process and the model in its memory.
    pipeline("audio-feature-extraction", model=model, feature_extractor=AudioPGFeatureExtractor())


def by_saving_again(model, folder):
    model.save_pretrained(folder.parent / "first")
    AudioPGFeatureExtractor().save_pretrained(folder.parent / "first")
    AutoModelForAudioClassification.from_pretrained(folder.parent / "first").save_pretrained(folder)


WAYS = (by_save_pretrained, by_trainer, by_peft, by_pipeline, by_saving_again)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT asks for it
def test_every_way_to_save_every_head_gives_a_folder_that_loads_as_every_other_elsewhere(tmp_path):
    expected = {}
    cases = [(way, head, 16) for way in WAYS for head in HEADS if way is not by_pipeline or head is AudioPGModel]
    for way, head, patch_frames in [*cases, (by_save_pretrained, AudioPGForPreTraining, 8)]:
        name = f"{head.__name__}-{way.__name__}-{patch_frames}"
        model, extractor = build(head, patch_frames), AudioPGFeatureExtractor(patch_size=patch_frames)
        assert model.config.auto_map == AUTO_MAP
        way(model, tmp_path / name)
        if not (tmp_path / name / "preprocessor_config.json").exists():
            extractor.save_pretrained(tmp_path / name)
        encoder = getattr(model, "audiopg", model)
        with torch.no_grad():
            expected[name] = encoder(**extractor(WAVEFORM, sampling_rate=16000)).pooler_output[0].numpy()
    np.save(tmp_path / "waveform.npy", WAVEFORM)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", LOAD_ELSEWHERE]
    done = subprocess.run(command, env=environment, cwd=tmp_path, timeout=240, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    answers = json.loads(done.stdout)
    assert expected.keys() <= answers.keys()
    for name, pooled in expected.items():
        answer = answers[name]
        assert answer["heads"] == ["AudioPGModel", "AudioPGForPreTraining", "AudioPGForAudioClassification"]
        np.testing.assert_allclose(answer["pooled"], pooled, atol=1e-6)
        np.testing.assert_allclose(answer["pipeline"], pooled, atol=1e-5)
        assert answer["wide"] == 8 * len(pooled)
        assert answer["again"] == sorted(path.name for path in (tmp_path / name).glob("*.py"))
        assert {"pipeline_audiopg.py", "audio_audiopg.py"} <= set(answer["again"])


def test_a_push_to_the_hub_uploads_the_code(monkeypatch):
    uploaded = []

    class Repository:
        def __init__(self, repo_id):
            self.repo_id = repo_id

    monkeypatch.setattr(HfApi, "create_repo", lambda self, repo_id, **kwargs: Repository(repo_id))
    monkeypatch.setattr(HfApi, "create_commit", lambda self, *args, operations, **kwargs: uploaded.extend(operations))
    build(AudioPGForPreTraining).push_to_hub("someone/sounds")
    names = {operation.path_in_repo for operation in uploaded}
    assert {"model.safetensors", "config.json", "modeling_audiopg.py", "pipeline_audiopg.py"} <= names


def test_registered_here_the_pipeline_asks_for_no_trust(tmp_path):
    by_save_pretrained(build(AudioPGModel), tmp_path)
    AudioPGFeatureExtractor().save_pretrained(tmp_path)
    assert pipeline("audio-feature-extraction", model=str(tmp_path), device="cpu")(WAVEFORM).shape == (24,)


def test_a_card_names_a_task_that_runs_and_the_oldest_transformers(tmp_path):
    model, extractor = build(AudioPGForPreTraining), AudioPGFeatureExtractor()
    card = converted_card("sounds", model, extractor, "sounds.pth", None)
    write_hub_folder(model, extractor, tmp_path / "sounds", card)
    task = ModelCard.load(tmp_path / "sounds" / "README.md").data.pipeline_tag
    config = json.loads((tmp_path / "sounds" / "config.json").read_text())
    assert task in config["custom_pipelines"]
    assert f"transformers {config['minimum_transformers_version']} or newer" in card.text
    embed = pipeline(task, model=str(tmp_path / "sounds"), device="cpu")
    with torch.no_grad():
        expected = model.audiopg.embed(WAVEFORM, extractor, pooling="mel")[0].numpy()
    np.testing.assert_allclose(embed(WAVEFORM, pooling="mel"), expected, atol=1e-6)
    with pytest.raises(ValueError, match="`pooling` must be one of mean, mel"):
        embed(WAVEFORM, pooling="max")
