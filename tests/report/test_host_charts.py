"""The charts of a recorded host: names are text, units fit, and counters stand where they belong."""

import pytest

from secondsight.report.host_charts import DRAWN, as_html, charts, plain, refuses, unit_of
from secondsight.report.host_history import HostHistory, MarkedMoment, RecordedRow, Timeline


def history(rows=3, **more):
    """Rows of which each grew by 1 MiB more than the one before."""
    made = [RecordedRow(f"row{n}", [0.0, 60.0], [0.0, n * 2.0**20], [0.0, 0.0]) for n in range(rows)]
    known = {
        "title": "t",
        "by": "vm",
        "begun": "noon",
        "span": 60.0,
        "passes": 2,
        "rows": made,
        "total": None,
    }
    return HostHistory(**(known | more))


@pytest.mark.parametrize(
    ("span", "unit"),
    [
        (0.0, "seconds"),
        (119.0, "seconds"),
        (120.0, "minutes"),
        (7199.0, "minutes"),
        (7200.0, "hours"),
        (172_800.0, "days"),
    ],
)
def test_a_span_is_told_in_a_unit_of_which_there_are_two(span, unit):
    assert unit_of(span)[1] == unit
    assert f"{unit} since noon" in charts(history(span=span))


def test_a_name_is_text_on_one_line():
    assert plain("a\n\x1bb\u202e") == "a\ufffd\ufffdb\ufffd"
    assert as_html("<b>\n") == "&lt;b&gt;\ufffd"


def test_those_that_grew_most_are_drawn_and_have_a_legend():
    page = charts(history(rows=DRAWN + 3))
    drawn = [n for n in range(DRAWN + 3) if f">row{n}</li>" in page.replace("</svg>", ">")]
    assert drawn == list(range(3, DRAWN + 3))
    assert page.index("row10") < page.index("row3<")


@pytest.mark.parametrize(
    ("counter", "refused"),
    [
        ("thp_collapse_alloc", False), ("thp_collapse_alloc_failed", True), ("thp_fault_fallback", True), ("thp_split_page", True),
        ("compact_stall", True), ("compact_success", False),
    ],
)  # fmt: skip
def test_a_counter_stands_where_its_rise_belongs(counter, refused):
    assert refuses(counter) == refused
    page = charts(history(rates=[Timeline(counter, [0.0, 60.0], [0.0, 2.0])]))
    assert ("Refused and split" in page) == refused
    assert ("Huge pages made and lost" in page) == (not refused and counter.startswith("thp_"))


def test_marks_are_listed_by_number_and_without_any_nothing_is_said():
    page = charts(
        history(
            changes=[
                MarkedMoment(1, 30.0, "noon", "<enabled>", (1, 1)),
                MarkedMoment(2, 40.0, "noon", "", (1, 1)),
            ]
        )
    )
    assert "Marked: <b>1</b> &lt;enabled&gt;; <b>2</b> marked." in page
    assert "Marked:" not in charts(history())


def test_the_total_and_the_supply_have_charts_where_they_are_known():
    total = RecordedRow("total", [0.0, 60.0], [1.0, 2.0], [0.0, 1.0])
    page = charts(history(total=total, amounts=[Timeline("free_huge", [0.0], [2.0**21])]))
    assert "All processes" in page and "supply of huge pages" in page
    assert "All processes" not in charts(history()) and "supply" not in charts(history())
