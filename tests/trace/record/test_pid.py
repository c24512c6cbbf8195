"""Recording a running process: a child of ours that writes what we know."""

import os
import subprocess
import sys

import numpy as np
import pytest

from secondsight.errors import TargetGone, UsageError
from secondsight.trace import Kind, Trace
from secondsight.trace.read.damo import DamonRegion
from secondsight.trace.record.pid import record_pid

# Grows by 64 pages whenever told to, and tells where.
GROWER = """
import ctypes, mmap, sys
area = mmap.mmap(-1, 1024 * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
print(ctypes.addressof(ctypes.c_char.from_buffer(area)), flush=True)
for step, _ in enumerate(sys.stdin):
    for page in range(64):
        area[(step * 64 + page) * 4096] = 1
    print("done", flush=True)
"""


@pytest.mark.parametrize("clear", [False, True])
def test_pages_that_a_process_writes_are_seen(tmp_path, clear):
    with subprocess.Popen([sys.executable, "-c", GROWER], stdin=-1, stdout=-1, text=True) as child:
        base = int(child.stdout.readline())
        steps = 0

        def step(pages, rows, looks):
            nonlocal steps
            if looks in (1, 2):
                child.stdin.write("go\n")
                child.stdin.flush()
                child.stdout.readline()
                steps += 1

        provenance = record_pid(
            tmp_path / "t.parquet", child.pid, interval=0.05, duration=0.4, clear=clear, report=step
        )
        child.stdin.close()
    assert steps == 2
    columns = Trace.open(tmp_path / "t.parquet").read()
    inside = (columns["address"] >= base) & (columns["address"] < base + 128 * 4096)
    wrote = inside & (columns["kind"] == Kind.CPU_WRITE)
    assert np.unique(columns["address"][wrote]).tolist() == [base + page * 4096 for page in range(128)]
    _, looks = np.unique(columns["time"][wrote], return_counts=True)
    assert looks.min() >= 64
    assert provenance.quantum == 50_000_000
    assert "became present" in provenance.notes[0]
    assert any("--clear" in what for what in provenance.unseen) != clear


def test_requests_that_cannot_be(tmp_path):
    with pytest.raises(TargetGone, match="no process"):
        record_pid(tmp_path / "t.parquet", (1 << 22) + 1)
    with pytest.raises(UsageError, match="interval"):
        record_pid(tmp_path / "t.parquet", os.getpid(), interval=0)
    assert list(tmp_path.iterdir()) == []


def test_a_recording_that_cannot_begin_says_nothing_of_channels(tmp_path):
    (tmp_path / "t.parquet.recording").touch()
    said = []
    with pytest.raises(UsageError, match="unfinished recording"):
        record_pid(tmp_path / "t.parquet", os.getpid(), say=said.append)
    assert said == []


def test_a_process_that_exits_ends_the_recording(tmp_path):
    child = subprocess.Popen(["sleep", "0.3"])

    def reap(pages, rows, looks):
        child.poll()

    provenance = record_pid(tmp_path / "t.parquet", child.pid, interval=0.05, duration=20, report=reap)
    assert any("exited" in note for note in provenance.notes)


def test_a_process_that_execs_ends_the_recording(tmp_path):
    program = (
        "import os; print(1, flush=True); os.read(0, 1); os.execlp('sh', 'sh', '-c', 'echo 2; read line')"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=-1, stdout=-1, text=True) as child:
        child.stdout.readline()

        def exec_now(pages, rows, looks):
            if looks == 2:
                child.stdin.write("x")
                child.stdin.flush()
                child.stdout.readline()

        provenance = record_pid(
            tmp_path / "t.parquet", child.pid, interval=0.05, duration=20, report=exec_now
        )
        assert child.poll() is None
        child.stdin.close()
    assert provenance.notes[-2:] == [
        "the process called exec while it was recorded; the program that it is now was not looked at", "2 looks",
    ]  # fmt: skip


def test_a_process_that_nobody_waited_for_has_exited_too(tmp_path):
    child = subprocess.Popen(["sleep", "0.3"])
    provenance = record_pid(tmp_path / "t.parquet", child.pid, interval=0.05, duration=20)
    child.wait()
    assert any("exited" in note for note in provenance.notes)


class Regions:
    """Channels beside procfs that tell of one region at each look."""

    def __init__(self, start, end):
        self.region = DamonRegion(1 << 60, 0, start, end, 7)
        self.seen, self.unseen, self.missing = ["a monitor"], ["which page"], {"kernel memory": "no root"}
        self.finished = 0

    def looker(self, clear, soft_dirty):
        return None

    def regions(self):
        return [self.region]

    def finish(self):
        self.finished += 1
        return ["the monitor is down"]


def test_a_region_is_rows_of_its_pages_that_are_present(tmp_path):
    """The child writes 64 pages of 1024; a region over all of them is accessed in 7 samples at the one look after."""
    with subprocess.Popen([sys.executable, "-c", GROWER], stdin=-1, stdout=-1, text=True) as child:
        base = int(child.stdout.readline())
        child.stdin.write("go\n")
        child.stdin.flush()
        child.stdout.readline()
        channels, said = Regions(base, base + 1024 * 4096), []
        provenance = record_pid(
            tmp_path / "t.parquet",
            child.pid,
            interval=0.1,
            duration=0.001,
            channels=channels,
            say=said.append,
        )
        child.stdin.close()
    columns = Trace.open(tmp_path / "t.parquet").read()
    # Python may take a page of its own meanwhile.
    inside = (columns["address"] >= base) & (columns["address"] < base + 1024 * 4096)
    columns = {name: column[inside] for name, column in columns.items()}
    assert columns["address"].tolist() == [base + page * 4096 for page in range(64)] * (
        len(columns["time"]) // 64
    )
    assert set(columns["count"].tolist()) <= {7, 14} and set(columns["kind"].tolist()) == {Kind.CPU_READ}
    assert said == [
        "channels seen: procfs: pages that became present; a monitor",
        "channel not seen: kernel memory: no root",
    ]
    assert provenance.notes[: len(said)] == said and provenance.notes[-1] == "the monitor is down"
    assert "which page" in provenance.unseen and channels.finished == 1
