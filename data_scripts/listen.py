"""Hear and see clips: WAV files and a picture of each, with what it is made of in words.

    python -m audiopg.data_scripts.listen --preset audiopg --index 0:12 [--seed 0] [--output_dir listen]
    python -m audiopg.data_scripts.listen --voice voice_fm [--preset synthax] --index 0:12

Files are named by preset, or voice and its preset, seed and index.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import soundfile
from tqdm import tqdm

from audiopg.data_scripts import voices
from audiopg.data_scripts.clip_rows import clip_rows, describe
from audiopg.data_scripts.figures import draw_clip
from audiopg.data_scripts.synthesis import PRESETS, Preset, draw, get_preset, render_components, signal_to_noise_ratio
from audiopg.data_scripts.synthesis.shaping import peak_normalise
from audiopg.data_scripts.voices import ARCHITECTURES, VOICE_PRESETS, Voice, get_voice


def parse_indices(text: str) -> range:
    """Clip indices from `7`, `0:12` or `0:12:3`, as Python slices.

    Raises:
        ValueError: if it is none of these, or names no clip.

    Example:
        >>> list(parse_indices("0:12:3")), list(parse_indices("7"))
        ([0, 3, 6, 9], [7])
    """
    parts = text.split(":")
    if not 1 <= len(parts) <= 3 or not all(part.isdecimal() for part in parts):
        raise ValueError(f"--index is a clip such as 7, or clips such as 0:12 or 0:12:3, got {text!r}.")
    numbers = [int(part) for part in parts]
    if len(numbers) == 3 and numbers[2] == 0:
        raise ValueError(f"--index: the step of a slice is 1 or more, got {text!r}.")
    indices = range(*numbers) if len(numbers) > 1 else range(numbers[0], numbers[0] + 1)
    if not indices:
        raise ValueError(f"--index: {text!r} names no clip; the second number is the one after the last.")
    return indices


def write_clips(preset: Preset, seed: int, indices: range, folder: Path) -> list[Path]:
    """Write each clip as WAV (16 bits) and PNG, named by its index.

    Args:
        preset: What clips.
        seed: Which stream.
        indices: Which of them.
        folder: Created if missing.

    Returns:
        The WAV files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index in tqdm(indices, desc="clips", unit="clip", leave=False, disable=None):
        parameters = draw(preset, seed, index)
        signal, noise = render_components(parameters)
        waveform = peak_normalise(signal + noise)[0].numpy()
        row = clip_rows(parameters, signal_to_noise_ratio(signal, noise))[0]
        path = folder / f"{preset.name}_{seed}_{index:08d}.wav"
        soundfile.write(path, waveform, preset.sampling_rate, subtype="PCM_16")
        draw_clip(waveform, row, describe(row, preset), preset.sampling_rate, path.with_suffix(".png"))
        paths.append(path)
    return paths


def write_sounds(voice: Voice, seed: int, indices: range, folder: Path) -> list[Path]:
    """As `write_clips`, for sounds of a voice."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index in tqdm(indices, desc="sounds", unit="sound", leave=False, disable=None):
        parameters = voices.draw(voice, seed, index)
        waveform = voices.render(voice, parameters, voices.noise_of(voice, seed, index))[0].numpy()
        units = {
            name: float(value) for name, value in voices.to_units(voice, parameters).items() if value.numel() == 1
        }
        path = folder / f"{voice.architecture.name}_{voice.preset.name}_{seed}_{index:08d}.wav"
        soundfile.write(path, waveform, voice.sampling_rate, subtype="PCM_16")
        row = {"index": index, "seed": seed, "onset": [], "event_length": []}
        draw_clip(waveform, row, _describe_sound(voice, units), voice.sampling_rate, path.with_suffix(".png"))
        paths.append(path)
    return paths


def _describe_sound(voice: Voice, units: Mapping[str, Any]) -> list[str]:
    """A line for each note with its oscillators, and the level of the noise."""
    keyboards = [name.removesuffix("/midi_f0") for name in units if name.endswith("/midi_f0")]
    lines = [
        f"{name}: MIDI note {units[f'{name}/midi_f0']:.1f}, {units[f'{name}/duration']:.2f} s" for name in keyboards
    ]
    tunings = [name for name in units if name.endswith("/tuning")]
    lines.append("tuning: " + ", ".join(f"{name.partition('/')[0]} {units[name]:+.1f} semitones" for name in tunings))
    return [*lines, f"noise: level {units['mixer/noise_level']:.3f}"]


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--preset", help=f"{', '.join(PRESETS)}; of a voice: {', '.join(VOICE_PRESETS)}")
    parser.add_argument("--voice", help=f"sounds of a modular synthesizer instead: {', '.join(ARCHITECTURES)}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--index", default="0:12", help="a clip, or a slice of them")
    parser.add_argument("--output_dir", type=Path, default=Path("listen"))
    known = parser.parse_args(arguments)
    try:
        which = (known.seed, parse_indices(known.index), known.output_dir)
        if known.voice is None:
            paths = write_clips(get_preset(known.preset or "audiopg"), *which)
        else:
            paths = write_sounds(get_voice(known.voice, known.preset or "voices"), *which)
    except ValueError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    sys.stderr.write(f"{known.output_dir}: {len(paths)} WAV files, and a picture of each\n")


if __name__ == "__main__":
    main()
