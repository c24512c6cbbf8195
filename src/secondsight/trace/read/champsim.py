"""ChampSim's traces: 64 bytes an instruction, as its tracers for Pin and Valgrind write them and its repositories hold them, by xz or gzip.

::

    0        8     9     10      12      16                 32                             64
    | ip u64 | br  | tk  | dst 2 | src 4 | stores u64[2]    | loads u64[4]                 |      little-endian
              is_branch,  taken   registers                                    0: no such access

An instruction is a fetch at ip, then its loads, then its stores; how wide they are is not told, so each is one access to the page it
begins in. The clock is the number of instructions, one ns each. These traces are windows of some 100 million to a billion instructions,
a fraction of a second: without a time scale no daemon that wakes in seconds ever wakes.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from secondsight.errors import InputError
from secondsight.native import allocating
from secondsight.trace.intake import Intake
from secondsight.trace.kinds import Kind
from secondsight.trace.provenance import Clock
from secondsight.trace.read.text import ByteStream

SIZE: Final = 64
RECORD: Final = np.dtype(
    [
        ("ip", "<u8"),
        ("branch", "u1"),
        ("taken", "u1"),
        ("registers", "u1", 6),
        ("stores", "<u8", 2),
        ("loads", "<u8", 4),
    ]
)
_AT_ONCE: Final = 1 << 16  # instructions
_READ, _WRITE, _FETCH = np.uint8(Kind.CPU_READ), np.uint8(Kind.CPU_WRITE), np.uint8(Kind.CPU_FETCH)
UNSEEN: Final = [
    "how wide an access is",
    "page walks",
    "accesses of the kernel on the program's behalf",
    "DMA",
    "real time",
]


@allocating
def _spread(words: Any, clock: int, time: Any, address: Any, kind: Any) -> tuple[int, int]:
    """The accesses of *words* (uint64[n, 8], a record a row) from instruction *clock* on: (how many, the first impossible record or -1)."""
    rows = 0
    for i in range(words.shape[0]):
        now = np.uint64(clock + i)
        if (words[i, 1] & np.uint64(0xFFFF)) & ~np.uint64(0x0101):
            return rows, i
        time[rows], address[rows], kind[rows] = now, words[i, 0], _FETCH
        rows += 1
        for j in range(4, 8):
            if words[i, j]:
                time[rows], address[rows], kind[rows] = now, words[i, j], _READ
                rows += 1
        for j in range(2, 4):
            if words[i, j]:
                time[rows], address[rows], kind[rows] = now, words[i, j], _WRITE
                rows += 1
    return rows, -1


def detects(head: bytes) -> bool:
    """Whether *head* can be records: each with an instruction at a user's address, and flags that are flags."""
    records = np.frombuffer(head[: len(head) // SIZE * SIZE], RECORD)
    return bool(
        len(records)
        and (records["ip"] != 0).all()
        and (records["ip"] < 1 << 56).all()
        and (records["branch"] <= 1).all()
        and (records["taken"] <= records["branch"]).all()
    )


def read(stream: ByteStream, intake: Intake) -> None:
    """Read all of *stream* into *intake* as one process.

    :raises InputError: a torn last record, or flags that no record has.
    """
    intake.update(clock=Clock(meaning="instructions of the trace, one ns each"), unseen=UNSEEN)
    space = intake.add_space(stream.name)
    capacity = 7 * _AT_ONCE
    columns = np.empty(capacity, np.uint64), np.empty(capacity, np.uint64), np.empty(capacity, np.uint8)
    clock, rest = 0, b""
    for data in stream.ahead():
        block = rest + data if rest else data
        whole = len(block) // SIZE * SIZE
        words: NDArray[np.uint64] = np.frombuffer(block, "<u8", whole // 8).reshape(-1, 8)
        for start in range(0, len(words), _AT_ONCE):
            part = words[start : start + _AT_ONCE]
            rows, bad = _spread(part, clock, *columns)
            if bad >= 0:
                where = f"instruction {clock + bad:,}, byte {(clock + bad) * SIZE}"
                raise InputError(
                    stream.name, where, "no record of ChampSim's: is_branch and branch_taken must be 0 or 1"
                )
            clock += len(part)
            intake.append(columns[0][:rows], space, columns[1][:rows], columns[2][:rows])
        rest = block[whole:]
    if rest:
        raise InputError(
            stream.name, f"byte {clock * SIZE}", f"the last record is torn: {len(rest)} of {SIZE} bytes"
        )
    intake.update(notes=[
        f"a window of {clock:,} instructions, {clock / 1e9:.3g} s of this clock: replay it with a --time-scale, or no daemon wakes in it"
    ])  # fmt: skip
