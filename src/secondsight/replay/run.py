"""A configuration under way: what it does at each wake-up, and what is counted about it.

between two looks    touch (what is not fast, in order) ... flush (what was noted)      engine
a wake-up            count the accesses since --> khugepaged or the policy acts --> which blocks lost their mappings
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from secondsight.bits.pte import PFN_MASK, PSE, RW
from secondsight.geometry import PAGE_SIZE, PMD_ORDER
from secondsight.mm.khugepaged.result import ScanNumbers, ScanResult
from secondsight.mm.khugepaged.walk import Visit
from secondsight.mm.pgtable import GUEST_FAULTS, HUGE_ZERO_PMD, V_HUGE
from secondsight.mm.protocols import MmLike
from secondsight.policy.protocol import UNLIMITED
from secondsight.replay.attempts import AttemptColumns
from secondsight.replay.clock import Alarm, alarms
from secondsight.replay.configuration import H_DEVICE, H_PIN, Configuration, ConfigurationHost, ReplayedSpace
from secondsight.replay.decide import decide
from secondsight.replay.ends import BlocksAtEnd, relatives, stands
from secondsight.replay.events import runs_of
from secondsight.replay.layout import HPAGE, Layout
from secondsight.replay.metrics import SECOND, ChannelAnswers, Visits, WakeValues
from secondsight.replay.summary import Ints, huge_frames, pages_young, summarise, zero_filled
from secondsight.replay.touch import BITS, flush, keep_fast
from secondsight.replay.verbs import WHOLE, carry_out, fork, rows_of
from secondsight.trace.kinds import Verb

_MAPPED = int(ScanResult.PMD_MAPPED)


class ConfigurationReplay:
    """One configuration's machine, its alarms and its counters."""

    def __init__(self, configuration: Configuration, layout: Layout, *, channels: bool) -> None:
        """*channels*: keep what each channel said at every wake-up (for the picture)."""
        self.configuration, self.layout = configuration, layout
        self.machine = ConfigurationHost(configuration, layout)
        self.host = self.machine.host
        rows = layout.rows
        self.accesses = np.zeros(rows, np.int64)
        self.accesses_huge = np.zeros(rows, np.int64)
        self.huge = np.zeros(rows, np.bool_)
        self.first_huge = np.full(rows, -1, np.int64)
        # Huge, of memory of its own: the huge zero page is everybody's. And the pages that were populated when it became that.
        self.backed = np.zeros(rows, np.bool_)
        self.held = np.zeros(rows, np.int64)
        # Pages that collapses copied. Accesses since the last count that landed in a huge mapping which another access then split.
        self.copied = np.zeros(rows, np.int64)
        self.landed = np.zeros(rows, np.int64)
        # Rows whose huge mapping an access of this batch split, and which access.
        self.cuts: dict[int, int] = {}
        self.last_answer = np.full(rows, -1, np.int64)
        self.collapses = np.zeros(rows, np.int64)
        self.fault_huge = np.zeros(rows, np.int64)
        self.splits = np.zeros(rows, np.int64)
        self.scanned = np.zeros(rows, np.int64)
        self.asked = np.zeros(rows, np.int64)
        self.wasted = np.zeros(rows, np.int64)
        self.attempts = AttemptColumns(rows)
        # With a TLB: tlb_path.py's walks, int64[4, rows].
        self.walks: npt.NDArray[np.int64] | None = None
        self.visits = Visits()
        self.visit_rows: list[int] = []
        self.series = WakeValues(**{name: [] for name in WakeValues.__struct_fields__})
        self.channels = ChannelAnswers([], [], [], [], [], []) if channels else None
        self.wakes = self.khugepaged_wakes = 0
        self.populated = False
        self.now = 0
        self.since = 0
        self._counted = (0, 0)
        self._refused = np.zeros(layout.rows, np.int64)
        # Spaces that exited, as they stood just before; rows that gave a huge page back (unmapped, no split) since the last wake-up.
        self.ended: dict[int, BlocksAtEnd] = {}
        self._gave_back = np.zeros(rows, np.bool_)
        self.at_last_wake = np.zeros(rows, np.int64)
        self._changed: list[int] = []
        self._collapsed: dict[int, int] = {}
        rules, config = self.host.rules, self.host.config
        self._splits = config.use_zero_page and not rules.huge_zero_wp_allocates
        # Whether stores to what a fork shared split huge mappings.
        self._copies = bool(layout.born) and not rules.cow_copies_huge
        self._place_of = {id(space.mm): (space.index, space.first_row) for space in self.machine.spaces}
        self.unreplayed: dict[str, int] = {}
        # The other spaces that each may share memory with since a fork, and of them those before it.
        self._relatives = {
            space.index: relatives(space, self.machine.spaces, layout) for space in self.machine.spaces
        }
        self._earlier = {
            index: [other for other in others if other.index < index]
            for index, others in self._relatives.items()
        }
        self.host.khugepaged.on_visit = self.visited
        self.host.khugepaged.on_quiet = self.skipped
        if configuration.budget < UNLIMITED:
            self.host.khugepaged.huge_pages_left = lambda: self.machine.budget
        self.alarms = alarms(self.machine.policy, self.host.config)

    def walked(self) -> Ints:
        """Page walks of each row so far; without a TLB its accesses stand for them."""
        return self.accesses if self.walks is None else self.walks.sum(axis=0)

    # -- between two looks ----------------------------------------------------------------------------------------

    def touch(
        self,
        pages: Ints,
        kinds: npt.NDArray[np.uint8],
        spaces: npt.NDArray[np.uint16],
        fast_bits: npt.NDArray[np.uint8],
    ) -> None:
        """Accesses that are not fast, in order: *pages* in all spaces' numbering, *spaces* empty where there is only one.

        ``fast_bits`` (uint8, 15 where nobody objected yet) loses the touches that this configuration does not make fast.
        """
        steady = True
        for start, stop, index in runs_of(spaces, len(pages), self.machine.spaces[0].index):
            space = self.machine.at[index]
            local = pages[start:stop] - space.first_row * HPAGE
            access_mode = space.access_mode[kinds[start:stop]]
            bits = np.full(stop - start, 15, np.uint8)
            self._keep_fast(space, local, bits)
            if (bits & BITS[kinds[start:stop]]).all():
                # Fast here, if not in every configuration: nothing is mapped or allocated, and what is fast stays so.
                space.steady(local, access_mode)
                fast_bits[start:stop] &= bits
                continue
            steady = False
            pmd = space.mm.arrays.pmd
            limited = self.machine.budget < UNLIMITED and bool((space.mm.arrays.vma & V_HUGE).any())
            for a, b in self._pieces(space, local, access_mode, limited):
                last = int(local[b - 1]) >> PMD_ORDER
                empty = not pmd[last]
                large = pmd[int(local[a]) >> PMD_ORDER] & PSE
                if access_mode[a] >= H_DEVICE:
                    self.hold(space, int(local[a]), int(access_mode[a]))
                else:
                    space.access(local[a:b], access_mode[a:b])
                if limited and empty and pmd[last] & PSE:
                    self.machine.spend()
                if large and not pmd[int(local[a]) >> PMD_ORDER] & PSE:
                    self.cuts[space.first_row + (int(local[a]) >> PMD_ORDER)] = start + a
        if steady:
            return
        # Only now: an access may have changed what an earlier one of the batch mapped.
        for start, stop, index in runs_of(spaces, len(pages), self.machine.spaces[0].index):
            space = self.machine.at[index]
            self._keep_fast(space, pages[start:stop] - space.first_row * HPAGE, fast_bits[start:stop])

    def _keep_fast(self, space: ReplayedSpace, pages: Ints, bits: npt.NDArray[np.uint8]) -> None:
        """*bits* loses the touches of *pages* (of *space*) that are not fast."""
        keep_fast(
            space.lay, space.mm.arrays, space.table, pages, space.as_cpu, space.as_guest, space.alone, bits
        )

    def _pieces(
        self, space: ReplayedSpace, pages: Ints, access_mode: npt.NDArray[np.uint8], limited: bool
    ) -> list[tuple[int, int]]:
        """Where to cut: around each pin and device access, and around the first store to a block that may split the huge zero page
        or what a fork shared; with a budget, behind each page that may get a huge page by its fault."""
        single = np.flatnonzero(access_mode >= H_DEVICE)
        cuts = {0, len(pages), *single.tolist(), *(single + 1).tolist()}
        blocks = pages >> PMD_ORDER
        if self._splits:
            pmd = space.mm.arrays.pmd[blocks]
            may = (pmd & PFN_MASK == HUGE_ZERO_PMD & PFN_MASK) & (pmd & PSE != 0)
            may |= (pmd == 0) & ((space.mm.arrays.vma[blocks] & V_HUGE) != 0)
            _, first = np.unique(blocks[may & (access_mode % 2 != 0)], return_index=True)
            stores = np.flatnonzero(may & (access_mode % 2 != 0))[first]
            cuts.update(stores.tolist(), (stores + 1).tolist())
        if self._copies:
            pmd = space.mm.arrays.pmd[blocks]
            stores = np.flatnonzero((pmd & PSE != 0) & (pmd & RW == 0) & (access_mode % 2 != 0))
            stores = stores[np.unique(blocks[stores], return_index=True)[1]]
            cuts.update(stores.tolist(), (stores + 1).tolist())
        if limited:
            may = (space.mm.arrays.pmd[blocks] == 0) & ((space.mm.arrays.vma[blocks] & V_HUGE) != 0)
            _, first = np.unique(blocks[may], return_index=True)
            cuts.update((np.flatnonzero(may)[first] + 1).tolist())
        edges = sorted(cuts)
        return list(zip(edges, edges[1:], strict=False))

    def hold(self, space: ReplayedSpace, page: int, access_mode: int) -> None:
        """A pin, held until UNPIN (for writing a long-term one, as a scenario has it); a device's access: pinned, used and let go."""
        where = np.array([page], np.int64)
        if access_mode >= H_PIN:
            space.mm.pin(where, f"{page}", write=access_mode > H_PIN, longterm=access_mode > H_PIN)
        else:
            space.mm.direct_io(where, write=access_mode > H_DEVICE)

    def find_fast(self, pages: Ints, fast_bits: npt.NDArray[np.uint8]) -> None:
        """Before the trace: ``fast_bits`` (uint8, 15 at first) loses what is not fast of *pages* (rising, all spaces' numbering)."""
        for space in self.machine.spaces:
            low, high = np.searchsorted(pages, (space.rows.start * HPAGE, space.rows.stop * HPAGE))
            self._keep_fast(space, pages[low:high] - space.first_row * HPAGE, fast_bits[low:high])

    def flush(self, state: npt.NDArray[np.uint8], rows: Ints) -> None:
        """The noted touches of *rows* become accessed and dirty bits."""
        for space in self.machine.spaces:
            part = space.rows
            low, high = np.searchsorted(rows, (part.start, part.stop))
            flush(
                self.host.frames.arrays, space.mm.arrays, space.guest, state, self.layout.slots, rows[low:high],
                space.first_row, (space.as_cpu, space.as_guest),
            )  # fmt: skip

    def count(self, accesses: Ints, rows: Ints) -> None:
        """The accesses since the last count, by the mappings there are now; then blocks that faults made huge are noticed."""
        self._notice_huge()
        self.accesses[rows] += accesses[rows]
        self.accesses_huge[rows] += np.where(self.huge[rows], accesses[rows], self.landed[rows])
        self.landed[rows] = 0

    def split(self, rows: Ints, landed: Ints) -> None:
        """The huge mappings of *rows* were split by an access; *landed*: of the accesses since the last count, those before it."""
        self.landed[rows] = landed
        # Huge by a fault, and no longer so before anyone looked.
        self.fault_huge[rows] += ~self.huge[rows]
        fresh = rows[self.first_huge[rows] < 0]
        self.first_huge[fresh] = self.now

    def _notice_huge(self, populated: dict[int, int] | None = None) -> None:
        """Which blocks are huge; *populated*: what collapsed blocks held. Others that are new were made by a fault."""
        collapsed = populated or {}
        for space in self.machine.spaces:
            heads = huge_frames(space.mm)
            now = (space.mm.arrays.pmd & PSE) != 0
            backed = heads >= 0
            for other in self._earlier[space.index]:
                backed &= heads != huge_frames(other.mm)
            rows = np.flatnonzero(now & ~self.huge[space.rows]) + space.first_row
            self.fault_huge[[row for row in rows.tolist() if row not in collapsed]] += 1
            self.first_huge[rows[self.first_huge[rows] < 0]] = self.now
            new = np.flatnonzero(backed & ~self.backed[space.rows])
            if len(new):
                self.held[new + space.first_row] = HPAGE - zero_filled(space.mm, new)
            for row in (new + space.first_row).tolist() if collapsed else ():
                self.held[row] = collapsed.get(row, self.held[row])
            self.huge[space.rows], self.backed[space.rows] = now, backed

    def stands(self, space: ReplayedSpace) -> BlocksAtEnd:
        """The blocks of *space* as they stand now, without the memory that a space before it has too."""
        return stands(space, self.huge, self.backed, self.held, self._earlier[space.index])

    # -- a wake-up ---------------------------------------------------------------------------------------------

    def wake(self, alarm: Alarm) -> Ints:
        """Act on *alarm*; returns the rows (int64) whose touches are no longer fast."""
        self.now = alarm.time
        self.wakes += 1
        self._changed = []
        self._collapsed = {}
        before = self.huge.copy() if self.layout.born else None
        if self.channels is not None:
            self._keep_channels()
        if alarm.policy:
            self._changed.extend(decide(self, alarm))
        else:
            self.khugepaged_wakes += 1
            self.host.khugepaged.do_scan()
        self._notice_huge(self._collapsed)
        if before is not None:
            # A folio that is split is split for everyone who maps it.
            self._changed.extend(np.flatnonzero(before & ~self.huge).tolist())
        total, in_huge = int(self.accesses.sum()), int(self.accesses_huge.sum())
        series = self.series
        series.time.append(self.now)
        series.huge_blocks.append(int(self.huge.sum()))
        series.bloat.append(int(((HPAGE - self.held) * self.backed).sum()) * PAGE_SIZE)
        series.accesses.append(total - self._counted[0])
        series.accesses_huge.append(in_huge - self._counted[1])
        self._counted = (total, in_huge)
        series.full_scans.append(self.host.khugepaged.full_scans)
        series.wasted.append(int(self.wasted.sum()))
        refused = self.attempts.refused()
        series.refused.append(int(refused.sum()))
        if self.channels is not None:
            self.channels.refused.append((refused - self._refused).astype(np.int32))
            self._refused = refused
        series.guest_faults.append(sum(int(s.mm.arrays.n[GUEST_FAULTS]) for s in self.machine.spaces))
        alarm.time += alarm.interval
        return np.unique(np.array(self._changed, np.int64))

    def visited(self, visit: Visit) -> None:
        """Record one visit to a block, khugepaged's or a policy's."""
        index, first = self._place_of[id(visit.mm)]
        row = first + visit.block
        scanned, i = visit.scan, visit.row
        isolates = visit.isolates
        second = isolates[0] if isolates else None
        # The scan's answer; where it passed and the allocation failed, that.
        code = int(scanned.code[i] if second is not None else visit.status)
        keep = self.visits
        keep.time.append(self.now)
        keep.space.append(index)
        keep.block.append(int(self.layout.numbers[row]))
        keep.scan.append(code)
        keep.scan_referenced.append(int(scanned.referenced[i]))
        keep.isolate.append(-1 if second is None else int(second.code[0]))
        keep.isolate_referenced.append(-1 if second is None else int(second.referenced[0]))
        made = [each.order for each in visit.attempts if each.status == ScanResult.SUCCEED]
        keep.order.append(max(made) if made else visit.attempts[-1].order if visit.attempts else -1)
        keep.refused.append(len(visit.attempts) - len(made))
        self.visit_rows.append(row)
        self.last_answer[row] = int(visit.status) + (0 if second is None else SECOND)
        if code != _MAPPED:
            self.scanned[row] += min(int(scanned.stopped[i]) + 1, HPAGE)
        # Where nobody is registered nobody is called. Without the heuristic nobody would be: the model counts there only to tell.
        asks = self.host.rules.referenced_needed and bool(visit.mm.notifiers)
        if asks and (asked := int(scanned.asked[i])):
            self.asked[row] += asked
        self.attempts.add(row, visit.attempts)
        if second is not None:
            self.asked[row] += asks * sum(int(each.asked[0]) for each in isolates)
            self._changed.append(row)
            last = visit.attempts[-1]
            if visit.status != ScanResult.SUCCEED:
                self.wasted[row] += 1
            elif last.order == PMD_ORDER and last.isolate is not None:
                self.collapses[row] += 1
                self._collapsed[row] = HPAGE - int(last.isolate.none_or_zero[0])
                self.copied[row] += self._collapsed[row]
                self.machine.budget -= 1

    def skipped(self, mm: MmLike, blocks: Ints, scanned: ScanNumbers) -> None:
        """Record khugepaged's visits to *blocks* of *mm*, the first of *scanned*, which it left as they were."""
        n = len(blocks)
        index, first = self._place_of[id(mm)]
        rows = blocks + first
        code = scanned.code[:n].astype(np.int64)
        keep = self.visits
        keep.time.extend([self.now] * n)
        keep.space.extend([index] * n)
        keep.block.extend(self.layout.numbers[rows].tolist())
        keep.scan.extend(code.tolist())
        keep.scan_referenced.extend(scanned.referenced[:n].tolist())
        keep.isolate.extend([-1] * n)
        keep.isolate_referenced.extend([-1] * n)
        keep.order.extend([-1] * n)
        keep.refused.extend([0] * n)
        self.visit_rows.extend(rows.tolist())
        self.last_answer[rows] = code
        small = code != _MAPPED
        self.scanned[rows[small]] += np.minimum(scanned.stopped[:n][small] + 1, HPAGE)
        if self.host.rules.referenced_needed and mm.notifiers:
            self.asked[rows] += scanned.asked[:n]

    # -- the trace's verbs ---------------------------------------------------------------------------------------

    def verb(self, index: int, verb: Verb, address: int, argument: int) -> Ints:
        """A rarer event of the trace; returns the rows whose touches are no longer fast."""
        space = self.machine.at.get(index)
        if space is None or verb is Verb.MMAP:
            return np.zeros(0, np.int64)
        if verb is Verb.FORK:
            return self._fork(space, argument)
        first, end = (0, space.mm.npages) if verb in WHOLE else self.layout.pages(index, address, argument)
        if verb is Verb.EXIT:
            self.ended[index] = stands(space, self.huge, self.backed, self.held, self._relatives[index])
        if first < end and not carry_out(space.mm, verb, first, end):
            self._not_replayed(verb)
        before = self.huge[space.rows].copy()
        self._notice_huge()
        if (lost := before & ~self.huge[space.rows]).any():
            self._gave_back[space.rows] |= lost & (summarise(space.mm).populated == 0)
        # Reclaim unmaps from everyone.
        return rows_of([space, *(self._relatives[index] if verb is Verb.SWAP_OUT else [])])

    def _fork(self, space: ReplayedSpace, index: int) -> Ints:
        """*space* forks space *index*, whose memory begins as its own."""
        child = self.machine.at.get(index)
        if child is None or not fork(space, child):
            self._not_replayed(Verb.FORK)
            return np.zeros(0, np.int64)
        self.ended.pop(index, None)
        # What it inherits huge is no fault of its own.
        self.huge[child.rows] = huge = (child.mm.arrays.pmd & PSE) != 0
        rows = np.flatnonzero(huge) + child.first_row
        self.first_huge[rows[self.first_huge[rows] < 0]] = self.now
        self._notice_huge()
        return rows_of([space, child])

    def _not_replayed(self, verb: Verb) -> None:
        self.unreplayed[verb.name.lower()] = self.unreplayed.get(verb.name.lower(), 0) + 1

    # -- the picture ------------------------------------------------------------------------------------------

    def _keep_channels(self) -> None:
        assert self.channels is not None
        kept = pages_young(self.machine.spaces, self.layout.rows)
        self.channels.time.append(self.now)
        for name, column in kept.items():
            getattr(self.channels, name).append(column)
        self.channels.huge.append(self.huge.copy())
        self.channels.gave_back.append(self._gave_back.copy())
        self._gave_back[:] = False
