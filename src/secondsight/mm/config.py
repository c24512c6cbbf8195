"""What a machine is configured to, as opposed to which kernel it runs (``rules``).

``Knobs`` are khugepaged's sysfs files, ``HostConfig`` everything else a scenario's outcome depends on.
Both are frozen msgspec structs, so a scenario file, a snapshot and Python build them alike.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from secondsight.errors import UsageError
from secondsight.geometry import (
    ANON_ORDERS,
    HPAGE_PMD_NR,
    KHUGEPAGED_MAX_PTES_LIMIT,
    PAGE_SIZE,
    PMD_ORDER,
    kb_of_order,
)
from secondsight.geometry import PMD_SIZE as HPAGE_PMD_SIZE

__all__ = [
    "HPAGE_PMD_NR",
    "HPAGE_PMD_SIZE",
    "PAGE_SIZE",
    "HostConfig",
    "Knobs",
    "Mmu",
    "ShmemEnabled",
    "ShmemSizeEnabled",
    "ShmemSizes",
    "SizeEnabled",
    "Sizes",
    "ThpEnabled",
]

_UINT_MAX = (1 << 32) - 1

Mmu = Literal["npt", "shadow", "ept", "ept-noad"]
ThpEnabled = Literal["always", "madvise", "never"]
SizeEnabled = Literal["always", "madvise", "inherit", "never"]
ShmemEnabled = Literal["always", "within_size", "advise", "never", "deny", "force"]
ShmemSizeEnabled = Literal["always", "within_size", "advise", "inherit", "never"]


class Knobs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``/sys/kernel/mm/transparent_hugepage/khugepaged/*``, with the kernel's defaults (mm/khugepaged.c)."""

    pages_to_scan: int = 8 * HPAGE_PMD_NR
    scan_sleep_millisecs: int = 10_000
    alloc_sleep_millisecs: int = 60_000
    max_ptes_none: int = KHUGEPAGED_MAX_PTES_LIMIT
    max_ptes_swap: int = 64
    max_ptes_shared: int = 256

    def __post_init__(self) -> None:
        """Refuse what sysfs refuses: the ``max_ptes_*_store`` functions take 0 to HPAGE_PMD_NR - 1, the others an unsigned int."""
        for name in ("max_ptes_none", "max_ptes_swap", "max_ptes_shared"):
            value = getattr(self, name)
            if not 0 <= value <= KHUGEPAGED_MAX_PTES_LIMIT:
                raise UsageError(f"{name}={value}: must be 0 to {KHUGEPAGED_MAX_PTES_LIMIT}, as in sysfs")
        if self.pages_to_scan < 1:
            raise UsageError(f"pages_to_scan={self.pages_to_scan}: must be at least 1, as in sysfs")
        for name in ("scan_sleep_millisecs", "alloc_sleep_millisecs"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name}={getattr(self, name)}: cannot be negative")
        # Each *_store function reads them with kstrtouint.
        for name in ("pages_to_scan", "scan_sleep_millisecs", "alloc_sleep_millisecs"):
            if getattr(self, name) > _UINT_MAX:
                raise UsageError(f"{name}={getattr(self, name)}: must be at most {_UINT_MAX}, as in sysfs")


class Sizes(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    rename=lambda name: f"{name.removeprefix('kb')}kB",
):
    """``/sys/kernel/mm/transparent_hugepage/hugepages-*kB/enabled``, with the kernel's defaults (3485b88390b0, 6.8).

    A field a size, ``kb64`` for 64 KiB; in a file its key is ``64kB``. ``inherit`` is what the global switch says.
    """

    kb16: SizeEnabled = "never"
    kb32: SizeEnabled = "never"
    kb64: SizeEnabled = "never"
    kb128: SizeEnabled = "never"
    kb256: SizeEnabled = "never"
    kb512: SizeEnabled = "never"
    kb1024: SizeEnabled = "never"
    kb2048: SizeEnabled = "inherit"

    def of(self, order: int) -> SizeEnabled:
        """The switch of *order*, 2 to 9.

        :raises UsageError: there is no such size.
        """
        if order not in ANON_ORDERS:
            raise UsageError(
                f"order {order}: huge pages have the orders {ANON_ORDERS[0]} (16 KiB) to {PMD_ORDER} (2 MiB)"
            )
        return getattr(self, f"kb{kb_of_order(order)}")

    @property
    def parts(self) -> bool:
        """Is any size below 2 MiB switched on, in whatever way?"""
        return any(self.of(order) != "never" for order in ANON_ORDERS[:-1])


class ShmemSizes(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    rename=lambda name: f"{name.removeprefix('kb')}kB",
):
    """``/sys/kernel/mm/transparent_hugepage/hugepages-*kB/shmem_enabled``, with the kernel's defaults (e7a2ab7b3bb5, 6.11).

    ``inherit`` is what the global ``shmem_enabled`` says. hugepages-8kB, which shared memory alone has, stays off.
    """

    kb16: ShmemSizeEnabled = "never"
    kb32: ShmemSizeEnabled = "never"
    kb64: ShmemSizeEnabled = "never"
    kb128: ShmemSizeEnabled = "never"
    kb256: ShmemSizeEnabled = "never"
    kb512: ShmemSizeEnabled = "never"
    kb1024: ShmemSizeEnabled = "never"
    kb2048: ShmemSizeEnabled = "inherit"

    def mask(self, *modes: ShmemSizeEnabled) -> int:
        """The orders whose switch is one of *modes*, as bits."""
        return sum(1 << order for order in ANON_ORDERS if getattr(self, f"kb{kb_of_order(order)}") in modes)


class HostConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One machine's set-up.

    ``mmu`` names the table format KVM uses: ``npt`` (AMD nested), ``shadow`` (``npt=0``/``ept=0``), ``ept``
    (accessed/dirty bits on) or ``ept-noad`` (``eptad=0``). ``mmu_notifier`` is CONFIG_MMU_NOTIFIER. ``shmem_enabled`` is the file of
    that name, for shared memory, and ``shmem_sizes`` the files of that name for each size (6.11).
    """

    mmu: Mmu = "npt"
    mglru: bool = False
    thp_enabled: ThpEnabled = "madvise"
    khugepaged_defrag: bool = True
    use_zero_page: bool = True
    mmu_notifier: bool = True
    knobs: Knobs = Knobs()
    sizes: Sizes = Sizes()
    shmem_enabled: ShmemEnabled = "never"
    shmem_sizes: ShmemSizes = ShmemSizes()

    def __post_init__(self) -> None:
        """Refuse what sysfs refuses: under ``force`` 2 MiB alone inherits (shmem_enabled_store, thpsize_shmem_enabled_store)."""
        if self.shmem_enabled == "force" and self.shmem_sizes.mask("inherit") != 1 << PMD_ORDER:
            raise UsageError(
                'shmem_enabled="force" wants shmem_sizes to inherit at 2048kB and nowhere else, as in sysfs'
            )

    def note(self, *, mthp_collapse: bool) -> str | None:
        """What the kernel would warn of once about this set-up, or None. *mthp_collapse*: the rule, collapse below 2 MiB.

        mm/khugepaged.c collapse_max_ptes_none: pr_warn_once (7.2).
        """
        none = self.knobs.max_ptes_none
        below = self.orders(advised=True) & ~(1 << PMD_ORDER)
        if not mthp_collapse or not below or none in (0, KHUGEPAGED_MAX_PTES_LIMIT):
            return None
        return f"max_ptes_none={none} counts as 0 below 2 MiB: the kernel knows 0 and {KHUGEPAGED_MAX_PTES_LIMIT} alone there"

    def shmem_orders(self, *, advised: bool, forced: bool = False) -> int:
        """The orders that shared memory (memfd, MAP_SHARED | MAP_ANONYMOUS) may have, as a mask. *advised*: its area has VM_HUGEPAGE;
        *forced*: MADV_COLLAPSE asks, about the PMD's alone.

        mm/shmem.c shmem_is_huge (6.1), shmem_huge_global_enabled and shmem_allowable_huge_orders: ``deny`` refuses even MADV_COLLAPSE, as
        nothing else does. Memory here is whole blocks long, so that ``within_size`` always is within it.
        """
        sizes = self.shmem_sizes
        if self.shmem_enabled == "deny":
            return 0
        if forced:
            return 1 << PMD_ORDER
        if self.shmem_enabled == "force":
            return sizes.mask("inherit")
        inherited = self.shmem_enabled in ("always", "within_size") or (
            self.shmem_enabled == "advise" and advised
        )
        mask = sizes.mask("always", "within_size")
        mask |= sizes.mask("advise") if advised else 0
        return mask | (sizes.mask("inherit") if inherited else 0)

    def orders(self, *, advised: bool) -> int:
        """The orders that anonymous memory may have, as a mask (bit 9: 2 MiB); *advised*: the area has VM_HUGEPAGE.

        include/linux/huge_mm.h thp_vma_allowable_orders: huge_anon_orders_always, _madvise, _inherit; hugepage_global_always,
        hugepage_global_enabled. Before 6.8 only the global switch was there, which the default ``sizes`` say.
        """
        whole = self.thp_enabled == "always" or (advised and self.thp_enabled == "madvise")
        mask = 0
        for order in ANON_ORDERS:
            how = self.sizes.of(order)
            if how == "always" or (how == "madvise" and advised) or (how == "inherit" and whole):
                mask |= 1 << order
        return mask
