"""Processes as they are found: ours, those that are none, and those that went."""

import os
import subprocess
import sys
from pathlib import Path

from secondsight.host import tasks


def test_our_own():
    read, trouble = tasks.read_tasks([os.getpid()])
    assert not trouble
    task = read[0]
    assert (task.pid, task.uid) == (os.getpid(), os.geteuid())
    assert "python" in task.command[0] or "pytest" in task.command[0]
    assert 0 < task.sums["Anonymous"] <= task.resident
    assert task.huge <= task.resident


def test_sums_need_no_right_that_listing_needs():
    read, _ = tasks.read_tasks([os.getpid()], sums=False)
    assert read[0].sums == {}
    assert read[0].name == tasks.read_tasks([os.getpid()])[0][0].name


def test_zombies_and_those_that_ended_are_counted():
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert tasks.read_tasks([child.pid]) == ([], {tasks.ZOMBIE: 1})
    assert tasks.read_tasks([child.pid]) == ([], {tasks.GONE: 1})


def test_kernel_threads_are_counted(tmp_path):
    folder = tmp_path / "2"
    folder.mkdir()
    fields = ["0"] * 44
    fields[6] = str(0x00208040)
    (folder / "stat").write_text(f"2 (kthreadd) S {' '.join(fields[1:])}")
    assert tasks.read_tasks([2], str(tmp_path)) == ([], {tasks.KERNEL_THREAD: 1})


def test_a_name_that_would_fool_a_split(tmp_path):
    folder = tmp_path / "77"
    folder.mkdir()
    after = ["S", *["0"] * 18, "4242", "1000000", "5"]
    (folder / "stat").write_bytes(b"77 (a) Z\n(\xff b)) " + " ".join(after).encode())
    (folder / "smaps_rollup").write_text(
        "0-1 ---p 0 0 0 [rollup]\nRss:   12 kB\nAnonHugePages:  4 kB\nPss_Anon: 3 kB\n"
    )
    (folder / "status").write_text("Name:\ta\nUid:\t1\t1000\t3\t4\n")
    (folder / "cgroup").write_text("0::/x\n")
    (folder / "cmdline").write_bytes(b"one\0two words\0")
    read, trouble = tasks.read_tasks([77], str(tmp_path))
    assert not trouble
    assert read[0].name == "a) Z\n(\ufffd b)"
    assert (read[0].uid, read[0].start_time, read[0].command) == (1000, 4242, ("one", "two words"))
    assert (read[0].resident, read[0].huge) == (12 << 10, 4 << 10)


def test_every_process_is_listed():
    def there():
        return {int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()}

    # Processes come and go: of those that were there before and after none is missing; a lasting stranger would be one each time.
    for _ in range(20):
        before, listed, after = there(), tasks.pids(), there()
        assert listed == sorted(set(listed)) and os.getpid() in listed
        assert before & after <= set(listed)
        if set(listed) <= before | after:
            return
    raise AssertionError(f"no process: {set(listed) - before - after}")


def test_a_user_without_a_name_is_a_number():
    assert tasks.user_name(4_000_000_123) == "4000000123"
