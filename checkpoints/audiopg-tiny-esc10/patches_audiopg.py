"""Spectrograms as patches: cutting them, where they stand, which of them are real, and which the encoder sees.

Patches run time outer, mel inner; of several channels, a patch holds one after the other. Boolean tensors called
`valid` count patches: one is valid when any of its frames is real, and only valid patches are ever seen or hidden.
"""

import math
from typing import TypeVar

import torch
from torch import Tensor

Count = TypeVar("Count", int, Tensor)


def patchify(values: Tensor, patch_shape: tuple[int, int]) -> Tensor:
    """Cut spectrograms into patches, time outer and mel inner, both among patches and inside each.

    Args:
        values: Shape `(batch, frames, mel bins)`, or `(batch, channels, frames, mel bins)`.
        patch_shape: Sides of a patch, in frames and in mel bins, as `AudioPGConfig.patch_shape`.

    Returns:
        Shape `(batch, patches, channels * patch frames * patch bins)`, channel by channel.

    Raises:
        ValueError: if a side of the spectrogram is not a multiple of that of a patch.

    Example:
        >>> patchify(torch.arange(8.0).reshape(1, 2, 4), (2, 2)).tolist()
        [[[0.0, 1.0, 4.0, 5.0], [2.0, 3.0, 6.0, 7.0]]]
        >>> patchify(torch.arange(8.0).reshape(1, 2, 4), (1, 2)).tolist()
        [[[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, 7.0]]]
    """
    batch, *channels, frames, mel_bins = values.shape
    time, mel = patch_shape
    if frames % time or mel_bins % mel:
        raise ValueError(
            f"The sides of a spectrogram must be multiples of those of a patch, {time} frames and {mel} mel bins, got "
            f"{frames} frames and {mel_bins} mel bins: pad it first."
        )
    rows, columns = frames // time, mel_bins // mel
    # (B, [C,] rows, time, columns, mel) -> (B, rows, columns, [C,] time, mel)
    grid = values.reshape(batch, *channels, rows, time, columns, mel)
    grid = grid.transpose(2, 3) if not channels else grid.permute(0, 2, 4, 1, 3, 5)
    return grid.reshape(batch, rows * columns, math.prod(channels) * time * mel)


def unpatchify(patches: Tensor, patch_shape: tuple[int, int], num_mel_bins: int, num_channels: int = 1) -> Tensor:
    """Put patches back together: the inverse of `patchify`.

    Args:
        patches: Shape `(batch, patches, num_channels * patch frames * patch bins)`.
        patch_shape: Sides of a patch, in frames and in mel bins.
        num_mel_bins: Mel bins of the spectrogram.
        num_channels: Channels of it.

    Returns:
        Shape `(batch, frames, num_mel_bins)`; of several channels, `(batch, num_channels, frames, num_mel_bins)`.

    Raises:
        ValueError: if the patches do not fill whole rows of the spectrogram.

    Example:
        >>> values = torch.randn(2, 32, 64)
        >>> torch.equal(unpatchify(patchify(values, (8, 16)), (8, 16), num_mel_bins=64), values)
        True
    """
    batch, num_patches, pixels = patches.shape
    time, mel = patch_shape
    columns = num_mel_bins // mel
    if pixels != num_channels * time * mel or num_mel_bins % mel or num_patches % columns:
        raise ValueError(
            f"Patches must have {num_channels} * {time} * {mel} values (channels, frames, mel bins) and fill rows of "
            f"{num_mel_bins} mel bins, got {num_patches} patches of {pixels} values: pass the sizes that they were "
            "cut with."
        )
    rows = num_patches // columns
    # (B, rows, columns, C, time, mel) -> (B, C, rows, time, columns, mel)
    grid = patches.reshape(batch, rows, columns, num_channels, time, mel).permute(0, 3, 1, 4, 2, 5)
    values = grid.reshape(batch, num_channels, rows * time, num_mel_bins)
    return values[:, 0] if num_channels == 1 else values


def sincos_positions(rows: int, columns: int, dim: int, device: torch.device | str = "cpu") -> Tensor:
    r"""Compute fixed two-dimensional positions for a grid of patches (AudioPG, section 4; He et al. 2022).

    Each axis gets half of the channels: $[\sin(p \omega_0), \ldots, \cos(p \omega_0), \ldots]$ with
    $\omega_i = 10000^{-i / (D / 4)}$ for $i < D / 4$. The first half codes the column (mel), the second the row
    (time).

    Args:
        rows: Patches along time.
        columns: Patches along mel.
        dim: Channels $D$, a multiple of 4.
        device: Where to compute.

    Returns:
        Shape `(rows * columns, dim)`, row by row, in float32. A class token gets zeros instead.

    Raises:
        ValueError: if `dim` is not a multiple of 4.

    Example:
        >>> sincos_positions(rows=2, columns=1, dim=4).round(decimals=2).tolist()
        [[0.0, 1.0, 0.0, 1.0], [0.0, 1.0, 0.8399999737739563, 0.5400000214576721]]
    """
    if dim % 4:
        raise ValueError(f"`dim` must be a multiple of 4, got {dim}: two axes need a sine and a cosine each.")
    device = torch.device(device)
    wide = torch.float32 if device.type == "mps" else torch.float64  # Metal has no float64
    omega = 10000.0 ** (-torch.arange(dim // 4, dtype=wide, device=device) / (dim // 4))

    def axis(length: int) -> Tensor:
        angles = torch.arange(length, dtype=wide, device=device)[:, None] * omega
        return torch.cat([angles.sin(), angles.cos()], dim=1).float()

    mel = axis(columns).expand(rows, columns, dim // 2)
    time = axis(rows)[:, None].expand(rows, columns, dim // 2)
    return torch.cat([mel, time], dim=-1).reshape(rows * columns, dim)


def valid_patches(attention_mask: Tensor, patch_frames: int, columns: int) -> Tensor:
    """Tell which patches hold at least one real frame.

    Args:
        attention_mask: 1 at real frames, 0 at padding, shape `(batch, frames)`.
        patch_frames: Frames of a patch.
        columns: Patches along mel.

    Returns:
        Booleans of shape `(batch, patches)`.

    Example:
        >>> valid_patches(torch.tensor([[1, 0, 0, 0]]), patch_frames=2, columns=3).tolist()
        [[True, True, True, False, False, False]]
    """
    batch, frames = attention_mask.shape
    rows = attention_mask.bool().reshape(batch, frames // patch_frames, patch_frames).any(dim=-1)
    return rows.repeat_interleave(columns, dim=1)


def invert_permutation(ids: Tensor) -> Tensor:
    """Where each number stands in rows that hold every number from 0 on once.

    Args:
        ids: Shape `(batch, n)`, int64.

    Returns:
        The same shape; row by row `inverse[ids[i]] == i`.

    Example:
        >>> invert_permutation(torch.tensor([[1, 3, 0, 2]])).tolist()
        [[2, 0, 3, 1]]
    """
    ranks = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    return torch.zeros_like(ids).scatter(1, ids, ranks)


def num_visible_patches(num_patches: Count, mask_ratio: float) -> Count:
    r"""Patches of a clip that the encoder sees: of $n$ it is $\lfloor n (1 - r) \rfloor$, but at least one.

    The ratio $r$ is the decimal number as it is written, to six places, and the rest is done in whole numbers: no
    device and no padding can change the result, as the binary number beside 0.9 would, which leaves 7 of 80 patches.

    Args:
        num_patches: The number $n$, or whole numbers in a tensor.
        mask_ratio: Share $r$ to hide, at least 0 and below 1.

    Returns:
        The number, or a tensor of numbers like `num_patches`.

    Example:
        >>> num_visible_patches(80, 0.9), num_visible_patches(torch.tensor([5, 10, 19, 20]), 0.9)
        (8, tensor([1, 1, 1, 2]))
    """
    visible = num_patches * (1_000_000 - round(1_000_000 * mask_ratio)) // 1_000_000
    return visible.clamp(min=1) if isinstance(visible, Tensor) else max(1, visible)


def random_masking(
    noise: Tensor, mask_ratio: float, valid: Tensor | None = None
) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """Choose the patches that the encoder sees: the `num_visible_patches` valid ones with the smallest noise.

    The slots are as many as a clip without padding would fill, a number known from the shapes alone, so that choosing
    never waits for the device.

    Args:
        noise: One number per patch, shape `(batch, patches)`; equal numbers keep the order of the patches.
        mask_ratio: Share to hide, see `num_visible_patches`.
        valid: False at padded patches, shape `(batch, patches)`; None when there is no padding.

    Returns:
        A tuple of
        `ids_keep`, the patch in each slot, shape `(batch, slots)`;
        `slot_valid`, False at slots that the clip does not fill, shape `(batch, slots)`, None if `valid` is None;
        `mask`, float32, 1 at hidden valid patches, shape `(batch, patches)`;
        `ids_restore`, the rank of each patch, shape `(batch, patches)`.

    Example:
        >>> ids_keep, _, mask, ids_restore = random_masking(torch.tensor([[0.9, 0.1, 0.5, 0.3]]), mask_ratio=0.5)
        >>> ids_keep.tolist(), mask.tolist(), ids_restore.tolist()
        ([[1, 3]], [[1.0, 0.0, 1.0, 0.0]], [[3, 0, 2, 1]])
    """
    num_slots = num_visible_patches(noise.shape[1], mask_ratio)
    if valid is None:
        ids_shuffle = noise.argsort(dim=1, stable=True)
        ids_restore = invert_permutation(ids_shuffle)
        return ids_shuffle[:, :num_slots], None, (ids_restore >= num_slots).float(), ids_restore

    ids_shuffle = noise.masked_fill(~valid, torch.inf).argsort(dim=1, stable=True)
    ids_restore = invert_permutation(ids_shuffle)
    num_valid = valid.sum(dim=1, keepdim=True)
    num_kept = num_visible_patches(num_valid, mask_ratio).minimum(num_valid)  # none of padding alone
    slot_valid = torch.arange(num_slots, device=noise.device) < num_kept
    mask = ((ids_restore >= num_kept) & valid).float()
    return ids_shuffle[:, :num_slots], slot_valid, mask, ids_restore


def content_noise(input_values: Tensor, attention_mask: Tensor | None, num_patches: int) -> Tensor:
    """Noise for `random_masking` that is a function of each clip alone: for losses that are to be compared.

    Neither the batch nor its padding changes it, nor does the order of a data set or the number of processes.

    Args:
        input_values: Shape `(batch, frames, mel bins)`.
        attention_mask: 1 at real frames, 0 at padding, shape `(batch, frames)`; None when all are real.
        num_patches: How many numbers for each clip. Fewer are the beginning of more.

    Returns:
        Uniform in [0, 1), float32, shape `(batch, num_patches)`.

    Example:
        >>> clips = torch.randn(2, 32, 16)
        >>> torch.equal(content_noise(clips, None, 2)[1:], content_noise(clips[1:], None, 3)[:, :2])
        True
    """
    bits = input_values.detach().float().contiguous().view(torch.int32).long()
    if attention_mask is not None:
        bits = bits * attention_mask.long()[..., None]
    frames, mel_bins = bits.shape[1:]
    places = torch.arange(frames, device=bits.device)[:, None] * 2**16 + torch.arange(mel_bins, device=bits.device)
    keys = (bits * _mix(places)).sum(dim=(1, 2))  # modulo 2 ** 64, so the order of the sum does not matter
    words = _mix(keys[:, None] + _mix(torch.arange(1, num_patches + 1, device=bits.device)))
    return ((words >> 40) & (2**24 - 1)).float() * 2.0**-24


def _mix(words: Tensor) -> Tensor:
    """The finaliser of SplitMix64 (Steele, Lea & Flood 2014): every bit of a word moves every bit of the result."""
    for shift, multiplier in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        words = (words ^ _shifted(words, shift)) * multiplier
    return words ^ _shifted(words, 31)


def _shifted(words: Tensor, shift: int) -> Tensor:
    return (words >> shift) & ((1 << (64 - shift)) - 1)  # torch's own shift copies the sign


__all__ = [
    "content_noise",
    "invert_permutation",
    "num_visible_patches",
    "patchify",
    "random_masking",
    "sincos_positions",
    "unpatchify",
    "valid_patches",
]
