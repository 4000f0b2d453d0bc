"""The runs of a grid: each pre-trained once, measured by one protocol, and kept for whoever asks again."""

import hashlib
import json
import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel
from transformers.utils import logging as logging_of_transformers

from audiopg.data_scripts.figures import save_both
from audiopg.data_scripts.probe_clips import FACTORS, PROBE_SETS, probe_clips
from audiopg.data_scripts.synthesis import Preset, get_preset
from audiopg.training.ablation.grid import AblationGrid, run_key
from audiopg.training.ablation.predictors import correlations, draw_predictors
from audiopg.training.ablation.table import draw_ablation, format_table, summarise
from audiopg.training.evaluation.factor_scores import decode_above_chance
from audiopg.training.evaluation.probes import probe_features
from audiopg.training.evaluation.protocols import rounds_of
from audiopg.training.evaluation.results import LOG_MEL, RANDOM_ENCODER, READ_AS
from audiopg.training.features.batches import Batches
from audiopg.training.features.cache import FeatureCache
from audiopg.training.features.embeddings import (
    embed,
    has_token_grid,
    log_mel_statistics,
    random_encoder,
    spectrograms_of,
)
from audiopg.training.features.labelled import DataOptions
from audiopg.training.objectives.pretraining import FAMILIES, TrainedRun, pretrain
from audiopg.training.objectives.recipe import PretrainingRecipe
from audiopg.training.runs.files import read_json, write_atomically
from audiopg.training.runs.folder import held
from audiopg.training.runs.provenance import environment
from audiopg.training.runs.workers import end_with_parent

logger = logging.getLogger(__name__)

FACTOR_PRESET = "reference"
"""Whose clips the factors are decoded from, whatever the encoder was trained on."""

SECONDS_FOR_IMAGES = 2.56
"""Length of these clips where the encoder was trained on images, which have none."""

NUM_TRAINING_CLIPS, NUM_TEST_CLIPS = 400, 200
"""Of each set of probe clips."""

Features = Callable[[Iterable[Tensor]], np.ndarray]
"""Spectrograms to features, `(clips, features)`."""

STOPPED = 130
"""Exit status of a command that was asked to stop."""


def factor_preset(recipe: PretrainingRecipe) -> Preset:
    """Whose clips the factors are decoded from: as long, and at the same rate, as those that a run was trained on.

    For a run of images they last `SECONDS_FOR_IMAGES`.

    Raises:
        ValueError: if the rate is too low for the preset.

    Example:
        >>> from audiopg.training.runs.recipes import load_recipe
        >>> factor_preset(load_recipe(PretrainingRecipe, "tiny")).duration
        2.56
    """
    if recipe.sees:
        return get_preset(FACTOR_PRESET, duration=SECONDS_FOR_IMAGES)
    clips = recipe.heard
    return get_preset(FACTOR_PRESET, duration=clips.duration, sampling_rate=clips.sampling_rate)


def measure(
    features_of: Features, recipe: PretrainingRecipe, batches: Batches, *, spare_test: bool = False
) -> dict[str, Any]:
    """What frozen features tell.

    Args:
        features_of: Spectrograms to features, `(clips, features)`.
        recipe: Of the run.
        batches: Recordings to probe on, for the run's feature extractor.
        spare_test: As in `rounds_of`.

    Returns:
        `scores` of the linear probe and of the `neighbours` in each round, and `factors`: how well each of `FACTORS`
        is decoded, as from `decode_above_chance`.
    """
    return {
        **measure_classes(features_of, batches, spare_test=spare_test),
        "factors": measure_factors(features_of, recipe, batches.feature_extractor),
    }


def measure_classes(features_of: Features, batches: Batches, *, spare_test: bool = False) -> dict[str, list[float]]:
    """`scores` and `neighbours` of `measure`, whose arguments these are."""
    cache = batches.cache
    features, rounds = features_of(batches.spectrograms(range(len(cache)))), rounds_of(cache, spare_test=spare_test)
    return {
        "scores": probe_features("linear", features, cache, rounds)["scores"],
        "neighbours": probe_features("neighbours", features, cache, rounds)["scores"],
    }


def measure_factors(features_of: Features, recipe: PretrainingRecipe, feature_extractor: Any) -> dict[str, float]:
    """`factors` of `measure`.

    Args:
        features_of: As for `measure`.
        recipe: See there.
        feature_extractor: The run's.
    """
    factors: dict[str, float] = {}
    cut = NUM_TRAINING_CLIPS
    for probe_set in PROBE_SETS:
        clips = probe_clips(factor_preset(recipe), probe_set, cut + NUM_TEST_CLIPS)
        features = features_of(spectrograms_of(feature_extractor, clips.waveforms))
        for name, values in clips.factors.items():
            parts = features[:cut], values[:cut], features[cut:], values[cut:]
            factors[name] = round(decode_above_chance(*parts, FACTORS[name].kind), 4)
    return {name: factors[name] for name in FACTORS}


def features_by(
    encoder: PreTrainedModel, feature_extractor: Any, pooling: str, device: str, layer: int | None = None
) -> Features:
    """What reads a layer of a frozen encoder, or its output, pooled as is said; the mean where tokens are no grid."""
    options: Any = {"pooling": pooling if has_token_grid(encoder) else "mean", "device": device}
    options["layers"] = [] if layer is None else [layer]
    return lambda spectrograms: embed(encoder, feature_extractor, spectrograms, **options)[layer]


def kept_or_made(folder: Path, name: str, measured_on: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A result that an earlier call left, or else a new one, which is left for the next.

    Args:
        folder: Of the run.
        name: Of the result.
        measured_on: Stands in the result, and tells its file from that of another measurement.
        make: Makes it.

    Returns:
        The result.

    Example:
        >>> folder = getfixture("tmp_path")
        >>> [kept_or_made(folder, "result", key, lambda: {"loss": len(key)})["loss"] for key in ("ab", "abc", "ab")]
        [2, 3, 2]
        >>> len(list(folder.iterdir()))
        2
    """
    path = folder / f"{name}-{hashlib.sha256(measured_on.encode()).hexdigest()[:12]}.json"
    if path.exists():
        try:
            return read_json(path, "It is measured again.")
        except ValueError as error:
            logger.warning("%s", error)
    made = {"measured_on": measured_on, **make(), **environment()}
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(made, indent=2))
    return made


@dataclass(frozen=True)
class Job:
    """One run: a cell of a grid with one seed.

    Args:
        recipe: What to pre-train.
        folder: Where it goes, with its measurements.
        data: Labelled recordings.
        device: Where encoders are probed.
        pooling: What is read of them, as in `AblationGrid`.
        spare_test: Whether the test split is left alone, as there.
    """

    recipe: PretrainingRecipe
    folder: Path
    data: DataOptions
    device: str
    pooling: str = "mean"
    spare_test: bool = False

    def features(self) -> FeatureCache:
        """Features of the recordings, as the encoder will take them."""
        # A front end does not depend on the statistics, which are measured when a run begins.
        family, statistics = FAMILIES[self.recipe.objective], {"window": "hann", "mean": 0.0, "std": 1.0}
        return self.data.cache(family.build_feature_extractor(self.recipe, statistics))

    @property
    def log(self) -> Path:
        """What a run in a process of its own has to say."""
        return self.folder / "log.txt"

    def run(self) -> dict[str, Any]:
        """Pre-train and probe, or take what is there.

        Returns:
            `scores`, `neighbours`, `factors`, `clips`, `loss`, of a run on images what those are,
            `pretraining_seconds`, `probe_seconds`, the environment.

        Raises:
            KeyboardInterrupt: if pre-training was asked to stop; the same command goes on.
        """

        def make() -> dict[str, Any]:
            facts = pretrain(self.recipe, self.folder / "run")
            if not facts["finished"]:
                raise KeyboardInterrupt
            started = time.perf_counter()
            return {
                **self._measure(lambda model: model),
                **{name: facts[name] for name in ("clips", "loss")},
                **self._images(),
                "pretraining_seconds": facts["seconds"],
                "pretraining_commit": facts["commit"],
                "probe_seconds": round(time.perf_counter() - started, 1),
            }

        return self._kept_or_made("result", make)

    def random_encoder(self, seed: int) -> dict[str, Any]:
        """What an encoder of the same shape reaches that has learnt nothing."""
        return self._kept_or_made(f"random_{seed}", lambda: self._measure(lambda model: random_encoder(model, seed)))

    def log_mel(self) -> dict[str, Any]:
        """What the log-mel's mean and deviation reach without any encoder."""
        return self._kept_or_made("log_mel", lambda: self._measure(None))

    def _images(self) -> dict[str, Any]:
        """What is known of the images of a run: how rough they are, how many of their patches are blank."""
        return {"images": TrainedRun.open(self.folder / "run").statistics["images"]} if self.recipe.sees else {}

    def _kept_or_made(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        cache = self.features()
        clips = f"{len(FACTORS)} factors of {NUM_TRAINING_CLIPS} + {NUM_TEST_CLIPS} clips of {FACTOR_PRESET}"
        rows = READ_AS[self.pooling]
        split = ", validation" if self.spare_test else ""
        return kept_or_made(self.folder, name, f"{cache.dataset_name} {cache.digest}, {clips}{rows}{split}", make)

    def _measure(self, choose: Callable[[Any], Any] | None) -> dict[str, Any]:
        """`measure` the encoder that is chosen, given the one of the run, or with None the log-mel itself."""
        run = TrainedRun.open(self.folder / "run")
        extractor = run.feature_extractor()
        batches = Batches(self.data.cache(extractor), extractor)
        if choose is None:
            return measure(log_mel_statistics, self.recipe, batches, spare_test=self.spare_test)
        encoder = choose(run.final_model().base_model)
        features_of = features_by(encoder, extractor, self.pooling, self.device)
        return measure(features_of, self.recipe, batches, spare_test=self.spare_test)


def _run_quietly(job: Job, threads: int) -> None:
    """Run a job in a process of its own, what it prints going to `log.txt` of its folder."""
    end_with_parent()
    torch.set_num_threads(threads)
    logging_of_transformers.set_verbosity_error()
    with job.log.open("a", encoding="utf-8") as log:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(log.fileno(), stream.fileno())
    try:
        job.run()
    except KeyboardInterrupt:
        sys.exit(STOPPED)


def _run_apart(job: Job, threads: int) -> dict[str, Any]:
    """The result of a job that runs in a process of its own."""
    job.folder.mkdir(parents=True, exist_ok=True)
    process = multiprocessing.get_context("spawn").Process(target=_run_quietly, args=(job, threads))
    process.start()
    process.join()
    if process.exitcode in (STOPPED, -signal.SIGINT, -signal.SIGTERM):
        raise KeyboardInterrupt
    if process.exitcode:
        said = job.log.read_text(encoding="utf-8").strip().splitlines() or [f"exit status {process.exitcode}"]
        raise RuntimeError(f"{job.recipe.name}, seed {job.recipe.seed}: {said[-1]} All that it said is in {job.log}.")
    return job.run()  # what it left


def run_all(jobs: Sequence[Job], processes: int) -> Iterator[dict[str, Any]]:
    """Results of all jobs, in their order.

    Args:
        jobs: What to run.
        processes: How many at a time. On a CPU, one per core gets more done than all cores on one; each writes what
            it has to say to `log.txt` of its folder.

    Raises:
        KeyboardInterrupt: if it was asked to stop; runs that had begun are at a checkpoint.
        RuntimeError: if a run in a process of its own failed, with the last line that it wrote.
    """
    if processes == 1:
        yield from (job.run() for job in jobs)
        return
    threads = max(1, torch.get_num_threads() // processes)
    terminated = signal.signal(signal.SIGTERM, _stop_children)
    pool = ThreadPoolExecutor(processes)
    try:
        results = pool.map(_run_apart, jobs, [threads] * len(jobs))
        yield from tqdm(results, total=len(jobs), desc="Runs", unit="run", disable=None)
    except KeyboardInterrupt:
        raise  # a terminal has told the others too, and _stop_children has
    except BaseException:
        _terminate_children()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        signal.signal(signal.SIGTERM, terminated)


def _terminate_children() -> None:
    for child in multiprocessing.active_children():
        child.terminate()  # a request: pre-training saves a checkpoint first


def _stop_children(_number: int, _frame: object) -> None:
    _terminate_children()
    raise KeyboardInterrupt


def environments_of(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Hardware, versions and commits of results, each combination once.

    Example:
        >>> one = {"hardware": "a CPU", "versions": {}, "commit": "0123", "loss": 1.0}
        >>> found = environments_of([one, {**one, "loss": 2.0}, {**one, "pretraining_commit": "4567"}])
        >>> [environment["commit"] for environment in found]
        ['0123', '4567']
    """
    found = [
        {
            **{name: run[name] for name in ("hardware", "versions")},
            "commit": run.get("pretraining_commit", run["commit"]),
        }
        for run in results
    ]
    return [one for position, one in enumerate(found) if one not in found[:position]]


def ablate(
    grid: AblationGrid, data: DataOptions, output_dir: Path, command: str, device: str, processes: int = 1
) -> dict[str, Any]:
    """Run what is missing of a grid, seed by seed, so that an early stop leaves whole comparisons.

    Args:
        grid: What to run.
        data: Labelled recordings.
        output_dir: Receives `runs/KEY/`, and `GRID/` with `results.json`, `table.md`, `chart.png` and `chart.svg`, and
            `predictors.png` and `.svg` where sets of images are compared.
        command: What a reader would type for the same.
        device: Where encoders are probed.
        processes: Runs at a time.

    Returns:
        What `results.json` holds.

    Raises:
        KeyboardInterrupt: if it was asked to stop.
        ValueError: if there is no such test fold, or another command is at work in `output_dir`.
    """
    with held(output_dir):
        return _ablate(grid, data, output_dir, command, device, processes)


def _ablate(
    grid: AblationGrid, data: DataOptions, output_dir: Path, command: str, device: str, processes: int
) -> dict[str, Any]:
    recipes = [grid.recipe(name, seed) for seed in grid.seeds for name in grid.cells]
    jobs = [
        Job(recipe, output_dir / "runs" / run_key(recipe), data, device, grid.pooling, grid.spare_test)
        for recipe in recipes
    ]
    reference = jobs[list(grid.cells).index(grid.reference)]
    for recipe in recipes:
        factor_preset(recipe)  # for its complaints, before hours have gone by
    if processes > 1 and any(recipe.max_minutes is not None for recipe in recipes):
        raise ValueError("Runs of equal time have the machine to themselves: leave --processes at 1 with max_minutes.")
    cache = reference.features()
    rounds = [one.name for one in rounds_of(cache, spare_test=grid.spare_test)]
    folds = sorted(part for part in set(cache.parts) if isinstance(part, int))
    if unknown := sorted(set(grid.test_folds) - set(folds)):
        those = f"some of {folds}, those of {cache.dataset_name}" if folds else "for data in folds, not in splits"
        raise ValueError(f"test_folds are {those}; got {unknown}.")
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in grid.cells}
    for name, result in zip(list(grid.cells) * len(grid.seeds), run_all(jobs, processes), strict=True):
        results[name].append(result)
    results[RANDOM_ENCODER] = [reference.random_encoder(seed) for seed in grid.seeds]
    results[LOG_MEL] = [reference.log_mel()]
    tested = [rounds.index(f"fold {fold}") for fold in grid.test_folds] or list(range(len(rounds)))
    report = {
        "grid": asdict(grid),
        "dataset": cache.dataset_name,
        "metric": cache.metric,
        "num_clips": len(cache),
        "rounds": rounds,
        "tested": tested,
        "command": command,
        "environments": environments_of([run for runs in results.values() for run in runs]),
        "results": results,
        "summary": summarise(results, grid.reference, tested),
    }
    report["correlations"] = correlations(report)
    folder = output_dir / grid.name
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "results.json", json.dumps(report, indent=2) + "\n")
    write_atomically(folder / "table.md", format_table(report))
    save_both(draw_ablation(report), folder, "chart")
    if report["correlations"]:
        save_both(draw_predictors(report), folder, "predictors")
    return report
