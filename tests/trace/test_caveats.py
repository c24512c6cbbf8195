"""What a reader of figures should know of their trace: told where it matters, and nowhere else."""

import pytest

from secondsight.trace import Provenance
from secondsight.trace.caveats import NOT_USE, caveats, left_out

UNNAMED = "pages accessed that smaps counts and does not name"


def of(source="record-run", **dropped):
    return Provenance(source=source, dropped=dropped)


@pytest.mark.parametrize(
    ("number", "accesses", "share"),
    [(2757, 292, "90%"), (5, 95, "5%"), (4, 96, None), (0, 0, None), (3, 0, "100%")],
)
def test_what_was_left_out_is_told_from_a_twentieth_on(number, accesses, share):
    said = left_out(of(**{UNNAMED: number}), accesses)
    assert not said if share is None else said.startswith(f"{share} of what was seen was left out")
    assert not said or (f"{number:,} {UNNAMED}" in said and f"{accesses:,} accesses are in it" in said)


@pytest.mark.parametrize("reason", sorted(NOT_USE))
def test_what_is_no_use_of_memory_is_missing_from_no_figure(reason):
    assert not left_out(of(**{reason: 10**6}), 1)
    # Beside something that is, it counts for nothing.
    assert left_out(of(**{reason: 10**6, UNNAMED: 1}), 1).startswith("50%")


@pytest.mark.parametrize(
    ("source", "told"), [("record-pid", True), ("record-run", False), ("record-vm", False)]
)
def test_who_ran_already_is_told(source, told):
    assert any("was running when the recording began" in note for note in caveats(of(source), 1)) == told
