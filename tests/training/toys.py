"""What several tests need: the sizes of a model that trains in no time, and recordings that it can tell apart."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile

SMALL = {
    "hidden_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 16,
}


def write_recordings(folder: Path, sampling_rate: int = 16000) -> None:
    """A low and a high tone with some noise, 0.5 s, 18 clips in three folds in ESC-50's layout."""
    (folder / "audio").mkdir(parents=True)
    (folder / "meta").mkdir()
    rng, rows = np.random.default_rng(0), []
    for number in range(18):
        fold, target = 1 + number % 3, number % 2
        name = f"{fold}-{number}-A-{target}"
        time = np.arange(sampling_rate // 2) / sampling_rate
        tone = np.sin(2 * np.pi * (300, 3000)[target] * time) + 0.1 * rng.standard_normal(len(time))
        soundfile.write(folder / "audio" / f"{name}.flac", 0.45 * tone, sampling_rate)
        rows.append([f"{name}.wav", fold, target, ("low", "high")[target], number])
    with (folder / "meta" / "esc50.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["filename", "fold", "target", "category", "src_file"], *rows])


def torchrun(num_processes: int, *words: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """A script by PyTorch's launcher, which says nothing of CPUs to accelerate."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(num_processes)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ACCELERATE_")} | variables
    environment["OMP_NUM_THREADS"] = "1"
    command = [*launch, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment)
