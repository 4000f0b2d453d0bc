"""What the site has beside the pages of docs/, written as it is built: the home page, the recipes, the API."""

import re
import tempfile
from pathlib import Path
from typing import Any

import griffe
import yaml
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "training/recipes"
PACKAGES = ("modeling", "data_scripts", "training")
KINDS = {
    "": ("Pre-training", "python training/pretrain.py {}"),
    "finetuning": ("Fine-tuning", "python training/finetune.py CHECKPOINT --data_dir FOLDER --recipe {}"),
    "ablations": ("Grids of recipes", "python training/ablate.py {} --data_dir FOLDER"),
}
"""Of the folders of recipes: what they are for, and the command that takes one."""


@event_priority(100)  # before mkdocstrings reads its configuration
def on_config(config: Any) -> None:
    """Show mkdocstrings the package as it is when installed: it follows no editable install."""
    global _installed
    _installed = tempfile.TemporaryDirectory(prefix="audiopg-docs-")  # until the process ends
    package = Path(_installed.name) / "audiopg"
    package.mkdir()
    for path in [*(ROOT / "src/audiopg").glob("*.py"), *(ROOT / name for name in PACKAGES)]:
        (package / path.name).symlink_to(path)
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [str(package.parent)]


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are written here, the API with its places in the navigation."""
    files.append(File.generated(config, "index.md", content=home_page()))
    files.append(File.generated(config, "recipes.md", content=recipes_page()))
    rooms: dict[str, list[Any]] = {}
    for module in modules():
        parts = module.split(".")[1:]
        is_package = ROOT.joinpath(*parts).is_dir()
        page = f"api/{module}/index.md" if is_package else f"api/{module}.md"
        files.append(File.generated(config, page, content=f"::: {module}\n"))
        room = ".".join(parts[:2]) if ROOT.joinpath(*parts[:2]).is_dir() else parts[0]
        rooms.setdefault(room, []).append(page if is_package else {parts[-1]: page})
    config.nav.append({"API": [{room: pages} for room, pages in rooms.items()]})
    return files


def modules() -> list[str]:
    """All modules, as `audiopg.modeling.modeling_audiopg`, a package before what it holds."""
    paths = [path.relative_to(ROOT) for name in PACKAGES for path in (ROOT / name).rglob("*.py")]
    names = [".".join(("audiopg", *path.with_suffix("").parts)).removesuffix(".__init__") for path in paths]
    return sorted(names, key=lambda name: (PACKAGES.index(name.split(".")[1]), name))


def home_page() -> str:
    """The README, its links as they are from docs/."""
    return (ROOT / "README.md").read_text(encoding="utf-8").replace("](docs/", "](")


def recipes_page() -> str:
    """Every recipe of the package: what it is, where it comes from, what it sets, and the command that runs it."""
    parts = [
        "# Recipes",
        "Any field can be overridden on the command line; `--help` of each script says what it means.",
    ]
    for folder, (title, command) in KINDS.items():
        parts.append(f"## {title}")
        for path in sorted((RECIPES / folder).glob("*.yaml")):
            text = path.read_text(encoding="utf-8")
            note = re.match(r"(?:#.*\n)*", text)[0]
            said = " ".join(line.lstrip("# ") for line in note.splitlines())
            description = yaml.safe_load(text)["description"]
            run = command.format(path.stem)
            parts += [f"### {path.stem}", description, said, f"```bash\n{run}\n```"]
            parts.append(f"```yaml\n{text[len(note) :].strip()}\n```")
    return "\n\n".join(part for part in parts if part) + "\n"


class HouseStyle(griffe.Extension):
    """Read docstrings as this house writes them."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Take `Example` for the section of code that it is, and fields of a class for its arguments."""
        if obj.docstring:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
            if obj.is_class and "__init__" not in obj.members:  # a configuration, a TypedDict, a NamedTuple
                obj.docstring.parser_options = {**obj.docstring.parser_options, "warn_unknown_params": False}
