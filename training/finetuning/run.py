"""The rounds of one checkpoint on one data set, kept in a folder: trained, tested, compared with controls."""

import hashlib
import json
import logging
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import AutoFeatureExtractor, PreTrainedModel

from audiopg.training.evaluation.probes import probe_features
from audiopg.training.evaluation.protocols import Round, describe_protocol, round_of_all_clips, rounds_of
from audiopg.training.evaluation.results import LOG_MEL, PRETRAINED, SCRATCH, row_of
from audiopg.training.evaluation.scores import score
from audiopg.training.features.batches import Batches
from audiopg.training.features.cache import FeatureCache
from audiopg.training.features.embeddings import embed, log_mel_statistics
from audiopg.training.finetuning.classifiers import build_classifier
from audiopg.training.finetuning.fitting import fit, predict, training_arguments
from audiopg.training.finetuning.heads import check_head, fit_head
from audiopg.training.finetuning.recipe import FinetuningRecipe
from audiopg.training.runs.checkpoints import MANIFEST, seal, verify
from audiopg.training.runs.files import read_json, reading, sha256_of, sweep, write_atomically, written_aside
from audiopg.training.runs.folder import held, refuse_foreign
from audiopg.training.runs.names import public_name
from audiopg.training.runs.provenance import environment

logger = logging.getLogger(__name__)

_SHARE_FOR_FRAMES = 0.25
_OWN = {"run.json", "rounds", "model", "linear.json", "results.json", "confusion.png", "confused.png"}

CONTROLS = ("scratch", "linear")
"""`scratch` trains the same model without the checkpoint's weights; `linear` fits linear classifiers to features."""


class Progress:
    """Says where a run is and how long it will still take.

    Args:
        total_epochs: Of all rounds and conditions.
        write: Receives a line.
    """

    def __init__(self, total_epochs: int, write: Callable[[str], Any]) -> None:
        self.left, self.write = total_epochs, write
        self._started, self._epochs_seen = time.perf_counter(), 0

    def round_done(self, epochs: int) -> None:
        """A round has ended, in this call or a former one."""
        self.left -= epochs

    def epoch(self, what: str, epoch: int, epochs: int, loss: float) -> None:
        """An epoch of the round under way has ended; every tenth part of a round is worth a line."""
        self._epochs_seen += 1
        if epoch == 1 or epoch * 10 // epochs != (epoch - 1) * 10 // epochs:
            seconds = (time.perf_counter() - self._started) / self._epochs_seen
            self.write(
                f"{what}: epoch {epoch}/{epochs}, loss {loss:.3f}, {seconds:.1f} s/epoch, "
                f"{seconds * (self.left - epoch) / 60:.1f} min left in all\n"
            )


class FinetuningRun:
    """All rounds of one checkpoint on one data set, kept in a folder.

    Args:
        checkpoint: A folder or a name on the Hub.
        cache: The data set's features.
        recipe: How to train.
        folder: The run's; created if missing.
        device: Where to train.
        write: Receives lines of progress; by default they go to standard error.

    Raises:
        ValueError: if the folder holds a run of something else, the features are of another front end or length, or
            the device is not the one that would be used.
    """

    def __init__(
        self,
        checkpoint: str,
        cache: FeatureCache,
        recipe: FinetuningRecipe,
        folder: Path,
        device: str = "cpu",
        write: Callable[[str], Any] | None = None,
    ) -> None:
        self.checkpoint, self.cache, self.recipe, self.folder = checkpoint, cache, recipe, folder
        self.device, self.write = device, write or sys.stderr.write
        with reading(checkpoint):
            self.feature_extractor = AutoFeatureExtractor.from_pretrained(checkpoint)
        on_device = cache.to(device) if _fits(cache, device) else cache
        self.batches = Batches(on_device, self.feature_extractor)
        if cache.clip_seconds != recipe.clip_seconds:
            raise ValueError(
                f"The recipe has clip_seconds {recipe.clip_seconds}, and features of {cache.dataset_name} were made "
                f"with {cache.clip_seconds}. Set the recipe's --clip_seconds, or make the features with it."
            )
        training_arguments(recipe, folder, device)  # for its complaints, before anything is trained
        self.choice: dict[str, Any] = {"select_on_validation": recipe.select == "validation", "seed": recipe.seed}
        self.rounds = rounds_of(cache, **self.choice)
        self.facts = {
            "checkpoint": public_name(checkpoint),
            "weights": _weights_digest(checkpoint),
            "features": cache.digest,
            "recipe": asdict(recipe),
        }
        self._build(PRETRAINED)  # as above
        self._claim()

    def run(self, controls: Sequence[str] = CONTROLS, *, final_model: bool = True) -> dict[str, Any]:
        """Train and test what is not yet done, and summarise.

        Args:
            controls: Which of `CONTROLS` to compare with.
            final_model: Whether to train one more model, on all clips, to be given to others.

        Returns:
            The results, as written to `results.json`.

        Raises:
            ValueError: if another command is at work in the folder.
            FloatingPointError: if a loss, a weight or a logit is not finite; results are not written then.
            OSError: if something cannot be written; the same call goes on.
        """
        with held(self.folder):
            return self._run(controls, final_model)

    def _run(self, controls: Sequence[str], final_model: bool) -> dict[str, Any]:
        for folder in (self.folder, self.folder / "rounds"):
            sweep(folder)
        conditions = [PRETRAINED, *([SCRATCH] if "scratch" in controls else [])]
        trainings = [(condition, one) for one in self.rounds for condition in conditions]
        everything = [round_of_all_clips(self.cache, **self.choice)] if final_model else []
        total = (len(trainings) + len(everything)) * self.recipe.epochs
        progress = Progress(total, self.write)
        for condition, one in trainings:
            self._train_and_test(condition, one, progress)
        for one in everything:
            self._train_final(one, progress)
        results = self._summarise(conditions, "linear" in controls)
        write_atomically(self.folder / "results.json", json.dumps(results, indent=2) + "\n")
        return results

    def logits(self, condition: str) -> tuple[np.ndarray, np.ndarray]:
        """What the models of a condition said of the clips that they were tested on.

        Returns:
            Clips, shape `(tested,)`, and logits, shape `(tested, classes)`.
        """
        kept = [load_file(self._path(condition, one, ".safetensors")) for one in self.rounds]
        return (
            torch.cat([tensors["clips"] for tensors in kept]).numpy(),
            torch.cat([tensors["logits"] for tensors in kept]).numpy(),
        )

    def _claim(self) -> None:
        path = self.folder / "run.json"
        if not path.exists():
            refuse_foreign(self.folder, _OWN, "a fine-tuning")
        else:
            found = read_json(path, "It says whose rounds these are: restore it, or choose another --output_dir.")
            if found != self.facts:
                raise ValueError(
                    f"{self.folder} holds another run: {_difference(found, self.facts)}. Choose another --output_dir."
                )
        (self.folder / "rounds").mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(self.facts, indent=2) + "\n")

    def _path(self, condition: str, one: Round, suffix: str) -> Path:
        return self.folder / "rounds" / (f"{condition} {one.name}".replace(",", "").replace(" ", "_") + suffix)

    def _build(self, condition: str) -> PreTrainedModel:
        model = build_classifier(
            self.checkpoint,
            self.cache.class_names,
            multi_label=self.cache.multi_label,
            drop_path_rate=self.recipe.drop_path_rate,
            pooling=self.recipe.pooling,
            seed=self.recipe.seed,
            from_scratch=condition == SCRATCH,
        )
        if self.recipe.head == "linear":
            check_head(model, self.cache)
        return model

    def _fit(self, condition: str, one: Round, progress: Progress) -> tuple[PreTrainedModel, dict[str, Any]]:
        what = f"{condition}, {one.name}"
        model = self._build(condition)
        started = time.perf_counter()
        if self.recipe.head == "linear":
            fit_head(model, self.batches, one, self.device)
        seconds_of_head = time.perf_counter() - started
        facts = fit(
            model,
            self.batches,
            one,
            self.recipe,
            device=self.device,
            folder=self._path(condition, one, ""),
            on_epoch=lambda epoch, loss: progress.epoch(what, epoch, self.recipe.epochs, loss),
        )
        progress.round_done(self.recipe.epochs)
        return model, {**facts, "seconds": round(facts["seconds"] + seconds_of_head, 2)}

    def _train_and_test(self, condition: str, one: Round, progress: Progress) -> None:
        path = self._path(condition, one, ".json")
        if self._is_done(condition, one):
            progress.round_done(self.recipe.epochs)
            return
        model, facts = self._fit(condition, one, progress)
        logits = predict(model, self.batches, one.test, self.device, self.recipe.batch_size)
        facts["score"] = score(logits.numpy(), self.cache.labels[one.test].numpy())
        beside = self._path(condition, one, ".safetensors")
        with written_aside(beside) as partial:
            save_file({"clips": torch.tensor(one.test), "logits": logits}, partial)
        facts["logits"] = sha256_of(beside)
        write_atomically(path, json.dumps(facts, indent=2) + "\n")  # last: it says that the round is done
        self.write(
            f"{condition}, {one.name}: {100 * facts['score']:.2f} % after {facts['seconds']:.0f} s "
            f"({facts['seconds_per_epoch']:.2f} s/epoch)\n"
        )

    def _is_done(self, condition: str, one: Round) -> bool:
        """Whether a round was tested, and says still what was written; one that is damaged is trained again."""
        path, beside = (self._path(condition, one, suffix) for suffix in (".json", ".safetensors"))
        if not path.exists():
            return False
        try:
            facts, logits = read_json(path, ""), load_file(beside)["logits"].numpy()
            if facts.get("logits", sha256_of(beside)) != sha256_of(beside):  # rounds from before have no digest
                raise ValueError(f"{beside} has changed since it was written.")
            if not math.isclose(facts["score"], score(logits, self.cache.labels[one.test].numpy()), abs_tol=1e-9):
                raise ValueError(f"{path} does not have the score of {beside.name}.")
            missing = {"epoch", "seconds", "seconds_per_epoch"} - set(facts)
            if missing:
                raise ValueError(f"{path} lacks {', '.join(sorted(missing))}.")
        except (ValueError, KeyError, TypeError, OSError, SafetensorError) as error:
            logger.warning("%s, %s, is damaged and is trained again: %s", condition, one.name, error)
            return False
        return True

    def _train_final(self, one: Round, progress: Progress) -> None:
        path = self.folder / "model"
        if path.exists() and self._is_whole(path):
            progress.round_done(self.recipe.epochs)
            return
        model, _ = self._fit(PRETRAINED, one, progress)
        size = self.recipe.batch_size
        predict(model, self.batches, one.train[:size], self.device, size)  # refuses what is not finite
        with written_aside(path) as partial:
            model.save_pretrained(partial)
            self.feature_extractor.save_pretrained(partial)
            seal(partial, self._seal_name)

    @property
    def _seal_name(self) -> str:
        """Whose the final model is."""
        return f"{self.facts['weights']} {self.facts['features']}"

    def _is_whole(self, model: Path) -> bool:
        """Whether the final model is what was written; models from before seals are taken as they are."""
        if not (model / MANIFEST).exists():
            return True
        try:
            verify(model, self._seal_name)
        except ValueError as error:
            logger.warning("The model of all clips is trained again: %s", error)
            return False
        return True

    def _linear_controls(self) -> dict[str, list[float]]:
        """Scores of linear probes of what the classifier reads: of this encoder, of an untrained one, of neither."""
        clips = range(len(self.cache))

        def embedded(condition: str) -> np.ndarray:
            encoder: Any = self._build(condition).base_model
            inputs = encoder, self.feature_extractor, self.batches.spectrograms(clips)
            return embed(*inputs, pooling=self.recipe.pooling, device=self.device)[None]

        features = {
            f"{LOG_MEL}, linear": log_mel_statistics(self.cache.clip_frames(clip) for clip in clips),
            "random encoder, frozen, linear": embedded(SCRATCH),
            "pre-trained encoder, frozen, linear": embedded(PRETRAINED),
        }
        return {
            name: probe_features("linear", values, self.cache, self.rounds)["scores"]
            for name, values in features.items()
        }

    def _kept_linear_controls(self) -> dict[str, list[float]]:
        path = self.folder / "linear.json"
        try:
            return {name: [float(one) for one in found] for name, found in read_json(path, "").items()}
        except FileNotFoundError:
            pass
        except (ValueError, TypeError, AttributeError) as error:
            logger.warning("The linear controls are measured again: %s", error)
        found = self._linear_controls()
        write_atomically(path, json.dumps(found))
        return found

    def _round_facts(self, condition: str) -> list[dict[str, Any]]:
        return [read_json(self._path(condition, one, ".json"), "Give the command again.") for one in self.rounds]

    def _summarise(self, conditions: Sequence[str], linear: bool) -> dict[str, Any]:
        from audiopg.training.evaluation.confusions import confusions

        rows = {}
        for condition in conditions:
            facts = self._round_facts(condition)
            rows[condition] = {
                **row_of([fact["score"] for fact in facts]),
                "epochs": [fact["epoch"] for fact in facts],
                "seconds_per_round": round(float(np.mean([fact["seconds"] for fact in facts])), 1),
                "seconds_per_epoch": round(float(np.mean([fact["seconds_per_epoch"] for fact in facts])), 3),
            }
        if linear:
            rows.update({name: row_of(found) for name, found in self._kept_linear_controls().items()})
        counts = {"clips": len(self.cache), "classes": len(self.cache.class_names), "rounds": len(self.rounds)}
        clips, logits = self.logits(PRETRAINED)
        return {
            **self.facts,
            "dataset": self.cache.dataset_name,
            "protocol": describe_protocol(self.cache),
            "metric": self.cache.metric,
            **counts,
            "results": rows,
            "confusions": confusions(logits, self.cache.labels[clips].numpy(), clips, self.cache),
            **environment(),
        }


def _fits(cache: FeatureCache, device: str) -> bool:
    """Whether an accelerator has room for all frames beside the training."""
    if not device.startswith("cuda"):
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return cache.frames.nbytes < free * _SHARE_FOR_FRAMES


def _weights_digest(checkpoint: str) -> str | None:
    """Tells one content of a local checkpoint from another; a name on the Hub stands for itself."""
    files = sorted(Path(checkpoint).glob("*.safetensors")) if Path(checkpoint).is_dir() else []
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()[:16] if files else None


def _difference(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    def flat(facts: Any) -> dict[str, Any]:
        if not isinstance(facts, dict) or not isinstance(facts.get("recipe"), dict):  # of a pre-training, or damaged
            return {}
        return {**{name: value for name, value in facts.items() if name != "recipe"}, **facts["recipe"]}

    old, new = flat(found), flat(wanted)
    return ", ".join(f"{name} {old.get(name)!r}, not {new[name]!r}" for name in new if old.get(name) != new[name])
