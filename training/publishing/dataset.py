"""Clips or images as a data set for the Hub: Parquet shards, a card, a picture. Killed, it goes on where it was."""

import functools
import itertools
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from huggingface_hub import DatasetCard
from PIL import Image
from tqdm import tqdm

from audiopg.data_scripts import audiopg_voices, voices
from audiopg.data_scripts.audiopg_patterns import AudioPGPatternsConfig
from audiopg.data_scripts.audiopg_synthetic import AudioPGSyntheticConfig, describe_columns, features
from audiopg.data_scripts.audiopg_voices import AudioPGVoicesConfig
from audiopg.data_scripts.clip_rows import Column, columns
from audiopg.data_scripts.patterns import PATTERNS_VERSION
from audiopg.data_scripts.patterns.measures import to_bytes
from audiopg.data_scripts.patterns.sheet import draw_sheet, measure
from audiopg.data_scripts.synthesis import SYNTHESIZER_VERSION, draw
from audiopg.data_scripts.voices import VOICES_VERSION
from audiopg.training.objectives.pictures import draw_clips, draw_sounds
from audiopg.training.publishing.cards import dataset_card, image_dataset_card, voice_dataset_card
from audiopg.training.runs.engines import answers
from audiopg.training.runs.files import read_json, sweep, write_atomically, writing, written_aside
from audiopg.training.runs.folder import held, refuse_foreign

ROWS_PER_GROUP = 128
"""What a reader of Parquet fetches at once, some 25 MB."""

_SHOWN_CLIPS = 8
_SHOWN_IMAGES = 8
_MEASURED_IMAGES = 64

Config = AudioPGSyntheticConfig | AudioPGVoicesConfig | AudioPGPatternsConfig
"""What rows a data set has."""


def recipe_of(config: Config) -> dict[str, Any]:
    """Everything that the bytes of the shards follow from, as plain values."""
    if isinstance(config, AudioPGPatternsConfig):
        recipe: dict[str, Any] = {
            "patterns": config.name,
            "ranges": config.ranges,
            "seed": config.seed,
            "size": config.size,
            "num_images": config.num_images,
            "images_per_shard": config.images_per_shard,
            "patterns_version": PATTERNS_VERSION,
            "columns": list(config.features()),
        }
        return json.loads(json.dumps(recipe))
    if isinstance(config, AudioPGVoicesConfig):
        recipe = {
            "voice": config.name,
            "options": config.options,
            "seed": config.seed,
            "num_clips": config.num_clips,
            "clips_per_shard": config.clips_per_shard,
            "voices_version": VOICES_VERSION,
            "columns": list(config.features()),
        }
        return json.loads(json.dumps(recipe))
    recipe = {
        "preset": config.name,
        "synthesis": config.synthesis,
        "seed": config.seed,
        "num_clips": config.num_clips,
        "clips_per_shard": config.clips_per_shard,
        "synthesizer_version": SYNTHESIZER_VERSION,
        "columns": list(features(config.validated_preset())),
    }
    return json.loads(json.dumps(recipe))


def claim_folder(folder: Path, recipe: dict[str, Any], own: Collection[str] = ("data",)) -> None:
    """Write the recipe into a new folder, or make sure that what lies in it was begun with the same.

    Args:
        folder: Created if missing.
        recipe: Plain values.
        own: Names that the folder may hold already.

    Raises:
        ValueError: if it belongs to another recipe, with what differs, or holds shards of none, or other files.
    """
    path = folder / "recipe.json"
    if not path.exists():
        if list((folder / "data").glob("*.parquet")):
            raise ValueError(f"{folder} holds shards without a recipe.json; choose an empty folder.")
        refuse_foreign(folder, own, f"a data set of {_examples(recipe)}")
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(recipe, indent=2))
        return
    theirs = read_json(path, "It says whose shards these are: restore it, or choose another folder.")
    if not isinstance(theirs, dict):
        raise ValueError(f"{path} is no recipe, which maps names to values; restore it, or choose another folder.")
    changed = [
        f"{name}: {theirs.get(name)!r} there, {recipe.get(name)!r} here"
        for name in recipe | theirs
        if theirs.get(name) != recipe.get(name)
    ]
    if changed:
        listed = "\n  ".join(changed)
        raise ValueError(
            f"{folder} holds {_examples(theirs)} of another recipe; choose another folder, or delete it.\n  {listed}"
        )


def _examples(recipe: Mapping[str, Any]) -> str:
    """What the rows of a recipe are called."""
    return "embeddings" if "model" in recipe else "images" if "patterns" in recipe else "clips"


def shard_path(folder: Path, number: int, num_shards: int) -> Path:
    """Where a shard lies, as the Hub and `load_dataset` expect it.

    Example:
        >>> shard_path(Path("x"), 0, 20).name
        'train-00000-of-00020.parquet'
    """
    return folder / "data" / f"train-{number:05d}-of-{num_shards:05d}.parquet"


def is_whole(path: Path, num_rows: int) -> bool:
    """Whether a shard is there and has all its rows; a Parquet file says so in its last bytes."""
    if not path.exists():
        return False
    try:
        return pq.read_metadata(path).num_rows == num_rows
    except pa.ArrowInvalid:
        return False


def _batches(rows_of_shard: Iterable[dict[str, Any]], schema: pa.Schema) -> Iterator[pa.Table]:
    batch: list[dict[str, Any]] = []
    for row in rows_of_shard:
        batch.append(row)
        if len(batch) == ROWS_PER_GROUP:
            yield pa.Table.from_pylist(batch, schema)
            batch = []
    if batch:
        yield pa.Table.from_pylist(batch, schema)


def write_shard(config: Config, path: Path, first: int, end: int) -> int:
    """Write clips or images from index `first` to before `end` as one Parquet file, which appears when it is whole.

    Args:
        config: Which clips or images.
        path: The file.
        first: Index of the first.
        end: Index after the last.

    Returns:
        How many it holds.

    Raises:
        OSError: if it cannot be written; nothing of it is left then.
    """
    schema = config.features().arrow_schema
    # No two clips are alike: a dictionary of their values would only cost time.
    with written_aside(path) as partial, pq.ParquetWriter(partial, schema, use_dictionary=False) as writer:
        for table in _batches(config.rows(first, end), schema):
            writer.write_table(table)
    return end - first


def _write(config: Config, shard: tuple[Path, int, int]) -> int:
    return write_shard(config, *shard)


def write_shards(config: Config, folder: Path, num_proc: int = 1, engine: str = "processes") -> list[Path]:
    """Write the shards that are not there yet.

    Args:
        config: Which clips.
        folder: Of the data set; shards go to its `data`, and all workers see it at this path.
        num_proc: Worker processes, of one thread each.
        engine: Whose processes these are, one of `engines.ENGINES`; the bytes are the same.

    Returns:
        All shards, in order.

    Raises:
        ValueError: if the folder holds clips of another recipe, or the clips cannot be.
        OSError: if a shard cannot be written, as when the disk is full; whole shards stay.
    """
    claim_folder(folder, recipe_of(config))
    ranges = config.shards()
    shards = [(shard_path(folder, number, len(ranges)), *clips) for number, clips in enumerate(ranges)]
    (folder / "data").mkdir(exist_ok=True)
    sweep(folder / "data")
    missing = [(path.absolute(), first, end) for path, first, end in shards if not is_whole(path, end - first)]
    number = ranges[-1][1]
    done = number - sum(end - first for _, first, end in missing)
    write = functools.partial(_write, config)
    unit = "image" if isinstance(config, AudioPGPatternsConfig) else "clip"
    with tqdm(total=number, initial=done, desc=folder.name, unit=unit, disable=None) as bar:
        for num_clips in answers(write, missing, engine=engine, num_proc=num_proc):
            bar.update(num_clips)
    return [path for path, _, _ in shards]


def _flat(table: pa.Table, name: str, depth: int) -> np.ndarray:
    """All values of a column, taken out of its lists, without nulls."""
    values = table[name].combine_chunks()
    for _ in range(depth):
        values = values.flatten()
    return values.drop_null().to_numpy(zero_copy_only=False)


def column_statistics(shards: Sequence[Path], columns: Mapping[str, Column]) -> dict[str, dict[str, Any]]:
    """What the columns of written shards hold, read back from them.

    Args:
        shards: Parquet files.
        columns: What they hold, by name.

    Returns:
        By column: `count` of values, and either `shares` of each name or truth value, or `min`, `mean`, `max`.
    """
    described = {name: column for name, column in columns.items() if name not in ("index", "seed")}
    table = pa.concat_tables([pq.read_table(shard, columns=list(described)) for shard in shards])
    statistics: dict[str, dict[str, Any]] = {}
    for name, column in described.items():
        values = _flat(table, name, column.depth)
        found: dict[str, Any] = {"count": len(values), "unit": column.unit}
        if column.kind in ("name", "bool"):
            names = column.names or ("no", "yes")
            counts = Counter(values.astype(int).tolist())
            found["shares"] = {names[value]: counts[value] / len(values) for value in sorted(counts)}
        elif len(values):
            found |= {"min": float(values.min()), "mean": float(values.mean()), "max": float(values.max())}
        statistics[name] = found
    return statistics


def build_dataset(config: Config, folder: Path, num_proc: int = 1, engine: str = "processes") -> list[Path]:
    """Write shards, card and picture.

    Args:
        config: Which clips.
        folder: Created if missing, gone on with if begun with the same values.
        num_proc: Worker processes.
        engine: As `write_shards`.

    Returns:
        The shards.

    Raises:
        ValueError: as `write_shards`, or if another command is at work in the folder.
        OSError: as `write_shards`.
    """
    if num_proc < 1:
        raise ValueError(f"num_proc is 1 or more, got {num_proc}.")
    with held(folder):
        return _build(config, folder, num_proc, engine)


def _build(config: Config, folder: Path, num_proc: int, engine: str) -> list[Path]:
    shards = write_shards(config, folder, num_proc, engine)
    if isinstance(config, AudioPGPatternsConfig):
        card = _describe_images(config, folder, shards)
    elif isinstance(config, AudioPGVoicesConfig):
        card = _describe_sounds(config, folder, shards)
    else:
        card = _describe_clips(config, folder, shards)
    with written_aside(folder / "README.md") as partial:
        card.save(partial)
    return shards


def _describe_images(config: AudioPGPatternsConfig, folder: Path, shards: list[Path]) -> DatasetCard:
    """Show and measure the first images, read back since some sets take minutes for them; and write the card."""
    patterns = config.validated_patterns()
    images = _first_images(shards, _MEASURED_IMAGES)
    measured = measure(images.split(_SHOWN_IMAGES))
    with writing(folder / "images.png"):
        shown = to_bytes(images[:_SHOWN_IMAGES])
        draw_sheet({config.name: shown}, {config.name: measured}, folder / "images.png")
    return image_dataset_card(recipe_of(config), patterns, measured=measured, shards=shards)


def _first_images(shards: Iterable[Path], most: int) -> torch.Tensor:
    """The first images of written shards, in [0, 1], shape `(most or fewer, 3, size, size)`."""
    batches = (batch for shard in shards for batch in pq.ParquetFile(shard).iter_batches(most, columns=["image"]))
    rows = itertools.islice((row for batch in batches for row in batch.to_pylist()), most)
    pixels = np.stack([np.asarray(Image.open(BytesIO(row["image"]["bytes"]))) for row in rows])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255


def _describe_sounds(config: AudioPGVoicesConfig, folder: Path, shards: list[Path]) -> DatasetCard:
    """Draw the first sounds of a voice, and write the card."""
    voice, shown = config.validated_voice(), range(min(_SHOWN_CLIPS, config.num_clips))
    parameters, noise = voices.draw(voice, config.seed, shown), voices.noise_of(voice, config.seed, shown)
    waveforms = voices.render(voice, parameters, noise)
    title = f"Synthesized sounds: {config.name}, preset {voice.preset.name}, seed {config.seed}"
    with writing(folder / "clips.png"):
        draw_sounds(waveforms, [f"#{index}" for index in shown], voice.sampling_rate, title, folder / "clips.png")
    return voice_dataset_card(
        recipe_of(config),
        voice,
        columns=audiopg_voices.describe_columns(voice),
        statistics=column_statistics(shards, audiopg_voices.columns(voice)),
        shards=shards,
    )


def _describe_clips(config: AudioPGSyntheticConfig, folder: Path, shards: list[Path]) -> DatasetCard:
    """Draw the first clips, and write the card."""
    preset, shown = config.validated_preset(), range(min(_SHOWN_CLIPS, config.num_clips))
    with writing(folder / "clips.png"):
        draw_clips(draw(preset, config.seed, shown), folder / "clips.png")
    return dataset_card(
        recipe_of(config),
        preset,
        columns=describe_columns(preset),
        statistics=column_statistics(shards, columns(preset)),
        shards=shards,
    )
