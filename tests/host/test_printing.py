"""A pass as text, JSON and CSV: whatever names hold, however little room there is."""

import csv
import io
import json

import msgspec
import pytest
from rich.cells import cell_len

from secondsight.host import columns, printing
from secondsight.host.intervals import Interval
from secondsight.host.rows import Reason
from support.host_views import BARE_ROWS, NAMES, bare_row, row, view


def test_cgroups_that_begin_alike_are_told_apart_where_there_is_little_room():
    names = [
        f"/kubepods.slice/kubepods-burstable.slice/pod{number}.slice/cri-{number}.scope"
        for number in range(9)
    ]
    shown = printing.lines([bare_row(name) for name in names], ("name", "resident"), 40)[1:]
    assert len({line.split()[0] for line in shown}) == len(names) and max(map(len, shown)) <= 40
    assert shown[3].startswith("~") and shown[3].split()[0].endswith("/cri-3.scope")


@pytest.mark.parametrize(
    ("content", "width", "shown"),
    [
        ("/a/b", 4, "/a/b"), ("/a/b/c", 4, "~b/c"), ("/日本/語", 4, "~/語"), ("hello", 3, "he~"), ("/ab", 1, "~"), ("日本", 3, "日~"),
        ("a", 0, ""),
    ],
)  # fmt: skip
def test_what_is_too_long_for_its_column(content, width, shown):
    assert printing.shorten(content, width) == shown


def test_a_mappings_sentence_is_cut_to_what_it_says_first():
    status = "a file's pages: not allowed (shmem_enabled never, no MADV_HUGEPAGE); MADV_COLLAPSE would, if its file system makes folios"
    reasons = (Reason(status, "", 5.0), Reason("lack_referenced_page", "", 3.0))
    held = bare_row("redis", 1 << 30, reasons=reasons, now=Interval.exact(0))
    _, shown = printing.lines([held], ("name", "why"), None)
    assert shown.endswith("5 a file's pages: not allowed; 3 lack_referenced_page")
    assert status in printing.to_json(view([]), [held])


@pytest.mark.parametrize("width", [20, 80, 200])
def test_no_line_is_wider_than_asked(width):
    rows = [
        bare_row("日本語の名前" * 9, 1 << 40, reasons=(Reason("x" * 60, "", 5.0),), now=Interval.exact(0)),
        *BARE_ROWS,
    ]
    for line in printing.lines(rows, columns.shown("process"), width):
        assert cell_len(line) <= width


def test_names_do_nothing_to_a_terminal():
    shown = printing.lines([bare_row("x\n\x1b[31m")], ("name",), 80)
    assert len(shown) == 2
    assert "\x1b" not in "".join(shown)


def test_csv_takes_any_name():
    name = 'a "b",\n; ünï \udcff'
    table = list(
        csv.reader(
            io.StringIO(
                printing.to_csv(
                    [bare_row(name, 7, gain=Interval(2, 1, 3))], ("name", "resident", "gain", "pid")
                )
            )
        )
    )
    assert table[0] == ["name", "resident", "gain", "gain_low", "gain_high", "pid"]
    assert table[1] == ['a "b",\n; ünï ?', "7", "2", "1", "3", ""]


def test_what_is_sorted_by_stays_in_sight():
    assert printing.sorted_first(("pid", "name", "resident", "gain"), "-gain") == (
        "pid",
        "name",
        "gain",
        "resident",
    )
    assert printing.sorted_first(("name", "resident"), "resident") == ("name", "resident")
    assert printing.sorted_first(("name", "resident"), None) == ("name", "resident")
    assert printing.sorted_first(("name", "resident"), "user") == ("name", "resident")


def test_csv_for_people_has_one_line_a_row_whatever_a_name_holds():
    rows = [bare_row("a\nb\x1b[2J,c", 7)]
    assert printing.to_csv(rows, ("name", "resident"), escaped=True) == 'name,resident\n"a\\nb\\x1b[2J,c",7\n'
    assert printing.to_csv(rows, ("name", "resident")) == 'name,resident\n"a\nb\x1b[2J,c",7\n'


def test_the_head_says_what_was_read_and_what_was_left_out():
    some = view([row(name) for name in NAMES])
    first, second, third = printing.head(some, 3)
    assert first == (
        "kernel 6.12: 7 processes, 3 of 7 rows shown, 0.50 s of CPU from procfs; of the blocks in question 50 % read, the rest by sample"
    )
    assert second.endswith("enabled=madvise shmem_enabled=never max_ptes_none=511; if: enabled=always")
    assert third == "left out: 2 zombies, 1 not readable (another user's)"
    assert all(cell_len(line) <= 40 for line in printing.head(some, 3, 40))


def test_json_has_all_that_was_asked_and_only_the_rows_given():
    some = view([row("one"), row("two\udcff")])
    decoded = json.loads(printing.to_json(some, some.rows[1:]))
    assert [each["name"] for each in decoded["rows"]] == ["two?"]
    assert decoded["rows"][0]["share"] == 0.4 and decoded["total"]["processes"] == 2
    assert decoded["rows"][0]["gain"] == {"value": 1.0, "low": 0.5, "high": 2.0}
    empty = msgspec.structs.replace(some, rows=(), total=None)
    assert json.loads(printing.to_json(empty, []))["total"] is None


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ({"zombies": 1, "kernel threads": 59}, "1 zombie, 59 kernel threads"),
        ({"ended meanwhile": 1200}, "1,200 ended meanwhile"),
        ({}, ""),
    ],
)
def test_what_was_left_out_is_counted(trouble, said):
    assert printing.left_out(trouble) == said


def test_every_column_is_defined_in_a_line():
    for name, line in zip(columns.COLUMNS, printing.definitions(list(columns.COLUMNS)), strict=True):
        assert line.startswith(f"{name} ") and columns.COLUMNS[name].meaning in line and "\n" not in line
