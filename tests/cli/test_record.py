"""Recording: which process, whose exit code, and what is said of what was not seen."""

import json
import os
import shutil

import pytest

from secondsight.trace import Trace
from secondsight.trace.record import emulator
from support.commands import in_process, printed, refused


def told(capsys, *argv):
    """What a command that succeeds says on standard error."""
    code, _, err = in_process(capsys, *argv)
    assert code == 0, err
    return err


def test_an_output_that_cannot_be_written_is_told_before_the_channels(target, tmp_path, capsys):
    nowhere = tmp_path / "no" / "t.parquet"
    message = refused(capsys, "record", "pid", target.pid, "-o", nowhere, "--for", "1s")
    assert "there is no directory" in message and message.count("\n") == 1


def test_a_recording_that_saw_nothing_says_what_it_could_not_see(target, capsys, tmp_path):
    path = tmp_path / "t.parquet"
    argv = ["record", "pid", target.pid, "-o", path, "--procfs", "--no-damon", "--pages"]
    message = told(capsys, *argv, "--interval", "0.05", "--for", "200ms")
    assert (
        "nothing was seen, which does not mean that nothing was used; not seen by these channels: accesses between"
        in message
    )
    assert "(process): no accesses\n" in printed(capsys, "trace", "info", path)


def test_samples_say_what_they_could_not_see_and_what_they_cost(target, capsys, tmp_path):
    path = tmp_path / "s.parquet"
    argv = ["record", "pid", target.pid, "-o", path, "--procfs", "--no-damon"]
    message = told(capsys, *argv, "--interval", "0.05", "--for", "200ms")
    assert "primary not seen: no kernel memory (not asked for): use is unknown" in message
    assert "damon not seen: not asked for" in message
    assert "cost     ours: " in message and "ms of CPU a look" in message and "minor fault" in message
    info = printed(capsys, "trace", "info", path)
    assert (
        "samples, " in info and "through procfs" in info and "channel  damon: not seen: not asked for" in info
    )


QUICK = ("--procfs", "--no-damon", "--interval", "0.05", "--for", "100ms")


@pytest.mark.parametrize("words", [("--pid", "{}"), ("{}",), ("--pid={}",)])
def test_a_process_is_named_by_an_option_or_alone(target, capsys, tmp_path, words):
    path = tmp_path / "s.parquet"
    told(capsys, "record", "pid", *(word.format(target.pid) for word in words), "-o", path, *QUICK)
    (space,) = json.loads(printed(capsys, "trace", "info", path, "--json"))["spaces"]
    assert 25 <= space["blocks"] < 60, "the ten and fifteen of the target, and what an interpreter has"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "say which process, once: --pid PID, or PID alone"),
        (("1", "--pid", "2"), "say which process, once: --pid PID, or PID alone"),
        (("--pid", "1", "--pid", "2"), "--pid is given more than once"),
        (("one",), "Invalid value for 'PID'"),
        (("--pid", "99999999"), "--pid 99999999: there is no such process"),
        (("99999999",), "there is no such process"),
        (("--pid", "1", "--for", "soon"), "--for soon: write a time such as 30s"),
        (("--pid", "1", "--interval", "0"), "interval"),
    ],
)
def test_a_process_that_cannot_be_recorded_is_one_line(words, says, tmp_path, capsys):
    assert says in refused(capsys, "record", "pid", *words, "-o", tmp_path / "t.parquet")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("run", "--with", "gdb", "--", "true"), "--with gdb: there are qemu and lackey"),
        (("run", "--with", "lackey", "--cpu-time", "--", "true"), "--cpu-time goes with qemu"),
        (("run", "--quantum", "-1", "--", "true"), "Invalid value for '--quantum'"),
        pytest.param(
            ("run", "--", "/no/such/program"),
            "/no/such/program: no such program",
            marks=pytest.mark.skipif(
                not emulator.available(),
                reason="no qemu-user: that there is nothing to record with is said first",
            ),
        ),
        (("vm", "--file", "x", "--", "-m", "64"), "--file goes with --kernel"),
        (("vm", "--clock", "sun", "--", "-m", "64"), "--clock sun: there are instructions and wall"),
    ],
)
def test_a_request_that_is_wrong_is_one_line(argv, says, tmp_path, capsys):
    verb, *rest = argv
    assert says in refused(capsys, "record", verb, "-o", tmp_path / "t.parquet", *rest)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(
    not emulator.available() or shutil.which("cc") is None, reason="no qemu-user or no C compiler"
)
@pytest.mark.parametrize(("script", "code"), [("exit 7", 7), ("kill -9 $$", 137)])
def test_the_exit_code_is_the_programs_own(script, code, tmp_path, capsys):
    path = tmp_path / "t.parquet"
    assert in_process(capsys, "record", "run", "-o", path, "--", "sh", "-c", script)[0] == code
    assert Trace.open(path).rows > 0 and os.listdir(tmp_path) == ["t.parquet"]  # noqa: PTH208
