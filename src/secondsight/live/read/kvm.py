"""What KVM maps, and which of it the guest has used: SPTEs read from the TDP MMU's tables and from the rmaps.

::

    address (HVA) ─ memslot ─▶ gfn ─┬─ tdp_mmu_roots ─▶ tables of 512 SPTEs, one of 9 bits of gfn a level    NPT, EPT
                                    └─ slot->arch.rmap[level][gfn] ─▶ SPTE, or list of SPTEs     shadow paging, nested

    kvm_rmap_head.val   bit 0 clear: address of the only SPTE     bit 0 set: address of a pte_list_desc
                        bit 1: locked (6.15+)
    pte_list_desc       more (the next one), counts, sptes[]      sizes and offsets from BTF

Both are read: a VM on the TDP MMU has rmaps too once it nests. Large SPTEs answer for every page below. The predicate
is the kernel's ``is_accessed_spte`` (arch/x86/kvm/mmu/spte.h), chosen by what the module has:

- ``kvm_ad_enabled`` is a variable (6.13+, 3835819fb1b3): ``spte & shadow_accessed_mask``, kept in software without A/D bits;
- before: with A/D on for the SPTE its accessed bit, else "present and not access-tracked" (``shadow_acc_track_mask``).

Nothing is written: reading leaves every accessed bit as it was.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import drgn
import numpy as np
import numpy.typing as npt
from drgn.helpers.linux.list import list_for_each_entry
from drgn.helpers.linux.rbtree import rbtree_inorder_for_each_entry

from secondsight.bits import spte as bits
from secondsight.geometry import (
    HPAGE_PMD_NR,
    LEVEL_BITS,
    PAGE_SHIFT,
    PAGE_SIZE,
    PMD_SHIFT,
    PMD_SIZE,
    PTRS_PER_PTE,
)
from secondsight.live.read.kmem import KernelMemory, Torn

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_ATTEMPTS = 3
_MOST_ROOTS = 256
#: of an entry in its table
_INDEX = PTRS_PER_PTE - 1
_MOST_DESCRIPTORS = 4096  # in one chain; KVM zaps a chain beyond 1000 SPTEs
_LARGE = np.uint64(1 << 7)
# Accessed and dirty, in either format: hardware may set them in a table's entry while it is read.
_MOVING = np.uint64(1 << 5 | 1 << 6 | 1 << 8 | 1 << 9)


class Memslot(NamedTuple):
    """A memslot: *pages* guest frames from *gfn*, backed by user memory from *address*."""

    space: int
    number: int
    gfn: int
    pages: int
    address: int
    rmaps: tuple[int, ...]


class Sptes(NamedTuple):
    """Every present leaf SPTE over N blocks: *page* int64[K] counts pages through the blocks (block * 512 + page),
    *spte* uint64[K], *level* uint8[K] (1: 4 KiB, 2: 2 MiB, 3: 1 GiB), *young* bool[K]. *known* bool[N * 512] is False
    where the tables would not hold still.
    """

    page: I64
    spte: U64
    level: npt.NDArray[np.uint8]
    young: Bools
    known: Bools


class RunningVm:
    """One ``struct kvm``."""

    def __init__(self, kernel: KernelMemory, kvm: Any) -> None:
        self._kernel = kernel
        self._kvm = kvm
        self.accessed_mask = np.uint64(kernel.variable("shadow_accessed_mask") or 0)
        self._track_mask = np.uint64(kernel.variable("shadow_acc_track_mask") or 0)
        self.soft = kernel.symbols.address("kvm_ad_enabled") is not None
        self._present = bits.layout(self.mmu, self.era).present
        self._table_mask = (
            ~np.uint64(PAGE_SIZE - 1)
            & np.uint64((1 << 52) - 1)
            & ~np.uint64(kernel.variable("shadow_me_mask") or 0)
        )

    @property
    def era(self) -> bits.Era:
        """Which SPTE formats KVM has: since 5.13, with the MMU-present bit, where the host-writable one sits is a variable; since
        7.2 which X bit is the kernel's."""
        if self._kernel.symbols.address("shadow_xs_mask") is not None:
            return "mbec"
        marked = self._kernel.symbols.address("shadow_host_writable_mask") is not None
        return "soft" if self.soft else "tracked" if marked else "unmarked"

    @property
    def mmu(self) -> str:
        """``npt``, ``shadow``, ``ept`` or ``ept-noad``."""
        tdp = self._kernel.flag("tdp_enabled")
        if self._track_mask or int(self.accessed_mask) == 1 << 8 or self.accessed_mask == 0:
            off = self._kernel.flag("kvm_ad_enabled") is False if self.soft else self.accessed_mask == 0
            return "ept-noad" if off else "ept"
        return "shadow" if tdp is False else "npt"

    @property
    def identity(self) -> int:
        """The same number as long as the VM lives, and no other VM's meanwhile."""
        return int(self._kvm.value_())

    def young(self, spte: U64) -> Bools:
        """``is_accessed_spte`` of present leaf SPTEs; bool in the same shape."""
        accessed = (spte & self.accessed_mask) != 0
        if self.soft:
            return accessed
        # Where the accessed bit is not kept in software (up to 6.12) the type says whether there is one.
        disabled = (spte & bits.EPT_NOAD.ad_type) == bits.AD_DISABLED
        tracked = disabled & ((spte & self._track_mask) == 0)
        return np.where(disabled | (self.accessed_mask == 0), ~tracked, accessed)

    def slots(self) -> list[Memslot]:
        """Memslots of every address space (0 is the guest's normal one), by gfn.

        :raises Torn: they changed while they were read.
        """
        memslots = []
        try:
            for space in range(self._kvm.memslots.type_.length):
                slots = self._kvm.memslots[space].read_()
                if not slots:
                    continue
                for slot in _slots_of(slots):
                    rmaps = tuple(int(head.value_()) for head in slot.arch.rmap)
                    memslots.append(
                        Memslot(space, slot.id.value_(), slot.base_gfn.value_(), slot.npages.value_(),
                             slot.userspace_addr.value_(), rmaps)
                    )  # fmt: skip
        except (drgn.FaultError, LookupError) as error:
            raise Torn(str(error)) from None
        return memslots

    def _roots(self) -> list[tuple[int, int, int]]:
        """(address space, level, table's kernel address) of the TDP MMU's roots; those the kernel asks."""
        roots: list[tuple[int, int, int]] = []
        try:
            head = self._kvm.arch.tdp_mmu_roots
            if not head.next:  # never made: KVM runs without its TDP MMU
                return []
            for page in list_for_each_entry("struct kvm_mmu_page", head.address_of_(), "link"):
                role = page.role.read_()
                # Since 6.13 only valid roots are asked; before, a root on its way out still answers.
                if not (self.soft and role.invalid.value_()):
                    roots.append((int(role.smm.value_()), int(role.level.value_()), int(page.spt.value_())))
                if len(roots) > _MOST_ROOTS:
                    raise Torn("the list of roots does not end")
        except AttributeError:
            return []  # KVM without a TDP MMU
        except drgn.FaultError as error:
            raise Torn(str(error)) from None
        return roots

    def _walk(self, table: int, level: int, gfn: int, count: int) -> tuple[U64, npt.NDArray[np.uint8], Bools]:
        """Leaf SPTE (0: none), its level, and whether it is known, of *count* frames from *gfn* below one root."""
        spte, at, known = np.zeros(count, np.uint64), np.zeros(count, np.uint8), np.ones(count, np.bool_)

        def visit(address: int, level: int, low: int, high: int) -> None:
            entries = self._kernel.words(address, PTRS_PER_PTE)
            first, last = low - gfn, high - gfn
            if level == 1:
                spte[first:last] = entries[low & _INDEX : (low & _INDEX) + high - low]
                at[first:last] = 1
                return
            span = 1 << LEVEL_BITS * (level - 1)
            for start in range(low & ~(span - 1), high, span):
                entry = entries[start >> LEVEL_BITS * (level - 1) & _INDEX]
                below, above = max(start, low), min(start + span, high)
                if not entry & self._present:
                    continue
                if entry & _LARGE:
                    spte[below - gfn : above - gfn] = entry
                    at[below - gfn : above - gfn] = level
                    continue
                try:
                    visit(self._kernel.direct(int(entry & self._table_mask)), level - 1, below, above)
                except Torn:
                    known[below - gfn : above - gfn] = False
            # Did the entries still lead to the same tables after these were read?
            moved = np.flatnonzero(((self._kernel.words(address, PTRS_PER_PTE) ^ entries) & ~_MOVING) != 0)
            for index in moved.tolist():
                for start in range(low & ~(span - 1), high, span):
                    if start >> LEVEL_BITS * (level - 1) & _INDEX == index:
                        known[max(start, low) - gfn : min(start + span, high) - gfn] = False

        try:
            visit(table, level, gfn, gfn + count)
        except Torn:
            known[:] = False
        return spte, at, known

    def _from_rmaps(self, slot: Memslot, gfn: int, count: int) -> Iterator[tuple[int, I64, U64]]:
        """(level, index of each SPTE's first frame counted from *gfn*, SPTE) over the rmaps of *slot*.

        :raises Torn: chains changed while they were read.
        """
        for level, heads in enumerate(slot.rmaps, 1):
            if not heads:
                continue
            shift = LEVEL_BITS * (level - 1)
            base = (gfn >> shift) - (slot.gfn >> shift)
            length = (gfn + count - 1 >> shift) - (gfn >> shift) + 1
            values = self._kernel.words(heads + 8 * base, length)
            if not values.any():
                continue
            which, pointers = self._chains(values & ~np.uint64(2))
            entries = self._kernel.gather(pointers)
            again = self._kernel.words(heads + 8 * base, length)
            if ((values ^ again) & ~np.uint64(2)).any():
                raise Torn("an rmap changed")
            # Frame where the entry's coverage starts; may lie before gfn for a large one.
            starts = ((gfn >> shift) + which << shift) - gfn
            yield level, starts, entries

    def _chains(self, values: U64) -> tuple[I64, U64]:
        """(index into *values*, address of an SPTE) for every SPTE that the rmap heads *values* lead to."""
        many = (values & np.uint64(1)) != 0
        single = np.flatnonzero((values != 0) & ~many)
        which, pointers = [single], [values[single]]
        owner, at = np.flatnonzero(many), values[many] & ~np.uint64(3)
        if len(owner):
            more, slots = self._descriptor()
            for _ in range(_MOST_DESCRIPTORS):
                if not len(owner):
                    break
                held = self._kernel.gather((at[:, None] + slots).reshape(-1)).reshape(len(owner), -1)
                # Filled from the front; empty places are NULL.
                row, column = np.nonzero(held)
                which.append(owner[row])
                pointers.append(held[row, column])
                following = self._kernel.gather(at + np.uint64(more))
                owner, at = owner[following != 0], following[following != 0]
            else:
                raise Torn("a chain of SPTEs does not end")
        return np.concatenate(which), np.concatenate(pointers)

    def _descriptor(self) -> tuple[int, U64]:
        """Offsets in a ``pte_list_desc``: of *more*, and of each of its SPTEs.

        Before 5.11 modules have no types of their own (CONFIG_DEBUG_INFO_BTF_MODULES); then it was sptes[3], more (PTE_LIST_EXT).
        """
        try:
            kind = self._kernel.program.type("struct pte_list_desc")
        except LookupError:
            return 24, np.arange(0, 24, 8, dtype=np.uint64)
        first = drgn.offsetof(kind, "sptes")
        return drgn.offsetof(kind, "more"), np.arange(first, kind.size, 8, dtype=np.uint64)

    def read_blocks(self, blocks: U64, slots: list[Memslot] | None = None) -> Sptes:
        """Every present leaf SPTE over the 2 MiB blocks at addresses *blocks* (uint64[N], ascending)."""
        total = len(blocks) * HPAGE_PMD_NR
        known = np.ones(total, np.bool_)
        parts: list[tuple[I64, U64, npt.NDArray[np.uint8]]] = []
        try:
            slots = self.slots() if slots is None else slots
            roots = self._roots()
        except Torn:
            known[:] = False
            slots, roots = [], []
        for slot in slots:
            for first, gfn, count in slot_overlaps(blocks, slot):
                for space, level, table in roots:
                    if space == slot.space:
                        part, steady = self._steady_walk(table, level, gfn, count)
                        known[first : first + count] &= steady
                        parts.append((first + part[0], part[1], part[2]))
                for _ in range(_ATTEMPTS):
                    try:
                        chains = list(self._from_rmaps(slot, gfn, count))
                        break
                    except Torn:
                        continue
                else:
                    known[first : first + count] = False
                    chains = []
                parts.extend(
                    _spread(level, starts, entries, first, count) for level, starts, entries in chains
                )
        if parts:
            page, spte, at = (np.concatenate(column) for column in zip(*parts, strict=True))
        else:
            page, spte, at = np.empty(0, np.int64), np.empty(0, np.uint64), np.empty(0, np.uint8)
        present = (spte & self._present) != 0
        page, spte, at = page[present], spte[present], at[present]
        return Sptes(page, spte, at, self.young(spte), known)

    def _steady_walk(
        self, table: int, level: int, gfn: int, count: int
    ) -> tuple[tuple[I64, U64, npt.NDArray[np.uint8]], Bools]:
        for _ in range(_ATTEMPTS):
            spte, at, known = self._walk(table, level, gfn, count)
            if known.all():
                break
        mapped = np.flatnonzero((spte & self._present) != 0)
        return (mapped, spte[mapped], at[mapped]), known


def _slots_of(slots: drgn.Object) -> Iterator[drgn.Object]:
    """Each ``struct kvm_memory_slot`` of a ``struct kvm_memslots``: in a tree since Linux 5.17, before in an array.

    Linux kernel commit a54d806688fe ("KVM: Keep memslots in tree-based structures instead of array-based ones") (in v5.17).
    """
    try:
        node = f"gfn_node[{slots.node_idx.value_()}]"
    except AttributeError:
        return (slots.memslots[i] for i in range(slots.used_slots.value_()))
    tree = slots.gfn_tree.address_of_()
    return iter(rbtree_inorder_for_each_entry("struct kvm_memory_slot", tree, node))


def slot_overlaps(blocks: U64, slot: Memslot) -> Iterator[tuple[int, int, int]]:
    """(index of the first page among the blocks' pages, its gfn, number of pages) where *slot* backs the blocks."""
    if not len(blocks):
        return
    cuts = np.flatnonzero(np.diff(blocks) != np.uint64(PMD_SIZE)) + 1
    edges = [0, *cuts.tolist(), len(blocks)]
    for begin, end in itertools.pairwise(edges):
        low = int(blocks[begin])
        first = max(low, slot.address)
        last = min(low + (end - begin << PMD_SHIFT), slot.address + (slot.pages << PAGE_SHIFT))
        if first < last:
            yield (
                begin * HPAGE_PMD_NR + (first - low >> PAGE_SHIFT),
                slot.gfn + (first - slot.address >> PAGE_SHIFT),
                last - first >> PAGE_SHIFT,
            )


def _spread(
    level: int, starts: I64, entries: U64, first: int, count: int
) -> tuple[I64, U64, npt.NDArray[np.uint8]]:
    """An SPTE above level 1 answers for each of its frames that was asked about."""
    span = 1 << LEVEL_BITS * (level - 1)
    pages = (starts[:, None] + np.arange(span)).reshape(-1)
    inside = (pages >= 0) & (pages < count)
    spte = np.repeat(entries, span)[inside]
    return first + pages[inside], spte, np.full(len(spte), level, np.uint8)
