"""Where errors become exit codes: one line each, whatever happens to the streams."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from secondsight.cli import main
from secondsight.trace import Provenance, Space, TraceWriter
from support.commands import SECONDSIGHT, one_line, run


@pytest.mark.parametrize("argv", [["--help"], ["rules"], ["rules", "--json"]])
def test_a_full_disk_under_standard_output_is_told(argv) -> None:
    with Path("/dev/full").open("w") as full:
        one_line(run(*argv, capture_output=False, stdout=full, stderr=subprocess.PIPE), 1, "No space left")


def closed(streams: str, *argv: str) -> subprocess.CompletedProcess[str]:
    """The command with *streams* closed, as a shell writes it."""
    return subprocess.run(
        ["sh", "-c", f'"$@" {streams}', "sh", *SECONDSIGHT, *argv],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_closed_standard_input_or_error_is_no_error() -> None:
    finished = closed("<&- 2>&-", "rules")
    assert finished.returncode == 0 and finished.stdout.startswith(closed("", "rules").stdout[:20])


@pytest.mark.parametrize(
    "argv", [("rules",), ("--help",), ("doctor",), ("top", "--csv"), ("explain", "--pid", "1")]
)
def test_a_closed_standard_output_is_told(argv: tuple[str, ...]) -> None:
    """What was to be told would be lost, with the exit code of success."""
    one_line(closed("<&- >&-", *argv), 1, "standard output is closed")
    finished = closed(">&- 2>&-", *argv)
    assert (finished.returncode, finished.stdout, finished.stderr) == (1, "", "")


def unread(*argv: str) -> subprocess.CompletedProcess[str]:
    """The command where nobody reads its standard error any more, as in ``2>&1 >answer | head -0``."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        return run(*argv, capture_output=False, stdout=subprocess.PIPE, stderr=writer)
    finally:
        os.close(writer)


@pytest.mark.parametrize(
    ("argv", "code"),
    [(("rules",), 0), (("explain", "--pid", "0"), 2), (("explain", "--no"), 2), (("lab", "hold", "x"), 2)],
)
def test_an_exit_code_is_the_same_where_nobody_reads_why(argv: tuple[str, ...], code: int) -> None:
    assert unread(*argv).returncode == code


def test_a_recording_goes_on_where_nobody_reads_how_it_goes(tmp_path) -> None:
    path = tmp_path / "t.parquet"
    how = ("--procfs", "--no-damon", "--interval", "0.05", "--for", "100ms")
    assert unread("record", "pid", str(os.getpid()), "-o", str(path), *how).returncode == 0
    assert path.read_bytes().startswith(b"PAR1")


def test_a_locale_without_the_signs_we_print() -> None:
    environment = os.environ | {
        "PYTHONIOENCODING": "ascii",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "LC_ALL": "C",
    }
    finished = run("rules", "--diff", "6.12", "6.18", env=environment)
    assert finished.returncode == 0, finished.stderr
    assert "zap_transfers_accessed = true ? false" in finished.stdout


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [
        (signal.SIGTERM, 143, "terminated"),
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGHUP, 129, "terminated"),
    ],
)
def test_a_signal_in_the_middle_of_work_leaves_nothing_half_written(tmp_path, number, code, word) -> None:
    path = tmp_path / "t.parquet"
    process = subprocess.Popen(
        [*SECONDSIGHT, "convert", "-", "--format", "lackey", "-o", str(path)],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(" L 1ffeffe7e,8\n" * 100_000)
    process.stdin.flush()
    deadline = time.monotonic() + 60
    while not list(tmp_path.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    message = process.communicate(timeout=60)[1]
    assert process.returncode == code
    assert message == f"secondsight: {word}\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["convert", "IN", "-o", "IN"], "is what is read"),
        (["convert", "IN", "-o", "FOLDER"], "is a directory"),
        (["convert", "IN", "-o", "OUT", "--quantum", "99999999999999999999"], "--quantum"),
        (["replay", "FOLDER"], "is a directory"),
        (["replay", "IN"], "secondsight convert"),
        (["replay", "TORN"], "its end is missing"),
        (["replay", "TRACE", "--picture", "none/x.svg"], "there is no directory none"),
        (["replay", "TRACE", "--knob", "scan_sleep_millisecs=99999999999999"], "as in sysfs"),
        (["replay", "TRACE", "--knob", "pages_to_scan=²"], "NAME=NUMBER"),
        (["replay", "TRACE", "--mmu", "tlb"], "one of npt, shadow, ept, ept-noad"),
        (["compare", "TRACE", "--parquet", "TRACE"], "is what is read"),
        (["compare", "TRACE", "-p", "hawkeye,every=-1"], "every=-1.0: must be 0.001 to 4294967.295"),
        (["trace", "cut", "TRACE", "-o", "TRACE"], "is what is read"),
        (["trace", "cut", "TRACE", "-o", "FOLDER"], "is a directory"),
        (["trace", "recover", "TORN", "-o", "TORN"], "is what is read"),
        (["record", "run", "-o", "FOLDER", "--", "true"], "is a directory"),
        (
            ["record", "run", "-o", "OUT", "--output", "OUT", "--", "true"],
            "-o/--output is given more than once",
        ),
        (["collapse", "--pid", "1", "--pid", "2", "--dry-run"], "--pid is given more than once"),
        (
            ["explain", "--pid", "1", "--kernel-memory", "--procfs"],
            "--kernel-memory/--procfs is given more than once",
        ),
        (["record", "run", "-o", "KILLED", "--", "true"], "trace recover"),
    ],
)
def test_a_wrong_request_is_one_line(tmp_path, argv, words) -> None:
    trace, torn = tmp_path / "trace.parquet", tmp_path / "torn.parquet"
    with TraceWriter(trace, Provenance(source="test", spaces=[Space(id=0, name="p", type="process")])) as out:
        out.append([0, 1], 0, [0, 4096], 0)
    torn.write_bytes(trace.read_bytes()[:-9])
    (tmp_path / "in.txt").write_text(" L 1ffeffe7e,8\n")
    (tmp_path / "killed.parquet.recording").write_text("kept")
    names = {
        "IN": "in.txt",
        "OUT": "out.parquet",
        "FOLDER": ".",
        "TORN": "torn.parquet",
        "TRACE": "trace.parquet",
    }
    names["KILLED"] = "killed.parquet"
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    one_line(run(*[names.get(word, word) for word in argv], cwd=tmp_path), 2, words)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_mark_that_comes_before_the_recording_or_after_it_does_not_end_it() -> None:
    script = """
import os, signal
from secondsight import cli
from secondsight.cli import group

def work(self, context):
    os.kill(os.getpid(), signal.SIGUSR1)
    print("goes on", flush=True)

group.LazyGroup.invoke = work
cli.main(["top", "--record=x.parquet"])
"""
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (finished.returncode, finished.stdout) == (0, "goes on\n")


def test_what_is_kept_is_said_with_the_interrupt_and_only_then() -> None:
    script = """
from secondsight import cli
from secondsight.cli import group

def work(self, context):
    error = KeyboardInterrupt()
    error.add_note("x.recording is kept")
    raise error

group.LazyGroup.invoke = work
cli.main(["rules"])
"""
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (finished.returncode, finished.stderr) == (130, "secondsight: interrupted; x.recording is kept\n")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["lab", "compare", "--random", "-5"], "--random"),
        (["verify", "--pid", str(os.getpid()), "--for", "nan"], "--for nan: write a time such as 30s"),
    ],
    ids=["random", "for"],
)
def test_what_is_wrong_with_a_number_is_said_first(argv, words) -> None:
    one_line(run(*argv), 2, words)


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")]
)
def test_what_is_raised_because_an_interrupt_was_lost_is_no_traceback(
    capsys, monkeypatch, number, code, word
) -> None:
    def run(words):
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), number)
            signal.pause()
        raise RuntimeError("no compiled object yet")

    monkeypatch.setattr("secondsight.cli.run_words", run)
    with pytest.raises(SystemExit, match=str(code)):
        main(["rules"])
    assert capsys.readouterr().err == f"secondsight: {word}\n"
    # And where there was no interrupt it is a fault of ours, whole.
    monkeypatch.setattr("secondsight.cli.run_words", lambda words: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["rules"])


@pytest.mark.parametrize("argv", [["rules"], ["doctor", "--json"]])
def test_a_reader_that_leaves_is_no_error(argv) -> None:
    with subprocess.Popen([*SECONDSIGHT, *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stderr is not None
        child.stdout.close()
        assert (child.stderr.read(), child.wait()) == (b"", 0)
