"""A snapshot's pages counted by block, each count against a loop over what was laid out."""

import dataclasses

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secondsight.bits import pageflags as kpf
from secondsight.bits import pte as bits
from secondsight.bits import swap
from secondsight.bits.swap import EntryKind
from secondsight.live.judge.page_counts import PageCounts, entry_kinds
from secondsight.live.read.columns import Secondary
from support.snapshots import FACTS_72, columns, snapshot, with_vm

HUGE = bits.PRESENT | bits.PSE | bits.RW | bits.USER
GUARD = swap.swp_entry(np.uint64(swap.MARKER_TYPE), np.uint64(swap.MARKER_GUARD))


def counts(memory):
    return PageCounts(snapshot(memory))


def test_where_every_page_is_present_there_are_no_entries():
    memory = columns(2)
    assert entry_kinds(snapshot(memory)) is None
    counted = counts(memory)
    assert counted.populated.tolist() == [512, 512] and not counted.entries and counted.absent(0) == 0


def test_entries_are_told_apart_and_what_was_not_read_is_neither():
    memory = columns(2)
    memory.pte[0, :5] = bits.swap_pte(np.arange(1, 6, dtype=np.uint64))
    memory.pte[0, 10:12] = GUARD
    memory.pte[1, 3:6] = bits.swap_pte(np.uint64(9))
    memory.page_known[1, 3:6] = False
    memory.pte[1, 7] = 0
    counted = counts(memory)
    assert counted.swapped.tolist() == [5, 0] and counted.unread_entries.tolist() == [0, 3]
    assert counted.entries[EntryKind.GUARD].tolist() == [2, 0]
    assert [counted.absent(row) for row in (0, 1)] == [7, 3], "a hole is no entry"
    assert counted.has(EntryKind.GUARD, 0) and not counted.has(EntryKind.GUARD, 1)
    assert counted.populated.tolist() == [505, 508]


def test_the_zero_page_is_no_page_of_the_process():
    memory = columns(1)
    memory.pte[0, :3] = bits.PRESENT | bits.SPECIAL | bits.ACCESSED
    counted = counts(memory)
    assert counted.populated[0] == 509 and counted.primary[0] == 0 and counted.absent(0) == 0


@pytest.mark.parametrize(
    ("flags", "refcount", "order", "pinned"),
    [
        (kpf.ANON, 1, 0, 0), (kpf.ANON, 2, 0, 1),
        (kpf.ANON | kpf.SWAPCACHE, 2, 0, 0), (kpf.ANON | kpf.SWAPCACHE, 3, 0, 1),
        (kpf.SWAPBACKED, 2, 0, 0), (kpf.SWAPBACKED, 3, 0, 1),  # shmem: the page cache holds one
        (0, 3, 0, 0), (0, 4, 0, 1),  # a file's: its buffer heads may hold one too
        (kpf.ANON | kpf.SWAPCACHE, 17, 4, 0), (kpf.ANON | kpf.SWAPCACHE, 18, 4, 1),
    ],
)  # fmt: skip
def test_a_pin_is_a_reference_that_nothing_known_explains(flags, refcount, order, pinned):
    memory = columns(1)
    memory.flags[0, 9], memory.refcount[0, 9], memory.order[0, 9] = flags, refcount, order
    assert counts(memory).pinned[0] == pinned
    memory.page_known[0, 9] = False
    assert counts(memory).pinned[0] == 0
    assert not counts(dataclasses.replace(memory, counts_known=False)).pins_known


def test_a_huge_blocks_pmd_and_first_page_speak_for_all_of_it():
    memory = with_vm(columns(2), np.zeros((2, 512), bool))
    memory.pmd[0], memory.pte[0] = HUGE | bits.ACCESSED, 0
    memory.flags[0, 0] |= kpf.REFERENCED
    memory.flags[1, 0] |= kpf.REFERENCED
    memory.shared[:, 0] = True
    counted = counts(memory)
    assert (counted.primary.tolist(), counted.referenced.tolist()) == ([512, 0], [512, 1])
    assert counted.shared.tolist() == [512, 1] and counted.populated.tolist() == [0, 512]
    memory.pte_known[0, 0] = memory.page_known[0, 0] = False
    counted = counts(memory)
    assert counted.primary_unknown.tolist() == [512, 0] and counted.primary.tolist() == [0, 0]
    assert counted.referenced_unknown.tolist() == [512, 0]


masks = st.lists(st.integers(0, 511), max_size=40)


@given(
    young=masks,
    old_unread=masks,
    marked=masks,
    page_unread=masks,
    guest=masks,
    guest_unread=masks,
    holes=masks,
)
@settings(max_examples=40, deadline=None)
def test_channels_count_what_was_seen_and_what_was_not(
    young, old_unread, marked, page_unread, guest, guest_unread, holes
):
    memory = columns(1)
    memory.pte[0, young] |= bits.ACCESSED
    memory.pte_known[0, old_unread] = False
    memory.flags[0, marked] |= kpf.YOUNG
    memory.page_known[0, page_unread] = False
    memory.pte[0, holes] = 0
    used, known = np.zeros((1, 512), bool), np.ones((1, 512), bool)
    used[0, guest] = True
    known[0, guest_unread] = False
    counted = counts(with_vm(memory, used, known))
    there = set(range(512)) - set(holes)
    primary = (there & set(young)) - set(old_unread)
    referenced = (there & set(marked)) - set(page_unread)
    secondary = (there & set(guest)) - set(guest_unread)
    assert counted.populated[0] == len(there)
    assert (counted.primary[0], counted.primary_unknown[0]) == (len(primary), len(there & set(old_unread)))
    assert (counted.referenced[0], counted.referenced_unknown[0]) == (
        len(referenced),
        len(there & set(page_unread)),
    )
    assert (counted.secondary[0], counted.secondary_unknown[0]) == (
        len(secondary),
        len(there & set(guest_unread)),
    )
    most = max(len(primary), len(referenced), len(secondary))
    unknown = there & (set(old_unread) | set(page_unread) | set(guest_unread))
    assert counted.used()[0] == (-1 if most == 0 and unknown else most)


@pytest.mark.parametrize(
    ("kernel", "young_exists", "accessed_known", "used", "unknown"),
    [
        (True, True, False, 3, 9), (False, True, False, 3, 509), (False, False, False, 3, 9),
        (False, None, False, 3, 509), (False, True, True, 3, 0),
    ],
    ids=["kernel memory", "procfs", "no PG_young", "not probed", "procfs, smaps' sum is 0"],
)  # fmt: skip
def test_a_page_without_pg_referenced_may_have_pg_young_where_nothing_shows_it(
    kernel, young_exists, accessed_known, used, unknown
):
    """khugepaged asks folio_test_young too, which DAMON and page_idle set and kpageflags does not show."""
    memory = dataclasses.replace(columns(1), counts_known=kernel)
    memory.flags[0, :3] |= kpf.REFERENCED
    memory.page_known[0, 10:19] = False
    memory.pte_known[:] = accessed_known
    counted = PageCounts(snapshot(memory, msgspec.structs.replace(FACTS_72, page_young=young_exists)))
    assert (counted.referenced[0], counted.referenced_unknown[0]) == (used, unknown)
    assert counted.flags_unread[0] == 9


def in_cache():
    """A block of a file that is one huge page in the page cache, mapped here by small entries."""
    memory = columns(3)
    frames = np.arange(8192, 8192 + 512, dtype=np.uint64)
    memory.pte[1] = frames << np.uint64(12) | bits.PRESENT | bits.USER
    memory.flags[1] = kpf.LRU | kpf.COMPOUND_TAIL
    memory.flags[1, 0] = kpf.LRU | kpf.COMPOUND_HEAD
    return memory


def huge_in_cache(memory):
    return counts(memory).huge_in_cache(np.array([0, 1, 2])).tolist()


def test_a_huge_page_of_the_cache_is_known_by_its_head_its_tails_and_its_frames():
    memory = in_cache()
    assert huge_in_cache(memory) == [False, True, False]
    memory.pte[1, 100:] = 0
    assert huge_in_cache(memory) == [False, True, False], "mapped in part"
    memory.pte[1, 50] += np.uint64(1 << 12)
    assert huge_in_cache(memory)[1] is False, "a frame out of its place"


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.flags.__setitem__((1, 9), kpf.LRU),
        lambda m: m.flags.__setitem__((1, 9), kpf.LRU | kpf.COMPOUND_HEAD),
        lambda m: m.pte.__setitem__(1, m.pte[1] + np.uint64(64 << 12)),
        lambda m: m.pmd.__setitem__(1, HUGE),
        lambda m: m.pte.__setitem__(1, 0),
    ],
    ids=["a small page", "two folios", "not aligned", "mapped by a PMD", "nothing mapped"],
)
def test_what_is_not_one_huge_page_of_the_cache_is_none(change):
    memory = in_cache()
    change(memory)
    assert huge_in_cache(memory) == [False, False, False]


def test_what_a_channel_says_of_a_page_that_it_could_not_read_means_nothing():
    memory = columns(1)
    young, known = np.ones((1, 512), bool), np.zeros((1, 512), bool)
    known[0, :100] = True
    counted = counts(dataclasses.replace(memory, secondary=(Secondary("kvm", young, known),)))
    assert (counted.secondary[0], counted.secondary_unknown[0]) == (100, 412)
