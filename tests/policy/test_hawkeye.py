"""HawkEye: coverage in bins of fifty pages, turns of the spaces, and memory taken back when it runs short."""

from secondsight.policy import make
from support.looks import look, promoted


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


def test_hawkeye_counts_no_block_that_holds_nothing_or_was_never_young():
    assert promoted(
        make("hawkeye,alpha=1"), look(4, populated=[0, 1, 512, 512], young=[1, 1, 0, 1], huge=[3])
    ) == [1]


def test_hawkeye_under_pressure_promotes_nothing_and_splits_no_page_without_zeroes():
    policy = make("hawkeye,alpha=1,at_most=1")
    columns = {"populated": 512, "young": 512, "zero_filled": [0, 7, 9], "huge": [0, 1]}
    calm = policy.wake(look(3, free=0.5, **columns))
    assert calm.promote.tolist() == [2] and not len(calm.split)
    short = policy.wake(look(3, free=0.1, **columns))
    assert not len(short.promote) and short.split.tolist() == [1], "block 2 is small, block 0 has no zeroes"
    unknown = make("hawkeye,alpha=1").wake(look(3, **columns))
    assert unknown.promote.tolist() == [2], "a host that does not say how much is free is not short of it"
