"""What an address space and its machine are to the code below them: ``Mm`` and ``Host`` are these, and need not be imported.

MmLike      struct mm_struct, as splits, views and khugepaged read and change it
HostLike  the machine behind it: frames, rules, sysfs, the other spaces
SharedMemoryLike  what a shared mapping maps
Slots      khugepaged's list, as faults and advice put an mm on it
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from secondsight.mm.compiled import R
from secondsight.mm.config import HostConfig
from secondsight.mm.mmu_notifier import MmuNotifiers
from secondsight.mm.page import Frames
from secondsight.mm.pgtable import MmArrays
from secondsight.mm.rules import Rules
from secondsight.mm.vma import VmaList, VmArea


class Slots(Protocol):
    """khugepaged's list of processes."""

    slots: list[MmLike]
    pte_mapped: dict[str, list[int]]

    def enter_vma(self, mm: MmLike, vma: VmArea) -> None:
        """Register *mm* if *vma* may be huge."""

    def enter_by_fault(self, mm: MmLike, vma: VmArea) -> None:
        """Register *mm* after a fault gave *vma* its first anonymous page."""

    def empty_blocks(self, mm: MmLike, pages: npt.NDArray[np.int64]) -> list[int]:
        """Where faults at *pages* might yet register *mm*."""

    def enter_by_huge_faults(self, mm: MmLike, empty: list[int]) -> None:
        """Register *mm* if faults put a huge page where :meth:`empty_blocks` found nothing."""

    def exit(self, mm: MmLike) -> None:
        """*mm* is going."""

    def madvise_collapse(self, mm: MmLike, vma: VmArea, start: int, end: int) -> str | None:
        """MADV_COLLAPSE of pages *start* to *end*: None, or the errno's name."""


class HostLike(Protocol):
    """The machine that a space is on."""

    config: HostConfig
    rules: Rules
    r: R
    frames: Frames
    slots: npt.NDArray[np.int32]
    content: dict[int, int]
    context: Any

    @property
    def mms(self) -> Mapping[str, MmLike]:
        """Every space, by name."""

    @property
    def khugepaged(self) -> Slots:
        """The daemon."""

    def drain(self) -> None:
        """lru_add_drain_all."""

    def swap_slots(self, count: int, wanted: npt.NDArray[np.int64] | None = None) -> npt.NDArray[np.int64]:
        """*count* free swap slots in a row, or those *wanted*, taken."""


class SharedMemoryLike(Protocol):
    """What shared mappings map (``shmem``)."""

    name: str
    cache: npt.NDArray[np.int64]
    is_shmem: bool

    @property
    def file(self) -> str:
        """What the kernel calls the file."""

    def map(self, mm: MmLike, block: int) -> npt.NDArray[np.int64]:
        """*mm* maps it from *block* on; the part of the cache that it sees."""

    def unmap(self, mm: MmLike) -> None:
        """*mm* is gone."""

    @property
    def open_for_write(self) -> bool:
        """inode_is_open_for_write."""

    def mapped_at(self, index: int) -> list[tuple[MmLike, int]]:
        """Who has the page at *index* in an area, and as which page."""


class MmLike(Protocol):
    """One process's address space."""

    name: str
    blocks: int
    npages: int
    numbers: npt.NDArray[np.int64]
    vmas: VmaList
    arrays: MmArrays
    notifiers: MmuNotifiers
    fault_huge: npt.NDArray[np.bool_] | None
    memory: SharedMemoryLike | None
    memory_block: int
    exited: bool
    has_forked: bool

    @property
    def ancestors(self) -> Sequence[MmLike]:
        """Those that it was forked from, the eldest first."""

    @property
    def host(self) -> HostLike:
        """Its machine."""

    def pfn(self, page: int) -> int:
        """The frame *page* is mapped to, or -1."""

    def folio(self, page: int) -> int:
        """The first frame of the folio *page* is mapped to, or -1."""
