"""What a comparison has asked of a kernel: how often each result of each tracepoint was seen, by order.

::

    mm_khugepaged_scan_pmd           how the whole visit ended        no order
    mm_collapse_huge_page_swapin     succeeded, or what ended it      the candidate's order
    mm_collapse_huge_page_isolate    how isolate ended                the candidate's order
    mm_collapse_huge_page            how the attempt ended            the candidate's order
    mm_khugepaged_scan_file          how a visit to shared memory ended    no order
    mm_khugepaged_collapse_file      how its collapse ended (since 6.4)    no order

A result that was never seen was never compared. ``reachable`` says which of them a scenario can make under a kernel's profile, and
``NOT_MADE`` why the others cannot be made by one CPU with memory to spare.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from secondsight.geometry import PMD_ORDER
from secondsight.mm.config import HostConfig
from secondsight.mm.khugepaged.result import ScanResult
from secondsight.mm.rules import Rules
from secondsight.scenario.results import Run

__all__ = [
    "FEW",
    "NOT_MADE",
    "Seen",
    "listed",
    "orders_asked",
    "rare",
    "reachable",
    "reachable_files",
    "seen",
]

SCAN, SWAPIN, ISOLATE, COLLAPSE = (
    "mm_khugepaged_scan_pmd",
    "mm_collapse_huge_page_swapin",
    "mm_collapse_huge_page_isolate",
    "mm_collapse_huge_page",
)
SCAN_FILE, COLLAPSE_FILE = "mm_khugepaged_scan_file", "mm_khugepaged_collapse_file"
_ORDER = (SCAN, SWAPIN, ISOLATE, COLLAPSE, SCAN_FILE, COLLAPSE_FILE)
#: What can be reached and was seen less often than this is told.
FEW = 20
#: The order of what has none.
WHOLE_BLOCK = -1

#: Results that no scenario makes, and why.
NOT_MADE: dict[str, str] = {
    str(ScanResult.SCAN_ABORT): "one NUMA node",
    str(ScanResult.ALLOC_HUGE_PAGE_FAIL): "memory to spare",
    str(ScanResult.CGROUP_CHARGE_FAIL): "no limit",
    str(ScanResult.COPY_MC): "no machine checks",
    str(ScanResult.PAGE_ANON): "anonymous areas alone",
    str(ScanResult.PAGE_NULL): "special pages alone",
    str(ScanResult.VMA_CHECK): "one CPU: areas change between passes alone",
    str(ScanResult.ANY_PROCESS): "one CPU: nobody exits during a pass",
    f"{ScanResult.PAGE_LOCK} below order {PMD_ORDER}": "a page that the range maps twice is shared, which ends it first",
}


class Seen(msgspec.Struct, frozen=True, order=True):
    """*function* (a tracepoint) answered *result* about a candidate of *order* (-1: a whole block), *count* times."""

    function: str
    order: int
    result: str
    count: int = 0


Key = tuple[str, int, str]


def seen(runs: Iterable[Run]) -> Counter[Key]:
    """How often each (function, order, result) is in the answers *runs*."""
    out: Counter[Key] = Counter()
    for run in runs:
        for visit in run.blocks:
            out[SCAN, WHOLE_BLOCK, visit.status] += 1
            for attempt in visit.attempts:
                out[COLLAPSE, attempt.order, attempt.status] += 1
                if attempt.swapin is not None:
                    # The event says whether, the attempt's end what.
                    out[SWAPIN, attempt.order, "succeeded" if attempt.swapin.ret else attempt.status] += 1
                if attempt.isolate is not None:
                    out[ISOLATE, attempt.order, attempt.isolate.status] += 1
        for each in run.files:
            out[SCAN_FILE, WHOLE_BLOCK, each.result] += 1
            if each.collapse is not None:
                out[COLLAPSE_FILE, WHOLE_BLOCK, each.collapse.result] += 1
    return out


def orders_asked(hosts: Iterable[HostConfig], rules: Rules) -> list[int]:
    """The orders that khugepaged tries on some of *hosts* under *rules*, ascending."""
    mask = 1 << PMD_ORDER
    if rules.mthp_collapse:
        for host in hosts:
            mask |= host.orders(advised=True)
    return [order for order in range(PMD_ORDER + 1) if mask >> order & 1]


def reachable(rules: Rules, orders: Sequence[int]) -> list[Key]:
    """What scenarios can make under *rules*, with *orders* tried: every (function, order, result), the functions in the kernel's order."""
    r = ScanResult
    parts = [order for order in orders if order < PMD_ORDER]
    scan: list[ScanResult] = [
        r.SUCCEED, r.PMD_MAPPED, r.EXCEED_NONE_PTE, r.EXCEED_SWAP_PTE, r.EXCEED_SHARED_PTE, r.LACK_REFERENCED_PAGE, r.PAGE_COUNT,
        r.NO_PTE_TABLE if rules.no_table_code == "no_pte_table" else r.PMD_NONE,
    ]  # fmt: skip
    if rules.no_table_code == "pmd_null":
        scan = [*(each for each in scan if each not in (r.PMD_MAPPED, r.PMD_NONE)), r.PMD_NULL]
    if rules.collapse_says_why:
        # By the attempt that ended so: khugepaged's own lock, of a KSM page that the block maps twice.
        scan.append(r.PAGE_LOCK)
    if rules.writable != "none":
        scan.append(r.PAGE_RO)
    if rules.lazyfree_refused:
        scan.append(r.PAGE_LAZYFREE)
    if rules.has_userfaultfd:
        scan.append(r.PTE_UFFD_WP)
    if parts or rules.has_guard:
        # No candidate had enough pages; or a guard made swap-in fail.
        scan.append(r.FAIL)
    out: list[Key] = [(SCAN, WHOLE_BLOCK, str(each)) for each in scan]
    for order in orders:
        taken = [r.SUCCEED, r.LACK_REFERENCED_PAGE]
        if order < PMD_ORDER or rules.zap_transfers_accessed:
            # The scan has counted references too: one more stands in an LRU batch, by a larger candidate that was refused, or by the zap,
            # which tells mm/swap.c of what the guest used.
            taken.append(r.PAGE_COUNT)
        ended: list[ScanResult] = []
        if order < PMD_ORDER:
            taken += [r.EXCEED_SHARED_PTE, r.PTE_MAPPED_HUGEPAGE]
            ended = [r.EXCEED_SWAP_PTE]
        else:
            taken += [r.PAGE_LOCK] + [r.SWAP_CACHE_PAGE] * rules.isolate_reuses_swap_page
            if rules.has_guard:
                ended = [r.FAIL]
        swapped_in = [] if order < PMD_ORDER else [r.SUCCEED]
        out += [(SWAPIN, order, str(each)) for each in swapped_in + ended]
        out += [(ISOLATE, order, str(each)) for each in taken]
        endings = taken + ended if rules.collapse_says_why else [r.SUCCEED, r.FAIL]
        out += [(COLLAPSE, order, str(each)) for each in endings]
    return out


def reachable_files(rules: Rules) -> list[Key]:
    """What visits to shared memory can answer under *rules*.

    That a collapse fails takes a page from swap that cannot be isolated, up to 6.3; its answer is the process's own, up to 6.5.
    """
    r = ScanResult
    scan = [r.SUCCEED, r.EXCEED_NONE_PTE, r.EXCEED_SWAP_PTE, r.PAGE_COUNT, r.PTE_MAPPED_HUGEPAGE]
    if not rules.file_swapin_drains:
        scan += [r.DEL_PAGE_LRU, r.PAGE_LRU]
    if rules.file_retract == "target":
        scan += [r.PMD_NONE, r.PMD_NULL]
    out = [(SCAN_FILE, WHOLE_BLOCK, str(each)) for each in scan]
    return out + [(COLLAPSE_FILE, WHOLE_BLOCK, str(r.SUCCEED))] * rules.trace_collapse_file


def rare(
    counted: Counter[Key], rules: Rules, orders: Sequence[int], *, private: bool = True, shared: bool = False, few: int = FEW
) -> list[Seen]:  # fmt: skip
    """What can be reached in *private* and in *shared* memory, and was seen fewer than *few* times, with how often it was."""
    keys = (reachable(rules, orders) if private else []) + (reachable_files(rules) if shared else [])
    seldom = [Seen(*key, counted[key]) for key in keys if counted[key] < few]
    return sorted(seldom, key=lambda each: (_ORDER.index(each.function), each.order, each.result))


def listed(counted: Counter[Key]) -> list[Seen]:
    """Everything that was seen, by function, order and result."""
    counts = [Seen(*key, count) for key, count in counted.items()]
    return sorted(counts, key=lambda each: (_ORDER.index(each.function), each.order, each.result))
