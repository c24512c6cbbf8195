"""Ingens: dense blocks in use, and a fair turn for each space."""

from secondsight.policy import make
from support.looks import look, promoted


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


def test_ingens_prefers_what_is_used_more_often_within_a_space():
    policy = make("ingens")
    for young in ([1, 1, 0], [1, 0, 1], [1, 0, 1]):
        seen = look(3, populated=512, young=young)
        order = promoted(policy, seen)
    # Averages 0.784, 0.144 and 0.64; block 1 is not young now.
    assert order == [0, 2]
    assert promoted(make("ingens,at_most=1"), look(3, populated=512, young=1)) == [0]


def test_ingens_with_no_demand_on_density_takes_what_holds_anything():
    assert promoted(make("ingens,util=0"), look(3, populated=[0, 1, 512], young=1)) == [1, 2]
