"""A data TLB: which accesses walk the page tables, and so which set accessed bits."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TlbConfig:
    """Entries and ways; L2 is shared by both page sizes."""

    l1_small: int = 64
    l1_small_ways: int = 4
    l1_huge: int = 32
    l1_huge_ways: int = 4
    l2: int = 1536
    l2_ways: int = 12
