"""Snapshots made by hand."""

import numpy as np

from secondsight.bits import pageflags as kpf
from secondsight.bits import pte as bits
from secondsight.live.read.capture import FORMAT, Answerer, Header, Snapshot
from secondsight.live.read.columns import Columns, Secondary
from secondsight.live.read.probe import Facts
from secondsight.live.read.surroundings import Surroundings
from secondsight.live.read.thp_disabled import ThpDisabled
from secondsight.live.read.vma import Vma
from secondsight.mm.config import Knobs

BLOCK = 1 << 21
START = 0x7F0000000000

FACTS_72 = Facts(
    release="7.2.13-test",
    trace_fields=("mm", "pfn", "referenced", "none_or_zero", "status", "unmapped"),
    trace_statuses=("no_pte_table", "page_lazyfree"),
    large_mapcount=True,
    lru_batch=31,
    page_young=True,
    change_pte=False,
    zap_transfers=False,
    soft_accessed=True,
)

FACTS_61 = Facts(
    release="6.1-test", trace_fields=("mm", "writable"), trace_statuses=("succeeded",), large_mapcount=False, lru_batch=15,
    page_young=False, change_pte=True, zap_transfers=True, soft_accessed=False,
)  # fmt: skip

#: nothing of the surroundings stands in the way, and all was read
KNOWN = Surroundings(
    registered=True, without_anon_vma=(), huge_blocks=1000, headroom=-1, distances=False, thp_disabled=ThpDisabled.NONE,
    missing_waited_for=(),
)  # fmt: skip


def columns(blocks, secondary=True):
    """Blocks of 512 anonymous, writable, idle pages from START."""
    memory = Columns.empty(np.arange(blocks, dtype=np.uint64) * np.uint64(BLOCK) + np.uint64(START))
    frames = np.arange(1 << 20, (1 << 20) + blocks * 512, dtype=np.uint64).reshape(blocks, 512)
    memory.pmd[:] = bits.TABLE
    memory.pte[:] = frames << np.uint64(12) | bits.PRESENT | bits.RW | bits.USER | bits.DIRTY
    memory.flags[:] = kpf.ANON | kpf.LRU | kpf.SWAPBACKED | kpf.UPTODATE | kpf.MMAP
    memory.mapcount[:] = memory.folio_mapcount[:] = memory.refcount[:] = 1
    memory.folio[:] = frames
    return with_vm(memory, np.zeros((blocks, 512), bool)) if secondary else memory


def with_vm(memory, young, known=None, why=""):
    """*memory* with a VM that used the pages *young*."""
    import dataclasses

    known = np.ones_like(young) if known is None else known
    marks = young.astype(np.uint8)
    gfn = np.arange(len(young), dtype=np.int64) * 512
    return dataclasses.replace(
        memory, secondary=(Secondary("kvm (npt)", young & known, known, why),), zap_marks=marks, gfn=gfn,
        slot=np.zeros(len(young), np.int32),
    )  # fmt: skip


def snapshot(memory, facts=FACTS_72, flags=("hg",), limits=None, enabled="madvise"):
    """A snapshot of one anonymous mapping that holds every block."""
    end = START + max(len(memory.address), 1) * BLOCK
    sizes = {"Referenced": 0, "Anonymous": (end - START) >> 10, "AnonHugePages": 0}
    mapping = Vma(START, end, "rw-p", 0, "00:00", 0, "", frozenset(("rd", "wr", *flags)), sizes, None)
    header = Header(
        format=FORMAT, version="0", taken=0.0, seconds=0.0, source="kernel memory", missing="", pid=4242, name="vm",
        machine="x86_64", facts=facts, limits=limits or Knobs(), enabled=enabled, counts_known=memory.counts_known,
        surroundings=KNOWN,
        secondary=tuple(Answerer(a.name, a.why) for a in memory.secondary), mappings=(mapping,),
    )  # fmt: skip
    return Snapshot(header, memory)
