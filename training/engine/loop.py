"""The training loop, for any objective: prepare, resume, train, save, report. Knows no audio and no model class."""

import hashlib
import json
import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from audiopg.training.engine import feeding
from audiopg.training.engine.objective import LOSS, Objective, check_batch
from audiopg.training.engine.processes import (
    StopRequest,
    any_process,
    build_accelerator,
    on_main_process,
    one_order_of_sums,
    resolve_precision,
)
from audiopg.training.engine.recipe import RunRecipe
from audiopg.training.engine.throughput import measure_peak, phase, phase_table
from audiopg.training.runs.checkpoints import (
    CheckpointWriter,
    checkpoints_of,
    load_checkpoint,
    named_in_manifests,
    newest_sound_checkpoint,
)
from audiopg.training.runs.files import read_json, sha256_of, write_atomically
from audiopg.training.runs.folder import claim, held
from audiopg.training.runs.metrics_log import MetricsLog, read_metrics
from audiopg.training.runs.provenance import environment

logger = logging.getLogger(__name__)

STATISTICS = "statistics.json"
PROFILED_STEPS, WARM_UP_STEPS = 10, 3


@dataclass
class Run:
    """A recipe with everything that was built for it."""

    recipe: RunRecipe
    folder: Path
    name: str
    accelerator: Accelerator
    objective: Objective
    model: nn.Module
    optimizer: torch.optim.Optimizer
    flop_per_example: float
    statistics: str
    """Digest of `statistics.json`."""
    hold: ExitStack
    """Until it is closed, the folder is this run's alone."""

    @property
    def share(self) -> int:
        """Examples of a step that this process takes."""
        return self.recipe.batch_size // self.accelerator.num_processes

    @property
    def micro_batch_size(self) -> int:
        """Examples that go through the model at a time."""
        return min(self.share, self.recipe.micro_batch_size or self.share)

    @property
    def bare_optimizer(self) -> torch.optim.Optimizer:
        """The optimizer without accelerate's wrapper."""
        return getattr(self.optimizer, "optimizer", self.optimizer)

    @cached_property
    def peak(self) -> float:
        """FLOP/s that all processes together could reach."""
        return measure_peak(self.accelerator.device) * self.accelerator.num_processes

    def share_of_peak(self, examples_per_second: float) -> float:
        """The part of `peak` that a rate makes use of."""
        return examples_per_second * self.flop_per_example / self.peak

    def parts(self, first_step: int) -> Iterator[range]:
        """This process's examples, a micro-batch at a time; together the processes see them all in order.

        A process takes a run of neighbouring examples, and cuts it into neighbouring micro-batches.
        """
        for step in range(first_step, self.recipe.num_steps):
            first = step * self.recipe.batch_size + self.accelerator.process_index * self.share
            for start in range(first, first + self.share, self.micro_batch_size):
                yield range(start, start + self.micro_batch_size)

    def batches(self, first_step: int, *, ahead: bool = True) -> Iterator[dict[str, Tensor]]:
        """Model inputs of `parts`."""
        return feeding.batches(self.objective, self.parts(first_step), self.accelerator.device, ahead=ahead)

    def train_step(self, step: int, batches: Iterator[dict[str, Tensor]]) -> tuple[dict[str, Tensor], Tensor]:
        """One step of the optimizer; returns its losses and gradient norm, scalars that are still on the device."""
        parts = self.share // self.micro_batch_size
        total: dict[str, Tensor] = {}
        for part in range(parts):
            batch = next(batches)
            # Gradients travel between processes once a step, with the last part.
            travels = nullcontext() if part == parts - 1 else self.accelerator.no_sync(self.model)
            with travels, one_order_of_sums(self.accelerator.device):
                with phase("forward"):
                    losses = {name: loss / parts for name, loss in self.objective.loss(self.model, batch).items()}
                with phase("backward"):
                    self.accelerator.backward(losses[LOSS])
            total = {name: total.get(name, 0.0) + loss.detach() for name, loss in losses.items()}
        with phase("optimizer"):
            return total, self._update(step)

    def _update(self, step: int) -> Tensor:
        """Clip the gradients and let the optimizer use them; returns their norm."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.objective.learning_rate(step)
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.recipe.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.objective.after_step()
        return norm.full_tensor() if isinstance(norm, DTensor) else cast(Tensor, norm)  # FSDP's is in pieces


def prepare(recipe: RunRecipe, folder: Path, family: type[Objective]) -> Run:
    """Claim the folder and build everything that a run needs.

    One process claims and measures, the others are told.

    Args:
        recipe: What to run.
        folder: Where everything goes.
        family: What is trained.

    Returns:
        The run, before its first step; whoever gets it closes its `hold`.

    Raises:
        ValueError: if the folder belongs to another run or another command is at work in it, the processes cannot
            share the batch, the objective cannot be built, or the statistics are not those that checkpoints of the
            run were trained with.
    """
    precision = resolve_precision(recipe.precision)
    accelerator = build_accelerator(precision, folder)
    check_batch(recipe, accelerator.num_processes, family.splits)

    with ExitStack() as hold:

        def claim_and_measure() -> tuple[str, dict[str, Any], str]:
            hold.enter_context(held(folder))
            name = claim(folder, recipe, {**recipe.made_with, "precision": precision})
            measured = _measured_once(recipe, folder, name, family, accelerator.device)
            return name, measured, sha256_of(folder / STATISTICS)

        name, measured, digest = on_main_process(accelerator, claim_and_measure)
        objective = family(recipe, measured)
        if recipe.compile:
            objective.model.compile(dynamic=False)
        model, optimizer = accelerator.prepare(objective.model, objective.optimizer(objective.model))
        flop = family.flop_per_example(recipe)
        return Run(recipe, folder, name, accelerator, objective, model, optimizer, flop, digest, hold.pop_all())


def _measured_once(
    recipe: RunRecipe, folder: Path, name: str, family: type[Objective], device: torch.device
) -> dict[str, Any]:
    """`statistics.json`, as the checkpoints of the run know it; damaged or lost, it is measured again.

    Raises:
        ValueError: if it is not what the checkpoints were trained with, and cannot be made so.
    """
    path, trained_with = folder / STATISTICS, named_in_manifests(folder, name, "statistics")
    of_before = not trained_with and bool(checkpoints_of(folder))  # the digest was not noted yet
    if path.exists() and (of_before or sha256_of(path) in trained_with):
        return read_json(path, "Restore it, or start anew in another --output_dir.")
    # Without a checkpoint the run begins at its first step, and nothing binds it to what an earlier try has measured.
    content = json.dumps(family.measure(recipe, device), indent=2)
    if trained_with:
        if hashlib.sha256(content.encode()).hexdigest() not in trained_with:
            raise ValueError(
                f"{path} is missing or has changed since the run's checkpoints were saved, and measuring again gives "
                "something else: clips, recordings or the code have changed. Restore it, or start anew in another "
                "--output_dir."
            )
        logger.warning("%s was missing or damaged; it was measured again, and is what it was.", path)
    write_atomically(path, content)
    return json.loads(content)


def train(recipe: RunRecipe, folder: Path, family: type[Objective]) -> dict[str, Any]:
    """Run a recipe to its end, or to a signal, from the last checkpoint in `folder` if there is one.

    Args:
        recipe: As for `prepare`, like the other arguments.
        folder: See `prepare`.
        family: See `prepare`.

    Returns:
        The facts of the run, as in `run.json`: `finished`, `steps`, `clips`, `loss`, `seconds`, `clips_per_second`,
        `precision`, `flop_per_step`, `peak_flop_per_second`, `share_of_peak`, those of the objective and the
        environment.

    Raises:
        ValueError: as `prepare`, or if no checkpoint of the run can be trusted.
        FloatingPointError: if a loss is not finite, with the step, its clips and the last checkpoint.
        OSError: if the last checkpoint of the run could not be saved; those before are intact.
    """
    run = prepare(recipe, folder, family)
    with run.hold:
        return _train_to_the_end(run)


def _train_to_the_end(run: Run) -> dict[str, Any]:
    recipe, folder, progress = run.recipe, run.folder, _resume(run)
    facts_file = folder / "run.json"
    if _is_over(recipe, progress) and facts_file.exists():
        try:
            return read_json(facts_file, "It is made again, with what is known of this machine.")
        except ValueError as error:  # of the machine that it ran on, as long as it can be read
            logger.warning("%s", error)
    run.accelerator.wait_for_everyone()
    if run.accelerator.is_main_process:
        facts_file.unlink(missing_ok=True)  # a run that goes on has not finished
    run.accelerator.init_trackers("tensorboard", init_kwargs={"tensorboard": {"purge_step": progress["step"] + 1}})
    log = MetricsLog(run.accelerator, folder, recipe.batch_size, progress["step"], progress["losses"])
    writer = CheckpointWriter(
        folder,
        run.name,
        keep=recipe.keep_checkpoints,
        milestones=recipe.milestones,
        writes=run.accelerator.is_main_process,
    )
    stop = StopRequest()
    try:
        progress = _train(run, progress, log, writer, stop)
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
    facts = _facts(run, progress)
    if run.accelerator.is_main_process and facts["finished"]:
        write_atomically(facts_file, json.dumps(facts, indent=2))
    return facts


def _resume(run: Run) -> dict[str, Any]:
    """Load the newest sound checkpoint into what was prepared; returns its manifest, or that of a fresh start."""
    # One process reads and judges, all go on from the same.
    found = on_main_process(run.accelerator, lambda: newest_sound_checkpoint(run.folder, run.name))
    if found is None:
        return {"step": 0, "seconds": 0.0, "losses": {}}
    path, manifest = found
    load_checkpoint(path, run.model, run.bare_optimizer)
    losses = manifest["losses"]  # of runs from before losses had names, a list
    return {**manifest, "losses": {LOSS: losses} if isinstance(losses, list) else losses}


def _is_over(recipe: RunRecipe, progress: Mapping[str, Any]) -> bool:
    spent = recipe.max_minutes is not None and progress["seconds"] >= 60 * recipe.max_minutes
    return progress["step"] >= recipe.num_steps or spent


def _facts(run: Run, progress: Mapping[str, Any]) -> dict[str, Any]:
    clips, rows = progress["step"] * run.recipe.batch_size, read_metrics(run.folder)
    rate = clips / max(progress["seconds"], 1e-9)
    return {
        "finished": progress["finished"],
        "steps": progress["step"],
        "clips": clips,
        "loss": rows[-1][LOSS] if rows else math.nan,
        "seconds": round(progress["seconds"], 1),
        "clips_per_second": round(rate, 1),
        "processes": run.accelerator.num_processes,
        "precision": run.accelerator.mixed_precision,
        "flop_per_step": round(run.recipe.batch_size * run.flop_per_example),
        "peak_flop_per_second": round(run.peak),
        "share_of_peak": round(run.share_of_peak(rate), 4),
        **run.objective.facts(),
        **environment(),
    }


def _train(
    run: Run, progress: dict[str, Any], log: MetricsLog, writer: CheckpointWriter, stop: StopRequest
) -> dict[str, Any]:
    """The loop. Returns the progress reached."""
    run.model.train()
    recipe, first_step, seconds_before = run.recipe, progress["step"], progress["seconds"]
    if _is_over(recipe, progress):
        return {**progress, "finished": True}
    waits_anyway = run.accelerator.device.type != "cuda"
    run.peak  # noqa: B018 - measured before the clock starts
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
                row = log.write(
                    learning_rate=run.objective.learning_rate(step),
                    clips=done * recipe.batch_size,
                    seconds=progress["seconds"],
                    clips_per_second=rate,
                    share_of_peak=run.share_of_peak(rate),
                )
                bar.set_postfix_str(
                    f"loss {row[LOSS]:.4f}, {rate:.1f} clips/s, {run.share_of_peak(rate):.0%} of peak", refresh=False
                )
            progress["finished"] = is_over  # as agreed: clocks differ between processes
            if saves:
                known = {**progress, "losses": log.losses, "statistics": run.statistics}
                writer.save(run.model, run.bare_optimizer, known)
            if stopping or is_over:
                break
    return progress


def profile(recipe: RunRecipe, folder: Path, family: type[Objective]) -> str:
    """Where the time of the run's own steps goes; nothing is saved but what the run measures before its first step.

    Args:
        recipe: As for `prepare`, like the other arguments.
        folder: See `prepare`.
        family: See `prepare`.

    Returns:
        A table of phases: draw, synthesis (or reading), log-mel, forward, backward, optimizer, in ms per step.
    """
    run = prepare(recipe, folder, family)
    with run.hold:
        return _profile(run)


def _profile(run: Run) -> str:
    recipe = run.recipe
    run.model.train()
    steps = WARM_UP_STEPS + PROFILED_STEPS
    # A run may be shorter than what is profiled; its stream of examples has no end.
    profiled = replace(run, recipe=replace(recipe, num_clips=max(recipe.num_clips, steps * recipe.batch_size)))
    batches = profiled.batches(0, ahead=False)
    table = phase_table(
        lambda step: profiled.train_step(step, batches),
        run.accelerator.device,
        warm_up=WARM_UP_STEPS,
        steps=PROFILED_STEPS,
    )
    run.accelerator.end_training()
    return table
