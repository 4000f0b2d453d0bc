"""How fast sounds of voices are made, beside SynthAX and torchsynth; and what each difference from SynthAX does.

    python benchmarks/voices.py --peers             # minutes on a CPU; installs them into build/peers
    python benchmarks/voices.py --differences       # only what the differences do
    python benchmarks/voices.py --device cuda --output benchmarks/results/voices_cuda.json

All contenders make Voice's sounds of 1 s at 16 kHz from new random parameters, noise included, batch after batch in
turn on the same cores; times are wall clock, synchronised, and every batch is read back as a checksum. On a machine
that others use too, the ratios between them mean more than the numbers. Writes JSON.
"""

import argparse
import json
import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from contenders import PEERS, add_ratios, in_turns
from torch import Tensor

from audiopg.data_scripts.voices import VOICE_PRESETS, VOICES_VERSION, VoicePreset, draw, get_voice, noise_of, render
from audiopg.modeling.spectrogram_doppelganger import vggish_log_mel
from audiopg.training.runs.provenance import environment

BATCH_SIZES = {"cpu": (16, 64), "cuda": (64, 768, 4096)}
OURS = "AudioPG"
_ARCHITECTURES = {"voice": {}, "voice_fm": {}, "parametric": {"sines": 2, "square_saws": 2, "fm_square_saws": 1}}


def contenders(batch_size: int, duration: float, peers: bool, compiled: bool) -> list[dict[str, Any]]:
    """Who takes part, as `in_turns` has them."""
    options, makes = {"batch_size": batch_size, "duration": duration}, f"{batch_size} x {duration:g} s"
    ours = [{"title": OURS, "options": options}]
    if compiled:
        ours.append({"title": f"{OURS}, torch.compile", "options": {**options, "compiled": True}})
    found = [{**contender, "module": "audiopg_voices", "makes": makes} for contender in ours]
    if peers:
        found += [{**peer, "module": module, "makes": makes, "options": options} for module, peer in PEERS.items()]
    return found


def measure_speed(known: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each contender, batch size and number of threads."""
    rows = []
    for threads in known.threads:
        for batch_size in known.batch_sizes or BATCH_SIZES[known.device]:
            competing = contenders(batch_size, known.duration, known.peers, known.compile)
            found, running = in_turns(competing, known.device, threads, known.rounds, known.peers_dir)
            add_ratios(running, OURS)
            rows += found
    return rows


def describe(preset: VoicePreset, architecture: str, num_sounds: int) -> tuple[dict[str, float], Tensor]:
    """Figures of random sounds of a preset; and their log-mel spectrograms.

    Level, share of silent sounds, share of the energy that is noise, share of the tones' energy above 6 kHz.
    """
    voice = get_voice(architecture, preset, **_ARCHITECTURES[architecture])
    parameters, noise = draw(voice, 0, range(num_sounds)), noise_of(voice, 0, range(num_sounds))
    waveforms = render(voice, parameters, noise)
    silent = parameters.clone()
    silent[:, voice.slices["mixer/noise_level"]] = 0
    tones = render(voice, silent, noise)
    energy = waveforms.square().sum(-1)
    noisy = ((waveforms - tones).square().sum(-1) / energy.clamp(min=1e-9)).clamp(max=1)
    spectrum = torch.fft.rfft(tones).abs().square()
    high = spectrum[:, 6000:].sum(-1) / spectrum.sum(-1).clamp(min=1e-9)
    return {
        "rms_db": round(10 * float(torch.log10(waveforms.square().mean(-1).mean())), 2),
        "silent_share": round(float((waveforms.square().mean(-1).sqrt() < 1e-3).float().mean()), 3),
        "noise_share": round(float(noisy.mean()), 4),
        "above_6_khz": round(float(high.mean()), 4),
        "aliased_share": round(aliased_share(preset), 4),
    }, vggish_log_mel(waveforms)


def aliased_share(preset: VoicePreset, num_sounds: int = 128) -> float:
    """Energy off the partials of steady square-saws below 7.8 kHz, as a share of all: what has folded back."""
    voice = get_voice("voice", preset)
    parameters = torch.full((num_sounds, voice.num_parameters), 0.5)  # no tuning, no modulation of pitch
    notes, mixer = torch.linspace(0, 1, num_sounds), voice.slices["mixer/level"].start
    parameters[:, voice.slices["keyboard/midi_f0"].start] = notes
    parameters[:, voice.slices["vco_2/shape"].start] = notes.flip(0)
    parameters[:, mixer : mixer + 3] = torch.tensor([0.0, 1.0, 0.0])
    for name, position in (("attack", 0.05), ("sustain", 1.0), ("release", 1.0)):
        parameters[:, voice.slices[f"adsr_1/{name}"].start] = position
    sounds = render(voice, parameters, torch.zeros(num_sounds, voice.num_samples))[:, 8000:].double()
    energy = torch.fft.rfft(sounds * torch.blackman_window(8000, dtype=torch.float64)).abs().square()
    bins = torch.arange(energy.shape[1], dtype=torch.float64)
    pitch = 440 * 2 ** ((127 * notes.double() - 69) / 12) / 2  # in bins of 2 Hz
    nearest = (bins / pitch[:, None]).round() * pitch[:, None]
    off = ((bins - nearest).abs() > 4) | (nearest == 0) | (nearest > 4000)
    keeps = (pitch > 10) & (pitch < 0.49 * 8000)  # partials further apart than the window is wide
    return float(((energy * off).sum(-1) / energy.sum(-1))[keeps].mean())


def differences(num_sounds: int = 64) -> list[dict[str, Any]]:
    """What each switch does: figures of `voices`, and of it with one switch set as `synthax` has it."""
    voices, synthax = VOICE_PRESETS["voices"], VOICE_PRESETS["synthax"]
    switches = [name for name in vars(voices) if name not in ("name", "description", "wrapped_phases")]
    rows = []
    for architecture in _ARCHITECTURES:
        figures, before = describe(voices, architecture, num_sounds)
        rows.append({"architecture": architecture, "switch": "none: voices", **figures})
        for name in switches:
            figures, after = describe(replace(voices, **{name: getattr(synthax, name)}), architecture, num_sounds)
            distance = round(float((after - before).abs().mean()), 4)
            rows.append({"architecture": architecture, "switch": name, **figures, "log_mel_distance": distance})
        figures, after = describe(synthax, architecture, num_sounds)
        distance = round(float((after - before).abs().mean()), 4)
        rows.append({"architecture": architecture, "switch": "all: synthax", **figures, "log_mel_distance": distance})
    return rows


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results/voices_cpu.json")
    parser.add_argument("--device", choices=sorted(BATCH_SIZES), default="cpu")
    parser.add_argument("--peers", action="store_true", help="measure SynthAX and torchsynth too; installs them")
    parser.add_argument("--peers_dir", type=Path, default=Path("build/peers"), help="where their environments live")
    parser.add_argument(
        "--compile", action="store_true", help="also ours through torch.compile, which needs a compiler"
    )
    parser.add_argument("--rounds", type=int, default=30, help="turns of each contender")
    parser.add_argument("--batch_sizes", type=int, nargs="+", help="instead of the device's own")
    parser.add_argument(
        "--threads", type=int, nargs="+", default=sorted({1, available}), help="cores of each contender"
    )
    parser.add_argument("--duration", type=float, default=1.0, help="of a sound, in s")
    parser.add_argument("--differences", action="store_true", help="only measure the differences from SynthAX")
    known = parser.parse_args(arguments)
    words, load = sys.argv[1:] if arguments is None else arguments, os.getloadavg()
    results: dict[str, Any] = {**environment(), "voices_version": VOICES_VERSION, "device": known.device}
    if not known.differences:
        results["contenders"] = measure_speed(known)
    results["differences"] = differences()
    results["load_average"] = {"before": load[0], "after": os.getloadavg()[0], "cores": available}
    results["command"] = shlex.join(["python", "benchmarks/voices.py", *words])
    known.output.parent.mkdir(parents=True, exist_ok=True)
    known.output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    for name in ("contenders", "differences"):
        for row in results.get(name, []):
            sys.stdout.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
