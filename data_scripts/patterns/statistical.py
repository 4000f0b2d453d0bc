"""Noise with the statistics of natural images: spectrum, histograms of wavelet bands ("WMM"), and of colours."""

import math
from collections.abc import Callable
from functools import lru_cache, partial

import torch
from torch import Tensor

from audiopg.data_scripts.counter_random import white_noise
from audiopg.data_scripts.patterns.catalogue import Constant, constant
from audiopg.data_scripts.patterns.pattern_set import Drawing, PatternSet, elements_at_once
from audiopg.data_scripts.synthesis import Choice, Range

ORIENTATIONS = 4
"""Of the steerable pyramid whose angular functions are cos^3."""

_BINS = 1024
"""Into which values are counted where a histogram is matched."""


def frequencies(size: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Vertical and horizontal frequency of every element of `rfft2` of an image, in cycles per pixel.

    Args:
        size: Side of the image in pixels.
        device: Where to put them.

    Returns:
        float32, shapes `(size, 1)` and `(size // 2 + 1,)`.

    Example:
        >>> frequencies(4)[1]
        tensor([0.0000, 0.2500, 0.5000])
    """
    return torch.fft.fftfreq(size, device=device)[:, None], torch.fft.rfftfreq(size, device=device)


def impose_magnitude(channels: Tensor, magnitude: Tensor) -> Tensor:
    """Give images another spectrum of magnitudes; their phases stay, and so does the deviation of every channel.

    Args:
        channels: float32, shape `(batch, channels, size, size)`.
        magnitude: Shape `(batch, 1, size, size // 2 + 1)`, of any scale; the one of frequency 0 is taken as 0.

    Returns:
        Of the shape of `channels`, of mean 0.

    Example:
        >>> flat = impose_magnitude(torch.rand(1, 1, 32, 32), torch.ones(1, 1, 32, 17))
        >>> spectrum = torch.fft.rfft2(flat).abs().flatten()[1:]
        >>> bool((spectrum.max() - spectrum.min()) / spectrum.mean() < 1e-3)
        True
    """
    spectrum = torch.fft.rfft2(channels)
    scale = magnitude / spectrum.abs().clamp_(min=torch.finfo(torch.float32).tiny)
    scale[..., 0, 0] = 0
    shaped = torch.fft.irfft2(spectrum.mul_(scale), s=channels.shape[-2:])
    return shaped.mul_((_variance(channels) / _variance(shaped)).sqrt())


def _variance(channels: Tensor) -> Tensor:
    """Of every channel, shape `(batch, channels, 1, 1)`; exact enough for means about 0, and faster than `var`."""
    return channels.square().mean(dim=(2, 3), keepdim=True) - channels.mean(dim=(2, 3), keepdim=True).square()


def match_histogram(values: Tensor, quantiles: Callable[[Tensor], Tensor]) -> Tensor:
    r"""Move the values of every row monotonically so that they have the distribution asked for: $Q(F(x))$.

    F, the distribution that they have, is counted in 1024 bins of $x / (|x| + \overline{|x|})$, narrow near 0 where
    wavelet coefficients crowd.

    Args:
        values: Of mean about 0, float32, shape `(rows, n)`.
        quantiles: Q, from probabilities `(rows, p)`, float64, to values of that shape; it does not fall.

    Returns:
        Of the shape of `values`.

    Example:
        >>> uniform = match_histogram(torch.randn(1, 10000), lambda p: 2 * p - 1)
        >>> round(float(uniform.min()), 2), round(float(uniform.std()), 2), round(float(uniform.max()), 2)
        (-1.0, 0.58, 1.0)
    """
    spread = values.abs().mean(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    place = (values / (values.abs() + spread) + 1) * (_BINS / 2)
    bins = place.long().clamp(0, _BINS - 1)
    counts = torch.zeros(len(values), _BINS, dtype=torch.int32, device=values.device)
    counts.scatter_add_(1, bins, counts.new_ones(1, 1).expand_as(bins))
    cumulative = torch.nn.functional.pad(counts.cumsum(1), (1, 0)).double() / values.shape[1]
    target = quantiles(cumulative).float()
    low = target.gather(1, bins)
    rise = target.diff(dim=1).gather(1, bins)
    return low.addcmul_(place.sub_(bins), rise)


def _spectrum_magnitude(drawing: Drawing) -> Tensor:
    r"""$1 / (|f_x|^{s + d} + |f_y|^{s - d})$, shape `(batch, 1, size, size // 2 + 1)`."""
    slope = drawing.sample("slope").float()
    difference = (drawing.normal("slope_difference") * constant(drawing.ranges, "slope_difference")).float()
    fy, fx = frequencies(drawing.size, drawing.device)
    across = fx ** (slope + difference)[:, None, None]
    down = fy.abs() ** (slope - difference)[:, None, None]
    return (1 / (across + down))[:, None]


def _reference_colours(drawing: Drawing) -> Tensor:
    """A picture of a few blurred runs of colours, whose colours an image takes on.

    Returns:
        In [0, 1], float64, shape `(batch, 3, side^2)`.
    """
    ranges, device = drawing.ranges, drawing.device
    side, most = int(constant(ranges, "reference_side")), int(ranges["colours"].high)
    exists = torch.arange(most, device=device) < drawing.sample("colours")[:, None]
    areas = torch.where(exists, constant(ranges, "smallest_area") + drawing.uniform("area", most), 0.0).cumsum(1)
    position = (torch.arange(side**2, device=device) + 0.5) / side**2
    run = torch.searchsorted(areas / areas[:, -1:], position.expand(len(areas), -1).contiguous()).clamp(max=most - 1)
    colours = drawing.uniform("colour", 3, most)
    flat = colours.gather(2, run[:, None].expand(-1, 3, -1)).unflatten(2, (side, side))
    # A box of k pixels as a matrix; a pixel that it covers by half counts half.
    distance = (torch.arange(side, device=device)[:, None] - torch.arange(side, device=device)).abs()
    width = drawing.sample("blur").double()[:, None, None] * side
    box = (width / 2 + 0.5 - distance).clamp(0, 1)
    box = box / box.sum(dim=2, keepdim=True)
    blurred = (box[:, None] @ flat @ box.mT[:, None]).flatten(2)
    noise = white_noise(drawing.keys("colour_noise"), 3 * side**2).view_as(blurred).double()
    noisy = blurred + noise * (constant(ranges, "colour_noise") / 2)
    return _stretched(noisy)


def _stretched(images: Tensor) -> Tensor:
    """Every image from 0, its smallest value, to 1, its largest."""
    flat = images.flatten(1)
    low, high = (end.view(-1, *[1] * (images.dim() - 1)) for end in flat.aminmax(dim=1))
    return (images - low).div_(high - low)


def _colour_basis(colours: Tensor) -> tuple[Tensor, Tensor]:
    """Mean `(batch, 3, 1)` and principal axes, as columns of `(batch, 3, 3)`, of colours `(batch, 3, n)`."""
    mean = colours.mean(dim=2, keepdim=True)
    centred = colours - mean
    axes = torch.linalg.eigh(centred @ centred.mT / colours.shape[2]).eigenvectors
    # The sign of an axis is the library's choice; ours is that its largest component is positive.
    largest = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True))
    return mean, axes * largest.sign()


@lru_cache(maxsize=8)
def _pyramid(size: int, device: str) -> tuple[Tensor, list[tuple[int, Tensor]], Tensor]:
    r"""Masks of the steerable pyramid on the spectra of its levels, as `rfft2` has them.

    With $\rho$ the radial frequency over that of Nyquist and $l_c(\rho)$ a low-pass that falls as
    $\cos(\frac{\pi}{2} \log_2 (2 \rho / c))$ from $\rho = c / 2$ to c, level k is
    $l_{2^{-k}} \sqrt{1 - l_{2^{-k-1}}^2}$ times $\cos^3(\theta - \theta_o) / \sqrt{5/4}$ (Simoncelli & Freeman, 1995).
    Squares of all masks add up to 1.

    Returns:
        The high-pass residual `(size, size // 2 + 1)`; of every level its side in pixels and the imaginary part of
        its masks, `(4, side, side // 2 + 1)`; the square of the low-pass residual, on the spectrum of the image.
    """

    def low_pass(radius: Tensor, cutoff: float) -> Tensor:
        octaves = torch.log2(2 * radius.clamp(min=1e-9) / cutoff).clamp(0, 1)
        return torch.cos(math.pi / 2 * octaves)

    def polar(side: int) -> tuple[Tensor, Tensor]:
        fy, fx = (frequency.double() * 2 * side / size for frequency in frequencies(side, device))
        return torch.hypot(fy, fx), torch.atan2(fy, fx.expand(side, -1))

    scales = max(1, round(math.log2(size)) - 4)
    radius, _ = polar(size)
    levels = []
    for level in range(scales):
        side = size if level == 0 else 2 * math.ceil(size / 2 ** (level + 1))
        ring, angle = polar(side)
        band = low_pass(ring, 2.0**-level) * (1 - low_pass(ring, 2.0 ** -(level + 1)) ** 2).clamp(min=0).sqrt()
        tilts = torch.arange(ORIENTATIONS, device=device)[:, None, None] * (math.pi / ORIENTATIONS)
        levels.append((side, (band * torch.cos(angle - tilts) ** 3 / math.sqrt(1.25)).float()))
    high = (1 - low_pass(radius, 1.0) ** 2).clamp(min=0).sqrt()
    return high.float(), levels, (low_pass(radius, 2.0**-scales) ** 2).float()


def _resized(spectrum: Tensor, side: int) -> Tensor:
    """The spectrum of an image on a coarser or finer grid: high frequencies cut off or filled with zeros."""
    size = spectrum.shape[-2]
    if side == size:
        return spectrum
    half = min(side, size) // 2
    resized = spectrum.new_zeros(*spectrum.shape[:-2], side, side // 2 + 1)
    resized[..., :half, : half + 1] = spectrum[..., :half, : half + 1]
    resized[..., -half:, : half + 1] = spectrum[..., -half:, : half + 1]
    return resized * (side / size) ** 2


def _peaked_quantiles(scale: float, exponent: Tensor, extent: float) -> Callable[[Tensor], Tensor]:
    r"""Quantiles of the density proportional to $\exp(-|x / S|^r)$ on [-extent, extent], for every row its r."""
    grid = torch.linspace(-extent, extent, 801, dtype=torch.float64, device=exponent.device)
    density = torch.exp(-((grid.abs() / scale) ** exponent[:, None]))
    # Trapezoids between the points of the grid, which has one at the peak.
    cumulative = torch.nn.functional.pad(((density[:, 1:] + density[:, :-1]) / 2).cumsum(1), (1, 0))
    cumulative = cumulative / cumulative[:, -1:]

    def quantiles(probability: Tensor) -> Tensor:
        right = torch.searchsorted(cumulative, probability.contiguous(), right=True).clamp(1, len(grid) - 1)
        below, above = cumulative.gather(1, right - 1), cumulative.gather(1, right)
        share = ((probability - below) / (above - below).clamp(min=1e-300)).clamp(0, 1)
        return torch.lerp(grid[right - 1], grid[right], share)

    return quantiles


def _impose_marginals(drawing: Drawing, channels: Tensor) -> Tensor:
    """Give every band of the steerable pyramid a peaked histogram; the low-pass residual stays as it is."""
    ranges, colours, size = drawing.ranges, channels.shape[1], channels.shape[3]
    high, levels, low_squared = _pyramid(size, str(channels.device))
    base, extent = constant(ranges, "marginal_scale"), constant(ranges, "marginal_extent")
    spectrum = torch.fft.rfft2(channels)
    result = spectrum * low_squared

    def matched(bands: Tensor, name: str, side: int) -> Tensor:
        exponent = ranges["marginal_exponent"].sample(drawing.uniform(name, colours, bands.shape[2])).flatten()
        quantiles = _peaked_quantiles(base ** (size / side), exponent, extent)
        return match_histogram(bands.flatten(0, 2).flatten(1), quantiles).view_as(bands) / (2 * extent)

    band = torch.fft.irfft2(spectrum * high, s=(size, size))[:, :, None]
    result += torch.fft.rfft2(matched(band, "marginal_exponent_high", size)[:, :, 0]) * high
    for level, (side, masks) in enumerate(levels):
        # The masks are imaginary, and odd: bands are real. i * (-i) = 1 on the way back.
        bands = torch.fft.irfft2(_resized(spectrum, side)[:, :, None] * (-1j * masks), s=(side, side))
        bands = matched(bands, f"marginal_exponent_{level}", side)
        result += _resized((torch.fft.rfft2(bands) * (1j * masks)).sum(dim=2), size)
    return torch.fft.irfft2(result, s=(size, size))


def _impose_colours(channels: Tensor, samples: Tensor) -> Tensor:
    """Give every channel the histogram of its samples, shape `(batch, 3, n)`."""
    ordered = samples.flatten(0, 1).sort(dim=1).values

    def quantiles(probability: Tensor) -> Tensor:
        place = probability * (ordered.shape[1] - 1)
        left = place.long().clamp(max=ordered.shape[1] - 2)
        return torch.lerp(ordered.gather(1, left), ordered.gather(1, left + 1), place - left)

    return match_histogram(channels.flatten(0, 1).flatten(1), quantiles).view_as(channels)


def decorrelated(
    drawing: Drawing, *, spectrum: bool = False, marginals: bool = False, colour: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Images with the statistics asked for, along the principal axes of their reference colours.

    Args:
        drawing: Of a statistical set.
        spectrum: Whether to impose the spectrum.
        marginals: Whether to impose the histograms of wavelet bands.
        colour: Whether to impose the histograms of colours.

    Returns:
        float32, shape `(batch, 3, size, size)`; the mean colour `(batch, 3, 1)`; the axes as columns `(batch, 3, 3)`.
    """
    size = drawing.size
    colours = _reference_colours(drawing)
    mean, axes = _colour_basis(colours)
    channels = white_noise(drawing.keys("noise"), 3 * size**2).view(-1, 3, size, size) / 2
    magnitude = _spectrum_magnitude(drawing) if spectrum else None
    # Imposed alone, the spectrum is exact at once.
    for _ in range(int(constant(drawing.ranges, "iterations")) if marginals or colour else 1):
        if magnitude is not None:
            channels = impose_magnitude(channels, magnitude)
        if marginals:
            channels = _impose_marginals(drawing, channels)
        if colour:
            channels = _impose_colours(channels, axes.mT @ (colours - mean))
    return channels, mean.float(), axes.float()


def _make(drawing: Drawing, *, spectrum: bool = False, marginals: bool = False, colour: bool = False) -> Tensor:
    number = len(drawing.indices)
    elements = 3 * drawing.size**2 * (ORIENTATIONS if marginals else 1)
    parts = torch.arange(number, device=drawing.device).split(max(1, 4 * elements_at_once(drawing.device) // elements))
    images = torch.empty(number, 3, drawing.size, drawing.size, device=drawing.device)
    for part in parts:
        channels, mean, axes = decorrelated(drawing.of(part), spectrum=spectrum, marginals=marginals, colour=colour)
        images[part] = _stretched((axes @ channels.flatten(2) + mean).view_as(channels))
    return images


_SOURCE = (
    'Baradad et al., "Learning to See by Looking at Noise" (2021), after Portilla & Simoncelli (2000). Three passes '
    "instead of ten, histograms matched in 1024 bins, reference colours from a smaller picture with noise per pixel."
)
_RANGES_OF_BASIS: dict[str, Range | Choice] = {
    "colours": Range(3, 22, "", "colours of the reference picture", integer=True, minimum=2, maximum=1000),
    "smallest_area": Constant(0.001, 0.001, "", "added to the uniform weight of every colour's area", minimum=1e-6),
    "reference_side": Constant(64, 64, "px", "side of the reference picture", integer=True, minimum=8, maximum=512),
    "blur": Range(1 / 256, 10 / 256, "image sides", "width of the box that blurs the reference picture", maximum=1.0),
    "colour_noise": Constant(
        10 / 255, 10 / 255, "", "width of the uniform noise on the reference picture", maximum=1.0
    ),
}
_RANGES_OF_SPECTRUM: dict[str, Range | Choice] = {
    "slope": Range(0.5, 3.5, "", "s: amplitudes fall as 1 / (|fx|^(s + d) + |fy|^(s - d))", maximum=10.0),
    "slope_difference": Constant(0.05, 0.05, "", "standard deviation of d, which is normal", maximum=1.0),
}
_RANGES_OF_MARGINALS: dict[str, Range | Choice] = {
    "marginal_exponent": Range(0.4, 0.8, "", "r of a band's density exp(-|x / S|^r)", minimum=0.1, maximum=8.0),
    "marginal_scale": Constant(4.0, 4.0, "", "S of the finest bands; squared for every octave below", minimum=0.01),
    "marginal_extent": Constant(200.0, 200.0, "", "largest |x| of that density", minimum=1.0),
}
_ITERATIONS = {
    "iterations": Constant(3, 3, "", "passes over all that is imposed", integer=True, minimum=1, maximum=100)
}
RANGES_OF_COLOUR_AND_MARGINALS = {
    **_RANGES_OF_BASIS,
    **_RANGES_OF_SPECTRUM,
    **_RANGES_OF_MARGINALS,
    **_ITERATIONS,
}
"""Those of spectrum_colour_wmm."""

spectrum_colour_wmm = partial(_make, spectrum=True, marginals=True, colour=True)
"""From a drawing to images of the set of that name."""

STATISTICAL = (
    PatternSet(
        "spectrum",
        "Noise whose amplitudes fall with frequency, horizontally and vertically.",
        _SOURCE,
        {**_RANGES_OF_BASIS, **_RANGES_OF_SPECTRUM},
        partial(_make, spectrum=True),
    ),
    PatternSet(
        "wmm",
        "Noise whose wavelet bands have peaked histograms, as edges and flat parts do.",
        _SOURCE,
        {**_RANGES_OF_BASIS, **_RANGES_OF_MARGINALS, **_ITERATIONS},
        partial(_make, marginals=True),
    ),
    PatternSet(
        "spectrum_colour",
        "Noise whose amplitudes fall with frequency, in a few colours.",
        _SOURCE,
        {**_RANGES_OF_BASIS, **_RANGES_OF_SPECTRUM, **_ITERATIONS},
        partial(_make, spectrum=True, colour=True),
    ),
    PatternSet(
        "spectrum_colour_wmm",
        "Noise with the spectrum, the wavelet histograms and the colours.",
        _SOURCE,
        RANGES_OF_COLOUR_AND_MARGINALS,
        spectrum_colour_wmm,
    ),
)
