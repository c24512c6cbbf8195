"""Recording a program, where valgrind is installed."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from secondsight.errors import MissingDependency, UsageError
from secondsight.trace import Trace
from secondsight.trace.record import emulator
from secondsight.trace.record.run import record_run

needs_valgrind = pytest.mark.skipif(shutil.which("valgrind") is None, reason="no valgrind")


def test_without_valgrind_it_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependency, match="needs valgrind"):
        record_run(tmp_path / "t.parquet", ["true"])
    assert list(tmp_path.iterdir()) == []


@needs_valgrind
def test_a_program_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match="no such program"):
        record_run(tmp_path / "t.parquet", ["/no/such/program"])
    assert list(tmp_path.iterdir()) == []


@needs_valgrind
def test_children_are_spaces_of_their_own_and_the_exit_code_comes_back(tmp_path):
    provenance, code = record_run(
        tmp_path / "t.parquet", ["sh", "-c", "true; (exit 3); exit 7"], quantum=1000
    )
    assert code == 7
    assert len(provenance.spaces) >= 2
    assert provenance.spaces[0].parent is None and provenance.spaces[1].parent == 0
    trace = Trace.open(tmp_path / "t.parquet")
    columns = trace.read()
    assert set(columns["space"].tolist()) == set(range(len(provenance.spaces)))
    assert columns["count"].sum() > 50_000
    assert [p.name for p in tmp_path.iterdir()] == ["t.parquet"]


needs_emulator = pytest.mark.skipif(
    not emulator.available() or shutil.which("cc") is None, reason="no qemu-user or no C compiler"
)
OPTIONS = {"lackey": "--log-file=", "qemu": "socket="}


def followed(directory, witness):
    """The processes that *witness* runs with a log or a socket in a folder of *directory*."""
    pids = []
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if f"{OPTIONS[witness]}{directory}/secondsight-".encode() in line.read_bytes():
                pids.append(int(line.parent.name))
    return pids


@pytest.mark.parametrize(
    "witness", [pytest.param("lackey", marks=needs_valgrind), pytest.param("qemu", marks=needs_emulator)]
)
@pytest.mark.parametrize("number", [signal.SIGKILL, None])
def test_no_child_outlives_the_recorder(tmp_path, number, witness):
    # One child of the recorded program left for a session of its own.
    last = "wait" if number else "sleep 1"
    command = f"setsid sh -c 'while :; do :; done' & sh -c 'exec {'sleep 60' if number else 'true'}' & {last}"
    recorder = subprocess.Popen(
        [
            *(sys.executable, "-m", "secondsight", "record", "run", "--with", witness, "-o", "t.parquet"),
            *("--", "sh", "-c", command),
        ],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    until = time.monotonic() + 60  # on a busy machine
    while (
        (seen := len(followed(tmp_path, witness))) < 3
        and time.monotonic() < until
        and recorder.poll() is None
    ):
        time.sleep(0.05)
    if number:
        assert seen >= 3  # counted once: one that is about to exec shows no command line for a moment
        recorder.send_signal(number)
    try:
        recorder.wait(60)
    finally:
        recorder.kill()
    until = time.monotonic() + 30
    while (followed(tmp_path, witness) or list(tmp_path.glob("secondsight-*"))) and time.monotonic() < until:
        time.sleep(0.05)
    assert followed(tmp_path, witness) == []
    assert [p.name for p in tmp_path.iterdir()] == ["t.parquet.recording" if number else "t.parquet"]
    if not number:
        assert len(Trace.open(tmp_path / "t.parquet").spaces) >= 4


@needs_valgrind
def test_ctrl_c_keeps_what_was_recorded(tmp_path):
    path = tmp_path / "t.parquet"
    # Where the tests run in a shell's background, SIGINT comes down to them ignored.
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from secondsight.trace.record.run import record_run; raise SystemExit(record_run('t.parquet', ['sleep', '60'])[1])"
    )
    recorder = subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path)
    stream = tmp_path / "t.parquet.recording"
    until = time.monotonic() + 60
    while not (stream.exists() and stream.stat().st_size > 10_000) and time.monotonic() < until:
        time.sleep(0.1)
    recorder.send_signal(signal.SIGINT)
    assert recorder.wait(60) == 0
    trace = Trace.open(path)
    assert trace.rows > 10_000
    assert "interrupted" in trace.provenance.notes[0]
    assert not stream.exists()


def test_a_ctrl_c_before_anything_was_recorded_is_an_interrupt(tmp_path, monkeypatch):
    """A valgrind that has not come to the program yet."""
    there, here = tmp_path / "bin", tmp_path / "here"
    there.mkdir()
    here.mkdir()
    (there / "valgrind").write_text(
        '#!/bin/sh\n[ "$1" = --version ] && { echo valgrind-3.19.0; exit; }\nexec sleep 60\n'
    )
    (there / "valgrind").chmod(0o755)
    monkeypatch.setenv("PATH", f"{there}:{os.environ['PATH']}")

    def report(accesses, rows, spaces):
        assert not spaces
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record_run(here / "t.parquet", ["sleep", "60"], report=report)
    assert list(here.iterdir()) == []
