"""Verdicts in every reading of what was not seen: what is known is one answer, and each open point says so itself."""

import dataclasses

import msgspec
import numpy as np

from secondsight.bits import pageflags as kpf
from secondsight.bits import pte as bits
from secondsight.bits import swap
from secondsight.geometry import PMD_ORDER
from secondsight.live.judge.choose_profiles import choose_profiles
from secondsight.live.judge.judge_snapshot import Judged
from secondsight.live.read.switches import Switches
from secondsight.mm.khugepaged.result import ScanResult as R
from support.snapshots import FACTS_61, FACTS_72, columns, snapshot, with_vm

GUARD = swap.swp_entry(np.uint64(swap.MARKER_TYPE), np.uint64(swap.MARKER_GUARD))


def judged(memory, facts=FACTS_72, rows=None, **more):
    """The verdicts of all blocks of *memory*, or of *rows*."""
    taken = snapshot(memory, facts, **more)
    rows = np.arange(len(memory.address)) if rows is None else np.array(rows)
    return Judged(taken, rows, choose_profiles(facts))


def statuses(verdicts):
    return [str(R(code)) for code in verdicts.codes[:, 0]]


def test_a_row_has_its_place_and_what_was_not_asked_none():
    memory = columns(4)
    memory.pte[1, 0] |= bits.ACCESSED
    memory.pte[3, 0] |= bits.ACCESSED
    memory.refcount[3, 8] += 1
    verdicts = judged(memory, rows=[1, 3])
    assert verdicts.place.tolist() == [-1, 0, -1, 1]
    assert statuses(verdicts) == ["succeeded", "not_suitable_page_count"] and verdicts.known.all()
    # One attempt where the scan passes, of the whole block; none where it is refused before.
    assert verdicts.begun[:, PMD_ORDER].tolist() == [1, 0] and not verdicts.refused.any()


def test_a_block_that_the_guest_alone_used_is_refused_by_isolate_and_known():
    young = np.zeros((2, 512), bool)
    young[0, 5] = True
    verdicts = judged(with_vm(columns(2), young))
    assert statuses(verdicts) == ["lack_referenced_page"] * 2 and verdicts.known.all()
    assert verdicts.guest_alone.tolist() == [True, False]
    assert verdicts.refused[:, PMD_ORDER].tolist() == [1, 0]


def test_an_unread_accessed_bit_is_two_readings():
    memory = columns(2, secondary=False)
    memory.pte_known[0, 9] = False
    verdicts = judged(memory)
    assert statuses(verdicts) == ["lack_referenced_page"] * 2
    assert verdicts.known.tolist() == [False, True]
    assert {str(R(code)) for code in verdicts.codes[0]} == {"lack_referenced_page", "succeeded"}


def test_how_full_the_cpus_batch_is_may_decide_on_an_old_kernel():
    """A referenced page that the guest used is activated by the zap: it waits in the batch with a reference, unless it fills it."""
    young = np.zeros((3, 512), bool)
    young[0, 5] = True
    young[2, :15] = True  # as many as the batch of 6.1 holds
    memory = with_vm(columns(3), young)
    memory.flags[0, 5] |= kpf.REFERENCED
    memory.flags[2, :15] |= kpf.REFERENCED
    memory.pte[:, 100] |= bits.ACCESSED
    verdicts = judged(memory, FACTS_61)
    assert verdicts.batch_decides.tolist() == [True, False, True]
    assert verdicts.known.tolist() == [False, True, False]
    assert statuses(verdicts) == ["not_suitable_page_count", "succeeded", "succeeded"]
    for block in (0, 2):
        assert {str(R(code)) for code in verdicts.codes[block]} == {"not_suitable_page_count", "succeeded"}
    mglru = msgspec.structs.replace(FACTS_61, mglru=True)
    assert not judged(memory, mglru).batch_decides.any(), "MGLRU marks and activates nothing"


def test_who_shares_a_large_folio_may_decide_where_counts_are_not_known():
    memory = columns(2)
    memory.pte[:] |= bits.ACCESSED
    memory.order[0] = 4
    head = memory.folio[0] >> 4 << 4
    memory.flags[0] |= np.where(head == memory.folio[0], kpf.COMPOUND_HEAD, kpf.COMPOUND_TAIL)
    memory.folio[0] = head
    unseen = dataclasses.replace(memory, counts_known=False)
    verdicts = judged(unseen, msgspec.structs.replace(FACTS_72, mm_ids=True))
    assert verdicts.shared_decides.tolist() == [True, False]
    assert not judged(memory).shared_decides.any(), "kernel memory tells"


def test_an_entry_that_cannot_be_swapped_in_fails_the_block_at_its_place():
    memory = columns(3)
    memory.pte[:] |= bits.ACCESSED
    memory.pte[1, 77] = GUARD
    verdicts = judged(memory)
    assert statuses(verdicts) == ["succeeded", "failed", "succeeded"]
    assert verdicts.special_at.tolist() == [512, 77, 512]
    assert verdicts.begun[1, PMD_ORDER] == verdicts.refused[1, PMD_ORDER] == 1, (
        "a huge page is allocated for nothing"
    )


def test_parts_are_tried_where_a_smaller_size_is_allowed_and_count_by_order():
    memory = columns(2)
    memory.pte[:] |= bits.ACCESSED
    memory.pte[1, :16], memory.folio[1, :16], memory.mapcount[1, :16] = 0, -1, 0
    taken = snapshot(memory, enabled="never")
    switches = Switches(enabled="never", enabled_size="inherit", sizes={64: "always", 2048: "inherit"})
    header = msgspec.structs.replace(taken.header, switches=switches)
    taken = dataclasses.replace(taken, header=header)
    candidates = choose_profiles(FACTS_72)
    verdicts = Judged(taken, np.arange(2), candidates)
    assert verdicts.divided.all()
    assert verdicts.begun[:, 4].tolist() == [32, 31] and not verdicts.begun[:, PMD_ORDER].any()
    whole = Judged(taken, np.arange(2), candidates, parts=False)
    assert not whole.divided.any() and whole.begun[:, PMD_ORDER].tolist() == [1, 1]


def test_a_page_of_the_swap_cache_is_open_where_isolate_asks_who_else_names_it() -> None:
    """Up to 5.17 (page_swap_cache): no reader reads swap's own counts. A writable page is not asked about."""
    memory = columns(3)
    memory.pte[:, 0] |= bits.ACCESSED
    memory.flags[:2, 7] |= kpf.SWAPCACHE
    memory.refcount[:2, 7] += 1
    memory.pte[0, 7] &= ~bits.RW
    old = msgspec.structs.replace(FACTS_61, release="5.10.262")
    verdicts = judged(memory, old)
    assert verdicts.known.tolist() == [False, True, True]
    assert {str(R(code)) for code in verdicts.codes[0]} == {"succeeded", "page_swap_cache"}
    assert judged(memory, FACTS_61).known.all()
