"""One part of what wants a GPU, measured and written down at once.

    python benchmarks/gpu.py OUT_DIR synthesis | model | comparisons | base | doubles

`benchmarks/gpu.sh` runs them in order. Without a GPU everything is of toy size and proves only that it runs. Every
finished measurement is written before the next begins, so what a time limit cuts off loses nothing that was there.
"""

import argparse
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pretraining import clips_per_second, compare, our_model_step

from audiopg.data_scripts.patterns import get_patterns
from audiopg.data_scripts.synthesis import draw, get_preset, render
from audiopg.data_scripts.voices import ARCHITECTURES, get_voice
from audiopg.modeling.configuration_audiopg import AudioPGConfig
from audiopg.modeling.feature_extraction_audiopg import AudioPGFeatureExtractor
from audiopg.training.engine.loop import profile
from audiopg.training.engine.throughput import measure_peak
from audiopg.training.objectives.masked_audio import flop_per_clip
from audiopg.training.objectives.pretraining import FAMILIES, TrainedRun, pretrain
from audiopg.training.objectives.recipe import PretrainingRecipe
from audiopg.training.objectives.sources import VoiceSource
from audiopg.training.runs.files import write_atomically
from audiopg.training.runs.metrics_log import read_metrics
from audiopg.training.runs.provenance import environment
from audiopg.training.runs.recipes import load_recipe

LARGEST_SHARD = "14MB"
PACE = {True: {"rounds": 5, "steps_per_round": 5}, False: {"rounds": 1, "steps_per_round": 1}}
"""Turns per contender on a GPU, and at toy size."""

TOY = {
    "size": "tiny",
    "synthesis": {"duration": 0.64},
    "num_clips": 32,
    "batch_size": 8,
    "statistics_clips": 8,
    "checkpoint_every": 2,
    "milestones": [],
    "log_every": 1,
    "precision": "auto",
}


class Report:
    """A JSON file that is complete after every measurement.

    Args:
        path: The file; what an earlier run of the same part wrote is replaced.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.values: dict[str, Any] = {**environment(), "rows": {}}

    def add(self, name: str, value: Any) -> None:
        """Add a measurement and write everything."""
        self.values["rows"][name] = value
        write_atomically(self.path, json.dumps(self.values, indent=2) + "\n")


def measure_synthesis(output: Path, device: torch.device) -> None:
    """Clips per second of waveforms alone and of standardised log-mel; sounds of voices, images of patterns."""
    on_gpu, report, extractor = device.type == "cuda", Report(output / "synthesis.json"), AudioPGFeatureExtractor()
    for name in ("reference", "audiopg"):
        preset = get_preset(name, **({} if on_gpu else TOY["synthesis"]))
        for batch_size in (64, 512) if on_gpu else (2,):
            indices = torch.arange(batch_size)

            def waveforms(preset=preset, indices=indices) -> torch.Tensor:
                return render(draw(preset, 0, indices), device)

            steps = {
                "waveform": lambda make=waveforms: make(),
                "log-mel": lambda make=waveforms: extractor.extract(make()),
            }
            rates = clips_per_second(steps, batch_size, device=device, **PACE[on_gpu])
            report.add(f"{name}, batch {batch_size}", {f"{stage} clips/s": rate for stage, rate in rates.items()})

    batch_size = 768 if on_gpu else 2
    for name in ARCHITECTURES:
        source = VoiceSource(get_voice(name), seed=0)
        sounds = {"sounds": lambda source=source: source.waveforms(source.draw(torch.arange(batch_size)), device)}
        rate = clips_per_second(sounds, batch_size, device=device, **PACE[on_gpu])["sounds"]
        report.add(f"{name}, batch {batch_size}", {"times real time": rate})  # they last 1 s
    batch_size, size = (256, 224) if on_gpu else (2, 32)
    for name in ("zone_plates", "spectrum", "shaders", "dead_leaves_mixed", "fractaldb", "visualatom"):
        images = {"images": lambda name=name: get_patterns(name).images(0, range(batch_size), size, device)}
        rate = clips_per_second(images, batch_size, device=device, **PACE[on_gpu])["images"]
        report.add(f"{name}, {size} pixels, batch {batch_size}", {"images/s": rate})


def measure_model(output: Path, device: torch.device) -> None:
    """Clips per second and share of the peak of the model alone, then where a whole step's time goes."""
    on_gpu, report = device.type == "cuda", Report(output / "model.json")
    peak = measure_peak(device)
    report.add("peak", {"TFLOP/s": round(peak / 1e12, 3)})
    config = AudioPGConfig.of_size("base" if on_gpu else "tiny")
    frames = 1024 if on_gpu else 64
    flop = flop_per_clip(config, frames * config.num_mel_bins // config.patch_values)
    for batch_size in (64, 256, 512) if on_gpu else (2,):
        for compiled in (False, True) if on_gpu else (False,):
            inputs = torch.randn(batch_size, frames, config.num_mel_bins, device=device)
            steps = {"ours": our_model_step(config, inputs, compiled=compiled)}
            rate = clips_per_second(steps, batch_size, device=device, **PACE[on_gpu])["ours"]
            name = f"batch {batch_size}{', compiled' if compiled else ''}"
            report.add(name, {"clips/s": rate, "share of peak": round(rate * flop / peak, 3)})
    for name in ("base", "base_fast") if on_gpu else ("base",):
        recipe = _recipe(name, on_gpu, {"statistics_clips": 64} if on_gpu else {})
        table = profile(recipe, output.with_name(f"{output.name}.run") / f"profile_{name}", FAMILIES[recipe.objective])
        report.add(f"profile of {name}", {"ms per step": dict(_phases(table))})
        (output / f"profile_{name}.txt").write_text(table + "\n", encoding="utf-8")


def _phases(table: str) -> list[tuple[str, float]]:
    rows = [line.split() for line in table.splitlines()[1:]]
    return [(row[0], float(row[1])) for row in rows]


def measure_comparisons(output: Path, device: torch.device) -> None:
    """Beside research code and ViTMAE, as `benchmarks/pretraining.py`."""
    on_gpu, report = device.type == "cuda", Report(output / "comparisons.json")
    if on_gpu:
        results = compare("base", 10.24, 64, 4, device, rounds=5, steps=5)
    else:
        results = compare("tiny", 0.64, 2, 0, device, rounds=1, steps=1)
    for name in ("model_only", "model_only_256_patches", "end_to_end"):
        ratios = {f"times {contender}": ratio for contender, ratio in results[name]["ratio"].items()}
        report.add(name, {**results[name]["clips_per_second"], **ratios})
    report.add("settings", results["settings"])


def _recipe(name: str, on_gpu: bool, changes: dict[str, Any]) -> PretrainingRecipe:
    return load_recipe(PretrainingRecipe, name, changes if on_gpu else {**TOY, "compile": False, **changes})


def run_base(output: Path, device: torch.device) -> None:
    """Pre-train `base` to its end, going on from where a run before was cut off; loss curve and bf16 weights."""
    report, folder = Report(output / "base.json"), output.with_name(f"{output.name}.run") / "base"
    recipe = _recipe("base", device.type == "cuda", {})
    facts = pretrain(recipe, folder)
    names = ("finished", "steps", "clips", "loss", "seconds", "clips_per_second", "share_of_peak")
    report.add("run", {name: facts[name] for name in names})
    rows = read_metrics(folder)
    (output / "base_loss.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    if importlib.util.find_spec("matplotlib"):
        from audiopg.training.objectives.pictures import draw_loss

        draw_loss(rows, output / "base_loss.png", f"{recipe.name}: pre-training")
    else:
        sys.stderr.write("matplotlib is not installed: no picture of the loss curve.\n")
    model = TrainedRun.open(folder).model()
    model.to(torch.bfloat16).save_pretrained(output / "base_bf16", max_shard_size=LARGEST_SHARD)


def run_doubles(output: Path, device: torch.device) -> None:
    """The recipe of Audio Doppelgängers for five minutes, going on from where a run before was cut off."""
    report, folder = Report(output / "doubles.json"), output.with_name(f"{output.name}.run") / "doubles"
    on_gpu = device.type == "cuda"
    toy = {"size": "resnet_tiny", "num_clips": 16, "batch_size": 8, "checkpoint_every": 1, "log_every": 1}
    recipe = load_recipe(PretrainingRecipe, "doppelgangers", {"max_minutes": 5} if on_gpu else toy)
    facts = pretrain(recipe, folder)
    names = ("finished", "steps", "clips", "loss", "seconds", "clips_per_second", "share_of_peak")
    report.add("run", {name: facts[name] for name in names})
    rows = read_metrics(folder)
    (output / "doubles_loss.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    TrainedRun.open(folder).model().to(torch.bfloat16).save_pretrained(
        output / "doubles_bf16", max_shard_size=LARGEST_SHARD
    )


PARTS: dict[str, Callable[[Path, torch.device], None]] = {
    "synthesis": measure_synthesis,
    "model": measure_model,
    "comparisons": measure_comparisons,
    "base": run_base,
    "doubles": run_doubles,
}


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("output", type=Path)
    parser.add_argument("part", choices=list(PARTS))
    known = parser.parse_args(arguments)
    known.output.mkdir(parents=True, exist_ok=True)
    PARTS[known.part](known.output.resolve(), torch.device("cuda" if torch.cuda.is_available() else "cpu"))


if __name__ == "__main__":
    main()
