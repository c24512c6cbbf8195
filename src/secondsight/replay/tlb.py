"""A data TLB: which accesses walk the page tables, and so which of them set accessed bits.

    L1, 4 KiB   16 sets x 4     page  --hit--> nothing more          A set's entries stand in the order of their use, latest first:
    L1, 2 MiB    8 sets x 4     block --hit--> nothing more
         miss |                                                        before   a b c d        c is used     c a b d
    L2, both   128 sets x 12    page or block --hit--> into L1         before   a b c d        e comes in    e a b c     d falls out
         miss |
    walk: the accessed bit (and for a store the dirty bit) is set; into L2 and L1

A set is one vector of 16 tags, a cache line, found in and moved up in a few instructions without a branch (``_held``, ``_move_up``): which
accesses hit, and where, no processor can predict. An entry remembers whether a store brought it in: the first store
through one that a load brought walks again, to set the dirty bit (Intel SDM vol. 3, 4.8); that is no miss. Entries of a block go when its
mapping changes, as the kernel's flushes make them go, and the entry of a page whose frame a fault replaces (a zero page, by the first
store): that store walks again and is a miss. clear_refs and ageing through clear_young flush nothing, as on x86.

Memory references of a walk: 4 to a 4 KiB page, 3 to a 2 MiB one; with nested paging (g + 1)(h + 1) - 1 for g levels in the guest and h in
the host: 24, 19, 15 (Bhargava et al., ASPLOS 2008). An entry is as large as the smaller of the guest's page and the host's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from secondsight.errors import UsageError
from secondsight.geometry import PMD_ORDER
from secondsight.native import inlined, native

MISS, CLEAN, DIRTY = 0, 1, 2
#: Ways that a set has room for: a vector of tags.
WAYS = 16
#: Pages that a tag can tell apart.
MOST_PAGES = 1 << 30


@dataclass(frozen=True, slots=True)
class TlbConfig:
    """Entries and ways; L2 is shared by both page sizes. *guest_huge*: guests map their memory by 2 MiB pages (else by 4 KiB)."""

    l1_small: int = 64
    l1_small_ways: int = 4
    l1_huge: int = 32
    l1_huge_ways: int = 4
    l2: int = 1536
    l2_ways: int = 12
    guest_huge: bool = False

    def __post_init__(self) -> None:
        """:raises UsageError: a level whose sets are not a power of two, or that has more than 15 ways."""
        for name in ("l1_small", "l1_huge", "l2"):
            entries, ways = getattr(self, name), getattr(self, f"{name}_ways")
            sets = entries // ways if ways > 0 else 0
            if ways > 15 or sets < 1 or sets * ways != entries or sets & (sets - 1):
                raise UsageError(
                    f"TLB {name}: {entries} entries in {ways} ways are no power of two of sets of at most 15 ways"
                )


class Tlb(NamedTuple):
    """One TLB: tag uint32[16 * sets], the sets of all levels, each ways latest used first, 0: empty; and where they are (uint64).

    Tag: page << 2 | huge << 1 | dirty, page + 1 of all spaces' numbering; of a block, its first page.
    small, huge, l2: (its first set, sets - 1, a bit for each way).
    """

    tag: npt.NDArray[np.uint32]
    small: tuple[np.uint64, np.uint64, np.uint64]
    huge: tuple[np.uint64, np.uint64, np.uint64]
    l2: tuple[np.uint64, np.uint64, np.uint64]


def empty(config: TlbConfig) -> Tlb:
    """A TLB with nothing in it."""
    levels, sets = [], 0
    for name in ("l1_small", "l1_huge", "l2"):
        ways = int(getattr(config, f"{name}_ways"))
        here = int(getattr(config, name)) // ways
        levels.append((np.uint64(sets), np.uint64(here - 1), np.uint64((1 << ways) - 1)))
        sets += here
    # A set to a cache line: NumPy aligns to 16 bytes alone.
    buffer = np.zeros(WAYS * (sets + 1), np.uint32)
    start = -buffer.ctypes.data // buffer.itemsize % WAYS
    return Tlb(buffer[start : start + WAYS * sets], *levels)


_TAG, _SET = ir.IntType(32), ir.VectorType(ir.IntType(32), WAYS)
_intrinsic: Any = intrinsic


def _splat(build: ir.IRBuilder, value: ir.Value) -> ir.Value:
    """A vector of 16 times *value* (32 bits)."""
    single = build.insert_element(ir.Constant(_SET, ir.Undefined), value, _TAG(0))
    return build.shuffle_vector(single, single, ir.Constant(_SET, [0] * WAYS))


def _at(context: Any, build: ir.IRBuilder, kind: Any, array: ir.Value, number: ir.Value) -> ir.Value:
    """Where set *number* of the tags *array* lies."""
    data = context.make_array(kind)(context, build, array).data
    first = build.gep(data, [build.mul(number, number.type(WAYS))])
    return build.bitcast(first, _SET.as_pointer())


def _lanes(build: ir.IRBuilder, bits: ir.Value) -> ir.Value:
    """Bits 0 to 15 as a condition for each way."""
    return build.bitcast(build.trunc(bits, ir.IntType(WAYS)), ir.VectorType(ir.IntType(1), WAYS))


@_intrinsic
def _held(_, tags, number, tag):  # type: ignore[no-untyped-def]
    """Which way of set *number* holds *tag*: a bit (uint64), or 0."""

    def code(context, build, signature, given):  # type: ignore[no-untyped-def]
        entries = build.load(_at(context, build, signature.args[0], given[0], given[1]), align=4)
        same = build.icmp_unsigned("==", entries, _splat(build, given[2]))
        return build.zext(build.bitcast(same, ir.IntType(WAYS)), ir.IntType(64))

    return types.uint64(tags, types.uint64, types.uint32), code


@_intrinsic
def _move_up(_, tags, number, ways, tag, stored):  # type: ignore[no-untyped-def]
    """*tag* is the latest used of set *number*: the entries of *ways* (the bits from 0 on) make room, and the last of them is gone.

    The entries of *stored* are dirty then. The whole set is stored, not some lanes of it: only so can the next access read it at once.
    """

    def code(context, build, signature, given):  # type: ignore[no-untyped-def]
        where = _at(context, build, signature.args[0], given[0], given[1])
        entries = build.load(where, align=4)
        first = build.insert_element(ir.Constant(_SET, ir.Undefined), given[3], _TAG(0))
        moved = build.shuffle_vector(first, entries, ir.Constant(_SET, [0, *range(WAYS, 2 * WAYS - 1)]))
        now = build.select(_lanes(build, given[2]), moved, entries)
        build.store(build.or_(now, build.zext(_lanes(build, given[4]), _SET)), where, align=4)
        return context.get_dummy_value()

    return types.void(tags, types.uint64, types.uint64, types.uint32, types.uint64), code


@inlined
def place(tlb, page, huge):  # type: ignore[no-untyped-def]
    """Of the entry of *page* (uint64; of its block where *huge*): its tag, its sets in L1 and in L2, a bit for each way in L1 (uint64)."""
    number = page >> np.uint64(PMD_ORDER) if huge else page
    tag = (number << np.uint64(11)) | np.uint64(6) if huge else (page + np.uint64(1)) << np.uint64(2)
    first = (tlb.huge[0] if huge else tlb.small[0]) + (number & (tlb.huge[1] if huge else tlb.small[1]))
    return tag, first, tlb.l2[0] + (number & tlb.l2[1]), tlb.huge[2] if huge else tlb.small[2]


@inlined
def use_here(tlb, tag, first, second, ways, write):  # type: ignore[no-untyped-def]
    """One access through an entry that is where :func:`place` says, and is there afterwards: MISS, CLEAN or DIRTY before.

    A hit in L2 comes into L1, a miss into both; a store (*write* 1) leaves the entry dirty.
    """
    clean, soiled = np.uint32(tag), np.uint32(tag) | np.uint32(1)
    stored, behind = _held(tlb.tag, first, soiled), _held(tlb.tag, second, soiled)
    way, there = stored | _held(tlb.tag, first, clean), behind | _held(tlb.tag, second, clean)
    # Where both levels hold it, they agree on that.
    dirty = np.uint64((stored | behind) != 0)
    # bit ^ (bit - 1): it and those before it; of no bit all, so what is not there is brought in, and the last falls out.
    _move_up(tlb.tag, first, (way ^ (way - np.uint64(1))) & ways, clean, dirty | write)
    # A hit in L1 is no use of L2, which learns of a walk for the dirty bit alone.
    missed = np.uint64(way != 0) - np.uint64(1)
    room = (there ^ (there - np.uint64(1))) & tlb.l2[2] & missed
    learned = ((dirty | write) & missed) | (there * write & ~missed)
    _move_up(tlb.tag, second, room, clean, learned)
    return np.int64((way | there) != 0) + np.int64(dirty)


@native
def use(tlb, page, huge, write):  # type: ignore[no-untyped-def]
    """:func:`use_here` where :func:`place` says."""
    tag, first, second, ways = place(tlb, page, huge)
    return use_here(tlb, tag, first, second, ways, write)


@native
def drop(tlb, page, huge):  # type: ignore[no-untyped-def]
    """The entry of *page* (uint64; of its block where *huge*) goes, as ptep_clear_flush makes it go; the others keep their order."""
    tag, first, second, _ = place(tlb, page, huge)
    gone = np.uint32(tag) | np.uint32(1)
    for number in (first, second):
        start = number * np.uint64(WAYS)
        to, end = start, start + np.uint64(WAYS)
        for i in range(start, end):
            held = tlb.tag[i]
            if held | np.uint32(1) != gone:
                tlb.tag[to] = held
                to += np.uint64(1)
        tlb.tag[to:end] = 0


def flush(tlb: Tlb, rows: npt.NDArray[np.int64]) -> None:
    """Every entry of the blocks *rows* goes; the others keep their order."""
    sets = tlb.tag.reshape(-1, WAYS)
    held = np.flatnonzero(sets)
    gone = held[np.isin(((tlb.tag[held] >> np.uint32(2)) - np.uint32(1)) >> np.uint32(PMD_ORDER), rows)]
    tlb.tag[gone] = 0
    for at in np.unique(gone // WAYS):
        ways = sets[at]
        ways[:] = ways[np.argsort(ways == 0, kind="stable")]
