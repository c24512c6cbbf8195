"""What is compared: policies, profiles and knobs written out, each row once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secondsight.errors import UsageError
from secondsight.mm.config import HostConfig, Sizes
from secondsight.policy import UNLIMITED
from secondsight.whatif.combine import MOST, Range, combinations, grid, parse_budget, varied


@pytest.mark.parametrize(
    "text", ["max_ptes_none", "max_ptes_none=a", "=1", "k=5..1", "k=1..5:0", "k=0..9e9:1", "k=nan..1"]
)
def test_a_range_that_is_none_is_refused(text):
    with pytest.raises(UsageError, match="--vary"):
        Range.parse(text)


@given(st.integers(0, 500), st.integers(0, 500), st.integers(1, 100))
def test_a_range_holds_its_ends(low, width, step):
    values = Range.parse(f"k={low}..{low + width}:{step}").values
    assert (values[0], values[-1]) == (low, low + width)
    assert list(values) == sorted(set(values))


def test_bounds_are_run_once_and_rows_not_twice():
    labels = [c.label for c in combinations(["never", "khugepaged", "khugepaged", "oracle"], ["6.1", "7.2"])]
    assert labels == ["never under 6.1", "khugepaged under 6.1", "khugepaged under 7.2", "oracle under 6.1"]
    with pytest.raises(UsageError, match="at least one"):
        combinations([], ["7.2"])


@pytest.mark.parametrize(("budget", "blocks"), [(3, 3), ("3", 3), ("25%", 10), ("0", 0)])
def test_budgets(budget, blocks):
    assert parse_budget(budget, 40) == blocks


@pytest.mark.parametrize("budget", ["-1", "many", "%", "nan%", "1.5"])
def test_a_budget_that_is_none_is_refused(budget):
    with pytest.raises(UsageError, match="budget"):
        parse_budget(budget, 40)


def test_no_budget_is_no_limit():
    assert parse_budget(None, 40) == UNLIMITED


def test_a_knob_is_varied_where_somebody_has_it():
    khugepaged, never, hawkeye = combinations(["khugepaged", "never", "hawkeye"], ["7.2"])
    changed = varied(khugepaged, "max_ptes_none", 5.0)
    assert (changed.config.knobs.max_ptes_none, changed.label) == (5, "khugepaged under 7.2 max_ptes_none=5")
    assert khugepaged.config.knobs.max_ptes_none == 511, "what it was made of stays"
    assert varied(never, "max_ptes_none", 5.0) is None and varied(khugepaged, "alpha", 0.5) is None
    assert varied(hawkeye, "alpha", 0.7).make().alpha == 0.7 and hawkeye.make().alpha == 0.4
    with pytest.raises(UsageError, match="takes whole numbers"):
        varied(khugepaged, "max_ptes_none", 5.5)
    with pytest.raises(UsageError, match=r"alpha=1\.5: must be 0 to 1"):
        varied(hawkeye, "alpha", 1.5)


def test_a_grid_is_every_value_of_every_knob_that_a_row_has():
    chosen = combinations(["khugepaged", "never"], ["7.2"])
    ranges = [Range("max_ptes_none", (0.0, 511.0)), Range("max_ptes_swap", (1.0, 2.0, 3.0))]
    made = grid(chosen, ranges)
    assert len(made) == 2 * 3 + 1 and len({each.label for each in made}) == 7
    assert {(c.config.knobs.max_ptes_none, c.config.knobs.max_ptes_swap) for c in made[:6]} == {
        (none, swap) for none in (0, 511) for swap in (1, 2, 3)
    }
    with pytest.raises(UsageError, match="alpha: neither khugepaged nor any"):
        grid(chosen, [Range("alpha", (0.5,))])
    many = [
        Range("max_ptes_none", tuple(map(float, range(40)))),
        Range("max_ptes_swap", tuple(map(float, range(40)))),
    ]
    with pytest.raises(UsageError, match=f"1600 values of its knobs together; at most {MOST}"):
        grid(chosen, many)


def test_a_kernel_without_sizes_cannot_be_set_up_so():
    sized = HostConfig(sizes=Sizes(kb64="always"))
    old, new = combinations(["khugepaged"], ["6.1", "7.2"], sized)
    assert "6.1 has no hugepages-*kB/enabled" in old.not_run and new.not_run == ""
    bound, *_ = combinations(["never"], ["6.1", "7.2"], sized)
    assert bound.label == "never under 7.2", "the first that the host can be"
