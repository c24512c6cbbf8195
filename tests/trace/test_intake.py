"""Between a source and its trace: spaces by number, what is left out and why, and the provenance that tells of it."""

from __future__ import annotations

import pytest

from secondsight.errors import InputError
from secondsight.trace import Kind, Provenance, Space, Trace, TraceWriter, Verb
from secondsight.trace.intake import BEYOND, Intake

PROVENANCE = Provenance(source="test", spaces=[Space(id=0, name="p", type="process")])


def test_what_a_fork_says_is_no_number_of_accesses(tmp_path) -> None:
    with TraceWriter(tmp_path / "t", PROVENANCE) as out:
        intake = Intake(out)
        intake.append([1, 2], 0, [4096, 8192], int(Kind.CPU_READ), 3)
        intake.append([3], 0, 0, int(Verb.FORK), 1234)
        intake.append([4, 5], 0, [0, 4096], [int(Verb.FORK), int(Kind.CPU_WRITE)], [99, 2])
        assert (intake.accesses, intake.events) == (8, 5)
        intake.append([6], 0, 1 << 60, int(Kind.CPU_READ), 5)
        assert intake.accesses == 8


def test_addresses_that_no_space_can_have_are_left_out_and_counted(tmp_path) -> None:
    with TraceWriter(tmp_path / "t", PROVENANCE) as out:
        intake = Intake(out)
        intake.append([1, 2, 3], 0, [4096, 1 << 56, (1 << 56) - 1], int(Kind.CPU_READ), [1, 50, 2])
        assert (intake.events, intake.accesses) == (2, 3)
        made = intake.close(notes=["n"])
    assert made.dropped == {BEYOND: 1} and made.notes == ["n"]
    assert Trace.open(tmp_path / "t").read()["address"].tolist() == [4096, (1 << 56) - 1]


def test_a_vms_addresses_end_earlier_and_one_process_beside_it_lifts_the_limit(tmp_path) -> None:
    with TraceWriter(tmp_path / "t", Provenance(source="x")) as out:
        intake = Intake(out)
        assert intake.add_space("guest", "vm") == 0
        intake.append([1], 0, [1 << 52], int(Kind.GUEST_READ))
        assert intake.dropped == {BEYOND: 1}
        assert intake.add_space("qemu", parent=0) == 1
        intake.append([1], 1, [1 << 52], int(Kind.CPU_READ))
        assert intake.dropped == {BEYOND: 1} and intake.events == 1
        made = intake.close()
    assert [(space.name, space.type, space.parent) for space in made.spaces] == [
        ("guest", "vm", None),
        ("qemu", "process", 0),
    ]


def test_a_vm_beside_a_process_has_its_limit_too(tmp_path) -> None:
    with TraceWriter(tmp_path / "t", Provenance(source="x")) as out:
        intake = Intake(out)
        intake.add_space("qemu")
        intake.add_space("guest", "vm", parent=0)
        intake.append([1], 0, [1 << 52], int(Kind.CPU_READ))
        assert intake.dropped == {} and intake.events == 1
        intake.close()


def test_reasons_are_counted_apart_and_none_is_no_reason(tmp_path) -> None:
    with TraceWriter(tmp_path / "t", Provenance(source="x", dropped={"old": 2})) as out:
        intake = Intake(out)
        intake.add_space("a")
        for reason, number in (("old", 3), ("new", 1), ("never", 0)):
            intake.drop(reason, number)
        intake.append([], 0, [], 0)
        assert intake.close().dropped == {"old": 5, "new": 1}


def test_a_quantum_makes_one_row_of_accesses_to_a_page_in_it(tmp_path) -> None:
    with TraceWriter(tmp_path / "t", PROVENANCE) as out:
        intake = Intake(out, quantum=100)
        intake.append([0, 10, 99, 100], 0, [4096, 4100, 8192, 4096], int(Kind.CPU_READ), 2)
        assert intake.close().quantum == 100
    rows = Trace.open(tmp_path / "t").read()
    assert sorted(zip(rows["address"].tolist(), rows["count"].tolist(), strict=True)) == [
        (4096, 2),
        (4096, 4),
        (8192, 2),
    ]


def test_no_more_spaces_than_a_row_can_name(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("secondsight.trace.intake.MOST_SPACES", 2)
    with TraceWriter(tmp_path / "t", Provenance(source="x")) as out:
        intake = Intake(out)
        intake.add_space("a")
        intake.add_space("b")
        with pytest.raises(InputError, match="more than 2 spaces"):
            intake.add_space("c")
        intake.close()
