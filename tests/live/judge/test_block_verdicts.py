"""A block's verdict in words: why, what could come instead, what it would add, and how its collapses go."""

import dataclasses

import msgspec
import numpy as np
import pytest

from secondsight.bits import pte as bits
from secondsight.geometry import PAGE_SIZE
from secondsight.live.judge.answer import AttemptsAhead
from secondsight.live.judge.block_verdicts import attempts_in_words, attempts_of
from secondsight.live.judge.explain import explain
from secondsight.live.judge.open_verdict import (
    FREE_HUGE_BLOCKS,
    KHUGEPAGED_LIST,
    MEMORY_CGROUP,
    NODES,
    PINS,
)
from secondsight.live.read.surroundings import UNREGISTERED
from secondsight.mm.config import Knobs
from support.snapshots import KNOWN, START, columns, snapshot, with_vm


def used(blocks=1):
    memory = columns(blocks)
    memory.pte[:] |= bits.ACCESSED
    return memory


def block_of(memory, surroundings=None, **more):
    """The verdict on the first block of *memory*."""
    taken = snapshot(memory, **more)
    if surroundings is not None:
        header = msgspec.structs.replace(
            taken.header, surroundings=msgspec.structs.replace(KNOWN, **surroundings)
        )
        taken = dataclasses.replace(taken, header=header)
    return explain(taken).blocks[0]


def test_attempts_are_listed_by_order_the_largest_first_and_none_that_was_not_begun():
    begun, refused = np.zeros(10, np.int32), np.zeros(10, np.int32)
    begun[9], begun[4], refused[9], refused[4] = 1, 32, 1, 30
    attempts = attempts_of(begun, refused)
    assert attempts == (AttemptsAhead(9, 1, 1), AttemptsAhead(4, 32, 30))
    assert attempts_in_words(attempts) == (
        "33 collapses are begun in a pass, 31 refused: 2048kB 1, 64kB 32 (2 made)"
    )
    assert attempts_in_words(attempts[:1]) == "1 collapse is begun in a pass, 1 refused: 2048kB 1"


@pytest.mark.parametrize(
    ("surroundings", "other", "unread"),
    [
        ({"huge_blocks": 0}, "alloc_huge_page_failed", FREE_HUGE_BLOCKS),
        ({"huge_blocks": None}, "alloc_huge_page_failed", FREE_HUGE_BLOCKS),
        ({"headroom": (2 << 20) - 1}, "ccgroup_charge_failed", MEMORY_CGROUP),
        ({"headroom": None}, "ccgroup_charge_failed", MEMORY_CGROUP),
        ({"distances": True}, "scan_aborted", NODES),
        ({"registered": None}, "unregistered", KHUGEPAGED_LIST),
    ],
)
def test_what_its_surroundings_may_make_of_a_success_is_among_the_others(surroundings, other, unread):
    block = block_of(used(), surroundings)
    assert block.status == "succeeded" and block.others == (other,) and block.unread == (unread,)
    assert not block.known


@pytest.mark.parametrize("headroom", [-1, 2 << 20])
def test_room_for_one_huge_page_is_enough(headroom):
    assert block_of(used(), {"headroom": headroom}).known


def test_a_refusal_asks_for_no_memory():
    idle = block_of(columns(1), {"huge_blocks": 0, "headroom": 0, "distances": True})
    assert (idle.status, idle.others, idle.known) == ("lack_referenced_page", (), True)


def test_a_process_that_khugepaged_does_not_know_is_told_what_it_would_answer():
    block = block_of(used(), {"registered": False})
    assert block.status == "unregistered" and block.known
    assert block.reason == f"{UNREGISTERED} (it would answer succeeded)" and block.attempts == ()


def test_a_collapse_adds_the_pages_that_the_block_does_not_hold():
    memory = used(3)
    memory.pte[0, 100:] = 0
    memory.pte[1, 500:] = bits.swap_pte(np.arange(1, 13, dtype=np.uint64))
    memory.pte[2, :2] = bits.PRESENT | bits.SPECIAL | bits.ACCESSED
    blocks = explain(snapshot(memory)).blocks
    assert [block.status for block in blocks] == ["succeeded"] * 3
    assert [block.bloat for block in blocks] == [412, 0, 2], (
        "the zero page is none, what is in swap comes back"
    )
    refused = explain(snapshot(memory, limits=Knobs(max_ptes_none=5))).blocks
    assert [block.bloat for block in refused] == [0, 0, 2]


@pytest.mark.parametrize(
    ("change", "limits", "reason"),
    [
        (lambda m: m.pte.__setitem__((0, slice(0, 1)), 0), Knobs(max_ptes_none=0), "1 page is missing or zero, max_ptes_none is 0"),
        (lambda m: m.pte.__setitem__((0, slice(0, 9)), 0), Knobs(max_ptes_none=8), "9 pages are missing or zero, max_ptes_none is 8"),
        (lambda m: m.pte.__setitem__((0, slice(0, 2)), bits.swap_pte(np.uint64(4))), Knobs(max_ptes_swap=1),
         "2 pages are swapped out, max_ptes_swap is 1"),
        (lambda m: m.shared.__setitem__((0, slice(0, 3)), True), Knobs(max_ptes_shared=2), "3 pages are shared, max_ptes_shared is 2"),
    ],
    ids=["one missing", "missing", "swapped", "shared"],
)  # fmt: skip
def test_a_refusal_by_a_limit_names_the_count_and_the_limit(change, limits, reason):
    memory = used()
    change(memory)
    block = block_of(memory, limits=limits)
    assert block.reason == reason and block.known


def test_the_page_that_decided_has_its_address():
    memory = used()
    memory.refcount[0, 300] += 1
    block = block_of(memory)
    assert block.status == "not_suitable_page_count" and block.at == START + 300 * PAGE_SIZE
    assert "1 page is held by more than its mappings" in block.reason
    assert block_of(used()).at is None


def test_where_references_cannot_be_seen_a_success_may_be_a_pin():
    block = block_of(dataclasses.replace(used(), counts_known=False))
    assert block.status == "succeeded" and block.others == ("not_suitable_page_count",)
    assert block.unread == (PINS,) and block.pinned is None


def test_a_guest_that_could_not_be_read_may_waste_the_pass():
    unread = np.zeros((1, 512), bool)
    block = block_of(with_vm(columns(1, False), unread, known=unread, why="may not look"))
    assert block.status == "lack_referenced_page" and block.wasted_if and not block.wasted
    assert block.reason.endswith("if only a secondary MMU used it, the pass is wasted")
    seen = np.zeros((1, 512), bool)
    seen[0, 3] = True
    wasted = block_of(with_vm(columns(1, False), seen))
    assert wasted.wasted and not wasted.wasted_if and wasted.secondary == 1


@pytest.mark.parametrize(
    ("change", "mapping"),
    [
        (lambda m: None, "small"),
        (lambda m: m.pte.__setitem__(0, 0), "none"),
        (lambda m: m.pte.__setitem__(0, bits.swap_pte(np.uint64(4))), "swapped"),
        (lambda m: (m.pte.__setitem__(0, 0), m.pmd.__setitem__(0, bits.PRESENT | bits.PSE)), "huge"),
    ],
    ids=["small", "none", "swapped", "huge"],
)
def test_how_a_block_is_mapped(change, mapping):
    memory = used(2)
    change(memory)
    block = block_of(memory)
    assert block.mapping == mapping
    assert (block.populated, block.swapped) == {
        "small": (512, 0),
        "none": (0, 0),
        "swapped": (0, 512),
        "huge": (512, 0),
    }[mapping]
