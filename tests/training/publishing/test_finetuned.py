import json
import re
import shutil

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from toys import SMALL
from transformers import AutoFeatureExtractor, AutoModel, AutoModelForAudioClassification, pipeline

from audiopg.modeling.configuration_audiopg import MINIMUM_TRANSFORMERS, AudioPGConfig
from audiopg.modeling.feature_extraction_audiopg import AudioPGFeatureExtractor
from audiopg.modeling.modeling_audiopg import AudioPGForPreTraining
from audiopg.training import export as export_door
from audiopg.training.evaluation.confusions import draw_confusion_matrix
from audiopg.training.evaluation.results import PRETRAINED
from audiopg.training.export_finetuned import main
from audiopg.training.features.cache import FeatureCache, front_end_of
from audiopg.training.finetuning.recipe import FinetuningRecipe
from audiopg.training.finetuning.run import FinetuningRun
from audiopg.training.objectives.evidence import saw_real_data
from audiopg.training.publishing.cards import HUB_DATASETS, eval_results_files, finetuned_results
from audiopg.training.publishing.exporting import export_finetuned
from audiopg.training.runs.recipes import build_recipe

EXTRACTOR = AudioPGFeatureExtractor(mean=0.0, std=0.5)
NUMBER = re.compile(r"\d+(?:\.\d+)*(?:e-?\d+)?")  # one pattern for both sides: a commit such as bc7e92 has an e too


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A finished run on random labels, so that there are errors to report; tests only read it."""
    folder = tmp_path_factory.mktemp("runs")
    torch.manual_seed(0)
    AudioPGForPreTraining(AudioPGConfig(**SMALL)).save_pretrained(folder / "toy-encoder")
    EXTRACTOR.save_pretrained(folder / "toy-encoder")
    rng = np.random.default_rng(0)
    cache = FeatureCache(
        dataset_name="ESC-10",
        class_names=["dog", "rain", "sea waves"],
        front_end=front_end_of(EXTRACTOR, 0.16).settings,
        clips=[f"{index}.wav" for index in range(36)],
        parts=[1 + index % 3 for index in range(36)],
        sources=[str(index) for index in range(36)],
        frames=torch.as_tensor(rng.standard_normal((36 * 16, 128))).half(),
        lengths=torch.full((36,), 16),
        labels=torch.as_tensor(rng.permutation(np.arange(36) % 3)),
        digest="0" * 16,
    )
    fields = {"name": "toy", "description": "A toy for the tests.", "epochs": 2, "clip_seconds": 0.16}
    recipe = build_recipe(FinetuningRecipe, fields)
    run = FinetuningRun(str(folder / "toy-encoder"), cache, recipe, folder / "run", write=lambda line: None)
    draw_confusion_matrix(run.run()["confusions"], folder / "run" / "confusion.png")
    return folder / "run"


@pytest.fixture(scope="module")
def exported(run_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "toy-esc10"
    main([str(run_folder), str(folder)])
    return folder


def results_of(folder):
    return json.loads((folder / "results.json").read_text())


def test_it_loads_with_its_labels_as_a_classifier_and_as_a_bare_encoder(exported, run_folder):
    model = AutoModelForAudioClassification.from_pretrained(exported).eval()
    assert model.config.id2label == {0: "dog", 1: "rain", 2: "sea waves"}
    assert model.config.problem_type == "single_label_classification"
    kept = AutoModelForAudioClassification.from_pretrained(run_folder / "model").state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
    encoder = AutoModel.from_pretrained(exported)
    assert all(torch.equal(value, kept[f"audiopg.{name}"]) for name, value in encoder.state_dict().items())


def test_a_pipeline_classifies_arrays(exported):
    waveform = np.random.default_rng(0).uniform(-0.1, 0.1, 8000).astype(np.float32)
    classifier = pipeline("audio-classification", model=str(exported), device="cpu")
    found = classifier({"raw": waveform, "sampling_rate": 16000}, top_k=3)
    inputs = AutoFeatureExtractor.from_pretrained(exported)(waveform, sampling_rate=16000)
    with torch.no_grad():
        logits = AutoModelForAudioClassification.from_pretrained(exported).eval()(**inputs).logits[0]
    expected = dict(zip(["dog", "rain", "sea waves"], logits.softmax(dim=0).tolist(), strict=True))
    assert {row["label"]: row["score"] for row in found} == pytest.approx(expected, abs=1e-5)


def numbers_in(value):
    """Every number of nested plain values, and those inside their texts."""
    if isinstance(value, dict):
        return [n for item in [*value.keys(), *value.values()] for n in numbers_in(item)]
    if isinstance(value, list):
        return [n for item in value for n in numbers_in(item)]
    if isinstance(value, str):
        return NUMBER.findall(value)
    return [] if value is None or isinstance(value, bool) else [value]


def unknown_numbers(text, results):
    """Numbers of a card that are not in the results, as they are or in per cent."""
    known = {"95", "0", "0.1", "5", "32", str(EXTRACTOR.sampling_rate)}  # the interval's; the example's waveform
    known.add(MINIMUM_TRANSFORMERS)
    for value in numbers_in(results):
        is_text = isinstance(value, str)
        known |= {value} if is_text else {str(abs(value)), f"{abs(100 * value):.1f}", f"{abs(100 * value):.2f}"}
    return set(NUMBER.findall(text)) - known


def test_every_number_in_the_card_is_in_the_results(exported):
    card, results = ModelCard.load(exported / "README.md"), results_of(exported)
    assert f"{100 * results['results'][PRETRAINED]['mean']:.2f}" in card.text
    assert unknown_numbers(card.text, results) == set()
    assert unknown_numbers(card.text + "and 97.13 % elsewhere", results) == {"97.13"}


def test_the_card_names_protocol_controls_spread_confusions_and_cost(exported):
    text, results = (exported / "README.md").read_text(), results_of(exported)
    for fact in (
        results["protocol"],
        results["hardware"],
        "from scratch, same budget",
        "log-mel mean and deviation, linear",
        f"| {results['confusions']['pairs'][0]['true']} | {results['confusions']['pairs'][0]['predicted']} |",
        "![Confusion matrix](confusion.png)",
        f"{results['results'][PRETRAINED]['seconds_per_round']} s per training",
        "nothing was chosen",
        "np.resize(waveform, round(0.16 * 16000))",
    ):
        assert fact in text
    assert (exported / "confusion.png").is_file()
    assert "{{" not in text
    assert "{%" not in text


def test_the_metadata_have_both_forms_of_the_result(exported):
    results, data = results_of(exported), ModelCard.load(exported / "README.md").data
    assert (data.pipeline_tag, data.datasets, data.base_model) == ("audio-classification", ["ashraq/esc50"], None)
    (result,) = data.eval_results
    assert result.metric_value == results["results"][PRETRAINED]["mean"]
    assert (result.dataset_name, result.dataset_config) == ("ESC-10", "esc10_five_folds")
    (entry,) = yaml.safe_load((exported / ".eval_results" / "esc_10.yaml").read_text())
    assert entry["dataset"]["id"] == "ashraq/esc50"
    assert entry["value"] == results["results"][PRETRAINED]["mean"]


def test_a_part_of_a_benchmark_or_own_data_claims_no_place_on_a_leaderboard(run_folder):
    results = results_of(run_folder) | {"dataset": "part of ESC-50"}
    assert eval_results_files(finetuned_results(results)) == {}
    assert all(eval_results_files(finetuned_results(results | {"dataset": name})) for name in HUB_DATASETS)


def test_mean_average_precision_is_in_the_model_index(run_folder, tmp_path):
    shutil.copytree(run_folder, tmp_path / "run")
    results = results_of(run_folder) | {"metric": "macro_average_precision", "dataset": "FSD50K"}
    (tmp_path / "run" / "results.json").write_text(json.dumps(results))
    export_finetuned(tmp_path / "run", tmp_path / "out", "cc-by-4.0")
    data = ModelCard.load(tmp_path / "out" / "README.md").data
    assert data.eval_results[0].metric_type == "mean_average_precision"
    assert data.license == "cc-by-4.0"


def test_the_export_of_any_run_gives_the_same_folder(exported, run_folder, tmp_path):
    export_door.main([str(run_folder), str(tmp_path / "toy-esc10")])
    for path in exported.rglob("*"):
        if path.is_file():
            assert (tmp_path / "toy-esc10" / path.relative_to(exported)).read_bytes() == path.read_bytes()


def test_fine_tuned_weights_carry_no_certificate_of_their_pre_training(exported, run_folder):
    """Their statistics are those of pre-training, and they have heard labelled recordings since."""
    assert saw_real_data(AutoFeatureExtractor.from_pretrained(exported).statistics) is True


@pytest.mark.parametrize("missing", ["results.json", "model"])
def test_a_run_that_has_not_finished_is_refused(run_folder, tmp_path, capsys, missing):
    ignore = shutil.ignore_patterns(missing)
    shutil.copytree(run_folder, tmp_path / "run", ignore=ignore)
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path / "run"), str(tmp_path / "out")])
    assert stop.value.code == 2
    assert f"holds no {missing}" in capsys.readouterr().err
