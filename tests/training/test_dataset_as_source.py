"""Clips that were written to a data set and read back train a model as those made on the device do."""

import pytest
import torch

from audiopg.data_scripts.audiopg_synthetic import AudioPGSynthetic, decode
from audiopg.data_scripts.synthesis import get_preset
from audiopg.modeling.configuration_audiopg import AudioPGConfig
from audiopg.modeling.feature_extraction_audiopg import AudioPGFeatureExtractor
from audiopg.modeling.modeling_audiopg import AudioPGForPreTraining
from audiopg.training.objectives.masked_audio import masking_noise
from audiopg.training.objectives.sources import SyntheticSource

SEED, STEPS, BATCH_SIZE = 5, 6, 8
SYNTHESIS = {"duration": 0.64}


class DatasetSource:
    """Rows of a map-style data set by index, as pre-training asks of a source."""

    def __init__(self, rows):
        self.rows = rows

    def draw(self, indices):
        return torch.stack([torch.from_numpy(decode(self.rows[index])) for index in indices.tolist()])

    def waveforms(self, drawn, device):
        return drawn.to(device)


@pytest.fixture(scope="module")
def feature_extractor():
    return AudioPGFeatureExtractor(mean=-6.0, std=4.0)


@pytest.fixture(scope="module")
def sources(tmp_path_factory, feature_extractor):
    values = {"preset": "audiopg", "num_clips": STEPS * BATCH_SIZE, "seed": SEED, "synthesis": SYNTHESIS}
    builder = AudioPGSynthetic(str(tmp_path_factory.mktemp("cache")), **values)
    builder.download_and_prepare()
    return {
        "device": SyntheticSource(get_preset("audiopg", **SYNTHESIS), SEED),
        "data set": DatasetSource(builder.as_dataset(split="train")),
    }


def input_values(source, indices, feature_extractor):
    return feature_extractor.extract(source.waveforms(source.draw(indices), "cpu"))


def losses(source, feature_extractor):
    """Of a few steps of pre-training."""
    torch.manual_seed(0)
    model = AudioPGForPreTraining(AudioPGConfig.of_size("tiny", num_hidden_layers=1, decoder_num_hidden_layers=1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    found = []
    for step in range(STEPS):
        indices = torch.arange(step * BATCH_SIZE, (step + 1) * BATCH_SIZE)
        values = input_values(source, indices, feature_extractor)
        num_patches = values[0].numel() // model.config.patch_values
        loss = model(values, noise=masking_noise(SEED, indices, num_patches, "cpu")).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(float(loss.detach()))
    return found


def test_pretraining_from_the_data_set_gives_the_losses_of_pretraining_from_the_device(sources, feature_extractor):
    """They differ by the 16 bits of FLAC alone, whose rounding is below the faintest background noise of a clip."""
    from_device, from_dataset = (losses(sources[name], feature_extractor) for name in ("device", "data set"))
    assert from_dataset == pytest.approx(from_device, rel=1e-4)
    assert len(set(from_device)) == STEPS


def test_inputs_differ_by_the_rounding_to_16_bits_alone(sources, feature_extractor):
    from_device, from_dataset = (
        input_values(source, torch.arange(16), feature_extractor) for source in sources.values()
    )
    difference = (from_dataset - from_device).abs()
    assert difference.mean() < 1e-3
