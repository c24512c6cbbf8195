"""Tracepoints to decisions: lines as kernels print them, the refusal recognised, addresses only where confirmed."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secondsight.errors import MissingDependency
from secondsight.live.judge.reasons import REFUSAL
from secondsight.live.read.tracefs import Event, Instance, parse_line, remove_leftovers
from secondsight.live.watch import Joiner, Watcher
from support.traced import FILES, V61, V72, decisions


def test_a_collapse_of_6_1():
    ((decision, frame),) = decisions(V61)
    assert (decision.status, decision.referenced, decision.isolate_referenced, frame) == (
        "succeeded",
        512,
        512,
        0xE614,
    )
    assert decision.writable is True and not decision.wasted
    assert decision.time == 12_915_983_000


def test_the_refusal_is_told_from_a_plain_lack():
    (refused, _), (idle, _), (empty, frame) = decisions(V72)
    assert refused.wasted and refused.reason == REFUSAL and refused.isolate_referenced == 0
    assert not idle.wasted and idle.isolate_status is None
    assert frame is None and empty.mm == 2 and empty.writable is None


def test_where_the_scan_names_no_page_isolate_does():
    """7.3 has forgotten the scan's page by the time it prints it."""
    lines = V72.replace(b"aa00aa00, scan_pfn=0x1200", b"aa00aa00, scan_pfn=0xffffffffffffffff")
    assert lines != V72
    assert [frame for _, frame in decisions(lines)] == [0x1200, 0x1400, None]


def test_other_tasks_do_not_mix():
    lines = V72.splitlines()
    other = lines[0].replace(b"khugepaged-34", b"my: task-77")
    joiner = Joiner()
    joiner.add(parse_line(other))
    (closed, _) = joiner.add(parse_line(lines[3]))
    assert closed.isolate_status is None
    assert parse_line(other).task == "my: task" and parse_line(other).pid == 77


V73 = b"""\
      khugepaged-34      [001] ...1.    21.500000: mm_collapse_huge_page_isolate: scan_pfn=0x1200, none_or_zero=0, referenced=0, status=lack_referenced_page, order=9
      khugepaged-34      [001] .....    21.500100: mm_collapse_huge_page: mm=00000000aa00aa00, isolated=0, status=lack_referenced_page, order=9
      khugepaged-34      [001] ...1.    21.500110: mm_collapse_huge_page_isolate: scan_pfn=0x1200, none_or_zero=0, referenced=4, status=succeeded, order=4
      khugepaged-34      [001] .....    21.500120: mm_collapse_huge_page: mm=00000000aa00aa00, isolated=16, status=succeeded, order=4
      khugepaged-34      [001] ...1.    21.500130: mm_collapse_huge_page_isolate: scan_pfn=0x1210, none_or_zero=0, referenced=0, status=lack_referenced_page, order=4
      khugepaged-34      [001] .....    21.500140: mm_collapse_huge_page: mm=00000000aa00aa00, isolated=0, status=lack_referenced_page, order=4
      khugepaged-34      [001] .....    21.500150: mm_collapse_huge_page: mm=00000000aa00aa00, isolated=0, status=lack_referenced_page, order=4
      khugepaged-34      [001] .....    21.500200: mm_khugepaged_scan_pmd: mm=00000000aa00aa00, scan_pfn=0x1200, referenced=512, none_or_zero=0, status=succeeded, unmapped=0
"""  # noqa: E501 - as printed


def test_every_attempt_has_its_order_and_refused_ones_are_counted_by_it():
    watcher = Watcher(None)
    (decision,) = watcher.take([parse_line(line) for line in V73.splitlines()])
    assert decision.attempted == "2048kB lack_referenced_page, 64kB succeeded, 64kB lack_referenced_page x2"
    assert decision.isolate_status == "lack_referenced_page", "isolate's, of the whole block"
    assert (watcher.begun, watcher.refused) == ({9: 1, 4: 3}, {9: 1, 4: 2})


def test_before_7_2_an_attempt_is_of_the_whole_block():
    watcher = Watcher(None)
    (decision,) = watcher.take([parse_line(line) for line in V61.splitlines()])
    assert decision.attempted == "2048kB succeeded"
    assert (watcher.begun, watcher.refused) == ({9: 1}, {9: 0})


def test_lost_events_are_counted():
    assert parse_line(b"CPU:0 [LOST 123 EVENTS]") == 123
    assert parse_line(b"# tracer: nop") is None


@given(st.binary(max_size=200))
def test_a_line_of_any_bytes_is_an_event_a_count_of_lost_ones_or_none(line):
    for text in (line, V61[:120] + line):
        assert isinstance(parse_line(text), Event | int | None)


class Known:
    def __init__(self, places):
        self.places = places

    def find(self, frame, collapsed):
        return self.places.get((frame, collapsed))


def test_addresses_only_where_confirmed_and_one_process_only():
    events = [parse_line(line) for line in V72.splitlines()]
    watcher = Watcher(Known({(0x1200, False): (42, 0x7F0000000000)}), only=42)
    kept = watcher.take(events)
    assert [d.address for d in kept] == [0x7F0000000000, None], (
        "the same mm: its pid is known, the second address is not"
    )
    assert (watcher.elsewhere, watcher.unnamed) == (0, 1), (
        "whose the third is no page tells: it may be this process's"
    )
    assert watcher.wasted == 1 and watcher.located == 1


def test_what_is_anothers_is_not_what_nobody_names():
    events = [parse_line(line) for line in V72.splitlines()]
    watcher = Watcher(Known({(0x1200, False): (42, 0x7F0000000000)}), only=7)
    assert watcher.take(events) == []
    assert (watcher.elsewhere, watcher.unnamed) == (2, 1)


def test_kernel_memory_names_whose_memory_it_was():
    asked = []

    class Spaces:
        def owner(self, mm):
            asked.append(mm)
            return {0xAA00AA00: 77}.get(mm)

    events = [parse_line(line) for line in V72.splitlines()]
    kept = Watcher(None, spaces=Spaces()).take(events)
    assert [each.pid for each in kept] == [77, 77, None]
    assert asked == [0xAA00AA00, 0xBB00BB00], "an owner that is known is not asked for again"


def test_leftovers_of_the_dead_go_those_of_the_living_stay(tmp_path):
    instances = tmp_path / "instances"
    instances.mkdir()
    started = Path(f"/proc/{os.getpid()}/stat").read_text().rsplit(")", 1)[1].split()[19]
    ours, dead, recycled = (
        f"secondsight-{os.getpid()}-{started}",
        "secondsight-999999999-5",
        f"secondsight-{os.getpid()}-1",
    )
    for name in (ours, dead, recycled, "secondsight-odd", "somebody"):
        (instances / name).mkdir()
    assert sorted(remove_leftovers(tmp_path)) == sorted([dead, recycled])
    assert sorted(p.name for p in instances.iterdir()) == sorted([ours, "secondsight-odd", "somebody"])


def test_a_failed_start_leaves_nothing(tmp_path):
    (tmp_path / "instances").mkdir()
    (tmp_path / "events/huge_memory/mm_khugepaged_scan_pmd").mkdir(parents=True)
    with pytest.raises(MissingDependency):
        Instance.open(tmp_path)
    leftover = list((tmp_path / "instances").iterdir())
    # A real tracefs folder goes with rmdir, files and all; this one holds what was written before the failure.
    assert all(p.name.startswith("secondsight-") for p in leftover)
    with pytest.raises(MissingDependency, match="no khugepaged tracepoints"):
        Instance.open(tmp_path / "nothing")


def test_the_scan_of_the_page_cache_has_its_file_and_address():
    (done, frame), (refused, _) = decisions(FILES)
    assert (done.file, done.address, done.status, done.present, frame) == (
        "ram",
        0x300000200000,
        "succeeded",
        512,
        None,
    )
    assert (refused.file, refused.address, refused.status) == (
        "a, mm=1, result=\x1b[31m",
        None,
        "exceed_none_pte",
    )
    assert (refused.present, refused.unmapped, refused.mm) == (7, 3, done.mm), "a file's name forges no field"
