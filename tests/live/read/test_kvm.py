"""KVM's tables and slots in kernel memory: walks, rmaps of every length, which SPTEs are young, slots that begin inside a block."""

import pytest

pytest.importorskip("drgn")

import numpy as np
import pytest

from secondsight.live.read.kvm import Memslot, RunningVm, slot_overlaps
from support.kernel_pages import Memory

BLOCK = 1 << 21


SPTE = 1 << 11


def vm(memory, accessed=0x20, track=0, soft=False):
    made = object.__new__(RunningVm)
    made._kernel, made._kvm = memory, None
    made.accessed_mask, made._track_mask, made.soft = np.uint64(accessed), np.uint64(track), soft
    made._table_mask, made._present = Memory.pfn_mask, np.uint64(SPTE)
    return made


def test_tdp_walk_with_a_large_spte():
    memory = Memory()
    leaf = memory.new(np.where(np.arange(512) % 2 == 0, 0x7000 | SPTE | 0x27, 0))
    level2 = memory.new()
    memory.pages[level2][0] = leaf | SPTE | 7
    memory.pages[level2][1] = (1 << 21) | SPTE | 0xA7
    level3 = memory.new()
    memory.pages[level3][0] = level2 | SPTE | 7
    machine = vm(memory)
    spte, level, known = machine._walk(level3, 3, 256, 512)
    assert known.all()
    assert (level[256:] == 2).all() and (level[:256:2] == 1).all() and not spte[1:256:2].any()
    assert machine.young(spte[spte > 0]).all()


def test_rmaps_of_every_length():
    memory = Memory()
    table = memory.new(np.full(512, 0x5000 | SPTE | 0x27))
    single = table + 8 * 3
    machine = vm(memory)

    class Kind:
        size = 128

    machine._kernel.program = type("P", (), {"type": staticmethod(lambda name: Kind)})
    import drgn

    offsets = {"more": 0, "sptes": 16}
    real = drgn.offsetof
    drgn.offsetof = lambda kind, name: offsets[name]
    try:
        descriptors = memory.new()
        second = descriptors + 512
        page = memory.pages[descriptors]
        page[0], page[2], page[3] = second, table + 8, table + 16
        page[64], page[66] = 0, table + 24
        heads = np.array([0, single, descriptors | 1, 0], np.uint64)
        which, pointers = machine._chains(heads)
    finally:
        drgn.offsetof = real
    pairs = sorted(zip(which.tolist(), pointers.tolist(), strict=True))
    assert pairs == [(1, single), (2, table + 8), (2, table + 16), (2, table + 24)]


def test_rmaps_of_a_kernel_whose_modules_have_no_types():
    """5.10: sptes[3], then more."""
    memory = Memory()
    table = memory.new(np.full(512, 0x5000 | 0x27))
    machine = vm(memory)

    def no_type(name):
        raise LookupError(f"could not find {name!r}")

    machine._kernel.program = type("P", (), {"type": staticmethod(no_type)})
    descriptors = memory.new()
    page = memory.pages[descriptors]
    page[0], page[1], page[2], page[3] = table, table + 8, table + 16, descriptors + 64
    page[8] = table + 24
    which, pointers = machine._chains(np.array([0, descriptors | 1], np.uint64))
    pairs = sorted(zip(which.tolist(), pointers.tolist(), strict=True))
    assert pairs == [(1, table), (1, table + 8), (1, table + 16), (1, table + 24)]


@pytest.mark.parametrize(
    ("has", "era"),
    [
        ((), "unmarked"), (("shadow_host_writable_mask",), "tracked"), (("shadow_host_writable_mask", "kvm_ad_enabled"), "soft"),
        (("shadow_host_writable_mask", "kvm_ad_enabled", "shadow_xs_mask"), "mbec"),
    ],
)  # fmt: skip
def test_the_era_of_the_sptes_is_told_by_what_kvm_has(has, era):
    machine = vm(Memory(), soft="kvm_ad_enabled" in has)
    machine._kernel.symbols = type(
        "S", (), {"address": staticmethod(lambda name: 1 if name in has else None)}
    )
    assert machine.era == era


@pytest.mark.parametrize(
    ("accessed", "track", "soft", "spte", "young"),
    [
        (0x20, 0, False, 0x27 | SPTE, True),
        (0x20, 0, False, 0x07 | SPTE, False),
        (0x100, 7, False, 0x107 | SPTE, True),
        (0x100, 7, False, 0x007 | SPTE, False),
        # eptad=0 up to 6.12: young is present and not access-tracked.
        (0, 7, False, 1 << 52 | 0x877, True),
        (0, 7, False, 1 << 52 | 0x5 << 54 | 0x870, False),
        # A nested guest without A/D on a host with: its SPTEs are tracked one by one.
        (0x100, 7, False, 1 << 52 | 0x107 | SPTE, True),
        (0x100, 7, False, 1 << 52 | 0x100 | SPTE, False),
        # 6.13 on: bit 8 in software, whatever the type.
        (0x100, 7, True, 1 << 60 | 0x107 | SPTE, True),
        (0x100, 7, True, 1 << 60 | 0x007 | SPTE, False),
    ],
)
def test_is_accessed_spte(accessed, track, soft, spte, young):
    assert vm(Memory(), accessed, track, soft).young(np.array([spte], np.uint64)).tolist() == [young]


def test_slots_that_begin_inside_a_block():
    blocks = np.array([0, BLOCK, 4 * BLOCK], np.uint64)
    slot = Memslot(0, 1, 1000, 600, BLOCK - 0x3000, ())
    assert list(slot_overlaps(blocks, slot)) == [(509, 1000, 515)]
    assert list(slot_overlaps(blocks[2:], slot)) == []
