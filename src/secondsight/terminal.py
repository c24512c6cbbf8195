"""Text of others as a terminal may have it: names of processes, mappings, cgroups, VMs and files, and what a trace says of its origin.

Any user's process may call itself ``ESC ] 0 ; …`` and so write to the terminal of whoever looks at it; a newline in a name forges a
line. Where people read, every such name goes through :func:`printable` (or :func:`markup`, on its way through Rich, whose ``[bold]`` it
would be taken for). JSON, CSV and Parquet keep names whole: their own quoting makes them harmless there.

:func:`say` prints for people: on a terminal lines are broken between words where it is not wide enough for them, elsewhere they stay whole.
"""

from __future__ import annotations

import os
import sys

#: what a line's continuation lies further to the right than the line
_HANGING = 4


def printable(text: object) -> str:
    r"""*text* on one line, with whatever is no printable character as an escape: ``\x1b``, ``\n``, ``\u202e``.

    Escaped are the control characters (C0, DEL, C1), line separators, what turns the direction of writing or is invisible (format
    characters), and surrogates (a file's name that is no UTF-8). Spaces and letters of any script stay.
    """
    string = str(text)
    if string.isprintable():
        return string
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in string
    )


def markup(text: object) -> str:
    """:func:`printable` *text* for ``rich``'s ``Console.print`` and tables, where brackets would be markup."""
    from rich.markup import escape

    return escape(printable(text))


def width() -> int | None:
    """Cells of the terminal that is written to; None where there is none and COLUMNS does not say."""
    if not sys.stdout.isatty() and not os.environ.get("COLUMNS", "").isdigit():
        return None
    import shutil

    return shutil.get_terminal_size().columns


def fit(text: str, cells: int | None) -> str:
    """*text* with its lines broken between words so that none has more than *cells*, as far as words let; None: as it is."""
    if cells is None:
        return text
    lines = text.split("\n")
    return "\n".join(_broken(line, max(cells, 20)) if len(line) > cells else line for line in lines)


def _broken(line: str, cells: int) -> str:
    # Takes a while to import; most lines are short.
    import textwrap

    indent = " " * (len(line) - len(line.lstrip()) + _HANGING)
    # Addresses, options and paths stay whole.
    return textwrap.fill(
        line, cells, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def say(text: str = "", *, flush: bool = False) -> None:
    """Print *text* so that it fits into the terminal, where it goes to one; a pipe gets whole lines, whatever COLUMNS says."""
    print(fit(text, width() if sys.stdout.isatty() else None), flush=flush)
