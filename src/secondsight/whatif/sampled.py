"""Policies and profiles compared on samples: what becomes of each block, where that is known, and figures as ranges.

samples --least--> replay \\
        --most---> replay --> equal in both: known       else: open
coverage: uses (a page in an interval) that found their block huge, of all uses; a range over what could not be known
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from secondsight import __version__
from secondsight.errors import UsageError
from secondsight.geometry import PMD_SHIFT
from secondsight.mm.config import HostConfig
from secondsight.mm.rules import Rules
from secondsight.plural import pluralize
from secondsight.policy import UNLIMITED
from secondsight.replay.clock import alarms, configured, hardly_woke
from secondsight.replay.configuration import HOST, Backing, Configuration
from secondsight.replay.engine import Progress, replay
from secondsight.replay.layout import discover
from secondsight.replay.metrics import BlockFigures, Result
from secondsight.replay.sampled import Reading, SampledEvents
from secondsight.trace.sampled import SampleProvenance
from secondsight.trace.samples import Samples
from secondsight.whatif.combine import Combination, PolicyLike, combinations, parse_budget

SCHEMA = 1
Ints = npt.NDArray[np.int64]
#: Signals that samples do not hold, and why.
_REFUSED = {
    "walks": "page walks, or accesses counted in their place",
    "future": "how many accesses are still to come",
}


class Span(msgspec.Struct, frozen=True):
    """At least, at most."""

    low: float
    high: float

    @classmethod
    def of(cls, *values: float) -> Span:
        """The smallest that holds *values*."""
        return cls(min(values), max(values))


class HotBlocks(msgspec.Struct, frozen=True, kw_only=True):
    """The fewest blocks that hold nine tenths of the known uses, and those used at least half as much as the least of them: where that
    line falls between equals is chance. *blocks*: their addresses, rising. *uses* int of each of
    ``SampledComparison.blocks``: at least, at most. *known*: of how many blocks every use is known."""

    blocks: list[int]
    uses: list[tuple[int, int]]
    known: int


class SampledRow(msgspec.Struct, frozen=True, kw_only=True):
    """One policy under one profile. *known*: blocks of which both readings make the same; *huge*: blocks huge at the end; *coverage*:
    None where no use at all is known; *bloat* bytes; *wasted*: None where it is not known what secondary MMUs used, without which a replay
    wastes no pass; *refused*: blocks left small at the end by khugepaged's last answer, in each
    reading; *decisions*: of each block ``huge``, ``small`` or ``open``, in the order of ``SampledComparison.blocks``."""

    label: str
    policy: str
    rules: str
    blocks: int
    known: int
    huge: Span
    coverage: Span | None
    bloat: Span
    collapses: Span
    wasted: Span | None
    refused: dict[Reading, dict[str, int]]
    unvisited: Span
    decisions: list[str]


class SampledComparison(msgspec.Struct, frozen=True, kw_only=True):
    """Everything; *blocks*: (space, address) of each block; *uses*: pages in use, summed over the intervals."""

    schema: int = SCHEMA
    tool: str
    samples: str
    time_scale: float
    seconds: float
    provenance: SampleProvenance
    uses: Span
    hot: HotBlocks
    blocks: list[tuple[int, int]]
    rows: list[SampledRow]
    notes: list[str]


def compare_samples(
    samples: Samples,
    policies: Sequence[PolicyLike],
    rules: Sequence[str | Rules],
    *,
    config: HostConfig = HOST,
    budget: int | str | None = None,
    time_scale: float = 1.0,
    backing: Backing = "trace",
    progress: Progress | None = None,
) -> SampledComparison:
    """Replay *samples* under every combination, in both readings of what could not be known.

    :raises UsageError: what is asked for does not exist, makes no sense, or needs what samples do not hold.
    :raises InputError: they are damaged.
    """
    chosen = combinations(policies, rules, config, budget)
    for combination in chosen:
        for need in sorted(combination.make().needs & _REFUSED.keys()):
            raise UsageError(
                f"policy {combination.policy} asks for {_REFUSED[need]}, which samples do not hold; "
                "record accesses (`record run`, `record vm`)"
            )
    results: dict[Reading, Result] = {}
    sources: dict[Reading, SampledEvents] = {
        "least": SampledEvents(samples, "least"),
        "most": SampledEvents(samples, "most"),
    }
    for turn, (reading, source) in enumerate(sources.items()):
        results[reading] = replay(
            source,
            _subjects(source, chosen, backing),
            time_scale=time_scale,
            progress=None if progress is None else _half(progress, turn),
        )
    span = sources["least"].span
    first = results["least"].data[0].blocks
    address = first.number << PMD_SHIFT
    hot = _hot(first, results["most"].data[0].blocks)
    unasked = _unknown(samples, "secondary")
    uses = Span(*(float(results[reading].configurations[0].total.accesses) for reading in ("least", "most")))
    return SampledComparison(
        tool=f"secondsight {__version__}",
        samples=str(samples.path),
        time_scale=time_scale,
        seconds=(span[1] - span[0]) / 1e9,
        provenance=samples.provenance,
        uses=uses,
        hot=hot,
        blocks=list(zip(first.space.tolist(), address.tolist(), strict=True)),
        rows=[_row(combination, results, i, unasked) for i, combination in enumerate(chosen)],
        notes=[
            *_notes(samples, uses, hot),
            *_coupled(chosen),
            *_coarse(samples, chosen, time_scale),
            *_idle(results["least"], chosen, (span[1] - span[0]) / 1e9 * time_scale),
        ],
    )


def _hot(least: BlockFigures, most: BlockFigures, share: float = 0.9) -> HotBlocks:
    """Where the known uses are."""
    order = np.argsort(-least.accesses, kind="stable")
    covered = np.cumsum(least.accesses[order])
    total = int(covered[-1]) if len(covered) else 0
    least_of = int(least.accesses[order[int(np.searchsorted(covered, share * total))]]) if total else 0
    needed = int((least.accesses >= max(least_of / 2, 1)).sum()) if total else 0
    address = least.number << PMD_SHIFT
    return HotBlocks(
        blocks=np.sort(address[order[:needed]]).tolist(),
        uses=list(zip(least.accesses.tolist(), most.accesses.tolist(), strict=True)),
        known=int((least.accesses == most.accesses).sum()),
    )


def _half(progress: Progress, turn: int) -> Progress:
    return lambda done, total: progress(turn * total + done, 2 * total)


def _subjects(source: SampledEvents, chosen: Sequence[Combination], backing: Backing) -> list[Configuration]:
    footprint = discover(source).rows if any(combination.budget is not None for combination in chosen) else 0
    return [
        Configuration(
            combination.label, combination.rules, config=combination.config, policy=combination.make, backing=backing,
            budget=UNLIMITED if combination.budget is None else parse_budget(combination.budget, footprint),
        )
        for combination in chosen
    ]  # fmt: skip


def coverage(least: BlockFigures, most: BlockFigures) -> Span | None:
    """The share of uses that found their block huge, over everything that could not be known; None where no use is known.

    Of a block, the uses that are known landed huge at least as often as in the worse of the two readings says, and those that are not
    may have been, each, or not.
    """
    more = most.accesses - least.accesses
    small = least.accesses - least.accesses_huge, most.accesses - most.accesses_huge
    sure_huge = np.minimum(least.accesses_huge, np.maximum(most.accesses_huge - more, 0)).sum()
    sure_small = np.minimum(small[0], np.maximum(small[1] - more, 0)).sum()
    may_huge = np.maximum(least.accesses_huge, most.accesses_huge).sum()
    may_small = np.maximum(*small).sum()
    if not least.accesses.sum():
        return None
    return Span(
        float(sure_huge / (sure_huge + may_small)) if sure_huge + may_small else 0.0,
        float(may_huge / (may_huge + sure_small)) if may_huge + sure_small else 0.0,
    )


def _row(combination: Combination, results: dict[Reading, Result], index: int, unasked: bool) -> SampledRow:
    """Row *index*; *unasked*: it is not known what secondary MMUs used."""
    least, most = (results[reading].data[index].blocks for reading in ("least", "most"))
    totals = [results[reading].configurations[index].total for reading in ("least", "most")]
    same = least.huge == most.huge
    words = np.where(same, np.where(least.huge, "huge", "small"), "open")
    return SampledRow(
        label=combination.label,
        policy=combination.policy,
        rules=combination.rules.title,
        blocks=len(same),
        known=int(same.sum()),
        huge=Span(float((least.huge & most.huge).sum()), float((least.huge | most.huge).sum())),
        coverage=coverage(least, most),
        bloat=Span.of(*(float(total.bloat) for total in totals)),
        collapses=Span.of(*(float(total.collapses) for total in totals)),
        wasted=None
        if unasked and any(total.visits for total in totals)
        else Span.of(*(float(total.wasted) for total in totals)),
        refused={"least": totals[0].refused, "most": totals[1].refused},
        unvisited=Span.of(*(float(total.unvisited) for total in totals)),
        decisions=words.tolist(),
    )


def _unknown(samples: Samples, channel: str) -> bool:
    """Whether *channel* cannot tell of some page, at some look after the first, whether it was used."""
    return any(number and bool(look.unknown(channel).any()) for number, look in enumerate(samples.looks()))


def _without_use(samples: Samples) -> str:
    """What it rests on that no use is known: the channels that are open, and why they were not seen."""
    seen = {channel.name: channel for channel in samples.provenance.channels}
    channels = [name for name in ("primary", "secondary") if _unknown(samples, name)]
    if not channels:
        return "no page was used: no channel called any used, and none is open"
    told = ", ".join(
        name.upper() + (f" (not seen: {seen[name].why})" if name in seen and not seen[name].seen else "")
        for name in channels
    )
    return (
        f"use is unknown: no channel called a page used, and {told} cannot tell of some; coverage is not known, and a block's outcome only "
        "where use does not matter"
    )


def _by_touch_alone(samples: Samples, hot: HotBlocks) -> bool:
    """Whether all known uses of the *hot* blocks are pages that came: new ones, which their first touch made."""
    held: dict[int, int] = {}
    blocks = np.array(hot.blocks, np.uint64)
    for number, look in enumerate(samples.looks()):
        mine = np.isin(look["address"], blocks)
        addresses = look["address"][mine].tolist()
        present = look["present"][mine]
        before = np.array([held.get(address, 0) for address in addresses], np.int64)
        came = np.maximum(present - before, 0)
        used = np.maximum(np.maximum(look["primary_used"], look["secondary_used"]), look["damon_used"])[mine]
        if number and (used > came).any():
            return False
        held = dict(zip(addresses, present.tolist(), strict=True))
    return bool(hot.blocks)


def _notes(samples: Samples, uses: Span, hot: HotBlocks) -> list[str]:
    """What a reader of the ranges should know."""
    shared: set[int] = set()
    marked: set[int] = set()
    huge = estimated = False
    for number, look in enumerate(samples.looks()):
        shared.update(look["address"][look["shared"] > 0].tolist())
        alone = (look["referenced_set"] > 0) & (look["primary_set"] + look["secondary_set"] == 0)
        marked.update(look["address"][alone].tolist())
        huge |= bool(look["form"].any())
        estimated |= number > 0 and bool((look["damon_used"] + look["damon_unused"]).any())
    notes = []
    if not uses.low:
        notes.append(_without_use(samples))
    elif (others := len(hot.uses) - hot.known) and _by_touch_alone(samples, hot):
        notes.append(
            "what is told as in use rests on first touches alone (pages that came); of "
            f"{pluralize(others, 'block')} it is not known whether what they hold is used, and that may be more"
        )
    notes.append(
        "samples hold neither advice nor how mappings lie: blocks under MADV_NOHUGEPAGE, and of mappings that no huge page fits, are "
        "replayed as eligible; `explain` tells of them"
    )
    if estimated:
        notes.append(
            "DAMON's counts are estimates from samples; where they stand for use, the ranges are no bounds"
        )
    if shared:
        notes.append(
            f"{pluralize(len(shared), 'block holds', 'blocks hold')} pages that others map too; replayed as not shared"
        )
    if marked:
        notes.append(
            f"{pluralize(len(marked), 'block')} had pages marked referenced (PG_referenced, PG_young) that no page table called used; "
            "khugepaged may have taken those for used, and this replay does not"
        )
    if huge:
        notes.append(
            "of a huge block one use is known in an interval where its bit was set, and up to 512 may have been"
        )
    return notes


def _coupled(chosen: Sequence[Combination]) -> list[str]:
    """Whose promotions are limited, so that what one block gets another does not."""
    limited = [
        combination.label
        for combination in chosen
        if combination.budget is not None or getattr(combination.make(), "at_most", None)
    ]
    if not limited:
        return []
    return [
        f"a budget, or a limit on promotions, couples blocks ({', '.join(limited)}): there the two readings are two cases and no bound"
    ]


def _coarse(samples: Samples, chosen: Sequence[Combination], time_scale: float) -> list[str]:
    """Who wakes more often than the samples look: an interval's uses stand at its beginning, and the wake-ups in it see no others."""
    between = samples.provenance.interval * time_scale
    notes: dict[str, None] = {}
    for combination in chosen:
        for alarm in alarms(policy := combination.make(), configured(policy, combination.config)):
            if alarm.interval < between and not (alarm.policy and policy.passive):
                who = policy.name if alarm.policy else "khugepaged"
                notes[
                    f"{who} wakes every {alarm.interval / 1e9:g} s, and the samples are {between / 1e9:g} s of its clock apart: an "
                    "interval's uses stand at its beginning, so that what depends on how they spread over it comes out otherwise"
                ] = None
    return list(notes)


def _idle(result: Result, chosen: Sequence[Combination], clock: float) -> list[str]:
    """Whether khugepaged had time to do anything in *clock* seconds."""
    wakes = [
        s.khugepaged_wakes
        for combination, s in zip(chosen, result.configurations, strict=True)
        if combination.make().khugepaged
    ]
    return [note] if wakes and (note := hardly_woke(min(wakes), clock)) else []


__all__ = ["SampledComparison", "SampledRow", "Span", "compare_samples", "coverage"]
