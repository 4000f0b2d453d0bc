"""Clips of a cache as a model takes them: with the values, padding and mask that its feature extractor would give."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from audiopg.modeling.feature_extraction_audiopg import LogMelFeatureExtractor
from audiopg.modeling.spectrogram_audiopg import num_time_patches
from audiopg.training.features.cache import FeatureCache, front_end_of


class Batches:
    """Model inputs of clips of a cache, for one checkpoint: its feature extractor's, but for float16 rounding.

    Args:
        cache: The features.
        feature_extractor: Of the checkpoint.

    Raises:
        ValueError: if the cache was made with another front end, or by one that is not ours at several lengths.

    Example:
        >>> from audiopg import AudioPGFeatureExtractor
        >>> cache = FeatureCache(
        ...     "x", ["a"], front_end_of(AudioPGFeatureExtractor()).settings, ["0", "1"], [1, 2], ["0", "1"],
        ...     torch.zeros(130, 128).half(), torch.tensor([100, 30]), torch.tensor([0, 0]), "",
        ... )
        >>> batch = Batches(cache, AudioPGFeatureExtractor())([0, 1])
        >>> batch["input_values"].shape, batch["attention_mask"].sum(dim=1)
        (torch.Size([2, 112, 128]), tensor([100,  30]))
    """

    def __init__(self, cache: FeatureCache, feature_extractor: Any) -> None:
        expected = json.loads(json.dumps(front_end_of(feature_extractor, cache.clip_seconds).settings))
        if cache.front_end != expected:
            raise ValueError(
                f"The features of {cache.dataset_name} were made with {cache.front_end}, and this checkpoint needs "
                f"{expected}. Make them with this checkpoint."
            )
        self.cache, self.feature_extractor = cache, feature_extractor
        self.is_ours = isinstance(feature_extractor, LogMelFeatureExtractor)
        grid = feature_extractor.patch_grid if self.is_ours else {"patch_size": 1, "shortest_patch": 1}
        self.patch_size, self.shortest_patch = grid["patch_size"], grid["shortest_patch"]
        if not self.is_ours and len(cache.lengths.unique()) > 1:
            raise ValueError(
                f"Clips of {type(feature_extractor).__name__} are stacked, so they have one length, and those of "
                f"{cache.dataset_name} have several. Set clip_seconds."
            )

    def __call__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """`input_values` in float16 (see `finish`), `labels`, and `attention_mask` where it hides anything."""
        chosen = torch.as_tensor(indices)
        lengths = self.cache.lengths[chosen]
        batch = {"labels": self.cache.labels[chosen]}
        patches = [num_time_patches(length, self.patch_size, self.shortest_patch) for length in lengths.tolist()]
        ends = lengths.minimum(torch.tensor(patches) * self.patch_size)
        is_real = torch.arange(max(patches) * self.patch_size) < ends[:, None]
        values = self.cache.padded_frames(chosen, is_real.shape[1])
        if not is_real.all():
            # What standardisation will turn into the extractor's own padding.
            silence = self.feature_extractor.raw_padding_value
            values = values.masked_fill(~is_real[:, :, None].to(values.device), silence)
        # A mask that hides no patch changes nothing, and keeps attention from its fast kernels.
        if min(patches) < max(patches):
            batch["attention_mask"] = is_real.long()
        return {"input_values": values, **batch}

    def finish(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The same batch, on whatever device it is by now, in float32 and standardised."""
        return {**batch, "input_values": self._standardised(batch["input_values"])}

    def spectrograms(self, indices: Sequence[int]) -> Iterator[Tensor]:
        """Clips one by one, as their batches have them but without padding, each `(frames, bands)` in float32."""
        return (self._standardised(self.cache.clip_frames(index)) for index in indices)

    def _standardised(self, frames: Tensor) -> Tensor:
        wide = frames.to(torch.float32, copy=True)  # what is standardised is overwritten
        return self.feature_extractor.standardise(wide) if self.is_ours else wide
