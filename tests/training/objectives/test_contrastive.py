import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist, pdist
from torch import nn
from toys import torchrun

from audiopg.training.objectives.contrastive import (
    SynchronisedBatchNorm2d,
    alignment,
    doubles_losses,
    synchronise_batch_norm,
    uniformity,
)

IN_TWO_PROCESSES = """
import sys

import torch
import torch.distributed as dist
from torch import nn

from audiopg.training.objectives.contrastive import doubles_losses, gathered, synchronise_batch_norm

dist.init_process_group("gloo")
rank, world = dist.get_rank(), dist.get_world_size()
torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5))
synchronise_batch_norm(model)
images = torch.randn(8, 1, 8, 8).chunk(world)[rank]
with torch.autocast("cpu", torch.bfloat16, enabled=sys.argv[2] == "bf16"):
    losses = doubles_losses(model(images))
assert {loss.dtype for loss in losses.values()} == {torch.float32}
sum(losses.values()).backward()
for parameter in model.parameters():
    dist.all_reduce(parameter.grad)
    parameter.grad /= world
found = {name: p.grad for name, p in model.named_parameters()} | dict(model.named_buffers()) | losses
if rank == 0:
    torch.save({name: value.detach() for name, value in found.items()}, sys.argv[1])
dist.destroy_process_group()
"""


def test_the_golden_values_of_the_paper_s_code():
    first = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    turn = torch.tensor([[math.cos(0.1), math.sin(0.1)], [-math.sin(0.1), math.cos(0.1)]], dtype=torch.float64)
    second = first @ turn
    assert float(alignment(first, second)) == pytest.approx(0.00999167, abs=1e-8)
    assert float((uniformity(first) + uniformity(second)) / 2) == pytest.approx(-4.396348, abs=1e-6)
    both = doubles_losses(torch.stack([3 * first, 0.5 * second], dim=1).flatten(0, 1))
    assert [float(loss) for loss in both.values()] == pytest.approx([0.00999167, -4.396348], abs=1e-6)


def test_losses_are_those_of_scipy_s_distances():
    vectors = torch.randn(12, 6, generator=torch.Generator().manual_seed(0))
    unit = nn.functional.normalize(vectors, dim=1)
    first, second = unit[0::2].numpy(), unit[1::2].numpy()
    losses = doubles_losses(vectors)
    distances = np.diag(cdist(first, second, "sqeuclidean"))
    assert float(losses["alignment"]) == pytest.approx(distances.mean(), rel=1e-5)
    expected = np.mean([np.log(np.exp(-2 * pdist(view, "sqeuclidean")).mean()) for view in (first, second)])
    assert float(losses["uniformity"]) == pytest.approx(expected, rel=1e-5)


def test_gradients_are_finite_where_all_sounds_are_one():
    vectors = torch.ones(6, 4, requires_grad=True)
    sum(doubles_losses(vectors).values()).backward()
    assert vectors.grad.isfinite().all()


def test_synchronised_batch_norm_keeps_weights_and_is_pytorch_s_in_one_process():
    plain = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Sequential(nn.BatchNorm2d(4)))
    ours = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Sequential(nn.BatchNorm2d(4)))
    ours.load_state_dict(plain.state_dict())
    synchronise_batch_norm(ours)
    assert type(ours[1][0]) is SynchronisedBatchNorm2d
    images = torch.randn(4, 1, 8, 8)
    assert torch.equal(ours(images), plain(images))
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in ours.state_dict().items())


@pytest.mark.parametrize(
    ("precision", "tolerance"), [("fp32", 1e-5), pytest.param("bf16", 3e-2, marks=pytest.mark.slow)]
)
def test_two_processes_have_the_losses_gradients_and_statistics_of_one(tmp_path, precision, tolerance):
    script = tmp_path / "processes.py"
    script.write_text(IN_TWO_PROCESSES)
    for processes in (1, 2):
        done = torchrun(processes, script, tmp_path / f"{processes}.pt", precision)
        assert done.returncode == 0, done.stderr[-3000:]
    one, two = (torch.load(tmp_path / f"{processes}.pt", weights_only=True) for processes in (1, 2))
    assert one.keys() == two.keys()
    assert "1.running_var" in one
    for name, value in one.items():
        atol = 1e-6 if precision == "fp32" else tolerance
        np.testing.assert_allclose(two[name].numpy(), value.numpy(), rtol=tolerance, atol=atol, err_msg=name)


def test_losses_keep_float32_where_a_model_is_trained_in_bfloat16():
    vectors = torch.randn(64, 512, generator=torch.Generator().manual_seed(0)) * 0.05 + 1
    expected = doubles_losses(vectors)
    with torch.autocast("cpu", torch.bfloat16):
        found = doubles_losses(vectors)
    assert {name: float(loss) for name, loss in found.items()} == {n: float(loss) for n, loss in expected.items()}
