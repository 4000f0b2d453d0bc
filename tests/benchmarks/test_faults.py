import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks/faults.py"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills as POSIX has them")
def test_a_few_trials_of_faults_hold_and_are_counted_in_a_table():
    kinds = ["SIGKILL at random moments: build", "SIGKILL at random moments: pre", "twice at once: pre"]
    command = [sys.executable, str(SCRIPT), "--trials", "1", "--only", *kinds]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment)
    rows = [line for line in done.stdout.splitlines() if line.startswith("|") and " of " in line]
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert [row.split("|")[2].strip() for row in rows] == ["1 of 1"] * 3
