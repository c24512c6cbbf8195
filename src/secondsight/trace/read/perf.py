"""perf: the text of ``perf script -F pid,tid,time,addr,phys_addr,data_src`` over ``perf mem record``.

::

      46572/46572   544966.882384:     7ffdf1391b0c      10268100142 |OP LOAD|LVL L1 hit|SNP None|...      1a2b3c040
        pid tid       seconds          data address      data_src                                          physical

``pid`` and ``phys_addr`` may be missing, nanoseconds (``--ns``) may be there. The operation is in the low bits
of data_src (``mem_op`` in include/uapi/linux/perf_event.h): 2 load, 4 store, 16 exec. These are samples: a page
that no row names may well have been used.
"""

from __future__ import annotations

import re
from typing import Final

import numpy as np

from secondsight.trace.intake import Intake
from secondsight.trace.kinds import Kind
from secondsight.trace.provenance import Clock
from secondsight.trace.read.text import ByteStream, Lines

_LINE: Final = re.compile(
    rb"[ \t]*(\d{1,10})(?:/(\d{1,10}))?[ \t]+(\d{1,10})\.(\d{6}|\d{9}):[ \t]+([0-9a-f]{1,16})[ \t]+([0-9a-f]{1,16}) \|OP[^\n]*\n?"
)
_KIND_OF_OP: Final = {2: int(Kind.CPU_READ), 4: int(Kind.CPU_WRITE), 16: int(Kind.CPU_FETCH)}
_OP_MASK: Final = 0x1F
UNSEEN: Final = [
    "every access that was not sampled",
    "page walks",
    "DMA",
    "instruction fetches, unless sampled as exec",
]


def detects(head: bytes) -> bool:
    """Whether *head* looks like perf script's lines with addr and data_src."""
    lines = [line for line in head.split(b"\n") if line.strip() and not line.startswith(b"#")]
    return bool(lines) and _LINE.match(lines[0] + b"\n") is not None


def read(stream: ByteStream, intake: Intake) -> None:
    """Read all of *stream* into *intake*: a space for each pid, or for each tid where pids were not printed.

    :raises InputError: a torn or foreign line, by line and byte.
    """
    intake.update(clock=Clock(meaning="perf's clock, from its seconds"), unseen=UNSEEN)
    lines = Lines(stream)
    spaces: dict[int, int] = {}
    by_tid = False
    for block in lines.blocks():
        rows: list[tuple[int, int, int, int]] = []
        for line in lines.split(block):
            if not line.strip() or line.startswith(b"#"):
                continue
            match = _LINE.fullmatch(line)
            if match is None or not line.endswith(b"\n"):
                raise lines.error(
                    line, "a sample like '  812/812  12.345678:  7ffd1b0c  68100142 |OP LOAD|…'"
                )
            process, thread, seconds, fraction, address, source = match.groups()
            by_tid |= thread is None
            op = int(source, 16) & _OP_MASK
            if op not in _KIND_OF_OP:
                intake.drop("samples that are neither load, store nor exec")
                continue
            where = int(address, 16)
            if where == 0:
                intake.drop("samples without a data address")
                continue
            number = int(process)
            if number not in spaces:
                spaces[number] = intake.add_space(f"{'tid' if thread is None else 'pid'} {number}")
            time = int(seconds) * 10**9 + int(fraction) * (1 if len(fraction) == 9 else 1000)
            rows.append((time, spaces[number], where, _KIND_OF_OP[op]))
        if rows:
            table = np.array(rows, dtype=np.uint64)
            intake.append(*table.T)
    if by_tid:
        intake.update(notes=["perf printed no pids: threads of one process are spaces of their own"])
