"""From the folder of a finished run, pre-training or fine-tuning, to one that can go to the Hub as it is.

The folder holds safetensors, the configuration with the full `auto_map`, the feature extractor, the modeling files and
a card. It loads with and without this package installed.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

from audiopg.training.objectives.pretraining import TrainedRun
from audiopg.training.publishing.cards import (
    eval_results_files,
    finetuned_card,
    finetuned_results,
    pretrained_card,
    pretrained_results,
)
from audiopg.training.publishing.hub import is_ours, write_hub_folder
from audiopg.training.runs.files import read_json, reading, write_atomically
from audiopg.training.runs.folder import read_begun_with
from audiopg.training.runs.names import public_name
from audiopg.training.runs.provenance import environment
from audiopg.training.runs.recipes import plain

LICENSE = "apache-2.0"
"""Of the weights, unless another is given."""


def export_run(
    run_folder: Path,
    output: Path,
    results: dict[str, Any] | None = None,
    license_name: str = LICENSE,
    dtype: str | None = None,
) -> None:
    """Export a finished run of either kind.

    Args:
        run_folder: As `training/pretrain.py` or `training/finetune.py` left it.
        output: The folder to write; its name becomes that of a fine-tuned model, a pre-trained one has its recipe's.
        results: What was measured of a pre-trained model, for its card; a fine-tuning has its own beside it.
        license_name: Of the weights, as the Hub spells it.
        dtype: What the weights are stored in, by default as they are; see `write_hub_folder`.

    Raises:
        ValueError: if the run has not finished, or is no run at all; if the last checkpoint of a pre-training is not
            what was written, or a fine-tuning trained no model on all clips.
    """
    if (run_folder / "rounds").is_dir():
        export_finetuned(run_folder, output, license_name, dtype)
    else:
        export_pretrained(run_folder, output, results, license_name, dtype)


def export_pretrained(
    run_folder: Path,
    output: Path,
    results: dict[str, Any] | None = None,
    license_name: str = LICENSE,
    dtype: str | None = None,
    pictures: Mapping[str, bytes] | None = None,
) -> None:
    """Export a finished pre-training, as `export_run`; beside the model lie its provenance, results and pictures.

    Args:
        run_folder: As for `export_run`, like all but the last.
        output: See there.
        results: See there.
        license_name: See there.
        dtype: See there.
        pictures: By name, for the card to show.
    """
    run = TrainedRun.open(run_folder)
    model, extractor = run.final_model(), run.feature_extractor()
    pictures = pictures or {}
    card = pretrained_card(
        *(run.recipe, run.facts, model, extractor, results or {}, license_name),
        dtype=dtype or str(model.dtype).removeprefix("torch."),
        pictures=list(pictures),
    )
    told = {"provenance.json": provenance_of(run), **({"results.json": results} if results else {})}
    beside = {name: (json.dumps(content, indent=2) + "\n").encode() for name, content in told.items()}
    beside |= {
        name: content.encode() for name, content in eval_results_files(pretrained_results(results or {})).items()
    }
    write_hub_folder(model, extractor, output, card, {**pictures, **beside}, dtype)


def provenance_of(run: TrainedRun) -> dict[str, Any]:
    """All that a finished run followed from, and where it was made; without where a machine keeps its files.

    Returns:
        `name` (of its checkpoints), `recipe` (every field), `begun_with`, `statistics`, `run` (its facts: steps,
        seconds, hardware, versions, commit) and `exported_with` (the environment of today).
    """
    recipe = plain(run.recipe)
    if run.recipe.init_from:
        recipe["init_from"] = public_name(run.recipe.init_from)
    for section in ("recordings", "patterns"):
        if (recipe[section] or {}).get("folder"):
            recipe[section]["folder"] = public_name(recipe[section]["folder"])
    return {
        "name": run.name,
        "recipe": recipe,
        "begun_with": read_begun_with(run.folder),
        "statistics": dict(run.statistics),
        "run": run.facts,
        "exported_with": environment(),
    }


def export_finetuned(run_folder: Path, output: Path, license_name: str = LICENSE, dtype: str | None = None) -> None:
    """Export a finished fine-tuning, as `export_run`."""
    for part in ("results.json", "model"):
        if not (run_folder / part).exists():
            raise ValueError(
                f"{run_folder} holds no {part}; let training/finetune.py run to its end, without --no_final_model."
            )
    results = read_json(run_folder / "results.json", "The fine-tuning's command, given again, writes it anew.")
    with reading(run_folder / "model"):
        model = AutoModelForAudioClassification.from_pretrained(run_folder / "model")
        feature_extractor = AutoFeatureExtractor.from_pretrained(run_folder / "model")
    ours = is_ours(model)
    if ours:  # its statistics are those of its pre-training, and certify these weights no longer
        feature_extractor.statistics = {**feature_extractor.statistics, "saw_real_data": True}
    rate = feature_extractor.sampling_rate
    card = finetuned_card(results, output.name, sampling_rate=rate, ours=ours, license_name=license_name)
    parts = [run_folder / part for part in ("results.json", "confusion.png", "confused.png")]
    beside = {part.name: part.read_bytes() for part in parts if part.exists()}
    beside |= {name: content.encode() for name, content in eval_results_files(finetuned_results(results)).items()}
    write_hub_folder(model, feature_extractor, output, card, beside, dtype)


def rewrite_results(folder: Path) -> list[Path]:
    """Write both forms of an exported folder's results anew, from the `results.json` in it; nothing else changes.

    These are `model-index` in the card's metadata, and `.eval_results/*.yaml`. The card's text, which has the tables,
    and the weights stay as they are.

    Args:
        folder: As an export wrote it.

    Returns:
        The files that were written.

    Raises:
        FileNotFoundError: if the folder has no results, or no card.
    """
    results = read_json(folder / "results.json", "Export the run again, with its results.")
    reported = (finetuned_results if "rounds" in results else pretrained_results)(results)
    card = ModelCard.load(folder / "README.md")
    card.data.eval_results = [one.result for one in reported] or None
    contents = {"README.md": str(card), **eval_results_files(reported)}
    for stale in folder.glob(".eval_results/*.yaml"):
        if stale.relative_to(folder).as_posix() not in contents:
            stale.unlink()
    for name, content in contents.items():
        (folder / name).parent.mkdir(exist_ok=True)
        write_atomically(folder / name, content)
    return [folder / name for name in contents]
