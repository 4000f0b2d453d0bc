"""The main job from end to end on a CPU: synthesize, pre-train, export, load elsewhere, measure."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForPreTraining

from audiopg.data_scripts.probe_clips import FactorClips, factor_clips
from audiopg.data_scripts.synthesis import draw, render
from audiopg.modeling.modeling_audiopg import AudioPGForPreTraining
from audiopg.training.evaluation.factor_scores import decode_factors
from audiopg.training.evaluation.probes import clip_features, probe_encoder, probe_features
from audiopg.training.evaluation.protocols import rounds_of
from audiopg.training.evaluation.results import format_results, read_out_name
from audiopg.training.features.batches import Batches
from audiopg.training.features.cache import extract_features, front_end_of
from audiopg.training.features.embeddings import random_encoder
from audiopg.training.features.labelled import load_labelled
from audiopg.training.objectives.masked_audio import masking_noise
from audiopg.training.objectives.pictures import draw_clips, draw_loss, draw_reconstruction
from audiopg.training.objectives.pretraining import TrainedRun
from audiopg.training.objectives.recipe import PretrainingRecipe
from audiopg.training.publishing.exporting import export_pretrained
from audiopg.training.publishing.hub import AUTO
from audiopg.training.publishing.precision import choose_dtype, format_choice
from audiopg.training.runs.files import write_atomically
from audiopg.training.runs.folder import claim, read_begun_with
from audiopg.training.runs.metrics_log import read_metrics
from audiopg.training.runs.names import public_word, say
from audiopg.training.runs.provenance import environment
from audiopg.training.runs.recipes import load_recipe, parse_overrides

HERE = Path(__file__).parents[1]
NUM_TRAINING_CLIPS, NUM_TEST_CLIPS = 600, 300
UNSEEN = 2**32
"""Clips of the run's own stream from here on are shown; pre-training counts from 0 and never gets here."""


def run_pretraining(recipe: str, overrides: Sequence[str], folder: Path) -> None:
    """`accelerate launch training/pretrain.py` on the CPU, with its progress bar."""
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(HERE / "accelerate/cpu.yaml")]
    launch += ["--num_cpu_threads_per_process", os.environ.get("OMP_NUM_THREADS") or str(torch.get_num_threads())]
    subprocess.run([*launch, str(HERE / "pretrain.py"), recipe, "--output_dir", str(folder), *overrides], check=True)


def embed_elsewhere(folder: Path, clips: FactorClips) -> np.ndarray:
    """Embeddings by the exported folder alone, in a process that cannot import this package, offline."""
    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch) / "waveforms.npy", Path(scratch) / "embeddings.npy"
        np.save(source, clips.waveforms)
        script = Path(__file__).with_name("embed_without_package.py")
        command = [sys.executable, str(script), str(folder), str(source), str(clips.sampling_rate), str(target)]
        offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": scratch}
        quiet = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        subprocess.run(command, check=True, env={**os.environ, **offline, **quiet})
        return np.load(target)


def measure_factors(
    folder: Path, recipe: PretrainingRecipe, beside: Path | None = None
) -> dict[str, dict[str, float]]:
    """R^2 of frequency, level and onset from frozen embeddings of the exported model and of a random encoder.

    Args:
        folder: The exported model.
        recipe: Whose clips, none of them in the run's stream.
        beside: Another exported model that is measured on the same clips.

    Returns:
        By factor, that of `pretrained`, of `random` and, of the other model, of `beside`.
    """
    clips = factor_clips(recipe.clips, NUM_TRAINING_CLIPS + NUM_TEST_CLIPS)
    feature_extractor = AutoFeatureExtractor.from_pretrained(folder)
    untrained: Any = random_encoder(AutoModel.from_pretrained(folder), recipe.seed)
    embeddings = {
        "pretrained": embed_elsewhere(folder, clips),
        "random": untrained.embed(list(clips.waveforms), feature_extractor).numpy(),
        **({"beside": embed_elsewhere(beside, clips)} if beside else {}),
    }
    cut, targets = NUM_TRAINING_CLIPS, np.stack(list(clips.factors.values()), axis=1)
    scores = {name: decode_factors(x[:cut], targets[:cut], x[cut:], targets[cut:]) for name, x in embeddings.items()}
    return {
        factor: {name: float(score[column]) for name, score in scores.items()}
        for column, factor in enumerate(clips.factors)
    }


def probe_beside(folder: Path, dataset: Any) -> dict[str, Any]:
    """The row of another exported model in a table of linear probes: what its own `embed` gives is read."""
    model, extractor = AutoModel.from_pretrained(folder), AutoFeatureExtractor.from_pretrained(folder)
    cache = extract_features(dataset, front_end_of(extractor))
    read = read_out_name(model.config.embedding_layer, model.config.embedding_pooling)
    features = clip_features(model, Batches(cache, extractor))[read]
    return {f"{folder.name}, released{read}": probe_features("linear", features, cache, rounds_of(cache))}


def draw_pictures(run_folder: Path, exported: Path, recipe: PretrainingRecipe, folder: Path) -> list[Path]:
    """The pictures: clips, loss and, of a model with a decoder, reconstruction."""
    pictures = [
        draw_clips(draw(recipe.clips, recipe.seed, range(8)), folder / "clips.png"),
        draw_loss(read_metrics(run_folder), folder / "loss.png", f"{recipe.name}: pre-training"),
    ]
    if AudioPGForPreTraining.__name__ not in (AutoConfig.from_pretrained(exported).architectures or ()):
        return pictures
    indices = torch.arange(UNSEEN, UNSEEN + 4)
    model = AutoModelForPreTraining.from_pretrained(exported)
    waveforms = render(draw(recipe.clips, recipe.seed, indices), "cpu")
    input_values = AutoFeatureExtractor.from_pretrained(exported).extract(waveforms)
    num_patches = input_values[0].numel() // model.config.patch_values
    noise = masking_noise(recipe.seed, indices, num_patches, "cpu")
    return [*pictures, draw_reconstruction(model, input_values, noise, folder / "reconstruction.png")]


def trained(recipe_name: str, overrides: Sequence[str], recipe: PretrainingRecipe, folder: Path) -> TrainedRun:
    """The finished run of a recipe, made or gone on with where it has not finished.

    One that has is taken as it is, in whatever precision and on whatever machine it was made, if recipe and
    synthesizer are these.

    Raises:
        ValueError: if the folder holds a run of another recipe, with what differs.
    """
    if not (folder / "run.json").exists():
        run_pretraining(recipe_name, overrides, folder)
    claim(folder, recipe, {**read_begun_with(folder), **recipe.made_with})
    return TrainedRun.open(folder)


def run_demo(
    recipe_name: str,
    overrides: Sequence[str],
    output_dir: Path,
    data_dirs: Sequence[str | Path] = (),
    *,
    run_folder: Path | None = None,
    dtype: str | None = None,
    beside: Path | None = None,
) -> dict[str, Any]:
    """Do everything; returns what `results.json` holds.

    Args:
        recipe_name: A pre-training recipe.
        overrides: Of its fields, as command-line words.
        output_dir: Where everything goes.
        data_dirs: Labelled recordings, whatever `training/finetune.py` takes as such.
        run_folder: Where the run is, if not in `output_dir`.
        dtype: What weights are stored in, by default as they are; `AUTO` has probes on the recordings choose.
        beside: A released encoder of ours to compare with.

    Returns:
        `environment`, `recipe`, `pretraining`, `factors` (R^2, as from `measure_factors`), `benchmarks` (of each data
        set, as from `probe_encoder`), `read` (what stands behind the name of an encoder in the row of what `embed`
        gives), `precision` (as from `choose_dtype`, or None) and `seconds`.

    Raises:
        ValueError, OSError: if the recipe cannot be run, or there are no such recordings: before minutes are spent.
    """
    started = time.perf_counter()
    datasets = [load_labelled(folder) for folder in data_dirs]
    recipe = load_recipe(PretrainingRecipe, recipe_name, parse_overrides(overrides))
    if not recipe.preset:
        raise ValueError(
            f"The demo draws clips of a preset, and {recipe.name} has none; choose another, such as tiny."
        )
    if dtype == AUTO and not datasets:
        raise ValueError("Probes choose what weights are stored in: give --data_dir, or name a type (--dtype).")
    run_folder, exported = run_folder or output_dir / "run", output_dir / recipe.name
    say(f"1/4  Pre-training {recipe.name} on {recipe.num_clips} clips, synthesized on the fly")
    run = trained(recipe_name, overrides, recipe, run_folder)
    extractor, precision = run.feature_extractor(), None
    recordings = [Batches(extract_features(dataset, front_end_of(extractor)), extractor) for dataset in datasets]
    if dtype == AUTO:
        precision = choose_dtype(run.final_model(), recordings)
        say(format_choice(precision))
        dtype = precision["chosen"]
    export_pretrained(run_folder, exported, dtype=dtype)
    say(f"2/4  Exported to {exported}; decoding known factors from its frozen embeddings")
    factors = measure_factors(exported, recipe, beside)
    columns = ["pre-trained", "random encoder", *([f"{beside.name}, released"] if beside else [])]
    say("     R^2 on held-out clips   " + "".join(f"{column:>24}" for column in columns))
    for name, row in factors.items():
        say(f"     {name:<24}" + "".join(f"{value:>24.3f}" for value in row.values()))
    benchmarks = []
    if not recordings:
        say("3/4  No real recordings: give --data_dir, or set AUDIOPG_ESC50_DIR, to probe on them")
    for folder, dataset, batches in zip(data_dirs, datasets, recordings, strict=True):
        say(f"3/4  Linear probe of frozen features on {folder}")
        benchmarks.append(probe_encoder(AutoModel.from_pretrained(exported), batches, seed=recipe.seed))
        if beside:
            benchmarks[-1]["results"] |= probe_beside(beside, dataset)
        say(format_results(benchmarks[-1]))
    say("4/4  Drawing pictures, filling in the card")
    pictures = draw_pictures(run_folder, exported, recipe, output_dir)
    results = {
        **environment(),
        "recipe": recipe.name,
        "overrides": [public_word(word) for word in overrides],
        "pretraining": run.facts,
        "factors": factors,
        "benchmarks": benchmarks,
        "read": read_out_name(recipe.embedding.layer, recipe.embedding.pooling),
        "precision": precision,
        "seconds": round(time.perf_counter() - started, 1),
    }
    write_atomically(output_dir / "results.json", json.dumps(results, indent=2) + "\n")
    shown = {picture.name: picture.read_bytes() for picture in pictures}
    export_pretrained(run_folder, exported, results, dtype=dtype, pictures=shown)
    return results
