"""Rows: what processes have in common, counted once where several map it."""

import pytest

from secondsight.geometry import PMD_SIZE
from secondsight.host.charges import Groups
from secondsight.host.intervals import Interval
from secondsight.host.rows import KINDS, NONE, key_of, make_rows, total
from support.strata_by_hand import readings, stratum, task

MIB = 1 << 20
NOWHERE = Groups("")
VM = ("qemu-system-x86_64", "-name", "guest=web,debug-threads=on")
TASKS = [
    task(1, "a", "0::/one\n", Rss=10 * MIB, Pss=6 * MIB, AnonHugePages=2 * MIB, Swap=MIB),
    task(2, "a", "0::/one\n", Rss=8 * MIB, Pss=4 * MIB, ShmemPmdMapped=2 * MIB, Private_Hugetlb=4 * MIB),
    task(3, "b", "", VM, Rss=MIB, Pss=MIB),
]


@pytest.mark.parametrize(
    ("by", "names"),
    [
        ("process", ["1", "2", "3"]),
        ("name", ["a", "b"]),
        ("user", ["root"]),
        ("cgroup", ["/one", NONE["cgroup"]]),
        ("container", [NONE["container"]]),
        ("vm", [NONE["vm"], "web"]),
    ],
)
def test_what_processes_are_put_together_by(by, names):
    assert by in KINDS and list(dict.fromkeys(map(key_of(by), TASKS))) == names


def test_a_process_is_what_it_maps_and_a_group_what_falls_to_it():
    one, two, three = make_rows("process", TASKS, None, NOWHERE, None)
    assert (one.name, one.pid, one.resident, one.huge, one.swapped, one.share) == (
        "a",
        1,
        10 * MIB,
        2 * MIB,
        MIB,
        0.2,
    )
    assert (two.hugetlb, three.vm, three.share) == (4 * MIB, "web", 0.0)
    group, _ = make_rows("name", TASKS, None, NOWHERE, None)
    assert (group.name, group.pid, group.processes, group.resident, group.huge) == (
        "a",
        None,
        2,
        10 * MIB,
        4 * MIB,
    )
    assert (group.cgroup, group.now, group.share_read) == ("/one", None, None)


def test_the_total_covers_all_and_what_they_do_not_share_is_left_empty():
    every = total(TASKS, None, NOWHERE, None)
    assert (every.name, every.processes, every.resident, every.swapped) == ("total", 3, 11 * MIB, MIB)
    assert (every.cgroup, every.vm, every.user, every.headroom) == ("", "", "root", None)


def test_nothing_resident_has_no_share():
    assert make_rows("process", [task(9)], None, NOWHERE, None)[0].share is None


def test_blocks_make_the_sampled_columns():
    blocks = stratum(TASKS[0], populated=[512] * 4, open_now=range(3), settled={"exceed_none_pte": 1})
    blocks.read = readings(
        range(4), could=[True, True, False, False], status=["succeeded"] * 2 + ["page_lock"] * 2, added=3
    )
    (row,) = make_rows("process", TASKS[:1], {1: blocks}, NOWHERE, 30.0)
    assert row.now == row.then == row.gain == Interval.exact(2 * PMD_SIZE)
    assert row.added == Interval.exact(2 * 3 * 4096) and row.share_read == 1.0
    assert {reason.status: reason.bytes for reason in row.reasons} == {
        "page_lock": PMD_SIZE,
        "exceed_none_pte": PMD_SIZE,
    }
    assert all(reason.words for reason in row.reasons)


def test_of_a_process_whose_blocks_could_not_be_read_nothing_is_said():
    (row,) = make_rows("process", TASKS[:1], {1: None}, NOWHERE, 30.0)
    assert (row.now, row.gain, row.reasons, row.share_read) == (None, None, (), None)
