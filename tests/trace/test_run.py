"""Recording a program, where valgrind is installed."""

import shutil
import signal
import subprocess
import sys
import time

import pytest

from secondsight.errors import MissingPart, SecondSightError
from secondsight.trace import Trace
from secondsight.trace.run import record_run

needs_valgrind = pytest.mark.skipif(shutil.which("valgrind") is None, reason="no valgrind")


def test_without_valgrind_it_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingPart, match="needs valgrind"):
        record_run(tmp_path / "t.parquet", ["true"])
    assert list(tmp_path.iterdir()) == []


@needs_valgrind
def test_a_program_that_is_not_there(tmp_path):
    with pytest.raises(SecondSightError, match="no such program"):
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


@needs_valgrind
def test_ctrl_c_keeps_what_was_recorded(tmp_path):
    path = tmp_path / "t.parquet"
    # Where the tests run in a shell's background, SIGINT comes down to them ignored.
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from secondsight.trace.run import record_run; record_run('t.parquet', ['sleep', '60'])"
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
