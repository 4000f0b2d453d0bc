import shutil

import numpy as np
import pytest
from safetensors.torch import load_file
from sklearn.decomposition import PCA

from audiopg.training.analysis.filters import (
    draw_filters,
    draw_selectivity,
    filter_components,
    filters_of,
    noise_selectivity,
    selectivity,
)
from audiopg.training.objectives.pretraining import pretrain
from audiopg.training.runs.checkpoints import checkpoints_of


def test_filters_of_a_run_are_the_weights_of_its_checkpoints(toy_run):
    found = filters_of(toy_run)
    newest = load_file(checkpoints_of(toy_run)[-1] / "model.safetensors")
    assert list(found) == [0, 4, 6]
    expected = newest["audiopg.embeddings.patch_embeddings.weight"].numpy()
    np.testing.assert_array_equal(found[6].reshape(48, 256), expected)


def test_step_0_is_where_the_run_began(toy_run, toy_recipe, tmp_path):
    pretrain(toy_recipe(num_clips=8, learning_rate=1e-12, checkpoint_every=1), tmp_path / "still")
    begun = filters_of(tmp_path / "still")
    np.testing.assert_allclose(begun[0], begun[1], atol=1e-9)
    np.testing.assert_array_equal(begun[0], filters_of(toy_run)[0])


def test_a_folder_without_a_run_or_without_checkpoints_is_refused(tmp_path, toy_run):
    with pytest.raises(ValueError, match="holds no run"):
        filters_of(tmp_path)
    for name in ("recipe.yaml", "statistics.json"):
        shutil.copy(toy_run / name, tmp_path)
    with pytest.raises(ValueError, match="has no checkpoints"):
        filters_of(tmp_path)


def test_components_are_scikit_learn_s_up_to_their_sign():
    filters = np.random.default_rng(0).standard_normal((50, 4, 4)) * np.arange(1, 17).reshape(4, 4)
    images, shares = filter_components(filters, count=3)
    pca = PCA(n_components=3).fit(filters.reshape(50, 16))
    np.testing.assert_allclose(shares, pca.explained_variance_ratio_)
    np.testing.assert_allclose(np.abs(images.reshape(3, 16)), np.abs(pca.components_), atol=1e-9)
    assert all(image.flat[np.abs(image).argmax()] > 0 for image in images)


def test_selectivity_of_white_noise_is_its_share_of_the_degrees_of_freedom():
    found = selectivity(np.random.default_rng(0).standard_normal((4000, 16, 16)))
    assert found == pytest.approx(noise_selectivity(16, 16), abs=2e-3)
    assert sum(found.values()) == pytest.approx(1.0)


def test_a_band_is_spectral_and_an_edge_is_an_onset():
    edge = np.repeat(np.where(np.arange(16) < 8, -1.0, 1.0)[:, None], 16, axis=1)[None]
    assert selectivity(edge)["onset"] == pytest.approx(1.0)
    assert selectivity(edge.transpose(0, 2, 1))["spectral"] == pytest.approx(1.0)
    assert selectivity(edge * edge.transpose(0, 2, 1))["joint"] == pytest.approx(1.0)
    with pytest.raises(ValueError, match="zeros have no selectivity"):
        selectivity(0 * edge)


def test_a_strip_has_a_row_per_checkpoint(toy_run):
    filters = filters_of(toy_run)
    strip = draw_filters(filters, count=4)
    assert len(strip.axes) == 4 * len(filters)
    curves = draw_selectivity({step: selectivity(w) for step, w in filters.items()}, noise_selectivity(16, 16))
    assert len(curves.axes[0].lines) == 5
