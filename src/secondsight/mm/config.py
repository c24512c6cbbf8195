"""What a machine is configured to, as opposed to which kernel it runs (``rules.py``).

``Knobs`` are khugepaged's sysfs files, ``HostConfig`` everything else a scenario's outcome hangs on.
Both are frozen msgspec structs, so a scenario file, a snapshot and Python build them alike.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from secondsight.errors import UsageError

HPAGE_PMD_NR = 512
PAGE_SIZE = 4096
HPAGE_PMD_SIZE = HPAGE_PMD_NR * PAGE_SIZE
_UINT_MAX = (1 << 32) - 1

Mmu = Literal["npt", "shadow", "ept", "ept-noad"]
ThpEnabled = Literal["always", "madvise", "never"]


class Knobs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``/sys/kernel/mm/transparent_hugepage/khugepaged/*``, with the kernel's defaults (mm/khugepaged.c)."""

    pages_to_scan: int = 4096
    scan_sleep_millisecs: int = 10_000
    alloc_sleep_millisecs: int = 60_000
    max_ptes_none: int = 511
    max_ptes_swap: int = 64
    max_ptes_shared: int = 256

    def __post_init__(self) -> None:
        """Refuse what sysfs refuses: the ``max_ptes_*_store`` functions take 0 to HPAGE_PMD_NR - 1, the others an unsigned int."""
        for name in ("max_ptes_none", "max_ptes_swap", "max_ptes_shared"):
            value = getattr(self, name)
            if not 0 <= value <= HPAGE_PMD_NR - 1:
                raise UsageError(f"{name}={value}: must be 0 to {HPAGE_PMD_NR - 1}, as in sysfs")
        if self.pages_to_scan < 1:
            raise UsageError(f"pages_to_scan={self.pages_to_scan}: must be at least 1, as in sysfs")
        for name in ("scan_sleep_millisecs", "alloc_sleep_millisecs"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name}={getattr(self, name)}: cannot be negative")
        # Each *_store function reads them with kstrtouint.
        for name in ("pages_to_scan", "scan_sleep_millisecs", "alloc_sleep_millisecs"):
            if getattr(self, name) > _UINT_MAX:
                raise UsageError(f"{name}={getattr(self, name)}: must be at most {_UINT_MAX}, as in sysfs")


class HostConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One machine's set-up.

    ``mmu`` names the table format KVM uses: ``npt`` (AMD nested), ``shadow`` (``npt=0``/``ept=0``), ``ept``
    (accessed/dirty bits on) or ``ept-noad`` (``eptad=0``). ``mmu_notifier`` is CONFIG_MMU_NOTIFIER.
    """

    mmu: Mmu = "npt"
    mglru: bool = False
    thp_enabled: ThpEnabled = "madvise"
    khugepaged_defrag: bool = True
    use_zero_page: bool = True
    mmu_notifier: bool = True
    knobs: Knobs = Knobs()
