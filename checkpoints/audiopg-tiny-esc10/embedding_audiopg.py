r"""Embeddings of recordings of any length: windows that overlap, and how what they say is put together again.

A recording of $T$ time patches (160 ms each where a patch has 16 frames) that fits into one window is embedded as it
is. A longer one is cut into windows whose starts lie on the grid of these patches; the last window ends where the
recording ends, so that every window is full. With $h_{w,t,m}$ the encoder's token at time patch $t$ and mel patch $m$
(of $M$) as window $w$ has it, and $W_t$ the windows that cover $t$,

$$f_t = \frac{1}{|W_t|} \sum_{w \in W_t} \frac{1}{M} \sum_{m=1}^{M} h_{w,t,m}, \qquad
e = \frac{1}{T} \sum_{t=1}^{T} f_t$$

are the frame embeddings and the clip embedding: every moment counts once, however many windows cover it, and a clip of
one window has exactly the mean of its patch tokens. With the rows along mel apart, $f_t$ holds the $M$ tokens side by
side; and with their deviations, $e$ also holds $\sqrt{\frac{1}{T} \sum_t (f_t - \bar f)^2}$ of each of its numbers:
how much a row moves, whatever the order. One window is in memory at a time, or one batch of them.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypedDict, Unpack

import torch
from torch import Tensor
from torch.nn.functional import pad

from .audio_audiopg import read_waveform
from .configuration_audiopg import check_pooling
from .feature_extraction_audiopg import ArrayLike, LogMelFeatureExtractor, split_clips
from .spectrogram_audiopg import PatchGrid, frame_length, hop_length, num_frames, num_time_patches, samples_spanned

WINDOW_SECONDS = 10.24
"""The length of clip that the models are pre-trained on: 64 time patches of 16 frames."""

OVERLAP_SECONDS = 2.56
"""A quarter of a window: a moment at the seam of two is at least 1.28 s inside one of them."""


class WindowOptions(TypedDict, total=False):
    """How recordings longer than a window are cut.

    Args:
        window_seconds: Length of the windows, by default `WINDOW_SECONDS`.
        overlap_seconds: What neighbouring windows share, by default `OVERLAP_SECONDS`.
    """

    window_seconds: float
    overlap_seconds: float


class EmbeddingOptions(WindowOptions, total=False):
    """How recordings are embedded; `window_seconds` and `overlap_seconds` as in `WindowOptions`.

    Args:
        pooling: "mean" takes the mean over the mel patches of a moment; "mel" keeps them side by side, lowest first:
            `num_mel_bins / patch_size` times as wide, which tells linear classifiers at which height of the spectrum
            something was; "mel_std" has of a clip also the standard deviations over time, as many numbers again, and
            is of a moment the same as "mel". By default what the checkpoint's `config.embedding_pooling` says.
        layer: Whose tokens are pooled, numbered as `config.embedding_layer`, which is the default.
        batch_size: Windows at a time, by default 16; it changes nothing but speed and memory.
    """

    pooling: str
    layer: int | None
    batch_size: int


@dataclass(frozen=True)
class Window:
    """A part of a recording that the encoder hears at once.

    Args:
        first_patch: The recording's time patch that comes first in it.
        num_patches: Time patches in it.
        start: First sample.
        end: Last sample, exclusive.
    """

    first_patch: int
    num_patches: int
    start: int
    end: int


@dataclass
class AudioPGFrameEmbeddings:
    """What a recording holds, moment by moment.

    Args:
        embeddings: Shape `(time patches, hidden_size)`, float32.
        times: Centre of each time patch in seconds, shape `(time patches,)`; they are a patch apart, 160 ms for 16
            frames.
    """

    embeddings: Tensor
    times: Tensor


def plan_windows(
    num_samples: int,
    *,
    sampling_rate: int = 16000,
    patch_size: int = 16,
    shortest_patch: int = 1,
    window_seconds: float = WINDOW_SECONDS,
    overlap_seconds: float = OVERLAP_SECONDS,
) -> list[Window]:
    """Cut a recording into windows on the grid of its time patches.

    Args:
        num_samples: Length of the recording.
        sampling_rate: In Hz.
        patch_size: Frames of 10 ms in a time patch.
        shortest_patch: Frames without which the last patch is left out, unless it is the only one.
        window_seconds: Length of a window, rounded to time patches.
        overlap_seconds: What neighbouring windows share, rounded to time patches.

    Returns:
        The windows in order; the first starts with the recording, the last ends with its last patch.

    Raises:
        ValueError: if the recording is shorter than one frame, a window than one time patch, or the overlap is not
            shorter than the window.

    Example:
        >>> [(window.first_patch, window.num_patches) for window in plan_windows(20 * 16000)]
        [(0, 64), (48, 64), (61, 64)]
        >>> plan_windows(16000)
        [Window(first_patch=0, num_patches=7, start=0, end=16000)]
    """
    if num_samples < frame_length(sampling_rate):
        raise ValueError(
            f"A recording must last at least 25 ms ({frame_length(sampling_rate)} samples), and this one has "
            f"{num_samples} samples. Leave it out, or pad it with zeros if it is a real sound."
        )
    samples_per_patch = patch_size * hop_length(sampling_rate)
    longest, shared = (
        round(seconds * sampling_rate / samples_per_patch) for seconds in (window_seconds, overlap_seconds)
    )
    if longest < 1 or not 0 <= shared < longest:
        raise ValueError(
            f"A window lasts at least one time patch ({samples_per_patch / sampling_rate} s) and overlaps by less "
            f"than its length, and got {window_seconds} s with {overlap_seconds} s of overlap. Change one of the two."
        )
    num_patches = num_time_patches(num_frames(num_samples, sampling_rate), patch_size, shortest_patch)
    length, last = min(longest, num_patches), max(0, num_patches - longest)
    firsts = [*range(0, last, longest - shared), last]
    # The frames of a window's last patch reach further than the window's nominal length, by 15 ms at 16 kHz.
    samples = samples_spanned(length * patch_size, sampling_rate)
    starts = [first * samples_per_patch for first in firsts]
    return [
        Window(first, length, start, min(start + samples, num_samples))
        for first, start in zip(firsts, starts, strict=True)
    ]


def patch_times(
    num_samples: int, *, sampling_rate: int = 16000, patch_size: int = 16, shortest_patch: int = 1
) -> Tensor:
    """Centre of each time patch of a recording in seconds, from its first frame's start to its last frame's end.

    Args:
        num_samples: Length of the recording.
        sampling_rate: In Hz.
        patch_size: Frames of 10 ms in a time patch.
        shortest_patch: As in `plan_windows`.

    Returns:
        Shape `(time patches,)`; the last patch counts only the frames that the recording fills.

    Example:
        >>> patch_times(16000)[:2], patch_times(400)
        (tensor([0.0875, 0.2475]), tensor([0.0125]))
    """
    frames = num_frames(num_samples, sampling_rate)
    first = torch.arange(num_time_patches(frames, patch_size, shortest_patch)) * patch_size
    last = (first + patch_size).clamp(max=frames) - 1
    return ((first + last) * hop_length(sampling_rate) + frame_length(sampling_rate)) / (2 * sampling_rate)


def time_patch_means(last_hidden_state: Tensor, columns: int) -> Tensor:
    """Mean over the mel patches at each time patch.

    Args:
        last_hidden_state: Tokens of an encoder that saw every patch, class token first, shape
            `(batch, 1 + patches, hidden_size)`.
        columns: Patches along mel.

    Returns:
        Shape `(batch, time patches, hidden_size)`, float32.

    Example:
        >>> time_patch_means(torch.tensor([[[9.0], [1.0], [3.0], [5.0], [7.0]]]), columns=2).tolist()
        [[[2.0], [6.0]]]
    """
    patches = last_hidden_state[:, 1:].float()
    return patches.unflatten(1, (-1, columns)).mean(dim=2)


def time_patch_stacks(last_hidden_state: Tensor, columns: int) -> Tensor:
    """The mel patches at each time patch side by side, lowest first (Niizumi et al., "Masked Modeling Duo", 2023).

    Args:
        last_hidden_state: As in `time_patch_means`.
        columns: Patches along mel.

    Returns:
        Shape `(batch, time patches, columns * hidden_size)`, float32; the mean over the columns is `time_patch_means`.

    Example:
        >>> time_patch_stacks(torch.tensor([[[9.0], [1.0], [3.0], [5.0], [7.0]]]), columns=2).tolist()
        [[[1.0, 3.0], [5.0, 7.0]]]
    """
    return last_hidden_state[:, 1:].float().unflatten(1, (-1, columns)).flatten(2)


def pool_mel_patches(last_hidden_state: Tensor, columns: int, pooling: str) -> Tensor:
    """What is kept of each moment: `time_patch_means` for "mean", `time_patch_stacks` for the others.

    Raises:
        ValueError: if there is no such pooling.

    Example:
        >>> pool_mel_patches(torch.zeros(1, 1 + 4, 3), columns=2, pooling="mel").shape
        torch.Size([1, 2, 6])
    """
    check_pooling("pooling", pooling)
    return (time_patch_means if pooling == "mean" else time_patch_stacks)(last_hidden_state, columns)


def pool_moments(moments: Tensor, pooling: str, valid: Tensor | None = None) -> Tensor:
    """What is kept of a clip: the mean of its moments and, for "mel_std", then their standard deviation.

    Args:
        moments: As from `pool_mel_patches`, shape `(..., time patches, width)`.
        pooling: One of `POOLINGS`.
        valid: Which time patches are none of padding, shape `(..., time patches)`; None when all are.

    Returns:
        Shape `(..., width)`, with "mel_std" `(..., 2 * width)`. The sums of squares are divided by the time patches:
        a clip of one has the deviation 0.

    Example:
        >>> pool_moments(torch.tensor([[1.0], [3.0]]), "mel_std")
        tensor([2., 1.])
    """
    mean = _mean_over_time(moments, valid)
    if pooling != "mel_std":
        return mean
    variance = _mean_over_time((moments - mean[..., None, :]).square(), valid)
    # The root has no slope at 0: what does not move stays out of gradients.
    moves = variance > 0
    return torch.cat([mean, torch.where(moves, torch.where(moves, variance, 1.0).sqrt(), 0.0)], dim=-1)


def _mean_over_time(moments: Tensor, valid: Tensor | None) -> Tensor:
    if valid is None:
        return moments.mean(dim=-2)
    weights = valid[..., None].to(moments.dtype)
    return (moments * weights).sum(dim=-2) / weights.sum(dim=-2).clamp(min=1)


def merge_windows(windows: Sequence[Window], frames: Sequence[Tensor]) -> Tensor:
    """Average what the windows of one recording say of each of its time patches.

    Args:
        windows: All windows of the recording, in order.
        frames: For each, shape `(its time patches or more, hidden_size)`; what is beyond them is padding.

    Returns:
        Shape `(time patches of the recording, hidden_size)`.

    Example:
        >>> windows = [Window(0, 2, 0, 0), Window(1, 2, 0, 0)]
        >>> merge_windows(windows, [torch.tensor([[1.0], [2.0]]), torch.tensor([[4.0], [5.0]])]).tolist()
        [[1.0], [3.0], [5.0]]
    """
    num_patches = windows[-1].first_patch + windows[-1].num_patches
    total = frames[0].new_zeros(num_patches, frames[0].shape[-1])
    count = frames[0].new_zeros(num_patches, 1)
    for window, values in zip(windows, frames, strict=True):
        place = slice(window.first_patch, window.first_patch + window.num_patches)
        total[place] += values[: window.num_patches]
        count[place] += 1
    return total / count


def check_time_patches(embeddings: Tensor, frames: int, patch_size: int) -> Tensor:
    """Refuse what an encoder says of frames that were cut for another one.

    Args:
        embeddings: Shape `(batch, time patches, width)`.
        frames: That the encoder heard, padding included.
        patch_size: Frames of a time patch, of the feature extractor.

    Returns:
        The same embeddings.

    Raises:
        ValueError: if the frames make another number of patches.

    Example:
        >>> check_time_patches(torch.zeros(1, 4, 3), frames=64, patch_size=16).shape
        torch.Size([1, 4, 3])
    """
    if embeddings.shape[1] * patch_size != frames:
        raise ValueError(
            f"The feature extractor must have the time patches of the model, {frames / embeddings.shape[1]:g} frames "
            f"each, got patch_size {patch_size}: load the one that was saved beside the model."
        )
    return embeddings


def frame_embeddings(
    encode: Callable[[Any], Tensor],
    feature_extractor: LogMelFeatureExtractor,
    waveforms: ArrayLike | Sequence[ArrayLike],
    *,
    device: torch.device | str,
    batch_size: int = 16,
    **options: Unpack[WindowOptions],
) -> Iterator[AudioPGFrameEmbeddings]:
    """Embed recordings one after the other, `batch_size` windows at a time, across recordings if they are short.

    Args:
        encode: From the feature extractor's output to `(batch, time patches, hidden_size)`.
        feature_extractor: The checkpoint's own.
        waveforms: What the feature extractor takes, of any length from 25 ms on; files are decoded as they are wanted.
        device: Where to compute; only the windows of a batch are copied there.
        batch_size: Windows at a time.
        options: `window_seconds` and `overlap_seconds`, see `plan_windows`.

    Yields:
        The frame embeddings of each recording, in order.

    Raises:
        ValueError: if a recording or a window is too short, it cannot be read (`AudioFileError`), or the feature
            extractor refuses the samples or has other time patches than the encoder.
    """
    grid = feature_extractor.patch_grid
    lengths: deque[int] = deque()

    def opened() -> Iterator[tuple[tuple[int, Any], list[Window]]]:
        for index, clip in enumerate(split_clips(waveforms)):
            waveform = read_waveform(clip, grid["sampling_rate"], f"recording {index}")
            lengths.append(len(waveform))
            yield (index, waveform), plan_windows(lengths[-1], **grid, **options)

    def encode_samples(parts: Sequence[tuple[tuple[int, Any], Window]]) -> Tensor:
        windows: list[Any] = [waveform[window.start : window.end] for (_, waveform), window in parts]
        padded = _hold_padding(parts)
        try:
            inputs = feature_extractor(
                windows, sampling_rate=grid["sampling_rate"], device=device, return_attention_mask=padded
            )
        except ValueError as error:
            (first, _), (last, _) = parts[0][0], parts[-1][0]
            error.add_note(f"Its clips are windows of recordings {first} to {last}, counted from 0.")
            raise
        return check_time_patches(encode(inputs), inputs["input_values"].shape[1], grid["patch_size"])

    for embeddings in _merged(opened(), encode_samples, batch_size):
        yield AudioPGFrameEmbeddings(embeddings, patch_times(lengths.popleft(), **grid))


def spectrogram_embeddings(
    encode: Callable[[Any], Tensor],
    spectrograms: Iterable[Tensor],
    *,
    device: torch.device | str,
    sampling_rate: int = 16000,
    patch_size: int = 16,
    shortest_patch: int = 1,
    padding_value: float = 0.0,
    batch_size: int = 16,
    **options: Unpack[WindowOptions],
) -> Iterator[Tensor]:
    """Embed recordings whose log-mel frames are known, as `frame_embeddings` embeds their samples.

    A frame depends on its own 25 ms alone, and windows begin where patches do: whether the samples are cut or the
    frames, the encoder hears the same; on a CPU to the last bit, but for recordings of less than 12 frames.

    Args:
        encode: From a dictionary of `input_values` and, if some patch is padding, `attention_mask`, as the feature
            extractor makes them, to `(batch, time patches, width)`.
        spectrograms: Standardised log-mel frames of one recording after the other, each `(frames, mel bins)`; taken
            as they are wanted.
        device: Where to compute; only the windows of a batch are copied there.
        sampling_rate: Of the recordings, in Hz.
        patch_size: Frames of 10 ms in a time patch.
        shortest_patch: As in `plan_windows`.
        padding_value: What stands beyond the last frame.
        batch_size: Windows at a time.
        options: `window_seconds` and `overlap_seconds`, see `plan_windows`.

    Yields:
        The embeddings of each recording, `(time patches, width)`, in order.

    Raises:
        ValueError: if a recording has no frame, or as `plan_windows` and `check_time_patches`.

    Example:
        >>> def encode(inputs):
        ...     return inputs["input_values"].unflatten(1, (-1, 16)).mean(dim=2)
        >>> recordings = [torch.zeros(98, 128), torch.zeros(2000, 128)]
        >>> [embeddings.shape for embeddings in spectrogram_embeddings(encode, recordings, device="cpu")]
        [torch.Size([7, 128]), torch.Size([125, 128])]
    """

    def plan(frames: Tensor) -> list[Window]:
        grid = PatchGrid(sampling_rate=sampling_rate, patch_size=patch_size, shortest_patch=shortest_patch)
        return plan_windows(samples_spanned(len(frames), sampling_rate), **grid, **options)

    def encode_frames(parts: Sequence[tuple[Tensor, Window]]) -> Tensor:
        windows = [
            frames[window.first_patch * patch_size :][: window.num_patches * patch_size] for frames, window in parts
        ]
        longest = max(window.num_patches for _, window in parts) * patch_size
        padded = [pad(window, (0, 0, 0, longest - len(window)), value=padding_value) for window in windows]
        inputs = {"input_values": torch.stack(padded).to(device)}
        if _hold_padding(parts):
            lengths = torch.tensor([len(window) for window in windows])
            inputs["attention_mask"] = (torch.arange(longest) < lengths[:, None]).long().to(device)
        return check_time_patches(encode(inputs), longest, patch_size)

    yield from _merged(((frames, plan(frames)) for frames in spectrograms), encode_frames, batch_size)


def _hold_padding(parts: Sequence[tuple[Any, Window]]) -> bool:
    """Whether a patch of the batch is padding: where none is, a mask would change only the speed of the attention."""
    return len({window.num_patches for _, window in parts}) > 1


def _merged(
    recordings: Iterable[tuple[Any, list[Window]]], encode: Callable[[Sequence[Any]], Tensor], batch_size: int
) -> Iterator[Tensor]:
    """Encode the windows of recordings in batches, and yield what those of each recording say together."""
    parts = ((recording, window, plan) for recording, plan in recordings for window in plan)
    frames: list[Tensor] = []
    while batch := list(islice(parts, batch_size)):
        encoded = encode([(recording, window) for recording, window, _ in batch])
        for (_, window, plan), values in zip(batch, encoded, strict=True):
            frames.append(values)
            if window is plan[-1]:
                yield merge_windows(plan, frames)
                frames = []


__all__ = [
    "OVERLAP_SECONDS",
    "WINDOW_SECONDS",
    "AudioPGFrameEmbeddings",
    "EmbeddingOptions",
    "Window",
    "WindowOptions",
    "check_time_patches",
    "frame_embeddings",
    "merge_windows",
    "patch_times",
    "plan_windows",
    "pool_mel_patches",
    "pool_moments",
    "spectrogram_embeddings",
    "time_patch_means",
    "time_patch_stacks",
]
