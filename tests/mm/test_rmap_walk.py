"""A folio that a child inherited is unmapped: the parent's VM loses its view of the place, whatever the parent maps there by then.

Kernels' answers to these are kept: `examples/answers/*-npt-inherited.json.zst`.
"""

import numpy as np
import pytest

from secondsight.mm.config import HostConfig, Sizes
from secondsight.mm.fork import exit_mm, fork
from secondsight.mm.host import Host
from secondsight.mm.madvise import madvise
from secondsight.mm.mmu_notifier import MmuNotifier
from secondsight.mm.observe import of_model
from secondsight.mm.vmscan import swap_out
from secondsight.mmu.kvm import Kvm
from support.model import holds

SOME = np.arange(3, 10)


def vm_and_child(rules, **host):
    machine = Host(rules, HostConfig(thp_enabled="madvise", **host))
    vm = machine.mm("vm", 1)
    kvm = Kvm(vm)
    kvm.slot_add(0, 0, 0, vm.npages)
    vm.cpu_access(np.arange(512), write=True)
    child = fork(vm, "child")
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
