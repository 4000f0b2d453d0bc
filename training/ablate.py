"""Which ingredient taught what: a grid of recipes, each pre-trained and probed on real sounds by one protocol.

    python training/ablate.py ladder --esc50_dir FOLDER [--output_dir ablations/ladder]
    python training/ablate.py events --esc50_dir FOLDER --seeds "[0, 1, 2]" --overrides.num_clips 40000

A grid names a base recipe, what every cell changes, and the cells. Each cell is pre-trained with each seed; frozen
embeddings are then read by a linear probe over the official folds. The same command goes on where it was stopped:
finished cells are kept, and one that was cut short goes on from its checkpoint. `table.md` and `results.json` have
accuracies, differences to the grid's reference cell with intervals, a random encoder, the log-mel, and the paper's
figures beside.
"""

import argparse
import dataclasses
import json
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from transformers.utils import logging

from audiopg.data_scripts.audio_files import read_audio_files
from audiopg.data_scripts.benchmarks import load_esc50
from audiopg.modeling.configuration_audiopg import AudioPGConfig
from audiopg.modeling.feature_extraction_audiopg import AudioPGFeatureExtractor
from audiopg.modeling.modeling_audiopg import AudioPGForPreTraining, AudioPGModel
from audiopg.training.arguments import RECIPES, PretrainingRecipe, load_recipe, parse_overrides
from audiopg.training.building import build_feature_extractor
from audiopg.training.checkpoints import WEIGHTS, checkpoints_of, fingerprint, write_atomically
from audiopg.training.pretrain import pretrain
from audiopg.training.probe import embed, linear_probe, log_mel_features, random_encoder
from audiopg.training.provenance import environment
from audiopg.training.scores import mean_and_interval

GRIDS = RECIPES / "ablations"
RANDOM, LOG_MEL = "random encoder", "log-mel mean and deviation"


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
    """

    name: str
    description: str
    base: str
    reference: str
    cells: dict[str, Any]
    overrides: dict[str, Any] = field(default_factory=dict)
    seeds: list[int] = field(default_factory=lambda: [0, 1])

    def __post_init__(self) -> None:
        """Refuse what cannot be compared."""
        if self.reference not in self.cells:
            raise ValueError(f"reference is one of the cells, {', '.join(self.cells)}; got {self.reference!r}.")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds are one or more different numbers, got {self.seeds}.")
        for name, cell in self.cells.items():
            if not isinstance(cell, dict) or set(cell) - {"overrides", "paper"}:
                raise ValueError(f"cells.{name} has `overrides` and perhaps `paper`, got {cell!r}.")
        for name in self.cells:
            self.recipe(name, self.seeds[0])  # a wrong field is found before hours have gone by

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
    """Real recordings in memory, and how to read features of them.

    Args:
        name: Of the data set.
        waveforms: At the sampling rate of the encoders, each `(samples,)`.
        labels: Class of each clip.
        folds: Official fold of each clip.
        device: Where encoders run.
    """

    name: str
    waveforms: Sequence[Any]
    labels: np.ndarray
    folds: np.ndarray
    device: str

    @classmethod
    def read(cls, folder: Path, sampling_rate: int, device: str) -> "Benchmark":
        """Read a folder in ESC-50's layout."""
        dataset = load_esc50(folder)
        waveforms = read_audio_files(dataset["audio"], sampling_rate)
        return cls(dataset.info.dataset_name, waveforms, np.array(dataset["label"]), np.array(dataset["fold"]), device)

    def probe(self, features: np.ndarray) -> list[float]:
        """Accuracy of the linear probe in each fold."""
        return linear_probe(features, self.labels, self.folds)["fold_accuracies"]

    def probe_encoder(self, model: Any, feature_extractor: AudioPGFeatureExtractor) -> list[float]:
        """Accuracy of the linear probe on frozen embeddings in each fold."""
        return self.probe(embed(model, feature_extractor, self.waveforms, device=self.device))


def load_encoder(recipe: PretrainingRecipe, run_folder: Path) -> tuple[AudioPGModel, AudioPGFeatureExtractor]:
    """The encoder of a finished run, and its feature extractor."""
    model = AudioPGForPreTraining(AudioPGConfig.of_size(recipe.size, **recipe.model))
    model.load_state_dict(load_file(checkpoints_of(run_folder)[-1] / WEIGHTS), strict=True)
    statistics = json.loads((run_folder / "statistics.json").read_text(encoding="utf-8"))
    return model.audiopg, build_feature_extractor(recipe, statistics)


def kept_or_made(path: Path, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A result that an earlier call left, or else a new one, which is left for the next.

    Args:
        path: JSON file of the result.
        key: What defines it; a result of another key is not taken.
        make: Makes it.

    Returns:
        The result.

    Raises:
        ValueError: if the file holds a result of another key.
    """
    if path.exists():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["key"] != key:
            raise ValueError(f"{path} was made from another recipe or data set; choose another --output_dir.")
        return kept
    made = {"key": key, **make()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(made, indent=2))
    return made


def run_cell(recipe: PretrainingRecipe, benchmark: Benchmark, folder: Path) -> dict[str, Any]:
    """Pre-train and probe, or take what is there.

    Args:
        recipe: Of the cell, with its seed.
        benchmark: To probe on.
        folder: Of the cell and seed.

    Returns:
        `fold_accuracies`, `clips`, `loss`, `pretraining_seconds` and `probe_seconds`.

    Raises:
        KeyboardInterrupt: if pre-training was asked to stop; the same command goes on.
        ValueError: if the folder belongs to another recipe or data set.
    """

    def make() -> dict[str, Any]:
        facts = pretrain(recipe, folder / "run")
        if not facts["finished"]:
            raise KeyboardInterrupt
        started = time.perf_counter()
        accuracies = benchmark.probe_encoder(*load_encoder(recipe, folder / "run"))
        return {
            "fold_accuracies": accuracies,
            **{name: facts[name] for name in ("clips", "loss")},
            "pretraining_seconds": facts["seconds"],
            "probe_seconds": round(time.perf_counter() - started, 1),
            **environment(),
        }

    return kept_or_made(folder / "result.json", f"{fingerprint(recipe)} {benchmark.name}", make)


def run_baselines(grid: AblationGrid, benchmark: Benchmark, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """What no pre-training reaches: random encoders of the reference cell's shape, and the log-mel.

    Returns:
        Results by name, one per seed, of the log-mel a single one.
    """
    recipe = grid.recipe(grid.reference, grid.seeds[0])
    run_folder = folder / "cells" / grid.reference / f"seed_{grid.seeds[0]}" / "run"

    def of_random(seed: int) -> dict[str, Any]:
        encoder, extractor = load_encoder(recipe, run_folder)
        return {"fold_accuracies": benchmark.probe_encoder(random_encoder(encoder, seed), extractor)}

    def of_log_mel() -> dict[str, Any]:
        _, extractor = load_encoder(recipe, run_folder)
        features = log_mel_features(extractor, benchmark.waveforms, device=benchmark.device)
        return {"fold_accuracies": benchmark.probe(features)}

    key, baselines = f"{fingerprint(recipe)} {benchmark.name}", folder / "baselines"
    return {
        RANDOM: [
            kept_or_made(baselines / f"random_{seed}.json", key, lambda seed=seed: of_random(seed))  # type: ignore[misc]
            for seed in grid.seeds
        ],
        LOG_MEL: [kept_or_made(baselines / "log_mel.json", key, of_log_mel)],
    }


def summarise(
    results: Mapping[str, Sequence[Mapping[str, Any]]], reference: str
) -> dict[str, dict[str, dict[str, float | None]]]:
    """Accuracy of every cell and its difference to the reference.

    Both intervals are Student's, 95 %. That of the accuracy is over seeds, each the mean of its folds. That of the
    difference is over all pairs of seed and fold: the cells are tested on the same clips, so that the fold's
    difficulty, most of the spread, drops out. Folds share training clips, so it is a guide and no proof.

    Args:
        results: By cell, one result per seed, in the same order, each with `fold_accuracies`.
        reference: The cell to compare with.

    Returns:
        For each cell `accuracy` and `difference`, as from `mean_and_interval`. A cell of one result is compared
        with every seed.

    Example:
        >>> cells = {"a": [{"fold_accuracies": [0.5, 0.7]}], "b": [{"fold_accuracies": [0.6, 0.8]}]}
        >>> round(summarise(cells, "a")["b"]["difference"]["low"], 3)
        0.1
    """
    accuracies = {name: np.array([r["fold_accuracies"] for r in found]) for name, found in results.items()}
    return {
        name: {
            "accuracy": mean_and_interval(folds.mean(axis=1).tolist()),
            "difference": mean_and_interval((folds - accuracies[reference]).ravel().tolist()),
        }
        for name, folds in accuracies.items()
    }


def is_beyond_spread(difference: Mapping[str, float | None]) -> bool:
    """Whether an interval of a difference leaves zero out.

    Example:
        >>> is_beyond_spread({"mean": 0.1, "low": -0.1, "high": 0.3})
        False
    """
    low, high = difference["low"], difference["high"]
    return low is not None and high is not None and (low > 0 or high < 0)


def verdict(difference: Mapping[str, float | None], num_seeds: int) -> str:
    """Whether a difference is larger than its spread, in a word; one seed cannot say, however many folds it has.

    Example:
        >>> verdict({"mean": 0.1, "low": 0.05, "high": 0.15}, num_seeds=1)
        'one seed'
    """
    if num_seeds < 2:
        return "one seed"
    return "yes" if is_beyond_spread(difference) else "no"


def format_table(grid: AblationGrid, results: Mapping[str, Sequence[Mapping[str, Any]]], benchmark_name: str) -> str:
    """All cells as a Markdown table, in per cent."""
    lines = [
        f"| {grid.name} | clips | minutes | {benchmark_name}, linear probe | difference to {grid.reference} "
        "| beyond its spread | paper, fine-tuned |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, found in summarise(results, grid.reference).items():
        accuracy, difference = found["accuracy"], found["difference"]
        runs, trained = results[name], "clips" in results[name][0]
        minutes = np.mean([run["pretraining_seconds"] for run in runs]) / 60 if trained else 0.0
        spread = "" if accuracy["std"] is None else f" ± {100 * accuracy['std']:.2f}"
        interval = (
            "" if difference["low"] is None else f" [{_percent(difference, 'low')}, {_percent(difference, 'high')}]"
        )
        is_other = name != grid.reference
        cells = [
            name,
            f"{np.mean([run['clips'] for run in runs]):.0f}" if trained else "0",
            f"{minutes:.1f}",
            f"{_percent(accuracy, 'mean', sign=False)}{spread} ({len(runs)})",
            f"{_percent(difference, 'mean')}{interval}" if is_other else "",
            verdict(difference, len(grid.seeds)) if is_other else "",
            str(grid.cells.get(name, {}).get("paper", "")),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    seeds = ", ".join(map(str, grid.seeds))
    lines += [
        "",
        f"Mean ± standard deviation over seeds {seeds}, their number in brackets; 95 % intervals by seed and fold.",
    ]
    return "\n".join(lines) + "\n"


def _percent(found: Mapping[str, float | None], name: str, *, sign: bool = True) -> str:
    value = 100 * (found[name] or 0.0)
    return f"{value:+.2f}" if sign else f"{value:.2f}"


def ablate(grid: AblationGrid, esc50_dir: Path, output_dir: Path, command: str, device: str) -> dict[str, Any]:
    """Run what is missing of a grid, seed by seed, so that an early stop leaves whole comparisons.

    Args:
        grid: What to run.
        esc50_dir: A folder in ESC-50's layout.
        output_dir: Receives `cells/NAME/seed_N/`, `baselines/`, `results.json` and `table.md`.
        command: What a reader would type for the same.
        device: Where encoders are probed.

    Returns:
        What `results.json` holds.

    Raises:
        KeyboardInterrupt: if it was asked to stop.
        ValueError: if `output_dir` belongs to another grid or data set.
    """
    # The rate of an extractor does not depend on its statistics, which are measured when a cell begins.
    unmeasured = {"window": "hann", "mean": 0.0, "std": 1.0}
    recipes = [grid.recipe(name, grid.seeds[0]) for name in grid.cells]
    sampling_rates = {build_feature_extractor(recipe, unmeasured).sampling_rate for recipe in recipes}
    if len(sampling_rates) > 1:
        raise ValueError(f"Cells of one grid have one sampling rate, got {sorted(sampling_rates)}.")
    benchmark = Benchmark.read(esc50_dir, sampling_rates.pop(), device)
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in grid.cells}
    for seed in grid.seeds:
        for name, found in results.items():
            found.append(run_cell(grid.recipe(name, seed), benchmark, output_dir / "cells" / name / f"seed_{seed}"))
    results |= run_baselines(grid, benchmark, output_dir)
    report = {
        "grid": dataclasses.asdict(grid),
        "benchmark": benchmark.name,
        "num_clips": len(benchmark.labels),
        "command": command,
        **environment(),
        "results": results,
        "summary": summarise(results, grid.reference),
    }
    write_atomically(output_dir / "results.json", json.dumps(report, indent=2) + "\n")
    write_atomically(output_dir / "table.md", format_table(grid, results, benchmark.name))
    return report


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("grid", help="a YAML file, or the name of a grid of the package, such as ladder")
    parser.add_argument("--esc50_dir", type=Path, required=True, help="folder that holds meta/esc50.csv and audio/")
    parser.add_argument("--output_dir", type=Path, help="default ablations/NAME")
    known, rest = parser.parse_known_args(arguments)
    logging.set_verbosity_error()
    words = sys.argv[1:] if arguments is None else arguments
    try:
        grid = load_grid(known.grid, parse_overrides(rest))
        output_dir = known.output_dir or Path("ablations") / grid.name
        command = shlex.join(["python", "training/ablate.py", *words])
        ablate(grid, known.esc50_dir, output_dir, command, "cuda" if torch.cuda.is_available() else "cpu")
    except (OSError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, f"{parser.prog}: stopped; the same command goes on.\n")
    sys.stdout.write((output_dir / "table.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
