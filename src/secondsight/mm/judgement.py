"""The judgement, in three pure steps, because the kernel looks twice and changes the world in between.

    view --scan--> passes? --swap_in, zap--> the view after the notifiers' invalidation --isolate--> collapses?

``scan`` is hpage_collapse_scan_pmd / collapse_scan_pmd, ``isolate`` is __collapse_huge_page_isolate: for each PTE the checks in
the kernel's order, first hit wins, then the block's. Nothing else decides: the model's khugepaged, the live ``explain`` and the policies
call these. A view's unknown answers count as *assume*; :func:`verdict` judges both ways and says when it matters.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from secondsight.bits.pte import (
    ACCESSED,
    DIRTY,
    DIRTY_BITS,
    MAPPED,
    PFN_MASK,
    PRESENT,
    PSE,
    RW,
    UFFD_WP,
    USER,
    is_swap_pte,
)
from secondsight.mm.config import HPAGE_PMD_NR, Knobs
from secondsight.mm.lru import mark_page_accessed
from secondsight.mm.page import (
    ANON,
    BATCH_MAX,
    COUNTERS,
    HEAD,
    LOCKED,
    LRU,
    N_ACTIVATE,
    REFERENCED,
    SWAPBACKED,
    SWAPCACHE,
    TAIL,
    YOUNG,
    FrameArrays,
)
from secondsight.mm.rules import Rules
from secondsight.mm.view import BlockView
from secondsight.native import native


class Scan(enum.IntEnum):
    """``enum scan_result`` over all kernels; ``str()`` is what the tracepoints print."""

    FAIL = 0
    SUCCEED = 1
    PMD_NULL = 2
    PMD_NONE = 3
    NO_PTE_TABLE = 4
    PMD_MAPPED = 5
    EXCEED_NONE_PTE = 6
    EXCEED_SWAP_PTE = 7
    EXCEED_SHARED_PTE = 8
    PTE_NON_PRESENT = 9
    PTE_UFFD_WP = 10
    PAGE_RO = 11
    LACK_REFERENCED_PAGE = 12
    PAGE_NULL = 13
    PAGE_COUNT = 14
    PAGE_LRU = 15
    PAGE_LOCK = 16
    PAGE_ANON = 17
    PAGE_LAZYFREE = 18
    VMA_CHECK = 19
    DEL_PAGE_LRU = 20
    ALLOC_HUGE_PAGE_FAIL = 21
    CGROUP_CHARGE_FAIL = 22

    def __str__(self) -> str:
        """The string of include/trace/events/huge_memory.h."""
        return _STRINGS.get(self, self.name.lower())


_STRINGS = {
    Scan.FAIL: "failed",
    Scan.SUCCEED: "succeeded",
    Scan.PMD_MAPPED: "page_pmd_mapped",
    Scan.PAGE_RO: "no_writable_page",
    Scan.PAGE_COUNT: "not_suitable_page_count",
    Scan.PAGE_LRU: "page_not_in_lru",
    Scan.PAGE_LOCK: "page_locked",
    Scan.PAGE_ANON: "page_not_anon",
    Scan.VMA_CHECK: "vma_check_failed",
    Scan.DEL_PAGE_LRU: "could_not_delete_page_from_lru",
    Scan.ALLOC_HUGE_PAGE_FAIL: "alloc_huge_page_failed",
    Scan.CGROUP_CHARGE_FAIL: "ccgroup_charge_failed",
}


class Look(NamedTuple):
    """What one look (scan or isolate) answered for N blocks: arrays of N.

    code uint8 (:class:`Scan`); referenced, none_or_zero, unmapped int32 and writable bool as the tracepoint prints them;
    stopped int32: the page that ended it (512: none); asked int32: pages test_young was asked about.
    """

    code: npt.NDArray[np.uint8]
    referenced: npt.NDArray[np.int32]
    none_or_zero: npt.NDArray[np.int32]
    unmapped: npt.NDArray[np.int32]
    writable: npt.NDArray[np.bool_]
    stopped: npt.NDArray[np.int32]
    asked: npt.NDArray[np.int32]

    @property
    def passed(self) -> npt.NDArray[np.bool_]:
        """Blocks that may go on."""
        return np.asarray(self.code == Scan.SUCCEED)


def _no_look(n: int) -> Look:
    """Zeroed answers for *n* blocks."""
    small, number = np.uint8, np.int32
    return Look(
        code=np.zeros(n, small), referenced=np.zeros(n, number), none_or_zero=np.zeros(n, number), unmapped=np.zeros(n, number),
        writable=np.zeros(n, np.bool_), stopped=np.zeros(n, number), asked=np.zeros(n, number),
    )  # fmt: skip


def all_huge(n: int) -> Look:
    """What the scan answers for *n* blocks that are huge already."""
    look = _no_look(n)
    look.code[:] = Scan.PMD_MAPPED
    look.stopped[:] = HPAGE_PMD_NR
    return look


class _J(NamedTuple):
    """Rules and limits as integers, for the compiled looks."""

    khugepaged: int
    referenced_needed: int
    asks_referenced: int
    asks_young: int
    asks_secondary: int
    base_address: int
    max_none: int
    max_swap: int
    max_shared: int
    shared_abort: int
    shared_by_folio: int
    zero_is_none: int
    writable: int
    anon_first: int
    lazyfree: int
    swap_half: int
    count_one: int
    merged_code: int


def _compiled(rules: Rules, limits: Knobs, khugepaged: bool) -> _J:
    everything = HPAGE_PMD_NR
    return _J(
        khugepaged=int(khugepaged),
        referenced_needed=int(rules.referenced_needed),
        asks_referenced=int(rules.asks_page_referenced),
        asks_young=int(rules.asks_page_young),
        asks_secondary=int(rules.asks_secondary),
        base_address=int(rules.scan_tests_base_address),
        max_none=limits.max_ptes_none if khugepaged else everything,
        max_swap=-1 if not rules.swap_limit else (limits.max_ptes_swap if khugepaged else everything),
        max_shared=limits.max_ptes_shared if khugepaged else everything,
        shared_abort=int(rules.shared == "abort"),
        shared_by_folio=int(rules.shared == "folio"),
        zero_is_none=int(rules.zero_page_is_none),
        writable={"none": 0, "one": 1, "every": 2}[rules.writable],
        anon_first=int(rules.anon_before_shared),
        lazyfree=int(rules.lazyfree_refused),
        swap_half=int(rules.swap_needs_half),
        count_one=int(rules.expected_refcount == "one"),
        merged_code=int(rules.no_table_code == "no_pte_table"),
    )


@native
def _page_checks(  # type: ignore[no-untyped-def]
    j, pte, flags, mapcount, folio_maps, refcount, is_shared, known, shared, isolate, taken, again
):
    """The checks of one mapped page, in the kernel's order: the code that ends the look (SUCCEED: none), and the shared count."""
    if j.writable == 2 and not pte & RW:
        return Scan.PAGE_RO, shared
    if not known:
        return Scan.SUCCEED, shared
    if j.lazyfree and j.khugepaged and flags & ANON and not flags & SWAPBACKED and not pte & DIRTY_BITS:
        return Scan.PAGE_LAZYFREE, shared
    if j.anon_first and not isolate and not flags & ANON:
        return Scan.PAGE_ANON, shared
    if (is_shared if j.shared_by_folio else mapcount > 1) and not j.shared_abort:
        shared += 1
        if shared > j.max_shared:
            return Scan.EXCEED_SHARED_PTE, shared
    if isolate:
        if taken:
            return Scan.SUCCEED, shared
    elif not flags & LRU:
        return Scan.PAGE_LRU, shared
    if flags & LOCKED or again:
        return Scan.PAGE_LOCK, shared
    if not isolate and not j.anon_first and not flags & ANON:
        return Scan.PAGE_ANON, shared
    expected = 1
    if not j.count_one:
        expected = folio_maps
        if flags & SWAPCACHE:
            expected += 512 if flags & (HEAD | TAIL) else 1
    if refcount != expected:
        return Scan.PAGE_COUNT, shared
    if isolate and not flags & LRU:
        return Scan.DEL_PAGE_LRU, shared
    return Scan.SUCCEED, shared


@native
def _again(folio, i):  # type: ignore[no-untyped-def]
    """Did an earlier PTE of the block map the same folio?"""
    for j in range(i):  # noqa: SIM110 - compiled
        if folio[j] == folio[i]:
            return True
    return False


class _Columns(NamedTuple):
    """The view's columns, as the compiled looks take them; *secondary* is the channel merged over all notifiers."""

    pmd: npt.NDArray[np.uint64]
    pte: npt.NDArray[np.uint64]
    flags: npt.NDArray[np.uint32]
    mapcount: npt.NDArray[np.int32]
    folio_maps: npt.NDArray[np.int32]
    refcount: npt.NDArray[np.int32]
    shared: npt.NDArray[np.bool_]
    folio: npt.NDArray[np.int64]
    uffd: npt.NDArray[np.bool_]
    pte_known: npt.NDArray[np.bool_]
    page_known: npt.NDArray[np.bool_]
    secondary: npt.NDArray[np.bool_]


@native
def _look(j, isolate, c, assume, out):  # type: ignore[no-untyped-def]
    """Both looks; *isolate* 1 is the second, under the cleared PMD."""
    for b in range(len(c.pmd)):
        out.stopped[b] = 512
        if not isolate:
            if c.pmd[b] == 0 or not c.pmd[b] & MAPPED:
                out.code[b] = Scan.NO_PTE_TABLE if j.merged_code else Scan.PMD_NONE
                continue
            if c.pmd[b] & PSE:
                out.code[b] = Scan.PMD_MAPPED
                continue
        shared = 0
        result = Scan.SUCCEED
        limit_none = 0 if c.uffd[b] else j.max_none
        last_large = np.int64(-1)
        for i in range(512):
            entry = c.pte[b, i]
            if entry != 0 and not entry & MAPPED:
                if isolate:
                    result = Scan.PTE_NON_PRESENT
                else:
                    out.unmapped[b] += 1
                    if j.max_swap < 0:
                        result = Scan.PTE_NON_PRESENT
                    elif out.unmapped[b] > j.max_swap:
                        result = Scan.EXCEED_SWAP_PTE
                    else:
                        continue
                out.stopped[b] = i
                break
            zero = entry != 0 and (entry & PFN_MASK) == 0
            if entry == 0 or (zero and j.zero_is_none):
                out.none_or_zero[b] += 1
                if out.none_or_zero[b] > limit_none:
                    result = Scan.EXCEED_NONE_PTE
                    out.stopped[b] = i
                    break
                continue
            if zero:
                # 2.6.38: a special, read-only page. Its writability is tested first.
                result = Scan.PAGE_RO
                out.stopped[b] = i
                break
            if entry & UFFD_WP:
                result = Scan.PTE_UFFD_WP
                out.stopped[b] = i
                break
            if entry & RW and not isolate:
                out.writable[b] = True
            taken = isolate and c.folio[b, i] >= 0 and c.folio[b, i] == last_large
            # The same small page a second time (KSM): isolate holds its lock already.
            again = isolate and not taken and c.mapcount[b, i] > 1 and _again(c.folio[b], i)
            result, shared = _page_checks(j, entry, c.flags[b, i], c.mapcount[b, i], c.folio_maps[b, i], c.refcount[b, i],
                                          c.shared[b, i], c.page_known[b, i], shared, isolate, taken, again)  # fmt: skip
            if result != Scan.SUCCEED:
                out.stopped[b] = i
                break
            if c.flags[b, i] & (HEAD | TAIL):
                last_large = c.folio[b, i]
            if entry & RW:
                out.writable[b] = True
            if not j.khugepaged:
                continue
            if (entry & ACCESSED) if c.pte_known[b, i] else assume:
                out.referenced[b] += 1
            elif c.page_known[b, i] and (
                (j.asks_young and c.flags[b, i] & YOUNG) or (j.asks_referenced and c.flags[b, i] & REFERENCED)
            ):
                out.referenced[b] += 1
            elif not c.page_known[b, i] and assume:
                out.referenced[b] += 1
            elif j.asks_secondary:
                out.asked[b] += 1
                if c.secondary[b, 0 if j.base_address and not isolate else i]:
                    out.referenced[b] += 1
        if result == Scan.SUCCEED:
            if j.writable == 1 and not out.writable[b]:
                result = Scan.PAGE_RO
            elif (
                j.khugepaged
                and j.referenced_needed
                and (
                    out.referenced[b] == 0
                    or (not isolate and j.swap_half and out.unmapped[b] > 0 and out.referenced[b] < 256)
                )
            ):
                result = Scan.LACK_REFERENCED_PAGE
        out.code[b] = result


def _run(view: BlockView, limits: Knobs, rules: Rules, isolate: bool, khugepaged: bool, assume: bool) -> Look:
    out = _no_look(len(view))
    columns = _Columns(
        view.pmd,
        view.pte,
        view.flags,
        view.mapcount,
        view.folio_mapcount,
        view.refcount,
        view.shared,
        view.folio,
        view.uffd,
        view.pte_known,
        view.page_known,
        view.merged(assume),
    )
    _look(_compiled(rules, limits, khugepaged), isolate, columns, assume, out)
    return out


def scan(
    view: BlockView, limits: Knobs, rules: Rules, *, khugepaged: bool = True, assume: bool = False
) -> Look:
    """The first look. *khugepaged* False: MADV_COLLAPSE, without limits and without the referenced test. Pure."""
    return _run(view, limits, rules, False, khugepaged, assume)


def isolate(
    view: BlockView, limits: Knobs, rules: Rules, *, khugepaged: bool = True, assume: bool = False
) -> Look:
    """The second look, at a view after :func:`zap` (or at the model's own state then). Pure."""
    return _run(view, limits, rules, True, khugepaged, assume)


class _Z(NamedTuple):
    """What ``mark_page_accessed`` reads of the rules."""

    lru_batch: int
    activate_batched: int
    mark_needs_lru: int
    mglru: int


@native
def _zap(r, f, ids, marks, heads):  # type: ignore[no-untyped-def]
    for i in range(len(ids)):
        if ids[i] >= 0:
            for _ in range(marks[i]):
                mark_page_accessed(f, r, heads[i])


def zap(view: BlockView, rules: Rules, *, mglru: bool = False, assume: bool = False) -> BlockView:
    """The view after the notifiers' invalidation of each block: secondary answers gone, and, where the rules carry the accessed bit over,
    each page marked accessed as often as it had accessed SPTEs.

    Activations wait in the per-CPU batch with a reference; ``view.activate_pending`` of them are there before. Pure: *view* is untouched.
    Blocks are taken each for itself, as if it were the only one. *assume*: a page whose channel is unknown was young there, so it is
    marked at least once.
    """
    marks = view.zap_marks
    if assume:
        for channel in view.secondary:
            marks = np.where(channel.known, marks, np.maximum(marks, 1))
    gone = tuple(
        replace(c, young=np.zeros_like(c.young), known=np.ones_like(c.known)) for c in view.secondary
    )
    if not rules.zap_transfers_accessed or not marks.any():
        return replace(view, secondary=gone, zap_marks=np.zeros_like(view.zap_marks))
    flags, refcount = view.flags.copy(), view.refcount.copy()
    r = _Z(
        rules.lru_batch,
        int(rules.activate_batched),
        int(rules.mark_needs_lru),
        int(mglru and rules.mglru_available),
    )
    for b in range(len(view)):
        ids = view.folio[b]
        # The block's folios as frames of their own: one row a page; a huge folio's pages share its first page's row.
        _, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
        # What has no folio yet (a hole, a page that is being swapped in) is a row of its own.
        heads = np.where(ids >= 0, first[inverse], np.arange(HPAGE_PMD_NR)).astype(np.int64)
        padded = HPAGE_PMD_NR + BATCH_MAX + 8
        f = FrameArrays(
            flags=np.zeros(padded, np.uint32),
            refcount=np.full(padded, 1 << 20, np.int32),
            mapcount=np.zeros(padded, np.int32),
            free=np.zeros(1, np.int32),
            large=np.zeros((1, 1), np.int32),
            batch=np.zeros((3, BATCH_MAX), np.int32),
            n=np.zeros(COUNTERS, np.int64),
        )
        f.flags[:HPAGE_PMD_NR] = flags[b] & ~TAIL
        f.refcount[:HPAGE_PMD_NR] = refcount[b]
        # Pages of other blocks wait in the batch already: stand-ins with references to spare.
        f.batch[1, : view.activate_pending] = np.arange(HPAGE_PMD_NR, HPAGE_PMD_NR + view.activate_pending)
        f.n[N_ACTIVATE] = view.activate_pending
        _zap(r, f, ids, marks[b], heads)
        compound = flags[b] & (HEAD | TAIL)
        flags[b] = (f.flags[heads] & ~(HEAD | TAIL)) | compound
        refcount[b] = f.refcount[heads]
    return replace(
        view, flags=flags, refcount=refcount, secondary=gone, zap_marks=np.zeros_like(view.zap_marks)
    )


def swap_in(view: BlockView) -> BlockView:
    """The view after __collapse_huge_page_swapin: each swapped page is present, young as a fault leaves it, and this process's alone. Pure.

    The page's frame is not known yet: its number is the highest there is, and no folio has it.
    """
    swapped = is_swap_pte(view.pte)
    if not swapped.any():
        return view
    entry = PRESENT | USER | ACCESSED | DIRTY | PFN_MASK
    one = np.int32(1)
    return replace(
        view, pte=np.where(swapped, entry, view.pte), flags=np.where(swapped, np.uint32(ANON | LRU | SWAPBACKED), view.flags),
        mapcount=np.where(swapped, one, view.mapcount), folio_mapcount=np.where(swapped, one, view.folio_mapcount),
        refcount=np.where(swapped, one, view.refcount), shared=view.shared & ~swapped, folio=np.where(swapped, -1, view.folio),
        pte_known=view.pte_known | swapped, page_known=view.page_known | swapped,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Verdict:
    """What khugepaged will answer for N blocks: the scan, and the isolate of those that pass it.

    code uint8[N] is the final status; known bool[N]: no unknown answer could change it; other uint8[N]: the status if unknown answers
    are yes.
    """

    scan: Look
    isolate: Look
    code: npt.NDArray[np.uint8]
    known: npt.NDArray[np.bool_]
    other: npt.NDArray[np.uint8]


def verdict(
    view: BlockView, limits: Knobs, rules: Rules, *, mglru: bool = False, khugepaged: bool = True
) -> Verdict:
    """Scan, swap-in, zap, isolate of every block in *view*, three-valued."""
    looks = []
    inside = swap_in(view)
    for assume in (False, True):
        first = scan(view, limits, rules, khugepaged=khugepaged, assume=assume)
        second = isolate(
            zap(inside, rules, mglru=mglru, assume=assume),
            limits,
            rules,
            khugepaged=khugepaged,
            assume=assume,
        )
        code = np.where(first.passed, second.code, first.code).astype(np.uint8)
        looks.append((first, second, code))
    (no_scan, no_isolate, no), (_, _, yes) = looks
    return Verdict(no_scan, no_isolate, no, no == yes, yes)
