"""Who calls a function for each of many tasks: this process, worker processes of this machine, or those of Ray.

A task is what a shard of a data set follows from; the function writes the shard and returns what is to be told of it.
Since a shard depends on nothing else, engines differ in who calls and in the order of the answers, never in a byte.
"""

import logging
import multiprocessing
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from typing import Any, TypeVar

from audiopg.training.runs.workers import end_with_parent

Task = TypeVar("Task")
Answer = TypeVar("Answer")

ENGINES = ("processes", "ray")
"""`processes` are this one, or worker processes of this machine; `ray` is Ray Data, on one machine or a cluster."""

_OBJECT_STORE = 100 * 2**20
"""Bytes of a cluster that is started here: tasks and answers are small, and data go from files to files."""


def answers(
    function: Callable[[Task], Answer],
    tasks: Sequence[Task],
    *,
    engine: str = "processes",
    num_proc: int = 1,
    num_gpus: float = 0,
) -> Iterator[Answer]:
    """Call a function for each task.

    Args:
        function: Can be pickled; other processes than this one import it by its name.
        tasks: Can be pickled too.
        engine: One of `ENGINES`. Ray joins the cluster at `RAY_ADDRESS`, or starts one of `num_proc` workers here,
            without dashboard and usage statistics, which ends with the last task.
        num_proc: How many calls run at a time; with 1, `processes` call here, without a worker.
        num_gpus: Of each worker of Ray, which hides all others from it.

    Yields:
        What the function returns, as calls end.

    Raises:
        ValueError: if there is no such engine, or no process.
        ImportError: if Ray is asked for and not installed.
        OSError, ValueError: from the function, whatever the engine; no further task is then begun. Other errors come
            from Ray as its own `RayTaskError`.

    Example:
        >>> list(answers(abs, [-1, 2]))
        [1, 2]
    """
    if engine not in ENGINES:
        raise ValueError(f"engine is one of {', '.join(ENGINES)}, got {engine!r}.")
    if num_proc < 1:
        raise ValueError(f"num_proc is 1 or more, got {num_proc}.")
    if not tasks:
        return
    if engine == "ray":
        yield from _by_ray(function, tasks, num_proc, num_gpus)
    elif num_proc == 1:
        yield from map(function, tasks)
    else:
        yield from _by_processes(function, tasks, num_proc)


def _by_processes(function: Callable[[Task], Answer], tasks: Sequence[Task], num_proc: int) -> Iterator[Answer]:
    context = multiprocessing.get_context("spawn")  # a fork would inherit threads that are not there
    with ProcessPoolExecutor(num_proc, mp_context=context, initializer=end_with_parent) as pool:
        futures = [pool.submit(function, task) for task in tasks]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _by_ray(
    function: Callable[[Task], Answer], tasks: Sequence[Task], num_proc: int, num_gpus: float
) -> Iterator[Answer]:
    ray = _import_ray()
    with _cluster(ray, num_proc):
        ray.data.DataContext.get_current().enable_progress_bars = False
        # Processes of their own that stay: what a function loads once, as a model, it keeps for its next task.
        actors = ray.data.ActorPoolStrategy(size=min(num_proc, len(tasks)))
        rows = ray.data.from_items([{"task": pickle.dumps(task)} for task in tasks], override_num_blocks=len(tasks))
        called = rows.map(_Caller, fn_args=(function,), compute=actors, num_cpus=1, num_gpus=num_gpus)
        try:
            for row in called.iter_rows():
                answer, error = pickle.loads(row["answer"])
                if error is not None:
                    raise error
                yield answer
        except ray.exceptions.RayError as error:
            if isinstance(error, ray.exceptions.RayTaskError):
                raise
            raise OSError(f"Ray has lost workers, or its cluster: {error}") from error


class _Caller:
    """What Ray makes one of in each worker. Errors are answers too: Ray would wrap them, and try again."""

    def __call__(self, row: dict[str, bytes], function: Callable[[Any], Any]) -> dict[str, bytes]:
        try:
            return {"answer": pickle.dumps((function(pickle.loads(row["task"])), None))}
        except (OSError, ValueError) as error:
            return {"answer": pickle.dumps((None, error))}


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ImportError(f"The engine ray needs Ray ({error}): pip install 'audiopg[ray]'.") from error
    return ray


@contextmanager
def _cluster(ray: Any, num_proc: int) -> Iterator[None]:
    """The one that this process has joined already, the one at `RAY_ADDRESS`, or one of this machine's own."""
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # what fails is an answer
    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS", "local")
    own = {"num_cpus": num_proc, "include_dashboard": False, "object_store_memory": _OBJECT_STORE}
    ray.init(address=address, logging_level=logging.WARNING, **(own if address == "local" else {}))
    try:
        yield
    finally:
        ray.shutdown()
