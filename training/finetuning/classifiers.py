"""Classifiers to fine-tune, any `AutoModelForAudioClassification`: from a checkpoint or from scratch; their rates."""

import logging
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoModelForAudioClassification,
    PreTrainedModel,
)
from transformers.utils import logging as logging_of_transformers

import audiopg  # noqa: F401 - registers our classes
from audiopg.modeling.configuration_audiopg import check_pooling
from audiopg.training.runs.files import reading

logger = logging.getLogger(__name__)

_BLOCK = re.compile(r"\.(?:layers?|blocks?)\.(\d+)\.")


def build_classifier(
    checkpoint: str | Path,
    class_names: Sequence[str],
    *,
    multi_label: bool,
    drop_path_rate: float,
    pooling: str,
    seed: int,
    from_scratch: bool = False,
) -> PreTrainedModel:
    """A classifier of the given classes on the encoder of a checkpoint.

    Args:
        checkpoint: A folder or a name on the Hub, saved with any head.
        class_names: In the order of the labels.
        multi_label: Whether a clip may have several.
        drop_path_rate: Stochastic depth, where the model has it.
        pooling: What the classifier reads, where the model has a choice: see `AudioPGConfig.classifier_pooling`.
        seed: Of all weights that are not loaded.
        from_scratch: Take the checkpoint's configuration and none of its weights.

    Returns:
        The model, in float32 on the CPU; the global random state is left alone.

    Raises:
        ValueError: if weights of the encoder are missing from the checkpoint: the model would be half random; or if
            there is no classifier on such an encoder, or it cannot pool so.
    """
    check_pooling("pooling", pooling)
    with reading(checkpoint):
        config = AutoConfig.from_pretrained(checkpoint)
    if type(config) not in MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING:
        raise ValueError(
            f"There is no classifier on encoders of type {config.model_type}, and {checkpoint} holds one; read its "
            "frozen embeddings by training/probe.py."
        )
    config.id2label = dict(enumerate(class_names))
    config.label2id = {name: index for index, name in enumerate(class_names)}
    config.problem_type = "multi_label_classification" if multi_label else "single_label_classification"
    if hasattr(config, "drop_path_rate"):
        config.drop_path_rate = drop_path_rate
    elif drop_path_rate:
        logger.warning("%s has no stochastic depth: drop_path_rate is not used.", type(config).__name__)
    if hasattr(config, "classifier_pooling"):
        config.classifier_pooling = pooling
    elif pooling != "mean":
        raise ValueError(f"pooling is mean for {type(config).__name__}, which pools in its own way; got {pooling!r}.")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if from_scratch:
            return AutoModelForAudioClassification.from_config(config).float()
        with reading(checkpoint), _quiet_loading():
            model, loading = AutoModelForAudioClassification.from_pretrained(
                checkpoint, config=config, ignore_mismatched_sizes=True, output_loading_info=True, dtype=torch.float32
            )
    encoder = f"{model.base_model_prefix}."
    missing = [name for name in loading["missing_keys"] if name.startswith(encoder)]
    missing += [str(key) for key in loading["mismatched_keys"] if str(key[0]).startswith(encoder)]
    if missing:
        raise ValueError(
            f"A checkpoint to fine-tune holds its whole encoder, and {checkpoint} lacks {len(missing)} of its "
            f"weights, {missing[0]} among them. Give the folder that training/export.py wrote."
        )
    return model


def parameter_groups(
    model: nn.Module, *, learning_rate: float, layer_decay: float, weight_decay: float
) -> list[dict[str, Any]]:
    r"""Parameters by learning rate and weight decay, for AdamW.

    Block $l$ of $L$ learns at $\eta \, d^{L - l}$ with $l = 0$ for the embeddings and $l = L$ for the classifier and
    the last norm (Clark et al. 2020; Bao et al. 2022). Vectors (biases, norms, tokens) and positions do not decay.

    Args:
        model: Its blocks are called `layer.0`, `layers.0` or `blocks.0` and so on.
        learning_rate: $\eta$.
        layer_decay: $d$.
        weight_decay: Of matrices.

    Returns:
        Groups with `params`, `lr` and `weight_decay`, together all parameters that need a gradient.

    Raises:
        ValueError: if rates are to decay and no blocks are found.

    Example:
        >>> model = nn.ModuleDict({"layers": nn.ModuleList([nn.Linear(2, 2)]), "classifier": nn.Linear(2, 2)})
        >>> model = nn.ModuleDict({"encoder": model})
        >>> groups = parameter_groups(model, learning_rate=1.0, layer_decay=0.5, weight_decay=0.1)
        >>> [(group["lr"], group["weight_decay"]) for group in groups]
        [(0.5, 0.1), (0.5, 0.0), (1.0, 0.1), (1.0, 0.0)]
    """
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    blocks = [int(match[1]) for name, _ in named if (match := _BLOCK.search(name))]
    if not blocks and layer_decay != 1:
        raise ValueError(
            f"Rates that fall from block to block need blocks, and {type(model).__name__} has no parameters called "
            "layers.0 and so on. Set layer_decay to 1."
        )
    top = max(blocks, default=-1) + 2
    groups: dict[tuple[int, bool], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in named:
        groups[_depth(name, top), _decays(name, parameter)].append(parameter)
    return [
        {
            "params": parameters,
            "lr": learning_rate * layer_decay ** (top - depth),
            "weight_decay": weight_decay if decays else 0.0,
        }
        for (depth, decays), parameters in groups.items()
    ]


@contextmanager
def _quiet_loading() -> Iterator[None]:
    """Without transformers' table of the decoder's and the old classifier's weights, which are left out on purpose."""
    verbosity, has_bar = logging_of_transformers.get_verbosity(), logging_of_transformers.is_progress_bar_enabled()
    logging_of_transformers.set_verbosity_error()
    logging_of_transformers.disable_progress_bar()
    try:
        yield
    finally:
        logging_of_transformers.set_verbosity(verbosity)
        if has_bar:
            logging_of_transformers.enable_progress_bar()


def _depth(name: str, top: int) -> int:
    """0 for embeddings, 1 for the first block, `top` for what stands above the blocks."""
    block = _BLOCK.search(name)
    if block:
        return int(block[1]) + 1
    return 0 if "embeddings" in name else top


def _decays(name: str, parameter: nn.Parameter) -> bool:
    """Matrices decay; biases, norms and single tokens, whatever their leading ones, do not, and no positions."""
    return sum(size > 1 for size in parameter.shape) > 1 and "position" not in name
