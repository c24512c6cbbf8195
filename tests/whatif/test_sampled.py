"""Figures over what could not be known, counted by hand; on samples of processes `tests/live/test_sampling.py` asks them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secondsight.replay.metrics import BlockFigures
from secondsight.whatif.sampled import Span, coverage


def blocks(*uses):
    """Blocks with so many uses, of which so many met a huge page."""
    nothing = np.zeros(len(uses), np.int64)
    fields = dict.fromkeys(BlockFigures.__dataclass_fields__, nothing)
    accesses, huge = (np.array(column, np.int64) for column in zip(*uses, strict=True))
    return BlockFigures(**(fields | {"accesses": accesses, "accesses_huge": huge}))


def test_a_span_holds_all_its_values():
    assert Span.of(3.0, 1.0, 2.0) == Span(1.0, 3.0)


@pytest.mark.parametrize(
    ("least", "most", "low", "high"),
    [
        ([(10, 5)], [(10, 5)], 0.5, 0.5),  # all is known
        ([(10, 10)], [(20, 20)], 1.0, 1.0),  # whatever the others were, each landed huge
        ([(10, 0)], [(20, 0)], 0.0, 0.0),
        # One block, of whose 20 uses 10 are known: huge in one reading, small in the other.
        ([(10, 10)], [(20, 0)], 0.0, 1.0),
        # A second block that is known to be small takes half.
        ([(10, 10), (10, 0)], [(10, 10), (10, 0)], 0.5, 0.5),
        ([(10, 10), (10, 0)], [(10, 10), (30, 0)], 0.25, 0.5),
    ],
)
def test_coverage_over_both_readings(least, most, low, high):
    assert coverage(blocks(*least), blocks(*most)) == Span(low, high)


def test_where_no_use_is_known_coverage_is_not():
    assert coverage(blocks((0, 0)), blocks((50, 50))) is None


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=8),
    st.data(),
)
def test_no_reading_lies_outside(uses, data):
    """Known uses, those of them that met a huge page, and uses that may have been; of these any part may have been, huge or not."""
    uses = [(known, min(huge, known), more) for known, huge, more in uses]
    least = [(known, huge) for known, huge, _ in uses]
    most = [(known + more, huge + more) for known, huge, more in uses]
    found = coverage(blocks(*least), blocks(*most))
    extra = [data.draw(st.integers(0, more)) for *_, more in uses]
    total = sum(known for known, _, _ in uses) + sum(extra)
    if found is not None:
        truth = (sum(huge for _, huge, _ in uses) + sum(extra)) / total
        assert found.low - 1e-9 <= truth <= found.high + 1e-9
