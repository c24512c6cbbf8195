"""From what users hold to a trace: the table of formats, and the one loop that all of them share.

To add a format, write a module with ``detects(head) -> bool`` and ``read(stream, intake) -> None`` and add a row to
``FORMATS``; damage is reported as :class:`InputError` with the line and byte (``docs/trace-format.md``).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from secondsight.errors import InputError, UsageError
from secondsight.trace.intake import Intake
from secondsight.trace.provenance import Provenance
from secondsight.trace.read import (
    champsim,
    column_sources,
    columns,
    damo,
    drmemtrace,
    lackey,
    perf,
    pinatrace,
)
from secondsight.trace.read.column_mapping import Mapping
from secondsight.trace.read.text import ByteStream, Progress
from secondsight.trace.writer import Profile, TraceWriter


@dataclass(frozen=True)
class Format:
    """One form of records: its name, what it is, how it is told by its first bytes, how it is read.

    *mapped*: its reader takes a mapping of columns too, and whom to tell it.
    """

    name: str
    summary: str
    detects: Callable[[bytes], bool]
    read: Callable[..., None]
    mapped: bool = False


# Asked in this order; the first that recognises the head reads the file.
FORMATS: Final = (
    Format("lackey", "valgrind --tool=lackey --trace-mem=yes", lackey.detects, lackey.read),
    Format("damo", "damo's records, JSON or zlib-compressed JSON", damo.detects_json, damo.read_json),
    Format("damo-perf", "perf script text of damon:damon_aggregated", damo.detects_text, damo.read_text),
    Format("damo-raw", "text of damo report access --raw_form", damo.detects_raw, damo.read_raw),
    Format("drmemtrace", "DynamoRIO drmemtrace's view tool", drmemtrace.detects, drmemtrace.read),
    Format(
        "perf", "perf script -F pid,tid,time,addr,phys_addr,data_src of perf mem", perf.detects, perf.read
    ),
    Format("pinatrace", "Pin's pinatrace.out", pinatrace.detects, pinatrace.read),
    Format(
        "parquet",
        "columns of a Parquet file",
        column_sources.detects_parquet,
        columns.read_parquet,
        mapped=True,
    ),
    Format(
        "arrow",
        "columns of an Arrow file or stream",
        column_sources.detects_arrow,
        columns.read_arrow,
        mapped=True,
    ),
    Format(
        "csv",
        "columns of CSV or TSV text with a head line",
        column_sources.detects_text,
        columns.read_text,
        mapped=True,
    ),
    Format("champsim", "ChampSim's 64-byte records", champsim.detects, champsim.read),
)


class Converted(NamedTuple):
    """What :func:`convert` made: the trace's provenance, and how many accesses were taken, in how many rows of the source."""

    provenance: Provenance
    accesses: int
    rows: int


def choose(stream: ByteStream, name: str | None = None, columns: Mapping | None = None) -> Format:
    """The format called *name*, or the one that recognises *stream*'s first bytes; text that has a line with the names of *columns* is CSV.

    :raises UsageError: no format is called *name*.
    :raises InputError: none recognises them.
    """
    names = ", ".join(f.name for f in FORMATS)
    if name is not None:
        for known in FORMATS:
            if known.name == name:
                return known
        raise UsageError(f"no format {name!r}; there are {names}")
    head = stream.text_head()
    if not head:
        raise InputError(
            stream.name, "byte 0", f"empty: no format to recognise; --format ({names}) makes an empty trace"
        )
    for known in FORMATS:
        if known.detects(head):
            return known
    if columns and all(
        column.name in head.decode("utf-8", "replace").split("\n", 1)[0] for column in columns.values()
    ):
        return next(known for known in FORMATS if known.name == "csv")
    shown = head[:40].decode("ascii", "replace")
    raise InputError(
        stream.name,
        "byte 0",
        f"none of {names} begins like {shown!r}; --format names one, --columns the columns of a table",
    )


def convert(
    source: str,
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    quantum: int = 0,
    profile: Profile = "fast",
    columns: Mapping | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Converted:
    """Convert *source* (a file, or ``-``) to the trace *path*.

    *quantum* (ns; 0: exact). *columns*: which columns of a table are what, where their names do not tell; *say* is told what was made
    of them before the rows are read.

    :raises InputError: what does not fit, by line and byte or column and row; nothing is written then.
    """
    with ByteStream(source, progress) as stream:
        chosen = choose(stream, format, columns)
        options: dict[str, Any] = {"columns": columns, "say": say} if chosen.mapped else {}
        if columns and not chosen.mapped:
            raise UsageError(
                f"--columns is for tables (CSV, TSV, Parquet, Arrow); {stream.name} is {chosen.summary}"
            )
        with TraceWriter(path, Provenance(source=chosen.name), profile=profile) as writer:
            intake = Intake(writer, quantum)
            chosen.read(stream, intake, **options)
            return Converted(intake.close(input_hash=stream.input_hash), intake.accesses, intake.events)
