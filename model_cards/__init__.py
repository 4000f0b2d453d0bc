"""Card templates, and one rendered card per released model."""

from pathlib import Path

PRETRAINED_TEMPLATE = Path(__file__).parent / "pretrained.md.jinja"
"""Of a masked autoencoder; `audiopg.training.publishing.pretrained` fills it in."""

DATASET_TEMPLATE = Path(__file__).parent / "synthetic_dataset.md.jinja"
"""Of a data set of synthesized clips; `audiopg.training.publishing.dataset` fills it in."""

FINETUNED_TEMPLATE = Path(__file__).parent / "finetuned.md.jinja"
"""Of a fine-tuned classifier; `audiopg.training.publishing.finetuned` fills it in."""
