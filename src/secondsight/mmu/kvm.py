"""KVM as a secondary MMU: memslots, roots, and the notifier's ops (virt/kvm/kvm_main.c, arch/x86/kvm/mmu).

    slot: guest-physical block g, g+1, ... --> pages of the mm          two slots may map the same pages (aliases)
    TDP (NPT, EPT)      one table a slot
    shadow paging       one table a slot and way of addressing it: paging off (view 0), or each window of the guest's own page tables
    nested              beside TDP's, one table a slot and nested guest: shadow pages hanging off the same rmaps

An HVA is looked up in every slot that holds it; ``test_young`` and ageing OR over slots and SPTEs. Unmapping goes through all rmaps of
the range, and then through TDP's own tables (kvm_unmap_gfn_range).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from secondsight.bits.spte import layout
from secondsight.errors import UsageError
from secondsight.geometry import HPAGE_PMD_NR as HPAGE
from secondsight.mm.mm_struct import Mm
from secondsight.mm.mmu_notifier import Bools, MmuNotifier
from secondsight.mmu import spt


@dataclass(slots=True)
class SlotMapping:
    """A memslot: *npages* pages from guest frame *gfn* map the mm's pages from *page* on."""

    id: int
    gfn: int
    page: int
    npages: int
    tables: dict[int, spt.SpteArrays] = field(default_factory=dict)

    @property
    def end(self) -> int:
        """The mm's page behind the last."""
        return self.page + self.npages


class Kvm(MmuNotifier):
    """A VM in the process of *mm*; registers itself as its notifier.

    :param mm: the process whose memory backs the guest.
    :param mmu: ``npt``, ``shadow``, ``ept`` or ``ept-noad``; the host's by default.
    """

    name = "kvm"

    def __init__(self, mm: Mm, mmu: str | None = None, name: str = "kvm") -> None:
        """No slots yet: :meth:`slot_add`. *name*: what this VM's channel is called."""
        self.name = name
        self.mm = mm
        self.host = mm.host
        self.mmu = mmu or self.host.config.mmu
        rules = self.host.rules
        self.layout = layout(self.mmu, rules.spte_era)
        self._no_ad = self.layout.accessed == 0 or self.layout.ad_disabled != 0
        # 2.6.38's EPT: a zap marks the page accessed whatever the SPTE says, and test_young is always no.
        self._zap_marks = rules.spte_era == "2010" and self._no_ad
        self._test_zero = rules.test_young_without_ad == "zero" and self._no_ad
        self._age_zaps = rules.age_without_ad == "zap" and self._no_ad
        # With the TDP MMU what maps the guest itself is in tables that no rmap leads to.
        self._own_roots = self.mmu != "shadow" and rules.tdp_mmu
        self.slots: dict[int, SlotMapping] = {}
        self._nested: list[int] = []
        self.faults = 0
        mm.notifiers.register(self)

    # -- memslots -------------------------------------------------------------------------------------------

    def slot_add(self, slot_id: int, gfn: int, page: int, npages: int) -> None:
        """KVM_SET_USER_MEMORY_REGION: map guest frames *gfn*... to the mm's pages *page*...

        :raises UsageError: an id in use, an unaligned or empty range, pages outside the mm, guest frames that overlap another slot.
        """
        if slot_id in self.slots:
            raise UsageError(f"memslot {slot_id} exists already; delete it first")
        if npages <= 0 or page < 0 or page + npages > self.mm.npages:
            raise UsageError(
                f"memslot {slot_id}: pages {page} to {page + npages} are not all in the space of {self.mm.npages}"
            )
        if (gfn ^ page) & (HPAGE - 1) or page & (HPAGE - 1) or npages & (HPAGE - 1):
            raise UsageError(
                f"memslot {slot_id}: guest frame {gfn} and page {page} must be aligned to whole blocks"
            )
        for other in self.slots.values():
            if gfn < other.gfn + other.npages and other.gfn < gfn + npages:
                raise UsageError(f"memslot {slot_id} overlaps guest frames of memslot {other.id}")
        self.slots[slot_id] = SlotMapping(slot_id, gfn, page, npages)

    def slot_delete(self, slot_id: int) -> None:
        """Size 0: the SPTEs of *every* slot go (kvm_mmu_zap_all_fast; KVM_X86_QUIRK_SLOT_ZAP_ALL), then the slot.

        An accessed SPTE marks its page where the rules say so.
        """
        self._slot(slot_id)
        self._zap_all()
        del self.slots[slot_id]

    def _slot(self, slot_id: int) -> SlotMapping:
        if slot_id not in self.slots:
            raise UsageError(
                f"there is no memslot {slot_id}; slots: {', '.join(map(str, self.slots)) or 'none'}"
            )
        return self.slots[slot_id]

    def _table(self, slot: SlotMapping, view: int) -> tuple[spt.SpteArrays, int]:
        """The table that serves *view* of *slot*, made on first use, and how it is filled."""
        if view < 0:
            mode, key = spt.SHADOW_PAGED, view
            if view not in self._nested:
                self._nested.append(view)
        elif self.mmu == "shadow":
            mode, key = (spt.SHADOW_PAGED if view else spt.SHADOW_DIRECT), view
        else:
            mode, key = spt.TDP, 0
        if key not in slot.tables:
            slot.tables[key] = spt.SpteArrays(
                np.zeros(slot.npages, np.uint64), np.zeros(slot.npages // HPAGE, np.uint64), slot.page
            )
        return slot.tables[key], mode

    # -- the guest's accesses ---------------------------------------------------------------------------------

    def access(self, pages: npt.NDArray[np.int64], *, write: bool, view: int = 0, slot: int = 0) -> None:
        """The guest loads or stores *pages* (int64[N], numbers in the mm) through *slot*, in order.

        *view* 0: the guest's paging is off; k >= 1: through its k-th way of mapping the slot; -k: not the guest but the k-th that it
        runs itself, by nested page tables of 4 KiB entries.

        :raises UsageError: pages outside the slot. Accesses that the area denies are counted in ``mm.denied``.
        """
        chosen = self._slot(slot)
        pages = np.ascontiguousarray(pages, dtype=np.int64)
        if len(pages) and (pages.min() < chosen.page or pages.max() >= chosen.end):
            raise UsageError(
                f"memslot {slot} maps pages {chosen.page} to {chosen.end - 1}, not all of those accessed"
            )
        table, mode = self._table(chosen, view)
        host = self.host

        def step(start: int, notified: bool) -> int:
            return int(
                spt.guest_access(
                    host.frames.arrays,
                    host.r,
                    self.mm.arrays,
                    spt.GuestTables(self.layout, table, mode),
                    pages,
                    write,
                    spt.Resumed(start, notified, bool(self.mm.notifiers)),
                )
            )

        self.mm.run_faults(pages, step, "the guest")
        if write:
            self.mm.wrote(pages)

    # -- the notifier's ops -------------------------------------------------------------------------------------

    def _holding(self, start: int, end: int) -> list[tuple[SlotMapping, int, int]]:
        """Every slot that maps some of the mm's pages *start* to *end*, with the part it maps."""
        out = []
        slots: Iterable[SlotMapping] = self.slots.values()
        if self.host.rules.slots_by_gfn:
            slots = sorted(slots, key=lambda s: -s.gfn)
        for slot in slots:
            low, high = max(start, slot.page), min(end, slot.end)
            if low < high:
                out.append((slot, low, high))
        return out

    def test_young(self, start: int, end: int, ask: Bools) -> Bools:
        """kvm_test_age_hva for each page of *start* to *end* (exclusive) that *ask* (bool[end - start]) marks, bool[end - start]; without
        accessed bits as the rules say."""
        young = np.zeros(end - start, dtype=np.bool_)
        if self._test_zero:
            return young
        for slot, low, high in self._holding(start, end):
            for table in slot.tables.values():
                spt.test_range(self.layout, table, low, high, young[low - start : high - start])
        return young & ask

    def clear_young(self, start: int, end: int) -> Bools:
        """kvm_age_hva for each page of *start* to *end* (exclusive), bool[end - start]: clears the accessed bit, or access-tracks; 2.6.38's
        EPT drops the mapping instead."""
        young = np.zeros(end - start, dtype=np.bool_)
        for slot, low, high in self._holding(start, end):
            for table in slot.tables.values():
                part = young[low - start : high - start]
                if self._age_zaps:
                    spt.test_range(self.layout, table, low, high, part)
                else:
                    spt.age_range(self.layout, table, low, high, part)
            if self._age_zaps:
                self._zap(slot, low, high)
        return young

    def clear_flush_young(self, start: int, end: int) -> Bools:
        """As ``clear_young`` (kvm_mmu_notifier_clear_flush_young), with a TLB flush that the model has no state for."""
        return self.clear_young(start, end)

    def invalidate_range_start(self, start: int, end: int) -> None:
        """kvm_unmap_gfn_range in every slot."""
        for slot, low, high in self._holding(start, end):
            self._zap(slot, low, high)

    def invalidate_page(self, page: int) -> None:
        """2.6.38: kvm_unmap_hva."""
        self.invalidate_range_start(page, page + 1)

    def change_pte(self, page: int, pte: np.uint64) -> None:
        """kvm_set_spte_hva: SPTEs of *page* point to the new frame, read-only and old; a writable PTE only unmaps."""
        from secondsight.bits.pte import PFN_MASK, RW

        lay = self.layout
        for slot, low, high in self._holding(page, page + 1):
            if pte & RW:
                self._zap(slot, low, high)
                continue
            for table in slot.tables.values():
                index = page - table.first
                if table.spte[index] & lay.present:
                    kept = (
                        table.spte[index] & ~PFN_MASK & ~lay.writable & ~lay.host_writable & ~lay.mmu_writable
                    )
                    table.spte[index] = (kept & ~lay.accessed) | (pte & PFN_MASK)

    def release(self) -> None:
        """The process exits: every SPTE goes (kvm_mmu_zap_all)."""
        self._zap_all()

    def _zap_all(self) -> None:
        """Every slot's: shadow pages root by root as they were made (kvm_zap_obsolete_pages), then TDP's roots."""
        slots = sorted(self.slots.values(), key=lambda s: s.gfn)
        for view in self._nested:
            for slot in slots:
                if view in slot.tables:
                    self._zap_tables((slot.tables[view],), slot.page, slot.end)
        for slot in slots:
            self._zap(slot, slot.page, slot.end)

    def _zap(self, slot: SlotMapping, start: int, end: int) -> None:
        """kvm_unmap_gfn_range of a slot: the rmaps' entries, a nested guest's among them, then those of the TDP MMU."""
        of_rmaps = tuple(t for view, t in slot.tables.items() if view < 0 or not self._own_roots)
        self._zap_tables(of_rmaps, start, end)
        if self._own_roots:
            self._zap_tables(tuple(t for view, t in slot.tables.items() if view >= 0), start, end)

    def _zap_tables(self, tables: tuple[spt.SpteArrays, ...], start: int, end: int) -> None:
        if tables:
            with self.mm.notifiers.context.hold("mmu_lock", "kvm_unmap_gfn_range"):
                spt.zap_range(
                    self.host.frames.arrays, self.host.r, self.layout, tables, start, end, self._zap_marks
                )

    # -- views ---------------------------------------------------------------------------------------------------

    def zap_marks(self, start: int, end: int) -> npt.NDArray[np.uint8]:
        """How many times invalidating each page would mark it accessed: uint8[end - start] (0 where the rules carry nothing over)."""
        marks = np.zeros(end - start, dtype=np.uint8)
        if self.host.rules.zap_transfers_accessed:
            for slot, low, high in self._holding(start, end):
                for table in slot.tables.values():
                    spt.count_marks(
                        self.layout, table, low, high, marks[low - start : high - start], self._zap_marks
                    )
        return marks

    def sptes(self, page: int) -> list[tuple[int, int, np.uint64]]:
        """Every SPTE that maps *page*: (slot id, view, entry); a large one counts for each of its pages."""
        out = []
        for slot, _, _ in self._holding(page, page + 1):
            for view, table in slot.tables.items():
                index = page - table.first
                big = table.smd[index // HPAGE]
                entry = big if big & self.layout.present else table.spte[index]
                if entry & self.layout.present:
                    out.append((slot.id, view, entry))
        return out
