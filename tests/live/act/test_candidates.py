"""Which blocks are chosen, and the reason counted for each one that is not."""

import dataclasses

import msgspec
import numpy as np
import pytest

from secondsight.bits import pte as bits
from secondsight.bits import swap
from secondsight.errors import UsageError
from secondsight.live.act.candidates import Wanted, check_policy, select
from secondsight.live.act.unfit import PRCTL, Beside
from secondsight.policy.registry import make
from support.snapshots import BLOCK, START, columns, snapshot, with_vm


def used(blocks):
    """Blocks whose pages the CPU used."""
    memory = columns(blocks)
    memory.pte[:] |= bits.ACCESSED
    return memory


def addresses(selection):
    return [(choice.address - START) // BLOCK for choice in selection.chosen]


def whole(selection):
    """Every block has its place: chosen, or left alone for a reason."""
    assert len(selection.chosen) + sum(selection.left.values()) == selection.considered
    return selection


def test_guest_only_blocks_are_chosen_and_idle_ones_not():
    young = np.zeros((4, 512), bool)
    young[1, :5] = young[3, :] = True
    chosen = whole(select(snapshot(with_vm(columns(4), young)), make("khugepaged"), Wanted()))
    assert addresses(chosen) == [3, 1], "the most used first"
    assert [choice.used for choice in chosen.chosen] == [512, 5]
    (reason,) = chosen.left
    assert reason.startswith("khugepaged's scan answers lack_referenced_page") and chosen.left[reason] == 2


def test_unknown_use_is_chosen_unless_certainty_is_asked():
    memory = columns(2, secondary=False)
    memory.pte_known[0] = False
    memory.pte[1, 0] |= bits.ACCESSED
    every = whole(select(snapshot(memory), make("khugepaged"), Wanted()))
    sure = whole(select(snapshot(memory), make("khugepaged"), Wanted(certain=True)))
    assert [choice.used for choice in every.chosen] == [1, None]
    assert [choice.used for choice in sure.chosen] == [1]


@pytest.mark.parametrize("policy", ["khugepaged", "madv_collapse"])
@pytest.mark.parametrize("flags", [("nh",), ("nh", "hg"), ("ht",), ("pf",)])
def test_what_the_kernel_refuses_is_never_chosen(flags, policy):
    selection = whole(select(snapshot(used(2), flags=flags), make(policy), Wanted(override=True)))
    assert not selection.chosen and list(selection.left.values()) == [2] and not selection.vmas


@pytest.mark.parametrize(("enabled", "why"), [("never", "enabled=never"), ("madvise", "no MADV_HUGEPAGE")])
def test_the_administrator_is_overridden_only_if_asked(enabled, why):
    taken = snapshot(used(1), flags=(), enabled=enabled)
    kept = whole(select(taken, make("madv_collapse"), Wanted()))
    (reason,) = kept.left
    assert not kept.chosen and why in reason and "--override" in reason
    over = whole(select(taken, make("madv_collapse"), Wanted(override=True)))
    assert addresses(over) == [0] and why in over.chosen[0].against
    assert not select(taken, make("madv_collapse"), Wanted(override=True, advised=True)).chosen


def test_prctl_cannot_be_overridden():
    selection = whole(
        select(snapshot(used(1)), make("madv_collapse"), Wanted(override=True), Beside(thp_enabled=False))
    )
    assert selection.left == {PRCTL: 1}


def test_thp_eligible_zero_under_always_is_somebodys_wish():
    taken = snapshot(used(1), enabled="always")
    (vma,) = taken.header.mappings
    header = msgspec.structs.replace(taken.header, mappings=(msgspec.structs.replace(vma, eligible=False),))
    refusing = dataclasses.replace(taken, header=header)
    assert "THPeligible: 0" in next(iter(select(refusing, make("madv_collapse"), Wanted()).left))
    assert select(refusing, make("madv_collapse"), Wanted(override=True)).chosen


def test_too_little_in_it():
    memory = used(3)
    memory.pte[0, 1:] = 0
    memory.pte[1] = bits.swap_pte(np.arange(512, dtype=np.uint64) + np.uint64(1))
    selection = whole(select(snapshot(memory), make("madv_collapse"), Wanted(min_populated=2)))
    assert addresses(selection) == [2]
    assert set(selection.left) == {
        "fewer than 2 pages present (--min-populated)",
        "nothing present (all of it is in swap)",
    }


def test_userfaultfd_fills_no_hole():
    memory = used(3)
    memory.pte[0, 5] = 0
    memory.pte[1, 5] |= bits.UFFD_WP
    selection = whole(select(snapshot(memory, flags=("hg", "um")), make("madv_collapse"), Wanted()))
    assert addresses(selection) == [2]
    assert set(selection.left) == {
        "userfaultfd is armed: the kernel fills no hole there",
        "userfaultfd write-protects a page",
    }


def test_guard_regions_never_collapse():
    memory = used(2)
    memory.pte[0, 7] = swap.swp_entry(np.uint64(swap.MARKER_TYPE), np.uint64(swap.MARKER_GUARD))
    selection = whole(select(snapshot(memory), make("madv_collapse"), Wanted()))
    assert addresses(selection) == [1] and next(iter(selection.left)).startswith("guard entries in it")


class SharedMemory:
    """The page cache of one mapping of shared memory, all of it there."""

    aligned = True

    def of(self, vma):
        return self

    def blocks(self, start, end):
        addresses = np.arange(start, end, BLOCK, dtype=np.uint64)
        return addresses, np.full(len(addresses), 512, np.int64)


@pytest.mark.parametrize(
    ("flags", "marker", "why"),
    [
        ((), 0, ""),
        (("um",), 0, ""),
        (("uw",), 0, "userfaultfd write-protects the mapping"),
        ((), swap.MARKER_GUARD, "entries in its page table are no pages"),
        ((), swap.MARKER_UFFD_WP, "entries in its page table are no pages"),
    ],
)
def test_shared_memory_that_cannot_be_mapped_huge_is_not_made_huge(flags, marker, why):
    """try_collapse_pte_mapped_thp: the page cache is huge by then, and the call fails."""
    memory = used(1)
    if marker:
        memory.pte[0, 7] = swap.swp_entry(np.uint64(swap.MARKER_TYPE), np.uint64(marker))
    taken = snapshot(memory, flags=("hg", *flags))
    mapping = msgspec.structs.replace(
        taken.header.mappings[0], perms="rw-s", device="00:01", inode=7, name="/memfd:ram", eligible=True
    )
    taken = dataclasses.replace(taken, header=msgspec.structs.replace(taken.header, mappings=(mapping,)))
    beside = Beside(cache=SharedMemory(), shmem_enabled="advise")
    selection = whole(select(taken, make("madv_collapse"), Wanted(), beside))
    assert len(selection.chosen) == (not why) and "".join(selection.left).startswith(why)


def test_khugepageds_own_limits_are_a_policys_options():
    memory = used(2)
    memory.pte[0, 100:] = 0
    every = select(snapshot(memory), make("khugepaged"), Wanted())
    some = whole(select(snapshot(memory), make("khugepaged,max_ptes_none=0"), Wanted()))
    assert len(every.chosen) == 2 and addresses(some) == [1]
    assert next(iter(some.left)).startswith("khugepaged's scan answers exceed_none_pte")


def test_a_policy_that_leaves_some_says_so():
    selection = whole(select(snapshot(used(3)), make("madv_collapse,at_most=1"), Wanted()))
    assert addresses(selection) == [0] and selection.left == {"policy madv_collapse did not choose it": 2}


def test_what_it_adds_counts_holes_swap_and_sharers():
    memory = used(1)
    memory.pte[0, :10] = 0
    memory.pte[0, 10:20] = bits.swap_pte(np.arange(1, 11, dtype=np.uint64))
    memory.shared[0, 100:200] = True
    (choice,) = select(snapshot(memory), make("madv_collapse"), Wanted()).chosen
    assert choice.populated == 492 and choice.added == 10 + 10 + 100


@pytest.mark.parametrize(
    ("name", "why"),
    [("ingens", "clears accessed bits"), ("pcc", "page walk counts"), ("oracle", "still to come"), ("never", "use khugepaged"),
     ("always", "use khugepaged")],
)  # fmt: skip
def test_policies_that_a_live_system_cannot_feed_are_refused(name, why):
    with pytest.raises(UsageError, match=why):
        check_policy(make(name))


def test_those_that_are_offered_are_taken():
    for name in ("khugepaged", "madv_collapse,min_populated=256"):
        check_policy(make(name))


def test_a_mapping_that_no_switch_allows_counts_where_it_holds_huge_pages_already():
    """Else the totals of `collapse` say that nothing is huge beside blocks that are huge already."""
    memory = used(2)
    memory.pmd[0], memory.pte[0] = bits.PRESENT | bits.PSE | bits.RW | bits.USER, 0
    taken = snapshot(memory, flags=(), enabled="never")
    selection = whole(select(taken, make("khugepaged"), Wanted()))
    assert selection.left["huge already"] == 1 and selection.vmas == list(taken.header.mappings)
    assert not select(taken, make("khugepaged"), Wanted(advised=True)).vmas
    assert not select(snapshot(used(2), flags=(), enabled="never"), make("khugepaged"), Wanted()).vmas
