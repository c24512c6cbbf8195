"""One machine: its kernel's rules, its set-up, its page frames, and everything that runs on it.

Host --> Frames (struct page, LRU batches)      --> Mm, Mm, ... (processes)      --> Daemon (khugepaged: a list of mm slots)
     --> Rules, HostConfig                      --> swap slots                   --> Ksm
"""

from __future__ import annotations

from typing import Any

import numpy as np

from secondsight.errors import UsageError
from secondsight.mm.compiled import compile_rules
from secondsight.mm.config import HostConfig
from secondsight.mm.khugepaged.walk import Daemon
from secondsight.mm.lru import lru_add_drain
from secondsight.mm.mm_struct import Mm
from secondsight.mm.mmu_notifier import Context
from secondsight.mm.page import Frames
from secondsight.mm.profiles import profile
from secondsight.mm.rules import Rules
from secondsight.mm.shmem import SharedMemory
from secondsight.mm.swap import CACHED, COUNT


class Host:
    """A machine under *rules* (a profile's name or a value) with *config*.

    >>> host = Host("6.1")
    >>> vm = host.mm("vm", blocks=4)
    """

    def __init__(self, rules: Rules | str = "7.2", config: HostConfig | None = None) -> None:
        """:raises UsageError: an unknown profile."""
        self.rules = profile(rules) if isinstance(rules, str) else rules
        self.config = config or HostConfig()
        self.r = compile_rules(self.rules, self.config)
        self.context = Context()
        self.frames = Frames()
        #: The swap slots, as ``MmArrays.swap`` has them.
        self.slots = np.zeros((3, 1024), np.int32)
        self.mms: dict[str, Mm] = {}
        self.content: dict[int, int] = {}
        self.memories: dict[str, SharedMemory] = {}
        self.khugepaged = Daemon(self)

    def mm(self, name: str, blocks: int, *, numbers: Any = None, droppable: bool = False) -> Mm:
        """A new process called *name* with one anonymous area of *blocks* aligned 2 MiB blocks; see :class:`Mm`.

        :raises UsageError: there is a space of that name.
        """
        if name in self.mms:
            raise UsageError(f"there is a space called {name!r} already")
        self.mms[name] = Mm(self, name, blocks, numbers=numbers, droppable=droppable)
        return self.mms[name]

    def shared_memory(self, name: str, blocks: int) -> SharedMemory:
        """A memfd called *name* of *blocks* blocks, held open; without a name MAP_SHARED | MAP_ANONYMOUS, each time another.

        :raises UsageError: there is a memfd of that name.
        """
        memory = SharedMemory(name, blocks)
        if name:
            if name in self.memories:
                raise UsageError(f"there is shared memory called {name!r} already")
            self.memories[name] = memory
        return memory

    def regular_file(self, name: str, blocks: int) -> SharedMemory:
        """A regular file called *name* of *blocks* blocks, at most two, on a file system whose folios may be huge (ext4).

        :raises UsageError: there is memory of that name; the kernel collapses no regular files; or it is longer than that.
        """
        if not self.rules.file_collapse:
            raise UsageError(
                f"{self.rules.name}: regular files are modelled from 7.2 on; khugepaged collapses none up to 7.1 unless the kernel was "
                "built with CONFIG_READ_ONLY_THP_FOR_FS, which Debian's are not"
            )
        if blocks > 2:
            raise UsageError(
                f"file {name!r} has {blocks} blocks: readahead is modelled in files of at most two"
            )
        if name in self.memories:
            raise UsageError(f"there is shared memory called {name!r} already")
        self.memories[name] = SharedMemory(name, blocks, is_shmem=False)
        return self.memories[name]

    def shared_mm(
        self, name: str, blocks: int, memory: SharedMemory, block: int = 0, *, writable: bool = True
    ) -> Mm:
        """A new process called *name* that maps *blocks* blocks of *memory* from *block* on: MAP_SHARED, and if not *writable* (a file's)
        without PROT_WRITE, be it MAP_PRIVATE or MAP_SHARED."""
        mm = self.mm(name, blocks)
        mm.share(memory, block, writable=writable)
        # mmap_region: khugepaged_enter_vma.
        self.khugepaged.enter_vma(mm, mm.vmas.areas[0])
        return mm

    def drain(self) -> None:
        """lru_add_drain_all: every per-CPU LRU batch is emptied."""
        self.frames.reserve(0, frees=1024)
        lru_add_drain(self.frames.arrays, self.r)

    def configure(self, config: HostConfig) -> None:
        """The administrator changes sysfs: knobs, ``enabled``. What is mapped stays as it is."""
        self.config = config
        self.r = compile_rules(self.rules, config)
        for mm in self.mms.values():
            mm.refresh()

    @property
    def swap(self) -> np.ndarray:
        """How many entries name each swap slot, int32[slots]."""
        return self.slots[COUNT]

    def swap_slots(self, count: int, wanted: np.ndarray | None = None) -> np.ndarray:
        """*count* swap slots (int64) in a row, aligned to *count* if that is a power of two and taken: each is named by one entry.

        *wanted*: those that a kernel was seen to take.
        """
        if wanted is not None:
            slots = wanted
        else:
            step = count if count & (count - 1) == 0 else 1
            used = (self.slots[COUNT] != 0) | (self.slots[CACHED] != 0)
            taken = np.flatnonzero(used)
            first = next(
                (at for at in range(0, len(used) - count + 1, step) if not used[at : at + count].any()),
                -(-(int(taken[-1]) + 1 if len(taken) else 0) // step) * step,
            )
            slots = np.arange(first, first + count, dtype=np.int64)
        if len(slots) and int(slots.max()) >= self.slots.shape[1]:
            grown = np.zeros((3, 2 * (int(slots.max()) + 1)), np.int32)
            grown[:, : self.slots.shape[1]] = self.slots
            self.slots = grown
            for mm in self.mms.values():
                mm.refresh()
        self.slots[COUNT, slots] += 1
        return slots
