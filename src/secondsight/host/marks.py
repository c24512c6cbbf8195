"""Marked moments of a recording: what an operator did, or a switch that was changed, and when.

::

    secondsight top --record host.parquet --interval 30          keeps passes
    secondsight top --record host.parquet --mark 'enabled=always'   in another terminal: one line more in host.parquet.marks
    kill -USR1 PID                                               the same without words

A line of ``FILE.marks`` is a JSON object. Whoever marks needs nothing of the process that records: the recorder takes the lines into the
Parquet file's metadata at its next pass, and a mark that came after its end is read from the lines. A switch that reads otherwise than in
the pass before marks itself.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from secondsight import atomicfile
from secondsight.errors import SecondSightError, UsageError

#: what a recording of the host says that it is
KIND = "secondsight.host"
#: letters of a mark's text
LONGEST = 200
#: marks that a recording keeps, the newest
MOST = 1000


class Mark(msgspec.Struct, frozen=True, order=True):
    """*time*: seconds since the epoch; *text*: what happened, empty where nobody said."""

    time: float
    text: str = ""


def beside(recording: Path) -> Path:
    """Where marks of *recording* wait to be taken into it."""
    return recording.with_name(f"{recording.name}.marks")


def add(recording: Path, text: str) -> Mark:
    """Mark this moment in *recording*, which may be under way or ended.

    :raises UsageError: there is no such recording, the text is too long, or the line cannot be written.
    :raises SecondSightError: the disk is full.
    """
    if len(text) > LONGEST:
        raise UsageError(f"--mark: {len(text)} letters; at most {LONGEST} fit")
    if not recording.is_file():
        raise UsageError(
            f"--mark: there is no recording {recording}; `secondsight top --record {recording}` makes one"
        )
    if not is_recording(recording):
        raise UsageError(
            f"--mark: {recording} is no recording of the host, which `secondsight top --record` makes"
        )
    mark = Mark(time.time(), text.encode("utf-8", "replace").decode())
    line = msgspec.json.encode(mark) + b"\n"
    path = beside(recording)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            # One write: lines of two who mark at once do not mix.
            written = os.write(fd, line)
        finally:
            os.close(fd)
    except OSError as error:
        kind = SecondSightError if error.errno in atomicfile.FAILURES else UsageError
        raise kind(f"{path}: cannot be written: {error.strerror}") from None
    if written < len(line):
        raise SecondSightError(f"{path}: cannot be written: no space left")
    return mark


def is_recording(path: Path) -> bool:
    """Whether *path* says of itself that it is one; it is whole whenever it is there."""
    if not path.is_file():  # Arrow would wait for who writes a pipe
        return False
    try:
        return (pq.read_schema(path).metadata or {}).get(b"secondsight.kind") == KIND.encode()
    except (OSError, pa.ArrowException):
        return False


def waiting(recording: Path) -> list[Mark]:
    """The marks in the file beside *recording*; a line that is none is passed over."""
    try:
        lines = beside(recording).read_bytes().splitlines()
    except OSError:
        return []
    marks = []
    for line in lines:
        try:
            marks.append(msgspec.json.decode(line, type=Mark))
        except msgspec.MsgspecError:
            continue
    return marks


def together(known: list[Mark], more: list[Mark], since: float) -> list[Mark]:
    """Both, each once, rising; none from before *since*, which are another recording's; the newest :data:`MOST`."""
    return sorted({mark for mark in [*known, *more] if mark.time >= since})[-MOST:]


def changes(before: Mapping[str, object], after: Mapping[str, object]) -> str:
    """Which switches read otherwise in *after*: ``enabled: madvise to always``; empty where all are the same."""
    return ", ".join(
        f"{name}: {before.get(name, 'none')} to {after.get(name, 'none')}"
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    )
