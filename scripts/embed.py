# /// script
# requires-python = ">=3.11"
# dependencies = ["audiopg"]
# ///
"""Embed a corpus into Parquet shards: one file that brings its environment with it.

    uv run scripts/embed.py CHECKPOINT FOLDER OUT

All options are those of `training/embed.py`.
"""

from audiopg.training.embed import main

if __name__ == "__main__":
    main()
