"""How a model is fine-tuned and what it is tested on: the recipe, and the rounds of training, validation and test.

A round's test clips are read once, after its training has ended. Which epoch is tested is either fixed (the last) or
chosen on validation clips, which come from the training folds and share no source with what is trained on.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from audiopg.modeling.configuration_audiopg import check_pooling
from audiopg.training.features.cache import FeatureCache

DRAWN_VALIDATION = 0.1
"""Share of the training clips that validation gets where a data set has no validation split."""


@dataclass(frozen=True)
class FinetuningRecipe:
    """Everything that defines a fine-tuning but the checkpoint and the data.

    Args:
        name: Of the protocol.
        description: One sentence: what it reproduces or is for.
        epochs: Passes over the training clips.
        batch_size: Clips per step.
        learning_rate: Peak of the schedule, at the classifier.
        layer_decay: Each block's rate is this times that of the block above; 1 gives all the same.
        warmup_fraction: Share of the steps in which the rate rises from zero; it then falls to zero by a cosine.
        weight_decay: Of AdamW, on matrices.
        drop_path_rate: Stochastic depth of the last block, where the model has it.
        pooling: What the classifier reads, where the model has a choice: `mean`, the mean of all tokens, or `mel`,
            that of every row of patches along mel.
        clip_seconds: Clips are cropped in the middle or repeated to this length; None keeps them as they are.
        time_roll: Whether training clips are turned round in time.
        time_mask: Most frames that SpecAugment hides; 0 hides none.
        frequency_mask: Most mel bands that SpecAugment hides; 0 hides none.
        mixup: Alpha of mixup; 0 does without.
        cutmix: Alpha of cutmix; 0 does without.
        mix_probability: That a batch is mixed by either.
        switch_probability: That it is by cutmix rather than by mixup.
        label_smoothing: Share of a single label that is spread over all classes; several labels stay as they are.
        select: `last`, or `validation`: the epoch that is best on validation clips.
        checkpoints_per_round: How often a round is saved on its way, to go on from if it is interrupted.
        seed: Of the classifier's weights, the order of clips and every augmentation.
    """

    name: str
    description: str
    epochs: int
    batch_size: int = 32
    learning_rate: float = 2e-4
    layer_decay: float = 0.75
    warmup_fraction: float = 0.1
    weight_decay: float = 0.05
    drop_path_rate: float = 0.1
    pooling: str = "mean"
    clip_seconds: float | None = 10.24
    time_roll: bool = True
    time_mask: int = 192
    frequency_mask: int = 48
    mixup: float = 0.8
    cutmix: float = 1.0
    mix_probability: float = 1.0
    switch_probability: float = 0.5
    label_smoothing: float = 0.1
    select: str = "last"
    checkpoints_per_round: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        check_pooling("pooling", self.pooling)
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is 1 or more, got {getattr(self, name)}.")
        for name in ("learning_rate", "layer_decay", "clip_seconds"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise ValueError(f"{name} is above 0, got {getattr(self, name)}.")
        for name in (
            *("weight_decay", "time_mask", "frequency_mask", "mixup", "cutmix", "checkpoints_per_round", "seed"),
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is 0 or more, got {getattr(self, name)}.")
        for name in (
            *("warmup_fraction", "drop_path_rate", "mix_probability", "switch_probability", "label_smoothing"),
        ):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} lies between 0 and 1, got {getattr(self, name)}.")
        if self.select not in ("last", "validation"):
            raise ValueError(f"select is last or validation, got {self.select!r}; nothing is chosen on test clips.")


@dataclass(frozen=True)
class Round:
    """One training and what it is tested on.

    Args:
        name: `fold 3`, or `test` where there are splits, or `all clips`.
        train: Clips to train on.
        validation: Clips to choose an epoch on; may be empty.
        test: Clips to test on, once; empty for a model of all clips.
    """

    name: str
    train: list[int]
    validation: list[int]
    test: list[int]


def rounds_of(cache: FeatureCache, recipe: FinetuningRecipe) -> list[Round]:
    """The rounds of a data set: one per fold, or a single one of train, validation and test.

    Args:
        cache: The data set.
        recipe: Says whether an epoch is chosen on validation clips.

    Returns:
        The rounds, in the order of the folds.

    Raises:
        ValueError: if there is nothing to train or to test on.
    """
    by_part: dict[int | str, list[int]] = defaultdict(list)
    for index in range(len(cache)):
        by_part[cache.parts[index]].append(index)
    if all(isinstance(part, int) for part in by_part):
        if len(by_part) < 2:
            raise ValueError(f"{cache.dataset_name} needs two folds or more, and has {sorted(by_part)}.")
        folds = sorted(by_part)
        return [
            _round(
                f"fold {fold}", [i for f in folds if f != fold for i in by_part[f]], [], by_part[fold], cache, recipe
            )
            for fold in folds
        ]
    missing = [split for split in ("train", "test") if split not in by_part]
    if missing:
        raise ValueError(f"{cache.dataset_name} has no clips in {missing}, only in {sorted(map(str, by_part))}.")
    return [_round("test", by_part["train"], by_part["validation"], by_part["test"], cache, recipe)]


def round_of_all_clips(cache: FeatureCache, recipe: FinetuningRecipe) -> Round:
    """Training on everything, for a model to give to others; the rounds with a test say what to expect of it."""
    return _round("all clips", list(range(len(cache))), [], [], cache, recipe)


def cut_validation(
    indices: Sequence[int], labels: np.ndarray, sources: Sequence[str], share: float, seed: int
) -> tuple[list[int], list[int]]:
    """Divide training clips into those to train on and those to validate on, source by source.

    Args:
        indices: The training clips.
        labels: Class of each clip of the data set, shape `(clips,)`; sources are dealt class by class.
        sources: What each clip of the data set was cut from; a source stays on one side.
        share: Of the sources of each class that validation gets, at least one of a class with two or more.
        seed: Of the choice.

    Returns:
        Training and validation clips, each in rising order.

    Example:
        >>> cut_validation(range(4), np.array([0, 0, 1, 1]), ["a", "b", "c", "d"], share=0.5, seed=0)
        ([1, 3], [0, 2])
    """
    sources_of: dict[int, list[str]] = defaultdict(list)
    for source, label in sorted({sources[i]: int(labels[i]) for i in reversed(indices)}.items()):
        sources_of[label].append(source)
    rng, held_out = np.random.default_rng(seed), set()
    for _, found in sorted(sources_of.items()):
        if len(found) > 1:
            held_out |= set(rng.permutation(found)[: max(1, round(share * len(found)))].tolist())
    train = sorted(i for i in indices if sources[i] not in held_out)
    return train, sorted(i for i in indices if sources[i] in held_out)


def describe_protocol(cache: FeatureCache) -> str:
    """The protocol of a data set in a few words.

    Returns:
        For instance "5 folds, each tested once by a model of the others".
    """
    counts = Counter(cache.parts)
    if all(isinstance(part, int) for part in counts):
        return f"{len(counts)} folds, each tested once by a model trained on the others"
    return f"trained on {counts['train']} clips, tested once on {counts['test']}"


def _round(
    name: str,
    train: list[int],
    validation: list[int],
    test: list[int],
    cache: FeatureCache,
    recipe: FinetuningRecipe,
) -> Round:
    if recipe.select == "validation" and not validation:
        # Several labels have no strata to speak of: their sources are dealt as they come.
        strata = np.zeros(len(cache)) if cache.multi_label else cache.labels.numpy()
        train, validation = cut_validation(train, strata, cache.sources, DRAWN_VALIDATION, recipe.seed)
    return Round(name, train, validation, test)
