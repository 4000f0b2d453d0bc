import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from audiopg.data_scripts.patterns import get_patterns
from audiopg.data_scripts.patterns.render import image_name, main, read_back, render, write_whole


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_files_hold_the_images_and_the_table_their_labels(tmp_path):
    assert render(get_patterns("shaders"), tmp_path, num_images=3, size=40, seed=7) == 3
    expected = get_patterns("shaders").images(7, [0, 1, 2], size=40)
    for index in range(3):
        pixels = np.array(Image.open(tmp_path / image_name(index)))
        assert np.abs(pixels / 255 - expected[index].permute(1, 2, 0).numpy()).max() <= 0.5 / 255 + 1e-6
    labels = get_patterns("shaders").classes(7, range(3)).tolist()
    rows = (tmp_path / "metadata.csv").read_text().splitlines()
    assert rows == ["file_name,label", *(f"{image_name(i)},{labels[i]}" for i in range(3))]


def damage(paths):
    paths[0].write_bytes(paths[0].read_bytes()[:-9])
    flipped = bytearray(paths[1].read_bytes())
    flipped[len(flipped) // 2] ^= 1
    paths[1].write_bytes(flipped)
    paths[2].write_bytes(b"")


def test_a_stopped_run_goes_on_and_damaged_files_are_written_again(tmp_path, monkeypatch):
    stopped = tmp_path / "stopped"
    written = []

    def write_few(path, content):
        if len(written) == 8:
            raise KeyboardInterrupt
        written.append(path)
        write_whole(path, content)

    with monkeypatch.context() as patched:
        patched.setattr("audiopg.data_scripts.patterns.render.write_whole", write_few)
        with pytest.raises(KeyboardInterrupt):
            render(get_patterns("shaders"), stopped, num_images=20, size=64, seed=3)
    there = sorted(stopped.glob("*.png"))
    assert len(there) == 7
    (stopped / f"{image_name(9)}.4711.partial").write_bytes(b"of a process that was killed")
    damage(there)
    times = {path: path.stat().st_mtime_ns for path in there[3:]}
    assert render(get_patterns("shaders"), stopped, num_images=20, size=64, seed=3) == 16
    render(get_patterns("shaders"), tmp_path / "whole", num_images=20, size=64, seed=3)
    assert content(stopped) == content(tmp_path / "whole")
    assert times == {path: path.stat().st_mtime_ns for path in there[3:]}


@pytest.mark.slow
def test_a_killed_run_goes_on_and_is_the_same_bytes(tmp_path):
    command = [sys.executable, "-m", "audiopg.data_scripts.patterns.render", "ifs"]
    options = ["--num_images", "90", "--size", "64", "--seed", "3"]
    killed = tmp_path / "killed"
    with subprocess.Popen([*command, str(killed), *options], stderr=subprocess.DEVNULL) as process:
        while len(list(killed.glob("*.png"))) < 5:
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    assert 5 <= len(list(killed.glob("*.png"))) < 90
    render(get_patterns("ifs"), killed, num_images=90, size=64, seed=3)
    render(get_patterns("ifs"), tmp_path / "whole", num_images=90, size=64, seed=3)
    assert content(killed) == content(tmp_path / "whole")


def test_fewer_images_than_before_take_none_away(tmp_path):
    patterns = get_patterns("shaders")
    render(patterns, tmp_path, num_images=4, size=32, seed=0)
    before = content(tmp_path)
    assert render(patterns, tmp_path, num_images=2, size=32, seed=0) == 0
    assert content(tmp_path) == before


def test_a_folder_of_another_version_is_neither_gone_on_with_nor_read(tmp_path, monkeypatch):
    render(get_patterns("shaders"), tmp_path, num_images=1, size=32, seed=0)
    monkeypatch.setattr("audiopg.data_scripts.patterns.render.PATTERNS_VERSION", "99.0")
    with pytest.raises(ValueError, match=r"one version of the patterns.*another folder, as for another version"):
        render(get_patterns("shaders"), tmp_path, num_images=1, size=32, seed=0)
    with pytest.raises(ValueError, match=r"of version 0.*and this is version 99.0; render them anew"):
        read_back(tmp_path)


def test_a_folder_of_glsl_programs_or_of_nothing_known_says_what_is_wanted(tmp_path):
    (tmp_path / "metadata.csv").write_text("file_name,label,program,time\n")
    with pytest.raises(ValueError, match=r"patterns\.json says whose images these are"):
        read_back(tmp_path)
    (tmp_path / "patterns.json").write_text('{"shaders": "0a1b", "seed": 0, "size": 32}')
    with pytest.raises(ValueError, match=r"needs images of a set by name.*Those of GLSL programs"):
        read_back(tmp_path)


def test_the_digest_is_of_the_images_that_are_seen(tmp_path):
    patterns = get_patterns("shaders")
    render(patterns, tmp_path, num_images=2, size=32, seed=0)
    first = read_back(tmp_path).digest(2)
    render(patterns, tmp_path, num_images=3, size=32, seed=0)
    assert read_back(tmp_path).digest(2) == first != read_back(tmp_path).digest(3)
    (tmp_path / image_name(1)).write_bytes(b"torn")
    assert read_back(tmp_path).digest(2) != first
    (tmp_path / image_name(1)).unlink()
    with pytest.raises(ValueError, match=r"lacks an image of its table .*00000001\.png"):
        read_back(tmp_path).digest(2)


def test_a_folder_grows_and_its_first_images_stay(tmp_path):
    patterns = get_patterns("shaders", **{"class": 4})
    render(patterns, tmp_path, num_images=2, size=32, seed=0)
    first = content(tmp_path)
    assert render(patterns, tmp_path, num_images=4, size=32, seed=0) == 2
    assert {name: data for name, data in content(tmp_path).items() if name in first} | {
        "metadata.csv": first["metadata.csv"]
    } == first
    assert json.loads((tmp_path / "patterns.json").read_text())["ranges"] == {"class": 4}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing", "{folder}"], "Sets of patterns are"),
        (["ifs", "{folder}", "--ranges", "steps=3"], "--ranges is JSON"),
        (["ifs", "{folder}", "--ranges", '{"stops": 3}'], "got stops"),
        (["ifs", "{folder}", "--num_images", "0"], "1 or more, got 0"),
        (["ifs", "{folder}", "--size", "5"], "32 or more, got 5"),
    ],
)
def test_bad_input_is_named_and_leaves_no_folder(tmp_path, capsys, arguments, message):
    folder = tmp_path / "out"
    with pytest.raises(SystemExit) as stopped:
        main([argument.format(folder=folder) if "{folder}" in argument else argument for argument in arguments])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert not folder.exists()


def test_a_folder_of_other_images_is_refused(tmp_path):
    render(get_patterns("shaders"), tmp_path, num_images=1, size=32, seed=0)
    with pytest.raises(ValueError, match=r"was begun with .*give the same values, or another folder"):
        render(get_patterns("shaders"), tmp_path, num_images=1, size=32, seed=1)
    (tmp_path / "patterns.json").unlink()
    with pytest.raises(ValueError, match=r"holds images, but no patterns\.json"):
        render(get_patterns("shaders"), tmp_path, num_images=1, size=32, seed=0)


def test_what_was_rendered_is_read_back_with_its_classes(tmp_path):
    shaders = get_patterns("shaders", **{"class": (3, 9)})
    render(shaders, tmp_path / "images", num_images=3, size=64, seed=7)
    _, patterns, count, identity = read_back(tmp_path / "images")
    assert count == 3
    assert (identity["seed"], identity["ranges"]) == (7, {"class": [3, 9]})
    torch.testing.assert_close(
        patterns.images(0, [2, 0], 64), shaders.images(7, [2, 0], 64), rtol=0, atol=0.5 / 255 + 1e-6
    )
    assert torch.equal(patterns.classes(0, [0, 1, 2]), shaders.classes(7, [0, 1, 2]))
    with pytest.raises(ValueError, match="holds 3 images of 64 pixels, got a size of 64 and index 3"):
        patterns.images(0, [3], 64)
    (tmp_path / "images" / image_name(1)).write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"00000001\.png is no whole PNG"):
        patterns.images(0, [1], 64)
    with pytest.raises(ValueError, match=r"holds no metadata\.csv"):
        read_back(tmp_path)
