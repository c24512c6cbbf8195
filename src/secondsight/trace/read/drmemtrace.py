"""DynamoRIO: the text of drmemtrace's view tool (``drrun -t drmemtrace -tool view``, formerly ``-simulator_type view``).

::

       47445       37770:     2765543 ifetch       5 byte(s) @ 0x0000000000404a7e 48 8b 5c 24 08    mov ...
       47446       37770:     2765543 read         8 byte(s) @ 0x00007fdf64e2adc8 by PC 0x0000000000404a7e
       47448       37771:  W0.T2765543 write ...      since DynamoRIO 10: workload W0, thread T2765543
       record  instruction    thread                                         <marker: …>  and  <thread … exited>

The clock is the number of instructions so far, one ns each. Prefetches and flushes touch no accessed bit that
anyone promised, so they are left out and counted. An access into another page is a row for each page.
"""

from __future__ import annotations

import re
from typing import Final

import numpy as np

from secondsight.geometry import PAGE_SHIFT
from secondsight.trace.intake import Intake
from secondsight.trace.kinds import Kind
from secondsight.trace.provenance import Clock
from secondsight.trace.read.text import ByteStream, Lines

_PREFIX: Final = rb"[ \t]*\d{1,19}[ \t]+(\d{1,18}):[ \t]+(?:W(\d{1,6})\.T)?\d{1,10}"
_ACCESS: Final = re.compile(
    _PREFIX + rb" (ifetch|read|write)[ \t]+(\d{1,6}) byte\(s\) @ 0x([0-9a-f]{1,16})(?: [^\n]*)?\n"
)
_HINT: Final = re.compile(_PREFIX + rb" (?:pref|iflush|dflush)[^ \t]*[ \t]+\d+ byte\(s\) @ [^\n]*\n")
# What says nothing of memory: markers, thread exits, the rest of an instruction's bytes, and the tool's own words.
_OTHER: Final = re.compile(
    _PREFIX + rb"(?: <[^\n]*>|[ \t]{6,}[0-9a-f][^\n]*)\n"
    rb"|Output format:\n|<--record#[^\n]*\n|-{20,}\n|View tool results:\n|[ \t]*\d+ : [^\n]*\n|[ \t]*\n"
)
_KINDS: Final = {b"ifetch": int(Kind.CPU_FETCH), b"read": int(Kind.CPU_READ), b"write": int(Kind.CPU_WRITE)}
UNSEEN: Final = ["page walks", "accesses of the kernel on the program's behalf, unless traced", "DMA"]


def detects(head: bytes) -> bool:
    """Whether *head* looks like the view tool's text."""
    lines = [line + b"\n" for line in head.split(b"\n")[:-1] if line.strip()]
    return bool(lines) and (
        lines[0].startswith((b"Output format:", b"<--record#"))
        or _ACCESS.fullmatch(lines[0]) is not None
        or (_OTHER.fullmatch(lines[0]) is not None and b"<marker:" in lines[0])
    )


def read(stream: ByteStream, intake: Intake) -> None:
    """Read all of *stream* into *intake*: a space for each workload (a trace without workloads is one).

    :raises InputError: a torn or foreign line, by line and byte.
    """
    intake.update(clock=Clock(meaning="instructions of the view tool's count, one ns each"), unseen=UNSEEN)
    lines = Lines(stream)
    spaces: dict[bytes | None, int] = {}
    for block in lines.blocks():
        rows: list[tuple[int, int, int, int]] = []
        for line in lines.split(block):
            match = _ACCESS.fullmatch(line)
            if match is None:
                if _HINT.fullmatch(line):
                    intake.drop("prefetches and flushes")
                elif not _OTHER.fullmatch(line):
                    raise lines.error(
                        line, "a record like '1  1:  812 read  8 byte(s) @ 0x7fdf64e2adc8 by PC 0x404a7e'"
                    )
                continue
            clock, workload, name, size, address = match.groups()
            if workload not in spaces:
                label = "process" if workload is None else f"workload {workload.decode()}"
                spaces[workload] = intake.add_space(label)
            first = int(address, 16)
            last = first + max(int(size), 1) - 1
            if last - first >= 1 << 16 or last >> 64:
                raise lines.error(line, "a size below 65536 and an address below 2**64")
            where = first
            while where <= last:
                rows.append((int(clock), spaces[workload], where, _KINDS[name]))
                where = ((where >> PAGE_SHIFT) + 1) << PAGE_SHIFT
        if rows:
            intake.append(*np.array(rows, dtype=np.uint64).T)
