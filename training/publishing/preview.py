"""A preview of what is synthesized: some clips of each preset and each voice, small enough for a repository."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from torch.nn.utils.rnn import pad_sequence

from audiopg.data_scripts import audiopg_synthetic, audiopg_voices
from audiopg.data_scripts.audiopg_synthetic import AudioPGSyntheticConfig, decode
from audiopg.data_scripts.audiopg_voices import AudioPGVoicesConfig
from audiopg.data_scripts.synthesis import PRESETS, SYNTHESIZER_VERSION, get_preset
from audiopg.data_scripts.voices import ARCHITECTURES, VOICES_VERSION, get_voice
from audiopg.training.objectives.pictures import draw_sounds
from audiopg.training.publishing.cards import preview_card
from audiopg.training.publishing.dataset import Config, claim_folder, shard_path, write_shard
from audiopg.training.runs.files import written_aside
from audiopg.training.runs.folder import held

MOST_MEGABYTES = 15
"""What all files of a preview may come to."""

DEFAULT = "audiopg"
"""What `load_dataset` gives of a preview when it is asked for nothing in particular."""

MANY = 1_000_000
"""How many clips the commands of the card make."""


def preview_configs(num_clips: int, duration: float) -> dict[str, Config]:
    """The first clips of every preset and every voice, by name.

    Args:
        num_clips: Of each.
        duration: Of the clips of presets, in s; a voice keeps its own.

    Raises:
        ValueError: if there can be no such clips.

    Example:
        >>> list(preview_configs(100, 0.8))
        ['reference', 'audiopg', 'sine', 'harmonic', 'dynamic', 'voice', 'voice_fm', 'parametric']
    """
    given: dict[str, Any] = {"num_clips": num_clips, "clips_per_shard": num_clips}
    clips = {name: AudioPGSyntheticConfig(name=name, synthesis={"duration": duration}, **given) for name in PRESETS}
    sounds = {name: AudioPGVoicesConfig(name=name, **given) for name in ARCHITECTURES}
    for config in clips.values():
        config.validated_preset()
    for voice in sounds.values():
        voice.validated_voice()
    return {**clips, **sounds}


def build_preview(folder: Path, num_clips: int, duration: float) -> dict[str, Path]:
    """Write a preview: a data set with a configuration for each preset and voice, a card, a picture.

    It is made to the side and measured before anything is written into the folder.

    Args:
        folder: Created if missing; a preview with the same values is written anew.
        num_clips: As for `preview_configs`.
        duration: As for `preview_configs`.

    Returns:
        The shards, by configuration.

    Raises:
        ValueError: if it would be larger than `MOST_MEGABYTES`, the folder holds something else, or as
            `preview_configs`.
        OSError: if it cannot be written.
    """
    configs = preview_configs(num_clips, duration)
    recipe = {"preview_of": list(configs), "num_clips": num_clips, "duration": duration}
    recipe |= {"synthesizer_version": SYNTHESIZER_VERSION, "voices_version": VOICES_VERSION}
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch)
        shards = {name: shard_path(made, 0, 1).with_name(f"{name}.parquet") for name in configs}
        shards[DEFAULT].parent.mkdir()
        for name, config in configs.items():
            write_shard(config, shards[name], 0, num_clips)
        _draw(shards, made / "clips.png")
        preview_card(_told(configs, shards, num_clips), DEFAULT, num_clips, MANY, columns=_columns(duration)).save(
            made / "README.md"
        )
        size = sum(path.stat().st_size for path in made.rglob("*") if path.is_file()) / 1e6
        if size > MOST_MEGABYTES:
            raise ValueError(
                f"A preview holds at most {MOST_MEGABYTES} MB, and {num_clips} clips of each, {duration} s long, come "
                f"to {size:.1f}; take fewer (--num_clips) or shorter ones (--duration)."
            )
        with held(folder):
            claim_folder(folder, recipe)
            (folder / "data").mkdir(exist_ok=True)
            for path in (path for path in made.rglob("*") if path.is_file()):
                with written_aside(folder / path.relative_to(made)) as partial:
                    shutil.copyfile(path, partial)
    return {name: folder / "data" / path.name for name, path in shards.items()}


def _told(configs: Mapping[str, Config], shards: Mapping[str, Path], num_clips: int) -> list[dict[str, Any]]:
    """What the card says of each configuration."""
    told: list[dict[str, Any]] = []
    for name, config in configs.items():
        megabytes = shards[name].stat().st_size / 1e6
        if isinstance(config, AudioPGSyntheticConfig):
            preset = get_preset(name)
            duration, whole = config.validated_preset().duration, preset.duration
            row: dict[str, Any] = {"option": f"--preset {name}", "what": preset.description}
        else:
            voice = get_voice(name)
            duration = whole = voice.duration
            row = {"option": f"--voice {name}", "what": voice.architecture.description}
        gigabytes = megabytes * whole / duration / 1e3 * MANY / num_clips
        row |= {"duration": duration, "whole": whole, "megabytes": megabytes, "gigabytes": gigabytes}
        told.append({"name": name, **row})
    return told


def _columns(duration: float) -> dict[str, str]:
    """What the columns of presets, and of each voice, are: lists in Markdown."""
    described = {"presets": audiopg_synthetic.describe_columns(get_preset(DEFAULT, duration=duration))}
    return described | {name: audiopg_voices.describe_columns(get_voice(name)) for name in ARCHITECTURES}


def _draw(shards: Mapping[str, Path], path: Path) -> None:
    """The first clip of each configuration."""
    rows = [pq.read_table(shard, columns=["audio"]).slice(0, 1).to_pylist()[0] for shard in shards.values()]
    waveforms = pad_sequence([torch.from_numpy(decode(row)) for row in rows], batch_first=True)
    draw_sounds(waveforms, list(shards), get_preset(DEFAULT).sampling_rate, "The first clip of each", path)
