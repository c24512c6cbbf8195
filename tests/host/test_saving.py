"""Processors kept busy, and what huge pages could save of them: of tasks that nobody has, and of a process that works."""

import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from secondsight.host import host, saving
from secondsight.host.saving import NOT_READ, NOTHING, OF_A_VM, Moment, Saving
from secondsight.host.strata import Stratum
from secondsight.host.tasks import Task
from secondsight.predict.at_most import AtMost
from support.predict import made

GIB = 1 << 30


def task(pid, command=("x",), huge=0, cgroup="0::/a\n"):
    return Task(pid, "x", 0, 7, cgroup, command, {"Rss": GIB, "AnonHugePages": huge})


class Open(Stratum):
    """Blocks that *could* is said of."""

    def __init__(self, could):
        self.said = could

    could = property(lambda self: self.said)


def over(used, priced=None):
    """Of two seconds, in which each process used *used* of CPU."""
    key = {(pid, 7): 10.0 for pid in used}
    after = {(pid, 7): 10.0 + seconds for pid, seconds in used.items()}
    return Saving(Moment(100.0, key), Moment(102.0, after), priced or made())


def test_a_busy_process_by_its_size():
    saved = over({1: 3.0}).of([task(1)], {1: Open(True)})
    assert saved.busy == 1.5 and saved.why == ""
    share = AtMost(made()).saving(1024)
    assert (saved.bounds.low, saved.bounds.high) == (1.5 * share.low, 1.5 * share.high)
    half = over({1: 3.0}).of([task(1, huge=GIB // 2)], {1: Open(True)})
    assert half.bounds.high == pytest.approx(1.5 * AtMost(made()).saving(512).high)


def test_where_nothing_could_become_huge_nothing_is_saved():
    for strata in ({1: Open(False)}, {}):
        assert over({1: 3.0}, "no calibration").of([task(1)], strata) == (1.5, NOTHING, "")
    assert over({1: 0.0}, "no calibration").of([task(1)], {1: Open(True)}) == (0.0, NOTHING, "")


@pytest.mark.parametrize(
    ("command", "strata", "priced", "why"),
    [
        (("x",), Open(True), "no calibration", "no calibration"),
        (("qemu-system-x86_64", "-name", "web"), Open(True), None, OF_A_VM),
        (("x",), None, None, NOT_READ),
    ],
)
def test_unknown_and_why(command, strata, priced, why):
    saved = over({1: 3.0, 2: 1.0}, priced).of([task(1, command), task(2)], {1: strata, 2: Open(False)})
    assert saved == (2.0, None, why)


def test_another_process_of_the_same_number_is_not_taken_for_it():
    before, after = Moment(0.0, {(1, 7): 10.0}), Moment(1.0, {(1, 8): 11.0})
    assert Saving(before, after, made()).of([task(1)], {1: Open(True)}) == (None, None, saving.ENDED)
    went_back = Saving(before, Moment(1.0, {(1, 7): 2.0}), made())
    assert went_back.of([task(1)], {1: Open(True)}).busy is None


def test_clocks_of_processes():
    """Of this process: what time.process_time says. Of one that is not there: none."""
    one = SimpleNamespace(pid=os.getpid(), start_time=1)
    began = time.process_time()
    clocks = saving.moment([one, SimpleNamespace(pid=4194999, start_time=1)])
    assert began <= clocks.used[one.pid, 1] <= time.process_time()
    assert list(clocks.used) == [(one.pid, 1)]


def test_a_process_that_works_and_one_that_sleeps(monkeypatch):
    """Of a loop and a sleeper, with the calibration of another machine: unknown for the busy one, nothing to save for the other."""
    monkeypatch.setattr(saving, "priced", lambda: "another machine's")
    with (
        subprocess.Popen([sys.executable, "-c", "x = bytearray(8 << 20)\nwhile True: pass"]) as works,
        subprocess.Popen(["sleep", "1000"]) as sleeps,
    ):
        try:
            time.sleep(0.5)
            view = host(pids=[works.pid, sleeps.pid], budget=0.5)
        finally:
            works.kill()
            sleeps.kill()
    rows = {row.pid: row for row in view.rows}
    assert rows[works.pid].busy > 0.05
    assert rows[sleeps.pid].busy < 0.05 and rows[sleeps.pid].saves == NOTHING
    assert view.unpriced == "another machine's"
    if rows[works.pid].then.high:
        assert (rows[works.pid].saves, rows[works.pid].saves_why) == (None, "another machine's")
