import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]
ABSENT = ("datasets", "evaluate", "soundfile", "matplotlib", "tensorboard", "sklearn", "scipy", "torchaudio", "jinja2")


def run_gpu_script(tmp_path: Path, *parts: str, **environment: str) -> subprocess.CompletedProcess:
    """`benchmarks/gpu.sh` on a machine that has torch, transformers, accelerate, numpy and PyYAML, and no GPU."""
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare/sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({ABSENT}))\n")
    settings = {"PYTHON": sys.executable, "PYTHONPATH": str(tmp_path / "bare"), "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        ["bash", str(ROOT / "benchmarks/gpu.sh"), str(tmp_path / "out"), *parts],
        env={**os.environ, "OMP_NUM_THREADS": "1", **settings, **environment},
        capture_output=True,
        text=True,
        timeout=280,
    )


def test_the_recipe_leaves_numbers_and_small_files_on_a_machine_without_extras(tmp_path):
    done = run_gpu_script(tmp_path, "base")
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads((tmp_path / "out/base.json").read_text())
    assert report["rows"]["run"]["finished"]
    assert {"hardware", "versions", "commit"} <= report.keys()
    assert "no picture of the loss curve" in done.stderr
    sizes = [path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert max(sizes) < 15e6
    weights = [load_file(path) for path in (tmp_path / "out/base_bf16").glob("*.safetensors")]
    assert {str(value.dtype) for part in weights for value in part.values()} == {"torch.bfloat16"}
    table = done.stdout.split("== base\n")[1].splitlines()
    assert table[0].split() == ["part", "what", "result"]
    assert table[1].split() == ["synthesis", "not", "measured"]


def test_a_part_that_is_cut_off_still_ends_with_the_table(tmp_path):
    done = run_gpu_script(tmp_path, "synthesis", PART_SECONDS="1")
    assert done.returncode == 124
    assert "synthesis ended with 124" in done.stderr
    assert "not measured" in done.stdout


@pytest.mark.slow
def test_every_part_runs_at_toy_size(tmp_path):
    done = run_gpu_script(tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "not measured" not in done.stdout
    comparisons = json.loads((tmp_path / "out/comparisons.json").read_text())["rows"]
    assert comparisons["model_only_256_patches"]["times vitmae"] > 0
    assert comparisons["end_to_end"]["ours"] > 0
