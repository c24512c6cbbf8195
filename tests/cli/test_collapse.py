"""Collapsing: whom, who chooses, and how it ends."""

import json
import os
import signal
from pathlib import Path

import pytest

from secondsight.live.act import collapse as live
from secondsight.live.act import madvise
from secondsight.signals import ENDING
from support.commands import in_process, printed, refused


def test_what_is_marked_is_left_alone(target, capsys):
    dry_run = json.loads(printed(capsys, "collapse", "--pid", target.pid, "--procfs", "--dry-run", "--json"))
    with Path(f"/proc/{target.pid}/smaps").open() as smaps:
        marked = [line.split()[0] for line in smaps if "-" in line.split()[0]]
    assert marked and all(choice["address"] for choice in dry_run["chosen"])
    explained = json.loads(printed(capsys, "explain", "--pid", target.pid, "--procfs", "--json"))
    forbidden = [(m["start"], m["end"]) for m in explained["mappings"] if m["advice"] == "MADV_NOHUGEPAGE"]
    assert forbidden and dry_run["left"]["MADV_NOHUGEPAGE"] >= 9, "each with its reason"
    for choice in dry_run["chosen"]:
        assert not any(low <= choice["address"] < high for low, high in forbidden)


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ((), "secondsight: say which process: one of --pid PID, --cgroup PATH, --vm NAME"),
        (("--pid", "1", "--vm", "a"), "say which process: one of"),
        (("--cgroup", ""), "take a name; / is the cgroup of the whole host"),
        (("--pid", "99999999"), "there is no such process"),
        (("--pid",), "secondsight collapse: Option '--pid' requires an argument"),
        (("--pid", "1", "--min-populated", "513"), "Invalid value for '--min-populated'"),
        (("--pid", "1", "--max-added", "10"), "--max-added 10: is 10 bytes, less than a page; 10M?"),
        (("--pid", "1", "--max-added", "some"), "--max-added some: write an amount"),
        (("--pid", "1", "--max-pressure", "10"), "--max-pressure 10: write a percentage"),
        (("--pid", "1", "--until-coverage", "2"), "--until-coverage 2: write a percentage"),
        (("--pid", "1", "--budget", "lots"), "--budget lots"),
        (("--pid", "1", "--policy", "ingens"), "clears accessed bits"),
        (("--pid", "1", "--policy", "pcc"), "needs page walk counts"),
        (("--pid", "1", "--policy", "never"), "use khugepaged or madv_collapse"),
    ],
)
def test_what_cannot_be_asked_is_one_line(argv, says, capsys, monkeypatch):
    monkeypatch.setattr(madvise, "available", lambda: "")
    assert says in refused(capsys, "collapse", *argv)


def test_without_the_call_there_is_nothing_but_a_dry_run(target, capsys, monkeypatch):
    monkeypatch.setattr(madvise, "available", lambda: "this kernel has none")
    argv = ("collapse", "--pid", target.pid, "--procfs")
    assert refused(capsys, *argv, code=1) == "secondsight: MADV_COLLAPSE: this kernel has none\n"
    assert "nothing was changed" in printed(capsys, *argv, "--dry-run")


@pytest.fixture
def rounds(monkeypatch):
    """What each round of a collapse came to, instead of collapsing: a function of no arguments that gives its Round."""
    monkeypatch.setattr(madvise, "available", lambda: "")

    def give(*made):
        left = list(made)
        monkeypatch.setattr(live.Collapser, "run", lambda self, selection: left.pop(0)())

    return give


@pytest.mark.parametrize("number", ENDING)
def test_what_is_cut_short_ends_as_its_signal_says_and_following_ends_well(target, capsys, rounds, number):
    def signalled():
        os.kill(os.getpid(), number)
        return live.Round(considered=3, collapsed=2, stopped=live.INTERRUPTED)

    argv = ("collapse", "--pid", target.pid, "--procfs")
    rounds(signalled)
    code, out, err = in_process(capsys, *argv)
    word = "interrupted" if number == signal.SIGINT else "terminated"
    assert (code, err) == (128 + number, f"secondsight: {word}\n")
    assert "2 collapsed" in out and "stopped: interrupted" in out, "its totals are told"
    rounds(signalled)
    code, out, err = in_process(capsys, *argv, "--follow")
    assert (code, err) == (0, "") and "2 collapsed" in out


@pytest.mark.parametrize(
    ("round_", "code"),
    [
        (live.Round(), 0),
        (live.Round(stopped=live.COVERED), 0),
        (live.Round(failed=True, stopped="memory.max"), 1),
        (live.Round(stopped=live.EXITED), 1),
    ],
    ids=["done", "covered", "limit", "exited"],
)
def test_the_exit_code_says_whether_it_came_to_its_end(target, capsys, rounds, round_, code):
    rounds(lambda: round_)
    assert in_process(capsys, "collapse", "--pid", target.pid, "--procfs")[0] == code


def test_a_dry_run_that_follows_is_refused(target, capsys):
    text = refused(capsys, "collapse", "--pid", target.pid, "--procfs", "--follow", "--dry-run", code=2)
    assert "--follow, --dry-run: name one of them" in text and text.count("\n") == 1
