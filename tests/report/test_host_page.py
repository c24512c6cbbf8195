"""The page of a recorded host, as text."""

import html.parser

import pytest

from secondsight.report import host_page
from secondsight.report.host_history import (
    HostHistory,
    MarkedMoment,
    Moved,
    RecordedRow,
    Refusal,
    Sampled,
    Timeline,
)

MIB = float(1 << 20)
HOSTILE = 'a"><script>alert(1)</script>\n\x1b[31m'


def history(**more):
    rows = [
        RecordedRow("web", [0.0, 60.0], [10 * MIB, 30 * MIB], [0.0, 20 * MIB], now=Sampled(4 * MIB, 2 * MIB, 6 * MIB),
                    refused=[Refusal("exceed_none_pte", "too many holes", 0.0, 8 * MIB)]),
        RecordedRow(HOSTILE, [0.0], [5 * MIB], [0.0]),
    ]  # fmt: skip
    change = MarkedMoment(
        1, 30.0, "noon", HOSTILE, (1, 1), [Moved("web", (10 * MIB, 30 * MIB), (0.0, 20 * MIB), 0.0)]
    )
    known = {
        "title": HOSTILE, "by": "vm", "begun": "noon", "span": 60.0, "passes": 2, "rows": rows, "total": rows[0], "changes": [change],
        "rates": [Timeline("thp_fault_fallback", [0.0, 60.0], [0.0, 0.5])], "about": {"recording": HOSTILE},
    }  # fmt: skip
    return HostHistory(**(known | more))


class Tags(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.opened = []

    def handle_starttag(self, tag, attrs):
        self.opened.append((tag, dict(attrs)))


def test_names_are_text_and_nothing_is_loaded():
    page = host_page.render(history())
    tags = Tags()
    tags.feed(page)
    # Its data and its script; none of a name's.
    assert sum(tag == "script" for tag, _ in tags.opened) == 2
    for tag, attributes in tags.opened:
        assert not {"src", "href"} & set(attributes) or attributes.get("href") == "data:,", tag
    assert "alert(1)</script>" not in page.replace("&lt;", "<").split("</main>")[1]
    assert "\x1b" not in page
    assert "@@" not in page


def test_a_row_that_came_or_went_is_marked():
    page = host_page.render(history(rows=[RecordedRow("web", [0.0], [MIB], [0.0], note="came, gone")]))
    assert 'web <span class="cite">came, gone</span></td>' in page


def test_it_says_who_grew_was_refused_and_changed():
    page = host_page.render(history())
    assert "Most grew web, by 20.0 MiB to 30.0 MiB." in page
    assert "exceed_none_pte" in page and "too many holes" in page
    assert "4.0 MiB ±2.0 MiB" in page
    assert "thp_fault_fallback" in page
    assert "+20.0 MiB" in page


@pytest.mark.parametrize(
    "more",
    [{"rows": [], "total": None, "changes": [], "rates": []}, {"changes": [], "span": 0.0, "passes": 1}],
)
def test_less_than_usual_is_a_page_too(more):
    page = host_page.render(history(**more))
    assert "No moment is marked" in page


def test_a_mark_without_a_pass_on_one_side_compares_nothing():
    page = host_page.render(history(changes=[MarkedMoment(1, 0.0, "noon", "", (0, 3))]))
    assert "There is no pass before it" in page
