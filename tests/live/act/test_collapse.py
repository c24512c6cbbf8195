"""Collapsing: limits, budget and pace kept, errnos told, the first refusal the last call, the end of the process seen."""

import errno

import msgspec
import numpy as np
import pytest

from secondsight.bits import pagemap as pm
from secondsight.errors import TargetGone
from secondsight.live.act import collapse, madvise
from secondsight.live.act.candidates import Choice, Selection
from secondsight.live.act.collapse import Collapser, Throttle
from secondsight.live.act.guard import Guard
from secondsight.live.read.limits import Limit
from secondsight.live.read.resident import Resident
from secondsight.live.read.vma import Vma
from support.snapshots import BLOCK, START

OWN = pm.PRESENT | pm.EXCLUSIVE
MIB = 1 << 20


class Target:
    """A process whose memory is *huge* of *total* blocks; dies after *lives* calls. Its own pagemap."""

    pid, pidfd, name = 4242, 9, "target"

    def __init__(self, total=10, lives=1 << 30):
        self.total, self.huge, self.lives = total, 0, lives
        self.errors, self.own, self.execs = [], 512, None
        self.mapped = True

    def alive(self):
        return self.lives > 0

    def read_file(self, name):
        assert name == "maps"
        if not self.alive():
            raise TargetGone("process 4242 has gone")
        return (
            f"{START:x}-{START + self.total * BLOCK * self.mapped + 4096:x} rw-p 00000000 00:00 0 \n".encode()
        )

    def read(self, address, pages):
        if not self.alive() or (self.execs is not None and self.huge >= self.execs):
            raise TargetGone("its address space has gone")
        words = np.zeros(pages, np.uint64)
        words[: self.own] = OWN
        return words

    def huge_blocks(self, blocks):
        return np.ones(len(blocks), bool)


class Freely(Guard):
    """A guard that allows everything but what a test takes away."""

    start = Limit("memory.max", "/x", 64 * MIB, 20 * MIB)
    derived = True

    def __init__(self, allowance=1 << 40):
        self.allowance, self.reasons, self.met, self.spent = allowance, [], [0], 0

    def refusals(self):
        return self.met[0] if len(self.met) == 1 else self.met.pop(0)

    def fits(self, added):
        return self.spent + added <= self.allowance

    def refusal(self, added):
        return self.reasons.pop(0) if self.reasons else ""


@pytest.fixture
def target(monkeypatch):
    made = Target()

    def fake(pidfd, address):
        made.lives -= 1
        number = made.errors.pop(0) if made.errors else 0
        made.huge += number == 0
        return number

    def sums(process, memory, spans, within):
        if not process.alive():
            raise TargetGone("process 4242 has gone")
        return Resident(2 * process.total * BLOCK, process.total * BLOCK, process.huge * BLOCK)

    monkeypatch.setattr(madvise, "collapse", fake)
    monkeypatch.setattr(collapse, "measure", sums)
    monkeypatch.setattr(collapse, "failed_allocations", lambda: 7)
    return made


def some(count, left=None):
    chosen = [Choice(START + i * BLOCK, 512, None, 0) for i in range(count)]
    vma = Vma(START, START + count * BLOCK, "rw-p", 0, "00:00", 0, "")
    return Selection(chosen, dict(left or {}), count + sum((left or {}).values()), [vma])


class Stop:
    """Waits that are interrupted after some."""

    def __init__(self, after):
        self.after = after

    def __call__(self, seconds):
        self.after -= 1
        return self.after < 0


def carry_out(target, selection, pace=None, wait=lambda seconds: False, guard=None):
    done = Collapser(target, target, guard or Freely(), pace or Throttle(), wait).run(selection)
    if done.stopped not in (collapse.EXITED, collapse.EXEC):
        accounted = done.collapsed + sum(done.refused.values()) + sum(done.left.values())
        assert accounted == done.considered, "every block has its one place"
    return done


def test_counts_causes_and_proof(target):
    target.errors = [errno.EINVAL, 0, errno.EAGAIN, errno.EAGAIN, 0]
    target.own = 500
    done = carry_out(target, some(5))
    assert (done.collapsed, done.confirmed, done.added) == (2, 2, 2 * 12 * 4096)
    assert list(done.refused.values()) == [2, 1]
    assert next(iter(done.refused)).startswith("EAGAIN: a page is pinned")
    assert (done.before.huge, done.after.huge) == (0, 2 * BLOCK) and not done.failed


def test_what_is_added_is_counted_when_it_is_added(target):
    """Shared pages, holes and zero pages: whatever this process does not map alone."""
    target.own = 0
    assert carry_out(target, some(3)).added == 3 * BLOCK


def test_against_the_administrator_counts_what_was_collapsed(target):
    chosen = some(5)
    blocks = [msgspec.structs.replace(each, against="enabled=never") for each in chosen.chosen[:3]]
    target.errors, target.own = [errno.EINVAL], 512
    done = carry_out(target, chosen._replace(chosen=[*blocks, *chosen.chosen[3:]]), wait=Stop(after=4))
    # The first was refused, the last was not reached; of the three collapsed two were against a switch.
    assert (done.collapsed, done.overridden) == (3, {"enabled=never": 2})


def test_no_room_for_it_leaves_a_block_alone(target):
    target.own = 256
    done = carry_out(target, some(5), guard=Freely(allowance=2 * MIB))
    assert done.collapsed == 2 and done.added == 2 * MIB and done.failed
    (reason,) = done.left
    assert done.left[reason] == 3 and "half of what its limits leave" in reason and "cgroup /x" in reason


def test_many_rounds_have_one_allowance(target):
    """Half of what is left, round by round, would be all of it in the end."""
    target.own, guard = 256, Freely(allowance=3 * MIB)
    assert carry_out(target, some(2), guard=guard).added == 2 * MIB
    assert carry_out(target, some(5), guard=guard).added == MIB and guard.spent == 3 * MIB


def test_an_allowance_of_the_users_own_is_no_failure(target):
    guard = Freely(allowance=MIB)
    guard.derived, target.own = False, 256
    done = carry_out(target, some(3), guard=guard)
    assert done.collapsed == 1 and not done.failed and "--max-added 1.0 MiB" in next(iter(done.left))


def test_it_stops_before_a_limit(target):
    guard = Freely()
    guard.reasons = ["", "", "memory.max of cgroup /x: full"]
    done = carry_out(target, some(5), guard=guard)
    assert done.collapsed == 2 and done.failed and done.stopped.endswith("full")
    assert done.left == {"not reached: memory.max of cgroup /x: full": 3}


def test_a_host_that_reclaims_is_waited_for(target):
    guard, waits = Freely(), []
    guard.reasons = ["free memory is below the low watermark", "free memory is below the low watermark"]
    done = carry_out(target, some(1), wait=lambda seconds: waits.append(seconds) or False, guard=guard)
    assert done.collapsed == 1 and [each for each in waits if each] == [0.2, 0.2]
    guard.reasons = ["free memory is below the low watermark"] * 9
    assert carry_out(target, some(1), guard=guard).failed


def test_the_first_refused_charge_is_the_last(target):
    target.errors = [0, errno.EBUSY, 0]
    guard = Freely()
    guard.met = [3, 3, 4]
    done = carry_out(target, some(5), guard=guard)
    assert done.collapsed == 1 and done.failed and target.huge == 1
    assert done.refused == {"EBUSY: the memory cgroup refused the charge": 1}


def test_without_the_cgroups_counter_a_busy_page_may_be_a_refused_charge(target):
    target.errors = [errno.EBUSY, 0]
    guard = Freely()
    guard.met = [None, None]
    done = carry_out(target, some(2), guard=guard)
    (why,) = done.refused
    assert done.failed and "cannot be read" in why and "userfaultfd" in why


def test_a_busy_page_is_no_refused_charge(target):
    target.errors = [errno.EBUSY, 0]
    done = carry_out(target, some(2))
    assert done.collapsed == 1 and not done.failed


def test_the_first_refused_allocation_is_the_last(target, monkeypatch):
    failures = iter((7, 8, 9, 10))
    monkeypatch.setattr(collapse, "failed_allocations", lambda: next(failures))
    target.errors = [errno.ENOMEM, 0]
    done = carry_out(target, some(3))
    assert (done.collapsed, done.failed) == (0, True) and done.stopped.startswith("ENOMEM: no huge page")


def test_what_was_unmapped_meanwhile_is_no_refused_allocation(target):
    target.errors, target.mapped = [errno.ENOMEM, 0], False
    done = carry_out(target, some(2))
    assert done.collapsed == 1 and not done.failed and not done.stopped


def test_until_coverage(target):
    done = carry_out(target, some(10), Throttle(until=0.5))
    assert done.collapsed == 5 and done.stopped == "coverage reached" and done.coverage == 0.5
    assert done.after.share == 0.25, "of the resident, beside that of the eligible"


def test_coverage_is_reached_by_the_last_block_too(target):
    assert carry_out(target, some(5), Throttle(until=0.5)).stopped == "coverage reached"
    target.huge = 0
    assert carry_out(target, some(4), Throttle(until=0.5)).stopped == ""


def test_the_budget_is_a_pace(target):
    waits = []

    def wait(seconds):
        waits.append(seconds)
        return len(waits) == 4

    done = carry_out(target, some(10), Throttle(budget=BLOCK), wait)
    assert done.collapsed == 3 and done.stopped == "interrupted"
    assert waits[0] == 0 and all(0.5 < w <= n for n, w in zip((1, 2, 3), waits[1:], strict=True))


def test_long_calls_rest_then_end(target, monkeypatch):
    clock = iter(range(10_000))
    monkeypatch.setattr(collapse.time, "monotonic", lambda: next(clock))
    rests = []
    done = carry_out(
        target, some(10), Throttle(max_stall=0.5), lambda seconds: rests.append(seconds) or False
    )
    assert done.collapsed == 4 and "longer than 500 ms" in done.stopped
    assert [r for r in rests if r] == [1.0, 2.0, 4.0]


def test_a_process_that_dies(target):
    target.lives = 3
    done = carry_out(target, some(10))
    assert done.collapsed == 3 and done.stopped == collapse.EXITED
    assert done.confirmed is None and done.after is None and done.coverage is None, "nobody could look"


def test_an_exec_ends_it_for_the_blocks_are_another_programs(target):
    target.execs = 3
    done = carry_out(target, some(10))
    assert (done.collapsed, done.stopped, done.refused) == (3, collapse.EXEC, {})
    assert done.confirmed is None and done.after is None


def test_shared_blocks_that_were_refused_count_though_nothing_of_them_is_mapped_here(target):
    """Two of four collapsed is half of the memory that was chosen, not all of it."""

    class Cache:
        def cached(self, address):
            return 512

    target.errors, target.total, target.own = [errno.EBUSY, errno.EBUSY, 0, 0], 0, 0
    chosen = [msgspec.structs.replace(each, shared=True) for each in some(4).chosen]
    work = Collapser(target, target, Freely(), Throttle(), lambda seconds: False, Cache())
    done = work.run(some(4)._replace(chosen=chosen))
    assert (done.collapsed, done.before.eligible, done.after.eligible) == (2, 4 * BLOCK, 4 * BLOCK)
    assert done.coverage == 0.5
