"""KVM as a secondary MMU: slots, faults, accessed bits and zaps, by table format and kernel."""

from __future__ import annotations

import numpy as np
import pytest

from secondsight.bits import pte as x86
from secondsight.bits import spte as sx
from secondsight.errors import UsageError
from secondsight.mm.config import HostConfig
from secondsight.mm.fork import exit_mm
from secondsight.mm.host import Host
from secondsight.mm.page import ACTIVE, REFERENCED, ZERO_FILLED
from secondsight.mm.task_mmu import clear_refs
from secondsight.mmu.kvm import Kvm
from support.model import KERNELS, MMUS, flags, holds, pages, vm


def young(mm, page: int) -> bool:
    return bool(mm.notifiers.test_young(page, page + 1, np.ones(1, np.bool_))[0][2][0])


# -- memslots -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slot", "problem"),
    [
        ((0, 4096, 0, 512), "memslot 0 exists already"),
        ((1, 0, 512, 512), "memslot 1 overlaps guest frames of memslot 0"),
        ((1, 512, 512, 512), "memslot 1 overlaps guest frames of memslot 0"),
        ((1, 4096, 512, 1024), "pages 512 to 1536 are not all in the space of 1024"),
        ((1, 4096, 512, 0), "not all in the space"),
        ((1, 4096, 100, 512), "must be aligned to whole blocks"),
        ((1, 4100, 512, 512), "must be aligned to whole blocks"),
        ((1, 4096, 0, 500), "must be aligned to whole blocks"),
    ],
)
def test_a_slot_that_cannot_be_is_refused(slot, problem) -> None:
    _, _, kvm = vm("6.1")
    with pytest.raises(UsageError, match=problem):
        kvm.slot_add(*slot)
    assert list(kvm.slots) == [0]


def test_accesses_outside_a_slot_and_slots_that_are_not_there() -> None:
    _, _, kvm = vm("6.1")
    kvm.slot_add(1, 4096, 512, 512)
    with pytest.raises(UsageError, match="memslot 1 maps pages 512 to 1023"):
        kvm.access(pages(0, 1), write=False, slot=1)
    with pytest.raises(UsageError, match="there is no memslot 7; slots: 0, 1"):
        kvm.slot_delete(7)


@pytest.mark.parametrize(
    ("rules", "carried"), [("2.6.38", True), ("6.1", True), ("6.12", True), ("6.18", False), ("7.2", False)]
)
def test_deleting_a_slot_drops_every_slots_entries(rules, carried) -> None:
    host, mm, kvm = vm(rules)
    mm.cpu_access(pages(1), write=True)
    kvm.slot_add(1, 4096, 512, 512)
    kvm.access(pages(1, 3), write=True)
    kvm.access(pages(1, 4), write=True, slot=1)
    host.drain()
    clear_refs(mm)
    assert young(mm, 515) and young(mm, 516), "a page is young through whichever slot"
    kvm.slot_delete(1)
    for page in (515, 516):
        assert not young(mm, page) and not kvm.sptes(page)
        assert bool(flags(mm, page) & REFERENCED) == carried
    holds(host)


def test_an_aliased_page_is_young_until_every_slot_is_aged() -> None:
    _, mm, kvm = vm("6.1")
    kvm.slot_add(1, 4096, 512, 512)
    for slot in (0, 1):
        kvm.access(pages(1, 3), write=True, slot=slot)
    assert len(kvm.sptes(515)) == 2
    assert mm.notifiers.clear_young(515, 516)[0]
    assert not young(mm, 515) and len(kvm.sptes(515)) == 2


# -- faults -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mmu", MMUS)
@pytest.mark.parametrize("rules", KERNELS)
def test_a_guests_touch_maps_the_hosts_frame_and_is_seen_by_test_young(rules, mmu) -> None:
    host, mm, kvm = vm(rules, mmu=mmu)
    kvm.access(pages(0, 3), write=True)
    ((slot, view, entry),) = kvm.sptes(3)
    assert (slot, view) == (0, 0) and int(sx.spte_pfn(entry)) == mm.pfn(3)
    assert sx.is_present(entry, kvm.layout) and sx.is_writable(entry, kvm.layout)
    assert young(mm, 3) == (not (rules == "2.6.38" and mmu.startswith("ept"))), (
        "EPT of 2010 always answers no"
    )
    assert mm.arrays.pte[3] & x86.ACCESSED, "the fault went through the primary page table"
    clear_refs(mm)
    kvm.access(pages(0, 3), write=True)
    assert not mm.arrays.pte[3] & x86.ACCESSED, "an access through an SPTE leaves the primary bit alone"
    holds(host)


@pytest.mark.parametrize("mmu", ["npt", "ept"])
def test_a_read_of_nothing_maps_the_zero_page_read_only(mmu) -> None:
    host, mm, kvm = vm("6.1", mmu=mmu)
    kvm.access(pages(0, 3), write=False)
    ((_, _, entry),) = kvm.sptes(3)
    assert int(sx.spte_pfn(entry)) == 0 and not sx.is_writable(entry, kvm.layout)
    kvm.access(pages(0, 3), write=True)
    ((_, _, entry),) = kvm.sptes(3)
    assert int(sx.spte_pfn(entry)) == mm.pfn(3) != 0 and sx.is_writable(entry, kvm.layout)
    holds(host)


@pytest.mark.parametrize("mmu", MMUS)
def test_a_huge_page_is_mapped_large_where_the_guest_is_not_paging(mmu) -> None:
    host, mm, kvm = vm("6.1", mmu=mmu, thp_enabled="always")
    kvm.access(pages(0, 3), write=True)
    assert mm.arrays.pmd[0] & x86.PSE
    large = kvm.slots[0].tables[0].smd[0]
    assert sx.is_large(large, kvm.layout) and int(sx.spte_pfn(large)) == mm.folio(0)
    assert young(mm, 77), "a large entry answers for every page it maps"
    holds(host)


def test_shadow_paging_prefetches_its_group_of_eight() -> None:
    """One guest touch counts as eight: the others are marked referenced, their entries old."""
    host, mm, kvm = vm("6.1", mmu="shadow")
    mm.cpu_access(pages(0), write=True)
    host.drain()
    clear_refs(mm)
    kvm.access(pages(0, 11), write=True)
    host.drain()
    mapped = [p for p in range(512) if kvm.sptes(p)]
    assert mapped == list(range(8, 16))
    assert [p for p in mapped if young(mm, p)] == [11]
    assert [p for p in range(512) if flags(mm, p) & (REFERENCED | ACTIVE)] == mapped
    holds(host)


def test_a_paging_guest_has_an_entry_for_each_way_it_maps_a_page() -> None:
    host, mm, kvm = vm("6.1", mmu="shadow")
    for view in (1, 2):
        kvm.access(pages(0, 3), write=True, view=view)
    assert sorted(v for _, v, _ in kvm.sptes(3)) == [1, 2]
    assert mm.notifiers.clear_young(3, 4)[0] and not young(mm, 3)
    kvm.access(pages(0, 3), write=True, view=2)
    assert young(mm, 3)
    mm.notifiers.invalidate_range(0, 512)
    assert not kvm.sptes(3)
    holds(host)


def test_under_tdp_the_guests_own_paging_makes_no_further_entries() -> None:
    _, _, kvm = vm("6.1", mmu="npt")
    for view in (0, 1, 2):
        kvm.access(pages(0, 3), write=True, view=view)
    assert len(kvm.sptes(3)) == 1
    kvm.access(pages(0, 3), write=True, view=-1)
    assert len(kvm.sptes(3)) == 2, "an L2 guest's entries hang off the same rmap"


# -- ageing and zapping -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rules", ["6.1", "6.12", "6.18", "7.2"])
def test_without_hardware_bits_ageing_takes_the_rights_away_and_a_touch_gives_them_back(rules) -> None:
    _, mm, kvm = vm(rules, mmu="ept-noad")
    kvm.access(pages(0, 3), write=True)
    assert young(mm, 3)
    assert mm.notifiers.clear_young(3, 4)[0]
    ((_, _, entry),) = kvm.sptes(3)
    assert sx.is_access_track(entry, kvm.layout) and not entry & sx.RWX and not young(mm, 3)
    faults = int(mm.arrays.n[3])
    kvm.access(pages(0, 3), write=False)
    ((_, _, entry),) = kvm.sptes(3)
    assert young(mm, 3) and not sx.is_writable(entry, kvm.layout)
    kvm.access(pages(0, 3), write=True)
    ((_, _, entry),) = kvm.sptes(3)
    assert sx.is_writable(entry, kvm.layout) and int(mm.arrays.n[3]) == faults, "no host fault was needed"


@pytest.mark.parametrize("mmu", MMUS)
@pytest.mark.parametrize(
    ("rules", "carried"), [("2.6.38", True), ("6.1", True), ("6.12", True), ("6.18", False), ("7.2", False)]
)
def test_a_zap_carries_the_accessed_bit_to_the_page_until_6_13(rules, carried, mmu) -> None:
    host, mm, kvm = vm(rules, mmu=mmu)
    mm.cpu_access(pages(0, 3, 40), write=True)
    host.drain()
    kvm.access(pages(0, 3, 40), write=True)
    host.drain()
    clear_refs(mm)
    if rules != "2.6.38":
        mm.notifiers.clear_young(40, 41)
    mm.notifiers.invalidate_range(0, 512)
    assert not kvm.sptes(3) and not kvm.sptes(40)
    assert bool(flags(mm, 3) & REFERENCED) == carried
    if rules != "2.6.38":
        assert not flags(mm, 40) & REFERENCED, "an old entry marks nothing"


def test_2_6_38_ept_marks_a_page_whatever_its_entry_said() -> None:
    host, mm, kvm = vm("2.6.38", mmu="ept")
    kvm.access(pages(0, 3), write=False)
    mm.cpu_access(pages(0, 4), write=True)
    kvm.access(pages(0, 4), write=False)
    host.drain()
    clear_refs(mm)
    assert not young(mm, 4)
    mm.notifiers.invalidate_range(0, 512)
    assert flags(mm, 4) & REFERENCED


def test_the_process_exits_and_its_guest_with_it() -> None:
    host, mm, kvm = vm("6.1")
    kvm.access(pages(0), write=True)
    exit_mm(mm)
    assert not kvm.slots[0].tables[0].spte.any() and host.frames.in_use == 0


@pytest.mark.parametrize("mmu", MMUS)
@pytest.mark.parametrize("rules", KERNELS)
def test_testing_changes_nothing_and_clearing_reports_what_testing_saw(rules, mmu) -> None:
    _, mm, kvm = vm(rules, mmu=mmu)
    kvm.access(np.array([1, 2, 3, 200, 511, 700]), write=True)
    before = [t.copy() for table in kvm.slots[0].tables.values() for t in (table.spte, table.smd)]
    ask = np.ones(1024, np.bool_)
    first = mm.notifiers.test_young(0, 1024, ask)[0][2]
    again = mm.notifiers.test_young(0, 1024, ask)[0][2]
    after = [t for table in kvm.slots[0].tables.values() for t in (table.spte, table.smd)]
    assert np.array_equal(first, again)
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    cleared = mm.notifiers.clear_young(0, 1024)
    if not (rules == "2.6.38" and mmu.startswith("ept")):
        assert np.array_equal(cleared, first)
    assert not mm.notifiers.clear_young(0, 1024).any()


def test_two_vms_in_one_process_answer_apart() -> None:
    host = Host("6.1", HostConfig())
    mm = host.mm("p", 1)
    old, new = Kvm(mm), Kvm(mm, mmu="ept")
    for kvm in (old, new):
        kvm.slot_add(0, 0, 0, 512)
    old.access(pages(0, 1), write=True)
    new.access(pages(0, 2), write=True)
    answers = mm.notifiers.test_young(0, 4, np.ones(4, np.bool_))
    assert [np.flatnonzero(y).tolist() for _, _, y in answers] == [[2], [1]], "the newest is asked first"


@pytest.mark.parametrize("mmu", MMUS)
def test_a_guests_store_into_a_huge_page_is_no_longer_zero(mmu) -> None:
    host, mm, kvm = vm("6.1", mmu=mmu, thp_enabled="always")
    kvm.access(pages(0, 3), write=True)
    kvm.access(pages(0, 4), write=True)
    kvm.access(pages(0, 5), write=False)
    zero = host.frames.arrays.flags[mm.folio(0) : mm.folio(0) + 512] & ZERO_FILLED != 0
    assert np.flatnonzero(~zero).tolist() == [3, 4]
