"""The command lines that a command reads without Typer.

Typer and what it imports take longer to come than a process of 1 GiB takes to read. So what cannot be misread is read here, and anything
else (a wrong word, two of a kind, ``--pid=1``, ``--help``) is left to Typer, which also says what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple


class PlainOption(NamedTuple):
    """An option, stated once for both readers: the *parameter* it sets, and what it *says*: how the word after it is read, or, where it
    stands alone, the value.

    *kind* is the parameter's type for Typer, *help* its line (one line for all words of a parameter), *metavar* what stands for the value,
    given where Typer has no reader of its own for it.
    """

    parameter: str
    says: Callable[[str], Any] | bool
    kind: Any
    help: str
    metavar: str = ""


def number(word: str) -> int:
    """*word*, ASCII digits, as a number.

    :raises ValueError: it is anything else.
    """
    if not (word.isascii() and word.isdigit()):
        raise ValueError(word)
    return int(word)


_KERNEL_MEMORY = "Insist on kernel memory, or do without (default: if it can be read)."
#: Options that other commands over a running process have too (``options.py``).
OF_A_PROCESS: dict[str, PlainOption] = {
    "--range": PlainOption("within", str, str | None, "Only these addresses: START-END in hexadecimal."),
    "--kernel-memory": PlainOption("kernel_memory", True, bool | None, _KERNEL_MEMORY),
    "--procfs": PlainOption("kernel_memory", False, bool | None, _KERNEL_MEMORY),
    "--vmcore": PlainOption("vmcore", Path, Path | None, "The process is in this crash dump."),
    "--qmp": PlainOption(
        "qmp", Path, Path | None, "The process is in the guest behind this QMP socket of QEMU."
    ),
}


def read(words: list[str], options: Mapping[str, PlainOption]) -> dict[str, Any] | None:
    """The parameters that *words* name and what they say; None: not for this reader. *options* by word; "" is a word without one."""
    given: dict[str, Any] = {}
    rest = iter(words)
    for word in rest:
        option = word if word.startswith("-") else ""
        if option not in options:
            return None
        name, says = options[option].parameter, options[option].says
        if callable(says):
            value = next(rest, "") if option else word
            if not value or value.startswith("-"):
                return None
            try:
                read_as = says(value)
            except ValueError:
                return None
        else:
            read_as = says
        if name in given:
            return None
        given[name] = read_as
    return given
