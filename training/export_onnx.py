"""Write a checkpoint as one file that runs without this package, in any language: ONNX, or `.pt2` of torch.export.

    python training/export_onnx.py checkpoints/audiopg-tiny checkpoints/audiopg-tiny/onnx/encoder.onnx
    python training/export_onnx.py CHECKPOINT FILE.pt2 --input spectrogram --head embedding
    python training/export_onnx.py CHECKPOINT FILE.onnx --int8 --data_dir ESC-10 [--results RESULTS.json]

Waveform in, embedding or logits out, the log-mel front end inside; batch and length are free. `--int8` has the linear
layers compute in eight bits; `--data_dir`, labelled recordings, measures what that loses and gains. The card of the
checkpoint tells of files in its folder `onnx/`. Needs `audiopg[onnx]`.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from audiopg.training.features.batches import Batches
from audiopg.training.features.labelled import DataOptions
from audiopg.training.publishing.eight_bits import in_words, measure_eight_bits, quantise
from audiopg.training.publishing.graph_files import (
    FOLDER,
    HEADS,
    INPUTS,
    Exportable,
    check_file,
    read_facts,
    update_card,
    write_graph,
)
from audiopg.training.runs.files import write_atomically
from audiopg.training.runs.provenance import environment


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("checkpoint", help="folder or Hub name of an AudioPG encoder, with or without a head")
    parser.add_argument("file", type=Path, help="ends in .onnx or .pt2")
    parser.add_argument("--input", choices=INPUTS, default="waveform", help="spectrogram: as the feature extractor's")
    parser.add_argument("--head", choices=HEADS, help="default: the logits of a classifier, the embedding of others")
    parser.add_argument("--int8", action="store_true", help="linear layers in eight bits")
    parser.add_argument("--data_dir", help="labelled recordings on which --int8 is compared with float32")
    parser.add_argument("--results", type=Path, help="JSON of that comparison")
    known = parser.parse_args(arguments)
    if known.data_dir and not known.int8:
        parser.error("--data_dir is what --int8 is measured on; give both, or leave it out.")
    if known.results and not known.data_dir:
        parser.error("--results are what --int8 loses on --data_dir; give that too, or leave it out.")
    if known.int8 and known.file.suffix != ".onnx":
        parser.error(f"--int8 is ONNX Runtime's: give a FILE that ends in .onnx, got {known.file}.")
    try:
        check_file(known.file)
        source = Exportable.load(known.checkpoint, known.head)
        if known.int8:
            words = _measured(source, known.data_dir, known.results) if known.data_dir else None
            with tempfile.TemporaryDirectory() as scratch:
                in_floats = Path(scratch) / "float32.onnx"
                write_graph(source, in_floats, known.input)
                quantise(in_floats, known.file, words)
        else:
            write_graph(source, known.file, known.input)
        facts = read_facts(known.file)
        sys.stderr.write(f"{known.file}: {facts['what']}, {facts['weights']}, {facts['megabytes']:.1f} MB\n")
        if known.file.resolve().parent == Path(known.checkpoint, FOLDER).resolve():
            update_card(Path(known.checkpoint))
    except (ImportError, OSError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


def _measured(source: Exportable, data_dir: str, results: Path | None) -> str:
    """What eight bits lose and gain, in words; all of it in a file, if one is wanted."""
    cache = DataOptions(data_dir=data_dir).cache(source.feature_extractor)
    report = measure_eight_bits(source, Batches(cache, source.feature_extractor))
    if results is not None:
        report = {"checkpoint": source.name, "model_digest": source.digest, **report, **environment()}
        results.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(results, json.dumps(report, indent=2) + "\n")
    return in_words(report)


if __name__ == "__main__":
    main()
