"""Dead leaves: images filled with random shapes of one colour each, painted over one another until no pixel is open.

Most leaves are hidden in the end, so none is painted: the few that are seen are found from the last one back.
"""

import math
from collections.abc import Callable, Mapping
from copy import copy
from functools import lru_cache, reduce

import torch
from torch import Tensor

from audiopg.data_scripts.patterns.catalogue import Constant, constant
from audiopg.data_scripts.patterns.pattern_set import Drawing, PatternSet, elements_at_once
from audiopg.data_scripts.patterns.statistical import RANGES_OF_COLOUR_AND_MARGINALS, spectrum_colour_wmm
from audiopg.data_scripts.synthesis import Choice, Range

SHAPES = ("circle", "square", "oriented square", "rectangle", "triangle", "quadrilateral")
_SOURCE = (
    'Baradad et al., "Learning to See by Looking at Noise" (2021). A pixel belongs to a leaf if its centre does, and '
    "leaves are painted until the cover is complete, however many that takes."
)
_FIRST_LEAVES = 384
"""Leaves that look at all their pixels. They hide some 99 % of an image; of the others, only open pixels are asked."""
_SMALLEST_WINDOW = 8
_NONE = torch.iinfo(torch.int64).max
_LEAVES = 2048
"""Leaves that are drawn at first; doubled where they do not cover an image."""
_MOST_LEAVES = 1 << 16
_LEAVES_PER_ROUND = 128


@lru_cache(maxsize=8)
def _radius_table(low: float, high: float, exponent: float, steps: int) -> tuple[Tensor, Tensor]:
    """Radii in image sides, and the cumulative share of leaves up to each, in float64 on the CPU."""
    radii = torch.linspace(low, high, steps, dtype=torch.float64, device="cpu")
    weights = radii**-exponent - high**-exponent
    return radii, weights.cumsum(0) / weights.sum()


def _radii(drawing: Drawing, num_leaves: int) -> Tensor:
    """Radius of every leaf in whole pixels, 1 or more, int64, shape `(batch, leaves)`."""
    ranges = drawing.ranges
    radius, steps = ranges["radius"], int(constant(ranges, "radius_steps"))
    table = _radius_table(radius.low, radius.high, constant(ranges, "radius_exponent"), steps)
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
    quarters = torch.arange(4, dtype=torch.float64, device=drawing.device) * (math.pi / 2) + math.pi / 4
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


def _is_inside(x: Tensor, y: Tensor, sides: Tensor) -> Tensor:
    """Whether pixels at (x, y) from the centre of a leaf lie within all its sides `(leaves, 4, 3)`; all broadcast."""
    shape = (-1, *[1] * (max(x.dim(), y.dim()) - 1))
    within = (
        (a.view(shape) * x - c.view(shape)) + b.view(shape) * y <= 0
        for a, b, c in (side.unbind(-1) for side in sides.unbind(-2))
    )
    return reduce(Tensor.logical_and_, within)


class _Leaves:
    """The leaves of a batch of images, the nearest first; everything of shape `(batch, leaves)` and float32.

    Attributes:
        x: Column of the centre.
        y: Its row.
        radius: Of the circle that the leaf lies in, in pixels.
        sides: See `_sides`.
        extent: How far it reaches horizontally or vertically, in pixels.
    """

    def __init__(self, drawing: Drawing, number: int):
        places = drawing.uniform("centre", number, 2) * drawing.size
        self.x, self.y = places.floor().float().unbind(-1)
        radius = _radii(drawing, number)
        corners, is_circle = _corners(drawing, number)
        reach = torch.maximum(corners.cos().abs(), corners.sin().abs()).amax(dim=-1)
        self.extent = (radius * torch.where(is_circle, 1.0, reach)).float()
        self.radius, self.sides = radius.float(), _sides(corners, is_circle, radius)

    def seen_from(self, last: Tensor) -> "_Leaves":
        """In the order from leaf number `last` of every image back to its first, which is repeated then."""
        order = (last[:, None] - torch.arange(self.radius.shape[1], device=last.device)).clamp(min=0)
        image = torch.arange(len(last), device=last.device)[:, None]
        turned = copy(self)
        for name, values in vars(self).items():
            setattr(turned, name, values[image, order])
        return turned


def _paint_first(nearest: Tensor, leaves: _Leaves) -> None:
    """Put the number of the nearest of the first leaves into every pixel, in windows just wide enough for a leaf."""
    size = nearest.shape[-1]
    wanted = 2 * leaves.extent[:, :_FIRST_LEAVES].floor() + 1
    widths = [round(_SMALLEST_WINDOW * 1.25**step) for step in range(64)]
    widths = [*(width for width in widths if width < size), size]
    step_of = torch.bucketize(wanted, torch.tensor(widths[:-1], device=nearest.device))
    for step, width in enumerate(widths):
        image, leaf = torch.nonzero(step_of == step, as_tuple=True)
        at_once = max(1, elements_at_once(nearest.device) // width**2)
        for images, numbers in zip(image.split(at_once), leaf.split(at_once), strict=True):
            _paint_windows(nearest, leaves, images, numbers, width)


def _paint_windows(nearest: Tensor, leaves: _Leaves, image: Tensor, leaf: Tensor, width: int) -> None:
    size = nearest.shape[-1]
    x, y, radius = leaves.x[image, leaf], leaves.y[image, leaf], leaves.radius[image, leaf]
    left, top = ((centre - width // 2).clamp(0, size - width) for centre in (x, y))
    steps = torch.arange(width, device=image.device)
    columns, rows = (left - x)[:, None, None] + steps, (top - y)[:, None, None] + steps[:, None]
    inside = columns * columns + rows * rows <= (radius * radius)[:, None, None]
    inside &= _is_inside(columns, rows, leaves.sides[image, leaf])
    corner = (image * size + top.long()) * size + left.long()
    pixels = (steps[:, None] * size + steps).flatten()
    which, place = torch.nonzero(inside.flatten(1), as_tuple=True)
    nearest.view(-1).scatter_reduce_(0, corner[which] + pixels[place], leaf[which], "amin")


def _fill_behind(nearest: Tensor, leaves: _Leaves, first: int) -> None:
    """Put the number of the nearest leaf from number `first` on into every pixel that has none yet."""
    size, number, flat = nearest.shape[-1], leaves.radius.shape[1], nearest.view(-1)
    pixels = torch.nonzero(flat == _NONE).squeeze(1)
    for start in range(first, number, _LEAVES_PER_ROUND):
        for part in pixels.split(max(1, elements_at_once(nearest.device) // _LEAVES_PER_ROUND)):
            _fill_pixels(flat, leaves, part, size, slice(start, min(start + _LEAVES_PER_ROUND, number)))
        pixels = pixels[flat[pixels] == _NONE]
        if not len(pixels):
            return


def _fill_pixels(flat: Tensor, leaves: _Leaves, pixels: Tensor, size: int, several: slice) -> None:
    """Ask each pixel for the leaves whose circle it lies in, and these alone for their sides."""
    image = pixels // size**2
    row, column = (pixels // size % size).float(), (pixels % size).float()
    x, y, radius = (
        values[:, several].contiguous().index_select(0, image) for values in (leaves.x, leaves.y, leaves.radius)
    )
    near = (column[:, None] - x).square_() + (row[:, None] - y).square_() <= radius.square_()
    which, leaf = torch.nonzero(near, as_tuple=True)
    x, y = column[which] - x[which, leaf], row[which] - y[which, leaf]
    leaf = leaf + several.start
    inside = _is_inside(x, y, leaves.sides[image[which], leaf])
    flat.scatter_reduce_(0, pixels[which[inside]], leaf[inside], "amin")


def _first_leaves(drawing: Drawing) -> tuple[Tensor, _Leaves]:
    """Of every pixel the number of the first leaf that it lies in, int64, shape `(batch, size, size)`; and the leaves.

    Raises:
        ValueError: if 65 536 leaves, the most that can be drawn, do not cover an image.
    """
    number, done = _LEAVES, _FIRST_LEAVES
    first = torch.full((len(drawing.indices), drawing.size, drawing.size), _NONE, device=drawing.device)
    leaves = _Leaves(drawing, number)
    _paint_first(first, leaves)
    _fill_behind(first, leaves, done)
    while bool((first == _NONE).any()):
        done, number = number, 2 * number
        if number > _MOST_LEAVES:
            raise ValueError(f"{done} leaves leave a pixel open; enlarge radius, got {drawing.ranges['radius']}.")
        leaves = _Leaves(drawing, number)
        _fill_behind(first, leaves, done)
    return first, leaves


def visible_leaves(drawing: Drawing) -> tuple[Tensor, int]:
    """Which leaf every pixel shows: of those painted until no pixel is left open, the last that it lies in.

    The first leaves of all pixels tell which leaf closes the cover; seen from that one, the visible leaf of a pixel is
    again the first that it lies in.

    Args:
        drawing: Of a set of dead leaves.

    Returns:
        Numbers of leaves in the order of painting, int64, shape `(batch, size, size)`; and how many there may be.

    Raises:
        ValueError: if 65 536 leaves, the most that can be drawn, do not cover an image.
    """
    first, leaves = _first_leaves(drawing)
    last, number = first.flatten(1).amax(dim=1), leaves.radius.shape[1]
    leaves = leaves.seen_from(last)
    nearest = first.fill_(_NONE)
    _paint_first(nearest, leaves)
    _fill_behind(nearest, leaves, _FIRST_LEAVES)
    return last[:, None, None] - nearest, number


def _coloured(drawing: Drawing) -> Tensor:
    nearest, number = visible_leaves(drawing)
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
    nearest, number = visible_leaves(drawing)
    textures = _textures(drawing.seed, int(constant(drawing.ranges, "textures")), size, str(drawing.device))
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
        "radius_exponent": Constant(3.0, 3.0, "", "e of the density of radii", maximum=10),
        "radius_steps": Constant(200, 200, "", "radii that there are, equally far apart", integer=True, minimum=2),
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
            "textures": Constant(
                64, 64, "", "images that leaves are cut out of", integer=True, minimum=1, maximum=10000
            ),
        },
        _textured,
    ),
)
