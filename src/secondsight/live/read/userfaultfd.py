"""Where a userfaultfd waits for missing pages of shared memory: khugepaged fills no hole there, whichever process registered it.

::

    each mapping of the process ─▶ vm_file ─▶ f_mapping ─▶ i_mmap         every mapping of the file, anybody's: a red-black tree
      vm_area_struct shared.rb: vm_pgoff, vm_start, vm_end, vm_flags      VM_UFFD_MISSING, of which part of the file

Sources: mm/khugepaged.c collapse_file (userfaultfd_missing over vma_interval_tree_foreach, 6.4), include/linux/mm.h.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import drgn

from secondsight.geometry import PAGE_SHIFT
from secondsight.live.read.kmem import KernelMemory

#: (first address, end) of a part of the process's address space
Span = tuple[int, int]

_TMPFS_MAGIC = 0x01021994
_UFFD_MISSING = 0x200
#: mappings of one file that are looked at: a tree that changes under the reader may lead in circles
MOST_MAPPINGS = 1 << 16


def missing_waited_for(kernel: KernelMemory, mm: int) -> tuple[Span, ...] | None:
    """The addresses, in the ``struct mm_struct`` at *mm*, of shared memory that some mapping has registered for missing pages; None where
    that would not hold still."""
    from drgn.helpers.linux.mm import for_each_vma

    parts_of_file: dict[int, list[Span]] = {}
    spans: list[Span] = []
    try:
        for area in for_each_vma(drgn.Object(kernel.program, "struct mm_struct *", value=mm)):
            if not area.vm_file or int(area.vm_file.f_inode.i_sb.s_magic.value_()) != _TMPFS_MAGIC:
                continue
            mapping = area.vm_file.f_mapping
            parts = parts_of_file.get(int(mapping))
            if parts is None:
                parts = parts_of_file[int(mapping)] = list(_registered(mapping))
            start, (first, end) = int(area.vm_start.value_()), _pages(area)
            spans += [
                (
                    start + (max(low, first) - first << PAGE_SHIFT),
                    start + (min(high, end) - first << PAGE_SHIFT),
                )
                for low, high in parts
                if low < end and first < high
            ]
    except (drgn.FaultError, LookupError, AttributeError, OverflowError):
        return None
    return tuple(sorted(set(spans)))


def _pages(area: Any) -> Span:
    """(first page, end) of the file that the mapping shows."""
    first = int(area.vm_pgoff.value_())
    return first, first + ((int(area.vm_end.value_()) - int(area.vm_start.value_())) >> PAGE_SHIFT)


def _registered(mapping: Any) -> Iterator[Span]:
    """The parts of the file, in pages, that one of its mappings has registered.

    :raises OverflowError: there are more mappings than any file has.
    """
    from drgn.helpers.linux.rbtree import rbtree_inorder_for_each_entry

    tree = mapping.i_mmap.rb_root.address_of_()
    areas = rbtree_inorder_for_each_entry("struct vm_area_struct", tree, "shared.rb")
    for count, area in enumerate(islice(areas, MOST_MAPPINGS + 1)):
        if count == MOST_MAPPINGS:
            raise OverflowError("too many mappings of one file")
        if int(area.vm_flags.value_()) & _UFFD_MISSING:
            yield _pages(area)
