"""Tables of text as people have them: commas, semicolons or tabs, with a byte order mark or without."""

import codecs
import csv
from collections import Counter
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

_DELIMITERS = ",;\t|"
_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def plain(name: str) -> str:
    """A column's name without regard to capitals, blanks and dashes.

    Example:
        >>> plain(" File-Name ")
        'file_name'
    """
    return "_".join(name.strip().lower().replace("-", " ").split())


def table_columns(path: Path) -> list[str]:
    """The names of a table's columns, as `plain` has them.

    Raises:
        ValueError: as `read_table`.
    """
    header, _ = _header_and_rows(path)
    return header


def read_table(path: Path, columns: Sequence[str], layout: str = "") -> list[dict[str, str]]:
    r"""Rows of a table with a header; its dialect is told from the header, capitals and blanks in it do not matter.

    Args:
        path: The file.
        columns: Those that it must have, with something in each row.
        layout: What a folder of a published layout holds, as a clause for the errors; nothing for one's own table.

    Returns:
        One mapping from column to text per row: these columns by the names given here, others as `plain` has them.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no text in UTF-8 or UTF-16, has no rows, lacks a column, or a row is incomplete; it names
            the file, and the columns or the row.

    Example:
        >>> path = getfixture("tmp_path") / "mine.csv"
        >>> _ = path.write_text("File; Label\na.wav; cat\n")
        >>> read_table(path, ("file", "label"))
        [{'file': 'a.wav', 'label': 'cat'}]
    """
    official = " Use the official file." if layout else ""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: {layout}. Give the folder that was unpacked from the official archive."
            if layout
            else f"{path} is missing. Check the path."
        )
    header, numbered = _header_and_rows(path)
    asked = {plain(column): column for column in columns}
    missing = [column for name, column in asked.items() if name not in header]
    if missing or not numbered:
        raise ValueError(
            f"{path} must have rows with the columns {tuple(columns)}; it has {len(numbered)} rows with the columns "
            f"{header}" + (f", and lacks {missing}." if missing else ".") + (official or " Complete it.")
        )
    rows = []
    for number, cells in numbered:
        if any(cells[len(header) :]):
            raise ValueError(
                f"Row {number} of {path} has {len(cells)} cells, and there are {len(header)} columns: {cells}. Put "
                f"text that holds the separator in double quotes.{official}"
            )
        cells += [""] * (len(header) - len(cells))
        row = {asked.get(name, name): cell for name, cell in zip(header, cells, strict=False)}
        empty = [column for column in columns if not row[column]]
        if empty:
            raise ValueError(
                f"Row {number} of {path} has nothing in {empty[0]}: {cells}. Complete the row, or remove it.{official}"
            )
        rows.append(row)
    return rows


def _header_and_rows(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Plain names of the columns, and the rows that are not blank with the number of the line that they end on."""
    lines = list(StringIO(_text(path), newline=""))
    skipped = next((i for i, line in enumerate(lines) if line.strip() and not line.lower().startswith("sep=")), 0)
    delimiter = max(_DELIMITERS, key=lambda mark: len(_cells(lines[skipped : skipped + 1], mark)))
    reader = csv.reader(lines[skipped:], delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        rows = [(skipped + reader.line_num, [cell.strip() for cell in cells]) for cells in reader if any(cells)]
    except csv.Error as error:
        raise ValueError(
            f"Row {skipped + reader.line_num} of {path} cannot be read: {error}. Check its quotes."
        ) from error
    header = [plain(name) for name in rows[0][1]] if rows else []
    twice = [name for name, count in Counter(header).items() if name and count > 1]
    if twice:
        raise ValueError(f"Each column of {path} has a name of its own, and {twice} come twice. Rename one of them.")
    return header, rows[1:]


def _cells(line: list[str], delimiter: str) -> list[str]:
    return next(csv.reader(line, delimiter=delimiter), [])


def _text(path: Path) -> str:
    content = path.read_bytes()
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), None)
    if encoding is None and b"\0" in content[:4]:  # letters of UTF-16 that lacks its mark
        encoding = "utf-16-be" if content[:1] == b"\0" else "utf-16-le"
    try:
        text = content.decode(encoding or "utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path} is no text in UTF-8 or UTF-16: line {line} has the byte 0x{content[error.start]:02x}. If it is a "
            "table in Latin-1 or Windows-1252, or a spreadsheet, save it as CSV in UTF-8."
        ) from error
    if "\0" in text:
        raise ValueError(f"{path} is no table of text: it holds zero bytes. Save it as CSV in UTF-8.")
    return text
