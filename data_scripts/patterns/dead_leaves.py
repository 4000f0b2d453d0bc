"""Dead leaves: images filled with random shapes of one colour each that hide one another.

Made from the nearest leaf to the farthest until no pixel is left open (Kendall & Thönnes, "Perfect simulation in
stochastic geometry", 1999). Painted over one another until the cover is complete, as in the original code, the leaves
that happen to close it would be too large and lie on top.
"""

import math
from collections.abc import Callable, Mapping
from functools import lru_cache

import torch
from torch import Tensor

from audiopg.data_scripts.patterns.pattern_set import Drawing, PatternSet
from audiopg.data_scripts.patterns.statistical import RANGES_OF_COLOUR_AND_MARGINALS, spectrum_colour_wmm
from audiopg.data_scripts.synthesis import Choice, Range

SHAPES = ("circle", "square", "oriented square", "rectangle", "triangle", "quadrilateral")
_SOURCE = (
    'Baradad et al., "Learning to See by Looking at Noise" (2021). Theirs paint over one another until no pixel is '
    "black; these go from front to back, which has the distribution that the model means."
)
_FIRST_LEAVES = 384
"""Leaves that look at all their pixels. They hide some 99 % of the image; of those behind, only open pixels are asked."""
_LEAVES = 2048
"""Leaves that are drawn at first; doubled where they do not cover an image."""
_LEAVES_PER_ROUND = 128
_PIXELS_AT_ONCE = {"cpu": 1 << 17, "cuda": 1 << 25}
"""Elements of the largest temporary tensor: what fits into a cache, or keeps a GPU busy."""


@lru_cache(maxsize=8)
def _radius_table(low: float, high: float, exponent: float, steps: int) -> tuple[Tensor, Tensor]:
    """Radii in image sides, and the cumulative share of leaves up to each, in float64 on the CPU."""
    radii = torch.linspace(low, high, steps, dtype=torch.float64, device="cpu")
    weights = radii**-exponent - high**-exponent
    return radii, weights.cumsum(0) / weights.sum()


def _radii(drawing: Drawing, num_leaves: int) -> Tensor:
    """Radius of every leaf in whole pixels, 1 or more, int64, shape `(batch, leaves)`."""
    ranges = drawing.ranges
    radius, steps = ranges["radius"], int(ranges["radius_steps"].low)
    table = _radius_table(radius.low, radius.high, ranges["radius_exponent"].low, steps)
    radii, cumulative = (column.to(drawing.device) for column in table)
    chosen = torch.bucketize(drawing.uniform("radius", num_leaves), cumulative).clamp(max=steps - 1)
    return (radii[chosen] * drawing.size).long().clamp(min=1)


def _corners(drawing: Drawing, num_leaves: int) -> tuple[Tensor, Tensor]:
    """Shape of every leaf: a polygon whose corners lie on the leaf's circle, or the circle itself.

    Returns:
        Angles of four corners in rad, in order, two of them equal for a triangle, float64, shape
        `(batch, leaves, 4)`; and whether it is a circle, shape `(batch, leaves)`.
    """
    shape = drawing.sample("shape", num_leaves)[..., None]
    turn = drawing.uniform("turn", num_leaves)[..., None] * 2 * math.pi
    half = drawing.uniform("diagonal", num_leaves)[..., None] * math.pi / 2
    around = drawing.uniform("corner", num_leaves, 4) * 2 * math.pi
    quarters = torch.arange(4, device=drawing.device) * (math.pi / 2) + math.pi / 4
    corners = quarters + torch.where(shape == SHAPES.index("oriented square"), turn, 0.0)
    rectangle = torch.cat([half, math.pi - half, math.pi + half, 2 * math.pi - half], dim=2)
    corners = torch.where(shape == SHAPES.index("rectangle"), rectangle, corners)
    three = around[..., :3].sort(dim=2).values
    corners = torch.where(shape == SHAPES.index("triangle"), torch.cat([three, three[..., 2:]], dim=2), corners)
    corners = torch.where(shape == SHAPES.index("quadrilateral"), around.sort(dim=2).values, corners)
    return corners, shape[..., 0] == SHAPES.index("circle")


def _sides(corners: Tensor, is_circle: Tensor, radius: Tensor) -> Tensor:
    r"""What tells whether a pixel at (x, y) from the centre is inside: $a_k x + b_k y \le c_k$ for all four sides.

    A side between corners at angles $\alpha$ and $\beta$ has the normal $(\cos, \sin)((\alpha + \beta) / 2)$, at the
    distance $r \cos((\beta - \alpha) / 2)$ from the centre. A circle has no sides, and every leaf lies in its circle.

    Returns:
        $(a_k, b_k, c_k)$, float32, shape `(batch, leaves, 4, 3)`.
    """
    following = torch.cat([corners[..., 1:], corners[..., :1] + 2 * math.pi], dim=-1)
    normal, half = (corners + following) / 2, (following - corners) / 2
    distance = torch.where(is_circle[..., None], math.inf, radius[..., None] * half.cos())
    return torch.stack([normal.cos(), normal.sin(), distance], dim=-1).float()


def _is_inside(x: Tensor, y: Tensor, sides: Tensor, radius: Tensor) -> Tensor:
    """Whether pixels at (x, y) from the centre of a leaf belong to it; all broadcast, `sides` but for its last two."""
    outside = (x * x - radius * radius) + y * y
    for a, b, c in (side.unbind(-1) for side in sides.unbind(-2)):
        outside = torch.maximum(outside, (a * x - c) + b * y)
    return outside <= 0


class _Leaves:
    """The leaves of a batch of images, the nearest first: centres, radii and sides."""

    def __init__(self, drawing: Drawing, number: int):
        places = drawing.uniform("centre", number, 2) * drawing.size
        self.x, self.y = places.long().unbind(-1)
        self.radius = _radii(drawing, number)
        self.sides = _sides(*_corners(drawing, number), self.radius)


def _paint_first(nearest: Tensor, leaves: _Leaves) -> None:
    """Put the number of the nearest of the first leaves into every pixel, in windows just wide enough for a leaf."""
    size = nearest.shape[-1]
    radius = leaves.radius[:, :_FIRST_LEAVES]
    widths = [min(16 << step, size) for step in range(32) if 8 << step < size]
    wanted = torch.bucketize(2 * radius + 1, torch.tensor(widths[:-1], device=radius.device))
    for step, width in enumerate(widths):
        image, leaf = torch.nonzero(wanted == step, as_tuple=True)
        at_once = max(1, _PIXELS_AT_ONCE[nearest.device.type] // width**2)
        for images, numbers in zip(image.split(at_once), leaf.split(at_once), strict=True):
            _paint_windows(nearest, leaves, images, numbers, width)


def _paint_windows(nearest: Tensor, leaves: _Leaves, image: Tensor, leaf: Tensor, width: int) -> None:
    size = nearest.shape[-1]
    x, y = leaves.x[image, leaf], leaves.y[image, leaf]
    left, top = ((centre - width // 2).clamp(0, size - width) for centre in (x, y))
    steps = torch.arange(width, device=image.device)
    columns, rows = (left[:, None] + steps)[:, None, :], (top[:, None] + steps)[:, :, None]
    inside = _is_inside(
        (columns - x[:, None, None]).float(),
        (rows - y[:, None, None]).float(),
        leaves.sides[image, leaf][:, None, None],
        leaves.radius[image, leaf].float()[:, None, None],
    )
    pixels = (image[:, None, None] * size + rows) * size + columns
    numbers = leaf[:, None, None].expand_as(pixels)
    nearest.view(-1).scatter_reduce_(0, pixels[inside], numbers[inside], "amin")


def _open_behind(nearest: Tensor, leaves: _Leaves, first: int, none: int) -> None:
    """Put the number of the nearest leaf from number `first` on into every pixel that has none yet."""
    size, number = nearest.shape[-1], leaves.radius.shape[1]
    pixels = torch.nonzero(nearest.view(-1) == none).squeeze(1)
    for start in range(first, number, _LEAVES_PER_ROUND):
        if not len(pixels):
            return
        several = slice(start, start + _LEAVES_PER_ROUND)
        still_open = []
        for part in pixels.split(max(1, _PIXELS_AT_ONCE[nearest.device.type] // _LEAVES_PER_ROUND)):
            image = part // size**2
            row, column = (part // size % size)[:, None], (part % size)[:, None]
            inside = _is_inside(
                (column - leaves.x[image, several]).float(),
                (row - leaves.y[image, several]).float(),
                leaves.sides[image, several],
                leaves.radius[image, several].float(),
            )
            covered = inside.any(dim=1)
            nearest.view(-1)[part[covered]] = start + inside[covered].byte().argmax(dim=1)
            still_open.append(part[~covered])
        pixels = torch.cat(still_open)


def nearest_leaves(drawing: Drawing) -> tuple[Tensor, int]:
    """Which leaf every pixel shows.

    Args:
        drawing: Of a set of dead leaves.

    Returns:
        Numbers of leaves, 0 the nearest, int64, shape `(batch, size, size)`; and how many were drawn per image.

    Raises:
        ValueError: if 65 536 leaves do not cover an image.
    """
    number, first, none = _LEAVES, _FIRST_LEAVES, torch.iinfo(torch.int64).max
    nearest = torch.full((len(drawing.indices), drawing.size, drawing.size), none, device=drawing.device)
    leaves = _Leaves(drawing, number)
    _paint_first(nearest, leaves)
    _open_behind(nearest, leaves, first, none)
    while bool((nearest == none).any()):
        first, number = number, 2 * number
        if number > 1 << 16:
            raise ValueError(f"65 536 leaves leave a pixel open; enlarge radius, got {drawing.ranges['radius']}.")
        _open_behind(nearest, _Leaves(drawing, number), first, none)
    return nearest, number


def _coloured(drawing: Drawing) -> Tensor:
    nearest, number = nearest_leaves(drawing)
    colours = drawing.sample("colour", number, 3).float()
    batch = torch.arange(len(nearest), device=drawing.device)[:, None, None]
    return colours[batch, nearest].permute(0, 3, 1, 2).contiguous()


@lru_cache(maxsize=2)
def _textures(seed: int, number: int, size: int, device: str) -> Tensor:
    """Images of `spectrum_colour_wmm`, the same for all images of a seed; float32, shape `(number, size, size, 3)`."""
    ranges = RANGES_OF_COLOUR_AND_MARGINALS
    parts = [
        spectrum_colour_wmm(Drawing(seed, torch.tensor([index], device=device), size, ranges))
        for index in range(number)
    ]
    return torch.cat(parts).permute(0, 2, 3, 1).contiguous()


def _textured(drawing: Drawing) -> Tensor:
    size = drawing.size
    nearest, number = nearest_leaves(drawing)
    textures = _textures(drawing.seed, int(drawing.ranges["textures"].low), size, str(drawing.device))
    chosen = (drawing.uniform("texture", number) * len(textures)).long()
    shift = (drawing.uniform("texture_shift", number, 2) * size).long()
    batch, steps = torch.arange(len(nearest), device=drawing.device)[:, None, None], torch.arange(size).to(nearest)
    moved = shift[batch, nearest]
    rows, columns = (steps[:, None] + moved[..., 0]) % size, (steps + moved[..., 1]) % size
    flat = (chosen[batch, nearest] * size + rows) * size + columns
    return textures.view(-1, 3)[flat].permute(0, 3, 1, 2).contiguous()


def _ranges(*shapes: str) -> dict[str, Range | Choice]:
    return {
        "radius": Range(
            0.03, 1.0, "image sides", "radius of a leaf, of density r^-e less its value at the largest", minimum=0.002
        ),
        "radius_exponent": Range(3.0, 3.0, "", "e of the density of radii", maximum=10),
        "radius_steps": Range(200, 200, "", "radii that there are, equally far apart", integer=True, minimum=2),
        "shape": Choice(shapes, "", "what a leaf is; its corners lie on the circle of its radius", names=SHAPES),
        "colour": Range(0.0, 1.0, "", "red, green and blue of a leaf, each on its own", maximum=1.0),
    }


def _set(
    name: str, description: str, ranges: Mapping[str, Range | Choice], make: Callable[[Drawing], Tensor] = _coloured
) -> PatternSet:
    return PatternSet(f"dead_leaves_{name}", description, _SOURCE, ranges, make)


DEAD_LEAVES = (
    _set("squares", "Upright squares that hide one another.", _ranges("square")),
    _set("oriented", "Squares at any angle that hide one another.", _ranges("oriented square")),
    _set(
        "mixed", "Circles, squares, rectangles, triangles and quadrilaterals that hide one another.", _ranges(*SHAPES)
    ),
    PatternSet(
        "dead_leaves_textures",
        "Shapes that hide one another, each cut out of an image of spectrum_colour_wmm.",
        f"{_SOURCE} Theirs cut each leaf out of one of 10 000 images at its own place; these take fewer, kept in "
        "memory, and move them round by a random way, which their periodicity allows.",
        {
            **{name: distribution for name, distribution in _ranges(*SHAPES).items() if name != "colour"},
            "textures": Range(64, 64, "", "images that leaves are cut out of", integer=True, minimum=1, maximum=10000),
        },
        _textured,
    ),
)
