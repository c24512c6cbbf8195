"""Results travel as JSON and come back the same; figures are printed for people; answers and charts say what is so."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secondsight.errors import InputError, UsageError
from secondsight.report import decode, encode, explain
from secondsight.report.answer import best_within
from secondsight.report.metrics import METRICS, SHOWN, text
from secondsight.report.schema import finite, pack
from secondsight.report.svg import Line, chart, thin, ticks
from secondsight.report.verdicts import VERDICTS, rule
from support.results import results


@given(st.lists(st.integers(-300, 600), max_size=40), st.sampled_from(["i2", "i4", "f4", "f8"]))
def test_an_array_comes_back_as_it_went(values, dtype):
    packed = pack(np.array(values).reshape(-1, 1), dtype)
    assert packed.shape == [len(values), 1]
    assert packed.array().ravel().tolist() == values


def test_a_damaged_array_is_said_to_be_damaged():
    packed = pack([1, 2, 3], "i4")
    broken = type(packed)(packed.dtype, packed.shape, packed.data[:8])
    with pytest.raises(ValueError, match="damaged"):
        broken.array()


def test_results_come_back_as_they_went():
    made = results(blocks=12, columns=3)
    assert decode(encode(made), "r.json") == made
    assert encode(made) == encode(results(blocks=12, columns=3))


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"{}", "schema version None"),
        (b'{"schema": 99}', "version 99"),
        (b"nonsense", "not a results file"),
        (b'{"schema": 1}', "not a results file"),
    ],
)
def test_what_is_no_results_file_is_refused(raw, said):
    with pytest.raises(InputError, match=said):
        decode(raw, "r.json")


def test_figures_are_found_by_key_and_by_title():
    assert explain("bloat_share").key == "bloat_share"
    assert explain("MMU overhead, nested").key == "overhead_nested"
    with pytest.raises(UsageError, match="did you mean coverage"):
        explain("coverge")
    assert set(SHOWN) <= set(METRICS)


@pytest.mark.parametrize(
    ("value", "form", "said"),
    [(None, "count", "–"), (0.9314, "share", "93.1 %"), (12.5 * 2**20, "bytes", "12.5 MiB"), (100, "bytes", "100 B"),
     (0.0018, "seconds", "1.8 ms"),
     (2.5e-7, "seconds", "0.2 µs"), (0, "seconds", "0"), (1234567, "count", "1.2 M"), (12345, "count", "12 345"), (0.5, "index", "0.50")],
)  # fmt: skip
def test_figures_are_printed_for_people(value, form, said):
    assert text(value, form) == said


def test_only_finite_numbers_reach_json():
    assert finite(math.nan) is None
    assert finite(math.inf) is None
    assert finite(np.float64(1.5)) == 1.5


def test_the_oracles_curve_is_read_between_its_points():
    curve = [(0.5, 0.8), (1.0, 1.0)]
    assert best_within(curve, 0.25) == pytest.approx(0.4)
    assert best_within(curve, 0.75) == pytest.approx(0.9)
    assert best_within([], 0.5) is None


def test_every_answer_of_khugepaged_has_its_rule():
    from secondsight.mm.judgement import Scan

    for code in Scan:
        assert str(code) in VERDICTS
    assert "66bc627e7fee" in rule("lack_referenced_page@isolate").cite
    assert rule("page_locked@isolate").meaning.startswith("In the second look")


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_few_and_inside(low, width):
    found = ticks(low, low + width)
    assert 1 <= len(found) <= 11
    assert all(low - 1e-6 * width <= t <= low + width * (1 + 1e-6) + 1e-6 for t in found)


def test_a_chart_keeps_ends_when_it_is_thinned():
    points = [(float(i), float(i * i)) for i in range(5000)]
    kept = thin(points)
    assert len(kept) <= 402
    assert (kept[0], kept[-1]) == (points[0], points[-1])


def test_a_chart_escapes_its_labels():
    assert "<b>" not in chart([Line('<b>&"', [(0, 1), (1, 2)], 0)], x_title="<b>", y_title="y")
