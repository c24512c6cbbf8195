"""PCC: a table of few regions with narrow counters."""

from secondsight.policy import make
from support.looks import look, promoted


def test_pcc_keeps_a_small_table_and_halves():
    policy = make("pcc,entries=2,at_most=1")
    assert promoted(policy, look(3, populated=512, walks=[100, 300, 5])) == [1]
    # 300 was halved to 150, 100 to 50; 5 was evicted: 49 new walks do not lift it over the 50 kept.
    assert promoted(policy, look(3, populated=512, walks=[0, 0, 49], huge=[1])) == [0]
    assert promoted(policy, look(3, populated=512, walks=[-1, -1, -1], huge=[0, 1])) == [2]


def test_pcc_halves_all_counters_when_one_is_full():
    policy = make("pcc,bits=3")
    # 3 bits hold 7: 16 is halved twice to 4, and 5 with it to 1.
    assert promoted(policy, look(2, populated=512, walks=[16, 5])) == [0, 1]
    assert promoted(policy, look(2, populated=512, walks=[0, 4])) == [1, 0], "1 + 4 against 4"


def test_pcc_counts_nothing_of_a_block_that_is_huge_or_holds_nothing():
    policy = make("pcc")
    assert promoted(policy, look(3, populated=[512, 0, 512], walks=[9, 9, 1], huge=[0])) == [2]
    assert promoted(policy, look(3, populated=512, walks=0)) == [1, 2], (
        "what was counted while huge is forgotten"
    )
