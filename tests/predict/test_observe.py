"""Before and after: arithmetic over two observations, counters of a process, and a load that moved."""

from __future__ import annotations

import mmap
import os
import time
from pathlib import Path

import msgspec
import pytest

from secondsight.errors import InputError, MissingDependency, SecondSightError, UsageError
from secondsight.predict import observe as seen

BEFORE = seen.Observed(what="p", seconds=10, cpu=8, faults=1000, anon=1 << 30, huge=0, work=400)
AFTER = seen.Observed(what="p", seconds=20, cpu=12, faults=500, anon=1 << 30, huge=1 << 29, work=800)


def test_by_work():
    """20 ms a unit become 15 ms; faults 2.5 a unit 0.625."""
    change = seen.change(BEFORE, AFTER)
    assert (change.cpu, change.faults, change.coverage, change.by_work) == (
        pytest.approx(-0.25),
        pytest.approx(-0.75),
        0.5,
        True,
    )


def test_by_the_clock():
    change = seen.change(*(msgspec.structs.replace(o, work=None) for o in (BEFORE, AFTER)))
    assert (change.cpu, change.by_work) == (pytest.approx(-0.25), False)


def test_work_in_one_alone_compares_nothing():
    with pytest.raises(UsageError, match="same command"):
        seen.change(BEFORE, msgspec.structs.replace(AFTER, work=None))


def test_a_verdict_needs_work():
    predicted = (8.0, 7.0, 9.0, -0.2)  # today 10 s: -30 % to -10 %
    change = seen.change(BEFORE, AFTER)
    verdict = seen.verdict("always", predicted, change)
    assert (verdict.low, verdict.high, verdict.met) == (pytest.approx(-0.3), pytest.approx(-0.1), True)
    assert seen.verdict("always", (9.5, 9.4, 9.6, -0.05), change).met is False
    idle = seen.verdict("always", predicted, msgspec.structs.replace(change, by_work=False))
    assert idle.met is None and "--work" in idle.why


@pytest.mark.parametrize(
    ("predicted", "coverage", "why"),
    [
        ((9.0, 7.0, 10.5, -0.1), 0.5, "no change at all too"),  # -30 % to +5 %
        ((9.0, 7.0, 9.5, -0.1), 0.0, "the change was not made"),
        ((10.0, 10.0, 10.0, 0.0), 0.5, "no change was predicted"),
    ],
)
def test_what_shows_nothing_is_neither_met_nor_missed(predicted, coverage, why):
    change = msgspec.structs.replace(seen.change(BEFORE, AFTER), coverage=coverage)
    verdict = seen.verdict("always", predicted, change)
    assert verdict.met is None and why in verdict.why


def test_two_programs_are_not_compared():
    one, two = (msgspec.structs.replace(BEFORE, name=name) for name in ("redis-server", "w"))
    with pytest.raises(UsageError, match="of one program"):
        seen.change(one, two)
    # The same program started again is one, whatever its PID.
    assert seen.change(one, msgspec.structs.replace(one, what="process 9")).by_work


def test_this_process_is_seen():
    first = seen.of_process(os.getpid())
    # Mapped anew: what an allocator had already would take no fault.
    with mmap.mmap(-1, 8 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as block:
        for page in range(0, len(block), 4096):
            block[page] = 1
        last = seen.of_process(os.getpid())
    assert last.faults > first.faults
    assert last.anon >= 8 << 20
    assert 0 <= last.huge <= last.anon
    assert last.cpu >= first.cpu > 0


def test_a_process_whose_name_is_no_text_is_seen(tmp_path):
    (tmp_path / "7").mkdir()
    fields = b"7 (\xff) R 1 (\x1b) S " + b" ".join(b"%d" % number for number in range(4, 60))
    (tmp_path / "7/stat").write_bytes(fields)
    (tmp_path / "7/smaps_rollup").write_text("0-1 ---p [rollup]\nAnonymous: 8 kB\nAnonHugePages: 4 kB\n")
    observed = seen.of_process(7, tmp_path)
    # Fields 10, 14 and 15 of proc_pid_stat(5), counted from the last parenthesis.
    assert (observed.faults, observed.anon, observed.huge) == (10, 8192, 4096)
    assert observed.cpu == (14 + 15) / os.sysconf("SC_CLK_TCK")


def test_a_cgroup_by_its_files(tmp_path):
    (tmp_path / "cgroup.procs").write_text("")
    (tmp_path / "cpu.stat").write_text("usage_usec 2500000\nuser_usec 1\n")
    (tmp_path / "memory.stat").write_text("anon 4096\nanon_thp 2048\npgfault 7\n")
    assert seen.of_cgroup(tmp_path) == seen.Reading(2.5, 7, 4096, 2048)
    with pytest.raises(UsageError, match="no directory of a cgroup"):
        seen.of_cgroup(tmp_path / "x")
    (tmp_path / "memory.stat").write_text("anon 4096\n")
    with pytest.raises(MissingDependency, match=r"do not say: no pgfault; name a process by --pid"):
        seen.of_cgroup(tmp_path)
    (tmp_path / "cpu.stat").unlink()
    with pytest.raises(MissingDependency, match=r"do not say: No such file or directory;"):
        seen.of_cgroup(tmp_path)


def test_no_work_done_is_an_error():
    with pytest.raises(SecondSightError, match="no work was done"):
        seen.observe("p", lambda: seen.Reading(1, 1, 1, 1), 0.001, "echo 5")
    for word in ("many", "nan", "inf", ""):
        with pytest.raises(UsageError, match="must print a number"):
            seen.work_of(f"echo {word}")


def test_work_is_a_line_of_the_shell_and_what_is_wrong_with_it_is_said():
    assert seen.work_of("printf 'served:42\n' | cut -d: -f2") == 42
    with pytest.raises(UsageError, match=r"ended with exit code 127: .*nosuchcommand"):
        seen.work_of("nosuchcommand")
    with pytest.raises(UsageError, match=r"ended with exit code 1$"):
        seen.work_of("false")
    with pytest.raises(UsageError, match="it printed nothing"):
        seen.work_of("true")
    with pytest.raises(UsageError, match="it printed 'many' first"):
        seen.work_of("echo many words")


def test_work_that_does_not_end_is_ended_with_all_that_it_started(tmp_path, monkeypatch):
    monkeypatch.setattr(seen, "PATIENCE", 0.3)
    with pytest.raises(UsageError, match=r"did not end within 0.3 s"):
        seen.work_of(f"sh -c 'echo $$ >{tmp_path}/pid; exec sleep 1000' | cat")
    pid = int((tmp_path / "pid").read_text())
    until = time.monotonic() + 10
    while runs(pid) and time.monotonic() < until:
        time.sleep(0.01)
    assert not runs(pid), "killed, and still there after ten seconds"


def runs(pid):
    """Whether process *pid* is there, and no zombie that nobody has waited for yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_what_is_no_observation():
    with pytest.raises(InputError, match="not what"):
        seen.decode(b"{}", "b.json")
    assert seen.decode(msgspec.json.encode(AFTER), "b.json") == AFTER
