"""Many recordings at once, on a few threads."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

from audiopg.modeling.audio_audiopg import AudioFileError, match_length, read_audio


def read_audio_files(
    paths: Sequence[str | Path],
    sampling_rate: int = 16000,
    *,
    num_samples: int | None = None,
    num_threads: int = 4,
) -> list[Tensor]:
    """Decode many recordings on a few threads, with a progress bar.

    Args:
        paths: The files.
        sampling_rate: Rate in Hz of the results.
        num_samples: Match each waveform to this length (see `match_length`); by default lengths stay as they are.
        num_threads: Decoding and resampling leave Python, so threads share the work without copies.

    Returns:
        One float32 waveform `(samples,)` per path, in the order of `paths`.

    Raises:
        AudioFileError: if any file cannot be used; every such file is listed, after all have been tried.

    Example:
        >>> read_audio_files([])
        []
    """
    read = _returning_errors(lambda path: _read_matched(path, sampling_rate, num_samples))
    with ThreadPoolExecutor(max_workers=num_threads) as pool:
        results = list(tqdm(pool.map(read, paths), total=len(paths), desc="Reading audio", unit="file", disable=None))
    failures = [result for result in results if isinstance(result, AudioFileError)]
    if failures:
        listing = "\n".join(f"  {failure}" for failure in failures)
        raise AudioFileError(
            f"{len(failures)} of {len(paths)} files", "see the list", f"Replace them or leave them out.\n{listing}"
        )
    return [result for result in results if isinstance(result, Tensor)]


def _read_matched(path: str | Path, sampling_rate: int, num_samples: int | None) -> Tensor:
    waveform = read_audio(path, sampling_rate)
    return waveform if num_samples is None else match_length(waveform, num_samples)


def _returning_errors(read: Callable[[str | Path], Tensor]) -> Callable[[str | Path], Tensor | AudioFileError]:
    """The same function, but that one bad file does not end the reading of the others."""

    def attempt(path: str | Path) -> Tensor | AudioFileError:
        try:
            return read(path)
        except AudioFileError as error:
            return error

    return attempt
