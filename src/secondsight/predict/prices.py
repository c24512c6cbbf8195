"""What the kernel's work costs here: faults, zeroing, collapses, a fork's copies; the mean, and the longest that one took.

A stall is what a thread waits through without running a line of its own: a fault it takes itself, or a collapse under the mmap lock that
its
fault waits for. Of each kind the longest of some dozens or hundreds is kept beside the median. Both are CPU time: what a busy machine
makes a
thread wait for its turn is no price of these.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from secondsight.errors import SecondSightError
from secondsight.geometry import HPAGE_PMD_NR, PAGE_SIZE
from secondsight.live.act.madvise import MADV_COLLAPSE
from secondsight.predict.region import MADV_HUGEPAGE, MADV_NOHUGEPAGE, Region

#: Blocks that each price is measured on. Seconds after which a kernel has reported free memory to its hypervisor (mm/page_reporting.c waits
#: two, and goes through it in parts).
BLOCKS, COLD = 64, 8.0


class Price(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Seconds of CPU of one (median or mean), the longest of *times*."""

    seconds: float
    longest: float
    times: int


class Waits(NamedTuple):
    """How often a program waited for the kernel: faults of 4 KiB and of 2 MiB; after a fork, 4 KiB copied, 2 MiB copied whole, huge
    mappings split (each with a copy of 4 KiB, which does not count among *copied*)."""

    faults: int = 0
    huge_faults: int = 0
    copied: int = 0
    copied_huge: int = 0
    copy_splits: int = 0


class Prices(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """fault, fault_huge: a first store to a page, to a block that may be huge, zeroing included, in memory that was free a moment
    ago; fault_huge_cold: to a block whose memory has been free for COLD seconds, which a hypervisor may have taken back and must give
    anew; zero, zero_huge: clearing 4 KiB, 2 MiB in user space; collapse, collapse_full: MADV_COLLAPSE of a block with one page and with
    all 512 pages; copy: a fork's first store to a shared small page; copy_huge: the same to a shared huge page, which this kernel answers
    by *copy_huge_is*: "split" (from 5.8 on: the table is split, 4 KiB are copied) or "whole" (2 MiB are copied).
    """

    fault: Price
    fault_huge: Price
    fault_huge_cold: Price
    zero: Price
    zero_huge: Price
    collapse: Price
    collapse_full: Price
    copy: Price
    copy_huge: Price
    copy_huge_is: str

    @property
    def split(self) -> Price:
        """A fork's first store to a huge page where the kernel splits it; as a small page's where no such kernel was measured."""
        return self.copy_huge if self.copy_huge_is == "split" else self.copy

    @property
    def whole(self) -> Price:
        """The same where the kernel copies 2 MiB. Of a kernel that splits, what a huge fault takes beside clearing, and what a collapse
        takes to copy 512 pages, which is dearer than 2 MiB at once by what each page takes beside."""
        if self.copy_huge_is == "whole":
            return self.copy_huge
        copying = max(self.collapse_full.seconds - self.collapse.seconds - self.zero_huge.seconds, 0.0)
        return Price(
            seconds=self.fault_huge.seconds + copying,
            longest=self.fault_huge.longest + copying,
            times=self.fault_huge.times,
        )

    def each(self, events: Waits) -> list[tuple[int, Price, str]]:
        """How often a thread waits by itself, what one takes, and what it is."""
        return [
            (events.faults, self.fault, "a fault of one page"),
            (events.huge_faults, self.fault_huge, "a fault that clears 2 MiB"),
            (events.copied, self.copy, "the first store to a page after a fork"),
            (
                events.copied_huge,
                self.whole,
                "the first store to a huge page after a fork, which copies 2 MiB",
            ),
            (events.copy_splits, self.split, "the first store to a huge page after a fork"),
        ]

    def took(self, events: Waits) -> float:
        """CPU seconds of *events*."""
        return sum(number * price.seconds for number, price, _ in self.each(events))

    def mean(self, events: Waits) -> float | None:
        """CPU seconds of one of *events*; None where there are none."""
        return self.took(events) / sum(events) if sum(events) else None

    def stall(self, events: Waits, *, collapses: bool) -> tuple[float, str]:
        """The longest stall that a request could meet, seconds, and what it would be."""
        met = [(price.longest, what) for number, price, what in self.each(events) if number]
        if events.huge_faults:
            met.append((self.fault_huge_cold.longest, "a fault of 2 MiB that the hypervisor must give first"))
        if collapses:
            met.append((self.collapse_full.longest, "waiting for a collapse that copies 2 MiB"))
        return max(met, default=(0.0, "nothing"))


def _each(steps: int, work: Callable[[int], object]) -> Price:
    """*work* for each of *steps* numbers, timed one by one."""
    cpu = np.zeros(steps)
    for i in range(steps):
        start = time.thread_time_ns()
        work(i)
        cpu[i] = time.thread_time_ns() - start
    return Price(seconds=float(np.median(cpu)) / 1e9, longest=float(cpu.max()) / 1e9, times=steps)


def _many(price: Price, total: float, number: int) -> Price:
    """*price* with the mean of *number* that took *total* seconds of CPU together: timing each would be most of so short a time."""
    return msgspec.structs.replace(price, seconds=total / number, times=number)


def _stores(words: npt.NDArray[np.uint64], pages: npt.NDArray[np.int64]) -> float:
    """CPU seconds of a store to each of *pages*."""
    at = pages * (PAGE_SIZE // 8)
    start = time.thread_time_ns()
    words[at] = 1
    return (time.thread_time_ns() - start) / 1e9


def cold_fault() -> Price:
    """A fault of 2 MiB in whatever memory the kernel hands out now: to be asked before anything was freed here, and long after."""
    with Region(BLOCKS) as huge:
        huge.advise(MADV_HUGEPAGE)
        words = huge.words
        return _each(BLOCKS, lambda i: words.__setitem__(i * 262144, 1))


def measure(before: Price | None = None) -> Prices:
    """All prices, in some ten seconds. *before*: :func:`cold_fault` of a while ago; the dearer one is kept.

    :raises SecondSightError: no huge page could be had.
    """
    step = PAGE_SIZE // 8
    all_pages = np.arange(BLOCKS * HPAGE_PMD_NR)
    with Region(BLOCKS) as small:
        small.advise(MADV_NOHUGEPAGE)
        words = small.words
        tail = _each(HPAGE_PMD_NR, lambda i: words.__setitem__(i * step, 1))
        fault = _many(tail, _stores(words, all_pages[HPAGE_PMD_NR:]), len(all_pages) - HPAGE_PMD_NR)
        again = _stores(words, all_pages[HPAGE_PMD_NR:]) / (len(all_pages) - HPAGE_PMD_NR)  # the store itself
        fault = msgspec.structs.replace(fault, seconds=max(fault.seconds - again, 0.0))
        page = np.zeros(step, np.uint64)
        zero = _each(2000, lambda _: page.fill(0))
        copy = _after_fork(lambda: _copies(words, all_pages, again))
        small.advise(MADV_HUGEPAGE)
        full = _each(BLOCKS, lambda i: small.advise(MADV_COLLAPSE, i, 1))
        if small.huge_blocks() != BLOCKS:
            raise SecondSightError("MADV_COLLAPSE made only some blocks huge: no prices without huge pages")
        zero_huge = _each(BLOCKS, lambda i: words[i * 262144 : (i + 1) * 262144].fill(0))
        copy_huge = _after_fork(lambda: _each(BLOCKS, lambda i: words.__setitem__(i * 262144, 2)))
        # A kernel that copied 2 MiB still maps them huge; one that split has a table of small pages.
        split = _after_fork_huge(small, words)
    with Region(BLOCKS) as huge:
        huge.advise(MADV_HUGEPAGE)
        words = huge.words
        fault_huge = _each(BLOCKS, lambda i: words.__setitem__(i * 262144, 1))
        if huge.huge_blocks() != BLOCKS:
            raise SecondSightError(
                "a first touch maps no huge page here: transparent_hugepage/enabled is never, or memory is short"
            )
    time.sleep(COLD)
    cold = max(
        (price for price in (before, cold_fault()) if price is not None), key=lambda price: price.seconds
    )
    with Region(BLOCKS) as sparse:
        sparse.advise(MADV_NOHUGEPAGE)
        sparse.words[:: HPAGE_PMD_NR * step] = 1
        sparse.advise(MADV_HUGEPAGE)
        empty = _each(BLOCKS, lambda i: sparse.advise(MADV_COLLAPSE, i, 1))
    return Prices(
        fault=fault, fault_huge=fault_huge, fault_huge_cold=cold, zero=zero, zero_huge=zero_huge, collapse=empty, collapse_full=full,
        copy=copy,
        copy_huge=copy_huge, copy_huge_is="split" if split else "whole",
    )  # fmt: skip


def _copies(words: npt.NDArray[np.uint64], pages: npt.NDArray[np.int64], again: float) -> Price:
    """First stores to *pages* shared with a child."""
    step = PAGE_SIZE // 8
    tail = _each(HPAGE_PMD_NR, lambda i: words.__setitem__(i * step, 2))
    price = _many(tail, _stores(words, pages[HPAGE_PMD_NR:]), len(pages) - HPAGE_PMD_NR)
    return msgspec.structs.replace(price, seconds=max(price.seconds - again, 0.0))


@contextlib.contextmanager
def _child():  # type: ignore[no-untyped-def]
    """A fork's child that shares all memory, and does nothing, while the block runs."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(write)
        os.read(read, 1)
        os._exit(0)
    os.close(read)
    try:
        yield
    finally:
        os.close(write)
        os.waitpid(pid, 0)


def _after_fork(work: Callable[[], Price]) -> Price:
    """*work* while a child shares the memory."""
    with _child():
        return work()


def _after_fork_huge(region: Region, words: npt.NDArray[np.uint64]) -> bool:
    """Whether a store to a huge page that a child shares leaves small pages in its place."""
    for block in range(region.blocks):
        region.advise(MADV_COLLAPSE, block, 1)
    with _child():
        before = region.huge_blocks()
        words[::262144] = 3
        return region.huge_blocks() < before
