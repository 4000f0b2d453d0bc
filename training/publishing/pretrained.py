"""Turn a finished pre-training run into a folder that can go to the Hub as it is.

    python training/export.py runs/audiopg-tiny exported/audiopg-tiny [--results results.json] [--push_to_hub ORG/NAME]

The folder holds safetensors, the configuration with the full `auto_map`, the feature extractor, the modeling files and
a model card. It loads with and without this package installed.
"""

import json
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from safetensors.torch import load_file
from transformers import PreTrainedModel

from audiopg.model_cards import PRETRAINED_TEMPLATE
from audiopg.modeling.configuration_audiopg import AUTO_MAP, AudioPGConfig
from audiopg.modeling.feature_extraction_audiopg import AudioPGFeatureExtractor
from audiopg.modeling.modeling_audiopg import AudioPGForPreTraining
from audiopg.training.objectives.building import build_feature_extractor
from audiopg.training.runs.checkpoints import WEIGHTS, fingerprint, verify_checkpoint
from audiopg.training.runs.recipes import PretrainingRecipe, build_recipe


def write_hub_folder(
    model: PreTrainedModel, feature_extractor: AudioPGFeatureExtractor, folder: Path, card: ModelCard | None = None
) -> None:
    """Save a model with everything that loading it elsewhere needs, whatever its head.

    Args:
        model: Any AudioPG model.
        feature_extractor: The one it was trained with.
        folder: Created if missing.
        card: Written as README.md.
    """
    auto_class = next(name for name, path in AUTO_MAP.items() if path.endswith(f".{type(model).__name__}"))
    type(model).register_for_auto_class(auto_class)
    type(model.config).register_for_auto_class("AutoConfig")
    type(feature_extractor).register_for_auto_class("AutoFeatureExtractor")
    # save_pretrained would name the class that it saves and no other: AutoModel could not load the folder.
    model.config.auto_map = dict(AUTO_MAP)
    model.save_pretrained(folder)
    feature_extractor.save_pretrained(folder)
    if card is not None:
        card.save(folder / "README.md")


def millions_of_parameters(module: Any) -> float:
    """Parameters in millions, one decimal."""
    return round(sum(p.numel() for p in module.parameters()) / 1e6, 1)


def _eval_results(results: dict[str, Any]) -> list[EvalResult] | None:
    """What a benchmark measured on this model, for the card's model-index."""
    if not results.get("benchmark"):
        return None
    name = results["benchmark"]["benchmark"]
    return [
        EvalResult(
            task_type="audio-classification",
            dataset_type=name.lower(),
            dataset_name=f"{name}, linear probe on frozen embeddings, mean of the official folds",
            metric_type="accuracy",
            metric_value=results["benchmark"]["results"]["pre-trained encoder"]["mean"],
        )
    ]


def saw_no_real_data(recipe: PretrainingRecipe, statistics: dict[str, Any]) -> bool:
    """Whether nothing real went into a model: no recordings, and none into the weights that it may start from.

    Example:
        >>> from audiopg.training.runs.recipes import load_recipe
        >>> saw_no_real_data(load_recipe(PretrainingRecipe, "base"), {"preset": "reference"})
        True
    """
    # Statistics travel with weights: they name the recordings, or whatever else, that these were trained on.
    return not recipe.recordings and not {"recordings", "source"} & statistics.keys()


def pretrained_card(
    recipe: PretrainingRecipe,
    run: dict[str, Any],
    statistics: dict[str, Any],
    model: AudioPGForPreTraining,
    results: dict[str, Any],
) -> ModelCard:
    """The card of a pre-trained model: every number comes from one of the arguments.

    Args:
        recipe: Of the run.
        run: `run.json`.
        statistics: `statistics.json`.
        model: For its configuration and size.
        results: What was measured of it; what is missing is said to be "not measured".

    Returns:
        The card, with its metadata.
    """
    synthetic_only = saw_no_real_data(recipe, statistics)
    synthetic_tags = ["synthetic-data"] if recipe.preset else []
    card_data = ModelCardData(
        license="apache-2.0",
        library_name="transformers",
        pipeline_tag="feature-extraction",
        tags=[
            *("audio", "audiopg", "masked-autoencoder", "self-supervised"),
            *synthetic_tags,
            *(["no-real-data"] if synthetic_only else []),
        ],
        model_name=recipe.name,
        eval_results=_eval_results(results),
    )
    parameters = {"encoder": millions_of_parameters(model.audiopg), "total": millions_of_parameters(model)}
    return ModelCard.from_template(
        card_data,
        template_path=str(PRETRAINED_TEMPLATE),
        recipe=recipe,
        synthetic_only=synthetic_only,
        run=run,
        statistics=statistics,
        config=model.config,
        parameters=parameters,
        results=results,
        sampling_rate=build_feature_extractor(recipe, statistics).sampling_rate,
    )


def export_run(run_folder: Path, output: Path, results: dict[str, Any] | None = None) -> None:
    """Export a finished run.

    Args:
        run_folder: As `training/pretrain.py` left it.
        output: The folder to write.
        results: What was measured of this model, for its card.

    Raises:
        ValueError: if the run has not finished, is no run at all, or its last checkpoint is not what was written.
    """
    if not (run_folder / "run.json").exists():
        raise ValueError(
            f"{run_folder} holds no finished run (no run.json); let training/pretrain.py run the recipe to its end."
        )
    recipe = build_recipe(PretrainingRecipe, yaml.safe_load((run_folder / "recipe.yaml").read_text(encoding="utf-8")))
    run, statistics = (
        json.loads((run_folder / f"{name}.json").read_text(encoding="utf-8")) for name in ("run", "statistics")
    )
    model = AudioPGForPreTraining(AudioPGConfig.of_size(recipe.size, **recipe.model))
    last = run_folder / "checkpoints" / f"step_{run['steps']:08d}"
    verify_checkpoint(last, fingerprint(recipe))
    model.load_state_dict(load_file(last / WEIGHTS), strict=True)
    card = pretrained_card(recipe, run, statistics, model, results or {})
    write_hub_folder(model, build_feature_extractor(recipe, statistics), output, card)
