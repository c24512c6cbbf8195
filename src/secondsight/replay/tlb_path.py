"""A configuration with a TLB: every access is looked up in order, and only those that walk reach the page tables.

    access --hit--> counted, nothing more
           --miss--> walk: fast touch? --yes--> noted          (touch.py: flushed before anyone looks)
                                          --no--> the model's verb, then perhaps fast
                     into the TLB, as large as the mapping is now

Where a verb maps another frame than the entry names, or the same one by another size, the entry is flushed and the access walks again.

The loop stops where Python must step in: a page whose notifiers run first, a pin, a device, an access that is denied, a block
that a fault made huge (a budget may have to pay for it) or split, no more room for what verbs allocate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from secondsight.bits.pte import PRESENT, PSE
from secondsight.errors import UsageError
from secondsight.geometry import BLOCK_MASK, PAGE_SHIFT, PMD_ORDER, PMD_SHIFT
from secondsight.mm.memory import cpu_access
from secondsight.mm.pgtable import GUEST_FAULTS, pfn_of
from secondsight.mmu.spt import GuestTables, Resumed, guest_access
from secondsight.native import inlined, native
from secondsight.policy.protocol import UNLIMITED
from secondsight.replay import touch
from secondsight.replay.block_counts import find_size, find_sizes, large, none_yet, settle_all
from secondsight.replay.fast_path import (
    BLOCK,
    GUEST,
    HELD,
    WRITE,
    fast_path_by_both,
    fast_path_by_cpu,
    fast_path_by_guests,
    fast_path_by_small_guests,
    stored,
)
from secondsight.replay.layout import GIB_SHIFT, HPAGE, SLOT_SHIFT, SLOTS, EventColumns, Layout
from secondsight.replay.tlb import CLEAN, DIRTY, MISS, MOST_PAGES, drop, empty, flush, use
from secondsight.replay.touch import BITS, H_GUEST_READ, H_GUEST_WRITE, fast_bits

if TYPE_CHECKING:
    from secondsight.replay.configuration import ReplayedSpace
    from secondsight.replay.run import ConfigurationReplay
    from secondsight.replay.summary import Ints

# Why the loop stopped.
END, HOLD, NOTIFY, DENIED, MADE_HUGE, SPLIT, FULL = range(7)
#: Verbs that are called before the loop stops for more room.
CHUNK = 1 << 14


@inlined
def _mapped(lay, m, t, here, guest):  # type: ignore[no-untyped-def]
    """Is there a translation of page *here* that a TLB could hold?"""
    if guest:
        return (t.smd[here >> np.uint64(PMD_ORDER)] & lay.present) != 0 or (t.spte[here] & lay.present) != 0
    pmd = m.pmd[here >> np.uint64(PMD_ORDER)]
    return pmd != 0 and ((pmd & PSE) != 0 or (m.pte[here] & PRESENT) != 0)


@native
def translation(m, page):  # type: ignore[no-untyped-def]
    """What a TLB holds of the CPU's *page* (uint64, of the space): (frame + 1) << 1, and 1 if a huge page holds it; 0: nothing."""
    entry, frame = m.pmd[page >> np.uint64(PMD_ORDER)], np.uint64(0)
    if entry & PSE:
        return (np.uint64(pfn_of(entry)) + (page & np.uint64(BLOCK_MASK)) + np.uint64(1)) << np.uint64(
            1
        ) | np.uint64(1)
    if entry:
        entry = m.pte[page]
        frame = np.uint64(pfn_of(entry)) + np.uint64(1) if entry & PRESENT else frame
    return frame << np.uint64(1)


@inlined
def _guest_translation(lay, t, page, whole):  # type: ignore[no-untyped-def]
    """The same of a guest's *page*, which is mapped; *whole*: the guest's own page is huge too."""
    entry = t.smd[page >> np.uint64(PMD_ORDER)]
    if entry & lay.present:
        frame = np.uint64(pfn_of(entry)) + (page & np.uint64(BLOCK_MASK)) + np.uint64(1)
        return frame << np.uint64(1) | np.uint64(whole)
    return (np.uint64(pfn_of(t.spte[page])) + np.uint64(1)) << np.uint64(1)


# fmt: off
@native
def accesses_through(f, r, lay, m, t, mode, has_notifiers, tlb, guest_huge, guest_pages,  # type: ignore[no-untyped-def]
                     look, space, address, kind, count, plain, start, stop, resumed,
                     codes, ways, state, counts, first_row, one_page, ahead, new):
    # fmt: on
    """Events *start* to *stop*, all of *space*, through *tlb* and what is behind it: (index, why it stopped, verbs called, entry_state).

    *guest_pages*: where the guests' entries are numbered from, in the TLB's pages. *resumed*: 0, or 1 + the
    *entry_state* of event *start*, which its verb has made meanwhile; the rest of it is still to be done.
    codes uint8[256]: of each kind its touch bits, and WRITE, GUEST, HELD. ways: (as_cpu, as_guest, alone) of the space. *counts*: how
    blocks are mapped is known in it. *one_page* int64[1] and *ahead* uint64[BLOCK] are scratch; *new* int64[...] receives the pages (of
    the space) that a verb was called for, and has room for as many as may be.
    """
    first = np.uint64(look.first[space] - look.low[space])
    called = np.uint64(0)
    i, stop = np.uint64(start), np.uint64(stop)
    while i < stop:
        if not resumed:
            if ways[0] <= 0 and ways[1] <= 0:
                i = fast_path_by_cpu(
                    f, lay, m, t, tlb, guest_huge, guest_pages, look, first, address, kind, count, plain, i, stop,
                    codes, state, counts, np.uint64(first_row), ahead,
                )  # fmt: skip
            elif ways[0] != 0 and ways[1] != 0 and guest_huge:
                i = fast_path_by_guests(
                    f, lay, m, t, tlb, guest_huge, guest_pages, look, first, address, kind, count, plain, i, stop,
                    codes, state, counts, np.uint64(first_row), ahead,
                )  # fmt: skip
            elif ways[0] != 0 and ways[1] != 0:
                i = fast_path_by_small_guests(
                    f, lay, m, t, tlb, guest_huge, guest_pages, look, first, address, kind, count, plain, i, stop,
                    codes, state, counts, np.uint64(first_row), ahead,
                )  # fmt: skip
            else:
                i = fast_path_by_both(
                    f, lay, m, t, tlb, guest_huge, guest_pages, look, first, address, kind, count, plain, i, stop,
                    codes, state, counts, np.uint64(first_row), ahead,
                )  # fmt: skip
            if i == stop:
                break
        a = np.uint64(address[i])
        leaf = np.uint64(look.directory[first + (a >> np.uint64(GIB_SHIFT))])
        slot = (leaf << np.uint64(SLOT_SHIFT)) | ((a >> np.uint64(PAGE_SHIFT)) & np.uint64(SLOTS - 1))
        number = slot >> np.uint64(PMD_ORDER)
        row = np.uint64(look.leaves[number])
        code = codes[kind[i]]
        if code & HELD:
            return i, HOLD, called, MISS
        guest, write = (code & GUEST) != 0, np.uint64((code & WRITE) != 0)
        page = (row << np.uint64(PMD_ORDER)) | ((a >> np.uint64(PAGE_SHIFT)) & np.uint64(BLOCK_MASK))
        tagged = page + guest_pages if guest else page
        block = row - np.uint64(first_row)
        whole = guest_huge or not guest
        big = large(lay, m, t, block, guest)
        if resumed:
            entry_state = resumed - 1
            resumed = 0
            use(tlb, tagged, big and whole, write)
        else:
            if called == np.uint64(len(new)):
                return i, FULL, called, MISS
            counts.accesses[number] += np.int64(1) if plain else np.int64(count[i])
            here = page - np.uint64(first_row) * np.uint64(HPAGE)
            mapped = _mapped(lay, m, t, here, guest)
            entry_state = np.int64(MISS)
            if mapped:
                entry_state = use(tlb, tagged, big and whole, write)
                if entry_state == DIRTY or (entry_state == CLEAN and not write):
                    if write and big:
                        stored(f, lay, m, t, block, page, guest)
                    i += np.uint64(1)
                    continue
            one_page[0] = here
            none, was_huge = m.pmd[block] == 0, (m.pmd[block] & PSE) != 0
            was = _guest_translation(lay, t, here, whole) if guest else translation(m, here)
            if guest:
                done = guest_access(
                    f, r, m, GuestTables(lay, t, mode), one_page, write != 0, Resumed(0, False, has_notifiers)
                )
            else:
                done = cpu_access(f, r, m, one_page, write != 0, 0, False, has_notifiers)
            if done != 1:
                return i, NOTIFY if done == 0 else DENIED, called, entry_state
            new[called] = here
            called += np.uint64(1)
            fast_now = fast_bits(lay, m, t, np.int64(here), ways[0], ways[1], ways[2])
            state[slot] = (state[slot] & np.uint8(15)) | np.uint8(fast_now << 4)
            now = _guest_translation(lay, t, here, whole) if guest else translation(m, here)
            if mapped and now != was:
                drop(tlb, tagged, big and whole)
                mapped, entry_state = False, np.int64(MISS)
            if none and m.pmd[block] & PSE:
                # The caller does the rest, and resumes with this event.
                return i, MADE_HUGE, called, entry_state
            if was_huge and not m.pmd[block] & PSE:
                return i, SPLIT, called, entry_state
            find_size(counts, lay, m, t, block, row, number)
            big = large(lay, m, t, block, guest)
            if not mapped:
                use(tlb, tagged, big and whole, write)
        counts.walks[2 * guest + big, number] += np.int64(entry_state == MISS)
        i += np.uint64(1)
    return stop, END, called, np.int64(MISS)


def references(walks: npt.NDArray[np.int64], *, nested: bool, guest_huge: bool) -> Ints:
    """Memory references int64[rows] of *walks* (int64[4, rows]: the CPU's to small and huge pages, the guest's likewise)."""
    if not nested:
        # Shadow paging: one table; its entry is huge where the guest's page is too.
        guest = np.array([4, 3 if guest_huge else 4])
    else:
        guest = np.array([19, 15]) if guest_huge else np.array([24, 19])
    return np.concatenate(([4, 3], guest)) @ walks


class TlbPath:
    """The TLB of one run, and the notes between it and the page tables."""

    def __init__(self, run: ConfigurationReplay, layout: Layout) -> None:
        """An empty TLB; what the fill mapped is fast. To be made before the layout's ``touched`` is used for anything else.

        :raises UsageError: more blocks than tags can tell apart.
        """
        config = run.configuration.tlb
        assert config is not None
        if 2 * layout.rows * HPAGE >= MOST_PAGES:
            raise UsageError(
                f"a TLB can be modelled for at most {MOST_PAGES // HPAGE // 2:,} touched blocks; the trace has {layout.rows:,}"
            )
        self.run, self.layout, self.config = run, layout, config
        # A guest's translation of a page and qemu's of the same page are two entries.
        both = any(space.as_cpu >= 0 and space.as_guest >= 0 for space in run.machine.spaces)
        self._apart = layout.rows if both else 0
        self.tlb = empty(config)
        self.state = np.zeros(len(layout.touched), np.uint8)
        self.counts = none_yet(len(layout.touched) // HPAGE)
        #: int64[rows]: the number that each row's block has there.
        self._numbers = layout.slots // HPAGE
        run.walks = np.zeros((4, layout.rows), np.int64)
        self._one_page = np.zeros(1, np.int64)
        self._ahead = np.zeros(int(BLOCK), np.uint64)
        self._new = np.zeros(CHUNK, np.int64)
        for row in range(0, layout.rows, 1024) if any(map(run.machine.fills, run.machine.spaces)) else ():
            pages = layout.touched_pages(row, min(row + 1024, layout.rows))
            fast = np.full(len(pages), 15, np.uint8)
            run.find_fast(pages, fast)
            touch.set_fast(self.state, layout.slots, pages, fast)

    def apply(self, columns: EventColumns, plain: bool, start: int, stop: int) -> None:
        """The accesses *start* to *stop* of the columns (address, kind, space, count), in order."""
        space = columns[2]
        cuts = [start, stop]
        if len(space):
            cuts[1:1] = (
                np.flatnonzero(space[start + 1 : stop] != space[start : stop - 1]) + start + 1
            ).tolist()
        for a, b in zip(cuts, cuts[1:], strict=False):
            replayed = self.run.machine.at[int(space[a])] if len(space) else self.run.machine.spaces[0]
            self._through(replayed, columns, plain, a, b)

    def _through(self, space: ReplayedSpace, columns: EventColumns, plain: bool, start: int, stop: int) -> None:
        address, kind, _, count = columns
        mm, host = space.mm, space.mm.host
        at, resumed = start, 0
        ways = np.array([space.as_cpu, space.as_guest, space.alone], np.int64)
        codes = np.array(BITS & 15 | (space.access_mode & 1) * WRITE | (space.access_mode >= H_GUEST_READ) * GUEST, np.uint8)
        codes[space.access_mode > H_GUEST_WRITE] = HELD
        while at < stop:
            huge = mm.huge_faults(np.arange(0, mm.npages, HPAGE))
            find_sizes(
                self.counts, space.lay, mm.arrays, space.table, space.first_row, self._numbers[space.rows]
            )
            frames = host.frames.reserve(min(stop - at, len(self._new)), huge, 1024)
            reached, why, called, entry_state = accesses_through(
                frames, host.r, space.lay, mm.arrays, space.table, space.mode, bool(mm.notifiers),
                self.tlb, self.config.guest_huge, np.uint64(self._apart * HPAGE),
                self.layout.lookup, space.index, address, kind, count, plain, at, stop, resumed,
                codes, ways, self.state, self.counts, space.first_row, self._one_page, self._ahead, self._new,
            )  # fmt: skip
            mm.note_anon(self._new[: int(called)])
            at, resumed = int(reached), 0
            if why == END:
                break
            if why == FULL:
                continue
            way = space.access_mode[kind[at : at + 1]]
            row, page = self._where(space, int(address[at]))
            times = 1 if plain else int(count[at])
            if why == HOLD:
                self.counts.accesses[self._numbers[row]] += times
                was, none = int(translation(mm.arrays, np.uint64(page))), not mm.arrays.pmd[page // HPAGE]
                self.run.hold(space, page, int(way[0]))
                self._replaced(space, row, page, was, times)
                if none and mm.arrays.pmd[page // HPAGE] & PSE and self.run.machine.budget < UNLIMITED:
                    self.run.machine.spend()
                at += 1
            elif why == NOTIFY:
                # Run by Python with the notifiers called between; the rest of the event follows when the loop is entered again.
                was = int(translation(mm.arrays, np.uint64(page)))
                # The loop counted the guest's fault when it stopped there; it is made, and counted, once.
                mm.arrays.n[GUEST_FAULTS] -= int(way[0]) >= H_GUEST_READ
                space.access(np.array([page], np.int64), way)
                resumed = 1 + (MISS if self._replaced(space, row, page, was, times) else int(entry_state))
            elif why == DENIED:
                mm.denied += 1
                at += 1
            elif why == SPLIT:
                self._split(row, times)
                resumed = 1 + int(entry_state)
            else:
                if self.run.machine.budget < UNLIMITED:
                    self.run.machine.spend()
                resumed = 1 + int(entry_state)

    def _replaced(self, space: ReplayedSpace, row: int, page: int, was: int, times: int) -> bool:
        """Whether the CPU's translation of *page* is no longer what it *was*: its entries, and the guest's, are flushed.

        *times*: how many accesses it was that did it.
        """
        now = int(translation(space.mm.arrays, np.uint64(page)))
        if was in (0, now):
            return False
        if was & 1:
            flush(self.tlb, np.array([row, row + self._apart]))
            if not now & 1:
                self._split(row, times)
            return True
        tagged = row * HPAGE + page % HPAGE
        for where in {tagged, tagged + self._apart * HPAGE}:
            drop(self.tlb, np.uint64(where), False)
        return True

    def _split(self, row: int, times: int) -> None:
        """The last *times* accesses split the huge mapping of *row*; those before them landed in it."""
        number = self._numbers[row : row + 1]
        settle_all(self.counts, number)
        landed = self.counts.accesses[number] - times
        self.run.split(np.array([row]), landed)

    def _where(self, space: ReplayedSpace, address: int) -> tuple[int, int]:
        """The row and the page (of the space) that hold *address*."""
        numbers = self.layout.numbers[space.rows]
        block = int(np.searchsorted(numbers, address >> PMD_SHIFT))
        return space.first_row + block, block * HPAGE + (address >> PAGE_SHIFT & BLOCK_MASK)

    def changed(self, rows: Ints, *, flushes: bool = True) -> None:
        """The mappings of *rows* may have changed: nothing there is fast, and (*flushes*) no entry of them is left."""
        touch.clear_fast(self.state, self.layout.slots, rows)
        if flushes:
            flush(self.tlb, np.concatenate((rows, rows + self._apart)))

    def close(self) -> None:
        """Before anyone looks: the noted touches are flushed, the accesses counted."""
        at = self._numbers
        settle_all(self.counts, at)
        accesses: npt.NDArray[np.int64] = self.counts.accesses[at]
        rows = np.flatnonzero(accesses)
        if len(rows):
            self.run.flush(self.state, rows)
            touch.forget(self.state, self.layout.slots, rows)
        self.run.count(accesses, rows)
        self.run.walks = self.counts.walks[:, at]
        self.counts.accesses[at] = 0
