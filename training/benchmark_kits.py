"""Run a benchmark's own kit on a checkpoint, where the kit and its data are: X-ARES, HEAR, MTEB, EVAR.

    python training/benchmark_kits.py xares exported/base --data_dir X-ARES [--tasks esc50 ...]
    python training/benchmark_kits.py hear exported/base [--data_dir TASK ...]
    python training/benchmark_kits.py mteb exported/base --data_dir ESC-10
    python training/benchmark_kits.py mteb exported/base --tasks ESC50 GTZANGenre ...
    python training/benchmark_kits.py evar exported/base --data_dir eval-audio-repr --tasks esc50 us8k

xares: DATA_DIR is the folder that X-ARES is run in, with `env/TASK/*.tar`; tasks are by default those whose data are
there. hear: HEAR's validator, then linear probes of unpacked HEAR tasks, if any are given. mteb: MTEB's own tasks by
name, or its protocol on labelled recordings of one's own. evar: DATA_DIR is a checkout of EVAR, where it writes its
scores. docs/benchmark-kits.md says what is to be installed, and which figures compare with which.
"""

import argparse
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import audiopg  # noqa: F401 - registers our classes
from audiopg.training.runs.files import write_atomically
from audiopg.training.runs.names import public_name, say
from audiopg.training.runs.provenance import environment


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("kit", choices=_KITS)
    parser.add_argument("checkpoint", help="an exported folder, or its name on the Hub")
    parser.add_argument("--data_dir", nargs="+", default=[], type=Path, help="where the kit's data are, see above")
    parser.add_argument("--tasks", nargs="+", default=[], help="names of the kit's own tasks")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    known = parser.parse_args(arguments)
    try:
        results = _KITS[known.kit](known)
    except (ImportError, OSError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    except subprocess.CalledProcessError as error:
        parser.exit(2, f"{parser.prog}: {known.kit} ended with exit status {error.returncode}, see above.\n")
    say(json.dumps(results, indent=2))
    if known.output:
        report = {"kit": known.kit, "checkpoint": public_name(known.checkpoint), "results": results, **environment()}
        known.output.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(known.output, json.dumps(report, indent=2) + "\n")


def _xares(known: argparse.Namespace) -> Any:
    from audiopg.training.evaluation.adapters import xares

    return xares.evaluate(known.checkpoint, _folder(known, "the folder that X-ARES is run in"), known.tasks)


def _hear(known: argparse.Namespace) -> Any:
    from transformers import AutoFeatureExtractor, AutoModel

    from audiopg.training.evaluation.adapters import hear
    from audiopg.training.evaluation.probes import probe_encoder
    from audiopg.training.features.batches import Batches
    from audiopg.training.features.cache import cached_features
    from audiopg.training.features.labelled import load_labelled
    from audiopg.training.runs.files import reading

    if known.tasks:
        raise ValueError("HEAR's tasks are folders: give them as --data_dir, each with its task_metadata.json.")
    datasets = [load_labelled(folder) for folder in known.data_dir]
    hear.validate(known.checkpoint)
    with reading(known.checkpoint):
        model = AutoModel.from_pretrained(known.checkpoint)
        extractor = AutoFeatureExtractor.from_pretrained(known.checkpoint)
    reports = [probe_encoder(model, Batches(cached_features(dataset, extractor), extractor)) for dataset in datasets]
    rows = {report["dataset"]: {row: found["mean"] for row, found in report["results"].items()} for report in reports}
    return {"validator": "passed", **rows}


def _mteb(known: argparse.Namespace) -> Any:
    from audiopg.training.evaluation.adapters import mteb
    from audiopg.training.features.labelled import load_labelled

    if bool(known.tasks) == bool(known.data_dir):
        raise ValueError("MTEB takes names of its own tasks (--tasks), or labelled recordings (--data_dir): give one.")
    tasks = mteb.own_tasks(known.tasks) if known.tasks else []
    tasks += [mteb.recordings_task(load_labelled(folder)) for folder in known.data_dir]
    return mteb.evaluate(mteb.load_model(known.checkpoint), tasks)


def _evar(known: argparse.Namespace) -> Any:
    from audiopg.training.evaluation.adapters import evar

    if not known.tasks:
        raise ValueError("EVAR takes names of its tasks, such as --tasks esc50 us8k.")
    folder = _folder(known, "a checkout of EVAR")
    evar.evaluate(known.checkpoint, folder, known.tasks)
    return {"scores": str(folder / "results/scores.csv")}


def _folder(known: argparse.Namespace, what: str) -> Path:
    if len(known.data_dir) != 1:
        raise ValueError(f"--data_dir is {what}, one of them; got {len(known.data_dir)}.")
    [folder] = known.data_dir
    return folder


_KITS: dict[str, Callable[[argparse.Namespace], Any]] = {"xares": _xares, "hear": _hear, "mteb": _mteb, "evar": _evar}


if __name__ == "__main__":
    main()
