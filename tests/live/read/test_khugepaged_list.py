"""khugepaged's list of address spaces, laid out by hand: its order, its cursor, and a list that would not hold still."""

import pytest

pytest.importorskip("drgn")

from secondsight.live.read.khugepaged_list import KhugepagedList, pages_ahead, read, without_anon_vma
from support.fake_kernel import FakeKernel


def listed(count, at=None, address=0):
    """A kernel with *count* spaces on the list, each of 100, 200 … pages; the cursor is at the one numbered *at*."""
    kernel = FakeKernel()
    mms = [kernel.make("mm_struct", total_vm=100 * (i + 1)) for i in range(count)]
    slots = [kernel.make("mm_slot", mm=mm) for mm in mms]
    scan = kernel.make("khugepaged_scan", mm_slot=0 if at is None else slots[at], address=address)
    head = kernel.member("khugepaged_scan", scan, "mm_head")
    kernel.ring(head, *(kernel.member("mm_slot", slot, "mm_node") for slot in slots))
    kernel.global_("khugepaged_scan", scan)
    return kernel, mms, slots


def test_spaces_come_in_the_order_of_the_visits():
    kernel, mms, _ = listed(3, at=1, address=0x7F0000200000)
    assert read(kernel) == KhugepagedList(tuple(mms), mms[1], 0x7F0000200000)


def test_between_two_full_scans_there_is_no_cursor():
    kernel, mms, _ = listed(2)
    assert read(kernel) == KhugepagedList(tuple(mms), None, 0)
    kernel, _, _ = listed(0)
    assert read(kernel) == KhugepagedList((), None, 0)


def test_a_kernel_that_does_not_show_it_is_none():
    assert read(FakeKernel()) is None


def test_a_list_that_changes_is_read_again_and_one_that_never_rests_is_none():
    kernel, mms, _ = listed(2)
    scan, changes = kernel.symbols.address("khugepaged_scan"), []

    def once(address):
        if address == kernel.member("khugepaged_scan", scan, "address") and len(changes) < 1:
            changes.append(1)
            kernel.change("khugepaged_scan", scan, address=0x1000)

    kernel.before = once
    assert read(kernel) == KhugepagedList(tuple(mms), None, 0x1000) and changes

    def always(address):
        if address == kernel.member("khugepaged_scan", scan, "address"):
            changes.append(1)
            kernel.change("khugepaged_scan", scan, address=0x1000 * len(changes))

    kernel.before = always
    assert read(kernel) is None


def test_a_slot_that_was_freed_makes_it_unknown():
    kernel, _, slots = listed(2)
    kernel.change("mm_slot", slots[1])
    kernel.change("list_head", kernel.member("mm_slot", slots[1], "mm_node"), next=0xFFFF_A000_0000_0000)
    assert read(kernel) is None


@pytest.mark.parametrize(
    ("at", "of", "pages"),
    [
        (None, 0, 0),
        (None, 2, 100 + 200),
        (1, 1, 0),
        (1, 2, 200),
        # Behind the cursor: the rest of this round, and the next round up to it.
        (2, 1, 300 + 100),
    ],
)
def test_pages_ahead_are_those_of_the_spaces_before_its_turn(at, of, pages):
    kernel, mms, _ = listed(3, at)
    assert pages_ahead(kernel, read(kernel), mms[of]) == pages


def test_what_is_not_listed_has_no_turn():
    kernel, _, _ = listed(1)
    assert pages_ahead(kernel, read(kernel), 0x1234) is None
    gone = KhugepagedList((0xFFFF_A000_0000_0000, 5), None, 0)
    assert pages_ahead(kernel, gone, 5) is None


def test_mappings_without_an_anon_vma_are_told_by_their_starts():
    kernel = FakeKernel()
    last = kernel.make("vm_area_struct", vm_start=0x5000, vm_end=0x6000)
    middle = kernel.make(
        "vm_area_struct", vm_start=0x3000, vm_end=0x4000, anon_vma=0xFFFF_9000_0000_1000, vm_next=last
    )
    first = kernel.make("vm_area_struct", vm_start=0x1000, vm_end=0x2000, vm_next=middle)
    assert without_anon_vma(kernel, kernel.make("mm_struct", mmap=first)) == (0x1000, 0x5000)
    assert without_anon_vma(kernel, kernel.make("mm_struct", mmap=0xFFFF_A000_0000_0000)) is None
    assert without_anon_vma(kernel, kernel.make("mm_struct")) == ()
