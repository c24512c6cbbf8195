"""Which blocks of a process may be made huge, which a policy chooses of them, and why each other one is left alone.

::

    every block that holds anything
      ├─ the kernel would refuse       hugetlb, device memory, MADV_NOHUGEPAGE, prctl, userfaultfd with holes ...
      ├─ the administrator would not   enabled=never, no MADV_HUGEPAGE under enabled=madvise     ─▶ --override
      ├─ too little in it              nothing present, fewer pages than --min-populated
      ├─ the policy would not          khugepaged's own scan, or what a policy of one's own answers
      └─ chosen, in the policy's order

MADV_COLLAPSE itself asks neither the switches in sysfs nor the advice (``TVA_FORCED_COLLAPSE``, mm/huge_memory.c); whoever calls it decides
over the administrator's head, which is said, and asked for. MADV_NOHUGEPAGE and PR_SET_THP_DISABLE it obeys.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from secondsight.bits import pte as bits
from secondsight.bits.swap import FAILING
from secondsight.errors import UsageError
from secondsight.geometry import HPAGE_PMD_NR, PMD_ORDER, PMD_SHIFT
from secondsight.live.act.unfit import ALONE, Beside, unfit
from secondsight.live.judge import reasons
from secondsight.live.judge.choose_profiles import choose_profiles
from secondsight.live.judge.page_counts import PageCounts
from secondsight.live.judge.view import to_view
from secondsight.live.read import eligible
from secondsight.live.read.capture import Snapshot
from secondsight.live.read.vma import Vma
from secondsight.mm.config import Knobs
from secondsight.mm.khugepaged.result import ScanResult as Scan
from secondsight.mm.khugepaged.scan import scan
from secondsight.plural import pluralize
from secondsight.policy.protocol import ONLY_IN_A_REPLAY, Look, Policy

I64 = npt.NDArray[np.int64]

OVERRIDE = "--override collapses it all the same"
#: try_collapse_pte_mapped_thp refuses when collapse_file is through: the call fails, and has taken memory
_HUGE_AND_UNMAPPED = "MADV_COLLAPSE would make it huge in the page cache and fail to map it"


class Choice(msgspec.Struct, frozen=True):
    """One chosen block: where, pages present, pages known to be used (None: unknown), pages that would be added; *shared*: shared memory,
    whose pages are those of the page cache; *heat*: how much it was used while it was watched (None: not known); *against*: the
    administrator's switch that collapsing it overrides, empty if none."""

    address: int
    populated: int
    used: int | None
    added: int
    shared: bool = False
    heat: int | None = None
    against: str = ""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """*advised*: only MADV_HUGEPAGE mappings; *certain*: only blocks whose use is known; *override*: also against the administrator's
    switches; *min_populated*: pages a block must hold; *within*: only these addresses."""

    advised: bool = False
    certain: bool = False
    override: bool = False
    min_populated: int = 1
    within: tuple[int, int] | None = None


class Selection(NamedTuple):
    """*chosen* in order; *left*: blocks left alone by reason; *considered*: blocks that hold anything; *vmas*: the mappings that may be
    collapsed, or hold huge pages already; *order*: what the order is, in words."""

    chosen: list[Choice]
    left: dict[str, int]
    considered: int
    vmas: list[Vma]
    order: str = ""


def check_policy(policy: Policy) -> None:
    """Refuse a policy that a running process cannot feed, or that makes nothing huge by itself.

    :raises UsageError: says why, and what to do.
    """
    for need in sorted(policy.needs - {"young"}):
        raise UsageError(
            f"policy {policy.name}: {ONLY_IN_A_REPLAY.get(need, f'needs {need}')}; replay a recorded trace under it instead"
        )
    if policy.name != "khugepaged" and (policy.passive or policy.faults == "huge"):
        raise UsageError(
            f"policy {policy.name}: decides about faults, not about memory that is there; use khugepaged or madv_collapse"
        )


class _CandidateRows(NamedTuple):
    """Candidates, ascending by address, arrays of N: *address* uint64; *row* of the snapshot int64 (-1: in no page table of the process);
    *populated*, *swapped*, *used* (-1: unknown), *added* int64 pages; *huge*, *shared* bool; *heat* int64 (-1: unknown)."""

    address: npt.NDArray[np.uint64]
    row: I64
    populated: I64
    swapped: I64
    used: I64
    added: I64
    huge: npt.NDArray[np.bool_]
    shared: npt.NDArray[np.bool_]
    heat: I64


def select(snapshot: Snapshot, policy: Policy, wanted: Wanted, beside: Beside = ALONE) -> Selection:
    """The blocks that *policy* makes huge, in its order, hot ones first where heat is known, and why not the others.

    ``khugepaged`` is carried out here: blocks that its scan passes, those known to be used most first.
    """
    return _Selector(snapshot, policy, wanted, beside).select()


class _Selector:
    """One selection; *why* is each candidate's reason, empty while it is still to be decided."""

    def __init__(self, snapshot: Snapshot, policy: Policy, wanted: Wanted, beside: Beside) -> None:
        self.snapshot, self.policy, self.wanted, self.beside = snapshot, policy, wanted, beside
        self.vmas = list(snapshot.header.mappings)
        self.counts = PageCounts(snapshot)
        self.unfit = {
            id(vma): unfit(vma, snapshot.header.enabled, beside, snapshot.header.switches)
            for vma in self.vmas
        }
        self.rows = self._rows()
        self.why = np.full(len(self.rows.address), "", object)
        self.overrides: dict[int, str] = {}

    def select(self) -> Selection:
        """The whole answer."""
        self._sieve()
        open_rows = np.flatnonzero(self.why == "")
        chosen = self._as_khugepaged(open_rows) if self.policy.khugepaged else self._asked(open_rows)
        if self.wanted.certain:
            # What was watched says more than a mark, which may be as old as the machine's last boot.
            watched = self.beside.heat is not None and bool(self.beside.heat.source)
            sure = (self.rows.heat if watched else self.rows.used)[chosen] > 0
            self.why[chosen[~sure]] = f"not {'known to be hot' if watched else 'marked as used'} (--certain)"
            chosen = chosen[sure]
        heat = self.rows.heat[chosen]
        # Hot, not known, known to be idle; a policy's own order among equals.
        chosen = chosen[np.lexsort((-heat, np.where(heat > 0, 0, np.where(heat < 0, 1, 2))))]
        self.why[chosen] = "chosen"
        self.why[self.why == ""] = f"policy {self.policy.name} did not choose it"
        left = Counter(text for text in self.why.tolist() if text != "chosen")
        return Selection(
            [self._choice(at) for at in chosen.tolist()], dict(left.most_common()), len(self.why),
            [vma for vma in self.vmas if self._open(vma) or self._holds_huge(vma)], self._order(chosen),
        )  # fmt: skip

    def _choice(self, at: int) -> Choice:
        rows = self.rows
        used, heat = int(rows.used[at]), int(rows.heat[at])
        return Choice(
            int(rows.address[at]), int(rows.populated[at]), used if used >= 0 else None, int(rows.added[at]),
            bool(rows.shared[at]), heat if heat >= 0 else None, self.overrides.get(at, ""),
        )  # fmt: skip

    def _open(self, vma: Vma) -> bool:
        hard, soft = self.unfit[id(vma)]
        return (
            not hard and (self.wanted.override or not soft) and (not self.wanted.advised or "hg" in vma.flags)
        )

    def _holds_huge(self, vma: Vma) -> bool:
        """Whether *vma* holds huge pages that count as such though no switch allows it now, as `explain` counts them."""
        if eligible.no_thp(vma) or (self.wanted.advised and "hg" not in vma.flags):
            return False
        low, high = np.searchsorted(self.rows.address, np.array([vma.start, vma.end], np.uint64)).tolist()
        return bool(self.rows.huge[low:high].any())

    def _order(self, chosen: I64) -> str:
        """What the order is worth, for the first line."""
        heat = self.beside.heat
        if heat is not None and heat.source:
            hot = int((self.rows.heat[chosen] > 0).sum())
            return (
                f"hot first, by {heat.source}: {pluralize(hot, 'block')} of {len(chosen):,} known to be hot"
            )
        why = "".join(
            f"; {name}: {text}" for name, text in (heat.missing if heat is not None else {}).items()
        )
        why = why or " (--watch 30s measures it where DAMON or kernel memory is there)"
        used = self.rows.used[chosen]
        if len(chosen) and self.policy.khugepaged and len(np.unique(used)) > 1:
            return f"no hotness is known here: those with most pages marked as used first, whenever that was{why}"
        return f"no hotness is known here: in address order{why}"

    def _rows(self) -> _CandidateRows:
        """Blocks of the snapshot that are not shared memory, and those of the page cache."""
        columns, counts = self.snapshot.columns, self.counts
        cache = self.beside.cache
        private = np.ones(len(columns.address), np.bool_)
        addresses, cached = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
        for vma in self.vmas:
            if cache is not None and (file := cache.of(vma)) is not None:
                low, high = np.searchsorted(columns.address, np.array([vma.start, vma.end], np.uint64))
                private[low:high] = False
                blocks, pages = file.blocks(vma.start, vma.end)
                addresses.append(blocks)
                cached.append(pages)
        own = np.flatnonzero(private)
        extra = np.concatenate(addresses)
        address = np.concatenate([columns.address[own], extra])
        place = np.searchsorted(columns.address, extra)
        here = np.zeros(len(extra), np.bool_)
        inside = place < len(columns.address)
        here[inside] = columns.address[place[inside]] == extra[inside]
        row = np.concatenate([own, np.where(here, place, -1)]).astype(np.int64)
        shared = np.arange(len(address)) >= len(own)
        seen = row >= 0

        def of(counted: I64, otherwise: int) -> I64:
            """A count of the snapshot for each candidate."""
            values = np.full(len(row), otherwise, np.int64)
            values[seen] = counted[row[seen]]
            return values

        populated = np.where(
            shared, np.concatenate([np.zeros(len(own), np.int64), *cached]), of(counts.populated, 0)
        )
        sharers = np.where(shared, 0, of(counts.shared, 0))
        huge = np.zeros(len(row), np.bool_)
        huge[seen] = counts.pmd_mapped[row[seen]]
        heat = self.beside.heat
        unsorted = _CandidateRows(
            address, row, populated, np.where(shared, 0, of(counts.swapped, 0)), of(counts.used(), -1),
            HPAGE_PMD_NR - populated + sharers, huge, shared,
            heat.of(address) if heat is not None else np.full(len(row), -1, np.int64),
        )  # fmt: skip
        order = np.argsort(address, kind="stable")
        return _CandidateRows._make(column[order] for column in unsorted)

    def _sieve(self) -> None:
        """Everything that is decided before the policy is asked."""
        rows, wanted = self.rows, self.wanted
        for at, vma in enumerate(eligible.mappings_of(rows.address, self.vmas)):
            if vma is None:
                self.why[at] = "the mapping has gone"
                continue
            hard, soft = self.unfit[id(vma)]
            if hard:
                self.why[at] = hard
            elif rows.huge[at]:
                self.why[at] = "huge already"
            elif wanted.advised and "hg" not in vma.flags:
                self.why[at] = "no MADV_HUGEPAGE (--advised)"
            elif soft and not wanted.override:
                self.why[at] = f"{soft}: {OVERRIDE}"
            else:
                self.why[at] = self._held_back(at, vma)
                if soft:
                    self.overrides[at] = soft

    def _held_back(self, at: int, vma: Vma) -> str:
        """Why MADV_COLLAPSE would refuse this block, or has too little to work on; empty if neither."""
        populated, swapped = int(self.rows.populated[at]), int(self.rows.swapped[at])
        row = int(self.rows.row[at])
        if not self.rows.shared[at]:
            for kind in FAILING:
                # Swap-in answers that it failed (do_swap_page), and so does the collapse.
                if self.counts.has(kind, row):
                    return f"{kind.name.lower()} entries in it: swap-in, and the collapse, fail there"
        elif vma.flags & {"uw", "ur"}:
            return f"userfaultfd write-protects the mapping: {_HUGE_AND_UNMAPPED}"
        elif row >= 0 and self.counts.absent(row):
            return f"entries in its page table are no pages (guard regions, markers): {_HUGE_AND_UNMAPPED}"
        if not populated:
            return "nothing present (all of it is in swap)" if swapped else "nothing present"
        if populated < self.wanted.min_populated:
            return f"fewer than {self.wanted.min_populated} pages present (--min-populated)"
        # __collapse_huge_page_isolate counts holes and zero pages against userfaultfd even for MADV_COLLAPSE; so does collapse_file.
        if vma.uffd_armed and populated + swapped < HPAGE_PMD_NR:
            return "userfaultfd is armed: the kernel fills no hole there"
        # Of an entry that is not present the bit is part of its offset.
        entries = self.snapshot.columns.pte[max(row, 0)]
        if row >= 0 and (bits.pte_present(entries) & ((entries & bits.UFFD_WP) != 0)).any():
            return "userfaultfd write-protects a page"
        return ""

    def _as_khugepaged(self, rows: I64) -> I64:
        """The candidates among *rows* that khugepaged's scans pass; into *why* what they would answer about the others."""
        limits = self.snapshot.header.limits
        asked = {name: value for name, value in self.policy.knobs.items() if name in limits.__struct_fields__}
        knobs = msgspec.structs.replace(limits, **asked)
        shared = rows[self.rows.shared[rows]]
        # collapse_scan_file asks what the page cache holds, and for no reference.
        few = self.rows.populated[shared] < HPAGE_PMD_NR - knobs.max_ptes_none
        for at in shared[few].tolist():
            self.why[at] = f"khugepaged's scan answers exceed_none_pte: {reasons.words('exceed_none_pte')}"
        passing = [shared[~few]]
        sure = np.zeros(len(self.why), np.bool_)
        referenced = np.zeros(len(self.why), np.int64)
        if len(own := rows[~self.rows.shared[rows]]):
            passing.append(self._scanned(own, knobs, sure, referenced))
        passed = np.sort(np.concatenate(passing))
        return passed[np.lexsort((passed, -referenced[passed], ~sure[passed]))]

    def _scanned(self, rows: I64, knobs: Knobs, sure: npt.NDArray[np.bool_], referenced: I64) -> I64:
        """Private blocks among *rows* that ``collapse_scan_pmd`` passes, or may; *sure* and *referenced* are filled in."""
        # Advice and switches have been asked: the scan is to look at every mapping.
        vmas = [msgspec.structs.replace(vma, eligible=None) for vma in self.vmas]
        view = to_view(self.snapshot.columns, vmas, "always", self.snapshot.header.switches)[
            self.rows.row[rows]
        ]
        rules = choose_profiles(self.snapshot.header.facts).rules[0]
        known = scan(view, knobs, rules)
        perhaps = scan(view, knobs, rules, assume=True)
        # What is unknown counts as used, unless it must be known, which of what was seen to be hot it is.
        doubted = ~(self.rows.heat[rows] > 0) & self.wanted.certain
        may = known.passed | (perhaps.passed & ~doubted)
        codes = np.where(doubted, known.code, perhaps.code)
        for at, code in zip(rows[~may].tolist(), codes[~may].tolist(), strict=True):
            status = str(Scan(code))
            self.why[at] = f"khugepaged's scan answers {status}: {reasons.words(status)}"
        sure[rows], referenced[rows] = known.passed, known.referenced
        return rows[may]

    def _asked(self, rows: I64) -> I64:
        """Those of *rows* that the policy chooses, in its order."""
        now = time.monotonic_ns()
        count = len(rows)
        unknown = np.full(count, -1, np.int64)
        every, counts = self.rows, self.counts
        used = every.used[rows]
        row = every.row[rows]
        here = row >= 0

        def of(counted: I64, unseen: I64 | None = None) -> I64:
            values = unknown.copy() if unseen is not None else np.zeros(count, np.int64)
            read = here if unseen is None else here & (unseen[row] == 0)
            values[read] = counted[row[read]]
            return values

        look = Look(
            now=now, since=now - self.policy.interval, space=np.zeros(count, np.int64),
            block=(every.address[rows] >> np.uint64(PMD_SHIFT)).astype(np.int64), huge=every.huge[rows],
            populated=every.populated[rows], zero_filled=np.zeros(count, np.int64), swapped=every.swapped[rows],
            shared=of(counts.shared), primary=of(counts.primary, counts.primary_unknown),
            referenced=of(counts.referenced, counts.referenced_unknown),
            secondary=of(counts.secondary, counts.secondary_unknown),
            # What is not known to be unused counts as one page in use: a policy asks whether, not how much.
            young=np.where(used < 0, 1, used), walks=unknown, future=unknown, spaces=(self.snapshot.header.name,),
        )  # fmt: skip
        decision = self.policy.wake(look)
        if len(decision.order) and (np.asarray(decision.order) != PMD_ORDER).any():
            raise UsageError(
                f"policy {self.policy.name}: it asks for sizes below 2 MiB, and MADV_COLLAPSE makes 2 MiB pages alone"
            )
        return rows[np.asarray(decision.promote, np.int64)]
