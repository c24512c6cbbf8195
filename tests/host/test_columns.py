"""Sorting, filtering and telling of rows."""

import msgspec
import pytest

from secondsight.errors import UsageError
from secondsight.host import columns, printing
from secondsight.host.columns import COLUMNS, chosen, keep, order, size, text
from secondsight.host.intervals import Interval
from secondsight.predict.at_most import Bounds
from support.host_views import BARE_ROWS, bare_row, view


def test_sorted_by_gain_first_then_by_what_is_asked():
    assert [each.name for each in order(BARE_ROWS, None)] == ["postgres", "redis", "sleep"]
    assert [each.name for each in order(BARE_ROWS, "resident")] == ["redis", "postgres", "sleep"]
    assert [each.name for each in order(BARE_ROWS, "-resident")] == ["sleep", "postgres", "redis"]
    assert [each.name for each in order(BARE_ROWS, "name")] == ["postgres", "redis", "sleep"]


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
    assert [each.name for each in keep(BARE_ROWS, [condition])] == expected


def test_sizes_that_no_block_showed_are_one_doubt():
    mib = 1 << 20
    sizes = {
        "4K": Interval(898 * mib, 890 * mib, 906 * mib), "16K": Interval(9 * mib, 0, 18 * mib),
        "64K": Interval(4 * mib, 4 * mib, 4 * mib), "2M": Interval(11 * mib, 0, 22 * mib),
    }  # fmt: skip
    shown = COLUMNS["sizes"].value(msgspec.structs.replace(BARE_ROWS[0], sizes=sizes))
    assert shown == "4K 898M±8.0M 64K 4.0M others up to 22M"
    exact = {"4K": Interval(mib, mib, mib), "2M": Interval(0, 0, 0)}
    assert COLUMNS["sizes"].value(msgspec.structs.replace(BARE_ROWS[0], sizes=exact)) == "4K 1.0M"


@pytest.mark.parametrize("condition", ["resident", "nothing>1", "name>x", "resident>much", "name~(", ">1"])
def test_a_wrong_filter_is_told(condition):
    with pytest.raises(UsageError, match="--filter"):
        keep(BARE_ROWS, [condition])


def test_columns_are_chosen_and_added():
    assert chosen("name, huge", "process") == ("name", "huge")
    assert chosen("+user", "process") == (*columns.shown("process"), "user")
    with pytest.raises(UsageError, match="--columns nosuch: is one of pid, name"):
        chosen("nosuch", "process")
    with pytest.raises(UsageError, match="--sort nosuch"):
        order(BARE_ROWS, "nosuch")


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


def test_every_column_has_a_meaning_of_its_own_and_reads_a_bare_bare_row():
    meanings = {}
    for name, column in COLUMNS.items():
        assert column.meaning not in ("", name, column.title), name
        assert meanings.setdefault(column.meaning, name) == name
        column.value(BARE_ROWS[0])
    for by in ("process", "vm", "cgroup", "container", "user", "name"):
        assert set(columns.shown(by)) <= set(COLUMNS)


def test_what_huge_pages_could_save_has_no_middle():
    rows = [
        bare_row("unknown", saves_why="no calibration"),
        bare_row("nothing", saves=Bounds(0.0, 0.0), busy=2.0),
        bare_row("most", saves=Bounds(-0.08, 0.7), busy=1.5),
        bare_row("some", saves=Bounds(-0.04, 0.3), busy=0.7),
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
