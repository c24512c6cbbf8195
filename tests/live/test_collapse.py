"""Choosing and collapsing: the budget kept, errnos told, NOHUGEPAGE left alone, the end of the process seen."""

import errno

import numpy as np
import pytest

from secondsight.bits import pte as bits
from secondsight.errors import TargetGone, UsageError
from secondsight.live import collapse, madvise
from secondsight.live.collapse import (
    Choice,
    Limits,
    carry_out,
    choices,
    parse_budget,
    parse_coverage,
    parse_stall,
)
from secondsight.policy.registry import make
from support.snapshots import BLOCK, START, columns, snapshot, with_vm


class Target:
    """A process whose memory is *huge* of *total* blocks; dies after *lives* calls."""

    pid, pidfd, name = 4242, 9, "target"

    def __init__(self, total=10, lives=1 << 30):
        self.total, self.huge, self.lives = total, 0, lives

    def alive(self):
        return self.lives > 0

    def read_file(self, name):
        if not self.alive():
            raise TargetGone("process 4242 has gone")
        end = START + self.total * BLOCK
        return (
            f"{START:x}-{end:x} rw-p 00000000 00:00 0 \nAnonymous: {self.total * 2048} kB\n"
            f"AnonHugePages: {self.huge * 2048} kB\nVmFlags: rd wr hg\n"
        ).encode()


@pytest.fixture
def target(monkeypatch):
    made = Target()

    def fake(pidfd, address):
        made.lives -= 1
        number = made.errors.pop(0) if made.errors else 0
        made.huge += number == 0
        return number

    made.errors = []
    monkeypatch.setattr(madvise, "collapse", fake)
    monkeypatch.setattr(collapse, "_confirmed", lambda process, addresses: len(addresses))
    return made


def some(count):
    return [Choice(START + i * BLOCK, 500, None, 12) for i in range(count)]


def test_counts_causes_and_proof(target):
    target.errors = [errno.ENOMEM, 0, errno.EAGAIN, errno.EAGAIN, 0]
    done = carry_out(target, some(5), Limits(), lambda seconds: False)
    assert (done.collapsed, done.confirmed, done.bloat) == (2, 2, 2 * 12 * 4096)
    assert list(done.refused.values()) == [2, 1] and next(iter(done.refused)).startswith(
        "EAGAIN: a page is pinned"
    )
    assert (done.huge_before, done.huge_after) == (0, 2 * BLOCK)


def test_until_coverage(target):
    full = [Choice(START + i * BLOCK, 512, None, 0) for i in range(10)]
    done = carry_out(target, full, Limits(until=0.5), lambda seconds: False)
    assert done.collapsed == 5 and done.stopped == "coverage reached" and done.coverage == 0.5


def test_coverage_is_reached_by_the_last_block_too(target):
    full = [Choice(START + i * BLOCK, 512, None, 0) for i in range(5)]
    assert carry_out(target, full, Limits(until=0.5), lambda seconds: False).stopped == "coverage reached"
    target.huge = 0
    assert carry_out(target, full[:4], Limits(until=0.5), lambda seconds: False).stopped == ""


def test_the_budget_is_a_pace(target):
    waits = []

    def wait(seconds):
        waits.append(seconds)
        return len(waits) == 4

    done = carry_out(target, some(10), Limits(budget=BLOCK), wait)
    assert done.collapsed == 3 and done.stopped == "interrupted"
    assert waits[0] == 0 and all(0.5 < w <= n for n, w in zip((1, 2, 3), waits[1:], strict=True))


def test_long_calls_rest_then_end(target, monkeypatch):
    clock = iter(range(10_000))
    monkeypatch.setattr(collapse.time, "monotonic", lambda: next(clock))
    rests = []
    done = carry_out(target, some(10), Limits(max_stall=0.5), lambda seconds: rests.append(seconds) or False)
    assert done.collapsed == 4 and "longer than 500 ms" in done.stopped
    assert [r for r in rests if r] == [1.0, 2.0, 4.0]


def test_a_process_that_dies(target):
    target.lives = 3
    done = carry_out(target, some(10), Limits(), lambda seconds: False)
    assert done.collapsed == 3 and done.stopped == collapse.EXITED
    assert done.confirmed is None and done.huge_after is None and done.coverage is None, "nobody could look"


def test_an_exec_ends_it_for_the_blocks_are_another_programs(target):
    class Memory:
        def read(self, address, pages):
            if target.huge >= 3:
                raise TargetGone("its address space has gone")

    done = carry_out(target, some(10), Limits(), lambda seconds: False, memory=Memory())
    assert (done.collapsed, done.stopped, done.refused) == (3, collapse.EXEC, {})
    assert done.confirmed is None and done.huge_after is None


def test_guest_only_blocks_are_chosen_and_idle_ones_not():
    young = np.zeros((4, 512), bool)
    young[1, :5] = young[3, :] = True
    chosen = choices(snapshot(with_vm(columns(4), young)), make("khugepaged"), Limits())
    assert [(c.address - START) // BLOCK for c in chosen] == [3, 1], "the most used first"
    assert [c.used for c in chosen] == [512, 5]


def test_unknown_use_is_chosen_unless_certainty_is_asked():
    found = columns(2, secondary=False)
    found.pte_known[0] = False
    found.pte[1, 0] |= bits.ACCESSED
    every = choices(snapshot(found), make("khugepaged"), Limits())
    sure = choices(snapshot(found), make("khugepaged"), Limits(certain=True))
    assert [c.used for c in every] == [1, None] and [c.used for c in sure] == [1]


@pytest.mark.parametrize("flags", [("nh",), ("nh", "hg"), ("ht",), ("pf",)])
def test_forbidden_mappings_are_never_chosen(flags):
    found = columns(2)
    found.pte[:, :] |= bits.ACCESSED
    for policy in ("khugepaged", "madv_collapse"):
        assert not choices(snapshot(found, flags=flags), make(policy), Limits())


def test_advised_only():
    found = columns(1)
    found.pte[:] |= bits.ACCESSED
    assert choices(snapshot(found, flags=(), enabled="never"), make("madv_collapse"), Limits())
    assert not choices(snapshot(found, flags=()), make("madv_collapse"), Limits(advised=True))


def test_policies_that_would_change_the_target_are_refused():
    with pytest.raises(UsageError, match="clears accessed bits"):
        collapse.check_policy(make("ingens"))


@pytest.mark.parametrize(
    ("text", "value"), [("512MiB/s", 512 << 20), ("1G", 1 << 30), ("4096k/s", 4 << 20), ("2.5MB", 2621440)]
)
def test_budgets(text, value):
    assert parse_budget(text) == value


@pytest.mark.parametrize(
    ("parse", "text"), [(parse_budget, "1MiB/s"), (parse_budget, "fast"), (parse_stall, "5"), (parse_stall, "0ms"),
                        (parse_coverage, "0%"), (parse_coverage, "101%"), (parse_coverage, "95")],
)  # fmt: skip
def test_amounts_that_are_none(parse, text):
    with pytest.raises(UsageError, match="write"):
        parse(text)
