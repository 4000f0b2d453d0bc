import torch

from audiopg.data_scripts.synthesis import get_preset
from audiopg.modeling.feature_extraction_audiopg import AudioPGFeatureExtractor
from audiopg.training.objectives.sources import SyntheticSource, masking_noise

SOURCE = SyntheticSource(get_preset("audiopg", duration=0.64), 5, AudioPGFeatureExtractor())


def test_an_example_is_the_same_in_any_batch():
    batch = SOURCE(torch.arange(4), "cpu")["input_values"]
    single = torch.cat([SOURCE(torch.tensor([index]), "cpu")["input_values"] for index in range(4)])
    torch.testing.assert_close(batch, single, atol=1e-4, rtol=0)


def test_the_mask_of_a_clip_is_the_same_in_any_batch_and_differs_between_clips():
    batch = masking_noise(0, torch.arange(4), 32, "cpu")
    assert torch.equal(batch[2:3], masking_noise(0, torch.tensor([2]), 32, "cpu"))
    assert len({tuple(row.argsort().tolist()) for row in batch}) == 4


def test_a_longer_clip_continues_the_mask_noise_of_a_shorter_one():
    assert torch.equal(
        masking_noise(0, torch.tensor([2]), 64, "cpu")[:, :32], masking_noise(0, torch.tensor([2]), 32, "cpu")
    )
