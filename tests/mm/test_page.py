"""Page frames: allocation, references, the columns of large folios, and the assertions about them."""

from __future__ import annotations

import re

import numpy as np
import pytest

from secondsight.mm import page as pg
from secondsight.mm.host import Host
from secondsight.mm.madvise import madvise
from secondsight.mm.page import FIRST_PFN, UNEVICTABLE
from support.model import flags, pages


def test_a_free_frame_is_used_again_and_begins_clean() -> None:
    host = Host("6.1")
    mm = host.mm("p", 1)
    mm.cpu_access(pages(0, 1), write=True)
    host.drain()
    pfn = mm.pfn(1)
    assert pfn >= FIRST_PFN
    host.frames.arrays.flags[pfn] |= UNEVICTABLE
    madvise(mm, 1, 2, "dontneed")
    mm.cpu_access(pages(0, 2), write=True)
    assert mm.pfn(2) == pfn and not flags(mm, 2) & UNEVICTABLE


def frames(*, small: int = 0, huge: int = 0, parts: int = 0):
    """Fresh frames with room for so much, and their columns."""
    made = pg.Frames()
    return made, made.reserve(small, huge, 4096, parts)


def test_a_small_page_is_held_by_whoever_took_it_and_is_used_again_when_let_go_of() -> None:
    made, f = frames(small=3)
    first, second = int(pg.alloc_page(f)), int(pg.alloc_page(f))
    assert (first, second) == (pg.FIRST_PFN, pg.FIRST_PFN + 1) and made.in_use == 2
    f.refcount[first] += 1
    pg.put_page(f, first)
    assert made.in_use == 2, "somebody holds it still"
    pg.put_page(f, first)
    assert made.in_use == 1 and int(pg.alloc_page(f)) == first
    pg.check(made)


@pytest.mark.parametrize("order", [1, 2, 4, 9])
def test_a_large_folio_lies_aligned_and_its_tails_know_their_head(order) -> None:
    made, f = frames(small=1, huge=1, parts=1 << order)
    small = int(pg.alloc_page(f))
    head, pages = int(pg.alloc_folio(f, order)), 1 << order
    assert head % pages == 0 and head > small and made.in_use == 1 + pages
    for pfn in (head, head + 1, head + pages - 1):
        assert (int(pg.head_of(f, pfn)), int(pg.folio_order(f, pfn)), int(pg.folio_nr_pages(f, pfn))) == (head, order, pages)  # fmt: skip
    assert f.flags[head] & pg.HEAD and (f.flags[head + 1 : head + pages] & pg.TAIL != 0).all()
    assert bool(pg.is_huge(f, head)) == (order == 9)
    flags = f.flags[[small, head, head + 1]]
    assert pg.heads_of(flags, np.array([small, head, head + 1])).tolist() == [small, head, head]
    pg.check(made)
    # What was left out before it is free for small pages.
    assert {int(pg.alloc_page(made.reserve(head - small - 1))) for _ in range(head - small - 1)} == set(range(small + 1, head))  # fmt: skip
    pg.put_page(f, head + 1)
    assert made.in_use == head - small and not made.arrays.flags[head : head + pages].any()


@pytest.mark.parametrize("order", [0, 1, 2, 9])
def test_mappings_are_counted_by_page_and_by_folio(order) -> None:
    made, f = frames(small=1, huge=1, parts=1 << order)
    head = int(pg.alloc_folio(f, order) if order else pg.alloc_page(f))
    last = head + (1 << order) - 1
    for _ in range(2):
        pg.map_pte(f, last)
    pg.map_pte(f, head)
    assert f.mapcount[last] == (3 if last == head else 2)
    assert int(pg.folio_mapcount(f, head)) == 3 and f.refcount[head] == 1 + 3
    if order == 9:
        pg.map_pmd(f, head)
        assert int(pg.folio_mapcount(f, head)) == 4 and f.refcount[head] == 1 + 4
        assert f.mapcount[last] == 2, "a PMD mapping is of the folio"
        pg.unmap_pmd(f, head)
    pg.put_page(f, head)
    for pfn in (last, head, last):
        assert made.in_use == 1 << order
        pg.unmap_pte(f, pfn)
    assert made.in_use == 0, "the last mapping held the last reference"
    pg.check(made)


def test_the_zero_pages_are_there_from_the_start_and_are_nobodys() -> None:
    made, f = frames()
    assert made.in_use == 0 and f.flags[pg.ZERO_PFN] & pg.ZERO_PAGE
    assert int(pg.folio_order(f, pg.HUGE_ZERO_PFN)) == 9 == int(pg.folio_order(f, pg.HUGE_ZERO_PFN + 7))
    assert int(pg.head_of(f, pg.HUGE_ZERO_PFN + 511)) == pg.HUGE_ZERO_PFN


def test_columns_grow_and_keep_what_they_hold() -> None:
    made, f = frames(small=1)
    pfn = int(pg.alloc_page(f))
    f.flags[pfn] |= pg.LOCKED
    grown = made.reserve(100_000)
    assert len(grown.flags) > 100_000 + pfn and grown.flags[pfn] & pg.LOCKED and grown is made.arrays
    assert len({int(pg.alloc_page(grown)) for _ in range(5000)} | {pfn}) == 5001


def test_small_pages_that_are_free_side_by_side_become_huge_pages_again() -> None:
    """Else memory that was collapsed block by block would never be huge again."""
    made, f = frames(small=512 * 10)
    taken = [int(pg.alloc_page(f)) for _ in range(512 * 10)]
    f = made.reserve(0, 0, 512 * 10)
    for pfn in taken:
        pg.put_page(f, pfn)
    end = int(f.n[pg.NEXT])
    heads = [int(pg.alloc_huge(made.reserve(0, 1))) for _ in range(10)]
    assert sorted(heads) == list(range(pg.FIRST_PFN, end, 512)) and int(made.arrays.n[pg.NEXT]) == end
    pg.check(made)


def test_as_many_large_folios_as_were_taken_can_be_given_back_and_taken_again() -> None:
    made = pg.Frames()
    f = made.reserve(0, 0, 0, 40 * 4)
    heads = [int(pg.alloc_folio(f, 2)) for _ in range(40)]
    f = made.reserve(0, 0, 40 * 4)
    for head in heads:
        pg.put_page(f, head)
    assert made.in_use == 0
    f = made.reserve(0, 0, 0, 40 * 4)
    assert {int(pg.alloc_folio(f, 2)) for _ in range(40)} == set(heads)
    pg.check(made)


def test_frames_become_what_others_are_and_go_their_own_way() -> None:
    made, f = frames(small=4)
    pfn = int(pg.alloc_page(f))
    other = pg.Frames()
    other.take(made)
    assert other.in_use == 1 and other.arrays.refcount[pfn] == 1
    pg.put_page(other.arrays, pfn)
    assert (made.in_use, other.in_use) == (1, 0)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda f, pfn: f.refcount.__setitem__(pfn, -1), "refcount below zero"),
        (lambda f, pfn: f.mapcount.__setitem__(pfn, -1), "mapcount below zero"),
        (lambda f, pfn: (f.mapcount.__setitem__(pfn, 5), f.flags.__setitem__(pfn, pg.ANON)), "mapped with too few references"),
        (lambda f, pfn: f.flags.__setitem__(pfn, pg.ACTIVE | pg.UNEVICTABLE), "active and unevictable"),
        (lambda f, pfn: f.flags.__setitem__(pfn, pg.KSM), "KSM page not anonymous"),
        (lambda f, pfn: f.flags.__setitem__(pfn, pg.HEAD), "large without an order"),
        (lambda f, pfn: f.flags.__setitem__(pfn, pg.ANON | np.uint32(4) << pg.ORDER_SHIFT), "small with an order"),
        (lambda f, pfn: f.flags.__setitem__(pfn + 1, pg.HEAD | np.uint32(4) << pg.ORDER_SHIFT), "head not aligned"),
        (lambda f, pfn: (f.flags.__setitem__(pfn, pg.LRU), f.refcount.__setitem__(pfn, 0)), "free but on the LRU"),
    ],
)  # fmt: skip
def test_what_the_kernel_asserts_is_asserted_with_the_frame_named(change, rule) -> None:
    made, f = frames(small=2)
    pfn = int(pg.alloc_page(f))
    pg.alloc_page(f)
    pg.check(made)
    change(f, pfn)
    with pytest.raises(AssertionError, match=rf"pfn {pfn + (rule == 'head not aligned')}: {re.escape(rule)}"):
        pg.check(made)
