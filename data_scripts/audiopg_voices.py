"""Sounds of a voice as a data set of `datasets`: FLAC with every parameter in its unit, made when asked for.

    dataset = AudioPGVoices(voice="voice", num_clips=1000).as_streaming_dataset(split="train")

As `audiopg_synthetic`, which does so for clips.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import datasets
import torch

from audiopg.data_scripts.audiopg_synthetic import (
    BATCH,
    AddressableRows,
    EncodedAudio,
    encode,
    one_thread,
    shards_of,
    validate_stream,
)
from audiopg.data_scripts.clip_rows import Column
from audiopg.data_scripts.voices import (
    ARCHITECTURES,
    VOICES_VERSION,
    Voice,
    draw,
    get_voice,
    noise_of,
    render,
    to_units,
)

_VERSION = datasets.Version(VOICES_VERSION)
_LISTS = ("mod_matrix/weight", "mixer/level")


def columns(voice: Voice) -> dict[str, Column]:
    """The columns of `rows` beside the audio, described by the ranges of the voice.

    Example:
        >>> attack = columns(get_voice("voice"))["adsr_1/attack"]
        >>> attack.depth, attack.kind, attack.unit
        (0, 'float', 's')
    """
    ours = {
        "index": Column(0, "int", "", "number of the sound in the stream of its seed"),
        "seed": Column(0, "int", "", "the stream of sounds"),
    }
    return ours | {
        name: Column(int(name in _LISTS), "float", span.unit, span.description) for name, span in voice.ranges.items()
    }


def features(voice: Voice) -> datasets.Features:
    """Types of the columns of `rows`.

    Args:
        voice: Whose sounds.

    Returns:
        `audio`, a struct of FLAC `bytes` and a `path` that only names it, then `columns`.

    Example:
        >>> features(get_voice("voice"))["mixer/level"]
        List(Value('float32'))
    """
    dtypes = {"int": datasets.Value("int64"), "float": datasets.Value("float32")}
    described: dict[str, Any] = {"audio": EncodedAudio(sampling_rate=voice.sampling_rate, decode=False)}
    for name, column in columns(voice).items():
        described[name] = datasets.List(dtypes[column.kind]) if column.depth else dtypes[column.kind]
    return datasets.Features(described)


def describe_columns(voice: Voice) -> str:
    """Every column with its unit and meaning, a line each, in Markdown.

    Example:
        >>> print(describe_columns(get_voice("voice")).splitlines()[3])
        - `keyboard/midi_f0` (MIDI notes): note that is played; 69 is 440 Hz, a step is a semitone
    """
    lines = [f"- `audio`: FLAC, 16 bits, {voice.sampling_rate} Hz, mono"]
    for name, column in columns(voice).items():
        lines.append(f"- `{name}`{f' ({column.unit})' if column.unit else ''}: {column.description}")
    return "\n".join(lines)


@one_thread()
def _batch_of_rows(voice: Voice, seed: int, start: int) -> list[dict[str, Any]]:
    indices = range(start, start + BATCH)
    parameters = draw(voice, seed, indices)
    with torch.no_grad():
        waveforms = render(voice, parameters, noise_of(voice, seed, indices))
    units = {name: value.tolist() for name, value in to_units(voice, parameters).items()}
    return [
        {
            "audio": {"bytes": encode(waveform, voice.sampling_rate), "path": f"{index:08d}.flac"},
            **{"index": index, "seed": seed},
            **{name: values[number] for name, values in units.items()},
        }
        for number, (index, waveform) in enumerate(zip(indices, waveforms, strict=True))
    ]


def rows(voice: Voice, seed: int, first: int, end: int) -> Iterator[dict[str, Any]]:
    """The sounds from index `first` to before `end`, with all that they are made of.

    Args:
        voice: Which synthesizer.
        seed: Which stream.
        first: Index of the first.
        end: Index after the last.

    Yields:
        Rows of `features(voice)`.

    Example:
        >>> from audiopg.data_scripts.audiopg_synthetic import decode
        >>> row = next(rows(get_voice("voice"), seed=0, first=3, end=4))
        >>> row["index"], decode(row).shape, len(row["mixer/level"])
        (3, (16000,), 2)
    """
    for start in range(first - first % BATCH, end, BATCH):
        yield from (row for row in _batch_of_rows(voice, seed, start) if first <= row["index"] < end)


@dataclass
class AudioPGVoicesConfig(datasets.BuilderConfig):
    """Which sounds. The name is that of the architecture; version and values are part of the cache key.

    Args:
        num_clips: How many, from index 0 on.
        seed: Which stream of sounds; any integer of 64 bits with a sign.
        options: Arguments of `get_voice`: `preset`, `duration`, `sampling_rate`, `sines` and so on.
        clips_per_shard: What one process prepares, or one worker streams, in one go.
    """

    version: datasets.Version | str | None = _VERSION
    num_clips: int = 10_000
    seed: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    clips_per_shard: int = 2048

    def validated_voice(self) -> Voice:
        """The voice.

        Raises:
            ValueError: if any field cannot be, with the rule, what came and the remedy.
        """
        validate_stream(self.seed, num_clips=self.num_clips, clips_per_shard=self.clips_per_shard)
        try:
            return get_voice(self.name, **self.options)
        except TypeError as error:
            known = "preset, duration, sampling_rate, control_rate, sines, square_saws, fm_sines, fm_square_saws"
            raise ValueError(f"A voice has the options {known}; got {', '.join(self.options)}.") from error

    def shards(self) -> list[tuple[int, int]]:
        """First index and index after the last of every shard."""
        return shards_of(self.num_clips, self.clips_per_shard)

    def features(self) -> datasets.Features:
        """Types of the columns."""
        return features(self.validated_voice())

    def rows(self, first: int, end: int) -> Iterator[dict[str, Any]]:
        """The sounds from index `first` to before `end`."""
        return rows(self.validated_voice(), self.seed, first, end)


class AudioPGVoices(AddressableRows):
    """Sounds of one voice as a data set with one split, `train`.

    Args:
        voice: A name out of `ARCHITECTURES`.
        args: As for any builder; the first is `cache_dir`.
        kwargs: Fields of `AudioPGVoicesConfig`, or arguments of any builder.

    Raises:
        ValueError: for an unknown voice, an impossible option, no sounds.
        TypeError: for a field that does not exist.

    Example:
        >>> import tempfile
        >>> from audiopg.data_scripts.audiopg_synthetic import decode
        >>> builder = AudioPGVoices(tempfile.mkdtemp(), voice="voice_fm", num_clips=4, options={"duration": 0.5})
        >>> row = next(iter(builder.as_streaming_dataset(split="train")))
        >>> row["index"], decode(row).shape, 0 <= row["keyboard/midi_f0"] <= 127
        (0, (8000,), True)
    """

    VERSION = _VERSION
    BUILDER_CONFIG_CLASS = AudioPGVoicesConfig
    BUILDER_CONFIGS = [  # noqa: RUF012 - the name is that of datasets
        AudioPGVoicesConfig(name=name, description=get_voice(name).architecture.description) for name in ARCHITECTURES
    ]

    def __init__(self, *args: Any, voice: str = "voice", **kwargs: Any):
        get_voice(voice)
        super().__init__(*args, config_name=voice, **kwargs)
        # Where such a data set is cached already, its description has been read back, with `Audio` in it.
        self.info.features = self.config.features()

    def _info(self) -> datasets.DatasetInfo:
        voice = self.config.validated_voice()
        return datasets.DatasetInfo(
            description=f"{voice.architecture.description}\n\n{describe_columns(voice)}",
            features=features(voice),
            license="apache-2.0",
            version=self.config.version,
        )
