"""The cards of what goes to the Hub. Every number in them comes from a recipe, a run's files or a measurement."""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import (
    CardData,
    DatasetCard,
    DatasetCardData,
    EvalResult,
    EvalResultEntry,
    ModelCard,
    ModelCardData,
)
from huggingface_hub import eval_result_entries_to_yaml as entries_to_plain
from jinja2 import Environment, FileSystemLoader
from transformers import PreTrainedModel

from audiopg.data_scripts.patterns import PatternSet
from audiopg.data_scripts.synthesis import Preset
from audiopg.data_scripts.voices import Voice
from audiopg.model_cards import TEMPLATES
from audiopg.modeling.configuration_audiopg import MINIMUM_TRANSFORMERS, AudioPGConfig
from audiopg.modeling.feature_extraction_audiopg import LogMelFeatureExtractor
from audiopg.modeling.modeling_audiopg import AudioPGForPreTraining
from audiopg.training.evaluation.results import (
    FROZEN,
    LOG_MEL,
    PRETRAINED,
    RANDOM_ENCODER,
    format_results,
    read_out_name,
    row_of,
)
from audiopg.training.objectives.evidence import run_saw_real_data, saw_real_data
from audiopg.training.objectives.recipe import PretrainingRecipe
from audiopg.training.runs.names import markdown
from audiopg.training.runs.provenance import environment
from audiopg.training.runs.recipes import given

HUB_DATASETS = {
    "ESC-50": ("ashraq/esc50", "five_folds"),
    "ESC-10": ("ashraq/esc50", "esc10_five_folds"),
    "UrbanSound8K": ("danavery/urbansound8K", "ten_folds"),
    "Speech Commands V2": ("google/speech_commands", "v0.02"),
    "FSD50K": ("Fhrozen/FSD50k", "eval"),
}
"""Where complete benchmarks lie on the Hub, and what our protocol on them is called."""

_METRICS = {"accuracy": "accuracy", "macro_average_precision": "mean average precision"}
_WITHOUT_ENCODER = (LOG_MEL, "log-mel frames")
_NAMED_PROBE = re.compile(r", (\w+) probe$")
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_LARGEST_SIZE = "1M<n<10M"
_ENVIRONMENT = Environment(loader=FileSystemLoader(TEMPLATES))
_ENVIRONMENT.filters["markdown"] = markdown


def _text(template: str, card_data: CardData, values: Mapping[str, Any]) -> str:
    return _ENVIRONMENT.get_template(f"{template}.md.jinja").render(card_data=card_data.to_yaml(), **values)


def _encoder_card(
    template: str,
    name: str,
    model: PreTrainedModel,
    feature_extractor: LogMelFeatureExtractor,
    *,
    saw: bool | None,
    tags: list[str],
    license_name: str | None,
    eval_results: list[EvalResult] | None = None,
    **values: Any,
) -> ModelCard:
    """The card of an encoder of ours, with its decoder or without."""
    card_data = ModelCardData(
        license=license_name,
        library_name="transformers",
        pipeline_tag="audio-feature-extraction",  # of the pipeline in the folder; "feature-extraction" takes text
        tags=[
            *("audio", "audiopg", "self-supervised"),
            *tags,
            *(["no-real-data"] if saw is False else []),
        ],
        model_name=name,
        eval_results=eval_results,
    )
    encoder = getattr(model, "audiopg", model)
    values |= {"name": name, "config": model.config, "saw_real_data": saw, "license": license_name}
    values["has_decoder"] = encoder is not model
    values |= {"extractor": feature_extractor, "statistics": feature_extractor.statistics}
    values["minimum_transformers"] = MINIMUM_TRANSFORMERS
    values["embedding_size"] = model.config.hidden_size
    if isinstance(model.config, AudioPGConfig):
        values["embedding_size"] = model.config.pooled_size(model.config.embedding_pooling)
    values["parameters"] = {"encoder": millions_of_parameters(encoder), "total": millions_of_parameters(model)}
    return ModelCard(_text(template, card_data, values))


def millions_of_parameters(module: Any) -> float:
    """Parameters in millions, one decimal."""
    return round(sum(p.numel() for p in module.parameters()) / 1e6, 1)


def pretrained_card(
    recipe: PretrainingRecipe,
    run: Mapping[str, Any],
    model: PreTrainedModel,
    feature_extractor: LogMelFeatureExtractor,
    results: Mapping[str, Any],
    license_name: str,
    *,
    dtype: str = "float32",
    pictures: Sequence[str] = (),
) -> ModelCard:
    """The card of a pre-trained model.

    Args:
        recipe: Of the run.
        run: `run.json`.
        model: For its configuration and size.
        feature_extractor: That goes with it, with the run's statistics.
        results: What was measured of it; what is missing is said to be "not measured".
        license_name: As the Hub spells it.
        dtype: What the weights in the folder are stored in.
        pictures: Names of those that lie beside the card, which shows them.

    Returns:
        The card, with its metadata.
    """
    probed = benchmarks_of(results)
    reported = pretrained_results(results)
    redraws = isinstance(model, AudioPGForPreTraining)
    read = FROZEN + read_out_name(recipe.embedding.layer, recipe.embedding.pooling)
    tags = {
        "masked-autoencoder": redraws,
        "contrastive-learning": recipe.is_contrastive,
        "synthetic-images": recipe.sees,
        "synthetic-data": not recipe.recordings,
    }
    return _encoder_card(
        "pretrained_images" if recipe.patterns else "pretrained",
        recipe.name,
        model,
        feature_extractor,
        saw=run_saw_real_data(recipe, feature_extractor.statistics),
        tags=[tag for tag, holds in tags.items() if holds],
        license_name=license_name,
        eval_results=[one.result for one in reported] or None,
        read=read,
        probed=[{**one, "table": format_results(one)} for one in probed],
        dtype=dtype,
        computes_in=str(model.dtype).removeprefix("torch."),
        pictures=pictures,
        recipe=recipe,
        synthesis=given(recipe.synthesis),
        voices=given(recipe.voices) if recipe.voices else {},
        patterns=recipe.patterns.pattern_set if recipe.patterns else None,
        redraws=redraws,
        run=run,
        results=results,
    )


def converted_card(
    name: str,
    model: PreTrainedModel,
    feature_extractor: LogMelFeatureExtractor,
    source: str,
    license_name: str | None,
) -> ModelCard:
    """The card of research weights that were converted.

    Args:
        name: Of the model.
        model: With its decoder or without.
        feature_extractor: That goes with it; its statistics say what the weights were trained on.
        source: The file or folder that held the weights.
        license_name: Of the weights, as the Hub spells it; None is "not known".

    Returns:
        The card, with its metadata.
    """
    saw = saw_real_data(feature_extractor.statistics)
    return _encoder_card(
        "converted",
        name,
        model,
        feature_extractor,
        saw=saw,
        tags=["masked-autoencoder"],
        license_name=license_name,
        source=source,
        environment=environment(),
    )


def benchmarks_of(results: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What probes found on each data set, as `training/demo.py` wrote it, of any version: once there was only one.

    Example:
        >>> benchmarks_of({"benchmark": None}), benchmarks_of({})
        ([], [])
    """
    only = [results["benchmark"]] if results.get("benchmark") else []
    return [probe_report(report) for report in results.get("benchmarks", only)]


def probe_report(report: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a probe found; from before probes and fine-tuning had one form of results, in today's form.

    Args:
        report: As from `training/probe.py`, of any version.

    Returns:
        As from `evaluation.probes.probe_encoder`: `dataset`, `metric`, `protocol`, `probe` and `results`.

    Example:
        >>> old = {"benchmark": "ESC-10", "probe": "linear", "results": {"x": {"mean": 0.5, "fold_accuracies": [0.5]}}}
        >>> probe_report(old)["results"]["x"]["scores"]
        [0.5]
    """
    if "dataset" in report:
        return report
    rows = {name: row_of(row["fold_accuracies"]) for name, row in report["results"].items()}
    todays = {"dataset": report["benchmark"], "metric": "accuracy", "protocol": "official folds"}
    return {**report, **todays, "results": rows}


@dataclass(frozen=True)
class Reported:
    """A result of a checkpoint as the Hub has it, in both of its forms.

    Args:
        result: For the card's `model-index`. `dataset_config` is the protocol and, of a probe, what read which
            features: results that have task, data set, configuration and split in common would become one.
        notes: How it was found, for `.eval_results`.
    """

    result: EvalResult
    notes: str


def pretrained_results(results: Mapping[str, Any]) -> list[Reported]:
    """What probes found of a pre-trained checkpoint, for both forms of results.

    Every row of its own, whatever features are read and by which probe, is a result of the checkpoint; the one of what
    `embed` gives comes first. Rows of the log-mel and of a random encoder are none: they stand in the notes.

    Args:
        results: As `training/demo.py` wrote it, of any version.

    Returns:
        The results, by data set.

    Example:
        >>> rows = {"pre-trained encoder": {"mean": 0.75}, "log-mel mean and deviation": {"mean": 0.5}}
        >>> report = {"dataset": "ESC-10", "metric": "accuracy", "protocol": "5 folds", "probe": "linear"}
        >>> [one] = pretrained_results({"benchmarks": [{**report, "results": rows}]})
        >>> one.result.dataset_config, one.notes
        ('esc10_five_folds_linear_probe', 'linear probe on frozen embeddings; 5 folds; log-mel mean ...: 0.500')
    """
    return [
        _reported_probe(report, row)
        for report in benchmarks_of(results)
        for row in sorted(report["results"], key=lambda row: row != FROZEN + results.get("read", ""))
        if row.startswith(FROZEN)
    ]


def finetuned_results(results: Mapping[str, Any]) -> list[Reported]:
    """What a fine-tuning found, for both forms of results.

    Args:
        results: `results.json` of the run.

    Returns:
        One result, of the model on all clips that were tested.
    """
    return [Reported(_eval_result(results, PRETRAINED), results["protocol"])]


def eval_results_files(reported: Sequence[Reported]) -> dict[str, str]:
    """The files `.eval_results/NAME.yaml`, the Hub's newer form of `model-index`.

    Args:
        reported: All results of a checkpoint.

    Returns:
        YAML, by the file's path in the folder, a file for each data set. Results on data that are no complete
        benchmark are left out: their scores belong on no leaderboard.

    Example:
        >>> eval_results_files([])
        {}
    """
    entries: dict[str, list[EvalResultEntry]] = {}
    for one in reported:
        if one.result.dataset_name in HUB_DATASETS:
            entry = EvalResultEntry(
                dataset_id=one.result.dataset_type,
                task_id=one.result.dataset_config or "default",
                value=one.result.metric_value,
                notes=one.notes,
            )
            entries.setdefault(f".eval_results/{slug(one.result.dataset_name)}.yaml", []).append(entry)
    return {path: yaml.safe_dump(entries_to_plain(found), sort_keys=False) for path, found in entries.items()}


def _reported_probe(report: Mapping[str, Any], row: str) -> Reported:
    """A row of a probe's results that is the checkpoint's own."""
    read, *named = _NAMED_PROBE.split(row.removeprefix(FROZEN))[:2]
    probe = named[0] if named else report["probe"]
    how = f"{probe} probe on frozen embeddings{read}"

    def is_beside(name: str) -> bool:
        """Whether a row is of the same probe, on no encoder or on one that learnt nothing, pooled the same way."""
        features, *reader = _NAMED_PROBE.split(name)[:2]
        same = features.startswith(RANDOM_ENCODER) and features.partition(")")[2] == read
        return reader == named and (same or features in _WITHOUT_ENCODER)

    controls = {name: found["mean"] for name, found in report["results"].items() if is_beside(name)}
    beside = [f"{name}: {value:.3f}" for name, value in controls.items()]
    result = _eval_result(report, row, f" of a {how}", (f"{probe} probe", *read.split(", ")))
    return Reported(result, "; ".join([how, report["protocol"], *beside]))


def _eval_result(results: Mapping[str, Any], row: str, how: str = "", reader: Sequence[str] = ()) -> EvalResult:
    """A row of results for the card's model-index."""
    dataset, metric = results["dataset"], _METRICS[results["metric"]]
    dataset_id, protocol = HUB_DATASETS.get(dataset, (slug(dataset), results["protocol"]))
    words = [word for part in (protocol, *reader) for word in slug(part).split("_")]
    return EvalResult(
        task_type="audio-classification",
        dataset_type=dataset_id,
        dataset_name=dataset,
        dataset_config="_".join(word for word in words if word),
        dataset_split="test",
        metric_type=metric.replace(" ", "_"),
        metric_name=f"{metric}{how}; {results['protocol']}",
        metric_value=results["results"][row]["mean"],
    )


def finetuned_card(
    results: Mapping[str, Any], name: str, *, sampling_rate: int, ours: bool, license_name: str
) -> ModelCard:
    """The card of a fine-tuned model.

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
        eval_results=[one.result for one in finetuned_results(results)],
    )
    values = {"name": name, "results": results, "metric": metric, "cost": row, "ours": ours}
    values["minimum_transformers"] = MINIMUM_TRANSFORMERS
    return ModelCard(_text("finetuned", card_data, values | {"sampling_rate": sampling_rate}))


def with_graphs(card: str, folder: str, graphs: Sequence[Mapping[str, Any]]) -> str:
    r"""A card that tells of the graphs beside it, in a section of its own; one that did is told anew.

    Args:
        card: The text of any of our cards of models.
        folder: Where they lie.
        graphs: What each says of itself, as from `graph_files.read_facts`.

    Returns:
        The text, all else unchanged.

    Example:
        >>> with_graphs("# M\n\n## How it was made\n", "onnx", [])
        '# M\n\n## How it was made\n'
    """
    start, end, before = "<!-- graphs -->\n", "<!-- /graphs -->\n\n", "## How it was made\n"
    told, _, rest = card.partition(start)
    if rest:
        card = told + rest.partition(end)[2]
    if not graphs:
        return card
    section = _ENVIRONMENT.get_template("graph_files.md.jinja").render(folder=folder, graphs=graphs)
    head, found, tail = card.partition(before)  # or, in a card without that section, at its end
    return f"{head.rstrip()}\n\n{start}{section.rstrip()}\n{end}{found}{tail}"


def slug(name: str) -> str:
    """A data set's name as a file's.

    Example:
        >>> slug("part of ESC-50")
        'part_of_esc_50'
    """
    return "".join(character if character.isalnum() else "_" for character in name.lower())


def dataset_card(
    recipe: Mapping[str, Any], preset: Preset, *, columns: str, statistics: Mapping[str, Any], shards: list[Path]
) -> DatasetCard:
    """The card of a data set that is written, with the metadata that lets `load_dataset` read the folder.

    Args:
        recipe: `recipe.json` of the data set.
        preset: Whose clips.
        columns: What they are, as a list in Markdown.
        statistics: What they hold, read back from the shards.
        shards: Where they lie.

    Returns:
        The card, with its metadata.
    """
    options = {name: recipe[name] for name in ("preset", "num_clips", "seed", "clips_per_shard")}
    options |= {f"synthesis.{name}": json.dumps(value) for name, value in recipe["synthesis"].items()}
    values = {"recipe": recipe, "preset": preset, "columns": columns, "statistics": statistics}
    return _dataset_card(
        "synthetic_dataset",
        {**values, "hours": recipe["num_clips"] * preset.duration / 3600},
        options,
        shards,
        num_rows=recipe["num_clips"],
        pretty_name=f"AudioPG synthetic, preset {recipe['preset']}",
        task_categories=["audio-classification"],
        tags=["audio", "audiopg", "synthetic", "procedural-generation"],
    )


def voice_dataset_card(
    recipe: Mapping[str, Any], voice: Voice, *, columns: str, statistics: Mapping[str, Any], shards: list[Path]
) -> DatasetCard:
    """The card of a data set of sounds of a voice that is written.

    Args:
        recipe: `recipe.json` of the data set.
        voice: Whose sounds.
        columns: What they are, as a list in Markdown.
        statistics: What they hold, read back from the shards.
        shards: Where they lie.

    Returns:
        The card, with its metadata.
    """
    options = {name: recipe[name] for name in ("voice", "num_clips", "seed", "clips_per_shard")}
    options |= {f"options.{name}": json.dumps(value) for name, value in recipe["options"].items()}
    values = {"recipe": recipe, "voice": voice, "columns": columns, "statistics": statistics}
    return _dataset_card(
        "synthetic_voices",
        {**values, "hours": recipe["num_clips"] * voice.duration / 3600},
        options,
        shards,
        num_rows=recipe["num_clips"],
        pretty_name=f"AudioPG voices, {recipe['voice']}",
        task_categories=["audio-classification"],
        tags=["audio", "audiopg", "synthetic", "procedural-generation", "synthesizer"],
    )


def preview_card(
    configurations: Sequence[Mapping[str, Any]],
    default: str,
    num_clips: int,
    many: int,
    *,
    columns: Mapping[str, str],
) -> DatasetCard:
    """The card of a preview of presets and voices, with the metadata that lets `load_dataset` read each.

    Args:
        configurations: Of each: `name`, `what`, `option` (of `training/build_dataset.py`), `duration` and `whole`, the
            length that clips have without a preview (in s), `megabytes` and, of `many`, `gigabytes`.
        default: The configuration that is loaded where none is named.
        num_clips: Of each configuration.
        many: How many the commands make.
        columns: What they are, as lists in Markdown, of `presets` and of every voice.

    Returns:
        The card, with its metadata.
    """
    names = [row["name"] for row in configurations]
    card_data = DatasetCardData(
        license="apache-2.0",
        pretty_name="AudioPG synthetic, a preview",
        task_categories=["audio-classification"],
        tags=["audio", "audiopg", "synthetic", "procedural-generation"],
        size_categories=[_size_category(num_clips * len(names))],
        configs=[
            {
                "config_name": name,
                "data_files": [{"split": "train", "path": f"data/{name}.parquet"}],
                **({"default": True} if name == default else {}),
            }
            for name in names
        ],
    )
    values = {"configurations": configurations, "default": default, "num_clips": num_clips, "many": many}
    told = {**values, "columns": columns, "made_on": environment()}
    return DatasetCard(_text("synthetic_preview", card_data, told))


def image_dataset_card(
    recipe: Mapping[str, Any], patterns: PatternSet, *, measured: Mapping[str, Any], shards: list[Path]
) -> DatasetCard:
    """The card of a data set of synthetic images that is written.

    Args:
        recipe: `recipe.json` of the data set.
        patterns: Whose images.
        measured: What is measured of the first images, as from `sheet.measure`.
        shards: Where they lie.

    Returns:
        The card, with its metadata.
    """
    options = {name: recipe[name] for name in ("patterns", "num_images", "size", "seed", "images_per_shard")}
    options |= {f"ranges.{name}": json.dumps(value) for name, value in recipe["ranges"].items()}
    return _dataset_card(
        "synthetic_images",
        {"recipe": recipe, "patterns": patterns, "measured": measured},
        options,
        shards,
        num_rows=recipe["num_images"],
        pretty_name=f"AudioPG patterns, {recipe['patterns']}",
        task_categories=["image-classification"] if patterns.num_classes else ["image-feature-extraction"],
        tags=["image", "audiopg", "synthetic", "procedural-generation"],
    )


def _size_category(num_rows: int) -> str:
    return next((name for end, name in _SIZES if num_rows < end), _LARGEST_SIZE)


def _dataset_card(
    template: str,
    values: Mapping[str, Any],
    options: Mapping[str, Any],
    shards: list[Path],
    *,
    num_rows: int,
    **metadata: Any,
) -> DatasetCard:
    """The card of any data set that was written as shards, with the command that makes it again."""
    card_data = DatasetCardData(
        license="apache-2.0",
        **metadata,
        size_categories=[_size_category(num_rows)],
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*.parquet"}]}],
    )
    told = {
        **values,
        "options": " ".join(f"--{name} {shlex.quote(str(value))}" for name, value in options.items()),
        "gigabytes": sum(shard.stat().st_size for shard in shards) / 1e9,
        "num_shards": len(shards),
        "made_on": environment(),
    }
    return DatasetCard(_text(template, card_data, told))
