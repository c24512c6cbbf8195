"""Everything that decides whether khugepaged, MADV_COLLAPSE or a fault makes a range huge, in one table: who asks it and where it is read.

A verdict of ``explain`` is *known* only if every input of it was read; what was not read makes it *open*, and it names the input by its
name here. ``docs/inputs.md`` is this table as a page (``python -m secondsight.live.judge.inputs``).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from secondsight.live.judge import open_verdict as names

Group = Literal["process", "mapping", "switch", "entry", "folio", "cgroup", "memory", "kernel"]

_NOT_SHOWN = "not shown"
#: booted: a scenario or a test of the kernel tier would notice
_BOOTED = "booted: tests/live/test_kernel_verdicts.py"
_BOOTED_INPUTS = "booted: tests/live/test_kernel_inputs.py"


class Input(NamedTuple):
    """One thing that is asked. *asked_by*: which kernels, and who of khugepaged (K), MADV_COLLAPSE (C) and a fault (F); *procfs*,
    *kernel_memory*: where each shows it; *unread*: what is said where neither does; *evidence*: the booted test, or *source* and why."""

    name: str
    group: Group
    what: str
    asked_by: str
    procfs: str
    kernel_memory: str
    unread: str
    evidence: str


INPUTS = (
    Input(
        names.KHUGEPAGED_LIST, "process", "whether khugepaged visits the process at all (MMF_VM_HUGEPAGE)", "all: K",
        _NOT_SHOWN, "khugepaged_scan.mm_head", "open: the process may be unregistered", _BOOTED_INPUTS,
    ),
    Input(
        names.THP_DISABLED, "process", "PR_SET_THP_DISABLE (MMF_DISABLE_THP), since 6.18 also its form that spares advised memory",
        "3.15: K C F", "smaps THPeligible; status THP_enabled (5.0)", "mm->flags",
        "open where switches are supposed (6.18 on, not advised): may be ineligible", _BOOTED,
    ),
    Input(
        "exiting", "process", "whether the process is on its way out (hpage_collapse_test_exit)", "all: K", "state in stat",
        "as procfs", "the reader refuses it", "source: a process that exits is gone before khugepaged comes",
    ),
    Input(
        "VmFlags", "mapping", "hugetlb, device memory, VM_DONTEXPAND, MADV_HUGEPAGE and MADV_NOHUGEPAGE", "all: K C F",
        "smaps VmFlags", "vm_flags", "not read from maps alone", _BOOTED,
    ),
    Input(
        "VM_DROPPABLE", "mapping", "exempt from page_lazyfree", "7.1: K", "smaps VmFlags dp (6.11)", "vm_flags bit 40",
        "never: it is read with the flags", _BOOTED_INPUTS,
    ),
    Input(
        names.ANON_VMA, "mapping", "whether anything was ever written there", "all: K C", "smaps Anonymous or Swap above 0",
        "vma->anon_vma", "open: may be ineligible", _BOOTED_INPUTS,
    ),
    Input(
        "temporary stack", "mapping", "a stack that exec is still moving", "all: K C", "smaps THPeligible", "not asked",
        "taken for none", "source: vma_is_temporary_stack; exec is over when a reader comes",
    ),
    Input(
        "userfaultfd armed", "mapping", "no hole is tolerated, whatever max_ptes_none is", "4.3: K C",
        "smaps VmFlags um uw ui ur", "vm_flags", "never: it is read with the flags", _BOOTED,
    ),
    Input(
        "backing", "mapping", "anonymous, /dev/zero, shared memory, file, hugetlb: which scan judges it", "all: K C F",
        "maps, map_files, mountinfo", "vm_file", "by its name", _BOOTED_INPUTS,
    ),
    Input(
        "alignment", "mapping", "address and offset into the file agree modulo 2 MiB", "all: K C F", "maps", "vm_pgoff",
        "never", _BOOTED,
    ),
    Input(
        "enabled", "switch", "anonymous memory: always, madvise, never; since 6.8 by size", "all: K F", "sysfs",
        "transparent_hugepage_flags, huge_anon_orders_*", "explain cannot run", _BOOTED,
    ),
    Input(
        "shmem_enabled", "switch", "shared memory without a mount of its own, by size since 6.12", "4.8: K F; C: deny alone",
        "sysfs", "not read from dumps", "its mappings are shown as not read", _BOOTED_INPUTS,
    ),
    Input(
        "huge= of a mount", "switch", "files on a tmpfs mount", "4.8: K F", "mountinfo of the process",
        "not read from dumps", "taken for never", _BOOTED,
    ),
    Input(
        "defrag", "switch", "whether a fault, or khugepaged (khugepaged/defrag), compacts for a huge page", "all: K F",
        "sysfs", "not asked", "nothing depends on it where a free huge block was read",
        "source: alloc_hugepage_khugepaged_gfpmask",
    ),
    Input(
        "max_ptes_none, _swap, _shared", "switch", "khugepaged's limits", "all (none), 4.8 (swap), 5.8 (shared): K", "sysfs",
        "khugepaged_max_ptes_*", "explain cannot run", _BOOTED,
    ),
    Input(
        "pages_to_scan, scan_sleep_millisecs", "switch", "when khugepaged comes", "all: K", "sysfs", "as procfs",
        "no time is given", "source: khugepaged_do_scan",
    ),
    Input(
        "present, none, zero page", "entry", "holes against max_ptes_none", "all: K; C: no limit", "pagemap, kpageflags",
        "the page table", "never: without pagemap nothing is read", _BOOTED,
    ),
    Input(
        names.ENTRY_KIND, "entry", "swap, guard (6.13), poison, userfaultfd, migration, device, hwpoison", "4.8: K C",
        "pagemap's type (CAP_SYS_ADMIN), bit 58 (6.15), smaps Swap", "the entry itself", "open: failed is possible",
        _BOOTED_INPUTS,
    ),
    Input(
        "write-protected by userfaultfd", "entry", "ends the scan (pte_uffd_wp)", "5.7: K C", "pagemap bit 57", "the entry",
        "never", _BOOTED_INPUTS,
    ),
    Input(
        "writable", "entry", "one page of the block must be", "up to 6.17: K C", "taken for writable", "the entry",
        "a PROT_READ block may be judged wrongly up to 6.17", _BOOTED,
    ),
    Input(
        names.ACCESSED, "entry", "PRIMARY", "all: K", "smaps' sums where they leave one answer", "the entry",
        "open: both answers", _BOOTED,
    ),
    Input(
        names.PAGE_FLAGS, "folio", "REFERENCED, LRU, locked, anonymous, lazyfree, swap cache, KSM", "all: K C",
        "kpageflags (CAP_SYS_ADMIN); PG_young not", "struct page", "open: both answers", _BOOTED,
    ),
    Input(
        "mapcount", "folio", "shared pages against max_ptes_shared", "all: K C", "kpagecount", "struct page, struct folio",
        "taken for 2 where more than one maps it", _BOOTED,
    ),
    Input(
        names.PINS, "folio", "references beyond mappings and cache: not_suitable_page_count", "all: K C", _NOT_SHOWN,
        "struct page _refcount", "open", _BOOTED,
    ),
    Input(
        "order", "folio",
        "how large the page's folio is: which parts are as large already, and what the swap cache holds of it", "all: K C",
        "kpageflags of the frames around it", "struct folio", "open: the page's columns are unknown", _BOOTED,
    ),
    Input(
        names.SHARED_FOLIOS, "folio",
        "whether a large folio counts as shared (folio_maybe_mapped_shared), against max_ptes_shared", "6.10: K C",
        "yes where two map one of its pages; no up to 6.14", "struct folio _mm_ids (6.15)",
        "open: exceed_shared_pte is possible", "source: include/linux/mm.h, rmap.h",
    ),
    Input(
        names.LRU_BATCH, "folio", "whether an activated page is still held by a CPU's batch",
        "up to 6.12 without MGLRU, and where parts are tried (7.2): K", _NOT_SHOWN, _NOT_SHOWN, "open: both answers",
        _BOOTED,
    ),
    Input(
        names.SECONDARY, "folio", "test_young of every MMU notifier", "2.6.38: K", _NOT_SHOWN,
        "KVM's tables; any other that tests: not shown", "open: both answers", _BOOTED,
    ),
    Input(
        names.PAGE_CACHE, "folio",
        "which pages of shared memory or a file are there, whoever maps them, held, off the LRU, dirty or huge", "4.8: K C",
        "mincore of map_files (CAP_SYS_ADMIN): how many; cachestat (6.5): dirty ones", "i_pages of the file, struct folio",
        "open", _BOOTED_INPUTS,
    ),
    Input(
        names.PAGE_TABLE, "entry", "what a collapse in the page cache answers where nothing is mapped here", "up to 6.5: K",
        "a page is mapped there", "the page table; not whether the table above is there", "open: pmd_none, pmd_null",
        _BOOTED,
    ),
    Input(
        names.SHMEM_SWAP, "folio", "pages of shared memory that are swapped out, against max_ptes_swap", "4.8: K",
        "cachestat (6.5), smaps Swap 0", "i_pages of the file", "open: exceed_swap_pte is possible", _BOOTED,
    ),
    Input(
        names.USERFAULTFD, "mapping", "holes of shared memory are not filled where any mapping of it is registered for missing pages",
        "6.4: K C", "smaps VmFlags um of this process's mappings: yes", "i_mmap of the file, vm_flags bit 9",
        "open: exceed_none_pte is possible", _BOOTED_INPUTS,
    ),
    Input(
        names.MEMORY_CGROUP, "cgroup", "2 MiB are charged before isolate: ccgroup_charge_failed", "all: K C F",
        "cgroupfs, all ancestors", "as procfs; of dumps memory.max of struct mem_cgroup", "open",
        "source: charge of alloc_charge_folio; tests/live/test_kernel_limits.py for MADV_COLLAPSE",
    ),
    Input(
        names.FREE_HUGE_BLOCKS, "memory", "a free block of 2 MiB, or compaction makes one: alloc_huge_page_failed",
        "all: K C F", "buddyinfo", "as procfs; of dumps zone->free_area", "open", "source: alloc_charge_folio",
    ),
    Input(
        names.NODES, "memory", "pages too far apart: scan_aborted", "all, under zone_reclaim_mode: K",
        "zone_reclaim_mode 0, or one node", "as procfs", "open", "source: the lab's guests have one node",
    ),
    Input(
        names.PARTS, "kernel", "what all the attempts at parts of a block come to (mthp_collapse)", "7.2: K",
        "judged, of 100 kinds of blocks", "as procfs", "open: both answers", "source: mm/khugepaged.c mthp_collapse",
    ),
    Input(
        names.KERNEL_RULE, "kernel", "what of a kernel's behaviour leaves no trace in its interfaces", "see docs/live.md",
        "BTF, tracepoints, kallsyms", "the same", "open: every reading is judged", _BOOTED,
    ),
)  # fmt: skip


def named(name: str) -> Input | None:
    """The input that *name* (as a verdict's *unread* has it) begins with; None if it is none of the table's."""
    return next((each for each in INPUTS if name.startswith(each.name)), None)


_HEAD = """# What decides, and where it is read

*For operators and kernel engineers: after this page you know on what a verdict of `explain` rests, and when it is open.*

Everything that decides whether khugepaged (K), MADV_COLLAPSE (C) or a fault (F) makes 2 MiB huge: which kernels ask it, where procfs and
kernel memory show it, and what `explain` says where neither does. A verdict is *known* only if every input of it was read; else it is
*open*, names the input, and gives the answers that could come instead. The table is data in
`live/judge/inputs.py`; a test holds this page to it.
"""


def document() -> str:
    """The table as a page."""
    lines = [_HEAD]
    for group in dict.fromkeys(each.group for each in INPUTS):
        lines.append(f"\n## {group.capitalize()}\n")
        lines.append(
            "| input | what | asked | procfs | kernel memory | else | evidence |\n|---|---|---|---|---|---|---|"
        )
        lines += ["| " + " | ".join((each.name, *each[2:])) + " |" for each in INPUTS if each.group == group]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(document(), end="")
