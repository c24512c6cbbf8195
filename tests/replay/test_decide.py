"""A policy at work: what it is told, how its decision is carried out, and what is no decision."""

import numpy as np
import pytest

from secondsight.errors import UsageError
from secondsight.policy import find
from secondsight.policy.protocol import Decision, Policy
from secondsight.replay import Configuration, replay
from support.events import CR, CW, trace


def one(rows, rules="7.2", spaces=("process",), scale=1.0, **fields):
    result = replay(trace(rows, spaces), [Configuration.of(rules, **fields)], time_scale=scale)
    return result, result.configurations[0].total


def test_a_policy_made_in_python_is_held_to_its_ranges():
    with pytest.raises(UsageError, match=r"^policy pcc: bits=60: must be 1 to 52$"):
        one([(0, 0, 0, 0, CW)], policy=lambda: find("pcc")(bits=60))


def wakes(rows, policy, rules="7.2", **fields):
    """What *policy* (a function of a Look) was told at each wake-up, and what came of its decisions."""
    told = []

    class Told(Policy):
        name = "told"
        needs = frozenset(fields.pop("needs", ()))

        def wake(self, look):
            told.append(look)
            return policy(look)

    result = replay(trace(rows), [Configuration.of(rules, policy=Told, **fields)])
    return told, result


def nothing(look):
    return Decision()


def at(*wanted, seconds=(0, 10, 20)):
    """Promotes the blocks *wanted*, in that order, at the wake-ups of *seconds*."""

    def wake(look):
        rows = [i for w in wanted for i in np.flatnonzero(look.block == w)]
        return Decision(promote=np.array(rows if look.now // 10**9 in seconds else [], np.int64))

    return wake


def test_a_policy_is_told_of_every_block_what_was_so_just_before():
    rows = [(0, 0, 3, 0, CW), (0, 0, 3, 1, CR), (1, 0, 5, 0, CW), (15, 0, 3, 2, CW), (25, 0, 5, 0, CR)]
    told, _ = wakes(rows, nothing)
    assert [look.now // 10**9 for look in told] == [0, 10, 20, 30]
    assert [look.since // 10**9 for look in told] == [0, 0, 10, 20]
    assert [look.block.tolist() for look in told] == [[3, 5]] * 4
    assert [look.populated.tolist() for look in told] == [[0, 0], [1, 1], [2, 1], [2, 1]]
    assert not any(look.huge.any() for look in told) and told[0].spaces == ("s0",)
    # Nobody needs them: not asked for, and not known.
    assert {int(each) for look in told for each in (*look.walks, *look.future)} == {-1}


def test_what_a_policy_needs_it_is_told_and_no_more():
    rows = [(0, 0, 0, 0, CW, 3), (12, 0, 0, 0, CR, 4), (13, 0, 1, 0, CW, 5)]
    told, _ = wakes(rows, nothing, needs=("future", "walks"))
    assert [look.future.tolist() for look in told] == [[7, 5], [4, 5], [0, 0]]
    # Since the last wake-up; without a TLB accesses stand for walks.
    assert [look.walks.tolist() for look in told] == [[0, 0], [3, 0], [4, 5]]


def test_a_policy_that_clears_sees_what_was_used_since():
    rows = [(0, 0, 0, 0, CW), (0, 0, 1, 0, CW), (12, 0, 1, 0, CR), (22, 0, 0, 0, CR)]
    told, _ = wakes(rows, nothing, needs=("clear_young",))
    assert [look.young.tolist() for look in told[1:]] == [[1, 1], [0, 1], [1, 0]]
    told, _ = wakes(rows, nothing, needs=("young",))
    assert [look.young.tolist() for look in told[1:]] == [[1, 1]] * 3


def test_what_is_promoted_is_collapsed_at_once_in_the_order_given_up_to_the_budget():
    rows = [(0, 0, b, 0, CW) for b in range(4)] + [(15, 0, 0, 1, CR)]
    for wanted in ((2, 0, 3, 1), (1, 3, 2, 0)):
        _, result = wakes(rows, at(*wanted, seconds=[10]), budget=2)
        assert np.flatnonzero(result.data[0].blocks.huge).tolist() == sorted(wanted[:2])
        assert result.configurations[0].total.collapses == 2
        assert result.configurations[0].budget_left == 0


def test_an_empty_block_gets_its_huge_page_at_the_first_touch():
    rows = [(0, 0, 0, 0, CW), (12, 0, 1, 0, CW), (13, 0, 2, 0, CW)]
    total = wakes(rows, at(1))[1].configurations[0].total
    assert (total.fault_huge, total.collapses, total.huge_at_end) == (1, 0, 1)
    # What the policy asks for once the block is populated is a collapse.
    total = wakes(rows, at(1, seconds=[20]))[1].configurations[0].total
    assert (total.fault_huge, total.collapses, total.huge_at_end) == (0, 1, 1)


def test_what_is_split_gives_back_what_nobody_wrote():
    rows = [(0, 0, 0, 0, CW), (0, 0, 0, 1, CW), (15, 0, 1, 0, CW)]

    def wake(look):
        return Decision(split=np.flatnonzero(look.huge)) if look.now else at(0)(look)

    _, result = wakes(rows, wake, rules="6.12")
    total = result.configurations[0].total
    assert total.splits == 1 and not result.data[0].blocks.huge.any()
    assert result.data[0].blocks.populated.tolist() == [2, 1]


def test_orders_below_a_block_collapse_its_parts_that_hold_a_page():
    rows = [(0, 0, 0, p, CW) for p in (0, 16, 17, 100)]

    def wake(look):
        rows = np.flatnonzero(look.populated > 0) if look.now < 15 * 10**9 else np.zeros(0, np.int64)
        return Decision(promote=rows, order=np.full(len(rows), 4))

    _, result = wakes(rows, wake, budget=1)
    total = result.configurations[0].total
    assert total.attempts["4"].begun == 3 and total.huge_at_end == 0
    assert result.configurations[0].budget_left == 1
    with pytest.raises(UsageError, match=r"no folios below 2 MiB: the policy's orders take 6\.8 or later"):
        wakes(rows, wake, rules="6.1")


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (lambda look: 1 // 0, r"ZeroDivisionError: .*\(line \d+ of test_decide\.py\)"),
        (lambda look: None, "wake returned a NoneType, not a Decision"),
        (
            lambda look: Decision(promote=np.array([0.5])),
            "promote must be an array of row numbers, not float64",
        ),
        (lambda look: Decision(split=np.zeros((1, 1), np.int64)), r"split must be .* of shape \(1, 1\)"),
        (lambda look: Decision(promote=np.array([2])), "promote names rows outside 0 to 1"),
        (lambda look: Decision(split=np.array([-1])), "split names rows outside 0 to 1"),
        (lambda look: Decision(np.array([0]), order=np.array([1])), "order must hold one of 2 to 9 for each"),
        (
            lambda look: Decision(np.array([0]), order=np.array([4, 4])),
            "order must hold one of 2 to 9 for each",
        ),
    ],
)
def test_what_is_no_decision_is_one_line_with_the_policy_and_the_time(returned, said):
    rows = [(0, 0, 0, 0, CW), (0, 0, 1, 0, CW)]
    with pytest.raises(UsageError, match=rf"^policy told failed at 0 s: {said}") as caught:
        wakes(rows, returned)
    assert "\n" not in str(caught.value)


def test_a_passive_policy_is_never_asked():
    class Passive(Policy):
        name = "passive"
        passive = True

        def wake(self, look):
            raise AssertionError

    result = replay(trace([(0, 0, 0, 0, CW)]), [Configuration.of("7.2", policy=Passive)])
    assert result.configurations[0].driver == "passive"
