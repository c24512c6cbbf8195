"""One machine: its kernel's rules, its set-up, its page frames, and everything that runs on it.

Host --> Frames (struct page, LRU batches)      --> Mm, Mm, ... (processes)      --> Khugepaged (a list of mm slots)
     --> Rules, HostConfig                      --> swap slots                   --> Ksm
"""

from __future__ import annotations

from typing import Any

import numpy as np

from secondsight.errors import UsageError
from secondsight.mm.compiled import compile_rules
from secondsight.mm.config import HostConfig
from secondsight.mm.khugepaged.walk import Khugepaged
from secondsight.mm.lru import lru_add_drain
from secondsight.mm.mm_struct import Mm
from secondsight.mm.mmu_notifier import Context
from secondsight.mm.page import Frames
from secondsight.mm.profiles import profile
from secondsight.mm.rules import Rules


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
        self.swap = np.zeros(1024, np.int32)
        self.mms: dict[str, Mm] = {}
        self.content: dict[int, int] = {}
        self.khugepaged = Khugepaged(self)

    def mm(self, name: str, blocks: int, *, numbers: Any = None) -> Mm:
        """A new process called *name* with one anonymous area of *blocks* aligned 2 MiB blocks; see :class:`Mm`."""
        if name in self.mms:
            raise UsageError(f"there is a space called {name!r} already")
        self.mms[name] = Mm(self, name, blocks, numbers=numbers)
        return self.mms[name]

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

    def swap_slots(self, count: int) -> np.ndarray:
        """*count* free swap slots (int64), taken: each is named by one entry."""
        free = np.flatnonzero(self.swap == 0)
        if len(free) < count:
            grown = np.zeros(2 * (len(self.swap) + count), np.int32)
            grown[: len(self.swap)] = self.swap
            self.swap = grown
            for mm in self.mms.values():
                mm.refresh()
            free = np.flatnonzero(self.swap == 0)
        slots = free[:count]
        self.swap[slots] = 1
        return slots
