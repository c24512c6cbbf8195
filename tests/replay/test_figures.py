"""Every figure of the table: worked out by hand in its corners, and counted a second time over random small traces."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from secondsight.policy.registry import make
from secondsight.replay.tlb import TlbConfig
from secondsight.report.metrics import METRICS
from secondsight.trace.kinds import Kind, Verb
from secondsight.whatif import compare
from support.events import CR, CW, GR, GW, trace
from support.figures import Plain, Shuffle

ALWAYS = "always,khugepaged=false"
BLOAT = 511 * 4096


def figures(rows, rules="7.2", policy=ALWAYS, **options):
    return compare(trace(rows), [policy], [rules], channels=False, **options).rows[0].metrics


def counted_twice(types, rows, policy, rules, tlb, budget=None, fill=None):
    """Every figure of *rows* over spaces of *types*: (the replay's, those of ``support.figures``)."""
    events = trace(rows, types)
    options = {"channels": False, "tlb": tlb, "budget": budget, "fill": fill}
    total = compare(events, [policy], [rules], **options).rows[0].metrics
    maker = policy if callable(policy) else lambda: make(policy)
    plain = Plain(events, rows, maker, rules, tlb, budget, fill)
    small = None
    if tlb is not None:
        small = Plain(events, rows, lambda: make("never"), rules, tlb, None, fill).misses()
    return total, plain.figures(small)


@pytest.mark.parametrize("second", [1, 11])
def test_coverage_of_a_window_with_reads_before_the_store_that_splits(second):
    # Until after 6.12 a store to the huge zero page splits it: a hundred reads landed in it, the store does not.
    total = figures([(0, 0, 0, 0, CR, 100), (second, 0, 0, 1, CW), (second, 0, 0, 0, CR, 3)], "6.1")
    assert (total["coverage"], total["recall"], total["huge_blocks"]) == (100 / 104, 1, 0)


def test_coverage_where_many_reads_of_other_blocks_lie_between():
    rows = [(0, 0, b, p, CR, 2) for b in range(3) for p in range(9)]
    rows += [(1, 0, 1, 3, CW), (1, 0, 1, 3, CR), (1, 0, 2, 0, CR, 5), (2, 0, 2, 2, CW), (2, 0, 0, 1, CR, 7)]
    # 18 reads of each block, 5 more of block 2 before its store and 7 of block 0.
    assert figures(rows, "6.1")["coverage"] == (3 * 18 + 5 + 7) / (3 * 18 + 5 + 7 + 1 + 1 + 1)
    assert figures(rows, "6.1", tlb=TlbConfig())["coverage"] == (3 * 18 + 5 + 7) / (
        3 * 18 + 5 + 7 + 1 + 1 + 1
    )


def test_a_huge_page_that_a_devices_access_maps_comes_off_the_budget():
    rows = [(0, 0, 0, 0, Kind.DEVICE_WRITE), (1, 0, 1, 0, CW), (2, 0, 2, 0, Kind.PIN_READ)]
    for tlb in (None, TlbConfig()):
        assert figures(rows, budget=1, tlb=tlb)["huge_blocks"] == 1


@pytest.mark.parametrize(
    ("verb", "splits"), [(Verb.EXIT, 0), (Verb.MUNMAP, 0), (Verb.MADV_DONTNEED, 0), (None, 1)]
)
def test_the_picture_calls_nothing_split_that_was_given_back(verb, splits):
    rows = [(0, 0, 0, 0, CW), (12, 0, 0, 0, CR)]
    # Half of the block given back splits the huge page; all of it frees it.
    rows.append((13, 0, 0, 0, Verb.MADV_DONTNEED, 256) if verb is None else (13, 0, 0, 0, verb, 512))
    result = compare(trace([*rows, (45, 0, 1, 0, CW)]), [ALWAYS], ["7.2"], channels=True)
    assert np.isfinite(result.rows[0].split.array()).tolist() == [bool(splits), False]


PAGES = (0, 1, 511)
KINDS = {
    "process": (CR, CR, CW, CW, Kind.CPU_FETCH, Kind.DEVICE_WRITE, Kind.PIN_READ),
    "vm": (GR, GR, GW, GW, Kind.GUEST_FETCH, CR, CW, Kind.PIN_WRITE),
}
VERBS = (Verb.CLEAR_REFS, Verb.MADV_DONTNEED, Verb.UNPIN, Verb.EXIT)


@st.composite
def traces(draw, forks=False):
    """(types of the spaces, rows): up to 40 events in 50 s; some traces of loads and stores alone, as most real ones are.

    *forks*: of processes that begin by one another's forks.
    """
    every = [("process",), ("process",), ("vm",), ("vm", "process")]
    types = ("process",) * draw(st.integers(2, 3)) if forks else draw(st.sampled_from(every))
    plain = not forks and draw(st.booleans())
    out = []
    for second in sorted(draw(st.lists(st.integers(0, 45), min_size=1, max_size=12))):
        for _ in range(draw(st.integers(1, 4))):
            space, block = draw(st.integers(0, len(types) - 1)), draw(st.integers(0, 2))
            page, count = draw(st.sampled_from(PAGES)), draw(st.sampled_from([1, 1, 2, 30]))
            if not plain and draw(st.integers(0, 9)) < (3 if forks else 1):
                verb = draw(st.sampled_from(VERBS))
                child = draw(st.integers(0, len(types) - 1))
                if forks and child != space and draw(st.booleans()):
                    out.append((second, space, 0, 0, Verb.FORK, child))
                    continue
                whole = verb is Verb.MADV_DONTNEED
                out.append((second, space, block, 0 if whole else page, verb, 512 if whole else 1))
                continue
            kinds = KINDS[types[space]][: 4 if plain else None]
            out.append((second, space, block, page, draw(st.sampled_from(kinds)), count))
    if forks:
        at = draw(st.integers(0, len(out) // 2))
        out.insert(at, (out[at][0] if at < len(out) else 45, 0, 0, 0, Verb.FORK, 1))
    # A space that is to be forked has nothing before.
    unborn = {row[5] for row in out if row[4] == Verb.FORK and row[5]}
    first = [
        (out[0][0], s, b, 7, CR if t == "process" else GR, 1)
        for s, t in enumerate(types)
        for b in range(3)
        if s not in unborn
    ]
    born = set(range(len(types))) - unborn
    for row in list(out):
        if row[4] == Verb.FORK:
            born |= {row[5]}
        elif row[1] not in born:
            out.remove(row)
    return types, first + out


POLICIES = ["never", ALWAYS, "always", "khugepaged", "madv_collapse", Shuffle]


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.one_of(traces(), traces(forks=True)),
    st.sampled_from(POLICIES),
    st.sampled_from(["2.6.38", "6.1", "6.12", "7.2"]),
    st.sampled_from([None, None, TlbConfig(), TlbConfig(2, 1, 1, 1, 4, 2)]),
    st.sampled_from([None, None, 1, 2]),
    st.sampled_from([None, False, True]),
)
def test_every_figure_is_what_its_definition_counts(given_trace, policy, rules, tlb, budget, fill):
    types, rows = given_trace
    total, mine = counted_twice(types, rows, policy, rules, tlb, budget, fill)
    assert set(total) == set(METRICS) == set(mine)
    for key, value in mine.items():
        inexact = key in ("daemon_time", "fairness")  # sums in another order
        assert total[key] == (pytest.approx(value, rel=1e-12) if inexact else value), key


@pytest.mark.parametrize("tlb", [None, TlbConfig()])
def test_a_split_gives_back_no_page_whose_store_hit_the_tlb(tlb):
    # Shuffle makes block 5 huge at its first touch. The second store goes through the entry that the first has made dirty, and walks
    # nothing. At 20 s block 5 is split and keeps both pages, and block 1, of which one page was written, is collapsed.
    rows = [(0, 0, 5, 0, CW), (0, 0, 5, 1, CW), (10, 0, 1, 0, CW)]
    total, mine = counted_twice(("process",), rows, Shuffle, "7.2", tlb)
    assert total["bloat_share"] == mine["bloat_share"] == 511 / (512 + 2)


@pytest.mark.parametrize(("rules", "marks"), [("2.6.38", False), ("7.2", True)])
def test_a_pin_for_writing_marks_its_page_where_long_term_pins_do(rules, marks):
    # A VM's one page was aged before the trace; nobody but the pin uses it. A page that is not marked referenced is not collapsed.
    rows = [(0, 0, 0, 0, Kind.PIN_WRITE), (0, 0, 0, 0, Verb.UNPIN)]
    total, mine = counted_twice(("vm",), rows, "khugepaged", rules, None)
    assert total["collapses"] == mine["collapses"] == marks


def test_the_shuffle_splits():
    rows = [(s, 0, b, p, CW) for s in range(0, 100, 5) for b in range(4) for p in range(3)]
    events = trace(rows)
    plain = Plain(events, rows, Shuffle, "6.12")
    assert plain.n["splits"] > 0
    assert plain.n["collapses"] > 1
    assert compare(events, [Shuffle], ["6.12"], channels=False).rows[0].metrics["splits"] == plain.n["splits"]
    assert np.isfinite(plain.figures()["bloat_share"])
