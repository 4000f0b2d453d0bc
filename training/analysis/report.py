"""A report in one HTML file: sections of words, tables, pictures and sounds, all of them inside."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment

from audiopg.model_cards import TEMPLATES

ANALYSIS_TEMPLATE = TEMPLATES / "analysis.html.jinja"
"""Of a report; `write_report` fills it in."""


@dataclass(frozen=True)
class Table:
    """A table of text.

    Args:
        head: Names of the columns.
        rows: Cells, row by row.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Medium:
    """A picture or a sound.

    Args:
        path: A PNG or a WAV file.
        caption: What it shows.
    """

    path: Path
    caption: str

    @property
    def uri(self) -> str:
        """The file as text, so that the report needs no other file."""
        kind = {".png": "image/png", ".wav": "audio/wav"}[self.path.suffix]
        return f"data:{kind};base64,{base64.b64encode(self.path.read_bytes()).decode()}"


@dataclass(frozen=True)
class Section:
    """A part of a report.

    Args:
        title: Its heading.
        paragraphs: Words.
        tables: Below them.
        figures: Below those.
        sounds: At the end.
    """

    title: str
    paragraphs: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Medium] = ()
    sounds: Sequence[Medium] = ()


def write_report(path: Path, title: str, sections: Sequence[Section], command: str, provenance: str) -> Path:
    """Fill in the template.

    Args:
        path: HTML file to write.
        title: At the top.
        sections: In order.
        command: What makes the same report again.
        provenance: Seeds, clips, versions and hardware, as text.

    Returns:
        The path.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     made = write_report(Path(folder) / "r.html", "A < B", [Section("One", ["word"])], "make", "seed 0")
        ...     "A &lt; B" in made.read_text()
        True
    """
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        ANALYSIS_TEMPLATE.read_text(encoding="utf-8")
    )
    page = template.render(title=title, sections=sections, command=command, provenance=provenance)
    path.write_text(page + "\n", encoding="utf-8")
    return path
