"""Every figure of docs/metrics.md counted anew, from its definition: one access at a time through the model's verbs, in plain Python.

What the model does is the kernel's business and checked in the lab; here everything that a replay *counts* about it is counted a second
time: which accesses land where, what a TLB holds, what is bloat, hot, wasted or fair.
"""

from __future__ import annotations

import zlib
from collections import Counter, defaultdict
from fractions import Fraction
from math import ceil

import numpy as np

from secondsight.bits.pte import PRESENT, PSE
from secondsight.geometry import PMD_ORDER
from secondsight.mm.fork import dup_mmap
from secondsight.mm.huge_memory import split_huge
from secondsight.mm.khugepaged.attempt import collapse_huge_page
from secondsight.mm.khugepaged.result import ScanResult
from secondsight.mm.khugepaged.scan import scan
from secondsight.mm.khugepaged.walk import Visit
from secondsight.mm.madvise import madvise
from secondsight.mm.observe import of_model
from secondsight.mm.page import HUGE_ZERO_PFN, ZERO_FILLED, ZERO_PFN
from secondsight.mm.pgtable import GUEST_FAULTS, pfn_of
from secondsight.mm.task_mmu import clear_refs
from secondsight.mm.unmap import unmap
from secondsight.policy.protocol import UNLIMITED, Decision, Policy
from secondsight.replay.clock import alarms
from secondsight.replay.configuration import H_DEVICE, H_PIN, Configuration, ConfigurationHost
from secondsight.replay.layout import discover
from secondsight.trace.kinds import Kind, Origin, Verb
from secondsight.whatif.costs import CostModel
from support.tlb import Lists

PAGE, SECOND = 4096, 1_000_000_000


def drawn(now, space, block):
    """What :class:`Shuffle` does with a block at a wake-up: 0 promotes it, 1 splits it."""
    return zlib.crc32(f"{now} {space} {block}".encode()) % 4


class Shuffle(Policy):
    """Promotes and splits without sense: to be counted, not to be good."""

    name = "shuffle"

    def wake(self, look):
        what = np.array([drawn(look.now, s, b) for s, b in zip(look.space, look.block, strict=True)])
        return Decision(promote=np.flatnonzero(what == 0), split=np.flatnonzero((what == 1) & look.huge))


class Plain:
    """A run of one policy over *rows* (see ``support.events``), and its figures."""

    def __init__(self, events, rows, policy, rules, tlb=None, budget=None, fill=None):
        self.layout = layout = discover(events)
        limit = UNLIMITED if budget is None else budget
        configuration = Configuration(
            "plain", Configuration.of(rules).rules, policy=policy, budget=limit, fill=fill
        )
        self.machine = ConfigurationHost(configuration, layout)
        self.machine.fill()
        self.host = self.machine.host
        self.host.khugepaged.on_visit = self.visited
        if budget is not None:
            self.host.khugepaged.huge_pages_left = lambda: self.machine.budget
        self.pages = Counter()  # accesses of each page of all spaces
        self.huge_accesses = Counter()  # of each row, those that landed in a huge mapping
        self.ever, self.backed, self.held = set(), set(), {}
        self.content = {p for p in np.flatnonzero(layout.touched) if 0}  # pages that hold something
        for space in self.machine.spaces:
            if self.machine.fills(space):
                self.content.update(layout.touched_pages(space.rows.start, space.rows.stop).tolist())
        self.ended = {}  # of a space that exits, its part of the figures just before that: space -> Counter
        self.collapsed = {}  # since the last look: row -> pages copied
        self.n = Counter()
        self.walks = Counter()
        self.tlb = Lists(tlb) if tlb else None
        both = any(s.as_cpu >= 0 and s.as_guest >= 0 for s in self.machine.spaces)
        self.apart = layout.rows if both else 0
        self.alarms = alarms(self.machine.policy, self.host.config)
        start = rows[0][0] * SECOND
        for at, space, block, page, kind, count in ((*row, 1)[:6] for row in rows):
            while min(a.time for a in self.alarms) <= at * SECOND - start:
                self.wake(min(self.alarms, key=lambda a: a.time))
            self.event(self.machine.at[space], block, page, kind, count)
        self.look()
        for alarm in sorted(self.alarms, key=lambda a: a.time):
            self.wake(alarm)

    # -- looking at the page tables ----------------------------------------------------------------------------

    def space_of(self, row):
        return next(s for s in self.machine.spaces if s.rows.start <= row < s.rows.stop)

    def translation(self, space, page, guest):
        """(frame, by a huge page) of a page of the space, None where there is none."""
        if guest:
            big, small, present = space.table.smd[page >> 9], space.table.spte[page], space.lay.present
            huge = bool(big & present)
        else:
            big, small, present = space.mm.arrays.pmd[page >> 9], space.mm.arrays.pte[page], PRESENT
            huge = bool(big & PSE)
            small = small if big else np.uint64(0)
        if huge:
            return int(pfn_of(big)) + page % 512, True
        return (int(pfn_of(small)), False) if small & present else None

    def is_huge(self, row):
        space = self.space_of(row)
        return bool(space.mm.arrays.pmd[row - space.first_row] & PSE)

    def look(self):
        """Between two wake-ups' windows, and at a verb: what became huge since, and what its memory is."""
        for row in range(self.layout.rows):
            space = self.space_of(row)
            pmd = space.mm.arrays.pmd[row - space.first_row]
            if pmd & PSE:
                self.ever.add(row)
            if not pmd & PSE or pfn_of(pmd) == HUGE_ZERO_PFN or self.has_before(space, row):
                self.backed.discard(row)
            elif row not in self.backed:
                self.backed.add(row)
                written = sum(p >> 9 == row for p in self.content)
                self.held[row] = self.collapsed.get(row, written)
        self.collapsed = {}

    def all_huge(self):
        return {row for row in range(self.layout.rows) if self.is_huge(row)}

    def has_before(self, space, row):
        """Does a space before *space* have the huge page of *row* too, by a huge mapping?"""
        here, pages = self.translation(space, (row - space.first_row) * 512, False), set()
        for other in self.machine.spaces[: self.machine.spaces.index(space)]:
            every = (self.translation(other, page, False) for page in range(0, other.mm.npages, 512))
            pages |= {t for t in every if t is not None and t[1]}
        return here in pages

    def huge_rows(self, space):
        return {row for row in range(space.rows.start, space.rows.stop) if self.is_huge(row)}

    def frames(self, space):
        """The frames that hold something of the space."""
        every = ((self.translation(space, page, False), page) for page in range(space.mm.npages))
        return {t[0] for t, page in every if t and t[0] != ZERO_PFN and t[0] - page % 512 != HUGE_ZERO_PFN}

    # -- what happens --------------------------------------------------------------------------------------------

    def event(self, space, block, page, kind, count):
        page += int(np.searchsorted(self.layout.numbers[space.rows], block)) * 512
        row = space.first_row + (page >> 9)
        if kind >= 0x80:
            self.look()
            if kind == Verb.CLEAR_REFS:
                clear_refs(space.mm)
                return
            if kind == Verb.FORK:
                self.fork(space, self.machine.at.get(count))
                self.look()
                return
            if kind == Verb.EXIT:
                self.ended[space.index] = self.standing(
                    space, [s for s in self.machine.spaces if s is not space]
                )
                unmap(space.mm, 0, space.mm.npages)
                self.host.khugepaged.exit(space.mm)
                self.content -= set(range(space.rows.start * 512, space.rows.stop * 512))
            elif kind == Verb.MADV_DONTNEED:
                madvise(space.mm, page, page + count, "dontneed")
                self.content -= set(range(row * 512, row * 512 + count))
            elif kind == Verb.UNPIN and f"{page}" in space.mm.pins:
                space.mm.unpin(f"{page}")
            self.flush(range(space.rows.start, space.rows.stop))
            self.look()
            return
        whole = space.first_row * 512 + page
        self.pages[whole] += count
        host_before = self.translation(space, page, False)
        way = int(space.access_mode[kind])
        if way >= H_DEVICE:
            where = np.array([page])
            if way >= H_PIN:
                # For writing: io_uring's registered buffers, for long.
                space.mm.pin(where, f"{page}", write=way > H_PIN, longterm=way > H_PIN)
            else:
                space.mm.direct_io(where, write=way > H_DEVICE)
            self.replaced(row, whole, host_before, self.translation(space, page, False))
        else:
            self.through_tlb(space, row, page, way, host_before)
        self.copied(page, host_before, self.translation(space, page, False))
        if Kind(kind).access == 1 and Kind(kind).origin is not Origin.PIN:
            self.content.add(whole)
        huge = self.is_huge(row)
        if huge and not self.was_huge(host_before) and host_before is None:
            self.machine.spend()
        if huge or self.was_huge(host_before):
            self.ever.add(row)
        self.huge_accesses[row] += count * huge

    def fork(self, space, child):
        if child is None or space.kvm or child.kvm or self.frames(child) or self.huge_rows(child):
            return
        child.mm.arrays.pmd[:] = 0
        dup_mmap(space.mm, child.mm)
        self.ended.pop(child.index, None)
        self.flush([*range(space.rows.start, space.rows.stop), *range(child.rows.start, child.rows.stop)])
        for row in range(space.rows.start, space.rows.stop):
            twin = int(np.flatnonzero(self.layout.numbers[child.rows] == self.layout.numbers[row])[0])
            shift = (child.first_row + twin - row) * 512
            self.content |= {page + shift for page in self.content if page >> 9 == row}

    def copied(self, page, before, after):
        """An access that found memory, and no zero page, and leaves other memory: what it took."""
        if before is None or before[0] == ZERO_PFN or before[0] - page % 512 == HUGE_ZERO_PFN:
            return
        self.n["copy_splits"] += before[1] and not after[1]
        if before[0] != after[0]:
            self.n["copied_huge" if after[1] else "copied_pages"] += 1

    @staticmethod
    def was_huge(translation):
        return translation is not None and translation[1]

    def through_tlb(self, space, row, page, way, host_before):
        guest, write = way >= 2, bool(way & 1)
        before = self.translation(space, page, guest)
        whole = space.first_row * 512 + page
        entry = whole + guest * self.apart * 512
        made = lambda: space.access(np.array([page]), np.array([way], np.uint8))  # noqa: E731
        if self.tlb is None:
            made()
            return
        small = guest  # a guest's own pages are small, and so are its entries
        level = 0
        if before is not None:
            level = self.tlb.use(entry, before[1] and not small, write)
            if level == 2 or (level == 1 and not write):
                # The dirty entry of a huge page serves stores to all of its pages; each of them holds something from then on.
                if write:
                    self.host.frames.arrays.flags[before[0]] &= ~ZERO_FILLED
                return
        made()
        after, host_after = self.translation(space, page, guest), self.translation(space, page, False)
        if self.replaced(row, whole, host_before, host_after):
            level = 0
        if before is not None and (before[0], before[1] and not small) != (after[0], after[1] and not small):
            self.tlb.drop(entry, before[1] and not small)
            level = 0
        self.tlb.use(entry, after[1] and not small, write)
        if level == 0:
            self.walks[row, after[1]] += 1

    def replaced(self, row, whole, before, after):
        """The host maps another frame: entries of the page go, of a huge one those of the block."""
        if self.tlb is None or before is None or before == after:
            return False
        if before[1]:
            self.flush([row])
        else:
            self.tlb.drop(whole, False)
            self.tlb.drop(whole + self.apart * 512, False)
        return True

    def flush(self, rows):
        if self.tlb is not None:
            self.tlb.flush({r + a for r in rows for a in (0, self.apart)})

    def visited(self, visit):
        row = next(s for s in self.machine.spaces if s.mm is visit.mm).first_row + visit.block
        scanned, i = visit.scan, visit.row
        if scanned.code[i] != ScanResult.PMD_MAPPED:
            self.n["scanned"] += min(int(scanned.stopped[i]) + 1, 512)
        asks = self.host.rules.referenced_needed and bool(visit.mm.notifiers)
        self.n["asked"] += asks * int(scanned.asked[i])
        for attempt in visit.attempts:
            if attempt.status != ScanResult.SUCCEED:
                self.n["refused"] += 1
                self.n["allocated"] += attempt.status != ScanResult.ALLOC_HUGE_PAGE_FAIL
                self.n["invalidated"] += attempt.isolate is not None
        if not visit.isolates:
            return
        self.n["asked"] += asks * sum(int(isolate.asked[0]) for isolate in visit.isolates)
        self.flush([row])
        last = visit.attempts[-1]
        if visit.status != ScanResult.SUCCEED:
            self.n["wasted"] += 1
        elif last.order == PMD_ORDER:
            self.n["collapses"] += 1
            self.collapsed[row] = 512 - int(last.isolate.none_or_zero[0])
            self.n["copied"] += self.collapsed[row]
            self.machine.budget -= 1

    def wake(self, alarm):
        self.look()
        policy, before = self.machine.policy, self.all_huge()
        if not alarm.policy:
            self.host.khugepaged.do_scan()
        elif not policy.passive:
            self.host.drain()
            self.decide(alarm.time, policy)
        # A folio is split for everyone who has it.
        self.flush(before - self.all_huge())
        self.look()
        alarm.time += alarm.interval

    def decide(self, now, policy):
        blocks = []
        for space in self.machine.spaces:
            for block in range(space.mm.blocks):
                here = [self.translation(space, block * 512 + i, False) for i in range(512)]
                held = sum(
                    t is not None and t[0] != ZERO_PFN and t[0] - i != HUGE_ZERO_PFN
                    for i, t in enumerate(here)
                )
                what = drawn(now, space.index, int(self.layout.numbers[space.first_row + block]))
                if policy.name == "madv_collapse":
                    what = 0 if held else 2
                blocks.append((space, block, held, self.is_huge(space.first_row + block), what))
        for space, block, _, huge, what in blocks:
            if what == 1 and huge and split_huge(space.mm, block):
                self.n["splits"] += 1
                self.flush([space.first_row + block])
                flags = self.host.frames.arrays.flags
                for page in range(block * 512, block * 512 + 512):
                    if flags[space.mm.pfn(page)] & ZERO_FILLED:
                        unmap(space.mm, page, page + 1)
        promised = []
        for space, block, held, huge, what in blocks:
            if what == 0 and not huge:
                if self.machine.budget <= 0:
                    break
                if held:
                    self.madv_collapse(space.mm, block)
                elif not space.mm.arrays.pmd[block]:
                    promised.append((space, block))
        for space, block in promised:
            self.machine.promise(space, np.array([block]))

    def madv_collapse(self, mm, block):
        self.host.drain()
        seen = of_model(mm, np.array([block]), ask=False, marks=False)
        scanned = scan(seen, self.host.config.knobs, self.host.rules, khugepaged=False)
        status, attempts = ScanResult(int(scanned.code[0])), ()
        if status == ScanResult.SUCCEED:
            attempts = (collapse_huge_page(mm, block, khugepaged=False, unmapped=int(scanned.unmapped[0])),)
            status = attempts[0].status
        self.visited(Visit(mm, block, status, scanned, 0, attempts, seen))

    # -- the figures -----------------------------------------------------------------------------------------------

    def standing(self, space, others):
        """What a space holds now: huge blocks, populated pages, and of the huge pages those of bloat and of zeros; what
        *others* have too is theirs, huge pages that they map by parts not."""
        theirs = set().union(*(self.frames(other) for other in others))
        huge_theirs = {
            self.translation(other, block * 512, False)
            for other in others
            for block in range(other.mm.blocks)
        }
        n = Counter(huge=0)
        for row in range(space.rows.start, space.rows.stop):
            n["huge"] += self.is_huge(row)
            here = self.translation(space, (row - space.first_row) * 512, False)
            if row in self.backed and here not in huge_theirs:
                n["bloat"] += 512 - self.held[row]
                n["zero"] += 512 - sum(p >> 9 == row for p in self.content)
        for page in range(space.mm.npages):
            t = self.translation(space, page, False)
            own = t is not None and t[0] not in theirs
            n["populated"] += own and t[0] != ZERO_PFN and t[0] - page % 512 != HUGE_ZERO_PFN
        return n

    def figures(self, misses=None):
        """Every figure by its key; *misses*: the walks of each row with every page small."""
        f, costs = {}, CostModel()
        rows = range(self.layout.rows)
        accesses = Counter()
        for page, count in self.pages.items():
            accesses[page >> 9] += count
        total = sum(accesses.values())
        end = Counter()
        for i, space in enumerate(self.machine.spaces):
            now = self.standing(space, self.machine.spaces[:i])
            has_memory = now["populated"] or now["huge"]
            end.update(now if has_memory else self.ended.get(space.index, now))
        f["huge_blocks"] = end["huge"]
        f["huge_share"] = share(end["huge"], len(rows))
        f["coverage"] = share(sum(self.huge_accesses.values()), total)
        hot = fewest(self.pages)
        f["precision"] = share(len({p >> 9 for p in hot} & self.ever), len(self.ever))
        f["precision_pages"] = share(sum(p >> 9 in self.ever for p in hot), 512 * len(self.ever))
        f["recall"] = share(sum(p >> 9 in self.ever for p in hot), len(hot))
        f["bloat"], f["bloat_share"] = end["bloat"] * PAGE, share(end["bloat"], end["populated"])
        f["zero_filled"] = end["zero"] * PAGE
        f |= {key: self.n[name] for key, name in NAMES.items()}
        f["guest_faults"] = sum(int(s.mm.arrays.n[GUEST_FAULTS]) for s in self.machine.spaces)
        calls = defaultdict(int)
        for space in self.machine.spaces:
            for name, number in space.mm.notifiers.calls.items():
                calls[name] += number
        calls["test_young"] = self.n["asked"]
        f["notifier_calls"] = sum(calls.values())
        us = 235 * self.n["collapses"] + (806 - 235) * self.n["copied"] / 512 + 235 * self.n["wasted"]
        f["daemon_time"] = us / 1e6 + (25 * self.n["scanned"] + 150 * self.n["asked"]) / 1e9
        shares = []
        for space in self.machine.spaces:
            mine = range(space.rows.start, space.rows.stop)
            if not any(accesses[r] for r in mine):
                continue
            shares.append(Fraction(sum(self.huge_accesses[r] for r in mine), sum(accesses[r] for r in mine)))
        squares = sum(x * x for x in shares)
        f["fairness"] = float(sum(shares) ** 2 / (len(shares) * squares)) if squares else 1.0
        f |= dict.fromkeys(TRANSLATION)
        # Nobody asks for predictions here.
        f |= dict.fromkeys(
            ("run_time", "run_time_low", "run_time_high", "run_time_change", "longest_stall", "mean_stall")
        )
        if self.tlb is not None:
            ends = Counter()
            for (_, large), number in self.walks.items():
                ends[large] += number
            for key, small_refs, huge_refs in (("native", 4, 3), ("nested", 24, 19)):
                refs = small_refs * ends[False] + huge_refs * ends[True]
                f[f"walk_refs_{key}"] = refs
                walk = refs * costs.walk_reference_cycles
                f[f"overhead_{key}"] = walk / (walk + total * costs.access_cycles)
            top, missed = fewest(misses), sum(misses.values())
            f["precision_misses"] = share(len(top & self.ever), len(self.ever)) if missed else None
            f["recall_misses"] = share(sum(misses[r] for r in self.ever), missed)
        return f

    def misses(self):
        """The walks of each row."""
        out = Counter()
        for (row, _), number in self.walks.items():
            out[row] += number
        return out


NAMES = {
    "collapses": "collapses",
    "wasted_passes": "wasted",
    "refused_collapses": "refused",
    "refused_allocations": "allocated",
    "refused_invalidations": "invalidated",
    "splits": "splits",
    "copied_pages": "copied_pages",
    "copied_huge": "copied_huge",
    "copy_splits": "copy_splits",
    "pages_scanned": "scanned",
}
TRANSLATION = [
    *("walk_refs_native", "walk_refs_nested", "overhead_native", "overhead_nested", "precision_misses", "recall_misses"),
]  # fmt: skip


def share(part, whole):
    return part / whole if whole else None


def fewest(counts):
    """The fewest keys that together have 90 % of the counts, and those that count as much as the last of them."""
    need, got, out = ceil(Fraction(9, 10) * sum(counts.values())), 0, set()
    last = None
    for key, count in sorted(counts.items(), key=lambda item: -item[1]):
        if got >= need and count != last:
            break
        if count:
            out.add(key)
        got, last = got + count, count
    return out
