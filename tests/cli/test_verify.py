"""verify: before and after a change of a running process, and what was predicted of it."""

import os

import msgspec
import pytest

from secondsight.predict import observe
from secondsight.report import encode
from support.commands import in_process, printed, refused
from support.results import results


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("--save", "x.json"), "say what to look at: --pid PID or --cgroup DIRECTORY"),
        (("--pid", "1", "--cgroup", "/x", "--save", "x.json"), "say what to look at"),
        (("--pid", "99999999", "--save", "x.json"), "there is no such process"),
        (("--cgroup", "/nowhere"), "no directory of a cgroup"),
        (("--pid", "SELF"), "--save FILE before the change, --before FILE after it"),
        (("--pid", "SELF", "--save", "x.json", "--predicted", "r.json"), "it needs --before FILE"),
        (("--pid", "SELF", "--save", "x.json", "--for", "soon"), "write a time"),
        (("--pid", "SELF", "--for", "nan"), "--for nan: write a time such as 30s"),
        (("--pid", "SELF", "--save", "x.json", "--work", " "), "--work: name a command"),
        (("--pid", "SELF", "--save", "notes"), "no file of --save: give another name"),
        (("--pid", "SELF", "--before", "nowhere.json"), "nowhere.json"),
        (("--pid", "SELF", "--before", "notes"), "notes"),
    ],
)
def test_what_cannot_be_verified_is_one_line(argv, says, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes").write_text("precious")
    words = [str(os.getpid()) if word == "SELF" else word for word in argv]
    assert says in refused(capsys, "verify", *words)
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("notes", "precious")]


def test_before_and_after_of_a_running_process(tmp_path, capsys):
    """This process, looked at twice for a moment, its work counted by a command; the file of the first is what the second reads."""
    before, argv = tmp_path / "before.json", ("verify", "--pid", os.getpid(), "--for", "100ms")
    work = ("--work", "date +%s%N")
    assert "units of work" in printed(capsys, *argv, *work, "--save", before)
    assert "CPU time for a unit of work" in printed(capsys, *argv, *work, "--before", before)
    assert "same command in both" in refused(capsys, *argv, "--before", before)


def seen(cpu, huge=1 << 29):
    """Ten seconds of a process that took *cpu* of them for 100 units of work."""
    return observe.Observed(
        what="process 1", name="p", seconds=10.0, cpu=cpu, faults=7, anon=1 << 30, huge=huge, work=100.0
    )  # fmt: skip


@pytest.mark.parametrize(("cpu", "says"), [(5.0, ": as predicted"), (9.9, ": not as predicted")])
def test_a_change_is_held_against_what_was_predicted(cpu, says, tmp_path, monkeypatch, capsys):
    """Predicted to halve the CPU time, give or take a tenth."""
    before, predicted = tmp_path / "b.json", tmp_path / "r.json"
    before.write_bytes(msgspec.json.encode(seen(10.0, 0)))
    made = results()
    figures = {"run_time": 5.0, "run_time_low": 4.5, "run_time_high": 5.5, "run_time_change": -0.5}
    row = msgspec.structs.replace(made.rows[0], metrics=made.rows[0].metrics | figures)
    predicted.write_bytes(encode(msgspec.structs.replace(made, rows=[row])))
    monkeypatch.setattr(observe, "observe", lambda *_, **__: seen(cpu))
    argv = ("verify", "--pid", os.getpid(), "--before", before, "--predicted", predicted)
    out = printed(capsys, *argv)
    assert f"predicted for {row.label}: -50.0% of CPU time" in out and out.endswith(f"{says}\n")
    assert f"--row none: there are {row.label}" in refused(capsys, *argv, "--row", "none")


def test_results_without_a_predicted_run_time_are_refused(tmp_path, capsys):
    before, predicted = tmp_path / "b.json", tmp_path / "r.json"
    before.write_bytes(msgspec.json.encode(seen(10.0, 0)))
    predicted.write_bytes(encode(results()))
    argv = ("verify", "--pid", os.getpid(), "--before", before, "--predicted", predicted)
    code, out, err = in_process(capsys, *argv)
    assert (code, out) == (2, "") and "holds no predicted run time" in err
