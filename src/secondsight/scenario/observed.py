"""The state of every page of the model, as procfs and kernel memory would show it (``states`` writes it down)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from secondsight.bits import spte
from secondsight.bits.pte import MAPPED, pte_pfn
from secondsight.geometry import HPAGE_PMD_NR
from secondsight.mm.page import HEAD, OWN_BITS, TAIL, heads_of
from secondsight.mm.protocols import MmLike
from secondsight.mmu.kvm import Kvm
from secondsight.scenario import states
from secondsight.scenario.results import PageState

__all__ = ["observed"]

Pages = npt.NDArray[np.int64]


def observed(mm: MmLike, kvms: Iterable[Kvm], when: states.When) -> PageState:
    """Every page of *mm*: its entry, flags and mapcount, and its entries in the VMs *kvms*."""
    f, a = mm.host.frames.arrays, mm.arrays
    table = np.where(a.pmd[:, None] == 0, np.uint64(0), a.pte.reshape(-1, HPAGE_PMD_NR))
    entries = states.per_page(a.pmd, table)
    pfns = np.where((entries & MAPPED) != 0, pte_pfn(entries), np.uint64(0)).astype(np.int64)
    return states.page_state(
        when, mm.name, pmd=a.pmd, table=table, flags=_kpf(f, pfns), mapcount=_mapcounts(f, pfns),
        sptes={kvm.name: _sptes(kvm) for kvm in kvms},
    )  # fmt: skip


def _kpf(f: Any, pfns: Pages) -> npt.NDArray[np.uint32]:
    """Each page's flags as /proc/kpageflags shows them: a tail has its folio's, and its own compound bits."""
    own = f.flags[pfns]
    tail = (own & TAIL) != 0
    head = heads_of(own, pfns)
    shown = np.where(tail, (f.flags[head] & ~HEAD) | TAIL, own)
    return np.asarray(shown & ~OWN_BITS, dtype=np.uint32)


def _mapcounts(f: Any, pfns: Pages) -> npt.NDArray[np.int32]:
    """Each page's mapcount as /proc/kpagecount shows it: its own PTE mappings and its folio's PMD mappings."""
    own = f.flags[pfns]
    large = (own & (HEAD | TAIL)) != 0
    entire = np.where(large, f.refcount[np.where(large, heads_of(own, pfns) + 1, 0)], 0)
    return np.asarray(f.mapcount[pfns] + entire, dtype=np.int32)


def _sptes(kvm: Kvm) -> list[str]:
    """The text of every page's SPTEs."""
    pages: list[int] = []
    entries: list[int] = []
    for slot in kvm.slots.values():
        for table in slot.tables.values():
            big = np.repeat(table.smd, HPAGE_PMD_NR)
            leaf = np.where(spte.is_present(big, kvm.layout), big, table.spte)
            at = np.flatnonzero(spte.is_present(leaf, kvm.layout))
            pages.extend((at + table.first).tolist())
            entries.extend(leaf[at].tolist())
    values = np.array(entries, dtype=np.uint64)
    return states.spte_texts(
        kvm.mm.npages, np.array(pages, dtype=np.int64), values, spte.is_accessed(values, kvm.layout),
        spte.is_large(values, kvm.layout), kvm.layout,
    )  # fmt: skip
