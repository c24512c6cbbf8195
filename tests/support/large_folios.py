"""Folios of the sizes that a host switches on."""

from __future__ import annotations

import numpy as np

from secondsight.geometry import kb_of_order
from secondsight.mm.config import HostConfig, Sizes
from secondsight.mm.host import Host
from secondsight.mm.page import folio_order


def machine(*orders: int, how: str = "always", rules: str = "7.2", enabled: str = "madvise", blocks: int = 2):
    """A host whose huge pages of *orders* are switched *how*, and a process on it."""
    sizes = Sizes(**{f"kb{kb_of_order(order)}": how for order in orders})
    host = Host(rules, HostConfig(thp_enabled=enabled, sizes=sizes))
    return host, host.mm("p", blocks)


def write(mm, *pages) -> None:
    """*mm* stores to *pages*."""
    mm.cpu_access(np.array(pages, np.int64), write=True)


def order_at(mm, page: int) -> int:
    """The order of the folio behind *page*; -1 where there is none."""
    return int(folio_order(mm.host.frames.arrays, mm.pfn(page))) if mm.pfn(page) > 0 else -1
