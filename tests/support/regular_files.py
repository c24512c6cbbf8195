"""A process that maps a regular file, and what the page cache has of it."""

from __future__ import annotations

import numpy as np

from secondsight.bits import pte as x86
from secondsight.mm import page as pg
from secondsight.mm.config import HostConfig
from secondsight.mm.host import Host


def mapping(blocks: int = 1, *, writable: bool = False, **config: object):
    """A host with one process that maps all of one file."""
    host = Host("7.3", HostConfig(**config))
    memory = host.regular_file("data", blocks)
    return host, memory, host.shared_mm("a", blocks, memory, writable=writable)


def orders(host, memory) -> list[int]:
    """The order of each folio in the cache, in order of index."""
    f, out, index = host.frames.arrays, [], 0
    while index < len(memory.cache):
        pfn = int(memory.cache[index])
        if pfn:
            out.append(int(pg.folio_order(f, pfn)))
        index += 1 << out[-1] if pfn else 1
    return out


def mapped(mm) -> list[int]:
    """The pages that *mm* maps by a PTE."""
    return np.flatnonzero((mm.arrays.pte & x86.PRESENT) != 0).tolist()
