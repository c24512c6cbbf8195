"""The verdict of each block of a snapshot, in words: what khugepaged will answer, why, and what was not read of its reasons."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from secondsight.bits.swap import FAILING, EntryKind
from secondsight.geometry import (
    ANON_ORDERS,
    HPAGE_PMD_NR,
    PAGE_SHIFT,
    PAGE_SIZE,
    PMD_ORDER,
    kb_of_order,
)
from secondsight.live.judge import reasons
from secondsight.live.judge.answer import AttemptsAhead, Block
from secondsight.live.judge.demand import Demand
from secondsight.live.judge.file_verdicts import FileVerdicts
from secondsight.live.judge.open_verdict import (
    ACCESSED,
    ANON_VMA,
    ENTRY_KIND,
    FREE_HUGE_BLOCKS,
    KERNEL_RULE,
    KHUGEPAGED_LIST,
    LRU_BATCH,
    MEMORY_CGROUP,
    NODES,
    PAGE_FLAGS,
    PARTS,
    PINS,
    SECONDARY,
    SHARED_FOLIOS,
    THP_DISABLED,
    BlockAnswer,
)
from secondsight.live.judge.page_counts import Counts, PageCounts
from secondsight.live.read.capture import Snapshot
from secondsight.live.read.eligible import no_thp
from secondsight.live.read.surroundings import UNREGISTERED
from secondsight.live.read.thp_disabled import is_open
from secondsight.live.read.vma import Vma
from secondsight.mm.rules import Rules
from secondsight.plural import pluralize

if TYPE_CHECKING:
    from secondsight.live.judge.judge_snapshot import Judged

#: What a PMD maps that is no memory (mm/huge_memory.c do_huge_pmd_anonymous_page).
_ZERO = "the huge zero page is mapped: it was read, and nothing was stored yet"


class BlockVerdicts:
    """Verdicts of one snapshot's blocks."""

    def __init__(
        self,
        snapshot: Snapshot,
        counts: PageCounts,
        judged: Judged | None,
        files: npt.NDArray[np.int64],
        rules: Rules,
    ) -> None:
        """*judged* None: no block needs judging; *files* int64[K]: the blocks of shared memory and files that are not refused, judged under
        *rules*."""
        self._snapshot = snapshot
        self._counts = counts
        self._judged = judged
        self._files = FileVerdicts(snapshot, counts, files, rules)
        self._demand = Demand.of(counts, judged, files)

    def block(self, row: int, vma: Vma | None, refused: str) -> Block:
        """The block *row*, which *vma* holds; *refused* says why khugepaged passes that by, empty if it does not."""
        columns, counts = self._snapshot.columns, self._counts
        huge, whole = bool(counts.huge[row]), bool(counts.pmd_mapped[row])
        populated, swapped = (
            (HPAGE_PMD_NR, 0) if huge else (int(counts.populated[row]), int(counts.swapped[row]))
        )
        entries = {} if whole else self._entries(row)
        judged, place = self._judged, -1 if self._judged is None else int(self._judged.place[row])
        wasted_if = False
        if refused and whole and vma is not None and not no_thp(vma):
            already = reasons.words("page_pmd_mapped") if huge else _ZERO
            answer = BlockAnswer(
                "page_pmd_mapped", f"{already}; khugepaged would skip the mapping: {refused}"
            )
        elif refused:
            answer = BlockAnswer("ineligible", refused)
        elif not whole and self._files.of(row):
            answer = self._by_prctl(self._surrounded(self._files.answer(row, vma)), vma)
        elif judged is None or place < 0:
            answer = BlockAnswer("page_pmd_mapped", reasons.words("page_pmd_mapped") if huge else _ZERO)
        else:
            answer = self._with_anon_vma(self._answer(row, place, judged, vma), row, vma)
            alone = not answer.wasted and counts.secondary_unknown[row] and judged.guest_alone[place]
            wasted_if = bool(alone) and answer.status == "lack_referenced_page"
            if wasted_if:
                answer = answer._replace(
                    reason=f"{answer.reason}; if only a secondary MMU used it, the pass is wasted"
                )
            answer = self._by_prctl(self._surrounded(answer), vma)
        tried = (
            ()
            if judged is None or place < 0 or refused
            else attempts_of(judged.begun[place], judged.refused[place])
        )
        gfn = int(columns.gfn[row])
        succeeds = "succeeded" in (answer.status, *answer.others)
        return Block(
            address=int(columns.address[row]),
            mapping=_mapped(huge, whole, populated, swapped, int(columns.cached[row])),
            populated=populated,
            swapped=swapped,
            shared=int(counts.shared[row]),
            pinned=int(counts.pinned[row]) if counts.pins_known else None,
            primary=_shown(counts.primary, counts.primary_unknown, row),
            referenced=_shown(counts.referenced, counts.referenced_unknown, row),
            secondary=_shown(counts.secondary, counts.secondary_unknown, row),
            status=answer.status,
            known=not answer.others,
            reason=answer.reason,
            others=answer.others,
            at=answer.at,
            wasted=answer.wasted,
            wasted_if=wasted_if,
            bloat=self._added(row, place) if succeeds else 0,
            guest=gfn << PAGE_SHIFT if gfn >= 0 else None,
            slot=int(columns.slot[row]) if gfn >= 0 else None,
            entries=entries,
            unread=answer.unread,
            cached=int(columns.cached[row]) if columns.cached[row] >= 0 else None,
            attempts=tried if answer.status != "unregistered" else (),
        )

    def _added(self, row: int, place: int) -> int:
        """Pages that the block *row* does not hold and its huge pages would."""
        if self._judged is not None and place >= 0 and self._judged.divided[place]:
            return int(self._judged.added[place])
        held = int(self._counts.populated[row]) + self._counts.absent(row)
        return HPAGE_PMD_NR - max(held, int(self._snapshot.columns.cached[row]))

    def _entries(self, row: int) -> dict[str, int]:
        entries = {
            kind.name.lower(): int(count[row])
            for kind, count in self._counts.entries.items()
            if kind != EntryKind.SWAP and count[row]
        }
        unread = int(self._counts.unread_entries[row])
        return entries | ({"unread": unread} if unread else {})

    def _surrounded(self, answer: BlockAnswer) -> BlockAnswer:
        """*answer* with what its surroundings can still make of it: no memory, distant nodes, a process that khugepaged does not know."""
        surroundings = self._snapshot.header.surroundings
        if surroundings.registered is False:
            return BlockAnswer("unregistered", f"{UNREGISTERED} (it would answer {answer.status})")
        others, unread = set(answer.others), list(answer.unread)
        if answer.status == "succeeded" or "succeeded" in others:
            for status, name, fine in (
                (
                    "alloc_huge_page_failed",
                    FREE_HUGE_BLOCKS,
                    self._demand.has_huge_blocks(surroundings.huge_blocks),
                ),
                ("ccgroup_charge_failed", MEMORY_CGROUP, self._demand.is_charged(surroundings.headroom)),
                ("scan_aborted", NODES, surroundings.distances is False),
            ):
                if not fine:
                    others.add(status)
                    unread.append(name)
        if surroundings.registered is None:
            others.add("unregistered")
            unread.append(KHUGEPAGED_LIST)
        return answer._replace(others=tuple(sorted(others)), unread=tuple(unread))

    def _by_prctl(self, answer: BlockAnswer, vma: Vma | None) -> BlockAnswer:
        """*answer* of a process that may have refused huge pages but for advised memory."""
        if vma is None or not is_open(vma, self._snapshot.header.surroundings.thp_disabled):
            return answer
        return answer._replace(
            others=tuple(sorted({*answer.others, "ineligible"})), unread=(*answer.unread, THP_DISABLED)
        )

    def _with_anon_vma(self, answer: BlockAnswer, row: int, vma: Vma | None) -> BlockAnswer:
        """*answer* of a mapping that may have no ``anon_vma``: nothing was ever written there, and khugepaged skips it."""
        without = self._snapshot.header.surroundings.without_anon_vma
        if vma is None or self._counts.populated[row] or self._counts.swapped[row]:
            return answer
        if without is not None:
            return BlockAnswer("ineligible", reasons.NO_ANON_VMA) if vma.start in without else answer
        if vma.kb.get("Anonymous") or vma.kb.get("Swap"):
            return answer
        return answer._replace(
            others=tuple(sorted({*answer.others, "ineligible"})), unread=(*answer.unread, ANON_VMA)
        )

    def _answer(self, row: int, place: int, judged: Judged, vma: Vma | None) -> BlockAnswer:
        from secondsight.mm.khugepaged.result import ScanResult as Scan

        first, counts = judged.first, self._counts
        code = Scan(int(judged.codes[place, 0]))
        others = {str(Scan(int(c))) for c in judged.codes[place]} - {str(code)}
        passed = bool(first.scan.passed[place])
        look = first.isolate if passed else first.scan
        stopped = int(look.stopped[place])
        special = int(judged.special_at[place])
        stopped = special if special < HPAGE_PMD_NR else stopped
        divided = bool(judged.divided[place]) and passed
        at = None
        if divided and special >= HPAGE_PMD_NR:
            stopped = HPAGE_PMD_NR  # which of its attempts decided says no page
        if stopped < HPAGE_PMD_NR and code != Scan.SUCCEED:
            at = int(self._snapshot.columns.address[row]) + stopped * PAGE_SIZE
        wasted = passed and code in (Scan.LACK_REFERENCED_PAGE, Scan.PAGE_COUNT)
        if wasted:
            lacks = code == Scan.LACK_REFERENCED_PAGE
            reason = reasons.REFUSAL_AHEAD if lacks or divided else reasons.LOST_REFERENCE_AHEAD
        else:
            scan = first.scan
            reason = self._reason(
                str(code), row, place, vma, (int(scan.unmapped[place]), int(scan.referenced[place]))
            )
            if passed and code == Scan.PAGE_LOCK:
                reason = reasons.MERGED
        unread: tuple[str, ...] = ()
        tried = attempts_of(judged.begun[place], judged.refused[place]) if divided else ()
        if tried:
            reason = f"{reason}; {attempts_in_words(tried)}"
        if wasted and divided:
            # Pages that a refused attempt gave back wait in a batch, and which attempt meets them depends on what waited there before.
            others |= {str(Scan.LACK_REFERENCED_PAGE), str(Scan.PAGE_COUNT)} - {str(code)}
        if judged.unwalked[place]:
            others |= {str(Scan.SUCCEED), str(Scan.LACK_REFERENCED_PAGE)} - {str(code)}
        if code == Scan.SUCCEED and self._merged(row, vma):
            others.add(str(Scan.PAGE_LOCK))
        if others:
            unread = self._unread(row, place, judged)
            reason = f"{reason}; or {' / '.join(sorted(others))}: it depends on {'; '.join(unread)}"
        if not counts.pins_known and code != Scan.PAGE_COUNT:
            # A pin cannot be seen from procfs, and the scan ends at the page that is held, unless it has ended before.
            before = HPAGE_PMD_NR if passed and code != Scan.PTE_UFFD_WP else stopped
            if counts.first_mapped(row) < before:
                others.add("not_suitable_page_count")
                unread = (*unread, PINS)
            if code == Scan.SUCCEED:
                reason = f"{reason}, unless a page is pinned (references are not visible from procfs)"
        return BlockAnswer(str(code), reason, tuple(sorted(others)), unread, at, wasted)

    def _merged(self, row: int, vma: Vma | None) -> bool:
        """Whether two pages of the block *row* may be one that KSM made of them, without anybody's having seen their frames."""
        unseen = self._counts.flags_unread[row] and self._counts.shared[row] > 1
        return bool(unseen) and vma is not None and "mg" in vma.flags

    def _unread(self, row: int, place: int, judged: Judged) -> tuple[str, ...]:
        """What makes the readings of a block differ."""
        counts = self._counts
        points = []
        if judged.batch_decides[place] or (judged.divided[place] and judged.refused[place].any()):
            points.append(LRU_BATCH)
        if judged.shared_decides[place]:
            points.append(SHARED_FOLIOS)
        if judged.unwalked[place]:
            points.append(PARTS)
        if counts.accessed_unknown[row]:
            points.append(ACCESSED)
        if counts.flags_unread[row]:
            points.append(PAGE_FLAGS)
        if (
            counts.unread_entries[row]
            or counts.has(EntryKind.SPECIAL, row)
            or counts.has(EntryKind.DEVICE, row)
        ):
            points.append(ENTRY_KIND)
        if counts.secondary_unknown[row]:
            whys = (a.why for a in self._snapshot.header.secondary if a.why)
            points.append(f"{SECONDARY} ({next(whys, 'it could not be read')})")
        return tuple(points) or (KERNEL_RULE,)

    def _reason(self, status: str, row: int, place: int, vma: Vma | None, numbers: tuple[int, int]) -> str:
        limits, counts = self._snapshot.header.limits, self._counts
        unmapped, referenced = numbers
        if status == "succeeded":
            whole = (
                place < 0
                or self._judged is None
                or not self._judged.divided[place]
                or self._made_whole(place)
            )
            return "will become one huge page" if whole else "parts of it will become huge pages"
        if status == "exceed_none_pte":
            missing = HPAGE_PMD_NR - int(counts.populated[row]) - counts.absent(row)
            missing_text = pluralize(missing, "page is", "pages are") + " missing or zero"
            if vma is not None and vma.uffd_armed:
                return f"{missing_text}, and no hole is tolerated while userfaultfd is armed"
            return f"{missing_text}, max_ptes_none is {limits.max_ptes_none}"
        if status == "failed":
            return (
                f"{self._markers(row)}: khugepaged cannot read that in, so each pass fails while it is there"
            )
        if status == "exceed_swap_pte":
            never = any(counts.has(kind, row) for kind in FAILING)
            return (
                f"{self._not_present(row)}, max_ptes_swap is {limits.max_ptes_swap}"
                + "; it never collapses while those are there" * never
            )
        if status == "exceed_shared_pte":
            return f"{pluralize(int(counts.shared[row]), 'page is', 'pages are')} shared, max_ptes_shared is {limits.max_ptes_shared}"
        if status == "lack_referenced_page" and unmapped and referenced:
            return f"{pluralize(referenced, 'page')} used; with pages in swap, 256 are needed"
        if status == "not_suitable_page_count":
            held = pluralize(
                int(counts.pinned[row]), "page is held by more than its", "pages are held by more than their"
            )
            return f"{held} mappings: {reasons.words(status)}"
        return reasons.words(status)

    def _made_whole(self, place: int) -> bool:
        """Whether a collapse of the whole block is among those that succeed."""
        assert self._judged is not None
        return bool(self._judged.begun[place, PMD_ORDER] > self._judged.refused[place, PMD_ORDER])

    def _markers(self, row: int) -> str:
        named = [
            f"{pluralize(int(self._counts.entries[kind][row]), reasons.ENTRIES[kind])}"
            for kind in FAILING
            if self._counts.has(kind, row)
        ]
        return " and ".join(named) or "an entry that is not swap"

    def _not_present(self, row: int) -> str:
        """``65 pages are guard regions``, ``70 pages are swapped out`` …"""
        counts = self._counts
        named = [
            f"{int(count[row]):,} {reasons.STATES[kind]}"
            for kind, count in counts.entries.items()
            if count[row]
        ]
        unread = int(counts.unread_entries[row])
        if unread:
            named.append(f"{unread:,} of a kind that could not be read (swap, guard, poison …)")
        absent_text = (
            f"{pluralize(counts.absent(row), 'page is', 'pages are')} not present: {', '.join(named)}"
        )
        if int(counts.swapped[row]) == counts.absent(row):
            absent_text = f"{pluralize(int(counts.swapped[row]), 'page is', 'pages are')} swapped out"
        return absent_text


def attempts_of(begun: npt.NDArray[np.int32], refused: npt.NDArray[np.int32]) -> tuple[AttemptsAhead, ...]:
    """Counts by order, int32[10] each, as attempts; the largest order first."""
    return tuple(
        AttemptsAhead(order, int(begun[order]), int(refused[order]))
        for order in reversed(ANON_ORDERS)
        if begun[order]
    )


def attempts_in_words(attempts: tuple[AttemptsAhead, ...]) -> str:
    """``33 collapses are begun in a pass, 33 refused (2048kB 1, 64kB 32)``."""
    begun, refused = sum(a.begun for a in attempts), sum(a.refused for a in attempts)
    by_order = ", ".join(
        f"{kb_of_order(a.order)}kB {a.begun}"
        + (f" ({a.begun - a.refused} made)" if a.refused < a.begun else "")
        for a in attempts
    )
    return (
        f"{pluralize(begun, 'collapse is', 'collapses are')} begun in a pass, {refused:,} refused: {by_order}"
    )


def _mapped(huge: bool, whole: bool, populated: int, swapped: int, cached: int) -> str:
    if whole:
        return "huge" if huge else "zero"
    return "small" if populated else "swapped" if swapped else "cached" if cached > 0 else "none"


def _shown(count: Counts, unknown: Counts, row: int) -> int | None:
    return None if unknown[row] else int(count[row])
