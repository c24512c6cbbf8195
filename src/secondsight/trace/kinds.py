"""What a row of a trace says happened: the kind byte, and the columns it stands in.

::

      7   6 5 4 3 2   1 0
    +---+-----------+-----+      v = 0: an access, by one of four origins
    | v |  origin   | acc |          origin  0 CPU  1 GUEST  2 DEVICE  3 PIN
    +---+-----------+-----+          acc     0 READ  1 WRITE  2 FETCH
    | 1 |     verb        |      v = 1: one of the rarer verbs, from 0x80 up
    +---+-----------------+

Anything else is an unknown kind, and a reader refuses it: a later version of the format would say so in
its version number.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from secondsight.native import allocating

# The columns of a trace, in order. All are required: no row has a missing value.
COLUMNS: Final[dict[str, type[np.unsignedinteger]]] = {
    "time": np.uint64,  # ns on the clock that the provenance names; never decreases down the file
    "space": np.uint16,  # which process or VM: an index into the provenance's spaces
    "address": np.uint64,  # bytes; virtual for a process, guest-physical for a VM
    "kind": np.uint8,  # a Kind or a Verb
    "count": np.uint32,  # accesses: how many this row stands for; verbs: their argument
}

# Where user memory ends with five-level page tables, and where guest-physical addresses end (MAXPHYADDR
# is at most 52: Intel SDM vol. 3, 4.1.4).
PROCESS_ADDRESS_BITS: Final = 56
VM_ADDRESS_BITS: Final = 52


class Origin(IntEnum):
    """Who made an access; bits 6..2 of an access's kind."""

    CPU = 0
    GUEST = 1
    DEVICE = 2
    PIN = 3


class Access(IntEnum):
    """What was done; bits 1..0 of an access's kind."""

    READ = 0
    WRITE = 1
    FETCH = 2


class Kind(IntEnum):
    """The kinds of access: an origin and what it did."""

    CPU_READ = 0x00
    CPU_WRITE = 0x01
    CPU_FETCH = 0x02
    GUEST_READ = 0x04
    GUEST_WRITE = 0x05
    GUEST_FETCH = 0x06
    DEVICE_READ = 0x08
    DEVICE_WRITE = 0x09
    DEVICE_FETCH = 0x0A
    PIN_READ = 0x0C
    PIN_WRITE = 0x0D
    PIN_FETCH = 0x0E

    @property
    def origin(self) -> Origin:
        """Who made the access."""
        return Origin(self >> 2)

    @property
    def access(self) -> Access:
        """What the access did."""
        return Access(self & 3)


class Verb(IntEnum):
    """The rarer events. ``address`` is the first byte of the range, ``count`` its length in 4 KiB pages, unless said."""

    MMAP = 0x80  # anonymous private memory appears
    MUNMAP = 0x81
    MADV_HUGEPAGE = 0x82
    MADV_NOHUGEPAGE = 0x83
    MADV_DONTNEED = 0x84
    UNPIN = 0x85  # ends the pins that PIN_* accesses took
    CLEAR_REFS = 0x86  # of the whole space; address and count are 0
    SWAP_OUT = 0x87
    FORK = 0x88  # count is the child's space; address is 0
    EXIT = 0x89  # of the whole space; address and count are 0


FIRST_VERB: Final = 0x80
_NAMES: Final[dict[int, str]] = {int(k): k.name.lower() for k in (*Kind, *Verb)}
_KNOWN: Final[NDArray[np.bool_]] = np.isin(np.arange(256), list(_NAMES))


def kind_name(kind: int) -> str:
    """The lower-case name of a kind or verb (``guest_write``), or ``kind 0x..`` for an unknown one."""
    return _NAMES.get(kind, f"kind 0x{kind:02x}")


def is_known(kind: int) -> bool:
    """Whether *kind* is a :class:`Kind` or a :class:`Verb` of this version."""
    return bool(_KNOWN[kind])


@allocating
def first_unknown(kind: NDArray[np.uint8]) -> int:
    """Index of the first kind of *kind* (uint8) that this version does not know, or -1."""
    # The common case in one branch-free pass, eight at a time: only accesses, none with acc == 3.
    whole = kind.size // 8 * 8
    suspicious = np.uint64(0)
    for k in kind[:whole].view(np.uint64):
        suspicious |= (k & np.uint64(0xF0F0F0F0F0F0F0F0)) | (
            k & (k >> np.uint64(1)) & np.uint64(0x0101010101010101)
        )
    for k in kind[whole:]:
        suspicious |= np.uint64(k & np.uint8(0xF0)) | np.uint64(k & (k >> np.uint8(1)) & np.uint8(1))
    if suspicious == 0:
        return -1
    for i in range(kind.size):
        if not _KNOWN[kind[i]]:
            return i
    return -1


@allocating
def first_decrease(time: NDArray[np.uint64]) -> int:
    """Index of the first of *time* (uint64 ns) that is smaller than the one before it, or -1."""
    backwards = False
    for i in range(1, time.size):
        backwards |= time[i] < time[i - 1]
    if not backwards:
        return -1
    for i in range(1, time.size):
        if time[i] < time[i - 1]:
            return i
    return -1
