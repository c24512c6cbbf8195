"""The passes over events and pages, compiled.

    a page's byte     7  6  5  4   3  2  1  0
                      GW GR CW CR  GW GR CW CR        C: by the CPU, G: by a guest; R: read or fetched, W: written
                      settled      touched since the last fold

*Settled*: that kind of touch would change nothing but an accessed or dirty bit, in every subject; so between two looks of khugepaged such
touches commute, and it is enough to note them. Every other touch goes, in order, through the model's verbs (``access_runs``), after
which its page may be settled. Before anything looks at the bits, ``fold`` sets what the noted touches would have set. A page whose
mapping is taken away by khugepaged, a policy or a verb of the trace is unsettled.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from secondsight.bits.pte import ACCESSED, DIRTY, PRESENT, PSE, RW
from secondsight.mm.memory import cpu_access, pfn_of
from secondsight.mm.page import HUGE_ZERO_PFN, ZERO_FILLED
from secondsight.mmu.spt import _allowed, _touch, guest_access
from secondsight.trace.kinds import Access, Kind, Origin

CPU_READ, CPU_WRITE, GUEST_READ, GUEST_WRITE = 1, 2, 4, 8
#: Kinds that are never settled: a device's access and a pin.
ALWAYS = 16

# How one access is made in a subject (codes of ``access_runs``).
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


@njit(cache=True, nogil=True)
def mark(address, kind, space, count, start, stop, plain, bits, look, state, accesses, out):  # type: ignore[no-untyped-def]
    """Note the settled touches of events *start* to *stop*; returns how many of them are not, with their indices in *out*.

    *plain*: one space, and every count 1. state uint8[pages], accesses int64[rows], out int32[stop - start].
    """
    n = 0
    if plain:
        base = look.low[0]
        for i in range(start, stop):
            a = np.int64(address[i])
            row = np.int64(look.leaves[(np.int64(look.directory[(a >> 30) - base]) << 9) | ((a >> 21) & 511)])
            page = (row << 9) | ((a >> 12) & 511)
            was = state[page]
            noted = bits[kind[i]] & (was >> np.uint8(4))
            state[page] = was | noted
            accesses[row] += 1
            out[n] = i
            n += noted == 0
        return n
    many = len(space) > 0
    for i in range(start, stop):
        s = np.int64(space[i]) if many else np.int64(0)
        a = np.int64(address[i])
        row = np.int64(
            look.leaves[
                (np.int64(look.directory[look.first[s] + (a >> 30) - look.low[s]]) << 9) | ((a >> 21) & 511)
            ]
        )
        page = (row << 9) | ((a >> 12) & 511)
        was = state[page]
        noted = bits[kind[i]] & (was >> np.uint8(4))
        state[page] = was | noted
        accesses[row] += count[i]
        out[n] = i
        n += noted == 0
    return n


@njit(cache=True, nogil=True)
def locate(address, space, index, look):  # type: ignore[no-untyped-def]
    """The pages (all spaces' numbering, int64) of the events *index*."""
    out = np.empty(len(index), np.int64)
    many = len(space) > 0
    for j in range(len(index)):
        i = index[j]
        s = np.int64(space[i]) if many else np.int64(0)
        a = np.int64(address[i])
        row = np.int64(
            look.leaves[
                (np.int64(look.directory[look.first[s] + (a >> 30) - look.low[s]]) << 9) | ((a >> 21) & 511)
            ]
        )
        out[j] = (row << 9) | ((a >> 12) & 511)
    return out


@njit(cache=True)
def access_runs(f, r, lay, m, t, pages, how, start, notified, has_notifiers, mode):  # type: ignore[no-untyped-def]
    """The verbs ``cpu_access`` and ``guest_access`` over *pages* in order, each made as *how* (H_ codes) says.

    Answers like they do: len(pages), the index of a page whose notifiers must run first, or ``-1 - index`` of a forbidden one.
    """
    i = start
    n = len(pages)
    while i < n:
        code = how[i]
        j = i + 1
        while j < n and how[j] == code:
            j += 1
        told = notified and i == start
        if code >= H_GUEST_READ:
            done = guest_access(
                f, r, lay, m, t, pages[:j], code == H_GUEST_WRITE, i, told, has_notifiers, mode
            )
        else:
            done = cpu_access(f, r, m, pages[:j], code == H_CPU_WRITE, i, told, has_notifiers)
        if done != j:
            return done
        i = j
    return n


@njit(cache=True, inline="always")
def _cpu_settled(m, page, alone):  # type: ignore[no-untyped-def]
    """1 reads, 2 writes by the CPU that would only set bits now. *alone*: nobody else reaches this space."""
    entry = m.pmd[page >> 9]
    if not entry & PSE:
        entry = m.pte[page] if entry else np.uint64(0)
    if not entry & PRESENT:
        return 0
    if entry & RW:
        return 3
    # Read-only: another page's write may take the mapping away (the huge zero page), which only a guest would notice.
    return 1 if alone else 0


@njit(cache=True, inline="always")
def _guest_settled(lay, m, t, page, alone):  # type: ignore[no-untyped-def]
    index = page - t.first
    big = t.smd[index >> 9]
    large = big & lay.present
    spte = big if large else t.spte[index]
    if not spte & lay.present:
        return 0
    if _allowed(lay, spte, True):
        return 3
    whole = large or (m.pmd[page >> 9] & PSE)
    return 1 if alone and not whole and _allowed(lay, spte, False) else 0


@njit(cache=True)
def settled(lay, m, t, pages, as_cpu, as_guest, alone, out):  # type: ignore[no-untyped-def]
    """out[i] &= the touches of ``pages[i]`` that are settled here.

    *as_cpu*, *as_guest*: what the trace's CPU and guest accesses are here (0 the CPU's, 1 the guest's, -1: there are none).
    """
    for i in range(len(pages)):
        bits = 0
        if as_cpu == 0:
            bits |= _cpu_settled(m, pages[i], alone)
        elif as_cpu == 1:
            bits |= _guest_settled(lay, m, t, pages[i], alone)
        if as_guest == 0:
            bits |= _cpu_settled(m, pages[i], alone) << 2
        elif as_guest == 1:
            bits |= _guest_settled(lay, m, t, pages[i], alone) << 2
        out[i] &= bits


@njit(cache=True)
def settle(state, pages, bits):  # type: ignore[no-untyped-def]
    """Record what :func:`settled` found for *pages* (all spaces' numbering)."""
    for i in range(len(pages)):
        state[pages[i]] = (state[pages[i]] & np.uint8(15)) | np.uint8(bits[i] << 4)


@njit(cache=True, inline="always")
def _fold_cpu(f, m, page, write):  # type: ignore[no-untyped-def]
    block = page >> 9
    pmd = m.pmd[block]
    bits = ACCESSED | (DIRTY if write else np.uint64(0))
    if pmd & PSE:
        m.pmd[block] = pmd | bits
        if write and pfn_of(pmd) != HUGE_ZERO_PFN:
            f.flags[pfn_of(pmd) + (page & 511)] &= ~ZERO_FILLED
    else:
        m.pte[page] |= bits


@njit(cache=True, inline="always")
def _fold_guest(f, lay, t, page, write):  # type: ignore[no-untyped-def]
    index = page - t.first
    big = t.smd[index >> 9]
    if big & lay.present:
        t.smd[index >> 9] = _touch(lay, big, write)
        if write:
            f.flags[pfn_of(big) + (index & 511)] &= ~ZERO_FILLED
    else:
        spte = t.spte[index]
        t.spte[index] = _touch(lay, spte, write)
        if write:
            f.flags[pfn_of(spte)] &= ~ZERO_FILLED


@njit(cache=True)
def fold(f, lay, m, t, state, rows, first_row, as_cpu, as_guest):  # type: ignore[no-untyped-def]
    """Set the bits that the noted touches of *rows* (all spaces' numbering) would have set; the space begins at *first_row*."""
    for row in rows:
        for page in range(row * 512, row * 512 + 512):
            noted = state[page] & np.uint8(15)
            if not noted:
                continue
            here = page - first_row * 512
            for origin in range(2):
                bits = (noted >> np.uint8(2 * origin)) & np.uint8(3)
                kind = as_guest if origin else as_cpu
                if not bits:
                    continue
                if kind == 0:
                    _fold_cpu(f, m, here, bits & 2)
                elif kind == 1:
                    _fold_guest(f, lay, t, here, bits & 2)


@njit(cache=True)
def forget(state, rows):  # type: ignore[no-untyped-def]
    """The noted touches of *rows* are folded in every subject."""
    for row in rows:
        for page in range(row * 512, row * 512 + 512):
            state[page] &= np.uint8(0xF0)


@njit(cache=True)
def unsettle(state, rows):  # type: ignore[no-untyped-def]
    """The mappings of *rows* may have changed in some subject: their next touches go through the verbs."""
    for row in rows:
        for page in range(row * 512, row * 512 + 512):
            state[page] &= np.uint8(0x0F)
