"""What the training loop must be told, whatever is learnt: how long, in which steps, and what is kept."""

import math
from dataclasses import dataclass, field

from audiopg.training.runs.names import check_name

PRECISIONS = ("auto", "no", "bf16")
SCHEDULES = ("constant", "cosine", "steps")
OPTIMIZERS = ("adamw", "sgd")


@dataclass(frozen=True, kw_only=True)
class RunRecipe:
    """How a run trains. Two runs of one recipe see the same examples in the same order.

    Args:
        name: Names the run's folder and the model.
        description: One sentence: what it reproduces or is for.
        num_clips: How many examples are seen, each once; rounded up to whole batches. Of recordings, each is seen once
            per pass over the folder.
        seed: Seed of the examples, the masks and the initial weights.
        batch_size: Examples per step over all processes.
        micro_batch_size: Examples that one process takes at a time, the gradient being accumulated; None takes its
            whole share. It changes memory and speed alone.
        max_minutes: The run ends after this wall-clock time if it has not seen `num_clips` by then.
        optimizer: `adamw`, or `sgd` without momentum.
        learning_rate: Peak of the schedule.
        schedule: `constant`, `cosine` (to zero) or `steps` (a tenth after 77.5, 85 and 92.5 % of the run each), after
            the warm-up.
        warmup_fraction: Share of the steps in which the learning rate rises from zero.
        weight_decay: Of the optimizer, on matrices alone.
        betas: AdamW's.
        max_grad_norm: Gradients are clipped to this norm.
        precision: `no` trains in float32, `bf16` multiplies matrices in bfloat16. `auto` follows accelerate's own
            configuration where the run was launched with one, or else takes bf16 on a GPU that has it.
        log_every: Steps from one logged loss to the next.
        checkpoint_every: Steps from one checkpoint to the next.
        keep_checkpoints: How many of the newest checkpoints stay.
        milestones: Steps with a checkpoint that stays for ever, to study how the weights came about.
        compile: Whether to compile the model, whose shapes never change: minutes at the start, less time per step.

    Raises:
        ValueError: for what cannot be run, by the name of the field.

    Example:
        >>> RunRecipe(name="x", description="An example.", num_clips=100, batch_size=64).num_steps
        2
    """

    name: str
    description: str
    num_clips: int
    seed: int = 0
    batch_size: int = 64
    micro_batch_size: int | None = None
    max_minutes: float | None = None
    optimizer: str = "adamw"
    learning_rate: float = 1e-4
    schedule: str = "constant"
    warmup_fraction: float = 0.0
    weight_decay: float = 0.05
    betas: list[float] = field(default_factory=lambda: [0.9, 0.95])
    max_grad_norm: float = 1.0
    precision: str = "auto"
    log_every: int = 10
    checkpoint_every: int = 500
    keep_checkpoints: int = 2
    milestones: list[int] = field(default_factory=list)
    compile: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        check_name("name", self.name)
        self._check_counts(
            "num_clips", "batch_size", "micro_batch_size", "log_every", "checkpoint_every", "keep_checkpoints"
        )
        if self.micro_batch_size is not None and self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"micro_batch_size divides batch_size, {self.batch_size}, got {self.micro_batch_size}; parts of a "
                "step must be equal for their mean to be that of the step."
            )
        if any(step < 1 for step in self.milestones):
            raise ValueError(f"milestones are steps, 1 or more, got {self.milestones}.")
        for name in ("learning_rate", "max_grad_norm", "max_minutes"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise ValueError(f"{name} is above 0, got {getattr(self, name)}.")
        for name, choices in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES), ("precision", PRECISIONS)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is one of {', '.join(choices)}, got {getattr(self, name)!r}.")
        if not 0 <= self.warmup_fraction < 1:
            raise ValueError(f"warmup_fraction is at least 0 and below 1, got {self.warmup_fraction}.")
        if not self.weight_decay >= 0:
            raise ValueError(f"weight_decay is 0 or more, got {self.weight_decay}.")
        for name in ("learning_rate", "weight_decay"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name} is a finite number, got {getattr(self, name)}.")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas are two numbers at least 0 and below 1, got {self.betas}.")

    def _check_counts(self, *names: str) -> None:
        for name in names:
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} is 1 or more, got {getattr(self, name)}.")

    @property
    def made_with(self) -> dict[str, str]:
        """Versions of what makes the examples, by name: with others a run would go on, on other examples."""
        return {}

    @property
    def num_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return -(-self.num_clips // self.batch_size)
