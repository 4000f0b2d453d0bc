"""AudioPG as pre-training uses it: clips number `step * batch_size` and on, of seed 0."""

from collections.abc import Callable

import torch

from audiopg.data_scripts.synthesis import get_preset
from audiopg.modeling.feature_extraction_audiopg import AudioPGFeatureExtractor
from audiopg.training.objectives.sources import SyntheticSource


def prepare(
    batch_size: int, preset: str = "reference", features: bool = True, duration: float = 10.24, device: str = "cpu"
) -> tuple[float, Callable[[int], float]]:
    """Standardised log-mel, or waveforms alone, from (seed, index)."""
    source, extractor = SyntheticSource(get_preset(preset, duration=duration), 0), AudioPGFeatureExtractor()

    def make(step: int) -> float:
        indices = torch.arange(step * batch_size, (step + 1) * batch_size)
        waveforms = source.waveforms(source.draw(indices), device)
        return float((extractor.extract(waveforms) if features else waveforms).sum())

    extractor.extract(
        source.waveforms(source.draw(torch.arange(1)), device)
    )  # what libraries allocate once is not a clip's
    return batch_size * duration, make
