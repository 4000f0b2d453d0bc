"""Folders that the Hub takes as they are, and the way there."""

import json
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelCard
from transformers import PreTrainedModel

from audiopg.modeling.modeling_audiopg import AudioPGPreTrainedModel
from audiopg.modeling.modeling_doppelganger import DoppelgangerModel
from audiopg.training.runs.files import PARTIAL, written_aside

SENTENCE_TRANSFORMERS = {
    "modules.json": [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}],
    "sentence_bert_config.json": {
        "transformer_task": "feature-extraction",
        "modality_config": {"audio": {"method": "forward", "method_output_name": "pooler_output"}},
        "module_output_name": "sentence_embedding",
    },
}
"""What `SentenceTransformer(folder)` reads; without it, it takes the mean over class token and padding as well."""

BELONGS = [
    *("*.json", "*.safetensors", "*.py", "*.png", "README.md", ".gitattributes", ".eval_results/*.yaml"),
    "data/*.parquet",
]
"""Names of what goes to the Hub, from a folder on; nothing else in the folder does."""

_LEFT_BEHIND = [f"*{PARTIAL}*", ".tmp*", ".lock", ".cache/*"]
"""What killed processes, locks and the Hub's own client leave in a folder."""


def is_ours(model: PreTrainedModel) -> bool:
    """Whether a model is one of ours, whose code travels with it; others are part of transformers."""
    return isinstance(model, AudioPGPreTrainedModel | DoppelgangerModel)


def write_hub_folder(
    model: PreTrainedModel,
    feature_extractor: Any,
    folder: Path,
    card: ModelCard | None = None,
    beside: Mapping[str, bytes] | None = None,
) -> None:
    """Save a model with everything that loading it elsewhere needs, whatever its head.

    The folder is written to the side and takes the place of an older one at once: it never holds files of both.

    Args:
        model: One of ours, or one of transformers.
        feature_extractor: The one it was trained with.
        folder: Created if missing; one that is there is replaced, if it holds a model.
        card: Written as README.md.
        beside: What else goes into it, by name.

    Raises:
        ValueError: if there is a folder with something else in it, which would be lost.
        OSError: if it cannot be written; an older one is then as it was.
    """
    folder = folder.resolve()
    _refuse_to_lose(folder)
    contents = {**(beside or {})}
    if is_ours(model):
        contents |= {
            name: (json.dumps(found, indent=2) + "\n").encode() for name, found in SENTENCE_TRANSFORMERS.items()
        }
    folder.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(folder) as partial:
        model.save_pretrained(partial)
        feature_extractor.save_pretrained(partial)
        for name, content in contents.items():
            (partial / name).parent.mkdir(exist_ok=True)
            (partial / name).write_bytes(content)
        if card is not None:
            card.save(partial / "README.md")


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


def upload(folder: Path, repository: str, repo_type: str = "model") -> None:
    """Put what belongs there of a folder into a repository of the Hub, which is made if it does not exist.

    Args:
        folder: What to upload.
        repository: As `ORG/NAME`.
        repo_type: `model` or `dataset`.

    Raises:
        OSError: if the Hub cannot be reached, or refuses.
    """
    api = HfApi()
    api.create_repo(repository, repo_type=repo_type, exist_ok=True)
    api.upload_folder(
        repo_id=repository,
        folder_path=folder,
        repo_type=repo_type,
        allow_patterns=BELONGS,
        ignore_patterns=_LEFT_BEHIND,
    )
