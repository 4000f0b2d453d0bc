"""What an encoder has learnt of how its sounds were made: every factor is known, and is looked for in the embedding.

    python training/analyze.py CHECKPOINT [--output_dir FOLDER] [--audio FILE ...] [--run_folder RUN] [--data_dir DIR]

The folder receives `report.html`, which needs no other file, `report.json`, every figure as PNG and SVG, and sounds.
Beside the checkpoint stand a random encoder of its shape, the mean and deviation of each log-mel band, and chance: a
figure means nothing without them. `--audio` adds recordings to the gallery of reconstructions, `--run_folder` shows
how the filters formed over the checkpoints of the run, `--data_dir` compares synthetic sounds with those of a folder.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel

import audiopg  # noqa: F401 - registers our classes
from audiopg.data_scripts.probe_clips import FACTORS, PROBE_SETS
from audiopg.data_scripts.synthesis import Preset, draw, get_preset, render
from audiopg.modeling.audio_audiopg import match_length, read_audio
from audiopg.modeling.feature_extraction_audiopg import LogMelFeatureExtractor
from audiopg.modeling.modeling_audiopg import AudioPGForPreTraining
from audiopg.training.analysis.distributions import describe_collection, real_recordings, synthetic_collections
from audiopg.training.analysis.factors import Design, analyse_factors, encoders_of
from audiopg.training.analysis.filters import filters_of
from audiopg.training.analysis.report import write_report
from audiopg.training.analysis.sections import distribution_section, factor_sections, filter_section, gallery_section
from audiopg.training.runs.files import reading
from audiopg.training.runs.provenance import environment

NUM_GALLERY_CLIPS = 3

REAL = "real recordings"
"""What the report calls the recordings that synthetic sounds are compared with."""


def probing_preset(feature_extractor: LogMelFeatureExtractor, name: str) -> Preset:
    """The preset to probe with, in clips as long as those that the checkpoint was trained on, where it says so.

    Example:
        >>> from audiopg import AudioPGFeatureExtractor
        >>> probing_preset(AudioPGFeatureExtractor(), "reference").duration
        10.24
    """
    trained = feature_extractor.statistics.get("overrides", {})
    duration = {"duration": trained["duration"]} if "duration" in trained else {}
    return get_preset(name, sampling_rate=feature_extractor.sampling_rate, **duration)


def has_decoder(checkpoint: Path) -> bool:
    """Whether a folder holds the masked autoencoder, and not an encoder or a classifier alone."""
    with reading(checkpoint):
        architectures = AutoConfig.from_pretrained(checkpoint).architectures or []
    return AudioPGForPreTraining.__name__ in architectures


def gallery_clips(preset: Preset, seed: int, recordings: Sequence[Path]) -> dict[str, np.ndarray]:
    """Three clips of the probing stream, and recordings cropped in the middle or repeated to the same length.

    Example:
        >>> list(gallery_clips(get_preset("reference", duration=0.5), seed=0, recordings=[]))
        ['clip 0', 'clip 1', 'clip 2']
    """
    synthetic = render(draw(preset, seed, range(NUM_GALLERY_CLIPS))).numpy()
    clips = {f"clip {index}": waveform for index, waveform in enumerate(synthetic)}
    for path in recordings:
        clips[path.name] = match_length(read_audio(path, preset.sampling_rate), preset.num_samples).numpy()
    return clips


def analyse(
    checkpoint: Path,
    output_dir: Path,
    preset_name: str,
    design: Design,
    command: str,
    *,
    recordings: Sequence[Path] = (),
    run_folder: Path | None = None,
    data_dir: Path | None = None,
) -> dict[str, Any]:
    """Analyse a checkpoint and write the report.

    Args:
        checkpoint: Folder with a model and its feature extractor. One with a decoder has its gallery.
        output_dir: Receives report and figures.
        preset_name: Whose clips to probe with.
        design: Which of them.
        command: What a reader would type for the same.
        recordings: Sound files for the gallery.
        run_folder: The run that the checkpoint came from, to see its filters form.
        data_dir: Folder of recordings, to compare the spectra of synthetic sounds with theirs.

    Returns:
        What `report.json` holds.

    Raises:
        ValueError: for an unknown preset, an unreadable recording, a checkpoint without a decoder to redraw
            recordings with, a run without checkpoints, or a folder without recordings.
    """
    started = time.perf_counter()
    if recordings and not has_decoder(checkpoint):
        raise ValueError(f"{checkpoint} has no decoder to redraw recordings with; give a pre-trained model.")
    with reading(checkpoint):
        feature_extractor = AutoFeatureExtractor.from_pretrained(checkpoint)
        encoder = AutoModel.from_pretrained(checkpoint)
    preset = probing_preset(feature_extractor, preset_name)
    shown = gallery_clips(preset, design.seed, recordings)
    filters = {} if run_folder is None else filters_of(run_folder)
    spectra = {} if data_dir is None else _spectra(data_dir, preset.sampling_rate)
    encoders = encoders_of(encoder, feature_extractor, design.seed)
    results = analyse_factors(encoders, preset, design)
    sections, measured = factor_sections(results, output_dir), {}
    if has_decoder(checkpoint):
        model = AudioPGForPreTraining.from_pretrained(checkpoint)
        section, measured["reconstruction"] = gallery_section(model, feature_extractor, shown, output_dir, design.seed)
        sections.append(section)
    if filters:
        section, measured["selectivity"] = filter_section(filters, output_dir)
        sections.append(section)
    if spectra:
        section, measured["distributions"] = distribution_section(spectra, REAL, output_dir)
        sections.append(section)
    report = {
        "checkpoint": checkpoint.name,
        **environment(),
        "probe": _probe(preset, design),
        "paper": {name: dict(factor.paper) for name, factor in FACTORS.items() if factor.paper},
        "factors": results["factors"],
        "dci": results["dci"],
        "components": {key: results["components"][key] for key in ("shares", "information")},
        **measured,
        "seconds": round(time.perf_counter() - started, 1),
    }
    (output_dir / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    provenance = json.dumps({key: report[key] for key in ("hardware", "versions", "commit", "probe")}, indent=2)
    title = f"What {checkpoint.name} knows of its sounds"
    write_report(output_dir / "report.html", title, sections, command, provenance)
    return report


def _spectra(data_dir: Path, sampling_rate: int) -> dict[str, dict[str, np.ndarray]]:
    """What `distributions` measures of recordings and of all that is synthesized; the recordings first."""
    collections = {REAL: real_recordings(data_dir, sampling_rate), **dict(synthetic_collections(sampling_rate))}
    return {name: describe_collection(clips, sampling_rate) for name, clips in collections.items()}


def _probe(preset: Preset, design: Design) -> dict[str, Any]:
    """What anyone needs to synthesize the same clips."""
    return {
        "preset": preset.name,
        "duration": preset.duration,
        "sampling_rate": preset.sampling_rate,
        "design": asdict(design),
        "indices": design.indices(),
        "sets": {name: dict(changes) for name, changes in PROBE_SETS.items()},
    }
