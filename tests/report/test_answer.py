"""The sentence that answers a comparison, where khugepaged is refused more than it collapses."""

import msgspec
import pytest

from secondsight.report.answer import MANY_REFUSED, answer, best_within
from secondsight.report.schema import Attempts
from support.results import results


def khugepaged(refused, collapses, sizes):
    row = next(r for r in results(30, 8).rows if r.policy == "khugepaged")
    metrics = dict(row.metrics) | {"refused_collapses": float(refused), "collapses": float(collapses)}
    attempts = {order: Attempts(n, n, n, n) for order, n in sizes.items()}
    return msgspec.structs.replace(row, metrics=metrics, attempts=attempts)


def test_refused_collapses_are_told_by_size():
    sentences = answer([khugepaged(330, 2, {"9": 10, "4": 320})], [])
    assert "330 collapses are begun and refused (2 MiB 10, 64 KiB 320)" in sentences
    assert "2 succeed" in sentences


def test_of_whole_blocks_no_size_is_told():
    sentences = answer([khugepaged(MANY_REFUSED, 2, {"9": MANY_REFUSED})], [])
    assert f"{MANY_REFUSED} collapses are begun and refused, each" in sentences


@pytest.mark.parametrize(("refused", "collapses"), [(MANY_REFUSED - 1, 0), (500, 500)])
def test_few_refusals_are_not_worth_the_headline(refused, collapses):
    assert "refused" not in answer([khugepaged(refused, collapses, {"4": refused})], [])


def test_a_row_that_was_not_run_is_no_answer():
    rows = [msgspec.structs.replace(khugepaged(0, 0, {}), not_run="no such switch"), khugepaged(0, 3, {})]
    assert answer(rows, []) == answer(rows[1:], [])


def test_the_oracles_curve_is_read_between_its_points():
    curve = [(0.5, 0.8), (1.0, 1.0)]
    assert best_within(curve, 0.25) == pytest.approx(0.4)
    assert best_within(curve, 0.75) == pytest.approx(0.9)
    assert best_within([], 0.5) is None
