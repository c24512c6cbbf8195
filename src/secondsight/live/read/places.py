"""Where the frames of some processes are mapped, so that a tracepoint's frame becomes an address.

A frame is an address only if its place was read before (a collapse frees the frame), and it is believed only if the page table still agrees
after: the frame is still there, or the block has become huge.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from secondsight.bits import pagemap as pm
from secondsight.errors import MissingDependency, SecondSightError, TargetGone
from secondsight.geometry import HPAGE_PMD_NR, PAGE_SIZE, PMD_SIZE
from secondsight.live.read.process import Process
from secondsight.live.read.procfs import Pagemap
from secondsight.live.read.vma import parse_maps

__all__ = ["Places"]

U64 = npt.NDArray[np.uint64]
_BLOCK_MASK = ~(PMD_SIZE - 1)
_PFN = int(pm.PFN_MASK)
_RUN = np.arange(HPAGE_PMD_NR, dtype=np.uint64)


class Places:
    """Where each frame of some processes was mapped when it was last looked: frame to (process, address)."""

    def __init__(self, processes: Iterable[Process], max_pages: int = 64 << 20) -> None:
        self._processes = list(processes)
        self._max_pages = max_pages
        self._frames: U64 = np.empty(0, np.uint64)
        self._addresses: U64 = np.empty(0, np.uint64)
        self._owners: npt.NDArray[np.int32] = np.empty(0, np.int32)
        #: processes whose places could not be read, and why
        self.unread: dict[int, str] = {}
        self._pagemaps: dict[int, Pagemap] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read all places again; processes that have gone are dropped."""
        frames, addresses, owners = [], [], []
        left = self._max_pages
        for index, process in enumerate(self._processes):
            try:
                places = _places(process, left)
            except TargetGone:
                continue
            except SecondSightError as error:
                self.unread[process.pid] = str(error)
                continue
            left -= len(places[0])
            frames.append(places[0])
            addresses.append(places[1])
            owners.append(np.full(len(places[0]), index, np.int32))
        if not frames:
            self._frames = np.empty(0, np.uint64)
            return
        every = np.concatenate(frames)
        order = np.argsort(every)
        self._frames = every[order]
        self._addresses = np.concatenate(addresses)[order]
        self._owners = np.concatenate(owners)[order]

    def find(self, frame: int, collapsed: bool) -> tuple[int, int] | None:
        """(pid, address of the block) of *frame*, if the page table still agrees."""
        at = int(self._frames.searchsorted(np.uint64(frame)))
        while at < len(self._frames) and self._frames.item(at) == frame:
            process, address = self._processes[self._owners.item(at)], self._addresses.item(at)
            if self._agrees(process, frame, address, collapsed):
                return process.pid, address & _BLOCK_MASK
            at += 1
        return None

    def _agrees(self, process: Process, frame: int, address: int, collapsed: bool) -> bool:
        """Does the page table still say so? A pagemap opened once stays this address space's: after an exec it is empty."""
        try:
            pagemap = self._pagemaps.get(process.pid)
            if pagemap is None:
                pagemap = self._pagemaps[process.pid] = Pagemap(process)
            if not collapsed:
                return pagemap.word(address) & _PFN == frame
            words = pagemap.read(address & _BLOCK_MASK, HPAGE_PMD_NR) & pm.PFN_MASK
        except SecondSightError:
            # Exited, or a new program: the next look opens its own.
            stale = self._pagemaps.pop(process.pid, None)
            if stale is not None:
                stale.close()
            return False
        # One aligned run of 512 frames: the huge page that took the block's place.
        first = int(words[0])
        return first != 0 and first % HPAGE_PMD_NR == 0 and bool((words == first + _RUN).all())

    def close(self) -> None:
        """Close the files."""
        while self._pagemaps:
            self._pagemaps.popitem()[1].close()

    def __enter__(self) -> Places:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _places(process: Process, most: int) -> tuple[U64, U64]:
    frames, addresses, total = [], [], 0
    vmas = parse_maps(process.read_file("maps"), f"/proc/{process.pid}/maps")
    with Pagemap(process) as pagemap:
        for vma in vmas:
            if not vma.anonymous or vma.first_block >= vma.block_end:
                continue
            blocks = pagemap.populated_blocks(vma.start, vma.end)
            if total + len(blocks) * HPAGE_PMD_NR > most:
                break
            words = pagemap.read_blocks(blocks)
            row, column = np.nonzero(words & pm.PRESENT)
            frames.append(words[row, column] & pm.PFN_MASK)
            addresses.append(blocks[row] + column.astype(np.uint64) * np.uint64(PAGE_SIZE))
            total += len(row)
    if not frames:
        return np.empty(0, np.uint64), np.empty(0, np.uint64)
    every = np.concatenate(frames)
    if len(every) and not every.any():
        raise MissingDependency("pagemap: shows no frames; addresses need CAP_SYS_ADMIN")
    return every, np.concatenate(addresses)
