import threading
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from audiopg.training.runs.files import read_json, write_atomically, writing, written_aside


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_whole_and_replaces_the_old_one(tmp_path):
    path = tmp_path / "statistics.json"
    write_atomically(path, "old")
    with written_aside(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
        assert partial.parent == path.parent  # or renaming would copy from one disk to another
    assert path.read_text() == "new"
    assert names_in(tmp_path) == ["statistics.json"]


def test_text_is_utf_8_and_bytes_are_kept(tmp_path):
    write_atomically(tmp_path / "text", "R²\n")
    write_atomically(tmp_path / "bytes", b"\xff\r\n")
    assert (tmp_path / "text").read_bytes() == b"R\xc2\xb2\n"
    assert (tmp_path / "bytes").read_bytes() == b"\xff\r\n"


@pytest.mark.parametrize("is_folder", [False, True])
def test_what_fails_leaves_the_old_content_and_nothing_beside_it(tmp_path, is_folder):
    path = tmp_path / "model"
    write_atomically(path, "old")

    def write_a_half():
        with written_aside(path) as partial:
            if is_folder:
                partial.mkdir()
            (partial / "weights" if is_folder else partial).write_text("half of")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_a_half()
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["model"]


def test_a_folder_appears_with_all_that_is_in_it(tmp_path):
    with written_aside(tmp_path / "step_1") as partial:
        (partial / "deep").mkdir(parents=True)
        (partial / "deep" / "weights").write_text("1")
        assert not (tmp_path / "step_1").exists()
    assert (tmp_path / "step_1" / "deep" / "weights").read_text() == "1"
    assert names_in(tmp_path) == ["step_1"]


def test_everything_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    """Else a power failure leaves a file of the right name with nothing in it."""
    from audiopg.training.runs import files

    done = []
    for name in ("fsync", "replace"):
        original = getattr(files.os, name)
        monkeypatch.setattr(files.os, name, lambda *words, n=name, o=original: (done.append(n), o(*words))[1])
    with written_aside(tmp_path / "folder") as partial:
        partial.mkdir()
        (partial / "a").write_text("a")
        (partial / "b").write_text("b")
    assert done == ["fsync", "fsync", "replace"]


def test_many_writers_of_one_file_do_not_meet(tmp_path):
    path, failures = tmp_path / "recipe.yaml", []

    def write(number):
        try:
            for _ in range(50):
                write_atomically(path, str(number) * 1000)
        except OSError as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert path.read_text() in {str(number) * 1000 for number in range(4)}
    assert names_in(tmp_path) == ["recipe.yaml"]


def test_a_folder_takes_the_place_of_another_and_no_file_of_both_is_left(tmp_path):
    for content in ("old", "new"):
        with written_aside(tmp_path / "model") as partial:
            partial.mkdir()
            (partial / content).write_text(content)
    assert names_in(tmp_path) == ["model"]
    assert names_in(tmp_path / "model") == ["new"]


def by_safetensors(_path):  # it would replace the link: what it says on a full disk
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize(
    "write",
    [by_safetensors, lambda path: torch.save(torch.zeros(100_000), path), lambda path: path.write_text("x" * 100_000)],
    ids=["safetensors", "torch", "text"],
)
def test_a_full_disk_is_one_kind_of_error_that_names_the_file_whichever_library_meets_it(tmp_path, write):
    (tmp_path / "weights").symlink_to("/dev/full")
    with (
        pytest.raises(OSError, match=r"weights could not be written: .*Make room there"),
        writing(tmp_path / "weights"),
    ):
        write(tmp_path / "weights")


def test_an_error_that_is_no_disk_s_keeps_its_kind(tmp_path):
    with pytest.raises(RuntimeError, match="shapes"), writing(tmp_path / "weights"):
        raise RuntimeError("shapes differ")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_json_is_named_with_what_to_do(tmp_path, content):
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"run\.json is damaged.*Remove it\.$"):
        read_json(tmp_path / "run.json", "Remove it.")
