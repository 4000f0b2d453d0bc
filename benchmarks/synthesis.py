"""How fast clips are made: by stage, batch size, preset and threads, beside others, and in how much memory.

    python benchmarks/synthesis.py             # minutes on a CPU
    python benchmarks/synthesis.py --peers     # also SynthAX and torchsynth, which it installs into build/peers
    python benchmarks/synthesis.py --device cuda --output benchmarks/results/synthesis_cuda.json

Times are wall clock, medians of repeats after a warm-up, synchronised, and every batch is read back as a checksum. All
is made in processes of their own (`benchmarks/peers/`). The contenders take turns on the same cores, batch after
batch: on a machine that others use too, the ratios between them mean more than the numbers. Writes JSON, and a bar
chart beside it.
"""

import argparse
import json
import os
import shlex
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from contenders import PEERS, Contender, add_ratios, in_turns
from matplotlib.figure import Figure

from audiopg.training.publishing.pages import synthesis_part
from audiopg.training.runs.provenance import environment

STAGES = (
    "draw",
    "events",
    "transients",
    "damping",
    "noise",
    "normalisation",
    "mixing",
    "log-mel",
    "standardisation",
)
"""As `peers/audiopg_stages.py` has them."""

BATCH_SIZES = {"cpu": (4, 16, 64), "cuda": (64, 256, 1024, 4096)}
PEER_BATCH_SIZE = {"cpu": 16, "cuda": 128}
OUR_BATCH_SIZE = {"cpu": 16, "cuda": 1024}
SOAK_BATCH_SIZE = {"cpu": 4, "cuda": 256}


def measure_stages(
    device: str, threads: int, batch_sizes: Sequence[int], repeats: int, duration: float
) -> list[dict[str, Any]]:
    """A row per preset and batch size: milliseconds per clip by stage, and the speed of the whole, uncut."""
    cases = [(preset, batch_size) for preset in ("reference", "audiopg") for batch_size in batch_sizes]
    made: list[list[dict[str, float]]] = [[] for _ in cases]
    options = {"cases": cases, "duration": duration, "device": device}
    with Contender("audiopg_stages", options, threads) as process:
        for step in range((repeats + 1) * len(cases)):
            made[step % len(cases)].append(process.make(step)["made"])
    rows = []
    for (preset, batch_size), (_, *repeated) in zip(cases, made, strict=True):
        per_clip = {
            name: round(statistics.median(1000 * row.get(name, 0.0) / batch_size for row in repeated), 4)
            for name in STAGES
        }
        clips_per_second = batch_size / statistics.median(row["whole"] for row in repeated)
        row = {"preset": preset, "batch_size": batch_size, "threads": threads, "milliseconds_per_clip": per_clip}
        row |= {"clips_per_second": round(clips_per_second, 2), "times_real_time": round(clips_per_second * duration)}
        rows.append(row)
    return rows


def contenders(device: str, duration: float, peers: Path | None) -> Iterator[dict[str, Any]]:
    """Who takes part: a title, what it makes, a module, its options, and what its environment needs, if not ours."""
    batch_size = OUR_BATCH_SIZE[device]
    for preset in ("reference", "audiopg"):
        for features in (False, True):
            options = {"batch_size": batch_size, "preset": preset, "features": features, "duration": duration}
            made = "log-mel" if features else "waveforms"
            yield {"title": f"AudioPG, {preset}", "makes": made, "module": "audiopg_clips", "options": options}
    for precision in ("float32", "float64"):
        options = {"batch_size": 16, "precision": precision, "duration": duration}
        yield {
            "title": f"NumPy and torchaudio, clip by clip, {precision}",
            "makes": "log-mel",
            "module": "research_loop",
            "options": options,
        }
    if peers is not None:
        for module, peer in PEERS.items():
            yield {**peer, "makes": "waveforms", "module": module, "options": {"batch_size": PEER_BATCH_SIZE[device]}}


def compare(
    device: str, threads: int, rounds: int, duration: float = 10.24, peers: Path | None = None
) -> list[dict[str, Any]]:
    """Let all contenders make batches in turn.

    Args:
        device: Where they run.
        threads: Cores and threads for each.
        rounds: How often each has its turn, one to warm up not counted.
        duration: Of our clips, in s.
        peers: Folder for the peers' environments; without one they do not take part.

    Returns:
        A row each: times real time by wall clock, and how often our `reference` making the same thing is as fast
        (above 1: we are faster), by wall clock and by CPU time. Who did not start has its `error` instead.
    """
    rows, running = in_turns(contenders(device, duration, peers), device, threads, rounds, peers)
    add_ratios(running, "AudioPG, reference")
    return rows


def measure_memory(device: str, batch_sizes: Sequence[int], duration: float) -> list[dict[str, Any]]:
    """Peak memory of a batch beyond what the process holds before it, log-mel included, by batch size."""
    rows = []
    for batch_size in batch_sizes:
        options = {"batch_size": batch_size, "duration": duration, "device": device}
        with Contender("audiopg_clips", options, threads=1) as process:
            before = process.ready["memory"]["now"]
            peak = [process.make(step) for step in range(1, 4)][-1]["memory"]["peak"]
        beyond = max(0, peak - before) / 1e6
        rows.append(
            {"batch_size": batch_size, "megabytes": round(beyond, 1), "per_clip": round(beyond / batch_size, 2)}
        )
    return rows


def soak(device: str, batches: int, duration: float) -> dict[str, Any]:
    """Whether memory stays flat: what the process holds at each tenth of many batches, in MB."""
    batch_size, held = SOAK_BATCH_SIZE[device], []
    with Contender("audiopg_clips", {"batch_size": batch_size, "duration": duration, "device": device}, 1) as process:
        for step in range(1, batches + 1):
            memory = process.make(step)["memory"]
            if step % max(1, batches // 10) == 0:
                held.append(round(memory["now"] / 1e6, 1))
    return {"batches": batches, "batch_size": batch_size, "megabytes": held}


def stage_table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows of `measure_stages` as Markdown."""
    names = list(rows[0]["milliseconds_per_clip"])
    head = ["preset", "batch", "threads", *(f"{name}, ms" for name in names), "clips/s", "times real time"]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        stages = [f"{row['milliseconds_per_clip'][name]:.3f}" for name in names]
        speed = [f"{row['clips_per_second']:.1f}", f"{row['times_real_time']}"]
        lines.append([row["preset"], str(row["batch_size"]), str(row["threads"]), *stages, *speed])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def draw_chart(results: dict[str, Any], path: Path) -> None:
    """Bars: times real time of all contenders, one group for waveforms and one for log-mel."""
    threads = sorted({row["threads"] for row in results["contenders"]})
    style = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(8, 4.2), layout="constrained", dpi=160)
        axes = figure.subplots(2, 1, sharex=True)
        for axis, makes in zip(axes, ("waveforms", "log-mel"), strict=True):
            rows = [row for row in results["contenders"] if row["makes"] == makes and "error" not in row]
            titles = list(dict.fromkeys(row["title"] for row in rows))
            for number, count in enumerate(threads):
                of_count = {row["title"]: row["times_real_time"] for row in rows if row["threads"] == count}
                places = [titles.index(title) + (number - (len(threads) - 1) / 2) * 0.38 for title in of_count]
                colours = ["C0" if title.startswith("AudioPG") else "C7" for title in of_count]
                opacity = (number + 1) / len(threads)
                bars = axis.barh(places, list(of_count.values()), height=0.36, color=colours, alpha=opacity)
                axis.bar_label(bars, fmt=f"{{:,.0f}}  ({count} thread{'s' * (count > 1)})", padding=3, fontsize=7)
            axis.set_yticks(range(len(titles)), titles)
            axis.invert_yaxis()
            axis.set_title(f"{makes}, times real time", loc="left", fontsize=9)
            axis.margins(x=0.15)
        figure.savefig(path)


def measure(known: argparse.Namespace) -> dict[str, Any]:
    """Everything, as plain values for a JSON file."""
    device, load = known.device, os.getloadavg()
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = known.threads or (sorted({1, available}) if device == "cpu" else [available])
    batch_sizes = known.batch_sizes or BATCH_SIZES[device]
    results: dict[str, Any] = {**environment(), "device": device, "clip_seconds": known.duration}
    results["stages"] = [
        row for count in threads for row in measure_stages(device, count, batch_sizes, known.repeats, known.duration)
    ]
    peers = known.peers_dir if known.peers else None
    results["contenders"] = [
        row for count in threads for row in compare(device, count, known.rounds, known.duration, peers)
    ]
    results["memory"] = measure_memory(device, batch_sizes, known.duration)
    results["soak"] = soak(device, 10_000 if known.soak else known.soak_batches, known.duration)
    # Others' work on the same machine; this benchmark itself is about `threads` of the second.
    results["load_average"] = {"before": load[0], "after": os.getloadavg()[0], "cores": available}
    return results


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results/synthesis_cpu.json")
    parser.add_argument("--device", choices=sorted(BATCH_SIZES), default="cpu")
    parser.add_argument("--peers", action="store_true", help="measure SynthAX and torchsynth too; installs them")
    parser.add_argument("--peers_dir", type=Path, default=Path("build/peers"), help="where their environments live")
    parser.add_argument("--repeats", type=int, default=15, help="of each row of the table of stages")
    parser.add_argument("--rounds", type=int, default=30, help="turns of each contender")
    parser.add_argument("--batch_sizes", type=int, nargs="+", help="instead of the device's own")
    parser.add_argument("--threads", type=int, nargs="+", help="instead of 1 and as many as there are cores")
    parser.add_argument("--duration", type=float, default=10.24, help="of a clip, in s")
    parser.add_argument("--soak_batches", type=int, default=200, help="batches of the check that memory stays flat")
    parser.add_argument("--soak", action="store_true", help="10 000 of them")
    known = parser.parse_args(arguments)
    words = sys.argv[1:] if arguments is None else arguments
    results = {**measure(known), "command": shlex.join(["python", "benchmarks/synthesis.py", *words])}
    known.output.parent.mkdir(parents=True, exist_ok=True)
    known.output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    draw_chart(results, known.output.with_suffix(".png"))
    sys.stdout.write(f"{synthesis_part(results)}\n\n{stage_table(results['stages'])}\n")


if __name__ == "__main__":
    main()
