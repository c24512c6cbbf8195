"""What things cost: the prices behind modelled times and overheads, each with where it comes from.

A model's prices are assumptions; they are printed with every result, and can be changed.
"""

from __future__ import annotations

import msgspec

from secondsight.errors import UsageError
from secondsight.geometry import HPAGE_PMD_NR


class CostModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Prices.

    collapse_us, collapse_full_us: a collapse with nothing and with all 512 pages populated, in µs (measured: process_madvise(MADV_COLLAPSE)
    of another process on a 6.18 kernel, 384 blocks); in between, linear in the pages copied. wasted_us: a collapse that was refused by
    isolate: allocation, zap and put back, without the copy (assumed: an empty collapse). scan_page_ns: a page-table entry looked at
    (assumed); test_young_ns: a call of test_young for one page (assumed). walk_reference_cycles: one memory reference of a page walk
    (12.5: CBMM, ATC 2022, takes 50 cycles for a walk of four); access_cycles: an access that hits the TLB, its instruction's other work
    included (assumed).
    """

    collapse_us: float = 235.0
    collapse_full_us: float = 806.0
    wasted_us: float = 235.0
    scan_page_ns: float = 25.0
    test_young_ns: float = 150.0
    walk_reference_cycles: float = 12.5
    access_cycles: float = 5.0

    def __post_init__(self) -> None:
        """Refuse prices that are not."""
        for name in self.__struct_fields__:
            if not 0 <= getattr(self, name) < 1e12:
                raise UsageError(f"cost {name}={getattr(self, name)}: must be a number from 0 up")

    def collapse_seconds(self, copied: int, collapses: int) -> float:
        """Seconds for *collapses* that copied so many pages together."""
        a_page = (self.collapse_full_us - self.collapse_us) / HPAGE_PMD_NR
        return (self.collapse_us * collapses + a_page * copied) * 1e-6

    def daemon_seconds(
        self, *, copied: int, collapses: int, wasted: int, pages_scanned: int, test_young: int
    ) -> float:
        """Seconds of khugepaged or of a policy's own thread."""
        return (
            self.collapse_seconds(copied, collapses)
            + wasted * self.wasted_us * 1e-6
            + (pages_scanned * self.scan_page_ns + test_young * self.test_young_ns) * 1e-9
        )

    def overhead(self, references: float, accesses: int) -> float:
        """Share of the time that page walks of *references* memory references take, beside *accesses*."""
        walk, work = references * self.walk_reference_cycles, accesses * self.access_cycles
        return walk / (walk + work) if walk + work else 0.0


def walk_references(small: int, huge: int, *, nested: bool) -> int:
    """Memory references of *small* walks to 4 KiB and *huge* to 2 MiB pages: 4 and 3; nested (g + 1)(h + 1) − 1, the guest's g = 4."""
    if nested:
        return 24 * small + 19 * huge
    return 4 * small + 3 * huge
