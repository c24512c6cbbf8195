"""The verdict of each block of a snapshot, in words: what khugepaged will answer, why, and what was not read of its reasons."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from secondsight.bits.swap import FAILING, EntryKind
from secondsight.geometry import HPAGE_PMD_NR, PAGE_SHIFT, PAGE_SIZE
from secondsight.live import reasons
from secondsight.live.answer import Block
from secondsight.live.capture import Snapshot
from secondsight.live.page_counts import Counts, PageCounts
from secondsight.live.surroundings import UNREGISTERED
from secondsight.live.vma import Vma
from secondsight.words import several

if TYPE_CHECKING:
    from secondsight.live.judged import Judged

#: what can leave a verdict open, as *unread* names it
KHUGEPAGED_LIST = "khugepaged's list"
PINS = "pins (references beyond the mappings)"
ENTRY_KIND = "what the entries that are not present are"
ACCESSED = "the CPU's accessed bits"
PAGE_FLAGS = "page flags"
LRU_BATCH = "how many activated pages wait in the CPU's LRU batch by then"


class _Answer(NamedTuple):
    """*others*: what could come instead; *unread*: why; *at*: address of the page that decided."""

    status: str
    reason: str
    others: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    at: int | None = None
    wasted: bool = False


class BlockVerdicts:
    """Verdicts of one snapshot's blocks."""

    def __init__(self, snapshot: Snapshot, counts: PageCounts, judged: Judged | None) -> None:
        """*judged* None: no block needs judging."""
        self._snapshot = snapshot
        self._counts = counts
        self._judged = judged

    def block(self, row: int, vma: Vma | None, refused: str) -> Block:
        """The block *row*, which *vma* holds; *refused* says why khugepaged passes that by, empty if it does not."""
        columns, counts = self._snapshot.columns, self._counts
        huge = bool(counts.huge[row])
        populated, swapped = (
            (HPAGE_PMD_NR, 0) if huge else (int(counts.populated[row]), int(counts.swapped[row]))
        )
        entries = {} if huge else self._entries(row)
        judged, place = self._judged, -1 if self._judged is None else int(self._judged.place[row])
        wasted_if = False
        if refused:
            answer = _Answer("ineligible", refused)
        elif judged is None or place < 0:
            answer = _Answer("page_pmd_mapped", reasons.words("page_pmd_mapped"))
        else:
            answer = self._answer(row, place, judged, vma)
            alone = not answer.wasted and counts.secondary_unknown[row] and judged.guest_alone[place]
            wasted_if = bool(alone) and answer.status == "lack_referenced_page"
            if wasted_if:
                answer = answer._replace(
                    reason=f"{answer.reason}; if only a secondary MMU used it, the pass is wasted"
                )
            answer = self._if_registered(answer)
        gfn = int(columns.gfn[row])
        succeeds = answer.status == "succeeded"
        return Block(
            address=int(columns.address[row]),
            mapping="huge" if huge else "small" if populated else "swapped" if swapped else "none",
            populated=populated,
            swapped=swapped,
            shared=0 if huge else int(counts.shared[row]),
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
            bloat=HPAGE_PMD_NR - populated - swapped - sum(entries.values()) if succeeds else 0,
            guest=gfn << PAGE_SHIFT if gfn >= 0 else None,
            slot=int(columns.slot[row]) if gfn >= 0 else None,
            entries=entries,
            unread=answer.unread,
        )

    def _entries(self, row: int) -> dict[str, int]:
        found = {
            kind.name.lower(): int(count[row])
            for kind, count in self._counts.entries.items()
            if kind != EntryKind.SWAP and count[row]
        }
        unread = int(self._counts.unread_entries[row])
        return found | ({"unread": unread} if unread else {})

    def _if_registered(self, answer: _Answer) -> _Answer:
        """*answer* of a process that khugepaged knows, does not know, or may not know."""
        registered = self._snapshot.header.surroundings.registered
        if registered:
            return answer
        if registered is None:
            return answer._replace(
                others=tuple(sorted({*answer.others, "unregistered"})),
                unread=(*answer.unread, KHUGEPAGED_LIST),
            )
        return _Answer("unregistered", f"{UNREGISTERED} (it would answer {answer.status})")

    def _answer(self, row: int, place: int, judged: Judged, vma: Vma | None) -> _Answer:
        from secondsight.mm.khugepaged.result import ScanResult as Scan

        first, counts = judged.first, self._counts
        code = Scan(int(judged.codes[place, 0]))
        others = {str(Scan(int(c))) for c in judged.codes[place]} - {str(code)}
        passed = bool(first.scan.passed[place])
        look = first.isolate if passed else first.scan
        stopped = int(look.stopped[place])
        special = int(judged.special_at[place])
        stopped = special if special < HPAGE_PMD_NR else stopped
        at = None
        if stopped < HPAGE_PMD_NR and code != Scan.SUCCEED:
            at = int(self._snapshot.columns.address[row]) + stopped * PAGE_SIZE
        wasted = passed and code in (Scan.LACK_REFERENCED_PAGE, Scan.PAGE_COUNT)
        if wasted:
            lacks = code == Scan.LACK_REFERENCED_PAGE
            reason = reasons.REFUSAL_AHEAD if lacks else reasons.LOST_REFERENCE_AHEAD
        else:
            scan = first.scan
            reason = self._reason(str(code), row, vma, int(scan.unmapped[place]), int(scan.referenced[place]))
        unread: tuple[str, ...] = ()
        if others:
            unread = self._unread(row, place, judged)
            reason = f"{reason}; or {' / '.join(sorted(others))}: it depends on {'; '.join(unread)}"
        if code == Scan.SUCCEED and not counts.pins_known:
            # A pin cannot be seen from procfs: what would succeed is only not refused by anything visible.
            others.add("not_suitable_page_count")
            unread = (*unread, PINS)
            reason = f"{reason}, unless a page is pinned (references are not visible from procfs)"
        return _Answer(str(code), reason, tuple(sorted(others)), unread, at, wasted)

    def _unread(self, row: int, place: int, judged: Judged) -> tuple[str, ...]:
        """What makes the readings of a block differ."""
        counts = self._counts
        points = []
        if judged.batch_decides[place]:
            points.append(LRU_BATCH)
        if counts.primary_unknown[row]:
            points.append(f"{ACCESSED} (not in procfs)")
        if counts.referenced_unknown[row]:
            points.append(f"{PAGE_FLAGS} that could not be read")
        if (
            counts.unread_entries[row]
            or counts.has(EntryKind.SPECIAL, row)
            or counts.has(EntryKind.DEVICE, row)
        ):
            points.append(ENTRY_KIND)
        if counts.secondary_unknown[row]:
            whys = (a.why for a in self._snapshot.header.secondary if a.why)
            points.append(next(whys, "a secondary MMU that could not be read"))
        return tuple(points) or ("a rule this kernel does not show",)

    def _reason(self, status: str, row: int, vma: Vma | None, unmapped: int, referenced: int) -> str:
        limits, counts = self._snapshot.header.limits, self._counts
        if status == "succeeded":
            return "will become one huge page"
        if status == "exceed_none_pte":
            missing = HPAGE_PMD_NR - int(counts.populated[row]) - counts.absent(row)
            said = several(missing, "page is", "pages are") + " missing or zero"
            if vma is not None and vma.uffd_armed:
                return f"{said}, and no hole is tolerated while userfaultfd is armed"
            return f"{said}, max_ptes_none is {limits.max_ptes_none}"
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
            return f"{several(int(counts.shared[row]), 'page is', 'pages are')} shared, max_ptes_shared is {limits.max_ptes_shared}"
        if status == "lack_referenced_page" and unmapped and referenced:
            return f"{several(referenced, 'page')} used; with pages in swap, 256 are needed"
        if status == "not_suitable_page_count":
            held = several(
                int(counts.pinned[row]), "page is held by more than its", "pages are held by more than their"
            )
            return f"{held} mappings: {reasons.words(status)}"
        return reasons.words(status)

    def _markers(self, row: int) -> str:
        named = [
            f"{several(int(self._counts.entries[kind][row]), reasons.ENTRIES[kind])}"
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
        said = f"{several(counts.absent(row), 'page is', 'pages are')} not present: {', '.join(named)}"
        if int(counts.swapped[row]) == counts.absent(row):
            said = f"{several(int(counts.swapped[row]), 'page is', 'pages are')} swapped out"
        return said


def _shown(count: Counts, unknown: Counts, row: int) -> int | None:
    return None if unknown[row] else int(count[row])
