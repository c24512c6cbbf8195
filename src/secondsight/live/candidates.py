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
from secondsight.geometry import HPAGE_PMD_NR, PMD_SHIFT
from secondsight.live import eligible, reasons
from secondsight.live.capture import Snapshot
from secondsight.live.choose import choose
from secondsight.live.page_counts import PageCounts
from secondsight.live.view import to_view
from secondsight.live.vma import Vma
from secondsight.mm.judgement import Scan, scan
from secondsight.policy.protocol import Look, Policy

I64 = npt.NDArray[np.int64]

#: what a running process cannot be asked for without changing it, or at all
_CANNOT = {
    "clear_young": "clears accessed bits at every look, which would change what the kernel's own reclaim sees",
    "walks": "needs page walk counts, which no interface gives by block",
    "future": "needs the accesses still to come",
}
OVERRIDE = "--override collapses it all the same"
PRCTL = "prctl PR_SET_THP_DISABLE: the kernel refuses MADV_COLLAPSE as well"


class Choice(msgspec.Struct, frozen=True):
    """One chosen block: where, pages present, pages known to be used (None: unknown), pages that would be added."""

    address: int
    populated: int
    used: int | None
    added: int


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """*advised*: only MADV_HUGEPAGE mappings; *certain*: only blocks whose use is known; *override*: also against the administrator's
    switches; *min_populated*: pages a block must hold; *within*: only these addresses."""

    advised: bool = False
    certain: bool = False
    override: bool = False
    min_populated: int = 1
    within: tuple[int, int] | None = None


class Selection(NamedTuple):
    """*chosen* in order; *left*: blocks left alone by reason; *overridden*: chosen blocks by the switch that is overridden; *considered*:
    blocks that hold anything; *vmas*: the mappings that may be collapsed."""

    chosen: list[Choice]
    left: dict[str, int]
    overridden: dict[str, int]
    considered: int
    vmas: list[Vma]


def check_policy(policy: Policy) -> None:
    """Refuse a policy that a running process cannot feed, or that makes nothing huge by itself.

    Raises:
        UsageError: says why, and what to do.
    """
    for need in sorted(policy.needs - {"young"}):
        raise UsageError(
            f"policy {policy.name}: {_CANNOT.get(need, f'needs {need}')}; replay a recorded trace under it instead"
        )
    if policy.name != "khugepaged" and (policy.passive or policy.faults == "huge"):
        raise UsageError(
            f"policy {policy.name}: decides about faults, not about memory that is there; use khugepaged or madv_collapse"
        )


def unfit(vma: Vma, enabled: str, thp_enabled: bool | None) -> tuple[str, str]:
    """(why *vma* cannot be collapsed at all, why the administrator would not have it); each empty if it is not so.

    *thp_enabled*: what ``/proc/PID/status`` says, None where it does not.
    """
    unasked = msgspec.structs.replace(vma, eligible=None)
    hard = eligible.ineligible(unasked, "always")
    if not hard and thp_enabled is False:
        hard = PRCTL
    return hard, "" if hard else eligible.ineligible(vma, enabled)


def thp_enabled(status: bytes) -> bool | None:
    """``THP_enabled`` of ``/proc/PID/status``: False under PR_SET_THP_DISABLE; None where the kernel does not print it (before 6.3)."""
    for line in status.splitlines():
        if line.startswith(b"THP_enabled:"):
            return line.split()[1:] != [b"0"]
    return None


def select(snapshot: Snapshot, policy: Policy, wanted: Wanted, status: bytes = b"") -> Selection:
    """The blocks that *policy* makes huge, in its order, and why not the others. *status* is ``/proc/PID/status``.

    ``khugepaged`` is carried out here: blocks that its scan passes, those known to be used most first.
    """
    columns, vmas = snapshot.columns, list(snapshot.header.mappings)
    facts = PageCounts(snapshot)
    disabled = thp_enabled(status)
    verdicts = {id(vma): unfit(vma, snapshot.header.enabled, disabled) for vma in vmas}
    why = np.full(len(columns.address), "", object)
    overrides: dict[int, str] = {}
    for row, vma in enumerate(eligible.mappings_of(columns.address, vmas)):
        hard, soft = ("the mapping has gone", "") if vma is None else verdicts[id(vma)]
        advised = vma is not None and "hg" in vma.flags
        if hard:
            why[row] = hard
        elif facts.huge[row]:
            why[row] = "huge already"
        elif wanted.advised and not advised:
            why[row] = "no MADV_HUGEPAGE (--advised)"
        elif soft and not wanted.override:
            why[row] = f"{soft}: {OVERRIDE}"
        elif vma is not None:
            why[row] = _held_back(row, snapshot, facts, vma, wanted)
            if soft:
                overrides[row] = soft
    rows = np.flatnonzero(why == "")
    if policy.khugepaged:
        chosen = _as_khugepaged(snapshot, rows, wanted, policy, why)
    else:
        chosen = rows[_asked(policy, snapshot, facts, rows)]
    used = facts.used()
    if wanted.certain:
        unsure = chosen[used[chosen] <= 0]
        why[unsure] = "not known to be used (--certain)"
        chosen = chosen[used[chosen] > 0]
    why[chosen] = "chosen"
    why[why == ""] = f"policy {policy.name} did not choose it"
    left = Counter(text for text in why.tolist() if text != "chosen")
    picked = [
        Choice(
            int(columns.address[row]),
            int(facts.populated[row]),
            int(used[row]) if used[row] >= 0 else None,
            HPAGE_PMD_NR - int(facts.populated[row]) + int(facts.shared[row]),
        )
        for row in chosen.tolist()
    ]
    overridden = Counter(overrides[row] for row in chosen.tolist() if row in overrides)
    open_to = [vma for vma in vmas if not verdicts[id(vma)][0] and _open(vma, verdicts[id(vma)][1], wanted)]
    return Selection(picked, dict(left.most_common()), dict(overridden), len(why), open_to)


def _open(vma: Vma, soft: str, wanted: Wanted) -> bool:
    return (wanted.override or not soft) and (not wanted.advised or "hg" in vma.flags)


def _held_back(row: int, snapshot: Snapshot, facts: PageCounts, vma: Vma, wanted: Wanted) -> str:
    """Why MADV_COLLAPSE would refuse this block, or has too little to work on; empty if neither."""
    populated, swapped = int(facts.populated[row]), int(facts.swapped[row])
    for kind in FAILING:
        # Swap-in answers that it failed (do_swap_page), and so does the collapse.
        if facts.has(kind, row):
            return f"{kind.name.lower()} entries in it: swap-in, and the collapse, fail there"
    if not populated:
        return "nothing present (all of it is in swap)" if swapped else "nothing present"
    if populated < wanted.min_populated:
        return f"fewer than {wanted.min_populated} pages present (--min-populated)"
    # __collapse_huge_page_isolate counts holes and zero pages against userfaultfd even for MADV_COLLAPSE.
    if vma.uffd_armed and populated + swapped < HPAGE_PMD_NR:
        return "userfaultfd is armed: the kernel fills no hole there"
    if (snapshot.columns.pte[row] & bits.UFFD_WP).any():
        return "userfaultfd write-protects a page"
    return ""


def _as_khugepaged(
    snapshot: Snapshot, rows: I64, wanted: Wanted, policy: Policy, why: npt.NDArray[np.object_]
) -> I64:
    """The blocks among *rows* that khugepaged's scan passes; into *why* what it would answer about the others."""
    if not len(rows):
        return rows
    # Advice and switches have been asked: the scan is to look at every mapping.
    vmas = [msgspec.structs.replace(vma, eligible=None) for vma in snapshot.header.mappings]
    view = to_view(snapshot.columns, vmas, "always")[rows]
    knobs = msgspec.structs.replace(
        snapshot.header.limits,
        **{
            name: value
            for name, value in policy.knobs.items()
            if name in snapshot.header.limits.__struct_fields__
        },
    )
    rules = choose(snapshot.header.facts).rules[0]
    sure = scan(view, knobs, rules)
    perhaps = scan(view, knobs, rules, assume=not wanted.certain)
    may = sure.passed | perhaps.passed
    for row, code in zip(rows[~may].tolist(), perhaps.code[~may].tolist(), strict=True):
        status = str(Scan(code))
        why[row] = f"khugepaged's scan answers {status}: {reasons.words(status)}"
    passing = np.flatnonzero(may)
    order = np.lexsort((rows[passing], -sure.referenced[passing], ~sure.passed[passing]))
    return rows[passing[order]]


def _asked(policy: Policy, snapshot: Snapshot, facts: PageCounts, rows: I64) -> I64:
    now = time.monotonic_ns()
    count = len(rows)
    unknown = np.full(count, -1, np.int64)
    used = facts.used()[rows]
    look = Look(
        now=now, since=now - policy.interval, space=np.zeros(count, np.int64),
        block=(snapshot.columns.address[rows] >> np.uint64(PMD_SHIFT)).astype(np.int64), huge=facts.huge[rows],
        populated=facts.populated[rows], zero_filled=np.zeros(count, np.int64), swapped=facts.swapped[rows],
        shared=facts.shared[rows], primary=np.where(facts.primary_unknown[rows] > 0, -1, facts.primary[rows]),
        referenced=np.where(facts.referenced_unknown[rows] > 0, -1, facts.referenced[rows]),
        secondary=np.where(facts.secondary_unknown[rows] > 0, -1, facts.secondary[rows]),
        # What is not known to be unused counts as one page in use: a policy asks whether, not how much.
        young=np.where(used < 0, 1, used), walks=unknown, future=unknown, spaces=(snapshot.header.name,),
    )  # fmt: skip
    return np.asarray(policy.wake(look).promote, np.int64)
