r"""Two views of each example held together, and all examples held apart (Wang & Isola, 2020).

For unit vectors $u_i$ and $v_i$ of the two views of example $i$ out of M,

    alignment    mean over i of |u_i - v_i|^2
    uniformity   ln of the mean over i < j of exp(-2 |w_i - w_j|^2), of each view w by itself; the mean of the two

and their sum is the loss of "Contrastive Learning from Synthetic Audio Doppelgängers" (Cherep & Singh, 2024). M counts
the examples of all processes: their vectors are gathered with gradients, and the statistics of batch normalisation are
those of all processes too, so that a step is the same however it is shared.
"""

import math

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather, all_reduce

_TEMPERATURE = 2.0


def gathered(vectors: Tensor) -> Tensor:
    """The vectors of all processes, this one's among them, in the order of the examples; gradients find their way.

    Args:
        vectors: Of this process, shape `(batch, ...)`.

    Returns:
        Shape `(processes * batch, ...)`.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return vectors
    return torch.cat(all_gather(vectors.contiguous()))


def alignment(first: Tensor, second: Tensor) -> Tensor:
    """Mean squared distance between the two views of each example.

    Args:
        first: Unit vectors, shape `(batch, width)`.
        second: Of the other view.

    Returns:
        A scalar, from 0 to 4.

    Example:
        >>> float(alignment(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])))
        2.0
    """
    return (first - second).square().sum(dim=1).mean()


def uniformity(vectors: Tensor) -> Tensor:
    """Logarithm of the mean Gaussian potential, exp(-2 d^2), over all pairs of different examples.

    Args:
        vectors: Unit vectors of one view, shape `(batch, width)`, two at least.

    Returns:
        A scalar: 0 if all are one point, lower the more evenly they cover the sphere.

    Example:
        >>> round(float(uniformity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))), 4)
        -8.0
    """
    count = len(vectors)
    squared_distances = (2 - 2 * vectors @ vectors.T).clamp(min=0)
    itself = torch.eye(count, dtype=torch.bool, device=vectors.device)
    potential = (-_TEMPERATURE * squared_distances).masked_fill(itself, -torch.inf)
    return potential.flatten().logsumexp(dim=0) - math.log(count * (count - 1))


def doubles_losses(vectors: Tensor) -> dict[str, Tensor]:
    """Alignment and uniformity of the examples of all processes.

    Args:
        vectors: Of this process, of any length but 0, the views of an example beside each other, shape
            `(2 * batch, width)`.

    Returns:
        `alignment` and `uniformity`, float32 scalars that are the same in every process.

    Example:
        >>> losses = doubles_losses(torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0], [0.0, 1.0]]))
        >>> [round(float(loss), 4) for loss in losses.values()]
        [0.0, -4.0]
    """
    with torch.autocast(vectors.device.type, enabled=False):  # distances of neighbours are lost in bfloat16
        unit = gathered(nn.functional.normalize(vectors.float().unflatten(0, (-1, 2)), dim=-1))
        first, second = unit.unbind(dim=1)
        return {
            "alignment": alignment(first, second),
            "uniformity": (uniformity(first) + uniformity(second)) / 2,
        }


class SynchronisedBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation by the statistics of all processes, on any device: PyTorch's own knows GPUs alone.

    Its parameters and buffers are named as those of `BatchNorm2d`. Processes have equal shares of a batch.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise every channel of `(batch, channels, height, width)`."""
        if not self.training or not dist.is_initialized() or dist.get_world_size() == 1:
            return super().forward(input)
        with torch.autocast(input.device.type, enabled=False):
            return self._synchronised(input.float()).to(input.dtype)

    def _synchronised(self, input: Tensor) -> Tensor:
        processes = dist.get_world_size()
        mean = all_reduce(input.mean(dim=(0, 2, 3))) / processes
        centred = input - mean[:, None, None]
        variance = all_reduce(centred.square().mean(dim=(0, 2, 3))) / processes
        count = processes * input.numel() // input.shape[1]
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            with torch.no_grad():
                self.num_batches_tracked += 1
                self.running_mean.lerp_(mean, self.momentum or 0.0)
                self.running_var.lerp_(variance * count / (count - 1), self.momentum or 0.0)
        scale = self.weight * (variance + self.eps).rsqrt()
        return centred * scale[:, None, None] + self.bias[:, None, None]


def synchronise_batch_norm(model: nn.Module) -> None:
    """Give every batch normalisation of a model the statistics of all processes; its weights stay where they are."""
    for module in model.modules():
        for name, child in module.named_children():
            if type(child) is nn.BatchNorm2d:
                synchronised = SynchronisedBatchNorm2d(child.num_features, eps=child.eps, momentum=child.momentum)
                synchronised.load_state_dict(child.state_dict())
                setattr(module, name, synchronised)
