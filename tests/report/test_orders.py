"""What a comparison tells of attempts at smaller sizes; and files of before it did."""

import io
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace
from rich.console import Console

from secondsight.report import decode, encode, render
from secondsight.report.charts import figures
from secondsight.report.schema import SCHEMA, Attempts, pack
from secondsight.report.table import attempts, by_pass, by_size, records, terminal
from support.results import results

OLD = Path(__file__).with_name("results-before-orders.json")


def text_of(table):
    out = io.StringIO()
    Console(width=200, file=out).print(table)
    return out.getvalue()


def test_a_file_of_before_orders_is_read_unchanged():
    old = decode(OLD.read_bytes(), str(OLD))
    assert old.schema == SCHEMA and len(old.rows) == 2
    assert decode(encode(old), "again") == old
    for row in old.rows:
        assert row.attempts == {} and row.refused is None and row.refusals is None
        assert row.events is None or row.events.order is None
    page = render(old)
    assert "Collapses tried" not in page and '"refusals":null' in page
    assert attempts(old) is None and by_pass(old) == []
    assert "refused collapses" not in text_of(terminal(old)), "a figure that no row has is left out"
    assert all(record["refused_collapses"] is None for record in records(old))
    assert "refused" not in {figure.name for figure in figures(old)}


def test_attempts_stand_in_the_table_and_on_the_page_by_size():
    made = results(blocks=30, columns=5)
    said = text_of(attempts(made))
    lines = [line.split() for line in said.splitlines()]
    assert ["khugepaged", "under", "7.2", "2", "MiB", "70", "21", "70", "70"] in lines
    assert ["64", "KiB", "1", "344", "672", "1", "344", "1", "300"] in lines
    page = render(made)
    assert "<h3>Collapses tried, by size</h3>" in page and "<td>64 KiB</td><td>1 344</td><td>672</td>" in page
    assert [size for size, _ in by_size(made.rows[1])] == ["2 MiB", "64 KiB"]
    assert "refused collapses" in text_of(terminal(made))


def test_whole_blocks_alone_need_no_table():
    made = results(blocks=30, columns=5)
    plain = replace(
        made, rows=[replace(r, attempts={"9": Attempts(1, 1, 1, 1)}, refusals=None) for r in made.rows]
    )
    assert attempts(plain) is None and "Collapses tried" not in render(plain)


@pytest.mark.parametrize("differ", [False, True])
def test_refused_collapses_over_time_are_drawn_where_they_are_no_wasted_passes(differ):
    made = results(blocks=30, columns=5)
    wasted = np.arange(5)
    rows = [
        replace(r, wasted=pack(wasted, "i4"), refused=pack(wasted * (33 if differ else 1), "i4"), passes=pack(wasted, "i4"),
                hot=pack(wasted, "i4"), guest_faults=pack(wasted, "i4"))
        for r in made.rows
    ]  # fmt: skip
    over_time = replace(made, rows=rows)
    assert ("refused" in {figure.name for figure in figures(over_time)}) == differ
    tables = [text_of(table) for table in by_pass(over_time)]
    assert any("refused collapses, after pass" in table for table in tables) == differ
