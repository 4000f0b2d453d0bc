import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

from audiopg.training.runs import provenance

OURS = "training/runs/provenance.py"


def git(folder, *words):
    author = ["-c", "user.name=A", "-c", "user.email=a@b.c"]
    command = ["git", "-C", str(folder), *author, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def commit_by(copy):
    """What a copy of the module says of where it lies."""
    spec = importlib.util.spec_from_file_location("copied_provenance", copy)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.commit()


def copy_into(folder):
    """The module, and the room that it lies in, in another place."""
    (folder / OURS).parent.mkdir(parents=True)
    return Path(shutil.copy(provenance.__file__, folder / OURS))


@pytest.fixture
def repository(tmp_path):
    """Somebody's repository with a commit in it."""
    folder = tmp_path / "repository"
    (folder / "src/audiopg").mkdir(parents=True)
    (folder / "src/audiopg/__init__.py").touch()
    git(folder.parent, "init", "-q", str(folder))
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "Begin")
    return folder


def test_a_checkout_gives_its_own_commit_and_says_when_it_was_changed(repository):
    copy = copy_into(repository)
    git(repository, "add", ".")
    git(repository, "commit", "-q", "-m", "Add provenance")
    head = git(repository, "rev-parse", "HEAD")
    assert commit_by(copy) == head[:12]
    (repository / "src/audiopg/__init__.py").write_text("changed = True\n")
    assert commit_by(copy) == head[:12] + "+"


@pytest.mark.parametrize("tracked", [False, True])
def test_a_package_that_is_installed_in_another_repository_has_no_commit(repository, tracked):
    copy = copy_into(repository / "venv/lib/site-packages/audiopg")
    if tracked:
        git(repository, "add", ".")
        git(repository, "commit", "-q", "-m", "Vendor it")
    assert commit_by(copy) is None


def test_a_source_tree_that_was_never_committed_has_no_commit(repository):
    assert commit_by(copy_into(repository)) is None


def test_another_project_with_a_room_of_that_name_has_no_commit(repository):
    copy = copy_into(repository)
    shutil.rmtree(repository / "src")
    git(repository, "add", ".")
    git(repository, "commit", "-q", "-m", "Another project")
    assert commit_by(copy) is None


def test_no_repository_and_no_git_at_all_have_no_commit(tmp_path, monkeypatch):
    copy = copy_into(tmp_path)
    assert commit_by(copy) is None
    monkeypatch.setenv("PATH", "")
    assert commit_by(copy) is None
