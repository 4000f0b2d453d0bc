"""How fast a corpus becomes embeddings: `training/embed.py` from files to Parquet, seconds of sound in a second.

    python benchmarks/corpus.py                      # a CPU: some minutes
    python benchmarks/corpus.py --device cuda --minutes 600

Two corpora are written first, into a temporary folder: clips of 5 s at 16 kHz and recordings of a minute at
44.1 kHz, which have to be resampled; FLAC, of synthesized sounds. Each is embedded by the released model and by an
encoder of the paper's size, whose weights, random here, do not change how fast it is. Reading, decoding, resampling,
log-mel, encoder and writing are all in it; loading Python and the models, a matter of seconds, is not.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import soundfile
import torch

from audiopg import AudioPGConfig, AudioPGFeatureExtractor, AudioPGModel
from audiopg.data_scripts.synthesis import draw, render
from audiopg.training.publishing.corpus import Job, embed_corpus
from audiopg.training.publishing.hub import write_hub_folder
from audiopg.training.runs.names import public_name, public_word, say
from audiopg.training.runs.provenance import environment

RESULTS = Path(__file__).parent / "results"
CORPORA = {"clips": (5.0, 16000), "recordings": (60.0, 44100)}
"""Seconds and sampling rate of each file."""


def write_corpus(folder: Path, seconds_each: float, rate: int, total_seconds: float) -> int:
    """Files of synthesized sounds, all of one length.

    Args:
        folder: Is made.
        seconds_each: Length of a file.
        rate: Its sampling rate in Hz.
        total_seconds: Of all files, of which there are two or more.

    Returns:
        How many there are.
    """
    folder.mkdir()
    sounds = render(draw("audiopg", seed=0, indices=range(16))).flatten().numpy()
    length, count = round(seconds_each * rate), max(2, round(total_seconds / seconds_each))
    for number in range(count):
        samples = np.resize(np.roll(sounds, -number * length), length)
        soundfile.write(folder / f"{number:06d}.flac", samples, rate)
    return count


def measure(checkpoint: Path, corpus: Path, warm: Path, folder: Path, device: str) -> dict[str, Any]:
    """Embed a corpus, once a small one has loaded the model.

    Args:
        checkpoint: Whose model.
        corpus: What is measured.
        warm: A few files.
        folder: For the shards of both.
        device: Where to compute.

    Returns:
        `seconds_of_sound`, the `seconds` that it took, `times_real_time` (their ratio), and `width` of an embedding.
    """
    batch_size = 64 if device == "cuda" else 16
    jobs = {
        name: Job(str(checkpoint), str(source), folder / name, device=device, batch_size=batch_size)
        for name, source in (("warm", warm), ("measured", corpus))
    }
    embed_corpus(jobs["warm"])
    started = time.perf_counter()
    shards = embed_corpus(jobs["measured"])
    taken = time.perf_counter() - started
    seconds = sum(shard["seconds"] for shard in shards)
    [first, *_] = sorted((folder / "measured/data").iterdir())
    return {
        "seconds_of_sound": round(seconds, 1),
        "seconds": round(taken, 4),
        "times_real_time": round(seconds / taken, 1),
        "width": pq.read_schema(first).field("embedding").type.list_size,
    }


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/audiopg-tiny"), help="the released one")
    parser.add_argument(
        "--minutes", type=float, default=20.0, help="of sound in a corpus; a tenth for the large model"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--output", type=Path, help="by default corpus_DEVICE.json in benchmarks/results")
    known = parser.parse_args(arguments)
    if known.device == "cuda" and not torch.cuda.is_available():
        parser.exit(2, f"{parser.prog}: there is no CUDA device here. Leave out --device cuda.\n")
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        write_hub_folder(AudioPGModel(AudioPGConfig.of_size("base")), AudioPGFeatureExtractor(), home / "base")
        models = {public_name(known.checkpoint): (known.checkpoint, 1.0), "base": (home / "base", 0.1)}
        write_corpus(home / "warm", 1.0, 16000, 2.0)
        for kind, (seconds_each, rate) in CORPORA.items():
            for name, (checkpoint, share) in models.items():
                corpus = home / f"{kind} {name}"
                write_corpus(corpus, seconds_each, rate, 60 * known.minutes * share)
                found = measure(checkpoint, corpus, home / "warm", home / f"out {kind} {name}", known.device)
                told = f"{seconds_each:g} s each, FLAC, {rate / 1000:g} kHz"
                rows.append({"model": name, "recordings": told, "seconds_each": seconds_each, **found})
                say(f"{name}, {told}: {found['times_real_time']} s of sound in a second")
    words = ["python", "benchmarks/corpus.py", *(public_word(word) for word in arguments or sys.argv[1:])]
    report = {**environment(), "command": " ".join(words), "load_average": round(os.getloadavg()[0], 1), "rows": rows}
    output = known.output or RESULTS / f"corpus_{known.device}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
