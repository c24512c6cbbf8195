"""Recording a running process: a child of ours that writes what we know."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secondsight.errors import InputError, TargetGone, UsageError
from secondsight.trace import Kind, Trace
from secondsight.trace.pid import Mapping, parse_smaps, record_pid, soft_dirty_works

SMAPS = """00400000-00402000 r-xp 00000000 08:01 12 /bin/x
Size:                  8 kB
Rss:                   8 kB
Referenced:            4 kB
7f0000000000-7f0000200000 rw-p 00000000 00:00 0
Rss:                   0 kB
Referenced:            0 kB
VmFlags: rd wr mr mw me ac
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]
Rss:                   0 kB
"""

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


def test_smaps():
    assert parse_smaps(SMAPS) == [
        Mapping(0x400000, 0x402000, "r-xp", 8, 4),
        Mapping(0x7F0000000000, 0x7F0000200000, "rw-p", 0, 0),
    ]
    with pytest.raises(InputError, match="line 3"):
        parse_smaps(SMAPS.replace("8 kB\nRef", "x kB\nRef"))


@given(st.text(alphabet="0123456789abcdef- rwxpRs:kBefnc\n", max_size=200))
def test_no_text_brings_more_than_an_input_error(text):
    try:
        parse_smaps(text)
    except InputError as error:
        assert error.where.startswith("line ")


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


def test_a_process_that_exits_ends_the_recording(tmp_path):
    child = subprocess.Popen(["sleep", "0.3"])

    def reap(pages, rows, looks):
        child.poll()

    provenance = record_pid(tmp_path / "t.parquet", child.pid, interval=0.05, duration=20, report=reap)
    assert any("exited" in note for note in provenance.notes)


def test_soft_dirty_is_asked_of_the_kernel():
    assert soft_dirty_works() in (True, False)
