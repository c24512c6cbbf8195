"""A snapshot of a process in another kernel: a crash dump, or a QEMU guest over QMP. No procfs there: all comes from kernel memory.

::

    mappings   mm->mm_mt (maple tree, 6.1 on)      struct vm_area_struct: vm_start, vm_end, vm_flags, vm_file
    switches   transparent_hugepage_flags, huge_anon_orders_*        kernel variables, as sysfs shows them
    limits     khugepaged_max_ptes_none ...
    what the kernel has    its own BTF, __start_BTF to __stop_BTF, and the kvm module's

Nothing is written and nothing is stopped: a running guest may change meanwhile, which the walkers notice as they do on the running kernel.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, cast

import drgn
import numpy as np
from drgn.helpers.linux.mm import for_each_vma
from drgn.helpers.linux.pid import find_task

from secondsight import __version__
from secondsight.bits import pte as bits
from secondsight.errors import MissingDependency, TargetGone
from secondsight.geometry import ANON_ORDERS, PAGE_SHIFT, PMD_ORDER, kb_of_order
from secondsight.live.read import probe
from secondsight.live.read.capture import FORMAT, Answerer, Header, Snapshot
from secondsight.live.read.columns import Columns
from secondsight.live.read.dump_surroundings import read as read_surroundings
from secondsight.live.read.kernel_reader import KernelReader
from secondsight.live.read.kmem import KernelMemory
from secondsight.live.read.pagetable import PageTable
from secondsight.live.read.process import Process
from secondsight.live.read.surroundings import with_kernel
from secondsight.live.read.switches import Switches
from secondsight.live.read.vma import Vma, clip
from secondsight.mm.config import Knobs

#: bits of vm_flags (include/linux/mm.h) by the letters that smaps prints for them (show_smap_vma_flags)
_LETTERS = {
    0x1: "rd", 0x2: "wr", 0x4: "ex", 0x8: "sh", 0x200: "um", 0x400: "pf", 0x1000: "uw", 0x2000: "lo", 0x4000: "io",
    0x40000: "de", 0x400000: "ht", 0x10000000: "mm", 0x20000000: "hg", 0x40000000: "nh",
    1 << 40: "dp",
}  # fmt: skip
_MAYSHARE = 0x80
#: /dev/zero's number, MKDEV(1, 5) (include/linux/kdev_t.h: 20 bits of minor)
_ZERO_DEVICE = 1 << 20 | 5


class Remote:
    """A process of another kernel, as the readers take one."""

    start_time = None

    def __init__(self, kernel: KernelMemory, pid: int) -> None:
        """Find process *pid* of the kernel's initial PID namespace.

        :raises TargetGone: there is no such process, or it has no memory.
        """
        self.pid = pid
        self.mm = kernel.find_mm(pid)
        self.name = find_task(kernel.program, pid).comm.string_().decode("utf-8", "replace")

    def require_alive(self) -> None:
        """Nothing: finding it again after the read says it."""


def take(kernel: KernelMemory, pid: int, within: tuple[int, int] | None = None) -> Snapshot:
    """Capture process *pid* of *kernel*: every 2 MiB block that holds anything, inside the addresses *within*.

    :raises TargetGone: there is no such process.
    :raises MissingDependency: the kernel lacks a part that must be there.
    """
    begun = time.monotonic()
    remote = Remote(kernel, pid)
    vmas = clip(mappings(kernel, remote.mm), within)
    table = PageTable(kernel, int(remote.mm.pgd.value_()))
    mapped = [table.mapped_blocks(v.start, v.end) for v in vmas]
    blocks = np.concatenate(mapped) if mapped else np.empty(0, np.uint64)
    reader = KernelReader(kernel, cast(Process, remote))
    columns = _holding(reader.read_blocks(blocks))
    reader.read_page_cache(columns, vmas)
    header = Header(
        format=FORMAT, version=__version__, taken=time.time(), seconds=time.monotonic() - begun, source=kernel.source, missing="",
        pid=pid, name=remote.name, machine="x86_64", facts=facts(kernel), limits=limits(kernel), enabled=enabled(kernel),
        counts_known=True, switches=switches(kernel),
        surroundings=with_kernel(read_surroundings(kernel, remote.mm), kernel, int(remote.mm.value_())),
        secondary=tuple(Answerer(answer.name, answer.why) for answer in columns.secondary), mappings=tuple(vmas),
    )  # fmt: skip
    return Snapshot(header, columns)


def _holding(columns: Columns) -> Columns:
    """The blocks that hold a page or a swap entry, as PAGEMAP_SCAN would list them; tables may hang there empty."""
    keep = bits.pmd_trans_huge(columns.pmd) | (columns.pte != 0).any(axis=1)
    return columns.chosen(np.flatnonzero(keep))


def mappings(kernel: KernelMemory, mm: Any) -> list[Vma]:
    """The mappings of ``struct mm_struct *`` *mm*, by address; sizes and ``THPeligible`` stay unknown.

    :raises TargetGone: they changed while they were read.
    """
    try:
        return [_vma(area) for area in for_each_vma(mm)]
    except (drgn.FaultError, LookupError, AttributeError) as error:
        raise TargetGone(f"the mappings would not hold still ({error})") from None


def _vma(area: Any) -> Vma:
    word = int(area.vm_flags.value_())
    perms = "".join(letter if word >> at & 1 else "-" for at, letter in enumerate("rwx"))
    file = area.vm_file.read_()
    inode, name, zero = 0, "", False
    if file:
        # Anonymous shared memory and /dev/zero have a file of their own too.
        inode = int(file.f_inode.i_ino.value_()) or 1
        zero = not word & _MAYSHARE and int(file.f_inode.i_rdev.value_()) == _ZERO_DEVICE
        name = file.f_path.dentry.d_name.name.string_().decode("utf-8", "backslashreplace")
    return Vma(
        start=int(area.vm_start.value_()), end=int(area.vm_end.value_()), perms=perms + ("s" if word & _MAYSHARE else "p"),
        offset=int(area.vm_pgoff.value_()) << PAGE_SHIFT, device="00:00", inode=inode, name=name,
        flags=frozenset(letters for bit, letters in _LETTERS.items() if word & bit), zero_device=zero,
    )  # fmt: skip


def _word32(kernel: KernelMemory, name: str) -> int:
    value = kernel.variable(name)
    if value is None:
        raise MissingDependency(
            f"kernel symbol {name}: not found; this kernel was built without khugepaged or KALLSYMS_ALL"
        )
    return value & 0xFFFF_FFFF


def limits(kernel: KernelMemory) -> Knobs:
    """khugepaged's limits.

    :raises MissingDependency: the kernel has no khugepaged.
    """
    return Knobs(**{name: _word32(kernel, f"khugepaged_{name}") for name in Knobs.__struct_fields__})


def enabled(kernel: KernelMemory) -> str:
    """``always``, ``madvise`` or ``never`` for 2 MiB pages, as ``sysfs.thp_enabled`` says it.

    :raises MissingDependency: the kernel has no transparent huge pages.
    """
    settings = switches(kernel)
    return settings.enabled if settings.enabled_size in ("", "inherit") else settings.enabled_size


def switches(kernel: KernelMemory) -> Switches:
    """The switches of anonymous memory, as sysfs shows them; those of shared memory are not read.

    :raises MissingDependency: the kernel has no transparent huge pages.
    """
    word = _word32(kernel, "transparent_hugepage_flags")

    def on(name: str) -> bool:
        bit = kernel.constant(name)
        return bit is not None and bool(word >> bit & 1)

    whole = (
        "always"
        if on("TRANSPARENT_HUGEPAGE_FLAG")
        else "madvise"
        if on("TRANSPARENT_HUGEPAGE_REQ_MADV_FLAG")
        else "never"
    )
    own = {kind: kernel.variable(f"huge_anon_orders_{kind}") for kind in ("always", "madvise", "inherit")}
    if own["inherit"] is None:
        return Switches(enabled=whole)
    sizes = {
        kb_of_order(order): next(
            (kind for kind, orders in own.items() if orders and orders >> order & 1), "never"
        )
        for order in ANON_ORDERS
    }
    return Switches(enabled=whole, enabled_size=sizes[kb_of_order(PMD_ORDER)], sizes=sizes)


def facts(kernel: KernelMemory) -> probe.Facts:
    """What *kernel* is and has."""
    fields = probe.from_btf(kernel.types["vmlinux"], kernel.types.get("kvm"))
    if kernel.symbols.address("kvm_mmu_notifier_test_young") is not None:
        fields["soft_accessed"] = kernel.symbols.address("kvm_ad_enabled") is not None
    # static_key lru_gen_caps[LRU_GEN_CORE]: its first word counts who enabled it.
    caps = kernel.variable("lru_gen_caps")
    mglru = caps is not None and (caps & 0xFFFF_FFFF) != 0
    return probe.facts(release=kernel.release, mglru=mglru, **fields)


def open_kernel(vmcore: Path | None, qmp: Path | None) -> KernelMemory:
    """The kernel of the crash dump *vmcore*, or of the guest behind QEMU's *qmp* socket.

    :raises InputError: *vmcore* is no dump.
    :raises MissingDependency: not readable, or not a kernel that can be read.
    """
    if vmcore is not None:
        return KernelMemory.dump(vmcore)
    assert qmp is not None
    return KernelMemory.qmp(qmp)
