"""How fast clips become model inputs, beside transformers' ASTFeatureExtractor: the same clips, the same log-mel.

    python benchmarks/feature_extraction.py                       # a CPU, one and two threads, a minute or two
    python benchmarks/feature_extraction.py --device cuda         # from tensors that are on the GPU already

Both make 128 Kaldi mel bands every 10 ms of clips of 10.24 s; AST's extractor has torchaudio do it, clip by clip, and
takes arrays only, so with clips on a GPU its time holds the way to the host and back. The extractors take turns, round
after round, and medians are reported: of the wall's clock, and on a CPU also of the process's own (all threads added
up), which other users of the machine change less. That both compute the same is measured with them.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import ASTFeatureExtractor

from audiopg.modeling.feature_extraction_audiopg import AudioPGFeatureExtractor
from audiopg.modeling.spectrogram_audiopg import num_frames
from audiopg.training.runs.provenance import environment

RATE = 16000
CLIP_SECONDS = 10.24
RESULTS = Path(__file__).parent / "results"


def noise_clips(num_clips: int, device: str, seed: int = 0) -> list[Any]:
    """Clips of noise, float32: NumPy arrays on a CPU, tensors elsewhere."""
    random = np.random.default_rng(seed)
    clips = [(0.1 * random.standard_normal(round(CLIP_SECONDS * RATE))).astype(np.float32) for _ in range(num_clips)]
    return clips if device == "cpu" else [torch.from_numpy(clip).to(device) for clip in clips]


def contenders(clips: list[Any], device: str) -> dict[str, Callable[[], Tensor]]:
    """Calls that make model inputs `(clips, 1024, 128)` on the device, ours with AST's mean and deviation."""
    theirs = ASTFeatureExtractor()
    ours = AudioPGFeatureExtractor(mean=theirs.mean, std=theirs.std)

    def ast() -> Tensor:
        arrays = [clip.cpu().numpy() if isinstance(clip, Tensor) else clip for clip in clips]
        return theirs(arrays, sampling_rate=RATE, return_tensors="pt")["input_values"].to(device)

    return {"audiopg": lambda: ours(clips, sampling_rate=RATE)["input_values"], "ast": ast}


def largest_difference(calls: dict[str, Callable[[], Tensor]]) -> float:
    """Between the two, over the frames that are no padding."""
    real = num_frames(round(CLIP_SECONDS * RATE))
    ours, theirs = (call()[:, :real] for call in calls.values())
    return float((ours - theirs).abs().max())


def measure(calls: dict[str, Callable[[], Tensor]], rounds: int, device: str) -> dict[str, dict[str, float]]:
    """Median seconds of each call by the wall's clock, and by the process's.

    Args:
        calls: By name.
        rounds: Turns for each.
        device: Waited for, if it is a GPU.

    Returns:
        For each name `wall` and `process`, in s.
    """
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for turn in tqdm(range(rounds), desc="Rounds", unit="round", leave=False, disable=None):
        for name in sorted(calls, reverse=bool(turn % 2)):  # whoever is second finds warmer caches
            started = time.perf_counter(), time.process_time()
            calls[name]()
            if device != "cpu":
                torch.cuda.synchronize(device)
            taken[name].append((time.perf_counter() - started[0], time.process_time() - started[1]))
    return {
        name: {
            "wall": round(median(wall for wall, _ in times), 5),
            "process": round(median(cpu for _, cpu in times), 5),
        }
        for name, times in taken.items()
    }


def compare(num_clips: int, rounds: int, device: str, num_threads: int) -> dict[str, Any]:
    """One row of the report: a batch of clips, by both, with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        calls = contenders(noise_clips(num_clips, device), device)
        difference, seconds = largest_difference(calls), measure(calls, rounds, device)
    finally:
        torch.set_num_threads(before)
    clocks = ("wall", "process") if device == "cpu" else ("wall",)
    return {
        "clips": num_clips,
        "threads": num_threads,
        "seconds": seconds,
        "clips_per_second": {name: round(num_clips / times["wall"], 1) for name, times in seconds.items()},
        "speedup": {clock: round(seconds["ast"][clock] / seconds["audiopg"][clock], 2) for clock in clocks},
        "largest_difference": difference,
    }


def format_rows(rows: Sequence[dict[str, Any]]) -> str:
    """A line for each row."""
    return "\n".join(
        f"{row['clips']:>3} clips, {row['threads']} threads: {row['clips_per_second']['audiopg']:>8.1f} clips/s, AST "
        f"{row['clips_per_second']['ast']:>8.1f}; faster by "
        + ", ".join(f"{factor:.2f} ({clock})" for clock, factor in row["speedup"].items())
        for row in rows
    )


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--clips", type=int, nargs="+", default=[1, 32], help="clips in a batch")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--output", type=Path, help="by default feature_extraction_DEVICE.json in benchmarks/results")
    known = parser.parse_args(arguments)
    if known.device == "cuda" and not torch.cuda.is_available():
        parser.exit(2, f"{parser.prog}: there is no CUDA device here. Leave out --device cuda.\n")
    rows = [compare(clips, known.rounds, known.device, threads) for threads in known.threads for clips in known.clips]
    report = {**environment(), "clip_seconds": CLIP_SECONDS, "rounds": known.rounds, "rows": rows}
    output = known.output or RESULTS / f"feature_extraction_{known.device}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(format_rows(rows) + "\n")


if __name__ == "__main__":
    main()
