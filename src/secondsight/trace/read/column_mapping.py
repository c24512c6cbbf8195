"""How the columns of a file are a trace's: the mapping that ``--columns`` says, and what names and first rows tell.

::

    --columns time=ts:us,address=vaddr,kind=op:R/W,space=pid

    time     =NAME[:ns|us|ms|s]             ns unless said; none: accesses are counted
    address  =NAME[:hex|dec|page|hexpage]   bytes; page, hexpage: numbers of 4 KiB pages; text with 0x is hex
    kind     =NAME[:READ/WRITE[/FETCH]]     the values that stand for each; none: every access is a read
    count    =NAME                          accesses that a row stands for
    space    =NAME                          each value is a process of its own

What the mapping leaves out is guessed by the columns' names and the first rows; what was made of it is told before anything is read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from secondsight.errors import InputError, UsageError
from secondsight.trace.read.column_sources import ADDRESS_NAMES, Table, key_of, listed

#: ns in each unit of time.
UNITS: Final = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9}
# How columns are called by those who have made such files, the likeliest first.
_NAMES: Final = {
    "time": ("time", "ts", "timestamp", "time_ns", "timestamp_ns", "t", "cycle", "cycles", "clock", "tick", "icount"),
    "address": ADDRESS_NAMES,
    "kind": ("kind", "op", "rw", "r/w", "type", "access", "access_type", "operation", "is_write", "write", "mode"),
    "count": ("count", "n", "accesses", "nr_accesses", "samples", "hits"),
    "space": ("space", "pid", "process", "asid", "vm", "cpu_process"),
}  # fmt: skip
_VALUES: Final = (
    ("R", "W", "F"), ("R", "W", "I"), ("R", "W", "X"), ("L", "S", "I"), ("READ", "WRITE", "FETCH"), ("LOAD", "STORE", "IFETCH"),
    ("LD", "ST", "IF"), ("0", "1", "2"), ("FALSE", "TRUE"),
)  # fmt: skip
_PAGES: Final = ("page", "vpn", "pfn")


@dataclass(frozen=True, slots=True)
class SourceColumn:
    """One column of the source: its name, and how its values are meant (a unit, hex or page, the values of kinds); "" where it is plain."""

    name: str
    form: str = ""

    def __str__(self) -> str:
        """As ``--columns`` takes it."""
        return f"{self.name}:{self.form}" if self.form else self.name


Mapping = dict[str, SourceColumn]


def parse(text: str) -> Mapping:
    """The mapping that *text* (``time=ts:us,address=vaddr``) says.

    :raises UsageError: it names no column of a trace, one twice, or a form that there is not.
    """
    out: Mapping = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        ours, equals, theirs = item.partition("=")
        name, _, form = theirs.partition(":")
        if not equals or not name or ours not in _NAMES:
            raise UsageError(
                f"--columns {item!r}: write {'|'.join(_NAMES)}=NAME, as in time=ts,address=vaddr,kind=op:R/W"
            )
        if ours in out:
            raise UsageError(f"--columns: {ours} is given twice")
        forms = {"time": tuple(UNITS), "address": ("hex", "dec", "page", "hexpage"), "count": (), "space": ()}
        if form and ours in forms and form not in forms[ours]:
            raise UsageError(
                f"--columns {item!r}: {ours} takes {', '.join(forms[ours]) or 'no form'}, not {form!r}"
            )
        if ours == "kind" and form and not 2 <= len(set(form.split("/"))) == len(form.split("/")) <= 3:
            raise UsageError(
                f"--columns {item!r}: write the values of reads, writes and, if there are, fetches, as in kind=op:R/W/F"
            )
        out[ours] = SourceColumn(name, form)
    return out


def column_option(mapping: Mapping) -> str:
    """*mapping* as ``--columns`` takes it."""
    return ",".join(f"{ours}={theirs}" for ours, theirs in mapping.items())


def guessed(table: Table, given: Mapping) -> Mapping:
    """*given*, completed by what the names and first rows of *table* tell.

    :raises InputError: a column is not there, or no column can be told to be the address.
    """
    there = {key_of(name): name for name in reversed(table.schema.names)}
    mapping: Mapping = {}
    for ours, names in _NAMES.items():
        if ours in given:
            column = given[ours]
            if column.name not in table.schema.names:
                raise InputError(
                    table.name, "columns", f"no column is called {column.name!r}; there are {listed(table)}"
                )
        else:
            taken = {c.name for c in given.values()} | {c.name for c in mapping.values()}
            keys = [key_of(name) for name in names]
            candidates = [there[key] for key in keys if key in there and there[key] not in taken]
            if not candidates and ours == "time":  # ts_us, Time (us)
                split = {name: _stem_and_unit(name) for name in table.schema.names}
                stems = {key_of(stem): name for name, (stem, unit) in split.items() if unit}
                candidates = [stems[key] for key in keys if key in stems]
            if not candidates:
                continue
            column = SourceColumn(candidates[0])
        mapping[ours] = column if column.form else SourceColumn(column.name, _form(table, ours, column.name))
    if "address" not in mapping:
        raise InputError(
            table.name,
            "columns",
            f"no column looks like an address; say which with --columns address=NAME: there are {listed(table)}",
        )
    return mapping


def _form(table: Table, ours: str, name: str) -> str:
    """How the values of column *name* are meant, by its name, its type and its first values."""
    values = [value for value in table.head.column(name).to_pylist() if value is not None]
    if ours == "time":
        return _stem_and_unit(name)[1]
    if ours == "address":
        form = "hex" if any(isinstance(v, str) and is_hex(v) for v in values) else ""
        return f"{form}page" if key_of(name) in _PAGES else form
    if ours == "kind":
        seen = {word_of(value) for value in values}
        for known in _VALUES:
            if seen <= set(known):
                shown = next((str(v) for v in values), "")
                return "/".join(word.lower() if shown.islower() else word for word in known)
    return ""


def _stem_and_unit(name: str) -> tuple[str, str]:
    """``ts_us`` and ``Time (us)`` without their unit, and it; "" where there is none."""
    split = re.fullmatch(rf"(.*?)[ _(\[]+({'|'.join(UNITS)})[)\]]?", name.strip(), re.IGNORECASE)
    return (split[1], split[2].lower()) if split else (name, "")


def is_hex(text: str) -> bool:
    """Is *text* a number in hexadecimal, by 0x or by its digits?"""
    text = text.strip().lower()
    return text.startswith("0x") or (
        any(c in "abcdef" for c in text) and all(c in "0123456789abcdef" for c in text)
    )


def word_of(value: Any) -> str:
    """*value* as the values of kinds are compared; a whole number without its point."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip().upper()
