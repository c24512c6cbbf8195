"""Accesses through a TLB: which of them walk, what flushes an entry, and where the loop stops for Python and goes on."""

import numpy as np
import pytest

from secondsight.errors import UsageError
from secondsight.replay import HOST, Configuration, replay, tlb_path
from secondsight.replay.tlb import TlbConfig
from secondsight.replay.tlb_path import references
from secondsight.trace.kinds import Kind, Verb
from secondsight.whatif import compare
from support.events import CR, CW, GR, GW, trace, visits

ALWAYS = "always,khugepaged=false"


def figures(rows, rules="7.2", policy=ALWAYS, **options):
    return compare(trace(rows), [policy], [rules], channels=False, **options).rows[0].metrics


@pytest.mark.parametrize(
    ("rows", "policy", "rules", "references"),
    [
        # The zero page's entry is flushed where the first store maps a page of its own: that store walks again.
        ([(0, 0, 0, 0, CR), (1, 0, 0, 0, CW)], "never", "7.2", 8),
        ([(0, 0, 0, 0, CR), (1, 0, 0, 1, CW)], "never", "7.2", 8),
        # A page that is written and then stored to again: one entry.
        ([(0, 0, 0, 0, CW), (1, 0, 0, 0, CR), (2, 0, 0, 0, CW)], "never", "7.2", 4),
        # The huge zero page is replaced by a huge page, or split.
        ([(0, 0, 0, 0, CR), (1, 0, 0, 1, CW)], ALWAYS, "7.2", 6),
        ([(0, 0, 0, 0, CR), (1, 0, 0, 1, CW), (2, 0, 0, 0, CR), (3, 0, 0, 1, CR)], ALWAYS, "6.1", 3 + 4 + 4),
    ],
)
def test_an_entry_whose_page_is_replaced_walks_again(rows, policy, rules, references):
    assert figures(rows, rules, policy, tlb=TlbConfig())["walk_refs_native"] == references


def test_a_device_that_stores_into_a_zero_page_replaces_it():
    rows = [(0, 0, 0, 0, CR), (1, 0, 0, 0, Kind.DEVICE_WRITE), (2, 0, 0, 0, CR)]
    assert figures(rows, policy="never", tlb=TlbConfig())["walk_refs_native"] == 8


def one(rows, rules="6.1", spaces=("process",), tlb=None, **fields):
    result = replay(trace(rows, spaces), [Configuration.of(rules, tlb=tlb or TlbConfig(), **fields)])
    return result, result.configurations[0].total


def test_walks_by_hand():
    # Block 0: three pages, one of them thrice; the store to page 2 replaces the zero page that the load mapped, which is a walk of its own.
    # Collapsed at 10 s, which flushes: one walk more.
    rows = [
        (0, 0, 0, 0, CW),
        (1, 0, 0, 1, CW),
        (2, 0, 0, 1, CR),
        (3, 0, 0, 1, CR),
        (4, 0, 0, 2, CR),
        (5, 0, 0, 2, CW),
    ]
    rows += [(11, 0, 0, 0, CR), (12, 0, 0, 1, CR), (13, 0, 0, 2, CR)]
    result, total = one(rows)
    assert visits(result)[0] == (10, 0, 0, "succeeded", "succeeded")
    assert (total.walks, total.walks_huge, total.walk_references) == (5, 1, 4 * 4 + 3)
    assert result.data[0].blocks.walks.tolist() == [5]


@pytest.mark.parametrize(
    ("mmu", "guest_huge", "walks", "references"),
    # Two small pages before the collapse at 10 s; then one entry for both only where the guest's page is huge too.
    [
        ("npt", False, 4, 2 * 24 + 2 * 19),
        ("npt", True, 3, 2 * 19 + 15),
        ("shadow", False, 4, 4 * 4),
        ("shadow", True, 4, 4 * 4),
    ],
)
def test_walks_of_a_guest(mmu, guest_huge, walks, references):
    import msgspec

    rows = [(0, 0, 0, 0, GW), (1, 0, 0, 1, GW), (11, 0, 0, 0, GR), (12, 0, 0, 1, GR)]
    config = msgspec.structs.replace(HOST, mmu=mmu)
    result, total = one(rows, spaces=["vm"], tlb=TlbConfig(guest_huge=guest_huge), config=config)
    assert visits(result)[0][3:] == ("succeeded", "succeeded")
    assert (total.walks, total.walk_references) == (walks, references)


def test_clear_refs_flushes_no_tlb():
    # The page is read all the time, but out of the TLB: its accessed bit stays clear after clear_refs.
    rows = [(0, 0, 0, 0, CW), (3, 0, 0, 0, Verb.CLEAR_REFS, 0), (5, 0, 0, 0, CR), (6, 0, 0, 0, CR)]
    result, total = one(rows)
    assert visits(result) == [(10, 0, 0, "lack_referenced_page", None)]
    assert total.walks == 1
    assert visits(replay(trace(rows), [Configuration.of("6.1")]))[0][3] == "succeeded"
    # A page that fell out of the TLB meanwhile walks, and is young.
    result, total = one([*rows[:2], (4, 0, 0, 1, CR), *rows[2:]], tlb=TlbConfig(1, 1, 1, 1, 1, 1))
    assert visits(result)[0][3] == "succeeded"
    assert total.walks == 3


def test_pins_and_budgets_stop_the_loop_and_go_on():
    from secondsight.trace.kinds import Kind

    rows = [
        (0, 0, 0, 0, CW),
        (1, 0, 0, 1, Kind.PIN_WRITE),
        (2, 0, 1, 0, CW),
        (3, 0, 2, 0, CW),
        (4, 0, 0, 0, CR),
    ]
    _, total = one(rows, faults="huge", budget=2)
    assert (total.fault_huge, total.accesses) == (2, 5)
    # Two walks to huge pages, one to a small one; the pin walks no table of the TLB's.
    assert (total.walks, total.walks_huge) == (3, 2)


@pytest.mark.parametrize(
    ("nested", "guest_huge", "each"),
    [
        # The CPU's to small and huge pages, the guest's likewise: 4 levels, 3; (g + 1)(h + 1) - 1 where nested.
        (True, False, [4, 3, 24, 19]),
        (True, True, [4, 3, 19, 15]),
        (False, False, [4, 3, 4, 4]),
        (False, True, [4, 3, 4, 3]),
    ],
)
def test_what_a_walk_refers_to_by_who_and_how_large(nested, guest_huge, each):
    walks = np.array([[1, 0], [10, 0], [100, 1], [1000, 2]])
    assert references(walks, nested=nested, guest_huge=guest_huge).tolist() == [
        each[0] + 10 * each[1] + 100 * each[2] + 1000 * each[3],
        each[2] + 2 * each[3],
    ]


def test_more_blocks_than_tags_can_tell_apart_are_refused(monkeypatch):
    monkeypatch.setattr(tlb_path, "MOST_PAGES", 4 * 512)
    assert one([(0, 0, 0, 0, CW)])[1].walks == 1
    with pytest.raises(UsageError, match="at most 2 touched blocks; the trace has 3"):
        one([(0, 0, b, 0, CW) for b in range(3)])
