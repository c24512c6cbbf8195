"""From what users hold to a trace: the table of formats, and the one loop that all of them share.

To add a format, write a module with ``detects(head) -> bool`` and ``read(stream, intake) -> None`` and add a row to
``FORMATS``; damage is reported as :class:`InputError` with the line and byte (``docs/trace-format.md``).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from secondsight.errors import InputError, UsageError
from secondsight.trace import damo, drmemtrace, lackey, perf
from secondsight.trace.intake import Intake
from secondsight.trace.provenance import Provenance
from secondsight.trace.text import ByteStream, Progress
from secondsight.trace.writer import Profile, TraceWriter


@dataclass(frozen=True)
class Format:
    """One form of trace text: its name, what it is, how it is told by its first bytes, how it is read."""

    name: str
    summary: str
    detects: Callable[[bytes], bool]
    read: Callable[[ByteStream, Intake], None]


# Asked in this order; the first that recognises the head reads the file.
FORMATS: Final = (
    Format("lackey", "valgrind --tool=lackey --trace-mem=yes", lackey.detects, lackey.read),
    Format("damo", "damo's records, JSON or zlib-compressed JSON", damo.detects_json, damo.read_json),
    Format("damo-perf", "perf script text of damon:damon_aggregated", damo.detects_text, damo.read_text),
    Format("drmemtrace", "DynamoRIO drmemtrace's view tool", drmemtrace.detects, drmemtrace.read),
    Format(
        "perf", "perf script -F pid,tid,time,addr,phys_addr,data_src of perf mem", perf.detects, perf.read
    ),
)


def choose(stream: ByteStream, name: str | None = None) -> Format:
    """The format called *name*, or the one that recognises *stream*'s first bytes."""
    names = ", ".join(f.name for f in FORMATS)
    if name is not None:
        for known in FORMATS:
            if known.name == name:
                return known
        raise UsageError(f"no format {name!r}; there are {names}")
    head = stream.peek()
    if not head:
        raise InputError(
            stream.name, "byte 0", f"empty: no format to recognise; --format ({names}) makes an empty trace"
        )
    for known in FORMATS:
        if known.detects(head):
            return known
    shown = head[:40].decode("ascii", "replace")
    raise InputError(stream.name, "byte 0", f"none of {names} begins like {shown!r}; --format names one")


def convert(
    source: str,
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    quantum: int = 0,
    profile: Profile = "fast",
    progress: Progress | None = None,
) -> tuple[Provenance, int]:
    """Convert *source* (a file, or ``-``) to the trace *path*; returns its provenance and the number of accesses taken.

    *quantum* (ns; 0: exact). Raises :class:`InputError` with line and byte, and then writes nothing.
    """
    with ByteStream(source, progress) as stream:
        chosen = choose(stream, format)
        with TraceWriter(path, Provenance(source=chosen.name), profile=profile) as writer:
            intake = Intake(writer, quantum)
            chosen.read(stream, intake)
            return intake.close(input_hash=stream.input_hash), intake.events
