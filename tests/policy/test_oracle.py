"""The oracle: a bound that no policy beats, on any trace."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from secondsight.policy import make, names
from support.looks import look, promoted, run


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


def test_the_oracle_promises_no_more_than_the_budget_pays():
    policy = make("oracle")
    assert promoted(policy, look(4, future=[3, 9, 1, 5], budget=2)) == [1, 3]
    # Neither was touched yet: both promises are still to be paid for, and nothing is left for the others.
    assert promoted(policy, look(4, future=[3, 9, 1, 5], budget=2)) == []
    # One came: it is huge and has been paid, the other stays promised.
    assert promoted(policy, look(4, future=[3, 8, 1, 5], budget=1, huge=[1], populated=[0, 512, 0, 0])) == []
    assert promoted(policy, look(4, future=[3, 8, 1, 5], budget=2, huge=[1], populated=[0, 512, 0, 0])) == [0]


def test_the_oracles_first_read_maps_a_page_of_its_own():
    assert make("oracle").knobs == {"use_zero_page": 0}
