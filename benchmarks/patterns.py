"""How fast images of each set of patterns are made: images per second by batch size and threads.

    python benchmarks/patterns.py                      # a CPU, one and two threads, some minutes
    python benchmarks/patterns.py --sets perlin fbm    # some sets alone
    python benchmarks/patterns.py --device cuda

Times are of the wall's clock, medians over batches of other images, and on a CPU also of the process's own clock (all
threads added up), which other users of the machine change less. Every batch is made twice and its second time counts:
what a set keeps, like the fractals of its categories and the textures of leaves, is made in the first. Writes JSON.
"""

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from tqdm import tqdm

from audiopg.data_scripts.patterns import PATTERNS, SIZE, PatternSet, get_patterns
from audiopg.training.runs.provenance import environment

RESULTS = Path(__file__).parent / "results"
BATCH_SIZES = {"cpu": (16, 64), "cuda": (64, 256)}


def measure(patterns: PatternSet, batch_size: int, repeats: int, device: str, size: int = SIZE) -> dict[str, float]:
    """Speed of one set.

    Args:
        patterns: The set.
        batch_size: Images that are made together.
        repeats: Batches that are timed.
        device: Where they are made.
        size: Side of an image in pixels.

    Returns:
        `images_per_second`; `cpu_milliseconds_per_image` on a CPU.
    """
    walls, cpus = [], []
    for repeat in range(repeats):
        indices = range(repeat * batch_size, (repeat + 1) * batch_size)
        for _ in range(2):
            wall, cpu = time.perf_counter(), time.process_time()
            float(patterns.images(0, indices, size, device).sum())  # read back, so that nothing is left undone
            last = time.perf_counter() - wall, time.process_time() - cpu
        walls.append(last[0])
        cpus.append(last[1])
    row = {"images_per_second": round(batch_size / median(walls), 1)}
    if device == "cpu":
        row["cpu_milliseconds_per_image"] = round(1000 * median(cpus) / batch_size, 2)
    return row


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as Markdown: a line per set, a column per batch size and number of threads."""
    cases = sorted({(row["threads"], row["batch_size"]) for row in rows})
    speeds = {(row["set"], row["threads"], row["batch_size"]): row["images_per_second"] for row in rows}
    head = ["set", *(f"batch {size}, {threads} thread{'s' * (threads > 1)}" for threads, size in cases)]
    lines = [head, ["---", *["---:"] * len(cases)]]
    lines += [
        [name, *(f"{speeds[name, *case]:,.0f}" for case in cases)] for name in dict.fromkeys(r["set"] for r in rows)
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=sorted(BATCH_SIZES), default="cpu")
    parser.add_argument("--sets", nargs="+", default=list(PATTERNS), help=", ".join(PATTERNS))
    parser.add_argument("--batch_sizes", type=int, nargs="+", help="instead of the device's own")
    parser.add_argument("--threads", type=int, nargs="+", help="instead of 1 and 2 on a CPU")
    parser.add_argument("--repeats", type=int, default=3, help="batches that are timed")
    parser.add_argument("--size", type=int, default=SIZE, help="side of an image in pixels")
    parser.add_argument("--output", type=Path, help="JSON; by default results/patterns_DEVICE.json")
    known = parser.parse_args(arguments)
    try:
        sets = [get_patterns(name) for name in known.sets]
    except ValueError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    threads = known.threads or ([1, 2] if known.device == "cpu" else [torch.get_num_threads()])
    batch_sizes = known.batch_sizes or BATCH_SIZES[known.device]
    load, before, rows = os.getloadavg()[0], torch.get_num_threads(), []
    cases = [(patterns, count, batch) for patterns in sets for count in threads for batch in batch_sizes]
    for patterns, count, batch_size in tqdm(cases, desc="patterns", unit="case", leave=False, disable=None):
        torch.set_num_threads(count)
        found = measure(patterns, batch_size, known.repeats, known.device, known.size)
        rows.append({"set": patterns.name, "threads": count, "batch_size": batch_size, **found})
    torch.set_num_threads(before)
    words = sys.argv[1:] if arguments is None else arguments
    results = {
        **environment(),
        "device": known.device,
        "size": known.size,
        "repeats": known.repeats,
        "sets": rows,
        "load_average": {"before": load, "after": os.getloadavg()[0], "cores": os.cpu_count()},
        "command": shlex.join(["python", "benchmarks/patterns.py", *words]),
    }
    output = known.output or RESULTS / f"patterns_{known.device}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(f"{table(rows)}\n")


if __name__ == "__main__":
    main()
