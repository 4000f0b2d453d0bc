"""Pictures that look like log-mel spectrograms, drawn directly in the plane of time and frequency: no sound, no FFT.

Time runs to the right, and mel frequency upwards: the lowest band is the bottom row. Values are levels: 1 the loudest,
0 the floor, linear in dB between. The louder layer hides the other, as power adds up to little more than the larger.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from audiopg.data_scripts.counter_random import white_noise
from audiopg.data_scripts.patterns.catalogue import Constant, constant
from audiopg.data_scripts.patterns.pattern_set import Drawing, PatternSet
from audiopg.data_scripts.synthesis import Choice, Range

LAYERS = ("harmonic comb", "chirp", "onset", "modulated band")
KINDS = (*LAYERS, "mixture")
_MEL_BREAK_HZ = 700.0


def mel_to_hz(mel: Tensor) -> Tensor:
    """Hertz of O'Shaughnessy's mel scale, 2595 log10(1 + f / 700).

    Example:
        >>> round(float(mel_to_hz(torch.tensor(1000.0))))
        1000
    """
    return _MEL_BREAK_HZ * (10 ** (mel / 2595) - 1)


class _Layer:
    """Numbers of one layer of some of the images of a drawing, and the plane that they are drawn in.

    Args:
        drawing: Of all the images.
        images: Positions of those that have such a layer.
        number: Which layer of an image it is.
    """

    def __init__(self, drawing: Drawing, images: Tensor, number: int):
        self._drawing, self._number = drawing.of(images), number
        steps = (torch.arange(drawing.size, device=drawing.device) + 0.5) / drawing.size
        self.time = steps * constant(drawing.ranges, "duration")
        highest = 2595 * math.log10(1 + constant(drawing.ranges, "highest") / _MEL_BREAK_HZ)
        self.hertz = mel_to_hz(steps.flip(0) * highest)[:, None]
        self.hertz_per_row = (self.hertz + _MEL_BREAK_HZ) * (math.log(10) / 2595 * highest / drawing.size)
        self.height = steps.flip(0)[:, None]

    def sample(self, name: str) -> Tensor:
        """Numbers of a range, for this layer alone, shape `(images, 1, 1)`."""
        value = self._drawing.ranges[name].sample(self._drawing.uniform(f"{name}/{self._number}"))
        return value.float()[:, None, None]

    def speckle(self) -> Tensor:
        """Level in dB of noise in every cell: its power is exponentially distributed, of mean 1."""
        size = self._drawing.size
        noise = white_noise(self._drawing.keys(f"speckle/{self._number}"), size**2).view(-1, size, size)
        return 10 * torch.log10(-torch.log((noise + 1) / 2))


def _envelope(layer: _Layer) -> Tensor:
    """Level in dB over time: silent before its start and after its end, falling between."""
    start = layer.sample("start")
    since = layer.time - start
    inside = (since >= 0) & (since <= layer.sample("length"))
    return torch.where(inside, -layer.sample("decay") * since, -math.inf)


def _harmonic_comb(layer: _Layer) -> Tensor:
    """Of every cell the nearest harmonic k of f0(t), which glides and trembles; each falls off on both sides."""
    octaves = layer.sample("glide") * (layer.time - layer.time[-1] / 2)
    vibrato = torch.sin(2 * math.pi * (layer.sample("vibrato_rate") * layer.time + layer.sample("phase")))
    f0 = layer.sample("f0") * torch.exp2(octaves + layer.sample("vibrato_depth") / 12 * vibrato)
    harmonic = (layer.hertz / f0).round().clamp(min=1)
    rows = (layer.hertz - harmonic * f0) / layer.hertz_per_row / layer.sample("line_width")
    level = -10 * math.log10(math.e) * rows.square_() - 20 * layer.sample("rolloff") * harmonic.log10_()
    level = torch.where(layer.hertz > f0 * (layer.sample("harmonics") + 0.5), -math.inf, level)
    return level + _envelope(layer)


def _chirp(layer: _Layer) -> Tensor:
    """A line that rises or falls in mel, repeated after every period."""
    period = layer.sample("chirp_period")
    since = (layer.time - layer.sample("phase") * period) % period
    centre = layer.sample("chirp_start") + layer.sample("chirp_slope") * since + layer.sample("chirp_bend") * since**2
    rows = (layer.height - centre) * len(layer.time) / layer.sample("line_width")
    return -10 * math.log10(math.e) * rows.square_() + _envelope(layer)


def _onset(layer: _Layer) -> Tensor:
    """Blows at equal distances: all frequencies at once, higher ones weaker and sooner gone; noise within."""
    period = layer.sample("onset_period")
    since = (layer.time - layer.sample("phase") * period) % period
    fall = layer.sample("onset_decay") * (0.5 + layer.height * layer.sample("onset_damping"))
    tilt = layer.sample("onset_tilt") * (layer.height - layer.sample("onset_centre")).abs()
    return layer.speckle() - fall * since - tilt


def _modulated_band(layer: _Layer) -> Tensor:
    """A band of noise whose level goes up and down."""
    across = (layer.height - layer.sample("band_centre")) / layer.sample("band_width")
    swing = torch.sin(2 * math.pi * (layer.sample("modulation_rate") * layer.time + layer.sample("phase")))
    level = layer.sample("modulation_depth") * (swing - 1) / 2
    return layer.speckle() - 12 * across.square() ** 2 + level + _envelope(layer)


_DRAWN: tuple[Callable[[_Layer], Tensor], ...] = (_harmonic_comb, _chirp, _onset, _modulated_band)


def _kinds_of_layers(drawing: Drawing) -> Tensor:
    """What every layer is, -1 for one that an image has not, int64, shape `(batch, layers)`."""
    most = int(drawing.ranges["layers"].high)
    kind = drawing.sample("kind")[:, None]
    any_kind = (drawing.uniform("layer", most) * len(LAYERS)).long()
    number = torch.arange(most, device=drawing.device)
    kinds = torch.where(kind == KINDS.index("mixture"), any_kind, kind)
    return torch.where(number < drawing.sample("layers")[:, None], kinds, -1)


def _spectrograms(drawing: Drawing) -> Tensor:
    size, ranges = drawing.size, drawing.ranges
    floor = constant(ranges, "floor")
    everything = torch.arange(len(drawing.indices), device=drawing.device)
    level = _Layer(drawing, everything, -1).speckle() + drawing.sample("noise").float()[:, None, None]
    kinds = _kinds_of_layers(drawing)
    for number in range(kinds.shape[1]):
        for kind, draw in enumerate(_DRAWN):
            images = torch.nonzero(kinds[:, number] == kind).squeeze(1)
            if len(images):
                layer = _Layer(drawing, images, number)
                level[images] = torch.maximum(level[images], draw(layer) + layer.sample("level"))
    grey = (1 - level / floor).clamp_(0, 1)
    return grey[:, None].expand(-1, 3, size, size).contiguous()


TIME_FREQUENCY = (
    PatternSet(
        "spectrogram_like",
        "Harmonic combs, chirps, onsets and modulated bands of noise, as a log-mel spectrogram shows them.",
        "Ours. Grey: the three channels are the same.",
        {
            "kind": Choice(KINDS, "", "what the layers are: all of one kind, or each of any", names=KINDS),
            "layers": Range(1, 3, "", "layers of an image", integer=True, minimum=1, maximum=16),
            "duration": Constant(2.24, 2.24, "s", "time from the left edge to the right", minimum=0.01),
            "highest": Constant(8000.0, 8000.0, "Hz", "frequency of the upper edge", minimum=100.0),
            "floor": Constant(-80.0, -80.0, "dB", "level of black", minimum=-200.0, maximum=-1.0),
            "level": Range(-25.0, 0.0, "dB", "level of a layer", minimum=-200.0, maximum=0.0),
            "noise": Range(-75.0, -35.0, "dB", "mean level of the noise behind", minimum=-200.0, maximum=0.0),
            "start": Range(-1.0, 1.5, "s", "when a layer starts", minimum=-1000.0),
            "length": Range(0.3, 4.0, "s", "how long a layer lasts"),
            "decay": Range(0.0, 25.0, "dB/s", "how fast a layer falls"),
            "phase": Range(0.0, 1.0, "periods", "where vibrato, chirps, blows and modulation begin", maximum=1.0),
            "line_width": Range(0.8, 3.0, "px", "distance from a line at which it is 1/e of its power", minimum=0.1),
            "f0": Range(60.0, 900.0, "Hz", "fundamental frequency in the middle", minimum=1.0),
            "harmonics": Range(3, 40, "", "harmonics of a comb", integer=True, minimum=1),
            "rolloff": Range(0.3, 1.8, "", "exponent g of harmonic k's amplitude k^-g"),
            "glide": Range(-0.6, 0.6, "octaves/s", "how fast f0 rises", minimum=-20.0),
            "vibrato_depth": Range(0.0, 1.0, "semitones", "how far f0 trembles", maximum=24.0),
            "vibrato_rate": Range(2.0, 8.0, "Hz", "how often f0 trembles"),
            "chirp_period": Range(0.15, 2.5, "s", "time from one chirp to the next", minimum=0.01),
            "chirp_start": Range(0.0, 1.0, "image sides", "height at which a chirp begins", maximum=1.0),
            "chirp_slope": Range(-1.5, 1.5, "image sides/s", "how fast a chirp rises", minimum=-100.0),
            "chirp_bend": Range(-0.8, 0.8, "image sides/s^2", "how fast that changes", minimum=-100.0),
            "onset_period": Range(0.1, 1.2, "s", "time from one blow to the next", minimum=0.01),
            "onset_decay": Range(40.0, 400.0, "dB/s", "how fast a blow dies away"),
            "onset_damping": Range(0.0, 2.0, "", "how much faster at the upper edge"),
            "onset_tilt": Range(0.0, 50.0, "dB per image side", "fall of a blow with the distance from its middle"),
            "onset_centre": Range(0.0, 1.0, "image sides", "height of a blow's middle", maximum=1.0),
            "band_centre": Range(0.05, 0.95, "image sides", "height of a band's middle", maximum=1.0),
            "band_width": Range(
                0.04, 0.35, "image sides", "distance from there at which it is 12 dB lower", minimum=1e-3
            ),
            "modulation_rate": Range(0.5, 12.0, "Hz", "how often a band's level swings"),
            "modulation_depth": Range(5.0, 40.0, "dB", "how far"),
        },
        _spectrograms,
        labels=lambda drawing: drawing.sample("kind"),
        num_classes=len(KINDS),
        class_name="kind of layers",
    ),
)
