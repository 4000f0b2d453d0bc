import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from audiopg.modeling.configuration_audiopg import AudioPGConfig
from audiopg.modeling.modeling_audiopg import AudioPGForPreTraining
from audiopg.training.engine.throughput import PhaseTimer, flop_per_clip


@pytest.mark.parametrize("mask_ratio", [0.5, 0.75])
def test_the_formula_counts_what_a_step_of_the_model_does(mask_ratio):
    config = AudioPGConfig.of_size("tiny", num_hidden_layers=2, decoder_num_hidden_layers=1, mask_ratio=mask_ratio)
    config._attn_implementation = "eager"  # whose products are counted one by one
    model = AudioPGForPreTraining(config)
    with FlopCounterMode(display=False) as counter:
        model(torch.randn(1, 256, 128), noise=torch.rand(1, 128)).loss.backward()
    # The first layer's inputs need no gradient, which the formula does not know.
    first = 2 * int(128 * (1 - mask_ratio)) * 256 * config.hidden_size
    assert counter.get_total_flops() == flop_per_clip(config, 128) - first


def test_base_costs_what_the_paper_s_model_does():
    assert flop_per_clip(AudioPGConfig(), num_patches=512) == pytest.approx(159e9, rel=0.01)


def test_shares_of_a_profile_add_up():
    timer = PhaseTimer(torch.device("cpu"))
    timer.seconds = {"forward": 1.0, "backward": 3.0}
    assert [line.split() for line in timer.table(steps=2).splitlines()[1:]] == [
        ["forward", "500.00", "25.0%"],
        ["backward", "1500.00", "75.0%"],
        ["together", "2000.00", "100.0%"],
    ]
