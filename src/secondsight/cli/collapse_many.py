"""``secondsight collapse --cgroup`` and ``--vm``: the processes of a target one after the other, under one budget and one --max-added."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from secondsight.cli.collapse import Rounds
    from secondsight.host.tasks import Task
    from secondsight.live.act.collapse import Round
    from secondsight.live.act.stopping import Stopping
    from secondsight.live.read.process import Process


def run(
    find: Callable[[], list[Task]],
    make: Callable[[Process], Rounds],
    stopping: Stopping,
    *,
    interval: float,
    follow: bool,
) -> int:
    """Collapse in each process that *find* names; its exit code: 1 where one did not end as asked.

    Those whose memory may not be read are told on standard error and left alone; the others are as they were.

    They come one after the other, so that a pace of bytes a second is one over all; what one adds is taken off what the next may. With
    *follow* they are found anew every *interval* seconds: those that came are among them, those that went are not missed.
    """
    from secondsight.errors import UsageError

    closed: set[tuple[int, int]] = set()
    allowance = _Allowance()
    while True:
        code = _once(find, make, stopping, closed, allowance)
        if code or not follow or stopping.wait(interval):
            return code or int(bool(closed))
        try:
            find()
        except UsageError as none:
            print(f"{none}; waiting", flush=True)


class _Allowance:
    """What all processes may add together, in all rounds: what the first might. *left* bytes of it (None before the first) *of* what."""

    def __init__(self) -> None:
        self.left: int | None = None
        self.of = ""

    def take(self, done: Round) -> None:
        """Take off what *done* has added."""
        if self.left is None:
            from secondsight.live.act.guard import mib

            self.left = done.allowance
            given = done.limit.startswith("--max-added")
            self.of = done.limit if given else f"{mib(done.allowance)}, {done.limit}"
        self.left = max(self.left - done.added, 0)


def unreadable(process: Process) -> str:
    """Why the memory of *process* may not be read; empty if it may."""
    from secondsight.errors import MissingDependency
    from secondsight.live.read.procfs import Pagemap

    try:
        with Pagemap(process):
            return ""
    except MissingDependency as missing:
        return str(missing)


def _once(
    find: Callable[[], list[Task]],
    make: Callable[[Process], Rounds],
    stopping: Stopping,
    closed: set[tuple[int, int]],
    allowance: _Allowance,
) -> int:
    """One round over all, which takes what it adds off *allowance*; *closed* takes in those that may not be read (PID, start time), each
    told once."""
    from secondsight.errors import TargetGone, UsageError
    from secondsight.live.read.process import Process
    from secondsight.terminal import printable

    tasks = find()
    code = 0
    for number, task in enumerate(tasks, 1):
        if stopping.asked:
            break
        try:
            with Process.open(task.pid) as process:
                if why := unreadable(process):
                    if (task.pid, task.start_time) not in closed:
                        print(
                            f"process {task.pid} ({printable(task.name)}) left alone: {printable(why)}",
                            file=sys.stderr,
                            flush=True,
                        )
                    closed.add((task.pid, task.start_time))
                    continue
                rounds = make(process)
                rounds.guarding = msgspec.structs.replace(
                    rounds.guarding, left=allowance.left, left_of=allowance.of
                )
                if not rounds.json:
                    print(
                        f"process {task.pid} ({printable(task.name)}), {number} of {len(tasks)}", flush=True
                    )
                code = max(code, rounds.run(stopping, follow=False))
        except (TargetGone, UsageError):
            continue  # it ended since it was found: the others are as they were
        if rounds.last is not None:
            allowance.take(rounds.last)
    return code
