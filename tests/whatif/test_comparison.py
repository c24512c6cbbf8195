"""Comparisons of micro traces with answers counted by hand, and what must hold in any trace."""

from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secondsight.errors import UsageError
from secondsight.mm.config import HostConfig, Sizes
from secondsight.policy import Decision, Policy, make
from secondsight.replay import Events
from secondsight.replay.tlb import TlbConfig
from secondsight.report import decode, encode, render
from secondsight.report.table import those_not_run
from secondsight.trace.kinds import Kind
from secondsight.trace.provenance import Provenance, Space
from secondsight.whatif import Range, compare

SECOND = 1_000_000_000


def events(rows, spaces=1, kinds=Kind.CPU_WRITE):
    """*rows*: (second, space, block, page, count); CPU writes unless *kinds* says else."""
    table = np.array(rows, dtype=np.int64).reshape(-1, 5)
    return Events(
        time=(table[:, 0] * SECOND).astype(np.uint64),
        space=table[:, 1].astype(np.uint16),
        address=((table[:, 2] << 21) | (table[:, 3] << 12)).astype(np.uint64),
        kind=np.broadcast_to(np.array(kinds, np.uint8), len(table)),
        count=table[:, 4].astype(np.uint32),
        spaces=[Space(id=i, name=f"p{i}") for i in range(spaces)],
    )


# Block 0: pages 0 and 1, 30 accesses each second; block 5: page 7, 10; for 40 s.
TWO = events([row for s in range(40) for row in ((s, 0, 0, 0, 20), (s, 0, 0, 1, 10), (s, 0, 5, 7, 10))])


def row(results, policy):
    return next(r for r in results.rows if r.policy == policy)


def test_never_and_always_and_the_oracle_by_hand():
    results = compare(TWO, ["never", "always,khugepaged=false", "oracle"], budget=None)
    never, always, oracle = (row(results, p).metrics for p in ("never", "always", "oracle"))
    assert (never["coverage"], never["huge_blocks"], never["bloat"], never["recall"]) == (0, 0, 0, 0)
    assert (always["coverage"], always["huge_blocks"], always["recall"]) == (1, 2, 1)
    # 1600 accesses, 800 + 400 + 400: 90 % takes all three pages. Three of 1024 pages are hot; two of two blocks.
    assert (always["precision_pages"], always["precision"]) == (3 / 1024, 1)
    assert always["collapses"] == 0
    assert oracle["coverage"] == 1
    assert results.oracle == [(0.5, 0.75), (1.0, 1.0)]


def test_what_the_trace_leaves_out_stands_beside_the_answer():
    source = events([(s, 0, 0, 0, 20) for s in range(40)])
    whole = compare(source, ["always"], channels=False)
    assert "left out" not in whole.answer and whole.provenance.notes == []
    source.provenance = Provenance(source="record-pid", dropped={"pages that nobody names": 7200})
    part = compare(source, ["always"], channels=False)
    left = "90% of what was seen was left out of the trace (7,200 pages that nobody names; 800 accesses are in it)"
    assert f"But {left}" in part.answer
    assert any(left in note for note in part.provenance.notes)
    assert any("running when the recording began" in note for note in part.provenance.notes)
    assert "nobody names" in render(part)


def test_a_budget_of_one_block():
    results = compare(TWO, ["oracle", "madv_collapse"], budget=1)
    assert row(results, "oracle").metrics["coverage"] == 0.75
    sweep = row(results, "madv_collapse").metrics
    # Nothing is populated at 0 s; at 10 s the first block is collapsed: 30 of the 40 seconds of its 75 %.
    assert (sweep["coverage"], sweep["collapses"], sweep["huge_blocks"]) == (0.5625, 1, 1)
    # Two of its pages were populated.
    assert sweep["bloat"] == 510 * 4096


@pytest.mark.parametrize("policy", ["khugepaged", "always", "thp_shrinker", "madv_collapse"])
def test_no_policy_makes_more_huge_than_the_budget(policy):
    results = compare(TWO, [policy], budget=1, channels=False)
    # The shrinker splits what it got: 510 of its pages were never written.
    assert row(results, policy).metrics["huge_blocks"] == (0 if policy == "thp_shrinker" else 1)
    if policy == "khugepaged":
        codes = [results.verdicts[v].code for v in row(results, policy).events.verdict.array()]
        # Block 0 is made huge; block 5 finds no huge page left.
        assert codes == ["succeeded", "page_pmd_mapped", "alloc_huge_page_failed"]


@pytest.mark.parametrize("backing", ["process", "vm"])
def test_a_tlb_changes_no_content(backing):
    # Stores to five pages of one block, each second: behind the first, all of them go through one dirty entry of the huge page.
    trace = events([(s, 0, 0, page, 1) for s in range(30) for page in range(5)])
    options = {"backing": backing, "fill": False, "channels": False}
    with_tlb, without = (
        row(compare(trace, ["always,khugepaged=false"], tlb=tlb, **options), "always").metrics
        for tlb in (TlbConfig(), None)
    )
    assert with_tlb["bloat"] == without["bloat"] == 507 * 4096
    assert with_tlb["zero_filled"] == without["zero_filled"] == 507 * 4096


@pytest.mark.parametrize("policy", ["khugepaged", "always", "thp_shrinker", "madv_collapse", "oracle"])
def test_with_no_budget_nothing_becomes_huge(policy):
    assert row(compare(TWO, [policy], budget=0, channels=False), policy).metrics["recall"] == 0


def test_a_trace_of_no_space_is_refused(monkeypatch):
    trace = events([(0, 0, 0, 0, 1)])
    monkeypatch.setattr(type(trace), "spaces", [])
    with pytest.raises(UsageError, match="names no spaces"):
        compare(trace, ["never"])


def test_fairness_between_two_processes():
    # The same block number in two spaces; a budget of one goes to the more accessed: coverage 1 and 0.
    two = events([row for s in range(12) for row in ((s, 0, 3, 0, 9), (s, 1, 3, 0, 1))], spaces=2)
    results = compare(two, ["oracle"], budget=1)
    assert row(results, "oracle").metrics["fairness"] == 0.5
    assert row(compare(two, ["oracle"]), "oracle").metrics["fairness"] == 1
    assert results.spaces == ["p0", "p1"]


def test_events_tell_what_became_of_a_block():
    results = compare(TWO, ["madv_collapse"], budget=1)
    collapsing = row(results, "madv_collapse")
    assert [results.verdicts[v].code for v in collapsing.events.verdict.array()] == ["policy_huge"]
    assert collapsing.events.block.array().tolist() == [0]
    assert collapsing.events.first.array().tolist() == [10]
    fate = collapsing.fate.array()
    assert fate[0] == 10
    assert np.isnan(fate[1])
    assert row(compare(TWO, ["always,khugepaged=false"]), "always").events.verdict.shape == [2]


def test_the_channels_are_kept_by_block_and_time():
    results = compare(TWO, ["madv_collapse"], budget=0)
    primary = row(results, "madv_collapse").channels["primary"].array()
    # Wake-ups at 0, 10, 20, 30, 40 s: nothing before the first access, then two and one page young for good.
    assert primary.tolist() == [[0, 2, 2, 2, 2], [0, 1, 1, 1, 1]]


def test_a_range_of_a_knob():
    results = compare(TWO, ["khugepaged", "never"], vary=Range.parse("max_ptes_none=0..511:509"))
    points = results.sensitivity["max_ptes_none"]["khugepaged under 7.2"]
    assert list(results.sensitivity["max_ptes_none"]) == ["khugepaged under 7.2"]
    # 510 empty pages in block 0, 511 in block 5: 509 takes neither, 511 both.
    assert [(v, f["huge_blocks"]) for v, f in points] == [(0, 0), (509, 0), (511, 2)]
    with pytest.raises(UsageError, match="neither khugepaged nor any"):
        compare(TWO, ["never"], vary=Range.parse("alpha=0.5"))


def test_an_option_of_a_policy_is_a_knob_too():
    results = compare(TWO, ["madv_collapse"], vary=Range.parse("min_populated=1,2,3"))
    points = results.sensitivity["min_populated"]["madv_collapse under 7.2"]
    assert [f["huge_blocks"] for _, f in points] == [2, 1, 0]


def test_a_policy_of_ones_own():
    class First(Policy):
        name = "first"

        def wake(self, look):
            return Decision(promote=np.flatnonzero(look.populated > 0)[:1])

    results = compare(TWO, [First])
    assert row(results, "first").label == "first under 7.2"
    assert row(results, "first").metrics["collapses"] == 1


def test_the_same_comparison_gives_the_same_bytes_and_a_page():
    first, second = (
        encode(compare(TWO, ["khugepaged", "hawkeye,every=5"], ["6.1", "7.2"])) for _ in range(2)
    )
    assert first == second
    assert "hawkeye,every=5.0 under 6.1" in render(decode(first, "x"))


accesses = st.lists(
    st.tuples(
        st.integers(0, 5),
        st.integers(0, 3),
        st.integers(1, 9),
        st.sampled_from([Kind.CPU_READ, Kind.CPU_WRITE]),
    ),
    min_size=1,
    max_size=30,
)
EASY = [
    "always",
    "khugepaged,scan_sleep_millisecs=1000",
    "madv_collapse,every=2",
    "ingens,util=0",
    "hawkeye,every=2",
    "pcc,every=2",
    "damon_ethp",
    "thp_shrinker,every=2,khugepaged=false",
]


def random_trace(rows):
    """One access a second."""
    return events(
        [(second, 0, block, page, count) for second, (block, page, count, _) in enumerate(rows)],
        kinds=[kind for *_, kind in rows],
    )


@settings(max_examples=25, deadline=None)
@given(accesses, st.integers(1, 6), st.sampled_from(["6.1", "7.2"]))
def test_no_policy_covers_more_than_the_oracle(rows, budget, rules):
    results = compare(random_trace(rows), [*EASY, "oracle"], [rules], budget=budget, channels=False)
    totals = np.zeros(6)
    for block, _, count, _ in rows:
        totals[block] += count
    bound = row(results, "oracle").metrics["coverage"]
    assert bound == pytest.approx(np.sort(totals)[::-1][:budget].sum() / totals.sum())
    for one in results.rows:
        assert one.metrics["coverage"] <= bound + 1e-12, one.label
        # Nor does the choice, timing aside, beat the best choice.
        for share, covered in one.curve:
            assert covered <= dict(results.oracle).get(share, 1.0) + 1e-12


@settings(max_examples=15, deadline=None)
@given(accesses)
def test_always_has_recall_one(rows):
    results = compare(random_trace(rows), ["always"], channels=False)
    assert row(results, "always").metrics["recall"] == 1
    assert row(results, "always").metrics["coverage"] == 1


def test_make_is_what_compare_takes():
    assert compare(TWO, [lambda: make("never")]).rows[0].label == "never under 7.2"


def test_asking_costs_only_those_who_ask():
    # A VM's pages: a policy that looks at nothing asks nobody; one that wants to know who is young asks about each mapped page.
    class Asks(Policy):
        name = "asks"
        needs = frozenset({"young"})
        seen: ClassVar[list] = []

        def wake(self, look):
            self.seen.append((look.young.tolist(), look.secondary.tolist()))
            return Decision()

    class Looks(Asks):
        name = "looks"
        needs = frozenset()
        seen: ClassVar[list] = []

    results = compare(TWO, [Asks, Looks], backing="vm", fill=False, channels=False)
    asks, looks = (row(results, name).metrics for name in ("asks", "looks"))
    assert (looks["notifier_calls"], looks["daemon_time"]) == (0, 0)
    # After the first second block 0 has two pages, block 5 one; asked at 10, 20, 30 and 40 s, each page a call's worth.
    assert asks["notifier_calls"] > 0
    assert asks["daemon_time"] == pytest.approx(4 * 3 * 150e-9)
    assert Asks.seen[-1] == ([2, 1], [2, 1])
    assert Looks.seen[-1] == ([-1, -1], [-1, -1])


SIZED = HostConfig(sizes=Sizes(kb64="always"))


def test_a_kernel_that_the_host_cannot_be_has_a_row_that_says_so_and_the_rest_runs():
    results = compare(TWO, ["never", "khugepaged", "oracle"], ["6.1", "7.2"], config=SIZED)
    labels = [(r.label, bool(r.not_run)) for r in results.rows]
    # The bounds under the first kernel that can be set up so.
    assert labels == [
        ("never under 7.2", False),
        ("khugepaged under 6.1", True),
        ("khugepaged under 7.2", False),
        ("oracle under 7.2", False),
    ]
    assert set(results.rows[1].metrics.values()) == {None}
    assert "came in 6.8" in results.rows[1].not_run
    alone = compare(TWO, ["never", "khugepaged", "oracle"], ["7.2"], config=SIZED)
    assert [r.metrics for r in results.rows if not r.not_run] == [r.metrics for r in alone.rows]
    assert decode(encode(results), "x") == results
    assert "not run: 6.1 has no hugepages" in render(results)
    assert those_not_run(results.rows) == [f"khugepaged under 6.1: not run, {results.rows[1].not_run}"]
    # A knob over its range: the same.
    varied = compare(
        TWO,
        ["khugepaged"],
        ["6.1", "7.2"],
        config=SIZED,
        vary=Range("max_ptes_none", (0, 511)),
        channels=False,
    )
    assert list(varied.sensitivity["max_ptes_none"]) == ["khugepaged under 7.2"]


def test_no_kernel_that_the_host_can_be_is_an_error():
    with pytest.raises(UsageError, match=r"none of these profiles.*6\.8"):
        compare(TWO, ["khugepaged"], ["6.1", "2.6.38"], config=SIZED)
