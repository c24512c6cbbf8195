"""valgrind's lackey: the text of ``valgrind --tool=lackey --trace-mem=yes``.

::

    I  0401ab70,3      instruction fetch: address (hex), size (decimal)
     S 1fff000778,8    store
     L 04222cac,1      load
     M 0421c7cc,4      modify: a load and a store
    ==123== text       valgrind's own messages, also with -- and **: skipped

Leading and trailing blanks may be missing or more, lines may end with CR LF, and some be empty: what people hold has been through editors.
The clock is the number of instructions so far, one ns each; where the instruction lines were taken out, that of accesses.
An access that crosses into another page is one row for each page it touches; a modify is a read and then a write.
"""

from __future__ import annotations

import re
from typing import Final

import numpy as np
from numpy.typing import NDArray

from secondsight.errors import InputError, SecondSightError
from secondsight.geometry import PAGE_SHIFT, PAGE_SIZE
from secondsight.native import allocating
from secondsight.trace.intake import Intake
from secondsight.trace.kinds import Kind
from secondsight.trace.provenance import Clock
from secondsight.trace.read.text import ByteStream

CLOCK: Final = "instructions retired by the program, one ns each"
UNSEEN: Final = [
    "page walks",
    "accesses of the kernel on the program's behalf (system calls)",
    "DMA",
    "real time: valgrind runs one thread at a time",
]
COUNTED: Final = "accesses, one ns each: the source tells neither time nor instructions"
_INSTRUCTION: Final = re.compile(rb"^[ \t]*I[ \t]", re.MULTILINE)
_DATA: Final = re.compile(rb"^[ \t]*[LSM][ \t]", re.MULTILINE)
_ROWS: Final = 1 << 18
_TAB: Final = ord("\t")
_MOST_BYTES: Final = 1 << 16  # no instruction moves more; what claims to is no lackey line
_READ, _WRITE, _FETCH = int(Kind.CPU_READ), int(Kind.CPU_WRITE), int(Kind.CPU_FETCH)

# state: [0] the clock so far, [1] lines, [2] accesses; [3] 1 if accesses are counted, not instructions
_OK, _FULL, _BAD = 0, 1, 2


@allocating
def _parse(
    text: NDArray[np.uint8],
    start: int,
    time: NDArray[np.uint64],
    address: NDArray[np.uint64],
    kind: NDArray[np.uint8],
    state: NDArray[np.int64],
) -> tuple[int, int, int]:
    """Parse whole lines of *text* from *start*; returns (status, where it stopped, rows)."""
    n = text.size
    rows = 0
    capacity = time.size - 2 * (_MOST_BYTES // PAGE_SIZE + 2)
    clock, lines, accesses, counted = state[0], state[1], state[2], state[3]
    i = start
    status = _OK
    while i < n:
        if rows >= capacity:
            status = _FULL
            break
        line = i
        first = text[i]
        if first == 61 or first == 45 or first == 42:  # == -- **
            if i + 1 >= n or text[i + 1] != first:
                status = _BAD
                break
            while i < n and text[i] != 10:
                i += 1
            if i == n:
                status, i = _BAD, line
                break
            i += 1
            lines += 1
            continue
        while i < n and (text[i] == 32 or text[i] == _TAB):
            i += 1
        if i < n and (text[i] == 10 or (text[i] == 13 and i + 1 < n and text[i + 1] == 10)):  # an empty line
            i += 1 if text[i] == 10 else 2
            lines += 1
            continue
        if n - i < 5 or not (text[i + 1] == 32 or text[i + 1] == _TAB):
            status, i = _BAD, line
            break
        letter = text[i]
        if letter == 73:  # I
            op = _FETCH
        elif letter == 76:  # L
            op = _READ
        elif letter == 83:  # S
            op = _WRITE
        elif letter == 77:  # M
            op = -1
        else:
            status, i = _BAD, line
            break
        i += 1
        while i < n and (text[i] == 32 or text[i] == _TAB):
            i += 1
        where = np.uint64(0)
        digits = 0
        while i < n:
            c = text[i]
            if 48 <= c <= 57:
                d = c - 48
            elif 97 <= c <= 102:
                d = c - 87
            else:
                break
            where = where << np.uint64(4) | np.uint64(d)
            digits += 1
            i += 1
        if digits == 0 or digits > 16 or i >= n or text[i] != 44:
            status, i = _BAD, line
            break
        i += 1
        size = 0
        digits = 0
        while i < n and 48 <= text[i] <= 57 and digits < 6:
            size = size * 10 + (text[i] - 48)
            digits += 1
            i += 1
        while i < n and (text[i] == 32 or text[i] == _TAB or text[i] == 13):
            i += 1
        if digits == 0 or size == 0 or size > _MOST_BYTES or i >= n or text[i] != 10:
            status, i = _BAD, line
            break
        i += 1
        lines += 1
        accesses += 1
        if op == _FETCH or counted:
            clock += 1
        last = where + np.uint64(size - 1)
        if last < where:
            last = where  # wraps past 2**64: the first byte is refused later anyway
        modify = op < 0
        for _ in range(2 if modify else 1):
            if modify:
                op = _READ if op != _READ else _WRITE
            at = where
            while True:
                time[rows] = clock
                address[rows] = at
                kind[rows] = op
                rows += 1
                if at >> np.uint64(PAGE_SHIFT) == last >> np.uint64(PAGE_SHIFT):
                    break
                at = (at >> np.uint64(PAGE_SHIFT) << np.uint64(PAGE_SHIFT)) + np.uint64(PAGE_SIZE)
    state[0], state[1], state[2] = clock, lines, accesses
    return status, i, rows


class LackeyParser:
    """Feeds lackey text, block by block, to an intake as the accesses of one *space*."""

    def __init__(self, intake: Intake, space: int, name: str) -> None:
        self.intake, self.space, self.name = intake, space, name
        self.offset = 0  # of the next block in the text
        self._time = np.empty(_ROWS, np.uint64)
        self._address = np.empty(_ROWS, np.uint64)
        self._kind = np.empty(_ROWS, np.uint8)
        self._state = np.zeros(4, np.int64)

    @property
    def instructions(self) -> int:
        """Instructions so far: the clock, in ns."""
        return int(self._state[0])

    @property
    def accesses(self) -> int:
        """Lines that tell of an access."""
        return int(self._state[2])

    def count_accesses(self) -> None:
        """The clock counts accesses: the text has no instruction lines."""
        self._state[3] = 1

    def feed(self, block: bytes, shift: int = 0) -> None:
        """Parse *block*, which must end with a line's end; *shift* (ns) is added to the clock.

        :raises InputError: a torn or foreign line, by line and byte.
        """
        text = np.frombuffer(block, np.uint8)
        done = 0
        while done < text.size:
            status, done, rows = _parse(text, done, self._time, self._address, self._kind, self._state)
            if rows:
                time = self._time[:rows]
                self.intake.append(
                    time + np.uint64(shift) if shift else time,
                    self.space,
                    self._address[:rows],
                    self._kind[:rows],
                )
            if status == _BAD:
                raise self._error(block, done)
        self.offset += len(block)

    def _error(self, block: bytes, at: int) -> InputError:
        end = block.find(b"\n", at, at + 200)
        shown = block[at : end if end >= 0 else at + 40]
        torn = b"\n" not in block[at:]
        problem = "the last line is torn" if torn else "not a line of lackey's"
        return InputError(
            self.name,
            f"line {int(self._state[1]) + 1}, byte {self.offset + at}",
            f"{problem}: {shown[:60].decode('ascii', 'replace')!r}; expected like 'I  0401ab70,3' or ' S 1fff000778,8'",
        )


def compile_parser() -> None:
    """Compile what parses, where it is not yet: seconds in which a program that is being recorded would run ahead."""
    rows = np.empty(64, np.uint64)
    _parse(
        np.frombuffer(b"== \n", np.uint8), 0, rows, rows.copy(), np.empty(64, np.uint8), np.zeros(4, np.int64)
    )


def detects(head: bytes) -> bool:
    """Whether *head*, the first bytes of a file, looks like lackey's text."""
    for line in head.split(b"\n")[:-1] or [head]:
        if line[:2] in (b"==", b"--", b"**"):
            continue
        if not line.strip():
            continue
        kind, _, rest = line.strip().replace(b"\t", b" ").partition(b" ")
        number, comma, size = rest.strip().partition(b",")
        return kind in (b"I", b"S", b"L", b"M") and comma == b"," and size.isdigit() and number.isalnum()
    return b"Lackey" in head


def read(stream: ByteStream, intake: Intake) -> None:
    """Read all of *stream* into *intake* as one process. Without instruction lines in its first 4 MiB, accesses are the clock.

    :raises SecondSightError: there is valgrind's own talk and not one access.
    """
    intake.update(clock=Clock(meaning=CLOCK), unseen=UNSEEN)
    parser = LackeyParser(intake, intake.add_space(stream.name), stream.name)
    for number, block in enumerate(stream.blocks()):
        if number == 0 and not _INSTRUCTION.search(block) and _DATA.search(block):
            parser.count_accesses()
            intake.update(clock=Clock(meaning=COUNTED), unseen=["instruction fetches", *UNSEEN])
        parser.feed(block)
    if stream.offset and not parser.accesses:
        raise SecondSightError(f"{stream.name}: no accesses in it: was lackey given --trace-mem=yes?")
