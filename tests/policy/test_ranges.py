"""What an option may be: held wherever it comes from, and said with its range."""

import pytest

from secondsight.errors import UsageError
from secondsight.policy import check, find, make, options, ranges, registry
from secondsight.policy.ranges import Within


@pytest.mark.parametrize("name", registry.installed())
def test_each_number_that_is_an_option_has_a_range_and_its_default_lies_in_it(name):
    policy = find(name)
    held = ranges(policy)
    assert set(held) == {key for key, (kind, _) in options(policy).items() if kind in (int, float)}
    for key, within in held.items():
        assert options(policy)[key][1] in within
        for wrong in (within.low - 10, within.high * 2 + 1, float("nan")):
            made = policy()
            setattr(made, key, wrong)
            with pytest.raises(UsageError, match=f"^policy {name}: {key}=.*: must be "):
                check(made)


@pytest.mark.parametrize(
    ("within", "inside", "outside", "said"),
    [
        (Within(0, 1), (0, 1, 0.5), (-0.1, 1.1, float("nan")), "0 to 1"),
        (Within(0, 511, -1, "the host's"), (-1, 0, 511), (-2, 512), "0 to 511, or -1: the host's"),
        (Within(0.001, 4_294_967.295), (0.001, 1), (0, 5e6), "0.001 to 4294967.295"),
        (Within(0, 0.1 + 0.2), (0.3,), (0.31,), "0 to 0.3"),
        (Within(1, 1 << 35, 0, "no limit"), (0, 1), (-1, 1 << 36), "1 to 34359738368, or 0: no limit"),
    ],
)
def test_a_range_holds_its_ends_and_its_word_for_none(within, inside, outside, said):
    assert all(value in within for value in inside) and not any(value in within for value in outside)
    assert str(within) == said


def test_options_without_a_range_have_none():
    assert set(ranges(find("damon_ethp"))) == {"hot", "cold", "every"}, "split is true or false"
    assert ranges(find("never")) == {}


def test_a_policy_made_in_python_is_held_to_its_ranges_too():
    policy = make("hawkeye")
    check(policy)
    policy.low = 1.5
    with pytest.raises(UsageError, match=r"^policy hawkeye: low=1\.5: must be 0 to 1$"):
        check(policy)
