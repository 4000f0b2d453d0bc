"""The arrows of the house, and that what the map promises is there."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "modeling": {"modeling"},
    "data_scripts": {"data_scripts"},
    "model_cards": {"model_cards"},
    "training": {"modeling", "data_scripts", "training", "model_cards"},
}
FLOORS = (
    {"runs"},
    {"engine", "features"},
    {"objectives", "evaluation"},
    {"finetuning", "analysis", "ablation", "publishing"},
)
"""Rooms of training/, from the ground up; the doors stand above them, and the two pillars below."""
TRAVELS_TO_THE_HUB = sorted(path.name for path in (ROOT / "modeling").glob("*_*.py") if path.stem != "__init__")


def imported_modules(path: Path) -> set[str]:
    """Absolute names of everything that a file imports, at any depth of its code."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add("." * node.level + (node.module or ""))
    return names


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_the_rooms_it_may(room):
    files = list((ROOT / room).rglob("*.py"))
    assert files
    for path in files:
        rooms = {name.split(".")[1] for name in imported_modules(path) if name.startswith("audiopg.")}
        assert rooms <= MAY_IMPORT[room], f"{path} imports {rooms - MAY_IMPORT[room]}"


def test_the_map_has_every_room_of_training():
    rooms = {path.parent.name for path in (ROOT / "training").glob("*/__init__.py")}
    assert rooms == set().union(*FLOORS)


@pytest.mark.parametrize("floor", range(len(FLOORS)))
def test_rooms_of_training_stand_on_the_floors_below_alone(floor):
    below = set().union(*FLOORS[:floor])
    for room in FLOORS[floor]:
        for path in (ROOT / "training" / room).rglob("*.py"):
            names = imported_modules(path) | imported_names(path)
            used = {name.split(".")[2] for name in names if name.startswith("audiopg.training.")}
            assert used <= below | {room}, f"{path} imports {used - below - {room}}"


def imported_names(path: Path) -> set[str]:
    """What `from package import name` takes, as `package.name`: it may be a module."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level)
    return {f"{node.module}.{alias.name}" for node in found for alias in node.names}


def test_nothing_imports_a_door_and_doors_hold_usage_parser_and_main():
    doors = {path.stem for path in (ROOT / "training").glob("*.py")} - {"__init__"}
    for room in ("modeling", "data_scripts", "training", "benchmarks"):
        for path in (ROOT / room).rglob("*.py"):
            names = {name.split(".")[2] for name in imported_names(path) if name.startswith("audiopg.training.")}
            assert not names & doors, f"{path} imports the doors {names & doors}"
    for door in doors:
        tree = ast.parse((ROOT / "training" / f"{door}.py").read_text(encoding="utf-8"))
        defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        assert "main" in defined
        assert {name for name in defined if not name.startswith("_")} == {"main"}, f"{door} defines {defined}"


@pytest.mark.parametrize("name", TRAVELS_TO_THE_HUB)
def test_files_that_travel_to_the_hub_import_flat_siblings_and_little_else(name):
    allowed = {"torch", "numpy", "transformers", "huggingface_hub", *sys.stdlib_module_names}
    for module in imported_modules(ROOT / "modeling" / name):
        if module.startswith("."):
            assert module[1:] + ".py" in TRAVELS_TO_THE_HUB, f"{name} imports {module}, which is not beside it"
        else:
            assert module.split(".")[0] in allowed, f"{name} imports {module}"


@pytest.mark.parametrize("name", [name for name in TRAVELS_TO_THE_HUB if name.startswith("configuration_")])
def test_a_configuration_knows_no_torch(name):
    assert "torch" not in {module.split(".")[0] for module in imported_modules(ROOT / "modeling" / name)}


def test_what_pretraining_imports_needs_no_data_set_library_and_reads_no_sound_files():
    """A machine for training has neither; and what cannot be imported cannot open a recording."""
    code = (
        "import sys\n"
        "for name in ('datasets', 'evaluate', 'soundfile', 'torchaudio', 'torchcodec', 'scipy', 'sklearn'):\n"
        "    sys.modules[name] = None\n"
        "import audiopg.training.pretrain, audiopg.training.export\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_the_installed_package_leaks_no_top_level_folder():
    code = (
        "import importlib.util, sys\n"
        "found = [n for n in ('modeling', 'data_scripts', 'training', 'model_cards') if importlib.util.find_spec(n)]\n"
        "import audiopg.modeling, audiopg.data_scripts.synthesis, audiopg.training, audiopg.model_cards\n"
        "sys.exit(', '.join(found) or 0)\n"
    )
    subprocess.run([sys.executable, "-I", "-c", code], check=True, timeout=120, cwd="/")
