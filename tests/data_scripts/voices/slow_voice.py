"""The synthesizers of SynthAX written a second time, sound by sound and in float64, from their published formulas."""

import numpy as np


def ramp(count, rate, length, start, inverse):
    k, length = np.arange(count), length * rate
    with np.errstate(divide="ignore"):
        r = np.minimum((np.maximum(k - start * rate, 0) + 1e-6) / length + 1e-6, 1)
    return 1 - r if inverse and length > 0 else r


def adsr(count, rate, note, attack, decay, sustain, release, alpha):
    shortened, fall = min(attack, note), min(max(note - attack, 0), decay)
    up = ramp(count, rate, shortened, 0, False) ** alpha
    down = ramp(count, rate, fall, shortened, True) ** alpha
    return up * ((1 - sustain) * down + sustain) * ramp(count, rate, release, note, True) ** alpha


def lfo(rate, modulation, frequency, depth, phase, *weights):
    theta = np.cumsum(2 * np.pi * np.maximum(frequency + depth * modulation, 0) / rate) + phase
    wave = np.cos(theta + np.pi)
    saw = (theta % (2 * np.pi)) / (2 * np.pi)
    triangle = np.where(2 * saw > 1, 2 - 2 * saw, 2 * saw)
    shapes = (wave + 1) / 2, triangle, saw, 1 - saw, (np.sign(wave) + 1) / 2
    shares = np.array(weights) ** 2.71828
    return sum(share * shape for share, shape in zip(shares / shares.sum(), shapes, strict=True))


def upsampled(control, count):
    return np.interp(np.arange(count) * (len(control) - 1) / (count - 1), np.arange(len(control)), control)


def hertz(note):
    return 440 * 2 ** ((note - 69) / 12)


def square_saw(theta, frequency, shape, constant=12000):
    partials = constant / (frequency * np.log10(frequency))
    return (1 - shape / 2) * np.tanh(np.pi * partials * np.sin(theta) / 2) * (1 + shape * np.cos(theta))


def sound(units, noise, *, rate=16000, control_rate=480, num_controls=480):
    """What SynthAX makes of one sound: units by "module/parameter", each a float or an array."""
    count = len(noise)
    numbers = range(1, 1 + sum(name.endswith("/frequency") for name in units))
    keyboard = "keyboard" if "keyboard/midi_f0" in units else "keyboard_{}"

    def module(name):
        return [float(value) for key, value in units.items() if key.startswith(name + "/")]

    def envelope(name, number):
        return adsr(num_controls, control_rate, units[f"{keyboard.format(number)}/duration"], *module(name))

    sources = [envelope(f"adsr_{i}", i) for i in numbers]
    for i in numbers:
        wave = lfo(control_rate, envelope(f"lfo_{i}_rate_adsr", i), *module(f"lfo_{i}"))
        sources.append(wave * envelope(f"lfo_{i}_amp_adsr", i))
    weights = np.reshape(units["mod_matrix/weight"], (2 * len(numbers) + 1, -1))
    controls = [upsampled(sum(w * s for w, s in zip(row, sources, strict=True)), count) for row in weights]

    outputs = []
    for i in numbers:
        note = units[f"{keyboard.format(i)}/midi_f0"] + units[f"vco_{i}/tuning"]
        depth, phase = units[f"vco_{i}/mod_depth"], units[f"vco_{i}/initial_phase"]
        pitch = hertz(np.clip(note + depth * controls[2 * i - 2], 0, 127))
        theta = np.cumsum(2 * np.pi * pitch / rate) + phase
        if f"vco_{i}/shape" in units:
            wave = square_saw(theta, hertz(note + max(depth, 0)), units[f"vco_{i}/shape"])
        else:
            wave = np.cos(theta)
        outputs.append(wave * controls[2 * i - 1])
    carriers = [i for i in range(len(numbers) + 1, 99) if f"vco_{i}/tuning" in units]
    heard = outputs[: len(outputs) - len(carriers)]
    for i, modulator in zip(carriers, range(len(heard), len(outputs)), strict=True):
        base = hertz(units[f"{keyboard.format(modulator + 1)}/midi_f0"] + units[f"vco_{i}/tuning"])
        frequency = np.clip(base * (1 + units[f"vco_{i}/mod_depth"] * outputs[modulator]), 0, rate / 2)
        heard.append(np.cos(np.cumsum(2 * np.pi * frequency / rate) + units[f"vco_{i}/initial_phase"]))
    mixed = sum(level * wave for level, wave in zip(np.ravel(units["mixer/level"]), heard, strict=True))
    mixed = mixed + units["mixer/noise_level"] * noise * controls[-1]
    return mixed / max(1, np.abs(mixed).max())
