"""Results of checkpoints in both of the Hub's forms, read back by the Hub's own library."""

import json

import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results

from audiopg.training import release as door
from audiopg.training.publishing.cards import Reported, eval_results_files, finetuned_results, pretrained_results
from audiopg.training.publishing.exporting import export_run, rewrite_results

ROWS = {
    "log-mel mean and deviation": 0.1,
    "log-mel mean and deviation, neighbours probe": 0.2,
    "log-mel frames, attentive probe": 0.25,
    "random encoder (seed 0)": 0.3,
    "random encoder (seed 0), neighbours probe": 0.35,
    "random encoder (seed 0), mel rows apart": 0.4,
    "pre-trained encoder": 0.5,
    "pre-trained encoder, neighbours probe": 0.6,
    "pre-trained encoder, attentive probe": 0.65,
    "pre-trained encoder, mel rows apart": 0.7,
    "another, released, mel rows apart": 0.9,
}
OWN = [mean for row, mean in ROWS.items() if row.startswith("pre-trained")]


def probed(dataset, metric="accuracy"):
    rows = {
        row: {"mean": mean, "scores": [mean], "std": None, "low": None, "high": None} for row, mean in ROWS.items()
    }
    return {"dataset": dataset, "metric": metric, "protocol": "5 folds", "probe": "linear", "results": rows}


RESULTS = {
    "benchmarks": [probed("ESC-10"), probed("mine"), probed("FSD50K", "macro_average_precision")],
    "read": ", mel rows apart",
}


def test_every_result_survives_the_library_s_model_index_alone_and_with_its_source():
    """Those that share task, data set, configuration and split become one there, and all but one lose their source."""
    results = [one.result for one in pretrained_results(RESULTS)]
    for number, result in enumerate(results):
        result.source_name, result.source_url = f"probe {number}", f"https://example.org/{number}"
    index = eval_results_to_model_index("toy", results)
    assert len(index[0]["results"]) == len(results) == 3 * len(OWN)
    assert model_index_to_eval_results(index) == ("toy", results)
    assert len({result.unique_identifier for result in results}) == len(results)


def test_a_checkpoint_s_own_rows_are_its_results_and_what_embed_gives_comes_first():
    values = [one.result.metric_value for one in pretrained_results(RESULTS)][: len(OWN)]
    assert values[0] == 0.7
    assert sorted(values) == sorted(OWN)


@pytest.mark.parametrize(
    ("value", "config", "beside"),
    [
        (0.5, "esc10_five_folds_linear_probe", [0.1, 0.3]),
        (0.6, "esc10_five_folds_neighbours_probe", [0.2, 0.35]),
        (0.65, "esc10_five_folds_attentive_probe", [0.25]),
        (0.7, "esc10_five_folds_linear_probe_mel_rows_apart", [0.1, 0.4]),
    ],
)
def test_a_result_has_its_protocol_as_configuration_and_its_controls_in_the_notes(value, config, beside):
    [one] = [one for one in pretrained_results(RESULTS)[: len(OWN)] if one.result.metric_value == value]
    assert one.result.dataset_config == config
    assert [float(part.rpartition(": ")[2]) for part in one.notes.split("; ")[2:]] == beside


def test_the_newer_form_has_the_same_values_for_complete_benchmarks_alone():
    reported = pretrained_results(RESULTS)
    files = eval_results_files(reported)
    assert list(files) == [".eval_results/esc_10.yaml", ".eval_results/fsd50k.yaml"]
    entries = [entry for content in files.values() for entry in parse_eval_result_entries(yaml.safe_load(content))]
    expected = [one for one in reported if one.result.dataset_name != "mine"]
    for entry, one in zip(entries, expected, strict=True):
        assert (entry.dataset_id, entry.task_id) == (one.result.dataset_type, one.result.dataset_config)
        assert (entry.value, entry.notes) == (one.result.metric_value, one.notes)
    assert len({(entry.dataset_id, entry.task_id) for entry in entries}) == len(entries)


def test_a_fine_tuning_has_its_protocol_alone_as_configuration():
    results = {"dataset": "ESC-50", "metric": "accuracy", "protocol": "5 folds", "rounds": 5}
    results["results"] = {"pre-trained, fine-tuned": {"mean": 0.9}, "from scratch, same budget": {"mean": 0.5}}
    [one] = finetuned_results(results)
    assert isinstance(one, Reported)
    assert (one.result.dataset_config, one.result.metric_value, one.notes) == ("five_folds", 0.9, "5 folds")


@pytest.fixture
def folder(toy_run, tmp_path):
    export_run(toy_run, tmp_path / "toy", RESULTS)
    return tmp_path / "toy"


def contents_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_pre_trained_export_has_both_forms(folder):
    assert ModelCard.load(folder / "README.md").data.eval_results == [
        one.result for one in pretrained_results(RESULTS)
    ]
    assert {path.name for path in folder.glob(".eval_results/*")} == {"esc_10.yaml", "fsd50k.yaml"}


def test_results_that_are_written_anew_are_what_the_export_wrote(folder):
    before = contents_of(folder)
    rewrite_results(folder)
    assert contents_of(folder) == before


def test_the_door_writes_new_results_and_leaves_all_else_alone(folder):
    before = contents_of(folder)
    results = {"benchmarks": [probed("ESC-50")]}
    (folder / "results.json").write_text(json.dumps(results))
    door.main([folder.name, "--checkpoints", str(folder.parent), "--results_only"])
    after = contents_of(folder)
    assert {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)} == {
        "results.json",
        "README.md",
        ".eval_results/esc_10.yaml",
        ".eval_results/fsd50k.yaml",
        ".eval_results/esc_50.yaml",
    }
    assert ".eval_results/esc_10.yaml" not in after
    card = ModelCard.load(folder / "README.md")
    assert card.text == ModelCard(before["README.md"].decode()).text
    assert card.data.eval_results == [one.result for one in pretrained_results(results)]


def test_the_door_refuses_what_the_results_do_not_need(tmp_path, capsys):
    with pytest.raises(SystemExit):
        door.main(["toy", "--results_only", "--num_clips", "8"])
    assert "takes neither data nor fields of a recipe" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        door.main(["toy", "--checkpoints", str(tmp_path), "--results_only"])
    assert stop.value.code == 2
