"""Why khugepaged will or will not collapse each block: the model's own judgement of a snapshot, in words.

The verdict is ``mm.judgement``'s scan, zap and isolate under the rules that the kernel was probed for. Where a channel is unknown, or
the kernel leaves a rule open, it is judged in every reading: a verdict is *known* only if all agree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt

from secondsight.bits import pageflags as kpf
from secondsight.bits import pte as bits
from secondsight.live import eligible, reasons
from secondsight.live.capture import Snapshot
from secondsight.live.choose import choose
from secondsight.live.vma import BLOCK, Vma
from secondsight.words import several

if TYPE_CHECKING:
    from secondsight.live.judged import Judged

Counts = npt.NDArray[np.int64]


class Block(msgspec.Struct, frozen=True, omit_defaults=True):
    """One 2 MiB block. Counts are pages; a channel's count of None is unknown, with ``*_unknown`` pages not seen.

    ``status`` is what khugepaged will answer (``ineligible``: it passes the mapping by); *known* False: ``others`` could come instead.
    *wasted*: in a pass that allocates a huge page and unmaps the block from the secondary MMUs for nothing; *wasted_if*: so, if a
    secondary MMU that could not be read used it.
    """

    address: int
    mapping: str
    populated: int
    swapped: int
    shared: int
    pinned: int | None
    primary: int | None
    referenced: int | None
    secondary: int | None
    status: str
    known: bool
    reason: str
    others: tuple[str, ...] = ()
    at: int | None = None
    wasted: bool = False
    wasted_if: bool = False
    bloat: int = 0
    guest: int | None = None
    slot: int | None = None


class Mapping(msgspec.Struct, frozen=True):
    """One mapping: *blocks* whole 2 MiB blocks, *empty* of them hold nothing; *refused* says why it is passed by, empty if it is not."""

    start: int
    end: int
    perms: str
    name: str
    blocks: int
    empty: int
    huge: int
    refused: str
    advice: str


class Totals(msgspec.Struct, frozen=True):
    """Sums over the snapshot. Sizes are bytes; *coverage* is anonymous huge / anonymous resident in eligible mappings, None without any."""

    mappings: int
    blocks: int
    eligible_blocks: int
    huge_blocks: int
    resident: int
    coverage: float | None
    collapsible: int
    collapsible_if: int
    bloat: int
    wasted: int
    wasted_if: int
    unknown: int
    by_status: dict[str, int]


class Explanation(msgspec.Struct, frozen=True):
    """The whole answer, as ``--json`` prints it."""

    version: str
    schema: int
    pid: int
    name: str
    kernel: str
    source: str
    missing: str
    read_seconds: float
    rules: tuple[str, ...]
    open_points: tuple[str, ...]
    channels: dict[str, str]
    limits: dict[str, Any]
    totals: Totals
    mappings: tuple[Mapping, ...]
    blocks: tuple[Block, ...]
    longest_call_seconds: float = 0.0


SCHEMA = 1


def explain(snapshot: Snapshot) -> Explanation:
    """Judge *snapshot*; nothing is read."""
    header, columns = snapshot.header, snapshot.columns
    vmas = list(header.mappings)
    candidates = choose(header.facts, has_vm=bool(columns.secondary))
    facts = Facts(snapshot)
    why_not = {id(vma): eligible.ineligible(vma, header.enabled) for vma in vmas}
    refused = [
        "the mapping has gone" if vma is None else why_not[id(vma)]
        for vma in eligible.mappings_of(columns.address, vmas)
    ]
    may = np.array([not why for why in refused], np.bool_)
    rows = np.flatnonzero(may & ~facts.huge)
    judged = None
    if len(rows):
        # The compiled judgement takes longer to import than a snapshot without eligible blocks takes to explain.
        from secondsight.live.judged import Judged

        judged = Judged(snapshot, rows, candidates)
    blocks = tuple(_block(row, snapshot, facts, judged, why) for row, why in enumerate(refused))
    mappings = _mappings(vmas, columns.address, facts, why_not)
    return Explanation(
        version=header.version,
        schema=SCHEMA,
        pid=header.pid,
        name=header.name,
        kernel=header.facts.release,
        source=header.source,
        missing=header.missing,
        read_seconds=header.seconds,
        rules=tuple(rules.name for rules in candidates.rules),
        open_points=candidates.open_points,
        channels=_channels(snapshot, facts),
        limits=msgspec.to_builtins(header.limits) | {"enabled": header.enabled},
        totals=_totals(blocks, mappings, facts, may),
        mappings=mappings,
        blocks=blocks,
        longest_call_seconds=header.longest_call,
    )


class Facts:
    """Counts of a snapshot's pages by block, int64[N] each; ``X_unknown`` counts pages whose X could not be seen.

    Of a huge block the channels count for all of its pages what its PMD and its first page say; *populated* and what else counts PTEs is 0.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        columns = snapshot.columns
        present = bits.pte_present(columns.pte)
        zero = present & ((columns.pte & bits.PFN_MASK) == 0)
        mapped = present & ~zero
        self.huge = bits.pmd_trans_huge(columns.pmd)
        self.populated: Counts = _count(mapped)
        self.swapped: Counts = _count(bits.is_swap_pte(columns.pte))
        self.shared: Counts = _count(mapped & columns.shared)
        expected = columns.folio_mapcount + ((columns.flags & kpf.SWAPCACHE) != 0)
        self.pins_known = columns.counts_known
        self.pinned: Counts = _count(mapped & columns.page_known & (columns.refcount > expected))
        each, first = mapped | self.huge[:, None], self.huge[:, None]
        young_pte = np.where(first, bits.pte_young(columns.pmd)[:, None], bits.pte_young(columns.pte))
        pte_known, page_known = _of_first(first, columns.pte_known), _of_first(first, columns.page_known)
        self.primary: Counts = _count(each & pte_known & young_pte)
        self.primary_unknown: Counts = _count(each & ~pte_known)
        marks = _of_first(first, (columns.flags & (kpf.REFERENCED | kpf.YOUNG)) != 0)
        self.referenced: Counts = _count(each & page_known & marks)
        self.referenced_unknown: Counts = _count(each & ~page_known)
        young = np.zeros(mapped.shape, np.bool_)
        known = np.ones(mapped.shape, np.bool_)
        for channel in columns.secondary:
            young |= channel.young & channel.known
            known &= channel.known
        self.secondary: Counts = _count(each & young)
        self.secondary_unknown: Counts = _count(each & ~known & ~young)

    def used(self) -> Counts:
        """Pages that any channel calls used, as far as is known; -1 where nothing is known to be and something is unknown."""
        most = np.maximum(np.maximum(self.primary, self.referenced), self.secondary)
        unknown = self.primary_unknown + self.referenced_unknown + self.secondary_unknown
        return np.where((most == 0) & (unknown > 0), -1, most)


def _count(pages: npt.NDArray[np.bool_]) -> Counts:
    """How many of *pages* (bool[N, 512]) each block has."""
    # Eight at a time: of 64 words' bytes of 0 or 1 no sum leaves its byte.
    sums = pages.view(np.uint64).sum(axis=1)
    return sums.view(np.uint8).reshape(-1, 8).sum(axis=1, dtype=np.int64)


def _of_first(huge: npt.NDArray[np.bool_], page: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """*page* bool[N, 512], its first column for all pages of the blocks that are *huge* (bool[N, 1])."""
    return np.where(huge, page[:, :1], page)


def _shown(count: Counts, unknown: Counts, row: int) -> int | None:
    return None if unknown[row] else int(count[row])


def _block(row: int, snapshot: Snapshot, facts: Facts, judged: Judged | None, refused: str) -> Block:
    columns = snapshot.columns
    huge = bool(facts.huge[row])
    populated, swapped = (512, 0) if huge else (int(facts.populated[row]), int(facts.swapped[row]))
    gfn = int(columns.gfn[row])
    if refused or judged is None or judged.place[row] < 0:
        status, known, reason, others, at, wasted = _unjudged(refused)
        wasted_if = False
    else:
        status, known, reason, others, at, wasted = _verdict(
            row, int(judged.place[row]), snapshot, facts, judged
        )
        alone = not wasted and facts.secondary_unknown[row] and judged.guest_alone[judged.place[row]]
        wasted_if = bool(alone) and status == "lack_referenced_page"
        if wasted_if:
            reason = f"{reason}; if only a secondary MMU used it, the pass is wasted"
    return Block(
        address=int(columns.address[row]),
        mapping="huge" if huge else "small" if populated else "swapped" if swapped else "none",
        populated=populated,
        swapped=swapped,
        shared=0 if huge else int(facts.shared[row]),
        pinned=int(facts.pinned[row]) if facts.pins_known else None,
        primary=_shown(facts.primary, facts.primary_unknown, row),
        referenced=_shown(facts.referenced, facts.referenced_unknown, row),
        secondary=_shown(facts.secondary, facts.secondary_unknown, row),
        status=status,
        known=known,
        reason=reason,
        others=others,
        at=at,
        wasted=wasted,
        wasted_if=wasted_if,
        bloat=512 - populated - swapped if status == "succeeded" else 0,
        guest=gfn << 12 if gfn >= 0 else None,
        slot=int(columns.slot[row]) if gfn >= 0 else None,
    )


#: status, known, reason, other statuses, address of the page that decided, wasted pass
_Answer = tuple[str, bool, str, tuple[str, ...], int | None, bool]


def _unjudged(why: str) -> _Answer:
    """Blocks that the first glance ends: mappings passed by (*why* says so), and those a PMD maps already."""
    if why:
        return "ineligible", True, why, (), None, False
    return "page_pmd_mapped", True, reasons.words("page_pmd_mapped"), (), None, False


def _verdict(row: int, place: int, snapshot: Snapshot, facts: Facts, judged: Judged) -> _Answer:
    from secondsight.mm.judgement import Scan

    first = judged.first
    code = Scan(int(first.code[place]))
    others = tuple(sorted({str(Scan(int(c))) for c in judged.codes[place]} - {str(code)}))
    passed = bool(first.scan.passed[place])
    look = first.isolate if passed else first.scan
    stopped = int(look.stopped[place])
    at = (
        int(snapshot.columns.address[row]) + stopped * 4096
        if stopped < 512 and code != Scan.SUCCEED
        else None
    )
    wasted = passed and code in (Scan.LACK_REFERENCED_PAGE, Scan.PAGE_COUNT)
    if wasted and code == Scan.LACK_REFERENCED_PAGE:
        reason = reasons.REFUSAL_AHEAD
    elif wasted:
        reason = reasons.LOST_REFERENCE_AHEAD
    else:
        reason = _reason(
            str(code),
            row,
            snapshot,
            facts,
            int(first.scan.unmapped[place]),
            int(first.scan.referenced[place]),
        )
    known = bool(judged.known[place])
    if not known:
        reason = (
            f"{reason}; or {' / '.join(others)}: it hangs on {_hangs_on(row, place, snapshot, facts, judged)}"
        )
    if code == Scan.SUCCEED and not snapshot.header.counts_known:
        # A pin cannot be seen from procfs: what would succeed is only not refused by anything visible.
        known, others = False, tuple(sorted({*others, "not_suitable_page_count"}))
        reason = f"{reason}, unless a page is pinned (references are not visible from procfs)"
    return str(code), known, reason, others, at, wasted


def _hangs_on(row: int, place: int, snapshot: Snapshot, facts: Facts, judged: Judged) -> str:
    points = []
    if judged.batch_decides[place]:
        points.append("how many activated pages wait in the CPU's LRU batch by then")
    if facts.primary_unknown[row]:
        points.append("the CPU's accessed bits (not in procfs)")
    if facts.referenced_unknown[row]:
        points.append("page flags that could not be read")
    if facts.secondary_unknown[row]:
        points.append(
            next(
                (a.why for a in snapshot.header.secondary if a.why), "a secondary MMU that could not be read"
            )
        )
    return "; ".join(points) or "a rule this kernel does not show"


def _reason(status: str, row: int, snapshot: Snapshot, facts: Facts, unmapped: int, referenced: int) -> str:
    limits = snapshot.header.limits
    if status == "succeeded":
        return "will become one huge page"
    if status == "exceed_none_pte":
        missing = 512 - int(facts.populated[row]) - int(facts.swapped[row])
        return f"{several(missing, 'page is', 'pages are')} missing or zero, max_ptes_none is {limits.max_ptes_none}"
    if status == "exceed_swap_pte":
        return f"{several(int(facts.swapped[row]), 'page is', 'pages are')} swapped out, max_ptes_swap is {limits.max_ptes_swap}"
    if status == "exceed_shared_pte":
        return f"{several(int(facts.shared[row]), 'page is', 'pages are')} shared, max_ptes_shared is {limits.max_ptes_shared}"
    if status == "lack_referenced_page" and unmapped and referenced:
        return f"{several(referenced, 'page')} used; with pages in swap, 256 are needed"
    if status == "not_suitable_page_count":
        held = several(
            int(facts.pinned[row]), "page is held by more than its", "pages are held by more than their"
        )
        return f"{held} mappings: {reasons.words(status)}"
    return reasons.words(status)


def _mappings(
    vmas: list[Vma], addresses: npt.NDArray[np.uint64], facts: Facts, why_not: dict[int, str]
) -> tuple[Mapping, ...]:
    found = []
    for vma in vmas:
        low, high = np.searchsorted(addresses, np.array([vma.start, vma.end], np.uint64))
        blocks = max(vma.block_end - vma.first_block, 0) // BLOCK
        huge = int(facts.huge[low:high].sum())
        advice = "MADV_HUGEPAGE" if "hg" in vma.flags else "MADV_NOHUGEPAGE" if "nh" in vma.flags else ""
        found.append(
            Mapping(
                vma.start,
                vma.end,
                vma.perms,
                vma.name,
                blocks,
                max(blocks - int(high - low), 0),
                huge,
                why_not[id(vma)],
                advice,
            )
        )
    return tuple(found)


def _totals(
    blocks: tuple[Block, ...], mappings: tuple[Mapping, ...], facts: Facts, may: npt.NDArray[np.bool_]
) -> Totals:
    resident = np.where(facts.huge, 512, facts.populated)
    inside = int(resident[may].sum())
    huge = int(facts.huge[may].sum())
    by_status: dict[str, int] = {}
    for block in blocks:
        by_status[block.status] = by_status.get(block.status, 0) + 1
    return Totals(
        mappings=len(mappings),
        blocks=len(blocks),
        eligible_blocks=int(may.sum()),
        huge_blocks=int(facts.huge.sum()),
        resident=int(resident.sum()) * 4096,
        coverage=huge * 512 / inside if inside else None,
        collapsible=sum(block.status == "succeeded" and block.known for block in blocks),
        collapsible_if=sum(
            "succeeded" in block.others or (block.status == "succeeded" and not block.known)
            for block in blocks
        ),
        bloat=sum(block.bloat for block in blocks) * 4096,
        wasted=sum(block.wasted for block in blocks),
        wasted_if=sum(block.wasted_if for block in blocks),
        unknown=sum(not block.known for block in blocks),
        by_status=dict(sorted(by_status.items(), key=lambda item: -item[1])),
    )


def _channels(snapshot: Snapshot, facts: Facts) -> dict[str, str]:
    """How well each channel could be seen."""

    if not len(snapshot.columns.address):
        return dict.fromkeys(("PRIMARY", "REFERENCED", "SECONDARY"), "nothing to see: no block holds memory")

    def seen(unknown: Counts, why: str) -> str:
        if not unknown.any():
            return "known"
        pages = int(np.where(facts.huge, 512, facts.populated).sum())
        return f"unknown for {int(unknown.sum()):,} of {several(pages, 'page')}: {why}"

    why = next((answer.why for answer in snapshot.header.secondary if answer.why), "")
    return {
        "PRIMARY": seen(facts.primary_unknown, "procfs has no accessed bit"),
        "REFERENCED": seen(facts.referenced_unknown, "page flags may not be read (root, CAP_SYS_ADMIN)"),
        "SECONDARY": seen(facts.secondary_unknown, why)
        if snapshot.header.secondary
        else "known: no MMU notifier is registered",
    }
