"""What a machine can do to a run, done on purpose: kills, full disks, damaged files, two commands at once.

    python benchmarks/faults.py [--trials 20] [--seed 0] [--only NAME ...]

prints a Markdown table: what was tried, and how many of how many held. A trial holds if the same command, given
again, ends at the bits of an undisturbed one, or refuses with a sentence that names what is wrong; never with a
traceback, and never with another result. All is small and on the CPU. A full disk needs root, for a small tmpfs.
"""

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers.utils import logging

from audiopg.data_scripts.audiopg_synthetic import AudioPGSyntheticConfig
from audiopg.modeling.configuration_audiopg import AudioPGConfig
from audiopg.modeling.feature_extraction_audiopg import AudioPGFeatureExtractor
from audiopg.modeling.modeling_audiopg import AudioPGForPreTraining
from audiopg.training.features.cache import FeatureCache, front_end_of
from audiopg.training.finetuning.recipe import FinetuningRecipe
from audiopg.training.finetuning.run import FinetuningRun
from audiopg.training.objectives.pretraining import pretrain
from audiopg.training.objectives.recipe import PretrainingRecipe
from audiopg.training.publishing.dataset import build_dataset
from audiopg.training.publishing.exporting import export_run
from audiopg.training.runs.checkpoints import checkpoints_of
from audiopg.training.runs.metrics_log import read_metrics
from audiopg.training.runs.recipes import build_recipe

SMALL = {
    **{"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32},
    **{"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2},
    "decoder_intermediate_size": 16,
}
RECIPE = {
    **{"name": "toy", "description": "For trials of faults.", "size": "tiny", "model": SMALL, "preset": "reference"},
    **{"synthesis": {"duration": 0.64}, "num_clips": 160, "batch_size": 8, "statistics_clips": 16},
    **{"log_every": 3, "checkpoint_every": 2, "keep_checkpoints": 3},
}
FINETUNING = {
    **{"name": "toy", "description": "For trials of faults.", "epochs": 6, "batch_size": 8, "learning_rate": 3e-3},
    **{"clip_seconds": None, "time_mask": 4, "frequency_mask": 16, "checkpoints_per_round": 5},
}
EXPECTED = (ValueError, OSError, FloatingPointError, SafetensorError)
"""What the doors turn into one sentence; anything else would be a traceback."""

Command = Callable[[Path], Any]


def pretrain_toy(folder: Path) -> None:
    """As `training/pretrain.py`."""
    pretrain(build_recipe(PretrainingRecipe, RECIPE), folder)


def pretrain_another(folder: Path) -> None:
    """The same with another seed."""
    pretrain(build_recipe(PretrainingRecipe, {**RECIPE, "seed": 1}), folder)


def build_toy(folder: Path) -> None:
    """As `training/build_dataset.py`."""
    config = AudioPGSyntheticConfig(name="audiopg", num_clips=60, clips_per_shard=10, synthesis={"duration": 0.5})
    build_dataset(config, folder)


@dataclass
class Finetune:
    """As `training/finetune.py`: a checkpoint and features that lie in a folder."""

    beside: Path

    def prepare(self, _folder: Path) -> None:
        """Make both."""
        torch.manual_seed(0)
        extractor = AudioPGFeatureExtractor(mean=0.0, std=0.5)
        AudioPGForPreTraining(AudioPGConfig(**SMALL)).save_pretrained(self.beside / "encoder")
        extractor.save_pretrained(self.beside / "encoder")
        labels = torch.tensor([0, 1] * 12)
        frames = torch.randn(24, 16, 128) * 0.3 + (2 * labels - 1)[:, None, None]
        names = [f"{index}.wav" for index in range(24)]
        parts = [1 + index // 8 for index in range(24)]
        settings, lengths = front_end_of(extractor).settings, torch.full((24,), 16)
        flat = frames.reshape(-1, 128).half()
        cache = FeatureCache("toy", ["a", "b"], settings, names, parts, names, flat, lengths, labels, "0" * 16)
        cache.save(self.beside / "features.safetensors")

    def __call__(self, folder: Path) -> None:
        """All rounds, the model from scratch and the linear controls."""
        cache = FeatureCache.load(self.beside / "features.safetensors")
        recipe = build_recipe(FinetuningRecipe, FINETUNING)
        FinetuningRun(str(self.beside / "encoder"), cache, recipe, folder, write=lambda line: None).run()


@dataclass
class Export:
    """As `training/export.py`, of a run."""

    run: Path

    def __call__(self, folder: Path) -> None:
        """Write or replace the folder."""
        export_run(self.run, folder)


def _child(command: Command, folder: Path, said: Path) -> None:
    torch.set_num_threads(1)
    with (said.with_suffix(".log")).open("a") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    try:
        command(folder)
        said.write_text("done")
    except EXPECTED as error:
        said.write_text(f"refused: {error}")
    except BaseException as error:
        said.write_text(f"traceback: {type(error).__name__}: {error}")


def start(command: Command, folder: Path) -> tuple[Any, Path]:
    """A command in a process of its own; with where it will say how it ended."""
    said = Path(tempfile.mkstemp(suffix=".txt", dir=SCRATCH[0])[1])
    process = multiprocessing.get_context("fork").Process(target=_child, args=(command, folder, said))
    process.start()
    return process, said


def finish(process: Any, said: Path) -> str:
    """`done`, `refused: ...`, `traceback: ...`, or nothing if it was killed."""
    process.join(300)
    return said.read_text()


def run(command: Command, folder: Path) -> str:
    """A command to its end."""
    return finish(*start(command, folder))


def killed(command: Command, folder: Path, delay: float) -> None:
    """A command that is killed after a time, in s, if it has not ended by then."""
    process, _ = start(command, folder)
    process.join(delay)
    if process.is_alive():
        os.kill(process.pid, signal.SIGKILL)
    process.join()


SCRATCH: list[Path] = []


def content(folder: Path, *patterns: str) -> dict[str, bytes]:
    """Files by name."""
    found = sorted(path for pattern in patterns for path in folder.rglob(pattern) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def of_pretraining(folder: Path) -> Any:
    """What may not differ: the last weights and moments, and every row of metrics but its times."""
    times = ("seconds", "clips_per_second", "share_of_peak")
    rows = [{name: value for name, value in row.items() if name not in times} for row in read_metrics(folder)]
    checkpoints = checkpoints_of(folder)
    return rows, checkpoints and content(checkpoints[-1], "*.safetensors", "*.pt")


def of_weights(folder: Path) -> Any:
    """The last weights and moments alone: lost rows of metrics are told, and cannot be made again."""
    return of_pretraining(folder)[1]


def of_finetuning(folder: Path) -> Any:
    """Scores, logits, and the final model."""
    path = folder / "results.json"
    results = json.loads(path.read_text())["results"] if path.exists() else {}
    scores = {name: row["scores"] for name, row in results.items()}
    return scores, content(folder / "rounds", "*.safetensors"), content(folder / "model", "*.safetensors")


def of_dataset(folder: Path) -> Any:
    """All shards."""
    return content(folder / "data", "*.parquet")


@dataclass
class Trials:
    """Kinds of trials, with the commands undisturbed."""

    folder: Path
    number: int
    seed: int

    def __post_init__(self) -> None:
        """Make what the commands are given."""
        self.rng, self.finetune = random.Random(self.seed), Finetune(self.folder / "given")
        (self.folder / "given").mkdir()
        run(self.finetune.prepare, self.folder)
        self.kinds: dict[str, tuple[Command, Callable[[Path], Any]]] = {
            "pre-training": (pretrain_toy, of_pretraining),
            "fine-tuning": (self.finetune, of_finetuning),
            "build_dataset": (build_toy, of_dataset),
        }
        self._undisturbed: dict[str, tuple[Path, float]] = {}
        self.failures: list[str] = []

    def undisturbed(self, name: str) -> tuple[Path, float]:
        """The folder of a command that nothing happened to, and how many seconds it took."""
        if name not in self._undisturbed:
            folder, started = self.folder / "whole" / name, time.monotonic()
            folder.mkdir(parents=True)
            said = run(self.kinds[name][0], folder)
            if said != "done":
                raise RuntimeError(f"{name} fails undisturbed: {said}")
            self._undisturbed[name] = folder, time.monotonic() - started
        return self._undisturbed[name]

    def fresh(self) -> Path:
        """A folder that is not there yet."""
        return Path(tempfile.mkdtemp(dir=self.folder)) / "run"

    def holds(self, kind: str, held: bool, why: object) -> bool:
        """Note what did not hold."""
        if not held:
            self.failures.append(f"{kind}: {str(why)[:300]}")
        return held

    def kills(self, name: str) -> Iterator[bool]:
        """SIGKILL at a random moment, up to three times, then the same command."""
        (command, read), (whole, seconds) = self.kinds[name], self.undisturbed(name)
        for _ in range(self.number):
            folder = self.fresh()
            for _ in range(self.rng.randint(1, 3)):
                killed(command, folder, self.rng.uniform(0.02, seconds))
            said = run(command, folder)
            yield self.holds(f"kills of {name}", said == "done" and read(folder) == read(whole), said)

    def kills_of_export(self) -> Iterator[bool]:
        """SIGKILL while a folder is replaced: it is the old one, the new one, or (for a moment) not there."""
        another = self.fresh()
        run(pretrain_another, another)
        sources = [Export(self.undisturbed("pre-training")[0]), Export(another)]
        read = ("*.safetensors", "*.json", "*.py")
        exported, seconds = [], 0.0
        for source in sources:
            folder, started = self.fresh(), time.monotonic()
            run(source, folder)
            seconds = time.monotonic() - started
            exported.append(content(folder, *read))
        for _ in range(self.number):
            folder = self.fresh()
            run(sources[0], folder)
            killed(sources[1], folder, self.rng.uniform(0.3, 1.0) * seconds)
            found = content(folder, *read)
            said = run(sources[1], folder)
            held = found in (*exported, {}) and said == "done" and content(folder, *read) == exported[1]
            yield self.holds("kills of export", held, said)

    def full_disks(self, name: str) -> Iterator[bool]:
        """A tmpfs that fills up: a sentence that names what could not be written, then room, and the same command."""
        (command, read), (whole, _) = self.kinds[name], self.undisturbed(name)
        needed = sum(path.stat().st_size for path in whole.rglob("*") if path.is_file())
        for _ in range(self.number):
            with small_disk(self.folder, round(needed * self.rng.uniform(0.1, 0.9))) as disk:
                said = run(command, disk / "run")
                named = said == "done" or (said.startswith("refused") and str(disk) in said)
                subprocess.run(["mount", "-o", "remount,size=1g", str(disk)], check=True)
                again = run(command, disk / "run")
                held = named and again == "done" and read(disk / "run") == read(whole)
                yield self.holds(f"full disk, {name}", held, (said, again))

    def damage(self, name: str) -> Iterator[bool]:
        """Every file of an unfinished run emptied, cut, altered or removed, one at a time; then the same command."""
        (command, _), (whole, _) = self.kinds[name], self.undisturbed(name)
        read = of_weights if name == "pre-training" else self.kinds[name][1]
        expected = read(whole)
        begun = self.fresh()
        shutil.copytree(whole, begun)
        (begun / ("results.json" if name == "fine-tuning" else "run.json")).unlink()
        if name == "pre-training":
            shutil.rmtree(checkpoints_of(begun)[-1])
        files = [path.relative_to(begun) for path in sorted(begun.rglob("*")) if path.is_file()]
        files = [path for path in files if not path.name.startswith((".lock", "events."))]
        for path in files if self.number > 2 else self.rng.sample(files, 2):
            for how in ("empty", "cut", "altered", "removed"):
                folder = self.fresh()
                shutil.copytree(begun, folder)
                damage(folder / path, how, self.rng)
                said = run(command, folder)
                named = said.startswith("refused") and (path.name in said or path.parent.name in said)
                held = named or (said == "done" and read(folder) == expected)
                yield self.holds(f"damage to {name}, {path}, {how}", held, said)

    def at_once(self, name: str) -> Iterator[bool]:
        """The same command twice at once: one is refused or comes after, and the result is that of one."""
        (command, read), (whole, seconds) = self.kinds[name], self.undisturbed(name)
        for _ in range(self.number):
            folder = self.fresh()
            both = [start(command, folder)]
            time.sleep(self.rng.uniform(0, 0.5) * seconds)
            both.append(start(command, folder))
            said = [finish(*one) for one in both]
            refusals = [one for one in said if one.startswith("refused") and "Another command is at work" in one]
            held = said.count("done") + len(refusals) == 2 and "done" in said
            yield self.holds(f"{name} twice at once", held and read(folder) == read(whole), said)

    def foreign(self) -> Iterator[bool]:
        """Every command in a folder of every other: refused, and nothing in the folder has changed."""
        for name, (command, _) in self.kinds.items():
            for other in self.kinds:
                if other != name:
                    folder = self.fresh()
                    shutil.copytree(self.undisturbed(other)[0], folder)
                    before, said = content(folder, "*"), run(command, folder)
                    held = said.startswith("refused") and content(folder, "*") == before
                    yield self.holds(f"{name} in a folder of {other}", held, said)


def damage(path: Path, how: str, rng: random.Random) -> None:
    """Do something to a file that a disk, or a person, might do to it."""
    whole = bytearray(path.read_bytes())
    if how == "removed":
        path.unlink()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif whole:
        whole[rng.randrange(len(whole))] ^= 1 << rng.randrange(7)
        path.write_bytes(whole)


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A file system in memory of some bytes; needs root."""
    disk = Path(tempfile.mkdtemp(dir=folder))
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={max(size, 65536)}", "tmpfs", str(disk)], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def can_mount(folder: Path) -> bool:
    """Whether a small disk can be had here."""
    try:
        with small_disk(folder, 2**20):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20, help="of each kind; damage goes through all files from 3 on")
    parser.add_argument("--seed", type=int, default=0, help="of moments and places")
    parser.add_argument("--only", nargs="*", default=[], help="kinds to try, by words of their names; default all")
    known = parser.parse_args(arguments)
    logging.disable_progress_bar()
    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory() as scratch:
        SCRATCH.append(Path(scratch))
        trials = Trials(Path(scratch), known.trials, known.seed)
        kinds: dict[str, Callable[[], Iterator[bool]]] = {}
        for name in trials.kinds:
            kinds[f"SIGKILL at random moments: {name}"] = lambda name=name: trials.kills(name)
            kinds[f"the same command twice at once: {name}"] = lambda name=name: trials.at_once(name)
            if name != "build_dataset":
                kinds[f"every file emptied, cut, altered, removed: {name}"] = lambda name=name: trials.damage(name)
        kinds["SIGKILL while an exported folder is replaced"] = trials.kills_of_export
        kinds["a command in the folder of another kind"] = trials.foreign
        if can_mount(trials.folder):
            for name in trials.kinds:
                kinds[f"full disk: {name}"] = lambda name=name: trials.full_disks(name)
        sys.stdout.write("| what was tried | held |\n|---|---|\n")
        for name, tries in kinds.items():
            if not known.only or any(word in name for word in known.only):
                held = list(tries())
                sys.stdout.write(f"| {name} | {sum(held)} of {len(held)} |\n")
                sys.stdout.flush()
        if not can_mount(trials.folder):
            sys.stdout.write("| full disk | not tried: it needs root |\n")
        for failure in trials.failures:
            sys.stderr.write(f"did not hold: {failure}\n")
        sys.exit(bool(trials.failures))


if __name__ == "__main__":
    main()
