"""A process in a kernel made by hand: page tables, frames and a name; blocks of 2 MiB from START, unless said otherwise."""

import numpy as np

from secondsight.bits import pte as bits
from support.fake_kernel import DIRECT, VMEMMAP, FakeKernel

START, BLOCK = 0x7F0000000000, 1 << 21
TABLE = int(bits.PRESENT | bits.RW | bits.USER)
FRAMES, HUGE = 0x40000, 0x80000
#: Where the tables lie, by physical address.
PGD, PUD, PMD, LEAVES = 0x10000, 0x11000, 0x12000, 0x13000
FLAGS = {
    "PG_locked": 0, "PG_referenced": 1, "PG_uptodate": 2, "PG_lru": 4, "PG_active": 5, "PG_swapbacked": 6, "PG_head": 7, "PG_young": 8,
}  # fmt: skip
ANON = 0xFFFF_9000_0000_0001


class FakeProcess:
    """Process 7: *blocks* {number: "full" of small pages, or "huge"}; none of its bits is set. The process that readers hold, too."""

    pid, start_time, name = 7, None, "program"

    def __init__(self, blocks, start=START):
        self.kernel = kernel = FakeKernel(constants=FLAGS)
        self.blocks, self.start, self.pmd = blocks, start, PMD
        for at in (PGD, PUD, PMD):
            self.table(at, [0] * 512)
        self.entry(PGD, start >> 39 & 511, PUD | TABLE)
        self.entry(PUD, start >> 30 & 511, PMD | TABLE)
        for number, kind in blocks.items():
            if kind == "huge":
                self.entry(PMD, number, HUGE + 512 * number << 12 | TABLE | int(bits.PSE))
                self.huge_frames(HUGE + 512 * number)
            else:
                self.entry(PMD, number, LEAVES + 0x1000 * number | TABLE)
                first = FRAMES + 512 * number
                self.table(LEAVES + 0x1000 * number, [first + i << 12 | TABLE for i in range(512)])
                for pfn in range(first, first + 512):
                    kernel.make(
                        "page", at=VMEMMAP + 64 * pfn, flags=1 << 4 | 1 << 6, mapping=ANON, _refcount=1
                    )
        self.mm = kernel.make("mm_struct", pgd=DIRECT + PGD)
        self.where = kernel.make("task_struct", mm=self.mm)
        self.task = kernel.at("task_struct", self.where)
        self.alive = True

    def huge_frames(self, pfn):
        for i in range(512):
            head = {"compound_head": VMEMMAP + 64 * pfn | 1} if i else {}
            flags = 1 << 4 | 1 << 6 | 1 << 7 if i == 0 else 0
            self.kernel.make(
                "page",
                at=VMEMMAP + 64 * (pfn + i),
                flags=flags,
                mapping=ANON,
                _mapcount=-1,
                _refcount=1,
                **head,
            )
        self.kernel.change("page", VMEMMAP + 64 * (pfn + 1), flags=9)
        self.kernel.change("folio", VMEMMAP + 64 * pfn, _large_mapcount=0, _entire_mapcount=0)

    def table(self, physical, entries):
        self.kernel.write(DIRECT + physical, np.asarray(entries, np.uint64).tobytes())

    def entry(self, physical, index, value):
        self.kernel.write(DIRECT + physical + 8 * index, int(value).to_bytes(8, "little"))

    def touch(self, block, *pages, bit=bits.ACCESSED):
        """Set *bit* in the entries of *pages* of *block*; of a huge one in its own."""
        for page in pages or (0,):
            if self.blocks[block] == "huge":
                at, index, entry = PMD, block, HUGE + 512 * block << 12 | TABLE | int(bits.PSE)
            else:
                at, index, entry = LEAVES + 0x1000 * block, page, FRAMES + 512 * block + page << 12 | TABLE
            now = self.kernel.words(DIRECT + at + 8 * index, 1)[0]
            self.entry(at, index, int(now) | int(bit) | entry)

    def clear(self, block, *pages):
        """The entries of *pages* of *block* as they began."""
        for page in pages:
            self.entry(LEAVES + 0x1000 * block, page, FRAMES + 512 * block + page << 12 | TABLE)

    def mark(self, block, page, name):
        """Set the flag *name* of a small page."""
        self.kernel.change(
            "page", VMEMMAP + 64 * (FRAMES + 512 * block + page), flags=1 << 4 | 1 << 6 | 1 << FLAGS[name]
        )

    def execs(self):
        """Another address space from now on."""
        self.kernel.change("task_struct", self.where, mm=self.kernel.make("mm_struct", pgd=DIRECT + PGD))

    def require_alive(self):
        assert self.alive

    def read_file(self, name):
        assert name == "maps"
        last = max(self.blocks) + 1
        return f"{self.start:x}-{self.start + last * BLOCK:x} rw-p 00000000 00:00 0 \n".encode()
