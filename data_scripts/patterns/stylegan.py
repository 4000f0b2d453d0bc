r"""Images of untrained StyleGAN2 networks: random convolutions from a small random constant up to the full size.

A network has random weights, new ones every 400 images; within a network images differ by their styles, which scale
the channels of every convolution, and, where a set has it, by noise added to the activations. The mapping network is
left out: styles come from a leaky rectifier of normal numbers, anew for every layer (Baradad et al., 2021).

An image costs a second or more on a CPU, a network several: render them once into a folder (`render.py`), perhaps with
fewer channels.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, leaky_relu

from audiopg.data_scripts.counter_random import normal, uniform
from audiopg.data_scripts.patterns.catalogue import Constant, constant
from audiopg.data_scripts.patterns.pattern_set import Drawing, PatternSet, whole_convolutions
from audiopg.data_scripts.synthesis import Range

_CHANNELS = ("red", "green", "blue")
_START = 4
_EPSILON = 1e-8


@dataclass(frozen=True)
class Recipe:
    """What a set of images does to the network.

    Args:
        kernels: Out of what the 3 x 3 kernels are made: "normal" numbers, "signs" or "waves", see `kernel_bank`.
        noise: Added to the activations: "none"; "pink"; "patchy", pink in patches; "shared", patchy and one map for
            all layers.
        new_colours: Whether every image has its own weights from channels to colours, instead of every network.
    """

    kernels: str
    noise: str
    new_colours: bool


@dataclass(frozen=True)
class _Layer:
    """A convolution of the network: what it is called, its channels, and whether it doubles the resolution first."""

    name: str
    inputs: int
    outputs: int
    side: int
    doubles: bool


def _layers(budget: int, most: int, size: int) -> list[_Layer]:
    """Convolutions from 4 px on, one at first, then two per resolution, up to the first that is `size` or more."""
    layers, side = [_Layer("4_0", min(budget // _START, most), min(budget // _START, most), _START, False)], _START
    while side < size:
        side *= 2
        channels = min(budget // side, most)
        layers.append(_Layer(f"{side}_0", layers[-1].outputs, channels, side, True))
        layers.append(_Layer(f"{side}_1", channels, channels, side, False))
    return layers


def modulated(x: Tensor, weight: Tensor, style: Tensor, demodulate: bool = True) -> Tensor:
    r"""Modulated convolution of one image (Karras et al., 2020): weights scaled by the style, then to unit norm.

    $w'_{oik} = s_i w_{oik} \,/\, \sqrt{\sum_{ik} (s_i w_{oik})^2 + 10^{-8}}$.

    Args:
        x: Shape `(1, inputs, side, side)`.
        weight: Shape `(outputs, inputs, kernel, kernel)`, an odd kernel.
        style: Factors on the inputs, shape `(inputs,)`.
        demodulate: Whether to divide by the norm.

    Returns:
        Shape `(1, outputs, side, side)`.
    """
    weight = weight * style[:, None, None]
    if demodulate:
        weight *= torch.rsqrt(weight.square().sum((1, 2, 3), keepdim=True) + _EPSILON)
    if weight.shape[2:] == (1, 1):  # PyTorch's own is slow for one image
        return (weight.flatten(1) @ x.flatten(2)).view(1, -1, *x.shape[2:])
    return conv2d(x, weight, padding=weight.shape[-1] // 2)


def doubled(x: Tensor) -> Tensor:
    """Twice the resolution, smoothed by StyleGAN2's filter [1, 3, 3, 1]; shape `(1, channels, 2 side, 2 side)`.

    That filter after zeros between the pixels is linear interpolation between pixel centres; edges are repeated here.

    Example:
        >>> doubled(torch.tensor([[[[0.0, 4.0]]]]))[0, 0, 0].tolist()
        [0.0, 1.0, 3.0, 4.0]
    """
    return interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


@lru_cache(maxsize=2)
def kernel_bank(name: str) -> Tensor:
    """40 kernels of 3 x 3, of norm 1: edges, lines, and spots, crosses and saddles.

    Args:
        name: "signs": of -1, 0 and 1; 16 edges over the whole circle, 8 lines and 4 others, these with both signs.
            "waves": real numbers of mean 0; 8 edges, 8 lines and 4 others, all with both signs.

    Returns:
        float32, shape `(40, 3, 3)`.
    """
    y, x = torch.meshgrid(*[torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)] * 2, indexing="ij")
    half = torch.arange(8, dtype=torch.float64)[:, None, None] * (math.pi / 8)

    def along(angle: Tensor) -> Tensor:
        return x * torch.cos(angle) + y * torch.sin(angle)

    spot, cross = (x.abs() + y.abs() == 0).double(), (x * y == 0).double()
    others = torch.stack([2 * spot - 1, 2 * cross - 1, x * y, x * x - y * y])
    if name == "signs":
        edges = torch.cat([along(half), along(half + math.pi)]).where(along(half.repeat(2, 1, 1)).abs() > 1e-9, 0.0)
        lines, others = 0.6 - along(half).abs(), others.sign()
        bank = torch.cat([edges.sign(), lines.sign(), -lines.sign(), others, -others])
    else:
        waves = torch.cat([along(half), torch.exp(-2 * along(half).square()), others])
        waves = waves - waves.mean((1, 2), keepdim=True)
        bank = torch.cat([waves, -waves])
    return (bank / bank.square().sum((1, 2), keepdim=True).sqrt()).to(torch.float32)


class _Random:
    """Numbers of one image or of one network, by name; on the device of the images.

    Args:
        seed: Of the stream.
        number: Of the image or network.
        device: Of the images.
        prefix: Of all names, so that a network and the image of its number do not share theirs.
    """

    def __init__(self, seed: int, number: int, device: torch.device, prefix: str = "") -> None:
        self.seed, self.index, self.prefix = seed, torch.tensor([number], device=device), prefix

    def normal(self, name: str, *size: int) -> Tensor:
        """In float32."""
        return normal(self.seed, self.index, self.prefix + name, size)[0].to(torch.float32)

    def uniform(self, name: str, *size: int) -> Tensor:
        """In float64, in which all lie below 1: in float32 some round to it."""
        return uniform(self.seed, self.index, self.prefix + name, size)[0]


Weights = Mapping[str, Tensor]


def _weights(recipe: Recipe, layers: list[_Layer], styles: int, fewest: int, random: _Random) -> Weights:
    """Everything random of a network, by the names of its layers.

    Kernels of a bank act on one input channel each, before channels are mixed: `kernel` of shape `(inputs, 1, 3, 3)`,
    `weight` of shape `(outputs, inputs, 1, 1)`. Normal kernels are `weight` alone, `(outputs, inputs, 3, 3)`.
    """
    weights = {"start": random.normal("start", layers[0].inputs, _START, _START)}
    for layer in layers:
        shape = layer.outputs, layer.inputs
        for name, channels in ((layer.name, layer.inputs), (f"{layer.name} colours", layer.outputs)):
            weights[f"{name} style"] = random.normal(f"{name} style", channels, styles) / math.sqrt(styles)
        weights[f"{layer.name} colours"] = random.normal(f"{layer.name} colours", 3, layer.outputs)
        if recipe.kernels == "normal":
            weights[layer.name] = random.normal(layer.name, *shape, 9).view(*shape, 3, 3)
        else:
            bank = kernel_bank(recipe.kernels).to(random.index.device)
            count = fewest + (random.uniform(f"{layer.name} count") * (len(bank) + 1 - fewest)).floor()
            chosen = random.uniform(f"{layer.name} subset", len(bank)).argsort()
            which = chosen[(random.uniform(f"{layer.name} kernel", layer.inputs) * count).long()]
            weights[f"{layer.name} kernel"] = bank[which][:, None]
            weights[layer.name] = random.normal(layer.name, *shape)[..., None, None]
    return weights


@lru_cache(maxsize=1)
def _network(
    recipe: Recipe, sizes: tuple[int, int, int], styles: int, fewest: int, seed: int, number: int, device: torch.device
) -> tuple[list[_Layer], Weights]:
    """The one network that was last asked for: 100 MB of weights, and seconds to draw them."""
    layers = _layers(*sizes)
    return layers, _weights(recipe, layers, styles, fewest, _Random(seed, number, device, "network "))


def pink_noise(white: Tensor, exponent: Tensor) -> Tensor:
    r"""White noise with its spectrum multiplied by $|f|^{-a}$, without its mean, of standard deviation 1.

    Args:
        white: Shape `(side, side)`.
        exponent: a, shape `()`.

    Returns:
        Shape `(side, side)`.
    """
    side = len(white)
    down, across = (frequencies(side, device=white.device) for frequencies in (torch.fft.fftfreq, torch.fft.rfftfreq))
    magnitude = torch.hypot(down[:, None], across)
    magnitude[0, 0] = torch.inf
    noise = torch.fft.irfft2(torch.fft.rfft2(white) * magnitude**-exponent, s=white.shape)
    return noise / noise.std().clamp(min=_EPSILON)


def _noise(recipe: Recipe, name: str, side: int, exponent: Tensor, random: _Random) -> Tensor:
    """Pink noise, where wanted in patches: times a coarse map that is mostly small and at places large."""
    noise = pink_noise(random.normal(f"{name} noise", side, side), exponent)
    if recipe.noise == "pink":
        return noise
    centred = random.uniform(f"{name} patches", 4, 4) - 0.5
    laplace = (-centred.sign() * torch.log1p((-2 * centred.abs()).clamp(min=-1 + _EPSILON))).to(torch.float32)
    noise = noise * interpolate(laplace[None, None], size=(side, side), mode="bicubic")[0, 0]
    return noise / noise.std().clamp(min=_EPSILON)


def with_statistics(image: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """An image with given mean and standard deviation per channel, before it is cut to [0, 1].

    Args:
        image: Shape `(3, height, width)`.
        mean: Shape `(3,)`.
        deviation: Shape `(3,)`.

    Returns:
        Shape `(3, height, width)`.
    """
    image = image - image.mean((1, 2), keepdim=True)
    image = image / image.std((1, 2), keepdim=True).clamp(min=_EPSILON)
    return (image * deviation[:, None, None] + mean[:, None, None]).clamp(0, 1)


def _synthesized(recipe: Recipe, drawing: Drawing, layers: list[_Layer], weights: Weights) -> Tensor:
    """The output of a network for one image, shape `(3, side, side)`."""
    styles = int(constant(drawing.ranges, "styles"))
    random = _Random(drawing.seed, int(drawing.indices[0]), drawing.device)

    def style(name: str) -> Tensor:
        return weights[f"{name} style"] @ leaky_relu(random.normal(f"{name} style", styles), 0.2) + 1

    def sampled(name: str, slot: str, *size: int) -> Tensor:
        return drawing.ranges[name].sample(random.uniform(slot, *size)).to(torch.float32)

    shared = None
    if recipe.noise == "shared":
        shared = _noise(recipe, "shared", 512, sampled("exponent", "shared exponent"), random)
    x = weights["start"][None]
    image = x.new_zeros(1, 3, _START // 2, _START // 2)
    for layer in layers:
        if layer.doubles:
            x = doubled(x)
        if recipe.kernels != "normal":
            x = conv2d(x, weights[f"{layer.name} kernel"], padding=1, groups=layer.inputs)
        x = modulated(x, weights[layer.name], style(layer.name))
        if recipe.noise != "none":
            if shared is None:
                noise = _noise(recipe, layer.name, layer.side, sampled("exponent", f"{layer.name} exponent"), random)
            else:
                noise = interpolate(shared[None, None], size=(layer.side, layer.side), mode="area")[0, 0]
            x.add_(noise * sampled("noise", f"{layer.name} strength"))
            x.add_(sampled("bias", f"{layer.name} bias", layer.outputs)[:, None, None])
        x.relu_().mul_(math.sqrt(2))
        if layer is layers[0] or not layer.doubles:
            name = f"{layer.name} colours"
            colours = random.normal(name, 3, layer.outputs) if recipe.new_colours else weights[name]
            part = modulated(x, colours[..., None, None] / math.sqrt(layer.outputs), style(name), demodulate=False)
            image = doubled(image) + part
    return image[0]


def _stylegan(recipe: Recipe, drawing: Drawing) -> Tensor:
    """Images one by one: a network does not depend on how many are asked for at once."""
    ranges, size = drawing.ranges, drawing.size
    sizes = int(constant(ranges, "channel_budget")), int(constant(ranges, "most_channels")), size
    styles, per_network = int(constant(ranges, "styles")), int(constant(ranges, "images_per_network"))
    fewest = int(constant(ranges, "fewest_kernels"))
    images = torch.empty(len(drawing.indices), 3, size, size, device=drawing.device)
    numbers = (drawing.indices // per_network).tolist()
    for row in sorted(range(len(numbers)), key=numbers.__getitem__):
        layers, weights = _network(recipe, sizes, styles, fewest, drawing.seed, numbers[row], drawing.device)
        one = Drawing(drawing.seed, drawing.indices[row : row + 1], size, ranges)
        with whole_convolutions():
            image = _synthesized(recipe, one, layers, weights)
        first = (image.shape[-1] - size) // 2
        image = image[:, first : first + size, first : first + size]
        images[row] = with_statistics(image, *_statistics(one))
    return images


def _statistics(drawing: Drawing) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the channels of one image."""
    ranges, z = drawing.ranges, drawing.normal("statistics", 2, 3)[0].to(torch.float32)

    def of_channels(name: str) -> Tensor:
        return z.new_tensor([constant(ranges, f"{name}_{channel}") for channel in _CHANNELS])

    mean = of_channels("mean") + of_channels("mean_spread") * z[0]
    return mean, (of_channels("deviation") + of_channels("deviation_spread") * z[1]).abs()


_PHOTOGRAPHS = {
    "mean": ("mean of the channel's means", (0.483, 0.455, 0.401)),
    "mean_spread": ("standard deviation of the channel's means", (0.145, 0.142, 0.162)),
    "deviation": ("mean of the channel's standard deviations", (0.219, 0.213, 0.213)),
    "deviation_spread": ("standard deviation of the channel's standard deviations", (0.063, 0.062, 0.069)),
}
"""Statistics of the channels of ImageNet's photographs, which the original sets its images to."""


def _set(name: str, description: str, recipe: Recipe, fewest_kernels: int, noise: float, bias: float) -> PatternSet:
    statistics = {
        f"{quantity}_{channel}": Constant(value, value, "", f"{channel}: {meaning}, over photographs", maximum=1.0)
        for quantity, (meaning, values) in _PHOTOGRAPHS.items()
        for channel, value in zip(_CHANNELS, values, strict=True)
    }
    ranges = {
        "images_per_network": Constant(400, 400, "", "neighbouring images of one network", integer=True, minimum=1),
        "channel_budget": Constant(32768, 32768, "", "channels times side in px", integer=True, minimum=1024),
        "most_channels": Constant(512, 512, "", "channels at most", integer=True, minimum=4),
        "styles": Constant(512, 512, "", "numbers that styles are made of", integer=True, minimum=1),
        "fewest_kernels": Constant(
            fewest_kernels,
            fewest_kernels,
            "",
            "kernels of 40 that a layer uses at least",
            integer=True,
            minimum=1,
            maximum=40,
        ),
        "noise": Range(0.0, noise, "", "standard deviation of the noise added to a layer"),
        "exponent": Range(0.5, 1.5, "", "a of the noise's magnitude spectrum 1 / f^a"),
        "bias": Range(-bias, bias, "", "added to a channel of a layer", minimum=-8),
        **statistics,
    }
    return PatternSet(name, description, _SOURCE, MappingProxyType(ranges), partial(_stylegan, recipe))


_SOURCE = (
    "Baradad et al. (2021), networks of Karras et al. (2020). Different here: noise is drawn anew for every image "
    "instead of from 100 maps per layer; kernels of a bank have norm 1, with a normal factor per pair of channels; "
    "interpolation instead of a filter that sees zeros beyond the edges; other sizes than powers of two are cropped."
)

STYLEGAN = (
    _set(
        "stylegan_random",
        "Untrained StyleGAN2 with normal weights.",
        Recipe("normal", noise="none", new_colours=False),
        fewest_kernels=40,
        noise=0.0,
        bias=0.0,
    ),
    _set(
        "stylegan_high_freq",
        "Untrained StyleGAN2 with kernels of edges, lines and spots, and pink noise.",
        Recipe("signs", noise="pink", new_colours=True),
        fewest_kernels=40,
        noise=0.3,
        bias=0.0,
    ),
    _set(
        "stylegan_sparse",
        "Untrained StyleGAN2 with few kinds of wavelets per layer, and pink noise in patches.",
        Recipe("waves", noise="patchy", new_colours=True),
        fewest_kernels=5,
        noise=0.3,
        bias=0.2,
    ),
    _set(
        "stylegan_oriented",
        "Untrained StyleGAN2 with few kinds of wavelets per layer, and one map of pink noise in all layers.",
        Recipe("waves", noise="shared", new_colours=True),
        fewest_kernels=5,
        noise=0.3,
        bias=0.2,
    ),
)
