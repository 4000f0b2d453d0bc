r"""Shaders: a thousand small programs that colour a plane, each a picture at every moment of its time.

A program is a chain: coordinates $p \in [-1, 1]^2$, y upward, are zoomed and turned; a few rounds fold, warp, turn or
tile them; one or two fields make a number v of them; a cosine palette makes a colour of v (Quilez):
$\mathrm{RGB} = a + b \cos(2 \pi (f v + d))$. Which rounds and fields, and every constant, follow from the program's
number. Images of a batch are computed together round by round, those with the same operation in one go.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from audiopg.data_scripts.counter_random import random_bits, white_noise
from audiopg.data_scripts.patterns.catalogue import CATALOGUE_SEED, class_constants, class_range, labels
from audiopg.data_scripts.patterns.pattern_set import Drawing, PatternSet
from audiopg.data_scripts.synthesis import Choice, Range

_CHUNK, _CHUNK_OF_CPU = 256, 8
"""Images that are computed together: what keeps a GPU busy, or fits into a cache. No influence on them."""

Constants = Mapping[str, Tensor]
"""Constants of a few programs by name, shape `(programs, ..., 1, 1)`: they broadcast over pixels from the right."""
Point = tuple[Tensor, Tensor]
"""x and y of every pixel, float32, shape `(programs, size, size)`."""


def turned(x: Tensor, y: Tensor, angle: Tensor) -> Point:
    """Points turned by an angle in rad, counterclockwise."""
    cos, sin = torch.cos(angle), torch.sin(angle)
    return cos * x - sin * y, sin * x + cos * y


def tiled(coordinate: Tensor, side: Tensor) -> Tensor:
    """Mirrored tiling: a triangle wave between `-side` and `side` that is the identity there."""
    return (torch.remainder(coordinate + side, 4 * side) - 2 * side).abs_().neg_().add_(side)


def _fold(x: Tensor, y: Tensor, c: Constants) -> Point:
    r"""Kaleidoscopic fold, $|p| / (p \cdot p) - c$ with $c = 0.9 + 0.4 \cos(0.2 t)$, bounded near the origin."""
    inverse = (x * x).addcmul_(y, y).clamp_(min=0.04).reciprocal_()
    centre = 0.9 + 0.4 * torch.cos(0.2 * c["time"] + c["phase"])
    return x.abs().mul_(inverse).sub_(centre), y.abs().mul_(inverse).sub_(centre)


def _warp(x: Tensor, y: Tensor, c: Constants) -> Point:
    r"""Domain warp, $p + a \sin(k p_{yx} + t)$."""
    moved = c["time"] + c["phase"]
    new_x = torch.sin(c["warp_waves"] * y + moved).mul_(c["warp_size"]).add_(x)
    return new_x, torch.sin(c["warp_waves"] * x + 1.3 * moved).mul_(c["warp_size"]).add_(y)


def _turn(x: Tensor, y: Tensor, c: Constants) -> Point:
    return turned(x, y, c["phase"] + c["turn_speed"] * c["time"])


def _tile(x: Tensor, y: Tensor, c: Constants) -> Point:
    shift = 0.3 * torch.sin(0.5 * c["time"] + c["phase"])
    return tiled(x + shift, c["tile"]), tiled(y - shift, c["tile"])


def _sectors(x: Tensor, y: Tensor, c: Constants) -> Point:
    """Mirrors through the origin: the angle folded into one of n sectors."""
    radius, half = torch.hypot(x, y), torch.pi / c["sectors"]
    angle = tiled(torch.atan2(y, x) + c["turn_speed"] * c["time"], half / 2)
    return radius * torch.cos(angle), radius * torch.sin(angle)


def _swirl(x: Tensor, y: Tensor, c: Constants) -> Point:
    """A turn that grows with the distance from the origin."""
    return turned(x, y, c["swirl"] * torch.hypot(x, y) + c["turn_speed"] * c["time"])


def _log_polar(x: Tensor, y: Tensor, c: Constants) -> Point:
    """Logarithm of the distance, moving in time, and the angle, mirrored where it would jump."""
    radius = (x * x).addcmul_(y, y).add_(0.01).log_().mul_(0.5)
    return radius.sub_(0.3 * c["time"]), torch.atan2(y, x).abs_().mul_(c["sectors"] / torch.pi)


ROUNDS: Mapping[str, Callable[[Tensor, Tensor, Constants], Point]] = {
    "fold": _fold,
    "warp": _warp,
    "turn": _turn,
    "tile": _tile,
    "sectors": _sectors,
    "swirl": _swirl,
    "log polar": _log_polar,
}
"""What a round does to coordinates, by name."""


@lru_cache(maxsize=2)
def _noise_tile(device: torch.device) -> Tensor:
    """Smooth noise between about -1 and 1, cells of 16 px, shape `(1, 1, 512, 512)`: one for all programs."""
    key = random_bits(CATALOGUE_SEED, torch.zeros(1, dtype=torch.int64), "noise")
    values = white_noise(key, 32 * 32).view(1, 1, 32, 32)
    return interpolate(values, size=(512, 512), mode="bicubic").to(device)


def _noise_at(x: Tensor, y: Tensor) -> Tensor:
    """The noise tile, mirrored again and again, at points in cells."""
    grid = torch.stack([x, y], -1).mul_(1 / 16)
    tile = _noise_tile(x.device).expand(len(x), -1, -1, -1)
    return grid_sample(tile, grid, padding_mode="reflection", align_corners=True)[:, 0]


def _plane_waves(x: Tensor, y: Tensor, c: Constants) -> Tensor:
    value = torch.zeros_like(x)
    for j in range(c["wave_x"].shape[1]):
        phase = c["speed"][:, j] * c["time"] + c["phase"]
        value += torch.sin((c["wave_x"][:, j] * x).add_(c["wave_y"][:, j] * y).add_(phase))
    return value.mul_(0.5)


def _radial_waves(x: Tensor, y: Tensor, c: Constants) -> Tensor:
    value = torch.zeros_like(x)
    for j in range(3):
        distance = torch.hypot(x - c["site_x"][:, j], y - c["site_y"][:, j])
        value += torch.cos(distance.mul_(c["waves"]).sub_(c["speed"][:, j] * c["time"]))
    return value.mul_(0.5)


def _fractal_noise(x: Tensor, y: Tensor, c: Constants) -> Tensor:
    """Four octaves of noise, each turned against the one before."""
    value, gain = torch.zeros_like(x), 1.0
    x, y = c["cells"] * x + 0.2 * c["time"], c["cells"] * y + c["phase"]
    for _ in range(4):
        value.add_(_noise_at(x, y), alpha=gain)
        x, y, gain = 1.6 * x - 1.2 * y + 5, 1.2 * x + 1.6 * y, gain / 2
    return value


def _cell_distance(x: Tensor, y: Tensor, c: Constants) -> Tensor:
    """Distance to the nearest of a few sites that move on circles: the Voronoi diagram's cells."""
    nearest = torch.full_like(x, torch.inf)
    for j in range(c["site_x"].shape[1]):
        angle = c["speed"][:, j] * c["time"]
        across = x - (c["site_x"][:, j] + 0.2 * torch.cos(angle))
        along = y - (c["site_y"][:, j] + 0.2 * torch.sin(angle))
        torch.minimum(nearest, across.square_().addcmul_(along, along), out=nearest)
    return nearest.sqrt_().mul_(2.0)


def _bands(x: Tensor, y: Tensor, c: Constants) -> Tensor:
    """Waves of the signed distance to a rounded box: contours that go outward."""
    across, along = x.abs() - c["box_x"], y.abs() - c["box_y"]
    outside = torch.hypot(across.clamp(min=0), along.clamp(min=0))
    distance = torch.maximum(across, along).clamp_(max=0).add_(outside)
    return torch.sin(distance.mul_(c["waves"]).sub_(c["time"])).mul_(0.7)


def _julia(x: Tensor, y: Tensor, c: Constants) -> Tensor:
    """Mean of $e^{-|z|}$ over 16 steps of $z^2 + c$: a smooth count of the steps before z escapes."""
    angle = c["phase"] + 0.1 * c["time"]
    real, imaginary = 0.7885 * torch.cos(angle), 0.7885 * torch.sin(angle)
    value = torch.zeros_like(x)
    for _ in range(16):
        x, y = (
            (x * x).addcmul_(y, y, value=-1).add_(real).clamp_(-3, 3),
            (x * y).mul_(2).add_(imaginary).clamp_(-3, 3),
        )
        value += torch.hypot(x, y).neg_().exp_()
    return value.mul_(1 / 8)


def _zone_plate(x: Tensor, y: Tensor, c: Constants) -> Tensor:
    r"""$\cos(k r^2 - t)$ around a moving centre."""
    x, y = x - 0.5 * c["site_x"][:, 0], y - 0.5 * c["site_y"][:, 0]
    return torch.cos((x * x).addcmul_(y, y).mul_(c["waves"]).sub_(c["time"])).mul_(0.7)


def _checker(x: Tensor, y: Tensor, c: Constants) -> Tensor:
    """A product of two waves with steepened slopes."""
    value = torch.sin((c["waves"] * x).add_(0.5 * c["time"])).mul_(torch.sin((c["waves"] * y).add_(c["phase"])))
    return value.mul_(c["steepness"]).tanh_().mul_(0.7)


def _orbit(x: Tensor, y: Tensor, c: Constants) -> Tensor:
    """How near the origin comes to five kaleidoscopic folds of a point."""
    value = torch.zeros_like(x)
    for _ in range(5):
        x, y = _fold(x, y, c)
        value += torch.hypot(x, y).mul_(-c["decay"]).exp_()
    return value.mul_(0.6)


FIELDS: Mapping[str, Callable[[Tensor, Tensor, Constants], Tensor]] = {
    "plane waves": _plane_waves,
    "radial waves": _radial_waves,
    "fractal noise": _fractal_noise,
    "cell distance": _cell_distance,
    "bands": _bands,
    "julia": _julia,
    "zone plate": _zone_plate,
    "checker": _checker,
    "orbit": _orbit,
}
"""What makes a number of coordinates, by name; about -1 to 1."""


def palette(value: Tensor, centre: Tensor, reach: Tensor, periods: Tensor, shift: Tensor) -> Tensor:
    r"""A cosine palette, $\mathrm{RGB} = a + b \cos(2 \pi (f v + d))$, within [0, 1].

    Args:
        value: v, shape `(batch, size, size)`.
        centre: a of each channel, shape `(batch, 3, 1, 1)`.
        reach: b, likewise.
        periods: f, likewise.
        shift: d, likewise.

    Returns:
        Shape `(batch, 3, size, size)`.

    Example:
        >>> half = torch.full((1, 3, 1, 1), 0.5)
        >>> palette(torch.tensor([[[0.0, 0.5]]]), half, half, 2 * half, 0 * half)[0, 0].tolist()
        [[1.0, 0.0]]
    """
    angle = (periods * value[:, None]).add_(shift).mul_(2 * torch.pi)
    return angle.cos_().mul_(reach).add_(centre).clamp_(0, 1)


_NUM_ROUNDS, _NUM_FIELDS, _SITES, _WAVES = 4, 2, 10, 4
_PER_ROUND = ("phase", "warp_size", "warp_waves", "turn_speed", "tile", "sectors", "swirl")
_PER_FIELD = ("phase", "waves", "cells", "box_x", "box_y", "steepness", "decay")
_SIZES = {"wave_x": _WAVES, "wave_y": _WAVES, "site_x": _SITES, "site_y": _SITES, "speed": _SITES}
_COLOURS = ("centre", "reach", "periods", "shift")


def _rows_by_kind(kinds: Sequence[int], device: torch.device) -> dict[int, Tensor]:
    found: dict[int, list[int]] = {}
    for row, kind in enumerate(kinds):
        found.setdefault(kind, []).append(row)
    return {kind: torch.tensor(rows, device=device) for kind, rows in found.items()}


def _programs(drawing: Drawing) -> dict[str, Tensor]:
    """All constants of the programs of all images, float32 on the device, and the time of each image."""
    ranges, classes, size = drawing.ranges, labels(drawing), max(_NUM_ROUNDS, _NUM_FIELDS)

    def drawn(name: str, *shape: int) -> Tensor:
        return class_constants(ranges, classes, name, *shape).to(torch.float32)[..., None, None]

    constants = {name: drawn(name, size) for name in {*_PER_ROUND, *_PER_FIELD}}
    constants |= {name: drawn(name, size, count) for name, count in _SIZES.items()}
    constants |= {name: drawn(name, 3) for name in _COLOURS}
    constants |= {name: drawn(name) for name in ("zoom", "tilt", "pan_x", "pan_y", "second_weight")}
    counts = {"num_rounds": (), "round": (_NUM_ROUNDS,), "field": (_NUM_FIELDS,)}
    constants |= {name: class_constants(ranges, classes, name, *shape) for name, shape in counts.items()}
    return constants | {"time": drawing.sample("time").to(torch.float32)[:, None, None]}


def _plane(size: int, device: torch.device) -> Point:
    """Centres of the pixels in [-1, 1], y upward, shape `(1, size, size)`."""
    middle = (torch.arange(size, device=device, dtype=torch.float32) + 0.5) * (2 / size) - 1
    y, x = torch.meshgrid(-middle, middle, indexing="ij")
    return x[None], y[None]


def _colours(programs: Mapping[str, Tensor], size: int) -> Tensor:
    """Images of a few programs."""
    time, device = programs["time"], programs["time"].device
    x, y = turned(*_plane(size, device), programs["tilt"])
    x, y = (x * programs["zoom"]).add_(programs["pan_x"]), (y * programs["zoom"]).add_(programs["pan_y"])

    def constants(names: Sequence[str], rows: Tensor, place: int) -> dict[str, Tensor]:
        return {"time": time[rows], **{name: programs[name][rows, place] for name in names}}

    exists = torch.arange(_NUM_ROUNDS, device=device) < programs["num_rounds"][:, None]
    kinds = torch.where(exists, programs["round"], -1).T.tolist()
    for place, row_kinds in enumerate(kinds):
        for kind, rows in _rows_by_kind(row_kinds, device).items():
            if kind >= 0:
                x[rows], y[rows] = _ROUNDS[kind](x[rows], y[rows], constants(_PER_ROUND, rows, place))
    value = torch.zeros_like(x)
    weights = torch.cat([torch.ones_like(time), programs["second_weight"]], 1)
    for place, row_kinds in enumerate(programs["field"].T.tolist()):
        for kind, rows in _rows_by_kind(row_kinds, device).items():
            field = _FIELDS[kind](x[rows], y[rows], constants((*_PER_FIELD, *_SIZES), rows, place))
            value[rows] += field.mul_(weights[rows, place, :, None])
    return palette(value, *(programs[name] for name in _COLOURS))


def _shaders(drawing: Drawing) -> Tensor:
    programs = _programs(drawing)
    chunk = _CHUNK_OF_CPU if drawing.device.type == "cpu" else _CHUNK
    chunks = torch.arange(len(drawing.indices), device=drawing.device).split(chunk)
    parts = ({name: value[rows] for name, value in programs.items()} for rows in chunks)
    return torch.cat([_colours(part, drawing.size) for part in parts])


_ROUNDS, _FIELDS = tuple(ROUNDS.values()), tuple(FIELDS.values())

SHADERS = PatternSet(
    name="shaders",
    description="Programs that fold, warp and tile a plane, and colour waves, noise, cells or fractals on it.",
    source=(
        "In the manner of Shaders1k (Baradad et al., 2022), whose code is not public: a family of our own of 1 000 "
        "fixed programs; images of a program differ by their time alone. Without ray marching."
    ),
    ranges=MappingProxyType(
        {
            "class": class_range(1000, "program"),
            "time": Range(0.1, 10.0, "s", "moment of an image"),
            "zoom": Range(0.6, 1.8, "", "half of the picture's side in the plane"),
            "tilt": Range(-torch.pi, torch.pi, "rad", "turn of the picture", minimum=-7, maximum=7),
            "pan_x": Range(-0.5, 0.5, "", "middle of the picture in the plane", minimum=-64),
            "pan_y": Range(-0.5, 0.5, "", "middle of the picture in the plane", minimum=-64),
            "num_rounds": Range(0, _NUM_ROUNDS, "", "rounds of a program", integer=True, maximum=_NUM_ROUNDS),
            "round": Choice(tuple(ROUNDS), "", "what a round does to coordinates", names=tuple(ROUNDS)),
            "field": Choice(tuple(FIELDS), "", "what makes a number of coordinates", names=tuple(FIELDS)),
            "second_weight": Range(0.0, 0.6, "", "weight of the second field"),
            "phase": Range(0.0, 2 * torch.pi, "rad", "beginning of what moves", maximum=7),
            "turn_speed": Range(-0.5, 0.5, "rad/s", "speed of what turns", minimum=-64),
            "speed": Range(-2.0, 2.0, "rad/s", "speed of waves and sites", minimum=-64),
            "warp_size": Range(0.05, 0.4, "", "amplitude of a warp"),
            "warp_waves": Range(1.0, 5.0, "rad", "frequency of a warp over the plane's unit"),
            "tile": Range(0.5, 1.2, "", "half of a tile's side", minimum=0.01),
            "sectors": Range(2, 8, "", "mirrored sectors around the origin", integer=True, minimum=1),
            "swirl": Range(-1.5, 1.5, "rad", "turn at distance 1 from the origin", minimum=-64),
            "waves": Range(2.0, 12.0, "rad", "frequency of waves over the plane's unit"),
            "wave_x": Range(-8.0, 8.0, "rad", "frequency of a plane wave along x", minimum=-64),
            "wave_y": Range(-8.0, 8.0, "rad", "frequency of a plane wave along y", minimum=-64),
            "site_x": Range(-1.5, 1.5, "", "where waves begin and cells lie", minimum=-64),
            "site_y": Range(-1.5, 1.5, "", "where waves begin and cells lie", minimum=-64),
            "cells": Range(0.8, 4.0, "", "cells of noise over the plane's unit"),
            "box_x": Range(0.1, 0.8, "", "half of a box's width"),
            "box_y": Range(0.1, 0.8, "", "half of a box's height"),
            "steepness": Range(1.0, 8.0, "", "slope of a checker's edges over that of the wave"),
            "decay": Range(1.0, 4.0, "", "how fast an orbit's light falls with the distance from the origin"),
            "centre": Range(0.35, 0.65, "", "a of the palette: the middle of each channel", maximum=1.0),
            "reach": Range(0.25, 0.5, "", "b of the palette: the amplitude of each channel", maximum=1.0),
            "periods": Range(0.25, 0.8, "", "f of the palette: its periods over the unit of the field"),
            "shift": Range(0.0, 1.0, "", "d of the palette: the beginning of each channel in periods", maximum=1.0),
        }
    ),
    make=_shaders,
    labels=labels,
    num_classes=1000,
    class_name="program",
)
