"""Invent sounds, have hidden parts of them completed, and see what embeddings tell: a Gradio app, laid out as a Space.

python space/app.py [CHECKPOINT] [--sounds FOLDER] [--port 7860]

CHECKPOINT is a folder or a name on the Hub, by default the released `audiopg-tiny`. Among the recordings of FOLDER,
if one is given, the nearest sounds are looked for. Nothing leaves the machine, and nothing is fetched but a checkpoint
that is named on the Hub.
"""

import argparse
import hashlib
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import torch
from drawing import draw_completion, draw_decoded, draw_sound
from loading import Checkpoint, default_checkpoint, load_checkpoint
from sounds import Address, Factor, Sound, as_table, from_json, parse_address, synthesizers, to_json
from understanding import NUM_HELD_OUT, Decoders, decoded_table, fit_decoders, nearest
from uploads import LONGEST_SECONDS, UploadError, read_upload, said_time

from audiopg.data_scripts.probe_clips import PROBE_SETS
from audiopg.data_scripts.recorded_files import recordings_below
from audiopg.modeling.spectrogram_audiopg import LOG_FLOOR, num_frames
from audiopg.training.analysis.gallery import Reconstruction, listen, reconstruct

MASKS = {"random patches": "random", "time": "time stripes", "frequency": "mel stripes"}
"""Kinds of mask, as people call them, and as `reconstruct` does."""

NUM_INVENTED = 256
"""Clips of the checkpoint's own stream that a sound is compared with where there are no others."""

NUM_NEAREST = 3
MOST_ROWS = 8
MOST_FILES = 500

OWN, INVENTED = "a sound of mine", "the sound of Invent"

THEME = gr.themes.Default(
    primary_hue="indigo",
    neutral_hue="slate",
    font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"],
    font_mono=["ui-monospace", "Consolas", "monospace"],
)
CSS = """
.gradio-container { max-width: 1240px !important; margin: 0 auto !important; }
.plain table { width: 100%; font-size: 0.95em; display: table; border: none !important; margin: 0; }
.plain td, .plain th { padding: 5px 10px; text-align: left; border: none !important; }
.plain tr { border: none !important; border-bottom: 1px solid var(--border-color-primary) !important; }
.plain ul { padding-left: 1.1em; }
.plain li { margin: 1px 0; }
footer { display: none !important; }
"""

_ROUNDING = 1e-6

Choice = dict[str, Any]
"""What a visitor looks at in *Invent*: `address`, as text, and `changes`, by key."""


@contextmanager
def said() -> Iterator[None]:
    """What cannot be done becomes a sentence on the page."""
    try:
        yield
    except ValueError as error:
        raise gr.Error(str(error), duration=None, print_exception=False) from error


def played(waveform: np.ndarray, sampling_rate: int) -> tuple[int, np.ndarray]:
    """A waveform in [-1, 1] as a player takes it, its level as it is."""
    return sampling_rate, np.round(np.clip(waveform, -1, 1) * 32767).astype(np.int16)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


class App:
    """The page and what it remembers of its checkpoint.

    Args:
        checkpoint: What it runs on.
        folder: Recordings to look for the nearest sounds in.
    """

    def __init__(self, checkpoint: Checkpoint, folder: Path | None = None) -> None:
        self.checkpoint, self.folder = checkpoint, folder
        self.synthesizers = synthesizers(checkpoint.name, checkpoint.statistics)
        self.first = Address(next(iter(self.synthesizers)), int(checkpoint.statistics.get("seed", 0)), 1)
        self.files = Path(tempfile.mkdtemp(prefix="audiopg-space-"))
        self.decoders = lru_cache(maxsize=len(PROBE_SETS))(self._decoders)
        self.standing = lru_cache(maxsize=1)(self._standing)

    def page(self) -> gr.Blocks:
        """All of it."""
        model = self.checkpoint
        millions = sum(parameter.numel() for parameter in model.encoder.parameters()) / 1e6
        with gr.Blocks(title="AudioPG", analytics_enabled=False, delete_cache=(3600, 86400)) as page:
            gr.Markdown(
                f"# AudioPG\nAn audio encoder that learnt from invented sounds alone. Here: `{model.name}`, "
                f"{millions:.1f} million parameters."
            )
            chosen = gr.State({"address": str(self.first), "changes": {}})
            with gr.Tab("Invent", id="invent"):
                self.invent_tab(page, chosen)
            with gr.Tab("Complete", id="complete") as tab:
                self.complete_tab(tab, chosen)
            with gr.Tab("Understand", id="understand") as tab:
                self.understand_tab(tab, chosen)
        return page

    # Invent

    def sound(self, chosen: Choice) -> tuple[Address, Sound]:
        """What a visitor looks at."""
        address = parse_address(chosen["address"], self.first.synthesizer, list(self.synthesizers))
        synthesizer = self.synthesizers[address.synthesizer]
        return address, synthesizer.sound(address.seed, address.index, chosen["changes"])

    def invent_tab(self, page: gr.Blocks, chosen: gr.State) -> None:
        """A sound by its address, and a slider for each of its factors."""
        with gr.Row():
            with gr.Column(scale=4, min_width=340):
                synthesizer = gr.Dropdown(list(self.synthesizers), label="Synthesizer", elem_id="synthesizer")
                about = gr.Markdown()
                address = gr.Textbox(label="Address, seed:index", elem_id="address", max_lines=1, buttons=["copy"])
                with gr.Row():
                    before = gr.Button("Previous", elem_id="before", size="sm", min_width=90)
                    another = gr.Button("Next", elem_id="another", variant="primary", size="sm", min_width=90)
                part = gr.Radio([], label="Part", elem_id="part")
                beside = gr.Dropdown([], label="Factors", elem_id="factors")
                with gr.Column(elem_id="sliders"):
                    self.sliders(chosen, part, beside)
            with gr.Column(scale=6):
                audio = self.player("Hear it", "invented")
                plot = gr.Plot(show_label=False, elem_id="invented-plot")
                words = gr.Markdown(elem_classes="plain", elem_id="words")
                moved = gr.Markdown(elem_classes="plain", elem_id="moved")
                with gr.Row():
                    back = gr.Button("Back to the address", elem_id="back", size="sm", interactive=False)
                    save = gr.DownloadButton("Save all parameters (JSON)", elem_id="save", size="sm")
                    reopen = gr.UploadButton("Open parameters", elem_id="open", size="sm", file_types=[".json"])

        def at(text: str, name: str) -> Choice:
            with said():
                return {"address": str(parse_address(text, name, list(self.synthesizers))), "changes": {}}

        def neighbour(step: int, now: Choice) -> Choice:
            here = parse_address(now["address"], self.first.synthesizer, list(self.synthesizers))
            return {"address": str(replace(here, index=min(max(0, here.index + step), 2**63 - 1))), "changes": {}}

        def opened(path: str) -> Choice:
            with said():
                try:
                    text = Path(path).read_text(encoding="utf-8")
                except UnicodeDecodeError as error:
                    raise ValueError("That is no text. Open a JSON file that was saved here.") from error
                found, changes = from_json(text, self.synthesizers)
            return {"address": str(found), "changes": changes}

        def arrived(request: gr.Request) -> Choice:
            return at(request.query_params.get("sound", str(self.first)), self.first.synthesizer)

        def show(now: Choice, part_now: str | None, page_now: str | None) -> dict[Any, Any]:
            here, made = self.sound(now)
            parts, pages = pages_of(made.factors)
            part_now = part_now if part_now in parts else parts[0]
            page_now = page_now if page_now in pages[part_now] else pages[part_now][0]
            changes = now["changes"]
            rows = [row[:3] for row in as_table(made.moved(changes))]
            return {
                synthesizer: here.synthesizer,
                about: self.synthesizers[here.synthesizer].description,
                address: str(here),
                part: gr.Radio(parts, value=part_now),
                beside: gr.Dropdown(pages[part_now], value=page_now),
                audio: played(made.waveform, made.sampling_rate),
                plot: draw_sound(torch.from_numpy(made.waveform), made.sampling_rate, made.events),
                words: "\n".join(f"- {line}" for line in made.words),
                moved: (
                    f"**Moved away from `{here}`:** share it by its parameters.\n\n"
                    + table(["factor", "at the address", "here"], rows)
                    if rows
                    else f"This is `{here}` itself: whoever types that address hears this very sound."
                ),
                back: gr.Button(interactive=bool(rows)),
                save: self.saved(here, changes, made),
            }

        shown = [synthesizer, about, address, part, beside, audio, plot, words, moved, back, save]
        page.load(arrived, None, chosen).then(show, [chosen, part, beside], shown)
        chosen.change(show, [chosen, part, beside], shown, show_progress="hidden")
        synthesizer.input(lambda name: at("0:0", name), synthesizer, chosen)
        address.submit(at, [address, synthesizer], chosen)
        before.click(partial(neighbour, -1), chosen, chosen)
        another.click(partial(neighbour, 1), chosen, chosen)
        back.click(lambda now: {**now, "changes": {}}, chosen, chosen)
        reopen.upload(opened, reopen, chosen)
        part.input(lambda now, name: first_page(self.sound(now)[1].factors, name), [chosen, part], beside)

    def sliders(self, chosen: gr.State, part: gr.Radio, beside: gr.Dropdown) -> None:
        """What moves the factors of the part and page that are looked at."""

        @gr.render(
            inputs=[chosen, part, beside],
            triggers=[chosen.change, part.change, beside.change],
            concurrency_limit=1,  # each is quick, and two at once would draw into the same place
        )
        def _(now: Choice, part_now: str | None, page_now: str | None) -> None:
            _, made = self.sound(now)
            for factor in made.factors:
                if (factor.part, factor.page) != (part_now, page_now):
                    continue
                control = control_of(factor)
                moves = control.release if isinstance(control, gr.Slider) else control.input
                moves(partial(self.move, factor), [control, chosen], chosen, show_progress="hidden")

    @staticmethod
    def move(factor: Factor, value: float | str | bool, now: Choice) -> Choice:
        """The sound with one factor at another value; back at the address's, it is moved no more."""
        number = float(factor.choices.index(value)) if factor.kind == "name" else float(value)
        near = factor.step / 2 if factor.kind == "float" else 0.0
        if abs(number - factor.value) <= near:
            return now
        changes = {key: other for key, other in now["changes"].items() if key != factor.key}
        if abs(number - factor.drawn) > near:
            changes[factor.key] = number
        return {**now, "changes": changes}

    def saved(self, address: Address, changes: Mapping[str, float], sound: Sound) -> str:
        """A file with all parameters."""
        text = to_json(address, changes, sound)
        folder = self.files / hashlib.sha256(text.encode()).hexdigest()[:16]
        folder.mkdir(exist_ok=True)
        path = folder / f"{str(address).replace('/', '_').replace(':', '_')}.json"
        path.write_text(text, encoding="utf-8")
        return str(path)

    # Complete

    def complete_tab(self, tab: gr.Tab, chosen: gr.State) -> None:
        """Hide most of a sound, and have it redrawn."""
        model, extractor = self.checkpoint.masked, self.checkpoint.feature_extractor
        if model is None:
            gr.Markdown(
                f"`{self.checkpoint.name}` was released without its decoder, which is what draws. Start the app on a "
                "checkpoint of a masked autoencoder: `python space/app.py CHECKPOINT`."
            )
            return
        lent = (
            " This model draws the shape within each patch; its mean and deviation are lent from the true patch, "
            "since training standardised patches (`norm_pix_loss`)."
            if model.config.norm_pix_loss
            else ""
        )
        with gr.Row():
            with gr.Column(scale=4, min_width=340):
                source = gr.Radio([INVENTED, OWN], value=INVENTED, label="Complete", elem_id="source")
                own = self.upload("complete-own")
                kind = gr.Radio(list(MASKS), value=next(iter(MASKS)), label="Hide", elem_id="kind")
                ratio = gr.Slider(5, 95, value=75, step=5, label="How much of it, in %", elem_id="ratio")
                seed = gr.State(0)
                with gr.Row():
                    button = gr.Button("Complete it", variant="primary", elem_id="complete-button")
                    again = gr.Button("Hide other parts", elem_id="again")
                gr.Markdown(
                    "Grey is hidden: the encoder sees the rest, the decoder draws what is missing."
                    + lent
                    + " A spectrogram has no phases: Griffin-Lim finds some, so the original, through the same "
                    "way, is there to compare."
                )
            with gr.Column(scale=6):
                plot = gr.Plot(show_label=False, elem_id="completion-plot")
                result = gr.Markdown(elem_id="completion-words")
                with gr.Row():
                    true = self.player("The original", "true")
                    same = self.player("The original, by Griffin-Lim", "same")
                with gr.Row():
                    seen = self.player("What the model saw", "seen")
                    drawn = self.player("What it completed", "drawn")

        def complete(which: str, path: str | None, now: Choice, hide: str, percent: float, mask: int) -> list[Any]:
            with said():
                waveform = self.waveform_of(which, path, now)
                found = self.completed(waveform, MASKS[hide], percent / 100, mask)
            rate = extractor.sampling_rate
            floor = float(extractor.standardise(torch.tensor([[LOG_FLOOR]]).log()))
            logmels = (found.truth, found.truth.masked_fill(found.hidden, floor), found.drawn)
            sounds = [played(listen(logmel, extractor), rate) for logmel in logmels]
            of = "Your sound"
            if which == INVENTED:
                of = now["address"] + (" with moved factors" if now["changes"] else "")
            words = f"{of}: mean squared error of the hidden patches {found.error:.2f}" + (
                ", where 1 is what their mean alone would give." if model.config.norm_pix_loss else "."
            )
            return [draw_completion(found, rate), words, played(waveform, rate), *sounds]

        inputs, outputs = [source, own, chosen, kind, ratio, seed], [plot, result, true, same, seen, drawn]
        gr.on([button.click, seed.change, kind.input, ratio.release], complete, inputs, outputs)
        again.click(lambda mask: mask + 1, seed, seed)
        source.change(lambda which: gr.Audio(visible=which == OWN), source, own, show_progress="hidden")
        tab.select(
            lambda which, *rest: complete(which, *rest) if which == INVENTED else [gr.skip()] * 6, inputs, outputs
        )

    def waveform_of(self, which: str, path: str | None, now: Choice) -> np.ndarray:
        """The invented sound, or the one that was brought, at the checkpoint's sampling rate."""
        if which == OWN:
            return read_upload(path, self.checkpoint.sampling_rate)
        return self.sound(now)[1].waveform

    def completed(self, waveform: np.ndarray, pattern: str, ratio: float, seed: int) -> Reconstruction:
        """A sound redrawn where it was hidden, without the frames that only fill its last patch."""
        extractor, rate = self.checkpoint.feature_extractor, self.checkpoint.sampling_rate
        input_values = extractor(waveform, sampling_rate=rate)["input_values"]
        assert self.checkpoint.masked is not None
        found = reconstruct(self.checkpoint.masked, input_values, pattern, ratio, seed)
        real = slice(num_frames(len(waveform), rate))
        return replace(found, truth=found.truth[real], hidden=found.hidden[real], drawn=found.drawn[real])

    @staticmethod
    def upload(elem_id: str) -> gr.Audio:
        """Where a recording is dropped, or made, once it is asked for."""
        return gr.Audio(
            label=f"WAV, FLAC, OGG or MP3, up to {said_time(LONGEST_SECONDS)}",
            type="filepath",
            sources=["upload", "microphone"],
            buttons=[],
            elem_id=elem_id,
            visible=False,
        )

    @staticmethod
    def player(label: str, elem_id: str, visible: bool = True) -> gr.Audio:
        """Where a sound is heard."""
        buttons: list[Any] = ["download"]
        return gr.Audio(
            label=label, elem_id=elem_id, interactive=False, buttons=buttons, visible=visible, min_width=200
        )

    # Understand

    def _decoders(self, probe_set: str) -> Decoders:
        return fit_decoders(self.checkpoint.preset, probe_set, self.checkpoint.embed)

    def _standing(self) -> tuple[list[str], list[np.ndarray], np.ndarray]:
        """Names, waveforms and embeddings of the folder's recordings, or of invented clips."""
        if self.folder is not None:
            paths = recordings_below(self.folder)
            if len(paths) > MOST_FILES:
                gr.Warning(f"{self.folder.name} holds {len(paths)} recordings: the first {MOST_FILES} are compared.")
            return self.embedded_files(paths[:MOST_FILES], gr.Warning)
        synthesizer = self.synthesizers[self.first.synthesizer]
        addresses = [replace(self.first, index=index) for index in range(NUM_INVENTED)]
        waveforms = [synthesizer.sound(address.seed, address.index, {}).waveform for address in addresses]
        return list(map(str, addresses)), waveforms, self.checkpoint.embed(waveforms)

    def embedded_files(self, paths: Sequence[str | Path], warn: Any) -> tuple[list[str], list[np.ndarray], np.ndarray]:
        """The files that can be read, and a word about each that cannot."""
        names, waveforms = [], []
        for path in paths:
            try:
                waveforms.append(read_upload(path, self.checkpoint.sampling_rate))
                names.append(Path(path).name)
            except UploadError as error:
                warn(str(error))
        if not waveforms:
            raise ValueError("None of these files is a sound that can be compared. Choose others.")
        return names, waveforms, np.concatenate([self.checkpoint.embed([waveform]) for waveform in waveforms])

    def understand_tab(self, tab: gr.Tab, chosen: gr.State) -> None:
        """What a linear map reads out of an embedding, and what lies beside it."""
        gr.Markdown("### What the embedding tells of how a sound was made")
        with gr.Row():
            with gr.Column(scale=4, min_width=340):
                probe_set = gr.Dropdown(list(PROBE_SETS), label="Clips with", elem_id="probe-set")
                clip = gr.Slider(
                    0, NUM_HELD_OUT - 1, value=0, step=1, label="Clip that no decoder was fitted on", elem_id="clip"
                )
                audio = self.player("Hear it", "probed")
                gr.Markdown(
                    "A ridge regression reads each factor out of the frozen embedding (kinds: a logistic one). It was "
                    f"fitted on other clips of the same kind, and its score is that on {NUM_HELD_OUT} held-out ones: "
                    "R², or the share of what guessing leaves."
                )
            with gr.Column(scale=6):
                decoded = gr.Markdown(elem_classes="plain", elem_id="decoded")
                plot = gr.Plot(show_label=False, elem_id="decoded-plot")
        gr.Markdown("### Which sounds lie nearest")
        among = (
            f"the recordings of {self.folder.name}"
            if self.folder is not None
            else f"the first {NUM_INVENTED} clips of `{self.first.synthesizer}`, seed {self.first.seed}"
        )
        with gr.Row():
            with gr.Column(scale=4, min_width=340):
                source = gr.Radio([INVENTED, OWN], value=INVENTED, label="Nearest to", elem_id="nearest-source")
                own = self.upload("nearest-own")
                files = gr.File(file_count="multiple", label="Among files", height=130, elem_id="among")
                folder = gr.File(file_count="directory", label="or a folder", height=130, elem_id="among-folder")
                gr.Markdown(f"Without any, among {among}.")
                find = gr.Button("Find the nearest", variant="primary", elem_id="find")
            with gr.Column(scale=6):
                found = gr.Markdown(elem_classes="plain", elem_id="nearest")
                with gr.Row():
                    players = [self.player("", f"nearest-{n}", visible=False) for n in range(NUM_NEAREST)]

        def decode(name: str, number: int) -> list[Any]:
            decoders = self.decoders(name)
            rows = decoded_table(decoders, int(number))
            here = {
                factor: (values[int(number)], decoders.decoded[factor][int(number)])
                for factor, values in decoders.clips.factors.items()
            }
            return [
                played(decoders.clips.waveforms[int(number)], decoders.clips.sampling_rate),
                table(["factor", "true", "decoded", "off by", "score"], rows),
                draw_decoded(decoders.clips.factors, decoders.decoded, here),
            ]

        def look(
            which: str, path: str | None, now: Choice, some: list[str] | None, more: list[str] | None
        ) -> list[Any]:
            with said():
                waveform = self.waveform_of(which, path, now)
                paths = [*(some or []), *(more or [])]
                if len(paths) > MOST_FILES:
                    raise ValueError(f"This page compares {MOST_FILES} files at most, got {len(paths)}; choose fewer.")
                names, waveforms, embeddings = self.embedded_files(paths, gr.Warning) if paths else self.standing()
            order, cosines = nearest(self.checkpoint.embed([waveform])[0], embeddings)
            rows = [
                [f"{rank}", names[n], f"{c:.3f}"] for rank, (n, c) in enumerate(zip(order, cosines, strict=True), 1)
            ]
            shown = [
                gr.Audio(played(waveforms[n], self.checkpoint.sampling_rate), label=names[n], visible=True)
                for n in order[:NUM_NEAREST]
            ]
            hidden = [gr.Audio(None, visible=False)] * (NUM_NEAREST - len(shown))
            return [table(["", "sound", "cosine similarity"], rows[:MOST_ROWS]), *shown, *hidden]

        gr.on([tab.select, probe_set.input, clip.release], decode, [probe_set, clip], [audio, decoded, plot])
        find.click(look, [source, own, chosen, files, folder], [found, *players])
        source.change(lambda which: gr.Audio(visible=which == OWN), source, own, show_progress="hidden")


def pages_of(factors: Sequence[Factor]) -> tuple[list[str], dict[str, list[str]]]:
    """Parts of a sound, and what lies on the pages of each, in order."""
    pages: dict[str, dict[str, None]] = {}
    for factor in factors:
        pages.setdefault(factor.part, {})[factor.page] = None
    order = sorted(pages, key=lambda part: (part.startswith(("event", "oscillator")), part))
    return order, {part: list(found) for part, found in pages.items()}


def first_page(factors: Sequence[Factor], part: str) -> gr.Dropdown:
    """The pages of a part, the first of them open."""
    pages = pages_of(factors)[1][part]
    return gr.Dropdown(pages, value=pages[0])


def control_of(factor: Factor) -> gr.Slider | gr.Dropdown | gr.Checkbox:
    """What moves a factor."""
    name = factor.label + (f", {factor.unit}" if factor.unit else "")
    given: dict[str, Any] = {"label": name, "info": factor.description, "interactive": True}
    if factor.kind == "bool":
        return gr.Checkbox(bool(factor.value), **given)
    if factor.kind == "name":
        return gr.Dropdown(list(factor.choices), value=factor.choices[int(factor.value)], **given)
    if factor.kind == "choice":
        return gr.Dropdown(list(factor.choices), value=factor.value, **given)
    low, high = (factor.low / factor.step, factor.high / factor.step)
    low, high = math.ceil(low - _ROUNDING), math.floor(high + _ROUNDING)  # whole steps inside the range
    value = min(max(round(factor.value / factor.step), low), high)
    digits = max(0, -math.floor(math.log10(factor.step)))
    ends = [round(steps * factor.step, digits) for steps in (low, high, value)]
    return gr.Slider(ends[0], ends[1], value=ends[2], step=factor.step, **given)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("checkpoint", nargs="?", help="a folder or a name on the Hub; by default audiopg-tiny")
    parser.add_argument("--sounds", type=Path, metavar="FOLDER", help="recordings to look for the nearest sounds in")
    parser.add_argument("--port", type=int, help="by default the first free one from 7860 on")
    known = parser.parse_args(arguments)
    try:
        if known.sounds is not None and not known.sounds.is_dir():
            raise ValueError(f"--sounds is a folder of recordings, and {known.sounds} is none; name another.")
        checkpoint = load_checkpoint(known.checkpoint or default_checkpoint())
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    page = App(checkpoint, known.sounds).page()
    page.launch(server_port=known.port, theme=THEME, css=CSS, footer_links=[], ssr_mode=False, max_file_size="100mb")


if __name__ == "__main__":
    main()
