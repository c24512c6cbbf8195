"""Many processes, one after the other: what one adds is taken off what the next may."""

import os
from types import SimpleNamespace

import pytest

from secondsight.cli import collapse_many, main
from secondsight.host.tasks import read_tasks
from secondsight.live.act.guard import Guarding


class Waiting:
    asked = False

    def wait(self, seconds):
        return True


class Pretended:
    """Rounds that add *adds* bytes, of the *allowance* they have by themselves."""

    def __init__(self, adds, allowance, seen):
        self.guarding, self.json, self.last = Guarding(), True, None
        self._adds, self._allowance, self._seen = adds, allowance, seen

    def run(self, stopping, follow):
        assert not follow
        self._seen.append(self.guarding.left)
        self.of = self.guarding.left_of
        limit = "half of what its limits leave"
        self.last = SimpleNamespace(allowance=self._allowance, added=self._adds, limit=limit)
        return 0


def test_one_allowance_over_all():
    own = read_tasks([os.getpid()], sums=False)[0]
    adds, seen = iter([30, 50, 40]), []
    code = collapse_many.run(
        lambda: own * 3,
        lambda process: Pretended(next(adds), 100, seen),
        Waiting(),
        interval=1.0,
        follow=False,
    )
    assert code == 0
    assert seen == [None, 70, 20]


def test_one_allowance_over_all_rounds_too():
    """With --follow it would else be a new one every interval."""

    class Twice(Waiting):
        waits = 0

        def wait(self, seconds):
            self.waits += 1
            return self.waits > 1

    own, seen, made = read_tasks([os.getpid()], sums=False)[0], [], []

    def make(process):
        made.append(Pretended(60, 100, seen))
        return made[-1]

    collapse_many.run(lambda: own, make, Twice(), interval=1.0, follow=True)
    assert seen == [None, 40]
    assert made[-1].of.endswith(", half of what its limits leave")


def test_a_process_that_went_is_passed_over():
    own = read_tasks([os.getpid()], sums=False)[0][0]
    gone = type(own)(4_000_000, "gone", 0, 1, "", (), {})
    seen = []
    assert (
        collapse_many.run(
            lambda: [gone, own], lambda process: Pretended(1, 2, seen), Waiting(), interval=1.0, follow=False
        )
        == 0
    )
    assert seen == [None]


def test_a_process_that_may_not_be_read_does_not_keep_the_others_waiting(capsys, monkeypatch):
    own = read_tasks([os.getpid()], sums=False)[0][0]
    other = type(own)(os.getppid(), "closed\n", 0, 1, "", (), {})
    monkeypatch.setattr(
        collapse_many, "unreadable", lambda process: "not yours" if process.pid == other.pid else ""
    )
    seen = []
    code = collapse_many.run(
        lambda: [other, own], lambda process: Pretended(1, 2, seen), Waiting(), interval=1.0, follow=False
    )
    assert (code, seen) == (1, [None])
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and "left alone: not yours" in message and str(other.pid) in message


@pytest.mark.parametrize("words", [("--cgroup", ""), ("--vm", "")])
def test_an_empty_name_is_not_the_whole_host(capsys, words):
    with pytest.raises(SystemExit) as end:
        main(["collapse", *words, "--dry-run"])
    assert end.value.code == 2 and "take a name" in capsys.readouterr().err


@pytest.mark.parametrize("words", [(), ("--pid", "1", "--cgroup", "/"), ("--vm", "x", "--cgroup", "/")])
def test_exactly_one_target(capsys, words):
    with pytest.raises(SystemExit) as end:
        main(["collapse", *words])
    assert end.value.code == 2
    assert "one of --pid PID, --cgroup PATH, --vm NAME" in capsys.readouterr().err
