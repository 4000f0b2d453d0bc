"""Scripts of one file, run by uv itself from this repository's wheel; and the commands of docs/hub.md, read by hf.

uv reads a script's metadata, resolves `audiopg`, makes an environment and installs the wheel into it. What a test has
no network for is the rest: the wheel is said to require nothing, and finds torch and its like where the tests have
them.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import soundfile
from toys import SMALL, write_recordings

from audiopg.data_scripts.synthesis import draw, render

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))
pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Made by pip from a copy, since building leaves files beside the sources."""
    from virtualenv.seed.wheels.embed import get_embed_wheel  # a setuptools that is new enough, without network

    home = tmp_path_factory.mktemp("wheel")
    for name in ("modeling", "data_scripts", "training", "model_cards", "src"):
        shutil.copytree(ROOT / name, home / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, home)
    setuptools = get_embed_wheel("setuptools", f"{sys.version_info.major}.{sys.version_info.minor}")
    with zipfile.ZipFile(setuptools.path) as archive:
        archive.extractall(home / "setuptools")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", "wheels"]
    environment = os.environ | {"PYTHONPATH": str(home / "setuptools")}
    subprocess.run([*command, "."], cwd=home, env=environment, check=True, capture_output=True, timeout=120)
    (found,) = (home / "wheels").glob("audiopg-*.whl")
    return found


@pytest.fixture(scope="module")
def uv(wheel, tmp_path_factory):
    """Runs uv in a folder, offline, with nothing to install from but the wheel."""
    home = tmp_path_factory.mktemp("uv")
    (home / "uv.toml").write_text(
        f'offline = true\nno-index = true\nfind-links = ["{wheel.parent}"]\ncache-dir = "{home / "cache"}"\n'
        '[[dependency-metadata]]\nname = "audiopg"\nrequires-dist = []\n'
    )
    packages = os.pathsep.join(path for path in sys.path if path.endswith("site-packages"))
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("UV_", "VIRTUAL_ENV"))}
    environment = kept | {"PYTHONPATH": packages, "HF_HUB_OFFLINE": "1", "HF_HOME": str(home / "hf")}

    def run(command, *words, cwd):
        options = ["--config-file", home / "uv.toml", "--python", sys.executable]
        return subprocess.run(
            [sys.executable, "-m", "uv", command, *options, *words],
            **{"cwd": cwd, "env": environment, "capture_output": True, "text": True, "timeout": 280},
        )

    return run


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_uv_reads_what_a_script_needs(script, uv, tmp_path):
    shown = uv("tree", "--script", script, cwd=tmp_path)
    assert (shown.returncode, shown.stdout.splitlines()[0][:10]) == (0, "audiopg v0"), shown.stderr


def test_scripts_ask_for_the_package_and_its_python_and_the_package_for_the_rest(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        package = archive.read(name).decode()
    python = re.search(r"^Requires-Python: (.+)$", package, re.MULTILINE)[1]
    assert re.search(r"^Requires-Dist: torch[<>=]", package, re.MULTILINE)
    for script in SCRIPTS:
        block = re.search(r"^# /// script\n(.*?)^# ///$", script.read_text(), re.MULTILINE | re.DOTALL)[1]
        metadata = tomllib.loads(re.sub(r"^# ?", "", block, flags=re.MULTILINE))
        assert metadata == {"requires-python": python, "dependencies": ["audiopg"]}


def test_the_installed_wheel_is_what_a_script_runs(uv, tmp_path):
    (tmp_path / "where.py").write_text(
        "# /// script\n# dependencies = ['audiopg']\n# ///\nimport audiopg, sys\nprint(audiopg.__file__, sys.prefix)\n"
    )
    run = uv("run", "where.py", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    where, prefix = run.stdout.split()
    assert Path(where).is_relative_to(prefix)
    assert not Path(where).is_relative_to(ROOT)
    assert prefix != sys.prefix


def test_pretraining_then_probing_by_uv(uv, tmp_path):
    model = [word for name, value in SMALL.items() for word in (f"--model.{name}", str(value))]
    sizes = ["--num_clips", "16", "--batch_size", "8", "--statistics_clips", "8", "--synthesis.duration", "0.64"]
    run = uv("run", ROOT / "scripts/pretrain.py", "tiny", "out", *sizes, *model, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert json.loads((tmp_path / "out/run/run.json").read_text())["clips"] == 16
    assert (tmp_path / "out/exported/model.safetensors").exists()

    write_recordings(tmp_path / "recordings")
    words = ["out/exported", "--data_dir", "recordings", "--output", "probe.json"]
    run = uv("run", ROOT / "scripts/probe.py", *words, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    results = json.loads((tmp_path / "probe.json").read_text())["results"]
    assert results["log-mel mean and deviation"]["mean"] == 1.0  # a low and a high tone


def test_embedding_by_uv(uv, tmp_path):
    (tmp_path / "sounds").mkdir()
    for number, sound in enumerate(render(draw("audiopg", 0, range(3), duration=0.5))):
        soundfile.write(tmp_path / "sounds" / f"{number}.flac", sound.numpy(), 16000)
    words = [ROOT / "checkpoints/audiopg-tiny", "sounds", "embedded"]
    run = uv("run", ROOT / "scripts/embed.py", *words, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert list((tmp_path / "embedded").rglob("*.parquet"))


def test_hf_reads_the_jobs_of_the_page(tmp_path):
    commands = re.findall(r"^hf jobs uv run (.*)$", (ROOT / "docs/hub.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(commands) == 5
    (tmp_path / "wheels").mkdir()
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    hf = [sys.executable, "-m", "huggingface_hub.cli.hf", "jobs", "uv", "run", "--dry-run"]
    for command in commands:
        run = subprocess.run(
            [*hf, *shlex.split(command)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
        )
        assert run.returncode == 0, run.stderr
        assert "Job not submitted" in run.stdout + run.stderr
