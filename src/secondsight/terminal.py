"""Text of others as a terminal may have it: names of processes, mappings, cgroups, VMs and files, and what a trace says of its origin.

Any user's process may call itself ``ESC ] 0 ; …`` and so write to the terminal of whoever looks at it; a newline in a name forges a
line. Where people read, every such name goes through :func:`printable` (or :func:`markup`, on its way through Rich, whose ``[bold]`` it
would be taken for). JSON, CSV and Parquet keep names whole: their own quoting makes them harmless there.
"""

from __future__ import annotations


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
