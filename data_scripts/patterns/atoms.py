r"""Atoms: closed polylines that drift outward from an ellipse, line by line, each in a gray of its own.

A line has V vertices at the angles $\theta_v = 2 \pi v / V$. From each line to the next every vertex moves by
$-\cos(\theta_v) (\nu_{xv} - w)$ and $-\sin(\theta_v) (\nu_{yv} - w)$ with
$\nu = \lambda (p - 1) - \frac{1}{2} \sin(n_1 \theta) - \frac{1}{2} \sin(n_2 \theta)$ and random p: outward by
about $\lambda$ px. Later lines are painted over earlier ones.
"""

import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from audiopg.data_scripts.counter_random import white_noise
from audiopg.data_scripts.patterns.catalogue import Constant, class_constants, class_range, constant, labels
from audiopg.data_scripts.patterns.pattern_set import Drawing, PatternSet
from audiopg.data_scripts.synthesis import Choice, Range

_LEVELS = 1 << 16


@lru_cache(maxsize=4)
def _perlin_quantiles(device: torch.device) -> Tensor:
    """65 536 quantiles of the value of one-dimensional Perlin noise at a place far from all others.

    It is 0.4 times the mix, by a quintic fade of f, of $g_0 f$ and $g_1 (f - 1)$; f is uniform, and a gradient g is -1
    with probability 1/2 and one of 1, ..., 8 otherwise. Mean 0, standard deviation 0.32.
    """
    f = (torch.arange(4096, dtype=torch.float64) + 0.5) / 4096
    fade = f**3 * (f * (6 * f - 15) + 10)
    gradients = torch.tensor([-1.0, *range(1, 9)], dtype=torch.float64)
    weights = torch.tensor([0.5, *[1 / 16] * 8], dtype=torch.float64)
    start, end = gradients[:, None, None] * f, gradients[None, :, None] * (f - 1)
    values, order = (0.4 * (start + fade * (end - start))).flatten().sort()
    mass = (weights[:, None, None] * weights[None, :, None]).expand(9, 9, 4096).flatten()[order].cumsum(0)
    wanted = (torch.arange(_LEVELS, dtype=torch.float64) + 0.5) / _LEVELS
    chosen = torch.searchsorted(mass / mass[-1], wanted).clamp(max=len(values) - 1)
    return values[chosen].to(torch.float32).to(device)


def perlin_values(keys: Tensor, count: int) -> Tensor:
    """Values of one-dimensional Perlin noise at places far apart: independent numbers of its distribution.

    Args:
        keys: 64 random bits per row, int64, shape `(batch,)`.
        count: How many.

    Returns:
        float32, shape `(batch, count)`.

    Example:
        >>> from audiopg.data_scripts.counter_random import random_bits
        >>> p = perlin_values(random_bits(0, torch.arange(1), "p"), 100_000)
        >>> round(p.mean().item(), 2), round(p.std().item(), 2)
        (0.0, 0.32)
    """
    level = white_noise(keys, count).add_(1.0).mul_(_LEVELS / 2).to(torch.int32)
    return _perlin_quantiles(keys.device).index_select(0, level.flatten()).view_as(level)


def polylines(
    centre: Tensor, radius: Tensor, oval: Tensor, drift: Tensor, waves: Tensor, shift: Tensor, noise: Tensor
) -> Tensor:
    """Vertices of all lines of an atom.

    Args:
        centre: x and y in px, shape `(2,)`.
        radius: Of the ellipse to start from, in px, shape `()`.
        oval: Factors on it along x and y, shape `(2,)`.
        drift: The factor of the noise in px, shape `()`.
        waves: Numbers of periods of the two sines around the atom, shape `(2,)`; without them, shape `(0,)`.
        shift: Added to every step outward, in px, shape `()`.
        noise: p of every line, axis and vertex, shape `(lines, 2, vertices)`.

    Returns:
        float32, shape `(lines, 2, vertices)`.
    """
    vertices = noise.shape[-1]
    theta = torch.arange(vertices, device=noise.device) * (2 * torch.pi / vertices)
    circle = torch.stack([torch.cos(theta), torch.sin(theta)])
    ripple = 0.5 * torch.sin(waves[:, None] * theta).sum(0) + shift
    step = circle * (drift * (1 - noise) + ripple)
    return (centre[:, None] + radius * oval[:, None] * circle + step.cumsum(0)).to(torch.float32)


def painted(vertices: Tensor, side: int) -> Tensor:
    """Draw closed polylines of 1 px without smoothing, later ones over earlier ones.

    A segment between the pixels of two vertices has as many pixels as its longer axis, plus one. Segments that lie
    beyond an edge of the picture are left out first.

    Args:
        vertices: In px, shape `(lines, 2, vertices)`: x, y.
        side: Of the picture in pixels.

    Returns:
        Which line each pixel shows, from 1 on, 0 for none; int32, shape `(side, side)`.
    """
    lines, _, count = vertices.shape
    start = vertices.to(torch.int32)  # towards zero: the pixel that drawing libraries take
    end = start.roll(-1, dims=2)
    visible = ((torch.maximum(start, end) >= 0) & (torch.minimum(start, end) < side)).all(1)
    line = torch.arange(1, lines + 1, dtype=torch.int32, device=start.device)[:, None].expand(lines, count)[visible]
    start, end = start.transpose(0, 1)[:, visible], end.transpose(0, 1)[:, visible]
    delta = end - start
    longest = delta.abs().amax(0)
    slope = delta / longest.clamp(min=1)
    # Bresenham's rule: a tie goes away from the start. The quarter of a step keeps rounding from deciding otherwise.
    half = torch.copysign(0.5 + 0.25 / longest.clamp(min=1), slope)
    length = longest + 1
    segment = torch.repeat_interleave(torch.arange(len(length), device=start.device), length)
    first = length.cumsum(0) - length
    place = torch.arange(len(segment), device=start.device) - first[segment]
    x, y = (
        torch.addcmul(half[axis, segment], slope[axis, segment], place).trunc_().to(torch.int64) + start[axis, segment]
        for axis in (0, 1)
    )
    inside = (x >= 0) & (x < side) & (y >= 0) & (y < side)
    canvas = torch.zeros(side * side, dtype=torch.int32, device=start.device)
    canvas.scatter_reduce_(0, (y * side + x)[inside], line[segment[inside]], "amax")
    return canvas.view(side, side)


def _drawn(part: Drawing, vertices: Tensor, background: float) -> Tensor:
    """One atom in grays, shape `(3, size, size)`."""
    side, size = int(constant(part.ranges, "canvas")), part.size
    gray = part.sample("gray", len(vertices))[0].to(torch.float32) / 255
    palette = torch.cat([gray.new_full((1,), background), gray])
    image = palette.index_select(0, painted(vertices, side).flatten()).view(1, 1, side, side)
    if side != size:
        image = interpolate(image, size=(size, size), mode="bilinear", antialias=True)
    return image[0].clamp_(0, 1).repeat(3, 1, 1)


def first_that_differs(drawn: Tensor, other: Tensor) -> Tensor:
    """Of several draws the first that is not equal to another number; the first of all where that number is 0.

    Args:
        drawn: Whole numbers, shape `(batch, draws)`.
        other: Shape `(batch,)`.

    Example:
        >>> first_that_differs(torch.tensor([[3, 3, 5], [3, 3, 5], [0, 1, 2]]), torch.tensor([3, 4, 0])).tolist()
        [5, 3, 0]
    """
    may = (drawn != other[:, None]) | (other[:, None] == 0)
    return drawn.gather(1, may.to(torch.int64).argmax(1, keepdim=True))[:, 0]


def atom_lines(drawing: Drawing) -> Iterator[Tensor]:
    """Vertices of each image of VisualAtom in turn, shape `(lines, 2, vertices)` in px of the canvas."""
    ranges, classes = drawing.ranges, labels(drawing)
    counts = [class_constants(ranges, classes, name).tolist() for name in ("lines", "vertices")]
    drift, shift, radius, first = (class_constants(ranges, classes, n) for n in ("drift", "shift", "radius", "waves"))
    # Eight draws out of 21 numbers: all of them equal the first once in 4e10 classes.
    waves = torch.stack([first, first_that_differs(class_constants(ranges, classes, "other_waves", 8), first)], 1)
    oval, centre = class_constants(ranges, classes, "oval", 2), _centres(drawing)
    for row, noise in enumerate(_noise(drawing, *counts)):
        yield polylines(centre[row], radius[row], oval[row], drift[row], waves[row], shift[row], noise)


def circle_lines(drawing: Drawing) -> Iterator[Tensor]:
    """Vertices of each image of RCDB in turn, shape `(lines, 2, vertices)` in px of the canvas."""
    ranges, classes = drawing.ranges, labels(drawing)
    counts = [class_constants(ranges, classes, "lines").tolist(), exponential_vertices(ranges, classes).tolist()]
    drift, shift = (class_constants(ranges, classes, name) for name in ("drift", "shift"))
    radius, oval, centre = drawing.sample("radius"), drawing.sample("oval", 2), _centres(drawing)
    waves = oval.new_zeros(0)
    for row, noise in enumerate(_noise(drawing, *counts)):
        yield polylines(centre[row], radius[row], oval[row], drift[row], waves, shift[row], 2 * noise)


def exponential_vertices(ranges: Mapping[str, Range | Choice], classes: Tensor) -> Tensor:
    """Numbers of vertices: an exponential distribution within the limits, rounded down; int64, shape `(batch,)`."""
    mean, share = constant(ranges, "mean_vertices"), class_constants(ranges, classes, "vertex_share")
    fewest, most = constant(ranges, "fewest_vertices"), constant(ranges, "most_vertices")
    above, below = math.exp(-fewest / mean), math.exp(-(most + 1) / mean)
    return (-mean * torch.log(above - share * (above - below))).to(torch.int64).clamp(int(fewest), int(most))


def _noise(drawing: Drawing, lines: list[int], vertices: list[int]) -> Iterator[Tensor]:
    for key, rows, columns in zip(drawing.keys("noise").split(1), lines, vertices, strict=True):
        yield perlin_values(key, rows * 2 * columns).view(rows, 2, columns)


def _centres(drawing: Drawing) -> Tensor:
    return (constant(drawing.ranges, "canvas") + drawing.sample("centre", 2)) / 2


def _images(drawing: Drawing, lines: Iterator[Tensor], background: float) -> Tensor:
    """Image after image: each costs what its own lines and vertices cost, so that none waits for the largest."""
    parts = (Drawing(drawing.seed, one, drawing.size, drawing.ranges) for one in drawing.indices.split(1))
    return torch.stack([_drawn(part, vertices, background) for part, vertices in zip(parts, lines, strict=True)])


_COMMON = {
    "lines": Range(1, 200, "", "lines of a class, one around the other", integer=True, minimum=1, maximum=4096),
    "drift": Range(0.0, 4.0, "px", "mean way outward from line to line of a class: lambda"),
    "shift": Range(0.0, 0.1, "px", "added to the way outward of a class: w"),
    "oval": Range(1.0, 2.0, "", "factors on the radius along x and y"),
    "canvas": Constant(512, 512, "px", "side of the picture before it is resized", integer=True, minimum=32),
}

VISUALATOM = PatternSet(
    name="visualatom",
    description="Closed wavy lines around one another that drift outward, in grays on black.",
    source=(
        "VisualAtom-1k (Takashima et al., 2023). Different here: the noise is drawn from its distribution (theirs is "
        "read at places far apart), and pictures of 512 px are resized. Nothing is capped: images are made one by "
        "one, without the segments beyond the edges."
    ),
    ranges=MappingProxyType(
        {
            "class": class_range(1000, "atom"),
            "vertices": Range(200, 1000, "", "vertices of a line of a class", integer=True, minimum=3, maximum=8192),
            "radius": Range(10, 60, "px", "radius of the first line of a class, before the ovalness", integer=True),
            "waves": Range(0, 20, "", "periods of the first sine around the atom of a class", integer=True),
            "other_waves": Range(0, 20, "", "of the second; another number, unless both are 0", integer=True),
            "centre": Range(
                -512, 512, "px", "twice the way from the middle of the picture", integer=True, minimum=-4096
            ),
            "gray": Range(0, 255, "1/255", "gray of a line", integer=True, maximum=255),
            **_COMMON,
        }
    ),
    make=lambda drawing: _images(drawing, atom_lines(drawing), background=0.0),
    labels=labels,
    num_classes=1000,
    class_name="atom",
)

RCDB = PatternSet(
    name="rcdb",
    description="Closed jagged lines around one another that drift outward, in grays on white.",
    source=(
        "RCDB-1k, radial contours (Kataoka et al., 2022). Different here: the noise is drawn from its distribution, "
        "and pictures of 512 px are resized."
    ),
    ranges=MappingProxyType(
        {
            "class": class_range(1000, "contour"),
            "vertex_share": Range(0.0, 1.0, "", "quantile of the number of vertices of a class", maximum=1.0),
            "mean_vertices": Constant(100, 100, "", "of the exponential distribution of vertices", minimum=1),
            "fewest_vertices": Constant(3, 3, "", "of a line", integer=True, minimum=3),
            "most_vertices": Constant(200, 200, "", "of a line", integer=True, minimum=3, maximum=8192),
            "radius": Range(0, 100, "px", "radius of the first line of an image, before the ovalness", integer=True),
            "centre": Range(
                -400, 400, "px", "twice the way from the middle of the picture", integer=True, minimum=-4096
            ),
            "gray": Range(0, 255, "1/255", "gray of a line", integer=True, maximum=255),
            **_COMMON,
        }
    ),
    make=lambda drawing: _images(drawing, circle_lines(drawing), background=1.0),
    labels=labels,
    num_classes=1000,
    class_name="contour",
)

ATOMS = (VISUALATOM, RCDB)
