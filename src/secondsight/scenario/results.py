"""What a run answers, in the words of the kernel's own tracepoints.

The model and the lab return the same records, so comparing them is comparing values. ``BlockPass`` is one visit of khugepaged to one
block: the scan event (which fires last and carries the final status), and, where the scan itself passed, what isolate and
the collapse said (include/trace/events/huge_memory.h).
"""

from __future__ import annotations

from typing import Literal

import msgspec

from secondsight.geometry import PMD_ORDER

SCHEMA = 1


class IsolateEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """``mm_collapse_huge_page_isolate``; *writable* only before 6.18's trace format change."""

    status: str
    referenced: int
    none_or_zero: int
    writable: int | None = None


class SwapinEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """``mm_collapse_huge_page_swapin``: pages swapped in, the scan's referenced count, success (0/1)."""

    swapped_in: int
    referenced: int
    ret: int


class AttemptEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """One candidate of a visit: what ``mm_collapse_huge_page`` said in the end (*status*), and the events before it.

    *order*: 9 where the kernel's tracepoints do not say it (before 7.2).
    """

    status: str
    order: int = PMD_ORDER
    swapin: SwapinEvent | None = None
    isolate: IsolateEvent | None = None


class BlockPass(msgspec.Struct, frozen=True, omit_defaults=True):
    """One visit to one block, in pass number *pass_* of the run (from 1). *status* is the final one, as
    ``mm_khugepaged_scan_pmd`` prints it. *swapin*, *isolate* and *collapse* (what ``mm_collapse_huge_page`` said; None: nothing was
    tried) are the first candidate's, whose order is *order*; *further* are the candidates after it, as the kernel tried them.
    *young* counts pages by channel just before the visit (model: always; lab: where kernel memory was read): PRIMARY,
    REFERENCED, SECONDARY."""

    pass_: int = msgspec.field(name="pass")
    space: str
    block: int
    status: str
    referenced: int
    none_or_zero: int
    unmapped: int
    writable: int | None = None
    swapin: SwapinEvent | None = None
    isolate: IsolateEvent | None = None
    collapse: str | None = None
    young: tuple[int, int, int] | None = None
    test_young_calls: int | None = None
    order: int = PMD_ORDER
    further: tuple[AttemptEvent, ...] = ()

    @property
    def attempts(self) -> tuple[AttemptEvent, ...]:
        """Every candidate that was tried, in order."""
        if self.collapse is None:
            return ()
        return (AttemptEvent(self.collapse, self.order, self.swapin, self.isolate), *self.further)


class CollapseFileEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """``mm_khugepaged_collapse_file`` (6.4): how it ended, at which page of the file, how many pages the new one has, and whether it is
    shmem. Its mm, addr and filename are the visit's; hpage_pfn is a number that no two runs share."""

    result: str
    index: int
    nr: int
    is_shmem: int


class FilePass(msgspec.Struct, frozen=True, omit_defaults=True):
    """One visit to one block of shared memory, in pass number *pass_*, as ``mm_khugepaged_scan_file`` tells it: *result* is the final one.

    *file*: the filename; *names_page*: scan_pfn is a page's, and not -1; *collapse*: the collapse that was tried, where the kernel tells
    of it."""

    pass_: int = msgspec.field(name="pass")
    space: str
    block: int
    file: str
    result: str
    present: int
    swap: int
    names_page: bool = False
    collapse: CollapseFileEvent | None = None


class PageState(msgspec.Struct, frozen=True, omit_defaults=True):
    """The state of one space at an ``observe`` (and around each scan): one entry per page, run-length text.

    Each field is a list of ``[count, value]`` runs over the space's pages: *pte* the primary entry's software-visible bits,
    *flags* the KPF bits of ``bits.pageflags.COMPARED``, *mapcount*, and *spte* by notifier (``kvm``) the secondary entries' bits;
    ``states.py`` says how they are written. *at* tells an ``observe`` from the moments just before and after pass *pass_*.
    """

    step: int
    space: str
    pte: list[tuple[int, str]]
    flags: list[tuple[int, int]]
    mapcount: list[tuple[int, int]]
    spte: dict[str, list[tuple[int, str]]] = {}
    at: Literal["observe", "before", "after"] = "observe"
    pass_: int = msgspec.field(name="pass", default=0)


class StepAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one step returned beside its effect: the errno of a system call that failed (of MADV_COLLAPSE always: ``"0"`` is
    success; ``EFAULT``: the mapping denied some of the accesses, the others were made), or what the kernel chose (*took*; *slots*: the swap
    slots that these pages got, in their order, as runs of (first, how many); a first of -1: none)."""

    step: int
    errno: str | None = None
    took: str | dict[str, str] | None = None
    slots: tuple[tuple[int, int], ...] = ()


class Run(msgspec.Struct, frozen=True, omit_defaults=True):
    """Everything one run of a scenario answered, with its provenance."""

    source: str
    blocks: list[BlockPass]
    answers: list[StepAnswer] = []
    states: list[PageState] = []
    provenance: dict[str, str] = {}
    schema: int = SCHEMA
    files: list[FilePass] = []
