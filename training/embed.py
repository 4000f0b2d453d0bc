"""Embed a corpus: Parquet shards with a row for each recording, window or moment.

    python training/embed.py CHECKPOINT FOLDER OUT [--unit clip|windows|frames]
    python training/embed.py CHECKPOINT ORG/NAME OUT --split train
    python training/embed.py CHECKPOINT FOLDER OUT --num_proc 8 [--engine ray] [--device cuda]

FOLDER holds audio files at any depth, or is what `datasets` saved; ORG/NAME is a data set with a column `audio`, on
the Hub or, as a folder, here. OUT/data gets the shards, with the columns `path` (or `id`, the number of a row),
`start` and `end` in seconds, `embedding`, and `model`, the digest of the weights and of all else that embeddings
follow from.
A row of `clip` is `model.embed(recording)`; of `windows` the same of each window; of `frames`, `model.embed_frames`.

Stopped or killed, the same command goes on after the shards that are whole; other settings are refused. Recordings
that cannot be read are left out, named, and listed with the reasons in OUT/unreadable.json.
"""

import argparse
import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import torch

from audiopg.training.publishing.corpus import UNITS, Job, embed_corpus
from audiopg.training.runs.engines import ENGINES
from audiopg.training.runs.names import say


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = _parser()
    known = parser.parse_args(arguments)
    engine, num_proc = known.engine, known.num_proc
    job = Job(**{name: value for name, value in vars(known).items() if name not in ("engine", "num_proc")})
    try:
        shards = embed_corpus(job, engine=engine, num_proc=num_proc)
    except (ValueError, ImportError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    except (OSError, BrokenProcessPool) as error:
        parser.exit(
            1,
            f"{parser.prog}: {job.folder} could not be written to its end: {error} Whole shards are kept; mend that, "
            "and give the same command again.\n",
        )
    except KeyboardInterrupt:
        parser.exit(130, f"{parser.prog}: stopped; whole shards are kept, and the same command goes on.\n")
    recordings, rows, seconds = (sum(shard[name] for shard in shards) for name in ("recordings", "rows", "seconds"))
    hours = f"{seconds / 3600:.2f} h"
    left_out = sum(len(shard["unreadable"]) for shard in shards)
    say(f"{job.folder}: {rows} rows of {recordings - left_out} recordings, {hours}, {len(shards)} shards")
    if left_out:
        sys.stderr.write(f"{left_out} of {recordings} recordings left out: see {job.folder / 'unreadable.json'}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("checkpoint", help="folder or Hub name of one of our models")
    parser.add_argument("source", metavar="FOLDER|ORG/NAME", help="recordings")
    parser.add_argument("folder", metavar="OUT", type=Path, help="where the shards go; gone on with if it has some")
    parser.add_argument("--split", help="of a data set with a column audio, whose name or folder is given")
    parser.add_argument("--unit", choices=UNITS, default=Job.unit, help="what a row is")
    parser.add_argument("--window_seconds", type=float, default=Job.window_seconds, help="of --unit windows")
    parser.add_argument("--overlap_seconds", type=float, default=Job.overlap_seconds, help="of neighbouring windows")
    parser.add_argument("--recordings_per_shard", type=int, default=Job.recordings_per_shard, help="at most")
    parser.add_argument("--batch_size", type=int, default=Job.batch_size, help="windows at a time in the encoder")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="of each process")
    parser.add_argument("--num_proc", type=int, default=1, help="worker processes of one thread each")
    parser.add_argument(
        "--engine", choices=ENGINES, default="processes", help="whose processes: this machine's, Ray's"
    )
    return parser


if __name__ == "__main__":
    main()
