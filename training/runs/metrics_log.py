"""What a run says while it trains: `metrics.jsonl`, TensorBoard, and the refusal of a loss that is not finite."""

import json
import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from audiopg.training.runs.files import write_atomically

logger = logging.getLogger(__name__)

FILE = "metrics.jsonl"


def append_text(path: Path, text: str) -> None:
    """Add text to the end of a file."""
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """The lines of a run's `metrics.jsonl`, in order; one that is damaged is left out, and named in the log.

    A last line without its end was cut short by a crash, which is nothing to tell.
    """
    path, rows = folder / FILE, []
    lines = path.read_bytes().split(b"\n") if path.exists() else [b""]
    for number, line in enumerate(lines[:-1], start=1):
        try:
            row = json.loads(line)
            row["step"] + 0  # a row belongs to a step
            rows.append(row)
        except (ValueError, KeyError, TypeError) as error:
            logger.warning("Line %d of %s is damaged and left out (%s).", number, path, error)
    return rows


class MetricsLog:
    """Collects losses on the device and reads them from there only when a line is due.

    Args:
        accelerator: Of the run; TensorBoard is reached through it.
        folder: The run's.
        batch_size: Examples per step, to name those of a step that went wrong.
        step: Where the run starts or goes on; lines beyond it were written by a run that was lost, and are dropped.
        losses: By name, losses of the steps since the last line, as a checkpoint kept them.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        folder: Path,
        batch_size: int,
        step: int,
        losses: Mapping[str, list[float]],
    ) -> None:
        self.accelerator, self.folder, self.batch_size, self.step = accelerator, folder, batch_size, step
        self._losses = {name: list(values) for name, values in losses.items()}
        self._on_device: list[Tensor] = []
        self._names: list[str] = []
        self._unwritten = ""
        if accelerator.is_main_process:
            kept = [row for row in read_metrics(folder) if row["step"] <= step]
            write_atomically(folder / FILE, "".join(json.dumps(row) + "\n" for row in kept))

    @property
    def losses(self) -> dict[str, list[float]]:
        """By name, a copy of the losses since the last line: it may travel to another thread."""
        return {name: list(values) for name, values in self._losses.items()}

    def add(self, losses: Mapping[str, Tensor], gradient_norm: Tensor) -> None:
        """Remember a step's losses, `loss` among them, and its gradient norm, all scalars; nothing is read yet."""
        self._names = list(losses)
        self._on_device.append(torch.stack([value.detach().float() for value in (*losses.values(), gradient_norm)]))

    def settle(self) -> None:
        """Read from the device what was added, as means over all processes; every process must call this.

        Raises:
            FloatingPointError: if a loss or a gradient is not finite, with the step and its clips. Weights are saved
                after this alone, so every checkpoint is sound.
        """
        if not self._on_device:
            return
        local = torch.stack(self._on_device)
        self._on_device = []
        for *values, gradient_norm in self.accelerator.reduce(local, reduction="mean").tolist():
            first = self.step * self.batch_size
            self.step += 1
            losses = dict(zip(self._names, values, strict=True))
            if not all(math.isfinite(value) for value in (*values, gradient_norm)):
                rest = "".join(f", {name} {value}" for name, value in losses.items() if name != "loss")
                raise FloatingPointError(
                    f"Step {self.step}, of the clips {first} to {first + self.batch_size - 1}, has the loss "
                    f"{losses['loss']}{rest} and a gradient of norm {gradient_norm}. Lower learning_rate or "
                    "max_grad_norm and start anew in another --output_dir."
                )
            for name, value in losses.items():
                self._losses.setdefault(name, []).append(value)

    def write(self, **values: float) -> dict[str, Any]:
        """Write a line for the steps since the last one; returns it. The losses must be settled.

        A disk that is full costs no line: those that could not be written are kept for the next time.
        """
        means = {name: sum(losses) / len(losses) for name, losses in self._losses.items()}
        row = {"step": self.step, **means, **values}
        self._losses = {}
        if self.accelerator.is_main_process:
            self._append(json.dumps(row) + "\n")
            try:
                self.accelerator.log({name: value for name, value in row.items() if name != "step"}, step=self.step)
            except OSError as error:
                logger.warning("TensorBoard's file could not be written (%s); the run goes on.", error)
        return row

    def _append(self, line: str) -> None:
        self._unwritten += line
        path = self.folder / FILE
        size = path.stat().st_size
        try:
            append_text(path, self._unwritten)
            self._unwritten = ""
        except OSError as error:
            os.truncate(path, size)  # half a line would end the file for its readers
            logger.warning("%s could not be written (%s); its lines are kept for later.", path, error)
