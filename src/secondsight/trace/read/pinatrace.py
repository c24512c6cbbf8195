"""Pin's pinatrace: the text of its tutorial's tool for memory references, which many courses and tools have taken over.

::

    0x7f52ac3fe8f1: R 0x7ffc0d2b9f48      instruction: read or write, address        also with a size, a prefetch flag, a value behind it
    0x7f52ac3fe8f4: W       0x7ffc0d2b9f40
    #eof

There is no clock in it, so accesses are counted; the instructions' own fetches are not told, for those without an access are missing.
"""

from __future__ import annotations

import re
from typing import Final

import numpy as np

from secondsight.trace.intake import Intake
from secondsight.trace.kinds import Kind
from secondsight.trace.provenance import Clock
from secondsight.trace.read.lackey import COUNTED
from secondsight.trace.read.text import ByteStream, Lines

_LINE: Final = rb"[ \t]*(?:0x)?[0-9a-fA-F]{1,16}:[ \t]+([RW])[ \t]+(?:0x)?([0-9a-fA-F]{1,16})(?:[ \t]+[^\n]{0,200})?[ \t\r]*\n"
_ACCESS: Final = re.compile(_LINE)
_OTHER: Final = re.compile(rb"[ \t\r]*(?:#[^\n]*)?\n")
UNSEEN: Final = [
    "instruction fetches",
    "how wide an access is",
    "page walks",
    "accesses of the kernel on the program's behalf",
    "DMA",
]


def detects(head: bytes) -> bool:
    """Whether *head* looks like pinatrace's text."""
    for line in head.split(b"\n")[:-1]:
        if not _OTHER.fullmatch(line + b"\n"):
            return _ACCESS.fullmatch(line + b"\n") is not None
    return False


def read(stream: ByteStream, intake: Intake) -> None:
    """Read all of *stream* into *intake* as one process.

    :raises InputError: a torn or foreign line, by line and byte.
    """
    intake.update(clock=Clock(meaning=COUNTED), unseen=UNSEEN)
    lines = Lines(stream)
    space, clock = intake.add_space(stream.name), 0
    for block in lines.blocks():
        accesses: list[tuple[int, bool]] = []
        for line in lines.split(block):
            match = _ACCESS.fullmatch(line)
            if match is not None:
                accesses.append((int(match[2], 16), match[1] == b"W"))
            elif not _OTHER.fullmatch(line):
                raise lines.error(line, "'0x7f52ac3fe8f1: R 0x7ffc0d2b9f48'")
        if accesses:
            address = np.array([where for where, _ in accesses], np.uint64)
            kind = np.where([write for _, write in accesses], int(Kind.CPU_WRITE), int(Kind.CPU_READ))
            intake.append(
                np.arange(clock + 1, clock + len(accesses) + 1, dtype=np.uint64),
                space,
                address,
                kind.astype(np.uint8),
            )
            clock += len(accesses)
