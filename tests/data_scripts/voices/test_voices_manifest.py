import json
from pathlib import Path

import pytest

from audiopg.data_scripts.synthesis.manifest import INDICES, SEED
from audiopg.data_scripts.voices import VOICES_VERSION, get_voice
from audiopg.data_scripts.voices.manifest import build_manifest, describe_voice, main

PATH = Path(__file__).parents[2] / "assets" / "voices_manifest.json"
WHAT_TO_DO = (
    "Sounds have changed. If that was not meant, find out why. If it was, raise VOICES_VERSION, write a line of its "
    "own in CHANGELOG.md, and run: python -m audiopg.data_scripts.voices.manifest " + "/".join(PATH.parts[-3:])
)


@pytest.fixture(scope="module")
def committed():
    return json.loads(PATH.read_text(encoding="utf-8"))


def test_the_manifest_is_of_this_version_and_of_all_voices(committed):
    assert committed["voices_version"] == VOICES_VERSION, WHAT_TO_DO
    assert (committed["seed"], committed["indices"]) == (SEED, list(INDICES))
    assert list(committed["voices"]) == list(build_manifest()["voices"]), WHAT_TO_DO


@pytest.mark.parametrize("preset", ["voices", "synthax"])
@pytest.mark.parametrize("name", ["voice", "voice_fm", "parametric"])
def test_sounds_are_the_committed_ones(committed, name, preset):
    found, expected = describe_voice(get_voice(name, preset)), committed["voices"][f"{name} {preset}"]
    assert found["parameters"] == expected["parameters"], WHAT_TO_DO
    for mine, theirs in zip(found["sound"], expected["sound"], strict=True):
        assert mine["rms"] == pytest.approx(theirs["rms"], rel=1e-2), WHAT_TO_DO
        assert mine["centre"] == pytest.approx(theirs["centre"], abs=1e-3), WHAT_TO_DO
        assert mine["bands_db"] == pytest.approx(theirs["bands_db"], abs=0.2), WHAT_TO_DO


def test_a_small_change_is_seen(committed):
    changed = describe_voice(get_voice("voice", control_rate=441))
    expected = committed["voices"]["voice voices"]
    assert changed["parameters"] == expected["parameters"]
    assert changed["sound"] != expected["sound"]


def test_the_command_writes_the_manifest(committed, tmp_path):
    main([str(tmp_path / "new" / "manifest.json")])
    assert json.loads((tmp_path / "new" / "manifest.json").read_text()).keys() == committed.keys()
