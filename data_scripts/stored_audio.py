"""Data sets of `datasets` with their audio as it is stored, whatever they are made of; no torchcodec, no FFmpeg."""

from dataclasses import dataclass
from os import PathLike, fspath
from typing import Any

from datasets import Audio, Dataset, DatasetDict, Features, IterableDataset, load_dataset


@dataclass
class StoredAudio(Audio):
    """`Audio(decode=False)` that also takes rows that are not encoded yet, for which the parent wants torchcodec."""

    decode: bool = False

    def encode_example(self, value: Any) -> dict[str, Any]:
        """Where a file is, or what is in it.

        Args:
            value: A path or an address, a file's content, or a dictionary with `path` and `bytes`.

        Returns:
            A dictionary with both, one of them None.

        Raises:
            ValueError: for anything else.

        Example:
            >>> StoredAudio().encode_example("zip://a.wav::b.zip")
            {'bytes': None, 'path': 'zip://a.wav::b.zip'}
        """
        if isinstance(value, (str, PathLike)):
            return {"bytes": None, "path": fspath(value)}
        if isinstance(value, (bytes, bytearray)):
            return {"bytes": bytes(value), "path": None}
        if isinstance(value, dict) and {"bytes", "path"} & set(value):
            return {"bytes": value.get("bytes"), "path": value.get("path")}
        raise ValueError(f"Stored audio is a path, bytes or both, and got a {type(value).__name__}.")


def load_stored(
    name: str, *, split: str | None = None, streaming: bool = False
) -> Dataset | DatasetDict | IterableDataset:
    """`datasets.load_dataset`, for folders of files, archives and Parquet alike, on the Hub or on disk.

    Args:
        name: As there.
        split: As there; None for all of them.
        streaming: As there; the audio of a file is then where the Hub, or an archive, has it, such as `hf://...`.

    Returns:
        As there, but that columns of audio hold `{"bytes", "path"}`.

    Raises:
        ValueError: as there.
    """
    known = load_dataset(name, split=split, streaming=True)  # knows the columns, and has read next to nothing
    features = known.features if split is not None else next(iter(known.values())).features
    audio = [column for column, feature in (features or {}).items() if isinstance(feature, Audio)]
    if audio:
        # A data set of files is encoded by its features while it is read, and Parquet cast to them afterwards.
        stored = Features({**features, **{column: StoredAudio() for column in audio}})
        rows = load_dataset(name, split=split, streaming=streaming, features=stored)
    else:
        rows = known if streaming else load_dataset(name, split=split)
    for column in audio:
        rows = rows.cast_column(column, StoredAudio())
    return rows
