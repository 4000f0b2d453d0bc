"""The processes of a run: how many, in what precision, when they stop, and what one of them does for all."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list

T = TypeVar("T")


def resolve_precision(precision: str) -> str:
    """What `auto` comes to: accelerate's configuration where it launched this process, else bf16 on a GPU with it.

    Args:
        precision: Of the recipe: `auto`, `no` or `bf16`.

    Returns:
        `no` or `bf16`.

    Raises:
        ValueError: if accelerate was configured for another.

    Example:
        >>> resolve_precision("bf16")
        'bf16'
    """
    if precision != "auto":
        return precision
    configured = os.environ.get("ACCELERATE_MIXED_PRECISION")
    if configured is None:
        return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "no"
    if configured not in ("no", "bf16"):
        raise ValueError(
            f"Pre-training computes in `no` mixed precision or in bf16, got accelerate's {configured!r}; configure "
            "one of the two, or give --precision."
        )
    return configured


def build_accelerator(precision: str, folder: Path) -> Accelerator:
    """Accelerate's view of the processes and their device.

    Args:
        precision: `no` or `bf16`.
        folder: Of the run, for TensorBoard.

    Returns:
        The accelerator.

    Raises:
        ValueError: if a launcher has started several processes and accelerate takes each for the only one: they would
            all write to one folder.
    """
    # Read when cuBLAS starts; without it some of its sums have no fixed order.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    # accelerate joins processes on CPUs only where it is told that these are CPUs, which torchrun does not say.
    if AcceleratorState._shared_state.get("_mixed_precision", precision) != precision:
        AcceleratorState._reset_state()  # left by another run of this process
    on_cpus = launched > 1 and not torch.accelerator.is_available()
    accelerator = Accelerator(cpu=on_cpus, mixed_precision=precision, log_with="tensorboard", project_dir=str(folder))
    if accelerator.num_processes != launched:
        raise ValueError(
            f"The launcher started {launched} processes and accelerate sees {accelerator.num_processes}: each would "
            "take itself for the only one. On CPUs launch with ACCELERATE_USE_CPU=true torchrun --nproc_per_node "
            f"{launched}; to run alone, unset WORLD_SIZE."
        )
    return accelerator


def on_main_process(accelerator: Accelerator, work: Callable[[], T]) -> T:
    """Have one process do something, and give what came of it to all; its errors are everyone's.

    Args:
        accelerator: Of the run; every process must call this.
        work: Runs on the main process. Its result is pickled for the others.

    Returns:
        The result of `work`.

    Raises:
        Exception: whatever `work` raised, on every process.
    """
    found: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            found[0] = work()
        except Exception as error:
            found[1] = error
    broadcast_object_list(found)
    if found[1] is not None:
        raise found[1]
    return found[0]


def any_process(accelerator: Accelerator, *flags: bool) -> list[bool]:
    """Which flags are up in any process: all processes get the same answer, and all must ask."""
    if accelerator.num_processes == 1:
        return list(flags)
    raised = torch.tensor(flags, dtype=torch.float32, device=accelerator.device)
    return [count > 0 for count in accelerator.reduce(raised, reduction="sum").tolist()]


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


@contextmanager
def one_order_of_sums(device: torch.device) -> Iterator[None]:
    """Have a GPU add in one order, as attention's backward pass does not by itself.

    What is guaranteed: on a CPU, the same machine, thread count and versions end at the same bits, with or without
    stops in between. On a GPU the same holds as far as PyTorch has an implementation with a fixed order; where it has
    none it warns, and resumed runs then agree up to rounding. For the model alone: synthesis adds in one order anyway,
    and would be slowed down. The flags are the caller's, and are given back as they were.

    Args:
        device: Of the run.

    Example:
        >>> with one_order_of_sums(torch.device("cpu")):
        ...     torch.are_deterministic_algorithms_enabled()
        False
    """
    if device.type != "cuda":
        yield
        return
    deterministic: Any = torch.utils.deterministic
    fills, enabled = deterministic.fill_uninitialized_memory, torch.are_deterministic_algorithms_enabled()
    warns_only = torch.is_deterministic_algorithms_warn_only_enabled()
    deterministic.fill_uninitialized_memory = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warns_only)
        deterministic.fill_uninitialized_memory = fills
