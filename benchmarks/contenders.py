"""Contenders of a benchmark: processes that make batches in turn, and environments for other people's packages."""

import json
import statistics
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

WORKER = Path(__file__).parent / "peers/worker.py"
PEERS = {
    "synthax_voice": {
        "title": "SynthAX 0.2.2, Voice",
        "requirements": ("synthax==0.2.2", "flax==0.8.4", "jax==0.4.26", "jaxlib==0.4.26", "scipy<1.13", "numpy<2"),
    },
    "torchsynth_voice": {
        "title": "torchsynth 1.0.2, Voice",
        "requirements": ("torchsynth==1.0.2", "pytorch-lightning==1.8.6", "setuptools<81"),
    },
}


class Contender:
    """A process that makes batches of one kind, see `peers/worker.py`.

    Args:
        module: Name of a module in `peers/`.
        options: Of its `prepare`.
        threads: How many cores and threads it gets.
        python: The interpreter, of whatever environment.

    Raises:
        RuntimeError: if it does not start; the message ends with what it said.
    """

    def __init__(self, module: str, options: dict[str, Any], threads: int, python: str = sys.executable):
        command = [python, "-W", "ignore", str(WORKER), module, json.dumps(options), "--threads", str(threads)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        try:
            self.ready = self._reply()
        except RuntimeError:
            self.close()
            raise

    def _reply(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(last_line(self._process.stderr.read()))
        return json.loads(line)

    def make(self, step: int) -> dict[str, Any]:
        """Have it make batch number `step`; its answer has `seconds`, `cpu_seconds` and `memory` in bytes."""
        self._process.stdin.write(f"{step}\n")
        self._process.stdin.flush()
        return self._reply()

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def __enter__(self) -> "Contender":
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


def last_line(text: str) -> str:
    """The last line that says something."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no message")


def install(requirements: Sequence[str], folder: Path) -> str:
    """A virtual environment with the requirements, made once; it borrows this one's torch.

    Args:
        requirements: As for pip.
        folder: Where the environment is or shall be.

    Returns:
        Its interpreter.

    Raises:
        RuntimeError: if pip fails; the message is its last one.
    """
    python, done = folder / "bin/python", folder / "installed"
    if done.exists() and done.read_text(encoding="utf-8").split() == list(requirements):
        return str(python)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True, capture_output=True)
    if any(requirement.startswith("torch") for requirement in requirements):
        # The same build of torch for both, instead of gigabytes of another one.
        query = "import sysconfig; print(sysconfig.get_path('purelib'))"
        theirs = subprocess.run([str(python), "-c", query], check=True, capture_output=True, text=True).stdout.strip()
        Path(theirs, "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    pip = subprocess.run([str(python), "-m", "pip", "install", *requirements], capture_output=True, text=True)
    if pip.returncode:
        raise RuntimeError(f"pip install {' '.join(requirements)}: {last_line(pip.stderr)}")
    done.write_text("\n".join(requirements), encoding="utf-8")
    return str(python)


_CLOCKS = ("seconds", "cpu_seconds")
Running = tuple[dict[str, Any], float, list[dict[str, Any]]]
"""The row of a contender, the seconds of audio in a batch of it, and its answers."""


def in_turns(
    contenders: Iterable[dict[str, Any]], device: str, threads: int, rounds: int, peers: Path | None
) -> tuple[list[dict[str, Any]], list[Running]]:
    """Let contenders make batches in turn, on the same cores.

    Args:
        contenders: A `title`, what it `makes`, a `module` in `peers/`, `options` of its `prepare`, and the
            `requirements` of its environment, if it is not ours.
        device: Where they run.
        threads: Cores and threads for each.
        rounds: How often each has its turn, one to warm up not counted.
        peers: Folder for environments.

    Returns:
        A row each, with `times_real_time`; who did not start has its `error` instead. And those that ran.
    """
    rows, running = [], []
    with ExitStack() as stack:
        for contender in contenders:
            options = {**contender["options"], "device": device}
            row = {"title": contender["title"], "makes": contender["makes"]}
            row |= {"batch_size": options["batch_size"], "threads": threads}
            rows.append(row)
            try:
                required = contender.get("requirements")
                python = install(required, peers / contender["module"]) if required else sys.executable
                process = stack.enter_context(Contender(contender["module"], options, threads, python))
            except RuntimeError as error:
                row["error"] = str(error)
            else:
                running.append((row, process, []))
        for step in range(1, rounds + 2):
            for _, process, made in running:
                made.append(process.make(step))
    found = [(row, process.ready["audio_seconds"], made[1:]) for row, process, made in running]
    for row, audio, made in found:
        row["times_real_time"] = round(statistics.median(audio / reply["seconds"] for reply in made))
    return rows, found


def add_ratios(running: Iterable[Running], title: str) -> None:
    """Add how often the contender of that title, making the same thing, is as fast as each: above 1, it is faster.

    Args:
        running: From `in_turns`; rows get a `ratio` by wall clock and a `cpu_ratio` by CPU time, medians over rounds.
        title: Whose speed is the numerator.
    """
    running = list(running)
    speeds = {
        (row["title"], row["makes"]): [
            [audio / reply[clock] for reply in made] for clock in ("seconds", "cpu_seconds")
        ]
        for row, audio, made in running
    }
    for row, _, _ in running:
        theirs, ours = speeds[row["title"], row["makes"]], speeds[title, row["makes"]]
        for name, mine, others in zip(("ratio", "cpu_ratio"), ours, theirs, strict=True):
            row[name] = round(statistics.median(a / b for a, b in zip(mine, others, strict=True)), 3)
