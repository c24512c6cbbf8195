"""The answer about one block before it becomes a row, and the names of what can leave it open (``inputs.py`` has them all)."""

from __future__ import annotations

from typing import NamedTuple

KHUGEPAGED_LIST = "khugepaged's list"
PINS = "pins (references beyond the mappings)"
ENTRY_KIND = "what the entries that are not present are"
ACCESSED = "the CPU's accessed bits"
PAGE_FLAGS = "page flags"
LRU_BATCH = "how many activated pages wait in the CPU's LRU batch by then"
SECONDARY = "what secondary MMUs used"
KERNEL_RULE = "a rule of this kernel that it does not show"
SHARED_FOLIOS = "whether large folios are shared (which address spaces mapped them)"
PARTS = "how smaller sizes would go (too many blocks that differ)"
PAGE_CACHE = "the page cache"
PAGE_TABLE = "whether the block has a page table here"
USERFAULTFD = "whether a userfaultfd waits for missing pages of the shared memory"
SHMEM_SWAP = "which pages of the shared memory are swapped out"

FREE_HUGE_BLOCKS = "free huge blocks"
MEMORY_CGROUP = "room below the memory cgroup's limits"
NODES = "which nodes the pages lie on"
THP_DISABLED = "whether prctl PR_SET_THP_DISABLE spares advised memory alone (6.18)"
ANON_VMA = "whether the mapping has an anon_vma"


class BlockAnswer(NamedTuple):
    """*others*: what could come instead; *unread*: for what; *at*: address of the page that decided."""

    status: str
    reason: str
    others: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    at: int | None = None
    wasted: bool = False
