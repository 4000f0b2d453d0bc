"""The static page in headless Chromium: what it computes, what it says of bad files, and that it stays at home."""

import http.server
import json
import shutil
import threading
from functools import partial

import numpy as np
import pytest
import soundfile
import torch

from audiopg import AudioPGConfig, AudioPGFeatureExtractor, AudioPGModel
from audiopg.training.publishing.browser_page import SOURCES, default_runtime, write_page

pytestmark = pytest.mark.integration

RUNTIME = SOURCES / "node_modules/onnxruntime-web/dist"
CHROMIUM = shutil.which("chromium")
ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"),
    *("--no-first-run", "--disable-sync", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"),
)
SECONDS_TO_WAIT = 60


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Random weights, read as the released ones are: rows apart and their deviations, of a layer in the middle."""
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    sizes = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 96}
    AudioPGModel(AudioPGConfig(**sizes, embedding_pooling="mel_std", embedding_layer=1)).save_pretrained(folder)
    statistics = {"preset": "audiopg", "overrides": {"duration": 1.0}}
    AudioPGFeatureExtractor(mean=-5.0, std=4.0, statistics=statistics).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def embedded(checkpoint):
    model, extractor = AudioPGModel.from_pretrained(checkpoint), AudioPGFeatureExtractor.from_pretrained(checkpoint)
    return lambda sound: model.embed(sound, extractor)[0]


@pytest.fixture(scope="module")
def folder(checkpoint, tmp_path_factory):
    if not CHROMIUM:
        pytest.skip("there is no chromium on this machine")
    if not RUNTIME.is_dir():
        pytest.skip("onnxruntime-web is missing: npm ci --prefix space/browser")
    pytest.importorskip("playwright", reason="the extra `integration` has it")
    folder = tmp_path_factory.mktemp("page") / "page"
    write_page(checkpoint, folder, RUNTIME, clips=24)
    return folder


@pytest.fixture(scope="module")
def address(folder):
    handler = partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("localhost", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}"
        server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *words):
        """Say nothing."""


@pytest.fixture(scope="module")
def page(address):
    """The page when its model is there; every other address is refused, and noted."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        opened = browser.new_page(viewport={"width": 960, "height": 1060})
        opened.elsewhere, opened.errors = [], []

        def route(request):
            if request.request.url.startswith((address, "blob:", "data:")):
                return request.continue_()
            opened.elsewhere.append(request.request.url)
            return request.abort()

        opened.route("**/*", route)
        opened.on("pageerror", lambda error: opened.errors.append(str(error)))
        opened.goto(address)
        state(opened, "ready")
        yield opened
        browser.close()


def state(page, *wanted):
    """Wait until the page is in one of these states; what it says then."""
    words = ", ".join(f'[data-state="{one}"]' for one in wanted)
    page.wait_for_selector(f"body:is({words})", timeout=1000 * SECONDS_TO_WAIT)
    return page.text_content("#message")


def give(page, file, *wanted):
    page.set_input_files("#file", [])
    page.set_input_files("#file", str(file))
    return state(page, *wanted)


def chord(seconds, rate=16000):
    time = np.arange(round(seconds * rate)) / rate
    tones = sum(np.sin(2 * np.pi * hertz * time) for hertz in (220.0, 331.0, 1870.0))
    return (0.2 * tones * np.exp(-time) + 0.01 * np.random.default_rng(0).standard_normal(len(time))).astype(
        np.float32
    )


def found_in(page):
    return torch.tensor(page.evaluate("Array.from(audiopg.embedding)"))


@pytest.mark.parametrize("channels", [1, 2])
def test_the_page_embeds_a_file_as_the_model_does(channels, page, tmp_path, embedded):
    sides = np.stack([chord(1.5), 0.5 * chord(1.5)][:channels], axis=1)
    soundfile.write(tmp_path / "sound.wav", sides, 16000, subtype="FLOAT")
    said = give(page, tmp_path / "sound.wav", "done")
    expected = embedded(sides.mean(axis=1))
    assert said == f"{len(expected)} numbers from 1.50 s."
    assert (found_in(page) - expected).abs().max() < 1e-3 * max(1.0, expected.abs().max())


def test_the_factors_are_the_decoder_s_of_that_embedding(page, folder):
    page.click("#example")
    state(page, "done")
    decoder = json.loads((folder / "page.json").read_text())
    embedding = found_in(page).double().numpy()
    rows = page.evaluate(
        "[...document.querySelectorAll('#factors tr')].map(r => [...r.children].map(c => c.innerText))"
    )
    assert [row[0] for row in rows] == [factor["name"] for factor in decoder["factors"]]
    for row, factor in zip(rows, decoder["factors"], strict=True):
        value = float(embedding @ np.array(factor["weights"]) + factor["bias"])
        shown = 2**value if factor["logarithmic"] else value
        assert float(row[1].split()[0]) == pytest.approx(shown, rel=0.02, abs=0.05)
        if factor["name"] in decoder["example"]["factors"]:
            drawn = decoder["example"]["factors"][factor["name"]]
            assert float(row[2].split()[0]) == pytest.approx(2**drawn if factor["logarithmic"] else drawn, rel=0.01)


def test_the_spectrogram_is_drawn_frame_by_frame_lowest_band_at_the_bottom(page, tmp_path):
    time = np.arange(16000) / 16000
    soundfile.write(tmp_path / "low.wav", 0.5 * np.sin(2 * np.pi * 200 * time), 16000)
    give(page, tmp_path / "low.wav", "done")
    width, height, top, bottom = page.evaluate(
        """() => {
            const canvas = document.getElementById("spectrogram");
            const brightness = (y) => {
                const row = canvas.getContext("2d").getImageData(0, y, canvas.width, 1).data;
                return row.reduce((sum, value) => sum + value, 0) / canvas.width;
            };
            return [canvas.width, canvas.height, brightness(10), brightness(canvas.height - 1 - 10)];
        }"""
    )
    assert (width, height) == (98, 128)
    assert bottom > top + 100


def test_a_recording_of_another_rate_is_resampled(page, tmp_path, embedded):
    soundfile.write(tmp_path / "sound.wav", chord(1.0, 48000), 48000, subtype="FLOAT")
    give(page, tmp_path / "sound.wav", "done")
    assert page.evaluate("audiopg.frames") == 98
    found, expected = found_in(page), embedded(str(tmp_path / "sound.wav"))  # by our own resampler
    assert (found - expected).norm() < 0.1 * expected.norm()


def test_a_recording_from_the_microphone_is_heard(page):
    page.click("#microphone")
    state(page, "recording")
    page.wait_for_timeout(1200)
    page.click("#microphone")
    said = state(page, "done", "refused")
    assert "numbers from" in said or "silent" in said
    assert page.text_content("#microphone") == "Record"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("words.wav", b"These are words.\n" * 100, "finds no sound"),
        ("empty.wav", b"", "empty"),
        ("paper.pdf", b"%PDF-1.7\n" + bytes(2000), "finds no sound"),
    ],
)
def test_a_bad_file_gets_a_sentence(name, content, said, page, tmp_path):
    (tmp_path / name).write_bytes(content)
    assert said in give(page, tmp_path / name, "refused")
    assert page.is_hidden("#result")


@pytest.mark.parametrize(
    ("waveform", "said"),
    [(np.zeros(16000), "silent"), (chord(0.02), "lasts 20 ms, and the model hears 25 at least")],
)
def test_what_is_no_sound_for_the_model_gets_a_sentence(waveform, said, page, tmp_path):
    soundfile.write(tmp_path / "sound.wav", waveform, 16000)
    assert said in give(page, tmp_path / "sound.wav", "refused")


def test_a_long_recording_is_heard_up_to_a_window_and_the_page_says_so(page, tmp_path, embedded):
    soundfile.write(tmp_path / "long.wav", chord(12.0), 16000, subtype="FLOAT")
    assert give(page, tmp_path / "long.wav", "done").endswith("from 10.24 s, the first of 12.00 s.")
    expected = embedded(chord(12.0)[:163840])
    assert (found_in(page) - expected).abs().max() < 1e-3 * expected.abs().max()


def test_nothing_went_elsewhere_and_nothing_failed(page):
    assert page.elsewhere == []
    assert page.errors == []


def test_without_a_copy_of_the_runtime_the_page_names_the_pinned_one():
    package = json.loads((SOURCES / "package-lock.json").read_text())
    version = package["packages"]["node_modules/onnxruntime-web"]["version"]
    assert f"@{version}/" in default_runtime()
