"""What two looks say of use, against a page-by-page reading of the rules in words."""

import dataclasses

import numpy as np
import pytest

from secondsight.bits import pageflags as kpf
from secondsight.bits import pte as bits
from secondsight.live.read.block_samples import BlockUse, Cleared, PageBits, damon_counts
from secondsight.trace.sampled import BITS, HUGE, SIZES, TABLE
from support.snapshots import columns, with_vm

BLOCKS = 3


def reading(rng):
    """Random blocks as read from kernel memory: pages absent or there, bits set or not, some unread; one may be huge."""
    memory = columns(BLOCKS, secondary=False)
    absent = rng.random((BLOCKS, 512)) < 0.3
    young, marked, guest = (rng.random((BLOCKS, 512)) < 0.5 for _ in range(3))
    memory.pte[young] |= bits.ACCESSED
    memory.pte[absent] = 0
    memory.flags[marked] |= kpf.REFERENCED
    memory.pte_known[:] = rng.random((BLOCKS, 512)) < 0.9
    memory.page_known[:] = rng.random((BLOCKS, 512)) < 0.9
    if rng.random() < 0.5:
        memory.pmd[0] = (
            bits.PRESENT
            | bits.PSE
            | bits.RW
            | bits.USER
            | (bits.ACCESSED if rng.random() < 0.5 else bits.NONE)
        )
        memory.pte[0] = 0
    return with_vm(memory, guest, rng.random((BLOCKS, 512)) < 0.9)


def page_state(memory, block, page):
    """(there, {channel: True, False or None}) of one page."""
    huge = bool(memory.pmd[block] & bits.PSE)
    entry, flags = (
        (memory.pmd[block], memory.flags[block, 0])
        if huge
        else (memory.pte[block, page], memory.flags[block, page])
    )
    there = huge or bool(entry & bits.PRESENT)
    known = {
        "primary": bool(memory.pte_known[block, 0 if huge else page]),
        "referenced": bool(memory.page_known[block, 0 if huge else page]),
        "secondary": bool(memory.secondary[0].known[block, page]),
    }
    is_set = {
        "primary": bool(entry & bits.ACCESSED),
        "referenced": bool(flags & (kpf.REFERENCED | kpf.YOUNG)),
        "secondary": bool(memory.secondary[0].young[block, page]),
    }
    return huge, there, {name: is_set[name] if there and known[name] else None for name in known}


def expected(before, after, block, cleared):
    """Counts of one block by the table of block_samples.py, a page at a time; *before* None at the first look."""
    counts = {f"{name}_{word}": 0 for name in BITS for word in ("used", "unused", "set", "clear")}
    was = [page_state(before, block, page) for page in range(512)] if before is not None else []
    collapsed = before is not None and not was[0][0] and any(there for _, there, _ in was)
    for page in range(512):
        huge, there, now = page_state(after, block, page)
        for name in BITS:
            counts[f"{name}_set"] += now[name] is True
            counts[f"{name}_clear"] += now[name] is False
        if before is None or not there:
            continue
        _, had, then = was[page]
        fresh = not had and not (collapsed and huge)
        # A bit that could not be read counts as set before: what turns later is then sure.
        held = {name: had and then[name] is not False for name in BITS}
        wiped = {"primary": cleared.accessed, "referenced": cleared.accessed, "secondary": cleared.soft_dirty}
        for name in BITS:
            tells = now[name] is not None and (wiped[name] or not held[name] or fresh)
            used, unused = tells and now[name] is True, tells and now[name] is False
            if name == "primary":
                used = (used or fresh) and not (collapsed and huge)
                unused = unused and not used
            if name == "referenced" and (
                (collapsed and huge) or (not cleared.accessed and (held["primary"] or held["secondary"]))
            ):
                used = False
            counts[f"{name}_used"] += used
            counts[f"{name}_unused"] += unused
    if after.pmd[block] & bits.PSE:
        for name in ("primary", "referenced"):
            counts[f"{name}_used"] = min(counts[f"{name}_used"], 1)
    return counts


@pytest.mark.parametrize("cleared", [Cleared(), Cleared(True), Cleared(True, True)])
def test_counts_are_those_of_the_rules_in_words(cleared):
    rng = np.random.default_rng(7)
    for _ in range(6):
        use = BlockUse(cleared)
        before = None
        for _ in range(3):
            after = reading(rng)
            counted_use = use.add(after, PageBits.of(after, kernel=True))
            use.turn()
            for block in range(BLOCKS):
                for name, count in expected(before, after, block, cleared).items():
                    assert counted_use[name][block] == count, (name, block)
                huge = bool(after.pmd[block] & bits.PSE)
                assert counted_use["form"][block] == (HUGE if huge else TABLE)
                assert counted_use["present"][block] == (512 if huge else (after.pte[block] != 0).sum())
            before = after


def test_a_bit_that_stays_set_says_nothing_and_one_that_was_cleared_everything():
    young = columns(1)
    young.pte[0, :100] |= bits.ACCESSED
    for cleared, primary in ((Cleared(), (0, 412)), (Cleared(True), (100, 412))):
        use = BlockUse(cleared)
        for _ in range(2):
            counted_use = use.add(young, PageBits.of(young, kernel=True))
            use.turn()
        assert (counted_use["primary_used"][0], counted_use["primary_unused"][0]) == primary
        assert (counted_use["primary_set"][0], counted_use["primary_clear"][0]) == (100, 412)


def test_soft_dirty_bits_are_pages_written():
    written = columns(1)
    written.pte[0, 3:10] |= bits.SOFT_DIRTY
    use = BlockUse(Cleared(True, True))
    for _ in range(2):
        counted_use = use.add(written, PageBits.of(written, kernel=True, soft_dirty=True))
        use.turn()
    assert (counted_use["soft_dirty_used"][0], counted_use["soft_dirty_unused"][0]) == (7, 505)
    words = np.zeros((1, 512), np.uint64)
    words[0, 5] = np.uint64(1 << 55)
    assert PageBits.of(written, kernel=False, words=words, soft_dirty=True).written.sum() == 1


def test_swapped_pages_shared_pages_and_sizes():
    memory = columns(1)
    memory.pte[0, :7] = bits.swap_pte(np.arange(1, 8, dtype=np.uint64))
    memory.shared[0, 10:13] = True
    sizes = memory.sizes.copy()
    sizes[0, 4], sizes[0, 10] = 480, 25
    memory = dataclasses.replace(memory, sizes=sizes)
    counted_use = BlockUse(Cleared()).add(memory, PageBits.of(memory, kernel=True))
    assert (counted_use["swapped"][0], counted_use["shared"][0], counted_use["present"][0]) == (7, 3, 505)
    assert [int(counted_use[name][0]) for name in SIZES] == [0, 0, 0, 0, 480, 0, 0, 0, 0, 0, 25]


@pytest.mark.parametrize(("hits", "samples", "used_and_unused"), [(0, 20, (0, 512)), (0.1, 20, (3, 509)), (0.001, 20, (1, 511)),
                                                       (20, 20, (512, 0)), (44, 40, (512, 0)), (5, 0, (0, 0))])  # fmt: skip
def test_damons_share_of_samples_is_taken_for_that_of_the_pages(hits, samples, used_and_unused):
    counts = damon_counts(np.array([512], np.uint16), np.array([float(hits)]), samples)
    assert (counts["damon_used"][0], counts["damon_unused"][0]) == used_and_unused


def test_of_pages_that_smaps_counts_those_without_a_mark_were_accessed_since_all_was_cleared():
    """One of the three bits is set, and PG_referenced is not: but for a folio whose marks another page has, and one that others map."""
    memory = columns(2, secondary=False)
    memory.pte_known[:], memory.either[:] = False, True
    memory.flags[0, :10] |= kpf.REFERENCED
    memory.page_known[0, 10:20] = False
    memory.order[0, 20:30] = 2
    memory.shared[0, 30:40] = True
    memory.pmd[1], memory.pte[1], memory.order[1] = bits.PRESENT | bits.PSE, 0, 9
    since_cleared = PageBits.of(memory, kernel=False, aged=True)
    assert not since_cleared.known[0, 0, :40].any() and not since_cleared.set[0, 0, :40].any()
    assert (
        since_cleared.known[0, 0, 40:].all()
        and since_cleared.set[0, 0, 40:].all()
        and since_cleared.set[0, 1].all()
    )
    fresh = PageBits.of(memory, kernel=False)
    assert not fresh.known[0].any(), "before anything was cleared PG_young may be as old as the page"
    counted = BlockUse(Cleared(accessed=True))
    counted.add(memory, fresh)
    counted.turn()
    assert counted.add(memory, since_cleared)["primary_used"].tolist() == [472, 1]


def test_where_smaps_leaves_no_bit_a_page_has_no_mark_though_its_flags_may_not_be_read():
    memory = columns(1, secondary=False)
    memory.page_known[:] = False
    memory.pte_known[0, 10:] = False
    seen = PageBits.of(memory, kernel=False)
    assert seen.known[1, 0, :10].all() and not seen.known[1, 0, 10:].any() and not seen.set[1].any()
    assert not PageBits.of(memory, kernel=True).known[1].any()
