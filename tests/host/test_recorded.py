"""What a recording comes to, counted by hand from what each row did in it."""

import pytest

from secondsight.errors import InputError
from secondsight.host.history import HostRecording
from secondsight.host.recorded import history
from secondsight.report import host_page
from support.host_recordings import BEGUN, HOSTILE, MARKED, MIB, STEP, record
from support.host_views import row, view


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    path = tmp_path_factory.mktemp("recorded") / "host.parquet"
    record(path)
    return history(path, 50)


def test_who_grew_and_who_shrank(recorded):
    grown = {row.label: row.grown / MIB for row in recorded.rows}
    assert grown["grows"] == 110
    assert grown["shrinks"] == -220
    assert grown["collapsed"] == 0
    assert {row.label: row.grown_huge / MIB for row in recorded.rows}["collapsed"] == 150
    assert recorded.span == 11 * STEP
    assert recorded.passes == 12


def test_the_rows_that_moved_most_are_kept(tmp_path):
    record(tmp_path / "host.parquet")
    few = history(tmp_path / "host.parquet", 2)
    assert [row.label for row in few.rows] == ["shrinks", "grows"]
    assert few.others == 3


def test_who_came_and_who_went_is_told(recorded):
    notes = {row.label: row.note for row in recorded.rows}
    assert notes["left early"] == "gone" and notes["grows"] == "" and notes[HOSTILE] == "came"
    assert recorded.total.note == ""


def test_rows_without_memory_are_one_number(tmp_path):
    path = tmp_path / "host.parquet"
    recording = HostRecording(path)
    for at in range(2):
        rows = [
            row("some", 0.0, resident=at * MIB, huge=0),
            *(row(f"kthread {n}", 0.0, resident=0, huge=0) for n in range(3)),
        ]
        recording.add(view(rows, taken=BEGUN + at), rows)
    recorded = history(path, 50)
    assert [each.label for each in recorded.rows] == ["some"] and (recorded.others, recorded.empty) == (0, 3)
    assert "3 without any memory in any pass are left out" in host_page.render(recorded)


def test_who_was_refused(recorded):
    row = next(row for row in recorded.rows if row.label == "grows")
    assert [(each.status, each.first, each.last) for each in row.refused] == [
        ("lack_referenced_page", 64 * MIB, 64 * MIB)
    ]


def test_a_mark_parts_what_was_before_from_what_came_after(recorded):
    (change,) = recorded.changes
    assert change.text == "enabled=always <b>"
    assert change.seconds == MARKED - (MARKED - 5.5 * STEP)
    assert change.passes == (6, 6)
    moved = {row.label: row for row in change.rows}
    # 0, 2, 0, 2, 0, 2 before, 150 after.
    assert moved["collapsed"].huge == (1 * MIB, 150 * MIB)
    assert moved["collapsed"].by_itself == 2 * MIB
    # 100 to 150 before, 160 to 210 after: medians.
    assert moved["grows"].resident == (125 * MIB, 185 * MIB)
    assert change.rows[0].label == "collapsed"
    assert moved["left early"].note == "gone"
    assert [each.note for each in change.rows if each.label.startswith("x")] == ["came"]


def test_counters_are_rates_on_either_side(recorded):
    (change,) = recorded.changes
    paces = {each.name: (each.before, each.after) for each in change.counters}
    assert paces["thp_collapse_alloc"] == (pytest.approx(3.0), pytest.approx(30.0))
    assert paces["thp_fault_fallback"] == (pytest.approx(0.1), pytest.approx(0.1))
    assert "nr_anon_transparent_hugepages" not in paces
    rates = {each.name: each.values for each in recorded.rates}
    assert sum(rates["thp_collapse_alloc"]) * STEP == 30 * 5 + 300 * 6


def test_no_pass_before_a_mark_is_no_comparison(tmp_path):
    record(tmp_path / "one.parquet", passes=1, marked=False)
    recorded = history(tmp_path / "one.parquet", 50)
    assert recorded.changes == [] and recorded.span == 0
    assert all(row.grown == 0 for row in recorded.rows)


def test_another_file_is_told(tmp_path):
    (tmp_path / "x").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="no recording of the host"):
        history(tmp_path / "x", 5)
