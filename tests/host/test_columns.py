"""Sorting, filtering and telling of rows."""

import msgspec
import pytest

from secondsight.errors import UsageError
from secondsight.host import columns, printing
from secondsight.host.columns import COLUMNS, chosen, keep, order, size, text
from secondsight.host.intervals import Interval
from secondsight.host.rows import HostRow, Reason
from secondsight.predict.at_most import Bounds
from support.host_views import view


def row(name, resident=0, **more):
    known = {
        "pid": None,
        "processes": 1,
        "user": "root",
        "cgroup": "/",
        "container": "",
        "vm": "",
        "huge": 0,
        "swapped": 0,
        "hugetlb": 0,
    }
    return HostRow(name=name, resident=resident, **(known | more))


ROWS = [
    row("redis", 3 << 30, gain=Interval.exact(5), user="redis"),
    row("postgres", 1 << 30, gain=Interval(9, 7, 11), huge=1 << 29),
    row("sleep", 1 << 20),
]


def test_sorted_by_gain_first_then_by_what_is_asked():
    assert [each.name for each in order(ROWS, None)] == ["postgres", "redis", "sleep"]
    assert [each.name for each in order(ROWS, "resident")] == ["redis", "postgres", "sleep"]
    assert [each.name for each in order(ROWS, "-resident")] == ["sleep", "postgres", "redis"]
    assert [each.name for each in order(ROWS, "name")] == ["postgres", "redis", "sleep"]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("resident>=1G", ["redis", "postgres"]),
        ("resident < 2 GiB", ["postgres", "sleep"]),
        ("share>=50%", ["postgres"]),
        ("name~^(redis|sl)", ["redis", "sleep"]),
        ("name!~s$", ["sleep"]),
        ("user=redis", ["redis"]),
        ("user!=redis", ["postgres", "sleep"]),
        ("gain>0", ["redis", "postgres"]),
        ("pid!=1", ["redis", "postgres", "sleep"]),
    ],
)
def test_filters(condition, expected):
    assert [each.name for each in keep(ROWS, [condition])] == expected


def test_sizes_that_no_block_showed_are_one_doubt():
    mib = 1 << 20
    sizes = {
        "4K": Interval(898 * mib, 890 * mib, 906 * mib), "16K": Interval(9 * mib, 0, 18 * mib),
        "64K": Interval(4 * mib, 4 * mib, 4 * mib), "2M": Interval(11 * mib, 0, 22 * mib),
    }  # fmt: skip
    shown = COLUMNS["sizes"].value(msgspec.structs.replace(ROWS[0], sizes=sizes))
    assert shown == "4K 898M±8.0M 64K 4.0M others up to 22M"
    exact = {"4K": Interval(mib, mib, mib), "2M": Interval(0, 0, 0)}
    assert COLUMNS["sizes"].value(msgspec.structs.replace(ROWS[0], sizes=exact)) == "4K 1.0M"


def test_cgroups_that_begin_alike_are_told_apart_where_there_is_little_room():
    names = [
        f"/kubepods.slice/kubepods-burstable.slice/pod{number}.slice/cri-{number}.scope"
        for number in range(9)
    ]
    shown = printing.lines([row(name) for name in names], ("name", "resident"), 40)[1:]
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


@pytest.mark.parametrize("condition", ["resident", "nothing>1", "name>x", "resident>much", "name~(", ">1"])
def test_a_wrong_filter_is_told(condition):
    with pytest.raises(UsageError, match="--filter"):
        keep(ROWS, [condition])


def test_columns_are_chosen_and_added():
    assert chosen("name, huge", "process") == ("name", "huge")
    assert chosen("+user", "process") == (*columns.shown("process"), "user")
    with pytest.raises(UsageError, match="--columns nosuch: is one of pid, name"):
        chosen("nosuch", "process")
    with pytest.raises(UsageError, match="--sort nosuch"):
        order(ROWS, "nosuch")


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (0, "0"),
        (1023, "1023"),
        (1024, "1.0K"),
        (812 << 20, "812M"),
        (999 << 20, "999M"),
        (1 << 30, "1.0G"),
        (5 << 50, "5.0P"),
    ],
)
def test_sizes(number, expected):
    assert size(number) == expected
    assert len(expected) <= 5


def test_an_open_interval_shows_half_its_width():
    assert text(Interval(3 << 30, 2 << 30, 4 << 30), "bytes") == "3.0G±1.0G"
    assert text(Interval(0, 0, 194 << 20), "bytes") == "0..194M", (
        "no half-width that would reach below nothing"
    )
    assert text(Interval.exact(3 << 30), "bytes") == "3.0G"
    assert text(None, "bytes") == "-"


def test_every_column_has_a_meaning_of_its_own_and_reads_a_bare_row():
    meanings = {}
    for name, column in COLUMNS.items():
        assert column.meaning not in ("", name, column.title), name
        assert meanings.setdefault(column.meaning, name) == name
        column.value(ROWS[0])
    for by in ("process", "vm", "cgroup", "container", "user", "name"):
        assert set(columns.shown(by)) <= set(COLUMNS)


@pytest.mark.parametrize("width", [20, 80, 200])
def test_no_line_is_wider_than_asked(width):
    from rich.cells import cell_len

    rows = [
        row("日本語の名前" * 9, 1 << 40, reasons=(Reason("x" * 60, "", 5.0),), now=Interval.exact(0)),
        *ROWS,
    ]
    for line in printing.lines(rows, columns.shown("process"), width):
        assert cell_len(line) <= width


def test_names_do_nothing_to_a_terminal():
    shown = printing.lines([row("x\n\x1b[31m")], ("name",), 80)
    assert len(shown) == 2
    assert "\x1b" not in "".join(shown)


def test_csv_takes_any_name():
    import csv
    import io

    name = 'a "b",\n; ünï \udcff'
    table = list(
        csv.reader(
            io.StringIO(
                printing.to_csv([row(name, 7, gain=Interval(2, 1, 3))], ("name", "resident", "gain", "pid"))
            )
        )
    )
    assert table[0] == ["name", "resident", "gain", "gain_low", "gain_high", "pid"]
    assert table[1] == ['a "b",\n; ünï ?', "7", "2", "1", "3", ""]


def test_what_huge_pages_could_save_has_no_middle():
    rows = [
        row("unknown", saves_why="no calibration"),
        row("nothing", saves=Bounds(0.0, 0.0), busy=2.0),
        row("most", saves=Bounds(-0.08, 0.7), busy=1.5),
        row("some", saves=Bounds(-0.04, 0.3), busy=0.7),
    ]
    assert [each.name for each in order(rows, "saves")] == ["most", "some", "nothing", "unknown"]
    assert [each.name for each in keep(rows, ["saves>0.5"])] == ["most"]
    table = printing.lines(rows, ["name", "busy", "saves"], None)
    assert [line.split()[1:] for line in table] == [
        ["busy", "saves"], ["-", "-"], ["2.00", "0.00"], ["1.50", "-0.08..0.70"], ["0.70", "-0.04..0.30"],
    ]  # fmt: skip
    assert printing.to_csv(rows, ("name", "saves")).splitlines() == [
        "name,saves_low,saves_high", "unknown,,", "nothing,0.0,0.0", "most,-0.08,0.7", "some,-0.04,0.3",
    ]  # fmt: skip
    unpriced = msgspec.structs.replace(view([]), unpriced="no calibration of this machine")
    assert (
        printing.head(unpriced, 0, None, ("saves",))[-1] == "saves is unknown: no calibration of this machine"
    )
    assert not any("calibration" in line for line in printing.head(unpriced, 0, None, ("gain",)))


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
    rows = [row("a\nb\x1b[2J,c", 7)]
    assert printing.to_csv(rows, ("name", "resident"), escaped=True) == 'name,resident\n"a\\nb\\x1b[2J,c",7\n'
    assert printing.to_csv(rows, ("name", "resident")) == 'name,resident\n"a\nb\x1b[2J,c",7\n'
