"""KVM's tables and slots in kernel memory laid out by hand: walks, rmaps of every length, which SPTEs are young, slots within a block."""

import pytest

pytest.importorskip("drgn")

import numpy as np

from secondsight.live.read.kvm import Memslot, RunningVm, slot_overlaps
from support.fake_kernel import DIRECT, STRUCTS, FakeKernel

BLOCK, START = 1 << 21, 0x7F0000000000
SPTE = 1 << 11
#: As a kernel before 5.17 has them, slots in an array; a module's own types are told or not.
KVM = STRUCTS | {
    "rmaps": {"rmap": "u64[3]"},
    "kvm_memory_slot": {
        "base_gfn": "u64",
        "npages": "u64",
        "arch": "rmaps",
        "userspace_addr": "u64",
        "id": "int",
    },
    "kvm_memslots": {"used_slots": "int", "memslots": "kvm_memory_slot[2]"},
    "role": {"smm": "u32", "level": "u32", "invalid": "u32"},
    "kvm_mmu_page": {"link": "list_head", "role": "role", "spt": "u64"},
    "kvm_arch": {"tdp_mmu_roots": "list_head"},
    "kvm": {"memslots": "kvm_memslots*[1]", "arch": "kvm_arch"},
}
DESCRIPTOR = {"pte_list_desc": {"more": "u64", "count": "u64", "sptes": "u64[14]"}}


def kvm_of(structs=KVM, *, accessed=0x20, track=0, has=("shadow_host_writable_mask",), ad=None):
    """A kernel with KVM's masks, and the variables *has*; ``vm(kernel)`` is made of its ``struct kvm``."""
    kernel = FakeKernel(structs)
    kernel.global_("shadow_accessed_mask", kernel.words_at(accessed))
    kernel.global_("shadow_acc_track_mask", kernel.words_at(track))
    for name in has:
        kernel.global_(name, kernel.words_at(1))
    if ad is not None:
        kernel.global_("kvm_ad_enabled", kernel.put(bytes([ad])))
    return kernel


def vm(kernel, *slots, root=None):
    """A VM with *slots*, (gfn, pages, address, rmaps), and, if it has one, the TDP MMU's *root* of level 3."""
    memslots = kernel.make("kvm_memslots", used_slots=len(slots))
    first = kernel.member("kvm_memslots", memslots, "memslots")
    size = kernel.program.type("struct kvm_memory_slot").size
    for number, (gfn, pages, address, rmaps) in enumerate(slots):
        at = first + number * size
        kernel.change("kvm_memory_slot", at, base_gfn=gfn, npages=pages, userspace_addr=address, id=number)
        kernel.write(
            kernel.member("kvm_memory_slot", at, "arch"), np.array([*rmaps, 0, 0, 0][:3], np.uint64).tobytes()
        )
    made = kernel.make("kvm")
    kernel.write(made, memslots.to_bytes(8, "little"))
    if root is not None:
        page = kernel.make("kvm_mmu_page", spt=DIRECT + root)
        kernel.change("role", kernel.member("kvm_mmu_page", page, "role"), level=3)
        kernel.ring(kernel.member("kvm", made, "arch"), page)
    return RunningVm(kernel, kernel.at("kvm", made))


def table(kernel, physical, entries):
    kernel.write(DIRECT + physical, np.asarray(entries, np.uint64).tobytes())


def test_tdp_walk_with_a_large_spte():
    kernel = kvm_of()
    table(kernel, 0x10000, np.where(np.arange(512) % 2 == 0, 0x7000 | SPTE | 0x27, 0))
    table(kernel, 0x11000, [0x10000 | SPTE | 7, (1 << 21) | SPTE | 0xA7] + [0] * 510)
    table(kernel, 0x12000, [0x11000 | SPTE | 7] + [0] * 511)
    # The block's first page is guest frame 256: half of it below a table, half below a large entry.
    sptes = vm(kernel, (256, 512, START, ()), root=0x12000).read_blocks(np.array([START], np.uint64))
    assert sptes.known.all() and sptes.young.all()
    assert sptes.page.tolist() == [*range(0, 256, 2), *range(256, 512)]
    assert sptes.level.tolist() == [1] * 128 + [2] * 256


def test_a_table_that_is_gone_leaves_its_pages_unknown():
    kernel = kvm_of()
    table(kernel, 0x11000, [0x66000 | SPTE | 7, (1 << 21) | SPTE | 0xA7] + [0] * 510)
    table(kernel, 0x12000, [0x11000 | SPTE | 7] + [0] * 511)
    sptes = vm(kernel, (256, 512, START, ()), root=0x12000).read_blocks(np.array([START], np.uint64))
    assert sptes.known.tolist() == [False] * 256 + [True] * 256 and sptes.page.min() == 256


@pytest.mark.parametrize("typed", [True, False])
def test_rmaps_of_every_length(typed):
    """5.10's modules have no types of their own: sptes[3], then more."""
    kernel = kvm_of(KVM | (DESCRIPTOR if typed else {}))
    sptes = [kernel.words_at(0x5000 | SPTE | 0x27 if i != 2 else 0x5000 | SPTE | 0x07) for i in range(5)]
    if typed:
        last = kernel.words_at(0, 1, sptes[4], *[0] * 13)
        many = kernel.words_at(last, 2, sptes[2], sptes[3], *[0] * 12)
    else:
        last = kernel.words_at(sptes[4], 0, 0, 0)
        many = kernel.words_at(sptes[2], sptes[3], 0, last)
    heads = kernel.words_at(0, sptes[0], many | 1, 0, sptes[1] | 2, *[0] * 507)
    seen = vm(kernel, (0, 512, START, (heads,))).read_blocks(np.array([START], np.uint64))
    assert seen.known.all()
    pairs = sorted(zip(seen.page.tolist(), seen.young.tolist(), strict=True))
    # Page 2 has three entries, one of them old; a lock in a head (6.15) is no part of the address.
    assert pairs == [(1, True), (2, False), (2, True), (2, True), (4, True)] and set(seen.level.tolist()) == {
        1
    }


@pytest.mark.parametrize(
    ("has", "era"),
    [
        ((), "unmarked"), (("shadow_host_writable_mask",), "tracked"), (("shadow_host_writable_mask", "kvm_ad_enabled"), "soft"),
        (("shadow_host_writable_mask", "kvm_ad_enabled", "shadow_xs_mask"), "mbec"),
    ],
)  # fmt: skip
def test_the_era_of_the_sptes_is_told_by_what_kvm_has(has, era):
    assert vm(kvm_of(has=has)).era == era


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
    kernel = kvm_of(accessed=accessed, track=track, ad=1 if soft else None)
    assert vm(kernel).young(np.array([spte], np.uint64)).tolist() == [young]


def test_slots_are_read_with_their_places_and_a_vm_that_is_gone_is_unknown():
    kernel = kvm_of()
    made = vm(kernel, (0x100, 512, START, (7,)), (0x1000, 3, 0x5000, ()))
    assert made.slots() == [
        Memslot(0, 0, 0x100, 512, START, (7, 0, 0)),
        Memslot(0, 1, 0x1000, 3, 0x5000, (0, 0, 0)),
    ]
    gone = RunningVm(kernel, kernel.at("kvm", 0xFFFF_A000_0000_0000))
    assert not gone.read_blocks(np.array([START], np.uint64)).known.any()


def test_slots_that_begin_inside_a_block():
    blocks = np.array([0, BLOCK, 4 * BLOCK], np.uint64)
    slot = Memslot(0, 1, 1000, 600, BLOCK - 0x3000, ())
    assert list(slot_overlaps(blocks, slot)) == [(509, 1000, 515)]
    assert list(slot_overlaps(blocks[2:], slot)) == []
