r"""Fractals of iterated function systems: FractalDB's, and contractive ones.

An iterated function system is a handful of affine maps $x \mapsto A_k x + t_k$, each picked with a probability $p_k$;
the points that a random sequence of them visits make up its attractor. Instead of one long sequence we follow
many short ones side by side, and leave out their beginnings. The random sequences are the same for all images, as in
the published code: what differs is the maps.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cache, lru_cache
from types import MappingProxyType
from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d

from audiopg.data_scripts.counter_random import uniform, white_noise
from audiopg.data_scripts.patterns.catalogue import (
    CATALOGUE_SEED,
    Constant,
    class_constants,
    class_range,
    constant,
    labels,
)
from audiopg.data_scripts.patterns.pattern_set import Drawing, PatternSet
from audiopg.data_scripts.synthesis import Choice, Range

_CANDIDATES = 32
"""How many candidates of a category are looked at together: no influence on which is found."""
_CHUNK = 8
"""Images that are made together: their points stay in the caches. No influence on them."""
MAX_CANDIDATES = 1 << 20


class Category(NamedTuple):
    r"""A fractal of FractalDB, and its variations.

    Args:
        systems: Coefficients of the maps of every variation that contracts, the unvaried one first, shape
            `(variations, maps, 6)`: $x' = a x + b y + e,\; y' = c x + d y + f$.
        cumulative: Sums of the probabilities of the maps, shape `(maps,)`.
        candidate: Which of the candidates it is.
    """

    systems: Tensor
    cumulative: Tensor
    candidate: int


@lru_cache(maxsize=8)
def _choices(steps: int, chains: int, device: torch.device) -> Tensor:
    """The uniform numbers that pick the maps, of every image alike, shape `(steps, chains)`."""
    index = torch.zeros(1, dtype=torch.int64, device=device)
    return uniform(CATALOGUE_SEED, index, "choice", (steps, chains))[0].to(torch.float32)


def cumulative_probabilities(maps: Tensor, used: Tensor) -> Tensor:
    r"""Running sums of $p_k = |a_k d_k - b_k c_k| / \sum_j |a_j d_j - b_j c_j|$ over the maps that are used.

    Args:
        maps: Shape `(batch, maps, 6)`.
        used: Which maps exist, bool, shape `(batch, maps)`.

    Returns:
        Shape `(batch, maps)`, 1 from the last used map on.

    Example:
        >>> maps = torch.tensor([[[1.0, 0, 0, 1, 0, 0], [1, 0, 0, 3, 0, 0]]])
        >>> cumulative_probabilities(maps, torch.tensor([[True, True]])).tolist()
        [[0.25, 1.0]]
    """
    area = (maps[..., 0] * maps[..., 3] - maps[..., 1] * maps[..., 2]).abs() * used
    return area.cumsum(-1) / area.sum(-1, keepdim=True)


def _picked(maps: Tensor, cumulative: Tensor, steps: int, chains: int) -> Tensor:
    """Coefficients of the maps that the sequences pick, shape `(6, steps, batch, chains)`."""
    batch, num_maps = cumulative.shape
    u = _choices(steps, chains, maps.device)[:, None]
    which = torch.zeros(steps, batch, chains, dtype=torch.int32, device=maps.device)
    for edge in cumulative[:, :-1].unbind(1):
        which += u >= edge[:, None]
    which += torch.arange(batch, dtype=torch.int32, device=maps.device)[:, None] * num_maps
    table = maps.flatten(0, 1).t().contiguous()
    return table.index_select(1, which.flatten()).view(6, steps, batch, chains)


def orbits(maps: Tensor, cumulative: Tensor, chains: int, steps: int, burn_in: int) -> tuple[Tensor, Tensor]:
    """Points of attractors, by the chaos game: sequences of maps in random order, from the origin.

    Args:
        maps: float32, shape `(batch, maps, 6)`.
        cumulative: Sums of their probabilities, shape `(batch, maps)`.
        chains: Sequences that are followed side by side.
        steps: Points of each that count.
        burn_in: Points of each before those, which are left out.

    Returns:
        x and y, shape `(batch, steps * chains)`, in the order of time.

    Example:
        >>> shrink = torch.tensor([[[0.5, 0, 0, 0.5, 1, 2]]])
        >>> x, y = orbits(shrink, torch.ones(1, 1), chains=3, steps=2, burn_in=30)
        >>> x.tolist(), y[0, 0].item()
        ([[2.0, 2.0, 2.0, 2.0, 2.0, 2.0]], 4.0)
    """
    a, b, c, d, e, f = _picked(maps, cumulative, burn_in + steps, chains)
    x, y = torch.zeros_like(e[0]), torch.zeros_like(f[0])
    xs, ys = [], []
    for step in range(burn_in + steps):
        x, y = (
            torch.addcmul(torch.addcmul(e[step], a[step], x), b[step], y),
            torch.addcmul(torch.addcmul(f[step], c[step], x), d[step], y),
        )
        if step >= burn_in:
            xs.append(x)
            ys.append(y)
    return torch.cat(xs, 1), torch.cat(ys, 1)


def lyapunov_exponents(maps: Tensor, cumulative: Tensor, chains: int, steps: int, burn_in: int) -> Tensor:
    r"""Top Lyapunov exponents: means over sequences of $\frac{1}{n} \log \lVert A_{k_n} \cdots A_{k_1} v \rVert$.

    Below zero, two points come closer to each other by the same maps, so an attractor exists (Barnsley & Elton, 1988).

    Args:
        maps: As in `orbits`.
        cumulative: As in `orbits`.
        chains: As in `orbits`.
        steps: Factors that count.
        burn_in: Factors before those, in which v finds its direction.

    Returns:
        Per step, shape `(batch,)`.

    Example:
        >>> halves = torch.tensor([[[0.5, 0, 0, 0.5, 0, 0]]])
        >>> round(lyapunov_exponents(halves, torch.ones(1, 1), 4, 10, 5).exp().item(), 3)
        0.5
    """
    a, b, c, d, _, _ = _picked(maps, cumulative, burn_in + steps, chains)
    x, y = torch.ones_like(a[0]), torch.zeros_like(a[0])
    growth = torch.zeros_like(a[0])
    for step in range(burn_in + steps):
        x, y = a[step] * x + b[step] * y, c[step] * x + d[step] * y
        length = torch.hypot(x, y).clamp(min=torch.finfo(x.dtype).tiny)
        x, y = x / length, y / length
        if step >= burn_in:
            growth += length.log()
    return growth.mean(-1) / steps


def cells(x: Tensor, y: Tensor, side: int, padding: int) -> Tensor:
    """Pixels of points, each axis stretched from its smallest to its largest coordinate.

    Args:
        x: Shape `(batch, points)`.
        y: Likewise.
        side: Of the canvas, in pixels.
        padding: Pixels at each edge that stay free.

    Returns:
        `row * side + column`, int64, shape `(batch, points)`; rows count y from the bottom.
    """

    def scaled(coordinate: Tensor) -> Tensor:
        low, high = coordinate.aminmax(dim=1, keepdim=True)
        factor = (side - 2 * padding) / (high - low).clamp(min=torch.finfo(x.dtype).tiny)
        return ((coordinate - low) * factor + padding).to(torch.int64).clamp_(0, side - 1)

    return (side - 1 - scaled(y)) * side + scaled(x)


def coverage(maps: Tensor, cumulative: Tensor, chains: int, steps: int, burn_in: int, side: int) -> Tensor:
    """FractalDB's filling rate: the share of a canvas's pixels that points fall on, shape `(batch,)`."""
    x, y = orbits(maps, cumulative, chains, steps, burn_in)
    hit = torch.zeros(len(x), side * side, dtype=torch.bool, device=x.device)
    hit.scatter_(1, cells(x, y, side, padding=6), True)
    return torch.stack([row.count_nonzero() for row in hit]) / side**2  # ten times as fast as along an axis


def _most_maps(ranges: Mapping[str, Range | Choice]) -> int:
    most = ranges["num_maps"]
    return int(most.high if isinstance(most, Range) else max(most.values))


def _candidates(ranges: Mapping[str, Range | Choice], number: int, first: int) -> tuple[Tensor, Tensor]:
    """Maps and cumulative probabilities of `_CANDIDATES` candidates of a category."""
    indices = number * MAX_CANDIDATES + first + torch.arange(_CANDIDATES)
    most = _most_maps(ranges)
    used = torch.arange(most) < class_constants(ranges, indices, "num_maps")[:, None]
    maps = class_constants(ranges, indices, "coefficient", most, 6)
    return maps.to(torch.float32), cumulative_probabilities(maps, used).to(torch.float32)


def variations(maps: Tensor, factors: tuple[float, ...]) -> Tensor:
    """A system and its variations: one of six coefficients times one factor, in all maps; shape `(25, maps, 6)`."""
    weights = torch.ones(1 + 6 * len(factors), 6)
    for row in range(6 * len(factors)):
        weights[1 + row, row // len(factors)] = factors[row % len(factors)]
    return maps * weights[:, None]


@cache
def _find(number: int, items: tuple[tuple[str, Range | Choice], ...]) -> Category:
    ranges = dict(items)
    least_coverage, factors = constant(ranges, "least_coverage"), cast(Choice, ranges["weight"]).values
    exponent = {"chains": 256, "steps": 40, "burn_in": 10}
    for first in range(0, MAX_CANDIDATES, _CANDIDATES):
        maps, cumulative = _candidates(ranges, number, first)
        sketch = coverage(maps, cumulative, chains=500, steps=20, burn_in=20, side=512)
        wanted = constant(ranges, "least_sketch") * 10_000 / 512**2
        for row in (sketch >= wanted).nonzero()[:, 0].tolist():
            one, sums = maps[row : row + 1], cumulative[row : row + 1]
            if lyapunov_exponents(one, sums, **exponent) >= 0:
                continue
            if coverage(one, sums, chains=1000, steps=100, burn_in=20, side=512) < least_coverage:
                continue
            systems = variations(maps[row], factors)
            contracts = lyapunov_exponents(systems, sums.expand(len(systems), -1), **exponent) < 0
            return Category(systems[contracts], sums[0], first + row)
    raise ValueError(
        f"None of {MAX_CANDIDATES} systems of maps covers {least_coverage} of the pixels; lower least_coverage."
    )


def category(ranges: Mapping[str, Range | Choice], number: int) -> Category:
    """The fractal of a number: the first of its candidates that contracts on average and fills the picture.

    A candidate is a system of maps drawn from (category, candidate). It is tested in three steps, from the cheapest:
    enough different pixels among its first 10 000 points, a top Lyapunov exponent below zero, and the coverage by
    100 000 points. Searched when it is first asked for, and kept: some 60 ms on one core, a minute for all 1 000.

    Args:
        ranges: Of the set.
        number: Of the category, from 0 on.

    Raises:
        ValueError: if no candidate passes.
    """
    names = ("num_maps", "coefficient", "least_sketch", "least_coverage", "weight")
    return _find(number, tuple((name, ranges[name]) for name in names))


def stamped(x: Tensor, y: Tensor, bits: Tensor, side: int, padding: int) -> Tensor:
    """Draw points as stamps of 3 x 3 random bits, later ones over earlier ones, their zeros included.

    What a pixel shows is the stamp of the last point in the 3 x 3 pixels around it.

    Args:
        x: Shape `(batch, points)`, in the order of time.
        y: Likewise.
        bits: A stamp of 9 bits for every point, int64, shape `(batch, points)`; bit `3 * row + column`.
        side: Of the canvas, in pixels.
        padding: Pixels at each edge that no point lies in.

    Returns:
        Bits, float32, shape `(batch, 1, side, side)`.
    """
    batch, points = x.shape
    order = torch.arange(1, points + 1, device=x.device, dtype=torch.float32).expand(batch, points)
    last = torch.zeros(batch, side * side, device=x.device)
    last.scatter_reduce_(1, cells(x, y, side, padding), order, "amax")
    last, centre = max_pool2d(last.view(batch, 1, side, side), 3, stride=1, padding=1, return_indices=True)
    rows = torch.arange(side, device=x.device)
    bit = 3 * (rows[:, None] - centre // side + 1) + rows - centre % side + 1
    stamps = bits.gather(1, (last.view(batch, -1) - 1).clamp_(min=0).to(torch.int64)).view_as(bit)
    return ((stamps >> bit.clamp_(0, 8)) & 1).to(torch.float32).mul_(last > 0)


def _flipped(images: Tensor, code: Tensor) -> Tensor:
    """Each image left to right where bit 0 of its code is set, upside down where bit 1 is."""
    images = torch.where((code & 1).bool()[:, None, None, None], images.flip(3), images)
    return torch.where((code >> 1).bool()[:, None, None, None], images.flip(2), images)


def _in_chunks(drawing: Drawing, make: Callable[[Drawing], Tensor]) -> Tensor:
    """Make the images a few at a time."""
    parts = [Drawing(drawing.seed, part, drawing.size, drawing.ranges) for part in drawing.indices.split(_CHUNK)]
    return torch.cat([make(part) for part in parts])


def _whole(ranges: Mapping[str, Range | Choice], *names: str) -> Iterator[int]:
    """Constants that are whole numbers."""
    return (int(constant(ranges, name)) for name in names)


def fractaldb_canvas(drawing: Drawing) -> Tensor:
    """The images as FractalDB draws them, before they are resized: shape `(batch, 1, canvas, canvas)`."""
    ranges = drawing.ranges
    found = [category(ranges, number) for number in labels(drawing).tolist()]
    which = [int(u * len(one.systems)) for u, one in zip(drawing.uniform("weight").tolist(), found, strict=True)]
    maps = torch.stack([one.systems[row] for one, row in zip(found, which, strict=True)]).to(drawing.device)
    cumulative = torch.stack([one.cumulative for one in found]).to(drawing.device)
    chains, steps, burn_in, side, padding = _whole(ranges, "chains", "steps", "burn_in", "canvas", "padding")
    x, y = orbits(maps, cumulative, chains, steps, burn_in)
    noise = white_noise(drawing.keys("stamp"), chains * steps)
    bits = ((noise + 1) * 2**15).to(torch.int64) % 511 + 1
    image = stamped(x, y, bits, side, padding).mul_(constant(ranges, "level"))
    return _flipped(image, drawing.sample("flip"))


def _resized(images: Tensor, size: int) -> Tensor:
    """Gray images at the size asked for, low-passed before they are made smaller, on three channels."""
    if images.shape[-1] != size:
        images = interpolate(images, size=(size, size), mode="bilinear", antialias=True)
    return images.clamp_(0, 1).repeat(1, 3, 1, 1)


def _fractaldb(drawing: Drawing) -> Tensor:
    return _in_chunks(drawing, lambda part: _resized(fractaldb_canvas(part), part.size))


FRACTALDB = PatternSet(
    name="fractaldb",
    description="Attractors of random affine maps, drawn point by point with stamps of random bits, in gray on black.",
    source=(
        "FractalDB-1k (Kataoka et al., 2020), patch rendering in gray. Different here: systems whose top Lyapunov "
        "exponent is not negative are rejected, variations too (FractalDB cuts sequences that overflow); "
        "2 000 sequences of 100 points after 20 that are left out, instead of one of 200 000."
    ),
    ranges=MappingProxyType(
        {
            "class": class_range(1000, "category of the fractal"),
            "num_maps": Range(2, 7, "", "maps of a category", integer=True, minimum=1),
            "coefficient": Range(
                -1.0, 1.0, "", "each of the six numbers of a map of a category", minimum=-8, maximum=8
            ),
            "least_sketch": Constant(0.9, 0.9, "", "different pixels per point of the first 10 000", maximum=1.0),
            "least_coverage": Constant(
                0.2, 0.2, "", "share of 512 x 512 pixels that 100 000 points cover", maximum=1.0
            ),
            "weight": Choice((0.2, 0.6, 1.4, 1.8), "", "factor on one of the coefficients, in all maps: a variation"),
            "chains": Constant(2000, 2000, "", "sequences of points of an image", integer=True, minimum=1),
            "steps": Constant(100, 100, "", "points of a sequence", integer=True, minimum=1),
            "burn_in": Constant(20, 20, "", "points at the beginning of a sequence that are left out", integer=True),
            "canvas": Constant(362, 362, "px", "side of the picture before it is resized", integer=True, minimum=32),
            "padding": Constant(6, 6, "px", "edge of the picture that stays free", integer=True, minimum=2),
            "level": Constant(127 / 255, 127 / 255, "", "gray of a set bit", maximum=1.0),
            "flip": Range(0, 3, "", "1: left to right, 2: upside down, 3: both", integer=True, maximum=3),
        }
    ),
    make=_fractaldb,
    labels=labels,
    num_classes=1000,
    class_name="fractal",
)


def singular_values(budget: Tensor, shares: Tensor, splits: Tensor, used: Tensor) -> tuple[Tensor, Tensor]:
    r"""Singular values $1 \ge \sigma_1 \ge \sigma_2 \ge 0$ of maps with $\sum_k (\sigma_{k1} + 2 \sigma_{k2}) = q$.

    Map by map, $m_k = \sigma_{k1} + 2 \sigma_{k2}$ is uniform among what leaves 0 to 3 for each map after it, and
    $\sigma_{k1}$ uniform in $[m_k / 3, \min(1, m_k)]$.

    Args:
        budget: q, shape `(batch,)`, at most 3 per map.
        shares: Uniform numbers, shape `(batch, maps)`.
        splits: Uniform numbers, likewise.
        used: Which maps exist, bool, likewise, those first that do.

    Returns:
        Both values, shape `(batch, maps)`; zeros for maps that do not exist.
    """
    left = budget.clone()
    first, second = torch.zeros_like(shares), torch.zeros_like(shares)
    for k in range(shares.shape[1]):
        after = 3.0 * used[:, k + 1 :].sum(1)
        low, high = (left - after).clamp(min=0.0), left.clamp(max=3.0)
        amount = (low + (high - low) * shares[:, k]) * used[:, k]
        first[:, k] = amount / 3 + (amount.clamp(max=1.0) - amount / 3) * splits[:, k]
        second[:, k] = (amount - first[:, k]) / 2
        left = left - amount
    return first, second


def _rotations(angle: Tensor) -> Tensor:
    cos, sin = torch.cos(angle), torch.sin(angle)
    return torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)


def contractive_maps(drawing: Drawing) -> tuple[Tensor, Tensor]:
    r"""Maps $A = R(\theta_1) \, \mathrm{diag}(\pm \sigma_1, \pm \sigma_2) \, R(\theta_2)$ and their probabilities.

    Returns:
        Maps, float32, shape `(batch, maps, 6)`; running sums of probabilities, shape `(batch, maps)`.
    """
    ranges, classes = drawing.ranges, labels(drawing)
    most = _most_maps(ranges)

    def constants(name: str, *size: int) -> Tensor:
        return class_constants(ranges, classes, name, *size)

    count = constants("num_maps")
    used = torch.arange(most, device=drawing.device) < count[:, None]
    budget = (5 + constants("budget") + count) / 2
    sizes = torch.stack(singular_values(budget, constants("share", most), constants("split", most), used), -1)
    angles = constants("angle", most, 2) + drawing.sample("turn", most, 2)
    signs = 1.0 - 2 * constants("reflected", most, 2)
    linear = _rotations(angles[..., 0]) * (sizes * signs)[..., None, :] @ _rotations(angles[..., 1])
    shift = constants("translation", most, 2) + drawing.sample("shift", most, 2)
    maps = torch.cat([linear.flatten(2), shift], -1)
    return maps.to(torch.float32), cumulative_probabilities(maps, used).to(torch.float32)


def _ifs_part(drawing: Drawing) -> Tensor:
    ranges, size = drawing.ranges, drawing.size
    x, y = orbits(*contractive_maps(drawing), *_whole(ranges, "chains", "steps", "burn_in"))
    where = cells(x, y, size, padding=round(size * constant(ranges, "padding")))
    hits = torch.zeros(len(x), size * size, device=x.device).scatter_add_(1, where, torch.ones_like(x))
    hits = torch.log1p(hits)
    image = (hits / hits.amax(1, keepdim=True)).view(-1, 1, size, size)
    return _flipped(image, drawing.sample("flip")).repeat(1, 3, 1, 1)


IFS = PatternSet(
    name="ifs",
    description="Attractors of affine maps that all contract, drawn by how often each pixel is hit.",
    source=(
        "Anderson & Farrell (2022), with singular values drawn one map after the other within what their sum allows. "
        "Ours: the gray is the logarithm of one plus the hits over its largest value; angles and shifts of the maps "
        "vary from image to image."
    ),
    ranges=MappingProxyType(
        {
            "class": class_range(1000, "system of maps"),
            "num_maps": Range(2, 8, "", "maps of a class", integer=True, minimum=2),
            "budget": Range(0.0, 1.0, "", "2 q - 5 - maps, with q the sum of the maps' s1 + 2 s2", maximum=1.0),
            "share": Range(0.0, 1.0, "", "place of a map's s1 + 2 s2 within what its sum allows", maximum=1.0),
            "split": Range(0.0, 1.0, "", "place of s1 within what s1 + 2 s2 allows", maximum=1.0),
            "angle": Range(-torch.pi, torch.pi, "rad", "both rotations of a map of a class", minimum=-7, maximum=7),
            "reflected": Range(0, 1, "", "whether an axis of a map is reflected", integer=True, maximum=1),
            "translation": Range(-1.0, 1.0, "", "where a map of a class takes the origin", minimum=-8, maximum=8),
            "turn": Range(-0.15, 0.15, "rad", "added to a rotation in one image", minimum=-7, maximum=7),
            "shift": Range(-0.1, 0.1, "", "added to a translation in one image", minimum=-8, maximum=8),
            "chains": Constant(2000, 2000, "", "sequences of points of an image", integer=True, minimum=1),
            "steps": Constant(80, 80, "", "points of a sequence", integer=True, minimum=1),
            "burn_in": Constant(20, 20, "", "points at the beginning of a sequence that are left out", integer=True),
            "padding": Constant(0.02, 0.02, "sizes", "edge of the image that stays free", maximum=0.4),
            "flip": Range(0, 3, "", "1: left to right, 2: upside down, 3: both", integer=True, maximum=3),
        }
    ),
    make=lambda drawing: _in_chunks(drawing, _ifs_part),
    labels=labels,
    num_classes=1000,
    class_name="system",
)

FRACTALS = (FRACTALDB, IFS)
