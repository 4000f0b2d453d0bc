"""The tutorials do what they say: their blocks run in order, and show what comes out, up to numbers."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TUTORIALS = sorted((ROOT / "docs/tutorials").glob("*.md"))
_BLOCK = re.compile(r"^```(\w+)(?: title=\"(.+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NUMBER = re.compile(r"[-+]?\d[\d.,]*")


def without_numbers(text: str) -> list[str]:
    """The lines of a text, a sign for every number and a blank for every gap."""
    return [" ".join(_NUMBER.sub("#", line).split()) for line in text.splitlines()]


def run_command(line: str) -> None:
    """`python training/NAME.py ...` in this process: starting another one costs more than most of them do."""
    python, script, *arguments = shlex.split(line)
    assert python == "python"
    assert (ROOT / script).is_file()
    importlib.import_module(f"audiopg.training.{Path(script).stem}").main(arguments)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder with the released checkpoints, where a tutorial may write what it likes."""
    (tmp_path / "checkpoints").symlink_to(ROOT / "checkpoints")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("audiopg.training.features.cache.CACHE_FOLDER", tmp_path / "cached features")


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial_does_what_it_says(page, home, capsys):
    names, seen = {}, []
    for language, title, body in _BLOCK.findall(page.read_text(encoding="utf-8")):
        if language == "text":
            for line in without_numbers(body):
                assert line in seen, f"{page.name} promises {line!r}; got\n" + "\n".join(seen)
            continue
        if language == "yaml":
            Path(title).write_text(body, encoding="utf-8")
        elif language == "bash":
            for line in body.splitlines():
                run_command(line)
        else:
            exec(compile(body, str(page), "exec"), names)
        output = "".join(capsys.readouterr())
        seen = without_numbers(output)
        print(output)  # noqa: T201 - for whoever writes a tutorial, by pytest -rP


def test_the_tutorials_are_three_and_each_is_read_in_five_minutes():
    assert len(TUTORIALS) == 3
    for page in TUTORIALS:
        assert len(page.read_text(encoding="utf-8").split()) < 1000
