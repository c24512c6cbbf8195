"""Which pages count as shared, of large folios that procfs alone was asked about."""

import dataclasses

import numpy as np
import pytest

from secondsight.bits import pageflags as kpf
from secondsight.bits import pte as bits
from secondsight.live.judge.explain import explain
from secondsight.live.judge.open_verdict import PAGE_FLAGS, SHARED_FOLIOS
from secondsight.live.judge.shared_folios import shared_pages
from secondsight.mm.config import Knobs
from support.snapshots import FACTS_61, FACTS_72, columns, snapshot


def large(order=4, blocks=1, secondary=False):
    """Blocks of folios of *order*, each mapped whole, from procfs."""
    memory = columns(blocks, secondary)
    memory.order[:] = order
    head = memory.folio >> order << order
    memory.flags[:] |= np.where(head == memory.folio, kpf.COMPOUND_HEAD, kpf.COMPOUND_TAIL)
    memory.folio[:] = head
    return dataclasses.replace(memory, counts_known=False)


def test_small_pages_are_what_they_are():
    assert shared_pages(columns(1), True) is None


def test_a_page_that_two_map_makes_its_folio_shared():
    memory = large()
    memory.mapcount[0, 20] = 2
    pages = shared_pages(memory, True)
    assert pages.shared[0].nonzero()[0].tolist() == list(range(16, 32))
    assert pages.open[0].nonzero()[0].tolist() == [*range(16), *range(32, 512)]


def test_the_guess_before_6_15():
    """folio_likely_mapped_shared, written out: total > 1 and (total > pages or the first page mapped twice)."""
    luck = np.random.default_rng(5)
    memory = large(order=3, blocks=4)
    memory.mapcount[:] = luck.choice([1, 1, 1, 2, 3], memory.mapcount.shape)
    pages = shared_pages(memory, False)
    for row in range(4):
        for first in range(0, 512, 8):
            counts = memory.mapcount[row, first : first + 8].tolist()
            expected = sum(counts) > 1 and (sum(counts) > 8 or counts[0] > 1)
            assert set(pages.shared[row, first : first + 8].tolist()) == {expected}
    assert not pages.open.any(), "every folio is mapped whole here"


def test_a_part_of_a_folio_tells_no_guess():
    memory = large()
    memory.pte[0, 5] = 0
    memory.order[0, 5], memory.folio[0, 5], memory.mapcount[0, 5] = 0, -1, 0
    pages = shared_pages(memory, False)
    assert pages.open[0].nonzero()[0].tolist() == [*range(5), *range(6, 16)]


def test_not_knowing_which_kernel_it_is_leaves_it_open():
    memory = large()
    memory.mapcount[0, 20] = 2
    pages = shared_pages(memory, None)
    assert pages.open.all() and not pages.shared.any()


@pytest.mark.parametrize(("limit", "is_open"), [(256, True), (511, True), (512, False)])
def test_a_verdict_hangs_on_it_where_the_limit_does(limit, is_open):
    memory = large()
    memory.pte[:] |= bits.ACCESSED
    limits = Knobs(max_ptes_shared=min(limit, 511))
    if limit == 512:
        # One page less than can be shared: a hole.
        memory.pte[0, 511] = 0
        memory.order[0, 496:], memory.mapcount[0, 511] = 0, 0
    facts = FACTS_72.__class__(
        **{**{f: getattr(FACTS_72, f) for f in FACTS_72.__struct_fields__}, "mm_ids": True}
    )
    (block,) = explain(snapshot(memory, facts=facts, limits=limits)).blocks
    assert ("exceed_shared_pte" in block.others, SHARED_FOLIOS in block.unread) == (is_open, is_open)
    assert block.status == "succeeded"


def test_kernel_memory_leaves_nothing_open():
    memory = dataclasses.replace(large(), counts_known=True)
    memory.pte[:] |= bits.ACCESSED
    (block,) = explain(snapshot(memory)).blocks
    assert block.known and block.status == "succeeded"


def hidden(several, release=FACTS_72, **limits):
    """A block as who may not read page flags sees it, with *several* pages that others map too."""
    memory = dataclasses.replace(columns(1, secondary=False), counts_known=False)
    memory.pte[:] |= bits.PFN_MASK
    memory.page_known[:] = memory.pte_known[:] = False
    memory.either[:] = True
    memory.flags[:], memory.folio[:] = 0, -1
    memory.shared[0, :several], memory.mapcount[0, :several] = True, 2
    (block,) = explain(snapshot(memory, facts=release, limits=Knobs(**limits))).blocks
    return block


@pytest.mark.parametrize("release", [FACTS_72, FACTS_61])
def test_without_page_flags_pages_that_several_map_count_all_the_same(release):
    """pagemap says of each page whether it is mapped once, to its owner too."""
    block = hidden(257, release)
    assert block.status == "exceed_shared_pte" and block.reason.startswith(
        "257 pages are shared, max_ptes_shared is 256"
    )
    assert "succeeded" in block.others and PAGE_FLAGS in block.unread, (
        "the zero page looks like one of them before 6.7"
    )
    for block in (hidden(256, release), hidden(257, release, max_ptes_shared=257)):
        assert block.status == "succeeded" and "exceed_shared_pte" not in block.others
