"""The vocabulary: every step a scenario can take, as typed records.

The same verbs are methods of the model (``secondsight.scenario.run``) and of the agent in the lab's guest, so a
scenario runs on the model and on a booted kernel unchanged. A scenario file is TOML or JSON of ``Scenario``:

    title = "a block that only the guest uses"
    [host]
    mmu = "npt"
    [[spaces]]
    name = "vm"
    blocks = 2
    vm = {}
    [[steps]]
    do = "guest_write"
    space = "vm"
    pages = "1"

What a *space* is: one process with one mapping of ``blocks`` aligned 2 MiB blocks at its start, private and anonymous unless it says
``shared``; where it has a ``vm``, a KVM VM in that process whose slot 0 maps guest-physical 0 upward to the area, and with ``vm2`` a
second one. Pages are written as in ``pages.py``. ``scan`` is one full scan of khugepaged over every registered space.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from secondsight.mm.config import HostConfig


class Slot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A memslot: *blocks* blocks of the space from *block* appear at guest-physical block *gfn_block*."""

    id: int
    gfn_block: int
    block: int
    blocks: int


class Vm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A KVM VM. Slot 0 always maps the whole space at guest-physical 0; *slots* are further ones (aliases)."""

    slots: tuple[Slot, ...] = ()


class Gru(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A device TLB (SGI GRU) registered on the space; see ``secondsight.mmu.gru`` for the two variants."""

    variant: Literal["contract", "driver"] = "contract"


class Shared(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The area is shared memory in place of private: a memfd called *memory*, from its block *block* on, which every space that names it
    maps; without a name MAP_SHARED | MAP_ANONYMOUS, which only a child shares. A memfd is as long as the farthest mapping of it, and stays
    when nobody maps it. *file*: not a memfd but a regular file on ext4, mapped MAP_PRIVATE and read-only, or MAP_SHARED and writable."""

    memory: str = ""
    block: int = 0
    file: Literal["", "private", "shared"] = ""


class SpaceSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One process and its area; notifiers are registered in the order vm, vm2, then gru: the last is asked first. *droppable*: the area is
    mapped with MAP_DROPPABLE (6.11), not MAP_PRIVATE."""

    name: str
    blocks: int = 1
    vm: Vm | None = None
    vm2: Vm | None = None
    droppable: bool = False
    gru: Gru | None = None
    shared: Shared | None = None


class _VerbBase(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", omit_defaults=True):
    """Base of every verb; ``do`` is its name in files."""


class CpuRead(_VerbBase, frozen=True, tag="cpu_read"):
    """The process loads one byte of each page through its own page table."""

    space: str
    pages: str


class CpuWrite(_VerbBase, frozen=True, tag="cpu_write"):
    """The process stores into each page. *value* fills the whole page (0 makes it zero-filled, equal values let KSM
    merge); without it the page's content is its own."""

    space: str
    pages: str
    value: int | None = None


class GuestRead(_VerbBase, frozen=True, tag="guest_read"):
    """The VM's vCPU loads from each page. *view* 0: guest paging off; k >= 1: paging on, through the guest-virtual
    window k (each window maps the same guest-physical memory: under shadow paging each has SPTEs of its own).
    *slot*: through which memslot's guest-physical addresses; *vm*: the process's first VM (0) or its second (1).
    *nested* k >= 1: not the VM itself but a guest that it runs, the k-th, by nested page tables of its own (on ``npt``; paging off)."""

    space: str
    pages: str
    view: int = 0
    slot: int = 0
    vm: int = 0
    nested: int = 0


class GuestWrite(_VerbBase, frozen=True, tag="guest_write"):
    """The VM's vCPU stores into each page; see ``guest_read``."""

    space: str
    pages: str
    view: int = 0
    slot: int = 0
    vm: int = 0
    nested: int = 0


class DeviceRead(_VerbBase, frozen=True, tag="device_read"):
    """The GRU reads each page through its own TLB (model only: no kernel here can show it)."""

    space: str
    pages: str


class DeviceWrite(_VerbBase, frozen=True, tag="device_write"):
    """The GRU writes each page through its own TLB (model only)."""

    space: str
    pages: str


class IoCopied(_VerbBase, frozen=True, tag="io_copied"):
    """qemu's copied I/O: the emulator itself reads or writes the page, through the primary page table."""

    space: str
    pages: str
    write: bool = True


class IoZeroCopy(_VerbBase, frozen=True, tag="io_zero_copy"):
    """qemu's zero-copy I/O: the pages are pinned by gup-fast, used by a device, and released again."""

    space: str
    pages: str
    write: bool = True


class Pin(_VerbBase, frozen=True, tag="pin"):
    """Pin pages and keep them under *name*: for reading with vmsplice (gup-fast, FOLL_GET: one reference a page), for writing as
    io_uring's registered buffers (FOLL_PIN | FOLL_LONGTERM | FOLL_WRITE: 1024 references a page)."""

    space: str
    pages: str
    name: str
    write: bool = False


class Unpin(_VerbBase, frozen=True, tag="unpin"):
    """Release the pins made under *name*."""

    space: str
    name: str


class ClearRefs(_VerbBase, frozen=True, tag="clear_refs"):
    """``echo 1 > /proc/PID/clear_refs``, followed by a TLB flush (the kernel does none)."""

    space: str


class Madvise(_VerbBase, frozen=True, tag="madvise"):
    """``madvise(2)`` over each run of pages. ``collapse`` is MADV_COLLAPSE (its errno is part of the answer)."""

    space: str
    pages: str
    advice: Literal[
        "hugepage",
        "nohugepage",
        "dontneed",
        "free",
        "cold",
        "mergeable",
        "unmergeable",
        "guard_install",
        "guard_remove",
        "collapse",
    ]


class Mprotect(_VerbBase, frozen=True, tag="mprotect"):
    """``mprotect(2)`` over each run of pages."""

    space: str
    pages: str
    prot: Literal["none", "r", "rw"]


class Mremap(_VerbBase, frozen=True, tag="mremap"):
    """``mremap(2)`` of each run of pages to another address (as far into a block), and back to where it was."""

    space: str
    pages: str


class Mlock(_VerbBase, frozen=True, tag="mlock"):
    """``mlock(2)`` (faults the pages in); *onfault*: ``mlock2(2)`` with MLOCK_ONFAULT, which takes what is there, and the rest when
    it comes."""

    space: str
    pages: str
    onfault: bool = False


class Munlock(_VerbBase, frozen=True, tag="munlock"):
    """``munlock(2)``."""

    space: str
    pages: str


class SwapOut(_VerbBase, frozen=True, tag="swap_out"):
    """Ask the kernel to reclaim these pages (MADV_PAGEOUT). Which pages went is the kernel's choice: a lab run records it in *took*, and
    the swap slots that these got in *slots* (runs of (first, how many); -1: in none), and the model obeys; without *took* all of them go
    that can, and without *slots* to the first that are free."""

    space: str
    pages: str
    took: str | None = None
    slots: tuple[tuple[int, int], ...] = ()


class NumaScan(_VerbBase, frozen=True, tag="numa_scan"):
    """NUMA balancing scans the process: what it might move becomes PROT_NONE and goes from secondary MMUs (change_prot_numa); the next
    access takes it back (do_numa_page). On one node nothing moves."""

    space: str


class Uffd(_VerbBase, frozen=True, tag="uffd"):
    """userfaultfd: UFFDIO_REGISTER each run of pages for *missing* ones, or for write protection, and UFFDIO_WRITEPROTECT them (*wp*).

    Nobody handles a fault there: the model refuses a step that would wait for it, and a booted kernel's would never end.
    """

    space: str
    pages: str
    mode: Literal["missing", "wp"]


class Age(_VerbBase, frozen=True, tag="age"):
    """Clear the young bits of these pages, primary and secondary, as ``clear_young``'s callers do (page_idle, DAMON): what was young
    moves to PG_young, PG_idle is set. *took* (recorded by the lab): the pages that the kernel had a way to age."""

    space: str
    pages: str
    took: str | None = None


class Fork(_VerbBase, frozen=True, tag="fork"):
    """``fork(2)``: *child* is a new space with the same area, shared copy-on-write; it has no VM."""

    space: str
    child: str


class Exit(_VerbBase, frozen=True, tag="exit"):
    """The process exits; its VM goes with it."""

    space: str


class FileRead(_VerbBase, frozen=True, tag="file_read"):
    """``pread(2)`` of each run of pages of the regular file that the space maps, cut where a block ends, each through a descriptor of its
    own."""

    space: str
    pages: str


class FileWrite(_VerbBase, frozen=True, tag="file_write"):
    """``pwrite(2)`` of each run of pages; see ``file_read``."""

    space: str
    pages: str


class FileSync(_VerbBase, frozen=True, tag="file_sync"):
    """``fsync(2)`` of the file."""

    space: str


class FileDrop(_VerbBase, frozen=True, tag="file_drop"):
    """``posix_fadvise(2)``, POSIX_FADV_DONTNEED, of each run of pages: what nobody uses leaves the page cache."""

    space: str
    pages: str


class SlotAdd(_VerbBase, frozen=True, tag="slot_add"):
    """KVM_SET_USER_MEMORY_REGION: a further memslot of the first VM (*vm* 0) or the second."""

    space: str
    slot: Slot
    vm: int = 0


class SlotDelete(_VerbBase, frozen=True, tag="slot_delete"):
    """KVM_SET_USER_MEMORY_REGION with size 0: memslot *id* goes, and its SPTEs."""

    space: str
    id: int
    vm: int = 0


class KsmMerge(_VerbBase, frozen=True, tag="ksm_merge"):
    """Run ksmd until nothing changes any more, then stop it. *took* (recorded by the lab) names for each space the pages that became KSM
    pages; without it all MADV_MERGEABLE pages of equal value are merged."""

    took: dict[str, str] | None = None


class SplitPmd(_VerbBase, frozen=True, tag="split_pmd"):
    """Turn each block's huge PMD into PTEs, the folio staying whole: MADV_DONTFORK on its first page cuts the VMA there
    (vma_adjust_trans_huge), MADV_DOFORK joins it again; no entry's bits change."""

    space: str
    pages: str


class SplitHuge(_VerbBase, frozen=True, tag="split_huge"):
    """Split each block's huge folio into small pages (debugfs ``split_huge_pages``)."""

    space: str
    pages: str


class SetKnobs(_VerbBase, frozen=True, tag="knobs"):
    """Write khugepaged's sysfs files; the ones not named keep their value."""

    max_ptes_none: int | None = None
    max_ptes_swap: int | None = None
    max_ptes_shared: int | None = None
    pages_to_scan: int | None = None
    thp_enabled: Literal["always", "madvise", "never"] | None = None


class Drain(_VerbBase, frozen=True, tag="drain"):
    """Drain the per-CPU LRU batches (``lru_add_drain_all``)."""


class Observe(_VerbBase, frozen=True, tag="observe"):
    """Record the state of every page of every space at this point."""


class Scan(_VerbBase, frozen=True, tag="scan"):
    """*passes* full scans of khugepaged over everything registered, each starting at the list's head.

    *pages*: instead one wake-up that is good for so many (``pages_to_scan``), from the list's head; it may leave the list unfinished, so
    such a scan is the scenario's only one, and last. Areas that a process has beside its space count one each in the lab, and in the
    model nothing: leave room for some hundreds.
    """

    passes: int = 1
    pages: int | None = None


Verb = (
    CpuRead | CpuWrite | GuestRead | GuestWrite | DeviceRead | DeviceWrite | IoCopied | IoZeroCopy | Pin | Unpin | ClearRefs
    | Madvise | Mprotect | Mremap | Mlock | Munlock | SwapOut | NumaScan | Uffd | Age | Fork | Exit | FileRead | FileWrite
    | FileSync | FileDrop | SlotAdd | SlotDelete | KsmMerge | SplitPmd | SplitHuge | SetKnobs | Drain | Observe | Scan
)  # fmt: skip


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole scenario; *expect* maps a kernel profile (or ``kernel/mmu``) to the answer it must give."""

    spaces: tuple[SpaceSpec, ...]
    steps: tuple[Verb, ...]
    title: str = ""
    about: str = ""
    host: HostConfig = HostConfig()
    rules: tuple[str, ...] = ()
    expect: dict[str, list[str]] = {}


def memory_blocks(scenario: Scenario, space: SpaceSpec) -> int:
    """How many blocks the shared memory or the file has that *space* maps: up to the end of the farthest mapping of it."""
    if space.shared is None:
        return 0
    if not space.shared.memory:
        return space.shared.block + space.blocks
    return max(
        each.shared.block + each.blocks
        for each in scenario.spaces
        if each.shared is not None and each.shared.memory == space.shared.memory
    )
