"""Synthesized clips as a data set of `datasets`: FLAC with every generative factor as a column, made when asked for.

    dataset = AudioPGSynthetic(preset="audiopg", num_clips=1000).as_streaming_dataset(split="train")

Neither writing nor reading needs FFmpeg: soundfile encodes here, and `decode` there. `load_dataset("audiopg")` is not
offered: that function first lists the files of the current folder, fails where there are none, and makes them part of
the cache key where there are some.
"""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from io import BytesIO
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import soundfile
import torch
from datasets.builder import Key
from torch import Tensor

from audiopg.data_scripts.clip_rows import Column, clip_rows, columns
from audiopg.data_scripts.synthesis import (
    PRESETS,
    SYNTHESIZER_VERSION,
    Preset,
    draw,
    get_preset,
    render_components,
    signal_to_noise_ratio,
)
from audiopg.data_scripts.synthesis.shaping import peak_normalise

BATCH = 16
"""Clips that are rendered together, from a multiple of it on: a clip's last bits then never depend on who asks."""

_VERSION = datasets.Version(SYNTHESIZER_VERSION)
_FULL_SCALE = 1 << 15
_FIELDS_OF_ANY_CONFIG = {f.name for f in fields(datasets.BuilderConfig)}
_ARGUMENTS_OF_ANY_BUILDER = set(inspect.signature(datasets.DatasetBuilder.__init__).parameters) - {"config_name"}
_DTYPES = {"float": "float64", "int": "int64", "bool": "bool"}


class EncodedAudio(datasets.Audio):
    """`Audio` for examples that hold encoded bytes already; `Audio` itself imports torchcodec even for those."""

    def encode_example(self, value: Any) -> Any:
        """The example as it is."""
        return value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, datasets.Audio) and asdict(self) == asdict(other)


def _feature(column: Column) -> Any:
    feature: Any = datasets.Value(_DTYPES[column.kind]) if not column.names else None
    if column.names:
        feature = datasets.ClassLabel(names=list(column.names))
    for _ in range(column.depth):
        feature = datasets.List(feature)
    return feature


def features(preset: Preset) -> datasets.Features:
    """Types of the columns of `rows`.

    Args:
        preset: Whose clips.

    Returns:
        `audio`, a struct of FLAC `bytes` and a `path` that only names it, then the columns of `clip_rows`.

    Example:
        >>> features(get_preset("audiopg"))["mode"]
        List(ClassLabel(names=['harmonic', 'fm', 'pulse', 'noise']))
    """
    audio = EncodedAudio(sampling_rate=preset.sampling_rate, decode=False)
    described = {name: _feature(column) for name, column in columns(preset).items()}
    described["active_events"] = datasets.List(datasets.Value("int8"))
    return datasets.Features({"audio": audio, **described})


def describe_columns(preset: Preset) -> str:
    """Every column with its unit and meaning, a line each, in Markdown.

    Example:
        >>> print(describe_columns(get_preset("audiopg")).splitlines()[9])
        - `cutoff` (Hz): cutoff of the low-pass filter, a biquad with Q 0.707
    """
    lines = [f"- `audio`: FLAC, 16 bits, {preset.sampling_rate} Hz, mono"]
    for name, column in columns(preset).items():
        unit = f" ({column.unit})" if column.unit else ""
        inner = f" of each {column.inner}" if column.inner else ""
        each = f"{inner} of each event" if column.depth and name != "active_events" else ""
        lines.append(f"- `{name}`{unit}{each}: {column.description}")
    return "\n".join(lines)


def encode(waveform: Tensor, sampling_rate: int) -> bytes:
    """A waveform as FLAC of 16 bits.

    Args:
        waveform: In [-1, 1], shape `(samples,)`.
        sampling_rate: In Hz.

    Returns:
        The file. Decoding gives each sample to half a step of 2^-15, and +1 as 1 - 2^-15.

    Example:
        >>> encode(torch.zeros(160), 16000)[:4]
        b'fLaC'
    """
    steps = (waveform * _FULL_SCALE).round().clamp(-_FULL_SCALE, _FULL_SCALE - 1).to(torch.int16)
    content = BytesIO()
    soundfile.write(content, steps.cpu().numpy(), sampling_rate, format="FLAC", subtype="PCM_16")
    return content.getvalue()


def decode(row: Mapping[str, Any]) -> np.ndarray:
    """The waveform of a row, without FFmpeg.

    Args:
        row: Of this data set; its `audio` as stored, not as `Audio(decode=True)` makes it.

    Returns:
        float32 in [-1, 1), shape `(samples,)`.

    Example:
        >>> row = {"audio": {"bytes": encode(torch.tensor([0.0, 0.5, -1.0]), 16000), "path": None}}
        >>> decode(row).tolist()
        [0.0, 0.5, -1.0]
    """
    waveform, _ = soundfile.read(BytesIO(row["audio"]["bytes"]), dtype="float32")
    return waveform


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums are made in one order, however many threads there are; and a forked worker waits for none that is not.

    Example:
        >>> with one_thread():
        ...     torch.get_num_threads()
        1
    """
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


@one_thread()
def _batch_of_rows(preset: Preset, seed: int, start: int) -> list[dict[str, Any]]:
    parameters = draw(preset, seed, range(start, start + BATCH))
    signal, noise = render_components(parameters)
    waveforms = peak_normalise(signal + noise)
    found = clip_rows(parameters, signal_to_noise_ratio(signal, noise))
    files = [encode(waveform, preset.sampling_rate) for waveform in waveforms]
    names = [f"{row['index']:08d}.flac" for row in found]
    return [
        {"audio": {"bytes": file, "path": name}, **row} for file, name, row in zip(files, names, found, strict=True)
    ]


def rows(preset: Preset, seed: int, first: int, end: int) -> Iterator[dict[str, Any]]:
    """The clips from index `first` to before `end`, with all that they are made of.

    Args:
        preset: What clips.
        seed: Which stream.
        first: Index of the first.
        end: Index after the last.

    Yields:
        Rows of `features(preset)`.

    Example:
        >>> row = next(rows(get_preset("audiopg", duration=0.5), seed=0, first=3, end=4))
        >>> row["index"], decode(row).shape
        (3, (8000,))
    """
    for start in range(first - first % BATCH, end, BATCH):
        yield from (row for row in _batch_of_rows(preset, seed, start) if first <= row["index"] < end)


def shards_of(number: int, per_shard: int) -> list[tuple[int, int]]:
    """First index and index after the last of every shard.

    Example:
        >>> shards_of(5, 2)
        [(0, 2), (2, 4), (4, 5)]
    """
    return [(start, min(start + per_shard, number)) for start in range(0, number, per_shard)]


def validate_stream(seed: int, **counts: int) -> None:
    """Refuse what no stream of rows can have.

    Args:
        seed: Any integer of 64 bits with a sign.
        counts: Numbers by name, each 1 or more.

    Raises:
        ValueError: with the rule and what came.

    Example:
        >>> validate_stream(0, num_clips=0)
        Traceback (most recent call last):
        ValueError: num_clips is a whole number, 1 or more, got 0.
    """
    for name, count in counts.items():
        if not isinstance(count, int) or count < 1:
            raise ValueError(f"{name} is a whole number, 1 or more, got {count!r}.")
    if not isinstance(seed, int) or not -(1 << 63) <= seed < 1 << 63:
        raise ValueError(f"seed is a whole number from -2^63 to 2^63 - 1, to fit its column, got {seed!r}.")


@dataclass
class AudioPGSyntheticConfig(datasets.BuilderConfig):
    """Which clips. The name is that of the preset; version and values are part of the cache key.

    Args:
        num_clips: How many, from index 0 on.
        seed: Which stream of clips; any integer of 64 bits with a sign.
        synthesis: Overrides of the preset's ranges, `duration` and `sampling_rate` included.
        clips_per_shard: What one process prepares, or one worker streams, in one go.
    """

    version: datasets.Version | str | None = _VERSION
    num_clips: int = 10_000
    seed: int = 0
    synthesis: dict[str, Any] = field(default_factory=dict)
    clips_per_shard: int = 512

    def validated_preset(self) -> Preset:
        """The preset with its overrides.

        Raises:
            ValueError: if any field cannot be, with the rule, what came and the remedy.
        """
        validate_stream(self.seed, num_clips=self.num_clips, clips_per_shard=self.clips_per_shard)
        return get_preset(self.name, **self.synthesis)

    def shards(self) -> list[tuple[int, int]]:
        """First index and index after the last of every shard.

        Example:
            >>> AudioPGSyntheticConfig(name="audiopg", num_clips=5, clips_per_shard=2).shards()
            [(0, 2), (2, 4), (4, 5)]
        """
        return shards_of(self.num_clips, self.clips_per_shard)

    def features(self) -> datasets.Features:
        """Types of the columns."""
        return features(self.validated_preset())

    def rows(self, first: int, end: int) -> Iterator[dict[str, Any]]:
        """The clips from index `first` to before `end`."""
        return rows(self.validated_preset(), self.seed, first, end)


class AddressableRows(datasets.ArrowBasedBuilder):
    """A builder with one split, `train`, whose configuration says what rows there are.

    It has `shards()`, first index and index after the last of each; `features()`; and `rows(first, end)`.
    """

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        shards = {"shards": self.config.shards()}
        return [datasets.SplitGenerator(name=datasets.Split.TRAIN, gen_kwargs=shards)]

    def _generate_tables(self, shards: list[tuple[int, int]]) -> Iterator[tuple[Key, pa.Table]]:
        # Tables have types even where a column is null in all rows: of rows, whoever streams them would have to guess.
        config, schema = self.config, self.config.features().arrow_schema
        for shard, (first, end) in enumerate(shards):
            for number, start in enumerate(range(first - first % BATCH, end, BATCH)):
                batch = config.rows(max(first, start), min(end, start + BATCH))
                yield Key(shard, number), pa.Table.from_pylist(list(batch), schema)


class AudioPGSynthetic(AddressableRows):
    """Synthesized clips of one preset as a data set with one split, `train`.

    Args:
        preset: A name out of `PRESETS`.
        args: As for any builder; the first is `cache_dir`.
        kwargs: Fields of `AudioPGSyntheticConfig`, or arguments of any builder.

    Raises:
        ValueError: for an unknown preset or field, an impossible range, no clips.

    Example:
        >>> import tempfile
        >>> builder = AudioPGSynthetic(
        ...     tempfile.mkdtemp(), preset="audiopg", num_clips=4, synthesis={"duration": 0.5, "f0": [100, 200]}
        ... )
        >>> row = next(iter(builder.as_streaming_dataset(split="train")))
        >>> row["index"], decode(row).shape, all(100 <= f0 <= 200 for f0 in row["f0"])
        (0, (8000,), True)
    """

    VERSION = _VERSION
    BUILDER_CONFIG_CLASS = AudioPGSyntheticConfig
    BUILDER_CONFIGS = [  # noqa: RUF012 - the name is that of datasets
        AudioPGSyntheticConfig(name=name, description=preset.description) for name, preset in PRESETS.items()
    ]

    def __init__(self, *args: Any, preset: str = "audiopg", **kwargs: Any):
        if preset not in PRESETS:
            raise ValueError(f"Presets are {', '.join(PRESETS)}; got {preset!r}.")
        own = [f.name for f in fields(AudioPGSyntheticConfig) if f.name not in _FIELDS_OF_ANY_CONFIG]
        unknown = [name for name in kwargs if name not in own and name not in _ARGUMENTS_OF_ANY_BUILDER]
        if unknown:
            raise ValueError(
                f"AudioPGSynthetic has the fields preset, {', '.join(own)}; got {', '.join(unknown)}. "
                "Ranges of the preset go into synthesis={...}."
            )
        super().__init__(*args, config_name=preset, **kwargs)
        # Where such a data set is cached already, its description has been read back, with `Audio` in it.
        self.info.features = features(self.config.validated_preset())

    def _info(self) -> datasets.DatasetInfo:
        preset = self.config.validated_preset()
        return datasets.DatasetInfo(
            description=f"{preset.description}\n\n{describe_columns(preset)}",
            features=features(preset),
            license="apache-2.0",
            citation="arXiv:2606.14791",
            version=self.config.version,
        )
