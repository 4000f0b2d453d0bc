"""Embed waveforms with an exported folder in a process that cannot import `audiopg`: what any other user would run.

    python training/publishing/embed_without_package.py FOLDER waveforms.npy SAMPLING_RATE embeddings.npy

`waveforms.npy` has shape (clips, samples); `embeddings.npy` gets shape (clips, hidden_size).
"""

import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoFeatureExtractor, AutoModel

_BATCH = 16


@torch.no_grad()
def embed_waveforms(folder: str, waveforms: np.ndarray, sampling_rate: int) -> np.ndarray:
    """Mean of the patch tokens of each clip, shape `(clips, hidden_size)`."""
    feature_extractor = AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=True)
    model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
    batches = np.array_split(waveforms, -(-len(waveforms) // _BATCH))
    embeddings = [model(**feature_extractor(batch, sampling_rate=sampling_rate)).pooler_output for batch in batches]
    return torch.cat(embeddings).numpy()


if __name__ == "__main__":
    sys.modules["audiopg"] = None  # type: ignore[assignment]  # from here on `import audiopg` fails
    folder, source, sampling_rate, target = sys.argv[1:]
    np.save(Path(target), embed_waveforms(folder, np.load(source), int(sampling_rate)))
