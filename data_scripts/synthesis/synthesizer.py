"""Parameters to waveforms, by excitation, formants, dynamics and shaping in order. Knows no mel, no model, no chance.

Work is laid out before anything is rendered: a clip is cut into tiles, and every event into the tiles that it touches.
Which rows go where is known on the CPU from the parameters alone, so the device never waits and silence costs nothing.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from audiopg.data_scripts.counter_random import white_noise
from audiopg.data_scripts.synthesis.dynamics import adsr, gate, strikes
from audiopg.data_scripts.synthesis.excitation import (
    BLOCK,
    band_noise,
    frequency_modulation,
    modulation_sidebands,
    partial_sum,
    phase_in_cycles,
    pulse_partials,
    sawtooth,
    square,
)
from audiopg.data_scripts.synthesis.formants import glide, resonance
from audiopg.data_scripts.synthesis.parameters import MODES, PULSE_SHAPES, Parameters, Preset
from audiopg.data_scripts.synthesis.shaping import low_pass, peak_normalise, reverberate

_TILE = 4096
_FEWEST_PARTIALS = 17
_FAINT_SIDEBANDS = 16
_MOMENTS = 32
"""At so many moments of an event its power behind its formants is measured."""
# A CPU renders faster what its caches hold, and reuses memory that it need not ask for; an accelerator wants few and
# large kernels, and a bound on its memory.
_CLIPS_AT_ONCE = {"cpu": 16}
_CLIPS_AT_ONCE_ELSEWHERE = 1024
HARMONIC, FM, PULSE, NOISE = range(len(MODES))


@dataclass(frozen=True)
class _Events:
    """The events of a batch in a flat list, on the device, times in samples; each field has shape `(events,)`."""

    values: dict[str, Tensor]
    onset: Tensor
    length: Tensor
    source_start: Tensor

    def __getitem__(self, name: str) -> Tensor:
        return self.values[name]


def _send(tensor: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor on the device; without pinned memory, CUDA would first finish all that it was asked before."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def _in_samples(seconds: Tensor, sampling_rate: int) -> Tensor:
    return torch.round(seconds * sampling_rate).to(torch.int64)


def _flatten_events(parameters: Parameters, clip: Tensor, slot: Tensor, device: torch.device) -> _Events:
    rate = parameters.preset.sampling_rate
    names = [name for name, value in parameters.items() if value.dim() > 1]
    values = {name: _send(parameters[name][clip, slot], device) for name in names}
    times = {name: _in_samples(values[name], rate) for name in ("onset", "event_length", "source_start")}
    return _Events(values, times["onset"], times["event_length"], times["source_start"])


def _envelope(events: _Events, event: Tensor, start: Tensor, preset: Preset, num_samples: int) -> Tensor:
    """Level of the listed events from `start` samples after their onset on."""
    length = events.length[event]
    if preset.enveloped:
        attack, decay = (events[name][event] * preset.sampling_rate for name in ("attack", "decay"))
        envelope = adsr(start, attack, decay, length, num_samples=num_samples)
    else:
        envelope = gate(start, length, num_samples=num_samples)
    if preset.ranges["strike_probability"].high > 0:
        period, fall = (events[f"strike_{name}"][event] * preset.sampling_rate for name in ("period", "decay"))
        level = strikes(start, period, fall, num_samples=num_samples)
        envelope = torch.where(events["strike"][event, None], envelope * level, envelope)
    return envelope.mul_(events["amplitude"][event, None].float())


Partials = tuple[Tensor, Tensor, Tensor]
"""Frequencies (Hz, float64), amplitudes (float32) and phases (cycles, float64) of shape `(events, partials)`."""


def _harmonic_partials(events: _Events, preset: Preset, num_partials: int) -> Partials:
    """Partial k near k f0 with amplitude k^-g times its gain."""
    k = torch.arange(1, num_partials + 1, device=events.onset.device, dtype=torch.float64)
    rolloff, gain, detuning, phases = (
        events[f"partial_{name}"][:, :num_partials] for name in ("rolloff", "gain", "detuning", "phase")
    )
    exists = k <= events["num_partials"][:, None]
    return events["f0"][:, None] * k * detuning, torch.where(exists, k**-rolloff * gain, 0.0).float(), phases


def _fm_partials(events: _Events, preset: Preset, num_partials: int) -> Partials:
    """The carrier and its sidebands, as many on either side."""
    num_sidebands = (num_partials - 1) // 2
    order = torch.arange(-num_sidebands, num_sidebands + 1, device=events.onset.device)
    frequencies = events["f0"][:, None] * (1 + order * events["modulation_ratio"][:, None])
    largest = preset.ranges["modulation_index"].high
    amplitudes = modulation_sidebands(events["modulation_index"], num_sidebands, largest)
    return frequencies, amplitudes.float(), torch.zeros_like(frequencies)


def _pulse_partials(events: _Events, preset: Preset, num_partials: int) -> Partials:
    """The Fourier series of the pulse."""
    k = torch.arange(1, num_partials + 1, device=events.onset.device, dtype=torch.float64)
    frequencies = events["f0"][:, None] * k
    is_square = events["pulse_shape"] == PULSE_SHAPES.index("square")
    return frequencies, pulse_partials(is_square, num_partials), torch.zeros_like(frequencies)


def _partial_tiles(
    partials_of: Callable[[_Events, Preset, int], Partials],
    num_partials: int,
    events: _Events,
    event: Tensor,
    start: Tensor,
    preset: Preset,
) -> Tensor:
    """Tiles of events given by their partials; a band-limited preset drops those from the Nyquist frequency on."""
    frequencies, amplitudes, phases = partials_of(events, preset, num_partials)
    if preset.band_limited:
        amplitudes = amplitudes * (frequencies.abs() < preset.sampling_rate / 2)
    rate = preset.sampling_rate
    return partial_sum(frequencies, amplitudes, phases, start, num_samples=_TILE, sampling_rate=rate, source=event)


def _formant_gain(events: _Events, event: Tensor, frequencies: Tensor, position: Tensor, preset: Preset) -> Tensor:
    """What the formants of the listed events leave of partials `(rows, partials)`: `(rows, partials, positions)`.

    Positions are within each event, from 0 at its onset to 1 at its end, float64, shape `(rows, positions)`.
    """
    points = torch.stack([events[name][event] for name in preset.formants], dim=1)
    centres = glide(points, events["formant_points"][event], position)
    exists = torch.arange(len(preset.formants), device=event.device) < events["num_formants"][event, None]
    return resonance(frequencies, centres, events["formant_bandwidth"][event], events["formant_level"][event] * exists)


def _balanced(events: _Events, frequencies: Tensor, amplitudes: Tensor, preset: Preset) -> Tensor:
    """Amplitudes with which every event has the same mean power behind its formants as it had before them."""
    event = torch.arange(len(amplitudes), device=amplitudes.device)
    moments = (torch.arange(_MOMENTS, dtype=torch.float64, device=amplitudes.device) + 0.5) / _MOMENTS
    gain = _formant_gain(events, event, frequencies, moments.expand(len(event), -1), preset)
    power = (amplitudes[..., None] * gain).square().sum(dim=1).mean(dim=1)
    factor = amplitudes.norm(dim=1) / power.sqrt().clamp(min=torch.finfo(power.dtype).tiny)
    return amplitudes * factor[:, None]


def _formant_tiles(
    partials_of: Callable[[_Events, Preset, int], Partials],
    num_partials: int,
    events: _Events,
    event: Tensor,
    start: Tensor,
    preset: Preset,
) -> Tensor:
    """Tiles of events whose partials pass through formants; those from the Nyquist frequency on are dropped always."""
    frequencies, amplitudes, phases = partials_of(events, preset, num_partials)
    amplitudes = amplitudes * (frequencies.abs() < preset.sampling_rate / 2)
    amplitudes = _balanced(events, frequencies, amplitudes, preset)
    since_onset = start - events.source_start[event]
    at_block = since_onset[:, None] + torch.arange(0, _TILE + 1, BLOCK, device=event.device)
    position = (at_block.double() / events.length[event, None]).clamp(0, 1)
    levels = _formant_gain(events, event, frequencies[event], position, preset)
    rate = preset.sampling_rate
    return partial_sum(
        frequencies, amplitudes, phases, start, num_samples=_TILE, sampling_rate=rate, source=event, levels=levels
    )


def _fm_tiles(events: _Events, event: Tensor, start: Tensor, preset: Preset) -> Tensor:
    """Tiles of FM sources whose sidebands alias."""
    f0, index, ratio = (events[name][event] for name in ("f0", "modulation_index", "modulation_ratio"))
    return frequency_modulation(f0, index, ratio, start, num_samples=_TILE, sampling_rate=preset.sampling_rate)


def _pulse_tiles(events: _Events, event: Tensor, start: Tensor, preset: Preset) -> Tensor:
    """Tiles of pulses with sharp edges, which alias."""
    cycles = phase_in_cycles(events["f0"][event], start, num_samples=_TILE, sampling_rate=preset.sampling_rate)
    is_square = events["pulse_shape"][event, None] == PULSE_SHAPES.index("square")
    return torch.where(is_square, square(cycles), sawtooth(cycles))


def _noise_tiles(events: _Events, event: Tensor, start: Tensor, preset: Preset) -> Tensor:
    """Tiles of bands of noise."""
    centre, width, keys = (events[f"band_{name}"][event] for name in ("centre", "width", "key"))
    return band_noise(centre, width, keys, start, num_samples=_TILE, sampling_rate=preset.sampling_rate)


def _tiles(parameters: Parameters, clip: Tensor, slot: Tensor) -> tuple[Tensor, Tensor]:
    """Every (event, tile of its clip) pair that meets, as two CPU tensors of shape `(rows,)`."""
    rate = parameters.preset.sampling_rate
    onset = _in_samples(parameters["onset"][clip, slot], rate)
    end = (onset + _in_samples(parameters["event_length"][clip, slot], rate)).clamp(max=parameters.preset.num_samples)
    first, last = onset // _TILE, torch.maximum(onset, end - 1) // _TILE
    counts = last - first + 1
    event = torch.repeat_interleave(torch.arange(len(clip)), counts)
    return event, torch.arange(len(event)) - (counts.cumsum(0) - counts)[event] + first[event]


Render = Callable[[_Events, Tensor, Tensor, Preset], Tensor]
"""(events of one kind, which of them each row shows, source sample it starts at, preset) to tiles `(rows, 4096)`."""


def _groups(of_kind: Tensor, needed: Tensor) -> Iterator[tuple[Tensor, int]]:
    """Split events of a kind by how many partials they need, in octaves, so that few are carried in vain."""
    few, most = 0, int(needed[of_kind].max()) if of_kind.any() else 0
    while few < most:
        count = 2 * few or _FEWEST_PARTIALS
        yield of_kind & (needed > few) & (needed <= count), count
        few = count


def _kinds(parameters: Parameters, clip: Tensor, slot: Tensor) -> Iterator[tuple[Tensor, Render]]:
    """The kinds of source: for each, which of the listed events are of it, shape `(events,)`, and what renders it."""
    preset, mode = parameters.preset, parameters["mode"][clip, slot]
    resonant = parameters["formant"][clip, slot] if preset.formants else torch.zeros_like(mode, dtype=torch.bool)
    num_partials = parameters["partial_gain"].shape[2]
    yield (mode == HARMONIC) & ~resonant, partial(_partial_tiles, _harmonic_partials, num_partials)
    yield mode == NOISE, _noise_tiles
    if preset.band_limited:
        yield from _series(parameters, clip, slot, ~resonant, _partial_tiles)
    else:
        yield (mode == FM) & ~resonant, _fm_tiles
        yield (mode == PULSE) & ~resonant, _pulse_tiles
    yield (mode == HARMONIC) & resonant, partial(_formant_tiles, _harmonic_partials, num_partials)
    yield from _series(parameters, clip, slot, resonant, _formant_tiles)


def _series(
    parameters: Parameters, clip: Tensor, slot: Tensor, chosen: Tensor, tiles: Callable[..., Tensor]
) -> Iterator[tuple[Tensor, Render]]:
    """FM and pulses among the chosen events as series of partials, by how many they need."""
    preset, mode = parameters.preset, parameters["mode"][clip, slot]
    nyquist, f0 = preset.sampling_rate / 2, parameters["f0"][clip, slot]
    index, ratio = (parameters[name][clip, slot] for name in ("modulation_index", "modulation_ratio"))
    # Sidebands of an order well above the modulation index are below -120 dB; those above Nyquist are not wanted.
    sidebands = torch.minimum(index.ceil() + _FAINT_SIDEBANDS, (nyquist + f0) / (ratio * f0)).floor()
    for group, num_partials in _groups((mode == FM) & chosen, 2 * sidebands + 1):
        yield group, partial(tiles, _fm_partials, num_partials)
    for group, num_partials in _groups((mode == PULSE) & chosen, (nyquist / f0).floor()):
        yield group, partial(tiles, _pulse_partials, num_partials)


def _render_events(parameters: Parameters, clips: Tensor) -> None:
    """Add every event to `clips`, shape `(batch, tiles, 4096)`, kind by kind and slot by slot.

    Within one slot no two rows share a tile, so the sum is made in one order on every device.
    """
    preset, device = parameters.preset, clips.device
    all_slots, all_clips = torch.nonzero(parameters.event_exists.T, as_tuple=True)
    for is_of_kind, render_tiles in _kinds(parameters, all_clips, all_slots):
        clip, slot = all_clips[is_of_kind], all_slots[is_of_kind]
        if len(clip) == 0:
            continue
        events = _flatten_events(parameters, clip, slot, device)
        event, tile = _tiles(parameters, clip, slot)
        row_event, row_tile = _send(event, device), _send(tile, device)
        start = row_tile * _TILE - events.onset[row_event]
        sound = render_tiles(events, row_event, start + events.source_start[row_event], preset)
        sound *= _envelope(events, row_event, start, preset, _TILE)
        target = _send(clip[event] * clips.shape[1] + tile, device)
        rows_of_slot = torch.bincount(slot[event]).tolist()
        for part, where in zip(sound.split(rows_of_slot), target.split(rows_of_slot), strict=True):
            clips.view(-1, _TILE).index_add_(0, where, part)


def _add_bursts(bursts: Tensor, clip: Tensor, position: Tensor, clips: Tensor) -> None:
    """Add short sounds `(bursts, samples)` to clips `(batch, samples)` at sample positions, cut at the clip's ends."""
    where = position[:, None] + torch.arange(bursts.shape[1], device=clips.device)
    bursts = bursts * ((where >= 0) & (where < clips.shape[1]))
    where = where.clamp(0, clips.shape[1] - 1) + clip[:, None] * clips.shape[1]
    clips.view(-1).index_add_(0, where.flatten(), bursts.flatten())


def _render_transients(parameters: Parameters, clips: Tensor) -> None:
    """Add the noise bursts to `clips`, shape `(batch, samples)`.

    A shared source carries its burst into every event that reads that part of it, under the event's envelope;
    otherwise the burst is a sound of its own.
    """
    preset, device = parameters.preset, clips.device
    rate = preset.sampling_rate
    clip = torch.nonzero(parameters["transient"]).squeeze(1)
    if len(clip) == 0:
        return
    onset, length = (
        _send(_in_samples(parameters[f"transient_{name}"][clip], rate), device) for name in ("onset", "length")
    )
    longest = round(min(preset.ranges["transient_length"].high, preset.duration) * rate)
    bursts = white_noise(_send(parameters["transient_key"][clip], device), longest)
    bursts *= gate(torch.zeros_like(length), length, num_samples=longest)
    bursts *= _send(parameters["transient_gain"][clip].float(), device)[:, None]
    if not preset.shared_source:
        _add_bursts(bursts, _send(clip, device), onset, clips)
        return
    for slot in range(parameters["f0"].shape[1]):
        reads = torch.nonzero(parameters["num_events"][clip] > slot).squeeze(1)
        if len(reads) == 0:
            continue
        events = _flatten_events(parameters, clip[reads], torch.full_like(reads, slot), device)
        row = _send(reads, device)
        start = onset[row] - events.source_start
        envelope = _envelope(events, torch.arange(len(row), device=device), start, preset, longest)
        _add_bursts(bursts[row] * envelope, _send(clip[reads], device), events.onset + start, clips)


def _damp(parameters: Parameters, signal: Tensor) -> Tensor:
    """Low-pass the clips that are damped, in place."""
    preset = parameters.preset
    damped = torch.nonzero(parameters["damping"]).squeeze(1)
    if len(damped) == 0:
        return signal
    rows, cutoff = (_send(tensor, signal.device) for tensor in (damped, parameters["cutoff"][damped]))
    cutoff_range = (preset.ranges["cutoff"].low, preset.ranges["cutoff"].high)
    filtered = low_pass(signal[rows], cutoff, sampling_rate=preset.sampling_rate, cutoff_range=cutoff_range)
    if preset.clipped_by_damping:
        filtered.clamp_(-1.0, 1.0)
    return signal.index_copy_(0, rows, filtered)


def _reverberate(parameters: Parameters, signal: Tensor) -> Tensor:
    """Put the clips that sound in a room into it, in place."""
    preset = parameters.preset
    chosen = torch.nonzero(parameters["room"]).squeeze(1)
    if len(chosen) == 0:
        return signal
    rows, time, level, keys = (
        _send(tensor, signal.device)
        for tensor in (chosen, *(parameters[f"room_{name}"][chosen] for name in ("time", "level", "key")))
    )
    longest = preset.ranges["room_time"].high
    wet = reverberate(signal[rows], time, level, keys, sampling_rate=preset.sampling_rate, longest=longest)
    return signal.index_copy_(0, rows, wet)


def render_components(parameters: Parameters, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    r"""The two summands of equation 1 before normalisation: the signal s(t) and the noise $\lambda_n n(t)$.

    Args:
        parameters: From `draw`.
        device: Where to render.

    Returns:
        Two tensors, float32, shape `(batch, samples)`.

    Example:
        >>> from audiopg.data_scripts.synthesis import draw
        >>> signal, noise = render_components(draw("dynamic", seed=0, indices=[0], duration=0.5))
        >>> bool(noise.any())
        False
    """
    preset, batch = parameters.preset, len(parameters.indices)
    # A caller's mixed precision is meant for a network; sound needs all of float32.
    with torch.no_grad(), torch.autocast(torch.device(device).type, enabled=False):
        tiles = -(-preset.num_samples // _TILE)
        signal = torch.zeros(batch, tiles * _TILE, dtype=torch.float32, device=device)
        _render_events(parameters, signal.view(batch, tiles, _TILE))
        signal = signal[:, : preset.num_samples].contiguous()
        _render_transients(parameters, signal)
        signal = _reverberate(parameters, _damp(parameters, signal))
        noise = white_noise(_send(parameters["noise_key"], signal.device), preset.num_samples)
        noise *= _send(parameters["noise_gain"].float(), signal.device)[:, None]
    return signal, noise


def render(parameters: Parameters, device: torch.device | str = "cpu") -> Tensor:
    r"""Waveforms of a batch of clips (AudioPG, equation 1): $x = (s + \lambda_n n) / \max |s + \lambda_n n|$.

    Args:
        parameters: From `draw`.
        device: Where to render; the samples of every device agree to 1e-5.

    Returns:
        float32 in [-1, 1], shape `(batch, samples)`.

    Example:
        >>> from audiopg.data_scripts.synthesis import draw
        >>> render(draw("audiopg", seed=0, indices=range(2), duration=1.0)).shape
        torch.Size([2, 16000])
    """
    clips = torch.empty(len(parameters.indices), parameters.preset.num_samples, dtype=torch.float32, device=device)
    size = _CLIPS_AT_ONCE.get(clips.device.type, _CLIPS_AT_ONCE_ELSEWHERE)
    for part, out in zip(parameters.split(size), clips.split(size), strict=True):
        signal, noise = render_components(part, device)
        peak_normalise(signal.add_(noise), out=out)
    return clips


def signal_to_noise_ratio(signal: Tensor, noise: Tensor) -> Tensor:
    r"""Level of the signal over the noise in dB: $10 \log_{10} (\overline{s^2} / \overline{n^2})$ over the whole clip.

    Peak normalisation takes the absolute gain away; this is what is left of loudness.

    Args:
        signal: Shape `(batch, samples)`, as from `render_components`.
        noise: Of the same shape.

    Returns:
        float32 of shape `(batch,)`; infinite without noise.

    Example:
        >>> signal_to_noise_ratio(torch.ones(1, 8), 0.1 * torch.ones(1, 8)).round().tolist()
        [20.0]
    """
    return 10 * torch.log10(signal.square().mean(-1) / noise.square().mean(-1))
