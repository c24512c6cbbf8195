"""What a run counted as results: spaces apart and together, memory at the end, bloat, and what the notes say."""

import pytest

from secondsight.policy.registry import make
from secondsight.replay import Configuration, replay
from secondsight.replay.tlb import TlbConfig
from secondsight.trace.kinds import Verb
from secondsight.whatif import compare
from support.events import CR, CW, GW, trace, visits


def one(rows, rules="7.2", spaces=("process",), scale=1.0, **fields):
    result = replay(trace(rows, spaces), [Configuration.of(rules, **fields)], time_scale=scale)
    return result, result.configurations[0].total


def test_several_spaces_are_counted_apart_and_together():
    rows = [(0, 0, 5, 0, CW, 3), (0, 1, 5, 0, GW, 5), (12, 0, 5, 0, CW, 4), (12, 1, 5, 0, GW, 1)]
    result = replay(trace(rows, ["process", "vm"]), [Configuration.of("6.1")])
    mixed = result.configurations[0]
    process, vm = mixed.spaces
    assert (mixed.backing, mixed.start) == ("mixed", "filled")
    assert (process.accesses, process.accesses_huge, vm.accesses, vm.accesses_huge) == (7, 4, 6, 1)
    assert mixed.total.accesses_huge == 5
    assert (process.guest_faults, process.test_young) == (0, 0)
    assert {v[1] for v in visits(result)} == {0, 1}


ALWAYS = "always,khugepaged=false"


BLOAT = 511 * 4096


def figures(rows, rules="7.2", policy=ALWAYS, **options):
    return compare(trace(rows), [policy], [rules], channels=False, **options).rows[0].metrics


@pytest.mark.parametrize(
    "rows", [[(0, 0, 0, 0, CR, 100), (35, 0, 0, 1, CW)], [(0, 0, 0, 1, CW), (35, 0, 0, 0, CR, 100)]]
)
def test_bloat_of_a_huge_page_that_a_read_mapped_first(rows):
    total = figures(rows)
    # The huge zero page is nobody's memory; the page that the first store puts in its place holds 511 pages nobody asked for.
    assert (total["bloat"], total["zero_filled"], total["huge_blocks"]) == (BLOAT, BLOAT, 1)


def test_the_huge_zero_page_is_no_bloat():
    total = figures([(0, 0, 0, 0, CR, 100), (35, 0, 0, 1, CR)])
    assert (total["bloat"], total["zero_filled"], total["huge_blocks"], total["coverage"]) == (0, 0, 1, 1)


def test_a_collapse_is_paid_by_what_it_copied_not_by_what_the_block_held_last():
    # Collapsed with two pages, given back, and faulted in as small pages again.
    rows = [
        (0, 0, 0, 0, CW),
        (0, 0, 0, 1, CW),
        (11, 0, 0, 0, Verb.MADV_DONTNEED, 512),
        (12, 0, 0, 0, CW),
        (21, 0, 0, 0, CR),
    ]
    total = figures(rows, "6.1", "madv_collapse")
    assert total["collapses"] == 2
    copied = 2 + 1
    assert total["daemon_time"] == pytest.approx(
        (2 * 235 + 571 * copied / 512) * 1e-6 + total["pages_scanned"] * 25e-9
    )


def test_a_program_that_exits_is_counted_just_before_it_does():
    lives = [(0, 0, 0, 0, CW), (1, 0, 1, 3, CW, 2), (35, 0, 0, 0, CR)]
    keys = ("huge_blocks", "huge_share", "bloat", "bloat_share", "zero_filled")
    alive, exits = (figures([*lives, *end]) for end in ([], [(36, 0, 0, 0, Verb.EXIT)]))
    assert [exits[key] for key in keys] == [alive[key] for key in keys]
    assert (exits["huge_blocks"], exits["bloat"]) == (2, 2 * BLOAT)


def test_a_space_that_lives_on_after_its_exit_counts_as_it_stands_at_the_end():
    again = [(0, 0, 0, 0, CW), (1, 0, 1, 0, CW), (35, 0, 0, 0, Verb.EXIT), (36, 0, 1, 0, CW)]
    assert figures(again)["huge_blocks"] == 1


def test_an_aggregated_trace_says_so():
    result, total = one([(0, 0, 0, 0, CW, 50)], tlb=TlbConfig())
    assert total.walks == 1
    assert any("aggregated" in note for note in result.configurations[0].notes)


def test_a_policy_that_asks_for_walks_where_no_tlb_is_modelled_is_told():
    said = "the policy's walks are access counts: no TLB was modelled"
    for tlb, told in ((None, True), (TlbConfig(), False)):
        result, _ = one([(0, 0, 0, 0, CW)], policy=lambda: make("pcc"), tlb=tlb)
        assert (said in result.configurations[0].notes) == told


def test_what_refused_is_the_last_answer_of_blocks_that_are_small_at_the_end():
    # Block 0 is refused at 10 s and collapsed at 20 s; block 1 is only read; block 2 belongs to an area that may not be huge.
    rows = [
        (0, 0, 0, 0, CW), (0, 0, 2, 0, CW), (1, 0, 2, 0, Verb.MADV_NOHUGEPAGE, 512), (5, 0, 0, 0, Verb.CLEAR_REFS, 0),
        (6, 0, 1, 0, CR), (12, 0, 0, 0, CR), (31, 0, 1, 0, CR),
    ]  # fmt: skip
    result, total = one(rows, "6.1")
    assert [v[3] for v in visits(result) if v[2] == 0][:2] == ["lack_referenced_page", "succeeded"]
    assert (total.huge_at_end, total.unvisited, total.refused) == (1, 1, {"exceed_none_pte": 1})
    assert total.visits["exceed_none_pte"] == 4 and total.visits["page_pmd_mapped"] == 2
