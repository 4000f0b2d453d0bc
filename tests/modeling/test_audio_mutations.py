"""Recordings that were damaged at random: each is decoded or refused, soon, and within an honest one's memory.

They are read in another process, which a decoder that never returns, or falls, takes with it.
"""

import subprocess
import sys

import pytest

READ_MUTANTS = '''
import io, pathlib, signal, sys
import numpy as np, soundfile, torch
from audiopg.modeling.audio_audiopg import AudioFileError, read_audio

torch.set_num_threads(1)
SECONDS, RATE = 5, 48000
rng = np.random.default_rng(int(sys.argv[1]))
noise = 0.1 * rng.standard_normal((8 * RATE, 2))

def encoded(**kind):
    content = io.BytesIO()
    soundfile.write(content, noise, RATE, **kind)
    return content.getvalue()

KINDS = [
    dict(format="WAV", subtype="PCM_16"), dict(format="WAV", subtype="FLOAT"), dict(format="WAV", subtype="IMA_ADPCM"),
    dict(format="FLAC"), dict(format="OGG", subtype="VORBIS"), dict(format="OGG", subtype="OPUS"), dict(format="MP3"),
    dict(format="AIFF"), dict(format="W64"), dict(format="CAF"), dict(format="AU"), dict(format="RF64"),
]

def mutant(content):
    """Some bytes changed in the header or anywhere, a run of zeros, a piece cut out, put in or cut off."""
    content = bytearray(content)
    where = int(rng.integers(len(content)))
    length = int(rng.integers(1, 5000))
    kind = int(rng.integers(7))
    if kind == 0:
        for place in rng.integers(0, 64, size=rng.integers(1, 4)):
            content[place] = int(rng.integers(256))
    elif kind == 1:
        for place in rng.integers(0, len(content), size=rng.integers(1, 20)):
            content[place] = int(rng.integers(256))
    elif kind == 2:
        content[where : where + length] = bytes(len(content[where : where + length]))
    elif kind == 3:
        del content[where:]
    elif kind == 4:
        del content[where : where + length]
    elif kind == 5:
        content[where:where] = rng.bytes(length)
    else:
        place = int(rng.integers(0, 60))
        content[place : place + 4] = [0xFF, 0x7F, 0xFF, 0xFF] if rng.integers(2) else [0xFF] * 4
    return bytes(content)

def status(field):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

can_measure = sys.platform == "linux"
honest_files = [encoded(**kind) for kind in KINDS]
for content in honest_files:
    read_audio(content)  # whatever is made once is made now
counts = {"decoded": 0, "refused": 0}
for number in range(int(sys.argv[2])):
    kind = KINDS[number % len(KINDS)]
    content = mutant(honest_files[number % len(KINDS)])
    if can_measure:
        pathlib.Path("/proc/self/clear_refs").write_text("5")
        before = status("VmRSS")
    signal.alarm(SECONDS)
    honest = noise.size * 4
    try:
        waveform = read_audio(content)
        assert torch.isfinite(waveform).all() and waveform.abs().max() <= 200, (number, kind)
        honest = max(honest, 4 * len(waveform))
        counts["decoded"] += 1
    except AudioFileError:
        counts["refused"] += 1
    signal.alarm(0)
    if can_measure:
        peak = status("VmHWM") - before
        assert peak < 10 * honest, (number, kind, peak, honest)
print(counts["decoded"], counts["refused"])
'''


def read_mutants(seed, count):
    """How many mutants were decoded, and how many refused."""
    command = [sys.executable, "-c", READ_MUTANTS, str(seed), str(count)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    return tuple(map(int, ended.stdout.split()))


def check(seed, count):
    decoded, refused = read_mutants(seed, count)
    assert decoded + refused == count
    assert decoded > 0  # the checks are not so strict that nothing passes
    assert refused > count / 3  # nor so lax that damage does


def test_sixty_damaged_recordings_are_decoded_or_refused():
    check(seed=0, count=60)


@pytest.mark.slow
def test_five_hundred_damaged_recordings_are_decoded_or_refused():
    check(seed=1, count=500)
