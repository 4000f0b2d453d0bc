"""One round of fine-tuning on transformers' Trainer: augmentation on the device, soft targets, no look at the test.

Augmentation is a function of (seed, round, step), so a round that was interrupted goes on to the same bits on a CPU.
"""

import hashlib
import math
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from audiopg.modeling.losses_audiopg import classification_loss
from audiopg.training.evaluation.protocols import Round
from audiopg.training.evaluation.scores import score
from audiopg.training.features.batches import Batches
from audiopg.training.finetuning.augmentation import mixup_or_cutmix, soft_targets, spec_augment, time_roll
from audiopg.training.finetuning.classifiers import parameter_groups
from audiopg.training.finetuning.recipe import FinetuningRecipe
from audiopg.training.runs.checkpoints import seal, sound
from audiopg.training.runs.files import writing


def augment(
    input_values: Tensor, labels: Tensor, num_classes: int, recipe: FinetuningRecipe, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A training batch as the recipe has it.

    Args:
        input_values: Standardised, shape `(batch, frames, bands)`.
        labels: Classes `(batch,)`, or zeros and ones `(batch, classes)`.
        num_classes: How many classes.
        recipe: Which augmentations, and how strong.
        generator: Of every draw.

    Returns:
        The values, and targets of shape `(batch, classes)`.
    """
    targets = labels if labels.ndim == 2 else soft_targets(labels, num_classes, recipe.label_smoothing)
    if recipe.time_roll:
        input_values = time_roll(input_values, generator)
    if recipe.time_mask or recipe.frequency_mask:
        input_values = spec_augment(
            input_values, generator, time_mask=recipe.time_mask, frequency_mask=recipe.frequency_mask
        )
    return mixup_or_cutmix(
        input_values,
        targets,
        generator,
        mixup_alpha=recipe.mixup,
        cutmix_alpha=recipe.cutmix,
        probability=recipe.mix_probability,
        switch_probability=recipe.switch_probability,
    )


def fit(
    model: PreTrainedModel,
    batches: Batches,
    one: Round,
    recipe: FinetuningRecipe,
    *,
    device: str,
    folder: Path,
    on_epoch: Callable[[int, float], None],
) -> dict[str, Any]:
    """Train a classifier on the training clips of a round; test clips are not touched.

    Args:
        model: Trained in place; it ends with the weights of the chosen epoch.
        batches: Of the data set.
        one: The round.
        recipe: How to train.
        device: Where.
        folder: For the round's checkpoints; an interrupted round goes on from the newest that is sound, a finished one
            removes it.
        on_epoch: Is told the epoch, from 1 on, and its mean loss.

    Raises:
        FloatingPointError: if a loss or a weight is not finite, with the round and the epoch.
        OSError: if a checkpoint cannot be written; the one before it stays.

    Returns:
        `epoch` (the chosen one), `validation` (score after each epoch, if any is chosen), `losses` (of each epoch),
        `seconds` and `seconds_per_epoch`, of training with what choosing the epoch takes.
    """
    if not recipe.epochs:
        return {"epoch": 0, "validation": [], "losses": [], "seconds": 0.0, "seconds_per_epoch": 0.0}
    watcher = _Watcher(model, batches, one, recipe, device, on_epoch)
    trainer = _Trainer(
        batches,
        recipe,
        one.name,
        model=model,
        args=training_arguments(recipe, folder, device),
        train_dataset=_Clips(one.train),
        data_collator=batches,
        optimizers=(_optimizer(model, recipe, device), None),
        callbacks=[watcher],
    )
    trainer.remove_callback(PrinterCallback)
    started = time.perf_counter()
    trainer.train(resume_from_checkpoint=_newest_sound(folder))
    seconds_per_epoch = (time.perf_counter() - started) / max(1, watcher.epochs_seen)
    if watcher.best_weights is not None:
        model.load_state_dict(watcher.best_weights)
    shutil.rmtree(folder, ignore_errors=True)
    return {
        "epoch": watcher.best_epoch or recipe.epochs,
        "validation": watcher.validation,
        "losses": [round(row["loss"], 5) for row in trainer.state.log_history if "loss" in row],
        "seconds": round(seconds_per_epoch * recipe.epochs, 2),
        "seconds_per_epoch": round(seconds_per_epoch, 4),
    }


@torch.inference_mode()
def predict(model: PreTrainedModel, batches: Batches, clips: Sequence[int], device: str, batch_size: int) -> Tensor:
    """Logits of clips as they are, without augmentation.

    Args:
        model: The classifier; its training mode is left as it was found.
        batches: Of the data set.
        clips: Which clips.
        device: Where to compute.
        batch_size: Clips at a time.

    Returns:
        Float32 on the CPU, shape `(clips, classes)`.

    Raises:
        FloatingPointError: if a logit is not finite.
    """
    was_training = model.training
    model.to(device).eval()  # type: ignore[arg-type]
    logits = []
    for start in range(0, len(clips), batch_size):
        batch = {name: values.to(device) for name, values in batches(clips[start : start + batch_size]).items()}
        inputs = batches.finish(batch)
        del inputs["labels"]
        with torch.autocast(torch.device(device).type, dtype=torch.bfloat16, enabled=_has_bfloat16(device)):
            logits.append(model(**inputs).logits.float().cpu())
    model.train(was_training)
    found = torch.cat(logits)
    if broken := int((~found.isfinite().all(dim=1)).sum()):
        raise FloatingPointError(
            f"The logits of {broken} of {len(clips)} clips are not finite: nothing is published of them. Lower "
            "learning_rate and choose another --output_dir."
        )
    return found


class _Clips(Dataset):
    """Numbers of clips; the collator turns a batch of them into tensors at once."""

    def __init__(self, clips: Sequence[int]) -> None:
        self.clips = clips

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, position: int) -> int:
        return self.clips[position]


class _Trainer(Trainer):
    """Standardises, augments and computes the loss on the device.

    The models' own losses are not asked: transformers' takes soft targets for multi-label ones.
    """

    def __init__(self, batches: Batches, recipe: FinetuningRecipe, round_name: str, **options: Any) -> None:
        super().__init__(**options)
        self.batches, self.recipe, self.round_name = batches, recipe, round_name

    def _save_checkpoint(self, *words: Any, **options: Any) -> None:
        """As transformers does it; what stands there may be torn, and is no reason for it to stay so."""
        folder = Path(self.args.output_dir or ".") / f"checkpoint-{self.state.global_step}"
        with writing(folder):
            shutil.rmtree(folder, ignore_errors=True)
            super()._save_checkpoint(*words, **options)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Loss of a training batch."""
        batch = self.batches.finish(inputs)
        generator = _generator(self.recipe.seed, self.round_name, self.state.global_step)
        config: Any = self.model.config  # type: ignore[union-attr]
        batch["input_values"], targets = augment(
            batch["input_values"], batch.pop("labels"), config.num_labels, self.recipe, generator
        )
        output = model(**batch)
        loss = classification_loss(output.logits, targets, config.problem_type)
        return (loss, output) if return_outputs else loss


class _Watcher(TrainerCallback):
    """Reports epochs, and keeps the weights that are best on the validation clips where a recipe chooses by them."""

    def __init__(
        self,
        model: PreTrainedModel,
        batches: Batches,
        one: Round,
        recipe: FinetuningRecipe,
        device: str,
        on_epoch: Callable[[int, float], None],
    ) -> None:
        self.model, self.batches, self.one, self.recipe, self.device = model, batches, one, recipe, device
        self.on_epoch = on_epoch
        self.epochs_seen = 0
        self.validation: list[float] = []
        self.best_epoch: int | None = None
        self.best_weights: dict[str, Tensor] | None = None

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Trainer logs the mean loss at the end of every epoch."""
        if logs and "loss" in logs:
            self._refuse_what_is_not_finite(round(state.epoch), float(logs["loss"]))
            self.epochs_seen += 1
            if self.recipe.select == "validation":
                self._validate(round(state.epoch))
            self.on_epoch(round(state.epoch), float(logs["loss"]))

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Seal a checkpoint once all its files are there: one that is torn has no seal, or another content."""
        folder = Path(args.output_dir)
        seal(folder / f"checkpoint-{state.global_step}", folder.name)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask for a checkpoint; it is written after the epoch's loss was logged, so that it knows it."""
        # An epoch that is chosen lives in memory, so such a round is not saved on its way.
        saves = self.recipe.checkpoints_per_round if self.recipe.select == "last" else 0
        epoch, epochs = round(state.epoch), self.recipe.epochs
        if epoch < epochs and epoch * (saves + 1) // epochs != (epoch - 1) * (saves + 1) // epochs:
            control.should_save = True

    def _refuse_what_is_not_finite(self, epoch: int, loss: float) -> None:
        """Before the epoch is saved: a checkpoint that cannot be trained any further would be gone on from."""
        broken = [name for name, weights in self.model.state_dict().items() if not weights.isfinite().all()]
        if not math.isfinite(loss) or broken:
            weights = f", and {len(broken)} of its weights are not finite, {broken[0]} among them" if broken else ""
            raise FloatingPointError(
                f"Epoch {epoch} of {self.one.name} has the loss {loss}{weights}: nothing is published of it. Lower "
                "learning_rate and choose another --output_dir."
            )

    def _validate(self, epoch: int) -> None:
        logits = predict(self.model, self.batches, self.one.validation, self.device, self.recipe.batch_size).numpy()
        found = score(logits, self.batches.cache.labels[self.one.validation].numpy())
        if not self.validation or found > max(self.validation):
            self.best_epoch = epoch
            self.best_weights = {name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()}
        self.validation.append(found)


def training_arguments(recipe: FinetuningRecipe, folder: Path, device: str) -> TrainingArguments:
    """The Trainer's arguments for a recipe on one device, in one process.

    Args:
        recipe: How to train.
        folder: For checkpoints.
        device: Where to train.

    Returns:
        The arguments.

    Raises:
        ValueError: if the Trainer would compute somewhere else.
    """
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=recipe.batch_size,
        lr_scheduler_type="cosine",
        warmup_steps=recipe.warmup_fraction,
        bf16=_has_bfloat16(device),
        use_cpu=device == "cpu",
        save_strategy="no",  # the watcher asks for checkpoints
        save_total_limit=2,  # the older one goes before the newer one is sealed
        eval_strategy="no",
        logging_strategy="epoch",
        logging_nan_inf_filter=False,  # else a loss that is not finite is logged as 0
        disable_tqdm=True,
        report_to="none",
        remove_unused_columns=False,
        dataloader_pin_memory=False,  # frames that are already on the device cannot be pinned
        seed=recipe.seed,
        data_seed=recipe.seed,
    )
    wanted, used = torch.device(device), arguments.device
    if wanted.type != used.type or (wanted.index or 0) != (used.index or 0) or arguments.world_size > 1:
        raise ValueError(
            f"Fine-tuning runs in one process on its first device, {used}, and was asked for {device} in "
            f"{arguments.world_size} processes. Start it with python, and choose a GPU by CUDA_VISIBLE_DEVICES=1."
        )
    if arguments.n_gpu > 1:  # Trainer would wrap the model in DataParallel, and take as many batches a step
        arguments._n_gpu = 1
    return arguments


def _newest_sound(folder: Path) -> str | None:
    """The checkpoint to go on from, if any; those that cannot be trusted are named in the log."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    return next((str(path) for path, _ in sound(found, folder.name)), None)


def _optimizer(model: PreTrainedModel, recipe: FinetuningRecipe, device: str) -> torch.optim.AdamW:
    groups = parameter_groups(
        model.to(device),  # type: ignore[arg-type]
        learning_rate=recipe.learning_rate,
        layer_decay=recipe.layer_decay,
        weight_decay=recipe.weight_decay,
    )
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, fused=True)


def _generator(seed: int, round_name: str, step: int) -> torch.Generator:
    """Of the augmentation of one step."""
    digest = hashlib.sha256(f"{seed}/{round_name}/{step}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7]))


def _has_bfloat16(device: str) -> bool:
    return device.startswith("cuda") and torch.cuda.is_bf16_supported()
