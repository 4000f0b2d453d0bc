"""Where a result comes from: hardware, versions and commit, recorded beside every number."""

import importlib.metadata
import platform
import subprocess
from pathlib import Path

import torch

import audiopg
from audiopg.data_scripts.patterns import PATTERNS_VERSION
from audiopg.data_scripts.synthesis import SYNTHESIZER_VERSION
from audiopg.data_scripts.voices import VOICES_VERSION

_PACKAGES = ("torch", "transformers", "accelerate", "numpy")


def hardware() -> str:
    """The accelerator, or else the CPU and the number of threads that PyTorch uses on it.

    Example:
        >>> bool(hardware())
        True
    """
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    threads = torch.get_num_threads()
    return f"{_cpu_name()} CPU, {threads} thread{'s' * (threads > 1)}"


def _cpu_name() -> str:
    """Its model where the system tells (Linux), or else its architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Versions of Python, the synthesizers, the images, this package and those that its numbers depend on.

    Example:
        >>> sorted(versions())[:3]
        ['accelerate', 'audiopg', 'numpy']
    """
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    examples = {"synthesizer": SYNTHESIZER_VERSION, "voices": VOICES_VERSION, "patterns": PATTERNS_VERSION}
    return {"audiopg": audiopg.__version__, **examples, "python": platform.python_version(), **found}


def commit() -> str | None:
    """The git commit of this project that the code is at, with `+` where it has uncommitted changes.

    Returns:
        None, "not known", where this file does not lie in a checkout of this project and in its history: a package
        that is installed inside another repository must not be given the commit of that one.

    Example:
        >>> commit() is None or len(commit()) >= 12
        True
    """
    here = Path(__file__).resolve()
    root = here.parents[2]  # of training/runs/provenance.py

    def git(*words: str) -> str:
        command = ["git", "-C", str(root), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        is_ours = Path(git("rev-parse", "--show-toplevel")).samefile(root) and (root / "src/audiopg").is_dir()
        if not is_ours or not git("ls-files", "--", str(here)):
            return None
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def environment() -> dict[str, object]:
    """All of it, as plain values for a JSON file."""
    return {"hardware": hardware(), "versions": versions(), "commit": commit()}
