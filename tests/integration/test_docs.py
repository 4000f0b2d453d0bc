"""The documentation as a site: it builds without a warning, holds what it promises and fetches nothing."""

import html
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)
    assert run.returncode == 0, run.stderr  # warnings are errors
    return folder


def article(page: Path) -> str:
    """The text of a page as a reader sees it."""
    text = page.read_text(encoding="utf-8")
    text = text[text.index("<article") : text.index("</article>")]
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split())


def test_every_page_of_docs_is_there_and_the_readme_is_the_home_page(site):
    for page in (ROOT / "docs").rglob("*.md"):
        assert (site / page.relative_to(ROOT / "docs").with_suffix("") / "index.html").exists()
    assert "invents sounds on the fly" in article(site / "index.html")


def test_a_reader_s_browser_fetches_nothing_from_elsewhere(site):
    loads = re.compile(r"<(?:script|img|link|iframe)\b[^>]*\b(?:src|href)=[\"']?((?:https?:)?//[^\"' >]+)")
    for page in site.rglob("*.html"):
        assert not loads.findall(page.read_text(encoding="utf-8")), page
    for sheet in site.rglob("*.css"):
        assert not re.findall(r"(?:@import|url\()\s*[\"']?(?:https?:)?//[^)]*", sheet.read_text(encoding="utf-8")), (
            sheet
        )


def test_every_recipe_is_there_with_its_description_and_command(site):
    page = article(site / "recipes/index.html")
    recipes = list((ROOT / "training/recipes").rglob("*.yaml"))
    assert len(recipes) > 50
    for path in recipes:
        description = yaml.safe_load(path.read_text(encoding="utf-8"))["description"]
        assert " ".join(description.split()) in page
    assert "python training/pretrain.py audiopg_tiny" in page


def test_every_module_has_a_page_with_its_docstrings_and_examples_as_code(site):
    for room in ("modeling", "data_scripts", "training"):
        for path in (ROOT / room).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(("audiopg", *parts)).removesuffix(".__init__")
            assert (site / "api" / name / "index.html").exists()
    text = (site / "api/audiopg.training.runs.recipes/index.html").read_text(encoding="utf-8")
    assert 'id="audiopg.training.runs.recipes.build_recipe"' in text
    assert re.search(r'<div class="[^"]*highlight">.*?build_recipe.*?minuets', text, re.DOTALL)  # its doctest
