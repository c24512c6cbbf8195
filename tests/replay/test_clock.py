"""khugepaged's clock: where its wake-ups lie in the trace, who is woken, and that their number is bounded."""

from fractions import Fraction

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secondsight.errors import UsageError
from secondsight.mm.config import Knobs
from secondsight.policy import make
from secondsight.replay import HOST, Configuration, replay
from secondsight.replay.clock import Alarm, KhugepagedClock, alarms, bound, configured, scale_of
from support.events import CW, trace


def one(rows, rules="7.2", spaces=("process",), scale=1.0, **fields):
    result = replay(trace(rows, spaces), [Configuration.of(rules, **fields)], time_scale=scale)
    return result, result.configurations[0].total


def test_a_scale_is_the_number_that_was_written():
    # A tenth: the first wake-up at 10 s is the trace's 100 s, to the ns, where 0.1 as a double lies beside it.
    clock = KhugepagedClock(0.1, 7)
    assert clock.trace_time(10**10) == 10**11 + 7
    assert KhugepagedClock(0.3, 0).trace_time(10**10) == 33_333_333_334
    assert KhugepagedClock(1e-30, 0).trace_time(10**10) == 10**40


def test_more_wake_ups_than_a_replay_makes():
    rows = [(0, 0, 0, 0, CW), (10, 0, 0, 0, CW)]
    with pytest.raises(
        UsageError,
        match=r"^time scale 1000001: .* would wake 1,000,002 times .* at most 1000000, or a longer interval",
    ):
        one(rows, scale=1_000_001)
    with pytest.raises(UsageError, match=r"would wake 1.00e\+30 times"):
        one(rows, scale=1e30)
    with pytest.raises(
        UsageError, match=r"the policy pcc, every 0\.001 s of its clock, would wake 10,000,001 times"
    ):
        one(rows, scale=1000, policy=lambda: make("pcc,every=0.001"))
    # Rare wake-ups, but a clock that int64 does not hold.
    rare = Knobs(scan_sleep_millisecs=(1 << 32) - 1)
    with pytest.raises(UsageError, match=r"within 292 years: give a time scale of at most 921000000"):
        one(rows, scale=1e10, config=msgspec.structs.replace(HOST, knobs=rare))
    # One moment is one wake-up, whatever the scale.
    result, _ = one([(3, 0, 0, 0, CW)], scale=1e308)
    assert result.configurations[0].wakes == 1
    assert result.provenance.time_scale == 1e308


SECONDS = 10**9


@given(
    scale=st.sampled_from([0.001, 0.1, 0.3, 1.0, 7.0, 1000.0]),
    start=st.integers(0, 10**15),
    clock=st.integers(0, 10**13),
)
def test_a_wake_up_lies_at_the_first_moment_that_is_not_before_it(scale, start, clock):
    exact = Fraction(repr(scale))
    at = KhugepagedClock(scale, start).trace_time(clock)
    assert (at - start) * exact >= clock > (at - start - 1) * exact


def test_who_wakes_and_when():
    slow = msgspec.structs.replace(HOST, knobs=Knobs(scan_sleep_millisecs=2500))
    ours = Alarm(2_500_000_000, 2_500_000_000, False)
    assert alarms(None, slow) == [ours]
    assert alarms(make("never"), slow) == [Alarm(0, 10 * SECONDS, True)], "never does without khugepaged"
    assert alarms(make("always"), slow) == [ours, Alarm(0, 10 * SECONDS, True)]
    assert alarms(make("pcc,every=0.5"), slow) == [Alarm(0, SECONDS // 2, True)], (
        "at once, then every half second"
    )


def test_what_a_policy_sets_is_the_hosts_and_the_rest_stays():
    host = msgspec.structs.replace(HOST, knobs=Knobs(max_ptes_none=3, pages_to_scan=77))
    assert configured(None, host) is host
    shrunk = configured(make("thp_shrinker,max_ptes_none=200"), host)
    assert shrunk.knobs == Knobs(max_ptes_none=200, pages_to_scan=77)
    assert not configured(make("oracle"), host).use_zero_page and host.use_zero_page
    with pytest.raises(UsageError, match="scan_sleep_millisecs=0: a replay needs a clock"):
        configured(None, msgspec.structs.replace(HOST, knobs=Knobs(scan_sleep_millisecs=0)))


@pytest.mark.parametrize("value", [0, -1, "2", None, float("nan"), float("inf"), 10**400])
def test_what_is_no_positive_number_is_no_scale(value):
    with pytest.raises(UsageError, match="must be a positive number"):
        scale_of(value)


def test_a_bound_that_is_just_kept_and_just_broken():
    hosts = [(None, HOST)]
    bound(1_000_000.0, (0, 10 * SECONDS), hosts)
    with pytest.raises(UsageError, match="would wake 1,000,002 times") as raised:
        bound(1_000_001.0, (0, 10 * SECONDS), hosts)
    assert "give a time scale of at most 1000000" in str(raised.value)
    bound(1e300, (5, 5), hosts)
