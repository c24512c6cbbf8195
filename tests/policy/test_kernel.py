"""The policies of kernels and their users, on Looks small enough to be decided by hand."""

from secondsight.policy import make
from support.looks import look, promoted, run


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


def test_always_covers_everything_it_may():
    windows = [[0, 1, 2], [2, 3]]
    assert run(make("always"), windows, 4, 99) == 5


def test_madv_collapse_asks_for_no_use_and_leaves_huge_blocks_alone():
    seen = look(3, populated=512, young=[0, 512, 512], huge=[2])
    assert promoted(make("madv_collapse"), seen) == [0, 1]
    assert make("madv_collapse").knobs == {} and not make("madv_collapse").needs


def test_damon_ethp_is_warm_again_from_the_first_access():
    policy = make("damon_ethp,split=true,cold=3")
    split = [
        policy.wake(
            look(1, now=second, since=second - 1, populated=512, young=young, huge=[0])
        ).split.tolist()
        for second, young in enumerate((1, 0, 0, 0, 1, 0, 0), start=1)
    ]
    # Idle for three whole seconds at the fourth look; used at the fifth, so that the count begins anew.
    assert split == [[], [], [], [0], [], [], []]


def test_damon_ethp_of_a_huge_page_one_bit_stands_for_all_its_pages():
    """One young page of a small block of twenty is 5 %; nothing of a huge one is promoted again."""
    assert promoted(make("damon_ethp"), look(3, populated=[20, 21, 0], young=[1, 1, 0])) == [0]
    assert promoted(make("damon_ethp"), look(1, populated=512, young=512, huge=[0])) == []


def test_the_shrinkers_threshold_is_khugepageds_file():
    assert make("thp_shrinker").knobs == {"max_ptes_none": 409}
    policy = make("thp_shrinker,max_ptes_none=0,free_below=0.5")
    seen = look(2, zero_filled=[0, 1], huge=[0, 1], free=0.49)
    assert policy.wake(seen).split.tolist() == [1]
    assert not len(policy.wake(look(2, zero_filled=[0, 1], huge=[0, 1], free=0.5)).split)
