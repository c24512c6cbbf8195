"""A comparison says where khugepaged had no time for a pass."""

import pytest

from secondsight.whatif import compare
from support.events import CW, trace


def notes(rows, policies=("never", "khugepaged"), **options):
    notes_made = compare(trace(rows), policies, ["7.2"], channels=False, **options).provenance.notes
    return [note for note in notes_made if "pass of khugepaged" in note]


def test_a_trace_too_short_for_a_pass_is_told_with_a_scale_that_gives_one():
    rows = [(s, 0, b, 0, CW) for s in range(3) for b in range(20)]
    (note,) = notes(rows)
    assert (
        "no pass of khugepaged ends within the trace, 2 s of its clock: its rows show what faults do alone"
        in note
    )
    scale = float(note.split("--time-scale ")[1].split()[0])
    assert notes(rows, time_scale=scale) == []
    # And not ten times too much.
    assert notes(rows, time_scale=scale / 10) != []


def test_only_the_rows_that_had_none_are_named():
    rows = [(s, 0, b, 0, CW) for s in (0, 25) for b in range(12)]
    # Eight blocks a wake-up: at 10 s and 20 s, the second of which ends the pass.
    assert notes(rows) == []
    assert notes([*rows[:-12], (15, 0, 0, 0, CW)]) != []
    (note,) = notes(rows, ["always,khugepaged=false", "khugepaged", "khugepaged,pages_to_scan=512"])
    assert "under khugepaged,pages_to_scan=512 under 7.2," in note
    assert "a part of what it would make huge" in note, "it woke up, and collapsed"


def test_who_runs_without_khugepaged_needs_no_pass():
    assert notes([(0, 0, 0, 0, CW), (1, 0, 0, 0, CW)], ["never", "always,khugepaged=false"]) == []


def test_a_trace_of_one_moment_is_spread_by_no_scale():
    (note,) = notes([(0, 0, 0, 0, CW)])
    assert "no --time-scale spreads" in note


@pytest.mark.parametrize("end", [[], [(2, 0, 0, 0, 0x8A)]])
def test_the_wake_up_behind_the_last_event_is_no_pass(end):
    from secondsight.trace.kinds import Verb

    rows = [(0, 0, 0, 0, CW), (1, 0, 0, 0, CW), *((s, a, b, p, Verb.EXIT) for s, a, b, p, _ in end)]
    assert len(notes(rows)) == 1
