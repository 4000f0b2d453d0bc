"""Pre-train the masked autoencoder on clips synthesized on the training device.

    accelerate launch training/pretrain.py training/recipes/tiny.yaml [--num_clips 1000 ...]

The run's folder receives the recipe, the measured statistics, `metrics.jsonl`, TensorBoard logs, checkpoints and, at
the end, `run.json`. The same command goes on from the last checkpoint of a run that was stopped.
"""

import dataclasses
import json
import math
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm import tqdm

from audiopg.data_scripts.synthesis import get_preset
from audiopg.modeling.configuration_audiopg import AudioPGConfig
from audiopg.modeling.feature_extraction_audiopg import AudioPGFeatureExtractor
from audiopg.modeling.modeling_audiopg import AudioPGForPreTraining
from audiopg.training.arguments import PretrainingRecipe, load_recipe, parse_overrides, recipe_parser
from audiopg.training.measure_statistics import measure_statistics
from audiopg.training.provenance import environment
from audiopg.training.sources import SyntheticSource, masking_noise


def learning_rate_at(step: int, recipe: PretrainingRecipe) -> float:
    r"""Learning rate of a step, counted from 0: linear warm-up, then constant or a half cosine to zero.

    Example:
        >>> recipe = load_recipe(PretrainingRecipe, "tiny", {"num_clips": 3200, "learning_rate": 1.0})
        >>> [round(learning_rate_at(step, recipe), 2) for step in (0, 9, 10, 55, 99)]
        [0.1, 1.0, 1.0, 0.5, 0.0]
    """
    warmup_steps = round(recipe.warmup_fraction * recipe.num_steps)
    if step < warmup_steps:
        return recipe.learning_rate * (step + 1) / warmup_steps
    if recipe.schedule == "constant":
        return recipe.learning_rate
    progress = (step - warmup_steps) / max(1, recipe.num_steps - warmup_steps)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay on matrices alone: not on biases, norms and tokens."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    is_matrix = [p.squeeze().ndim >= 2 for p in parameters]
    return [
        {"params": [p for p, m in zip(parameters, is_matrix, strict=True) if m], "weight_decay": weight_decay},
        {"params": [p for p, m in zip(parameters, is_matrix, strict=True) if not m], "weight_decay": 0.0},
    ]


def claim_run_folder(folder: Path, recipe: PretrainingRecipe) -> None:
    """Write the recipe into a new run's folder, or make sure that a run found there is of the same recipe.

    Raises:
        ValueError: if the folder belongs to another recipe, with the fields that differ.
    """
    mine, path = dataclasses.asdict(recipe), folder / "recipe.yaml"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(mine, sort_keys=False), encoding="utf-8")
        return
    theirs = yaml.safe_load(path.read_text(encoding="utf-8"))
    changed = [
        f"{k}: {theirs.get(k)!r} there, {mine.get(k)!r} here" for k in mine | theirs if theirs.get(k) != mine.get(k)
    ]
    if changed:
        listed = "\n  ".join(changed)
        raise ValueError(f"{folder} holds a run of another recipe; choose another --output_dir.\n  {listed}")


def checkpoints_of(folder: Path) -> list[Path]:
    """Complete checkpoints of a run, oldest first."""
    return sorted((folder / "checkpoints").glob("step_*[0-9]"))


def save_checkpoint(accelerator: Accelerator, folder: Path, progress: dict[str, Any], keep: int) -> None:
    """Save everything that resuming needs, to the side first and then renamed; the oldest beyond `keep` go."""
    final = folder / "checkpoints" / f"step_{progress['step']:08d}"
    partial = final.with_suffix(".partial")
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial))
    if accelerator.is_main_process:
        (partial / "progress.json").write_text(json.dumps(progress), encoding="utf-8")
        shutil.rmtree(final, ignore_errors=True)
        os.replace(partial, final)
        for old in checkpoints_of(folder)[:-keep]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()


def load_or_measure_statistics(recipe: PretrainingRecipe, folder: Path, device: torch.device) -> dict[str, Any]:
    """The statistics of the recipe's own first clips, measured once per run and kept beside it."""
    path = folder / "statistics.json"
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    preset = get_preset(recipe.preset, **recipe.synthesis)
    measured = measure_statistics(preset, recipe.seed, recipe.statistics_clips, device=device)
    path.write_text(json.dumps(measured, indent=2), encoding="utf-8")
    return measured


def build_feature_extractor(recipe: PretrainingRecipe, statistics: dict[str, Any]) -> AudioPGFeatureExtractor:
    """The extractor that goes with the model of this recipe."""
    config = AudioPGConfig.of_size(recipe.size, **recipe.model)
    return AudioPGFeatureExtractor(
        sampling_rate=get_preset(recipe.preset, **recipe.synthesis).sampling_rate,
        num_mel_bins=config.num_mel_bins,
        patch_size=config.patch_size,
        window=statistics["window"],
        mean=statistics["mean"],
        std=statistics["std"],
        statistics=statistics,
    )


class StopRequest:
    """Turns SIGINT and SIGTERM into a flag that the loop reads between two steps."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._previous = {s: signal.signal(s, self._receive) for s in (signal.SIGINT, signal.SIGTERM)}

    def _receive(self, number: int, _frame: object) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt  # asked twice: stop at once
        self.signal = number

    def restore(self) -> None:
        """Give the signals back to whoever had them."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)


class MetricsLog:
    """Averages the loss between two log lines on the device and writes `metrics.jsonl` and TensorBoard."""

    def __init__(self, accelerator: Accelerator, folder: Path, start_step: int) -> None:
        self.accelerator, self.path = accelerator, folder / "metrics.jsonl"
        self.losses: list[Tensor] = []
        self.last_loss = math.nan
        if accelerator.is_main_process:
            kept = [row for row in read_metrics(folder) if row["step"] <= start_step]
            self.path.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")

    def add(self, loss: Tensor) -> None:
        """Remember the loss of one step; nothing is read from the device yet."""
        self.losses.append(loss.detach())

    def write(self, step: int, **values: float) -> float:
        """Write a line for the steps since the last one; returns their mean loss.

        Raises:
            FloatingPointError: if it is not finite.
        """
        local = torch.stack(self.losses)
        self.losses = []
        self.last_loss = float(self.accelerator.reduce(local, reduction="mean").mean())
        if not math.isfinite(self.last_loss):
            raise FloatingPointError(
                f"The loss is {self.last_loss} in the {len(local)} steps up to {step}; the last checkpoint is sound. "
                "Lower learning_rate or max_grad_norm and start anew in another --output_dir."
            )
        row = {"step": step, "loss": self.last_loss, **values}
        self.accelerator.log({name: value for name, value in row.items() if name != "step"}, step=step)
        if self.accelerator.is_main_process:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        return self.last_loss


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """The lines of a run's `metrics.jsonl`, in order; a line cut short by a crash ends them."""
    path, rows = folder / "metrics.jsonl", []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def _clip_indices(step: int, recipe: PretrainingRecipe, accelerator: Accelerator) -> Tensor:
    """This process's share of a step's clips: together the processes see `step * batch_size ...` in order."""
    share = recipe.batch_size // accelerator.num_processes
    first = step * recipe.batch_size + accelerator.process_index * share
    return torch.arange(first, first + share)


def _prepare(recipe: PretrainingRecipe, folder: Path) -> tuple[Accelerator, nn.Module, torch.optim.Optimizer]:
    has_bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    accelerator = Accelerator(
        mixed_precision="bf16" if has_bf16 else "no", log_with="tensorboard", project_dir=str(folder)
    )
    if recipe.batch_size % accelerator.num_processes:
        raise ValueError(
            f"batch_size is shared by all processes: {recipe.batch_size} does not divide by "
            f"{accelerator.num_processes}; change one of the two."
        )
    torch.manual_seed(recipe.seed)
    model = AudioPGForPreTraining(AudioPGConfig.of_size(recipe.size, **recipe.model))
    optimizer = torch.optim.AdamW(
        parameter_groups(model, recipe.weight_decay),
        lr=recipe.learning_rate,
        betas=(recipe.betas[0], recipe.betas[1]),
        fused=True,
    )
    model, optimizer = accelerator.prepare(model, optimizer)
    return accelerator, model, optimizer


def _resume(accelerator: Accelerator, folder: Path) -> dict[str, Any]:
    """Load the newest checkpoint into what was prepared; returns the progress that it was made at."""
    found = checkpoints_of(folder)
    if not found:
        return {"step": 0, "seconds": 0.0}
    accelerator.load_state(str(found[-1]))
    return json.loads((found[-1] / "progress.json").read_text(encoding="utf-8"))


def pretrain(recipe: PretrainingRecipe, folder: Path) -> dict[str, Any]:
    """Run a recipe to its end, or to a signal, from the last checkpoint in `folder` if there is one.

    Args:
        recipe: What to run.
        folder: Where everything goes.

    Returns:
        The facts of the run, as in `run.json`: `finished`, `steps`, `clips`, `loss`, `seconds`, `clips_per_second` and
        the environment.

    Raises:
        ValueError: if the folder belongs to another recipe or the batch cannot be shared by the processes.
        FloatingPointError: if the loss is not finite.
    """
    claim_run_folder(folder, recipe)
    accelerator, model, optimizer = _prepare(recipe, folder)
    with accelerator.main_process_first():
        statistics = load_or_measure_statistics(recipe, folder, accelerator.device)
    source = SyntheticSource(
        get_preset(recipe.preset, **recipe.synthesis), recipe.seed, build_feature_extractor(recipe, statistics)
    )
    accelerator.init_trackers("tensorboard")
    progress = _resume(accelerator, folder)
    log = MetricsLog(accelerator, folder, progress["step"])
    stop = StopRequest()
    try:
        progress = _train(recipe, folder, accelerator, model, optimizer, source, progress, log, stop)
    finally:
        stop.restore()
        accelerator.end_training()
    facts = {
        "finished": progress["step"] == recipe.num_steps,
        "steps": progress["step"],
        "clips": progress["step"] * recipe.batch_size,
        "loss": log.last_loss,
        "seconds": round(progress["seconds"], 1),
        "clips_per_second": round(progress["step"] * recipe.batch_size / max(progress["seconds"], 1e-9), 1),
        **environment(),
    }
    if accelerator.is_main_process and facts["finished"]:
        (folder / "run.json").write_text(json.dumps(facts, indent=2), encoding="utf-8")
    return facts


def _train(
    recipe: PretrainingRecipe,
    folder: Path,
    accelerator: Accelerator,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    source: SyntheticSource,
    progress: dict[str, Any],
    log: MetricsLog,
    stop: StopRequest,
) -> dict[str, Any]:
    """The loop. Returns the progress reached."""
    model.train()
    first_step, started, seconds_before = progress["step"], time.perf_counter(), progress["seconds"]
    patch_size = accelerator.unwrap_model(model).config.patch_size
    bar = tqdm(
        total=recipe.num_steps,
        initial=first_step,
        unit="step",
        desc=recipe.name,
        disable=not accelerator.is_main_process,
        dynamic_ncols=True,
    )
    for step in range(first_step, recipe.num_steps):
        indices = _clip_indices(step, recipe, accelerator)
        inputs = source(indices, accelerator.device)
        num_patches = inputs["input_values"].shape[1] * inputs["input_values"].shape[2] // patch_size**2
        noise = masking_noise(recipe.seed, indices, num_patches, accelerator.device)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, recipe)
        loss = model(**inputs, noise=noise).loss
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), recipe.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        log.add(loss)
        bar.update()

        done, stopping = step + 1, stop.signal is not None
        ends = done == recipe.num_steps or stopping
        if done % recipe.log_every == 0 or ends:
            elapsed = time.perf_counter() - started
            rate = (done - first_step) * recipe.batch_size / elapsed
            progress = {"step": done, "seconds": seconds_before + elapsed}
            mean_loss = log.write(
                done,
                learning_rate=learning_rate_at(step, recipe),
                clips=done * recipe.batch_size,
                seconds=progress["seconds"],
                clips_per_second=rate,
            )
            bar.set_postfix_str(f"loss {mean_loss:.4f}, {rate:.1f} clips/s", refresh=False)
        if done % recipe.checkpoint_every == 0 or ends:
            progress = {"step": done, "seconds": seconds_before + time.perf_counter() - started}
            save_checkpoint(accelerator, folder, progress, recipe.keep_checkpoints)
        if stopping:
            break
    bar.close()
    return progress


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = recipe_parser(__doc__, "runs/NAME")
    known, rest = parser.parse_known_args(arguments)
    try:
        recipe = load_recipe(PretrainingRecipe, known.recipe, parse_overrides(rest))
        folder = known.output_dir or Path("runs") / recipe.name
        facts = pretrain(recipe, folder)
    except ValueError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    if not facts["finished"]:
        message = f"Stopped after step {facts['steps']} of {recipe.num_steps}, saved; the same command goes on.\n"
        sys.stderr.write(message)
        sys.exit(130)
    sys.stderr.write(
        f"{facts['clips']} clips in {facts['seconds']:.0f} s ({facts['clips_per_second']:.1f} clips/s), "
        f"loss {facts['loss']:.4f}: {folder}\n"
    )


if __name__ == "__main__":
    main()
