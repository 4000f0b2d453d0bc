"""What a classifier is trained, validated and tested on: the rounds of a data set, by its folds or its splits.

A round's test clips are read once, after its training has ended. Which epoch is tested is either fixed (the last) or
chosen on validation clips, which come from the training folds and share no source with what is trained on.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from audiopg.training.features.cache import FeatureCache

DRAWN_VALIDATION = 0.1
"""Share of the training clips that validation gets where a data set has no validation split."""

_INNER_VALIDATION = 0.2


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


def rounds_of(
    cache: FeatureCache, *, select_on_validation: bool = False, seed: int = 0, spare_test: bool = False
) -> list[Round]:
    """The rounds of a data set: one per fold, or a single one of train, validation and test.

    Args:
        cache: The data set.
        select_on_validation: Whether something is chosen on validation clips: where a data set has none, they are cut
            from the training clips.
        seed: Of the cut.
        spare_test: Whether validation clips are tested on instead, where there are official splits: for choosing a
            model, so that the test clips can confirm the choice. Of folds, spare some where the rounds are counted.

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
        rounds = [
            Round(f"fold {fold}", [i for f in folds if f != fold for i in by_part[f]], [], by_part[fold])
            for fold in folds
        ]
    else:
        missing = [split for split in ("train", "test") if split not in by_part]
        if missing:
            raise ValueError(f"{cache.dataset_name} has no clips in {missing}, only in {sorted(map(str, by_part))}.")
        if spare_test and not by_part["validation"]:
            raise ValueError(f"{cache.dataset_name} has no validation clips to choose on; give it a split of them.")
        if spare_test:
            rounds = [Round("validation", by_part["train"], [], by_part["validation"])]
        else:
            rounds = [Round("test", by_part["train"], by_part["validation"], by_part["test"])]
    return [_validated(one, cache, seed) for one in rounds] if select_on_validation else rounds


def round_of_all_clips(cache: FeatureCache, *, select_on_validation: bool = False, seed: int = 0) -> Round:
    """Training on everything, for a model to give to others; the rounds with a test say what to expect of it."""
    everything = Round("all clips", list(range(len(cache))), [], [])
    return _validated(everything, cache, seed) if select_on_validation else everything


def inner_rounds(cache: FeatureCache, one: Round) -> list[tuple[list[int], list[int]]]:
    """What a setting is chosen on, among the clips of a round that are not tested on.

    Args:
        cache: The data set.
        one: The round.

    Returns:
        Clips to train on and clips to choose by. By folds, each training fold is chosen by in turn, that which follows
        the test fold first. Otherwise there is one pair: the validation clips are chosen by, if need be a fifth of the
        training clips, with sources kept together.
    """
    known = [*one.train, *one.validation]
    parts = {cache.parts[clip] for clip in known}
    if all(isinstance(part, int) for part in parts) and len(parts) > 1:
        tested: Any = max((cache.parts[clip] for clip in one.test), default=max(parts))
        following = sorted(parts, key=lambda part: (part <= tested, part))
        return [
            (
                [clip for clip in known if cache.parts[clip] != part],
                [clip for clip in known if cache.parts[clip] == part],
            )
            for part in following
        ]
    if one.validation:
        return [(one.train, one.validation)]
    return [cut_validation(one.train, _strata(cache), cache.sources, _INNER_VALIDATION, seed=0)]


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


def describe_protocol(cache: FeatureCache, *, spare_test: bool = False) -> str:
    """The protocol of a data set in a few words; `spare_test` as in `rounds_of`.

    Returns:
        For instance "5 folds, each tested once by a model of the others", and the data set's notes: whoever reads a
        score must see that folds were drawn.
    """
    counts = Counter(cache.parts)
    if all(isinstance(part, int) for part in counts):
        protocol = f"{len(counts)} folds, each tested once by a model trained on the others"
    elif spare_test:
        protocol = (
            f"trained on {counts['train']} clips, {counts['validation']} validation clips read, none of the test"
        )
    else:
        protocol = f"trained on {counts['train']} clips, tested once on {counts['test']}"
    return "; ".join([protocol, *([cache.notes] if cache.notes else [])])


def _strata(cache: FeatureCache) -> np.ndarray:
    """By what sources are dealt: several labels have no strata to speak of, and are dealt as they come."""
    return np.zeros(len(cache)) if cache.multi_label else cache.labels.numpy()


def _validated(one: Round, cache: FeatureCache, seed: int) -> Round:
    """A round that has validation clips."""
    if one.validation:
        return one
    train, validation = cut_validation(one.train, _strata(cache), cache.sources, DRAWN_VALIDATION, seed)
    return Round(one.name, train, validation, one.test)
