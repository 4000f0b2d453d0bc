"""A pre-training run small enough to be made once for all tests that need one."""

import pytest

from audiopg.training.objectives.pretraining import pretrain
from audiopg.training.objectives.recipe import PretrainingRecipe
from audiopg.training.runs.recipes import build_recipe

TOY = {
    "name": "toy",
    "description": "A toy for the tests.",
    "size": "tiny",
    "model": {
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "intermediate_size": 96,
        "decoder_hidden_size": 32,
        "decoder_num_hidden_layers": 1,
        "decoder_intermediate_size": 64,
    },
    "preset": "reference",
    "synthesis": {"duration": 0.64},
    "num_clips": 48,
    "batch_size": 8,
    "learning_rate": 1e-3,
    "schedule": "cosine",
    "warmup_fraction": 0.2,
    "statistics_clips": 16,
    "log_every": 1,
    "checkpoint_every": 2,
}


@pytest.fixture(autouse=True)
def _features_stay_here(tmp_path, monkeypatch):
    """No test leaves features in a user's cache, nor finds any there; processes that it starts look at HF_HOME."""
    monkeypatch.setattr("audiopg.training.features.cache.CACHE_FOLDER", tmp_path / "cached features")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf_home"))


@pytest.fixture(scope="session")
def toy_recipe():
    """Builds the toy recipe with any field changed."""
    return lambda **changes: build_recipe(PretrainingRecipe, TOY | changes)


@pytest.fixture(scope="session")
def toy_run(tmp_path_factory):
    """Folder of a finished toy run; tests only read it."""
    folder = tmp_path_factory.mktemp("runs") / "toy"
    pretrain(build_recipe(PretrainingRecipe, TOY), folder)
    return folder
