"""Folders that the Hub takes as they are, and the way there."""

from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelCard
from transformers import PreTrainedModel

from audiopg.modeling.configuration_audiopg import AUTO_MAP
from audiopg.modeling.modeling_audiopg import AudioPGPreTrainedModel


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
    if is_ours(model):
        auto_class = next(name for name, path in AUTO_MAP.items() if path.endswith(f".{type(model).__name__}"))
        type(model).register_for_auto_class(auto_class)
        type(model.config).register_for_auto_class("AutoConfig")
        type(feature_extractor).register_for_auto_class("AutoFeatureExtractor")
        # save_pretrained would name the class that it saves and no other: AutoModel could not load the folder.
        model.config.auto_map = dict(AUTO_MAP)
    model.save_pretrained(folder)
    feature_extractor.save_pretrained(folder)
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
