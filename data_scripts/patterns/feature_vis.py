r"""Feature visualisations: images that a network which has never seen a photograph answers to most strongly.

The network is a ResNet-50, with random weights or with weights made of dead leaves. An image begins as faint noise and
climbs the gradient of one unit of the last layer, or of the mean of two (Olah et al., 2017): the parameters are the
Fourier coefficients of the image, and every step looks at it a little moved, turned and scaled.

An image costs a minute or more on a CPU: render them once into a folder (`render.py`), perhaps with fewer steps and
channels. The climb is long, so that images of two devices are alike, not equal.
"""

import math
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, grid_sample, pad

from audiopg.data_scripts.counter_random import normal, uniform
from audiopg.data_scripts.patterns.catalogue import CATALOGUE_SEED, Constant, constant
from audiopg.data_scripts.patterns.dead_leaves import DEAD_LEAVES
from audiopg.data_scripts.patterns.pattern_set import Drawing, PatternSet, whole_convolutions
from audiopg.data_scripts.synthesis import Range

_DEPTHS = (3, 4, 6, 3)
_LEAVES = {"images": 24, "size": 96}
"""How many images of dead leaves the weights come from, and their side in pixels."""


def _fixed(index: int, device: torch.device) -> Tensor:
    return torch.tensor([index], device=device)


def _random_weights(network: nn.Module, device: torch.device) -> None:
    r"""Normal weights of standard deviation $\sqrt{2 / (k^2 \, \mathrm{outputs})}$ (He et al., 2015), by name."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            outputs, inputs, height, width = module.weight.shape
            values = normal(CATALOGUE_SEED, _fixed(0, device), name, (outputs, inputs * height * width))[0]
            module.weight.data = values.to(torch.float32).view_as(module.weight) * math.sqrt(
                2 / (height * width * outputs)
            )


def patches(x: Tensor, count: int, kernel: int, padding: int, name: str) -> Tensor:
    """Patches of activations, without their mean, of norm 1: the kernels of a convolution.

    Each is the one of largest norm at eight random places, since inside a leaf there is nothing to see.

    Args:
        x: Shape `(batch, channels, height, width)`.
        count: How many.
        kernel: Their side.
        padding: Zeros around x.
        name: What the places are drawn by.

    Returns:
        Shape `(count, channels, kernel, kernel)`.

    Example:
        >>> found = patches(torch.arange(18.0).view(1, 2, 3, 3), count=4, kernel=3, padding=0, name="first")
        >>> found.shape, round(found[0].square().sum().item(), 3), round(abs(found[0].mean().item()), 3)
        (torch.Size([4, 2, 3, 3]), 1.0, 0.0)
    """
    x = pad(x, (padding,) * 4)
    limits = torch.tensor([x.shape[0], x.shape[2] - kernel + 1, x.shape[3] - kernel + 1])
    u = uniform(CATALOGUE_SEED, _fixed(0, torch.device("cpu")), f"{name} places", (8 * count, 3))[0]
    places = (u * limits).long().tolist()
    found = torch.stack([x[image, :, row : row + kernel, left : left + kernel] for image, row, left in places])
    found = found - found.mean((1, 2, 3), keepdim=True)
    norms = found.square().sum((1, 2, 3)).sqrt().view(count, 8)
    best, place = norms.max(1)
    found = found.unflatten(0, (count, 8))[torch.arange(count), place]
    return found / best.clamp(min=1e-6)[:, None, None, None]


def _weights_of(network: nn.Module, images: Tensor) -> None:
    """Weights by one pass of images: each convolution takes patches of what comes in, each norm the statistics."""

    def take(name: str, module: nn.Conv2d, given: tuple[Tensor]) -> None:
        module.weight.data = patches(given[0], len(module.weight), module.kernel_size[0], int(module.padding[0]), name)

    hooks = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_pre_hook(partial(take, name)))
        elif isinstance(module, nn.BatchNorm2d):
            module.train()
            module.momentum = 1.0
    with torch.no_grad():
        network(images)
    for hook in hooks:
        hook.remove()
    network.eval()


def normalised(images: Tensor) -> Tensor:
    """Images in [0, 1] as the network sees them: around 0, of standard deviation 1 for half of the range."""
    return (images - 0.5) / 0.25


@lru_cache(maxsize=2)
def _network(weights: str, most_channels: int, device: torch.device) -> nn.Module:
    """The network, without gradients of its own."""
    from transformers import ResNetConfig, ResNetModel

    widths = [most_channels // 8, most_channels // 4, most_channels // 2, most_channels]
    config = ResNetConfig(
        embedding_size=most_channels // 32,
        hidden_sizes=widths,
        depths=list(_DEPTHS),
        hidden_act="leaky_relu",  # through rectifiers that are shut everywhere there would be no gradient to climb
    )
    with torch.random.fork_rng(devices=[]):
        network: Any = ResNetModel(config).eval().requires_grad_(False).to(device)
    if weights == "random":
        _random_weights(network, device)
    else:
        leaves = next(patterns for patterns in DEAD_LEAVES if patterns.name == "dead_leaves_mixed")
        images = leaves.images(CATALOGUE_SEED, range(_LEAVES["images"]), _LEAVES["size"], device)
        _weights_of(network, normalised(images))
    return network


def from_spectrum(spectrum: Tensor, size: int) -> Tensor:
    r"""An image in (0, 1) of Fourier coefficients, which count by their frequency: $c_f / (4 \max(|f|, 1 / size))$.

    Args:
        spectrum: Real and imaginary parts, shape `(3, size, size // 2 + 1, 2)`.
        size: Side of the image.

    Returns:
        Its logistic function, shape `(1, 3, size, size)`.
    """
    down, across = (f(size, device=spectrum.device) for f in (torch.fft.fftfreq, torch.fft.rfftfreq))
    frequency = torch.hypot(down[:, None], across).clamp(min=1 / size)
    values = torch.fft.irfft2(torch.view_as_complex(spectrum) / (4 * frequency), s=(size, size), norm="ortho")
    return torch.sigmoid(values)[None]


def moved(image: Tensor, shift: Tensor, turn: Tensor, scale: Tensor) -> Tensor:
    """An image turned, scaled and moved about its middle, mirrored at its edges.

    Args:
        image: Shape `(1, 3, size, size)`.
        shift: x and y in sizes, shape `(2,)`.
        turn: In rad, shape `()`.
        scale: Shape `()`; above 1 for larger.
    """
    cos, sin = torch.cos(turn) / scale, torch.sin(turn) / scale
    rows = torch.stack([torch.stack([cos, -sin, 2 * shift[0]]), torch.stack([sin, cos, 2 * shift[1]])])
    grid = affine_grid(rows[None], list(image.shape), align_corners=False)
    return grid_sample(image, grid, padding_mode="reflection", align_corners=False)


def units(drawing: Drawing) -> list[list[int]]:
    """The units that each image answers to: image i to unit i while there are units, then to two random ones."""
    count = int(constant(drawing.ranges, "most_channels"))
    pairs = (drawing.uniform("units", 2) * count).long().tolist()
    indices = drawing.indices.tolist()
    return [[index] if index < count else pair for index, pair in zip(indices, pairs, strict=True)]


def _climbed(weights: str, drawing: Drawing, chosen: list[int]) -> Tensor:
    """One image, shape `(3, size, size)`."""
    ranges, size, steps = drawing.ranges, drawing.size, int(constant(drawing.ranges, "steps"))
    network = _network(weights, int(constant(ranges, "most_channels")), drawing.device)
    start = drawing.normal("start", 3 * size, (size // 2 + 1) * 2)[0].view(3, size, size // 2 + 1, 2)
    spectrum = (constant(ranges, "start") * start).to(torch.float32).requires_grad_()
    shift, turn, scale = (
        drawing.sample(name, *shape)[0].to(torch.float32)
        for name, shape in (("shift", (steps, 2)), ("turn", (steps,)), ("scale", (steps,)))
    )
    optimizer = torch.optim.Adam([spectrum], lr=constant(ranges, "learning_rate"))
    with torch.enable_grad():
        for step in range(steps):
            optimizer.zero_grad()
            seen = moved(from_spectrum(spectrum, size), shift[step], turn[step], scale[step])
            answer = network(normalised(seen)).pooler_output[0, chosen, 0, 0].mean()
            (-answer).backward()
            optimizer.step()
    return from_spectrum(spectrum.detach(), size)[0]


def _feature_vis(weights: str, drawing: Drawing) -> Tensor:
    """Images one by one: what an image becomes does not depend on how many are asked for at once."""
    parts = [Drawing(drawing.seed, one, drawing.size, drawing.ranges) for one in drawing.indices.split(1)]
    with whole_convolutions():
        return torch.stack([_climbed(weights, part, one) for part, one in zip(parts, units(drawing), strict=True)])


_RANGES = {
    "steps": Constant(128, 128, "", "steps of Adam", integer=True, minimum=1),
    "learning_rate": Constant(0.05, 0.05, "", "of Adam, over the coefficients"),
    "start": Constant(0.01, 0.01, "", "standard deviation of the coefficients at first"),
    "most_channels": Constant(
        2048, 2048, "", "units of the last layer; others in proportion", integer=True, minimum=64
    ),
    "shift": Range(-0.06, 0.06, "sizes", "how far a step moves the image, along each axis", minimum=-1),
    "turn": Range(-0.15, 0.15, "rad", "how far a step turns the image", minimum=-7),
    "scale": Range(0.9, 1.1, "", "how much a step enlarges the image", minimum=0.1),
}
_SOURCE = (
    "Baradad et al. (2021). Different here: channels are independent (the original relates them as in photographs), "
    "the views of a step are one affine map, and rectifiers leak by 0.01."
)

FEATURE_VIS = (
    PatternSet(
        name="feature_vis_random",
        description="What units of a ResNet-50 with random weights answer to.",
        source=_SOURCE,
        ranges=MappingProxyType(_RANGES),
        make=partial(_feature_vis, "random"),
    ),
    PatternSet(
        name="feature_vis_dead_leaves",
        description="What units of a ResNet-50 whose weights come from dead leaves answer to.",
        source=(
            f"{_SOURCE} Its network is not trained by contrast for 200 epochs: its kernels are patches of its own "
            "activations over images of dead leaves (Coates & Ng, 2012), and its norms have their statistics."
        ),
        ranges=MappingProxyType(_RANGES),
        make=partial(_feature_vis, "dead_leaves"),
    ),
)
