"""Which blocks of a process are in use right now: watched over an interval, through the channels that are there.

::

    DAMON           samples of the CPU's and the secondary MMUs' accessed bits, region by region    every block seen: used, or not
    kernel memory   accessed bits (CPU, KVM), again and again                                       turned young: used
                                                                                                   young before: cannot be told
    neither         nothing is known

An accessed bit says "used since somebody last cleared it", which may be since boot: no bit alone is heat. DAMON clears bits as it goes
and keeps what it takes off in PG_young, where khugepaged and reclaim look too (damon_ptep_mkold, mm/damon/ops-common.c); reading kernel
memory clears nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from secondsight.bits import pte as bits
from secondsight.errors import MissingDependency
from secondsight.geometry import HPAGE_PMD_NR, PMD_SIZE
from secondsight.live.read.columns import Columns
from secondsight.live.read.process import Process
from secondsight.live.read.procfs import Pagemap
from secondsight.live.read.tracefs import Instance
from secondsight.live.read.vma import Vma, clip, parse_maps
from secondsight.plural import pluralize

if TYPE_CHECKING:
    from secondsight.live.read.kmem import KernelMemory
    from secondsight.trace.read.damo import DamonRegion

#: share of the samples in which a region must be accessed to be called hot: that of DAMON's "ethp" scheme
HOT = 0.05
_STEP = 0.25  # seconds between two emptyings of the trace buffer
_LONGEST = 10  # readings of kernel memory at the most

Blocks = npt.NDArray[np.uint64]


class Heat(NamedTuple):
    """*weights*: pages or samples used of each block that was, by address; *untold*: blocks of which it cannot be told; *source*: how, and
    how long it was watched, or empty; *missing*: why not otherwise."""

    weights: dict[int, int]
    untold: frozenset[int]
    source: str
    missing: dict[str, str]

    def of(self, blocks: Blocks) -> npt.NDArray[np.int64]:
        """The weight of each of *blocks* (uint64[N]): 0 known not used, -1 not known; int64[N]."""
        if not self.source:
            return np.full(len(blocks), -1, np.int64)
        return np.array(
            [self.weights.get(at, -1 if at in self.untold else 0) for at in blocks.tolist()], np.int64
        )


def watch(
    process: Process,
    kernel: KernelMemory | None,
    seconds: float,
    wait: Callable[[float], bool],
    within: tuple[int, int] | None = None,
    missing: str = "",
) -> Heat:
    """Watch *process* for *seconds*, inside the addresses *within*: by DAMON where it is free, else through *kernel* memory (None for
    *missing*). *wait(seconds)* sleeps and answers whether to stop: what was seen until then counts. Where nothing can be seen it does
    not wait.

    :raises TargetGone: the process exited or called exec.
    """
    problems: dict[str, str] = {}
    vmas = clip(parse_maps(process.read_file("maps"), f"/proc/{process.pid}/maps"), within)
    try:
        return _by_damon(process, [vma for vma in vmas if vma.name != "[vsyscall]"], seconds, wait)
    except MissingDependency as error:
        problems["DAMON"] = str(error)
    if kernel is None:
        problems["kernel memory"] = missing
        return Heat({}, frozenset(), "", problems)
    heat = _by_kernel(process, kernel, vmas, seconds, wait)
    if not heat.source:
        problems["kernel memory"] = "every accessed bit was set before, and nobody cleared one"
    return heat._replace(missing=problems)


def _by_damon(process: Process, vmas: list[Vma], seconds: float, wait: Callable[[float], bool]) -> Heat:
    # Imported here: reading DAMON's records needs the compiled trace readers, which a guest of the lab does not have.
    from secondsight.live.read.damon import EVENT, Damon, spans

    with Instance.open(events=(EVENT,)) as instance:
        if not instance.events:
            raise MissingDependency(f"{EVENT}: this kernel has no such tracepoint")
        with Damon.open(process.pid, spans(vmas), 2 * _STEP) as damon:
            regions: list[list[DamonRegion]] = []
            begun = time.monotonic()
            while True:
                left = begun + seconds - time.monotonic()
                stop = wait(min(_STEP, max(left, 0.0)))
                process.require_alive()
                accessed = damon.take(instance.read())
                if accessed:
                    regions.append(accessed)
                if stop or left <= 0:
                    break
    watched = time.monotonic() - begun
    # Regions find the borders of what is used while they are watched: the second half knows them.
    late = [region for some in regions[len(regions) // 2 :] for region in some]
    weights = weigh(late)
    limit = HOT * max(weights.values(), default=0)
    hot = {at: weight for at, weight in weights.items() if weight >= max(limit, 1)}
    return Heat(hot, frozenset(), f"DAMON over {watched:.1f} s", {})


def weigh(regions: list[DamonRegion]) -> dict[int, int]:
    """Samples in which each block was accessed, by address; a region counts for each block by the share of it that it covers."""
    return {at: round(weight) for at, weight in weigh_exactly(regions).items() if round(weight)}


def weigh_exactly(regions: list[DamonRegion]) -> dict[int, float]:
    """:func:`weigh`, not rounded."""
    weights: dict[int, float] = {}
    for region in regions:
        first = region.start // PMD_SIZE * PMD_SIZE
        for at in range(first, region.end, PMD_SIZE):
            part = (min(region.end, at + PMD_SIZE) - max(region.start, at)) / PMD_SIZE
            weights[at] = weights.get(at, 0.0) + region.samples * part
    return weights


def _by_kernel(
    process: Process, kernel: KernelMemory, vmas: list[Vma], seconds: float, wait: Callable[[float], bool]
) -> Heat:
    from secondsight.live.read.kernel_reader import KernelReader

    reader = KernelReader(kernel, process)
    with Pagemap(process) as pagemap:
        populated = [pagemap.populated_blocks(vma.start, vma.end) for vma in vmas if vma.name != "[vsyscall]"]
    blocks = np.unique(np.concatenate([np.zeros(0, np.uint64), *populated]))
    turned = np.zeros((len(blocks), HPAGE_PMD_NR), np.bool_)
    begun = time.monotonic()
    first = before = used_bits(reader.read_blocks(blocks))
    took = time.monotonic() - begun
    every = max(seconds / _LONGEST, took)
    while True:
        left = begun + seconds - time.monotonic()
        stop = wait(min(every, max(left, 0.0)))
        after = used_bits(reader.read_blocks(blocks))
        # Ageing may clear a bit in between: each turning counts.
        turned |= (after & ~before).any(axis=0)
        before = after
        if stop or left <= 0:
            break
    counts = turned.sum(axis=1)
    untold = first.any(axis=(0, 2)) & (counts == 0)
    weights = {int(at): int(count) for at, count in zip(blocks, counts, strict=True) if count}
    known, span = len(blocks) - int(untold.sum()), time.monotonic() - begun
    if not known:
        return Heat({}, frozenset(), "", {})
    source = f"kernel memory over {span:.1f} s; {pluralize(len(blocks) - known, 'block')} had their bits set before, which tells nothing"
    return Heat(weights, frozenset(blocks[untold].tolist()), source, {})


def used_bits(columns: Columns) -> npt.NDArray[np.bool_]:
    """Accessed bits by channel: CPU, secondary MMUs; bool[2, N, 512], of a huge block all pages as its PMD.

    Marks on the page itself are left out: the kernel moves bits there, and sets them, without any access.
    """
    huge = bits.pmd_trans_huge(columns.pmd)[:, None]
    small = bits.pte_present(columns.pte) & bits.pte_young(columns.pte)
    cpu = np.where(huge, bits.pte_young(columns.pmd)[:, None], small)
    guest = np.zeros(cpu.shape, np.bool_)
    for channel in columns.secondary:
        guest |= channel.young & channel.known
    return np.stack([cpu, guest])


__all__ = ["HOT", "Heat", "used_bits", "watch", "weigh", "weigh_exactly"]
