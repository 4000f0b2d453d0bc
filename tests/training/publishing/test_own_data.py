"""From anyone's own recordings to the card: nothing made up, nothing of this machine, whatever things are called."""

import json
import os
import subprocess
import sys
from io import BytesIO

import datasets
import numpy as np
import pytest
import soundfile
import torch
from toys import SMALL

from audiopg.modeling.configuration_audiopg import AudioPGConfig
from audiopg.modeling.feature_extraction_audiopg import AudioPGFeatureExtractor
from audiopg.modeling.modeling_audiopg import AudioPGModel
from audiopg.training import export, finetune, probe

NAMES = ["$x_{$", "a|b", "<script>alert(1)</script>", "naïve café"]


def wav(seed):
    content = BytesIO()
    soundfile.write(content, np.random.default_rng(seed).uniform(-0.3, 0.3, 2560), 16000, format="WAV")
    return content.getvalue()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A saved data set of odd classes in which some labels are missing, a checkpoint, and what was made of them."""
    home = tmp_path_factory.mktemp("home-of-somebody")
    labels = [*NAMES * 3, None, "-1", "nan"]
    audio = [{"bytes": wav(i), "path": f"{i}.wav"} for i in range(len(labels))]
    features = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    features = datasets.Features({"audio": features, "label": datasets.Value("string")})
    rows = datasets.Dataset.from_dict({"audio": audio, "label": labels}, features=features)
    rows.save_to_disk(home / "my sounds")
    torch.manual_seed(0)
    AudioPGModel(AudioPGConfig(**SMALL)).save_pretrained(home / "encoder")
    AudioPGFeatureExtractor().save_pretrained(home / "encoder")
    checkpoint, data = [str(home / "encoder")], ["--data_dir", str(home / "my sounds")]
    recipe = ["--recipe", "tiny", "--controls", "scratch", "--epochs", "1", "--clip_seconds", "0.16"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("audiopg.training.features.cache.CACHE_FOLDER", home / "cache")
        finetune.main([*checkpoint, *data, *recipe, "--output_dir", str(home / "run")])
        probe.main([*checkpoint, *data, "--output", str(home / "probe.json")])
    export.main([str(home / "run"), str(home / "classifier")])
    return home


def test_the_card_has_the_classes_that_the_labels_name_and_no_other(home):
    card = (home / "classifier" / "README.md").read_text(encoding="utf-8")
    (line,) = [line for line in card.splitlines() if line.startswith("Classes: ")]
    shown = ["&#36;x_{&#36;", "&lt;script&gt;alert(1)&lt;/script&gt;", "a&#124;b", "naïve café"]
    assert line == f"Classes: {', '.join(shown)}."
    assert "A classifier of 4 kinds of sound" in card
    assert "<script>" not in card
    configuration = json.loads((home / "classifier" / "config.json").read_text())
    assert sorted(configuration["id2label"].values()) == sorted(NAMES)


def test_what_was_drawn_and_left_out_is_said_in_results_and_card(home):
    said = ("the folds were drawn here", "3 of 15 clips without a label")
    card = (home / "classifier" / "README.md").read_text(encoding="utf-8")
    for name in ("run/results.json", "classifier/results.json", "probe.json"):
        protocol = json.loads((home / name).read_text())["protocol"]
        assert all(clause in protocol for clause in said)
    assert all(clause in card for clause in said)


def test_no_table_of_the_card_is_broken_by_a_name(home):
    card = (home / "classifier" / "README.md").read_text(encoding="utf-8")
    tables = [block.splitlines() for block in card.split("\n\n") if block.startswith("|")]
    assert len(tables) >= 2
    for lines in tables:
        assert len({line.count("|") for line in lines if line.startswith("|")}) == 1


def test_nothing_that_is_published_says_where_this_machine_keeps_things(home):
    published = [home / "probe.json", home / "run" / "results.json", home / "run" / "run.json"]
    published += [path for path in (home / "classifier").rglob("*") if path.is_file()]
    published += list((home / "cache").glob("*.safetensors"))
    for path in published:
        content = path.read_bytes()
        assert os.fsencode(home.name) not in content, path
        assert os.fsencode(str(home.parent)) not in content, path
    assert json.loads((home / "probe.json").read_text())["checkpoint"] == "encoder"


def test_a_terminal_without_the_letters_is_told_as_well(home):
    script = (
        "import json, sys\n"
        "from audiopg.training.evaluation.results import format_results\n"
        "from audiopg.training.runs.names import say\n"
        "say(format_results(json.load(open(sys.argv[1]))) + ' naïve café ±')\n"
    )
    command = [sys.executable, "-X", "utf8=0", "-c", script, str(home / "run" / "results.json")]
    plain = {**os.environ, "PYTHONIOENCODING": "ascii"}
    said = subprocess.run(command, env=plain, check=True, capture_output=True, timeout=120).stdout
    assert b"na\\xefve caf\\xe9 \\xb1" in said
