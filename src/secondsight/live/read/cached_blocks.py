"""Which blocks of a process's shared memory and files the page cache holds, whoever maps them."""

from __future__ import annotations

import contextlib
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from secondsight.errors import MissingDependency
from secondsight.geometry import PAGE_SIZE, PMD_SIZE
from secondsight.live.read.columns import Columns
from secondsight.live.read.page_cache import CachedFile, local_devices
from secondsight.live.read.process import Process
from secondsight.live.read.vma import Vma, clip

_NOTHING = (np.empty(0, np.uint64), np.empty(0, np.int64))


class CachedBlocks(NamedTuple):
    """Of the whole blocks with a page in the page cache: *address* uint64[K], ascending; *pages* int64[K]; *evicted*, *dirty* int64[K] as
    cachestat counts them, -1 unknown. *asked*: (start, end, whether cachestat could be asked) of the mappings that could be asked: what is
    not named of them is 0, but for pages that are gone where the last is False. *beside*: of the mapping that starts there, the bytes in
    the page cache before and behind its whole blocks."""

    address: npt.NDArray[np.uint64]
    pages: npt.NDArray[np.int64]
    evicted: npt.NDArray[np.int64]
    dirty: npt.NDArray[np.int64]
    asked: tuple[tuple[int, int, bool], ...]
    beside: dict[int, int]

    @classmethod
    def of(cls, process: Process, vmas: list[Vma], within: tuple[int, int] | None = None) -> CachedBlocks:
        """Those of *vmas*, ascending mappings of *process*, inside the addresses *within*."""
        parts, asked, beside = [], [], {}
        local: frozenset[str] | None = None
        # A file is found by its whole mapping's addresses, whatever part of that is asked about.
        for whole_vma, vma in ((each, part) for each in vmas for part in clip([each], within)):
            if not vma.of_file or vma.first_block >= vma.block_end:
                continue
            if local is None:
                local = _local(process)
            file = CachedFile.open(process, whole_vma, local)
            if file is None:
                continue
            with contextlib.closing(file):
                beside[vma.start] = PAGE_SIZE * sum(
                    _pages(file, *edge) for edge in ((vma.start, vma.first_block), (vma.block_end, vma.end))
                )
                whole = file.counts(vma.first_block, vma.block_end)
                addresses, counts = (
                    file.blocks(vma.start, vma.end) if whole is None or whole.cached else _NOTHING
                )
                more = np.full((2, len(addresses)), -1, np.int64)
                if whole is not None:
                    addresses, counts, more = _counted(
                        file, vma, whole.dirty + whole.evicted, addresses, counts
                    )
            parts.append((addresses, counts, more[0], more[1]))
            asked.append((vma.first_block, vma.block_end, whole is not None))
        if not asked:
            none = np.empty(0, np.int64)
            return cls(np.empty(0, np.uint64), none, none, none, (), {})
        address, pages, evicted, dirty = (np.concatenate(each) for each in zip(*parts, strict=True))
        return cls(address, pages, evicted, dirty, tuple(asked), beside)

    def joined(self, blocks: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        """*blocks* (ascending) with those that only the page cache holds; ascending."""
        new = self.address[~np.isin(self.address, blocks)] if len(self.address) else self.address
        return np.sort(np.concatenate((blocks, new))) if len(new) else blocks

    def marked(self, vmas: list[Vma]) -> list[Vma]:
        """*vmas* with what lies beside their whole blocks."""
        return [
            msgspec.structs.replace(vma, cached_beside=self.beside[vma.start])
            if vma.start in self.beside
            else vma
            for vma in vmas
        ]

    def fill(self, columns: Columns) -> None:
        """Write the column ``cached``."""
        if not self.asked:
            return
        for start, end, counted in self.asked:
            low, high = np.searchsorted(columns.address, np.array([start, end], np.uint64))
            columns.cached[low:high] = 0
            if counted:
                columns.evicted[low:high] = columns.dirty[low:high] = 0
        rows = np.searchsorted(columns.address, self.address)
        columns.cached[rows], columns.evicted[rows], columns.dirty[rows] = (
            self.pages,
            self.evicted,
            self.dirty,
        )


def _pages(file: CachedFile, start: int, end: int) -> int:
    """Pages of [start, end) in the page cache, counted as those of whole blocks are."""
    if start >= end:
        return 0
    counted = file.counts(start, end)
    return int(file.pages(start, end).sum()) if counted is None else counted.cached


def _local(process: Process) -> frozenset[str]:
    try:
        return local_devices(process.read_file("mountinfo").decode("utf-8", "surrogateescape"))
    except MissingDependency:
        return frozenset()


def _counted(
    file: CachedFile, vma: Vma, more: int, addresses: npt.NDArray[np.uint64], counts: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(addresses, pages, int64[2, K] evicted and dirty) of the blocks of *vma*: those at *addresses*, and those where pages are gone that
    were there; *more*: whether any is dirty or gone at all."""
    if not more:
        return addresses, counts, np.zeros((2, len(addresses)), np.int64)
    cached = dict(zip(addresses.tolist(), counts.tolist(), strict=True))
    rows = []
    for address in range(vma.first_block, vma.block_end, PMD_SIZE):
        cache_counts = file.counts(address, address + PMD_SIZE)
        # What mincore counts of shared memory has those pages in it that are in the swap cache, which the page cache does not hold.
        pages, dirty, evicted = (cached.get(address, 0), -1, -1) if cache_counts is None else cache_counts
        if pages or evicted > 0:
            rows.append((address, pages, evicted, dirty))
    table = np.array(rows, np.int64).reshape(-1, 4)
    return table[:, 0].astype(np.uint64), table[:, 1], table[:, 2:].T
