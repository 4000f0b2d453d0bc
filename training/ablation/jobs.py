"""Which ingredient taught what: a grid of recipes, each pre-trained and probed on real sounds by one protocol.

    python training/ablate.py ladder --esc50_dir FOLDER [--processes 2] [--output_dir ablations]
    python training/ablate.py events --esc50_dir FOLDER --seeds "[0, 1, 2]" --overrides.num_clips 40000

A grid names a base recipe, what every cell changes, and the cells. Each cell is pre-trained with each seed; from its
frozen embeddings, a linear probe reads the classes of real sounds over the official folds, and ridge regression the
factors of held-out synthesized clips. A run is kept under a name made of all that defines it, `runs/KEY`: the same
command goes on where it was stopped, and grids that share a cell share its runs. `GRID/` then holds `table.md`,
`results.json` and `chart.png`: accuracies, differences to the grid's reference cell with intervals, a random encoder,
the log-mel, and the paper's figures beside.
"""

import dataclasses
import hashlib
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from tqdm import tqdm
from transformers.utils import logging

from audiopg.data_scripts.benchmarks import load_esc50
from audiopg.data_scripts.probe_clips import factor_clips
from audiopg.data_scripts.synthesis import SYNTHESIZER_VERSION, Preset, get_preset
from audiopg.modeling.configuration_audiopg import AudioPGConfig
from audiopg.modeling.feature_extraction_audiopg import AudioPGFeatureExtractor
from audiopg.modeling.modeling_audiopg import AudioPGForPreTraining, AudioPGModel
from audiopg.training.ablation.table import LOG_MEL, RANDOM, draw_ablation, format_table, summarise
from audiopg.training.analysis.figures import save_both
from audiopg.training.engine.loop import pretrain
from audiopg.training.evaluation.probes import decode_factors, embed, linear_probe, log_mel_features, random_encoder
from audiopg.training.features.reading import read_audio_files
from audiopg.training.objectives.building import build_feature_extractor
from audiopg.training.runs.checkpoints import WEIGHTS, checkpoints_of, fingerprint, write_atomically
from audiopg.training.runs.provenance import environment
from audiopg.training.runs.recipes import RECIPES, PretrainingRecipe, load_recipe

GRIDS = RECIPES / "ablations"
FACTOR_PRESET = "reference"
"""Whose clips the factors are decoded from, whatever the encoder was trained on."""

NUM_TRAINING_CLIPS, NUM_TEST_CLIPS = 600, 300

STOPPED = 130
"""Exit status of a command that was asked to stop."""


@dataclass(frozen=True)
class AblationGrid:
    """A comparison: cells that differ in what is named, and in nothing else.

    Equal clips is what a base recipe gives; for equal time, override `max_minutes` and a `num_clips` out of reach.

    Args:
        name: Of the comparison.
        description: One sentence: what it reproduces or asks.
        base: Recipe that every cell begins with, by name or path.
        reference: The cell that the others are compared with.
        cells: By name: `overrides` of the recipe, and, where there are any, the `paper`'s figures as text.
        overrides: Of the recipe, in every cell.
        seeds: Of clips, masks and initial weights; every cell runs with each.
        test_folds: Folds whose accuracy counts; all if empty. A grid from which something is to be chosen leaves some
            out, for the choice to be confirmed on.
    """

    name: str
    description: str
    base: str
    reference: str
    cells: dict[str, Any]
    overrides: dict[str, Any] = field(default_factory=dict)
    seeds: list[int] = field(default_factory=lambda: [0, 1])
    test_folds: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Refuse what cannot be compared."""
        if self.reference not in self.cells:
            raise ValueError(f"reference is one of the cells, {', '.join(self.cells)}; got {self.reference!r}.")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds are one or more different numbers, got {self.seeds}.")
        for name, cell in self.cells.items():
            if not isinstance(cell, dict) or set(cell) - {"overrides", "paper"}:
                raise ValueError(f"cells.{name} has `overrides` and perhaps `paper`, got {cell!r}.")
        keys: dict[str, str] = {}
        for name in self.cells:
            key = run_key(self.recipe(name, self.seeds[0]))  # a wrong field is found before hours have gone by
            if key in keys:
                raise ValueError(f"Cells of a grid differ in what is learnt, and {keys[key]!r} and {name!r} do not.")
            keys[key] = name

    def recipe(self, cell: str, seed: int) -> PretrainingRecipe:
        """The recipe of a cell.

        Raises:
            ValueError: as `load_recipe`.
        """
        changes = extended(self.overrides, self.cells[cell].get("overrides", {}))
        return load_recipe(PretrainingRecipe, self.base, {**changes, "name": f"{self.name}-{cell}", "seed": seed})


def extended(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with `changes`, mappings within them joined.

    Example:
        >>> extended({"preset": "sine", "synthesis": {"duration": 2}}, {"synthesis": {"f0": 440}})
        {'preset': 'sine', 'synthesis': {'duration': 2, 'f0': 440}}
    """
    joined = dict(values)
    for name, value in changes.items():
        both = isinstance(value, dict) and isinstance(values.get(name), dict)
        joined[name] = {**values[name], **value} if both else value
    return joined


def load_grid(name: str, overrides: dict[str, Any] | None = None) -> AblationGrid:
    """Read a grid.

    Args:
        name: A YAML file, or the bare name of a grid of the package.
        overrides: Of its fields, as from `parse_overrides`.

    Returns:
        The grid.

    Raises:
        ValueError: if there is no such file, or as `AblationGrid`.

    Example:
        >>> list(load_grid("ladder").cells)
        ['sine', 'harmonic', 'dynamic', 'reference']
    """
    return load_recipe(AblationGrid, Path(name) if Path(name).suffix else GRIDS / f"{name}.yaml", overrides)


@dataclass(frozen=True)
class Benchmark:
    """Real recordings in memory.

    Args:
        name: Of the data set.
        waveforms: At the sampling rate of the encoders, each `(samples,)`.
        labels: Class of each clip.
        folds: Official fold of each clip.
        key: Name and a digest of file names, labels and folds.
    """

    name: str
    waveforms: Sequence[Any]
    labels: np.ndarray
    folds: np.ndarray
    key: str

    @classmethod
    @cache
    def read(cls, folder: Path, sampling_rate: int) -> "Benchmark":
        """Read a folder in ESC-50's layout, once in a process."""
        dataset = load_esc50(folder)
        waveforms = read_audio_files(dataset["audio"], sampling_rate)
        labels, folds = np.array(dataset["label"]), np.array(dataset["fold"])
        files = [Path(path).name for path in dataset["audio"]]
        content = json.dumps([files, labels.tolist(), folds.tolist()])
        name = dataset.info.dataset_name
        return cls(name, waveforms, labels, folds, f"{name} {hashlib.sha256(content.encode()).hexdigest()[:16]}")


def factor_preset(recipe: PretrainingRecipe) -> Preset:
    """Whose clips the factors are decoded from: as long, and at the same rate, as those that a run was trained on.

    Raises:
        ValueError: if the rate is too low for the preset.

    Example:
        >>> factor_preset(load_recipe(PretrainingRecipe, "tiny")).duration
        2.56
    """
    given = recipe.recordings or recipe.synthesis
    return get_preset(FACTOR_PRESET, **{name: given[name] for name in ("duration", "sampling_rate") if name in given})


def measure(
    features_of: Callable[[Sequence[Any]], np.ndarray], recipe: PretrainingRecipe, benchmark: Benchmark
) -> dict[str, Any]:
    """What frozen features tell.

    Args:
        features_of: Waveforms to features, `(clips, features)`.
        recipe: Of the run.
        benchmark: To probe on.

    Returns:
        `fold_accuracies` of the linear probe, and `factors`: R^2 of frequency, level and onset.
    """
    clips = factor_clips(factor_preset(recipe), NUM_TRAINING_CLIPS + NUM_TEST_CLIPS)
    features, targets = features_of(list(clips.waveforms)), np.stack(list(clips.factors.values()), axis=1)
    cut = NUM_TRAINING_CLIPS
    scores = decode_factors(features[:cut], targets[:cut], features[cut:], targets[cut:])
    accuracies = linear_probe(features_of(benchmark.waveforms), benchmark.labels, benchmark.folds)["fold_accuracies"]
    return {
        "fold_accuracies": accuracies,
        "factors": dict(zip(clips.factors, scores.round(4).tolist(), strict=True)),
    }


def load_encoder(recipe: PretrainingRecipe, run_folder: Path) -> tuple[AudioPGModel, AudioPGFeatureExtractor]:
    """The encoder of a finished run, and its feature extractor."""
    model = AudioPGForPreTraining(AudioPGConfig.of_size(recipe.size, **recipe.model))
    model.load_state_dict(load_file(checkpoints_of(run_folder)[-1] / WEIGHTS), strict=True)
    statistics = json.loads((run_folder / "statistics.json").read_text(encoding="utf-8"))
    return model.audiopg, build_feature_extractor(recipe, statistics)


def run_key(recipe: PretrainingRecipe) -> str:
    """A name for a run, equal for recipes that give the same encoder with this synthesizer.

    Example:
        >>> recipe = load_recipe(PretrainingRecipe, "tiny")
        >>> run_key(recipe) == run_key(dataclasses.replace(recipe, name="another"))
        True
    """
    limit = "" if recipe.max_minutes is None else f"-{recipe.max_minutes:g}min"
    return f"{fingerprint(recipe)}-{SYNTHESIZER_VERSION}{limit}"


def kept_or_made(path: Path, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A result that an earlier call left, or else a new one, which is left for the next.

    Args:
        path: JSON file of the result.
        key: What it was measured on; a result of another key is not taken.
        make: Makes it.

    Returns:
        The result.

    Raises:
        ValueError: if the file holds a result of another key.
    """
    if path.exists():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["key"] != key:
            raise ValueError(f"{path} was measured on {kept['key']}, not {key}; choose another --output_dir.")
        return kept
    made = {"key": key, **make(), **environment()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(made, indent=2))
    return made


@dataclass(frozen=True)
class Job:
    """One run: a cell of a grid with one seed.

    Args:
        recipe: What to pre-train.
        folder: Where it goes, with its measurements.
        esc50_dir: A folder in ESC-50's layout.
        device: Where encoders are probed.
    """

    recipe: PretrainingRecipe
    folder: Path
    esc50_dir: Path
    device: str

    def benchmark(self) -> Benchmark:
        """The recordings, at the rate of the encoder."""
        # The rate of an extractor does not depend on its statistics, which are measured when a run begins.
        unmeasured = {"window": "hann", "mean": 0.0, "std": 1.0}
        return Benchmark.read(self.esc50_dir, build_feature_extractor(self.recipe, unmeasured).sampling_rate)

    @property
    def log(self) -> Path:
        """What a run in a process of its own has to say."""
        return self.folder / "log.txt"

    @staticmethod
    def key(benchmark: Benchmark) -> str:
        """What the measurements of a run are made on."""
        return f"{benchmark.key}, factors of {NUM_TRAINING_CLIPS} + {NUM_TEST_CLIPS} clips of {FACTOR_PRESET}"

    def run(self) -> dict[str, Any]:
        """Pre-train and probe, or take what is there.

        Returns:
            `fold_accuracies`, `factors`, `clips`, `loss`, `pretraining_seconds`, `probe_seconds`, the environment.

        Raises:
            KeyboardInterrupt: if pre-training was asked to stop; the same command goes on.
            ValueError: if the folder belongs to another data set.
        """
        benchmark = self.benchmark()

        def make() -> dict[str, Any]:
            facts = pretrain(self.recipe, self.folder / "run")
            if not facts["finished"]:
                raise KeyboardInterrupt
            started = time.perf_counter()
            model, extractor = load_encoder(self.recipe, self.folder / "run")
            found = measure(lambda clips: embed(model, extractor, clips, device=self.device), self.recipe, benchmark)
            return {
                **found,
                **{name: facts[name] for name in ("clips", "loss")},
                "pretraining_seconds": facts["seconds"],
                "pretraining_commit": facts["commit"],
                "probe_seconds": round(time.perf_counter() - started, 1),
            }

        return kept_or_made(self.folder / "result.json", self.key(benchmark), make)

    def random_encoder(self, seed: int) -> dict[str, Any]:
        """What an encoder of the same shape reaches that has learnt nothing."""
        benchmark = self.benchmark()

        def make() -> dict[str, Any]:
            model, extractor = load_encoder(self.recipe, self.folder / "run")
            untrained = random_encoder(model, seed)
            return measure(
                lambda clips: embed(untrained, extractor, clips, device=self.device), self.recipe, benchmark
            )

        return kept_or_made(self.folder / f"random_{seed}.json", self.key(benchmark), make)

    def log_mel(self) -> dict[str, Any]:
        """What the log-mel's mean and deviation reach without any encoder."""
        benchmark = self.benchmark()

        def make() -> dict[str, Any]:
            _, extractor = load_encoder(self.recipe, self.folder / "run")
            return measure(
                lambda clips: log_mel_features(extractor, clips, device=self.device), self.recipe, benchmark
            )

        return kept_or_made(self.folder / "log_mel.json", self.key(benchmark), make)


def _run_quietly(job: Job, threads: int) -> None:
    """Run a job in a process of its own, what it prints going to `log.txt` of its folder."""
    torch.set_num_threads(threads)
    logging.set_verbosity_error()
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
    grid: AblationGrid, esc50_dir: Path, output_dir: Path, command: str, device: str, processes: int = 1
) -> dict[str, Any]:
    """Run what is missing of a grid, seed by seed, so that an early stop leaves whole comparisons.

    Args:
        grid: What to run.
        esc50_dir: A folder in ESC-50's layout.
        output_dir: Receives `runs/KEY/`, and `GRID/` with `results.json`, `table.md`, `chart.png` and `chart.svg`.
        command: What a reader would type for the same.
        device: Where encoders are probed.
        processes: Runs at a time.

    Returns:
        What `results.json` holds.

    Raises:
        KeyboardInterrupt: if it was asked to stop.
        ValueError: if there is no such test fold, or `output_dir` holds results of another data set.
    """
    recipes = [grid.recipe(name, seed) for seed in grid.seeds for name in grid.cells]
    jobs = [Job(recipe, output_dir / "runs" / run_key(recipe), esc50_dir, device) for recipe in recipes]
    reference = jobs[list(grid.cells).index(grid.reference)]
    for recipe in recipes:
        factor_preset(recipe)  # for its complaints, before hours have gone by
    if processes > 1 and any(recipe.max_minutes is not None for recipe in recipes):
        raise ValueError("Runs of equal time have the machine to themselves: leave --processes at 1 with max_minutes.")
    benchmark = reference.benchmark()
    folds = np.unique(benchmark.folds).tolist()
    if unknown := sorted(set(grid.test_folds) - set(folds)):
        raise ValueError(f"test_folds are some of {folds}, those of {benchmark.name}; got {unknown}.")
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in grid.cells}
    for name, result in zip(list(grid.cells) * len(grid.seeds), run_all(jobs, processes), strict=True):
        results[name].append(result)
    results[RANDOM] = [reference.random_encoder(seed) for seed in grid.seeds]
    results[LOG_MEL] = [reference.log_mel()]
    tested = [folds.index(fold) for fold in grid.test_folds] or None
    report = {
        "grid": dataclasses.asdict(grid),
        "benchmark": benchmark.name,
        "num_clips": len(benchmark.labels),
        "folds": folds,
        "command": command,
        "environments": environments_of([run for runs in results.values() for run in runs]),
        "results": results,
        "summary": summarise(results, grid.reference, tested),
    }
    folder = output_dir / grid.name
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "results.json", json.dumps(report, indent=2) + "\n")
    write_atomically(folder / "table.md", format_table(report))
    save_both(draw_ablation(report), folder, "chart")
    return report
