"""The passes over events and pages, compiled.

    a page's slot     7  6  5  4   3  2  1  0
                      GW GR CW CR  GW GR CW CR        C: by the CPU, G: by a guest; R: read or fetched, W: written
                      fast         touched since the last flush

*Fast*: that kind of touch would change nothing but an accessed or dirty bit, in every configuration; so between two looks of khugepaged
such touches commute, and it is enough to note them. Every other touch goes, in order, through the model's verbs (``access_runs``), after
which its page may be fast. Before anything looks at the bits, ``flush`` sets what the noted touches would have set. A page whose
mapping is taken away by khugepaged, a policy or a verb of the trace is fast no more.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from secondsight.bits.pte import ACCESSED, DIRTY, PRESENT, PSE, RW
from secondsight.geometry import BLOCK_MASK, HPAGE_PMD_NR, PAGE_SHIFT, PMD_ORDER, PMD_SHIFT
from secondsight.mm.memory import cpu_access
from secondsight.mm.page import HUGE_ZERO_PFN, ZERO_FILLED
from secondsight.mm.pgtable import pfn_of
from secondsight.mmu.spt import Resumed, guest_access, spte_allows, touch_spte
from secondsight.native import allocating, inlined, native
from secondsight.replay.ahead import AHEAD, prefetch
from secondsight.replay.layout import GIB_SHIFT, LEAF, SLOT_SHIFT, SLOTS
from secondsight.trace.kinds import Access, Kind, Origin

CPU_READ, CPU_WRITE, GUEST_READ, GUEST_WRITE = 1, 2, 4, 8
#: Kinds that are never fast: a device's access and a pin.
ALWAYS = 16

# How one access is made in a configuration (codes of ``access_runs``).
H_CPU_READ, H_CPU_WRITE, H_GUEST_READ, H_GUEST_WRITE = range(4)


def _bits() -> npt.NDArray[np.uint8]:
    """uint8[256]: the touch bit of each kind of access, or ALWAYS."""
    out = np.full(256, ALWAYS, np.uint8)
    for kind in Kind:
        write = kind.access is Access.WRITE
        if kind.origin is Origin.CPU:
            out[kind] = CPU_WRITE if write else CPU_READ
        elif kind.origin is Origin.GUEST:
            out[kind] = GUEST_WRITE if write else GUEST_READ
    return out


BITS = _bits()


@allocating
def mark(address, kind, space, count, start, stop, plain, bits, look, state, accesses, out):  # type: ignore[no-untyped-def]
    """Note the fast touches of events *start* to *stop*; returns how many of them are not, with their indices in *out*.

    *plain*: one space, and every count 1 (*count* may be empty). state uint8[slots], accesses int64[slots / 512], out int64[stop - start].
    """
    n = np.uint64(0)
    first = np.uint64(look.first[0] - look.low[0])
    if plain:
        for i in range(np.uint64(start), np.uint64(stop)):
            prefetch(address, i + AHEAD)
            prefetch(kind, i + AHEAD)
            a = np.uint64(address[i])
            leaf = np.uint64(look.directory[first + (a >> np.uint64(GIB_SHIFT))])
            slot = (leaf << np.uint64(SLOT_SHIFT)) | ((a >> np.uint64(PAGE_SHIFT)) & np.uint64(SLOTS - 1))
            was = state[slot]
            noted = bits[kind[i]] & (was >> np.uint8(4))
            state[slot] = was | noted
            accesses[slot >> np.uint64(PMD_ORDER)] += 1
            out[n] = i
            n += np.uint64(noted == 0)
        return n
    many = len(space) > 0
    for i in range(np.uint64(start), np.uint64(stop)):
        if many:
            s = np.uint64(space[i])
            first = np.uint64(look.first[s] - look.low[s])
        a = np.uint64(address[i])
        leaf = np.uint64(look.directory[first + (a >> np.uint64(GIB_SHIFT))])
        slot = (leaf << np.uint64(SLOT_SHIFT)) | ((a >> np.uint64(PAGE_SHIFT)) & np.uint64(SLOTS - 1))
        was = state[slot]
        noted = bits[kind[i]] & (was >> np.uint8(4))
        state[slot] = was | noted
        accesses[slot >> np.uint64(PMD_ORDER)] += np.int64(count[i])
        out[n] = i
        n += np.uint64(noted == 0)
    return n


@allocating
def locate(address, space, index, look):  # type: ignore[no-untyped-def]
    """The pages (all spaces' numbering, int64) of the events *index*."""
    out = np.empty(len(index), np.int64)
    many = len(space) > 0
    s = np.int64(0)
    for j in range(len(index)):
        i = index[j]
        if many:
            s = np.int64(space[i])
        a = np.int64(address[i])
        leaf = np.int64(look.directory[look.first[s] + (a >> GIB_SHIFT) - look.low[s]])
        row = np.int64(look.leaves[(leaf << GIB_SHIFT - PMD_SHIFT) | ((a >> PMD_SHIFT) & (LEAF - 1))])
        out[j] = (row << PMD_ORDER) | ((a >> PAGE_SHIFT) & BLOCK_MASK)
    return out


@allocating
def accesses_since(address, space, count, plain, at, end, look, place):  # type: ignore[no-untyped-def]
    """int64[len(at)]: the accesses of events *at* to *end* to a row each: the one that *place* (int32[rows], -1) gives this number."""
    out = np.zeros(len(at), np.int64)
    many = len(space) > 0
    s = np.int64(0)
    for i in range(at.min(), end):
        if many:
            s = np.int64(space[i])
        a = np.int64(address[i])
        leaf = np.int64(look.directory[look.first[s] + (a >> GIB_SHIFT) - look.low[s]])
        which = place[look.leaves[(leaf << GIB_SHIFT - PMD_SHIFT) | ((a >> PMD_SHIFT) & (LEAF - 1))]]
        if which >= 0 and i >= at[which]:
            out[which] += np.int64(1) if plain else np.int64(count[i])
    return out


@native
def access_runs(f, r, m, guest, pages, access_mode, resumed):  # type: ignore[no-untyped-def]
    """The verbs ``cpu_access`` and ``guest_access`` over *pages* in order, each made as *access_mode* (H_ codes) says.

    Answers like they do: len(pages), the index of a page whose notifiers must run first, or ``-1 - index`` of a forbidden one.
    """
    i = resumed.start
    n = len(pages)
    while i < n:
        code = access_mode[i]
        j = i + 1
        while j < n and access_mode[j] == code:
            j += 1
        notified = resumed.notified and i == resumed.start
        if code >= H_GUEST_READ:
            here = Resumed(i, notified, resumed.has_notifiers)
            done = guest_access(f, r, m, guest, pages[:j], code == H_GUEST_WRITE, here)
        else:
            done = cpu_access(f, r, m, pages[:j], code == H_CPU_WRITE, i, notified, resumed.has_notifiers)
        if done != j:
            return done
        i = j
    return n


@inlined
def _cpu_fast(m, page, alone):  # type: ignore[no-untyped-def]
    """1 reads, 2 writes by the CPU that would only set bits now. *alone*: nobody else reaches this space."""
    entry = m.pmd[page >> PMD_ORDER]
    if not entry & PSE:
        entry = m.pte[page] if entry else np.uint64(0)
    elif not entry & RW and pfn_of(entry) != HUGE_ZERO_PFN:
        # Shared since a fork: another page's store may split it, whose entries are then all as old as this one.
        return 0
    if not entry & PRESENT:
        return 0
    if entry & RW:
        return 3
    # Read-only: another page's write may take the mapping away (the huge zero page), which only a guest would notice.
    return 1 if alone else 0


@inlined
def _guest_fast(lay, m, t, page, alone):  # type: ignore[no-untyped-def]
    index = page - t.first
    big = t.smd[index >> PMD_ORDER]
    large = big & lay.present
    spte = big if large else t.spte[index]
    if not spte & lay.present:
        return 0
    if spte_allows(lay, spte, True):
        return 3
    whole = large or (m.pmd[page >> PMD_ORDER] & PSE)
    return 1 if alone and not whole and spte_allows(lay, spte, False) else 0


@inlined
def fast_bits(lay, m, t, page, as_cpu, as_guest, alone):  # type: ignore[no-untyped-def]
    """The touches of *page* that are fast here.

    *as_cpu*, *as_guest*: what the trace's CPU and guest accesses are here (0 the CPU's, 1 the guest's, -1: there are none).
    """
    bits = 0
    if as_cpu == 0:
        bits |= _cpu_fast(m, page, alone)
    elif as_cpu == 1:
        bits |= _guest_fast(lay, m, t, page, alone)
    if as_guest == 0:
        bits |= _cpu_fast(m, page, alone) << 2
    elif as_guest == 1:
        bits |= _guest_fast(lay, m, t, page, alone) << 2
    return bits


@native
def keep_fast(lay, m, t, pages, as_cpu, as_guest, alone, out):  # type: ignore[no-untyped-def]
    """out[i] &= the touches of ``pages[i]`` that are fast here."""
    for i in range(len(pages)):
        out[i] &= fast_bits(lay, m, t, pages[i], as_cpu, as_guest, alone)


@native
def set_fast(state, slots, pages, bits):  # type: ignore[no-untyped-def]
    """Record what :func:`keep_fast` found for *pages* (all spaces' numbering)."""
    for i in range(len(pages)):
        slot = slots[pages[i] >> PMD_ORDER] + (pages[i] & BLOCK_MASK)
        state[slot] = (state[slot] & np.uint8(15)) | np.uint8(bits[i] << 4)


#: A frame that is never used (``mm/page.py``: the first is 1024), so that it has no flags.
_NO_FRAME = np.uint64(1)


@inlined
def _flush(flags, table, where, bits, state, slot, shift):  # type: ignore[no-untyped-def]
    """The noted touches of one block, bits *shift* (read) and the next (written) of 512 slots from *slot* on, into its small pages' entries
    ``table[first:]`` and, where they wrote, the flags of the pages behind (of a huge page from *head* on). Which touches there were.

    *where*: first, huge, head; *bits*: an entry's accessed bit, and both for a store.

    Which pages were touched no processor can predict, so that is no branch; mostly nothing is new, and then nothing is stored.
    """
    first, huge, head = where
    accessed, dirty = bits
    some, new, zero = np.uint8(0), np.uint64(0), np.uint32(0)
    for i in range(np.uint64(HPAGE_PMD_NR)):
        noted = (state[slot + i] >> shift) & np.uint8(3)
        some |= noted
        entry = table[first + i]
        stored = noted & np.uint8(2) != 0
        new |= ((accessed if noted else np.uint64(0)) | (dirty if stored else np.uint64(0))) & ~entry
        pfn = head + i if huge else np.uint64(pfn_of(entry))
        zero |= flags[pfn if stored else _NO_FRAME]
    if new and not huge:
        for i in range(np.uint64(HPAGE_PMD_NR)):
            noted = (state[slot + i] >> shift) & np.uint8(3)
            table[first + i] |= (accessed if noted else np.uint64(0)) | (
                dirty if noted & np.uint8(2) else np.uint64(0)
            )
    if zero & ZERO_FILLED and not (huge and head == HUGE_ZERO_PFN):
        for i in range(np.uint64(HPAGE_PMD_NR)):
            if state[slot + i] >> shift & np.uint8(2):
                flags[head + i if huge else np.uint64(pfn_of(table[first + i]))] &= ~ZERO_FILLED
    return some


@inlined
def _flush_cpu(f, m, block, state, slot, shift):  # type: ignore[no-untyped-def]
    """The CPU's noted touches of one block: see :func:`_flush`."""
    pmd = m.pmd[block]
    huge = (pmd & PSE) != 0
    first = np.uint64(block) << np.uint64(PMD_ORDER)
    some = _flush(
        f.flags, m.pte, (first, huge, np.uint64(pfn_of(pmd))), (ACCESSED, DIRTY), state, slot, shift
    )
    if huge and some:
        m.pmd[block] = pmd | ACCESSED | (DIRTY if some & 2 else np.uint64(0))


@inlined
def _flush_guest(f, lay, t, first_page, state, slot, shift):  # type: ignore[no-untyped-def]
    """The guest's noted touches of the block that begins at *first_page*, likewise."""
    first = np.uint64(first_page - t.first)
    big = t.smd[first >> np.uint64(PMD_ORDER)]
    large = (big & lay.present) != 0
    zero = np.uint64(0)
    some = _flush(
        f.flags, t.spte, (first, large, np.uint64(pfn_of(big))), (touch_spte(lay, zero, False), touch_spte(lay, zero, True)),
        state, slot, shift,
    )  # fmt: skip
    if large and some:
        t.smd[first >> np.uint64(PMD_ORDER)] = touch_spte(lay, big, some & 2)


@native
def flush(f, m, guest, state, slots, rows, first_row, ways):  # type: ignore[no-untyped-def]
    """Set the bits that the noted touches of *rows* (all spaces' numbering) would have set; the space begins at *first_row*.

    *ways*: what the trace's CPU and guest accesses are here, as of :func:`fast_bits`.
    """
    for row in rows:
        block = row - first_row
        slot = np.uint64(slots[row])
        for origin in range(2):
            kind = ways[1] if origin else ways[0]
            if kind == 0:
                _flush_cpu(f, m, block, state, slot, np.uint8(2 * origin))
            elif kind == 1:
                _flush_guest(f, guest.lay, guest.t, block * HPAGE_PMD_NR, state, slot, np.uint8(2 * origin))


@native
def forget(state, slots, rows):  # type: ignore[no-untyped-def]
    """The noted touches of *rows* are flushed in every configuration."""
    for row in rows:
        slot = np.uint64(slots[row])
        for i in range(np.uint64(HPAGE_PMD_NR)):
            state[slot + i] &= np.uint8(0xF0)


@native
def clear(state, slots, rows):  # type: ignore[no-untyped-def]
    """Nothing is noted or fast in *rows*."""
    for row in rows:
        slot = np.uint64(slots[row])
        for i in range(np.uint64(HPAGE_PMD_NR)):
            state[slot + i] = 0


@native
def clear_fast(state, slots, rows):  # type: ignore[no-untyped-def]
    """The mappings of *rows* may have changed in some configuration: their next touches go through the verbs."""
    for row in rows:
        slot = np.uint64(slots[row])
        for i in range(np.uint64(HPAGE_PMD_NR)):
            state[slot + i] &= np.uint8(0x0F)
