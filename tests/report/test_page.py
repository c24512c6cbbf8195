"""The page is whole, says what the results say, and needs nothing from outside."""

import re
from pathlib import Path

import msgspec
import pytest

from secondsight.errors import UsageError
from secondsight.report import render, write
from secondsight.report.metrics import METRICS
from support.results import results


@pytest.fixture(scope="module")
def text():
    return render(results())


def test_it_loads_nothing(text):
    assert not re.search(r'(src|href)\s*=\s*["\'](?!data:|#)', text)
    assert "@import" not in text
    assert "url(" not in text
    assert "@@" not in text


def test_what_a_user_wrote_cannot_become_markup(text):
    assert "</script><b>" not in text
    assert "&lt;/script&gt;&lt;b&gt;" in text


def test_the_data_is_there_and_decodes(text):
    raw = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    data = msgspec.json.decode(raw[1])
    assert len(data["rows"]) == 6
    assert data["spaces"] == ["database-vm", "web-vm"]


def test_the_answer_and_every_definition_stand_in_the_html(text):
    assert 'class="answer">hawkeye under 7.2 serves' in text
    for metric in METRICS.values():
        assert f'id="m-{metric.key}"' in text


def test_the_same_results_make_the_same_page(text):
    assert render(results()) == text


def test_a_page_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    made = results(blocks=20, columns=4)
    assert write(made, tmp_path / "a.html") == (tmp_path / "a.html").stat().st_size
    monkeypatch.setattr("secondsight.report.page.LIMIT", 1000)
    with pytest.raises(UsageError, match="over 10"):
        write(made, tmp_path / "b.html")
    with pytest.raises(UsageError):
        write(made, tmp_path / "no" / "c.html")
    assert [p.name for p in tmp_path.iterdir()] == ["a.html"]


def test_thirty_thousand_blocks_stay_under_the_limit(tmp_path):
    size = write(results(blocks=30_000, columns=24, rows=4), Path(tmp_path / "big.html"))
    assert size < 10_000_000
