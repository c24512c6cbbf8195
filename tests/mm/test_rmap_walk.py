"""A folio that a child inherited is unmapped: the parent's VM loses its view of the place, whatever the parent maps there by then.

Kernels' answers to these are kept: `examples/answers/*-npt-inherited.json.zst`; where areas were cut, `*-npt-visited.json.zst`.
"""

import numpy as np
import pytest

from secondsight.mm.config import HostConfig, Sizes
from secondsight.mm.fork import exit_mm, fork
from secondsight.mm.host import Host
from secondsight.mm.huge_memory import split_huge
from secondsight.mm.madvise import madvise
from secondsight.mm.mmu_notifier import MmuNotifier
from secondsight.mm.observe import of_model
from secondsight.mm.vmscan import swap_out
from secondsight.mmu.kvm import Kvm
from support.model import holds

SOME = np.arange(3, 10)


def vm_and_child(rules, *changes, **host):
    """A VM's process, and a child whose pages are not the guest's; *changes*(vm, child) come between."""
    machine = Host(rules, HostConfig(thp_enabled="madvise", **host))
    vm = machine.mm("vm", 1)
    kvm = Kvm(vm)
    kvm.slot_add(0, 0, 0, vm.npages)
    vm.cpu_access(np.arange(512), write=True)
    child = fork(vm, "child")
    for change in changes:
        change(vm, child)
    kvm.access(np.arange(512), write=True)  # the guest's pages are copies from here on
    assert young(vm).all()
    return machine, vm, child


def young(vm):
    return of_model(vm, [0]).merged()[0]


@pytest.mark.parametrize("rules", ["5.10", "6.1", "6.12", "7.3"])
def test_reclaim_of_a_childs_inherited_pages_unmaps_the_guests_own(rules):
    machine, vm, child = vm_and_child(rules)
    swap_out(child, SOME)
    assert np.flatnonzero(~young(vm)).tolist() == SOME.tolist()
    assert (vm.arrays.pte[SOME] & 1).all(), "the parent's pages are where they were"
    holds(machine)


def put_anew(mm):
    """Cut the area of *mm* in two, and let it be one again: it goes behind the others that begin where it does."""
    madvise(mm, 0, 256, "nohugepage")
    madvise(mm, 256, 512, "nohugepage")
    assert len(mm.vmas.areas) == 1


@pytest.mark.parametrize("rules", ["5.10", "6.1", "6.12", "7.3"])
@pytest.mark.parametrize(
    ("anew", "hears"), [("", True), ("p", False), ("c", True), ("pc", True), ("cp", False)]
)
def test_the_walk_ends_with_the_last_area_that_maps_the_folio(rules, anew, hears):
    """An area whose bounds have changed since is visited after the child's, by which time nobody maps the folio (folio_not_mapped)."""

    def change(vm, child):
        for which in anew:
            put_anew({"p": vm, "c": child}[which])

    machine, vm, child = vm_and_child(rules, change)
    swap_out(child, SOME)
    assert young(vm)[SOME].tolist() == [not hears] * len(SOME)
    holds(machine)


def test_an_area_that_begins_further_on_is_visited_later():
    machine, vm, child = vm_and_child("6.12", lambda vm, _: madvise(vm, 0, 300, "nohugepage"))
    swap_out(child, np.array([1, 310]))
    assert young(vm)[[1, 310]].all(), (
        "the child's begins where the first of the parent's does, and was there before both"
    )
    machine, vm, child = vm_and_child("6.12", lambda _, child: madvise(child, 0, 300, "nohugepage"))
    swap_out(child, np.array([1, 310]))
    assert not young(vm)[[1, 310]].any(), (
        "the parent's was there before the child's first part, and begins before its second"
    )
    holds(machine)


@pytest.mark.parametrize("rules", ["6.1", "6.12", "7.3"])
def test_what_the_child_has_written_is_its_own(rules):
    machine, vm, child = vm_and_child(rules)
    child.cpu_access(SOME, write=True)
    swap_out(child, SOME)
    assert young(vm).all()
    holds(machine)


def test_what_the_child_has_written_stays_where_it_was_inherited_on_5_10():
    machine, vm, child = vm_and_child("5.10")
    child.cpu_access(SOME, write=True)
    swap_out(child, SOME)
    assert np.flatnonzero(~young(vm)).tolist() == SOME.tolist()
    holds(machine)


def test_a_copy_is_the_childs_own_on_5_10():
    machine = Host("5.10", HostConfig(thp_enabled="madvise"))
    vm = machine.mm("vm", 1)
    kvm = Kvm(vm)
    kvm.slot_add(0, 0, 0, vm.npages)
    kvm.access(np.arange(512), write=True)
    child = fork(vm, "child")
    child.cpu_access(SOME, write=True)  # while both map the page
    kvm.access(np.arange(512), write=True)
    swap_out(child, SOME)
    assert young(vm).all()
    holds(machine)


@pytest.mark.parametrize("rules", ["6.12", "7.3"])
def test_splitting_an_inherited_folio_unmaps_all_of_its_place(rules):
    machine, vm, child = vm_and_child(rules, sizes=Sizes(kb256="always"))
    madvise(child, 40, 51, "free")
    assert np.flatnonzero(~young(vm)).tolist() == list(range(64))
    holds(machine)


class Listener(MmuNotifier):
    """Keeps the ranges that it is told to drop."""

    def __init__(self):
        self.heard = []

    def invalidate_range_start(self, start, end):
        self.heard.append((start, end))


def test_a_process_that_ended_hears_nothing():
    machine, vm, child = vm_and_child("7.3")
    grandchild = fork(child, "grandchild")
    exit_mm(vm)
    ended, living = Listener(), Listener()
    vm.notifiers.register(ended)
    child.notifiers.register(living)
    child.cpu_access(
        SOME, write=True
    )  # the grandchild's are mapped once from here on: what is shared is not reclaimed
    living.heard.clear()
    assert swap_out(grandchild, SOME).gone.tolist() == SOME.tolist()
    assert not ended.heard
    assert {page for start, end in living.heard for page in range(start, end)} >= set(SOME.tolist())
    holds(machine)


@pytest.mark.parametrize(("rules", "left"), [("6.1", []), ("6.12", []), ("6.16", [511]), ("7.3", [511])])
def test_what_came_in_a_folios_place_is_unmapped_up_to_the_last_area_that_maps_it(rules, left):
    """Pages 100 and 511 of a huge page are others by now, in areas of their own: the walk has ended when it would come to the second.

    Up to 6.15 the first area's turn has unmapped all of the block. Kernels' answers: `*-npt-places`.
    """
    machine = Host(rules, HostConfig(thp_enabled="always"))
    vm = machine.mm("vm", 1)
    kvm = Kvm(vm)
    kvm.slot_add(0, 0, 0, vm.npages)
    vm.cpu_access(np.arange(512), write=True)
    for page in (100, 511):
        madvise(vm, page, page + 1, "dontneed")
        madvise(vm, page, page + 1, "nohugepage")
    vm.cpu_access(np.array([100, 511]), write=True)
    kvm.access(np.arange(512), write=True)
    assert split_huge(vm, 0)
    assert np.flatnonzero(young(vm)).tolist() == left
    holds(machine)
