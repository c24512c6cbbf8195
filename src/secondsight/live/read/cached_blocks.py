"""Which blocks of a process's shared memory the page cache holds, whoever maps them."""

from __future__ import annotations

import contextlib
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from secondsight.live.read.columns import Columns
from secondsight.live.read.page_cache import CachedFile
from secondsight.live.read.process import Process
from secondsight.live.read.vma import Vma


class CachedBlocks(NamedTuple):
    """Of the whole blocks with a page in the page cache: *address* uint64[K], ascending; *pages* int64[K]. *asked*: (start, end) of the
    mappings that could be asked: what is not named of them is 0."""

    address: npt.NDArray[np.uint64]
    pages: npt.NDArray[np.int64]
    asked: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, process: Process, vmas: list[Vma]) -> CachedBlocks:
        """Those of *vmas*, ascending mappings of *process*."""
        addresses, pages, asked = [], [], []
        for vma in vmas:
            file = CachedFile.open(process, vma) if vma.first_block < vma.block_end else None
            if file is None:
                continue
            with contextlib.closing(file):
                found, counts = file.blocks(vma.start, vma.end)
            addresses.append(found)
            pages.append(counts)
            asked.append((vma.first_block, vma.block_end))
        if not asked:
            return cls(np.empty(0, np.uint64), np.empty(0, np.int64), ())
        return cls(np.concatenate(addresses), np.concatenate(pages), tuple(asked))

    def joined(self, blocks: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        """*blocks* (ascending) with those that only the page cache holds; ascending."""
        new = self.address[~np.isin(self.address, blocks)] if len(self.address) else self.address
        return np.sort(np.concatenate((blocks, new))) if len(new) else blocks

    def fill(self, columns: Columns) -> None:
        """Write the column ``cached``."""
        if not self.asked:
            return
        for start, end in self.asked:
            low, high = np.searchsorted(columns.address, np.array([start, end], np.uint64))
            columns.cached[low:high] = 0
        columns.cached[np.searchsorted(columns.address, self.address)] = self.pages
