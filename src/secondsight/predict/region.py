"""Memory whose page sizes are chosen block by block: small at first, then collapsed one block after the other.

    mmap, 2 MiB aligned ──NOHUGEPAGE, touched──▶ small ──MADV_COLLAPSE of chosen blocks──▶ those are huge     what is in it stays

NOHUGEPAGE stands on all of it but on a block while that is collapsed: khugepaged, which takes what is advised within seconds on a quiet
machine, would change the layout that is measured.

Whether it is so says ``AnonHugePages`` of /proc/self/smaps, which counts what the page table maps huge.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from secondsight.errors import SecondSightError
from secondsight.geometry import PAGE_SIZE, PMD_SIZE
from secondsight.live.act.madvise import MADV_COLLAPSE, cause

MADV_DONTNEED, MADV_HUGEPAGE, MADV_NOHUGEPAGE = 4, 14, 15
_libc = ctypes.CDLL(None, use_errno=True)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


def advise(address: int, length: int, advice: int) -> int:
    """``madvise``; 0 or the errno."""
    return ctypes.get_errno() if _libc.madvise(address, length, advice) else 0


class Region:
    """*blocks* blocks of anonymous memory, aligned to 2 MiB; nothing populated. A context manager."""

    def __init__(self, blocks: int) -> None:
        """:raises SecondSightError: no such memory."""
        self.blocks = blocks
        try:
            self._map = mmap.mmap(-1, (blocks + 3) * PMD_SIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError as error:
            raise SecondSightError(f"{blocks * 2} MiB of memory: {error.strerror}") from None
        whole = np.frombuffer(self._map, np.uint8)
        # A block on either side that nobody advises, so that no neighbour becomes part of the same area.
        start = PMD_SIZE + -whole.ctypes.data % PMD_SIZE
        self.address = whole.ctypes.data + start
        self.bytes: npt.NDArray[np.uint8] | None = whole[start : start + blocks * PMD_SIZE]

    @property
    def words(self) -> npt.NDArray[np.uint64]:
        """Its memory as uint64[...]."""
        assert self.bytes is not None
        return self.bytes.view(np.uint64)

    def __enter__(self) -> Region:
        return self

    def __exit__(self, *_: object) -> None:
        # Given back at once; the mapping goes with the last array that shows it.
        self.advise(MADV_DONTNEED)
        self.bytes = None

    def advise(self, advice: int, block: int = 0, blocks: int | None = None) -> int:
        """``madvise`` of *blocks* blocks from *block* on (all of them); 0 or the errno."""
        count = self.blocks - block if blocks is None else blocks
        return advise(self.address + block * PMD_SIZE, count * PMD_SIZE, advice)

    def populate(self) -> None:
        """Map every page, small, with a word of its own in each line's beginning."""
        self.advise(MADV_NOHUGEPAGE)
        words = self.words
        words[:: PAGE_SIZE // 8] = 1

    def collapse(self, chosen: npt.NDArray[np.int64]) -> None:
        """Make the blocks *chosen* huge.

        :raises SecondSightError: one cannot be.
        """
        for block in chosen.tolist():
            # MADV_COLLAPSE may not collapse what NOHUGEPAGE forbids.
            self.advise(MADV_HUGEPAGE, block, 1)
            try:
                for _ in range(5):
                    number = self.advise(MADV_COLLAPSE, block, 1)
                    if number == 0:
                        break
            finally:
                self.advise(MADV_NOHUGEPAGE, block, 1)
            if number:
                raise SecondSightError(
                    f"MADV_COLLAPSE: block {block} of {self.blocks} cannot be made huge: {cause(number)}"
                )

    def huge_blocks(self) -> int:
        """Blocks that the page table maps huge now."""
        first, end = self.address, self.address + self.blocks * PMD_SIZE
        kib, inside = 0, False
        with Path("/proc/self/smaps").open(encoding="ascii", errors="replace") as file:
            for line in file:
                area = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line)
                if area:
                    inside = int(area[1], 16) < end and int(area[2], 16) > first
                elif inside and line.startswith("AnonHugePages:"):
                    kib += int(line.split()[1])
        return kib * 1024 // PMD_SIZE


def page_size() -> int:
    """The machine's base page."""
    return os.sysconf("SC_PAGE_SIZE")
