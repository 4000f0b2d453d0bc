"""One contender in a process of its own, on a given number of cores: makes a batch whenever it is told to.

    python worker.py research_loop '{"batch_size": 16}' --threads 1

A contender is a module beside this file with `prepare(**options) -> (audio_seconds, make)`: the seconds of audio in a
batch, and a function that makes batch number `step` and returns a number read back from it (or what it measured), so
that nothing is left undone. Each line on standard input, a step, is answered by a line of JSON. Needs the standard
library alone: it also runs in environments that know nothing of AudioPG.
"""

import argparse
import importlib
import json
import os
import resource
import sys
import time

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def limit_threads(threads: int) -> None:
    """Give this process `threads` cores and threads; before any library that starts threads is imported."""
    for name in THREAD_VARIABLES:
        os.environ[name] = str(threads)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning costs a shared machine more than it computes
    if hasattr(os, "sched_setaffinity"):  # the only limit that XLA heeds
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])


def memory(device: str) -> dict[str, int]:
    """Bytes held now and at most so far, on the accelerator if it is one."""
    if device.startswith("cuda"):
        import torch

        return {"now": torch.cuda.memory_allocated(), "peak": torch.cuda.max_memory_allocated()}
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    if not os.path.exists("/proc/self/statm"):
        return {"now": peak, "peak": peak}
    with open("/proc/self/statm", encoding="ascii") as statm:
        return {"now": int(statm.read().split()[1]) * resource.getpagesize(), "peak": peak}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("contender", help="name of a module beside this file")
    parser.add_argument("options", type=json.loads, help="keyword arguments of its prepare(), as JSON")
    parser.add_argument("--threads", type=int, default=1)
    known = parser.parse_args()
    limit_threads(known.threads)
    replies, sys.stdout = sys.stdout, sys.stderr  # libraries may chat, but not into the answers
    device = known.options.get("device", "cpu")

    def reply(**values: object) -> None:
        replies.write(json.dumps({**values, "memory": memory(device)}) + "\n")
        replies.flush()

    audio_seconds, make = importlib.import_module(known.contender).prepare(**known.options)
    reply(audio_seconds=audio_seconds)
    for line in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        made = make(int(line))
        reply(seconds=time.perf_counter() - wall, cpu_seconds=time.process_time() - cpu, made=made)


if __name__ == "__main__":
    main()
