"""What lies in the repository for others to load: the preview of the data set, the released checkpoints."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from datasets import Audio, load_dataset
from huggingface_hub import ModelCard, parse_eval_result_entries
from transformers import AutoFeatureExtractor, AutoModel, AutoModelForAudioClassification
from transformers.dynamic_module_utils import get_relative_import_files

from audiopg.data_scripts.audiopg_synthetic import decode
from audiopg.data_scripts.synthesis import PRESETS, draw, get_preset, render
from audiopg.data_scripts.voices import ARCHITECTURES, get_voice
from audiopg.training.objectives.sources import VoiceSource
from audiopg.training.publishing.cards import (
    HUB_DATASETS,
    eval_results_files,
    finetuned_results,
    pretrained_results,
)
from audiopg.training.publishing.preview import MOST_MEGABYTES

ROOT = Path(__file__).parents[2]
PREVIEW = ROOT / "datasets/audiopg-preview"
RELEASES = sorted(path for path in (ROOT / "checkpoints").glob("*") if path.is_dir())


def test_the_preview_is_small_enough():
    assert sum(path.stat().st_size for path in PREVIEW.rglob("*") if path.is_file()) < MOST_MEGABYTES * 1e6


@pytest.mark.parametrize("name", [*PRESETS, *ARCHITECTURES])
def test_the_preview_s_clips_are_what_the_synthesizer_makes_today(name, tmp_path):
    clips = load_dataset(str(PREVIEW), name, split="train", cache_dir=str(tmp_path))
    row = clips.cast_column("audio", Audio(decode=False))[7]
    waveform = decode(row)
    seed, index = row["seed"], torch.tensor([row["index"]])
    if name in PRESETS:
        duration = len(waveform) / get_preset(name).sampling_rate
        expected = render(draw(get_preset(name, duration=duration), seed, index), "cpu")[0]
    else:
        source = VoiceSource(get_voice(name), seed)
        expected = source.waveforms(source.draw(index), "cpu")[0]
    assert np.abs(waveform - expected.numpy()).max() <= 2**-15  # 16 bits


@pytest.mark.parametrize("folder", RELEASES, ids=lambda folder: folder.name)
def test_a_release_embeds_a_clip_in_a_batch_as_it_does_alone(folder):
    extractor, model = AutoFeatureExtractor.from_pretrained(folder), AutoModel.from_pretrained(folder)
    clips = render(draw("audiopg", 0, range(2), duration=1.0), "cpu")
    together = model.embed(list(clips), extractor)
    assert together.shape == (2, model.config.pooled_size(model.config.embedding_pooling))
    torch.testing.assert_close(model.embed(clips[1], extractor)[0], together[1], rtol=0, atol=1e-4)
    assert not torch.allclose(together[0], together[1], atol=1e-2)


@pytest.mark.parametrize("folder", RELEASES, ids=lambda folder: folder.name)
def test_a_release_carries_the_code_of_today_and_all_that_it_imports(folder):
    code = sorted(folder.glob("*.py"))
    behind = [one.name for one in code if one.read_bytes() != (ROOT / "modeling" / one.name).read_bytes()]
    assert not behind, f"{folder} has older copies of {behind}: make code"
    imported = {name for one in code for name in get_relative_import_files(one)}
    assert {Path(name).name for name in imported} <= {one.name for one in code}


@pytest.mark.parametrize("folder", RELEASES, ids=lambda folder: folder.name)
def test_a_release_has_its_results_in_both_forms(folder):
    results = json.loads((folder / "results.json").read_text())
    reported = (finetuned_results if "rounds" in results else pretrained_results)(results)
    assert reported
    assert ModelCard.load(folder / "README.md").data.eval_results == [one.result for one in reported]
    files = {path.relative_to(folder).as_posix(): path.read_text() for path in folder.glob(".eval_results/*")}
    assert files == eval_results_files(reported)
    entries = [entry for content in files.values() for entry in parse_eval_result_entries(yaml.safe_load(content))]
    on_the_hub = [one.result for one in reported if one.result.dataset_name in HUB_DATASETS]
    assert [(entry.task_id, entry.value) for entry in entries] == [
        (result.dataset_config, result.metric_value) for result in on_the_hub
    ]


@pytest.mark.parametrize("folder", [one for one in RELEASES if "esc10" in one.name], ids=lambda folder: folder.name)
def test_a_released_classifier_names_its_classes(folder):
    model = AutoModelForAudioClassification.from_pretrained(folder)
    assert len(model.config.id2label) == 10
