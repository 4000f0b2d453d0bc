import importlib
import pickle
import sys
from dataclasses import dataclass, fields
from pathlib import Path

import pytest
import yaml

from audiopg.data_scripts.synthesis import PRESETS, get_preset
from audiopg.modeling.configuration_audiopg import AudioPGConfig
from audiopg.modeling.configuration_doppelganger import DoppelgangerConfig
from audiopg.training.objectives.recipe import (
    DoublesRecipe,
    EmbeddingRecipe,
    FactorsRecipe,
    LatentsRecipe,
    MixturesRecipe,
    PatternsRecipe,
    PretrainingRecipe,
    RecordingsRecipe,
    VoicesRecipe,
)
from audiopg.training.runs.recipes import (
    RECIPES,
    build_recipe,
    differences,
    given,
    load_recipe,
    parse_overrides,
    plain,
    recipe_parser,
)

COMPLETE = {"name": "x", "description": "d", "size": "tiny", "preset": "sine", "num_clips": 8}


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_describes_a_model_and_clips_that_can_be_made(path: Path):
    recipe, values = load_recipe(PretrainingRecipe, path), yaml.safe_load(path.read_text(encoding="utf-8"))
    of_images = {"num_channels": 3, "num_mel_bins": 224} if recipe.patterns else {}
    kind = DoppelgangerConfig if recipe.is_convolutional else AudioPGConfig
    read = {f"embedding_{name}": value for name, value in values.get("embedding", {}).items()}
    expected = kind.of_size(recipe.size, **of_images, **read, **values.get("model", {}))
    assert recipe.config.to_dict() == expected.to_dict()
    if recipe.recordings:
        assert recipe.recordings.duration == 10.24
    elif recipe.patterns:
        assert recipe.patterns.pattern_set.name == recipe.patterns.name
    elif recipe.voices:
        assert recipe.heard == recipe.voices.voice
    else:
        parent = yaml.safe_load(path.with_name(f"{values.get('extends', path.stem)}.yaml").read_text(encoding="utf-8"))
        overrides = {**parent.get("synthesis", {}), **values.get("synthesis", {})}
        assert recipe.clips == get_preset(recipe.preset, **overrides)
    assert recipe.description


def test_no_two_recipes_share_a_name_and_with_it_a_folder():
    names = [load_recipe(PretrainingRecipe, path).name for path in RECIPES.glob("*.yaml")]
    assert len(set(names)) == len(names)


# What each row of the paper's tables changes of base; f0 ranges are our choice.
ROWS = {
    "base_500": {"num_clips": 2_500_000},
    "small": {"size": "small"},
    "ablation_1_sine": {"preset": "sine"},
    "ablation_2_harmonic": {"preset": "harmonic"},
    "ablation_3_dynamic": {"preset": "dynamic"},
    "ablation_4_reference": {},
    "f0_narrow": {"synthesis": {"f0": [200, 800]}},
    "f0_wide": {"synthesis": {"f0": [25, 4000]}},
    "events_1": {"synthesis": {"num_events": 1}},
    "events_1_5": {"synthesis": {"num_events": [1, 5]}},
    "events_5_10": {"synthesis": {"num_events": [5, 10]}},
    "mask_50": {"model": {"mask_ratio": 0.5}},
    "mask_75": {"model": {"mask_ratio": 0.75}},
    "mask_90": {"model": {"mask_ratio": 0.9}},
}


@pytest.mark.parametrize("row", ROWS)
def test_a_row_differs_from_base_in_what_it_is_named_for_alone(row):
    base, recipe = (plain(load_recipe(PretrainingRecipe, name)) for name in ("base", row))
    changed = {name: value for name, value in recipe.items() if value != base[name]}
    assert changed == {"name": changed["name"], "description": changed["description"], **ROWS[row]}


def test_a_recipe_extends_another_of_its_folder(tmp_path):
    (tmp_path / "parent.yaml").write_text("{name: p, description: d, size: tiny, preset: sine, num_clips: 8}")
    (tmp_path / "child.yaml").write_text("{extends: parent, name: c, synthesis: {f0: [60, 70]}}")
    (tmp_path / "grandchild.yaml").write_text("{extends: child}")
    recipe = load_recipe(PretrainingRecipe, tmp_path / "child.yaml", {"synthesis": {"duration": 1.0}})
    assert (recipe.name, recipe.num_clips, given(recipe.synthesis)) == ("c", 8, {"f0": [60, 70], "duration": 1.0})
    with pytest.raises(ValueError, match="one step is allowed"):
        load_recipe(PretrainingRecipe, tmp_path / "grandchild.yaml")


@pytest.mark.parametrize(
    "values", [{"folder": 1}, {"folder": "x", "duration": 0.0}, {"folder": "x", "max_unreadable": -1}, {"rate": 1}]
)
def test_impossible_recordings_are_refused(values):
    with pytest.raises(ValueError, match=r"folder is of type str|duration lies|max_unreadable is 0|no field 'rate'"):
        build_recipe(RecordingsRecipe, values)


def test_base_is_the_published_recipe():
    recipe = load_recipe(PretrainingRecipe, "base")
    assert (recipe.num_clips, recipe.batch_size, recipe.learning_rate) == (500_000, 64, 1e-4)
    assert (recipe.schedule, recipe.weight_decay, recipe.betas) == ("constant", 0.05, [0.9, 0.95])
    assert recipe.preset == "reference"
    assert not given(recipe.synthesis)
    assert not given(recipe.model)


def test_overrides_replace_fields_and_extend_mappings():
    overrides = parse_overrides(["--learning_rate", "1e-3", "--synthesis.f0=[60, 70]", "--num_clips", "640"])
    recipe = load_recipe(PretrainingRecipe, "tiny", overrides)
    assert recipe.learning_rate == 1e-3
    assert given(recipe.synthesis) == {"duration": 2.56, "f0": [60, 70]}
    assert recipe.num_steps == 640 // recipe.batch_size


def test_recordings_replace_a_preset_on_the_command_line():
    words = ["--preset", "", "--recordings.folder", "sounds", "--max_minutes=null"]
    recipe = load_recipe(PretrainingRecipe, "tiny", parse_overrides(words))
    assert (recipe.preset, recipe.recordings) == ("", RecordingsRecipe(folder="sounds"))
    words = ["--preset=sine", "--recordings", "null"]
    recipe = load_recipe(PretrainingRecipe, "recordings", parse_overrides(words))
    assert (recipe.preset, recipe.recordings) == ("sine", None)


def test_a_started_batch_counts_as_a_step():
    assert build_recipe(PretrainingRecipe, {**COMPLETE, "num_clips": 65, "batch_size": 32}).num_steps == 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lerning_rate": 1.0}, "no field 'lerning_rate'; did you mean 'learning_rate'"),
        ({"zzz": 1}, "its fields are name"),
        ({"num_clips": "many"}, "num_clips is of type int, got 'many'"),
        ({"num_clips": True}, "num_clips is of type int"),
        ({"num_clips": 0}, "num_clips is 1 or more"),
        ({"learning_rate": 0.0}, "learning_rate is above 0"),
        ({"schedule": "linear"}, "schedule is one of constant, cosine, steps, got 'linear'"),
        ({"warmup_fraction": 1.0}, "warmup_fraction"),
        ({"betas": [0.9]}, "betas are two numbers"),
        ({"betas": [0.9, "b"]}, r"betas is of type list\[float\], got \[0.9, 'b'\]"),
        ({"weight_decay": -1.0}, "weight_decay is 0 or more"),
        ({"preset": ""}, "either a preset or voices, to synthesize clips, or recordings, .* or patterns"),
        ({"recordings": {"folder": "x"}}, "either a preset or voices, to synthesize clips, or recordings"),
        ({"micro_batch_size": 0}, "micro_batch_size is 1 or more"),
        ({"batch_size": 8, "micro_batch_size": 3}, "micro_batch_size divides batch_size, 8, got 3"),
        ({"milestones": [0]}, "milestones are steps, 1 or more"),
        ({"max_minutes": 0.0}, "max_minutes is above 0"),
        ({"learning_rate": float("nan")}, "learning_rate is of type float, got nan"),
        ({"name": None}, "name is of type str, got None"),
        ({"num_clips": 8.0}, "num_clips is of type int, got 8.0"),
        ({"num_clips": "8"}, "num_clips is of type int, got '8'"),
        ({"milestones": ["8"]}, r"milestones is of type list\[int\], got \['8'\]"),
        ({"compile": 1}, "compile is of type bool, got 1"),
        ({"precision": "fp16"}, "precision is one of auto, no, bf16, got 'fp16'"),
        ({"objective": "masked_pixels"}, "objective is one of masked_audio, factor_heads, .*, got 'masked_pixels'"),
        ({"size": "huge"}, "`size` must be one of"),
        ({"preset": "piano"}, "Presets are reference"),
        ({"model": {"mask_ration": 0.5}}, "model has no field 'mask_ration'; did you mean 'mask_ratio'"),
        ({"model": {"mask_ratio": "half"}}, "model.mask_ratio is of type"),
        ({"model": {"mask_ratio": 1.5}}, "`mask_ratio` must be at least 0 and below 1"),
        ({"model": {"drop_path_rate": 0.1}}, "drop_path_rate is 0 in pre-training, got 0.1"),
        ({"model": "small.yaml"}, "model maps fields to values, got 'small.yaml'"),
        ({"synthesis": {"f00": 440}}, "synthesis has no field 'f00'; did you mean 'f0'"),
        ({"synthesis": {"f0": True}}, "synthesis.f0 is of type .*, got True"),
        ({"synthesis": {"f0": [4000, 50]}}, "swap the two"),
        ({"synthesis": {"mode": ["piano"]}}, "mode: values are"),
        ({"factors": {"factors_weight": -1.0}}, "0 or more and not both 0, got 1.0 and -1.0"),
        ({"factors": {"reconstruction_weight": 0, "factors_weight": 0}}, "not both 0, got 0.0 and 0.0"),
        ({"preset": "", "recordings": {"folder": 1}}, "recordings.folder is of type str, got 1"),
        ({"preset": "", "recordings": {"rate": 8000}}, "recordings has no field 'rate'"),
        ({"preset": "", "recordings": {"split": "train"}}, "recordings needs the fields folder;"),
        (
            {"preset": "", "recordings": {"folder": "x"}, "objective": "factor_heads"},
            "names what the synthesizer of a preset drew, and nobody drew recordings",
        ),
        ({3: 4}, "no field 3; its fields are name"),
    ],
)
def test_a_wrong_field_is_refused_by_name(values, message):
    with pytest.raises(ValueError, match=message):
        build_recipe(PretrainingRecipe, COMPLETE | values)


def test_a_missing_field_is_named():
    with pytest.raises(ValueError, match="needs the fields name, description, size;"):
        build_recipe(PretrainingRecipe, {"num_clips": 1})


def test_an_unknown_recipe_lists_those_that_exist():
    with pytest.raises(ValueError, match=r"base, .*tiny"):
        load_recipe(PretrainingRecipe, "basis")


def test_a_recipe_file_must_be_a_mapping(tmp_path):
    (tmp_path / "r.yaml").write_text("- 1\n")
    with pytest.raises(ValueError, match="maps fields to values"):
        load_recipe(PretrainingRecipe, tmp_path / "r.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{name: a, num_clips: 8, num_clips: 9}", "'num_clips' is given twice"),
        ("synthesis: {f0: 1, f0: 2}", "'f0' is given twice"),
        ("name: [1", "not a value that YAML can read"),
        ("name: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
    ],
)
def test_a_recipe_file_that_says_two_things_or_none_is_refused(tmp_path, text, message):
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_recipe(PretrainingRecipe, tmp_path / "r.yaml")


OLD_RECIPE = """
name: audiopg-tiny
description: A model that pre-trains on a laptop's CPU in minutes.
size: tiny
num_clips: 320
preset: reference
model: {}
synthesis:
  duration: 2.56
recordings: {}
init_from: null
seed: 0
batch_size: 16
micro_batch_size: null
max_minutes: null
learning_rate: 0.001
schedule: cosine
warmup_fraction: 0.1
weight_decay: 0.05
betas:
- 0.9
- 0.95
max_grad_norm: 1.0
statistics_clips: 512
log_every: 1
checkpoint_every: 250
keep_checkpoints: 2
milestones: []
compile: false
"""
"""What was written into a run's folder before recipes had sections."""


def test_the_recipe_of_an_old_run_is_read_and_written_with_the_same_values(tmp_path):
    (tmp_path / "recipe.yaml").write_text(OLD_RECIPE)
    recipe, old = load_recipe(PretrainingRecipe, tmp_path / "recipe.yaml"), yaml.safe_load(OLD_RECIPE)
    assert recipe.recordings is None
    new = {"precision": "auto", "objective": "masked_audio", "optimizer": "adamw"}
    new |= {"voices": None, "recordings": None, "patterns": None, "mixtures": None}
    new |= {name: plain(recipe)[name] for name in ("embedding", "latents", "doubles")}
    weights = {"factors": {"reconstruction_weight": 1.0, "factors_weight": 1.0}}
    assert yaml.safe_load(yaml.safe_dump(plain(recipe))) == old | new | weights
    assert recipe.doubles == DoublesRecipe(), "new fields have their defaults"


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_recipe_survives_being_written_and_handed_to_another_process(path: Path):
    recipe = load_recipe(PretrainingRecipe, path)
    assert build_recipe(PretrainingRecipe, yaml.safe_load(yaml.safe_dump(plain(recipe)))) == recipe
    assert build_recipe(PretrainingRecipe, yaml.safe_load(yaml.safe_dump(differences(recipe)))) == recipe
    assert pickle.loads(pickle.dumps(recipe)) == recipe


def test_differences_are_what_was_set_and_no_default():
    changes = {"synthesis": {"f0": [60, 70]}, "factors": {"reconstruction_weight": 0}, "betas": [0.9, 0.95]}
    recipe = build_recipe(PretrainingRecipe, COMPLETE | changes)
    expected = {"synthesis": {"f0": [60, 70]}, "factors": {"reconstruction_weight": 0.0}}
    assert differences(recipe) == COMPLETE | expected
    recorded = build_recipe(PretrainingRecipe, COMPLETE | {"preset": "", "recordings": {"folder": "x", "split": None}})
    assert differences(recorded)["recordings"] == {"folder": "x"}


@pytest.mark.parametrize("nothing", [{}, None])
def test_an_empty_section_is_as_good_as_none(nothing):
    changes = {"recordings": nothing, "model": nothing, "synthesis": nothing}
    assert build_recipe(PretrainingRecipe, COMPLETE | changes) == build_recipe(PretrainingRecipe, COMPLETE)


def test_numbers_keep_their_kind_and_the_values_that_were_given_stay_as_they_are():
    values = COMPLETE | {"betas": [0, 0.5], "learning_rate": 1, "synthesis": {"f0": [60, 70.5], "num_events": 1}}
    recipe = build_recipe(PretrainingRecipe, values)
    assert repr((recipe.betas, recipe.learning_rate)) == "([0.0, 0.5], 1.0)"
    assert repr(given(recipe.synthesis)) == "{'f0': [60, 70.5], 'num_events': 1}"
    assert repr(values["betas"]) == "[0, 0.5]"


@dataclass(frozen=True)
class Open:
    """A recipe with a field that takes anything.

    Args:
        cells: Whatever.
    """

    cells: dict[str, object]


def test_no_value_of_a_recipe_imports_a_class_or_opens_a_file(tmp_path, monkeypatch):
    (tmp_path / "trap.py").write_text("class Trap: pass")
    (tmp_path / "trap.yaml").write_text("{mask_ratio: 0.5}")
    monkeypatch.syspath_prepend(tmp_path)
    trap = {"class_path": "trap.Trap", "init_args": {}}
    for cells in (trap, {"a": trap}):
        assert build_recipe(Open, {"cells": cells}).cells == cells
    for changes in (
        {"recordings": trap},
        {"model": trap},
        {"model": str(tmp_path / "trap.yaml")},
        {"milestones": trap},
    ):
        with pytest.raises(ValueError, match=r"class_path|maps fields|is of type"):
            build_recipe(PretrainingRecipe, COMPLETE | changes)
    assert "trap" not in sys.modules


def test_no_environment_variable_changes_a_recipe(monkeypatch):
    monkeypatch.setenv("JSONARGPARSE_DEFAULT_ENV", "true")
    for name in ("SEED", "TEST_RECIPES_SEED", "PYTEST_SEED"):
        monkeypatch.setenv(name, "7")
    assert build_recipe(PretrainingRecipe, COMPLETE).seed == 0


SECTIONS = {
    "voices": VoicesRecipe,
    "recordings": RecordingsRecipe,
    "patterns": PatternsRecipe,
    "mixtures": MixturesRecipe,
    "embedding": EmbeddingRecipe,
    "factors": FactorsRecipe,
    "latents": LatentsRecipe,
    "doubles": DoublesRecipe,
}
OF_PRETRAINING = [
    *(f.name for f in fields(PretrainingRecipe) if f.name not in ("model", "synthesis", *SECTIONS)),
    *(f"model.{name}" for name in AudioPGConfig.__annotations__ if not name.startswith("embedding_")),
    *(f"synthesis.{name}" for name in ("duration", "sampling_rate", *PRESETS["reference"].ranges)),
    *(f"{section}.{f.name}" for section, kind in SECTIONS.items() for f in fields(kind)),
]


@pytest.mark.parametrize(
    ("door", "recipe", "names"),
    [
        ("pretrain", "PretrainingRecipe", OF_PRETRAINING),
        ("finetune", "FinetuningRecipe", None),
        ("ablate", "AblationGrid", None),
    ],
)
def test_help_shows_every_field_of_the_recipe_with_its_meaning(door, recipe, names, capsys):
    module = importlib.import_module(f"audiopg.training.{door}")
    with pytest.raises(SystemExit) as exit_status:
        module.main(["--help"])
    assert exit_status.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    for name in names or [f.name for f in fields(getattr(module, recipe))]:
        (shown,) = (i for i, line in enumerate(lines) if line.split()[:1] == [f"--{name}"])
        text = " ".join(lines[shown : shown + 8]).split("(type: ")[0]
        assert len(text.split()) > 2, name  # the option, its value, and what it means


def test_the_help_of_a_range_is_what_its_owner_says():
    shown = " ".join(recipe_parser(None, PretrainingRecipe).format_help().split())
    for name, distribution in PRESETS["reference"].ranges.items():
        assert distribution.description[1:] in shown.split(f"--synthesis.{name} ")[1][:300], name


@pytest.mark.parametrize("words", [["tiny"], ["--num_clips"], ["--a", "[1"], ["--a", "1", "--a.b", "2"]])
def test_words_that_are_no_overrides_are_refused(words):
    with pytest.raises(ValueError, match=r"Overrides are pairs|is not a value|was set to 1 before"):
        parse_overrides(words)


def bomb(levels=9, width=9):
    """A few lines that stand for width ** levels values."""
    lines = [f"a0: &a0 [{', '.join('x' * width)}]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]" for i in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("text", [bomb(), bomb(60, 2), f"synthesis: {{f0: [{bomb(5)!r}]}}\n{bomb(12, 4)}"])
def test_a_bomb_of_aliases_is_refused_before_it_grows(tmp_path, text):
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"(?s)r\.yaml: .*write out what its aliases") as refusal:
        load_recipe(PretrainingRecipe, tmp_path / "r.yaml")
    assert len(str(refusal.value)) < 2000


def test_aliases_that_repeat_little_are_read(tmp_path):
    text = "{name: x, description: d, size: tiny, preset: sine, num_clips: 8, betas: &b [0.5, 0.6], milestones: [1]}"
    (tmp_path / "r.yaml").write_text(text.replace("[0.5, 0.6]", "[&half 0.5, *half]").replace("&b ", ""))
    assert load_recipe(PretrainingRecipe, tmp_path / "r.yaml").betas == [0.5, 0.5]


@pytest.mark.parametrize(
    "content",
    [
        *(b"\xff\xfe\x00", b"\x00", b"{", b"- a", b"a: b: c", b"a: *b", b"<<: 1", b"a: &a [*a]", b"? [1]\n: 2"),
        *(
            b"num_clips: 2020-13-45",
            b"num_clips: !!int abc",
            b"num_clips: !!map abc",
            b"num_clips: !!python/name:os.x",
        ),
        *(b"a: " + b"[" * 5000 + b"]" * 5000, b"num_clips: " + b"9" * 5000, b"extends: [1]", b"extends: '\\0'"),
        b"{name: x, description: d, size: tiny, preset: sine, num_clips: 8, learning_rate: " + b"9" * 400 + b"}",
    ],
    ids=lambda content: repr(content[:24]),
)
def test_an_odd_recipe_is_refused_in_a_few_words_with_its_name(tmp_path, content):
    (tmp_path / "r.yaml").write_bytes(content)
    with pytest.raises(ValueError, match=r"r\.yaml|field|learning_rate|found nothing at") as refusal:
        load_recipe(PretrainingRecipe, tmp_path / "r.yaml")
    assert len(str(refusal.value)) < 2000
