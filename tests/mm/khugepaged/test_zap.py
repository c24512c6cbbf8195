"""What the invalidation leaves behind: held against the model's own, and by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from secondsight.mm.khugepaged.zap import zap
from secondsight.mm.observe import of_model
from secondsight.mm.page import ACTIVE, BATCH_ACTIVATE, DIRTY, HEAD, N_ACTIVATE, REFERENCED, TAIL
from secondsight.mm.profiles import PROFILES
from support.blocks_by_hand import block
from support.vm_blocks import everything, prepared


@given(*everything)
@settings(max_examples=60, deadline=None)
def test_zap_is_what_the_models_invalidation_does(rules, mmu, mglru, s) -> None:
    host, mm, _ = prepared(rules, mmu, mglru, s)
    seen = of_model(mm, [0])
    zapped = zap(seen, host.rules, mglru=mglru)
    f = host.frames.arrays
    waiting = np.isin([mm.pfn(p) for p in range(512)], f.batch[BATCH_ACTIVATE, : f.n[N_ACTIVATE]])
    mm.notifiers.invalidate_range(0, 512)
    real = of_model(mm, [0])
    assert not any(c.young.any() for c in real.secondary), "nothing is left to be young"
    # PG_dirty, which a zap carries over too, is nothing that the judgement asks about.
    off = (zapped.flags ^ real.flags) & ~DIRTY
    # Nor does a view tell which pages wait in the batch: the zap may have filled it, so that they are active and without its reference.
    off[0, waiting] &= ~ACTIVE
    assert not off.any(), (
        f"{np.argwhere(off)[:3].tolist()}: {zapped.flags[off != 0][:3]} {real.flags[off != 0][:3]}"
    )
    assert np.array_equal(zapped.pte, real.pte)
    assert np.array_equal(zapped.refcount[0, ~waiting], real.refcount[0, ~waiting])
    assert not zapped.zap_marks.any() and not zapped.merged().any()


def marked(marks: dict[int, int], **channels: list[int]):
    """A block of small pages of which invalidating marks each page of *marks* so often."""
    view = block(**channels)
    view.zap_marks[0, list(marks)] = list(marks.values())
    return view


def test_a_page_marked_once_is_referenced_and_one_marked_twice_waits_to_be_active() -> None:
    after = zap(marked({4: 1, 5: 2}), PROFILES["6.1"])
    before = block()
    assert np.flatnonzero(after.flags[0] != before.flags[0]).tolist() == [4]
    assert after.flags[0, 4] == before.flags[0, 4] | REFERENCED
    # Page 5 was referenced, and is so no longer: it is in the batch, which holds a reference, and active when that is drained.
    assert np.flatnonzero(after.refcount[0] != 1).tolist() == [5] and after.refcount[0, 5] == 2
    assert not after.zap_marks.any()


@pytest.mark.parametrize(("pending", "in_batch"), [(0, 14), (1, 0), (3, 2)])
def test_the_batch_holds_fifteen_pages_whoever_came_first(pending, in_batch) -> None:
    """PAGEVEC_SIZE is 15 in 6.1: the fifteenth drains all of them; those behind it wait again."""
    view = replace(marked(dict.fromkeys(range(14), 2)), activate_pending=pending)
    after = zap(view, PROFILES["6.1"])
    active = (after.flags[0, :14] & ACTIVE) != 0
    assert (after.refcount[0] == 2).sum() == in_batch
    assert active.tolist() == [True] * (14 - in_batch) + [False] * in_batch
    assert not (after.flags[0] & REFERENCED).any()


def test_each_block_is_taken_as_if_it_were_the_only_one() -> None:
    view = marked(dict.fromkeys(range(14), 2))[np.array([0, 0])]
    after = zap(view, PROFILES["6.1"])
    assert (after.refcount == 2).sum(axis=1).tolist() == [14, 14]


def test_a_folio_is_marked_once_for_each_of_its_pages_that_a_secondary_mmu_used() -> None:
    view = marked({16: 1, 17: 1})
    view.order[0, 16:32], view.folio[0, 16:32] = 4, 5000
    view.refcount[0, 16:32] = view.folio_mapcount[0, 16:32] = 16
    view.flags[0, 16] |= HEAD
    view.flags[0, 17:32] |= TAIL
    after = zap(view, PROFILES["6.1"])
    # Referenced by the first, activated by the second: a large folio drains the batch at once.
    assert ((after.flags[0, 16:32] & (ACTIVE | REFERENCED)) == ACTIVE).all()
    assert (after.refcount[0, 16:32] == 16).all() and not (after.flags[0, :16] & ACTIVE).any()


@pytest.mark.parametrize("name", ["6.18", "7.3"])
def test_kernels_that_carry_nothing_over_leave_no_mark_and_no_youth(name) -> None:
    view = marked({4: 1, 5: 2}, kvm=[4, 5])
    after = zap(view, PROFILES[name])
    assert np.array_equal(after.flags, view.flags) and np.array_equal(after.refcount, view.refcount)
    assert not after.merged().any() and view.merged()[0, [4, 5]].all(), "the view itself stays"


def test_the_invalidation_of_a_part_leaves_its_neighbours_young() -> None:
    view = marked({31: 1, 32: 1, 48: 1}, kvm=[31, 32, 48])
    after = zap(view, PROFILES["6.1"], order=4, offset=32)
    assert np.flatnonzero(after.flags[0] & REFERENCED).tolist() == [32]
    assert np.flatnonzero(after.merged()[0]).tolist() == [31, 48]
    assert np.flatnonzero(after.zap_marks[0]).tolist() == [31, 48]


def test_what_was_not_read_was_young_if_that_is_assumed() -> None:
    view = marked({4: 1}, kvm=[4])
    view.secondary[0].known[0, 4:7] = False
    assert np.flatnonzero(zap(view, PROFILES["6.1"]).flags[0] & REFERENCED).tolist() == [4]
    after = zap(view, PROFILES["6.1"], assume=True)
    assert np.flatnonzero(after.flags[0] & REFERENCED).tolist() == [4, 5, 6]
    assert after.secondary[0].known.all() and not after.merged(assume=True).any(), "now they are known: old"


def test_a_page_that_is_being_swapped_in_was_not_young_whatever_is_assumed() -> None:
    view = marked({}, kvm=[])
    view.secondary[0].known[0, 4:7] = False
    view.folio[0, 5] = -1
    after = zap(view, PROFILES["6.1"], assume=True)
    assert np.flatnonzero(after.flags[0] & REFERENCED).tolist() == [4, 6]
    # The same the general way, on which a page that is marked twice sends the block.
    view.zap_marks[0, 9] = 2
    after = zap(view, PROFILES["6.1"], assume=True)
    assert np.flatnonzero(after.flags[0] & REFERENCED).tolist() == [4, 6]
