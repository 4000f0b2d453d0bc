"""Whether clips of `reference` pass for those of a loop written from the published description, one clip at a time."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from audiopg.data_scripts.synthesis import draw, render
from audiopg.modeling.spectrogram_audiopg import log_mel_spectrogram

LOOP = Path(__file__).parents[2] / "benchmarks/peers/research_loop.py"
CLIPS, DURATION = 500, 5.12
CLASSIFIERS = {
    "linear": make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500)),
    "forest": RandomForestClassifier(200, min_samples_leaf=3, random_state=0, n_jobs=1),
}


def statistics_of(waveforms):
    """Mean, deviation, lowest and highest value over time of every mel band."""
    log_mel = torch.cat([log_mel_spectrogram(part) for part in waveforms.split(50)])
    return torch.cat([log_mel.mean(1), log_mel.std(1), log_mel.amin(1), log_mel.amax(1)], dim=1).numpy()


@pytest.fixture(scope="module")
def theirs():
    spec = importlib.util.spec_from_file_location("research_loop", LOOP)
    loop = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loop)
    generator = np.random.default_rng(0)
    clips = [loop.clip(generator, round(DURATION * 16000), np.float64) for _ in range(CLIPS)]
    return statistics_of(torch.from_numpy(np.stack(clips)))


def told_apart(classifier, preset, theirs):
    """Cross-validated accuracy of telling clips of a preset from theirs; 0.5 is chance."""
    ours = statistics_of(render(draw(preset, 1, range(CLIPS), duration=DURATION)))
    labels = np.repeat([0, 1], CLIPS)
    order = np.random.default_rng(0).permutation(2 * CLIPS)
    return cross_val_score(classifier, np.concatenate([ours, theirs])[order], labels[order], cv=5).mean()


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_clips_of_reference_pass_for_those_of_the_published_description(name, theirs):
    # Chance is 0.5 with a standard error of 0.016 over 1 000 clips.
    assert told_apart(CLASSIFIERS[name], "reference", theirs) < 0.55


@pytest.mark.parametrize("preset", ["audiopg", "dynamic"])
def test_clips_of_another_preset_do_not(preset, theirs):
    assert told_apart(CLASSIFIERS["forest"], preset, theirs) > 0.6
