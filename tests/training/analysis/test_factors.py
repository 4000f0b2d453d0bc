import base64
import json
import re

import evaluate
import numpy as np
import pytest
import soundfile
from sklearn.feature_selection import mutual_info_regression

from audiopg.data_scripts.probe_clips import (
    FACTORS,
    PROBE_SEED,
    PROBE_SETS,
    held_clips,
    hold_others,
    probe_clips,
    probe_preset,
)
from audiopg.data_scripts.synthesis import draw, get_preset
from audiopg.modeling.configuration_audiopg import AudioPGConfig
from audiopg.modeling.feature_extraction_audiopg import AudioPGFeatureExtractor
from audiopg.modeling.modeling_audiopg import AudioPGModel
from audiopg.training.analysis import analysis as analyze
from audiopg.training.analysis.factors import Design
from audiopg.training.analyze import main
from audiopg.training.evaluation.factor_scores import (
    chance,
    decode,
    disentanglement_and_completeness,
    factor_entropy,
    information_gap,
    neuron_information,
    principal_components,
)
from audiopg.training.evaluation.metrics import METRICS
from audiopg.training.publishing.exporting import export_run
from audiopg.training.publishing.hub import write_hub_folder

SHORT = get_preset("reference", duration=1.0)


def test_every_factor_varies_in_its_set_and_is_read_from_one_set_only():
    read = []
    for probe_set in PROBE_SETS:
        clips = probe_clips(SHORT, probe_set, num_clips=12)
        read += list(clips.factors)
        assert all(len(np.unique(values)) > 1 for values in clips.factors.values())
    assert sorted(read) == sorted(FACTORS)


@pytest.mark.parametrize("name", FACTORS)
def test_held_clips_differ_in_their_factor_alone(name):
    factor = FACTORS[name]
    preset = probe_preset(SHORT, factor.probe_set)
    parameters = draw(preset, PROBE_SEED, range(5))
    held = hold_others(parameters, factor.parameter, draw(preset, PROBE_SEED, [0]))
    varying = {key for key in held if any((held[key][i] != held[key][0]).any() for i in range(5))}
    assert varying <= {factor.parameter, "noise_key"}
    assert (held[factor.parameter] == parameters[factor.parameter]).all()


def test_without_a_factor_to_tell_held_clips_sound_alike():
    clips = held_clips(get_preset("reference", duration=1.0, noise_gain=0.0), "mode", num_clips=24)
    same = clips.factors["mode"] == clips.factors["mode"][0]
    assert np.ptp(clips.waveforms[same], axis=0).max() == 0.0
    assert np.abs(clips.waveforms[~same] - clips.waveforms[0]).max(axis=1).min() > 0.1


def test_information_of_a_gaussian_pair_is_the_closed_formula():
    rng, correlation = np.random.default_rng(0), 0.9
    x = rng.standard_normal(3000)
    y = correlation * x + np.sqrt(1 - correlation**2) * rng.standard_normal(3000)
    [found] = neuron_information(y[:, None], x, "continuous")
    assert found == pytest.approx(-0.5 * np.log(1 - correlation**2), abs=0.05)
    assert found == pytest.approx(mutual_info_regression(y[:, None], x, random_state=0)[0], abs=1e-6)


def test_information_of_a_neuron_that_separates_classes_is_their_entropy():
    classes = np.arange(600) % 3
    neuron = classes[:, None] + 0.01 * np.random.default_rng(0).standard_normal((600, 1))
    assert neuron_information(neuron, classes, "class")[0] == pytest.approx(np.log(3), abs=0.02)
    assert factor_entropy(classes, "class") == pytest.approx(np.log(3))


def test_the_gap_is_one_when_a_single_neuron_knows_all():
    assert information_gap(np.array([np.log(2), 0.0, 0.0]), np.log(2)) == pytest.approx(1.0)


def test_components_are_those_of_a_singular_value_decomposition():
    x = np.random.default_rng(0).standard_normal((40, 6)) * [5, 4, 3, 2, 1, 0.5]
    found = principal_components(x, count=3)
    singular = np.linalg.svd(x - x.mean(axis=0), compute_uv=False)
    np.testing.assert_allclose(found.shares, (singular**2 / (singular**2).sum())[:3])
    np.testing.assert_allclose(np.abs(found.scores.std(axis=0, ddof=0)), singular[:3] / np.sqrt(40))


def test_a_permutation_of_neurons_keeps_dci_and_mixing_them_lowers_it():
    importance = np.zeros((6, 3))
    importance[[0, 1, 2], [0, 1, 2]] = 1.0
    assert disentanglement_and_completeness(importance[::-1]) == (1.0, 1.0)
    mixed = disentanglement_and_completeness(importance + 0.2)
    assert 0 < mixed[0] < 1
    assert 0 < mixed[1] < 1
    with pytest.raises(ValueError, match="two neurons and two factors"):
        disentanglement_and_completeness(np.ones((5, 1)))


def test_shuffled_values_cannot_be_decoded():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 4))
    y = x @ [1.0, -1.0, 2.0, 0.0]
    assert decode(x[:200], y[:200], x[200:], y[200:], "continuous") > 0.999
    assert decode(x[:200], rng.permutation(y[:200]), x[200:], y[200:], "continuous") < 0.1
    assert chance(np.array([0, 1, 1]), np.array([1, 1, 0]), "class") == pytest.approx(2 / 3)


def test_too_few_clips_are_refused():
    with pytest.raises(ValueError, match="num_held is 24 or more"):
        Design(num_held=3)


def test_the_report_holds_everything_it_shows(toy_run, tmp_path, monkeypatch):
    monkeypatch.setattr(analyze, "NUM_GALLERY_CLIPS", 1)
    checkpoint, out = tmp_path / "toy", tmp_path / "out"
    export_run(toy_run, checkpoint)
    sizes = ["--num_clips=36", "--num_held=24", "--information_clips=24"]
    soundfile.write(tmp_path / "short.wav", 0.1 * np.random.default_rng(0).standard_normal(4000), 16000)
    more = ["--audio", str(tmp_path / "short.wav"), "--run_folder", str(toy_run)]
    main([str(checkpoint), "--output_dir", str(out), *sizes, *more])
    report = json.loads((out / "report.json").read_text())
    assert list(report["factors"]) == list(FACTORS)
    assert report["probe"]["duration"] == 0.64  # that of the run
    assert report["probe"]["indices"]["test"] == [24, 35]
    found = report["factors"]["frequency"]
    assert set(found["decoding"]) == {"log-mel", "random", "pre-trained", "permuted"}
    assert len(found["layers"]["pre-trained"]) == 3
    assert found["best"]["random"]["information"] == pytest.approx(max(found["information"]["random"]), abs=1e-4)
    page = (out / "report.html").read_text()
    assert not re.search(r"""(src|href)=["'](?!data:)""", page)
    pictures = re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", page)
    on_disk = {path.read_bytes() for path in out.glob("*.png")}
    assert {base64.b64decode(picture) for picture in pictures} == on_disk
    assert {path.stem for path in out.glob("*.svg")} == {path.stem for path in out.glob("*.png")}
    assert "0.9946" in page
    assert list(report["reconstruction"]) == ["clip 0", "short.wav"]
    assert next(iter(report["selectivity"])) == "white noise"
    assert page.count("data:audio/wav;base64,") == 3 * len(report["reconstruction"])


def test_a_recording_cannot_be_redrawn_without_a_decoder(tmp_path, capsys):
    model = AudioPGModel(AudioPGConfig.of_size("tiny"))
    write_hub_folder(model, AudioPGFeatureExtractor(), tmp_path / "encoder")
    with pytest.raises(SystemExit):
        main([str(tmp_path / "encoder"), "--output_dir", str(tmp_path / "out"), "--audio", "any.wav"])
    assert "has no decoder to redraw recordings with" in capsys.readouterr().err


def test_evaluate_loads_the_same_figures_without_a_network(monkeypatch, tmp_path):
    monkeypatch.setattr("evaluate.config.HF_EVALUATE_CACHE", str(tmp_path))
    module = evaluate.load(str(METRICS / "factor_information"))
    rng = np.random.default_rng(0)
    features = rng.standard_normal((90, 4)).astype(np.float32)
    found = module.compute(predictions=features.tolist(), references=features[:, 2].astype(float).tolist())
    assert found["best_neuron"] == 2
    assert found["decoding"] > 0.99
    assert found["information"] == neuron_information(features, features[:, 2].astype(float), "continuous").max()
    classes = (features[:, 1] > 0).astype(int)
    named = module.compute(predictions=features.tolist(), references=classes.tolist(), kind="class")
    assert named["best_neuron"] == 1
    assert named["decoding"] == decode(features[:60], classes[:60], features[60:], classes[60:], "class")
