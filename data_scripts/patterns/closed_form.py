"""Patterns that are one formula of the place: gradient noise, 1/f noise, zone plates and plane waves."""

import math

import torch
from torch import Tensor

from audiopg.data_scripts.counter_random import white_noise
from audiopg.data_scripts.patterns.pattern_set import Drawing, PatternSet
from audiopg.data_scripts.patterns.statistical import frequencies, impose_magnitude
from audiopg.data_scripts.synthesis import Choice, Range

_CELLS_PER_PIXEL = 4
"""Of the finest lattice along a side at most: with more than one, gradient noise is white already."""
WAVES = ("plane wave", "circular", "elliptic", "hyperbolic")


def _stretched(channels: Tensor) -> Tensor:
    """Every channel of every image from 0, its smallest value, to 1, its largest."""
    low, high = channels.amin(dim=(2, 3), keepdim=True), channels.amax(dim=(2, 3), keepdim=True)
    return (channels - low).div_(high - low)


def gradient_noise(y: Tensor, x: Tensor, gradients: Tensor) -> Tensor:
    r"""Perlin's noise on a grid of places (Perlin, "Improving Noise", 2002), as two matrix products.

    Each point (i, j) of the lattice adds its slope times a window:
    $\sum_{ij} w(y - i)\, w(x - j)\, (g^y_{ij} (y - i) + g^x_{ij} (x - j))$ with
    $w(t) = 1 - (6 |t|^5 - 15 t^4 + 10 |t|^3)$ where $|t| < 1$. On a grid both windows depend on one coordinate alone.

    Args:
        y: Vertical places, from 0 to the last row of the lattice, float32, shape `(batch, 1, height)`.
        x: Horizontal places, shape `(batch, 1, width)`.
        gradients: $g^y$ and $g^x$, shape `(2, batch, channels, rows, columns)`.

    Returns:
        float32, shape `(batch, channels, height, width)`.

    Example:
        >>> slope = torch.stack([torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)])
        >>> gradient_noise(torch.zeros(1, 1, 1), torch.tensor([[[0.0, 0.25, 1.0]]]), slope).flatten().tolist()
        [0.0, 0.146484375, 0.0]
    """
    rows, columns = gradients.shape[-2:]
    down, down_sloped = _windows(y, rows)
    across, across_sloped = _windows(x, columns)
    return down_sloped @ gradients[0] @ across.mT + down @ gradients[1] @ across_sloped.mT


def _windows(place: Tensor, points: int) -> tuple[Tensor, Tensor]:
    """The window of every point at every place, and the window times the distance, shape `(.., places, points)`."""
    distance = place[..., None] - torch.arange(points, device=place.device)
    t = distance.abs().clamp(max=1)
    window = 1 - t**3 * (t * (6 * t - 15) + 10)
    return window, window * distance


def _octave(drawing: Drawing, octave: int) -> Tensor:
    """Gradient noise of one lattice, shape `(batch, 3, size, size)`."""
    ranges, size = drawing.ranges, drawing.size
    scale = (drawing.sample("cells") * drawing.sample("lacunarity") ** octave).float()
    points = math.ceil(ranges["cells"].high * ranges["lacunarity"].high ** octave) + 2
    pixels = (torch.arange(size, device=drawing.device) + 0.5) / size
    shift = drawing.uniform(f"shift_{octave}", 2).float()
    y, x = (pixels * scale[:, None] + shift[:, axis, None] for axis in (0, 1))
    angle = math.pi * white_noise(drawing.keys(f"gradient_{octave}"), 3 * points**2).view(-1, 3, points, points)
    return gradient_noise(y[:, None], x[:, None], torch.stack([angle.sin(), angle.cos()]))


def _check_lattices(drawing: Drawing) -> None:
    """Refuse lattices that would not fit into memory, and show nothing.

    Raises:
        ValueError: if the finest that may be drawn has more than four cells per pixel along a side.
    """
    cells, lacunarity, octaves = (drawing.ranges[name].high for name in ("cells", "lacunarity", "octaves"))
    finest = cells * lacunarity ** (octaves - 1)
    if finest > _CELLS_PER_PIXEL * drawing.size:
        raise ValueError(
            f"cells * lacunarity^(octaves - 1), the cells of the finest lattice, are {_CELLS_PER_PIXEL} per pixel at "
            f"most, {_CELLS_PER_PIXEL * drawing.size} at a size of {drawing.size}; got {finest:g}. Lower one of the "
            "three, or enlarge the images."
        )


def _perlin(drawing: Drawing) -> Tensor:
    _check_lattices(drawing)
    octaves, gain = drawing.sample("octaves"), drawing.sample("gain").float()
    channels = torch.zeros(len(octaves), 3, drawing.size, drawing.size, device=drawing.device)
    for octave in range(int(drawing.ranges["octaves"].high)):
        images = torch.nonzero(octaves > octave).squeeze(1)
        if len(images):
            noise = _octave(drawing.of(images), octave)
            channels.index_add_(0, images, noise.mul_(gain[images, None, None, None] ** octave))
    return _stretched(channels)


def _power_law(drawing: Drawing) -> Tensor:
    size = drawing.size
    fy, fx = frequencies(size, drawing.device)
    radius = torch.hypot(fy, fx.expand(size, -1))
    radius[0, 0] = 1  # frequency 0 is left out in any case
    magnitude = radius ** -drawing.sample("exponent").float()[:, None, None, None]
    noise = white_noise(drawing.keys("noise"), 3 * size**2).view(-1, 3, size, size)
    return _stretched(impose_magnitude(noise, magnitude))


def wave_phase(drawing: Drawing) -> Tensor:
    r"""Phase of every pixel's wave, in cycles: $\phi = u\,(f + \frac{1}{2} (c_u u, c_v v))\dots$; see `zone_plates`.

    With (u, v) the place in pixels from the wave's centre, turned by its angle: $f u + (c_u u^2 + c_v v^2) / 2$, where
    f is in cycles per pixel and the c in cycles per pixel^2. A plane wave has c = 0, the others f = 0; $c_v$ is
    $c_u$ (circular), a share of it (elliptic), or minus a share of it (hyperbolic).

    Args:
        drawing: Of the set `zone_plates`.

    Returns:
        float32, shape `(batch, size, size)`.
    """
    size, kind = drawing.size, drawing.sample("wave")[:, None, None]

    def each(name: str) -> Tensor:
        return drawing.sample(name).float()[:, None, None]

    def is_kind(name: str) -> Tensor:
        return kind == WAVES.index(name)

    pixels = torch.arange(size, device=drawing.device) + 0.5
    x, y = pixels - each("centre_x") * size, pixels[:, None] - each("centre_y") * size
    angle = 2 * math.pi * each("angle")
    u, v = angle.cos() * x + angle.sin() * y, angle.cos() * y - angle.sin() * x
    frequency, share = each("frequency"), each("share")
    curvature = frequency / (each("reach") * size)
    ratio = torch.where(is_kind("elliptic"), share, torch.where(is_kind("hyperbolic"), -share, 1.0))
    curved = curvature / 2 * (u * u + ratio * v * v)
    return torch.where(is_kind("plane wave"), frequency * u, curved)


def _zone_plates(drawing: Drawing) -> Tensor:
    """Every channel `1/2 + contrast / 2 * cos(2 pi (phase + its own))`."""
    own, contrast = (drawing.sample(name, 3).float()[..., None, None] for name in ("colour_phase", "contrast"))
    return 0.5 + contrast / 2 * torch.cos(2 * math.pi * (wave_phase(drawing)[:, None] + own))


_PERLIN_SOURCE = (
    'Perlin, "Improving Noise" (2002): unit gradients, a fade of degree 5; every colour channel on its own, stretched '
    "from 0 to 1."
)


def _perlin_ranges(octaves: tuple[int, int]) -> dict[str, Range | Choice]:
    return {
        "cells": Range(2, 8, "per image side", "cells of the coarsest lattice", minimum=0.5, maximum=64),
        "octaves": Range(*octaves, "", "lattices that are added up", integer=True, minimum=1, maximum=8),
        "gain": Range(0.5, 0.5, "", "amplitude of an octave over that of the one below", maximum=2),
        "lacunarity": Range(2.0, 2.0, "", "cells of an octave over those of the one below", minimum=1, maximum=4),
    }


CLOSED_FORM = (
    PatternSet(
        "perlin",
        "Gradient noise of one scale.",
        _PERLIN_SOURCE,
        _perlin_ranges((1, 1)),
        _perlin,
    ),
    PatternSet(
        "fbm",
        "Gradient noise of several scales, finer ones fainter.",
        _PERLIN_SOURCE,
        _perlin_ranges((2, 5)),
        _perlin,
    ),
    PatternSet(
        "power_law",
        "Noise whose amplitudes fall as a power of the radial frequency.",
        "1 / f^a noise, shaped in the Fourier domain; every colour channel on its own, stretched from 0 to 1.",
        {"exponent": Range(0.5, 3.0, "", "a: amplitudes fall as 1 / f^a", maximum=10.0)},
        _power_law,
    ),
    PatternSet(
        "zone_plates",
        "Waves whose frequency is constant, or grows with the distance from a centre.",
        "Fresnel's zone plates, with ellipses, hyperbolas and plane waves beside; each channel has its own phase.",
        {
            "wave": Choice(WAVES, "", "shape of the lines of equal phase", names=WAVES),
            "frequency": Range(
                0.01, 0.15, "cycles/px", "frequency of a plane wave, of the others at the reach", maximum=0.5
            ),
            "reach": Range(0.5, 1.5, "image sides", "distance from the centre at which it is reached", minimum=0.05),
            "centre_x": Range(-0.25, 1.25, "image sides", "horizontal place of the centre", minimum=-10, maximum=10),
            "centre_y": Range(-0.25, 1.25, "image sides", "vertical place of the centre", minimum=-10, maximum=10),
            "angle": Range(0.0, 1.0, "turns", "direction of the wave", maximum=1.0),
            "share": Range(0.1, 0.9, "", "curvature across over along, of ellipses and hyperbolas", maximum=1.0),
            "colour_phase": Range(0.0, 1.0, "cycles", "phase of each colour channel", maximum=1.0),
            "contrast": Range(0.3, 1.0, "", "largest less smallest value of each colour channel", maximum=1.0),
        },
        _zone_plates,
        labels=lambda drawing: drawing.sample("wave"),
        num_classes=len(WAVES),
        class_name="wave",
    ),
)
