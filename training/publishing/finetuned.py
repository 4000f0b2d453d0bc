"""Turn a finished fine-tuning into a folder that can go to the Hub as it is.

    python training/export_finetuned.py runs/audiopg-tiny-ESC-10-fast exported/audiopg-esc10 [--push_to_hub ORG/NAME]

The folder holds the model that was trained on all clips, with its labels, and a card whose numbers all come from the
run's `results.json`, which lies beside it.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, ModelCard, ModelCardData
from huggingface_hub import eval_result_entries_to_yaml as entries_to_plain
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

from audiopg.model_cards import FINETUNED_TEMPLATE
from audiopg.modeling.modeling_audiopg import AudioPGPreTrainedModel
from audiopg.training.finetuning.run import PRETRAINED
from audiopg.training.publishing.pretrained import write_hub_folder

HUB_DATASETS = {
    "ESC-50": ("ashraq/esc50", "five_folds"),
    "ESC-10": ("ashraq/esc50", "esc10_five_folds"),
    "UrbanSound8K": ("danavery/urbansound8K", "ten_folds"),
    "Speech Commands V2": ("google/speech_commands", "v0.02"),
    "FSD50K": ("Fhrozen/FSD50k", "eval"),
}
"""Where complete benchmarks lie on the Hub, and what our protocol on them is called."""

_METRICS = {"accuracy": "accuracy", "macro_average_precision": "mean average precision"}


def finetuned_card(
    results: dict[str, Any], name: str, *, sampling_rate: int, ours: bool, license_name: str
) -> ModelCard:
    """The card of a fine-tuned model: every number comes from the results.

    Args:
        results: `results.json` of the run.
        name: Of the model.
        sampling_rate: That it takes, in Hz.
        ours: Whether it is an AudioPG model, whose code travels with it.
        license_name: As the Hub spells it.

    Returns:
        The card, with its metadata.
    """
    checkpoint, row = results["checkpoint"], results["results"][PRETRAINED]
    hub_dataset = HUB_DATASETS.get(results["dataset"])
    metric = _METRICS[results["metric"]]
    card_data = ModelCardData(
        license=license_name,
        library_name="transformers",
        pipeline_tag="audio-classification",
        tags=["audio", "audio-classification", *(["audiopg"] if ours else [])],
        datasets=[hub_dataset[0]] if hub_dataset else None,
        base_model=checkpoint if "/" in checkpoint else None,
        model_name=name,
        eval_results=[
            EvalResult(
                task_type="audio-classification",
                dataset_type=hub_dataset[0] if hub_dataset else _slug(results["dataset"]),
                dataset_name=results["dataset"],
                dataset_config=hub_dataset[1] if hub_dataset else None,
                dataset_split="test",
                metric_type=metric.replace(" ", "_"),
                metric_name=f"{metric}; {results['protocol']}",
                metric_value=row["mean"],
            )
        ],
    )
    return ModelCard.from_template(
        card_data,
        template_path=str(FINETUNED_TEMPLATE),
        name=name,
        results=results,
        metric=metric,
        cost=row,
        sampling_rate=sampling_rate,
        ours=ours,
    )


def eval_results_yaml(results: dict[str, Any]) -> str | None:
    """The content of `.eval_results/NAME.yaml`, the Hub's newer form of `model-index`.

    Args:
        results: `results.json` of the run.

    Returns:
        YAML; None for data that is no complete benchmark, whose scores belong on no leaderboard.
    """
    if results["dataset"] not in HUB_DATASETS:
        return None
    dataset_id, task_id = HUB_DATASETS[results["dataset"]]
    value = results["results"][PRETRAINED]["mean"]
    entry = EvalResultEntry(dataset_id=dataset_id, task_id=task_id, value=value, notes=results["protocol"])
    return yaml.safe_dump(entries_to_plain([entry]), sort_keys=False)


def export_finetuned(run_folder: Path, output: Path, license_name: str = "apache-2.0") -> None:
    """Export a finished fine-tuning.

    Args:
        run_folder: As `training/finetune.py` left it.
        output: The folder to write; its name becomes the model's.
        license_name: Of the weights, as the Hub spells it.

    Raises:
        ValueError: if the run has not finished, or trained no model on all clips.
    """
    for part in ("results.json", "model"):
        if not (run_folder / part).exists():
            raise ValueError(
                f"{run_folder} holds no {part}; let training/finetune.py run to its end, without --no_final_model."
            )
    results = json.loads((run_folder / "results.json").read_text(encoding="utf-8"))
    model = AutoModelForAudioClassification.from_pretrained(run_folder / "model")
    feature_extractor = AutoFeatureExtractor.from_pretrained(run_folder / "model")
    ours = isinstance(model, AudioPGPreTrainedModel)
    rate = feature_extractor.sampling_rate
    card = finetuned_card(results, output.name, sampling_rate=rate, ours=ours, license_name=license_name)
    if ours:
        write_hub_folder(model, feature_extractor, output, card)
    else:
        model.save_pretrained(output)
        feature_extractor.save_pretrained(output)
        card.save(output / "README.md")
    for part in ("results.json", "confusion.png", "confused.png"):
        if (run_folder / part).exists():
            shutil.copyfile(run_folder / part, output / part)
    content = eval_results_yaml(results)
    if content is not None:
        (output / ".eval_results").mkdir(exist_ok=True)
        (output / ".eval_results" / f"{_slug(results['dataset'])}.yaml").write_text(content, encoding="utf-8")


def _slug(name: str) -> str:
    return "".join(character if character.isalnum() else "_" for character in name.lower())
