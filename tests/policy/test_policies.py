"""Each shipped policy on Looks small enough to be decided by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secondsight.policy import make, names
from secondsight.policy.history import History, rank_within
from support.looks import look, run


def promoted(policy, seen):
    return policy.wake(seen).promote.tolist()


def test_never_and_always_leave_it_to_faults():
    full = look(2, populated=512, young=512, walks=9, future=9)
    for name, faults, daemon in (
        ("never", "small", False),
        ("always", "huge", True),
        ("khugepaged", "small", True),
    ):
        policy = make(name)
        decision = policy.wake(full)
        assert not len(decision.promote)
        assert not len(decision.split)
        assert (policy.faults, policy.khugepaged) == (faults, daemon)


def test_khugepaged_passes_on_only_the_files_that_were_given():
    assert make("khugepaged").knobs == {}
    assert make("khugepaged,max_ptes_none=0,pages_to_scan=512").knobs == {
        "max_ptes_none": 0,
        "pages_to_scan": 512,
    }


def test_madv_collapse_takes_what_is_populated_in_address_order():
    seen = look(4, populated=[1, 0, 512, 300], huge=[2])
    assert promoted(make("madv_collapse"), seen) == [0, 3]
    assert promoted(make("madv_collapse,min_populated=2"), seen) == [3]
    assert promoted(make("madv_collapse,at_most=1"), seen) == [0]


def test_damon_ethp_hot_at_five_per_cent_cold_after_seven_seconds():
    policy = make("damon_ethp,split=true")
    # 512 pages: 5 % is 25.6, so 25 young pages are too few and 26 enough.
    assert promoted(policy, look(3, now=1, populated=512, young=[25, 26, 512])) == [2, 1]
    for second in range(1, 9):
        decision = policy.wake(
            look(3, now=1 + second, since=second, populated=512, young=[0, 0, 1], huge=[0, 2])
        )
        assert decision.split.tolist() == ([0] if second >= 7 else [])


def test_damon_ethp_splits_nothing_by_itself():
    policy = make("damon_ethp")
    assert not len(policy.wake(look(1, now=60, populated=512, huge=[0])).split)


def test_thp_shrinker_counts_zero_filled_pages_as_the_kernel():
    seen = look(3, populated=512, zero_filled=[409, 410, 512], huge=[0, 1])
    assert make("thp_shrinker").wake(seen).split.tolist() == [1]
    assert not len(make("thp_shrinker,max_ptes_none=511").wake(look(1, zero_filled=512, huge=[0])).split)
    plenty = look(1, zero_filled=512, huge=[0], free=0.5)
    assert not len(make("thp_shrinker,free_below=0.2").wake(plenty).split)


def test_ingens_needs_ninety_per_cent_and_a_reference():
    # 0.9 x 512 = 460.8
    seen = look(4, populated=[460, 461, 512, 512], young=[5, 5, 5, 0])
    assert promoted(make("ingens"), seen) == [1, 2]


def test_ingens_serves_the_space_that_holds_least():
    # Space 0 holds two huge pages in use, space 1 none: 1 gets its three first (due 1, 2, 3 against 3).
    space, block = [0, 0, 0, 1, 1, 1], [0, 1, 2, 0, 1, 2]
    seen = look(6, space=space, block=block, populated=512, young=512, huge=[0, 1])
    policy = make("ingens,active=0.4")
    assert promoted(policy, seen) == [3, 4, 2, 5]
    # Idle huge pages weigh double: with nothing in use tau is 2, so space 0's next is due at 6.
    idle = look(6, space=space, block=block, populated=512, young=[0, 0, 512, 512, 512, 512], huge=[0, 1])
    assert promoted(make("ingens"), idle) == [3, 4, 5, 2]


def test_hawkeye_orders_by_bins_of_fifty_and_turns():
    # alpha 1: coverage is this look's. Bins: 49 -> 0, 50 -> 1, 449 -> 8, 450 -> 9, 512 -> 9.
    seen = look(6, populated=512, young=[49, 50, 449, 450, 512, 0], space=[0, 0, 0, 0, 0, 0])
    assert promoted(make("hawkeye,alpha=1"), seen) == [3, 4, 2, 1, 0]
    two = look(4, populated=512, young=512, space=[0, 0, 1, 1], block=[0, 1, 0, 1])
    assert promoted(make("hawkeye"), two) == [0, 2, 1, 3]


def test_hawkeye_averages_over_wake_ups():
    policy = make("hawkeye")
    policy.wake(look(2, populated=512, young=[500, 0]))
    # 0.4 x 0 + 0.6 x (0.4 x 500) = 120 against 0.4 x 250 = 100: bins 2 and 2; 0.4 x 400 = 160, bin 3.
    assert promoted(policy, look(3, populated=512, young=[0, 250, 400])) == [2, 0, 1]


def test_hawkeye_gives_back_between_fifteen_and_thirty_per_cent():
    policy = make("hawkeye")
    columns = {"populated": 512, "young": 512, "zero_filled": [10, 500, 0], "huge": [0, 1, 2]}
    split = [
        policy.wake(look(3, free=free, **columns)).split.tolist() for free in (0.2, 0.14, 0.29, 0.30, 0.2)
    ]
    assert split == [[], [1, 0], [1, 0], [], []]


def test_pcc_keeps_a_small_table_and_halves():
    policy = make("pcc,entries=2,at_most=1")
    assert promoted(policy, look(3, populated=512, walks=[100, 300, 5])) == [1]
    # 300 was halved to 150, 100 to 50; 5 was evicted: 49 new walks do not lift it over the 50 kept.
    assert promoted(policy, look(3, populated=512, walks=[0, 0, 49], huge=[1])) == [0]
    assert promoted(policy, look(3, populated=512, walks=[-1, -1, -1], huge=[0, 1])) == [2]


def test_oracle_takes_the_most_accessed_first_touched_or_not():
    assert promoted(make("oracle"), look(4, future=[3, 9, 0, 5], populated=[512, 0, 512, 1])) == [1, 3, 0]


traces = st.lists(st.lists(st.integers(0, 5), max_size=12), min_size=1, max_size=6)


@settings(max_examples=150, deadline=None)
@given(traces, st.integers(0, 7), st.sampled_from([n for n in names() if n != "oracle"]))
def test_no_policy_covers_more_than_the_oracle(windows, budget, name):
    easy = {"ingens": "ingens,util=0", "madv_collapse": "madv_collapse,every=1"}.get(name, name)
    bound = run(make("oracle"), windows, 6, budget)
    assert run(make(easy), windows, 6, budget) <= bound
    totals = sorted(np.bincount([b for w in windows for b in w], minlength=6))[::-1]
    assert bound == sum(totals[:budget])


def test_always_covers_everything_it_may():
    windows = [[0, 1, 2], [2, 3]]
    assert run(make("always"), windows, 4, 99) == 5


def test_a_history_follows_its_blocks():
    history = History(default=-1.0)
    history.align(look(3, space=[0, 0, 1], block=[4, 5, 0]))[:] = [7, 8, 9]
    assert history.align(look(3, space=[0, 0, 1], block=[5, 6, 0])).tolist() == [8, -1, 9]


@given(st.lists(st.integers(0, 4), max_size=30))
def test_rank_within_counts_the_equal_ones_before(groups):
    expected = [groups[:i].count(g) for i, g in enumerate(groups)]
    assert rank_within(np.asarray(groups, np.int64)).tolist() == expected


@pytest.mark.parametrize("name", names())
def test_nothing_is_decided_about_nothing(name):
    decision = make(name).wake(look(0))
    assert not len(decision.promote)
    assert not len(decision.split)
