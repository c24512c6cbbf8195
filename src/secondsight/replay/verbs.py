"""The rarer events of a trace (:class:`~secondsight.trace.kinds.Verb`) through the model's own verbs.

munmap, madv_*, swap_out, unpin     the pages of a range                  mm/unmap.py, madvise.py, vmscan.py
clear_refs, exit                    all of a space                        mm/task_mmu.py, khugepaged
fork                                two spaces: the child's begins as     mm/fork.py
                                    its parent's, both read-only
mmap                                nothing: areas are what is touched
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from secondsight.mm.fork import dup_mmap
from secondsight.mm.madvise import Advice, madvise
from secondsight.mm.mm_struct import Mm
from secondsight.mm.task_mmu import clear_refs
from secondsight.mm.unmap import unmap
from secondsight.mm.vmscan import swap_out
from secondsight.replay.configuration import ReplayedSpace
from secondsight.replay.summary import summarise
from secondsight.trace.kinds import Verb

#: Verbs of a whole space, whose address and count say nothing.
WHOLE: Final = (Verb.CLEAR_REFS, Verb.EXIT)
_ADVICE: Final[dict[Verb, Advice]] = {
    Verb.MADV_HUGEPAGE: "hugepage",
    Verb.MADV_NOHUGEPAGE: "nohugepage",
    Verb.MADV_DONTNEED: "dontneed",
}


def carry_out(mm: Mm, verb: Verb, first: int, end: int) -> bool:
    """*verb* upon pages *first* to *end* (of *mm*); False: nothing of the model does it."""
    if verb in _ADVICE:
        madvise(mm, first, end, _ADVICE[verb])
    elif verb is Verb.MUNMAP:
        unmap(mm, first, end)
    elif verb is Verb.EXIT:
        unmap(mm, first, end)
        mm.host.khugepaged.exit(mm)
    elif verb is Verb.CLEAR_REFS:
        clear_refs(mm)
    elif verb is Verb.SWAP_OUT:
        swap_out(mm, np.arange(first, end, dtype=np.int64))
    elif verb is Verb.UNPIN:
        for page in range(first, end):
            if f"{page}" in mm.pins:
                mm.unpin(f"{page}")
    else:
        return False
    return True


def fork(parent: ReplayedSpace, child: ReplayedSpace) -> bool:
    """*child* begins as a fork of *parent*. False, and nothing is done, if it has memory already, or if either is a VM: what a guest forks
    its host does not see."""
    if parent.kvm or child.kvm:
        return False
    there = summarise(child.mm)
    if there.huge.any() or there.populated.any() or there.swapped.any():
        return False
    # What an exit left of an earlier life: tables of nothing.
    child.mm.arrays.pmd[:] = 0
    dup_mmap(parent.mm, child.mm)
    return True


def rows_of(spaces: Sequence[ReplayedSpace]) -> npt.NDArray[np.int64]:
    """All rows (int64) of *spaces*."""
    return np.concatenate([np.arange(space.rows.start, space.rows.stop, dtype=np.int64) for space in spaces])
