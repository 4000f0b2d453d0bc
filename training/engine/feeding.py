"""Batches for the loop: drawn on a thread and made on the device while the step before is still training."""

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from audiopg.training.engine.objective import Objective
from audiopg.training.engine.throughput import phase


def batches(
    objective: Objective, parts: Iterable[range], device: torch.device | str, *, ahead: bool = True
) -> Iterator[dict[str, Tensor]]:
    """Model inputs of one part of a run after the other.

    The next part is drawn on a thread of its own. On a GPU inputs are made on a stream of their own: copying what was
    drawn there then waits for the synthesis before, a matter of milliseconds, and not for the training step that was
    launched and is still running.

    Args:
        objective: What makes them.
        parts: Ranges of indices of examples.
        device: Where to make them.
        ahead: Whether to draw on a thread; without, `draw` is called when its batch is due, for profiling.

    Yields:
        What `Objective.batch` gives.
    """
    device = torch.device(device)
    side = torch.cuda.Stream(device) if device.type == "cuda" else None
    upcoming = iter(parts)
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(1, "draw")) if ahead else None
        if pool is not None:
            stack.callback(pool.shutdown, cancel_futures=True)

        def begin() -> tuple[range, Future[Any] | None] | None:
            part = next(upcoming, None)
            return None if part is None else (part, pool.submit(objective.draw, part) if pool else None)

        following = begin()
        while (current := following) is not None:
            part, future = current
            following = begin()
            if future is not None:
                drawn = future.result()
            else:
                with phase("draw"):
                    drawn = objective.draw(part)
            with torch.cuda.stream(side):  # of None: nothing changes
                inputs = objective.batch(part, drawn, device)
            if side is not None:
                training = torch.cuda.current_stream(device)
                training.wait_stream(side)
                for value in inputs.values():
                    value.record_stream(training)  # its memory is not to be used again before the step is done with it
            yield inputs
