"""Why khugepaged will or will not collapse each block: the model's own judgement of a snapshot, in words.

The verdict is ``mm.khugepaged.verdict``'s scan, zap and isolate under the profile of the kernel that was probed. Where a channel is
unknown, or the kernel leaves a rule open, it is judged in every reading: a verdict is *known* only if all agree.
"""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from secondsight.geometry import (
    ANON_ORDERS,
    HPAGE_PMD_NR,
    KHUGEPAGED_MAX_PTES_LIMIT,
    PAGE_SIZE,
    PMD_ORDER,
    PMD_SIZE,
    kb_of_order,
)
from secondsight.live.judge.answer import SCHEMA, AttemptsAhead, Block, Explanation, Mapping, Totals
from secondsight.live.judge.block_verdicts import BlockVerdicts
from secondsight.live.judge.choose_profiles import choose_profiles
from secondsight.live.judge.guest_ram import guest_ram
from secondsight.live.judge.page_counts import Counts, PageCounts
from secondsight.live.read import eligible
from secondsight.live.read.capture import Snapshot
from secondsight.live.read.thp_disabled import refusal
from secondsight.live.read.vma import Vma
from secondsight.plural import pluralize


def explain(snapshot: Snapshot, supposed: list[str] | None = None) -> Explanation:
    """Judge *snapshot*, under the switches *supposed* where there are any (``suppose.py``); nothing is read.

    :raises UsageError: *supposed* holds no switch.
    """
    if supposed:
        from secondsight.live.judge.suppose import suppose

        snapshot = suppose(snapshot, supposed)
    header, columns = snapshot.header, snapshot.columns
    vmas = list(header.mappings)
    candidates = choose_profiles(header.facts, has_vm=bool(columns.secondary))
    facts = PageCounts(snapshot)
    rules = candidates.rules[0]
    parts = rules.mthp_collapse
    judges = {
        id(vma): eligible.judge(
            vma,
            header.enabled,
            header.switches,
            parts=parts,
            files=rules.file_collapse,
            any_size=rules.shmem_any_size,
        )
        for vma in vmas
    }
    for vma in vmas:
        why = refusal(vma, header.surroundings.thp_disabled)
        if why and judges[id(vma)].refused in ("", eligible.NOT_ELIGIBLE):
            judges[id(vma)] = judges[id(vma)]._replace(refused=why)
    holders = eligible.mappings_of(columns.address, vmas)
    refused = ["the mapping has gone" if vma is None else judges[id(vma)].refused for vma in holders]
    may = np.array([not why for why in refused], np.bool_)
    files = np.array(
        [vma is not None and not judges[id(vma)].backing.page_table_scan for vma in holders], np.bool_
    )
    rows = np.flatnonzero(may & ~facts.pmd_mapped & ~files)
    judged = None
    if len(rows):
        # The compiled judgement takes longer to import than a snapshot without eligible blocks takes to explain.
        from secondsight.live.judge.judge_snapshot import Judged

        judged = Judged(snapshot, rows, candidates)
    verdicts = BlockVerdicts(snapshot, facts, judged, np.flatnonzero(files & may), rules)
    blocks = tuple(
        verdicts.block(row, vma, why) for row, (vma, why) in enumerate(zip(holders, refused, strict=True))
    )
    mappings = _mappings(snapshot, facts, judges, parts)
    return Explanation(
        version=header.version,
        schema=SCHEMA,
        pid=header.pid,
        name=header.name,
        kernel=header.facts.release,
        source=header.source,
        missing=header.missing,
        read_seconds=header.seconds,
        rules=tuple(rules.title for rules in candidates.rules),
        open_points=candidates.open_points,
        channels=_channels(snapshot, facts),
        limits=msgspec.to_builtins(header.limits) | {"enabled": header.enabled},
        totals=_totals(
            blocks, mappings, facts, may, _beside_huge(facts, holders), _sizes(snapshot, facts, slice(None))
        ),
        notes=(*_notes(snapshot, mappings), *_without_effect(supposed or [], parts)),
        mappings=mappings,
        blocks=blocks,
        longest_call_seconds=header.longest_call,
        registered=header.surroundings.registered,
        pace=_pace(snapshot, mappings),
        supposed=tuple(supposed or ()),
        guest_ram=guest_ram(snapshot, facts, mappings, blocks),
        evidence=candidates.evidence,
    )


def _sizes(snapshot: Snapshot, facts: PageCounts, rows: slice) -> dict[str, int]:
    """Bytes of the blocks *rows* by the size of their folio."""
    pages = snapshot.columns.sizes[rows].sum(axis=0, dtype=np.int64)
    whole = int(facts.huge[rows].sum()) * HPAGE_PMD_NR
    pages[PMD_ORDER] -= whole
    names = [*(f"{kb_of_order(order)}kB" for order in range(PMD_ORDER + 1)), "part"]
    sizes = {name: int(count) * PAGE_SIZE for name, count in zip(names, pages, strict=True) if count}
    # Where page flags may not be read, what is not a PMD's has no size that could be told.
    unread = int(facts.populated[rows].sum()) - int(pages.sum())
    return (
        sizes
        | ({"PMD": whole * PAGE_SIZE} if whole else {})
        | ({"unread": unread * PAGE_SIZE} if unread > 0 else {})
    )


def _pace(snapshot: Snapshot, mappings: tuple[Mapping, ...]) -> str:
    from secondsight.live.judge.pace import pace, words

    surroundings, limits = snapshot.header.surroundings, snapshot.header.limits
    blocks = sum(mapping.blocks for mapping in mappings if not mapping.refused)
    return words(pace(limits, blocks, surroundings.ahead), limits, surroundings.registered) if blocks else ""


def _notes(snapshot: Snapshot, mappings: tuple[Mapping, ...]) -> tuple[str, ...]:
    """What the kernel makes of the limits where smaller sizes are tried."""
    most = snapshot.header.limits.max_ptes_none
    if 0 < most < KHUGEPAGED_MAX_PTES_LIMIT and any(
        min(each.orders, default=PMD_ORDER) < PMD_ORDER for each in mappings
    ):
        return (
            f"max_ptes_none is {most}: below 2 MiB the kernel takes anything but {KHUGEPAGED_MAX_PTES_LIMIT} for 0, and warns once",
        )
    return ()


def _without_effect(supposed: list[str], parts: bool) -> tuple[str, ...]:
    """What of the switches *supposed* khugepaged of this kernel does not ask."""
    whole = f"hugepages-{kb_of_order(PMD_ORDER)}kB/enabled"
    smaller = [text for text in supposed if text.startswith("hugepages-") and not text.startswith(whole)]
    named = [text for text in smaller if text.partition("=")[0].endswith("/enabled")]
    if parts or not named:
        return ()
    return (
        f"{', '.join(named)}: no effect on khugepaged of this kernel, which makes 2 MiB pages alone (smaller ones from 7.2 on); "
        "it decides what faults allocate",
    )


def _beside_huge(facts: PageCounts, holders: list[Vma | None]) -> npt.NDArray[np.bool_]:
    """Blocks of the mappings that hold a transparent huge page, whatever the switches say of them now; bool[N]."""
    thp = facts.huge & np.array([vma is None or not eligible.no_thp(vma) for vma in holders], np.bool_)
    holding = {id(holders[row]) for row in np.flatnonzero(thp).tolist()}
    return np.array(
        [
            id(vma) in holding and (vma is not None or bool(own))
            for vma, own in zip(holders, thp, strict=True)
        ],
        np.bool_,
    )


def _orders(vma: Vma, snapshot: Snapshot, judged: eligible.Eligibility, parts: bool) -> tuple[int, ...]:
    """The orders that khugepaged may collapse *vma* to."""
    if judged.refused:
        return ()
    if not judged.backing.page_table_scan:
        return (PMD_ORDER,)
    header = snapshot.header
    mask = eligible.collapse_orders(vma, header.enabled, header.switches, parts=parts)
    return tuple(order for order in ANON_ORDERS if mask >> order & 1)


def _mappings(
    snapshot: Snapshot, facts: PageCounts, judges: dict[int, eligible.Eligibility], parts: bool
) -> tuple[Mapping, ...]:
    judged_mappings = []
    vmas = snapshot.header.mappings
    addresses, cached = snapshot.columns.address, snapshot.columns.cached
    for vma in vmas:
        low, high = np.searchsorted(addresses, np.array([vma.start, vma.end], np.uint64)).tolist()
        blocks = max(vma.block_end - vma.first_block, 0) // PMD_SIZE
        huge = int(facts.huge[low:high].sum())
        judged = judges[id(vma)]
        held = cached[low:high]
        mapped = vma.resident
        asked = (
            vma.of_file and not judged.backing.page_table_scan and (not len(held) or bool((held >= 0).all()))
        )
        judged_mappings.append(
            Mapping(
                start=vma.start,
                end=vma.end,
                perms=vma.perms,
                name=vma.name,
                blocks=blocks,
                empty=max(blocks - (high - low), 0),
                huge=huge,
                refused=judged.refused,
                advice="MADV_HUGEPAGE"
                if "hg" in vma.flags
                else "MADV_NOHUGEPAGE"
                if "nh" in vma.flags
                else "",
                backing=str(judged.backing),
                by=judged.by,
                forced=judged.forced,
                resident=(int(facts.populated[low:high].sum()) + huge * HPAGE_PMD_NR) * PAGE_SIZE
                if mapped is None
                else mapped,
                cached=int(held.sum()) * PAGE_SIZE + (vma.cached_beside or 0)
                if asked and len(held)
                else None,
                blocks_only=tuple(
                    name
                    for name, exact in (("resident", mapped), ("cached", vma.cached_beside))
                    if exact is None and vma.size != blocks * PMD_SIZE
                ),
                sizes=_sizes(snapshot, facts, slice(low, high)),
                orders=_orders(vma, snapshot, judged, parts),
            )
        )
    return tuple(judged_mappings)


def _totals(
    blocks: tuple[Block, ...],
    mappings: tuple[Mapping, ...],
    facts: PageCounts,
    may: npt.NDArray[np.bool_],
    beside_huge: npt.NDArray[np.bool_],
    sizes: dict[str, int],
) -> Totals:
    resident = np.where(facts.huge, HPAGE_PMD_NR, facts.populated)
    skipped = beside_huge & ~may
    inside = int(resident[may | skipped].sum())
    huge = int(facts.huge[may | skipped].sum())
    by_status: dict[str, int] = {}
    for block in blocks:
        by_status[block.status] = by_status.get(block.status, 0) + 1
    return Totals(
        mappings=len(mappings),
        blocks=len(blocks),
        eligible_blocks=int((may | skipped).sum()),
        skipped_blocks=int(skipped.sum()),
        huge_blocks=int(facts.huge.sum()),
        resident=int(resident.sum()) * PAGE_SIZE,
        coverage=huge * HPAGE_PMD_NR / inside if inside else None,
        collapsible=sum(block.status == "succeeded" and block.known for block in blocks),
        collapsible_if=sum(
            "succeeded" in block.others or (block.status == "succeeded" and not block.known)
            for block in blocks
        ),
        bloat=sum(block.bloat for block in blocks if block.status == "succeeded" and block.known) * PAGE_SIZE,
        bloat_if=sum(block.bloat for block in blocks if not block.known) * PAGE_SIZE,
        wasted=sum(block.wasted for block in blocks),
        wasted_if=sum(block.wasted_if for block in blocks),
        unknown=sum(not block.known for block in blocks),
        sizes=sizes,
        attempts=_attempts(blocks),
        by_status=dict(sorted(by_status.items(), key=lambda item: -item[1])),
    )


def _attempts(blocks: tuple[Block, ...]) -> tuple[AttemptsAhead, ...]:
    """The attempts of all *blocks*, by order, the largest first."""
    sums_by_order: dict[int, list[int]] = {}
    for block in blocks:
        for each in block.attempts:
            sums = sums_by_order.setdefault(each.order, [0, 0])
            sums[0] += each.begun
            sums[1] += each.refused
    return tuple(AttemptsAhead(order, *sums_by_order[order]) for order in sorted(sums_by_order, reverse=True))


def _channels(snapshot: Snapshot, facts: PageCounts) -> dict[str, str]:
    """How well each channel could be seen."""

    if not len(snapshot.columns.address):
        return dict.fromkeys(("PRIMARY", "REFERENCED", "SECONDARY"), "nothing to see: no block holds memory")

    unmapped = int(facts.unmapped.sum())
    mapped = int(np.where(facts.huge, HPAGE_PMD_NR, facts.populated).sum())
    # Whoever maps those pages may use them; no verdict on such memory asks.
    beside = f"; {unmapped:,} in the page cache are not mapped here: unknown" if unmapped else ""

    def seen(unknown: Counts, why: str) -> str:
        here = int(unknown.sum()) - unmapped
        if here:
            return f"unknown for {here:,} of {pluralize(mapped, 'page')}: {why}{beside}"
        if unmapped and not mapped:
            return f"unknown: no page is mapped here, {unmapped:,} are in the page cache"
        return f"known{beside}"

    count = int((facts.either * (facts.primary_unknown > 0)).sum())
    either = (
        f"; {count:,} used or referenced, by smaps' sums, which of the two they do not say" if count else ""
    )
    why = next((answer.why for answer in snapshot.header.secondary if answer.why), "")
    no_mark = (
        "page flags may not be read (root, CAP_SYS_ADMIN)"
        if facts.flags_unread.any()
        else "PG_referenced is not set, and PG_young only kernel memory shows"
    )
    return {
        "PRIMARY": seen(facts.primary_unknown, f"procfs has no accessed bit{either}"),
        "REFERENCED": seen(facts.referenced_unknown, no_mark),
        "SECONDARY": seen(facts.secondary_unknown, why)
        if snapshot.header.secondary or unmapped
        else "known: no MMU notifier is registered",
    }
