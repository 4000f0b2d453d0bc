"""Names that people give: as a part of a path, in what is published, in Markdown and on a terminal."""

import html
import os
import re
import sys
from pathlib import Path

_MOST_BYTES = 200  # file systems allow 255, and endings are added


def check_name(what: str, name: str) -> None:
    r"""Refuse a name that would not be one file or folder, in the place that it is meant for.

    Args:
        what: Whose name, for the error.
        name: The name.

    Raises:
        ValueError: if it is empty, a path, hidden, too long, or has letters that are not to be seen.

    Example:
        >>> check_name("name", "../x")
        Traceback (most recent call last):
        ...
        ValueError: name becomes a folder: letters and digits to be seen, no / or \ and no dot first; got '../x'.
    """
    fits = name.strip() == name and name.isprintable() and 0 < len(name.encode(errors="replace")) <= _MOST_BYTES
    if not fits or re.search(r"^[.-]|[/\\]", name):
        raise ValueError(
            rf"{what} becomes a folder: letters and digits to be seen, no / or \ and no dot first; got {name!r}."
        )


def public_name(name: str | Path) -> str:
    """What a file, a folder or a repository is called, without where a machine keeps it: for all that is published.

    Args:
        name: A path, or a name on the Hub.

    Returns:
        The last name of a path that is there or is absolute; any other name as it is.

    Example:
        >>> public_name("/home/me/exported/wide/"), public_name("org/name")
        ('wide', 'org/name')
    """
    is_local = os.path.isabs(name) or Path(name).exists()
    return Path(os.path.abspath(name)).name if is_local else str(name)


def public_word(word: str) -> str:
    """A word of a command line as others may read it: paths by their last names.

    Example:
        >>> [public_word(word) for word in ("--folder=/home/me/x", "/home/me/x", "--size", "org/name")]
        ['--folder=x', 'x', '--size', 'org/name']
    """
    option, sign, value = word.partition("=") if word.startswith("--") else ("", "", word)
    return option + sign + (public_name(value) if os.sep in value else value)


def markdown(name: object) -> str:
    """A name in Markdown, tables included: what would be a mark, a tag or a formula is only itself.

    Example:
        >>> print(markdown("a|b"), markdown("<script>"), markdown("car_horn"))
        a&#124;b &lt;script&gt; car_horn
    """
    text = html.escape(" ".join(str(name).split()), quote=False)
    return re.sub(r"[|$*`\[\]\\]", lambda found: f"&#{ord(found[0])};", text)


def say(text: str) -> None:
    """Write lines to standard output; a terminal that lacks some of their letters gets their numbers instead."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    sys.stdout.flush()
