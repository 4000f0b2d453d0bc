"""Folders that the Hub takes as they are, and the way there."""

import json
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi, ModelCard, get_token
from huggingface_hub.errors import HfHubHTTPError, HTTPError  # the latter is of its HTTP library, which changes
from torch import Tensor
from transformers import PreTrainedModel

from audiopg.modeling.modeling_audiopg import AudioPGPreTrainedModel
from audiopg.modeling.modeling_doppelganger import DoppelgangerModel
from audiopg.training.runs.files import PARTIAL, written_aside

MODULES = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
"""Of `SentenceTransformer(folder)`: the model alone. Its own pooling would take class token and padding as well."""

DTYPES = ("float32", "bfloat16", "float16")
"""What weights may be stored in."""

AUTO = "auto"
"""Stands for the one of them that probes choose: see `precision.choose_dtype`."""

BELONGS = (
    *("*.json", "*.safetensors", "*.py", "*.png", "README.md", ".gitattributes", ".eval_results/*.yaml"),
    *("data/*.parquet", "onnx/*.onnx", "onnx/*.pt2"),
)
"""Names of what goes to the Hub, from a folder on; nothing else in the folder does."""

_LEFT_BEHIND = (f"*{PARTIAL}*", ".tmp*", ".lock", ".cache/*")
"""What killed processes, locks and the Hub's own client leave in a folder."""


def is_ours(model: PreTrainedModel) -> bool:
    """Whether a model is one of ours, whose code travels with it; others are part of transformers."""
    return isinstance(model, AudioPGPreTrainedModel | DoppelgangerModel)


def stored_weights(model: PreTrainedModel, dtype: str) -> dict[str, Tensor]:
    """The weights of a model as a file of half the size, or of the same, has them.

    Args:
        model: Any.
        dtype: One of `DTYPES`; whole numbers stay what they are.

    Returns:
        Weights by name.

    Raises:
        ValueError: if there is no such type, or a weight lies beyond its range, where it would become infinite.

    Example:
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> model.weight.data[:] = 1 + 2**-12
        >>> stored_weights(model, "float16")["weight"].item()
        1.0
    """
    if dtype not in DTYPES:
        raise ValueError(f"Weights are stored in {', '.join(DTYPES)}; got {dtype!r}.")
    kind = getattr(torch, dtype)
    state = model.state_dict()
    stored = {name: value.to(kind) if value.is_floating_point() else value for name, value in state.items()}
    beyond = [name for name, value in stored.items() if not value.isfinite().all()]
    if beyond:
        raise ValueError(
            f"Weights are stored as finite numbers, and in {dtype} {beyond[0]} is not: it has values up to "
            f"{state[beyond[0]].abs().max():.3g}. Store them in bfloat16 or float32."
        )
    return stored


def write_hub_folder(
    model: PreTrainedModel,
    feature_extractor: Any,
    folder: Path,
    card: ModelCard | None = None,
    beside: Mapping[str, bytes] | None = None,
    dtype: str | None = None,
) -> None:
    """Save a model with everything that loading it elsewhere needs, whatever its head.

    The folder is written to the side and takes the place of an older one at once: it never holds files of both.

    Args:
        model: One of ours, or one of transformers.
        feature_extractor: The one it was trained with.
        folder: Created if missing; one that is there is replaced, if it holds a model.
        card: Written as README.md.
        beside: What else goes into it, by name.
        dtype: What the weights are stored in, by default as they are. Whoever loads the folder computes as the model
            does here: `config.json` says so, whatever the file holds, and transformers follows it.

    Raises:
        ValueError: if there is a folder with something else in it, which would be lost; as `stored_weights`.
        OSError: if it cannot be written; an older one is then as it was.
    """
    folder = folder.resolve()
    _refuse_to_lose(folder)
    contents = {**(beside or {})}
    if is_ours(model):
        contents |= {
            name: (json.dumps(found, indent=2) + "\n").encode()
            for name, found in _sentence_transformers(model).items()
        }
    folder.parent.mkdir(parents=True, exist_ok=True)
    stored = None if dtype is None else stored_weights(model, dtype)
    with written_aside(folder) as partial:
        model.save_pretrained(partial, state_dict=stored)
        feature_extractor.save_pretrained(partial)
        for name, content in contents.items():
            (partial / name).parent.mkdir(exist_ok=True)
            (partial / name).write_bytes(content)
        if card is not None:
            card.save(partial / "README.md")


def _sentence_transformers(model: PreTrainedModel) -> dict[str, Any]:
    """What `SentenceTransformer(folder)` reads, by file: how to get what `embed` gives."""
    # Of a `DoppelgangerModel` the mean of windows is both.
    output: str | None
    method, output = "forward", "pooler_output"
    if isinstance(model, AudioPGPreTrainedModel):
        method, output = "embed_spectrograms", None
    config = {
        "transformer_task": "feature-extraction",
        "modality_config": {"audio": {"method": method, "method_output_name": output}},
        "module_output_name": "sentence_embedding",
    }
    return {"modules.json": MODULES, "sentence_bert_config.json": config}


def _refuse_to_lose(folder: Path) -> None:
    """Make sure that a folder that is to be replaced is one that an export has written, or empty."""
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()]
    files = [name for name in files if not any(fnmatch(name, pattern) for pattern in _LEFT_BEHIND)]
    foreign = [name for name in files if not any(fnmatch(name, pattern) for pattern in BELONGS)]
    if foreign or (files and "config.json" not in files) or (folder.exists() and not folder.is_dir()):
        found = (foreign or files or ["a file"])[0]
        raise ValueError(
            f"{folder} would be replaced, and holds {found}, which no export wrote: it would be lost. Choose another "
            "folder, or remove this one."
        )


def kind_of(folder: Path) -> str:
    """Whether a folder is that of a `model` or of a `dataset`, by what lies in it.

    Raises:
        ValueError: if it is neither.

    Example:
        >>> kind_of(getfixture("tmp_path"))
        Traceback (most recent call last):
        ...
        ValueError: ... holds neither a model, config.json, nor a data set, data/*.parquet; export or build one there.
    """
    if (folder / "config.json").is_file():
        return "model"
    if next(folder.glob("data/**/*.parquet"), None):
        return "dataset"
    raise ValueError(
        f"{folder} holds neither a model, config.json, nor a data set, data/*.parquet; export or build one there."
    )


def upload(folder: Path, repository: str, repo_type: str = "model") -> None:
    """Put what belongs there of a folder into a repository of the Hub, which is made if it does not exist.

    Args:
        folder: What to upload.
        repository: As `ORG/NAME`.
        repo_type: `model` or `dataset`.

    Raises:
        OSError: if the Hub cannot be reached, or refuses; with the remedy.
        ValueError: if there can be no repository of that name.
    """
    api = HfApi()
    try:
        api.create_repo(repository, repo_type=repo_type, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            repo_type=repo_type,
            allow_patterns=list(BELONGS),
            ignore_patterns=list(_LEFT_BEHIND),  # the Hub's client adds to the list that it is given
        )
    except (HTTPError, OSError, RuntimeError) as error:
        raise OSError(
            f"{folder} could not be sent to {repository} at {api.endpoint}: {_reason(error)} "
            f"The folder is whole: python training/publish.py {folder} {repository} sends it again."
        ) from error


def _reason(error: Exception) -> str:
    """What kept the Hub from taking a folder, and what to do."""
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if status in (401, 403) and get_token() is None:
        return "there is no token. Make one that may write at huggingface.co/settings/tokens, then set HF_TOKEN."
    if status in (401, 403):
        return "the token may not write there. Make one that may at huggingface.co/settings/tokens, then set HF_TOKEN."
    if status is not None:
        return f"it answered {status} ({str(error).splitlines()[0].rstrip('.')})."
    said = str(error.__cause__ or error).strip().splitlines() or [type(error).__name__]
    return f"it cannot be reached, or broke off ({said[0].rstrip('.')}). See to the network and HF_ENDPOINT."
