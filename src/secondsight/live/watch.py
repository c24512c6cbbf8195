"""khugepaged's decisions as they happen: tracepoints joined to one decision a block, with the address where it can be known.

Events of one decision, in the order they come from one task::

    mm_collapse_huge_page_swapin?   pages read back in
    mm_collapse_huge_page_isolate?  isolate: its count of referenced pages and its answer
    mm_collapse_huge_page?          the end of an attempt; since 7.2 with its order, and others may follow
    mm_khugepaged_scan_pmd          scan's numbers and the final answer: closes the decision

The tracepoint knows the frame of the last page looked at, not the address. A frame is an address only if that page's place was read
*before* (a collapse frees the frame), and it is believed only if the page table still agrees after: the frame is still there, or the
block has become huge. Everything else is unknown.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
from collections.abc import Iterable
from typing import Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from secondsight.bits import pagemap as pm
from secondsight.geometry import HPAGE_PMD_NR, PMD_ORDER, PMD_SIZE, kb_of_order
from secondsight.live.judge import reasons
from secondsight.live.read.places import Places
from secondsight.live.read.tracefs import Event

U64 = npt.NDArray[np.uint64]
_BLOCK_MASK = ~(PMD_SIZE - 1)
_PFN = int(pm.PFN_MASK)
_RUN = np.arange(HPAGE_PMD_NR, dtype=np.uint64)


class TracedAttempt(msgspec.Struct, frozen=True):
    """A collapse that was tried: of which *order* (9 where the kernel does not say it, before 7.2), and how it ended."""

    order: int
    status: str


class TracedDecision(msgspec.Struct, omit_defaults=False):
    """One block looked at. ``mm`` counts address spaces in the order they were met; None fields are unknown or not printed here."""

    time: int
    task: str
    mm: int
    pid: int | None
    address: int | None
    status: str
    reason: str
    referenced: int
    none_or_zero: int
    unmapped: int
    writable: bool | None = None
    isolate_status: str | None = None
    isolate_referenced: int | None = None
    wasted: bool = False
    #: of a block that the scan of the page cache looked at: the file, and the pages it found there
    file: str | None = None
    present: int | None = None
    #: the collapses that were tried, in the kernel's order
    attempts: tuple[TracedAttempt, ...] = ()

    @property
    def attempted(self) -> str:
        """``2048kB lack_referenced_page, 64kB succeeded``; alike ones in a row are counted."""
        runs = [
            (order, status, len(list(alike)))
            for (order, status), alike in itertools.groupby(
                self.attempts, lambda each: (each.order, each.status)
            )
        ]
        return ", ".join(
            f"{kb_of_order(order)}kB {status}" + (f" x{count}" if count > 1 else "")
            for order, status, count in runs
        )


#: columns of a recording, in order, with their kinds (times are ns of CLOCK_MONOTONIC)
SCHEMA = {
    "time": "int", "task": "str", "mm": "int", "pid": "int", "address": "uint", "status": "str", "reason": "str",
    "referenced": "int", "none_or_zero": "int", "unmapped": "int", "writable": "bool", "isolate_status": "str",
    "isolate_referenced": "int", "wasted": "bool", "file": "str", "present": "int",
    "attempted": "str",
}  # fmt: skip


class Joiner:
    """Joins events to decisions; events of different tasks may interleave."""

    def __init__(self) -> None:
        self._open: dict[int, dict[str, Event]] = {}
        self._attempts: dict[int, list[TracedAttempt]] = {}
        self._mms: dict[str, int] = {}
        #: page-cache scans and collapses, by status: no young test, so no decision of ours
        self.files: collections.Counter[str] = collections.Counter()

    def _number(self, mm: str) -> int:
        return self._mms.setdefault(mm, len(self._mms) + 1)

    def pointer(self, number: int) -> int:
        """The address that the tracepoints print of the address space *number*; 0 where it is none."""
        try:
            return int(next(text for text, each in self._mms.items() if each == number), 16)
        except (StopIteration, ValueError):
            return 0

    def add(self, event: Event) -> tuple[TracedDecision, int | None] | None:
        """Take *event*; the decision that it closes, with the traced frame (None if there was no page)."""
        if event.name == "mm_khugepaged_scan_file":
            return self._close_file(
                event, self._open.get(event.pid, {}).pop("mm_khugepaged_collapse_file", None)
            ), None
        if event.name != "mm_khugepaged_scan_pmd":
            before = self._open.setdefault(event.pid, {})
            attempts = self._attempts.setdefault(event.pid, [])
            if event.name == "mm_collapse_huge_page":
                order = _number(event.fields, "order") or PMD_ORDER
                attempts.append(TracedAttempt(order, event.fields.get("status", "failed")))
            if event.name != "mm_collapse_huge_page_isolate" or not attempts:
                # Of several attempts the first one's isolate: it is of the whole block.
                before[event.name] = event
            return None
        decision, frame = self._close(event, self._open.pop(event.pid, {}))
        decision.attempts = tuple(self._attempts.pop(event.pid, ()))
        return decision, frame

    def _close_file(self, scan: Event, collapse: Event | None) -> TracedDecision:
        """The decision about a block of the page cache; only an attempt to collapse it tells its address."""
        fields = scan.fields
        status = fields.get("result", fields.get("status", "failed"))
        self.files[status] += 1
        address = None
        if collapse is not None:
            with contextlib.suppress(ValueError):
                address = int(collapse.fields.get("addr", ""), 16) or None
        return TracedDecision(
            time=scan.time,
            task=scan.task,
            mm=self._number(fields.get("mm", "?")),
            pid=None,
            address=address,
            status=status,
            reason=reasons.words(status),
            referenced=0,
            none_or_zero=0,
            unmapped=_number(fields, "swap"),
            file=fields.get("filename", "?"),
            present=_number(fields, "present"),
            attempts=() if collapse is None else (TracedAttempt(PMD_ORDER, status),),
        )

    def _close(self, scan: Event, before: dict[str, Event]) -> tuple[TracedDecision, int | None]:
        fields = scan.fields
        status = fields.get("status", "failed")
        referenced = _number(fields, "referenced")
        decision = TracedDecision(
            time=scan.time,
            task=scan.task,
            mm=self._number(fields.get("mm", "?")),
            pid=None,
            address=None,
            status=status,
            reason=reasons.words(status),
            referenced=referenced,
            none_or_zero=_number(fields, "none_or_zero"),
            unmapped=_number(fields, "unmapped"),
            writable=fields["writable"] == "1" if "writable" in fields else None,
        )
        isolate = before.get("mm_collapse_huge_page_isolate")
        if isolate is not None:
            decision.isolate_status = isolate.fields.get("status")
            decision.isolate_referenced = _number(isolate.fields, "referenced")
            # An attempt was made, so the scan had passed; referenced counts what it saw.
            if status == "lack_referenced_page" and referenced > 0:
                decision.wasted, decision.reason = True, reasons.REFUSAL
            elif status == "not_suitable_page_count" and decision.isolate_status == status:
                decision.wasted, decision.reason = (
                    True,
                    f"{reasons.LOST_REFERENCE}; or {reasons.words(status)}",
                )
        # 7.3 forgets the scan's page once it has tried to collapse; isolate names one of the same block.
        return decision, _frame(fields) or (_frame(isolate.fields) if isolate is not None else None)


def _number(fields: dict[str, str], name: str) -> int:
    try:
        return int(fields.get(name, "0"))
    except ValueError:
        return 0


def _frame(fields: dict[str, str]) -> int | None:
    """The frame that an event names; None: -1, no page was looked at (kernels before 6.x print it as the frame of a NULL page)."""
    try:
        number = int(fields.get("scan_pfn", "-1"), 16)
    except ValueError:
        return None
    return number if 0 < number < 1 << 52 else None


class OwnersLike(Protocol):
    """Whose an address space is (``read/address_spaces.py``)."""

    def owner(self, mm: int) -> int | None:
        """The PID of the process whose ``struct mm_struct`` is at *mm*."""
        ...


class Watcher:
    """Decisions with addresses, and their rates."""

    def __init__(
        self, places: Places | None, only: int | None = None, spaces: OwnersLike | None = None
    ) -> None:
        """*places*: where to look frames up; *only*: the PID to keep (others are counted, not kept); *spaces*: whose an address space is,
        where kernel memory tells."""
        self._places = places
        self._spaces = spaces
        self._only = only
        self._joiner = Joiner()
        self._owner_of_mm: dict[int, int] = {}
        self.total = 0
        self.by_status: collections.Counter[str] = collections.Counter()
        self.wasted = 0
        self.located = 0
        #: of other processes
        self.elsewhere = 0
        self._unnamed: collections.Counter[int] = collections.Counter()
        #: attempts, and those of them that made nothing, by order
        self.begun: collections.Counter[int] = collections.Counter()
        self.refused: collections.Counter[int] = collections.Counter()

    @property
    def unnamed(self) -> int:
        """Decisions that may be of the process asked for: no page, and no other decision, tells whose the address space is."""
        return sum(
            count
            for mm, count in self._unnamed.items()
            if self._owner_of_mm.get(mm, self._only) == self._only
        )

    @property
    def files(self) -> collections.Counter[str]:
        """Page-cache scans and collapses, by status."""
        return self._joiner.files

    def take(self, events: Iterable[Event]) -> list[TracedDecision]:
        """The decisions that *events* close, of the process asked for."""
        kept = []
        for event in events:
            closed = self._joiner.add(event)
            if closed is None:
                continue
            decision, frame = closed
            self._locate(decision, frame)
            if self._only is not None and decision.pid != self._only:
                if decision.pid is None:
                    self._unnamed[decision.mm] += 1
                else:
                    self.elsewhere += 1
                continue
            self.total += 1
            self.by_status[decision.status] += 1
            self.wasted += decision.wasted
            for each in decision.attempts:
                self.begun[each.order] += 1
                self.refused[each.order] += each.status != "succeeded"
            kept.append(decision)
        return kept

    def _locate(self, decision: TracedDecision, frame: int | None) -> None:
        if self._spaces is not None and decision.mm not in self._owner_of_mm:
            owner = self._spaces.owner(self._joiner.pointer(decision.mm))
            if owner is not None:
                self._owner_of_mm[decision.mm] = owner
        if self._places is None or decision.file is not None:
            decision.pid = self._owner_of_mm.get(decision.mm)
        if self._places is None:
            return
        if decision.file is not None:
            self.located += decision.address is not None
            return
        if frame is not None:
            place = self._places.find(frame, decision.status == "succeeded")
            if place is not None:
                decision.pid, decision.address = place
                self.located += 1
                # From now on this address space is known by name, also where a frame is not.
                self._owner_of_mm[decision.mm] = decision.pid
        if decision.pid is None:
            decision.pid = self._owner_of_mm.get(decision.mm)
