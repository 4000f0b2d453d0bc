"""Folders that the Hub takes as they are, and the way there."""

import json
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelCard
from transformers import PreTrainedModel

from audiopg.modeling.modeling_audiopg import AudioPGPreTrainedModel
from audiopg.training.runs.files import write_atomically

SENTENCE_TRANSFORMERS = {
    "modules.json": [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}],
    "sentence_bert_config.json": {
        "transformer_task": "feature-extraction",
        "modality_config": {"audio": {"method": "forward", "method_output_name": "pooler_output"}},
        "module_output_name": "sentence_embedding",
    },
}
"""What `SentenceTransformer(folder)` reads; without it, it takes the mean over class token and padding as well."""


def is_ours(model: PreTrainedModel) -> bool:
    """Whether a model is an AudioPG model, whose code travels with it; others are part of transformers."""
    return isinstance(model, AudioPGPreTrainedModel)


def write_hub_folder(
    model: PreTrainedModel, feature_extractor: Any, folder: Path, card: ModelCard | None = None
) -> None:
    """Save a model with everything that loading it elsewhere needs, whatever its head.

    Args:
        model: Any AudioPG model, or one of transformers.
        feature_extractor: The one it was trained with.
        folder: Created if missing.
        card: Written as README.md.
    """
    model.save_pretrained(folder)
    feature_extractor.save_pretrained(folder)
    if is_ours(model):
        for name, content in SENTENCE_TRANSFORMERS.items():
            write_atomically(folder / name, json.dumps(content, indent=2) + "\n")
    if card is not None:
        card.save(folder / "README.md")


def upload(folder: Path, repository: str, repo_type: str = "model") -> None:
    """Put all of a folder into a repository of the Hub, which is made if it does not exist.

    Args:
        folder: What to upload.
        repository: As `ORG/NAME`.
        repo_type: `model` or `dataset`.

    Raises:
        OSError: if the Hub cannot be reached, or refuses.
    """
    api = HfApi()
    api.create_repo(repository, repo_type=repo_type, exist_ok=True)
    api.upload_folder(repo_id=repository, folder_path=folder, repo_type=repo_type)
