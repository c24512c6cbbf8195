"""The trace of a pass, in files of the test's own: which probes are set, what was lost, and whose mm is whose."""

import pytest

from secondsight.lab.agent import file_events, passes
from secondsight.lab.agent.events import SCAN, TraceError
from secondsight.lab.agent.passes import Tracer

STATS = "entries: 5\noverrun: {overrun}\ndropped events: {dropped}\nread events: 0\n"
LINE = "  agent-{pid}   [000] .....     1.000001: {event}\n"


@pytest.fixture
def tracing(tmp_path, monkeypatch):
    """tracefs, with khugepaged's events and mmap_lock's."""
    instance = tmp_path / "instances/secondsight"
    for name in ("mm_khugepaged_scan_pmd", "mm_collapse_huge_page", file_events.SCAN_FILE):
        (instance / "events/huge_memory" / name).mkdir(parents=True)
    (instance / "events/mmap_lock/mmap_lock_start_locking").mkdir(parents=True)
    for probe in (SCAN, "ss_flush", file_events.FILE):
        (instance / "events/secondsight" / probe).mkdir(parents=True)
    (instance / "per_cpu/cpu0").mkdir(parents=True)
    (instance / "per_cpu/cpu0/stats").write_text(STATS.format(overrun=0, dropped=0))
    (instance / "trace").write_text("# tracer: nop\n")
    monkeypatch.setattr(passes, "TRACING", tmp_path)
    monkeypatch.setattr(passes, "INSTANCE", instance)
    monkeypatch.setattr(file_events, "probe", lambda: None)
    return tmp_path


def test_khugepageds_events_are_switched_on_where_there_are_such(tracing):
    tracer = Tracer()
    instance = passes.INSTANCE
    assert (
        not tracer.sees_files
        and (tracing / "kprobe_events").read_text() == f"p:secondsight/{SCAN} mm_find_pmd mm=%di addr=%si\n"
    )
    on = {path.parent.name for path in instance.glob("events/huge_memory/*/enable")}
    assert on == {"mm_khugepaged_scan_pmd", "mm_collapse_huge_page", file_events.SCAN_FILE}
    assert (instance / f"events/secondsight/{SCAN}/enable").read_text() == "1\n"
    assert (instance / "tracing_on").read_text() == "0\n"


def test_before_mmap_locks_tracepoints_the_flush_of_a_tlb_tells_the_mm(tracing):
    (passes.INSTANCE / "events/mmap_lock/mmap_lock_start_locking").rmdir()
    Tracer()
    assert (
        "p:secondsight/ss_flush flush_tlb_mm_range mm=%di"
        in (tracing / "kprobe_events").read_text().splitlines()
    )


def test_visits_to_files_are_probed_where_the_kernel_can_tell(tracing, monkeypatch):
    monkeypatch.setattr(file_events, "probe", lambda: "p:secondsight/of_files f\n")
    assert Tracer().sees_files
    assert (tracing / "kprobe_events").read_text().endswith("p:secondsight/of_files f\n")
    assert (passes.INSTANCE / f"events/secondsight/{file_events.FILE}/enable").read_text() == "1\n"


@pytest.mark.parametrize(("overrun", "dropped"), [(3, 0), (0, 1)])
def test_what_the_buffer_lost_is_an_error_and_never_a_pass_of_nothing(tracing, overrun, dropped):
    tracer = Tracer()
    assert tracer.stop() == []
    (passes.INSTANCE / "per_cpu/cpu0/stats").write_text(STATS.format(overrun=overrun, dropped=dropped))
    with pytest.raises(TraceError, match="cpu0 lost events"):
        tracer.stop()


def test_a_processs_mm_is_what_it_locked_for_writing(tracing, monkeypatch):
    tracer, poked = Tracer(), []
    trace = "".join(
        LINE.format(pid=pid, event=f"mmap_lock_start_locking: mm={mm} memcg_path= write={write}")
        for pid, mm, write in (
            (7, "00000000aaaa0000", "false"),
            (7, "00000000bbbb0000", "true"),
            (9, "00000000cccc0000", "true"),
        )
    )
    real = Tracer.start
    monkeypatch.setattr(
        Tracer, "start", lambda self: real(self) or (passes.INSTANCE / "trace").write_text(trace)
    )
    assert tracer.mms([7, 9], poked.append) == {7: 0xBBBB0000, 9: 0xCCCC0000} and poked == [7, 9]
    locks = passes.INSTANCE / "events/mmap_lock/mmap_lock_start_locking"
    assert (locks / "filter").read_text() == "write == 1\n" and (locks / "enable").read_text() == "0\n"
    with pytest.raises(TraceError, match=r"no mm seen for \[8\]"):
        tracer.mms([8], poked.append)
