# /// script
# requires-python = ">=3.11"
# dependencies = ["audiopg"]
# ///
"""Probe a checkpoint's frozen features on labelled recordings: one file that brings its environment with it.

    uv run scripts/probe.py CHECKPOINT --data_dir FOLDER [--probe linear neighbours attentive] [--output results.json]

All options are those of `training/probe.py`.
"""

from audiopg.training.probe import main

if __name__ == "__main__":
    main()
