import json
from pathlib import Path

import pytest
import torch

from audiopg.data_scripts.synthesis import PRESETS, SYNTHESIZER_VERSION, draw, get_preset
from audiopg.data_scripts.synthesis.manifest import (
    INDICES,
    INGREDIENTS,
    SEED,
    build_manifest,
    describe_preset,
    main,
    parameters_digest,
    sound_statistics,
)

PATH = Path(__file__).parents[2] / "assets" / "synthesizer_manifest.json"
WHAT_TO_DO = (
    "Clips have changed. If that was not meant, find out why. If it was, raise SYNTHESIZER_VERSION, write a line of "
    "its own in CHANGELOG.md, and run: python -m audiopg.data_scripts.synthesis.manifest " + "/".join(PATH.parts[-3:])
)


@pytest.fixture(scope="module")
def committed():
    return json.loads(PATH.read_text(encoding="utf-8"))


def assert_sounds_alike(found, expected):
    """Machines, and ways to compute the same, differ by 1e-5 of a sample; nothing that can be heard is that small."""
    for mine, theirs in zip(found, expected, strict=True):
        assert mine["rms"] == pytest.approx(theirs["rms"], rel=1e-4), WHAT_TO_DO
        assert mine["centre"] == pytest.approx(theirs["centre"], abs=1e-5), WHAT_TO_DO
        assert mine["bands_db"] == pytest.approx(theirs["bands_db"], abs=0.02), WHAT_TO_DO


def test_the_manifest_is_of_this_version_and_of_all_presets(committed):
    assert committed["synthesizer_version"] == SYNTHESIZER_VERSION, WHAT_TO_DO
    assert (committed["seed"], committed["indices"]) == (SEED, list(INDICES))
    assert list(committed["presets"]) == list(PRESETS), WHAT_TO_DO


@pytest.mark.parametrize("name", PRESETS)
def test_parameters_are_the_committed_bits(committed, name):
    assert parameters_digest(draw(name, SEED, INDICES)) == committed["presets"][name]["parameters"], WHAT_TO_DO


def test_what_is_off_in_every_preset_is_as_committed_too(committed):
    found, expected = describe_preset(get_preset("audiopg", **INGREDIENTS)), committed["ingredients"]
    assert found["parameters"] == expected["parameters"], WHAT_TO_DO
    assert_sounds_alike(found["sound"], expected["sound"])


@pytest.mark.parametrize("name", PRESETS)
def test_clips_sound_as_committed(committed, name):
    assert_sounds_alike(describe_preset(name)["sound"], committed["presets"][name]["sound"])


@pytest.mark.parametrize(
    "change", [{"f0": (50, 2000.0001)}, {"noise_gain": (0.001, 0.0201)}, {"num_events": (1, 4)}, {"duration": 10.23}]
)
def test_a_small_change_of_a_range_changes_the_digest(committed, change):
    changed = parameters_digest(draw("reference", SEED, INDICES, **change))
    assert changed != committed["presets"]["reference"]["parameters"]


def test_a_change_of_the_sound_alone_is_heard(committed):
    """The same parameters through a filter that is a little off, or without the aliases."""
    detuned = get_preset("audiopg", cutoff=(200.0, 6010.0))
    sharp = describe_preset(detuned)["sound"]
    with pytest.raises(AssertionError, match="raise SYNTHESIZER_VERSION"):
        assert_sounds_alike(sharp, committed["presets"]["audiopg"]["sound"])


def test_rounding_errors_are_not_heard(committed):
    generator = torch.Generator().manual_seed(0)
    waveform = torch.rand(16000, generator=generator) - 0.5
    error = 1e-5 * (torch.rand(16000, generator=generator) - 0.5)
    assert_sounds_alike([sound_statistics(waveform + error)], [sound_statistics(waveform)])


def test_statistics_say_where_energy_lies_in_time_and_frequency():
    time = torch.arange(16000, dtype=torch.float64) / 16000
    tone = torch.sin(2 * torch.pi * 2500 * time) * (time >= 0.5)
    found = sound_statistics(tone)
    assert found["rms"] == pytest.approx(0.5, abs=1e-4)
    assert found["centre"] == pytest.approx(0.75, abs=1e-4)
    assert found["bands_db"][2] == pytest.approx(0, abs=0.01)  # 2 to 3 kHz
    assert max(found["bands_db"][:2] + found["bands_db"][3:]) < -30


def test_the_command_writes_the_manifest(committed, tmp_path):
    main([str(tmp_path / "new" / "manifest.json")])
    written = json.loads((tmp_path / "new" / "manifest.json").read_text())
    assert written == build_manifest()
    assert written.keys() == committed.keys()
