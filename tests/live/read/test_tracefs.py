"""Lines of a trace buffer: events, how many were lost, and names that would fool a split."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secondsight.live.read.tracefs import Event, parse_line

SCAN = (
    b"      khugepaged-30      [000] .....    12.915983: mm_khugepaged_scan_pmd: mm=00000000618a95bb, scan_pfn=0xe614, "
    b"referenced=3, status=succeeded, unmapped=0"
)


def test_an_event_has_its_time_its_task_and_its_fields():
    assert parse_line(SCAN) == Event(
        12_915_983_000, "khugepaged", 30, "mm_khugepaged_scan_pmd",
        {"mm": "00000000618a95bb", "scan_pfn": "0xe614", "referenced": "3", "status": "succeeded", "unmapped": "0"},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("line", "lost"),
    [
        (b"CPU:3 [LOST 1742 EVENTS]", 1742), (b"CPU:0 [LOST 1 EVENTS]", 1),
        (b"# tracer: nop", None), (b"", None), (b"CPU:3 [LOST EVENTS]", None),
    ],
)  # fmt: skip
def test_what_was_lost_is_a_number_and_all_else_nothing(line, lost):
    assert parse_line(line) == lost


@pytest.mark.parametrize("task", ["a b", "x-1", "a:b", "[0] -7", "0123456789abcde"])
def test_a_tasks_name_may_hold_anything(task):
    event = parse_line(SCAN.replace(b"khugepaged-", task.encode() + b"-"))
    assert event is not None and (event.task, event.pid) == (task.strip(), 30)


@pytest.mark.parametrize(
    ("fraction", "nanoseconds"), [(b"915983", 915_983_000), (b"000001", 1000), (b"9", 900_000_000), (b"123456789", 123_456_789)]
)  # fmt: skip
def test_the_clock_is_counted_in_nanoseconds(fraction, nanoseconds):
    event = parse_line(SCAN.replace(b"915983", fraction))
    assert event is not None and event.time == 12_000_000_000 + nanoseconds


@given(st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\n\r"), max_size=30))
def test_a_file_may_have_any_name(name):
    """What stands before and after it is the kernel's."""
    line = (
        b"      khugepaged-30      [000] .....    12.9: mm_khugepaged_scan_file: mm=00000000618a95bb, scan_pfn=0xe614, filename="
        + name.encode()
        + b", present=17, swap=3, result=succeeded"
    )
    event = parse_line(line)
    assert event is not None and event.fields["mm"] == "00000000618a95bb"
    if "," not in name:
        assert event.fields["filename"] == name
        assert (event.fields["present"], event.fields["swap"], event.fields["result"]) == (
            "17",
            "3",
            "succeeded",
        )


def test_a_name_that_imitates_the_fields_behind_it_hides_none():
    line = b"k-1 [000] 1.5: mm_khugepaged_scan_file: mm=1, filename=a, present=999, swap=9, result=x, present=17, swap=3, result=succeeded"
    event = parse_line(line)
    assert event is not None
    assert event.fields["filename"] == "a, present=999, swap=9, result=x" and event.fields["present"] == "17"
