"""Kernel memory that is a dictionary of pages."""

import numpy as np

from secondsight.bits import pte as bits
from secondsight.live.read.kmem import Torn

TABLE = int(bits.PRESENT | bits.RW | bits.USER)


class Memory:
    """A kernel of pages of 512 words; *before* runs at every read."""

    page_table_levels = 4
    pfn_mask = np.uint64(((1 << 52) - 1) & ~0xFFF)

    def __init__(self):
        self.pages = {}
        self.before = lambda address: None
        self.reads = 0

    def new(self, words=None):
        address = 0x1000 * (len(self.pages) + 1)
        self.pages[address] = np.zeros(512, np.uint64) if words is None else np.asarray(words, np.uint64)
        return address

    def words(self, address, count):
        self.reads += 1
        self.before(address)
        page = self.pages.get(address & ~0xFFF)
        if page is None:
            raise Torn("nothing there")
        at = (address & 0xFFF) // 8
        return page[at : at + count].copy()

    def direct(self, physical):
        return physical

    def table(self, physical):
        return self.words(physical, 512)

    def gather(self, addresses):
        return np.array([self.words(int(a), 1)[0] for a in addresses], np.uint64)


def tree(memory, levels, entries, index=(0, 0, 0, 0)):
    """Tables of *levels* above a leaf table; the top's address and the leaf's."""
    leaf = below = memory.new(entries)
    for level in range(levels - 1):
        table = memory.new()
        memory.pages[table][index[level]] = below | TABLE
        below = table
    return below, leaf
