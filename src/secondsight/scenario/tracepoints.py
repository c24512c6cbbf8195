"""A visit of khugepaged, as the model makes it, in the words of the kernel's tracepoints (``results``)."""

from __future__ import annotations

from secondsight.bits.pte import ACCESSED, MAPPED, PSE
from secondsight.geometry import HPAGE_PMD_NR, PMD_ORDER
from secondsight.mm.khugepaged.attempt import Attempt
from secondsight.mm.khugepaged.result import ScanResult
from secondsight.mm.khugepaged.walk import Visit
from secondsight.mm.khugepaged.walk_file import FileVisit
from secondsight.mm.page import REFERENCED
from secondsight.scenario.results import (
    AttemptEvent,
    BlockPass,
    CollapseFileEvent,
    FilePass,
    IsolateEvent,
    SwapinEvent,
)

__all__ = ["block_pass", "file_pass"]


def block_pass(visit: Visit, number: int) -> BlockPass:
    """*visit*, in pass *number*, in the tracepoints' words."""
    rules, scan, i = visit.mm.host.rules, visit.scan, visit.row
    tried = [_attempted(visit, attempt) for attempt in visit.attempts]
    first = tried[0] if tried else None
    return BlockPass(
        pass_=number,
        space=visit.mm.name,
        block=visit.block,
        status=_printed(visit),
        referenced=int(scan.referenced[i]),
        none_or_zero=int(scan.none_or_zero[i]),
        unmapped=int(scan.unmapped[i]),
        writable=int(scan.writable[i]) if rules.trace_writable else None,
        swapin=first.swapin if first else None,
        isolate=first.isolate if first else None,
        collapse=first.status if first else None,
        young=_young(visit),
        test_young_calls=int(scan.asked[i]) + sum(int(each.asked[0]) for each in visit.isolates),
        order=first.order if first else PMD_ORDER,
        further=tuple(tried[1:]),
    )


def _attempted(visit: Visit, attempt: Attempt) -> AttemptEvent:
    """One candidate as the tracepoints tell it: swap-in is told wherever the scan met swapped pages, isolate where it was reached."""
    rules = visit.mm.host.rules
    swapin = isolate = None
    if attempt.swapped_in is not None:
        referenced = int(visit.scan.referenced[visit.row])
        # Only what swap-in itself ends an attempt with: isolate has not begun.
        ended = attempt.isolate is None and attempt.status in (
            ScanResult.EXCEED_SWAP_PTE,
            ScanResult.FAIL,
        )
        swapin = SwapinEvent(swapped_in=attempt.swapped_in, referenced=referenced, ret=int(not ended))
    if attempt.isolate is not None:
        isolate = IsolateEvent(
            status=str(attempt.status),
            referenced=int(attempt.isolate.referenced[0]),
            none_or_zero=int(attempt.isolate.none_or_zero[0]),
            writable=int(attempt.isolate.writable[0]) if rules.trace_writable else None,
        )
    status = attempt.status
    if isolate is not None and status != ScanResult.SUCCEED and not rules.collapse_says_why:
        status = ScanResult.FAIL
    return AttemptEvent(str(status), attempt.order, swapin, isolate)


def _printed(visit: Visit) -> str:
    """The scan's answer as the tracepoint prints it: earlier kernels tell no collapse's, and mm_find_pmd finds no table under a huge
    PMD either."""
    rules = visit.mm.host.rules
    if visit.attempts and not rules.collapse_says_why:
        return str(ScanResult.SUCCEED)
    if rules.no_table_code == "pmd_null" and visit.status in (ScanResult.PMD_MAPPED, ScanResult.PMD_NONE):
        return str(ScanResult.PMD_NULL)
    return str(visit.status)


def _young(visit: Visit) -> tuple[int, int, int]:
    """Pages young by PRIMARY, REFERENCED, SECONDARY when the block was scanned."""
    seen, i = visit.seen, visit.row
    assert seen is not None
    if seen.pmd[i] & PSE:
        return (0, 0, 0)
    pte = seen.pte[i]
    mapped = ((pte & MAPPED) != 0) & (seen.folio[i] >= 0)
    return (
        int((mapped & ((pte & ACCESSED) != 0)).sum()),
        int((mapped & ((seen.flags[i] & REFERENCED) != 0)).sum()),
        int(seen[i].merged().sum()),
    )


def file_pass(visit: FileVisit, number: int) -> FilePass:
    """*visit*, in pass *number*, in the tracepoints' words."""
    memory, rules = visit.mm.memory, visit.mm.host.rules
    assert memory is not None
    scan = visit.scan
    collapse = None
    if scan.collapse is not None and rules.trace_collapse_file:
        collapse = CollapseFileEvent(
            result=str(scan.collapse.result),
            index=scan.collapse.ended_at,
            nr=HPAGE_PMD_NR,
            is_shmem=int(memory.is_shmem),
        )
    return FilePass(
        pass_=number, space=visit.mm.name, block=visit.block, file=memory.file, result=str(scan.result),
        present=scan.present, swap=scan.swap, names_page=scan.names_page, collapse=collapse,
    )  # fmt: skip
