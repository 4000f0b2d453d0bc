"""How fast training could be and is: FLOP of a Transformer, the device's peak, where a step's time goes."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch.profiler import ProfilerActivity, record_function
from torch.profiler import profile as profiler

_waited_for: ContextVar[torch.device | None] = ContextVar("_waited_for", default=None)
"""The device that phases wait for at their end, while they are measured."""


def block_flop(tokens: int, width: int, intermediate_size: int) -> int:
    r"""FLOP of one Transformer block on one clip, forward, a multiply-add counting as two.

    With $n$ tokens of width $d$: queries, keys, values and output projection $2 \cdot 4 n d^2$, scores and mixture
    $2 \cdot 2 n^2 d$ (whatever the number of heads), feed-forward $2 \cdot 2 n d m$ with $m$ its inner width. Norms,
    activations and softmax are of lower order and left out, as usual.

    Example:
        >>> block_flop(tokens=129, width=768, intermediate_size=3072)
        1877216256
    """
    return 2 * tokens * (4 * width**2 + 2 * tokens * width + 2 * width * intermediate_size)


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has done everything that it was told; a CPU has always."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure_peak(device: torch.device, clock: Callable[[], float] = time.perf_counter) -> float:
    """FLOP/s of a large matrix product of random numbers: bf16 on a GPU, float32 elsewhere; under a second.

    This is the device's practical peak, what a product of ideal shape reaches there, below the data sheet's figure.

    Args:
        device: What to measure.
        clock: In s; another than the wall's where a machine is shared.

    Returns:
        FLOP per second.

    Example:
        >>> measure_peak(torch.device("cpu")) > 1e8
        True
    """
    on_gpu = device.type == "cuda"
    size, repeats, dtype = (8192, 10, torch.bfloat16) if on_gpu else (768, 5, torch.float32)
    a, b = (torch.rand(size, size, device=device).to(dtype) for _ in range(2))
    for _ in range(3 if on_gpu else 1):
        a @ b
    wait_for(device)
    started = clock()
    for _ in range(repeats):
        a @ b
    wait_for(device)
    return repeats * 2 * size**3 / (clock() - started)


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Name a part of a step for the profiler; only while `phase_table` measures does its end wait for the device.

    Example:
        >>> with phase("forward"):
        ...     pass
    """
    with record_function(f"phase: {name}"):
        yield
        device = _waited_for.get()
        if device is not None:
            wait_for(device)


def phase_table(step: Callable[[int], object], device: torch.device, *, warm_up: int, steps: int) -> str:
    """Run steps under PyTorch's profiler and say where their time goes, by `phase`.

    The device is waited for after each phase. Without these waits phases overlap, so a real step takes less than their
    sum.

    Args:
        step: Does the step of that number.
        device: Where.
        warm_up: Steps before those that count.
        steps: Steps that count.

    Returns:
        A table in the order of the phases: ms per step and shares.

    Example:
        >>> def step(number):
        ...     with phase("forward"):
        ...         torch.ones(2, 2) @ torch.ones(2, 2)
        >>> phase_table(step, torch.device("cpu"), warm_up=1, steps=2).splitlines()[1].split()[0]
        'forward'
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # where there is no GPU it would complain of that
    token = _waited_for.set(device)
    try:
        for number in range(warm_up):
            step(number)
        with profiler(activities=[ProfilerActivity.CPU], acc_events=True) as profiled:
            for number in range(warm_up, warm_up + steps):
                step(number)
    finally:
        _waited_for.reset(token)
    events = sorted(
        (event for event in profiled.events() if event.name.startswith("phase: ")),
        key=lambda event: event.time_range.start,
    )
    milliseconds: dict[str, float] = {}
    for event in events:
        name = event.name.removeprefix("phase: ")
        milliseconds[name] = milliseconds.get(name, 0.0) + event.cpu_time_total / 1000 / steps
    total = sum(milliseconds.values())
    rows = [f"{name:<12}{value:>12.2f}{value / total:>10.1%}" for name, value in milliseconds.items()]
    return "\n".join(
        [f"{'phase':<12}{'ms per step':>12}{'share':>10}", *rows, f"{'together':<12}{total:>12.2f}{1:>10.1%}"]
    )
