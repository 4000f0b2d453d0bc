"""What defines a fine-tuning but the checkpoint and the data."""

import math
from dataclasses import dataclass

from audiopg.modeling.configuration_audiopg import check_pooling
from audiopg.training.runs.names import check_name


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
        pooling: What the classifier reads, where the model has a choice: `mean`, the mean of all tokens; `mel`, that
            of every row of patches along mel; `mel_std`, their standard deviations over time too.
        head: What the classifier starts from: `random`, or `linear`, a linear probe of the encoder as it is, which
            needs a model of ours; with 0 epochs that is all.
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
    head: str = "random"
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
        check_name("name", self.name)
        check_pooling("pooling", self.pooling)
        for name, value in vars(self).items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{name} is a finite number, got {value}.")
        if self.head not in ("random", "linear"):
            raise ValueError(f"head is random or linear, got {self.head!r}.")
        if self.epochs < (self.head == "random"):
            raise ValueError(f"epochs are 1 or more, 0 with head linear, got {self.epochs} with head {self.head}.")
        if self.batch_size < 1:
            raise ValueError(f"batch_size is 1 or more, got {self.batch_size}.")
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
