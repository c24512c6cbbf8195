"""Pages, blocks and orders: the only place that knows how many bytes a page has, and how many pages a block.

    order   0      2       4       9
    pages   1      4       16      512        a folio of an order, a candidate (mm, start, order) of a collapse
    bytes   4 KiB  16 KiB  64 KiB  2 MiB      a *block* is the aligned 2 MiB that one PMD covers and one scan looks at

x86-64 with 4 KiB base pages: arch/x86/include/asm/page_types.h, pgtable_64_types.h; include/linux/huge_mm.h (HPAGE_PMD_ORDER).
"""

from __future__ import annotations

PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT
#: The order of a block, HPAGE_PMD_ORDER, and its pages, HPAGE_PMD_NR.
PMD_ORDER = 9
HPAGE_PMD_NR = 1 << PMD_ORDER
PMD_SHIFT = PAGE_SHIFT + PMD_ORDER
PMD_SIZE = 1 << PMD_SHIFT
#: ``page & BLOCK_MASK`` is a page's place in its block.
BLOCK_MASK = HPAGE_PMD_NR - 1
#: The entries of a page table of any level, PTRS_PER_PTE, and the bits of an address that one level resolves.
PTRS_PER_PTE = PAGE_SIZE // 8
LEVEL_BITS = PAGE_SHIFT - 3
#: The largest that max_ptes_none, max_ptes_swap and max_ptes_shared take (HPAGE_PMD_NR - 1).
KHUGEPAGED_MAX_PTES_LIMIT = HPAGE_PMD_NR - 1
#: The smallest order that anonymous memory may have beside 0 (THP_ORDERS_ALL_ANON leaves out 0 and 1).
MIN_ANON_ORDER = 2
#: THP_ORDERS_ALL_ANON as orders, rising.
ANON_ORDERS = tuple(range(MIN_ANON_ORDER, PMD_ORDER + 1))
ALL_ANON_ORDERS = sum(1 << order for order in ANON_ORDERS)


def order_of_kb(kb: int) -> int:
    """The order of a folio of *kb* KiB, as in ``hugepages-64kB``; -1 where that is no power of two of pages."""
    pages, rest = divmod(kb << 10, PAGE_SIZE)
    if rest or pages <= 0 or pages & (pages - 1):
        return -1
    return pages.bit_length() - 1


def kb_of_order(order: int) -> int:
    """The KiB of a folio of *order*."""
    return PAGE_SIZE << order >> 10
