"""The notifier list: who is asked, in which order, until when, and under which locks."""

from __future__ import annotations

import numpy as np
import pytest

from secondsight.errors import UsageError
from secondsight.mm import ksm, rmap
from secondsight.mm.config import HostConfig
from secondsight.mm.fork import exit_mm
from secondsight.mm.host import Host
from secondsight.mm.madvise import madvise
from secondsight.mm.mmu_notifier import MmuNotifier, SleepInAtomic
from support.model import pages


class Told(MmuNotifier):
    """Writes down every call it gets."""

    def __init__(self, name: str, log: list, young: list[int] = ()) -> None:
        self.name, self.log, self.young = name, log, list(young)

    def answer(self, op, start, end):
        self.log.append((self.name, op, start, end))
        out = np.zeros(end - start, np.bool_)
        out[[p - start for p in self.young if start <= p < end]] = True
        return out


class Full(Told):
    def test_young(self, start, end, ask):
        self.asked = [int(p) + start for p in np.flatnonzero(ask)]
        return self.answer("test_young", start, end)

    def clear_young(self, start, end):
        return self.answer("clear_young", start, end)

    def clear_flush_young(self, start, end):
        return self.answer("clear_flush_young", start, end)

    def change_pte(self, page, pte):
        self.log.append((self.name, "change_pte", page))

    def invalidate_range_start(self, start, end):
        self.log.append((self.name, "start", start, end))

    def invalidate_range_end(self, start, end):
        self.log.append((self.name, "end", start, end))

    def release(self):
        self.log.append((self.name, "release"))


def host_with(*notifiers: MmuNotifier, rules: str = "6.1", **config: object):
    host = Host(rules, HostConfig(**config))
    mm = host.mm("p", 1)
    for notifier in notifiers:
        mm.notifiers.register(notifier)
    return host, mm


ASK = np.ones(8, np.bool_)


def test_the_newest_is_asked_first_and_a_young_page_no_further() -> None:
    log: list = []
    old, new = Full("old", log, [1, 2]), Full("new", log, [2, 3])
    _, mm = host_with(old, new)
    answers = mm.notifiers.test_young(0, 8, ASK)
    assert [name for name, *_ in answers] == ["new", "old"]
    assert new.asked == list(range(8)) and old.asked == [0, 1, 4, 5, 6, 7]
    assert [np.flatnonzero(y).tolist() for _, _, y in answers] == [[2, 3], [1]]
    assert ASK.all(), "the caller's mask is left alone"


def test_clearing_asks_everyone_and_ors() -> None:
    for op in ("clear_young", "clear_flush_young"):
        log: list = []
        _, mm = host_with(Full("old", log, [1]), Full("new", log, [2]))
        young = getattr(mm.notifiers, op)(0, 8)
        assert np.flatnonzero(young).tolist() == [1, 2]
        assert [(name, call) for name, call, *_ in log] == [("new", op), ("old", op)]


def test_before_4_3_ageing_without_a_flush_flushes() -> None:
    log: list = []
    _, mm = host_with(Full("only", log), rules="2.6.38")
    mm.notifiers.clear_young(0, 8)
    assert log == [("only", "clear_flush_young", 0, 8)]


def test_a_missing_op_is_a_silent_no() -> None:
    log: list = []
    bare = MmuNotifier()
    _, mm = host_with(Full("full", log, [4]), bare)
    answers = mm.notifiers.test_young(0, 8, ASK)
    assert answers[0][0] == "notifier" and not answers[0][1].any() and not answers[0][2].any()
    assert np.flatnonzero(answers[1][2]).tolist() == [4]
    assert mm.notifiers.clear_flush_young(0, 8).tolist() == [False] * 4 + [True] + [False] * 3
    mm.notifiers.change_pte(0, np.uint64(1))
    mm.notifiers.invalidate_range(0, 8)
    exit_mm(mm)
    assert log[-1] == ("full", "release")


def test_without_a_notifier_the_answer_is_no() -> None:
    _, mm = host_with()
    assert mm.notifiers.test_young(0, 8, ASK) == []
    assert not mm.notifiers.clear_young(0, 8).any() and not mm.notifiers
    log: list = []
    notifier = Full("gone", log, [1])
    mm.notifiers.register(notifier)
    mm.notifiers.unregister(notifier)
    assert log == [("gone", "release")] and mm.notifiers.test_young(0, 8, ASK) == []
    mm.notifiers.unregister(notifier)
    assert log == [("gone", "release")]


def test_a_kernel_built_without_notifiers_has_stubs_that_answer_no() -> None:
    log: list = []
    _, mm = host_with(Full("ignored", log, [1]), mmu_notifier=False)
    assert not mm.notifiers and mm.notifiers.test_young(0, 8, ASK) == []
    assert not mm.notifiers.clear_young(0, 8).any() and not mm.notifiers.clear_flush_young(0, 8).any()
    mm.notifiers.invalidate_range(0, 8)
    # The primary accessed bit is cleared and carried over all the same.
    mm.cpu_access(pages(0, 0), write=True)
    mm.host.drain()
    rmap.age(mm, pages(0, 0))
    assert not mm.arrays.pte[0] & np.uint64(1 << 5)
    assert log == []


def test_registering_twice_is_refused() -> None:
    notifier = Full("twice", [])
    _, mm = host_with(notifier)
    with pytest.raises(UsageError, match="twice is already registered"):
        mm.notifiers.register(notifier)


class Sleeper(MmuNotifier):
    name = "sleeper"

    def __init__(self, op: str) -> None:
        setattr(self, op, self._sleep)

    def _sleep(self, *args):
        self.context.might_sleep("mutex_lock in the sleeper")


def test_sleeping_under_the_pte_lock_names_both() -> None:
    _, mm = host_with(Sleeper("test_young"))
    with pytest.raises(
        SleepInAtomic, match=r"mutex_lock in the sleeper would sleep inside .*test_young.*PTE lock"
    ):
        mm.notifiers.test_young(0, 8, ASK)
    assert mm.notifiers.context.held == [], "everything is let go of"


@pytest.mark.parametrize(("rules", "sleeps"), [("2.6.38", False), ("6.1", True), ("7.2", True)])
def test_rcu_forbids_sleep_and_srcu_permits_it(rules, sleeps) -> None:
    _, mm = host_with(Sleeper("invalidate_range_start"), rules=rules)
    if sleeps:
        mm.notifiers.invalidate_range(0, 8)
    else:
        with pytest.raises(SleepInAtomic, match="__mmu_notifier_invalidate_range_start, which holds the RCU"):
            mm.notifiers.invalidate_range(0, 8)


def test_registering_inside_a_callback_is_an_error() -> None:
    class Recursive(MmuNotifier):
        name = "recursive"

        def test_young(self, start, end, ask):
            self.mm.notifiers.register(MmuNotifier())

    bad = Recursive()
    _, bad.mm = host_with(bad)
    with pytest.raises(SleepInAtomic, match="mmu_notifier_register would sleep"):
        bad.mm.notifiers.test_young(0, 8, ASK)


def test_a_range_is_invalidated_from_start_to_end_by_everyone() -> None:
    log: list = []
    _, mm = host_with(Full("old", log), Full("new", log))
    mm.notifiers.invalidate_range(2, 6)
    assert log == [("new", "start", 2, 6), ("old", "start", 2, 6), ("new", "end", 2, 6), ("old", "end", 2, 6)]


def test_khugepaged_asks_in_the_scan_and_has_zapped_before_isolate() -> None:
    log: list = []
    host, mm = host_with(Full("only", log, [3]))
    mm.cpu_access(pages(0), write=True)
    host.drain()
    mm.arrays.pte[:] &= ~np.uint64(1 << 5)
    madvise(mm, 0, 512, "hugepage")
    host.khugepaged.full_scan()
    assert [op for _, op, *_ in log] == ["test_young", "start", "end"]


class OldStyle(MmuNotifier):
    name = "old style"

    def __init__(self) -> None:
        self.dropped: list[int] = []

    def invalidate_page(self, page):
        self.dropped.append(page)


def test_in_2010_a_notifier_without_change_pte_was_told_to_drop_the_page() -> None:
    """2.6.38, __mmu_notifier_change_pte: "Some drivers don't have change_pte, so we must call invalidate_page in that case."."""
    old = OldStyle()
    host, mm = host_with(old, rules="2.6.38")
    mm.cpu_access(pages(0, 1, 2), write=True, value=7)
    host.drain()
    madvise(mm, 0, 512, "mergeable")
    assert ksm.merge(host) == 1
    assert 2 in old.dropped
