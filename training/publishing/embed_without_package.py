"""Embed waveforms with an exported folder in a process that cannot import `audiopg`: what any other user would run.

    python training/publishing/embed_without_package.py FOLDER waveforms.npy SAMPLING_RATE embeddings.npy

`waveforms.npy` has shape (clips, samples); `embeddings.npy` gets a row for each.
"""

import sys
from pathlib import Path

import numpy as np
from transformers import AutoFeatureExtractor, AutoModel


def embed_waveforms(folder: str, waveforms: np.ndarray, sampling_rate: int) -> np.ndarray:
    """What the model's `embed` gives of each clip, shape `(clips, width)`."""
    feature_extractor = AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=True)
    model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
    if sampling_rate != feature_extractor.sampling_rate:
        raise ValueError(f"{folder} takes {feature_extractor.sampling_rate} Hz, got {sampling_rate}: resample them.")
    return model.embed(list(waveforms), feature_extractor).numpy()


if __name__ == "__main__":
    sys.modules["audiopg"] = None  # type: ignore[assignment]  # from here on `import audiopg` fails
    folder, source, sampling_rate, target = sys.argv[1:]
    np.save(Path(target), embed_waveforms(folder, np.load(source), int(sampling_rate)))
