"""A static page that hears a sound in the browser: the encoder as ONNX, and a linear decoder of known factors."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from sklearn.metrics import r2_score

from audiopg.data_scripts.probe_clips import FACTORS, PROBE_SETS, FactorClips, probe_clips
from audiopg.data_scripts.synthesis import Preset, get_preset
from audiopg.modeling.feature_extraction_audiopg import LogMelFeatureExtractor
from audiopg.modeling.spectrogram_audiopg import LOWEST_FREQUENCY_HZ, hertz_to_mel
from audiopg.training.evaluation.factor_scores import linear_decoder
from audiopg.training.features.embeddings import embed, spectrograms_of
from audiopg.training.publishing.graph_files import Exportable, write_graph
from audiopg.training.runs.files import written_aside

SOURCES = Path(__file__).parents[2] / "space/browser"
"""The page itself, of a checkout of this repository."""

FILES = ("index.html", "page.js", "style.css")

RUNTIME_FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
"""What the page loads of ONNX Runtime's package for the web."""

NUM_CLIPS = 600
"""Of each set of probe clips; the last third is held out."""

_NOTE = (
    "Ridge regression on {train} sounds of the synthesizer for each factor; R² on {test} others: 1 is perfect, 0 no "
    "better than the mean. Those sounds have one event, or several where events are counted; of any other sound the "
    "factors say what it is like among those."
)
_TICKS_HZ = (100, 500, 1000, 2000, 4000)
_DIGITS = 6  # of a weight: float32 has no more
_MODEL, _EXAMPLE, _PAGE = "encoder.onnx", "example.wav", "page.json"


def default_runtime() -> str:
    """Where the pinned version of ONNX Runtime's package is served for pages that have no copy of their own."""
    package = json.loads((SOURCES / "package.json").read_text(encoding="utf-8"))
    return f"https://cdn.jsdelivr.net/npm/onnxruntime-web@{package['dependencies']['onnxruntime-web']}/dist/"


def write_page(
    checkpoint: str | Path, folder: Path, runtime: str | Path | None = None, clips: int = NUM_CLIPS
) -> None:
    """Write a folder that any static host serves: page, encoder, decoder and an example.

    Args:
        checkpoint: Folder or name on the Hub of an AudioPG encoder.
        folder: The folder to write; one that is there is replaced, if it holds a page.
        runtime: A folder with ONNX Runtime's files for the web (`node_modules/onnxruntime-web/dist`), which are
            copied; or an address that ends in `/`, from which the page loads them; by default `default_runtime`.
        clips: Of each set of probe clips, to fit and to test the decoder.

    Raises:
        ValueError: as `Exportable.load`; if `folder` holds something else; or if the runtime is neither.
        ImportError: if the packages of ONNX are missing.
        OSError: if the sources are not there, as in an installed package, or the folder cannot be written.
    """
    if not SOURCES.is_dir():
        raise OSError(f"The page's sources are in space/browser of a checkout, and {SOURCES} is not there: clone it.")
    if folder.exists() and any(folder.iterdir()) and not (folder / _PAGE).exists():
        raise ValueError(f"{folder} would be replaced, and holds no page: choose another folder, or remove this one.")
    copied, address = _runtime(runtime)
    source = Exportable.load(checkpoint, "embedding")
    factors, example, truth = decoders_for_page(source, clips)
    rate = source.feature_extractor.sampling_rate
    page = {
        "name": source.name,
        "model_digest": source.digest,
        "model": _MODEL,
        "runtime": address,
        "sampling_rate": rate,
        **{name: int(source.facts("waveform")[name]) for name in ("shortest_samples", "window_samples")},
        "ticks": list(_ticks(source.feature_extractor)),
        "factors": factors,
        "example": {"file": _EXAMPLE, "factors": truth},
        "note": _NOTE.format(train=2 * clips // 3, test=clips - 2 * clips // 3),
    }
    folder = folder.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(folder) as partial:
        partial.mkdir()
        write_graph(source, partial / _MODEL)
        soundfile.write(partial / _EXAMPLE, example, rate, subtype="FLOAT")
        (partial / _PAGE).write_text(json.dumps(page), encoding="utf-8")
        for file in [*(SOURCES / name for name in FILES), *copied]:
            target = partial / (file.name if file.name in FILES else f"{address}{file.name}")
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, target)


def _runtime(runtime: str | Path | None) -> tuple[list[Path], str]:
    """The files that are to be copied, if any, and where the page finds them."""
    if runtime is None:
        return [], default_runtime()
    if Path(runtime).is_dir():
        files = [Path(runtime) / name for name in RUNTIME_FILES]
        if missing := [file.name for file in files if not file.exists()]:
            raise ValueError(
                f"{runtime} holds no {missing[0]}: give the folder dist of the package onnxruntime-web, which "
                "`npm ci` in space/browser puts into node_modules."
            )
        return files, "runtime/"
    if str(runtime).startswith(("https://", "http://")) and str(runtime).endswith("/"):
        return [], str(runtime)
    raise ValueError(f"A runtime is a folder, or an address that begins with https:// and ends in /; got {runtime}.")


def probing_preset(feature_extractor: LogMelFeatureExtractor) -> Preset:
    """The preset that a checkpoint was trained on, where it says so, or else `audiopg`.

    Example:
        >>> from audiopg import AudioPGFeatureExtractor
        >>> probing_preset(AudioPGFeatureExtractor()).name
        'reference'
    """
    trained = feature_extractor.statistics
    rate = {"sampling_rate": feature_extractor.sampling_rate}
    if not trained.get("preset"):
        return get_preset("audiopg", **rate)
    return get_preset(trained["preset"], **rate, **trained.get("overrides", {}))


def decoders_for_page(source: Exportable, num_clips: int) -> tuple[list[dict[str, Any]], np.ndarray, dict[str, float]]:
    """A linear decoder of every factor that is a number, and a sound that it has not heard.

    Args:
        source: The encoder; what is read is its `embed`.
        num_clips: Of each set of probe clips; the last third is held out.

    Returns:
        For each factor `name`, `unit`, `logarithmic` (whether its values are log2 of Hz), `weights` and `bias` (of the
        embedding), `low` and `high` (of the training clips) and `r2` (of those held out), the best one first; the last
        clip of the first set, `(samples,)`; and the factors that were drawn for it.
    """
    preset, cut = probing_preset(source.feature_extractor), 2 * num_clips // 3
    fitted: list[dict[str, Any]] = []
    example: FactorClips | None = None
    for probe_set in PROBE_SETS:
        names = [name for name, one in FACTORS.items() if one.probe_set == probe_set and one.kind != "class"]
        if not names:
            continue
        clips = probe_clips(preset, probe_set, num_clips)
        example = example or clips
        features = _embeddings(source, clips)
        for name in names:
            values = clips.factors[name].astype(np.float64)
            weights, biases = linear_decoder(features[:cut], values[:cut])
            read = features[cut:] @ weights[:, 0] + biases[0]
            fitted.append(
                {
                    "name": name,
                    "unit": FACTORS[name].unit,
                    "logarithmic": FACTORS[name].logarithmic,
                    "weights": [float(f"{weight:.{_DIGITS}g}") for weight in weights[:, 0]],
                    "bias": float(biases[0]),
                    "low": float(values[:cut].min()),
                    "high": float(values[:cut].max()),
                    "r2": round(float(r2_score(values[cut:], read)), 3),
                }
            )
    assert example is not None
    truth = {name: float(values[-1]) for name, values in example.factors.items() if FACTORS[name].kind != "class"}
    return sorted(fitted, key=lambda factor: -factor["r2"]), example.waveforms[-1], truth


def _embeddings(source: Exportable, clips: FactorClips) -> np.ndarray:
    config, extractor = source.model.config, source.feature_extractor
    layer = config.embedding_layer
    layers = [] if layer is None else [layer]
    spectrograms = spectrograms_of(extractor, clips.waveforms)
    return embed(source.model, extractor, spectrograms, layers=layers, pooling=config.embedding_pooling)[layer]


def _ticks(feature_extractor: LogMelFeatureExtractor) -> Iterator[dict[str, float]]:
    """Frequencies in Hz and the mel band, a fraction of one too, whose centre each would be."""
    lowest, highest = (hertz_to_mel(hertz) for hertz in (LOWEST_FREQUENCY_HZ, feature_extractor.sampling_rate / 2))
    width = (highest - lowest) / (feature_extractor.num_mel_bins + 1)
    for hertz in _TICKS_HZ:
        yield {"hertz": hertz, "band": round((hertz_to_mel(hertz) - lowest) / width - 1, 2)}
