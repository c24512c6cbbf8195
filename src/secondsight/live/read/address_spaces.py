"""Whose an address space is, by the kernel's own pointer to it: what khugepaged's tracepoints print of a process.

Tracefs hashes pointers (``%p``) unless an instance's option ``hash-ptr`` is off (5.11); then the pointer is that of the
``struct mm_struct``, and kernel memory says which tasks have it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import drgn
from drgn.helpers.linux.pid import for_each_task

from secondsight.live.read.kmem import KernelMemory

Owners = dict[int, tuple[int, str]]
#: seconds between two readings of the list of tasks, for an address space that is not known
_PAUSE = 2.0


def read_owners(kernel: KernelMemory) -> Owners:
    """(pid, name) of the process of each address space, by the address of its ``struct mm_struct``; of several that share one the first."""
    owners: Owners = {}
    for task in for_each_task(kernel.program):
        try:
            mm = int(task.mm.value_())
            if mm and mm not in owners:
                leader = task.group_leader
                owners[mm] = (int(leader.pid.value_()), leader.comm.string_().decode("utf-8", "replace"))
        except drgn.FaultError:
            continue  # it went meanwhile
    return owners


class AddressSpaces:
    """Owners of address spaces, read again when one is asked for that is not known, and not too often."""

    def __init__(self, read: Callable[[], Owners], clock: Callable[[], float] = time.monotonic) -> None:
        """*read*: the owners now; an address space that goes and whose memory becomes another's is named anew at the next reading."""
        self._read, self._clock = read, clock
        self._owners: Owners = {}
        self._due = 0.0
        #: names of the processes, by PID
        self.names: dict[int, str] = {}

    def owner(self, mm: int) -> int | None:
        """The PID of the process whose address space is at *mm*; None where no process has it (any more)."""
        if mm not in self._owners and self._clock() >= self._due:
            self._owners = self._read()
            self._due = self._clock() + _PAUSE
            self.names.update(self._owners.values())
        owner = self._owners.get(mm)
        return None if owner is None else owner[0]
