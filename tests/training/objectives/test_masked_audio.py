import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from audiopg.data_scripts.synthesis import get_preset
from audiopg.modeling.configuration_audiopg import AudioPGConfig
from audiopg.modeling.modeling_audiopg import AudioPGForPreTraining
from audiopg.training.objectives.masked_audio import MaskedAudio, flop_per_clip, masking_noise
from audiopg.training.objectives.sources import SyntheticSource

STATISTICS = {"mean": -6.0, "std": 4.0, "window": "hann"}


def test_an_example_is_the_same_in_any_batch(toy_recipe):
    objective = MaskedAudio(toy_recipe(preset="audiopg"), STATISTICS)

    def example(first: int, end: int) -> dict[str, torch.Tensor]:
        return objective.batch(range(first, end), objective.draw(range(first, end)), torch.device("cpu"))

    batch = example(0, 4)
    for index in range(4):
        single = example(index, index + 1)
        torch.testing.assert_close(batch["input_values"][index], single["input_values"][0], atol=1e-4, rtol=0)
        assert torch.equal(batch["noise"][index], single["noise"][0])


def test_waveforms_are_those_of_the_indices():
    source = SyntheticSource(get_preset("audiopg", duration=0.64), 5)
    batch = source.waveforms(source.draw(torch.arange(4)), "cpu")
    torch.testing.assert_close(batch[2:3], source.waveforms(source.draw(torch.tensor([2])), "cpu"), atol=1e-6, rtol=0)


def test_the_mask_of_a_clip_is_the_same_in_any_batch_and_differs_between_clips():
    batch = masking_noise(0, torch.arange(4), 32, "cpu")
    assert torch.equal(batch[2:3], masking_noise(0, torch.tensor([2]), 32, "cpu"))
    assert len({tuple(row.argsort().tolist()) for row in batch}) == 4


def test_a_longer_clip_continues_the_mask_noise_of_a_shorter_one():
    assert torch.equal(
        masking_noise(0, torch.tensor([2]), 64, "cpu")[:, :32], masking_noise(0, torch.tensor([2]), 32, "cpu")
    )


@pytest.mark.parametrize(("mask_ratio", "patch_frames"), [(0.5, 16), (0.75, 16), (0.75, 8)])
def test_the_formula_counts_what_a_step_of_the_model_does(mask_ratio, patch_frames):
    sizes = {"num_hidden_layers": 2, "decoder_num_hidden_layers": 1, "patch_frames": patch_frames}
    config = AudioPGConfig.of_size("tiny", **sizes, mask_ratio=mask_ratio)
    config._attn_implementation = "eager"  # whose products are counted one by one
    model = AudioPGForPreTraining(config)
    with FlopCounterMode(display=False) as counter:
        model(torch.randn(1, 16 * patch_frames, 128), noise=torch.rand(1, 128)).loss.backward()
    # The first layer's inputs need no gradient, which the formula does not know.
    first = 2 * int(128 * (1 - mask_ratio)) * 16 * patch_frames * config.hidden_size
    assert counter.get_total_flops() == flop_per_clip(config, 128) - first


def test_base_costs_what_the_paper_s_model_does():
    assert flop_per_clip(AudioPGConfig(), num_patches=512) == pytest.approx(159e9, rel=0.01)


def test_statistics_say_that_nothing_real_was_seen(toy_recipe):
    assert MaskedAudio.measure(toy_recipe(), torch.device("cpu"))["saw_real_data"] is False
