"""What must hold of a host between any two verbs, worked out anew from its page tables, and short ways to set one up."""

from __future__ import annotations

import numpy as np

from secondsight.bits import pte as x86
from secondsight.bits import spte as sx
from secondsight.bits.swap import SURE_SWAP, swp_offset, swp_type
from secondsight.mm import page as pg
from secondsight.mm.config import HostConfig
from secondsight.mm.host import Host
from secondsight.mm.mm_struct import Mm
from secondsight.mm.profiles import PROFILES
from secondsight.mm.swap import CACHED
from secondsight.mmu.gru import GruContext
from secondsight.mmu.kvm import Kvm

#: One profile for each era that a rule can tell apart.
KERNELS = ("2.6.38", "6.1", "6.12", "6.18", "7.2")
ALL = tuple(PROFILES)
MMUS = ("npt", "shadow", "ept", "ept-noad")


def pages(block: int, *parts: int | range) -> np.ndarray:
    """Page numbers of *block*: all 512, or those named by index."""
    if not parts:
        return np.arange(block * 512, block * 512 + 512)
    inner = [i for part in parts for i in (part if isinstance(part, range) else (part,))]
    return block * 512 + np.array(inner, dtype=np.int64)


def vm(rules: str = "6.1", blocks: int = 2, **config: object) -> tuple[Host, Mm, Kvm]:
    """A process with a VM whose slot 0 maps all of it."""
    host = Host(rules, HostConfig(**config))
    mm = host.mm("vm", blocks)
    kvm = Kvm(mm)
    kvm.slot_add(0, 0, 0, blocks * 512)
    return host, mm, kvm


def flags(mm: Mm, page: int) -> int:
    """The flags of the folio behind *page*."""
    return int(mm.host.frames.arrays.flags[mm.folio(page)])


def balance(host: Host) -> None:
    """Recount every mapcount, refcount and swap slot from whoever holds one; raises AssertionError naming the first that is off."""
    a = host.frames.arrays
    top = int(a.n[pg.NEXT])
    by_pte, by_pmd, extra = (np.zeros(top, np.int64) for _ in range(3))
    swap = np.zeros(len(host.swap), np.int64)
    for mm in host.mms.values():
        huge = (mm.arrays.pmd & x86.PSE) != 0
        heads = x86.pte_pfn(mm.arrays.pmd[huge]).astype(np.int64)
        np.add.at(by_pmd, heads[heads != pg.HUGE_ZERO_PFN], 1)
        table = np.repeat((mm.arrays.pmd != 0) & ~huge, 512)
        assert not mm.arrays.pte[~table].any(), "entries where no page table is"
        entries = mm.arrays.pte[table]
        mapped = x86.pte_pfn(entries[x86.pte_present(entries)]).astype(np.int64)
        np.add.at(by_pte, mapped[mapped != pg.ZERO_PFN], 1)
        named = entries[x86.is_swap_pte(entries) & (swp_type(entries) < SURE_SWAP)]
        np.add.at(swap, swp_offset(named).astype(np.int64), 1)
        for held in mm.pins.values():
            for pfn in held:
                if pfn != pg.ZERO_PFN and pfn & ~511 != pg.HUGE_ZERO_PFN:
                    extra[int(pg.head_of(a, pfn))] += 1
    memories = {id(memory): memory for memory in host.memories.values()}
    memories |= {id(mm.memory): mm.memory for mm in host.mms.values() if mm.memory is not None}
    for memory in memories.values():
        for pfn in memory.cache[memory.cache > 0].tolist():
            extra[int(pg.head_of(a, pfn))] += 1
    for pfn in host.slots[CACHED][host.slots[CACHED] != 0].tolist():
        extra[int(pg.head_of(a, pfn))] += 1
        assert a.flags[int(pg.head_of(a, pfn))] & pg.SWAPCACHE, (
            f"pfn {pfn} is in the swap cache and has no PG_swapcache"
        )
    np.add.at(extra, a.batch[pg.BATCH_MLOCK, : a.n[pg.N_MLOCK]] >> 2, 1)
    for which, count in ((pg.BATCH_ADD, a.n[pg.N_ADD]), (pg.BATCH_ACTIVATE, a.n[pg.N_ACTIVATE])):
        np.add.at(extra, a.batch[which, :count], 1)

    _equal("mapcount", a.mapcount[:top], by_pte, "page tables hold")
    _equal("swap slot's count", host.swap, swap, "page tables hold")
    flags = a.flags[:top]
    used = 0
    for pfn in range(pg.FIRST_PFN, top):
        if flags[pfn] & pg.TAIL:
            continue
        extra[pfn] += bool(flags[pfn] & pg.PRIVATE)
        if flags[pfn] & pg.HEAD:
            pages = int(pg.folio_nr_pages(a, pfn))
            whole = int(by_pte[pfn : pfn + pages].sum())
            assert int(a.refcount[pfn + 1]) == by_pmd[pfn], f"folio {pfn}: PMD mappings miscounted"
            assert pages == 2 or int(a.refcount[pfn + 2]) == whole, f"folio {pfn}: PTE mappings miscounted"
            want = by_pmd[pfn] + whole + extra[pfn]
            used += pages
        else:
            assert not by_pmd[pfn], f"pfn {pfn} is mapped by a PMD and is no head"
            want = by_pte[pfn] + extra[pfn]
            used += bool(want)
        assert int(a.refcount[pfn]) == want, f"pfn {pfn}: refcount {a.refcount[pfn]}, holders {want}"
    assert host.frames.in_use == used, f"{host.frames.in_use} frames in use, {used} held"


def _equal(what: str, got: np.ndarray, want: np.ndarray, who: str) -> None:
    off = np.flatnonzero(got != want)
    assert not len(off), f"{what} of {off[0]}: {got[off[0]]}, {who} {want[off[0]]}"


def secondary(mm: Mm) -> None:
    """No secondary MMU reaches a frame the primary page table does not map there, nor stores where it may not."""
    for notifier in mm.notifiers.list:
        if isinstance(notifier, Kvm):
            for slot in notifier.slots.values():
                for table in slot.tables.values():
                    _table_agrees(mm, notifier, table)
        elif isinstance(notifier, GruContext):
            for page, write in notifier.tlb.items():
                assert mm.pfn(page) >= 0, f"the device reaches page {page}, unmapped"
                assert not write or _entry(mm, page) & x86.RW, (
                    f"the device may store to read-only page {page}"
                )


def _entry(mm: Mm, page: int) -> np.uint64:
    pmd = mm.arrays.pmd[page >> 9]
    return pmd if pmd & x86.PSE else mm.arrays.pte[page]


def _table_agrees(mm: Mm, kvm: Kvm, table: object) -> None:
    lay = kvm.layout
    present = sx.is_present(table.spte, lay)
    for index in np.flatnonzero(present).tolist():
        page, spte = table.first + index, table.spte[index]
        assert int(sx.spte_pfn(spte)) == mm.pfn(page), f"page {page}: the guest reaches another frame"
        if spte & lay.host_writable:
            assert _entry(mm, page) & x86.RW, f"page {page}: the guest may store, the host may not"
    for block in np.flatnonzero(sx.is_present(table.smd, lay)).tolist():
        page = table.first + block * 512
        assert mm.arrays.pmd[page >> 9] & x86.PSE, f"page {page}: a large SPTE over small pages"
        assert int(sx.spte_pfn(table.smd[block])) == mm.pfn(page), (
            f"page {page}: the guest reaches another folio"
        )


def holds(host: Host) -> None:
    """Everything above, and the kernel's own assertions about frames."""
    pg.check(host.frames)
    balance(host)
    for mm in host.mms.values():
        secondary(mm)
