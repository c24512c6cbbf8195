"""Which bits turned between two looks at a process, and what that says; pure, on columns.

::

    bit                      last look   now    says
    accessed by the CPU      clear       set    a write if dirty (with *soft_dirty*: soft-dirty) turned with it, else a read
    accessed by a guest      clear       set    a read: a writable SPTE is made dirty, so it does not tell a write
    any of them              set         set    nothing: the page may have been used, or not
    marked                   clear       set    no access, counted, if no accessed bit was set before or is now: whoever it was has no name

A bit that nobody clears turns once. With *clear* the recorder clears those of the CPU and the marks after each look, so that every one that
is set has turned; with *soft_dirty* the guest's too, since clearing soft-dirty bits makes KVM zap every SPTE (clear_refs_write,
fs/proc/task_mmu.c: mmu_notifier_invalidate_range_start over all of it).
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]
# What is kept of a page, and of a block.
CPU, WRITTEN, GUEST, MARKED = range(4)
NONE, TABLE, HUGE = range(3)

UNNAMED: Final = "pages marked referenced by what no page table shows (gup, files, bits cleared since)"
UNSETTLED: Final = "pages whose tables would not hold still at a look"
COLLAPSED: Final = "pages of blocks that were collapsed, which sets the huge page's bit"


class Bits(NamedTuple):
    """N blocks as read: *of* bool[4, N, 512] (accessed by the CPU, written, accessed by a guest, marked), *known* bool[N, 512],
    *form* uint8[N] (nothing, a table, a huge page)."""

    of: Bools
    known: Bools
    form: npt.NDArray[np.uint8]


class Accessed(NamedTuple):
    """Pages accessed since the last look, bool[N, 512] each: by the CPU, which of those were *written*, by a *guest*."""

    cpu: Bools
    written: Bools
    guest: Bools


class PageTableChanges:
    """The last look, 64 bytes a block and bit, and the one that is being made."""

    def __init__(self, clear: bool, soft_dirty: bool) -> None:
        """*clear*, *soft_dirty*: what the recorder clears after each look."""
        self._clear, self._soft_dirty = clear, soft_dirty
        self._first = True
        self._parts: list[tuple[U64, npt.NDArray[np.uint8], npt.NDArray[np.uint8]]] = []
        #: of the last look, ascending
        self.blocks = np.empty(0, np.uint64)
        self._of = np.empty((0, 4, 64), np.uint8)
        self._form = np.empty(0, np.uint8)
        #: pages that no row was made of, by reason
        self.left_out: dict[str, int] = {}

    def held(self, blocks: U64) -> tuple[Bools, npt.NDArray[np.uint8]]:
        """Bits bool[4, N, 512] and forms uint8[N] of *blocks* at the last look; nothing where there was no such block."""
        packed, form = np.zeros((len(blocks), 4, 64), np.uint8), np.zeros(len(blocks), np.uint8)
        at = np.searchsorted(self.blocks, blocks)
        there = at < len(self.blocks)
        there[there] = self.blocks[at[there]] == blocks[there]
        packed[there], form[there] = self._of[at[there]], self._form[at[there]]
        return np.unpackbits(packed, axis=2).astype(np.bool_).transpose(1, 0, 2), form

    def add(self, blocks: U64, now: Bits) -> Accessed | None:
        """Take the next *blocks* (ascending) of the look that is being made; what they say beside the last one, None in the first."""
        before, was = self.held(blocks)
        of = np.where(now.known, now.of, before)
        if self._first:
            # What the first look could not see is taken for set: what turns later is then sure.
            of |= ~now.known
        self._parts.append((blocks, np.packbits(of.transpose(1, 0, 2), axis=2), now.form))
        if self._first:
            return None
        if self._clear:
            before[[CPU, WRITTEN, MARKED]] = False
            before[GUEST] &= not self._soft_dirty
        turned = of & ~before & now.known
        collapsed = ((was == TABLE) & (now.form == HUGE))[:, None]
        attributed = of[CPU] | of[GUEST] | before[CPU] | before[GUEST]
        self._count(COLLAPSED, turned[CPU] & collapsed)
        self._count(UNSETTLED, ~now.known)
        self._count(UNNAMED, turned[MARKED] & ~attributed & ~collapsed)
        return Accessed(
            turned[CPU] & ~collapsed, of[WRITTEN] if self._soft_dirty else turned[WRITTEN], turned[GUEST]
        )

    def _count(self, reason: str, pages: Bools) -> None:
        number = int(np.count_nonzero(pages))
        if number:
            self.left_out[reason] = self.left_out.get(reason, 0) + number

    def turn(self) -> None:
        """The look that was being made is whole: it is the last one now."""
        parts = self._parts or [(self.blocks[:0], self._of[:0], self._form[:0])]
        self.blocks, self._of, self._form = (np.concatenate(column) for column in zip(*parts, strict=True))
        self._parts = []
        self._first = False
