"""Hear and see clips: WAV files and a picture of each, with what it is made of in words.

python -m audiopg.data_scripts.listen --preset audiopg --index 0:12 [--seed 0] [--output_dir listen]

Files are named by preset, seed and index.
"""

import argparse
import sys
from pathlib import Path

import soundfile
from tqdm import tqdm

from audiopg.data_scripts.clip_rows import clip_rows, describe
from audiopg.data_scripts.figures import draw_clip
from audiopg.data_scripts.synthesis import PRESETS, Preset, draw, get_preset, render_components, signal_to_noise_ratio
from audiopg.data_scripts.synthesis.shaping import peak_normalise


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


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--preset", default="audiopg", help=", ".join(PRESETS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--index", default="0:12", help="a clip, or a slice of them")
    parser.add_argument("--output_dir", type=Path, default=Path("listen"))
    known = parser.parse_args(arguments)
    try:
        paths = write_clips(get_preset(known.preset), known.seed, parse_indices(known.index), known.output_dir)
    except ValueError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    sys.stderr.write(f"{known.output_dir}: {len(paths)} WAV files, and a picture of each\n")


if __name__ == "__main__":
    main()
