"""Charts as SVG: round ticks, lines thinned without losing their ends, and names that are text."""

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secondsight.report.svg import Axis, Line, changes, chart, swatch, thin, ticks


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_few_and_inside(low, width):
    marks = ticks(low, low + width)
    assert 1 <= len(marks) <= 11
    assert all(low - 1e-6 * width <= t <= low + width * (1 + 1e-6) + 1e-6 for t in marks)


def test_a_chart_keeps_ends_when_it_is_thinned():
    points = [(float(i), float(i * i)) for i in range(5000)]
    kept = thin(points)
    assert len(kept) <= 402
    assert (kept[0], kept[-1]) == (points[0], points[-1])


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30))
def test_a_step_line_of_its_changes_is_the_same_line(values):
    points = [(float(i), float(v)) for i, v in enumerate(values)]
    kept = changes(points)
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    for x, y in points:
        assert [b for a, b in kept if a <= x][-1] == y


def test_a_chart_escapes_its_labels():
    assert "<b>" not in chart([Line('<b>&"', [(0, 1), (1, 2)], 0)], Axis("<b>"), Axis("y"))


@pytest.mark.parametrize(
    ("low", "high", "marks"),
    [
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (3, 47, [10, 20, 30, 40]),
        (0, 22, [0, 5, 10, 15, 20]),
        (-5, 5, [-4, -2, 0, 2, 4]),
        (0, 0.03, [0, 0.01, 0.02, 0.03]),
        (7, 7, [7]),
        (9, 2, [9]),
    ],
)
def test_ticks_are_round_numbers(low, high, marks):
    assert ticks(low, high) == marks


def drawn(*lines, marks=(), standalone=""):
    """The elements of a chart from 0 to 10 s and 0 to 4 blocks."""
    text = chart(lines, Axis("time"), Axis("blocks", most=4), marks=marks, standalone=standalone)
    return ElementTree.fromstring(text)


def paths(root):
    return [each.get("d") for each in root.iter("{http://www.w3.org/2000/svg}path") if each.get("data-row")]


def test_a_point_lies_where_its_value_is():
    """The plot is 462 wide from 80, and 244 high down to 256."""
    (path,) = paths(drawn(Line("a", [(0, 0), (5, 2), (10, 4)], 0)))
    assert path == "M80.0 256.0L311.0 134.0L542.0 12.0"


def test_a_step_holds_until_the_next_point():
    (path,) = paths(drawn(Line("a", [(0, 0), (5, 0), (10, 4)], 0, step=True)))
    assert path == "M80.0 256.0L542.0 256.0L542.0 12.0", "the point where nothing changed is left out"


def test_what_is_beyond_the_axis_is_cut_there():
    (path,) = paths(drawn(Line("a", [(0, 9), (10, 4)], 0)))
    assert path == "M80.0 12.0L542.0 12.0"


def test_a_row_keeps_its_look_and_the_next_eight_have_dashes():
    root = drawn(*(Line(f"r{index}", [(0, 1), (10, 1)], index) for index in (0, 7, 8, 17)))
    series = [each for each in root.iter("{http://www.w3.org/2000/svg}path") if each.get("data-row")]
    assert [each.get("class") for each in series] == ["series c0", "series c7", "series c0", "series c1"]
    assert [each.get("stroke-dasharray") for each in series] == [None, None, "6 3", "2 3"]
    assert 'class="series c1"' in swatch(9) and "6 3" in swatch(9) and "dasharray" not in swatch(1)


def test_a_moment_is_marked_inside_the_chart_alone():
    marks = ((5.0, "here"), (11.0, "later"))
    root = drawn(Line("a", [(0, 1), (10, 1)], 0), marks=marks)
    assert [
        each.get("x1")
        for each in root.iter("{http://www.w3.org/2000/svg}line")
        if each.get("class") == "mark"
    ] == ["311.0"]


def test_a_chart_of_nothing_is_a_chart():
    assert paths(drawn()) == [] and paths(drawn(Line("a", [(3, 0)], 0))) == ["M542.0 256.0"]
