"""What every policy is: deterministic, reading only, with an interval and knobs by default."""

import typing

import numpy as np
import pytest

from secondsight.policy import make, names
from secondsight.policy.protocol import ONLY_IN_A_REPLAY, Decision, Need, Policy
from support.looks import look


@pytest.mark.parametrize("name", names())
def test_nothing_is_decided_about_nothing(name):
    decision = make(name).wake(look(0))
    assert not len(decision.promote)
    assert not len(decision.split)


def test_what_a_policy_does_not_say_is_as_the_kernel_has_it():
    class Quiet(Policy):
        name = "quiet"

    quiet = Quiet()
    assert quiet.interval == 10 * 10**9 and quiet.knobs == {} and quiet.faults == "small"
    assert not quiet.khugepaged and not quiet.passive and quiet.needs == frozenset()
    quiet.every = 0.25
    assert quiet.interval == 250_000_000


def test_a_decision_is_empty_unless_said_and_shares_nothing():
    one, other = Decision(), Decision()
    assert len(one.promote) == len(one.split) == len(one.order) == 0
    assert one.promote is not other.promote


@pytest.mark.parametrize("name", names())
def test_the_same_look_brings_the_same_decision_and_is_left_as_it_was(name):
    rng = np.random.default_rng(1)
    columns = {
        key: rng.integers(0, 513, 40) for key in ("populated", "zero_filled", "young", "walks", "future")
    }
    seen = look(
        40, now=10, huge=rng.choice(40, 10, replace=False), free=0.1, space=np.arange(40) // 20, **columns
    )
    before = {key: getattr(seen, key).copy() for key in (*columns, "space", "block", "huge")}
    first, second = make(name).wake(seen), make(name).wake(seen)
    assert first.promote.tolist() == second.promote.tolist() and first.split.tolist() == second.split.tolist()
    assert all(np.array_equal(getattr(seen, key), old) for key, old in before.items())
    assert len(set(first.promote.tolist())) == len(first.promote) and not seen.huge[first.promote].any()
    assert seen.huge[first.split].all()


def test_signals_that_no_running_process_gives_say_why():
    assert set(ONLY_IN_A_REPLAY) < set(typing.get_args(Need)) and "young" not in ONLY_IN_A_REPLAY
    for name in names():
        assert set(make(name).needs) <= set(typing.get_args(Need))
