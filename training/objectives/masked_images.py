r"""Synthetic images instead of sound: a masked autoencoder, or a classifier, whose encoder is then used on audio.

"Pre-training with Synthetic Patterns for Audio" (Ishikawa, Komatsu & Aoki, ICASSP 2025): images that no camera took,
in colour, are learnt by the masked autoencoder of He et al. (2022) as it is. What is released has crossed the `bridge`
to audio. Images lie in the model as spectrograms do (`as_spectrograms`), so it is the same model with three channels.

Each is cropped at random and flipped as there; every choice is drawn from (seed, example), so a run can be cut,
stopped and resumed. Pixels are standardised by one mean and one deviation of the set itself, for all colours: those of
ImageNet are facts about photographs, and colours that were stretched each by itself could not be summed at the bridge.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from tqdm import tqdm

from audiopg.data_scripts.counter_random import uniform
from audiopg.data_scripts.patterns import PatternSet
from audiopg.data_scripts.patterns.measures import blank_share, total_variation
from audiopg.modeling.modeling_audiopg import AudioPGForAudioClassification, AudioPGForPreTraining
from audiopg.training.engine.objective import LOSS
from audiopg.training.engine.throughput import phase
from audiopg.training.objectives.bridge import (
    PATCH_PROJECTION,
    as_spectrograms,
    audio_config,
    audio_feature_extractor,
    kernel_norms,
    to_audio,
)
from audiopg.training.objectives.masked_audio import MaskedAudio, flop_per_clip, masking_noise, released_model
from audiopg.training.objectives.recipe import PatternsRecipe, PretrainingRecipe

CROP_AREA = (0.2, 1.0)
"""Share of an image's area that a crop has, uniform (He et al. 2022)."""
CROP_RATIO = (3 / 4, 4 / 3)
"""Width of a crop over its height, uniform in its logarithm."""

_BATCH = 16
_DECIMALS = 3


def draw_crops(recipe: PatternsRecipe, seed: int, examples: Tensor) -> Tensor:
    """Which part of its image each example shows.

    Where a crop would be wider or higher than the image it ends there, which makes its area less than was drawn.

    Args:
        recipe: Whether there are crops and flips.
        seed: Of the run.
        examples: Indices, int64, shape `(batch,)`.

    Returns:
        `left`, `top`, `width` and `height` as shares of the image, float64, shape `(batch, 4)`; of those that are
        flipped, `left` is the right edge and `width` negative.

    Example:
        >>> draw_crops(PatternsRecipe(name="power_law", crop=False, flip=False), seed=0, examples=torch.arange(1))
        tensor([[0., 0., 1., 1.]], dtype=torch.float64)
    """
    area, ratio, x, y, side = uniform(seed, examples, "crop", (5,)).unbind(1)
    if recipe.crop:
        area = CROP_AREA[0] + (CROP_AREA[1] - CROP_AREA[0]) * area
        logarithms = torch.tensor(CROP_RATIO, dtype=torch.float64).log()
        ratio = (logarithms[0] + (logarithms[1] - logarithms[0]) * ratio).exp()
        width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    else:
        width = height = torch.ones_like(area)
    left, top = x * (1 - width), y * (1 - height)
    flipped = (side < 0.5) & recipe.flip
    left, width = torch.where(flipped, left + width, left), torch.where(flipped, -width, width)
    return torch.stack([left, top, width, height], dim=1)


def crop(images: Tensor, crops: Tensor) -> Tensor:
    """Stretch parts of images to their size, by bicubic interpolation.

    A crop is never larger than what it becomes, so there is nothing to smooth beforehand.

    Args:
        images: In [0, 1], shape `(batch, channels, side, side)`.
        crops: As from `draw_crops`.

    Returns:
        The same shape, in [0, 1].

    Example:
        >>> image = torch.rand(1, 3, 32, 32)
        >>> whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
        >>> torch.allclose(crop(image, whole), image, atol=1e-5)
        True
    """
    side = images.shape[-1]
    centres = (torch.arange(side, device=images.device, dtype=torch.float64) + 0.5) / side
    left, top, width, height = crops.to(images.device)[..., None].unbind(1)
    # From shares of the side, 0 to 1 from edge to edge, to -1 to 1.
    x, y = 2 * (left + width * centres) - 1, 2 * (top + height * centres) - 1
    grid = torch.stack([x[:, None].expand(-1, side, -1), y[..., None].expand(-1, -1, side)], dim=-1)
    found = nn.functional.grid_sample(
        images, grid.to(images.dtype), mode="bicubic", padding_mode="reflection", align_corners=False
    )
    return found.clamp(0, 1)


def image_statistics(
    patterns: PatternSet, size: int, seed: int, num_images: int, device: torch.device
) -> dict[str, float]:
    """What pixels are standardised with, and how rough and how empty images are: of the first of a run, uncropped.

    Args:
        patterns: Which images.
        size: Their side in pixels.
        seed: Of the run.
        num_images: How many, from index 0 on.
        device: Where to draw them.

    Returns:
        `mean` and (population) standard deviation `std` over all pixels and colours, `total_variation` and
        `blank_share` over images (`data_scripts.patterns.measures`); all rounded to 3 decimals, which nearly always
        makes devices agree.

    Raises:
        ValueError: if they are all of one grey.

    Example:
        >>> from audiopg.data_scripts.patterns import get_patterns
        >>> found = image_statistics(get_patterns("power_law"), 32, 0, 4, torch.device("cpu"))
        >>> 0 < found["mean"] < 1, 0 < found["std"] < 0.5, found["blank_share"]
        (True, True, 0.0)
    """
    sums = torch.zeros(5, dtype=torch.float64)  # of pixels, of their squares, how many; of the measures of images
    for first in tqdm(range(0, num_images, _BATCH), desc="statistics", unit="batch", leave=False, disable=None):
        indices = torch.arange(first, min(first + _BATCH, num_images))
        images = patterns.images(seed, indices, size, device)
        pixels = images.double()
        of_pixels = [power.sum() for power in (pixels, pixels.square(), torch.ones_like(pixels))]
        of_images = [measure(images).double().sum() for measure in (total_variation, blank_share)]
        sums += torch.stack(of_pixels + of_images).cpu()
    mean, mean_square = (sums[:2] / sums[2]).tolist()
    deviation = max(0.0, mean_square - mean**2) ** 0.5
    names = ("mean", "std", "total_variation", "blank_share")
    values = (mean, deviation, *(sums[3:] / num_images).tolist())
    found = {name: round(value, _DECIMALS) for name, value in zip(names, values, strict=True)}
    if not found["std"]:
        raise ValueError(f"patterns {patterns.name} shows one grey everywhere; change patterns.settings.")
    return found


class MaskedImages(MaskedAudio):
    """Hides patches of images and has them redrawn (`Objective`); what is released takes audio.

    Args:
        recipe: Which images, and which model.
        measured: As from `measure`.

    Raises:
        ValueError: if a folder of images is not the one that the run began with, or as `measure`.
    """

    def __init__(self, recipe: PretrainingRecipe, measured: Mapping[str, Any]) -> None:
        self.recipe, self.statistics, self.config = recipe, measured, recipe.config
        self.patterns = _patterns(recipe)
        self.pattern_set, folder = _images_of(self.patterns, recipe.seed)
        began_with = measured["images"].get("folder_digest")
        if folder.get("folder_digest") != began_with:
            raise ValueError(
                f"{self.patterns.folder} has changed since the run began: its digest was {began_with} and is "
                f"{folder.get('folder_digest')}. Restore it, or choose another --output_dir."
            )
        self.model: nn.Module = self.build_model(recipe)

    @classmethod
    def measure(cls, recipe: PretrainingRecipe, device: torch.device) -> dict[str, Any]:
        """The statistics of images, and what images those are: of a folder, what that says of itself.

        Raises:
            ValueError: if a folder does not hold the images of the recipe.
        """
        patterns = _patterns(recipe)
        num_images = min(recipe.statistics_clips, patterns.num_images or recipe.statistics_clips)
        pattern_set, origin = _images_of(patterns, recipe.seed)
        found = image_statistics(pattern_set, patterns.size, recipe.seed, num_images, device)
        images = {**found, "patterns": patterns.name, **origin}
        return {"images": images | {"size": patterns.size, "num_images": num_images}, "saw_real_data": False}

    @classmethod
    def flop_per_example(cls, recipe: PretrainingRecipe) -> float:
        """`flop_per_clip` of the recipe's model and images."""
        return flop_per_clip(recipe.config, recipe.config.num_mel_patches**2)

    @classmethod
    def build_model(cls, recipe: PretrainingRecipe) -> nn.Module:
        """The recipe's model, with its initial weights."""
        torch.manual_seed(recipe.seed)
        return AudioPGForPreTraining(recipe.config)

    @classmethod
    def build_feature_extractor(cls, recipe: PretrainingRecipe, statistics: Mapping[str, Any]) -> Any:
        """The extractor that goes with what is released, which takes audio."""
        return audio_feature_extractor(audio_config(recipe.config), **_told(statistics))

    @classmethod
    def released(cls, recipe: PretrainingRecipe, weights: Mapping[str, Tensor]) -> Any:
        """The masked autoencoder, brought over to audio."""
        return to_audio(released_model(recipe, weights, redraws=True))

    def draw(self, examples: range) -> tuple[Tensor, Tensor]:
        """Which images, and which part of each."""
        indices, num_images = torch.arange(examples.start, examples.stop), self.patterns.num_images
        crops = draw_crops(self.patterns, self.recipe.seed, indices)
        return (indices if num_images is None else indices % num_images), crops

    def batch(self, examples: range, drawn: Any, device: torch.device) -> dict[str, Tensor]:
        """`input_values`, shape `(batch, 3, columns, rows)`, and `noise`, shape `(batch, patches)`."""
        values = self.pixels(drawn, device)
        indices = torch.arange(examples.start, examples.stop, device=values.device)
        num_patches = values[0].numel() // self.config.patch_values
        return {"input_values": values, "noise": masking_noise(self.recipe.seed, indices, num_patches, values.device)}

    def pixels(self, drawn: tuple[Tensor, Tensor], device: torch.device) -> Tensor:
        """Images as the model takes them, shape `(batch, 3, columns, rows)`."""
        measured = self.statistics["images"]
        indices, crops = (found.to(device, non_blocking=True) for found in drawn)
        with phase("synthesis"):
            images = self.pattern_set.images(self.recipe.seed, indices, self.patterns.size, device)
        with phase("cropping"):
            if self.patterns.crop or self.patterns.flip:
                images = crop(images, crops)
            return as_spectrograms((images - measured["mean"]) / measured["std"])

    def facts(self) -> dict[str, Any]:
        """As of `MaskedAudio`, and the `kernel_norms` of the patch projection."""
        projection = self.model.get_parameter(f"audiopg.{PATCH_PROJECTION}")
        return {**super().facts(), "kernel_norms": kernel_norms(projection, self.config.num_channels)}


class PatternClassesModel(AudioPGForAudioClassification):
    """The encoder with a linear classifier on the mean of its patch tokens, which says how often it is right."""

    def forward(self, input_values: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """`loss`, the cross-entropy, and the `accuracy` of a batch, scalars.

        Args:
            input_values: Shape `(batch, 3, columns, rows)`; all patches are seen.
            labels: Classes, shape `(batch,)`.
        """
        output = super().forward(input_values, labels=labels, return_dict=True)
        return {LOSS: output.loss, "accuracy": (output.logits.argmax(dim=1) == labels).float().mean()}


class PatternClasses(MaskedImages):
    """Tells which class of its set an image is of (`Objective`); what is released, the encoder, takes audio."""

    @classmethod
    def flop_per_example(cls, recipe: PretrainingRecipe) -> float:
        """Of the encoder, which sees all patches; the classifier is of lower order."""
        config = recipe.config
        config.mask_ratio = 0.0
        return flop_per_clip(config, config.num_mel_patches**2, redraws=False)

    @classmethod
    def build_model(cls, recipe: PretrainingRecipe) -> nn.Module:
        """The encoder with a classifier, with initial weights."""
        torch.manual_seed(recipe.seed)
        config = recipe.config
        config.num_labels = _patterns(recipe).pattern_set.num_classes
        return PatternClassesModel(config)

    @classmethod
    def released(cls, recipe: PretrainingRecipe, weights: Mapping[str, Tensor]) -> Any:
        """The encoder, brought over to audio."""
        model: Any = AudioPGForPreTraining(recipe.config).audiopg
        model.load_state_dict({name: weights[f"audiopg.{name}"] for name in model.state_dict()}, strict=True)
        return to_audio(model)

    def batch(self, examples: range, drawn: Any, device: torch.device) -> dict[str, Tensor]:
        """`input_values`, shape `(batch, 3, columns, rows)`, and `labels`, shape `(batch,)`."""
        indices = drawn[0].to(device, non_blocking=True)
        labels = self.pattern_set.classes(self.recipe.seed, indices, device)
        return {"input_values": self.pixels(drawn, device), "labels": labels}

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Those of `PatternClassesModel`."""
        return model(**batch)


def _told(statistics: Mapping[str, Any]) -> dict[str, Any]:
    """What a released extractor says of its weights: its own standardisation is not that of the images."""
    return {name: statistics[name] for name in ("images", "saw_real_data") if name in statistics}


def _patterns(recipe: PretrainingRecipe) -> PatternsRecipe:
    """The images of a recipe that has some, which is checked with the recipe."""
    return cast(PatternsRecipe, recipe.patterns)


def _images_of(patterns: PatternsRecipe, seed: int) -> tuple[PatternSet, dict[str, Any]]:
    """The images that a run sees, and where they come from: their `overrides` and `seed`, and of a folder more.

    Args:
        patterns: Of the run's recipe.
        seed: Of the run, which images are made with that are not read.

    Raises:
        ValueError: if the folder does not hold the images of the recipe.
    """
    if patterns.folder is None or patterns.num_images is None:  # a folder comes with a number, see the recipe
        return patterns.pattern_set, {"overrides": patterns.settings, "seed": seed}
    from audiopg.data_scripts.patterns.render import read_back  # needs Pillow, which a GPU machine may lack

    found = read_back(Path(patterns.folder))
    there = {"name": found.identity["patterns"], "size": found.identity["size"]}
    if there != {name: getattr(patterns, name) for name in there} or patterns.num_images > found.num_images:
        raise ValueError(
            f"patterns.folder {patterns.folder} holds {found.num_images} images of {there['name']}, {there['size']} "
            f"pixels wide, got name {patterns.name}, num_images {patterns.num_images} and size {patterns.size}; give "
            "that name and size, and so many images at most, or render more."
        )
    origin = {"overrides": found.identity["ranges"], "seed": found.identity["seed"]}
    origin |= {"version": found.identity["version"], "folder": Path(patterns.folder).resolve().name}
    origin |= {"folder_images": patterns.num_images, "folder_digest": found.digest(patterns.num_images)}
    return found.patterns, origin
