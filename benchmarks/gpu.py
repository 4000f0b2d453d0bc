"""One step of what a lent GPU is for, measured and written down at once.

    python benchmarks/gpu.py OUT_DIR speed
    python benchmarks/gpu.py OUT_DIR base SECONDS            # or small: pre-training, going on where it was stopped
    python benchmarks/gpu.py OUT_DIR probes [DATA ...]       # factors and classes, from the frozen encoder of base
    python benchmarks/gpu.py OUT_DIR finetuning [DATA]       # base by the recipe `fast`, beside one from scratch
    python benchmarks/gpu.py OUT_DIR weights RUN [FROM]      # encoder of a run in small files, the FROM-th and on

`benchmarks/gpu.sh` gives each its time. DATA is a file of `training/feature_cache.py`, or a folder of recordings.
Runs and encoders lie in OUT_DIR.run. Every finished measurement is written before the next begins, so what a time
limit cuts off loses nothing that was there. Without a GPU everything is of toy size and proves only that it runs.
"""

import argparse
import functools
import json
import math
import os
import shlex
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pretraining import clips_per_second

from audiopg.data_scripts.probe_clips import FACTORS, PROBE_SETS, probe_clips
from audiopg.data_scripts.synthesis import draw, get_preset, render
from audiopg.modeling.feature_extraction_audiopg import AudioPGFeatureExtractor
from audiopg.training.features.batches import Batches
from audiopg.training.features.cache import FeatureCache
from audiopg.training.features.embeddings import embed, log_mel_statistics, random_encoder, spectrograms_of
from audiopg.training.features.labelled import DataOptions
from audiopg.training.objectives.pretraining import TrainedRun, pretrain
from audiopg.training.objectives.recipe import PretrainingRecipe
from audiopg.training.runs.files import write_atomically, written_aside
from audiopg.training.runs.metrics_log import read_metrics
from audiopg.training.runs.names import public_word, say
from audiopg.training.runs.provenance import environment
from audiopg.training.runs.recipes import RECIPES, load_recipe

MOST_FILES = 8
"""That one call brings home."""

LARGEST_SHARD = {True: 14_900_000, False: 500_000}
"""Bytes of weights in a file, on a GPU and at toy size: in base, a block of the encoder to each."""

PACE = {True: {"rounds": 3, "steps_per_round": 3}, False: {"rounds": 1, "steps_per_round": 1}}
"""Turns per contender on a GPU, and at toy size."""

BESIDE_TRAINING = 40.0
"""Seconds of a pre-training's time that are not for its steps: imports, statistics, the last checkpoint."""

RUNS = {"base": "base", "small": "audiopg_small"}
"""Pre-trainings and their recipes."""

CHANGES: dict[str, Any] = {"precision": "bf16", "milestones": []}
"""What is changed in them: milestones would stay on the machine."""

TOY = {
    "size": "tiny",
    "synthesis": {"duration": 0.64},
    "num_clips": 32,
    "batch_size": 8,
    "statistics_clips": 8,
    "checkpoint_every": 2,
    "log_every": 1,
    "precision": "auto",
}
TOY_FINETUNING = {"epochs": 1, "batch_size": 8}
PROBE_CLIPS = {True: (400, 200), False: (24, 12)}
"""Clips of each set that factors are learnt from, and tested on: as in ablations, and at toy size."""

MAY_BE_MISSING = frozenset({"sklearn", "scipy", "threadpoolctl", "matplotlib", "datasets", "soundfile", "torchaudio"})
"""Packages that a machine may lack; what needs them is then not measured."""


class Report:
    """A JSON file that is complete after every measurement, and the first of which makes it.

    Args:
        path: The file; what an earlier run of the same step wrote is replaced.
        command: What a reader would type for the same.
    """

    def __init__(self, path: Path, command: str) -> None:
        self.path, self._lock = path, threading.Lock()
        known = environment()
        # A copy of the checkout need not hold its history.
        known["commit"] = known["commit"] or os.environ.get("COMMIT") or None
        self.values: dict[str, Any] = {**known, "command": command, "rows": {}}

    @property
    def state(self) -> Path:
        """The folder beside the results, which stays on the machine."""
        return self.path.parent.with_name(f"{self.path.parent.name}.run")

    def add(self, name: str, row: dict[str, Any], **beside: Any) -> None:
        """Add a measurement, and what else is to stand in the file, and write everything."""
        with self._lock:
            self.values |= beside
            self.values["rows"][name] = row
            write_atomically(self.path, json.dumps(self.values, indent=2) + "\n")

    @contextmanager
    def unless_missing(self, name: str) -> Iterator[None]:
        """Where a package is missing that may be, note that instead of what the block measures."""
        try:
            yield
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in MAY_BE_MISSING:
                raise
            self.add(name, {"not measured": f"{error.name} is not installed"})


def measure_speed(report: Report, device: torch.device) -> None:
    """Clips per second of synthesis, of log-mel and of both."""
    on_gpu, extractor = device.type == "cuda", AudioPGFeatureExtractor()
    for name in ("reference", "audiopg"):
        preset = get_preset(name, **({} if on_gpu else TOY["synthesis"]))
        for batch_size in (64, 512) if on_gpu else (2,):
            indices = torch.arange(batch_size)

            def made(preset=preset, indices=indices) -> torch.Tensor:
                return render(draw(preset, 0, indices), device)

            waveforms = made()
            steps = {
                "synthesis": lambda made=made: made(),
                "log-mel": lambda waveforms=waveforms: extractor.extract(waveforms),
                "together": lambda made=made: extractor.extract(made()),
            }
            rates = clips_per_second(steps, batch_size, device=device, **PACE[on_gpu])
            report.add(f"{name}, batch {batch_size}", {f"{stage} clips/s": rate for stage, rate in rates.items()})


def run_pretraining(report: Report, device: torch.device, seconds: str, *, name: str) -> None:
    """Pre-train for so many seconds at most, to the end if it comes first; the same call goes on."""
    limit = float(seconds)
    if not (math.isfinite(limit) and limit > 0):
        raise ValueError(f"SECONDS are above 0, got {seconds!r}.")
    changes = {**CHANGES, "max_minutes": max(limit - BESIDE_TRAINING, limit / 2) / 60}
    recipe = load_recipe(PretrainingRecipe, RUNS[name], changes if device.type == "cuda" else {**changes, **TOY})
    facts = pretrain(recipe, report.state / name)
    kept = ("finished", "steps", "clips", "loss", "seconds", "clips_per_second", "share_of_peak", "precision")
    report.add("run", {name: facts[name] for name in kept}, log=read_metrics(report.state / name))


def encoder_of(report: Report, name: str) -> tuple[Any, Any]:
    """Encoder, in float32, and feature extractor of a run, as far as it came."""
    run = TrainedRun.open(report.state / name)
    return run.model().base_model, run.feature_extractor()


def features_of(data: str, extractor: Any, clip_seconds: float | None = None) -> FeatureCache:
    """Features of labelled recordings, which a file has at a length of its own."""
    options = DataOptions(features=Path(data)) if Path(data).is_file() else DataOptions(data_dir=data)
    return options.cache(extractor, clip_seconds)


def measure_probes(report: Report, device: torch.device, *data: str) -> None:
    """Linear probes of frozen features on every data set, and factors of held-out clips.

    The log-mel and a random encoder stand beside. Probes are fitted by all cores, one each, while the device goes on.
    """
    from threadpoolctl import threadpool_limits

    from audiopg.training.evaluation.factor_scores import decode_above_chance
    from audiopg.training.evaluation.probes import clip_features, probe_features
    from audiopg.training.evaluation.protocols import rounds_of
    from audiopg.training.evaluation.results import FROZEN, LOG_MEL, RANDOM_ENCODER

    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.set_float32_matmul_precision("high")  # TF32, which leaves an embedding three decimals
    trained, extractor = encoder_of(report, "base")
    encoders = {FROZEN: trained, RANDOM_ENCODER: random_encoder(trained, seed=0)}

    def classes(name: str, features: Any, cache: FeatureCache) -> None:
        row = probe_features("linear", features, cache, rounds_of(cache))
        report.add(f"{cache.dataset_name}, {name}", {"mean": round(row["mean"], 4), "scores": row["scores"]})

    def factors(who: str, features: Any, values: dict[str, Any]) -> None:
        cut, _ = PROBE_CLIPS[on_gpu]
        for name, known in values.items():
            parts = features[:cut], known[:cut], features[cut:], known[cut:]
            found = decode_above_chance(*parts, FACTORS[name].kind)
            report.add(f"{name}, {who}", {"beyond chance": round(found, 4)})

    jobs = []
    with threadpool_limits(limits=1), ThreadPoolExecutor(os.cpu_count()) as pool:
        for one in data:
            with report.unless_missing(Path(one).stem):
                cache = features_of(one, extractor)
                for who, encoder in encoders.items():
                    inputs = encoder, Batches(cache, extractor), ("mean", "mel", "mel_std")
                    found = clip_features(*inputs, device=device, batch_size=64)
                    jobs += [pool.submit(classes, f"{who}{read}", each, cache) for read, each in found.items()]
                by_hand = log_mel_statistics(cache.clip_frames(clip) for clip in range(len(cache)))
                jobs.append(pool.submit(classes, LOG_MEL, by_hand, cache))
        preset = get_preset("reference", **({} if on_gpu else TOY["synthesis"]))
        for probe_set in PROBE_SETS:
            clips = probe_clips(preset, probe_set, sum(PROBE_CLIPS[on_gpu]), device=device)
            frames = list(spectrograms_of(extractor, torch.from_numpy(clips.waveforms).to(device)))
            for who, encoder in encoders.items():
                means = embed(encoder, extractor, frames, device=device, batch_size=64)[None]
                jobs.append(pool.submit(factors, who, means, clips.factors))
            jobs.append(pool.submit(factors, LOG_MEL, log_mel_statistics(frames), clips.factors))
        for job in jobs:
            job.result()


def run_finetuning(report: Report, device: torch.device, *data: str) -> None:
    """The recipe `fast` on the first data set, fold by fold, from the encoder of base and from scratch."""
    from audiopg.training.finetuning.recipe import FinetuningRecipe
    from audiopg.training.finetuning.run import FinetuningRun

    if not data:
        report.add("fast", {"not measured": "no labelled recordings were given"})
        return
    encoder, extractor = encoder_of(report, "base")
    checkpoint, folder = report.state / "base_encoder", report.state / "finetuning"
    save(encoder, extractor, checkpoint)
    changes = {} if device.type == "cuda" else TOY_FINETUNING
    recipe = load_recipe(FinetuningRecipe, RECIPES / "finetuning/fast.yaml", changes)
    cache = features_of(data[0], extractor, recipe.clip_seconds)
    settings = {"dataset": cache.dataset_name, "clip_seconds": cache.clip_seconds}

    def report_rounds(line: str = "") -> None:
        sys.stderr.write(line)
        for path in sorted((folder / "rounds").glob("*.json")):
            if path.stem not in report.values["rows"]:
                facts = json.loads(path.read_text(encoding="utf-8"))
                row = {name: round(facts[name], 4) for name in ("score", "seconds", "seconds_per_epoch")}
                report.add(path.stem, row, settings=settings)

    run = FinetuningRun(
        *(str(checkpoint), cache, replace(recipe, clip_seconds=cache.clip_seconds), folder, device.type),
        write=report_rounds,
    )
    results = run.run(["scratch"], final_model=False)
    report_rounds()
    for name, row in results["results"].items():
        report.add(name, {"mean": round(row["mean"], 4), "std": row["std"]})


def save(encoder: Any, extractor: Any, folder: Path, **options: Any) -> None:
    """A folder for `from_pretrained`, in the place of what is there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(folder) as partial:
        encoder.save_pretrained(partial, **options)
        extractor.save_pretrained(partial)


def bring_weights(report: Report, device: torch.device, name: str, first: str = "1") -> None:
    """Encoder of a run in bfloat16: its files from the FROM-th on, as many as one call brings home.

    All of them in one folder are a checkpoint, which `from_pretrained` computes with in float32.
    """
    output = report.path.parent
    encoder, extractor = encoder_of(report, name)
    folder = report.state / f"{name}_bf16"
    halves = {key: value.to(torch.bfloat16) for key, value in encoder.state_dict().items()}
    save(encoder, extractor, folder, state_dict=halves, max_shard_size=LARGEST_SHARD[device.type == "cuda"])
    files = sorted(folder.iterdir())
    if not (first.isdecimal() and 1 <= int(first) <= len(files)):
        raise ValueError(f"{folder.name} has files 1 to {len(files)}, and FROM is one of them; got {first!r}.")
    start = int(first) - 1
    there = {path for path in output.rglob("*") if path.is_file()} - {output / folder.name / f.name for f in files}
    chosen = files[start : start + max(MOST_FILES - len(there), 0)]
    if not chosen:
        raise ValueError(f"A call brings {MOST_FILES} files home, and {len(there)} are there; empty {output}.")
    shutil.rmtree(output / folder.name, ignore_errors=True)
    (output / folder.name).mkdir()
    for path in chosen:
        shutil.copyfile(path, output / folder.name / path.name)
    last = start + len(chosen)
    rest = f"go on with: weights {name} {last + 1}" if last < len(files) else "these are the last"
    say(f"{folder.name}: files {first} to {last} of {len(files)}; {rest}")


STEPS: dict[str, Callable[..., None]] = {
    "speed": measure_speed,
    **{name: functools.partial(run_pretraining, name=name) for name in RUNS},
    "probes": measure_probes,
    "finetuning": run_finetuning,
    "weights": bring_weights,
}


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("output", type=Path)
    parser.add_argument("step", choices=list(STEPS))
    parser.add_argument("words", nargs="*", help="of the step")
    known = parser.parse_args(arguments)
    words = sys.argv[1:] if arguments is None else arguments
    known.output.mkdir(parents=True, exist_ok=True)
    report = Report(
        known.output.absolute() / f"{known.step}.json",
        shlex.join(["python", "benchmarks/gpu.py", *map(public_word, words)]),
    )
    try:
        with report.unless_missing(known.step):
            STEPS[known.step](report, torch.device("cuda" if torch.cuda.is_available() else "cpu"), *known.words)
    except (OSError, ValueError, FloatingPointError) as error:
        parser.exit(2, f"{parser.prog} {known.step}: {error}\n")


if __name__ == "__main__":
    main()
