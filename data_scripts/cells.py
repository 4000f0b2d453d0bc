"""What a cell of a table says: nothing, a text, or the part of the data that a clip belongs to.

What is missing never becomes data: it is told apart here, for labels, folds and sources alike.
"""

import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

Part = int | str
"""A fold's number or a split's name."""

SPLITS = ("train", "validation", "test")

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "development"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""What people call the splits."""

# As pandas, R, SQL and spreadsheets write a missing value. `na` and `no` in small letters may be words.
_MISSING = {
    "",
    "nan",
    "NaN",
    "NAN",
    "None",
    "none",
    "NONE",
    "null",
    "NULL",
    "Null",
    "NA",
    "N/A",
    "n/a",
    "#N/A",
    "<NA>",
}
_FOLD = re.compile(r"(fold|split|cv|part|partition|subset)?[\s_.-]*(\d+)(\.0+)?")


def is_missing(value: Any) -> bool:
    """Whether a value says that there is none: None, NaN, -1 (as hidden labels have it), or a word for it.

    Example:
        >>> [value for value in (None, float("nan"), -1, "-1", " ", "nan", 0, "no", "cat") if not is_missing(value)]
        [0, 'no', 'cat']
    """
    if isinstance(value, str):
        text = value.strip()
        return text in _MISSING or re.fullmatch(r"-\d+(\.0+)?", text) is not None
    if isinstance(value, int | float):
        return math.isnan(value) or value < 0
    return value is None


def text_of(value: Any) -> str:
    r"""A value as a name: without blanks around it, in Unicode's composed form, whole numbers as such.

    Example:
        >>> text_of(" Cafe\u0301 "), text_of(3.0)
        ('Café', '3')
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return unicodedata.normalize("NFC", str(value).strip())


def part_called(name: str) -> Part | None:
    """The fold or split that a name stands for; None if it stands for none.

    Example:
        >>> [part_called(name) for name in ("Val", "fold3", "Fold 03", "2", "2.0", "dog")]
        ['validation', 3, 3, 2, 2, None]
    """
    text = name.strip().lower()
    if text in SPLIT_NAMES:
        return SPLIT_NAMES[text]
    found = _FOLD.fullmatch(text)
    return int(found[2]) if found else None


def is_called_as_a_part(name: str) -> bool:
    """Whether a folder's name is that of a part, and of no class: bare numbers may well be classes.

    Example:
        >>> [name for name in ("train", "fold3", "7", "dog") if is_called_as_a_part(name)]
        ['train', 'fold3']
    """
    return part_called(name) is not None and not name.strip().replace(".", "").isdigit()


def parts_called(values: Sequence[Any], column: str) -> list[Part | None]:
    """Folds or splits out of a column's values.

    Args:
        values: Whole numbers, floats, texts, names; missing ones become None.
        column: What they are called. Names in a column `fold` that stand for no part are numbered in their order.

    Returns:
        One per value.

    Raises:
        ValueError: if some stand for no part, or some are folds and some splits.

    Example:
        >>> parts_called([1.0, "fold2", None], "fold"), parts_called(["north", "south"], "fold")
        ([1, 2, None], [1, 2])
    """
    texts = [None if is_missing(value) else text_of(value) for value in values]
    names = sorted({text for text in texts if text is not None})
    parts = {name: part_called(name) for name in names}
    unknown = [name for name, part in parts.items() if part is None]
    if unknown and column == "fold" and len(unknown) == len(names) and not any("." in name for name in unknown):
        parts = {name: number for number, name in enumerate(names, start=1)}
    elif unknown:
        raise ValueError(
            f"A split is one of {', '.join(SPLIT_NAMES)}, or a fold's number, and the column {column} has "
            f"{_quoted(unknown)}. Rename them."
        )
    if len({type(part) for part in parts.values()}) > 1:
        raise ValueError(f"Parts are either folds or splits, and {column} has both: {_quoted(names)}. Rename them.")
    return [None if text is None else parts[text] for text in texts]


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in list(names)[:10])
