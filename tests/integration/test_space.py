"""The app in a browser: every tab used, and what is heard compared with the library."""

import importlib
import io
import json
import re
import sys
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
import soundfile

from audiopg.data_scripts import voices
from audiopg.data_scripts.synthesis import draw, get_preset, render

pytestmark = pytest.mark.integration

SPACE = Path(__file__).parents[2] / "space"
CHECKPOINT = SPACE.parent / "checkpoints" / "audiopg-tiny"


@pytest.fixture(scope="module")
def pictures():
    pytest.importorskip("gradio")
    pytest.importorskip("playwright")
    sys.path.insert(0, str(SPACE))
    try:
        import pictures
    finally:
        sys.path.remove(str(SPACE))
    return pictures


@pytest.fixture(scope="module")
def app(pictures):
    with pictures.running_app([str(CHECKPOINT)]) as running:
        yield running
        log = running.log.read_text(encoding="utf-8")
        assert "Traceback" not in log, log


@pytest.fixture(scope="module")
def chromium(pictures):
    if pictures.chromium() is None:
        pytest.skip("there is no chromium on this machine")
    with pictures.browser() as opened:
        yield opened


@pytest.fixture
def page(chromium, app, pictures):
    """The app as a visitor finds it; nothing may be asked of another machine."""
    opened = chromium.new_page(viewport={"width": pictures.WIDTH, "height": 800})
    opened.set_default_timeout(pictures.PATIENCE_MS)
    elsewhere = []
    opened.on("request", lambda request: elsewhere.append(request.url) if not _is_here(request.url, app) else None)
    opened.goto(app.address)
    opened.wait_for_selector("#sliders input[type=number]")
    yield opened
    opened.close()
    assert not elsewhere


def _is_here(url, app):
    return url.startswith((app.address, "data:", "blob:"))


def heard(page, player):
    """The samples that a player has, as 16-bit numbers."""
    address = page.get_attribute(f"{player} a[download]", "href")
    with urlopen(address) as content:
        samples, rate = soundfile.read(io.BytesIO(content.read()), dtype="int16")
    assert rate == 16000
    return samples


def as_played(waveform):
    return np.round(waveform.numpy() * 32767).astype(np.int16)


def type_address(page, text):
    box = page.locator("#address input, #address textarea")
    box.fill(text)
    box.press("Enter")


def go_to(page, address):
    """Type an address, and wait for its sound."""
    type_address(page, address)
    page.get_by_text(re.compile(f"This is .*{address}.* itself")).wait_for()


def sentence(page):
    """What the page says, and no more of it."""
    said = page.get_by_test_id("toast-body")
    text = said.inner_text().partition("×")[2].strip()
    page.get_by_test_id("toast-close").click()
    said.wait_for(state="detached")
    return text


def test_an_address_gives_the_very_clip_and_a_wrong_one_a_sentence(page):
    go_to(page, "audiopg/3:5")
    np.testing.assert_array_equal(heard(page, "#invented"), as_played(render(draw("audiopg", 3, [5]))[0]))
    assert page.get_by_label("Synthesizer").input_value() == "audiopg"
    go_to(page, "voice/0:12")
    voice = voices.get_voice("voice")
    expected = voices.render(voice, voices.draw(voice, 0, [12]), voices.noise_of(voice, 0, [12]))[0]
    np.testing.assert_array_equal(heard(page, "#invented"), as_played(expected))
    type_address(page, "twelve")
    assert sentence(page).startswith("An address is seed:index, such as 0:7")


def test_a_moved_slider_is_heard_and_seen_and_its_parameters_can_be_sent(page, pictures, tmp_path):
    overrides = json.loads((CHECKPOINT / "preprocessor_config.json").read_text())["statistics"]["overrides"]
    parameters = draw(get_preset("audiopg", **overrides), 0, [1])
    np.testing.assert_array_equal(heard(page, "#invented"), as_played(render(parameters)[0]))
    seen = page.get_attribute("#invented-plot img", "src")
    assert bool(parameters["damping"][0])
    pictures.move_slider(page, "cutoff", "700")
    page.get_by_text("Moved away from").wait_for()
    parameters["cutoff"][0] = 700.0
    moved = heard(page, "#invented")
    np.testing.assert_array_equal(moved, as_played(render(parameters)[0]))
    assert page.get_attribute("#invented-plot img", "src") != seen
    assert re.search(r"clip: cutoff\s+4235.8 Hz\s+700 Hz", page.inner_text("#moved"))

    with page.expect_download() as download:
        page.click("#save")
    saved = tmp_path / "sound.json"
    download.value.save_as(saved)
    assert json.loads(saved.read_text())["parameters"]["cutoff"] == 700.0
    page.click("#back")
    page.get_by_text("This is").wait_for()
    page.locator("input[type=file][accept='.json']").set_input_files(saved)
    page.get_by_text("Moved away from").wait_for()
    np.testing.assert_array_equal(heard(page, "#invented"), moved)
    (tmp_path / "paper.json").write_text("%PDF-1.7")
    page.locator("input[type=file][accept='.json']").set_input_files(tmp_path / "paper.json")
    assert sentence(page) == "These are no parameters of a sound. Open a JSON file that was saved here."


def test_every_factor_of_an_event_and_a_voice_is_within_reach(page):
    page.get_by_label("event 3").check()
    page.get_by_label("number input for band centre, Hz").wait_for()
    go_to(page, "voice_fm/0:0")
    page.get_by_label("mod matrix").check()
    page.get_by_label("number input for envelope 1 in pitch of oscillator 1").wait_for()


def test_completing_an_invented_sound_and_one_s_own(page, pictures, tmp_path):
    pictures.open_tab(page, "Complete")
    first = page.get_attribute("#completion-plot img", "src")
    page.get_by_label("frequency").check()
    page.wait_for_function("old => document.querySelector('#completion-plot img').src != old", arg=first)
    assert "mean squared error of the hidden patches" in page.inner_text("#completion-words")
    bad = {"empty.wav": b"", "paper.wav": b"%PDF-1.7\n" + bytes(2000)}
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    soundfile.write(tmp_path / "hour.flac", np.full(3600 * 8000, 1e-3), 8000)
    soundfile.write(tmp_path / "tone.wav", 0.3 * np.sin(0.2 * np.arange(24000)), 16000)
    page.locator("#source").get_by_label("a sound of mine").check()
    page.click("#complete-button")
    assert sentence(page) == "There is no sound yet: drop a file or record one."
    for name, says in {
        "empty.wav": "empty.wav is empty: it holds no bytes.",
        "paper.wav": "paper.wav cannot be read as a sound.",
        "hour.flac": "hour.flac lasts 60 min, and this page takes up to 30 s.",
    }.items():
        page.locator("#complete-own input[type=file]").set_input_files(tmp_path / name)
        page.locator("#complete-own").get_by_label("Clear").wait_for()
        page.click("#complete-button")
        assert sentence(page).startswith(says)
        page.locator("#complete-own").get_by_label("Clear").click()
    page.locator("#complete-own input[type=file]").set_input_files(tmp_path / "tone.wav")
    page.locator("#complete-own").get_by_label("Clear").wait_for()
    page.click("#complete-button")
    page.get_by_text("Your sound: mean squared error").wait_for()
    np.testing.assert_allclose(heard(page, "#true"), 0.3 * 32767 * np.sin(0.2 * np.arange(24000)), atol=1.5)
    completed = heard(page, "#drawn").astype(float)
    assert len(completed) > 23000
    assert completed.std() > 100


def test_understanding_a_clip_and_finding_its_nearest(page, pictures, tmp_path):
    pictures.open_tab(page, "Understand")
    rows = [line.split("\t") for line in page.inner_text("#decoded").splitlines() if "\t" in line]
    assert [row[0] for row in rows] == ["factor", "frequency", "level", "onset", "partials"]
    assert all(float(row[4]) > 0.9 for row in rows[1:4])
    page.click("#find")
    page.get_by_role("cell", name="audiopg-tiny/0:1", exact=True).wait_for()
    table = page.inner_text("#nearest").splitlines()
    assert next(line for line in table if line.startswith("1\t")).split("\t")[1:] == ["audiopg-tiny/0:1", "1.000"]
    clips = render(draw(get_preset("audiopg", duration=1.0), 0, range(2)))
    for number, clip in enumerate(clips):
        soundfile.write(tmp_path / f"clip{number}.wav", clip.numpy(), 16000)
    (tmp_path / "paper.wav").write_bytes(b"%PDF-1.7\n")
    page.locator("#nearest-source").get_by_label("a sound of mine").check()
    page.locator("#nearest-own input[type=file]").set_input_files(tmp_path / "clip1.wav")
    page.locator("#nearest-own").get_by_label("Clear").wait_for()
    page.locator("#among input[type=file]").set_input_files([tmp_path / "clip0.wav", tmp_path / "clip1.wav"])
    page.locator("#among").get_by_text("clip1").wait_for()
    page.locator("#among-folder input[type=file]").set_input_files(tmp_path)
    page.locator("#among-folder").get_by_text("paper").wait_for()
    page.click("#find")
    page.get_by_role("cell", name="clip1.wav", exact=True).first.wait_for()
    assert "paper.wav cannot be read as a sound" in sentence(page)
    names = [line.split("\t")[1] for line in page.inner_text("#nearest").splitlines() if line.count("\t") == 2]
    assert names[1:] == ["clip1.wav", "clip1.wav", "clip0.wav", "clip0.wav"]


def test_a_picture_of_each_tab_is_small_enough_for_the_readme(page, pictures, tmp_path):
    from PIL import Image

    for tab in pictures.TABS:
        pictures.open_tab(page, tab)
        path = pictures.take_picture(page, tmp_path / f"{tab}.png")
        with Image.open(path) as picture:
            assert picture.width == pictures.WIDTH
        assert path.stat().st_size <= pictures.LARGEST_BYTES


@pytest.mark.parametrize("arguments", [[str(CHECKPOINT.parent)], [str(CHECKPOINT), "--sounds", "nowhere"]])
def test_what_is_no_checkpoint_and_no_folder_is_refused_in_a_sentence(pictures, monkeypatch, capsys, arguments):
    monkeypatch.syspath_prepend(SPACE)
    with pytest.raises(SystemExit) as ended:
        importlib.import_module("app").main(arguments)
    assert ended.value.code == 2
    assert arguments[-1] in capsys.readouterr().err
