"""How much of a large folio a process's PTEs map, and whether the folio counts as shared."""

from __future__ import annotations

import numpy as np
import pytest

from secondsight.bits import pte as x86
from secondsight.mm.fork import fork
from secondsight.mm.internal import USE, USE_AND_WRITE, folio_pte_batch, maybe_mapped_shared, ptes_of_folio
from secondsight.mm.madvise import madvise
from support.large_folios import machine, write


def folio_of_16():
    """A process whose pages 16 to 31 are one folio, page 32 a folio of the next 16."""
    host, mm = machine(4)
    write(mm, 16)
    write(mm, 32)
    return host, mm, host.frames.arrays


def test_a_batch_ends_with_its_folio_or_where_it_is_asked_to() -> None:
    _, mm, f = folio_of_16()
    a = mm.arrays
    assert [folio_pte_batch(f, a, page, 64, USE)[0] for page in (16, 20, 31, 32)] == [16, 12, 1, 16]
    assert folio_pte_batch(f, a, 16, 19, USE)[0] == 3


def test_entries_that_differ_in_more_than_is_ignored_end_it() -> None:
    _, mm, f = folio_of_16()
    a = mm.arrays
    a.pte[16:32] &= ~(x86.ACCESSED | x86.DIRTY)
    a.pte[19] |= x86.ACCESSED
    a.pte[22] |= x86.DIRTY
    assert folio_pte_batch(f, a, 16, 64, USE) == (16, x86.ACCESSED | x86.DIRTY), "what one saw is said of all"
    assert folio_pte_batch(f, a, 16, 22, USE) == (6, x86.ACCESSED)
    a.pte[24] &= ~x86.RW
    assert folio_pte_batch(f, a, 16, 64, USE)[0] == 8
    assert folio_pte_batch(f, a, 16, 64, USE_AND_WRITE)[0] == 16
    a.pte[18] = 0
    assert folio_pte_batch(f, a, 16, 64, USE_AND_WRITE)[0] == 2


def test_pages_that_do_not_follow_each_other_end_it() -> None:
    _, mm, f = folio_of_16()
    a = mm.arrays
    a.pte[20], a.pte[21] = int(a.pte[21]), int(a.pte[20])
    assert [folio_pte_batch(f, a, page, 64, USE)[0] for page in (16, 20, 21, 22)] == [4, 1, 1, 10]


def test_a_small_page_is_a_batch_of_its_own() -> None:
    host, mm = machine()
    write(mm, 3, 4, 5)
    assert folio_pte_batch(host.frames.arrays, mm.arrays, 3, 64, USE) == (1, x86.ACCESSED | x86.DIRTY)


@pytest.mark.parametrize("by_mm", [False, True])
def test_a_folio_of_one_process_is_shared_by_nobody(by_mm) -> None:
    _, mm, f = folio_of_16()
    assert [int(ptes_of_folio(f, mm.arrays, page)) for page in (16, 31)] == [16, 16]
    assert not maybe_mapped_shared(f, mm.arrays, 20, by_mm)
    madvise(mm, 17, 32, "dontneed")
    assert int(ptes_of_folio(f, mm.arrays, 16)) == 1 and not maybe_mapped_shared(f, mm.arrays, 16, by_mm)


def test_before_6_15_the_first_page_speaks_for_a_folio_that_is_mapped_in_part() -> None:
    """folio_likely_mapped_shared guessed; folio_maybe_mapped_shared knows whose mappings they are."""
    host, mm, f = folio_of_16()
    child = fork(mm, "c")
    assert all(maybe_mapped_shared(f, mm.arrays, 20, by_mm) for by_mm in (False, True))
    # The child keeps one page, and not the first.
    madvise(child, 16, 20, "dontneed")
    madvise(child, 21, 32, "dontneed")
    f = host.frames.arrays
    assert int(ptes_of_folio(f, child.arrays, 20)) == 1
    assert [bool(maybe_mapped_shared(f, mm.arrays, 16, by_mm)) for by_mm in (False, True)] == [True, True]
    madvise(mm, 17, 20, "dontneed")
    f = host.frames.arrays
    # Fourteen mappings of sixteen pages, the first page mapped once: the guess says no, the count of its own yes.
    assert [bool(maybe_mapped_shared(f, mm.arrays, 16, by_mm)) for by_mm in (False, True)] == [False, True]
    assert np.flatnonzero(child.arrays.pte).tolist() == [20, *range(32, 48)]
