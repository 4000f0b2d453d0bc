"""How long a CPU takes to embed a clip, and how much memory: eager, compiled, ONNX, eight bits, beside AST.

    python benchmarks/latency.py [CHECKPOINT]             # some minutes; needs audiopg[onnx] and a C++ compiler

From samples to the embedding, front ends included, one clip at a time. Each way has a process of its own on the same
cores; they take turns, round after round, and medians count. The memory is the peak of that process's resident memory
beyond what it held with its libraries and without weights (of what is compiled, the compiler's too); `held` is the
peak itself. AST is transformers' own, with random weights and the checkpoint's width, depth and heads: with its own
patches, which overlap, and with patches side by side as ours are.
"""

import argparse
import json
import os
import shlex
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from contenders import Contender

from audiopg.training.publishing.eight_bits import quantise
from audiopg.training.publishing.graph_files import Exportable, write_graph
from audiopg.training.runs.names import public_name, public_word
from audiopg.training.runs.provenance import environment

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
SECONDS = 10.24
"""Of the clip: the longest that our windows and AST hear at once."""

TITLES = {
    "eager": ("AudioPG, `model.embed`", "eager"),
    "compiled": ("AudioPG, `torch.compile`", "compiled"),
    "onnx": ("AudioPG, ONNX Runtime", "onnx"),
    "int8": ("AudioPG, ONNX Runtime, int8", "onnx"),
    "ast": ("AST of the same size", "ast"),
    "ast_without_overlap": ("AST of the same size, patches side by side", "ast_without_overlap"),
}
"""Of each contender its title and its way, see `peers/audiopg_encoders.py`."""


def compare(
    files: dict[str, str], threads: int, rounds: int, seconds: float = SECONDS, names: Sequence[str] = tuple(TITLES)
) -> list[dict[str, Any]]:
    """Let the contenders embed the same clip in turns.

    Args:
        files: What each loads: a file, or the checkpoint's folder.
        threads: Cores and threads of each.
        rounds: How often each has its turn; the first is not counted.
        seconds: Length of the clip.
        names: Which contenders.

    Returns:
        Of each a row: `name`, `title`, `threads`, `milliseconds` (for a second of sound, the median), `cpu` (the
        process's own clock likewise), `first_seconds` (the first clip, compilation included), `memory` (in MB beyond
        the libraries), `memory_per_second` (of sound) and `held` (in MB).
    """
    running: dict[str, tuple[Contender, list[dict[str, Any]]]] = {}
    try:
        for name in names:
            options = {"way": TITLES[name][1], "seconds": seconds, "batch_size": 1, "checkpoint": files[name]}
            started = Contender("audiopg_encoders", {**options, "threads": threads, "device": "cpu"}, threads)
            running[name] = started, []
        for step in range(rounds + 1):
            for process, made in running.values():
                made.append(process.make(step))
    finally:
        for process, _ in running.values():
            process.close()
    return [_row(name, threads, seconds, made) for name, (_, made) in running.items()]


def _row(name: str, threads: int, seconds: float, made: Sequence[dict[str, Any]]) -> dict[str, Any]:
    memory = made[-1]["made"]
    beyond = (memory["peak"] - memory["before"]) / 1e6
    return {
        "name": name,
        "title": TITLES[name][0],
        "threads": threads,
        "milliseconds": round(1000 * statistics.median(one["seconds"] for one in made[1:]) / seconds, 3),
        "cpu": round(1000 * statistics.median(one["cpu_seconds"] for one in made[1:]) / seconds, 3),
        "first_seconds": round(made[0]["seconds"], 2),
        "memory": round(beyond, 1),
        "memory_per_second": round(beyond / seconds, 2),
        "held": round(memory["peak"] / 1e6, 1),
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows, one a line."""
    return "\n".join(
        f"{row['title']:<45} {row['threads']} threads: {row['milliseconds']:>8.2f} ms and "
        f"{row['memory_per_second']:>7.2f} MB for a second of sound; holds {row['held']:.0f} MB"
        for row in rows
    )


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("checkpoint", nargs="?", default=str(ROOT / "checkpoints/audiopg-tiny"))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--output", type=Path, default=RESULTS / "latency_cpu.json")
    known = parser.parse_args(arguments)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as scratch:
        try:
            source = Exportable.load(known.checkpoint, "embedding")
            onnx, int8 = Path(scratch) / "encoder.onnx", Path(scratch) / "int8.onnx"
            write_graph(source, onnx)
        except (ImportError, OSError, ValueError) as error:
            parser.exit(2, f"{parser.prog}: {error}\n")
        quantise(onnx, int8)
        files = dict.fromkeys(TITLES, known.checkpoint) | {"onnx": str(onnx), "int8": str(int8)}
        rows = [row for threads in known.threads for row in compare(files, threads, known.rounds)]
    config = source.model.config
    words = sys.argv[1:] if arguments is None else arguments
    results = {
        **environment(),
        "checkpoint": public_name(known.checkpoint),
        "model_digest": source.digest,
        "layers": {"read": config.embedding_layer or config.num_hidden_layers, "of": config.num_hidden_layers},
        "clip_seconds": SECONDS,
        "rounds": known.rounds,
        "rows": rows,
        "load_average": {"before": load, "after": os.getloadavg()[0], "cores": os.cpu_count()},
        "command": shlex.join(["python", "benchmarks/latency.py", *map(public_word, words)]),
    }
    known.output.parent.mkdir(parents=True, exist_ok=True)
    known.output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(f"{table(rows)}\n")


if __name__ == "__main__":
    main()
