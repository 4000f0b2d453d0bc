"""How fast pre-training goes, beside research code and beside transformers' ViTMAE: same device, same shapes, one run.

    python benchmarks/pretraining.py                                   # a tiny model, minutes on a CPU
    python benchmarks/pretraining.py --size base --batch_size 64 --output benchmarks/results/pretraining_gpu.json

End to end, clips per second of
  ours      training/pretrain.py's own step: synthesis and log-mel on the device, then the model;
  research  a plain PyTorch MAE fed by a DataLoader whose workers synthesize clip by clip in NumPy and call
            torchaudio's filterbank; on a GPU with autocast to float16 and GradScaler.
Model only, the same inputs again and again, of
  ours      as the recipe runs it; on a GPU also compiled;
  research  as above;
  vitmae    transformers' ViTMAE, at 256 patches (clips of 5.12 s): its pictures must be square.

The contenders take turns, round after round, and medians are reported. On a CPU without workers the clock is the
process's CPU time, all threads added up, which other users of the machine do not change; elsewhere it is the wall's.
"""

import argparse
import importlib.util
import json
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers.research_mae import ResearchMAE
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from audiopg.modeling.configuration_audiopg import AudioPGConfig
from audiopg.modeling.modeling_audiopg import AudioPGForPreTraining
from audiopg.training.engine.loop import prepare
from audiopg.training.engine.throughput import measure_peak, wait_for
from audiopg.training.objectives.masked_audio import flop_per_clip
from audiopg.training.objectives.pretraining import FAMILIES
from audiopg.training.objectives.recipe import PretrainingRecipe
from audiopg.training.runs.provenance import environment
from audiopg.training.runs.recipes import load_recipe

logger = logging.getLogger(__name__)

SQUARE_DURATION = 5.12
"""Seconds whose 32 x 8 patches are as many as a square picture's 16 x 16."""

Step = Callable[[], None]


class ResearchClips(Dataset):
    """Clips as research code makes them, one at a time in a worker, on the CPU.

    Args:
        duration: In s.
    """

    def __init__(self, duration: float) -> None:
        from peers import research_loop  # needs SciPy and torchaudio

        self.loop, self.num_samples = research_loop, round(duration * research_loop.SAMPLING_RATE)

    def __len__(self) -> int:
        return 1 << 30

    def __getitem__(self, index: int) -> Tensor:
        waveform = self.loop.clip(np.random.default_rng(index), self.num_samples, np.float32)
        return self.loop.features(waveform)[None]


def single_thread(_worker: int) -> None:
    """DataLoader workers share the cores, one thread each."""
    torch.set_num_threads(1)


def research_model(config: AudioPGConfig, num_patches: int, device: torch.device) -> ResearchMAE:
    """The plain MAE of our shape."""
    return ResearchMAE(
        num_patches,
        config.hidden_size,
        config.num_hidden_layers,
        config.num_attention_heads,
        config.decoder_hidden_size,
        config.decoder_num_hidden_layers,
        config.decoder_num_attention_heads,
        config.mask_ratio,
    ).to(device)


def vitmae_model(config: AudioPGConfig, device: torch.device) -> ViTMAEForPreTraining:
    """The MAE of transformers in our shape, for pictures of one channel and 16 x 16 patches."""
    shared = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    sizes = {name: getattr(config, name) for name in (*shared, *(f"decoder_{name}" for name in shared))}
    settings = {"image_size": 256, "num_channels": 1, "mask_ratio": config.mask_ratio, "norm_pix_loss": True}
    return ViTMAEForPreTraining(ViTMAEConfig(**sizes, **settings)).to(device).train()


def optimized(model: nn.Module, loss_of: Callable[[], Tensor], dtype: torch.dtype | None) -> Step:
    """A training step: autocast where a dtype is given, GradScaler where that is float16."""
    device = next(model.parameters()).device
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=True)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)

    def step() -> None:
        with torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None):
            loss = loss_of()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()

    return step


def our_model_step(config: AudioPGConfig, inputs: Tensor, *, compiled: bool) -> Step:
    """A step of our model on fixed inputs `(batch, frames, 128)`."""
    device = inputs.device
    model = AudioPGForPreTraining(config).to(device).train()
    if compiled:
        model.compile(dynamic=False)
    noise = torch.rand(len(inputs), inputs[0].numel() // config.patch_values, device=device)
    dtype = torch.bfloat16 if device.type == "cuda" else None
    return optimized(model, lambda: model(input_values=inputs, noise=noise).loss, dtype)


def half_on_gpu(device: torch.device) -> torch.dtype | None:
    """What research code casts to."""
    return torch.float16 if device.type == "cuda" else None


def model_only(
    config: AudioPGConfig, duration: float, batch_size: int, device: torch.device, *, vitmae: bool
) -> dict[str, Step]:
    """Steps of every contender on fixed inputs."""
    frames = round(duration * 100)
    inputs = torch.randn(batch_size, frames, config.num_mel_bins, device=device)
    num_patches = inputs[0].numel() // config.patch_values
    research = research_model(config, num_patches, device)
    steps = {
        "ours": our_model_step(config, inputs, compiled=False),
        "research": optimized(research, lambda: research(inputs[:, None]), half_on_gpu(device)),
    }
    if device.type == "cuda":
        steps["ours, compiled"] = our_model_step(config, inputs, compiled=True)
    if vitmae:
        theirs, picture = vitmae_model(config, device), inputs.reshape(batch_size, 1, 256, 256)
        dtype = torch.bfloat16 if device.type == "cuda" else None  # as ours: the difference is to be the model's
        steps["vitmae"] = optimized(theirs, lambda: theirs(picture).loss, dtype)
    return steps


def research_step(config: AudioPGConfig, duration: float, batch_size: int, workers: int, device: torch.device) -> Step:
    """A step of research code from end to end."""
    loader = DataLoader(
        ResearchClips(duration),
        batch_size=batch_size,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        persistent_workers=workers > 0,
        worker_init_fn=single_thread,
    )
    batches = iter(loader)
    num_patches = round(duration * 100) * config.num_mel_bins // config.patch_values
    model = research_model(config, num_patches, device)
    return optimized(model, lambda: model(next(batches).to(device, non_blocking=True)), half_on_gpu(device))


def our_step(recipe: PretrainingRecipe, folder: Path) -> Step:
    """A step of our pre-training from end to end, as `pretrain.py` runs it."""
    run = prepare(recipe, folder, FAMILIES[recipe.objective])
    run.model.train()
    batches, position = run.batches(0), iter(range(recipe.num_steps))

    def step() -> None:
        run.train_step(next(position), batches)

    return step


def clips_per_second(
    steps: dict[str, Step],
    batch_size: int,
    *,
    rounds: int,
    steps_per_round: int,
    device: torch.device,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median over rounds in which the contenders take turns; one round before them warms up."""
    rates: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 1):
        for name, step in steps.items():
            wait_for(device)
            started = clock()
            for _ in range(steps_per_round):
                step()
            wait_for(device)
            if turn > 0:
                rates[name].append(steps_per_round * batch_size / (clock() - started))
    return {name: round(statistics.median(values), 2) for name, values in rates.items()}


def with_ratios(rates: dict[str, float]) -> dict[str, Any]:
    """Rates, and how many times faster ours are than each other's."""
    others = [name for name in rates if not name.startswith("ours")]
    ours = max(rate for name, rate in rates.items() if name.startswith("ours"))
    return {"clips_per_second": rates, "ratio": {name: round(ours / rates[name], 2) for name in others}}


def compare(
    size: str, duration: float, batch_size: int, workers: int, device: torch.device, *, rounds: int, steps: int
) -> dict[str, Any]:
    """Every comparison.

    Args:
        size: Of the models.
        duration: Of the clips, in s, of whole rows of patches.
        batch_size: Clips per step.
        workers: Of research code's DataLoader.
        device: For all.
        rounds: Turns of each contender.
        steps: Steps per turn.

    Returns:
        Plain values for a JSON file.
    """
    config = AudioPGConfig.of_size(size)
    clock = time.process_time if device.type == "cpu" and workers == 0 else time.perf_counter
    peak = measure_peak(device, clock)
    pace: dict[str, Any] = {"rounds": rounds, "steps_per_round": steps, "device": device, "clock": clock}
    overrides = {
        "size": size,
        "num_clips": batch_size * (rounds + 2) * steps,
        "batch_size": batch_size,
        "statistics_clips": 16,
        "synthesis": {"duration": duration},
        "compile": device.type == "cuda",
        "precision": "auto",
    }
    results: dict[str, Any] = {
        **environment(),
        "settings": {
            "size": size,
            "duration": duration,
            "batch_size": batch_size,
            "workers": workers,
            "timm": importlib.util.find_spec("timm") is not None,
            "rounds": rounds,
            "steps_per_round": steps,
            "clock": clock.__name__,
        },
        "peak_flop_per_second": round(peak),
    }
    rates = clips_per_second(model_only(config, duration, batch_size, device, vitmae=False), batch_size, **pace)
    num_patches = round(duration * 100) * config.num_mel_bins // config.patch_values
    flop = flop_per_clip(config, num_patches)
    results["model_only"] = {
        **with_ratios(rates),
        "share_of_peak": {name: round(rate * flop / peak, 3) for name, rate in rates.items()},
    }
    rates = clips_per_second(model_only(config, SQUARE_DURATION, batch_size, device, vitmae=True), batch_size, **pace)
    results["model_only_256_patches"] = with_ratios(rates)
    with tempfile.TemporaryDirectory() as folder:
        recipe = load_recipe(PretrainingRecipe, "base", {**overrides, "name": "benchmark", "milestones": []})
        contenders = {"ours": our_step(recipe, Path(folder) / "run")}
        if all(importlib.util.find_spec(name) for name in ("scipy", "torchaudio")):
            contenders["research"] = research_step(config, duration, batch_size, workers, device)
        else:
            logger.warning("Research code is left out end to end: it needs SciPy and torchaudio.")
        results["end_to_end"] = with_ratios(clips_per_second(contenders, batch_size, **pace))
    return results


def format_results(results: dict[str, Any]) -> str:
    """The comparisons as a table."""
    rows = [f"{'clips/s':<24}{'contender':<18}{'rate':>10}{'ours is':>10}"]
    for name in ("model_only", "model_only_256_patches", "end_to_end"):
        part = results[name]
        for contender, rate in part["clips_per_second"].items():
            times = f"{part['ratio'][contender]:.2f} x" if contender in part["ratio"] else ""
            rows.append(f"{name:<24}{contender:<18}{rate:>10.1f}{times:>10}")
    return "\n".join(rows)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--duration", type=float, default=10.24, help="of a clip, in s")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2, help="of research code's DataLoader")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="steps per round")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/pretraining_cpu.json"))
    known = parser.parse_args(arguments)
    results = compare(
        known.size,
        known.duration,
        known.batch_size,
        known.workers,
        torch.device(known.device),
        rounds=known.rounds,
        steps=known.steps,
    )
    known.output.parent.mkdir(parents=True, exist_ok=True)
    known.output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(format_results(results) + "\n")


if __name__ == "__main__":
    main()
