"""What the synthesizer's clips are, written down: a change of any of them, meant or not, shows as a difference.

    python -m audiopg.data_scripts.synthesis.manifest tests/assets/synthesizer_manifest.json

Parameters are the same bits everywhere, so a digest stands for them. Samples agree between machines to 1e-5 only, so
statistics of the sound stand for those, to be compared with a tolerance.
"""

import argparse
import hashlib
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audiopg.data_scripts.synthesis.parameters import (
    MODES,
    PRESETS,
    SYNTHESIZER_VERSION,
    Parameters,
    Preset,
    draw,
    get_preset,
)
from audiopg.data_scripts.synthesis.synthesizer import render

SEED = 7
INDICES = (0, 1, 2, 3, 123456789)
INGREDIENTS = {
    "mode": MODES,
    "strike_probability": 0.5,
    "formant_probability": 0.5,
    "room_probability": 0.5,
}
"""All that is off in every preset, turned on."""
NUM_BANDS = 8
_QUIETEST_SHARE = 1e-7


def parameters_digest(parameters: Parameters) -> str:
    """SHA-256 over the names and bits of all parameters.

    Example:
        >>> parameters_digest(draw("sine", 0, [0])) == parameters_digest(draw("sine", 0, [1]))
        False
    """
    content = hashlib.sha256()
    for name in sorted(parameters):
        content.update(name.encode() + parameters[name].contiguous().numpy().tobytes())
    return content.hexdigest()


def sound_statistics(waveform: Tensor) -> dict[str, Any]:
    r"""A few numbers that no audible change leaves alone.

    Args:
        waveform: Shape `(samples,)`.

    Returns:
        `rms`; `centre`, the mean time of the energy as a share of the clip; `bands_db`, the share of the energy in
        each of 8 equal bands up to the Nyquist frequency in dB, -70 at least: $10 \log_{10} (E_b / \sum_b E_b)$.

    Example:
        >>> sound_statistics(torch.ones(64))["centre"]
        0.5
    """
    signal = waveform.double()
    energy = signal.square()
    spectrum = torch.fft.rfft(signal).abs().square()
    shares = torch.stack([band.sum() for band in spectrum.tensor_split(NUM_BANDS)]) / spectrum.sum()
    time = (torch.arange(len(signal), dtype=torch.float64) + 0.5) / len(signal)
    return {
        "rms": round(math.sqrt(float(energy.mean())), 6),
        "centre": round(float((energy * time).sum() / energy.sum()), 6),
        "bands_db": [round(10 * math.log10(max(float(share), _QUIETEST_SHARE)), 3) for share in shares],
    }


def describe_preset(preset: str | Preset) -> dict[str, Any]:
    """Digest of the parameters and statistics of the sound of a few clips of a preset."""
    parameters = draw(preset, SEED, INDICES)
    sound = [sound_statistics(waveform) for waveform in render(parameters)]
    return {"parameters": parameters_digest(parameters), "sound": sound}


def build_manifest() -> dict[str, Any]:
    """The manifest of the synthesizer as it is.

    Returns:
        `synthesizer_version`, `seed`, `indices`, and what `describe_preset` says of every preset, and under
        `ingredients` of `audiopg` with all that is off in it.
    """
    return {
        "synthesizer_version": SYNTHESIZER_VERSION,
        "seed": SEED,
        "indices": list(INDICES),
        "presets": {name: describe_preset(name) for name in PRESETS},
        "ingredients": describe_preset(get_preset("audiopg", **INGREDIENTS)),
    }


def write_manifest(
    build: Callable[[], dict[str, Any]], what: str, usage: str | None, arguments: list[str] | None
) -> None:
    """The command line of a manifest: a path to write it to.

    Args:
        build: Makes it.
        what: Whose, with its version, for the person at the terminal.
        usage: Of the command.
        arguments: Those after the program's name.
    """
    parser = argparse.ArgumentParser(
        description=usage, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("path", type=Path, help="JSON file to write")
    path = parser.parse_args(arguments).path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(build(), indent=1) + "\n", encoding="utf-8")
    sys.stderr.write(f"{path}: {what}\n")


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    write_manifest(build_manifest, f"synthesizer {SYNTHESIZER_VERSION}", __doc__, arguments)


if __name__ == "__main__":
    main()
