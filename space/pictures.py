"""Pictures of the app, taken in a browser: `space_invent.png`, `space_complete.png`, `space_understand.png`.

python space/pictures.py [FOLDER]     by default docs/figures

Needs playwright (`pip install 'audiopg[integration]'`) and Chromium.
"""

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

HERE = Path(__file__).parent
TABS = ("Invent", "Complete", "Understand")
WIDTH = 1280
LARGEST_BYTES = 200_000
PATIENCE_MS = 60_000
_STARTS_WITHIN = 180.0
_QUIET = ("--disable-background-networking", "--disable-component-update", "--no-first-run", "--disable-sync")


@dataclass(frozen=True)
class RunningApp:
    """The app as a process of its own.

    Args:
        address: Where it is served.
        log: What it wrote.
    """

    address: str
    log: Path


@contextmanager
def running_app(arguments: Sequence[str] = ()) -> Iterator[RunningApp]:
    """Start `app.py` on a free port, and stop it afterwards.

    Args:
        arguments: Beside the port.

    Yields:
        The app, once it answers.

    Raises:
        RuntimeError: if it ends, or does not answer in time, with what it wrote.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        app = RunningApp(f"http://127.0.0.1:{port}/", Path(folder) / "log.txt")
        command = [sys.executable, str(HERE / "app.py"), *arguments, "--port", str(port)]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "GRADIO_TEMP_DIR": folder, "TMPDIR": folder}
        with app.log.open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        try:
            until = time.monotonic() + _STARTS_WITHIN
            while not _answers(app.address):
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"The app did not start: {app.log.read_text(encoding='utf-8')}")
                time.sleep(0.2)
            yield app
        finally:
            process.terminate()
            process.wait(timeout=30)


def _answers(address: str) -> bool:
    try:
        with urlopen(address, timeout=5):
            return True
    except OSError:
        return False


def chromium() -> str | None:
    """Where this machine has it, if it has."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextmanager
def browser() -> Iterator[Browser]:
    """Chromium without a window, that asks nobody for anything.

    Raises:
        RuntimeError: if there is none.
    """
    executable = chromium()
    if executable is None:
        raise RuntimeError("Pictures need Chromium, and there is none on the path; install it.")
    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu", *_QUIET])
        try:
            yield opened
        finally:
            opened.close()


def open_tab(page: Page, tab: str) -> None:
    """Go to a tab, and wait for what it shows first."""
    page.get_by_role("tab", name=tab, exact=True).click()
    shown = {"Invent": "#invented-plot img", "Complete": "#completion-plot img", "Understand": "#decoded-plot img"}
    page.wait_for_selector(shown[tab], timeout=PATIENCE_MS)


def move_slider(page: Page, name: str, value: str) -> None:
    """Type a value beside a slider whose label begins with a name, and leave the box."""
    box = page.locator(f'#sliders input[type=number][aria-label^="number input for {name}"]')
    box.fill(value, timeout=PATIENCE_MS)
    box.press("Tab")


def take_picture(page: Page, path: Path) -> Path:
    """The whole page as a PNG, of 256 colours if it would be too large."""
    page.wait_for_function("!document.querySelector('.progress-text, .eta-bar')", timeout=PATIENCE_MS)
    page.mouse.move(0, 0)
    page.wait_for_timeout(1500)  # players draw their waveforms when they have loaded them
    page.screenshot(path=path, full_page=True, animations="disabled")
    with Image.open(path) as picture:
        whole = picture.convert("RGB")
    whole.save(path, optimize=True)
    if path.stat().st_size > LARGEST_BYTES:
        whole.quantize(256).save(path, optimize=True)
    return path


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("folder", nargs="?", type=Path, default=HERE.parent / "docs" / "figures")
    folder = parser.parse_args(arguments).folder
    folder.mkdir(parents=True, exist_ok=True)
    with running_app() as app, browser() as opened:
        page = opened.new_page(viewport={"width": WIDTH, "height": 800})
        page.goto(app.address)
        for tab in TABS:
            open_tab(page, tab)
            if tab == "Invent":
                move_slider(page, "cutoff", "1500")
                page.get_by_text("Moved away from").wait_for(timeout=PATIENCE_MS)
            if tab == "Understand":
                page.click("#find")
                page.wait_for_selector("#nearest table", timeout=PATIENCE_MS)
            path = take_picture(page, folder / f"space_{tab.lower()}.png")
            sys.stderr.write(f"{path}: {path.stat().st_size / 1000:.0f} kB\n")


if __name__ == "__main__":
    main()
