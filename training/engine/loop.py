"""Pre-train the masked autoencoder on clips synthesized on the training device, or on unlabelled recordings.

    accelerate launch training/pretrain.py training/recipes/tiny.yaml [--num_clips 1000 ...]
    python training/pretrain.py training/recipes/base.yaml --profile

The run's folder receives the recipe, the statistics, `metrics.jsonl`, TensorBoard logs, checkpoints and, at the end,
`run.json`. The same command goes on from the last checkpoint of a run that was stopped or killed; a run is defined by
its recipe alone, so it may go on with another number of processes. `--profile` prints where a step's time goes.
"""

import json
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from audiopg.training.engine.throughput import PhaseTimer, measure_peak
from audiopg.training.objectives.building import build_model, build_source, flop_per_step, load_or_find_statistics
from audiopg.training.objectives.sources import Source, masking_noise, training_batches
from audiopg.training.runs.checkpoints import (
    CheckpointWriter,
    checkpoints_of,
    claim_run_folder,
    fingerprint,
    load_checkpoint,
    newest_sound_checkpoint,
    write_atomically,
)
from audiopg.training.runs.metrics_log import MetricsLog, read_metrics
from audiopg.training.runs.provenance import environment
from audiopg.training.runs.recipes import PretrainingRecipe

__all__ = [
    "checkpoints_of",
    "claim_run_folder",
    "learning_rate_at",
    "parameter_groups",
    "pretrain",
    "profile",
    "read_metrics",
]

PROFILED_STEPS, WARM_UP_STEPS = 10, 3


def learning_rate_at(step: int, recipe: PretrainingRecipe) -> float:
    r"""Learning rate of a step, counted from 0: linear warm-up, then constant or a half cosine to zero.

    Example:
        >>> from audiopg.training.runs.recipes import load_recipe
        >>> recipe = load_recipe(PretrainingRecipe, "tiny", {"num_clips": 1600, "learning_rate": 1.0})
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


def any_process(accelerator: Accelerator, *flags: bool) -> list[bool]:
    """Which flags are up in any process: all processes get the same answer, and all must ask."""
    if accelerator.num_processes == 1:
        return list(flags)
    raised = torch.tensor(flags, dtype=torch.float32, device=accelerator.device)
    return [count > 0 for count in accelerator.reduce(raised, reduction="sum").tolist()]


@contextmanager
def one_order_of_sums(device: torch.device) -> Iterator[None]:
    """Have a GPU add in one order, as attention's backward pass does not by itself: resumed runs end at equal bits.

    For the model alone: synthesis adds in one order anyway, and would be slowed down.
    """
    if device.type != "cuda":
        yield
        return
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@dataclass
class Run:
    """A recipe with everything that was built for it."""

    recipe: PretrainingRecipe
    folder: Path
    accelerator: Accelerator
    model: nn.Module
    optimizer: torch.optim.Optimizer
    source: Source

    @property
    def share(self) -> int:
        """Clips of a step that this process takes."""
        return self.recipe.batch_size // self.accelerator.num_processes

    @property
    def micro_batch_size(self) -> int:
        """Clips that go through the model at a time."""
        return min(self.share, self.recipe.micro_batch_size or self.share)

    @property
    def bare_optimizer(self) -> torch.optim.Optimizer:
        """The optimizer without accelerate's wrapper."""
        return getattr(self.optimizer, "optimizer", self.optimizer)

    def clips(self, first_step: int) -> Iterator[range]:
        """This process's clips, a micro-batch at a time: together the processes see `step * batch_size ...` in order.

        A process takes a run of neighbouring clips, and cuts it into neighbouring micro-batches.
        """
        for step in range(first_step, self.recipe.num_steps):
            first = step * self.recipe.batch_size + self.accelerator.process_index * self.share
            for start in range(first, first + self.share, self.micro_batch_size):
                yield range(start, start + self.micro_batch_size)

    def batches(self, first_step: int) -> Iterator[dict[str, Tensor]]:
        """Model inputs and noise of `clips`."""
        return training_batches(self.source, self.recipe.seed, self.clips(first_step), self.accelerator.device)

    def train_step(self, step: int, batches: Iterator[dict[str, Tensor]]) -> tuple[Tensor, Tensor]:
        """One step of the optimizer; returns its loss and gradient norm, scalars that are still on the device.

        Every clip hides as many patches as every other, so the mean over equal parts is the mean over the step.
        """
        parts = self.share // self.micro_batch_size
        total = torch.zeros((), device=self.accelerator.device)
        for part in range(parts):
            inputs = next(batches)
            # Gradients travel between processes once a step, with the last part.
            travels = nullcontext() if part == parts - 1 else self.accelerator.no_sync(self.model)
            with travels, one_order_of_sums(self.accelerator.device):
                loss = self.model(**inputs).loss / parts
                self.accelerator.backward(loss)
            total += loss.detach()
        return total, self.update(step)

    def update(self, step: int) -> Tensor:
        """Clip the gradients and let the optimizer use them; returns their norm."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(step, self.recipe)
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.recipe.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return norm.full_tensor() if isinstance(norm, DTensor) else cast(Tensor, norm)  # FSDP's is in pieces


def _build_accelerator(recipe: PretrainingRecipe, folder: Path) -> Accelerator:
    has_bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    accelerator = Accelerator(
        mixed_precision="bf16" if has_bf16 else "no", log_with="tensorboard", project_dir=str(folder)
    )
    share, rest = divmod(recipe.batch_size, accelerator.num_processes)
    if rest or share % min(share, recipe.micro_batch_size or share):
        raise ValueError(
            f"batch_size is shared by all processes and taken in equal parts: {recipe.batch_size} clips do not divide "
            f"by {accelerator.num_processes} processes and micro_batch_size {recipe.micro_batch_size}; change one."
        )
    return accelerator


def prepare_run(recipe: PretrainingRecipe, folder: Path) -> Run:
    """Claim the folder and build everything that a run needs.

    Raises:
        ValueError: if the folder belongs to another recipe, the batch cannot be shared by the processes, or the
            weights to start from do not fit.
    """
    accelerator = _build_accelerator(recipe, folder)
    with accelerator.main_process_first():
        claim_run_folder(folder, recipe)
        statistics = load_or_find_statistics(recipe, folder, accelerator.device)
    model = build_model(recipe)
    optimizer = torch.optim.AdamW(
        parameter_groups(model, recipe.weight_decay),
        lr=recipe.learning_rate,
        betas=(recipe.betas[0], recipe.betas[1]),
        fused=True,
    )
    if recipe.compile:
        model.compile(dynamic=False)
    model, optimizer = accelerator.prepare(model, optimizer)
    return Run(recipe, folder, accelerator, model, optimizer, build_source(recipe, statistics))


def _resume(run: Run) -> dict[str, Any]:
    """Load the newest sound checkpoint into what was prepared; returns its manifest, or that of a fresh start."""
    found: list[Any] = [None]
    if run.accelerator.is_main_process:
        found = [newest_sound_checkpoint(run.folder, fingerprint(run.recipe))]
    broadcast_object_list(found)  # one process reads and judges, all go on from the same
    if found[0] is None:
        return {"step": 0, "seconds": 0.0, "losses": []}
    path, manifest = found[0]
    load_checkpoint(path, run.model, run.bare_optimizer)
    return manifest


def pretrain(recipe: PretrainingRecipe, folder: Path) -> dict[str, Any]:
    """Run a recipe to its end, or to a signal, from the last checkpoint in `folder` if there is one.

    Args:
        recipe: What to run.
        folder: Where everything goes.

    Returns:
        The facts of the run, as in `run.json`: `finished`, `steps`, `clips`, `loss`, `seconds`, `clips_per_second`,
        `flop_per_step`, `peak_flop_per_second`, `share_of_peak` and the environment.

    Raises:
        ValueError: as `prepare_run`, or if no checkpoint of the run can be trusted.
        FloatingPointError: if a loss is not finite, with the step, its clips and the last checkpoint.
        OSError: if the last checkpoint of the run could not be saved; those before are intact.
    """
    run = prepare_run(recipe, folder)
    progress = _resume(run)
    facts_file = folder / "run.json"
    if _is_over(recipe, progress) and facts_file.exists():
        return json.loads(facts_file.read_text(encoding="utf-8"))  # of the machine that it ran on, not of this one
    run.accelerator.wait_for_everyone()
    if run.accelerator.is_main_process:
        facts_file.unlink(missing_ok=True)  # a run that goes on has not finished
    run.accelerator.init_trackers("tensorboard", init_kwargs={"tensorboard": {"purge_step": progress["step"] + 1}})
    log = MetricsLog(run.accelerator, folder, recipe.batch_size, progress["step"], progress["losses"])
    peak = measure_peak(run.accelerator.device) * run.accelerator.num_processes
    writer = CheckpointWriter(
        folder,
        fingerprint(recipe),
        keep=recipe.keep_checkpoints,
        milestones=recipe.milestones,
        writes=run.accelerator.is_main_process,
    )
    stop = StopRequest()
    try:
        progress = _train(run, progress, log, writer, stop, peak)
        writer.finish()
        if writer.failure is not None:
            raise OSError(
                f"The checkpoint of step {progress['step']} could not be saved ({writer.failure}). "
                f"{writer.last_sound()} Make room; the same command goes on from there."
            ) from writer.failure
    except FloatingPointError as error:
        writer.finish()
        raise FloatingPointError(f"{error} {writer.last_sound()}") from error
    finally:
        writer.finish()
        stop.restore()
        run.accelerator.end_training()
    facts = _facts(run, progress, peak)
    if run.accelerator.is_main_process and facts["finished"]:
        write_atomically(facts_file, json.dumps(facts, indent=2))
    return facts


def _is_over(recipe: PretrainingRecipe, progress: dict[str, Any]) -> bool:
    spent = recipe.max_minutes is not None and progress["seconds"] >= 60 * recipe.max_minutes
    return progress["step"] >= recipe.num_steps or spent


def _facts(run: Run, progress: dict[str, Any], peak: float) -> dict[str, Any]:
    clips, rows = progress["step"] * run.recipe.batch_size, read_metrics(run.folder)
    rate = clips / max(progress["seconds"], 1e-9)
    return {
        "finished": progress["finished"],
        "steps": progress["step"],
        "clips": clips,
        "loss": rows[-1]["loss"] if rows else math.nan,
        "seconds": round(progress["seconds"], 1),
        "clips_per_second": round(rate, 1),
        "processes": run.accelerator.num_processes,
        "flop_per_step": flop_per_step(run.recipe),
        "peak_flop_per_second": round(peak),
        "share_of_peak": round(rate * flop_per_step(run.recipe) / run.recipe.batch_size / peak, 4),
        **environment(),
    }


def _train(
    run: Run, progress: dict[str, Any], log: MetricsLog, writer: CheckpointWriter, stop: StopRequest, peak: float
) -> dict[str, Any]:
    """The loop. Returns the progress reached."""
    run.model.train()
    recipe, first_step, seconds_before = run.recipe, progress["step"], progress["seconds"]
    if _is_over(recipe, progress):
        return {**progress, "finished": True}
    waits_anyway = run.accelerator.device.type != "cuda"
    started = time.perf_counter()
    bar = tqdm(
        total=recipe.num_steps,
        initial=first_step,
        unit="step",
        desc=recipe.name,
        disable=not run.accelerator.is_main_process,
        dynamic_ncols=True,
    )
    batches = run.batches(first_step)
    with bar, logging_redirect_tqdm():
        for step in range(first_step, recipe.num_steps):
            log.add(*run.train_step(step, batches))
            bar.update()
            done = step + 1
            progress = {"step": done, "seconds": seconds_before + time.perf_counter() - started}
            is_due = done % recipe.log_every == 0 or done == recipe.num_steps
            stopping = is_over = False
            if run.accelerator.num_processes == 1 or waits_anyway or is_due:  # on GPUs, asking others is a wait
                stopping, is_over = any_process(run.accelerator, stop.signal is not None, _is_over(recipe, progress))
            saves = done % recipe.checkpoint_every == 0 or done in recipe.milestones or stopping or is_over
            if is_due or saves:
                log.settle()
            if is_due or is_over:
                rate = (done - first_step) * recipe.batch_size / (time.perf_counter() - started)
                share = rate * flop_per_step(run.recipe) / recipe.batch_size / peak
                row = log.write(
                    learning_rate=learning_rate_at(step, recipe),
                    clips=done * recipe.batch_size,
                    seconds=progress["seconds"],
                    clips_per_second=rate,
                    share_of_peak=share,
                )
                bar.set_postfix_str(f"loss {row['loss']:.4f}, {rate:.1f} clips/s, {share:.0%} of peak", refresh=False)
            progress["finished"] = is_over  # as agreed: clocks differ between processes
            if saves:
                writer.save(run.model, run.bare_optimizer, {**progress, "losses": log.losses})
            if stopping or is_over:
                break
    return progress


def profile(recipe: PretrainingRecipe, folder: Path) -> str:
    """Time the phases of some steps, waiting for the device after each; nothing is saved but the run's statistics.

    Without the waits phases overlap, so a real step takes less than their sum.

    Args:
        recipe: What to profile.
        folder: As for `pretrain`.

    Returns:
        A table: synthesis (or reading), log-mel, forward, backward, optimizer, in ms per step.
    """
    run = prepare_run(recipe, folder)
    run.model.train()
    device, parts = run.accelerator.device, run.share // run.micro_batch_size
    timer, micro = PhaseTimer(device), run.micro_batch_size
    for step in range(WARM_UP_STEPS + PROFILED_STEPS):
        if step == WARM_UP_STEPS:
            timer = PhaseTimer(device)
        for part in range(step * parts, (step + 1) * parts):
            _profile_part(run, range(part * micro, (part + 1) * micro), timer)
        timer.time("optimizer", partial(run.update, step))
    run.accelerator.end_training()
    return timer.table(PROFILED_STEPS)


def _profile_part(run: Run, clips: range, timer: PhaseTimer) -> None:
    device, extractor = run.accelerator.device, run.source.feature_extractor
    indices = torch.arange(clips.start, clips.stop)
    making = "reading" if run.recipe.recordings else "synthesis"
    waveforms = timer.time(making, lambda: run.source.waveforms(indices, device))
    values = timer.time("log-mel", lambda: extractor.extract(waveforms))
    noise = masking_noise(run.recipe.seed, indices, values[0].numel() // extractor.patch_size**2, device)
    with one_order_of_sums(device):
        loss = timer.time("forward", lambda: run.model(input_values=values, noise=noise).loss)
        timer.time("backward", lambda: run.accelerator.backward(loss))
